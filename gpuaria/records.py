"""The nouns: frozen, comparable, and turned into JSON by one function. Sizes are bytes, times are seconds."""

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
WEAK = frozenset({"sha256-prefix", "md5"})
_OMIT_EMPTY = {"omit": "empty"}  # of fields that to_json leaves out where they are empty
GOOD: tuple[Outcome, ...] = ("ok", "unverifiable")  # the file is in place, as far as anybody can tell


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repo as the user asked for it. `path`: what of it a pasted URL named, empty for all.

    With a slash at its end it is a folder, without one a file or a folder. `source`: the name of the source, which is
    its scheme too. `kind` and `revision` are empty where the source has none.
    """

    source: str
    kind: RepoKind
    name: str
    revision: str = "main"
    path: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a whole commit id, which cannot come to mean something else."""
        return re.fullmatch(r"[0-9a-f]{40}", self.revision) is not None

    def __str__(self) -> str:  # a signed query opens the file to every reader
        prefix = "" if self.kind == "model" else f"{self.kind}s/"
        if self.source != "hf":
            prefix = f"{self.source}:"
        return f"{prefix}{redacted(self.name)}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class Digest:
    """What the bytes must hash to; algorithms as hashing.py names them ("sha256", "git-sha1"), hex in lower case."""

    algorithm: str
    hex: str

    @property
    def weak(self) -> bool:
        """Whether other bytes with this digest can be made: it finds accidents and no attack."""
        return self.algorithm in WEAK

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a manifest. `oid` is the source's own id of these bytes, empty where unknown.

    At a hub that is the git blob id (of the pointer, for an LFS file), on a web server the ETag. `urls`: where the
    listing itself says that the bytes are, best first. `pinned`: the sha256 that a target noted when it first saw the
    bytes of a file whose source gives no digest, or a weak one.
    """

    path: SafePath
    size: int
    digest: Digest | None
    oid: str = ""
    urls: tuple[str, ...] = field(default=(), repr=False, metadata=_OMIT_EMPTY)
    pinned: Digest | None = field(default=None, metadata=_OMIT_EMPTY)

    @property
    def strong(self) -> Digest | None:
        """The digest that proves the bytes: the declared one unless it is weak, else the pinned one."""
        return self.pinned if self.digest is None or self.digest.weak else self.digest

    @property
    def lfs(self) -> bool:
        """Whether the hub keeps the bytes outside git (digest is then the content's sha256)."""
        return self.digest is not None and self.digest.algorithm == "sha256" and self.oid != ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a repo holds at one immutable commit, and who said so.

    `name` is the hub's own id of the repo (`ref.name` may be an old one), `vouched_by` the endpoint whose listing
    this is, `trust` how far that goes. `restricted`: the bytes need a credential. `commit` is empty where the source
    has no versions.
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
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def version(self) -> str:
        """The commit; without one, a digest of what the source declares of every file."""
        if self.commit:
            return self.commit
        rows = sorted(f"{file.path}\0{file.size}\0{file.digest}\0{file.oid}" for file in self.files)
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Mirror:
    """A server of the source's protocol. `primary`: the one that vouches, and the only one that sees its credential.

    `own_token`: it is sent a credential that was issued for itself. `listed`: a listing names it, and says which of
    the files it has.
    """

    name: str
    base: str
    primary: bool = False
    location: str = ""
    own_token: bool = False
    listed: bool = False

    @property
    def anonymous(self) -> bool:
        """Whether it is asked without any credential."""
        return not (self.primary or self.own_token)


@dataclass(frozen=True, slots=True)
class MirrorUrl:
    """A URL that gives one file's bytes without a credential; `expires` in Unix seconds, None if it never does."""

    mirror: Mirror
    url: str
    expires: float | None = None

    def __repr__(self) -> str:  # a signed query opens the file to each reader of a log
        return f"MirrorUrl(mirror={self.mirror.name!r}, url={self.url.partition('?')[0]!r}, expires={self.expires!r})"


@dataclass(frozen=True, slots=True)
class Probe:
    """What is known of one mirror when it is ranked: times in seconds, rates in bytes per second, None if unknown.

    `problem`: why it cannot be used, empty if it can. `setup`: until the first byte, from nothing. `rate`: of
    `connections` parallel reads; `single`: of one. `growing`: they were still getting faster. `past`: what it really
    gave before, weighed by `confidence` (0 to 1). `same_pipe_as`: a mirror whose bytes come from the same host.
    `distance`: by location, from 0 (the same country) to 3 (another continent), 2 where unknown. `unreached`: why a
    connection failed just now, empty if none did.
    """

    mirror: str
    problem: str = ""
    setup: float | None = None
    rtt: float | None = None
    loss: float | None = None
    single: float | None = None
    rate: float | None = None
    connections: int = 1
    growing: bool = False
    past: float | None = None
    confidence: float = 0.0
    same_pipe_as: str = ""
    distance: int = 2
    unreached: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A mirror to use: expected bytes per second with `connections`, expected seconds if it were alone."""

    mirror: str
    rate: float | None
    seconds: float | None
    connections: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Mirrors to use, best first, and those not to use, each with one sentence."""

    accepted: tuple[Choice, ...]
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LocalState:
    """What the disk has of one file: bytes under its final identity (`size`, None if absent), whether they were
    proven before and are unchanged since, whether its name is in place, and bytes of an unfinished download."""

    size: int | None = None
    proven: bool = False
    named: bool = False
    partial: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for one file, and why.

    `skip`: proven and in place. `name`: proven, its name is missing. `verify`: bytes are here that nobody has proven.
    `copy`: the file `owner` of the plan has the same bytes. `create`: it is empty. `download`; `replace`: download over
    what is here. `refuse`: its content is known, and not wanted. The other fields belong to `download` and `replace`:
    `carrier`, `mirrors` (best first), `connections` (in all) and `counts` (of connections, by mirror name, for each
    mirror that is much weaker than the others).
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
        """Whether bytes come over the network."""
        return self.carrier != ""


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """All steps in the order in which they start. `space` is what the disk must still hold."""

    steps: tuple[Step, ...]
    fetch_bytes: int
    reuse_bytes: int
    space: int


@dataclass(frozen=True, slots=True)
class Aria2Status:
    """One reading of aria2.tellStatus: status as aria2 names it, lengths in bytes, speed in bytes per second."""

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
    """What became of one file. `path` is text since an extra file's name may be anything. "refused": its bytes are
    what was vouched for, and its content is not wanted."""

    path: str
    outcome: Outcome
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether a run may end with it as a success."""
        return self.outcome in GOOD


def outcomes(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many files have each outcome, in the order in which they are met."""
    return dict(Counter(verdict.outcome for verdict in verdicts))


@dataclass(frozen=True, slots=True)
class MirrorUse:
    """What one mirror gave in one run. `bytes` of large files are shared out by the speeds measured while they ran.

    `rtt`: seconds to connect to it, `ping`: seconds of an echo round trip, None where not measured. `rank_reason`: why
    it had its place among the mirrors.
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
    """A file in a format of Python's pickle, which does what it says when it is loaded.

    `imports`: the first things that it names and that are not known to be harmless, the worst ahead. `whole`: it could
    be read to its end.
    """

    path: str
    imports: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Signature:
    """The OpenSSF model signature at `path`, and what came of checking it; "absent" where one was hoped for."""

    path: str
    state: Literal["right", "wrong", "not checked", "absent"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What happened, for `--json` and for the last lines on the terminal.

    `weak` counts the files for which the source gives only a weak digest.
    `pickles` counts the pickles among the files that are in place; `pickle_files` are some of them, those that import
    something ahead. `misnamed`: some files that are no safetensors, against their names.
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
    """A record (or a list, tuple or dict of records) as plain JSON values, fields in their order, empty ones kept."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        values = ((f, getattr(record, f.name)) for f in dataclasses.fields(record))
        return {f.name: to_json(value) for f, value in values if value or "omit" not in f.metadata}
    if isinstance(record, dict):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_json(value) for value in record]
    return record
