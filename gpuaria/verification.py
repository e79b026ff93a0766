"""Bytes on disk against a manifest. A digest always comes from whoever vouched, never from the server of the bytes."""

import stat
from pathlib import Path

from gpuaria.hashing import hash_stream, matches
from gpuaria.records import RemoteFile, Verdict


def verify_file(path: Path, file: RemoteFile) -> Verdict:
    """Read `path` and compare size, then digest. Without a digest the outcome is "unverifiable", never "ok".

    What is no regular file is not opened: a pipe would block for ever, and a device may do things when it is read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Verdict(file.path, "failed", "is not a regular file")
        with path.open("rb", buffering=0) as stream:
            size = path.stat().st_size
            if size != file.size:
                return Verdict(file.path, "wrong size", f"{size} bytes, not {file.size}")
            if file.digest is None:
                return Verdict(file.path, "unverifiable", "the source gives no digest for it")
            found, total = hash_stream(stream, file.digest.algorithm, file.size)
    except FileNotFoundError:
        return Verdict(file.path, "missing")
    except OSError as error:
        return Verdict(file.path, "failed", f"cannot be read: {error.strerror}")
    if total != file.size:
        return Verdict(file.path, "wrong size", f"{total} bytes, not {file.size}")
    if not matches(file.digest, found):
        return Verdict(file.path, "wrong digest", f"{file.digest.algorithm} {found}, not {file.digest.hex}")
    return Verdict(file.path, "ok")
