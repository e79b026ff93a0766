"""Mirrors from the settings, ranked by history and probes."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gpuaria.http.client import Http
from gpuaria.mirrors.probing import Probing
from gpuaria.mirrors.rank import rank
from gpuaria.mirrors.ranking import Probe, RankedMirror, Ranking
from gpuaria.records import Mirror, Report
from gpuaria.settings import Settings
from gpuaria.urls import encrypted_or_local, url_origin

if TYPE_CHECKING:
    from gpuaria.mirrors.history import Past  # sqlite3 is not needed for a single mirror

FAILS_OFTEN = 2.0  # recent failures that put a mirror last
LEAST_RECORDED = 20_000_000  # bytes from one mirror below which its speed is not recorded


def mirrors_of(settings: Settings, server: Mirror | None = None) -> tuple[Mirror, ...]:
    """Return the endpoint (or `server`) first, which is the origin, then the mirrors of the settings.

    A URL that appears twice is used once.
    """
    first = server or Mirror(urlsplit(settings.endpoint).netloc, settings.endpoint, primary=True)
    named = {first.name}
    rows = [first]
    for mirror in settings.mirrors:
        if url_origin(mirror.base) == url_origin(first.base) and mirror.base == first.base:
            continue
        name = mirror.name if mirror.name not in named else mirror.base
        named.add(name)
        rows.append(replace(mirror, name=name))
    return tuple(rows)


def with_tokens(
    mirrors: Sequence[Mirror], http: Http, endpoint: str, warn: Callable[[str], None]
) -> tuple[Mirror, ...]:
    """Set `own_token` of each mirror that receives its own token; `warn` of a token that would be sent unencrypted.

    A mirror on the endpoint's own host receives none: the hub's token is for the hub.
    """
    found = []
    for mirror in mirrors:
        why = http.withheld(mirror.base)
        own = not mirror.primary and url_origin(mirror.base) != url_origin(endpoint)
        if why and (own or mirror.primary):
            warn(f"the token for {mirror.base} is not sent: {why}; {_how_to_send(mirror.base)}")
        found.append(replace(mirror, own_token=own and http.has_credential(mirror.base)))
    return tuple(found)


def _how_to_send(base: str) -> str:
    """Return how to send a token that is withheld."""
    host = urlsplit(base).hostname
    if encrypted_or_local(base):  # a local server that is reached through a proxy
        return f"set no_proxy={host}"
    return f"to send it unencrypted, set GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO={host}"


class MirrorRanking:
    """Ranking by the history of mirrors on this network, stored in the state folder."""

    def __init__(self, state_dir: Path, connections: int) -> None:
        self._state_dir, self._connections = state_dir, connections

    def rank(self, mirrors: Sequence[Mirror], size: int, probing: Probing) -> Ranking:
        """Return the mirrors by past throughput, else by their probes, for `size` bytes.

        Unreliable mirrors come last.
        """
        from gpuaria.mirrors.history import History

        history = History.for_this_network(self._state_dir)
        known = {mirror.name: history.past_of(mirror) for mirror in mirrors}
        history.close()
        probes = [_probe(mirror, known[mirror.name], probing) for mirror in mirrors]
        ranking = rank(probes, size, connections=self._connections, seed=socket.gethostname())
        accepted = [*ranking.accepted, *(RankedMirror(name, None, None, 2, why) for name, why in ranking.rejected)]
        ranking = Ranking(tuple(sorted(accepted, key=lambda choice: known[choice.mirror].failures >= FAILS_OFTEN)))
        probing.record_ranking(ranking)
        return ranking

    def record_run(self, report: Report, mirrors: Sequence[Mirror], probing: Probing) -> None:
        """Record the throughput of each mirror of a run with several mirrors.

        For a mirror that delivered little, record its probed rate.
        """
        if len(mirrors) < 2 or not report.mirrors:
            return
        from gpuaria.mirrors.history import Experience, History

        history = History.for_this_network(self._state_dir)
        bases = {mirror.name: mirror for mirror in mirrors}
        for use in report.mirrors:
            rate = use.bytes / report.seconds if use.bytes > LEAST_RECORDED and report.seconds else None
            if rate or use.rejected:
                history.record_outcome(bases[use.name], Experience("transfer", rate=rate, reason=use.rejected))
        delivered = {use.name for use in report.mirrors if use.bytes > LEAST_RECORDED}
        together = sum(use.bytes for use in report.mirrors) / report.seconds if report.seconds else 0.0
        for mirror, measured in probing.rates().items():
            if mirror.name not in delivered:
                # A small range may come from a buffer: cap its rate at what all mirrors delivered together.
                measured = min(measured, together) if delivered else measured
                history.record_outcome(
                    mirror, Experience("probe", measured, probing.result_of(mirror).rtt, probing.result_of(mirror).loss)
                )
        history.close()


def _probe(mirror: Mirror, past: "Past", probing: Probing) -> Probe:
    found = probing.result_of(mirror)
    return Probe(
        mirror.name,
        past=past.rate,
        confidence=past.confidence,
        rtt=found.rtt,
        loss=found.loss,
        distance=probing.distance(mirror),
        unreached=found.problem,
    )
