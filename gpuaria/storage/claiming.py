"""Base class of the layouts: claims on files, and their staged bytes."""

from abc import ABC, abstractmethod
from pathlib import Path

from gpuaria.records import RemoteFile
from gpuaria.storage.claims import Claims
from gpuaria.storage.layout import ClaimResult, ProgressMark
from gpuaria.storage.locks import TargetLock
from gpuaria.storage.receipts import Receipts
from gpuaria.storage.staging import Staging


class ClaimingLayout(ABC):
    """The claiming and staging methods of a layout. `_swept`: this fetch cleaned the staging folder when it began."""

    _staging: Staging
    _claims: Claims
    _receipts: Receipts
    _lock: TargetLock | None = None
    _swept = True

    @abstractmethod
    def content_path(self, file: RemoteFile) -> Path:
        """See Layout."""

    @abstractmethod
    def _published_path(self, file: RemoteFile) -> str:
        """Return the path under which the bytes of `file` are published."""

    def claim(self, file: RemoteFile) -> ClaimResult:
        """See Layout."""
        if self._lock is not None and self._lock.alone:
            self._lock.share()  # from now on, claims separate the fetches
        claim = self._claims.claim(file, self._staging.name_of(file), self._published_path(file))
        if claim is ClaimResult.GRANTED and not self._swept:
            self._staging.clear_unsafe(file)
        return claim

    def progress_mark(self, file: RemoteFile) -> ProgressMark:
        """See Layout."""
        return self._claims.progress_mark(file, self._staging.name_of(file))

    def release_claim(self, file: RemoteFile) -> None:
        """See Layout."""
        self._claims.release(file, self._staging.name_of(file))

    def has_receipt(self, file: RemoteFile) -> bool:
        """See Layout."""
        place = self.content_path(file)
        return file.digest is not None and place in self._receipts.verified({place: file.digest})

    def revoke_receipt(self, file: RemoteFile) -> None:
        """See Layout."""
        self._receipts.revoke(self._published_path(file))

    def staged_path(self, file: RemoteFile) -> Path:
        """See Layout."""
        return self._staging.path_of(file)

    def range_links(self, file: RemoteFile) -> Path:
        """See Layout."""
        return self._staging.range_links(file)
