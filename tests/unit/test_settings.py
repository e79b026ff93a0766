"""The layers of settings and the values that each key accepts.

`python -m tests.unit.test_settings` writes configs/example.yaml again from the table.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuaria.errors import ConfigError, UsageError
from gpuaria.records import Mirror
from gpuaria.settings import Secret, SettingSource, describe, load
from gpuaria.settings.known import shipped
from tests.support.checkout import ROOT
from tests.support.settings_world import KEYS, MIB, NONE, World

CONFIGS = ROOT / "configs"


def test_built_in_defaults(world: World) -> None:
    s = world.load()
    assert s.endpoint == "https://huggingface.co"
    assert (s.connections, s.jobs, s.small_jobs, s.verify_jobs) == (16, 4, 32, 2)
    assert (s.small_file, s.min_split, s.max_speed) == (8_000_000, MIB, 0)
    assert (s.connect_timeout, s.timeout, s.patience, s.probe_budget) == (10.0, 30.0, 600.0, 3.0)
    assert (s.trust, s.offline, s.symlinks, s.implicit_token) == ("quorum", False, None, True)
    assert s.resolvers == ("system", "8.8.8.8", "1.1.1.1", "223.5.5.5")
    assert (s.mirrors, s.aria2c, s.rpc, s.ca_bundle) == ((), "", "", None)
    assert not s.token
    assert not s.rpc_secret
    assert s.cache_dir == world.home / ".cache/huggingface/hub"
    assert s.token_file == world.home / ".cache/huggingface/token"
    assert s.state_dir == world.home / ".local/state/gpuaria"
    assert {row[2:] for row in s.rows()} == {("built-in", "")}


def test_each_layer_overrides_the_one_below(world: World, tmp_path: Path) -> None:
    xdg = tmp_path / "xdg/gpuaria/config.yaml"
    xdg.parent.mkdir(parents=True)
    steps: list[tuple[Callable[[], object], int, SettingSource]] = [
        (lambda: None, 4, SettingSource("built-in", "")),
        (lambda: world.site.write_text("jobs: 5"), 5, SettingSource("site", f"{world.site}:1")),
        (lambda: xdg.write_text("\njobs: 6"), 6, SettingSource("site", f"{xdg}:2")),
        (lambda: world.user.write_text("# mine\n\njobs: 7"), 7, SettingSource("user", f"{world.user}:3")),
        (
            lambda: (world.project / "gpuaria.yaml").write_text("jobs: 8"),
            8,
            SettingSource("project", f"{world.project}/gpuaria.yaml:1"),
        ),
        (lambda: world.base.update(GPUARIA_JOBS="9"), 9, SettingSource("environment", "GPUARIA_JOBS")),
    ]
    for write, jobs, origin in steps:
        write()
        s = world.load({"jobs": None})
        assert (s.jobs, s.setting_source("jobs")) == (jobs, origin)
    s = world.load({"jobs": 10})
    assert (s.jobs, s.setting_source("jobs")) == (10, SettingSource("flag", "--jobs"))


def test_the_first_of_xdg_config_dirs_wins(world: World, tmp_path: Path) -> None:
    for name, jobs in (("a", 1), ("b", 2)):
        file = tmp_path / name / "gpuaria/config.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(f"jobs: {jobs}")
    assert world.load(XDG_CONFIG_DIRS=f"{tmp_path}/a:relative:{tmp_path}/b").jobs == 1


def test_xdg_config_home_moves_the_user_file(world: World, tmp_path: Path) -> None:
    file = tmp_path / "conf/gpuaria/config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("jobs: 3")
    assert world.load(XDG_CONFIG_HOME=str(tmp_path / "conf")).jobs == 3
    assert world.load(XDG_CONFIG_HOME="relative").jobs == 4


@pytest.mark.parametrize("how", ["argument", "variable", "relative"])
def test_a_config_file_flag_replaces_user_and_project_files(world: World, tmp_path: Path, how: str) -> None:
    world.site.write_text("verify_jobs: 5")
    world.user.write_text("jobs: 7")
    (world.project / "gpuaria.yaml").write_text("small_jobs: 8")
    named = world.project / "mine.yaml"
    named.write_text("endpoint: https://hub.example")
    s = {
        "argument": lambda: world.load(config=named),
        "variable": lambda: world.load(GPUARIA_CONFIG=str(named)),
        "relative": lambda: world.load(config=Path("mine.yaml")),
    }[how]()
    assert (s.endpoint, s.jobs, s.small_jobs, s.verify_jobs) == ("https://hub.example", 4, 32, 5)
    assert s.setting_source("endpoint") == SettingSource("file", f"{named}:1")


def test_a_config_file_flag_needs_an_existing_file(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no.yaml: there is no such settings file"):
        world.load(config=tmp_path / "no.yaml")


def test_an_empty_value_sets_nothing(world: World) -> None:
    s = world.load_user_file("jobs:\nmirrors: ~\nconnections: null\n")
    assert (s.jobs, s.connections, s.setting_source("jobs").layer) == (4, 16, "built-in")
    assert world.load_user_file("# nothing\n").jobs == 4


def test_the_process_environment_is_not_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in describe():
        for name in key.variables + key.disabling:
            monkeypatch.setenv(name, "nonsense for every key \n")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert {row[2] for row in world.load().rows()} == {"built-in"}


GOOD: list[tuple[str, str, object]] = [
    ("endpoint", "https://Hub.Example:8443/hf/", "https://hub.example:8443/hf"),
    ("endpoint", "http://h/d\u00e9p\u00f4t", "http://h/d%C3%A9p%C3%B4t"),
    ("endpoint", "http://[::1]:80", "http://[::1]:80"),
    ("token_file", "~/t", Path("/h/t")),
    ("implicit_token", "off", False),
    ("cache_dir", "/c", Path("/c")),
    ("cache_dir", "c", Path("/w/c")),
    ("connections", "1", 1),
    ("jobs", "64", 64),
    ("small_jobs", "128", 128),
    ("small_file", "8MB", 8_000_000),
    ("small_file", "1.5 GiB", 1536 * MIB),
    ("small_file", "512k", 512_000),
    ("small_file", "512Ki", 512 * 1024),
    ("small_file", "17", 17),
    ("min_split", "1MiB", MIB),
    ("aria2c", "aria2-next", "aria2-next"),
    ("rpc", "http://127.0.0.1:6800/jsonrpc", "http://127.0.0.1:6800/jsonrpc"),
    ("rpc_secret", "s3cret!", Secret("s3cret!")),
    ("connect_timeout", "0.5", 0.5),
    ("timeout", "10 min", 600.0),
    ("patience", "1h30m", 5400.0),
    ("patience", "90", 90.0),
    ("patience", "10 min", 600.0),
    ("patience", "0", 0.0),
    ("patience", "1 day", 86400.0),
    ("trust", "Origin", "origin"),
    ("offline", "TRUE", True),
    ("offline", "0", False),
    ("symlinks", "auto", None),
    ("symlinks", "no", False),
    ("ca_bundle", "/ca.pem", Path("/ca.pem")),
    ("check_content", "no", False),
    ("no_pickle", "yes", True),
    ("signature_key", "/signer.pub", Path("/signer.pub")),
    ("state_dir", "~", Path("/h")),
    ("send_token_in_clear_text_to", "Hub.lan, 10.0.0.7 [FD00::1]", ("hub.lan", "10.0.0.7", "fd00::1")),
    ("probe_budget", "1 s", 1.0),
    ("verify_jobs", "16", 16),
    ("max_speed", "20M", 20_000_000),
    ("max_speed", "2 MiB/s", 2 * MIB),
    ("slow", "500k", 500_000),
    ("location", " DE ", "DE"),
]
BAD: list[tuple[str, str]] = [
    *(("endpoint", text) for text in ("", "ftp://x", "https://", "x", "https://u:p@h", "https://h?q", "https://h#f")),
    *(
        ("endpoint", text)
        for text in ("https://a b", "https://h:0", "https://h:99999", "https://h\\@e", "https://[::1")
    ),
    *(
        (key, text)
        for key in ("connections", "jobs", "small_jobs", "verify_jobs")
        for text in ("0", "-1", "1.5", "999")
    ),
    *(("small_file", text) for text in ("", "-1", "8 XB", "MB", "1e6", "9" * 30, "i", "8 bytes")),
    *(("max_speed", text) for text in ("fast", "-1", "off")),
    *(("min_split", text) for text in ("1M", "0", "2G")),
    *(("rpc", text) for text in ("http://h/jsonrpc", "http://h:1/", "ws://h:1/jsonrpc", "http://u@h:1/jsonrpc")),
    *(
        (key, text)
        for key in ("connect_timeout", "timeout", "probe_budget")
        for text in ("0", "601", "x", "inf", "nan")
    ),
    *(("patience", text) for text in ("", "-1", "1h30", "1 fortnight", "400 d", "1h and 2m")),
    ("trust", "all"),
    *((key, text) for key in ("offline", "check_content", "no_pickle") for text in ("", "maybe", "2", "y", "auto")),
    *((key, text) for key in ("cache_dir", "ca_bundle", "signature_key") for text in ("", "a\0b", "\ud800")),
    *((key, text) for key in ("token", "rpc_secret") for text in ("", "a b", "a\nb", "a\x7fb", "tökén", "x" * 5000)),
    *(("send_token_in_clear_text_to", text) for text in ("*", "http://hub.lan", "hub.lan:80", "hub.lan/x", "u@h")),
    *(("tokens", text) for text in ("hub.example", "hub.example=hf_abc", "h=env:x", "h/path=env:X", "=env:X")),
    ("aria2c", ""),
    ("aria2c", "a\nb"),
    *(
        (key, text)
        for key in ("mirrors", "known_mirrors")
        for text in ("hf-mirror.com", "https://m?x=1", "https://u@m")
    ),
    ("slow", "fast"),
    ("location", "x" * 81),
    *(
        ("resolvers", text)
        for text in ("dns.google", "tls://dns.google", "http://1.1.1.1/dns-query", "https://1.1.1.1")
    ),
]


def test_the_table_has_a_row_for_every_key() -> None:
    other = {"token", "mirrors", "known_mirrors", "resolvers", "tokens"}  # tested below, and in test_http_auth.py
    assert {key for key, _, _ in GOOD} | other == set(KEYS)
    assert {key for key, _ in BAD} >= set(KEYS) - {"token_file", "state_dir", "implicit_token", "symlinks"}


@pytest.mark.parametrize(("key", "text", "value"), GOOD)
def test_valid_values(key: str, text: str, value: object) -> None:
    s = load({key: text}, {"HOME": "/h"}, Path("/w"), site=NONE)
    assert getattr(s, key) == value
    assert s.setting_source(key) == SettingSource("flag", KEYS[key].flag)


@pytest.mark.parametrize(("key", "text"), BAD)
def test_invalid_values(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=rf"^{KEYS[key].flag} must be "):
        load({key: text}, {"HOME": "/h"}, Path("/w"), site=NONE)


def test_flags_accept_native_python_types(world: World) -> None:
    s = world.load(
        {"jobs": 3, "timeout": 2.5, "offline": True, "cache_dir": Path("x"), "token": Secret("t"), "rpc": None}
    )
    assert (s.jobs, s.timeout, s.offline, s.cache_dir) == (3, 2.5, True, world.project / "x")
    assert s.find_token() == Secret("t")
    with pytest.raises(KeyError, match=r"flags without a key: jbos"):
        world.load({"jbos": 3})


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("endpoint", ["GPUARIA_ENDPOINT", "HF_ENDPOINT"]),
        ("token", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]),
        ("token_file", ["GPUARIA_TOKEN_FILE", "HF_TOKEN_PATH"]),
        ("cache_dir", ["GPUARIA_CACHE_DIR", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]),
        ("offline", ["GPUARIA_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]),
        ("ca_bundle", ["GPUARIA_CA_BUNDLE", "SSL_CERT_FILE"]),
    ],
)
def test_the_first_set_variable_wins(world: World, key: str, names: list[str]) -> None:
    good = {"endpoint": "https://e.example", "offline": "1"}.get(key, "/value")
    assert list(KEYS[key].variables) == names
    while names:
        set_names = dict.fromkeys(names[1:], "https://second.example" if key == "endpoint" else "0")
        s = world.under({names[0]: good} | set_names)
        assert s.setting_source(key) == SettingSource("environment", names[0])
        assert getattr(s, key) in (good, Secret(good), Path(good), True)
        assert world.under(dict.fromkeys(names, " ")).setting_source(key).layer == "built-in", "blank is unset"
        names = names[1:]


def test_every_key_but_token_has_its_own_variable() -> None:
    for key in describe():
        assert key.variables[0] == ("HF_TOKEN" if key.name == "token" else f"GPUARIA_{key.name.upper()}")


def test_disabling_variables(world: World) -> None:
    assert world.load(HF_HUB_DISABLE_SYMLINKS="1").symlinks is False
    assert world.load(HF_HUB_DISABLE_SYMLINKS="0").symlinks is None, "not disabled is not forced"
    assert world.load(HF_HUB_DISABLE_SYMLINKS="1", GPUARIA_SYMLINKS="yes").symlinks is True
    assert world.load(HF_HUB_DISABLE_IMPLICIT_TOKEN="on").implicit_token is False
    assert world.load(HF_HUB_DISABLE_IMPLICIT_TOKEN="on").setting_source("implicit_token").where == (
        "HF_HUB_DISABLE_IMPLICIT_TOKEN"
    )
    with pytest.raises(ConfigError, match=r"^HF_HUB_DISABLE_SYMLINKS: must be yes or no$"):
        world.load(HF_HUB_DISABLE_SYMLINKS="auto")


MIRRORS = """
mirrors:
  - https://hf-mirror.com/
  - base: http://hf.campus.example:8090/hub
    name: campus
    location: machine room
    notes: [ask, somebody]
  - base: https://other.example/x
