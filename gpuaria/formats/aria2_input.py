"""aria2's input file (`aria2c -i`): one line of URLs per file, then its indented options.

The format has no quoting. aria2c 1.36 and 1.37 (measured) drop spaces around a value, replace `${HOME}` in `out` and
`dir` by the home folder, and silently skip an unknown option or a line without `=`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gpuaria.errors import BadListing, UnsafePath, UsageError
from gpuaria.formats.fields import check_digest, check_url, one_line, refuse_credential
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, RemoteFile
from gpuaria.text import printable

MAX_CONNECTIONS = 16  # per server; aria2c 1.36 refuses more
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_WHITE_SPACE = " \t\r"
_FIXED_OPTIONS = {
    "min-split-size": "1M",  # the default of 20M leaves most connections unused
    "continue": "true",
    "auto-file-renaming": "false",  # a second run continues `x` instead of creating `x.1`
    "follow-torrent": "false",  # treat a repo's .torrent and .meta4 files as plain files
    "follow-metalink": "false",
}


@dataclass(frozen=True, slots=True)
class InputEntry:
    """One entry of an input file: the URLs of a file, and its options without dashes."""

    uris: tuple[str, ...]
    options: dict[str, str]

    def __repr__(self) -> str:  # a user's file may contain `header=` or a signed URL
        return f"InputEntry({len(self.uris)} uris, options {sorted(self.options)})"


def dump(
    manifest: Manifest,
    urls: Mapping[SafePath, Sequence[tuple[str, str]]],
    *,
    directory: str | None = None,
    connections: int = MAX_CONNECTIONS,
) -> str:
    """Return an input file for a stock aria2c of 1.36 or later. `urls`: (URL, location) for each file, best first.

    `connections` counts per server. The format has no size and no digest except sha256: prefer a Metalink, and verify
    afterwards. Raises UnsafePath for a name or folder that aria2 would misread, UsageError for a file without a usable
    URL or an invalid `connections`.
    """
    if not 1 <= connections <= MAX_CONNECTIONS:
        raise UsageError(f"{connections} connections per server; aria2c takes 1 to {MAX_CONNECTIONS}")
    refuse_credential(manifest.name, "the repo's name")
    lines = [f"# {one_line(manifest.name)}", f"# commit {one_line(manifest.commit)}", "# for: aria2c -i <this file>"]
    for file in sorted(manifest.files, key=lambda file: file.path):
        file_urls = [check_url(url, file.path) for url, _ in urls.get(file.path, ())]
        if not file_urls:
            raise UsageError(f"{printable(file.path)} has no URL", "An input file needs one for every file.")
        lines.append("\t".join(file_urls))
        lines += [f"  {name}={value}" for name, value in _options(file, file_urls, directory, connections).items()]
    return "\n".join(lines) + "\n"


def _options(file: RemoteFile, file_urls: list[str], directory: str | None, connections: int) -> dict[str, str]:
    options = {"out": _checked_value(SafePath.parse(file.path))}
    if directory is not None:
        options["dir"] = _checked_value(directory)
    if file.digest is not None and file.digest.algorithm == "sha256":
        options["checksum"] = f"sha-256={check_digest(file.digest, file.path).hex}"
    servers = {urlsplit(url).netloc for url in file_urls}
    options["split"] = str(connections * len(servers))
    options["max-connection-per-server"] = str(connections)
    return options | _FIXED_OPTIONS


def _checked_value(text: str) -> str:
    if not text or text != text.strip(" ") or "${HOME}" in text or any(c < " " or c == "\x7f" for c in text):
        raise UnsafePath(
            f"aria2 would misread {printable(text)} in an input file",
            "It drops spaces at both ends and replaces ${HOME}; export a Metalink, or let gpuaria download.",
        )
    return text


def load(text: str) -> list[InputEntry]:
    """Read an input file as aria2 does, but raise BadListing for a line that aria2 would skip silently.

    The last value of a repeated option counts; values of `header` and `index-out` are joined by newlines.
    """
    entries: list[InputEntry] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("#") or not line.strip(_WHITE_SPACE):
            continue
        if line[0] in " \t":
            _read_option(entries, line, number)
        else:
            uris = tuple(uri for part in line.split("\t") if (uri := part.strip(_WHITE_SPACE)))
            entries.append(InputEntry(uris, {}))
    return entries


def _read_option(entries: list[InputEntry], line: str, number: int) -> None:
    name, equals, value = (part.strip(_WHITE_SPACE) for part in line.partition("="))
    if not equals or not _OPTION.fullmatch(name):
        raise BadListing(f"line {number} of the input file is not option=value")
    if not entries:
        raise BadListing(f"line {number} of the input file has an option before the first URL")
    options = entries[-1].options
    if name in ("header", "index-out") and name in options:
        value = f"{options[name]}\n{value}"
    options[name] = value
