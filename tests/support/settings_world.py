"""A home folder, a project folder and a site file to read settings from."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from gpuaria.errors import ConfigError
from gpuaria.settings import Settings, describe, load

MIB = 2**20
KEYS = {key.name: key for key in describe()}
FAKE = "hf_" + "x" * 34
NONE = Path("/no/such/file")


class World:
    """A home folder, a project folder and a site file, all temporary; the real machine's files are not read."""

    def __init__(self, root: Path) -> None:
        self.home, self.project, self.site = root / "home", root / "project", root / "etc.yaml"
        self.user = self.home / ".config/gpuaria/config.yaml"
        self.user.parent.mkdir(parents=True)
        self.project.mkdir()
        self.base = {"HOME": str(self.home), "XDG_CONFIG_DIRS": str(root / "xdg")}

    def load(self, flags: Mapping[str, object] | None = None, config: Path | None = None, **environ: str) -> Settings:
        return load(flags or {}, self.base | environ, self.project, config_file=config, site=self.site)

    def under(self, environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Settings:
        """Load like `load`, with the variables in a mapping."""
        return load(flags or {}, self.base | dict(environ), self.project, site=self.site)

    def load_user_file(self, text: str, mode: int = 0o600) -> Settings:
        self.user.write_text(text)
        self.user.chmod(mode)
        return self.load()

    def user_file_error(self, text: str, mode: int = 0o600) -> tuple[str, str]:
        """Return message and hint about a user file, with its path replaced by "F"."""
        with pytest.raises(ConfigError) as caught:
            self.load_user_file(text, mode)
        return caught.value.message.replace(str(self.user), "F"), caught.value.hint.replace(str(self.user), "F")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
