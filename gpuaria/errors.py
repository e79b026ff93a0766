"""The errors that gpuaria raises.

    GpuariaError (1, a bug)
    +- UsageError (2)
    +- SomeFilesFailed (3)
    +- WrongBytes (4)
    +- NotFound (5)
    |  +- RepoNotFound   +- RevisionNotFound   +- FileNotInRepo   +- NothingMatched
    +- AccessDenied (6)
    |  +- Gated          +- BadToken
    +- NetworkError (7)
    |  +- Unreachable    +- NotAHub            +- RateLimited     +- NoUsableMirror  +- BadListing
    |                    |  +- Blocked
    +- DiskError (8)
    |  +- NoSpace        +- UnsafePath         +- Locked
    +- Aria2Error (9)
    +- ConfigError (10)
    +- Interrupted (130)

A message says what happened to which file or server; `hint` says what to do. Neither contains a credential.
`side` says who has to act: the operator of the source, the owner of the target, aria2, the user, or gpuaria's authors.
"""

from typing import ClassVar, Literal

Retry = Literal["never", "elsewhere", "later"]
Side = Literal["source", "target", "engine", "user", "us"]


class GpuariaError(Exception):
    """The root: `exit_code` for the shell, `side` that failed, `hint` for the reader, `retry` for the caller.

    The `retry` argument overrides the default of the class.
    """

    exit_code: ClassVar[int] = 1
    side: ClassVar[Side] = "us"
    usual_retry: ClassVar[Retry] = "never"

    def __init__(self, message: str, hint: str = "", *, retry: Retry | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self._retry = retry

    @property
    def retry(self) -> Retry:
        """Return when the same request may succeed: "never", "elsewhere" (at another mirror) or "later"."""
        return self._retry or self.usual_retry


class UsageError(GpuariaError):
    """Invalid usage of the command line or of the API."""

    exit_code = 2
    side: ClassVar[Side] = "user"


class SomeFilesFailed(GpuariaError):
    """Some files could not be downloaded; the others are in place and verified."""

    exit_code = 3
    side: ClassVar[Side] = "source"
    usual_retry: ClassVar[Retry] = "later"


class WrongBytes(GpuariaError):
    """Bytes do not match the digest in the manifest."""

    exit_code = 4
    side: ClassVar[Side] = "source"
    usual_retry: ClassVar[Retry] = "elsewhere"


class NotFound(GpuariaError):
    """A repo, revision or file does not exist, or no file matches."""

    exit_code = 5
    side: ClassVar[Side] = "source"


class RepoNotFound(NotFound):
    """The repo does not exist, or it is private and no token was sent."""


class RevisionNotFound(NotFound):
    """The repo has no such branch, tag or commit."""


class FileNotInRepo(NotFound):
    """The repo has no such file at this commit."""


class NothingMatched(NotFound):
    """The patterns select no file."""

    side: ClassVar[Side] = "user"


class AccessDenied(GpuariaError):
    """The hub refuses access to a repo or file."""

    exit_code = 6
    side: ClassVar[Side] = "source"


class Gated(AccessDenied):
    """The user has not accepted the repo's terms."""


class BadToken(AccessDenied):
    """The hub does not accept the token."""

    side: ClassVar[Side] = "user"


class NetworkError(GpuariaError):
    """A server could not be reached, or its response is unusable."""

    exit_code = 7
    side: ClassVar[Side] = "source"
    usual_retry: ClassVar[Retry] = "elsewhere"


class Unreachable(NetworkError):
    """No response: no IP address, no connection, no trusted certificate, a time-out, or a broken connection."""


class NotAHub(NetworkError):
    """The server does not speak the hub's protocol: a captive portal or a broken mirror."""


class Blocked(NotAHub):
    """A proxy or firewall in front of the hub refuses the request with its own page."""


class RateLimited(NetworkError):
    """The hub's quota is used up for longer than gpuaria may wait."""

    usual_retry: ClassVar[Retry] = "later"


class NoUsableMirror(NetworkError):
    """Every mirror of a file failed."""

    usual_retry: ClassVar[Retry] = "later"


class BadListing(NetworkError):
    """A listing is inconsistent or unreadable."""


class DiskError(GpuariaError):
    """The target cannot be read or written."""

    exit_code = 8
    side: ClassVar[Side] = "target"


class NotWritable(DiskError):
    """The target is read-only. That suffices if all files are in place."""


class NoSpace(DiskError):
    """The file system has less free space than the plan needs."""


class UnsafePath(DiskError):
    """A file name from a server would leave the target folder or cannot exist in it."""


class Locked(DiskError):
    """Another process uses the same target."""

    usual_retry: ClassVar[Retry] = "later"


class Aria2Error(GpuariaError):
    """aria2c is missing or too old, has died, or rejects the RPC secret."""

    exit_code = 9
    side: ClassVar[Side] = "engine"


class ConfigError(GpuariaError):
    """A settings file or variable is invalid."""

    exit_code = 10
    side: ClassVar[Side] = "user"


class Interrupted(GpuariaError):
    """The user pressed Ctrl-C, or the process was asked to stop."""

    exit_code = 130
    side: ClassVar[Side] = "user"
    usual_retry: ClassVar[Retry] = "later"
