"""Load the token of each server, once per run, when the first request to it needs the token. Runs token helpers."""

import contextlib
import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gpuaria.errors import AccessDenied, ConfigError, GpuariaError, Interrupted, NetworkError
from gpuaria.http.bearer import Credential
from gpuaria.settings import Secret, Settings, TokenSource
from gpuaria.settings.values import credential
from gpuaria.text import printable
from gpuaria.urls import url_origin

LOG = logging.getLogger("gpuaria.http.auth")
HELPER_SECONDS = 60.0  # the user may have to unlock a keyring
_ATTRIBUTE = re.compile(  # git-credential(1), "INPUT/OUTPUT FORMAT"
    r"(protocol|host|path|username|password|password_expiry_utc|oauth_refresh_token|url|authtype|credential|ephemeral"
    r"|continue|quit|(capability|state|wwwauth)\[\])=.*"
)
_SECRET = re.compile(r"((?:password|secret|token)=)\S+|hf_\w{8,}", re.IGNORECASE)


def credentials(settings: Settings, stop: threading.Event) -> dict[str, Credential]:
    """Return the tokens by URL origin. Tokens from the setting `tokens` load on first use.

    Precedence: --token, then the setting `tokens` (a single server), then tokens for any endpoint. Raises ConfigError.
    """
    found: dict[str, Credential] = {}
    for source in settings.tokens:
        if settings.token_source(source.url_origin) is source:
            optional = source.url_origin != url_origin(settings.endpoint)
            found[source.url_origin] = LazyToken(source, settings.secret_variables, stop, optional=optional)
    if settings.token_source(settings.endpoint) is None:
        token = settings.find_token()
        if token:
            found[url_origin(settings.endpoint)] = token
    return found


@dataclass
class LazyToken:
    """A token that loads on first use. The result, even a failure, is kept for the run.

    `optional`: a mirror's token. A failure to get it then raises NetworkError, which costs only that mirror.
    """

    source: TokenSource
    hidden: frozenset[str]
    stop: threading.Event
    optional: bool = False
    _outcome: Secret | GpuariaError | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def reveal(self) -> str:
        """Return the token. Thread-safe. Raises ConfigError, AccessDenied, NetworkError, Interrupted."""
        with self._lock:
            if self._outcome is None:
                self._outcome = self._load()
        if isinstance(self._outcome, GpuariaError):
            raise self._outcome
        return self._outcome.reveal()

    def _load(self) -> Secret | GpuariaError:
        try:
            if not self.source.helper:
                return self.source.read()
            environ = {name: value for name, value in os.environ.items() if name not in self.hidden}
            return ask_helper(self.source.helper, self.source.url_origin, environ, self.stop)
        except Interrupted:
            raise
        except GpuariaError as error:
            return NetworkError(error.message, error.hint) if self.optional else error


def ask_helper(
    command: Sequence[str],
    server_url: str,
    environ: Mapping[str, str],
    stop: threading.Event,
    *,
    seconds: float = HELPER_SECONDS,
) -> Secret:
    """Run a helper and return the token of a URL origin, by the protocol of git-credential(1).

    The helper may instead print the token alone on one line, as `keyring get` and `pass show` do. `seconds`: the time
    limit. Raises ConfigError if it cannot run, AccessDenied if it returns no token, Interrupted.
    """
    helper = f"the helper {printable(command[0])}"
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"GIT_TERMINAL_PROMPT": "0", **environ},  # never prompt on the terminal
        )
    except OSError as error:
        raise ConfigError(
            f"{helper} for the token of {server_url} cannot be run: {error.strerror}", "Correct the setting tokens."
        ) from None
    try:
        out, err, exited = _communicate(process, _helper_input(server_url), started + seconds, stop)
    finally:
        _terminate(process)
    if stop.is_set():
        raise Interrupted("interrupted", "Run the same command again to continue.")
    text = _parse_output(out)
    lines = _printable_lines(err, text)
    for line in lines:
        LOG.debug("%s prints: %s", helper, line)
    LOG.debug(
        "%s requested the token of %s: status %s in %.3f s",
        helper,
        server_url,
        process.returncode,
        time.monotonic() - started,
    )
    why = f": {'; '.join(lines[-3:])}" if lines else ""
    hint = "Run it by hand; gpuaria calls it like a git credential helper."
    if not exited:
        raise AccessDenied(f"{helper} returned no token for {server_url} within {seconds:.0f} s{why}", hint)
    if process.returncode != 0:
        raise AccessDenied(f"{helper} failed for {server_url} with status {process.returncode}{why}", hint)
    if not text:
        raise AccessDenied(f"{helper} has no token for {server_url}{why}", hint)
    try:
        return Secret(credential(text))
    except ValueError:
        raise AccessDenied(f"{helper} returned an invalid token for {server_url}", hint) from None


def _helper_input(server_url: str) -> bytes:
    """Return the helper's input in the format of git-credential(1). A default port is left out."""
    parts = urlsplit(_bracketed(server_url))
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    port = "" if parts.port == default else f":{parts.port}"
    return f"protocol={parts.scheme}\nhost={host}{port}\n\n".encode()


def _bracketed(server_url: str) -> str:
    """Return a URL origin as a valid URL, with brackets around an IPv6 host."""
    scheme, _, rest = server_url.partition("://")
    host, _, port = rest.rpartition(":")
    return f"{scheme}://[{host}]:{port}" if ":" in host else server_url


def _communicate(
    process: "subprocess.Popen[bytes]", helper_input: bytes, deadline: float, stop: threading.Event
) -> tuple[bytes, bytes, bool]:
    """Return a helper's stdout and stderr, and whether it has exited: its child processes may keep the pipes open."""
    pending: bytes | None = helper_input
    out, err, exited = b"", b"", False
    while not exited and not stop.is_set() and time.monotonic() < deadline:
        exited = process.poll() is not None
        try:
            return *process.communicate(pending, timeout=0.1), True
        except subprocess.TimeoutExpired as late:
            pending = None  # already written
            out, err = late.output or b"", late.stderr or b""
    return out, err, exited


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):  # input that the helper has not read
            if stream is not None:
                stream.close()


def _parse_output(out: bytes) -> str:
    lines = [line for line in out.decode("utf-8", "replace").splitlines() if line.strip()]
    passwords = [line.partition("=")[2] for line in lines if line.startswith("password=")]
    if passwords:
        return passwords[-1]
    return lines[0].strip() if len(lines) == 1 and not _ATTRIBUTE.fullmatch(lines[0]) else ""


def _printable_lines(err: bytes, secret: str) -> list[str]:
    """Return a helper's stderr as printable lines, with the token and anything like a secret masked."""
    text = err[-4096:].decode("utf-8", "replace")
    text = _SECRET.sub(r"\1***", text.replace(secret, "***") if secret else text)
    return ["".join(c for c in line if c.isprintable())[:200] for line in text.splitlines() if line.strip()]
