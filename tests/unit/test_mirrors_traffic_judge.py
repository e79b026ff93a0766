"""Verdicts on mirrors from received bytes: pure, with a simulated clock."""

import random
from collections.abc import Callable

import pytest

from gpuaria.mirrors.traffic import GRACE, UNCONNECTED, StallDetector
from gpuaria.records import Mirror

TICK = 0.25
MB = 1e6
Rate = Callable[[float], float]
Count = Callable[[float], int]


def mirror(name: str) -> Mirror:
    return Mirror(name, f"http://{name}")


def always(value: float) -> Rate:
    return lambda now: value


def until(end: float, before: float, after: float) -> Rate:
    return lambda now: before if now < end else after


def sixteen(now: float) -> int:
    return 16


def play(
    rates: dict[str, Rate], seconds: float, counts: dict[str, Count] | None = None
) -> tuple[float, dict[str, str]]:
    """Simulate transfers; return time and verdicts of the first bad reading, or (seconds, {})."""
    judge, received, busy = StallDetector(), dict.fromkeys(rates, 0.0), counts or {}
    now = 0.0
    while now < seconds:
        now += TICK
        for name, rate in rates.items():
            received[name] += rate(now) * TICK
        connections = {mirror(name): busy.get(name, sixteen)(now) for name in rates}
        found = judge.find_stalled(1000 + now, {mirror(name): int(got) for name, got in received.items()}, connections)
        if found:
            return now, {one.name: reason for one, reason in found.items()}
    return seconds, {}


def test_a_stall_is_detected_soon() -> None:
    when, found = play({"a": until(10, 5 * MB, 0), "b": always(5 * MB)}, 60)
    assert found == {"a": "it stopped sending"}
    assert when < 10 + 3


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1])
def test_a_drop_to_a_trickle_is_detected(share: float) -> None:
    when, found = play({"a": until(10, 5 * MB, share * 5 * MB), "b": always(MB), "c": always(5 * MB)}, 60)
    assert set(found) == {"a"}
    assert "its speed fell to" in found["a"] or found["a"] == "it stopped sending"
    assert when < 10 + 6


def test_two_of_three_stall_at_once() -> None:
    """The local link may be the cause, so they are blamed only because the third mirror is healthy."""
    _, found = play({"a": until(10, 2 * MB, 0), "b": until(10, 2 * MB, 0), "c": always(5 * MB)}, 60)
    assert found == dict.fromkeys("ab", "it stopped sending")


def test_a_mirror_that_never_sends_is_detected() -> None:
    when, found = play({"a": always(0), "b": always(MB)}, 60)
    assert found == {"a": "it delivered no data"}
    assert GRACE <= when < GRACE + 1


def test_a_local_pause_blames_no_mirror() -> None:
    def paused(speed: float) -> Rate:
        return lambda now: 0.0 if 10 < now < 25 or 40 < now < 41 else speed

    assert play({"a": paused(5 * MB), "b": paused(MB), "c": paused(0.1 * MB)}, 120) == (120, {})


def test_a_shared_link_that_slows_down_blames_no_mirror() -> None:
    assert play({"a": until(20, 5 * MB, 0.2 * MB), "b": until(20, 3 * MB, 0.1 * MB)}, 120)[1] == {}


def test_the_last_mirror_is_never_blamed() -> None:
    assert play({"a": until(10, 5 * MB, 0)}, 100) == (100, {})
    assert play({"a": always(0)}, 100) == (100, {})


def test_a_mirror_that_was_always_slow_is_kept() -> None:
    assert play({"a": always(200_000), "b": always(50 * MB)}, 300)[1] == {}


def test_a_trickling_mirror_is_blamed_if_its_connections_cost_more_than_it_delivers() -> None:
    when, found = play({"a": always(32_000), "b": always(50 * MB)}, 300)
    assert found == {"a": "too slow: 32 kB/s while the other mirrors deliver 50.0 MB/s"}
    assert when < GRACE + 1


def test_fewer_connections_with_less_throughput_are_accepted() -> None:
    rates = {"a": until(20, 8 * MB, MB), "b": always(8 * MB)}
    assert play(rates, 120, {"a": lambda now: 16 if now < 20 else 2})[1] == {}


def test_a_mirror_that_aria2_dropped() -> None:
    when, found = play({"a": until(12, MB, 0), "b": always(MB)}, 60, {"a": lambda now: 16 if now < 12 else 0})
    assert set(found) == {"a"}
    assert found["a"] in ("aria2 stopped using it", "it stopped sending")
    assert when < 12 + UNCONNECTED + 1
    _, found = play({"a": always(0), "b": always(MB)}, 60, {"a": lambda now: 0})
    assert found == {"a": "aria2 stopped using it"}


@pytest.mark.parametrize("seed", range(25))
def test_normal_noise_gives_no_verdict(seed: int) -> None:
    """Thousands of readings with noise as on real links, bursts and short gaps included."""
    chance = random.Random(seed)
    holes = {name: chance.uniform(5, 50) for name in "abc"}

    def noisy(name: str, speed: float) -> Rate:
        def rate(now: float) -> float:
            if 0 <= now % 60 - holes[name] < 0.75:  # a lost packet and its time-out
                return 0.0
            return speed * chance.lognormvariate(0, 0.5)

        return rate

    rates = {name: noisy(name, chance.choice([0.3, 2, 10, 40]) * MB) for name in "abc"}
    counts: dict[str, Count] = {name: lambda now: chance.randint(10, 16) for name in "abc"}
    assert play(rates, 600, counts) == (600, {})


def test_a_returning_mirror_is_judged_from_new_readings() -> None:
    judge, a, b = StallDetector(), mirror("a"), mirror("b")
    for step in range(80):
        judge.find_stalled(step * TICK + 1, {a: step * 1000, b: step * 1000}, {a: 1, b: 1})
    judge.forget(a)
    judge.forget(mirror("nobody"))
    for step in range(80, 80 + int(GRACE / TICK) - 1):
        assert judge.find_stalled(step * TICK + 1, {a: 80_000, b: step * 1000}, {a: 1, b: 1}) == {}
