"""The error message for each mistake in a settings file, a variable or a token."""

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gpuaria.errors import ConfigError, GpuariaError
from gpuaria.settings import Key, Secret, describe
from tests.support.settings_world import FAKE, MIB, World

SAID: list[tuple[str, str, str]] = [
    ("\nconections: 4", "F:2: unknown key 'conections'", "Did you mean connections?"),
    ("zzz: 4", "F:1: unknown key 'zzz'", "`gpuaria config` lists every key."),
    ("jobs: 4\n\njobs: 4", "F:3: 'jobs' is set here and in line 1", "Remove one of them."),
    (
        "jobs: many",
        "F:1: jobs must be a whole number from 1 to 64, not 'many'",
        "Correct it, or remove it: the default is 4.",
    ),
    (
        "jobs:\n  - 1",
        "F:1: jobs must be a whole number from 1 to 64, not a list",
        "Correct it, or remove it: the default is 4.",
    ),
    (
        "offline: {a: 1}",
        "F:1: offline must be yes or no, not a mapping",
        "Correct it, or remove it: the default is no.",
    ),
    (
        "min_split: 1M",
        "F:1: min_split must be a size from 1 MiB to 1 GiB such as 20M or 4 MiB, not '1M'",
        "Correct it, or remove it: the default is 1 MiB.",
    ),
    (
        "endpoint: https://user:pass@hub.example",
        "F:1: endpoint must be an http or https URL with a host and without user, query or fragment",
        "Correct it, or remove it: the default is https://huggingface.co.",
    ),
    (
        "mirrors: https://a",
        "F:1: mirrors must be a list, not a single value",
        "Correct it, or remove it: the default is auto.",
    ),
    (
        "mirrors:\n  - base: https://a\n    bsae: x",
        "F:3: mirrors has a row with the unknown key 'bsae'",
        "Did you mean base?",
    ),
    ("mirrors:\n\n  - name: a", "F:3: mirrors has a row without a base", "Add the mirror's URL as base."),
    (
        "mirrors:\n  - {name: a, base: https://a}\n  - {name: a, base: https://b}",
        "F:3: mirrors has two rows named 'a'",
        "Give one of them another name.",
    ),
    (
        "mirrors:\n  - {name: a, base: https://a}\n  - {name: b, base: https://A/}",
        "F:1: mirrors has one URL under two names",
        "Remove one of the two rows.",
    ),
    (
        "mirrors:\n  - {base: https://a, name: [x]}",
        "F:2: mirrors must be rows whose name is one short line, not a list",
        "Correct it, or remove it: the default is auto.",
    ),
    (
        "resolvers: [1.1.1.1,\n  dns]",
        "F:2: resolvers must be a list of DNS servers, each IP[:PORT], tls://IP[:PORT], https://host/dns-query or "
        "system, not 'dns'",
        "Correct it, or remove it: the default is 8.8.8.8, 1.1.1.1, 223.5.5.5.",
    ),
    (
        f"token: {FAKE}",
        "F:1: token is not allowed in a settings file",
        "Put it into a separate file and set token_file to that path, or set HF_TOKEN.",
    ),
    ("- jobs", "F:1: not a mapping of keys to values", "Write one `key: value` per line."),
    ("? [a]\n: 1", "F:1: a key must be a word", "Write one `key: value` per line."),
    ("jobs: &a 4", "F:1: anchors and aliases are not understood", "Write the value out."),
    ("jobs: 4\ntimeout: *a", "F:2: anchors and aliases are not understood", "Write the value out."),
    ("jobs: !!int 4", "F:1: tags are not understood", "Write the value without its tag."),
    ("a: " + "[" * 50_000, "F:1: nested too deeply", "Settings are keys, lists and mirrors, without deeper nesting."),
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
        "F:9997: too many values",
        "Check that it is a settings file.",
    ),
    ("#" * (MIB + 1), "F: larger than 1 MiB", "Check that this is a settings file."),
]


@pytest.mark.parametrize(("text", "message", "hint"), SAID, ids=[row[1][:50] for row in SAID])
def test_each_mistake_has_its_message(world: World, text: str, message: str, hint: str) -> None:
    assert world.user_file_error(text) == (message, hint)


def test_unreadable_files(world: World) -> None:
    world.user.write_bytes(b"jobs: 4\n# \xff")
    with pytest.raises(ConfigError, match=r":2: not UTF-8 text$"):
        world.load()
    world.user.unlink()
    world.user.mkdir()
    with pytest.raises(ConfigError, match=r"the settings file cannot be read: Is a directory$"):
        world.load()


