"""What the endpoint says of us: whether it is a hub, our clock, our token, our quota."""

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

SKEW = 300.0  # seconds; the addresses that S3 and CloudFront sign stop working at 900 and less
_LOW = 20  # requests left
_AGAIN = "gpuaria doctor  # again, once the hub responds"


def check(settings: Settings, source: Source, http: Http, notes: Notes) -> None:
    """Clock, token and quota, from one answer of the endpoint."""
    where, plain = _token_from(settings), http.withheld(settings.endpoint)
    local = encrypted_or_local(settings.endpoint)  # then it is a proxy that would see the token
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
                text = f"the token from {where} was not tried: {source.about.title} has no request for that"
                notes.ok("token", text)
            return
        answer = source.whoami(settings.endpoint, http, anonymous=False)
    except (AccessDenied, ConfigError) as error:  # of the helper, the file or the variable that has the token
        notes.unknown("clock", f"nobody told the time: {error.message}", _AGAIN)
        notes.failed("token", error)
        return
    except GpuariaError as error:
        notes.unknown("clock", f"nobody told the time: {error.message}", _AGAIN)
        if where and not plain:
            notes.unknown("token", f"the token from {where} could not be tried: {error.message}", _AGAIN)
        return
    _clock(answer.headers, time.time(), settings.endpoint, notes)
    if where and not plain:
        _token(answer, where, settings, notes)


def _token_from(settings: Settings) -> str:
    """Where the token that would be sent comes from, empty if there is none. Its own file's errors are told before."""
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
        return notes.ok("token", "one is set and not used, as the setting implicit_token says")
    return notes.ok("token", "none is set; public repos need none")


def _token(answer: Response, where: str, settings: Settings, notes: Notes) -> None:
    host = urlsplit(settings.endpoint).netloc
    if answer.status == 200:
        return notes.ok("token", f"the token from {where} is valid at {host}, and sent to no other host")
    if answer.status in (401, 403):
        fix = "unset HF_TOKEN  # or: export HF_TOKEN=A_NEW_ONE" if "HF" in where or "HUGG" in where else "hf auth login"
        page = f"  # {settings.endpoint}/settings/tokens"
        return notes.problem("token", f"{host} does not know the token from {where}", fix + page, BadToken.exit_code)
    return notes.unknown(
        "token", f"the token from {where} could not be tried: {host} returned HTTP {answer.status}", _AGAIN
    )


def _clock(headers: Mapping[str, str], now: float, endpoint: str, notes: Notes) -> None:
    """`now` in Unix seconds, against Date (RFC 9110 6.6.1) and Age (RFC 9111 5.1)."""
    host, age = urlsplit(endpoint).netloc, headers.get("age", "")
    try:
        theirs = email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError, TypeError):
        return notes.unknown("clock", f"{host} does not say what time it is", "timedatectl status")
    ahead = now - theirs - (float(age) if re.fullmatch(r"\d{1,9}", age) else 0.0)
    if abs(ahead) > SKEW:
        side = "ahead of" if ahead > 0 else "behind"
        text = f"this machine's clock is {abs(ahead) / 60:.0f} min {side} that of {host}: signed addresses fail"
        return notes.problem("clock", text, "sudo timedatectl set-ntp true", NetworkError.exit_code)
    return notes.ok("clock", f"within {max(1.0, abs(ahead)):.0f} s of that of {host}")


def quota(endpoint: str, http: Http, notes: Notes, *, reached: bool) -> None:
    """What is left of the hub's rate limit after all that was asked here; nothing of a hub that was not `reached`."""
    left, host = http.budget.remaining(endpoint), urlsplit(endpoint).netloc
    told = ", ".join(f"{count} of {name}" for name, count in sorted(left.items()))
    if not left:
        return notes.ok("quota", f"{host} does not say how many requests are left") if reached else None
    if min(left.values()) < _LOW:
        return notes.warn("quota", f"few requests are left at {host}: {told}", "hf auth login  # raises the quota")
    return notes.ok("quota", f"requests left at {host}: {told}")
