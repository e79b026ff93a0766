"""The target of a fetch: a folder, or the Hugging Face cache."""

from pathlib import Path

from gpuaria.errors import NotFound
from gpuaria.records import RepoRef
from gpuaria.storage.hf_cache import HfCache, repo_folder
from gpuaria.storage.layout import Layout
from gpuaria.storage.locate import find_layout, folder_layout, noted_commit
from gpuaria.storage.receipts import Receipts


class Target:
    """The Hugging Face cache at `place`, or the folder `place`; `folder` is None for the cache."""

    def __init__(self, place: Path, receipts: Receipts, *, cache: bool, symlinks: bool | None = None) -> None:
        self.folder = None if cache else place
        self._place, self._receipts, self._symlinks = place, receipts, symlinks

    def layout(self, ref: RepoRef, commit: str) -> Layout:
        """Return the layout of one commit in this target."""
        if self.folder is not None:
            return folder_layout(self.folder, ref, commit, self._receipts)
        return HfCache(self._place, ref, commit, self._receipts, symlinks=self._symlinks)

    def resolved_commit(self, ref: RepoRef) -> str:
        """Return the commit to which a fetch into this target last resolved the revision. Raises NotFound."""
        if ref.pinned:
            return ref.revision
        if self.folder is not None and self.folder.exists():
            layout = find_layout(self.folder, self._receipts)
            _check_holds(layout, ref)
            return layout.commit_id
        if ref.source != "hf":
            raise NotFound(f"{ref} is not in {self.folder}", "Remove --offline or unset HF_HUB_OFFLINE to download it.")
        commit = noted_commit(self._place / repo_folder(ref) / "refs" / ref.revision)
        if not commit:
            raise NotFound(f"{ref} is not in {self._place}", "Remove --offline or unset HF_HUB_OFFLINE to download it.")
        return commit


def _check_holds(layout: Layout, ref: RepoRef) -> None:
    """Raise NotFound if a folder contains another repo or revision. A folder made by hf does not record its repo."""
    kept = layout.saved_manifest()
    if kept is None or (layout.ref.name, layout.ref.revision) == (layout.root.name, layout.commit_id):
        return
    names = {kept.ref.name.lower(), kept.name.lower()}
    same = (kept.ref.source, kept.ref.kind) == (ref.source, ref.kind) and ref.name.lower() in names
    if not same or ref.revision not in (kept.ref.revision, kept.commit):
        raise NotFound(
            f"{layout.root} holds {kept.ref}, not {ref}, and gpuaria is offline",
            "Remove --offline or unset HF_HUB_OFFLINE to download it, or use another folder.",
        )
