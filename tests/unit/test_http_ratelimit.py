"""The shared speed limit, with a fake clock."""

import threading

import pytest

from gpuaria.http.ratelimit import TokenBucket
from tests.support.clock import FakeClock


def test_the_limit_applies_to_all_callers_together() -> None:
    clock = FakeClock(50.0)
    bucket = TokenBucket(1000, clock)
    assert [bucket.charge(500), bucket.charge(500), bucket.charge(1000)] == [0.5, 1.0, 2.0]
    clock.now = 51.5
    assert bucket.charge(100) == pytest.approx(0.6)


def test_unused_bandwidth_is_not_saved() -> None:
    clock = FakeClock(50.0)
    bucket = TokenBucket(1000, clock)
    bucket.charge(1000)
    clock.now = 99
    assert bucket.charge(100) == pytest.approx(0.1)


def test_zero_is_unlimited() -> None:
    assert TokenBucket(0).charge(10**12) == 0
    assert TokenBucket().rate == 0


@pytest.mark.parametrize(("rate", "seconds"), [(2000, 0.5), (500, 2.0), (0, 0.0)])
def test_a_new_rate_applies_to_bytes_already_owed(rate: int, seconds: float) -> None:
    clock = FakeClock(50.0)
    bucket = TokenBucket(1000, clock)
    bucket.charge(2000)
    clock.advance(1.0)  # the old rate has paid off 1,000 of the 2,000 bytes
    bucket.rate = rate
    assert bucket.rate == rate
    assert bucket.charge(0) == pytest.approx(seconds)


def test_bytes_received_without_a_limit_are_not_owed_later() -> None:
    clock = FakeClock(50.0)
    bucket = TokenBucket(0, clock)
    bucket.charge(10**9)
    bucket.rate = 1000
    assert bucket.charge(500) == pytest.approx(0.5)


def test_many_threads_lose_no_byte() -> None:
    clock = FakeClock(50.0)
    bucket = TokenBucket(1000, clock)

    def take() -> None:
        for _ in range(500):
            bucket.charge(7)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bucket.charge(0) == pytest.approx(8 * 500 * 7 / 1000)
