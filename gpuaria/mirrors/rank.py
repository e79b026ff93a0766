"""Ranking of mirrors by the expected download time. Pure: equal probes and seed give an equal ranking."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gpuaria.mirrors.ranking import Probe, RankedMirror, Ranking

TIE = 0.2  # relative difference below which expected times count as equal, so that a fleet spreads by seed
WEAK = 0.25  # share of the best rate below which a mirror gets fewer connections
HELPS = 0.02  # share of the best rate below which a mirror only holds pieces back
ALIKE = 0.005  # seconds to connect below which mirrors are equally near
_BY_LOCATION = {0: "in this country", 1: "on this continent", 3: "on another continent"}
SEGMENT = 1448  # bytes of payload in a packet
UNKNOWN_SETUP = 1.0  # seconds
SAMPLE = 1.0  # longest duration of a sample read, in seconds
ROUNDS = 8  # doublings until slow start is over on most paths (RFC 5681 3.1: from 10 packets to 3 MB)


def rank(probes: Iterable[Probe], size: int, *, connections: int = 16, seed: str = "") -> Ranking:
    """Return the mirrors ranked for downloading `size` bytes with up to `connections` to each.

    Mirrors of unknown rate follow the measured ones: first by time to connect, then by distance, then those that just
    failed to connect.
    """
    known = list(probes)
    rejected = [(probe.mirror, probe.problem) for probe in known if probe.problem]
    usable = [probe for probe in known if not probe.problem]
    names = {probe.mirror for probe in usable}
    same_host = [probe for probe in usable if probe.same_pipe_as in names]
    rejected += [(probe.mirror, f"same byte server as {probe.same_pipe_as}") for probe in same_host]
    choices = [_choice(probe, size, connections) for probe in usable if probe not in same_host]
    best = max((choice.rate or 0.0 for choice in choices), default=0.0)
    slow = [choice for choice in choices if choice.rate is not None and choice.rate < HELPS * best]
    rejected += [(choice.mirror, f"too slow: {_mb(choice.rate)}, the best mirror has {_mb(best)}") for choice in slow]
    accepted = [_with_connection_limit(choice, best, connections) for choice in choices if choice not in slow]
    unknown = {probe.mirror: _nearness(probe) for probe in usable}
    return Ranking(tuple(_ordered(accepted, unknown, seed)), tuple(rejected))


def expected_rate(probe: Probe, connections: int) -> float | None:
    """Return the bytes per second expected from `connections` to a mirror, None if nothing is known.

    If the server caps each connection, or loss on a long path limits it, the rate grows with the number of connections;
    a full link does not. One read and several parallel reads tell these cases apart. Loss bounds each connection
    (Mathis et al. 1997: segment / rtt * 1.22 / sqrt(loss)). The past rate counts by its confidence.
    """
    sampled = _from_sample(probe, connections)
    if probe.past is None or probe.confidence <= 0:
        return sampled
    if sampled is None:
        return probe.past
    weight = 0.8 * probe.confidence
    return (1 - weight) * sampled + weight * probe.past


def _from_sample(probe: Probe, connections: int) -> float | None:
    if probe.rate is None or probe.rate <= 0:
        return None
    grew = probe.rate / probe.single if probe.single else 1.0
    more = max(1.0, connections / probe.connections)
    share = 0.0
    if probe.connections > 1:
        share = min(1.0, max(0.0, math.log(max(grew, 1.0)) / math.log(probe.connections)))
    rate = probe.rate * math.pow(more, share) * _growth_factor(probe, share)
    if probe.loss and probe.rtt:
        bound = connections * SEGMENT / probe.rtt * 1.22 / math.sqrt(probe.loss)
        rate = min(rate, max(bound, probe.rate))
    return rate


def _growth_factor(probe: Probe, share: float) -> float:
    """Return how much faster a mirror gets after its sample, if the sample ended while the rate was growing.

    On a long path, a sample has too few round trips to leave slow start: half of the missing doublings are assumed,
    unless several connections already brought less than their number.
    """
    if not probe.growing:
        return 1.0
    if not probe.rtt or (probe.connections > 1 and share < 0.9):
        return 1.3
    return max(1.3, math.pow(2, 0.5 * (ROUNDS - SAMPLE / probe.rtt)))


def _choice(probe: Probe, size: int, connections: int) -> RankedMirror:
    rate = expected_rate(probe, connections)
    if rate is None:
        return RankedMirror(probe.mirror, None, None, connections, _unmeasured_reason(probe))
    setup = probe.setup if probe.setup is not None else UNKNOWN_SETUP
    source = "" if probe.rate else " from past downloads"
    return RankedMirror(probe.mirror, rate, setup + size / rate, connections, f"{_mb(rate)} expected{source}")


def _with_connection_limit(choice: RankedMirror, best: float, connections: int) -> RankedMirror:
    """Reduce the connections to a slow mirror: each of its pieces takes longer, and fewer connections saturate it."""
    if choice.rate is None or best <= 0:
        return choice
    share = min(1.0, choice.rate / best / WEAK)
    return replace(choice, connections=max(2, min(connections, math.ceil(connections * share))))


def _nearness(probe: Probe) -> tuple[bool, float, float]:
    """Return the sort key of a mirror of unknown rate; equal for similar times to connect.

    Of those, a mirror that lost echo requests comes later.
    """
    if probe.unreached or probe.rtt is None:
        return bool(probe.unreached), math.inf, float(probe.distance)
    steps = math.floor(math.log(max(probe.rtt, ALIKE) / ALIKE) / math.log(1 + TIE))
    return False, float(steps), probe.loss or 0.0


def _unmeasured_reason(probe: Probe) -> str:
    if probe.unreached:
        return f"no connection: {probe.unreached}"
    if probe.rtt is not None:
        lost = f", loses {probe.loss:.0%} of the pings" if probe.loss else ""
        return f"speed not measured, connects in {probe.rtt * 1e3:.0f} ms{lost}"
    where = _BY_LOCATION.get(probe.distance)
    return f"speed not measured, {where}" if where else "not measured"


def _ordered(
    choices: Sequence[RankedMirror], unknown: Mapping[str, tuple[bool, float, float]], seed: str
) -> list[RankedMirror]:
    """Return the choices, fastest first; ties are broken by a hash with each machine's own seed."""

    def tie_break(choice: RankedMirror) -> bytes:
        return hashlib.sha256(f"{seed}\0{choice.mirror}".encode()).digest()

    def sort_key(choice: RankedMirror) -> tuple[bool, float, tuple[bool, float, float]]:
        return choice.seconds is None, choice.seconds or 0.0, unknown[choice.mirror]

    remaining = sorted(choices, key=lambda choice: (sort_key(choice), choice.mirror))
    ordered: list[RankedMirror] = []
    while remaining:
        first = remaining[0].seconds
        if first is None:
            tied = [c for c in remaining if sort_key(c) == sort_key(remaining[0])]
        else:
            tied = [
                c for c in remaining if c.seconds == first or (first and c.seconds and c.seconds <= first * (1 + TIE))
            ]
        ordered += sorted(tied, key=tie_break)
        remaining = [choice for choice in remaining if choice not in tied]
    return ordered


def _mb(rate: float | None) -> str:
    return f"{(rate or 0.0) / 1e6:.1f} MB/s"
