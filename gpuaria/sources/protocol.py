"""What a source can do. Nothing here touches the disk or aria2."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Answer, Http
from gpuaria.records import Address, Kind, Manifest, Mirror, RemoteFile, RepoRef


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """A moving name made fast: the repo's own id, its immutable commit, whether its bytes need a credential.

    `names` are files that it is known to hold: none where the hub does not say, not all where there are very many.
    `entries` are all its files, as a listing has them, where the hub told them along with the commit.
    """

    name: str
    commit: str
    restricted: bool
    names: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    entries: Sequence[Mapping[str, Any]] = field(default=(), compare=False, repr=False)


class Source(Protocol):
    """A hub's protocol. `endpoint` is the base address in use, without a slash at its end."""

    def parse(
        self, text: str, kind: Kind | None, revision: str, endpoints: Sequence[str], default: str = "main"
    ) -> RepoRef:
        """Read what a person typed or pasted; `default` is the revision of what names none. Raises UsageError."""

    def commit(self, ref: RepoRef, endpoint: str, http: Http) -> RepoInfo:
        """Resolve the revision, once. Raises NotFound, AccessDenied, NetworkError."""

    def listing(
        self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http, wanted: Callable[[str], bool]
    ) -> Manifest:
        """Walk the file list. An unsafe name is an error only if it is `wanted`. Raises BadListing, UnsafePath."""

    def clone_url(self, ref: RepoRef, info: RepoInfo, endpoint: str) -> str:
        """What git would clone to have the repo's commits."""

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """Where the mirror answers for one file, possibly by a redirect."""

    def shortcuts(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
        """The address that `file_url` of a small file may be redirected to, as hubs write it, the likeliest first."""

    def sends_on(self, mirror: Mirror, manifest: Manifest) -> bool:
        """Whether it is known, before anything is asked, that small files are redirected to their shortcut."""

    def address(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, http: Http) -> Address | None:
        """Look the final address up, in one request; None where the bytes come only with a credential.

        Raises NetworkError (with the reason, if the mirror is stale or holds something else), AccessDenied, NotFound.
        """

    def check(self, answer: Answer, mirror: Mirror, manifest: Manifest) -> None:
        """Raise NetworkError where an answer to `file_url` shows that it is no hub's, or of another commit."""

    def refused(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, answer: Answer, http: Http) -> GpuariaError:
        """An answer to `file_url` that is no success, as the error that it stands for."""
