"""The Source protocol that every source implements, and optional capabilities, detected by isinstance."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.records import Manifest, Mirror, MirrorUrl, RemoteFile, RepoKind, RepoRef

Wanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class About:
    """A source's static properties.

    name: the scheme of its references, and its name in the settings.
    title: its name in messages.
    hosts: host names whose URLs are references of this source.
    endpoint: the default server; empty if references name their servers.
    endpoint_variables, token_variables: environment variables for endpoint and token; the first that is set wins.
    buckets: rate limits as (regular expression for a URL's path, name in `RateLimit` headers); the first match wins.
    layout: the layout of a fetch without a target folder.
    digests: the digest algorithms in its listings.
    versions: True if the source has commits.
    revision: the default revision.
    """

    name: str
    title: str
    hosts: tuple[str, ...] = ()
    endpoint: str = ""
    endpoint_variables: tuple[str, ...] = ()
    token_variables: tuple[str, ...] = ()
    buckets: tuple[tuple[str, str], ...] = ()
    layout: Literal["hf", "folder"] = "folder"
    digests: tuple[str, ...] = ("sha256",)
    versions: bool = False
    revision: str = ""

    def bucket(self, url: str) -> str:
        """Return the name of the rate limit that a request for `url` counts against; empty if none."""
        path = urlsplit(url).path
        return next((name for pattern, name in self.buckets if re.search(pattern, path)), "")


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A resolved revision of a repo.

    name: the hub's id of the repo.
    commit: the immutable commit id.
    restricted: True if downloads need a credential.
    names: paths of known files; may be empty or incomplete.
    entries: all files in the source's listing format, if the hub returned them with the commit; else empty.
    """

    name: str
    commit: str
    restricted: bool
    names: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    entries: Sequence[Mapping[str, Any]] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Stated:
    """A file's commit, size in bytes and digest from response headers; empty or None if not stated."""

    commit: str = ""
    size: int | None = None
    digest: str = ""


@runtime_checkable
class Source(Protocol):
    """A hub's protocol. A source is stateless and returns records.

    `endpoint` and `mirror.base` are base URLs without a trailing slash.
    """

    about: About

    def parse(
        self, text: str, kind: RepoKind | None, revision: str, endpoints: Sequence[str], default: str = ""
    ) -> RepoRef:
        """Parse a reference that the user typed or pasted.

        `kind` and `revision` come from the command line, empty or None if not given. `endpoints`: base URLs of this
        source in the settings. `default`: the revision if the reference names none. Raises UsageError.
        """

    def resolve(self, ref: RepoRef, mirror: Mirror, http: Http, wanted: Wanted) -> Manifest:
        """List all files of the repo at `mirror`, each with its size; set `vouched_by` to `mirror.base`.

        `wanted(path)` is True for files to download: skip an unsafe path unless it is wanted. Raises NotFound,
        AccessDenied, NetworkError; UnsafePath for a wanted file.
        """

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """Return the URL of a file at a mirror. A request for it may be redirected."""

    def locate(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, http: Http) -> MirrorUrl | None:
        """Resolve the final URL of a file in one request; None if a download needs a credential.

        Raises NetworkError (also for a mirror with another commit, size or digest), AccessDenied, NotFound.
        """

    def check(self, response: Response, mirror: Mirror, manifest: Manifest) -> None:
        """Raise NetworkError if a response to `file_url` is not from a hub, or for another commit."""

    def refused(
        self, mirror: Mirror, manifest: Manifest, file: RemoteFile, response: Response, http: Http
    ) -> GpuariaError:
        """Return the error for an unsuccessful response to `file_url`."""


@runtime_checkable
class KnowsFreshness(Protocol):
    """Resolves a revision to its commit in one request, so that a saved listing of that commit can be reused."""

    def commit(self, ref: RepoRef, endpoint: str, http: Http) -> RepoInfo:
        """Resolve the revision to a commit. Raises NotFound, AccessDenied, NetworkError."""

    def listing(self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http, wanted: Wanted) -> Manifest:
        """List the files of the commit in `info`. Raises BadListing; UnsafePath for an unsafe path that is `wanted`."""

    def stated(self, headers: Mapping[str, str]) -> Stated:
        """Return commit, size and digest from the headers (lower-case names) of a response to `file_url`."""


@runtime_checkable
class ProvesListing(Protocol):
    """Can verify a listing from any mirror against a pinned commit id."""

    def unproven(self, manifest: Manifest, mirror: Mirror, http: Http) -> str:
        """Return why the pinned commit does not prove `manifest`; "" if it does. Raises BadListing if they differ."""


@runtime_checkable
class RedirectsSmallFiles(Protocol):
    """Redirects small files to a predictable URL on the same server, which can be requested directly."""

    def shortcuts(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
        """Return the possible redirect targets of a small file's `file_url`, most likely first; empty if unknown."""

    def sends_on(self, mirror: Mirror, manifest: Manifest) -> bool:
        """True if the mirror is known, without a request, to redirect small files to one of `shortcuts`."""


@runtime_checkable
class ChecksToken(Protocol):
    """Checks in one request that a server speaks the protocol and accepts the credential."""

    def whoami(self, base: str, http: Http, *, anonymous: bool) -> Response:
        """Return a response with status 200 for a valid token, 401 for none or an invalid one.

        Raises NotAHub, NetworkError.
        """


@runtime_checkable
class NamesItsServers(Protocol):
    """Has no endpoint: references and listings name the servers."""

    def server(self, ref: RepoRef) -> Mirror:
        """Return the server with the listing of `ref`."""

    def servers(self, manifest: Manifest) -> tuple[Mirror, ...]:
        """Return the servers that the listing names, the origin first."""

    def holds(self, mirror: Mirror, file: RemoteFile) -> bool:
        """True if `mirror` may have the file."""


def stated(source: Source, headers: Mapping[str, str]) -> Stated:
    """Return the headers' statements, if `source` implements KnowsFreshness; else an empty record."""
    return source.stated(headers) if isinstance(source, KnowsFreshness) else Stated()


def holders(source: Source, mirrors: Sequence[Mirror], file: RemoteFile) -> list[Mirror]:
    """Return the mirrors that may have a file; all of them unless the source implements NamesItsServers."""
    return [m for m in mirrors if not isinstance(source, NamesItsServers) or source.holds(m, file)]


def shortcuts(source: Source, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
    """Return `RedirectsSmallFiles.shortcuts`; empty if the source does not implement it."""
    return source.shortcuts(mirror, manifest, file) if isinstance(source, RedirectsSmallFiles) else ()


def sends_on(source: Source, mirror: Mirror, manifest: Manifest) -> bool:
    """Return RedirectsSmallFiles.sends_on; False if the source does not implement it."""
    return isinstance(source, RedirectsSmallFiles) and source.sends_on(mirror, manifest)
