"""Records shared by all rooms: frozen, comparable, converted to JSON by `to_json`. Sizes in bytes, times in seconds."""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gpuaria.paths import SafePath
from gpuaria.urls import redacted

RepoKind = str  # of a repo, as its source names it: "model", "dataset" and "space" at a hub
Trust = Literal["pinned", "origin", "quorum", "mirror only", "first seen", "none"]
Action = Literal["skip", "name", "verify", "copy", "create", "download", "replace", "refuse"]
Carrier = Literal["aria2", "http", ""]
Outcome = Literal["ok", "missing", "wrong size", "wrong digest", "unverifiable", "extra", "failed", "refused"]
WEAK_ALGORITHMS = frozenset({"sha256-prefix", "md5"})
_OMIT_EMPTY = {"omit": "empty"}  # fields that to_json omits when empty
GOOD_OUTCOMES: tuple[Outcome, ...] = ("ok", "unverifiable")  # the file is in place, and no check failed


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repo as the user requested it.

    `source`: name of the source, which is also its URL scheme. `kind` and `revision` are empty if the source has none.
    `path`: the part of the repo that a pasted URL names, empty for all; with a trailing slash it is a folder, without
    one a file or a folder.
    """

    source: str
    kind: RepoKind
    name: str
    revision: str = "main"
    path: str = ""

    @property
    def pinned(self) -> bool:
        """True if the revision is a full commit id, which always names the same content."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None

    def __str__(self) -> str:  # never print a signed query: it grants access to the file
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        if self.source != "hf":
            prefix = f"{self.source}:"
        return f"{prefix}{redacted(self.name)}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class Digest:
    """The expected hash of some bytes: algorithm as named in hashing.py ("sha256", "git-sha1"), hex in lower case."""

    algorithm: str
    hex: str

    @property
    def weak(self) -> bool:
        """True if an attacker can make other bytes with this digest: it detects errors only."""
        return self.algorithm in WEAK_ALGORITHMS

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a manifest.

    `oid`: the source's id of the content, empty if unknown: at a hub the git blob id (of the pointer, for an LFS
    file), on a web server the ETag. `urls`: download URLs given by the listing itself, best first. `pinned`: sha256
    computed on the first download of a file whose source declares no digest or a weak one.
    """

    path: SafePath
    size: int
    digest: Digest | None
    oid: str = ""
    urls: tuple[str, ...] = field(default=(), repr=False, metadata=_OMIT_EMPTY)
    pinned: Digest | None = field(default=None, metadata=_OMIT_EMPTY)

    @property
    def strong_digest(self) -> Digest | None:
        """The digest to verify with: the declared one, or the pinned one if that is missing or weak."""
        return self.pinned if self.digest is None or self.digest.weak else self.digest

    @property
    def lfs(self) -> bool:
        """True if the hub stores the content outside git; the digest is then its sha256."""
        return self.digest is not None and self.digest.algorithm == "sha256" and self.oid != ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a repo at one immutable commit, and the server that listed them.

    `name`: the hub's id of the repo (`ref.name` may be a former name). `vouched_by`: the endpoint that gave the
    listing; `trust`: how the listing was confirmed. `restricted`: downloads need a credential. `commit` is empty if
    the source has no versions.
    """

    ref: RepoRef
    name: str
    commit: str
    vouched_by: str
    trust: Trust
    files: tuple[RemoteFile, ...]
    restricted: bool = False

    @property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def version(self) -> str:
        """The commit; without one, a hash of the declared properties of all files."""
        if self.commit:
            return self.commit
        rows = sorted(f"{file.path}\0{file.size}\0{file.digest}\0{file.oid}" for file in self.files)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Mirror:
    """A server of the source's protocol.

    `primary`: the origin, whose listing decides; no other server receives its credential. `own_token`: the mirror
    receives a credential that it issued itself. `listed`: the mirror comes from a listing, which also says which
    files it has.
    """

    name: str
    base: str
    primary: bool = False
    location: str = ""
    own_token: bool = False
    listed: bool = False

    @property
    def anonymous(self) -> bool:
        """True if requests to it carry no credential."""
        return not (self.primary or self.own_token)


@dataclass(frozen=True, slots=True)
class MirrorUrl:
    """A URL that serves one file without a credential. `expires`: Unix time, None if it never expires."""

    mirror: Mirror
    url: str
    expires: float | None = None

    def __repr__(self) -> str:  # never print a signed query: it grants access to the file
        return f"MirrorUrl(mirror={self.mirror.name!r}, url={self.url.partition('?')[0]!r}, expires={self.expires!r})"


