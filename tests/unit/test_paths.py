"""gpuaria.paths: rejected and accepted names; no accepted name leaves its folder."""

import json
import os.path
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpuaria.errors import UnsafePath
from gpuaria.paths import MAX_NAME_BYTES, MAX_PATH_BYTES, SafePath, check_together
from gpuaria.text import harmless, printable

REFUSED = {
    "": "empty",
    "/": "absolute",
    "/etc/passwd": "absolute",
    "//host/share/x": "absolute",
    "..": "'..'",
    "../x": "'..'",
    "a/../../x": "'..'",
    "a/..": "'..'",
    ".": "'.'",
    "./x": "'.'",
    "a/./x": "'.'",
    "a//x": "empty component",
    "a/": "empty component",
    "a\\b": "backslash",
    "..\\x": "backslash",
    "\\\\host\\share\\x": "backslash",
    "\\\\?\\C:\\x": "backslash",
    "C:": "drive",
    "C:x": "drive",
    "c:/x": "drive",
    "a/C:/x": "drive",
    "CON": "device",
    "con.txt": "device",
    "a/NUL": "device",
    "nul.tar.gz": "device",
    "aux /x": "device",
    "PRN .txt": "device",
    "com1": "device",
    "LPT9.bin": "device",
    "COM¹": "device",
    "conin$": "device",
    "CONOUT$.x": "device",
    "a\0b": "control",
    "a\nb": "control",
    "a\n  out=evil": "control",
    "a\rb": "control",
    "a\tb": "control",
    "a\x1b[31mb": "control",
    "a\x7fb": "control",
    "a\x85b": "control",
    "a\u202ebin.exe": "control",
    "a\u200eb": "control",
    "a\u200fb": "control",
    "a\u2066b": "control",
    "a\u200bb": "control",
    "\ufeffa": "control",
    "a\u2028b": "control",
    "a\u2029b": "control",
    "a\u00adb": "control",
    "a\ud800b": "control",
    "a\U000e0041b": "control",
    "x" * 300: "255 bytes",
    "é" * 128: "255 bytes",
    "a/" + "x" * 256: "255 bytes",
    "/".join(["x" * 200] * 6): "1024 bytes",
    ".git": ".git",
    ".GIT/config": ".git",
    ".git/hooks/post-checkout": ".git",
    "sub/.git/config": "runs programs",
    "a/b/.Git./hooks/x": "runs programs",
    "a/GIT~1/config": "runs programs",
    "a/.g\u200dit": "runs programs",
    ".cache/huggingface": ".cache/huggingface",
    ".Cache/HuggingFace/token": ".cache/huggingface",
}

KEPT = [
    "x",
    "model.safetensors",
    "a/b/c",
    "...",
    "..x",
    "x..",
    ".hidden",
    "a/.../b",
    "%2e%2e",
    "%2e%2e/%2e%2e/etc",
    "%00",
    "~",
    "~root/x",
    "-rf",
    "$HOME",
    "`id`",
    "a b",
    " lead",
    "tail ",
    "q'uo\"te",
    "a&b<c>",
    "文件",
    "e\u0301",
    "نام\u200cفایل",
    "क्\u200dष",
    "👍",
    ".gitattributes",
    ".github/x",
    "a/.github/x",
    ".cache/x",
    "console.log",
    "com10",
    "com",
    "nullify",
    "x" * 255,
    "é" * 127,
]


@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=[ascii(text)[:30] for text in REFUSED])
def test_unsafe_names_are_rejected_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        SafePath.parse(text)
    assert reason in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1500


@pytest.mark.parametrize("text", KEPT)
def test_safe_names_are_unchanged(text: str) -> None:
    path = SafePath.parse(text)
    assert path == text
    assert isinstance(path, SafePath)
    assert "/".join(path.parts) == text
    assert path.under(Path("/target")) == Path("/target", *text.split("/"))


def test_a_percent_sign_is_literal(tmp_path: Path) -> None:
    path = SafePath.parse("%2e%2e/x").under(tmp_path)
    path.parent.mkdir()
    path.write_text("inside")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("x")] == ["%2e%2e/x"]


_spiteful = st.text(st.sampled_from([*"./\\:~ abC%2e", "\0", "\n", "\u202e", "é", "\ud800"]), max_size=12)


