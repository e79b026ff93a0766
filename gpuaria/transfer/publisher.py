"""From staged bytes to a published file: verify, screen, commit, and give the same bytes their other names."""

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
    """Hashes staged files while they arrive, verifies and publishes them, and lets other readers follow them.

    `twins` are files with the bytes of another one, by the path of that one.

    A file with the right bytes and a content that is refused is settled here, as "refused": who served it is not to
    blame, and to fetch it again would not help. The verdicts that are returned are on the bytes alone.
    """

    def __init__(
        self,
        layout: Layout,
        results: Results,
        twins: Mapping[SafePath, Sequence[RemoteFile]],
        screening: Screening,
        hashers: Pool,
    ) -> None:
        self._layout, self._results, self._twins, self._screening = layout, results, twins, screening
        self._hashers = hashers
        self._digesters: dict[SafePath, Digester] = {}

    @property
    def pending(self) -> int:
        """Tasks of the hashing threads that wait or run."""
        return self._hashers.pending

    def hash_to(self, file: RemoteFile, end: int) -> None:
        """Hash a staged file up to `end` in the background; all bytes before that must be on disk."""
        digester = self._digesters.get(file.path)
        if digester is None:
            digester = self._digesters[file.path] = Digester(self._layout.staged(file), file)
        if digester.request(end):
            self._hashers.submit(digester.work)

    def submit(self, run: Callable[..., None], *arguments: object) -> None:
        """Call `run(*arguments)` on a hashing thread."""
        self._hashers.submit(run, *arguments)

    def publish(self, file: RemoteFile) -> Verdict:
        """Verify a file whose bytes are all staged, and publish it if they are right. For a hashing thread."""
        digester = self._digesters.pop(file.path, None)
        return self.publish_staged(file, self._layout.staged(file), digester.finish() if digester else "")

    def discard(self, file: RemoteFile) -> None:
        """Remove staged bytes; readers that followed them get an error."""
        self._digesters.pop(file.path, None)
        self._results.arrivals.discarded(file)
        self._layout.discard(file)

    def follow(self, file: RemoteFile) -> Reader:
        """Return a reader of a file that is still arriving: it waits for bytes, and learns how the file ends."""
        return self._results.follow(file, self._layout)

    def publish_staged(self, file: RemoteFile, staged: Path, digest: str = "") -> Verdict:
        """Verify staged bytes and publish them if they are right. A verdict that is not good leaves all as it is.

        `digest`: the result of hashing while they arrived, if that was done; a wrong one is computed again. Refused
        bytes are removed; the receipts remember them, so that they are not downloaded again.
        """
        right = digest and file.digest and matches(file.digest, digest) and staged.stat().st_size == file.size
        verdict = right_bytes(file) if right and not file.pinned else verify_file(staged, file)
        if verdict.good:
            refusal = self._screening.judge(file, lambda _: staged)
            if refusal:
                self._layout.discard(file)
                staged.unlink(missing_ok=True)
                self.refuse(file, refusal)
            else:
                self._layout.commit(file, staged)
                self.settle(file, verdict)
        return verdict

    def verify_present(self, file: RemoteFile) -> Verdict:
        """Verify bytes that were on disk before this run, and give them their name if they are right."""
        proven = self._layout.proven(file)
        verdict = (
            Verdict(file.path, "ok", "verified before") if proven else verify_file(self._layout.content(file), file)
        )
        if verdict.outcome == "ok" or (verdict.good and file.pinned):
            self._screen_and_settle(file, verdict, adopt=True)
        return verdict

    def adopt_verified(self, file: RemoteFile) -> None:
        """Give bytes that were proven before their name."""
        self._screen_and_settle(file, Verdict(file.path, "ok", "verified before"), adopt=True)

    def keep_published(self, file: RemoteFile, reason: str) -> None:
        """Leave a file as it is that was proven before and has its name."""
        self._screen_and_settle(file, Verdict(file.path, "ok" if file.digest else "unverifiable", reason), adopt=False)

    def _screen_and_settle(self, file: RemoteFile, verdict: Verdict, *, adopt: bool) -> None:
        refusal = self._screening.judge(file, self._layout.content)
        if refusal:
            self.refuse(file, refusal)
            return
        if adopt:
            self._layout.adopt(file)
        self.settle(file, verdict)

    def settle(self, file: RemoteFile, verdict: Verdict) -> None:
        """Record the verdict, and publish the twins from the same bytes."""
        self._results.record_verdict(file, verdict)
        self._results.arrivals.published(file)
        for twin in self._twins.get(file.path, ()):
            refusal = self._screening.judge(twin, lambda _: self._layout.content(file))  # the name counts too
            if refusal:
                self._results.record_verdict(twin, Verdict(twin.path, "refused", refusal))
                continue
            self._layout.adopt(twin, self._layout.content(file))
            self._results.record_verdict(twin, Verdict(twin.path, verdict.outcome, f"the same bytes as {file.path}"))

    def signature(self, files: Sequence[RemoteFile], *, whole: bool, locked: bool) -> Signature | None:
        """Check the signature among `files`, which are the `whole` repo or not, once all have their verdicts. A wrong
        signature makes its file "refused", so that the verdicts do not show a complete repo.

        `locked`: they are what a lock names, which may be a part of the repo.
        """
        here = [file for file in files if self._results.verdicts[file.path].good]
        complete = whole and len(here) == len(files)
        found = self._screening.signature(here, self._layout.content, complete=complete, locked=locked)
        if found is not None and found.state == "wrong":
            file = next(file for file in here if file.path == found.path)
            self.refuse(file, f"the signature is wrong: {found.detail}")
        return found

    def refuse(self, file: RemoteFile, why: str) -> None:
        """Record that the content of a file, and so of its twins, is refused."""
        self.fail(file, Verdict(file.path, "refused", why))

    def fail(self, file: RemoteFile, verdict: Verdict, cause: GpuariaError | None = None) -> None:
        """Record that a file, and so its twins, could not be downloaded."""
        for each in (file, *self._twins.get(file.path, ())):
            each_verdict = Verdict(each.path, verdict.outcome, verdict.detail)
            self._results.record_verdict(each, each_verdict, cause)
            self._results.arrivals.failed(
                each, cause or WrongBytes(f"{each.path}: {verdict.detail or verdict.outcome}")
            )
