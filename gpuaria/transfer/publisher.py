"""Publication of staged files: verify, screen, commit, and publish duplicates from the same bytes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gpuaria.content.policy import Screening
from gpuaria.errors import GpuariaError, WrongBytes
from gpuaria.hashing import matches
from gpuaria.paths import SafePath
from gpuaria.records import RemoteFile, Signature, Verdict
from gpuaria.storage.layout import Layout
from gpuaria.threads import Pool
from gpuaria.transfer.digester import Digester
from gpuaria.transfer.follow import Reader
from gpuaria.transfer.results import Results
from gpuaria.verification import right_bytes, verify_file


class Publisher:
    """Hashes staged files while they arrive, verifies and publishes them, and serves readers that follow them.

    `duplicates`: files with the same bytes as another one, by its path. Verdicts returned by methods concern
    the bytes only. A file with correct bytes but refused content gets the verdict "refused": its mirrors are not at
    fault, and another download would not help.
    """

    def __init__(
        self,
        layout: Layout,
        results: Results,
        duplicates: Mapping[SafePath, Sequence[RemoteFile]],
        screening: Screening,
        hashers: Pool,
    ) -> None:
        self._layout, self._results, self._duplicates, self._screening = layout, results, duplicates, screening
        self._hashers = hashers
        self._digesters: dict[SafePath, Digester] = {}

    @property
    def pending(self) -> int:
        """Number of queued and running tasks of the hashing threads."""
        return self._hashers.pending

    def hash_to(self, file: RemoteFile, end: int) -> None:
        """Hash a staged file up to `end` in the background; all bytes before that must be on disk."""
        digester = self._digesters.get(file.path)
        if digester is None:
            digester = self._digesters[file.path] = Digester(self._layout.staged_path(file), file)
        if digester.request(end):
            self._hashers.submit(digester.work)

    def submit(self, run: Callable[..., None], *arguments: object) -> None:
        """Call `run(*arguments)` on a hashing thread."""
        self._hashers.submit(run, *arguments)

    def publish(self, file: RemoteFile) -> Verdict:
        """Verify a completely staged file and publish it if its bytes are right. For a hashing thread."""
        digester = self._digesters.pop(file.path, None)
        return self.publish_staged(file, self._layout.staged_path(file), digester.finish() if digester else "")

    def discard(self, file: RemoteFile) -> None:
        """Remove staged bytes; readers that followed them get an error."""
        self._digesters.pop(file.path, None)
        self._results.arrivals.record_discarded(file)
        self._layout.discard_staged(file)

    def follow(self, file: RemoteFile) -> Reader:
        """Return a reader of a file that is still being downloaded."""
        return self._results.follow(file, self._layout)

    def publish_staged(self, file: RemoteFile, staged: Path, digest: str = "") -> Verdict:
        """Verify staged bytes and publish them if they are right. A verdict that is not good changes nothing.

        `digest`: the result of hashing during the download, "" without; a wrong one is computed again. Bytes with
        refused content are removed, and the receipts prevent another download.
        """
        right = digest and file.digest and matches(file.digest, digest) and staged.stat().st_size == file.size
        verdict = right_bytes(file) if right and not file.pinned else verify_file(staged, file)
        if verdict.good:
            refusal = self._screening.check_file(file, lambda _: staged)
            if refusal:
                self._layout.discard_staged(file)
                staged.unlink(missing_ok=True)
                self.refuse(file, refusal)
            else:
                self._layout.publish(file, staged)
                self.settle(file, verdict)
        return verdict

    def verify_present(self, file: RemoteFile) -> Verdict:
        """Verify bytes that were on disk before this run, and publish them if they are right."""
        proven = self._layout.has_receipt(file)
        verdict = (
            Verdict(file.path, "ok", "verified before")
            if proven
            else verify_file(self._layout.content_path(file), file)
        )
        if verdict.outcome == "ok" or (verdict.good and file.pinned):
            self._screen_and_settle(file, verdict, adopt=True)
        return verdict

    def adopt_verified(self, file: RemoteFile) -> None:
        """Publish bytes that were verified in an earlier run."""
        self._screen_and_settle(file, Verdict(file.path, "ok", "verified before"), adopt=True)

    def keep_published(self, file: RemoteFile, reason: str) -> None:
        """Keep a file that is already verified and published."""
        self._screen_and_settle(file, Verdict(file.path, "ok" if file.digest else "unverifiable", reason), adopt=False)

    def _screen_and_settle(self, file: RemoteFile, verdict: Verdict, *, adopt: bool) -> None:
        refusal = self._screening.check_file(file, self._layout.content_path)
        if refusal:
            self.refuse(file, refusal)
            return
        if adopt:
            self._layout.adopt(file)
        self.settle(file, verdict)

    def settle(self, file: RemoteFile, verdict: Verdict) -> None:
        """Record the verdict, and publish the duplicates from the same bytes."""
        self._results.record_verdict(file, verdict)
        self._results.arrivals.record_published(file)
        for duplicate in self._duplicates.get(file.path, ()):
            # Screening depends on the name as well.
            refusal = self._screening.check_file(duplicate, lambda _: self._layout.content_path(file))
            if refusal:
                self._results.record_verdict(duplicate, Verdict(duplicate.path, "refused", refusal))
                continue
            self._layout.adopt(duplicate, self._layout.content_path(file))
            self._results.record_verdict(
                duplicate, Verdict(duplicate.path, verdict.outcome, f"the same bytes as {file.path}")
            )

    def signature(self, files: Sequence[RemoteFile], *, whole: bool, locked: bool) -> Signature | None:
        """Check the signature among `files`, once all have verdicts; a wrong signature makes its file "refused".

        `whole`: `files` are the whole repo. `locked`: they come from a lock file, which may name only some files.
        """
        good_files = [file for file in files if self._results.verdicts[file.path].good]
        complete = whole and len(good_files) == len(files)
        found = self._screening.signature(good_files, self._layout.content_path, complete=complete, locked=locked)
        if found is not None and found.state == "wrong":
            file = next(file for file in good_files if file.path == found.path)
            self.refuse(file, f"the signature is wrong: {found.detail}")
        return found

    def refuse(self, file: RemoteFile, why: str) -> None:
        """Record that the content of a file, and so of its duplicates, is refused."""
        self.fail(file, Verdict(file.path, "refused", why))

    def fail(self, file: RemoteFile, verdict: Verdict, cause: GpuariaError | None = None) -> None:
        """Record that a file, and so its duplicates, could not be downloaded."""
        for each in (file, *self._duplicates.get(file.path, ())):
            each_verdict = Verdict(each.path, verdict.outcome, verdict.detail)
            self._results.record_verdict(each, each_verdict, cause)
            self._results.arrivals.record_failed(
                each, cause or WrongBytes(f"{each.path}: {verdict.detail or verdict.outcome}")
            )