@given(_spiteful | st.text(st.characters()))
@example("..")
@example("a/../..")
@example("//")
def test_accepted_paths_stay_inside_the_folder(text: str) -> None:
    try:
        path = SafePath.parse(text)
    except UnsafePath:
        return
    joined = str(path.under(Path("/base/target")))
    assert os.path.normpath(joined) == joined == f"/base/target/{text}"
    assert os.path.commonpath([joined, "/base/target"]) == "/base/target"
    assert joined != "/base/target"
    assert not os.path.isabs(path)
    assert all(len(part.encode()) <= MAX_NAME_BYTES for part in path.parts)
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in path)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "C:", "\\", "con"]), max_size=6))
def test_no_mixture_of_parts_escapes(parts: list[str]) -> None:
    text = "/".join(parts)
    if all(part == "a" for part in parts) and parts:
        assert SafePath.parse(text) == text
    else:
        with pytest.raises(UnsafePath):
            SafePath.parse(text)


@given(st.text(st.characters()))
def test_printable_text_is_printable(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)


def _check(*names: str, case_sensitive: bool) -> None:
    check_together((SafePath.parse(name) for name in names), case_sensitive=case_sensitive)


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b", "a/b/c/d"),
        ("x", "a/b/c", "a"),
    ],
)
@pytest.mark.parametrize("case_sensitive", [True, False])
def test_a_file_and_a_folder_of_one_name_conflict(names: tuple[str, ...], case_sensitive: bool) -> None:
    with pytest.raises(UnsafePath, match="both as a file and as a folder"):
        _check(*names, case_sensitive=case_sensitive)


@pytest.mark.parametrize(
    "names",
    [
        ("README", "readme"),
        ("A/x", "a/x"),
        ("é", "e\u0301"),
        ("É", "e\u0301"),
        ("straße", "STRASSE"),
        ("\u00c5", "\u212b"),
    ],
)
def test_names_that_only_some_file_systems_distinguish(names: tuple[str, str]) -> None:
    _check(*names, case_sensitive=True)
    with pytest.raises(UnsafePath, match="the same name"):
        _check(*names, case_sensitive=False)


def test_a_file_and_a_folder_that_differ_only_in_case() -> None:
    _check("A", "a/b", case_sensitive=True)
    with pytest.raises(UnsafePath):
        _check("A", "a/b", case_sensitive=False)


@pytest.mark.parametrize("case_sensitive", [True, False])
def test_compatible_names_do_not_conflict(case_sensitive: bool) -> None:
    _check("a", "ab", "a.b", "b/a", "b/c", "c/b", "d/e/f", "d/e/g", case_sensitive=case_sensitive)
    _check(case_sensitive=case_sensitive)


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map("/".join), unique=True, max_size=6))
def test_compatible_names_can_be_created(names: list[str]) -> None:
    folders = {name.rsplit("/", depth)[0] for name in names for depth in range(1, name.count("/") + 1)}
    if folders & set(names):
        with pytest.raises(UnsafePath):
            _check(*names, case_sensitive=True)
    else:
        _check(*names, case_sensitive=True)


@pytest.mark.parametrize(
    "name", [".cache", ".git", ".git ", ".git./config", ".g\u200dit/config", ".CACHE/HuggingFace/x"]
)
def test_a_name_that_another_system_reads_as_our_folder_is_rejected(name: str) -> None:
    with pytest.raises(UnsafePath, match=r"reserved for the layout|git runs programs"):
        SafePath.parse(name)


@pytest.mark.parametrize("name", [".cache/other", ".gitattributes", ".github/x", "a/git", "cache"])
def test_names_that_only_look_alike_are_accepted(name: str) -> None:
    assert SafePath.parse(name) == name


@pytest.mark.parametrize(
    ("text", "shown", "escaped"),
    [
        ("plain, ünï and 漢字\u00a0", "plain, ünï and 漢字\u00a0", "plain, ünï and 漢字\u00a0"),
        ("a\x1b[2Jb\x9bc\n", "a?[2Jb?c?", r"a\u001b[2Jb\u009bc\n"),
        ("\u202eaway \u2028 \ud800", "?away ? ?", r"\u202eaway \u2028 \ud800"),
        ("\U000e0001", "?", r"\udb40\udc01"),
        ("می\u200cخواهم", "می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_terminal_control_characters_are_replaced(text: str, shown: str, escaped: str) -> None:
    assert harmless(text) == shown
    assert harmless(text, lambda mark: json.dumps(mark)[1:-1]) == escaped
