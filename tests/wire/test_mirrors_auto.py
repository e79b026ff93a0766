"""Known mirrors that are added automatically (`mirrors: auto`) if the endpoint is dead, blocked or slow."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gpuaria.urls import authority
from standin import Hub, Repo
from tests.support.user import Done, Serve, User

DEAD = "http://127.0.0.1:9"  # the discard port: nothing listens
NAME = "openai-community/gpt2-medium"
PAGE = b"<!DOCTYPE html><html><body>This page is blocked.</body></html>"
FILES: dict[str, bytes | Path] = {"config.json": b'{"a": 1}', "model.safetensors": b"w" * 40_000}
privileged = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare, for a hosts file of its own"
)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return a small gpt2-medium, also under its short name."""
    return Repo.build(NAME, FILES, folder=tmp_path / "store")


@pytest.fixture
def silent() -> Iterator[str]:
    """Serve a port that accepts and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def known(user: User, serve: Serve, repo: Repo) -> list[Hub]:
    """Replace the shipped mirrors by two stand-ins in a site file, without a flag or a variable."""
    hubs = [serve(repo, name="one", host="127.0.0.2"), serve(repo, name="two", host="127.0.0.3")]
    site(user, {"hf-mirror": hubs[0].url, "sufy": hubs[1].url})
    return hubs


def site(user: User, rows: dict[str, str]) -> None:
    """Write the site file."""
    folder = user.temp / "site"
    (folder / "gpuaria").mkdir(parents=True, exist_ok=True)
    lines = "".join(f"  - {{name: {name}, base: '{base}'}}\n" for name, base in rows.items())
    (folder / "gpuaria/config.yaml").write_text(f"known_mirrors:\n{lines}")
    user.env |= {"XDG_CONFIG_DIRS": str(folder), "GPUARIA_MIRRORS": "", "TZ": "UTC"}


def warned(done: Done) -> list[str]:
    return [event["text"] for event in done.events if event["event"] == "warned"]


def joined(done: Done, because: str) -> None:
    """Check that the two mirrors completed the fetch, and that one line gives the reason and the setting."""
    done.ok()
    assert done.report["trust"] == "quorum"
    (line,) = [text for text in warned(done) if "(mirrors: auto" in text]
    assert because in line
    assert "hf-mirror and sufy join" in line
    assert {use["name"] for use in done.report["mirrors"]} <= {"hf-mirror", "sufy"}
    assert sum(use["files"] for use in done.report["mirrors"]) == len(FILES)


def timed(run: Callable[[], Done]) -> tuple[Done, float]:
    began = time.monotonic()
    return run(), time.monotonic() - began


def as_fast_as_named(user: User, known: list[Hub], endpoint: str) -> Done:
    """Check that a run without flags takes at most 10 s longer than one with named mirrors."""
    user.env["HF_ENDPOINT"] = endpoint
    flags = [word for hub in known for word in ("--mirror", hub.url)]
    named, normal = timed(lambda: user.run("fetch", "--repo", "gpt2-medium", "--to", "named", "--json", *flags))
    named.ok()
    done, taken = timed(lambda: user.run("fetch", "--repo", "gpt2-medium", "--to", "got", "--json"))
    assert taken < normal + 10
    assert taken < 10
    return done


@pytest.mark.fault(
    "endpoint: refuses connections, and no mirror is configured",
    where="server",
    does="Adds known mirrors.",
    sees="the reason, the mirrors added, and the setting that prevents it",
    status=0,
)
def test_connection_refused(user: User, known: list[Hub]) -> None:
    joined(as_fast_as_named(user, known, DEAD), "cannot connect to 127.0.0.1:9")


@pytest.mark.fault(
    "endpoint: does not respond, and no mirror is configured",
    where="server",
    does="Adds known mirrors after 3 s.",
    sees="the reason, the mirrors added, and the setting that prevents it",
    status=0,
)
def test_no_response(user: User, known: list[Hub], silent: str) -> None:
    joined(as_fast_as_named(user, known, silent), f"{silent[7:]} does not respond within 3 s")


@privileged
@pytest.mark.fault(
    "endpoint: DNS returns a false address, and no mirror is configured",
    where="server",
    does="Adds known mirrors.",
    sees="the false address, the mirrors added, and the setting that prevents it",
    status=0,
)
def test_false_dns_address(user: User, known: list[Hub], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n127.0.0.77 hub.example.com\n")
    (tmp_path / "nss").write_text("hosts: files\n")
    own = f"mount --bind {tmp_path}/hosts /etc/hosts && mount --bind {tmp_path}/nss /etc/nsswitch.conf"
    words = ("-m", "gpuaria", "fetch", "--repo", "gpt2-medium", "--to", "got", "--json")
    env = {"HF_ENDPOINT": "http://hub.example.com:8011", "GPUARIA_RESOLVERS": "system"}
    done, taken = timed(
        lambda: user.command("unshare", "-m", "sh", "-c", f'{own} && exec "$@"', "sh", sys.executable, *words, env=env)
    )
    joined(done, "DNS gives a false address for hub.example.com:8011 (127.0.0.77 is a loopback address)")
    assert taken < 10


@pytest.mark.fault(
    "endpoint: a block page responds instead (403), and no mirror is configured",
    where="server",
    does="Adds known mirrors.",
    sees="that the endpoint is blocked, the mirrors added, and the setting that prevents it",
    status=0,
)
@pytest.mark.parametrize("status", [403, 451, 200])
def test_block_page(user: User, serve: Serve, known: list[Hub], repo: Repo, status: int) -> None:
    hub = serve(repo, name="blocked")
    hub.fault("", status=status, headers={"content-type": "text/html"}, body=PAGE)
    done = as_fast_as_named(user, known, hub.url)
    joined(done, "is blocked (" if status != 200 else "does not respond like a hub (text/html instead of JSON)")


def test_a_healthy_endpoint_gets_no_mirrors(user: User, serve: Serve, known: list[Hub], repo: Repo) -> None:
    user.env["HF_ENDPOINT"] = serve(repo, name="hub").url
    done = user.quick("fetch", "--repo", NAME, "--to", "got", "--json").ok()
    assert done.report["trust"] == "origin"
    assert (warned(done), [hub.count() for hub in known]) == ([], [0, 0])


@pytest.mark.parametrize(
    ("env", "words", "said"),
    [
        ({"GPUARIA_MIRRORS": "none"}, (), ""),
        ({"HF_TOKEN": "hf_a_good_one"}, (), "a token is set"),
        ({"GPUARIA_TRUST": "origin"}, (), ""),
        ({}, ("--mirror", "http://127.0.0.1:9"), ""),
    ],
)
def test_settings_that_allow_no_mirror(
    user: User, known: list[Hub], env: dict[str, str], words: tuple[str, ...], said: str
) -> None:
    user.env["HF_ENDPOINT"] = "http://localhost:9"
    done = user.quick("fetch", "--repo", NAME, "--to", "got", *words, **env)
    done.refused(7, "cannot connect", said)
    assert [hub.count() for hub in known] == [0, 0]


def test_shipped_mirrors_are_not_added_to_a_private_endpoint(user: User) -> None:
    user.env |= {"GPUARIA_MIRRORS": "auto", "HF_ENDPOINT": DEAD}
    user.quick("fetch", "--repo", NAME).refused(7, "cannot connect", "no mirror of this endpoint")


def test_an_error_response_of_the_hub_is_not_a_reason(user: User, serve: Serve, known: list[Hub], repo: Repo) -> None:
    empty = serve(Repo.build("org/other", {"a": b"a"}, folder=user.temp / "other"), name="empty")
    user.env["HF_ENDPOINT"] = empty.url
    user.quick("fetch", "--repo", NAME).refused(5, NAME)
    empty.fault("/revision/", status=429, headers={"retry-after": "30"})
    user.quick("fetch", "--repo", NAME, "--patience", "1s").refused(7, "429")
    assert [hub.count() for hub in known] == [0, 0]


def test_a_late_response_of_the_endpoint_is_accepted(user: User, serve: Serve, repo: Repo) -> None:
    """Mirrors may be unreachable from another network, and a slow link must not cause an error."""
    hub = serve(repo, name="hub")
    hub.fault("/revision/", delay=4.0)
    site(user, {"hf-mirror": "http://127.0.0.1:9"})
    done = user.quick("fetch", "--repo", NAME, "--to", "got", "--json", HF_ENDPOINT=hub.url).ok()
    assert done.report["trust"] == "origin"
    assert "does not respond within 3 s" in warned(done)[0]


def test_a_single_mirror_is_reported_as_unverified(user: User, serve: Serve, repo: Repo) -> None:
    site(user, {"sufy": serve(repo, name="one", host="127.0.0.2").url})
    user.env["HF_ENDPOINT"] = DEAD
    done = user.quick("fetch", "--repo", NAME, "--to", "got", "--json").ok()
    assert done.report["trust"] == "mirror only"
    assert [("sufy joins" in text, "unverified mirror, sufy" in text) for text in warned(done)] == [
        (True, False),
        (False, True),
    ]


def test_a_mirror_that_does_not_respond_is_not_awaited(user: User, serve: Serve, repo: Repo, silent: str) -> None:
    site(user, {"hf-mirror": silent, "sufy": serve(repo, name="one", host="127.0.0.2").url})
    user.env["HF_ENDPOINT"] = DEAD
    done, taken = timed(lambda: user.quick("fetch", "--repo", NAME, "--to", "got", "--json"))
    assert done.ok().report["trust"] == "mirror only"
    assert taken < 10


def test_complete_files_need_no_mirror(user: User, serve: Serve, known: list[Hub], repo: Repo) -> None:
    hub = serve(repo, name="hub")
    user.env["HF_ENDPOINT"] = hub.url
    user.quick("fetch", "--repo", NAME, "config.json", "--to", "got").ok()
    hub.close()
    done = user.quick("fetch", "--repo", NAME, "config.json", "--to", "got", "--json").ok()
    assert (done.report["trust"], [one.count() for one in known]) == ("first seen", [0, 0])
    assert not [text for text in warned(done) if "(mirrors: auto" in text]


def test_missing_files_come_from_the_mirrors(user: User, serve: Serve, known: list[Hub], repo: Repo) -> None:
    hub = serve(repo, name="hub")
    user.env["HF_ENDPOINT"] = hub.url
    user.quick("fetch", "--repo", NAME, "config.json", "--to", "got").ok()
    hub.close()
    done = user.quick("fetch", "--repo", NAME, "--to", "got", "--json").ok()
    assert (done.report["trust"], done.report["verdicts"]) == ("first seen", {"ok": 2})
    assert len([text for text in warned(done) if "(mirrors: auto" in text]) == 1


def test_a_restricted_repo_gets_no_bytes_from_added_mirrors(user: User, serve: Serve, tmp_path: Path) -> None:
    gated = Repo.build("org/gated", FILES, folder=tmp_path / "gated", gated="auto")
    mirror = serve(gated, name="one", host="127.0.0.2")
    site(user, {"sufy": mirror.url})
    user.env["HF_ENDPOINT"] = DEAD
    done = user.quick("fetch", "--repo", "org/gated", "--to", "got", "--patience", "1s")
    assert done.status != 0
    assert not [seen for seen in mirror.requests if "/resolve/" in seen.target]


def test_the_report_explains_each_mirrors_rank(user: User, serve: Serve, known: list[Hub], repo: Repo) -> None:
    user.env["HF_ENDPOINT"] = serve(repo, name="hub").url
    flags = [word for hub in known for word in ("--mirror", hub.url)]
    done = user.quick("fetch", "--repo", NAME, "--to", "got", "--json", "-v", *flags).ok()
    for use in done.report["mirrors"]:
        assert use["rtt"] is None or 0 < use["rtt"] < 1
        assert use["ping"] is None or 0 < use["ping"] < 1
        assert use["rank_reason"]
    assert "mirror 1: " in done.err


def test_why_prints_the_order_of_the_mirrors_and_their_probes(
    user: User, serve: Serve, known: list[Hub], repo: Repo
) -> None:
    """The listing takes 0.5 s, which the probes need: the small repo would finish before them."""
    hub = serve(repo, name="hub")
    hub.fault("/api/", delay=0.5, times=1)
    user.env["HF_ENDPOINT"] = hub.url
    flags = [word for mirror in known for word in ("--mirror", mirror.url)]
    words = ("fetch", "--repo", NAME, "--to", "got", "--why", *flags)
    done = user.quick(*words).ok()
    order = re.findall(r"^  mirror \d: (\S+), speed not measured, connects in \d+ ms$", done.err, re.MULTILINE)
    assert sorted(order) == sorted(authority(one.url) for one in (hub, *known)), done.err
    assert re.search(r"MB|kB|B, \d+ files?, connects in \d+ ms, ping \d+ ms, speed not measured", done.err), done.err
    refused = user.quick(*words, "--dry-run")
    assert (refused.status, "gpuaria mirrors REF --why" in refused.err) == (2, True)


def test_an_unknown_mirror_is_measured_with_a_small_range(user: User, serve: Serve, tmp_path: Path) -> None:
    """The range belongs to a large file of the run; a second run finds the rates in the history and probes nothing."""
    big = Repo.build("org/big", {"w.bin": os.urandom(34_000_000)}, folder=tmp_path / "big", direct=True)
    hub, mirror = serve(big, name="hub"), serve(big, name="one", host="127.0.0.2")
    words = ("fetch", "--repo", "org/big", "--json", "--mirror", mirror.url)
    slow = {"HF_ENDPOINT": hub.url, "GPUARIA_MAX_SPEED": "12M"}
    user.quick(*words, "--to", "got", **slow).ok()
    assert probed(user) == {hub.url, mirror.url}
    done = user.quick(*words, "--to", "again", **slow).ok()
    assert "expected from past downloads" in done.report["mirrors"][0]["rank_reason"]


def probed(user: User) -> set[str]:
    """Return the mirrors with a rate in the history, from a probe or a transfer."""
    with closing(sqlite3.connect(user.home / ".local/state/gpuaria/mirrors.sqlite3")) as db:
        return {base for (base,) in db.execute("SELECT base FROM outcomes WHERE rate > 0")}


def test_other_commands_know_which_mirrors_can_be_added(user: User, serve: Serve, known: list[Hub], repo: Repo) -> None:
    user.env |= {"HF_ENDPOINT": serve(repo, name="hub").url, "GPUARIA_RESOLVERS": "system"}
    (report,) = user.quick("mirrors", NAME, "--json").ok().events
    assert [one["name"] for one in report["mirrors"]][1:] == ["hf-mirror", "sufy"]
    line = "used only if the hub fails or is slow (mirrors: auto): hf-mirror, sufy"
    assert line in report["remarks"]
    assert line in user.quick("doctor").out
    assert "a token is set" in " ".join(user.quick("doctor", HF_TOKEN="hf_good").out.split())
    assert line in user.quick("doctor", HF_ENDPOINT=DEAD).out


@pytest.fixture
def large(tmp_path: Path) -> Repo:
    """Return a repo with a large file and a small one."""
    files: dict[str, bytes | Path] = {"model.safetensors": os.urandom(24_000_000), "config.json": b"{}"}
    return Repo.build("org/large", files, folder=tmp_path / "large", direct=True)


def slowed(user: User, hubs: list[Hub], *words: str, **env: str) -> Done:
    """Fetch the large repo while its endpoint delivers 50 kB/s on each of two connections."""
    site(user, {f"known{number}": hub.url for number, hub in enumerate(hubs)})
    return user.run("fetch", "--repo", "org/large", "--to", "got", "--json", "-x", "2", *words, **env)


@pytest.mark.fault(
    "endpoint: slower than 1 MB/s for 10 s, and no mirror is configured",
    where="server",
    does="Adds known mirrors to the transfer.",
    sees="both speeds, the mirrors added, and the setting that prevents it",
    status=0,
)
def test_mirrors_are_added_to_a_slow_endpoint(user: User, serve: Serve, large: Repo) -> None:
    hub = serve(large, name="hub", limit_rate=50_000)
    mirror = serve(large, name="one", host="127.0.0.2")
    done, taken = timed(lambda: slowed(user, [mirror], HF_ENDPOINT=hub.url).ok())
    assert taken < 60
    (line,) = warned(done)
    assert "MB/s, less than 1 MB/s, for 10 s; known0 joins (mirrors: auto" in line
    assert done.report["trust"] == "origin"
    (joined,) = [use for use in done.report["mirrors"] if use["name"] == "known0"]
    assert joined["bytes"] > 15_000_000
    assert "less than 1 MB/s" in joined["rank_reason"]


@pytest.mark.parametrize(
    "env",
    [{"GPUARIA_SLOW": "0"}, {"GPUARIA_MIRRORS": "none"}, {"GPUARIA_MAX_SPEED": "2M"}],
    ids=lambda env: next(iter(env)),
)
def test_a_speed_limit_is_not_a_slow_endpoint(user: User, serve: Serve, large: Repo, env: dict[str, str]) -> None:
    """With a speed limit, the endpoint is slow only below half of that limit."""
    hub = serve(large, name="hub", limit_rate=800_000)
    mirror = serve(large, name="one", host="127.0.0.2")
    done = slowed(user, [mirror], HF_ENDPOINT=hub.url, **env).ok()
    assert (warned(done), mirror.count()) == ([], 0)
