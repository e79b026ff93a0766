"""Verification of bytes on disk.

The digest always comes from the trusted listing, never from the server of the bytes.
"""

import stat
from pathlib import Path

from gpuaria.hashing import hash_stream, matches
from gpuaria.records import RemoteFile, Verdict


def verify_file(path: Path, file: RemoteFile) -> Verdict:
    """Read `path` and compare its size, then its digest.

    Without a known digest the outcome is "unverifiable", never "ok". If the source gives no digest, or a weak one, the
    sha256 pinned at the first download decides. Only regular files are opened: a pipe would block, and reading a device
    may have side effects.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Verdict(file.path, "failed", "is not a regular file")
        with path.open("rb", buffering=0) as stream:
            size = path.stat().st_size
            if size != file.size:
                return Verdict(file.path, "wrong size", f"{size} bytes, not {file.size}")
            expected = file.strong_digest or file.digest
            if expected is None:
                return Verdict(file.path, "unverifiable", "the source gives no digest")
            found, total = hash_stream(stream, expected.algorithm, file.size)
    except FileNotFoundError:
        return Verdict(file.path, "missing")
    except OSError as error:
        return Verdict(file.path, "failed", f"cannot be read: {error.strerror}")
    if total != file.size:
        return Verdict(file.path, "wrong size", f"{total} bytes, not {file.size}")
    if not matches(expected, found):
        return Verdict(file.path, "wrong digest", f"{expected.algorithm} {found}, not {expected.hex}")
    return right_bytes(file)


def right_bytes(file: RemoteFile) -> Verdict:
    """Return the verdict on a file whose bytes match the best known digest."""
    seen = f"same bytes as when gpuaria first saw it (sha256 {file.pinned.hex})" if file.pinned else ""
    if file.digest is None:
        return Verdict(file.path, "unverifiable", f"{seen}; the source gives no digest".lstrip("; "))
    if not file.digest.weak:
        return Verdict(file.path, "ok")
    weak = f"{file.digest.algorithm}, a weak digest"
    return Verdict(file.path, "ok", f"{seen}; the source gives only {weak}" if seen else f"verified only by {weak}")
