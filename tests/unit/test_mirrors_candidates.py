"""gpuaria.mirrors.candidates: when known mirrors are added, which ones, and in which order."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gpuaria.errors import (
    AccessDenied,
    BadListing,
    Blocked,
    GpuariaError,
    NetworkError,
    NotAHub,
    RateLimited,
    RepoNotFound,
    Unreachable,
)
from gpuaria.mirrors.candidates import Candidates, JoinPolicy, joined_line, nearest_first
from gpuaria.mirrors.location import Location
from gpuaria.records import Mirror
from gpuaria.settings import load
from gpuaria.settings.known import shipped

HERE = {"HOME": "/h", "XDG_CONFIG_DIRS": "/none", "TZ": "UTC"}
OWN = "https://one.example https://two.example"


def candidates(credential: bool = False, **environ: str) -> Candidates:
    """Return the candidates for settings from the environment alone."""
    settings = load({}, {**HERE, **environ}, Path("/w"), site=Path("/none"))
    return Candidates(settings, credential=credential, environ=environ)


ERRORS: list[tuple[GpuariaError, str]] = [
    (Unreachable("cannot connect to hub: refused"), "cannot connect to hub: refused"),
    (NotAHub("hub does not respond like a hub"), "hub does not respond like a hub"),
    (Blocked("status 403"), "hub is blocked (status 403)"),
    (RateLimited("too many requests"), ""),
    (NetworkError("hub returned HTTP 503"), ""),
    (BadListing("the list repeats"), ""),
    (RepoNotFound("no such repo"), ""),
    (AccessDenied("refused by the hub"), ""),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS, ids=lambda value: str(value)[:30])
def test_a_failure_is_a_reason_unless_the_hub_responded(error: GpuariaError, reason: str) -> None:
    assert JoinPolicy("hub").failed(error) == reason


def test_a_false_address_is_reported() -> None:
    assert JoinPolicy("hub").misled("0.0.0.0 is one") == "DNS gives a false address for hub (0.0.0.0 is one)"


def test_a_silent_origin_counts_after_three_seconds() -> None:
    policy = JoinPolicy("hub")
    assert policy.silent(2.9) == ""
    assert policy.silent(3.0) == "hub does not respond within 3 s"


SPEEDS: list[tuple[Sequence[float], float | None]] = [  # MB per second; when mirrors are added
    ([0.5] * 30, 10),
    ([1.0] * 30, None),
    ([2.0] * 20 + [0.0] * 30, 26),  # four seconds of 2 MB/s in the last ten are less than 1 MB/s
    ([0.0] * 9 + [12.0] + [0.0] * 5, None),
    ([0.0] * 30, 10),
    ([4.0, 0.0, 0.0] * 10, None),
]


@pytest.mark.parametrize(("speeds", "joins"), SPEEDS)
def test_mirrors_are_added_to_a_slow_origin_after_ten_seconds(speeds: Sequence[float], joins: float | None) -> None:
    policy, total, said = JoinPolicy("hub", 1_000_000), 0, None
    policy.delivered(0, 100.0)
    for second, rate in enumerate(speeds, 1):
        total += int(rate * 1e6)
        if policy.delivered(total, 100.0 + second) and said is None:
            said = second
    assert said == joins


def test_the_reason_gives_both_speeds() -> None:
    policy = JoinPolicy("hub", 1_000_000)
    assert policy.delivered(0, 0.0) == ""
    assert policy.delivered(4_000_000, 10.0) == "hub delivers 0.40 MB/s, less than 1 MB/s, for 10 s"


def test_an_idle_origin_is_not_slow() -> None:
    policy = JoinPolicy("hub", 1_000_000)
    policy.delivered(0, 0.0)
    policy.idle()
    assert policy.delivered(0, 11.0) == ""
    assert policy.delivered(0, 20.9) == ""
    assert policy.delivered(0, 21.0) != ""


def test_slow_0_means_never() -> None:
    policy = JoinPolicy("hub", 0)
    assert not any(policy.delivered(0, float(second)) for second in range(60))


def test_shipped_mirrors_replace_public_hubs_only() -> None:
    assert {mirror.name for mirror in candidates().mirrors} == set(shipped())
    ours = candidates(HF_ENDPOINT="https://hub.corp.example")
    assert (ours.mirrors, "no mirror of this endpoint" in ours.forbidden) == ((), True)
    other = candidates(HF_ENDPOINT="https://hf-mirror.com")
    assert {mirror.name for mirror in other.mirrors} == set(shipped()) - {"hf-mirror"}
    named = candidates(HF_ENDPOINT="https://hub.corp.example", GPUARIA_KNOWN_MIRRORS=OWN)
    assert [mirror.name for mirror in named.mirrors] == ["one.example", "two.example"]


@pytest.mark.parametrize("mirrors", ["none", "https://a.example"])
def test_with_none_or_a_list_no_mirror_is_added(mirrors: str) -> None:
    found = candidates(GPUARIA_MIRRORS=mirrors, GPUARIA_KNOWN_MIRRORS=OWN)
    assert (found.mirrors, found.forbidden, found.slow) == ((), "", 0)


def test_known_mirrors_are_not_added_to_other_sources() -> None:
    settings = load({}, {**HERE, "GPUARIA_KNOWN_MIRRORS": OWN}, Path("/w"), site=Path("/none"))
    assert Candidates(settings, credential=False, source="hf").mirrors
    found = Candidates(settings, credential=False, source="demo")
    assert (found.mirrors, found.forbidden, found.slow, found.possible) == ((), "", 0, False)


def test_with_a_token_no_mirror_is_added() -> None:
    found = candidates(credential=True, GPUARIA_KNOWN_MIRRORS=OWN)
    assert found.mirrors == ()
    assert "token" in found.forbidden


def test_the_nearest_mirror_comes_first() -> None:
    rows = [Mirror(place or "?", f"https://m{number}", location=place) for number, place in enumerate(("US", "", "DE"))]
    assert [mirror.name for mirror in nearest_first(rows, Location("DE", "europe"))] == ["DE", "?", "US"]
    assert [mirror.name for mirror in nearest_first(rows, Location("FR", "europe"))] == ["DE", "?", "US"]
    assert [mirror.name for mirror in nearest_first(rows, Location())] == ["US", "?", "DE"]


def test_the_message_names_mirrors_reason_and_setting() -> None:
    one, two = Mirror("one", "https://one"), Mirror("two", "https://two")
    assert joined_line([one], "hub is away") == (
        "hub is away; one joins (mirrors: auto; set mirrors to none or a list to change this)"
    )
    assert "one and two join " in joined_line([one, two], "hub is away")
