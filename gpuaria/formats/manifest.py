"""The manifest as JSON: the lock file, with which the same bytes can be downloaded from any source.

ASCII, one file per line, sorted by path, keys in the order of the records: the same manifest gives the same bytes, and
a diff shows the changed files.
"""

import json
import re
from itertools import pairwise
from typing import Any, TypeGuard, TypeVar, get_args

from gpuaria.errors import BadListing
from gpuaria.formats.fields import check_digest, check_url, refuse_credential
from gpuaria.paths import SafePath, check_together
from gpuaria.records import Digest, Manifest, RemoteFile, RepoRef, Trust, to_json
from gpuaria.text import printable

_T = TypeVar("_T", bound=str)

FORMAT = "gpuaria-manifest/1"
MAX_CHARS = 64 << 20
MAX_SIZE = 2**53  # bytes; the largest range that every JSON reader represents exactly (RFC 8259 section 6)
_GIT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HF_KINDS = ("model", "dataset", "space")
_TRUST_LEVELS: tuple[Trust, ...] = get_args(Trust)
_HEAD_KEYS = ("format", "ref", "name", "commit", "vouched_by", "trust", "restricted", "files")
_REF_KEYS = ("source", "kind", "name", "revision", "path")
_FILE_KEYS = ("path", "size", "digest", "oid")
_OPTIONAL_FILE_KEYS = ("urls", "pinned")  # omitted if empty


def dump(manifest: Manifest) -> str:
    """Return the manifest as text that `load` accepts; otherwise raise the error of `load`.

    `load` returns the files sorted by path.
    """
    head = {"format": FORMAT, **to_json(manifest)}
    del head["files"]
    files = sorted(manifest.files, key=lambda file: file.path)
    rows = ",".join(f"\n  {json.dumps(to_json(file))}" for file in files)
    text = f'{json.dumps(head, indent=1)[:-2]},\n "files": [{rows}\n ]\n}}\n'
    load(text, limit=len(text))
    return text


def load(text: str, *, limit: int = MAX_CHARS) -> Manifest:
    """Read a manifest of at most `limit` characters, with all fields validated and the files sorted by path.

    Raises BadListing naming the invalid field, UnsafePath for a file name or two names that exclude each other,
    UsageError for a URL with a credential.
    """
    row = _object(_parse(text, limit), "the manifest", None)
    if row.get("format") != FORMAT:
        found = row.get("format")
        said = printable(found) if isinstance(found, str) else "not named"
        raise BadListing(f"the manifest's format is {said}; this gpuaria reads {FORMAT}")
    row = _object(row, "the manifest", _HEAD_KEYS)
    ref = _ref(row["ref"])
    restricted = row["restricted"]
    if not isinstance(restricted, bool):
        raise _wrong_value("restricted", restricted, "true or false")
    return Manifest(
        ref=ref,
        name=_non_empty(row, "name"),
        commit=_commit(row, ref.source),
        vouched_by=_text(row, "vouched_by"),
        trust=_choice(row, "trust", _TRUST_LEVELS),
        files=_files(row["files"], ref.source),
        restricted=restricted,
    )


