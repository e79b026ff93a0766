"""Checks that ask the hub: the clock, the token and the request quota."""

import email.utils
import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from gpuaria.doctor.finding import Notes
from gpuaria.errors import AccessDenied, BadToken, ConfigError, GpuariaError, NetworkError
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.settings import Settings
from gpuaria.sources.protocol import ChecksToken, Source
from gpuaria.urls import encrypted_or_local

SKEW = 300.0  # seconds; URLs signed by S3 and CloudFront fail at a clock error of 900 s or less
_LOW = 20  # requests left; fewer give a warning; fewer give a warning
_AGAIN = "gpuaria doctor  # again, once the hub responds"


def check(settings: Settings, source: Source, http: Http, notes: Notes) -> None:
    """Check the clock and the token with one response of the endpoint."""
    where, plain = _token_from(settings), http.withheld(settings.endpoint)
    local = encrypted_or_local(settings.endpoint)  # if true, a proxy would see the token
    if where and plain:
        text = f"the token from {where} is not sent to {settings.endpoint}: {plain}"
        secure = f"export HF_ENDPOINT={settings.endpoint.replace('http:', 'https:', 1)}"
        notes.warn("token", text, f"export no_proxy={urlsplit(settings.endpoint).hostname}" if local else secure)
    elif not where:
        _no_token(settings, notes)
    try:
        if not isinstance(source, ChecksToken):
            answer = http.head(settings.endpoint, anonymous=True)
            _clock(answer.headers, time.time(), settings.endpoint, notes)
            if where and not plain:
                text = f"the token from {where} was not checked: {source.about.title} has no request for it"
                notes.ok("token", text)
            return
        answer = source.whoami(settings.endpoint, http, anonymous=False)
    except (AccessDenied, ConfigError) as error:  # of the helper, file or variable that supplies the token
        notes.unknown("clock", f"the clock was not checked: {error.message}", _AGAIN)
        notes.failed("token", error)
        return
    except GpuariaError as error:
        notes.unknown("clock", f"the clock was not checked: {error.message}", _AGAIN)
        if where and not plain:
            notes.unknown("token", f"the token from {where} could not be checked: {error.message}", _AGAIN)
        return
    _clock(answer.headers, time.time(), settings.endpoint, notes)
    if where and not plain:
        _token(answer, where, settings, notes)


def _token_from(settings: Settings) -> str:
    """Return the source of the token that would be sent, empty without one. `run` reports errors of its file."""
    source = settings.token_source(settings.endpoint)
    if source is not None:
        return source.place
    try:
        if not settings.find_token():
            return ""
    except GpuariaError:
        return ""
    origin = settings.setting_source("token")
    if not settings.token:
        return str(settings.token_file)
    return origin.where or origin.layer


def _no_token(settings: Settings, notes: Notes) -> None:
    if settings.token and not settings.implicit_token:
        return notes.ok("token", "a token is set but not used (setting implicit_token)")
    return notes.ok("token", "no token is set; public repos need none")


def _token(answer: Response, where: str, settings: Settings, notes: Notes) -> None:
    host = urlsplit(settings.endpoint).netloc
    if answer.status == 200:
        return notes.ok("token", f"the token from {where} is valid at {host} and is sent to this host only")
    if answer.status in (401, 403):
        fix = "unset HF_TOKEN  # or: export HF_TOKEN=A_NEW_ONE" if "HF" in where or "HUGG" in where else "hf auth login"
        page = f"  # {settings.endpoint}/settings/tokens"
        return notes.problem("token", f"{host} rejects the token from {where}", fix + page, BadToken.exit_code)
    return notes.unknown(
        "token", f"the token from {where} could not be checked: {host} returned HTTP {answer.status}", _AGAIN
    )


def _clock(headers: Mapping[str, str], now: float, endpoint: str, notes: Notes) -> None:
    """Compare `now` (Unix seconds) with the headers Date (RFC 9110 6.6.1) and Age (RFC 9111 5.1)."""
    host, age = urlsplit(endpoint).netloc, headers.get("age", "")
    try:
        theirs = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError, TypeError):
        return notes.unknown("clock", f"the clock was not checked: {host} sends no Date header", "timedatectl status")
    ahead = now - theirs - (float(age) if re.fullmatch(r"\d{1,9}", age) else 0.0)
    if abs(ahead) > SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        text = f"this machine's clock is {abs(ahead) / 60:.0f} min {side} that of {host}: signed URLs fail"
        return notes.problem("clock", text, "sudo timedatectl set-ntp true", NetworkError.exit_code)
    return notes.ok("clock", f"within {max(1.0, abs(ahead)):.0f} s of the clock of {host}")


def quota(endpoint: str, http: Http, notes: Notes, *, reached: bool) -> None:
    """Report the requests left in the hub's rate limit after these checks; nothing if the hub was not `reached`."""
    left, host = http.budget.remaining(endpoint), urlsplit(endpoint).netloc
    told = ", ".join(f"{count} of {name}" for name, count in sorted(left.items()))
    if not left:
        return notes.ok("quota", f"{host} does not report its request quota") if reached else None
    if min(left.values()) < _LOW:
        return notes.warn("quota", f"few requests left at {host}: {told}", "hf auth login  # raises the quota")
    return notes.ok("quota", f"requests left at {host}: {told}")
