"""The layers of settings, what each key accepts, and what is said about everything else.

`python -m tests.unit.test_settings` writes configs/example.yaml anew from the table.
"""

import contextlib
import copy
import dataclasses
import os
import pickle
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.errors import ConfigError, GpuariaError, UsageError
from gpuaria.records import Mirror
from gpuaria.settings import Key, Origin, Secret, Settings, describe, files, load, values
from gpuaria.settings.known import shipped
from tests.support.places import ROOT

CONFIGS = ROOT / "configs"
MIB = 2**20
KEYS = {key.name: key for key in describe()}
FAKE = "hf_" + "x" * 34
NONE = Path("/no/such/file")


class World:
    """A home, a project folder and a site file in a temporary folder; nothing of the real machine is read."""

    def __init__(self, root: Path) -> None:
        self.home, self.project, self.site = root / "home", root / "project", root / "etc.yaml"
        self.user = self.home / ".config/gpuaria/config.yaml"
        self.user.parent.mkdir(parents=True)
        self.project.mkdir()
        self.base = {"HOME": str(self.home), "XDG_CONFIG_DIRS": str(root / "xdg")}

    def load(self, flags: Mapping[str, object] | None = None, config: Path | None = None, **environ: str) -> Settings:
        return load(flags or {}, self.base | environ, self.project, config_file=config, site=self.site)

    def under(self, environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Settings:
        """As `load`, with variables whose names are in a mapping."""
        return load(flags or {}, self.base | dict(environ), self.project, site=self.site)

    def user_says(self, text: str, mode: int = 0o600) -> Settings:
        self.user.write_text(text)
        self.user.chmod(mode)
        return self.load()

    def error(self, text: str, mode: int = 0o600) -> tuple[str, str]:
        """What is said about a user file, with its path cut to "F"."""
        with pytest.raises(ConfigError) as caught:
            self.user_says(text, mode)
        return caught.value.message.replace(str(self.user), "F"), caught.value.hint.replace(str(self.user), "F")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- layers


def test_built_in(world: World) -> None:
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


def test_each_layer_beats_the_one_below(world: World, tmp_path: Path) -> None:
    xdg = tmp_path / "xdg/gpuaria/config.yaml"
    xdg.parent.mkdir(parents=True)
    steps: list[tuple[Callable[[], object], int, Origin]] = [
        (lambda: None, 4, Origin("built-in", "")),
        (lambda: world.site.write_text("jobs: 5"), 5, Origin("site", f"{world.site}:1")),
        (lambda: xdg.write_text("\njobs: 6"), 6, Origin("site", f"{xdg}:2")),
        (lambda: world.user.write_text("# mine\n\njobs: 7"), 7, Origin("user", f"{world.user}:3")),
        (
            lambda: (world.project / "gpuaria.yaml").write_text("jobs: 8"),
            8,
            Origin("project", f"{world.project}/gpuaria.yaml:1"),
        ),
        (lambda: world.base.update(GPUARIA_JOBS="9"), 9, Origin("environment", "GPUARIA_JOBS")),
    ]
    for write, jobs, origin in steps:
        write()
        s = world.load({"jobs": None})
        assert (s.jobs, s.origin("jobs")) == (jobs, origin)
    s = world.load({"jobs": 10})
    assert (s.jobs, s.origin("jobs")) == (10, Origin("flag", "--jobs"))


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
def test_a_named_file_stands_for_the_users_and_the_projects(world: World, tmp_path: Path, how: str) -> None:
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
    assert s.origin("endpoint") == Origin("file", f"{named}:1")


def test_a_named_file_must_exist(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no.yaml: there is no such settings file"):
        world.load(config=tmp_path / "no.yaml")


def test_a_value_left_out_sets_nothing(world: World) -> None:
    s = world.user_says("jobs:\nmirrors: ~\nconnections: null\n")
    assert (s.jobs, s.connections, s.origin("jobs").layer) == (4, 16, "built-in")
    assert world.user_says("# nothing\n").jobs == 4


def test_nothing_of_the_process_environment_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in describe():
        for name in key.variables + key.disabling:
            monkeypatch.setenv(name, "nonsense for every key \n")
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert {row[2] for row in world.load().rows()} == {"built-in"}


# --- every key


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
    other = {"token", "mirrors", "known_mirrors", "resolvers", "tokens"}  # below, and in test_tokens.py
    assert {key for key, _, _ in GOOD} | other == set(KEYS)
    assert {key for key, _ in BAD} >= set(KEYS) - {"token_file", "state_dir", "implicit_token", "symlinks"}


@pytest.mark.parametrize(("key", "text", "value"), GOOD)
def test_good_values(key: str, text: str, value: object) -> None:
    s = load({key: text}, {"HOME": "/h"}, Path("/w"), site=NONE)
    assert getattr(s, key) == value
    assert s.origin(key) == Origin("flag", KEYS[key].flag)


@pytest.mark.parametrize(("key", "text"), BAD)
def test_bad_values(key: str, text: str) -> None:
    with pytest.raises(UsageError, match=rf"^{KEYS[key].flag} must be "):
        load({key: text}, {"HOME": "/h"}, Path("/w"), site=NONE)


def test_flags_take_pythons_own_types(world: World) -> None:
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
def test_the_first_variable_that_is_set_counts(world: World, key: str, names: list[str]) -> None:
    good = {"endpoint": "https://e.example", "offline": "1"}.get(key, "/value")
    assert list(KEYS[key].variables) == names
    while names:
        set_names = dict.fromkeys(names[1:], "https://second.example" if key == "endpoint" else "0")
        s = world.under({names[0]: good} | set_names)
        assert s.origin(key) == Origin("environment", names[0])
        assert getattr(s, key) in (good, Secret(good), Path(good), True)
        assert world.under(dict.fromkeys(names, " ")).origin(key).layer == "built-in", "blank is unset"
        names = names[1:]


def test_every_key_but_token_has_its_own_variable() -> None:
    for key in describe():
        assert key.variables[0] == ("HF_TOKEN" if key.name == "token" else f"GPUARIA_{key.name.upper()}")


def test_disabling_variables(world: World) -> None:
    assert world.load(HF_HUB_DISABLE_SYMLINKS="1").symlinks is False
    assert world.load(HF_HUB_DISABLE_SYMLINKS="0").symlinks is None, "not disabled is not forced"
    assert world.load(HF_HUB_DISABLE_SYMLINKS="1", GPUARIA_SYMLINKS="yes").symlinks is True
    assert world.load(HF_HUB_DISABLE_IMPLICIT_TOKEN="on").implicit_token is False
    assert world.load(HF_HUB_DISABLE_IMPLICIT_TOKEN="on").origin("implicit_token").where == (
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
    assert world.user_says(MIRRORS).mirrors == rows
    two = (Mirror("a", "https://a"), Mirror("b", "https://b"))
    assert world.load(GPUARIA_MIRRORS="https://a, https://b https://a").mirrors == two
    assert world.load({"mirrors": ["https://b"]}, GPUARIA_MIRRORS="https://a").mirrors == two[1:]
    assert world.load({"mirrors": []}).mirrors == rows
    assert world.user_says("mirrors: []").mirrors == ()


def test_mirrors_may_be_a_word(world: World) -> None:
    assert (world.load().mirrors, world.load().auto) == ((), True)
    for text in ("none", "None", "[none]", "[]"):
        s = world.user_says(f"mirrors: {text}")
        assert (s.mirrors, s.auto, s.candidates()) == ((), False, ())
    assert world.user_says("mirrors: [https://a]").auto is False
    assert world.load(GPUARIA_MIRRORS="auto").auto is True, "over the list in the user's file"
    assert world.load({"mirrors": ["none"]}, GPUARIA_MIRRORS="auto").auto is False
    shown = {key: value for key, value, _, _ in world.load(GPUARIA_MIRRORS="none").rows()}
    assert shown["mirrors"] == "none"
    assert {key: value for key, value, _, _ in world.load(GPUARIA_MIRRORS="auto").rows()}["mirrors"] == "auto"
    with pytest.raises(ConfigError, match="has 'auto' next to other rows"):
        world.load(GPUARIA_MIRRORS="auto, https://a")


def test_the_known_mirrors_may_be_others_than_the_shipped_ones(world: World) -> None:
    assert [row.name for row in world.load().candidates()] == list(shipped())
    own = "known_mirrors: [sufy, {name: hf-mirror, base: https://own.example}, https://a.example]"
    assert [(row.name, row.base) for row in world.user_says(own).candidates()] == [
        ("sufy", shipped()["sufy"].base),
        ("hf-mirror", "https://own.example"),
        ("a.example", "https://a.example"),
    ]
    replaced = "mirrors: [{name: hf-mirror, base: https://own.example}]"
    assert world.user_says(replaced).candidates() == ()
    rows = {row.name: row.base for row in world.load(GPUARIA_MIRRORS="auto").candidates()}
    assert rows == {"hf-mirror": "https://own.example", "sufy": shipped()["sufy"].base}


def test_resolvers(world: World) -> None:
    s = world.user_says("resolvers: [9.9.9.9, 'tls://[2620:FE::fe]', https://Dns.Example/dns-query, system, 9.9.9.9]")
    assert s.resolvers == ("system", "9.9.9.9", "tls://2620:fe::fe", "https://dns.example/dns-query")
    assert world.user_says("resolvers: []").resolvers == ("system",)
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


# --- folders


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
def test_folders_are_those_of_the_official_client(environ: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    environ = {"HOME": "/home/somebody", "PATH": os.environ["PATH"], **environ}
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE); print(c.HF_TOKEN_PATH)"
    theirs = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    s = load({}, environ, tmp_path, site=tmp_path / "none")
    assert [s.cache_dir, s.token_file] == [tmp_path / path for path in theirs]


def test_where_says_which_variable_moved_a_default(world: World) -> None:
    assert world.load(HF_HOME="/hf").origin("cache_dir") == Origin("built-in", "HF_HOME")
    assert world.load(XDG_CACHE_HOME="/x").origin("token_file") == Origin("built-in", "XDG_CACHE_HOME")
    s = world.load(XDG_STATE_HOME="/s")
    assert (s.state_dir, s.origin("state_dir")) == (Path("/s/gpuaria"), Origin("built-in", "XDG_STATE_HOME"))


def test_a_files_relative_path_starts_at_the_file(world: World) -> None:
    assert world.user_says("cache_dir: models").cache_dir == world.user.parent / "models"
    assert world.user_says("cache_dir: $HOME/models").cache_dir == world.user.parent / "$HOME/models"


def test_without_home_the_user_database_knows(tmp_path: Path) -> None:
    s = load({}, {}, tmp_path, site=NONE)
    assert s.cache_dir == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache/huggingface/hub"


def test_without_any_home_only_what_needs_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    s = load({}, {}, tmp_path, site=NONE)
    assert (s.token_file, s.find_token()) == (None, Secret())
    assert ("cache_dir", "(not set)", "built-in", "") in list(s.rows())
    assert "Settings(" in repr(s)
    with pytest.raises(ConfigError, match=r"^cache_dir is not known: there is no home folder$") as caught:
        _ = s.cache_dir
    assert caught.value.hint == "Set HOME, or GPUARIA_CACHE_DIR."
    with pytest.raises(ConfigError, match=r"state_dir"):
        _ = s.state_dir
    assert load({"cache_dir": "/c"}, {}, tmp_path, site=NONE).cache_dir == Path("/c")
    with pytest.raises(ConfigError, match=r"^HF_HUB_CACHE: cache_dir begins with ~, and no home folder is known$"):
        load({}, {"HF_HUB_CACHE": "~/c"}, tmp_path, site=NONE)


# --- what is said about a file


SAID: list[tuple[str, str, str]] = [
    ("\nconections: 4", "F:2: unknown key 'conections'", "Did you mean connections?"),
    ("zzz: 4", "F:1: unknown key 'zzz'", "`gpuaria config` lists every key."),
    ("jobs: 4\n\njobs: 4", "F:3: 'jobs' stands here and in line 1", "Remove one of them."),
    (
        "jobs: many",
        "F:1: jobs must be a whole number from 1 to 64, not 'many'",
        "Correct it, or leave it out: the default is 4.",
    ),
    (
        "jobs:\n  - 1",
        "F:1: jobs must be a whole number from 1 to 64, not a list",
        "Correct it, or leave it out: the default is 4.",
    ),
    (
        "offline: {a: 1}",
        "F:1: offline must be yes or no, not a mapping",
        "Correct it, or leave it out: the default is no.",
    ),
    (
        "min_split: 1M",
        "F:1: min_split must be a size from 1 MiB to 1 GiB such as 20M or 4 MiB, not '1M'",
        "Correct it, or leave it out: the default is 1 MiB.",
    ),
    (
        "endpoint: https://user:pass@hub.example",
        "F:1: endpoint must be an http or https address with a host and without user, query or fragment",
        "Correct it, or leave it out: the default is https://huggingface.co.",
    ),
    (
        "mirrors: https://a",
        "F:1: mirrors must be a list, not a single value",
        "Correct it, or leave it out: the default is auto.",
    ),
    (
        "mirrors:\n  - base: https://a\n    bsae: x",
        "F:3: mirrors has a row with the unknown key 'bsae'",
        "Did you mean base?",
    ),
    ("mirrors:\n\n  - name: a", "F:3: mirrors has a row without a base", "Add the mirror's address as base."),
    (
        "mirrors:\n  - {name: a, base: https://a}\n  - {name: a, base: https://b}",
        "F:3: mirrors has two rows named 'a'",
        "Give one of them another name.",
    ),
    (
        "mirrors:\n  - {name: a, base: https://a}\n  - {name: b, base: https://A/}",
        "F:1: mirrors has one address under two names",
        "Remove one of the two rows.",
    ),
    (
        "mirrors:\n  - {base: https://a, name: [x]}",
        "F:2: mirrors must be rows whose name is one short line, not a list",
        "Correct it, or leave it out: the default is auto.",
    ),
    (
        "resolvers: [1.1.1.1,\n  dns]",
        "F:2: resolvers must be a list of DNS servers, each IP[:PORT], tls://IP[:PORT], https://host/dns-query or "
        "system, not 'dns'",
        "Correct it, or leave it out: the default is 8.8.8.8, 1.1.1.1, 223.5.5.5.",
    ),
    (
        f"token: {FAKE}",
        "F:1: token may not stand in a settings file",
        "Put it into a file of its own and name that in token_file, or set HF_TOKEN.",
    ),
    ("- jobs", "F:1: not a mapping of keys to values", "Write one `key: value` per line."),
    ("? [a]\n: 1", "F:1: a key must be a word", "Write one `key: value` per line."),
    ("jobs: &a 4", "F:1: anchors and aliases are not understood", "Write the value out."),
    ("jobs: 4\ntimeout: *a", "F:2: anchors and aliases are not understood", "Write the value out."),
    ("jobs: !!int 4", "F:1: tags are not understood", "Write the value without its tag."),
    ("a: " + "[" * 50_000, "F:1: nested too deeply", "Settings are keys, lists and mirrors; nothing is deeper."),
    (
        "jobs: 4\n\ttimeout: 3",
        "F:2: not valid YAML: found character '\\t' that cannot start any token",
        "Indent with spaces: YAML does not allow tabs there.",
    ),
    ("jobs: 4\n  x: y", "F:2: not valid YAML: mapping values are not allowed here", "Correct this line."),
    ("jobs: 4\n# \x01", "F:2: not valid YAML: a character that YAML does not allow", "Correct this line."),
    ("jobs: 4\n---\njobs: 5", "F:2: not valid YAML: but found another document", "Correct this line."),
    ('jobs: "\\UFFFFFFFF"', "F: not valid YAML: an escape names no character", "Write the character."),
    (
        "resolvers: [" + "1,\n" * 50_000,
        "F:9997: more values than settings can need",
        "Check that it is a settings file.",
    ),
    ("#" * (MIB + 1), "F: larger than 1 MiB", "A settings file is small: check that it is one."),
]


@pytest.mark.parametrize(("text", "message", "hint"), SAID, ids=[row[1][:50] for row in SAID])
def test_what_is_said(world: World, text: str, message: str, hint: str) -> None:
    assert world.error(text) == (message, hint)


def test_unreadable_files(world: World) -> None:
    world.user.write_bytes(b"jobs: 4\n# \xff")
    with pytest.raises(ConfigError, match=r":2: not UTF-8 text$"):
        world.load()
    world.user.unlink()
    world.user.mkdir()
    with pytest.raises(ConfigError, match=r"the settings file cannot be read: Is a directory$"):
        world.load()


def test_a_byte_order_mark_is_no_key(world: World) -> None:
    world.user.write_bytes(b"\xef\xbb\xbfjobs: 5\r\nconnections: 6\r\n")
    s = world.load()
    assert (s.jobs, s.connections, s.origin("connections").where) == (5, 6, f"{world.user}:2")


def test_rpc_secret_only_in_a_private_file(world: World) -> None:
    assert world.user_says("rpc_secret: abc").rpc_secret == Secret("abc")
    for mode in (0o644, 0o640, 0o606):
        assert world.error("jobs: 4\nrpc_secret: abc", mode) == (
            "F:2: rpc_secret stands in a file that others can read",
            "Run: chmod 600 F",
        )


@pytest.mark.parametrize("key", [key for key in describe() if key.files == "not project"], ids=lambda key: key.name)
def test_what_a_project_may_not_set(world: World, key: Key) -> None:
    file = world.project / "gpuaria.yaml"
    file.write_text(f"jobs: 4\n{key.name}: {key.default or key.example}")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        world.load()
    assert caught.value.message == f"{file}:2: {key.name} may not stand in a project's file"
    assert caught.value.hint == f"Put it in the user file, {world.user}."


def test_which_keys_a_project_may_not_set() -> None:
    assert {key.name for key in describe() if key.files == "not project"} == {
        *("endpoint", "aria2c", "rpc", "rpc_secret", "token_file", "ca_bundle", "state_dir", "cache_dir"),
        *("tokens", "send_token_in_clear_text_to"),
        *(
            "trust",
            "implicit_token",
            "known_mirrors",
        ),  # a folder that brings its own mirrors must not have them believed
        *("check_content", "no_pickle", "signature_key"),  # nor let its own files pass
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GPUARIA_CONECTIONS", "Did you mean GPUARIA_CONNECTIONS?"),
        ("GPUARIA_TOKEN", "Set HF_TOKEN instead."),
        ("GPUARIA_XYZZY_PLUGH", "Unset it; `gpuaria config` lists what there is."),
    ],
)
def test_unknown_variables(world: World, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        world.under({name: FAKE})
    assert (caught.value.message, caught.value.hint) == (f"unknown environment variable '{name}'", hint)
    world.under({name: "", "GPUARIA_TEST_ANYTHING": "1", "HF_UNKNOWN": "1"})


def test_bad_variables_are_named(world: World) -> None:
    with pytest.raises(ConfigError) as caught:
        world.load(HF_ENDPOINT="hub")
    assert caught.value.message.startswith("HF_ENDPOINT: endpoint must be an http or https address")
    with pytest.raises(ConfigError, match=r"^HF_HUB_OFFLINE: offline must be yes or no, not 'maybe'$"):
        world.load(HF_HUB_OFFLINE="maybe")


# --- secrets


def test_which_token(world: World) -> None:
    file = world.home / ".cache/huggingface/token"
    assert world.load().find_token() == Secret()
    file.parent.mkdir(parents=True)
    file.write_text("from-file\n")
    assert world.load().find_token().reveal() == "from-file"
    assert world.load(HUGGING_FACE_HUB_TOKEN="old").find_token().reveal() == "old"
    assert world.load(HUGGING_FACE_HUB_TOKEN="old", HF_TOKEN=" env\n").find_token().reveal() == "env"
    assert world.load({"token": "flag"}, HF_TOKEN="env").find_token().reveal() == "flag"
    off = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN": "env"}
    assert not world.under(off).find_token()
    assert world.under(off, {"token": "flag"}).find_token().reveal() == "flag"
    file.write_text(" \n")
    assert not world.load().find_token()


@pytest.mark.parametrize("content", ["two\nlines", "a b", "a\x00b", "é", "x" * 9000])
def test_a_strange_token_file_is_refused_unseen(world: World, tmp_path: Path, content: str) -> None:
    file = tmp_path / "t"
    file.write_text(content)
    with pytest.raises(ConfigError, match=f"^token_file {file} does not hold one token alone$"):
        world.load(HF_TOKEN_PATH=str(file)).find_token()


def test_a_token_file_that_cannot_be_read(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        world.load(HF_TOKEN_PATH=str(tmp_path)).find_token()
    assert not world.load(HF_TOKEN_PATH=str(tmp_path / "none")).find_token()
    with pytest.raises(ConfigError, match=r"none does not exist"):
        world.load({"token_file": tmp_path / "none"}).find_token()


def test_secrets_do_not_show(world: World) -> None:
    s = world.load({"token": FAKE}, GPUARIA_RPC_SECRET="rpc-" + FAKE)
    everything = [repr(s), str(s), f"{s.token} {s.token!r}", str(list(s.rows())), str(dataclasses.asdict(s))]
    assert FAKE not in "".join(everything)
    rows = {key: shown for key, shown, _, _ in s.rows()}
    assert rows["token"] == rows["rpc_secret"] == "(set, hidden)"
    assert copy.deepcopy(s.token) == s.token
    assert s.token != FAKE
    assert len({s.token, Secret(FAKE), Secret()}) == 2
    with pytest.raises(TypeError, match=r"not pickled"):
        pickle.dumps(s.token)


TAINTED = ["\n", "\x00", "é", " "]


@pytest.mark.parametrize("taint", TAINTED)
@pytest.mark.parametrize("where", ["flag", "environment", "file", "endpoint", "mirror", "key"])
def test_no_message_shows_a_token(world: World, where: str, taint: str) -> None:
    bad = f"{FAKE}{taint}{FAKE}"
    quoted = yaml.safe_dump(bad).strip()
    world.user.chmod(0o600) if world.user.exists() else world.user.touch(0o600)
    attempts: dict[str, Callable[[], object]] = {
        "flag": lambda: world.load({"token": bad}),
        "environment": lambda: world.load(HF_TOKEN=bad),
        "file": lambda: world.user_says(f"rpc_secret: {quoted}"),
        "endpoint": lambda: world.load(HF_ENDPOINT=f"https://{bad}@hub.example"),
        "mirror": lambda: world.user_says(f"mirrors: [{quoted}]"),
        "key": lambda: world.user_says(f"{quoted}: 1"),
    }
    with pytest.raises(GpuariaError) as caught:
        attempts[where]()
    assert FAKE not in caught.value.message + caught.value.hint


# --- properties


def entries_or_error(text: str) -> None:
    """A user file with this text loads or is a ConfigError, and either way says nothing it should not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "c.yaml")
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        file.chmod(0o600)
        try:
            s = load({}, {"HOME": folder}, Path(folder), config_file=file, site=Path(folder, "none"))
        except ConfigError:
            return
        assert s.origin("endpoint").layer in ("built-in", "file")
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
def test_any_value_of_a_key_is_settings_or_a_config_error(document: dict[str, object]) -> None:
    entries_or_error(yaml.dump(document, Dumper=NoAliases, allow_unicode=True))


class NoAliases(yaml.SafeDumper):
    """Hypothesis may hand out one object twice."""

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
def test_a_size_survives_being_shown(count: int) -> None:
    assert values.size(values.show_size(count)) == count


@given(st.integers(0, 365 * 86400).map(float) | st.floats(0.001, 600))
def test_a_time_survives_being_shown(seconds: float) -> None:
    assert values.seconds(values.show_seconds(seconds)) == seconds


# --- the table and configs/


def test_each_row_of_the_table_is_whole() -> None:
    for key in describe():
        assert key.help.endswith("."), key.name
        assert key.help.count(". ") == 0, f"{key.name}: one sentence"
        assert key.expects
        assert key.default or key.example or key.files == "none" or key.name == "mirrors"
    names = [name for key in describe() for name in key.variables + key.disabling]
    assert len(names) == len(set(names))


def example_text() -> str:
    """configs/example.yaml as the table has it."""
    blocks = [
        "# Every key with its default, commented out. Copy to ~/.config/gpuaria/config.yaml and keep what you change.\n"
        "# `gpuaria config` shows what is in force and which file, variable or flag it comes from.\n"
        "# A token never stands here: use token_file or HF_TOKEN.\n"
    ]
    for key in describe():
        if key.files == "none":
            continue
        unit = f" ({key.unit})" if key.unit else ""
        place = "\n# Not in a project's gpuaria.yaml." if key.files == "not project" else ""
        names = ", ".join(key.variables + key.disabling)
        note = "" if key.default else "\n# There is no default; for instance:"
        value = key.example or key.default
        blocks.append(
            f"# {key.help}\n# {key.expects[0].upper()}{key.expects[1:]}{unit}.\n# Environment: {names}"
            f"{place}{note}\n#{key.name}: {value}\n"
        )
    return "\n".join(blocks)


def test_the_example_is_in_step_with_the_table() -> None:
    assert (CONFIGS / "example.yaml").read_text() == example_text(), "run: python -m tests.unit.test_settings"


def test_the_example_holds_the_defaults(world: World) -> None:
    lines = (CONFIGS / "example.yaml").read_text().splitlines()
    live = [line[1:] for line in lines if line.startswith("#") and not line.startswith("# ")]
    live = [line for line in live if "$" not in line]  # such a default is words, not a value
    plain, told = world.load(), world.user_says("\n".join(live))
    assert {line.partition(":")[0] for line in live} == set(KEYS) - {"token", "token_file", "cache_dir", "state_dir"}
    for key in describe():
        if key.default:
            assert getattr(told, key.name) == getattr(plain, key.name)


PROFILES = sorted(path.name for path in CONFIGS.glob("*.yaml"))


def test_the_profiles_are_there() -> None:
    assert {"example.yaml", "mainland-china.yaml", "campus-mirror.yaml", "air-gapped.yaml", "attached-daemon.yaml"} <= {
        *PROFILES
    }


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_loads(world: World, name: str) -> None:
    s = world.load(config=CONFIGS / name)
    from_file = {row[0] for row in s.rows() if row[2] == "file"}
    assert bool(from_file) == (name != "example.yaml")


def test_what_the_profiles_say(world: World) -> None:
    china = world.load(config=CONFIGS / "mainland-china.yaml")
    assert china.mirrors == (Mirror("hf-mirror", "https://hf-mirror.com", location="mainland China"),)
    assert china.connections <= 4
    gapped = world.load(config=CONFIGS / "air-gapped.yaml")
    assert (gapped.resolvers, gapped.trust, gapped.implicit_token) == (("system",), "origin", False)
    assert world.load(config=CONFIGS / "attached-daemon.yaml").rpc == "http://127.0.0.1:6800/jsonrpc"


def test_without_a_file_yaml_is_not_imported(tmp_path: Path) -> None:
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
