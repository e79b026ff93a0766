"""From staged bytes to a published file: verify, commit, and give the same bytes their other names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gpuaria.disk.layout import Layout
from gpuaria.errors import GpuariaError
from gpuaria.hashing import matches
from gpuaria.paths import SafePath
from gpuaria.records import RemoteFile, Verdict
from gpuaria.transfer.board import Board
from gpuaria.verifying import verify_file


class Landing:
    """`twins` are files with the bytes of another one, by the path of that one."""

    def __init__(self, layout: Layout, board: Board, twins: Mapping[SafePath, Sequence[RemoteFile]]) -> None:
        self._layout, self._board, self._twins = layout, board, twins

    def staged(self, file: RemoteFile, staged: Path, digest: str = "") -> Verdict:
        """Verify staged bytes and publish them if they are right. A verdict that is not good leaves all as it is.

        `digest` is what they hashed to while they came, if that was done; one that is wrong is computed again.
        """
        right = digest and file.digest and matches(file.digest, digest) and staged.stat().st_size == file.size
        verdict = Verdict(file.path, "ok") if right else verify_file(staged, file)
        if verdict.outcome in ("ok", "unverifiable"):
            self._layout.commit(file, staged)
            self.settled(file, verdict)
        return verdict

    def present(self, file: RemoteFile) -> Verdict:
        """Verify bytes that were there before us and give them their name if they are right."""
        verdict = verify_file(self._layout.content(file), file)
        if verdict.outcome == "ok":
            self._layout.adopt(file)
            self.settled(file, verdict)
        return verdict

    def proven(self, file: RemoteFile) -> None:
        """Give bytes that were proven before their name."""
        self._layout.adopt(file)
        self.settled(file, Verdict(file.path, "ok", "verified before"))

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        """Record the verdict, and publish the twins from the same bytes."""
        self._board.settle(file, verdict)
        for twin in self._twins.get(file.path, ()):
            self._layout.adopt(twin, self._layout.content(file))
            self._board.settle(twin, Verdict(twin.path, verdict.outcome, f"the same bytes as {file.path}"))

    def failed(self, file: RemoteFile, verdict: Verdict, cause: GpuariaError | None = None) -> None:
        """Record that a file could not be had; its twins could not either."""
        for each in (file, *self._twins.get(file.path, ())):
            self._board.settle(each, Verdict(each.path, verdict.outcome, verdict.detail), cause)
