"""The one place that follows redirects."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from gpuaria.errors import NetworkError
from gpuaria.http.messages import Response
from gpuaria.urls import ascii_url, check_redirect, redacted, url_origin

MAX_REDIRECTS = 8  # responses in a row that may redirect
REDIRECT_STATUS = frozenset([301, 302, 303, 307, 308])

Opened = tuple[Response, Iterator[bytes]]  # the head of a response and its body


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """How far a request may be redirected.

    `same_origin`: a redirect to another scheme, host or port is returned instead of followed. `query`: appended to a
    target without one.
    """

    same_origin: bool
    query: str = ""


def redirect_target(response: Response) -> str:
    """Return where a response redirects, as an absolute URL in plain ASCII; empty if it does not.

    Raises NetworkError for a Location that no client can follow, or should: one with a user or a password.
    """
    if response.status not in REDIRECT_STATUS or "location" not in response.headers:
        return ""
    try:
        target = urljoin(response.url, response.headers["location"])
        url_origin(target)
        (urlsplit(target).hostname or "").encode("idna")
        return ascii_url(target) if urlsplit(target).scheme in ("http", "https") else target
    except ValueError:
        raise NetworkError(
            f"{redacted(response.url)} redirects to an address that makes no sense",
            "The endpoint or mirror is broken; try another.",
        ) from None


@contextlib.contextmanager
def follow(
    url: str,
    rules: RedirectRules,
    send: Callable[[str, bool], AbstractContextManager[Opened]],
    *,
    anonymous: bool = False,
) -> Iterator[Opened]:
    """Call `send(url, anonymous)` for `url` and each redirect target; give the last response, open.

    Once a redirect has led to another origin, every later request is anonymous, also at an origin with a credential of
    its own: no server decides what is requested elsewhere in the user's name. Never from https down to http. `x-`
    headers of the redirects are added to the last response: a hub names commit, size and digest in them.

    Raises NetworkError for a loop, and for a target that must not be followed.
    """
    passed: dict[str, str] = {}
    for _ in range(MAX_REDIRECTS):
        with send(url, anonymous) as (response, chunks):
            target = redirect_target(response)
            if not target or (rules.same_origin and url_origin(target) != url_origin(url)):
                yield replace(response, url=url, headers={**passed, **response.headers}), chunks
                return
            passed |= {name: value for name, value in response.headers.items() if name.startswith("x-")}
        check_redirect(url, target)
        anonymous = anonymous or url_origin(target) != url_origin(url)
        url = f"{target}?{rules.query}" if rules.query and "?" not in target else target
    raise NetworkError(f"{redacted(url)} redirects in a circle", "The endpoint or mirror is broken; try another.")
