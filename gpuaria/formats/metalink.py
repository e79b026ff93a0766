"""Metalink 4 (RFC 5854), for any download tool; the only format with which aria2 gets a file's size and piece hashes.

aria2 1.36 and 1.37 turn every `&` in a file name into the five characters `&#38;`, whatever its form in XML, since
libxml2's SAX parser returns attributes in that form. `misread_by_aria2` finds such names, which need another format.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpuaria._version import __version__
from gpuaria.errors import BadListing, UnsafePath, UsageError
from gpuaria.formats.fields import check_digest, check_url
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest
from gpuaria.text import printable

NAMESPACE = "urn:ietf:params:xml:ns:metalink"
MAX_CHARS = 64 << 20
_MAX_MARKUP = 2_000_000  # `<` and quotes: an empty element has 4 characters of text but needs about 250 bytes of memory
_LOWEST_PRIORITY = 999_999  # also the priority of a URL that has none
_HASH_TYPES = {"sha512": "sha-512", "sha256": "sha-256", "sha1": "sha-1", "md5": "md5"}  # IANA hash names
_ALGORITHMS = {hash_type: algorithm for algorithm, hash_type in _HASH_TYPES.items()}
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production Char
_COUNTRY = re.compile(r"[A-Za-z]{2}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_STAGING_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class Pieces:
    """Digests of consecutive pieces of `length` bytes; the last may be shorter. `algorithm`: as in hashing.py."""

    algorithm: str
    length: int
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetalinkFile:
    """One file of a Metalink. `size`: bytes, if given; `urls`: (URL, country or ""), best first."""

    name: SafePath
    size: int | None
    digests: tuple[Digest, ...] = ()
    pieces: Pieces | None = None
    urls: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:  # a signed query gives access to the file
        return f"MetalinkFile(name={self.name!r}, size={self.size}, {len(self.urls)} urls)"


def dump(
    manifest: Manifest,
    urls: Mapping[SafePath, Sequence[tuple[str, str]]],
    *,
    pieces: Mapping[SafePath, Pieces] | None = None,
) -> str:
    """Return a Metalink of the manifest. `urls`: (URL, location) for each file, best first.

    Omits locations other than two-letter country codes (ISO 3166-1) and digests other than plain hashes.
    Raises UnsafePath for a name that XML cannot represent, UsageError for a file without a usable URL, BadListing for
    a malformed digest or for pieces that do not add up to the file.
    """
    root = _new_root()
    for file in sorted(manifest.files, key=lambda file: file.path):
        name = _xml_name(file.path)
        _add_file(root, name, file.size, file.digest, urls.get(name, ()), (pieces or {}).get(name))
    return _to_text(root)


def for_download(name: str, size: int, urls: Sequence[str], pieces: Pieces | None = None) -> str:
    """Return a Metalink of one file for aria2.addMetalink, without a digest: gpuaria verifies the file.

    `urls`: best first. Raises UnsafePath unless `name` is a staging name (letters, digits, `.`, `_`, `-`), and
    the errors of `dump`.
    """
    if not _STAGING_NAME.fullmatch(name):
        raise UnsafePath(f"{printable(name)} is not a staging name")
    root = _new_root()
    _add_file(root, name, size, None, [(url, "") for url in urls], pieces)
    return _to_text(root)


def misread_by_aria2(name: str) -> bool:
    """Return whether `aria2c -M` gives the file another name than the Metalink does (measured on 1.36 and 1.37)."""
    return "&" in name


def load(text: str, *, limit: int = MAX_CHARS) -> list[MetalinkFile]:
    """Read a Metalink 4 of at most `limit` characters, keeping the order of its files.

    Skips URLs of other schemes than http and https, unknown hash types and foreign elements, as in RFC 5854.
    Raises BadListing, UnsafePath for a file name, UsageError for an unusable URL.
    """
    root = _parse(text, limit)
    if root.tag != _qualified("metalink"):
        raise BadListing(f"this is not Metalink 4 (RFC 5854): its outermost element is {printable(root.tag)}")
    files = [_read_file(element) for element in root.iterfind(_qualified("file"))]
    seen: set[SafePath] = set()
    for file in files:
        if file.name in seen:
            raise BadListing(f"the Metalink has {printable(file.name)} twice")
        seen.add(file.name)
    return files


def _new_root() -> ET.Element:
    root = ET.Element("metalink", {"xmlns": NAMESPACE})
    ET.SubElement(root, "generator").text = f"gpuaria/{__version__}"
    return root


def _to_text(root: ET.Element) -> str:
    ET.indent(root, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _xml_name(path: SafePath) -> SafePath:
    if _NOT_XML.search(path):
        raise UnsafePath(f"XML cannot carry the file name {printable(path)}")
    return SafePath.parse(path)


def _add_file(
    root: ET.Element,
    name: str,
    size: int,
    digest: Digest | None,
    urls: Sequence[tuple[str, str]],
    pieces: Pieces | None,
) -> None:
    if not urls:
        raise UsageError(f"{printable(name)} has no URL", "A Metalink needs one for every file.")
    element = ET.SubElement(root, "file", {"name": name})
    ET.SubElement(element, "size").text = str(size)
    if digest is not None and digest.algorithm in _HASH_TYPES:
        ET.SubElement(element, "hash", {"type": _HASH_TYPES[digest.algorithm]}).text = check_digest(digest, name).hex
    if pieces is not None and pieces.hashes:
        _add_pieces(element, _check_pieces(pieces, size, name))
    for priority, (url, location) in enumerate(urls, 1):
        country = {"location": location.lower()} if _COUNTRY.fullmatch(location) else {}
        ET.SubElement(element, "url", {"priority": str(min(priority, _LOWEST_PRIORITY)), **country}).text = check_url(
            url, name
        )


def _add_pieces(element: ET.Element, pieces: Pieces) -> None:
    attributes = {"length": str(pieces.length), "type": _HASH_TYPES[pieces.algorithm]}
    parent = ET.SubElement(element, "pieces", attributes)
    for piece_hash in pieces.hashes:
        ET.SubElement(parent, "hash").text = piece_hash


def _check_pieces(pieces: Pieces, size: int | None, name: str) -> Pieces:
    if pieces.algorithm not in _HASH_TYPES or pieces.length < 1:
        raise BadListing(f"{printable(name)} has pieces of {pieces.length} bytes by {printable(pieces.algorithm)}")
    for piece_hash in pieces.hashes:
        check_digest(Digest(pieces.algorithm, piece_hash), name)
    if size is not None and len(pieces.hashes) != -(-size // pieces.length):
        raise BadListing(
            f"{printable(name)} has {len(pieces.hashes)} pieces of {pieces.length} bytes, but is {size} bytes long"
        )
    return pieces


def _qualified(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _parse(text: str, limit: int) -> ET.Element:
    import defusedxml  # type: ignore[import-untyped, unused-ignore]
    import defusedxml.ElementTree  # type: ignore[import-untyped, unused-ignore]

    if len(text) > limit or sum(map(text.count, "<\"'")) > _MAX_MARKUP:
        raise BadListing(f"the Metalink is too large: more than {limit} characters or {_MAX_MARKUP} tags and quotes")
    try:
        root: ET.Element = defusedxml.ElementTree.fromstring(text, forbid_dtd=True)
    except defusedxml.DefusedXmlException:
        raise BadListing("the Metalink has a document type declaration, which gpuaria does not read") from None
    except (ET.ParseError, UnicodeError) as error:
        raise BadListing(f"the Metalink is not well-formed XML: {error}") from None
    return root


def _read_file(element: ET.Element) -> MetalinkFile:
    name = SafePath.parse(element.get("name", ""))
    size = _read_size(element, name)
    return MetalinkFile(
        name, size, _read_digests(element, name), _read_pieces(element, size, name), _urls(element, name)
    )


def _stripped_text(element: ET.Element) -> str:
    return (element.text or "").strip(" \t\r\n")


def _read_number(text: str, what: str, name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadListing(f"the {what} of {printable(name)} is not a number: {printable(text)}")
    return int(text)


def _read_size(element: ET.Element, name: str) -> int | None:
    sizes = {_read_number(_stripped_text(child), "size", name) for child in element.iterfind(_qualified("size"))}
    if len(sizes) > 1:
        raise BadListing(f"the Metalink has several sizes for {printable(name)}")
    return sizes.pop() if sizes else None


def _read_digests(element: ET.Element, name: str) -> tuple[Digest, ...]:
    return tuple(
        check_digest(Digest(_ALGORITHMS[child.get("type", "")], _stripped_text(child).lower()), name)
        for child in element.iterfind(_qualified("hash"))
        if child.get("type") in _ALGORITHMS
    )


def _read_pieces(element: ET.Element, size: int | None, name: str) -> Pieces | None:
    """Return the pieces of the strongest known type; None if the element is empty."""
    found = {child.get("type"): child for child in element.iterfind(_qualified("pieces"))}
    best = next((found[hash_type] for hash_type in _ALGORITHMS if hash_type in found), None)
    if best is None or not len(best):
        return None
    hashes = tuple(_stripped_text(child).lower() for child in best.iterfind(_qualified("hash")))
    length = _read_number(best.get("length", ""), "piece length", name)
    return _check_pieces(Pieces(_ALGORITHMS[best.get("type", "")], length, hashes), size, name)


def _urls(element: ET.Element, name: str) -> tuple[tuple[str, str], ...]:
    found = []
    for child in element.iterfind(_qualified("url")):
        url, location = _stripped_text(child), child.get("location", "")
        if url.partition(":")[0] in ("http", "https"):
            priority = _read_number(child.get("priority", str(_LOWEST_PRIORITY)), "priority", name)
            found.append((priority, check_url(url, name), location.lower() if _COUNTRY.fullmatch(location) else ""))
    return tuple((url, country) for _, url, country in sorted(found, key=lambda row: row[0]))
