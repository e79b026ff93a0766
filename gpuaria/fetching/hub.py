"""A source with its settings: endpoint, mirrors, and an HTTP client with only its own credentials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gpuaria.http.client import Http
from gpuaria.mirrors import configured
from gpuaria.mirrors.candidates import Candidates
from gpuaria.records import Mirror, RepoKind, RepoRef
from gpuaria.settings import Settings
from gpuaria.sources import Source, find
from gpuaria.sources.protocol import NamesItsServers


@dataclass(frozen=True, slots=True)
class Hub:
    """The source of a reference, with its settings, mirrors and HTTP client. `mirrors[0]` is the origin."""

    source: Source
    settings: Settings
    mirrors: tuple[Mirror, ...]
    http: Http
    candidates: Candidates


def open_hub(
    settings: Settings,
    source: Source,
    ref: RepoRef | None,
    client: Callable[[Settings], Http],
    warn: Callable[[str], None],
) -> Hub:
    """Open a source with its own settings. `ref` names the server of a source without an endpoint.

    `client` returns an HTTP client with the credentials of the settings passed to it. Raises ConfigError.
    """
    own, server = settings.for_source(source.about), server_of(source, ref)
    if server is not None and not own.endpoint:  # --token is for the server that the reference names
        own = replace(own, endpoint=server.base)
    http = client(own)
    mirrors = configured.with_tokens(configured.mirrors_of(own, server), http, own.endpoint, warn)
    for mirror in mirrors:
        http.budget.declare(mirror.base, source.about.bucket)
    candidates = Candidates(own, credential=http.has_credential(own.endpoint), source=source.about.name)
    return Hub(source, own, mirrors, http, candidates)


def server_of(source: Source, ref: RepoRef | None) -> Mirror | None:
    """Return the server that a reference names; None for a source with an endpoint."""
    return source.server(ref) if ref is not None and isinstance(source, NamesItsServers) else None


def reference(
    settings: Settings, text: str, kind: RepoKind | None = None, revision: str = "", default: str = ""
) -> RepoRef:
    """Parse a reference; a pasted URL may be of an endpoint or of a configured mirror. Raises UsageError."""

    def bases(one: Source) -> Sequence[str]:
        return [mirror.base for mirror in configured.mirrors_of(settings.for_source(one.about))]

    one = find(text, bases)
    return one.parse(text, kind, revision, bases(one), default or one.about.revision)
