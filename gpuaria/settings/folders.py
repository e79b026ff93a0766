"""Standard folders, derived from a given environment; this module does not read os.environ."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^{}]*)\})", re.ASCII)


class NoHome(LookupError):
    """The home folder is unknown: neither HOME nor the user database names one."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Converts text to absolute paths. Relative paths start at `base`."""

    environ: Mapping[str, str] = field(repr=False)
    base: Path
    expand_variables: bool = False

    def variable(self, name: str) -> str:
        """Return an environment variable, empty if it is unset or blank."""
        value = self.environ.get(name, "")
        return value if value.strip() else ""

    def home(self) -> Path:
        """Return the home folder: HOME, else the user database. Raises NoHome."""
        return Path(self.variable("HOME") or _home_of_user())

    def path(self, text: str) -> Path:
        """Return `text` as an absolute path, `~` expanded. Raises ValueError for blank text or a NUL, NoHome."""
        if not text.strip() or "\0" in text:
            raise ValueError
        os.fsencode(text)  # rejects lone surrogates: UnicodeEncodeError is a ValueError
        first, slash, rest = text.partition("/")
        if first.startswith("~"):
            home = self.home() if first == "~" else _home_of_user(first[1:])
            text = f"{home}{slash}{rest}"
        return self.base / (self._expanded(text) if self.expand_variables else text)

    def config_home(self) -> Path:
        """Return $XDG_CONFIG_HOME, else ~/.config. Raises NoHome."""
        return self._xdg("XDG_CONFIG_HOME", ".config")

    def config_dirs(self) -> list[Path]:
        """Return the folders of $XDG_CONFIG_DIRS, lowest priority first."""
        listed = (self.variable("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        return [Path(entry) for entry in reversed(listed) if entry.startswith("/")]

    def derived(self, default: str) -> tuple[Path, str]:
        """Resolve a default below "$HF_HOME" or "$XDG_STATE_HOME".

        Returns the path and the variable that changed it, empty if none did. Raises NoHome.
        """
        root, _, rest = default.partition("/")
        if root == "$HF_HOME":
            return self._hf_home() / rest, next(filter(self.variable, ("HF_HOME", "XDG_CACHE_HOME")), "")
        name = root.removeprefix("$")
        return self._xdg(name, ".local/state") / rest, name if self.variable(name) else ""

    def _hf_home(self) -> Path:
        """Return the folder that huggingface_hub.constants computes; it also expands variables inside HF_HOME."""
        inner = Folders(self.environ, self.base, expand_variables=True)
        cache = self.variable("XDG_CACHE_HOME") or "~/.cache"
        return inner.path(self.variable("HF_HOME") or f"{cache}/huggingface")

    def _xdg(self, name: str, below_home: str) -> Path:
        value = self.variable(name)  # relative paths are invalid and must be ignored (XDG base directory 0.8)
        return Path(value) if value.startswith("/") else self.home() / below_home

    def _expanded(self, text: str) -> str:
        return _VARIABLE.sub(lambda match: self.environ.get(match[1] or match[2] or "", match[0]), text)


def _home_of_user(name: str = "") -> str:
    try:
        import pwd

        return (pwd.getpwnam(name) if name else pwd.getpwuid(os.getuid())).pw_dir
    except (ImportError, KeyError):
        raise NoHome from None
