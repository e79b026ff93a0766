"""Any text is valid settings or a ConfigError, and no secret appears."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.errors import ConfigError
from gpuaria.settings import files, load, values
from tests.support.settings_world import KEYS, NONE


def entries_or_error(text: str) -> None:
    """Load a user file with this text; check that a ConfigError or a repr shows no secret."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "c.yaml")
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        file.chmod(0o600)
        try:
            s = load({}, {"HOME": folder}, Path(folder), config_file=file, site=Path(folder, "none"))
        except ConfigError:
            return
        assert s.setting_source("endpoint").layer in ("built-in", "file")
        assert all(isinstance(part, str) for row in s.rows() for part in row)


YAML_LETTERS = "ab01:-?!&*|>%@`'\"#,[]{} \n\t\\\r~<=xuU/\u2028\ufeff"


@given(st.text() | st.text(YAML_LETTERS, max_size=60))
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    entries_or_error(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_entries_or_a_config_error(content: bytes) -> None:
    with contextlib.suppress(ConfigError):
        files.parse(content, Path("F"))


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
anything = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
mirror = st.dictionaries(st.sampled_from(["name", "base", "location", "notes"]), plain | st.just("https://m.example"))


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), anything | st.lists(mirror), max_size=3))
def test_any_value_of_a_key_is_valid_or_a_config_error(document: dict[str, object]) -> None:
    entries_or_error(yaml.dump(document, Dumper=NoAliases, allow_unicode=True))


class NoAliases(yaml.SafeDumper):
    """A YAML dumper without aliases: hypothesis may return the same object twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@given(
    st.sampled_from(["token", "rpc_secret"]), st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=20)
)
def test_a_repr_never_shows_a_secret(key: str, secret: str) -> None:
    s = load({key: secret}, {"HOME": "/h"}, Path("/w"), site=NONE)
    assert getattr(s, key).reveal() == secret
    assert secret not in repr(s) + str(list(s.rows()))


@given(st.integers(0, 2**63 - 1) | st.integers(0, 9999).flatmap(lambda n: st.sampled_from([n * 10**6, n * 2**20])))
def test_a_size_round_trips(count: int) -> None:
    assert values.size(values.show_size(count)) == count


@given(st.integers(0, 365 * 86400).map(float) | st.floats(0.001, 600))
def test_a_duration_round_trips(seconds: float) -> None:
    assert values.seconds(values.show_seconds(seconds)) == seconds
