"""Files on web servers, without a hub: one URL, a list of URLs, a folder with checksums, a Metalink 4.

A reference is `plain:URL`, `plain:PATH` of a local list or Metalink, or a URL of a host that no other source claims.
Its name determines its type:

    https://host/dir/          a folder with SHA256SUMS or MD5SUMS
    https://host/x.meta4       a Metalink 4 (RFC 5854), also .metalink; its URLs are mirrors, file by file
    https://host/x.bin         one file
    ./urls.txt                 a list: one file per line, its URLs separated by spaces; # starts a comment
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit

from gpuaria.errors import BadListing, FileNotInRepo, NetworkError, NotFound, UnsafePath, UsageError
from gpuaria.formats import metalink, sha256sums
from gpuaria.formats.fields import check_url, refuse_credential
from gpuaria.http.client import Http
from gpuaria.paths import SafePath, check_together
from gpuaria.records import Digest, Manifest, Mirror, RemoteFile, RepoKind, RepoRef, Trust
from gpuaria.sources.protocol import About, Wanted
from gpuaria.sources.web import Listed, WebSource, sized
from gpuaria.text import printable
from gpuaria.urls import ascii_url, authority, redacted, url_origin

SUMS: tuple[tuple[str, Callable[[str], dict[SafePath, Digest]]], ...] = (
    ("SHA256SUMS", sha256sums.load),
    ("MD5SUMS", sha256sums.load_md5),
)
MAX_LIST = 8 << 20  # bytes of a list, a Metalink or a file of checksums
MAX_FILES = 100_000
_METALINK = (".meta4", ".metalink")
_LOCAL = "file://"


class Plain(WebSource):
    """The `plain:` source; NamesItsServers."""

    about = About(name="plain", title="a web server", digests=("sha256", "sha512", "sha1", "md5"))

    def parse(
        self, text: str, kind: RepoKind | None, revision: str, endpoints: Sequence[str], default: str = ""
    ) -> RepoRef:
        """Parse a reference; its `kind` is "file", "folder", "list" or "metalink". Raises UsageError."""
        rest = text.strip().removeprefix("plain:")
        if re.match(r"https?://", rest, re.IGNORECASE):
            url = _normalized_url(rest)
            ref = RepoRef("plain", _kind(urlsplit(url).path), url, "")
            if ref.kind == "file" and not text.strip().startswith("plain:") and "." not in _file_name(url):
                hint = (
                    f"Set HF_ENDPOINT to that hub; for a file give plain:{redacted(url)}, for a folder a / at its end."
                )
                raise UsageError(f"{redacted(url)} is neither a page of a known hub nor a file or folder URL", hint)
        elif not rest or "\0" in rest or re.match(r"[a-z+.-]+://", rest, re.IGNORECASE):
            raise UsageError(f"{printable(text)} is neither an http URL nor a file", "plain:https://HOST/FILE")
        else:
            path = os.path.abspath(rest)
            ref = RepoRef("plain", "metalink" if _kind(path) == "metalink" else "list", path, "")
        if revision or kind not in (None, "", ref.kind):
            raise UsageError("a URL has no --type and no --revision", "Leave them out.")
        return ref

    def server(self, ref: RepoRef) -> Mirror:
        """Return the server of the URL, or the local file, as the mirror to list."""
        if "://" in ref.name:
            return Mirror(authority(ref.name), _server_url(ref.name), primary=True, listed=True)
        return Mirror(os.path.basename(ref.name), f"{_LOCAL}{ref.name}", primary=True, listed=True)

    def servers(self, manifest: Manifest) -> tuple[Mirror, ...]:
        """Return the servers of all URLs, the server of the listing first."""
        first = self.server(manifest.ref)
        bases = dict.fromkeys(_server_url(url) for file in manifest.files for url in file.urls)
        listed = [Mirror(authority(base), base, listed=True) for base in bases if base != first.base]
        if first.base in bases or not first.base.startswith(_LOCAL):
            return (first, *listed)
        return tuple(replace(one, primary=not at) for at, one in enumerate(listed)) or (first,)

    def holds(self, mirror: Mirror, file: RemoteFile) -> bool:
        """True if the file has a URL at the mirror; a mirror from the settings may have every file."""
        return not mirror.listed or any(url_origin(url) == url_origin(mirror.base) for url in file.urls)

    def resolve(self, ref: RepoRef, mirror: Mirror, http: Http, wanted: Wanted) -> Manifest:
        """Read the listing, and request the sizes that it lacks."""
        listed = _check_unique(self._listed(ref, http))
        files = sized(listed, [file.urls[0] for file in listed], http)
        trust: Trust = "origin" if any(file.digest for file in files) else "none"
        ordered = tuple(sorted(files, key=lambda file: file.path))
        return Manifest(ref, redacted(ref.name), "", mirror.base, trust, ordered)

    def _listed(self, ref: RepoRef, http: Http) -> list[Listed]:
        if ref.kind == "file":
            return [Listed(_file_path(ref.name), urls=(ref.name,))]
        if ref.kind == "folder":
            return _list_folder(ref.name, http)
        text = _read_text(ref.name, http)
        return _parse_metalink(text, ref.name) if ref.kind == "metalink" else _parse_list(text, ref.name)

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """Return the file's URL at that server; at a mirror from the settings, the same path."""
        own = next((url for url in file.urls if url_origin(url) == url_origin(mirror.base)), "")
        if own or not file.urls:
            return own or mirror.base
        parts = urlsplit(file.urls[0])
        return f"{mirror.base}{parts.path}" + (f"?{parts.query}" if parts.query else "")


