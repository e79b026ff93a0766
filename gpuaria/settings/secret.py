"""A credential that does not print."""

from typing import NoReturn


class Secret:
    """A credential, false when there is none; `reveal()` gives its text, and only the room that sends it asks."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The credential itself."""
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
