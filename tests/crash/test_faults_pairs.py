"""Random pairs of temporary faults: the bytes are correct, and few are downloaded twice.

GPUARIA_TEST_SEED changes the pairs, GPUARIA_TEST_PAIRS their number.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations_with_replacement, product
from typing import Any

import pytest

from standin import Repo
from tests.support.repos import contents, expected
from tests.support.seed import SEED
from tests.support.user import Serve, User

LARGE, SMALL = 9_000_000, 300_000
FAULTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "short": ("short", {"times": 3, "after": 100_000}),
    "reset": ("reset", {"times": 3, "after": 50_000}),
    "stall": ("stall", {"times": 2, "after": 80_000}),
    "slow": ("slow", {"times": 2, "rate": 1}),
    "flip": ("flip", {"times": 1, "offset": 150_000}),
    "changed": ("changed", {"times": 1}),
    "expire": ("expire", {"times": 2}),
    "503": ("status", {"times": 2, "status": 503}),
    "429": ("status", {"times": 2, "status": 429, "retry_after": 1}),
    "404": ("status", {"times": 2, "status": 404}),
    "html": ("html", {"times": 2}),
    "other size": ("wrong_size", {"times": 2}),
    "no ranges": ("ignore_range", {"times": 3}),
    "other part": ("other_part", {"times": 2, "delta": 16384}),
    "chunked": ("chunked", {"times": 2}),
    "circle": ("redirect", {"times": 2, "status": 302}),
}
LASTING = ("flip", "expire", "html")  # permanent faults, on the mirror only
COUNT = int(os.environ.get("GPUARIA_TEST_PAIRS", "20"))
FAST = 4  # pairs; the others run with `make faults`
CHANCE = random.Random(SEED)
PAIRS = CHANCE.sample([*combinations_with_replacement(FAULTS, 2)], COUNT)
KILLED = [
    (name, CHANCE.choice([signal.SIGKILL, signal.SIGTERM]), CHANCE.uniform(0.2, 2.5))
    for name in CHANCE.sample([*FAULTS], 10)
]


def drawn(rows: Sequence[Any], fast: int, ids: Callable[[Any], str]) -> list[Any]:
    """Return random rows of a test; the first few are the fast subset."""
    return [
        pytest.param(*row, id=ids(row), marks=[pytest.mark.deep] if number >= fast else [])
        for number, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return org/pair: a large file, a small LFS file, and a plain one."""
    chance = random.Random(5)
    files: dict[str, bytes] = {"large.safetensors": chance.randbytes(LARGE), "small.bin": chance.randbytes(SMALL)}
    return Repo.build("org/pair", {**files, "a.txt": b"a"}, folder=tmp_path_factory.mktemp("pair"), direct=True)


@pytest.mark.parametrize(("one", "other"), drawn(PAIRS, FAST, " and ".join))
@pytest.mark.fault(
    "pairs: any two temporary faults, on two mirrors at once",
    where="server",
    does="Continues with the mirror that works at the moment.",
    sees="the dropped mirrors, with the reasons",
    status=0,
)
def test_two_temporary_faults_at_once(user: User, serve: Serve, repo: Repo, one: str, other: str) -> None:
    hubs = [serve(repo), serve(repo, host="127.0.0.2")]
    for hub, name in zip(hubs, (one, other), strict=True):
        kind, args = FAULTS[name]
        for suffix in ("large.safetensors", "small.bin"):
            hub.cdn.fault(suffix, kind, **args)
    words = ("fetch", "org/pair", "--to", "out", "--json", "--patience", "30s", "--mirror", hubs[1].url)
    done = user.quick(*words, GPUARIA_TIMEOUT="1s", GPUARIA_CONNECT_TIMEOUT="1s").ok()
    assert contents(user.home / "out") == expected(repo)
    wrong = {"flip", "changed"} & {one, other}
    assert done.report["bytes_fetched"] < (LARGE + SMALL) * (3.1 if wrong else 1.5)


@pytest.mark.parametrize(("passing", "bad"), drawn([*product(["reset", "503"], LASTING)], 2, " and ".join))
@pytest.mark.fault(
    "pairs: one mirror is permanently wrong, another one fails for a while",
    where="server",
    does="Waits until the second one recovers.",
    sees="the dropped mirror, with the reason",
    status=0,
)
def test_a_faulty_mirror_next_to_an_unstable_one(user: User, serve: Serve, repo: Repo, bad: str, passing: str) -> None:
    hubs = [serve(repo), serve(repo, host="127.0.0.2")]
    for suffix in ("large.safetensors", "small.bin"):
        kind, args = FAULTS[passing]
        hubs[0].cdn.fault(suffix, kind, **args)
        kind, args = FAULTS[bad]
        hubs[1].cdn.fault(suffix, kind, **{**args, "times": None})
    words = ("fetch", "org/pair", "--to", "out", "--json", "--patience", "30s", "--mirror", hubs[1].url)
    user.quick(*words, GPUARIA_TIMEOUT="1s", GPUARIA_CONNECT_TIMEOUT="1s").ok()
    assert contents(user.home / "out") == expected(repo)


@pytest.mark.parametrize(
    ("name", "how", "moment"), drawn(KILLED, 2, lambda row: f"{row[0]} and {row[1].name} after {row[2]:.1f} s")
)
@pytest.mark.fault(
    "pairs: a temporary fault, and the run is killed or stopped during it",
    where="machine",
    does="The next run resumes.",
    sees="nothing, or one line about the wait",
    status=0,
)
def test_a_temporary_fault_and_a_killed_run(
    user: User, serve: Serve, repo: Repo, name: str, how: signal.Signals, moment: float
) -> None:
    hub = serve(repo, limit_rate=300_000)
    kind, args = FAULTS[name]
    for suffix in ("large.safetensors", "small.bin"):
        hub.cdn.fault(suffix, kind, **args)
    words = ("fetch", "org/pair", "--to", "out", "--patience", "30s")
    quick = {"GPUARIA_TIMEOUT": "1s", "GPUARIA_CONNECT_TIMEOUT": "1s"}
    run = user.start(*words, **quick)
    with suppress(subprocess.TimeoutExpired):
        run.wait(0.7 + moment)
    run.send_signal(how)
    assert run.wait(20) in (0, 130, -signal.SIGKILL)
    there = contents(user.home / "out") if (user.home / "out").is_dir() else {}
    assert there.items() <= expected(repo).items()
    user.run(*words, **quick).ok()
    assert contents(user.home / "out") == expected(repo)