def _kind(path: str) -> str:
    if path.lower().endswith(_METALINK):
        return "metalink"
    return "folder" if path.endswith("/") or not path else "file"


def _normalized_url(text: str) -> str:
    """Return a URL in plain ASCII, without its fragment. Raises UsageError."""
    refuse_credential(text, "the URL")
    try:
        url = ascii_url(text.partition("#")[0])
        return url if urlsplit(url).path else f"{url}/"
    except ValueError:
        raise UsageError(f"{printable(redacted(text))} is not a URL", "For example: https://host/file.bin") from None


def _server_url(url: str) -> str:
    return f"{urlsplit(url).scheme}://{authority(url)}"


def _file_path(url: str) -> SafePath:
    """Return the name of the file at a URL."""
    return SafePath.parse(_file_name(url))


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _check_unique(files: Sequence[Listed]) -> list[Listed]:
    if len(files) > MAX_FILES:
        raise BadListing(f"the listing has more than {MAX_FILES:,} files", "Split it.")
    found: dict[SafePath, Listed] = {}
    for file in files:
        if found.setdefault(file.path, file) != file:
            raise BadListing(f"the listing has {printable(file.path)} twice", "Give each file a unique name.")
    check_together(found, case_sensitive=True)
    return list(found.values())


def _read_text(name: str, http: Http) -> str:
    """Return the text of a list or Metalink, local or remote. Raises NotFound, NetworkError, BadListing."""
    if "://" in name:
        response = http.get(name, ceiling=MAX_LIST)
        if response.status in (404, 410):
            raise FileNotInRepo(f"{redacted(name)} does not exist", "Check the URL.")
        if response.status != 200:
            raise NetworkError(f"{redacted(name)} returned HTTP {response.status}", "Try again later.")
        data = response.body
    else:
        try:
            with Path(name).open("rb") as stream:
                data = stream.read(MAX_LIST + 1)
        except OSError as error:
            raise NotFound(f"{printable(name)} cannot be read: {error.strerror}", "Check the path.") from None
        if len(data) > MAX_LIST:
            raise BadListing(f"{printable(name)} is larger than {MAX_LIST:,} bytes", "Split it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadListing(
            f"{printable(redacted(name))} is not UTF-8 text", "It cannot be a list or a Metalink."
        ) from None


def _parse_list(text: str, name: str) -> list[Listed]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split() if not line.lstrip().startswith("#") else []
        if not words:
            continue
        urls = tuple(check_url(_normalized_url(word), f"line {number}") for word in words)
        try:
            found.append(Listed(_file_path(urls[0]), urls=urls))
        except UnsafePath as error:
            raise BadListing(
                f"line {number} of {printable(name)} names no file: {error.message}", "Correct this line."
            ) from None
    if not found:
        raise NotFound(f"{printable(name)} lists no URL", "Write one URL per line.")
    return found


def _parse_metalink(text: str, name: str) -> list[Listed]:
    found = []
    for file in metalink.load(text):
        if not file.urls:
            raise BadListing(f"the Metalink has no http URL for {printable(file.name)}", "Add a URL.")
        digests = sorted(file.digests, key=lambda digest: (digest.weak, digest.algorithm not in ("sha256", "sha512")))
        digest = digests[0] if digests else None
        found.append(Listed(file.name, file.size, digest, urls=tuple(url for url, _ in file.urls)))
    if not found:
        raise NotFound(f"the Metalink {printable(redacted(name))} has no file", "Check that it is complete.")
    return found


def _list_folder(url: str, http: Http) -> list[Listed]:
    """List the files in the folder's SHA256SUMS, else MD5SUMS."""
    for name, load in SUMS:
        response = http.get(urljoin(url, name), ceiling=MAX_LIST)
        if response.status == 200:
            try:
                sums = load(response.body.decode())
            except (BadListing, UnicodeDecodeError):
                continue  # some servers return a page with status 200 for every path
            return [Listed(path, digest=digest, urls=(urljoin(url, quote(path)),)) for path, digest in sums.items()]
        if response.status not in (403, 404, 410):
            raise NetworkError(f"{redacted(response.url)} returned HTTP {response.status}", "Try again later.")
    names = " or ".join(name for name, _ in SUMS)
    raise NotFound(
        f"{redacted(url)} has no {names}, so gpuaria cannot list its files",
        "Name one file by its URL, or several in a list: gpuaria fetch plain:urls.txt",
    )