def test_a_byte_order_mark_is_not_part_of_a_key(world: World) -> None:
    world.user.write_bytes(b"\xef\xbb\xbfjobs: 5\r\nconnections: 6\r\n")
    s = world.load()
    assert (s.jobs, s.connections, s.setting_source("connections").where) == (5, 6, f"{world.user}:2")


def test_the_rpc_secret_needs_a_private_file(world: World) -> None:
    assert world.load_user_file("rpc_secret: abc").rpc_secret == Secret("abc")
    for mode in (0o644, 0o640, 0o606):
        assert world.user_file_error("jobs: 4\nrpc_secret: abc", mode) == (
            "F:2: rpc_secret is in a file that other users can read",
            "Run: chmod 600 F",
        )


@pytest.mark.parametrize("key", [key for key in describe() if key.files == "not project"], ids=lambda key: key.name)
def test_settings_that_a_project_must_not_set(world: World, key: Key) -> None:
    file = world.project / "gpuaria.yaml"
    file.write_text(f"jobs: 4\n{key.name}: {key.default or key.example}")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        world.load()
    assert caught.value.message == f"{file}:2: {key.name} is not allowed in a project's settings file"
    assert caught.value.hint == f"Put it in the user file, {world.user}."


def test_which_keys_a_project_must_not_set() -> None:
    assert {key.name for key in describe() if key.files == "not project"} == {
        *("endpoint", "aria2c", "rpc", "rpc_secret", "token_file", "ca_bundle", "state_dir", "cache_dir"),
        *("tokens", "send_token_in_clear_text_to"),
        *(
            "trust",
            "implicit_token",
            "known_mirrors",
        ),  # a folder that configures its own mirrors must not make them trusted
        *("check_content", "no_pickle", "signature_key"),  # nor accept its own files
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GPUARIA_CONECTIONS", "Did you mean GPUARIA_CONNECTIONS?"),
        ("GPUARIA_TOKEN", "Set HF_TOKEN instead."),
        ("GPUARIA_XYZZY_PLUGH", "Unset it; `gpuaria config` lists all settings."),
    ],
)
def test_unknown_variables(world: World, name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        world.under({name: FAKE})
    assert (caught.value.message, caught.value.hint) == (f"unknown environment variable '{name}'", hint)
    world.under({name: "", "GPUARIA_TEST_ANYTHING": "1", "HF_UNKNOWN": "1"})


def test_bad_variables_are_reported(world: World) -> None:
    with pytest.raises(ConfigError) as caught:
        world.load(HF_ENDPOINT="hub")
    assert caught.value.message.startswith("HF_ENDPOINT: endpoint must be an http or https URL")
    with pytest.raises(ConfigError, match=r"^HF_HUB_OFFLINE: offline must be yes or no, not 'maybe'$"):
        world.load(HF_HUB_OFFLINE="maybe")


def test_which_token_is_used(world: World) -> None:
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
def test_a_suspicious_token_file_is_rejected_unread(world: World, tmp_path: Path, content: str) -> None:
    file = tmp_path / "t"
    file.write_text(content)
    with pytest.raises(ConfigError, match=f"^token_file {file} does not hold one token alone$"):
        world.load(HF_TOKEN_PATH=str(file)).find_token()


def test_an_unreadable_token_file_is_reported(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        world.load(HF_TOKEN_PATH=str(tmp_path)).find_token()
    assert not world.load(HF_TOKEN_PATH=str(tmp_path / "none")).find_token()
    with pytest.raises(ConfigError, match=r"none does not exist"):
        world.load({"token_file": tmp_path / "none"}).find_token()


def test_secrets_do_not_appear(world: World) -> None:
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
def test_no_message_contains_a_token(world: World, where: str, taint: str) -> None:
    bad = f"{FAKE}{taint}{FAKE}"
    quoted = yaml.safe_dump(bad).strip()
    world.user.chmod(0o600) if world.user.exists() else world.user.touch(0o600)
    attempts: dict[str, Callable[[], object]] = {
        "flag": lambda: world.load({"token": bad}),
        "environment": lambda: world.load(HF_TOKEN=bad),
        "file": lambda: world.load_user_file(f"rpc_secret: {quoted}"),
        "endpoint": lambda: world.load(HF_ENDPOINT=f"https://{bad}@hub.example"),
        "mirror": lambda: world.load_user_file(f"mirrors: [{quoted}]"),
        "key": lambda: world.load_user_file(f"{quoted}: 1"),
    }
    with pytest.raises(GpuariaError) as caught:
        attempts[where]()
    assert FAKE not in caught.value.message + caught.value.hint