@dataclass(frozen=True, slots=True)
class LocalState:
    """The state of one file on disk.

    `size`: bytes of the published content, None if absent. `proven`: a receipt shows that the content was verified
    and has not changed since. `named`: the file has its final name. `partial`: bytes of an unfinished download.
    """

    size: int | None = None
    proven: bool = False
    named: bool = False
    partial: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """The action planned for one file.

    `skip`: verified and in place. `name`: verified, but its name is missing. `verify`: local content without a
    receipt. `copy`: the file `owner` of the same plan has the same content. `create`: an empty file. `download`.
    `replace`: download over a different local file. `refuse`: the content policy rejects it.

    `download` and `replace` use the other fields: `carrier`, `mirrors` (best first), `connections` (total) and
    `counts` (connections by mirror name, only for mirrors much slower than the others).
    """

    file: RemoteFile
    action: Action
    reason: str
    carrier: Carrier = ""
    mirrors: tuple[Mirror, ...] = ()
    connections: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    owner: SafePath | None = None

    @property
    def fetches(self) -> bool:
        """True if the step downloads bytes."""
        return self.carrier != ""


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """All steps, in the order in which they start. `space`: free disk bytes needed."""

    steps: tuple[Step, ...]
    fetch_bytes: int
    reuse_bytes: int
    space: int


@dataclass(frozen=True, slots=True)
class Aria2Status:
    """One response of aria2.tellStatus: status as aria2 names it, lengths in bytes, speed in bytes per second."""

    gid: str
    status: str
    total: int
    completed: int
    speed: int
    connections: int
    error_code: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one file.

    `path` is plain text, since an extra file may have an unsafe name. "refused": the digest is right, but the content
    policy rejects the file.
    """

    path: str
    outcome: Outcome
    detail: str = ""

    @property
    def good(self) -> bool:
        """True if the run can still succeed."""
        return self.outcome in GOOD_OUTCOMES


def count_outcomes(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """Return the number of files for each outcome, in order of first occurrence."""
    return dict(Counter(verdict.outcome for verdict in verdicts))


@dataclass(frozen=True, slots=True)
class MirrorUse:
    """The contribution of one mirror to one run.

    `bytes`: for large files an estimate from the speeds measured during the download. `rtt`: seconds to connect;
    `ping`: seconds of an ICMP round trip; None if not measured. `rank_reason`: the reason for its rank.
    """

    name: str
    bytes: int = 0
    files: int = 0
    requests: int = 0
    rejected: str = ""
    rtt: float | None = None
    ping: float | None = None
    rank_reason: str = ""


@dataclass(frozen=True, slots=True)
class PickleFile:
    """A pickle file, which can run code when loaded.

    `imports`: some imported names that are not known to be harmless, most dangerous first. `whole`: the scan reached
    the end of the file.
    """

    path: str
    imports: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Signature:
    """The OpenSSF model signature at `path` and the result of its check; "absent" if a required one is missing."""

    path: str
    state: Literal["right", "wrong", "not checked", "absent"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run, for `--json` and the summary on the terminal.

    `weak`: number of files with only a weak digest. `pickles`: number of pickle files in place; `pickle_files`: some
    of them, those with suspicious imports first. `misnamed`: some files named .safetensors in another format.
    """

    ref: str
    commit: str
    path: str
    files: int
    bytes_fetched: int
    bytes_reused: int
    seconds: float
    hub_requests: int
    vouched_by: str
    trust: Trust
    verdicts: dict[str, int] = field(default_factory=dict)
    mirrors: tuple[MirrorUse, ...] = ()
    problems: tuple[Verdict, ...] = ()
    pickles: int = 0
    pickle_files: tuple[PickleFile, ...] = ()
    misnamed: tuple[str, ...] = ()
    signature: Signature | None = None
    exit_code: int = 0
    weak: int = field(default=0, metadata=_OMIT_EMPTY)

    @property
    def speed(self) -> float:
        """Average bytes per second over the whole run."""
        return self.bytes_fetched / self.seconds if self.seconds > 0 else 0.0


def to_json(record: Any) -> Any:
    """Convert a record (or a list, tuple or dict of records) to plain JSON values, keeping the order of the fields."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        values = ((f, getattr(record, f.name)) for f in dataclasses.fields(record))
        return {f.name: to_json(value) for f, value in values if value or "omit" not in f.metadata}
    if isinstance(record, dict):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    return record
