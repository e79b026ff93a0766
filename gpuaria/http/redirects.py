"""Follow redirects under gpuaria's rules. No other module follows redirects."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from gpuaria.errors import NetworkError
from gpuaria.http.messages import Response
from gpuaria.urls import ascii_url, check_redirect, redacted, url_origin

MAX_REDIRECTS = 8  # consecutive redirects
REDIRECT_STATUS = frozenset([301, 302, 303, 307, 308])

Opened = tuple[Response, Iterator[bytes]]  # the head of a response and its body


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """Rules for the redirects of one request.

    `same_origin`: return a redirect to another scheme, host or port instead of following it. `query`: query string
    appended to a target without one.
    """

    same_origin: bool
    query: str = ""


def redirect_target(response: Response) -> str:
    """Return the redirect target of a response as an absolute URL in plain ASCII; empty without a redirect.

    Raises NetworkError for an invalid Location, and for a Location with a user or a password.
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
            f"{redacted(response.url)} redirects to an invalid URL",
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
    """Call `send(url, anonymous)` for `url` and each redirect target; yield the last response, with its body open.

    After a redirect to another URL origin all requests are anonymous, even to an origin with its own credential: a
    server must not cause authenticated requests elsewhere. The last response also gets the `x-` headers of the
    redirects, in which a hub reports commit, size and digest.

    Raises NetworkError for a redirect loop, for a redirect from https to http, and for other targets not allowed.
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
    raise NetworkError(f"{redacted(url)} redirects in a loop", "The endpoint or mirror is broken; try another.")
