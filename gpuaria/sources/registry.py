"""Find the source of a scheme, a name or a URL.

Packages add sources by entry points of the group `gpuaria.sources`: the name is the scheme, the value a class without
constructor parameters or an object. Installed packages are searched (some 20 ms) only for a scheme or a host that no
built-in source claims.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpuaria.errors import ConfigError, UsageError
from gpuaria.sources.protocol import Source
from gpuaria.text import printable
from gpuaria.urls import url_origin

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "gpuaria.sources"
BUILT_IN = {"hf": "gpuaria.sources.huggingface:HuggingFace", "plain": "gpuaria.sources.plain:Plain"}
DEFAULT, ANY_URL = "hf", "plain"
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_SCHEME = re.compile(rf"({NAME.pattern}):", re.DOTALL)
_WEB = re.compile(r"https?://", re.IGNORECASE)


@cache
def source(name: str) -> Source:
    """Return the source named `name`. Raises UsageError for an unknown name, ConfigError if it cannot be loaded."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return _checked(getattr(import_module(module), attribute), name)
    point = _entry_points().get(name)
    if point is None:
        raise UsageError(f"unknown source {printable(name)}", f"Known sources: {', '.join(names())}.")
    try:
        return _checked(point.load(), name)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the source {name} cannot be loaded: {type(error).__name__}: {printable(str(error))}",
            f"Correct or uninstall the package that has it ({point.value}).",
        ) from error


def names() -> tuple[str, ...]:
    """Return the names of all sources, the built-in ones first."""
    return (*BUILT_IN, *sorted(set(_entry_points()) - set(BUILT_IN)))


def find(text: str, endpoints: Callable[[Source], Sequence[str]]) -> Source:
    """Return the source of a reference, by its scheme or the host of its URL, else the default source.

    `endpoints` returns the base URLs of a source from the settings. A URL of a host that no source claims belongs to
    the `plain` source.
    """
    word = text.strip()
    if _WEB.match(word):
        claiming = (one for one in _all_sources() if one.about.name != ANY_URL and _claims(one, word, endpoints(one)))
        return next(claiming, None) or source(ANY_URL)
    scheme = _SCHEME.match(word)
    if scheme and (scheme[1] in BUILT_IN or scheme[1] in _entry_points()):
        return source(scheme[1])
    return source(DEFAULT)


def _claims(one: Source, url: str, endpoints: Sequence[str]) -> bool:
    try:
        host, place = urlsplit(url).hostname, url_origin(url)
        return host in one.about.hosts or any(url_origin(base) == place for base in endpoints)
    except ValueError:
        return False


def _all_sources() -> Iterator[Source]:
    """Yield all sources, the built-in ones first. Sources that fail to load are skipped."""
    for name in BUILT_IN:
        yield source(name)
    for name in _entry_points():
        try:
            yield source(name)
        except ConfigError:
            continue


@cache
def _entry_points() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points  # takes 15 ms to import, and most runs do not need it

    found = entry_points(group=GROUP)
    return {point.name: point for point in found if NAME.fullmatch(point.name) and point.name not in BUILT_IN}


def _checked(found: Any, name: str) -> Source:
    made = found() if isinstance(found, type) else found
    if not isinstance(made, Source) or made.about.name != name:
        raise ConfigError(
            f"the source {name} does not implement the Source protocol", "See docs/sources.md for the protocol."
        )
    return made
