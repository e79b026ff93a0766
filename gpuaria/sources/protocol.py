"""The protocols of a source: a narrow one that each source has, and optional ones, checked by isinstance."""

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
    """A source's declaration of itself.

    `name`: its scheme, and its name in the settings. `hosts`: URLs of these hosts are references of this source.
    `endpoint`: the server that is asked where the settings name no other one; empty where each reference names its own.
    `endpoint_variables`, `token_variables`: environment variables that set it and its credential; the first that is set
    counts. `buckets`: the rate limits of its servers, as (pattern in a URL's path, name in `RateLimit` headers); the
    first pattern that matches counts. `layout`: how a fetch arranges the files if no folder is named. `digests`:
    the algorithms that its listings use. `versions`: whether a commit means anything; `revision` is the usual one.
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
        """The name of the rate limit that a request for `url` counts against."""
        path = urlsplit(url).path
        return next((name for pattern, name in self.buckets if re.search(pattern, path)), "")


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A resolved revision: the repo's own id, its immutable commit, whether its bytes need a credential.

    `names` are files that it is known to hold: none where the hub does not say, not all where there are very many.
    `entries` are all its files, as a listing has them, where the hub told them along with the commit.
    """

    name: str
    commit: str
    restricted: bool
    names: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    entries: Sequence[Mapping[str, Any]] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Stated:
    """A server's statements about one file in a response's headers; empty or None where it states nothing."""

    commit: str = ""
    size: int | None = None
    digest: str = ""


@runtime_checkable
class Source(Protocol):
    """A hub's protocol. A source returns records and keeps no state of a run.

    `endpoint` and `mirror.base` are base URLs in use, without a slash at their end.
    """

    about: About

    def parse(
        self, text: str, kind: RepoKind | None, revision: str, endpoints: Sequence[str], default: str = ""
    ) -> RepoRef:
        """Read what a person typed or pasted; `default` is the revision of what names none. Raises UsageError."""

    def resolve(self, ref: RepoRef, mirror: Mirror, http: Http, wanted: Wanted) -> Manifest:
        """List the whole repo as `mirror` has it, every file with its size; `vouched_by` is `mirror.base`.

        An unsafe name is an error only if it is `wanted`. Raises NotFound, AccessDenied, NetworkError, UnsafePath.
        """

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """Return the URL of a file at a mirror, which may respond with a redirect."""

    def locate(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, http: Http) -> MirrorUrl | None:
        """Resolve the final URL in one request; None where the bytes come only with a credential.

        Raises NetworkError (with the reason, if the mirror is stale or holds something else), AccessDenied, NotFound.
        """

    def check(self, response: Response, mirror: Mirror, manifest: Manifest) -> None:
        """Raise NetworkError where a response to `file_url` shows that it is no hub's, or of another commit."""

    def refused(
        self, mirror: Mirror, manifest: Manifest, file: RemoteFile, response: Response, http: Http
    ) -> GpuariaError:
        """Return the error for an unsuccessful response to `file_url`."""


@runtime_checkable
class KnowsFreshness(Protocol):
    """One request says which commit a revision is now, so that a saved listing of that commit is used again."""

    def commit(self, ref: RepoRef, endpoint: str, http: Http) -> RepoInfo:
        """Resolve the revision. Raises NotFound, AccessDenied, NetworkError."""

    def listing(self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http, wanted: Wanted) -> Manifest:
        """List the files of that commit. An unsafe name is an error only if it is `wanted`. Raises BadListing."""

    def stated(self, headers: Mapping[str, str]) -> Stated:
        """Return commit, size and digest from the headers (names in lower case) of a response to `file_url`."""


@runtime_checkable
class ProvesListing(Protocol):
    """A pinned commit id proves the listing that any mirror gives."""

    def unproven(self, manifest: Manifest, mirror: Mirror, http: Http) -> str:
        """Why the commit does not prove a mirror's listing, "" if it does. Raises BadListing where it disproves it."""


@runtime_checkable
class RedirectsSmallFiles(Protocol):
    """Redirects small files to a URL on the same server that can be asked directly."""

    def shortcuts(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
        """The URL that `file_url` of a small file may be redirected to, as hubs write it, the likeliest first."""

    def sends_on(self, mirror: Mirror, manifest: Manifest) -> bool:
        """True if it is known, before anything is asked, that small files are redirected to their shortcut."""


@runtime_checkable
class ChecksToken(Protocol):
    """One request shows whether a server speaks the protocol and accepts the credential."""

    def whoami(self, base: str, http: Http, *, anonymous: bool) -> Response:
        """The response: 200 for a good token, 401 for none or a bad one. Raises NotAHub, NetworkError."""


@runtime_checkable
class NamesItsServers(Protocol):
    """References and listings name the servers themselves: the source has no endpoint."""

    def server(self, ref: RepoRef) -> Mirror:
        """The server that is asked for the listing of `ref`."""

    def servers(self, manifest: Manifest) -> tuple[Mirror, ...]:
        """The servers that the listing names, the origin first."""

    def holds(self, mirror: Mirror, file: RemoteFile) -> bool:
        """True if `mirror` may have this file."""


def stated(source: Source, headers: Mapping[str, str]) -> Stated:
    """Return the headers' statements by the protocol of `source`; empty if its headers state nothing."""
    return source.stated(headers) if isinstance(source, KnowsFreshness) else Stated()


def holders(source: Source, mirrors: Sequence[Mirror], file: RemoteFile) -> list[Mirror]:
    """The mirrors that may have a file: all of them, unless a listing says which."""
    return [m for m in mirrors if not isinstance(source, NamesItsServers) or source.holds(m, file)]


def shortcuts(source: Source, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
    """See RedirectsSmallFiles; none where the source does not redirect small files."""
    return source.shortcuts(mirror, manifest, file) if isinstance(source, RedirectsSmallFiles) else ()


def sends_on(source: Source, mirror: Mirror, manifest: Manifest) -> bool:
    """See RedirectsSmallFiles."""
    return isinstance(source, RedirectsSmallFiles) and source.sends_on(mirror, manifest)