"""


def test_mirrors(world: World) -> None:
    rows = (
        Mirror("hf-mirror.com", "https://hf-mirror.com"),
        Mirror("campus", "http://hf.campus.example:8090/hub", location="machine room"),
        Mirror("other.example/x", "https://other.example/x"),
    )
    assert world.load_user_file(MIRRORS).mirrors == rows
    two = (Mirror("a", "https://a"), Mirror("b", "https://b"))
    assert world.load(GPUARIA_MIRRORS="https://a, https://b https://a").mirrors == two
    assert world.load({"mirrors": ["https://b"]}, GPUARIA_MIRRORS="https://a").mirrors == two[1:]
    assert world.load({"mirrors": []}).mirrors == rows
    assert world.load_user_file("mirrors: []").mirrors == ()


def test_mirrors_may_be_a_keyword(world: World) -> None:
    assert (world.load().mirrors, world.load().auto) == ((), True)
    for text in ("none", "None", "[none]", "[]"):
        s = world.load_user_file(f"mirrors: {text}")
        assert (s.mirrors, s.auto, s.candidates()) == ((), False, ())
    assert world.load_user_file("mirrors: [https://a]").auto is False
    assert world.load(GPUARIA_MIRRORS="auto").auto is True, "over the list in the user's file"
    assert world.load({"mirrors": ["none"]}, GPUARIA_MIRRORS="auto").auto is False
    shown = {key: value for key, value, _, _ in world.load(GPUARIA_MIRRORS="none").rows()}
    assert shown["mirrors"] == "none"
    assert {key: value for key, value, _, _ in world.load(GPUARIA_MIRRORS="auto").rows()}["mirrors"] == "auto"
    with pytest.raises(ConfigError, match="has 'auto' together with other rows"):
        world.load(GPUARIA_MIRRORS="auto, https://a")


def test_known_mirrors_can_be_replaced(world: World) -> None:
    assert [row.name for row in world.load().candidates()] == list(shipped())
    own = "known_mirrors: [sufy, {name: hf-mirror, base: https://own.example}, https://a.example]"
    assert [(row.name, row.base) for row in world.load_user_file(own).candidates()] == [
        ("sufy", shipped()["sufy"].base),
        ("hf-mirror", "https://own.example"),
        ("a.example", "https://a.example"),
    ]
    replaced = "mirrors: [{name: hf-mirror, base: https://own.example}]"
    assert world.load_user_file(replaced).candidates() == ()
    rows = {row.name: row.base for row in world.load(GPUARIA_MIRRORS="auto").candidates()}
    assert rows == {"hf-mirror": "https://own.example", "sufy": shipped()["sufy"].base}


def test_resolvers(world: World) -> None:
    s = world.load_user_file(
        "resolvers: [9.9.9.9, 'tls://[2620:FE::fe]', https://Dns.Example/dns-query, system, 9.9.9.9]"
    )
    assert s.resolvers == ("system", "9.9.9.9", "tls://2620:fe::fe", "https://dns.example/dns-query")
    assert world.load_user_file("resolvers: []").resolvers == ("system",)
    assert world.load(GPUARIA_RESOLVERS="1.0.0.1 ,8.8.4.4").resolvers == ("system", "1.0.0.1", "8.8.4.4")
    assert world.load({"resolvers": ("::1",)}).resolvers == ("system", "::1")
    ports = "127.0.0.53:53, [2620:FE::fe]:5353, tls://9.9.9.9:8853"
    assert world.load(GPUARIA_RESOLVERS=ports).resolvers[1:] == (
        "127.0.0.53:53",
        "[2620:fe::fe]:5353",
        "tls://9.9.9.9:8853",
    )
    for wrong in ("9.9.9.9:0", "9.9.9.9:65536", "9.9.9.9:x", "9.9.9.9:", "2620:fe::fe:99999", "tls://:853"):
        with pytest.raises(ConfigError):
            world.load(GPUARIA_RESOLVERS=wrong)


FOLDERS: list[dict[str, str]] = [
    {},
    {"XDG_CACHE_HOME": "/x"},
    {"HF_HOME": "/hf", "XDG_CACHE_HOME": "/x"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "$DATA/hf", "DATA": "/data"},
    {"HF_HOME": "${DATA}/$UNSET/hf", "DATA": "/data"},
    {"HF_HUB_CACHE": "~/c", "HUGGINGFACE_HUB_CACHE": "/old", "HF_TOKEN_PATH": "$DATA/t", "DATA": "/d"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/hf"},
    {"HF_HOME": "~root/hf"},
    {"HF_HOME": "relative"},
]


@pytest.mark.parametrize("environ", FOLDERS)
def test_folders_match_the_official_client(environ: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    environ = {"HOME": "/home/somebody", "PATH": os.environ["PATH"], **environ}
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE); print(c.HF_TOKEN_PATH)"
    theirs = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    s = load({}, environ, tmp_path, site=tmp_path / "none")
    assert [s.cache_dir, s.token_file] == [tmp_path / path for path in theirs]


def test_the_source_of_a_default_names_its_variable(world: World) -> None:
    assert world.load(HF_HOME="/hf").setting_source("cache_dir") == SettingSource("built-in", "HF_HOME")
    assert world.load(XDG_CACHE_HOME="/x").setting_source("token_file") == SettingSource("built-in", "XDG_CACHE_HOME")
    s = world.load(XDG_STATE_HOME="/s")
    assert (s.state_dir, s.setting_source("state_dir")) == (
        Path("/s/gpuaria"),
        SettingSource("built-in", "XDG_STATE_HOME"),
    )


def test_a_relative_path_in_a_file_is_relative_to_the_file(world: World) -> None:
    assert world.load_user_file("cache_dir: models").cache_dir == world.user.parent / "models"
    assert world.load_user_file("cache_dir: $HOME/models").cache_dir == world.user.parent / "$HOME/models"


def test_without_home_the_user_database_is_used(tmp_path: Path) -> None:
    s = load({}, {}, tmp_path, site=NONE)
    assert s.cache_dir == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache/huggingface/hub"


def test_without_any_home_only_dependent_settings_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_user(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", no_user)
    s = load({}, {}, tmp_path, site=NONE)
    assert (s.token_file, s.find_token()) == (None, Secret())
    assert ("cache_dir", "(not set)", "built-in", "") in list(s.rows())
    assert "Settings(" in repr(s)
    with pytest.raises(ConfigError, match=r"^cache_dir is unknown: there is no home folder$") as caught:
        _ = s.cache_dir
    assert caught.value.hint == "Set HOME, or GPUARIA_CACHE_DIR."
    with pytest.raises(ConfigError, match=r"state_dir"):
        _ = s.state_dir
    assert load({"cache_dir": "/c"}, {}, tmp_path, site=NONE).cache_dir == Path("/c")
    with pytest.raises(ConfigError, match=r"^HF_HUB_CACHE: cache_dir begins with ~, but the home folder is unknown$"):
        load({}, {"HF_HUB_CACHE": "~/c"}, tmp_path, site=NONE)


def test_each_row_of_the_table_is_complete() -> None:
    for key in describe():
        assert key.help.endswith("."), key.name
        assert key.help.count(". ") == 0, f"{key.name}: one sentence"
        assert key.expects
        assert key.default or key.example or key.files == "none" or key.name == "mirrors"
    names = [name for key in describe() for name in key.variables + key.disabling]
    assert len(names) == len(set(names))


def example_text() -> str:
    """Return the text of configs/example.yaml."""
    blocks = [
        "# Every key with its default, commented out. Copy to ~/.config/gpuaria/config.yaml and keep what you change.\n"
        "# `gpuaria config` shows the current values and the file, variable or flag that set each one.\n"
        "# Never put a token into a settings file: use token_file or HF_TOKEN.\n"
    ]
    for key in describe():
        if key.files == "none":
            continue
        unit = f" ({key.unit})" if key.unit else ""
        place = "\n# Not in a project's gpuaria.yaml." if key.files == "not project" else ""
        names = ", ".join(key.variables + key.disabling)
        note = "" if key.default else "\n# No default. Example:"
        value = key.example or key.default
        blocks.append(
            f"# {key.help}\n# {key.expects[0].upper()}{key.expects[1:]}{unit}.\n# Environment: {names}"
            f"{place}{note}\n#{key.name}: {value}\n"
        )
    return "\n".join(blocks)


def test_the_example_matches_the_table() -> None:
    assert (CONFIGS / "example.yaml").read_text() == example_text(), "run: python -m tests.unit.test_settings"


def test_the_example_shows_the_defaults(world: World) -> None:
    lines = (CONFIGS / "example.yaml").read_text().splitlines()
    live = [line[1:] for line in lines if line.startswith("#") and not line.startswith("# ")]
    live = [line for line in live if "$" not in line]  # a described default, not a value
    plain, told = world.load(), world.load_user_file("\n".join(live))
    assert {line.partition(":")[0] for line in live} == set(KEYS) - {"token", "token_file", "cache_dir", "state_dir"}
    for key in describe():
        if key.default:
            assert getattr(told, key.name) == getattr(plain, key.name)


PROFILES = sorted(path.name for path in CONFIGS.glob("*.yaml"))


def test_all_profiles_exist() -> None:
    assert {"example.yaml", "mainland-china.yaml", "campus-mirror.yaml", "air-gapped.yaml", "attached-daemon.yaml"} <= {
        *PROFILES
    }


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads(world: World, name: str) -> None:
    s = world.load(config=CONFIGS / name)
    from_file = {row[0] for row in s.rows() if row[2] == "file"}
    assert bool(from_file) == (name != "example.yaml")


def test_the_values_of_the_profiles(world: World) -> None:
    china = world.load(config=CONFIGS / "mainland-china.yaml")
    assert china.mirrors == (Mirror("hf-mirror", "https://hf-mirror.com", location="mainland China"),)
    assert china.connections <= 4
    gapped = world.load(config=CONFIGS / "air-gapped.yaml")
    assert (gapped.resolvers, gapped.trust, gapped.implicit_token) == (("system",), "origin", False)
    assert world.load(config=CONFIGS / "attached-daemon.yaml").rpc == "http://127.0.0.1:6800/jsonrpc"


def test_yaml_is_not_imported_without_a_settings_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gpuaria.settings import load;"
        f"load({{}}, {{'HOME': {str(tmp_path)!r}, 'XDG_CONFIG_DIRS': '/none'}}, Path({str(tmp_path)!r}),"
        " site=Path('/none'));"
        "print('yaml' in sys.modules, 'difflib' in sys.modules)"
    )
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


if __name__ == "__main__":
    (CONFIGS / "example.yaml").write_text(example_text())
