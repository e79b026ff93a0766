"""Two faults at once, on two mirrors, drawn from those that pass: right bytes, and little fetched twice.

GPUARIA_TEST_SEED draws other pairs, GPUARIA_TEST_PAIRS that many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import pytest

from standin import Repo

if TYPE_CHECKING:
    from tests.conftest import Serve, User, contents, expected
else:
    from conftest import Serve, User, contents, expected

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
LASTING = ("flip", "expire", "html")  # also for good, on the mirror alone
SEED = int(os.environ.get("GPUARIA_TEST_SEED", "1"))
COUNT = int(os.environ.get("GPUARIA_TEST_PAIRS", "8"))
PAIRS = random.Random(SEED).sample([*combinations_with_replacement(FAULTS, 2)], COUNT)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """org/pair: a large file, a small one of LFS, and a plain one."""
    chance = random.Random(5)
    files: dict[str, bytes] = {"large.safetensors": chance.randbytes(LARGE), "small.bin": chance.randbytes(SMALL)}
    return Repo.build("org/pair", {**files, "a.txt": b"a"}, folder=tmp_path_factory.mktemp("pair"), direct=True)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[f"{one} and {other}" for one, other in PAIRS])
@pytest.mark.fault(
    "pairs: any two faults that pass, on two mirrors at once",
    where="server",
    does="Goes on with whichever mirror is right at the moment.",
    sees="the mirrors that were left out, and why",
    status=0,
)
def test_two_at_once(user: User, serve: Serve, repo: Repo, one: str, other: str) -> None:
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


@pytest.mark.parametrize("bad", LASTING)
@pytest.mark.parametrize("passing", ["reset", "503"])
@pytest.mark.fault(
    "pairs: a mirror that is wrong for good beside one that has a bad moment",
    where="server",
    does="Waits for the one that gets well.",
    sees="the mirror that was left out, and why",
    status=0,
)
def test_a_bad_mirror_beside_a_shaky_one(user: User, serve: Serve, repo: Repo, bad: str, passing: str) -> None:
    hubs = [serve(repo), serve(repo, host="127.0.0.2")]
    for suffix in ("large.safetensors", "small.bin"):
        kind, args = FAULTS[passing]
        hubs[0].cdn.fault(suffix, kind, **args)
        kind, args = FAULTS[bad]
        hubs[1].cdn.fault(suffix, kind, **{**args, "times": None})
    words = ("fetch", "org/pair", "--to", "out", "--json", "--patience", "30s", "--mirror", hubs[1].url)
    user.quick(*words, GPUARIA_TIMEOUT="1s", GPUARIA_CONNECT_TIMEOUT="1s").ok()
    assert contents(user.home / "out") == expected(repo)
