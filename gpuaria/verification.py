"""Bytes on disk against a manifest. A digest always comes from whoever vouched, never from the server of the bytes."""

import stat
from pathlib import Path

from gpuaria.hashing import hash_stream, matches
from gpuaria.records import RemoteFile, Verdict


def verify_file(path: Path, file: RemoteFile) -> Verdict:
    """Read `path` and compare size, then digest. Without a declared digest the outcome is "unverifiable", never "ok".

    The sha256 that was pinned at first sight decides where the source gives no digest, or a weak one.

    What is no regular file is not opened: a pipe would block for ever, and a device may do things when it is read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Verdict(file.path, "failed", "is not a regular file")
        with path.open("rb", buffering=0) as stream:
            size = path.stat().st_size
            if size != file.size:
                return Verdict(file.path, "wrong size", f"{size} bytes, not {file.size}")
            proof = file.strong or file.digest
            if proof is None:
                return Verdict(file.path, "unverifiable", "the source gives no digest for it")
            found, total = hash_stream(stream, proof.algorithm, file.size)
    except FileNotFoundError:
        return Verdict(file.path, "missing")
    except OSError as error:
        return Verdict(file.path, "failed", f"cannot be read: {error.strerror}")
    if total != file.size:
        return Verdict(file.path, "wrong size", f"{total} bytes, not {file.size}")
    if not matches(proof, found):
        return Verdict(file.path, "wrong digest", f"{proof.algorithm} {found}, not {proof.hex}")
    return right_bytes(file)


def right_bytes(file: RemoteFile) -> Verdict:
    """The verdict on a file whose bytes match the best digest that there is of it."""
    seen = f"the same bytes as when gpuaria first saw it (sha256 {file.pinned.hex})" if file.pinned else ""
    if file.digest is None:
        return Verdict(file.path, "unverifiable", f"{seen}; the source gives no digest for it".lstrip("; "))
    if not file.digest.weak:
        return Verdict(file.path, "ok")
    weak = f"{file.digest.algorithm}, which is weak"
    return Verdict(file.path, "ok", f"{seen}; the source gives only {weak}" if seen else f"by {weak}")
