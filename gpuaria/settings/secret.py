"""Credentials that cannot be printed by accident."""

from collections.abc import Iterable, Mapping
from typing import NoReturn


class Secret:
    """A credential, falsy when empty. repr and str hide the text; only the code that sends it calls `reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the credential as text."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(hidden)" if self else "Secret()"

    def __str__(self) -> str:
        return "(set, hidden)" if self else "(not set)"

    def __deepcopy__(self, memo: object) -> "Secret":  # dataclasses.asdict copies
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class HiddenEnvironment:
    """A copy of the environment whose repr hides the values, since some are credentials."""

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)

    def get(self, name: str) -> str:
        """Return a variable without surrounding white space, empty if it is unset."""
        return self._environ.get(name, "").strip()

    def names(self) -> Iterable[str]:
        """Return the names of all variables."""
        return self._environ.keys()

    def __repr__(self) -> str:
        return "Variables(hidden)"

    def __deepcopy__(self, memo: object) -> "HiddenEnvironment":  # dataclasses.asdict copies
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled")
