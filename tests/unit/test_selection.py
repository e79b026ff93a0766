"""gpuaria.selection, compared with huggingface_hub's patterns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.errors import FileNotInRepo, NothingMatched
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, RemoteFile, RepoRef
from gpuaria.selection import pattern, select, selector

PATHS = [
    "README.md",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "onnx/config.json",
    "onnx/decoder/model.onnx",
    "onnx_old/model.onnx",
    "weird[1].txt",
]


def manifest(paths: list[str]) -> Manifest:
    files = tuple(RemoteFile(SafePath(path), 1, None) for path in paths)
    return Manifest(RepoRef("hf", "model", "org/name"), "org/name", "c" * 40, "https://hub", "origin", files)


def chosen(names: list[str], include: list[str], exclude: list[str], paths: list[str] | None = None) -> list[str]:
    whole = manifest(PATHS if paths is None else paths)
    picked = select(whole, selector(names, include, exclude), names, [*include, *exclude])
    return [str(file.path) for file in picked.files]


@pytest.mark.parametrize(
    ("names", "include", "exclude", "expected"),
    [
        ([], [], [], PATHS),
        (["config.json"], [], [], ["config.json"]),
        (["onnx/config.json"], [], [], ["onnx/config.json"]),
        (["onnx/"], [], [], ["onnx/config.json", "onnx/decoder/model.onnx"]),
        ([], ["onnx/"], [], ["onnx/config.json", "onnx/decoder/model.onnx"]),
        ([], ["*.json"], [], ["config.json", "onnx/config.json"]),
        (["*.json"], [], [], ["config.json", "onnx/config.json"]),
        ([], ["*.json", "README*"], [], ["README.md", "config.json", "onnx/config.json"]),
        (["README.md"], ["*.onnx"], [], ["README.md", "onnx/decoder/model.onnx", "onnx_old/model.onnx"]),
        ([], [], ["*.safetensors", "onnx*"], ["README.md", "config.json", "weird[1].txt"]),
        ([], [], ["onnx/"], [path for path in PATHS if not path.startswith("onnx/")]),
        ([], ["*.json"], ["onnx/"], ["config.json"]),
        ([], ["model-0000[12]-*"], [], PATHS[2:4]),
        ([], ["model-0000[!1]-*"], [], PATHS[3:4]),
        ([], ["config.jso?"], [], ["config.json"]),
        (["weird[1].txt"], [], [], ["weird[1].txt"]),
        (["config.json", "config.json"], [], [], ["config.json"]),
    ],
)
def test_which_files_are_selected(
    names: list[str], include: list[str], exclude: list[str], expected: list[str]
) -> None:
    assert chosen(names, include, exclude) == expected


def test_patterns_are_case_sensitive() -> None:
    with pytest.raises(NothingMatched):
        chosen([], ["CONFIG.JSON"], [])


@pytest.mark.parametrize(
    ("names", "include", "exclude"),
    [
        ([], ["*.gguf"], []),
        ([], ["nothere/"], []),
        (["nothere/"], [], []),
        (["*.gguf"], [], []),
        ([], [], ["*"]),
        ([], ["*.json"], ["*.json"]),
        (["config.json"], [], ["*.json"]),
        ([], [""], []),
    ],
)
def test_an_empty_selection_is_an_error_that_repeats_the_patterns(
    names: list[str], include: list[str], exclude: list[str]
) -> None:
    with pytest.raises(NothingMatched, match="none of the 8 files of org/name matches") as caught:
        chosen(names, include, exclude)
    assert caught.value.exit_code == 5
    for text in (*names, *include, *exclude):
        assert repr(text) in caught.value.message
    assert "gpuaria resolve org/name@main" in caught.value.hint


def test_an_empty_repo_is_an_error_only_with_patterns() -> None:
    assert chosen([], [], [], []) == []
    with pytest.raises(NothingMatched):
        chosen([], ["*"], [], [])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("decoder/model.onnx", "Did you mean onnx/decoder/model.onnx?"),
        ("model.onnx", "Did you mean onnx/decoder/model.onnx?"),
        ("onnx", "Did you mean onnx/?"),
        ("nowhere.bin", "List the files: gpuaria resolve org/name@main"),
        ("onnx/README.md", "Did you mean README.md?"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_a_similar_one(name: str, hint: str) -> None:
    with pytest.raises(FileNotInRepo, match=f"org/name has no file '{name}' at cccccccccccc") as caught:
        chosen(["config.json", name], [], [])
    assert caught.value.exit_code == 5
    assert caught.value.hint == hint


def test_a_folder_selects_everything_below() -> None:
    assert [pattern(text) for text in ("a/", "a", "a/*", "")] == ["a/*", "a", "a/*", ""]


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb"])
def test_repeated_patterns_cannot_control_the_terminal(name: str) -> None:
    for names, include in (([name], []), ([], [name])):
        with pytest.raises((FileNotInRepo, NothingMatched)) as caught:
            chosen(names, include, [])
        assert name not in caught.value.message


WORDS = st.text("ab/.*?[]!-X\n", min_size=1, max_size=6)


@given(
    st.lists(st.text("ab/.X-\n", min_size=1, max_size=6), unique=True, max_size=8),
    st.lists(WORDS, max_size=3),
    st.lists(WORDS, max_size=3),
)
def test_patterns_match_as_in_huggingface_hub(paths: list[str], include: list[str], exclude: list[str]) -> None:
    utils = pytest.importorskip("huggingface_hub.utils")
    ours = [path for path in paths if selector([], include, exclude)(path)]
    assert ours == list(
        utils.filter_repo_objects(paths, allow_patterns=include or None, ignore_patterns=exclude or None)
    )
