"""Detection of a download's end: pure, with a simulated clock."""

from collections.abc import Callable

import pytest

from gpuaria.transfer.pace import Pace

MB = 1e6
Rate = Callable[[float], float]
Count = Callable[[float], int]


def always(value: float) -> Rate:
    return lambda now: value


def until(end: float, before: float, after: float) -> Rate:
    return lambda now: before if now < end else after


def ends(total: int, rate: Rate, connections: Count, tick: float = 0.1) -> tuple[float, int] | None:
    """Return (seconds, bytes left) when the end is detected; None if the download finished first."""
    pace, now, done = Pace(), 0.0, 0.0
    while done < total and now < 1000:
        now += tick
        done = min(total, done + rate(now) * tick)
        if pace.near_end(50 + now, int(done), total - int(done), connections(now), 16):
            return now, total - int(done)
    return None


def test_a_constant_rate_up_to_the_end_needs_no_tail() -> None:
    assert ends(100_000_000, always(10 * MB), lambda now: 16) is None


def test_connections_that_run_out_of_work_start_the_tail() -> None:
    found = ends(100_000_000, until(9.5, 10 * MB, 2 * MB), lambda now: 16 if now < 9.5 else 4)
    assert found is not None
    assert found[1] <= 12_000_000


def test_a_drop_near_the_end_starts_the_tail() -> None:
    found = ends(100_000_000, until(9.5, 10 * MB, 0.1 * MB), lambda now: 16)
    assert found is not None
    assert 9.5 < found[0] < 12


@pytest.mark.parametrize("moment", [1.0, 3.0, 6.0])
def test_a_drop_in_the_middle_does_not_start_the_tail(moment: float) -> None:
    def rate(now: float) -> float:
        return 0.0 if moment < now < moment + 5 else 10 * MB

    assert ends(200_000_000, rate, lambda now: 2 if moment < now < moment + 5 else 16) is None


def test_without_any_bytes_the_end_is_not_near() -> None:
    pace = Pace()
    for step in range(100):
        assert not pace.near_end(step / 10, 0, 1000, 16, 16)
        assert not pace.end_in_sight(1000)


def test_a_finished_download_is_not_near_its_end() -> None:
    pace = Pace()
    for step in range(50):
        pace.near_end(step / 10, step * 1000, 50_000 - step * 1000, 16, 16)
    assert not pace.near_end(5.0, 50_000, 0, 0, 16)
    assert pace.end_in_sight(1000)
    assert not pace.end_in_sight(49_951_000)