def _parse(text: str, limit: int) -> Any:
    if len(text) > limit:
        raise BadListing(f"the manifest is longer than {limit} characters")
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError:
        raise BadListing("the manifest is nested too deeply") from None
    except ValueError as error:
        raise BadListing(f"the manifest is not JSON: {error}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise BadListing("the manifest has an object with one key twice")
    return row


def _wrong_value(where: str, value: object, wanted: str) -> BadListing:
    found = printable(value) if isinstance(value, str) else f"of type {type(value).__name__}"
    return BadListing(f"the manifest's {where} is {found}, not {wanted}")


def _object(value: Any, where: str, keys: tuple[str, ...] | None, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return `value` if it is an object with exactly `keys` (None: any keys). Unknown keys are errors.

    Keys in `more` are optional.
    """
    if not isinstance(value, dict):
        raise BadListing(f"{where} is not a JSON object")
    for key in keys or ():
        if key not in value:
            raise BadListing(f"{where} has no '{key}'")
    for key in value:
        if keys is not None and key not in keys + more:
            raise BadListing(f"{where} has the unknown key {printable(key)}")
    return value


def _text(row: dict[str, Any], key: str, prefix: str = "") -> str:
    value = row[key]
    if not isinstance(value, str) or not value.isprintable():
        raise _wrong_value(prefix + key, value, "printable text")
    refuse_credential(value, f"the manifest's {prefix}{key}")
    return value


def _non_empty(row: dict[str, Any], key: str, prefix: str = "") -> str:
    value = _text(row, key, prefix)
    if not value:
        raise BadListing(f"the manifest's {prefix}{key} is empty")
    return value


def _choice(row: dict[str, Any], key: str, choices: tuple[_T, ...], prefix: str = "") -> _T:
    value = row[key]
    found = next((choice for choice in choices if choice == value), None)
    if found is None:
        raise _wrong_value(prefix + key, value, f"one of {', '.join(choices)}")
    return found


def _ref(value: Any) -> RepoRef:
    row = _object(value, "the manifest's ref", _REF_KEYS)
    source = _non_empty(row, "source", "ref.")
    return RepoRef(
        source=source,
        kind=_choice(row, "kind", _HF_KINDS, "ref.") if source == "hf" else _text(row, "kind", "ref."),
        name=_non_empty(row, "name", "ref."),
        revision=_text(row, "revision", "ref."),
        path=_text(row, "path", "ref."),
    )


def _commit(row: dict[str, Any], source: str) -> str:
    commit = _non_empty(row, "commit") if source == "hf" else _text(row, "commit")
    if source == "hf" and not _GIT_ID.fullmatch(commit):
        raise _wrong_value("commit", commit, "40 or 64 hex digits")
    return commit


def _files(value: Any, source: str) -> tuple[RemoteFile, ...]:
    if not isinstance(value, list):
        raise _wrong_value("files", value, "a list")
    rows = enumerate(value)
    files = sorted((_file(item, f"files[{index}]", source) for index, item in rows), key=lambda file: file.path)
    for one, other in pairwise(files):
        if one.path == other.path:
            raise BadListing(f"the manifest has {printable(one.path)} twice")
    check_together((file.path for file in files), case_sensitive=True)
    return tuple(files)


def _file(value: Any, where: str, source: str) -> RemoteFile:
    row = _object(value, f"the manifest's {where}", _FILE_KEYS, _OPTIONAL_FILE_KEYS)
    if not isinstance(row["path"], str):
        raise _wrong_value(f"{where}.path", row["path"], "text")
    path = SafePath.parse(row["path"])
    size = row["size"]
    if not _is_size(size):
        raise _wrong_value(f"{where}.size", size, f"a whole number from 0 to {MAX_SIZE}")
    oid = row["oid"] if source == "hf" else _text(row, "oid", f"{where}.")
    if not isinstance(oid, str) or (source == "hf" and oid and not _GIT_ID.fullmatch(oid)):
        raise _wrong_value(f"{where}.oid", oid, "empty, or 40 or 64 hex digits")
    digest, pinned = (_digest(row.get(key), path, f"{where}.{key}") for key in ("digest", "pinned"))
    if pinned is not None and pinned.algorithm != "sha256":
        raise _wrong_value(f"{where}.pinned", pinned.algorithm, "a sha256")
    return RemoteFile(path, size, digest, oid, _urls(row.get("urls", []), path, where), pinned)


def _urls(value: Any, path: SafePath, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(url, str) for url in value):
        raise _wrong_value(f"{where}.urls", value, "a list of URLs")
    return tuple(check_url(url, path) for url in value)


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE


def _digest(value: Any, path: SafePath, where: str) -> Digest | None:
    if value is None:
        return None
    row = _object(value, f"the manifest's {where}", ("algorithm", "hex"))
    for key in ("algorithm", "hex"):
        if not isinstance(row[key], str):
            raise _wrong_value(f"{where}.{key}", row[key], "text")
    return check_digest(Digest(row["algorithm"], row["hex"]), path)
