"""SHA256SUMS in the format of GNU coreutils (`sha256sum -c`)."""

import re

from gpuaria.errors import BadListing
from gpuaria.formats.fields import check_digest, one_line
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, RemoteFile
from gpuaria.text import printable

_FORMS = {
    algorithm: (
        re.compile(rf"(?P<escaped>\\?)(?P<hex>[0-9A-Fa-f]{{{length}}}) [ *](?P<name>.+)", re.DOTALL),
        re.compile(rf"(?P<escaped>\\?){word} \((?P<name>.+)\) = (?P<hex>[0-9A-Fa-f]{{{length}}})", re.DOTALL),
    )
    for algorithm, word, length in (("sha256", "SHA256", 64), ("md5", "MD5", 32))
}
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}  # coreutils 9: a line with one of these begins with a backslash
_UNESCAPES = {escaped: char for char, escaped in _ESCAPES.items()}


def dump(manifest: Manifest) -> str:
    """Return one line per file, sorted by path; a comment for each file without a sha256 (small files of a git repo).

    Raises BadListing for a malformed digest.
    """
    return "".join(_line(file) for file in sorted(manifest.files, key=lambda file: file.path))


def _line(file: RemoteFile) -> str:
    if file.digest is None:
        return f"# no sha256: {one_line(file.path)}\n"
    digest = check_digest(file.digest, file.path)
    if digest.algorithm != "sha256":
        return f"# no sha256: {one_line(file.path)} ({digest.algorithm} {digest.hex})\n"
    name = re.sub(r"[\\\n\r]", lambda match: _ESCAPES[match[0]], file.path)
    return f"{'' if name == file.path else chr(92)}{digest.hex}  {name}\n"


def load(text: str) -> dict[SafePath, Digest]:
    """Read the GNU form (text or binary, escaped or not) and the BSD form (`--tag`), in the file's order.

    Removes a leading `./`. Raises BadListing for another line or a name with two digests, UnsafePath for a name.
    """
    return _load(text, "sha256")


def load_md5(text: str) -> dict[SafePath, Digest]:
    """Parse MD5SUMS, which `md5sum` writes in the same formats. Raises like `load`."""
    return _load(text, "md5")


def _load(text: str, algorithm: str) -> dict[SafePath, Digest]:
    gnu, bsd = _FORMS[algorithm]
    sums: dict[SafePath, Digest] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        match = gnu.fullmatch(line) or bsd.fullmatch(line)
        if match is None:
            raise BadListing(f"line {number} of the checksum file is not a line with a {algorithm}")
        path, digest = _name(match, number), Digest(algorithm, match["hex"].lower())
        if sums.setdefault(path, digest) != digest:
            raise BadListing(f"line {number} of the checksum file contradicts an earlier sum of {printable(path)}")
    return sums


def _name(match: re.Match[str], number: int) -> SafePath:
    name = match["name"]
    if match["escaped"]:
        name = re.sub(r"\\.?", lambda pair: _unescape(pair[0], number), name)
    return SafePath.parse(name.removeprefix("./"))


def _unescape(pair: str, number: int) -> str:
    if pair not in _UNESCAPES:
        raise BadListing(f"line {number} of the checksum file has the unknown escape {printable(pair)}")
    return _UNESCAPES[pair]
