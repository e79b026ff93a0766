"""Validation of file names from a listing; only this module joins such a name to a folder.

An unsafe path is rejected, not repaired: its reader expects the name in the manifest. Drives, UNC paths and device
names are rejected on Linux too, so that a folder can be copied to Windows.
"""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from gpuaria.errors import UnsafePath
from gpuaria.text import has_hostile, printable

MAX_NAME_BYTES = 255  # NAME_MAX of ext4, xfs, btrfs, APFS
MAX_PATH_BYTES = 1024
_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in "123456789¹²³"]
)
_GIT = frozenset([".git", "git~1"])  # git runs programs that a file below it names; git~1 is its short name on Windows
_RESERVED_FOLDERS = (
    (".cache", "huggingface"),
    (".gpuaria",),
)  # reserved for the layouts' own files below a target folder


class SafePath(str):
    """A relative path, separated by `/`, that cannot leave the folder it is joined to. Made by `parse`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "SafePath":
        """Check a path from a hub's listing. Raises UnsafePath with the reason."""
        reason = _why_unsafe(text)
        if reason:
            raise UnsafePath(
                f"unsafe file name {printable(text)}: {reason}",
                "Leave the file out with --exclude, and tell the owner of the repo.",
            )
        return cls(text)

    @property
    def parts(self) -> tuple[str, ...]:
        """The components of the path, outermost folder first."""
        return tuple(self.split("/"))

    def under(self, folder: Path) -> Path:
        """Return the path joined to `folder`, without file system access."""
        return folder.joinpath(*self.parts)


def _why_unsafe(text: str) -> str:
    if not text:
        return "it is empty"
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if text.startswith("/"):
        return "it is absolute"
    if "\\" in text:
        return "it contains a backslash"
    parts = text.split("/")
    for folder in _RESERVED_FOLDERS:
        seen = tuple(_normalized_part(part) for part in parts[: len(folder)])
        if seen == folder[: len(parts)]:  # also rejects a file with the name of that folder
            return f"{'/'.join(folder)} is reserved for the layout's own files"
    if any(_normalized_part(part) in _GIT for part in parts):
        return "git runs programs that files below .git name"
    return next((why for part in parts if (why := _why_unsafe_part(part))), "")


def _normalized_part(part: str) -> str:
    """Return the name as seen by Windows (no trailing dots or spaces) and HFS+ (no joiners, CVE-2014-9390)."""
    return part.replace("\u200c", "").replace("\u200d", "").rstrip(". ").casefold()


def _why_unsafe_part(part: str) -> str:
    if part == "":
        return "it has an empty component"
    if part in (".", ".."):
        return f"it has the component '{part}'"
    if has_hostile(part):
        return "it contains a control or invisible character"
    if part[1:2] == ":":
        return "it starts with a drive letter"
    if part.split(".")[0].rstrip().casefold() in _DEVICE_NAMES:
        return f"'{part}' is a device name on Windows"
    if len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"a component is longer than {MAX_NAME_BYTES} bytes"
    return ""


def check_together(paths: Iterable[SafePath], *, case_sensitive: bool) -> None:
    """Raise UnsafePath if two paths cannot coexist: names equal for the file system, or a file used as a folder.

    `case_sensitive`: the file system distinguishes `A` from `a`, and composed from decomposed Unicode.
    """

    def seen_as(text: str) -> str:
        return text if case_sensitive else unicodedata.normalize("NFC", text).casefold()

    files: dict[str, SafePath] = {}
    for path in paths:
        other = files.setdefault(seen_as(path), path)
        if other is not path and other != path:
            raise UnsafePath(
                f"{printable(other)} and {printable(path)} are the same name on this file system",
                "Leave one out with --exclude, or use a target on a case-sensitive file system.",
            )
    for path in files.values():
        parts = path.parts
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if seen_as(folder) in files:
                raise UnsafePath(
                    f"the listing has {printable(folder)} both as a file and as a folder",
                    "The listing is wrong; tell the owner of the repo.",
                )
