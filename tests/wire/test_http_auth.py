"""Per-host tokens: their settings, and how token helpers are run."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gpuaria.errors import AccessDenied, ConfigError, GpuariaError, Interrupted, NetworkError, UsageError
from gpuaria.http.auth import LazyToken, ask_helper, credentials
from gpuaria.settings import Secret, Settings, TokenSource, load

MARK = "hf_MarkerThatMustNotLeak0123456789"
HUB = "https://hub.example:443"
NONE = Path("/no/such/file")


def settings(tokens: object, **environ: str) -> Settings:
    return load({"tokens": tokens}, {"HOME": "/h", **environ}, Path("/w"), site=NONE)


def from_file(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "gpuaria-user.yaml"
    file.write_text(text)
    return load({}, {"HOME": str(folder), **environ}, folder, config_file=file, site=NONE)


# --- what the settings say ----------------------------------------------------------------------------------------


def test_a_file_maps_hosts_to_token_sources(tmp_path: Path) -> None:
    s = from_file(
        tmp_path,
        "tokens:\n"
        "  Hub.example: env:HUB_TOKEN\n"
        "  hub.example:8443: file:~/hub.token\n"
        "  http://10.0.0.7:8080: helper:git credential fill\n"
        "  other.example: 'helper:~/bin/ask --for \"a b\"'\n"
        "  '[::1]:81': file:./beside\n",
        HUB_TOKEN=f" {MARK}\n",
    )
    assert s.tokens == (
        TokenSource(HUB, variable="HUB_TOKEN", value=Secret(MARK)),
        TokenSource("https://hub.example:8443", file=tmp_path / "hub.token"),
        TokenSource("http://10.0.0.7:8080", helper=("git", "credential", "fill")),
        TokenSource("https://other.example:443", helper=(str(tmp_path / "bin/ask"), "--for", "a b")),
        TokenSource("https://::1:81", file=tmp_path / "beside"),
    )


def test_a_variable_has_one_entry_per_line_or_semicolon() -> None:
    s = load({}, {"GPUARIA_TOKENS": "a.b=env:X; c.d=helper:pass show a=b;\n", "X": "t"}, Path("/w"), site=NONE)
    assert [str(source) for source in s.tokens] == ["https://a.b:443=env:X", "https://c.d:443=helper:pass"]
    assert s.tokens[1].helper == ("pass", "show", "a=b")


def test_python_accepts_a_mapping() -> None:
    assert settings({"a.b": "env:X"}) == settings(["a.b=env:X"]) == settings("a.b=env:X")
    assert settings({}).tokens == ()


@pytest.mark.parametrize(
    "place",
    [
        *(
            MARK,
            f"env:{MARK}",
            f"file:{MARK}",
            f"token:{MARK}",
            f"helper:'{MARK}",
            f"helper:{MARK}",
            "helper:",
            "helper:''",
            "env:",
        ),
        *("env:lower", "env:A B", "file:", "file:relative", "env", f"env:{'X' * 65}", "helper:a\0b", "7f3c9a"),
    ],
)
def test_a_literal_token_is_rejected_and_not_repeated(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--tokens must be a mapping .*hub\.example:443 is none of these$") as caught:
        settings({"hub.example": place})
    said = caught.value.message + caught.value.hint
    assert "A token must not be in a settings file" in said
    assert not place or place in ("env", "helper:", "env:", "file:") or place not in said
    assert MARK not in said


@pytest.mark.parametrize(
    "host", ["", "https://", "a/b", "https://a/b", "u:p@a", "a b", "ftp://a", f"{MARK}@a", "*", "*.a", "https://a?b"]
)
def test_invalid_hosts(host: str) -> None:
    with pytest.raises(UsageError, match="is not a host") as caught:
        settings({host: "env:X"})
    assert MARK not in caught.value.message


def test_a_host_may_appear_once() -> None:
    with pytest.raises(UsageError, match="twice"):
        settings({"a.example": "env:X", "https://A.example:443": "env:Y"})


def test_no_token_appears_in_output(tmp_path: Path) -> None:
    s = settings({"a.b": "env:X", "c.d": f"helper:echo password={MARK}"}, X=MARK)
    token = LazyToken(s.tokens[0], frozenset(), threading.Event())
    assert token.reveal() == MARK
    assert MARK not in repr(s) + str(list(s.rows())) + repr(token) + str(s.tokens)
    assert dict(row[:2] for row in s.rows())["tokens"] == "https://a.b:443=env:X, https://c.d:443=helper:echo"


# --- which token goes where ---------------------------------------------------------------------------------------


def given(s: Settings) -> dict[str, str]:
    return {place: token.reveal() for place, token in credentials(s, threading.Event()).items()}


def test_a_hosts_own_token_precedes_the_endpoint_token() -> None:
    variables = {"HF_ENDPOINT": "https://hub.example", "HF_TOKEN": "general", "X": "own", "Y": "other"}
    tokens = {"hub.example": "env:X", "m.example": "env:Y"}
    assert given(settings(tokens, **variables)) == {HUB: "own", "https://m.example:443": "other"}
    assert given(settings({"m.example": "env:Y"}, **variables))[HUB] == "general"
    assert given(settings({"http://hub.example": "env:X", "hub.example:8443": "env:X"}, **variables))[HUB] == "general"


def test_the_flag_precedes_all_and_implicit_tokens_can_be_disabled() -> None:
    environ = {"HOME": "/h", "HF_ENDPOINT": "https://hub.example", "X": "own"}
    for off in ({}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}):
        s = load({"tokens": {"hub.example": "env:X"}, "token": "flag"}, environ | off, Path("/w"), site=NONE)
        assert given(s) == {HUB: "flag"}
    assert given(settings({"hub.example": "env:X"}, HF_HUB_DISABLE_IMPLICIT_TOKEN="1", **environ)) == {}


def test_a_token_is_read_only_when_needed(tmp_path: Path) -> None:
    s = settings({"a.b": f"file:{tmp_path}/none", "c.d": "env:UNSET", "e.f": "helper:/no/such/program"})
    assert len(credentials(s, threading.Event())) == 3


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("env:UNSET", "should be in UNSET, which is not set"),
        ("file:/no/such/file", "in /no/such/file is missing"),
        ("file:/", "cannot be read: Is a directory"),
        ("helper:/no/such/program", "cannot be run: No such file or directory"),
    ],
)
def test_a_missing_token_source_is_reported(place: str, says: str) -> None:
    for endpoint, kind in (("https://hub.example", ConfigError), ("https://else.example", NetworkError)):
        found = credentials(settings({"hub.example": place}, HF_ENDPOINT=endpoint), threading.Event())
        with pytest.raises(kind, match=says) as caught:
            found[HUB].reveal()
        assert "hub.example" in caught.value.message
        assert caught.value.hint


def test_a_file_with_more_than_a_token_is_rejected_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(f"{MARK}\n{MARK}\n")
    source = settings({"hub.example": f"file:{tmp_path}/t"}).tokens[0]
    with pytest.raises(ConfigError, match="does not hold one token alone") as caught:
        source.read()
    assert MARK not in caught.value.message
    (tmp_path / "t").write_text(f"{MARK}\n")
    assert source.read().reveal() == MARK


# --- helpers ------------------------------------------------------------------------------------------------------

Script = Callable[[str], tuple[str, ...]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Write a shell script; return it as the words of a helper."""

    def made(text: str) -> tuple[str, ...]:
        path = tmp_path / "helper"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return (str(path),)

    return made


