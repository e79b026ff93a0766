"""gpuaria.mirrors.rank: the best mirror and the reason, from probes alone."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.mirrors.rank import TIE, expected_rate, rank
from gpuaria.mirrors.ranking import Probe, Ranking

MB, GB = 1e6, 1_000_000_000
NEAR = Probe("near", setup=0.05, rtt=0.01, single=2.5 * MB, rate=2.5 * MB, connections=4)  # 20 Mbit/s, 5 ms one way
FAR = Probe("far", setup=0.7, rtt=0.12, single=9 * MB, rate=30 * MB, connections=4)  # 400 Mbit/s, 60 ms one way


def names(ranking: Ranking) -> list[str]:
    return [choice.mirror for choice in ranking.accepted]


def probe(name: str, rate: float | None, **more: object) -> Probe:
    return Probe(name, **{"setup": 0.1, "rtt": 0.02, "single": rate, "rate": rate, "connections": 4, **more})  # type: ignore[arg-type]


# --- who wins


def test_a_nearer_but_slower_mirror_does_not_win() -> None:
    ranking = rank([NEAR, FAR], GB)
    assert names(ranking) == ["far", "near"]
    first, second = ranking.accepted
    assert first.connections == 16
    assert second.connections < 6
    assert first.seconds is not None
    assert first.seconds < 40


def test_for_few_bytes_the_nearer_mirror_wins() -> None:
    assert names(rank([FAR, NEAR], 100_000)) == ["near", "far"]


@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        (probe("full pipe", 20 * MB), 20, 20),
        (probe("each connection capped", 8 * MB, single=2 * MB), 32, 32),
        (probe("half way", 4 * MB, single=2 * MB), 7.9, 8.1),
        (probe("one read", 5 * MB, connections=1), 5, 5),
        (probe("growing, near", 20 * MB, growing=True), 26, 26),
        (probe("loss", 8 * MB, single=2 * MB, rtt=0.2, loss=0.25), 8, 8),
        (probe("gave less before", 10 * MB, past=2 * MB, confidence=1.0), 3.6, 3.6),
        (probe("only before", None, past=2 * MB, confidence=0.5), 2, 2),
        (probe("before, but who knows", 10 * MB, past=2 * MB, confidence=0.0), 10, 10),
    ],
    ids=lambda value: value.mirror if isinstance(value, Probe) else None,
)
def test_the_rate_of_16_connections(given: Probe, low: float, high: float) -> None:
    found = expected_rate(given, 16)
    assert found is not None
    assert low * MB <= found * (1 + 1e-9)
    assert found <= high * MB * (1 + 1e-9)


def sampled(rtt: float, capacity: float, seconds: float = 1.0) -> Probe:
    """Return what one second of slow start shows of a loss-free link, with 1 and 4 connections (RFC 5681 3.1)."""

    def tail(count: int) -> tuple[float, bool]:
        window, step, got = max(0.12, 1.5 * rtt), 0.002, list[float]()
        while len(got) * step < seconds:
            each = min(14_480 * 2 ** int(len(got) * step / rtt) / rtt, 3 * MB / rtt)
            got.append(min(count * each, capacity) * step)
            last, before = (sum(got[-(n + 1) * int(window / step) :][: int(window / step)]) for n in (0, 1))
            if len(got) * step > max(0.4, 2 * window) and last <= 1.25 * before:
                return last / window, False
        return last / window, True

    (single, _), (rate, growing) = tail(1), tail(4)
    return Probe("x", rtt=rtt, single=single, rate=rate, connections=4, growing=growing)


@pytest.mark.parametrize("capacity", [20 * MB, 50 * MB])
@pytest.mark.parametrize("rtt", [0.01, 0.04, 0.08, 0.12, 0.2, 0.3])
def test_a_sample_still_in_slow_start_does_not_count_as_slow(rtt: float, capacity: float) -> None:
    found = expected_rate(sampled(rtt, capacity), 16)
    assert found is not None
    assert capacity / 4 < found < capacity * 4


def test_a_distant_rate_limited_mirror_is_not_rated_fast() -> None:
    far = replace(NEAR, rtt=0.3, growing=True)  # four connections deliver no more than one
    assert expected_rate(far, 16) == pytest.approx(1.3 * 2.5 * MB)


# --- who is left out, and what is said


def test_each_rejected_mirror_has_its_reason() -> None:
    ranking = rank([FAR, Probe("dead", problem="tcp: connection refused"), probe("slow", 0.1 * MB)], GB)
    assert names(ranking) == ["far"]
    reasons = dict(ranking.rejected)
    assert reasons["dead"] == "tcp: connection refused"
    assert "too slow: " in reasons["slow"]


def test_mirrors_with_one_backend_count_once_unless_the_first_is_unusable() -> None:
    twin = replace(FAR, mirror="twin", same_pipe_as="far")
    assert names(rank([FAR, twin], GB)) == ["far"]
    assert dict(rank([FAR, twin], GB).rejected)["twin"] == "same byte server as far"
    assert names(rank([replace(FAR, problem="stale"), twin], GB)) == ["twin"]


def test_an_unknown_mirror_is_accepted_after_the_others() -> None:
    ranking = rank([Probe("unknown"), NEAR, FAR], GB)
    assert names(ranking) == ["far", "near", "unknown"]
    last = ranking.accepted[-1]
    assert (last.rate, last.seconds, last.reason) == (None, None, "not measured")


def test_a_ranking_from_history_alone_is_labelled() -> None:
    (choice,) = rank([Probe("old", past=5 * MB, confidence=0.5)], GB).accepted
    assert choice.reason == "5.0 MB/s expected from past downloads"


def test_nothing_to_rank() -> None:
    assert rank([], GB) == Ranking((), ())


# --- ties


def test_a_fleet_spreads_over_equal_mirrors_and_each_machine_keeps_its_own() -> None:
    equal = [probe(name, 20 * MB * (1 + 0.01 * n)) for n, name in enumerate("abcd")]
    first = {seed: names(rank(equal, GB, seed=seed)) for seed in map(str, range(400))}
    counts = Counter(order[0] for order in first.values())
    assert set(counts) == set("abcd")
    assert min(counts.values()) > 60
    for seed, order in list(first.items())[:20]:
        assert names(rank(equal[::-1], GB, seed=seed)) == order
        without = [name for name in order if name != order[0]]  # the others keep their order when one disappears
        assert names(rank([p for p in equal if p.mirror != order[0]], GB, seed=seed)) == without


def test_a_difference_above_the_tie_margin_is_not_a_tie() -> None:
    two = [probe("slower", 20 * MB), probe("faster", 20 * MB * (1 + 2 * TIE))]
    assert {names(rank(two, GB, seed=str(n)))[0] for n in range(50)} == {"faster"}


# --- whatever comes

rates = st.none() | st.floats(0, 1e12)
seconds = st.none() | st.floats(0, 100)
any_probe = st.builds(
    Probe,
    mirror=st.sampled_from([f"m{n}" for n in range(12)]),
    problem=st.sampled_from(["", "", "", "dead"]),
    setup=seconds,
    rtt=seconds,
    loss=st.none() | st.floats(0, 1),
    single=rates,
    rate=rates,
    connections=st.integers(1, 16),
    growing=st.booleans(),
    past=st.none() | st.floats(1, 1e12),
    confidence=st.floats(0, 1),
    same_pipe_as=st.sampled_from(["", "", "m0", "m1"]),
)


@given(st.lists(any_probe, max_size=8, unique_by=lambda p: p.mirror), st.integers(0, 10**13), st.text(max_size=5))
def test_every_mirror_is_ranked_once_and_deterministically(given: list[Probe], size: int, seed: str) -> None:
    ranking = rank(given, size, seed=seed)
    assert sorted([*names(ranking), *(name for name, _ in ranking.rejected)]) == sorted(p.mirror for p in given)
    assert rank(list(reversed(given)), size, seed=seed).accepted == ranking.accepted
    assert all(reason for _, reason in ranking.rejected)
    assert not {p.mirror for p in given if p.problem} & set(names(ranking))
    for choice in ranking.accepted:
        assert 1 <= choice.connections <= 16
        assert choice.rate is None or (choice.rate > 0 and math.isfinite(choice.rate))


# --- of unknown rate


def test_without_rates_the_fastest_to_connect_comes_first_and_failed_ones_last() -> None:
    rows = [
        Probe("dead", unreached="TCP: connection refused", distance=0),
        Probe("abroad", distance=3),
        Probe("unknown"),
        Probe("home", distance=0),
        Probe("far", rtt=0.2),
        Probe("near", rtt=0.02),
    ]
    ranking = rank(rows, GB)
    assert names(ranking) == ["near", "far", "home", "unknown", "abroad", "dead"]
    assert {choice.mirror: choice.reason for choice in ranking.accepted} == {
        "near": "speed not measured, connects in 20 ms",
        "far": "speed not measured, connects in 200 ms",
        "home": "speed not measured, in this country",
        "unknown": "not measured",
        "abroad": "speed not measured, on another continent",
        "dead": "no connection: TCP: connection refused",
    }
    assert {choice.connections for choice in ranking.accepted} == {16}


def test_measured_mirrors_precede_those_that_only_connect() -> None:
    assert names(rank([Probe("near", rtt=0.001), FAR], GB)) == ["far", "near"]


def test_mirrors_of_one_network_are_equally_near() -> None:
    rows = [Probe(name, rtt=rtt) for name, rtt in (("a", 0.0001), ("b", 0.004), ("c", 0.0009))]
    orders = {tuple(names(rank(rows, GB, seed=str(seed)))) for seed in range(40)}
    assert len(orders) == 6
