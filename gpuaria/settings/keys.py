"""The description of one setting: its type, default, help text and where it may be set."""

from dataclasses import dataclass, field
from typing import Any, Literal

from gpuaria.settings.kinds import SettingType
from gpuaria.settings.secret import Secret

Layer = Literal["built-in", "site", "user", "project", "file", "environment", "flag"]
AllowedFiles = Literal["any", "not project", "none"]


@dataclass(frozen=True, slots=True)
class SettingSource:
    """The layer that set a value. `where`: "path:line", a variable or a flag; empty for a built-in default."""

    layer: Layer
    where: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, as the loader and the reference page need it.

    `default`: the text that a settings file would have, empty if there is no default. `variables`: environment
    variables; the first one set wins. `disabling`: variables for which true means no. `files`: settings files that
    may contain the key.
    """

    name: str
    kind: SettingType
    default: str
    help: str
    unit: str = ""
    variables: tuple[str, ...] = ()
    disabling: tuple[str, ...] = ()
    files: AllowedFiles = "any"
    example: str = ""
    flag: str = ""

    @property
    def expects(self) -> str:
        """Accepted values in words; completes "must be ..."."""
        return self.kind.expects

    @property
    def secret(self) -> bool:
        """True if the value is a credential."""
        return isinstance(self.kind.empty, Secret)


def key(kind: SettingType, default: str, sentence: str, *variables: str, **more: Any) -> Any:
    """Return a dataclass field that carries a Key; `more` holds further fields of Key."""
    return field(metadata={"key": Key("", kind, default, sentence, variables=variables, **more)})