def answer(words: Sequence[str], place: str = HUB, seconds: float = 20, home: str = "") -> str:
    environ = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1"} | ({"HOME": home} if home else {})
    return ask_helper(words, place, environ, threading.Event(), seconds=seconds).reveal()


@pytest.mark.parametrize(
    ("place", "question"),
    [
        (HUB, "protocol=https\nhost=hub.example\n\n"),
        ("http://hub.example:80", "protocol=http\nhost=hub.example\n\n"),
        ("http://127.0.0.1:8080", "protocol=http\nhost=127.0.0.1:8080\n\n"),
        ("https://::1:8443", "protocol=https\nhost=[::1]:8443\n\n"),
    ],
)
def test_a_helper_is_run_as_git_runs_it(script: Script, tmp_path: Path, place: str, question: str) -> None:
    words = script(f"cat > {tmp_path}/asked; echo username=me; echo password={MARK}; echo quit=false")
    assert answer(words, place) == MARK
    assert (tmp_path / "asked").read_text() == question


@pytest.mark.parametrize(
    ("says", "token"),
    [
        (f"printf '{MARK}\\n'", MARK),  # keyring get, pass show; stdin is not read
        (f"printf '{MARK}'", MARK),
        ("printf 'a==\\n'", "a=="),
        ("printf 'protocol=https\\r\\npassword=a=b==\\r\\n'", "a=b=="),
        ("yes '' | head -c 300000 >&2; echo password=abc", "abc"),
    ],
)
def test_valid_helper_output(script: Script, says: str, token: str) -> None:
    assert answer(script(says)) == token


