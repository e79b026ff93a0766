"""The scenarios by number: function, need for a lab, share of the time."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.scenarios import again, cpu, links, proof, small, unequal
from benchmarks.stage import Stage


@dataclass(frozen=True)
class Scenario:
    """A scenario. `lab`: it requires a network lab. `weight`: its share of the time, roughly in seconds."""

    play: Callable[[Stage], None]
    lab: bool
    weight: float


SCENARIOS = {
    1: Scenario(links.slow_connections, False, 230),
    2: Scenario(links.long_way, True, 270),
    3: Scenario(unequal.one_file, True, 200),
    4: Scenario(unequal.shards, True, 220),
    5: Scenario(small.alone, True, 220),
    6: Scenario(small.mixed, True, 240),
    7: Scenario(proof.full_speed, False, 160),
    8: Scenario(proof.last_byte, False, 180),
    9: Scenario(again.nothing_to_do, False, 90),
    10: Scenario(again.killed, False, 120),
    11: Scenario(cpu.per_gigabyte, False, 140),
}
