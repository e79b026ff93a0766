"""Throughput from arrival times: slow start, caps, bursts, several connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.dns.deadline import Deadline
from gpuaria.mirrors.measure.stream import SampleLimits, Stream, tail, throughput
from tests.support.clock import FakeClock

MB = 1_000_000


def steady(clock: FakeClock, rate: float, step: float = 0.01, seconds: float = 100) -> Iterator[bytes]:
    while clock.now < seconds:
        clock.advance(step)
        yield bytes(int(rate * step))


def slow_start(clock: FakeClock, round_trip: float) -> Iterator[bytes]:
    """Return bursts at each round trip, each twice as large as the previous one (first ten segments, RFC 6928)."""
    window = 14_600
    while True:
        clock.advance(round_trip)
        for _ in range(10):
            yield bytes(window // 10)
        window *= 2


def taken(body: Iterator[bytes], clock: FakeClock, round_trip: float = 0.0, **limits: float) -> Stream:
    stream = Stream(round_trip=round_trip)
    stream.read(body, Deadline(1000, clock), SampleLimits(**limits))  # type: ignore[arg-type]
    return stream


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(0.0)


def test_a_steady_rate_is_measured_early_and_ends_the_read(clock: FakeClock) -> None:
    stream = taken(steady(clock, 2 * MB), clock, seconds=5)
    found = throughput([stream])
    assert found is not None
    assert found.rate == pytest.approx(2 * MB, rel=0.05)
    assert found.tail == pytest.approx(2 * MB, rel=0.1)
    assert not found.growing
    assert clock.now < 0.6


def test_the_tail_of_slow_start_is_well_above_its_mean_rate(clock: FakeClock) -> None:
    found = throughput([taken(slow_start(clock, 0.12), clock, 0.12, seconds=1.0)])
    assert found is not None
    assert found.growing
    assert found.tail > 2 * found.rate


def test_a_burst_at_the_start_does_not_count_in_the_tail(clock: FakeClock) -> None:
    def bucket() -> Iterator[bytes]:  # burst that a token bucket allows
        yield bytes(10)
        yield bytes(256 << 10)
        yield from steady(clock, 1 * MB)

    found = throughput([taken(bucket(), clock, seconds=5)])
    assert found is not None
    assert found.rate > 1.3 * MB
    assert found.tail == pytest.approx(1 * MB, rel=0.1)


def test_the_read_ends_at_its_byte_and_time_limits(clock: FakeClock) -> None:
    assert taken(steady(clock, 100 * MB), clock, ceiling=5 * MB, seconds=5).total == 5 * MB
    assert taken(slow_start(clock, 0.4), clock, 0.4, seconds=1.0).ended - clock.now == 0


def test_a_timeout_after_bytes_counts_the_wait_and_before_bytes_raises(clock: FakeClock) -> None:
    def stalls() -> Iterator[bytes]:
        yield bytes(10)
        yield bytes(100_000)
        clock.advance(1)
        raise TimeoutError

    found = throughput([taken(stalls(), clock)])
    assert found is not None
    assert found.rate == 100_000

    def silent() -> Iterator[bytes]:
        raise TimeoutError
        yield b""

    with pytest.raises(TimeoutError):
        taken(silent(), clock)


def test_several_streams_count_over_their_common_time() -> None:
    one = Stream(0.0, [(0.01 * n, MB // 100) for n in range(1, 101)], MB, 1.0)
    other = Stream(0.0, [(0.01 * n, MB // 100) for n in range(1, 201)], 2 * MB, 2.0)
    found = throughput([one, other])
    assert found is not None
    assert (found.connections, found.bytes) == (2, 3 * MB)
    assert found.seconds == pytest.approx(1.99)
    late, growing = tail([one, other], 0.35)
    assert late == pytest.approx(2 * MB, rel=0.1)
    assert not growing
    assert throughput([one, Stream()]) is None
    assert throughput([]) is None


def test_bytes_that_arrive_all_at_once_never_give_too_high_a_rate() -> None:
    found = throughput([Stream(1.0, [(1.5, 50_000)], 50_000, 1.5)])
    assert found is not None
    assert (found.rate, found.tail, found.growing) == (100_000, 100_000, True)


MARKS = st.lists(st.tuples(st.floats(0.001, 0.5), st.integers(1, 10 * MB)), min_size=1, max_size=40)


@given(MARKS, st.floats(0, 0.3))
def test_any_arrival_pattern_is_handled(marks: list[tuple[float, int]], round_trip: float) -> None:
    clock = FakeClock(0.0)

    def body() -> Iterator[bytes]:
        for pause, size in marks:
            clock.advance(pause)
            yield bytes(min(size, 100_000))

    stream = taken(body(), clock, round_trip, seconds=3)
    found = throughput([stream])
    assert found is not None
    assert found.rate > 0
    assert found.tail >= 0
    assert found.bytes == stream.total == sum(size for _, size in stream.marks)