@pytest.mark.parametrize(
    ("says", "what"),
    [
        ("true", "has no token"),
        ("echo quit=1", "has no token"),
        ("echo username=me", "has no token"),
        ("echo password=", "has no token"),
        ("echo one; echo two", "has no token"),
        (f"echo 'password={MARK} x'", "returned an invalid token"),
        (f"echo '{MARK} {MARK}'", "returned an invalid token"),
        ("echo 'password=t\u00f6ken'", "returned an invalid token"),
        (f"echo password={MARK}; exit 3", "failed for https://hub.example:443 with status 3"),
        ("exit 128", "with status 128"),
        ("kill -9 $$", "with status -9"),
    ],
)
def test_invalid_helper_output(script: Script, says: str, what: str) -> None:
    with pytest.raises(AccessDenied, match=what) as caught:
        answer(script(says))
    assert "helper" in caught.value.message
    assert "like a git credential helper" in caught.value.hint
    assert MARK not in caught.value.message
    assert caught.value.exit_code == 6


def test_error_output_of_a_helper_is_shown_escaped(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gpuaria")
    says = f"echo 'first' >&2; echo 'password={MARK}' >&2; printf 'the \\033[2J{MARK} is locked\\n' >&2; exit 1"
    with pytest.raises(AccessDenied) as caught:
        answer(script(says))
    assert caught.value.message.endswith("with status 1: first; password=***; the [2J*** is locked")
    with pytest.raises(AccessDenied, match=r"with status 1: \+ echo password=\*\*\*; \+ exit 1$"):
        answer(script("set -x; echo password=some-other-secret; exit 1"))
    assert "first" in caplog.text
    assert MARK not in caplog.text
    assert "some-other-secret" not in caplog.text


def test_a_helper_that_does_not_end_is_killed(script: Script, tmp_path: Path) -> None:
    words = script(f"echo $$ > {tmp_path}/pid; echo 'waiting for the keyring' >&2; exec sleep 600")
    with pytest.raises(AccessDenied, match=r"returned no token for .* within 0 s: waiting for the keyring$"):
        answer(words, seconds=0.4)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_process_left_by_a_helper_is_not_waited_for(script: Script, tmp_path: Path) -> None:
    assert answer(script(f"sleep 600 & echo $! > {tmp_path}/pid; echo password={MARK}")) == MARK
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_an_interrupt_stops_a_helper(script: Script, tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted):
        ask_helper(script(f"echo $$ > {tmp_path}/pid; exec sleep 600"), HUB, os.environ, stop)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_the_helper_command_is_not_run_by_a_shell(tmp_path: Path) -> None:
    s = settings({"hub.example": f"helper:echo $(touch {tmp_path}/x) ; `id` $HOME"})
    with pytest.raises(AccessDenied, match="returned an invalid token"):
        ask_helper(s.tokens[0].helper, HUB, os.environ, threading.Event())
    assert not (tmp_path / "x").exists()


def test_a_helper_sees_its_own_environment_without_our_tokens(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GPUARIA_RPC_SECRET", "MIRROR_PASS"):
        monkeypatch.setenv(name, MARK)
    monkeypatch.setenv("VAULT_TOKEN", "of-the-vault")
    (program,) = script(f'env | grep -q {MARK} && exit 9; echo "password=$VAULT_TOKEN-$GIT_TERMINAL_PROMPT"')
    s = settings({"hub.example": f"helper:{program}", "other.example": "env:MIRROR_PASS"})
    token = credentials(s, threading.Event())[HUB]
    assert token.reveal() == "of-the-vault-0"


def test_a_helper_runs_once_even_if_it_fails(script: Script, tmp_path: Path) -> None:
    for says in (f"echo password={MARK}", "exit 1"):
        count = tmp_path / "count"
        count.write_text("")
        (program,) = script(f"echo x >> {count}; sleep 0.2; {says}")
        token = LazyToken(settings({"hub.example": f"helper:{program}"}).tokens[0], frozenset(), threading.Event())
        found: list[object] = []

        def look(token: LazyToken = token, found: list[object] = found) -> None:
            try:
                found.append(token.reveal())
            except GpuariaError as error:
                found.append(error.message)

        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1
        assert count.read_text() == "x\n"


def test_gits_own_helpers_work(tmp_path: Path) -> None:
    """`git credential fill` with a store, as the guide shows."""
    store = tmp_path / "store"
    store.write_text(f"https://me:{MARK}@hub.example\nhttp://me:other@127.0.0.1%3a8080\n")
    store.chmod(0o600)
    command = f"git -c credential.helper='store --file {store}' credential fill"
    words, home = shlex.split(command), str(tmp_path)
    try:
        assert answer(words, home=home) == MARK
    except ConfigError:
        pytest.skip("needs git")
    assert answer(words, "http://127.0.0.1:8080", home=home) == "other"
    with pytest.raises(AccessDenied, match="with status 128"):
        answer(words, "https://unknown.example:443", home=home)


def test_a_python_program_works_as_a_helper() -> None:
    assert answer((sys.executable, "-c", f"print('password={MARK}')")) == MARK
