"""Settings per source: each has its own endpoint, token and mirrors; `hf` uses the keys without a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gpuaria.errors import ConfigError
from gpuaria.settings import Secret, Settings, load
from gpuaria.sources import About

DEMO = About("demo", "the demo hub", endpoint="https://demo.example", endpoint_variables=("DEMO_ENDPOINT",))
WITH_TOKEN = About("demo", "the demo hub", endpoint="https://demo.example", token_variables=("DEMO_TOKEN",))

FILE = "sources: {demo: {endpoint: https://f.example}}"


def loaded(tmp_path: Path, text: str = "", flags: Mapping[str, object] | None = None, **environ: str) -> Settings:
    """Load settings with `text` as the user file."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    environ = {"HOME": str(tmp_path), "GPUARIA_CONFIG": str(file), **environ}
    return load(flags or {}, environ, tmp_path, site=tmp_path / "none.yaml")


def test_sources_share_no_settings(tmp_path: Path) -> None:
    s = loaded(tmp_path, "mirrors: [https://m.example]\nendpoint: https://hub.example", HF_TOKEN="hf_own")
    demo = s.for_source(DEMO)
    assert (demo.endpoint, demo.mirrors, demo.auto) == ("https://demo.example", (), False)
    assert not demo.find_token()
    assert s.find_token() == Secret("hf_own")
    assert "HF_TOKEN" in demo.secret_variables


@pytest.mark.parametrize(
    ("text", "environ", "endpoint", "where"),
    [
        (FILE, {}, "https://f.example", ":1"),
        (
            "sources: {demo: {endpoint: https://f.example}}",
            {"DEMO_ENDPOINT": "https://v.example"},
            "https://v.example",
            "",
        ),
        ("", {"GPUARIA_SOURCES_DEMO_ENDPOINT": "https://e.example/"}, "https://e.example", ""),
        (
            "",
            {"GPUARIA_SOURCES_DEMO_ENDPOINT": "https://e.example", "DEMO_ENDPOINT": "https://v.example"},
            "https://e.example",
            "GPUARIA_SOURCES_DEMO_ENDPOINT",
        ),
    ],
)
def test_the_source_of_an_endpoint(
    tmp_path: Path, text: str, environ: dict[str, str], endpoint: str, where: str
) -> None:
    demo = loaded(tmp_path, text, {}, **environ).for_source(DEMO)
    assert demo.endpoint == endpoint
    assert demo.setting_source("endpoint").where.endswith(where)


def test_tokens_per_source(tmp_path: Path) -> None:
    declared = loaded(tmp_path, DEMO_TOKEN="own", HF_TOKEN="hf_other").for_source(WITH_TOKEN)
    assert declared.find_token() == Secret("own")
    assert {"DEMO_TOKEN", "HF_TOKEN"} <= declared.secret_variables
    named = loaded(tmp_path, GPUARIA_SOURCES_DEMO_TOKEN="named", DEMO_TOKEN="own")
    assert named.for_source(WITH_TOKEN).find_token() == Secret("named")
    assert "GPUARIA_SOURCES_DEMO_TOKEN" in named.secret_variables
    assert "named" not in repr(named) + str(list(named.rows()))
    (tmp_path / "token").write_text("in-file\n")
    assert loaded(tmp_path, "sources: {demo: {token_file: token}}").for_source(DEMO).find_token() == Secret("in-file")
    flag = loaded(tmp_path, "", {"token": "flag"}, DEMO_TOKEN="own").for_source(WITH_TOKEN)
    assert flag.find_token() == Secret("flag")


def test_a_flag_applies_to_the_source_of_the_run(tmp_path: Path) -> None:
    s = loaded(tmp_path, "sources: {demo: {mirrors: [https://a.example]}}", {"mirrors": ["https://b.example"]})
    assert [mirror.base for mirror in s.for_source(DEMO).mirrors] == ["https://b.example"]


def test_hf_uses_keys_without_a_prefix(tmp_path: Path) -> None:
    s = loaded(tmp_path, "sources: {hf: {endpoint: https://hub.example}}")
    assert (s.endpoint, s.setting_source("endpoint").where) == ("https://hub.example", f"{tmp_path}/config.yaml:1")
    assert loaded(tmp_path, GPUARIA_SOURCES_HF_ENDPOINT="https://e.example").endpoint == "https://e.example"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: [demo]", "must be a mapping of sources"),
        ("sources: {Demo: {endpoint: https://x.example}}", "is not the name of a source"),
        ("sources: {demo: {endpoit: https://x.example}}", "unknown key 'endpoit'"),
        ("sources: {demo: {endpoint: nothing}}", "sources.demo.endpoint must be an http"),
        ("sources: {demo: {token: secret}}", "sources.demo.token is not allowed in a settings file"),
        ("endpoint: https://a.example\nsources: {hf: {endpoint: https://b.example}}", "is also set at"),
    ],
)
def test_invalid_source_settings_are_rejected(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, text)


def test_a_project_must_not_redirect_a_token(tmp_path: Path) -> None:
    (tmp_path / "gpuaria.yaml").write_text("sources: {demo: {endpoint: https://evil.example}}")
    with pytest.raises(ConfigError, match="is not allowed in a project's settings file"):
        load({}, {"HOME": str(tmp_path)}, tmp_path, site=tmp_path / "none.yaml")


def test_an_invalid_variable_of_a_source_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DEMO_ENDPOINT"):
        loaded(tmp_path, DEMO_ENDPOINT="no url").for_source(DEMO)
