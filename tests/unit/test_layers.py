"""Imports point down: the rooms of gpuaria, and what the pure rooms must not import."""

import ast
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

import gpuaria

ROOT = Path(gpuaria.__file__).parent
# From the bottom up. Rooms of one line never import each other; rooms that do not exist yet are allowed.
LEVELS = [
    {"errors", "_version", "data"},
    {"text"},
    {"paths", "urls", "os_errors"},
    {"records"},
    {"events", "hashing"},
    {"verification"},
    {"formats", "plan", "selection"},
    {"settings"},
    {"clock"},
    {"threads"},
    {"aria2", "dns", "http"},
    {"sources", "storage", "audit", "content"},
    {"mirrors"},
    {"transfer"},
    {"trust"},
    {"fetching"},
    {"runtime"},
    {"api"},
    {"doctor", "serve", "fleet", "zoo", "stream"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
PURE = {*itertools.chain(*LEVELS[:5]), *LEVELS[6]} - {"_version", "data"}
WORLD = {"os", "socket", "subprocess", "time", "random", "threading"}


def room(module: str) -> str:
    """Return the room of `gpuaria.room.module`; the package itself is `__init__`."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> list[str]:
    """Return every module that a file imports, inside functions and under TYPE_CHECKING too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module == "gpuaria":
                names = [alias.name for alias in node.names]
                found += [f"gpuaria.{name}" if name in LEVEL else "gpuaria" for name in names]
            else:
                found.append(module)
    return found


FILES = sorted(ROOT.rglob("*.py"))


def place(path: Path) -> str:
    """Return the room of a file."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_file_is_in_a_room_with_a_level() -> None:
    assert {place(path) for path in FILES} <= set(LEVEL)
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    here = place(path)
    for module in imports(path):
        if module.split(".")[0] == "gpuaria":
            there = room(module)
            assert there == here or LEVEL[there] < LEVEL[here], f"{path} imports {module}"


def module_name(path: Path) -> str:
    """Return the name under which a file of gpuaria is imported."""
    parts = ("gpuaria", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def import_graph(files: Sequence[Path]) -> dict[str, set[str]]:
    """Return for each module the modules of gpuaria that it imports, anywhere in the file.

    `from package import name` imports the submodule `name` if it exists, else the package.
    """
    names = {module_name(path) for path in files}
    graph: dict[str, set[str]] = {}
    for path in files:
        there = graph[module_name(path)] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                there |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                there |= (below & names) | ({node.module} if below - names else set())
        there &= names
    return graph


def cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the strongly connected components of two or more modules, and modules that import themselves.

    Uses Tarjan's algorithm (1972).
    """
    found: list[list[str]] = []
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == number[name]:
            members = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(members) > 1 or name in graph[name]:
                found.append(sorted(members))

    for name in graph:
        if name not in number:
            visit(name)
    return sorted(found)


def test_no_import_cycle() -> None:
    """Imports inside functions and for types count, and so do indirect ones."""
    assert cycles(import_graph(FILES)) == []


def test_cycles_of_every_shape_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set()}) == [["a", "b", "c"]]
    assert cycles({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}, "e": {"e"}}) == [["a", "b"], ["c", "d"], ["e"]]
    assert cycles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []


@pytest.mark.parametrize("path", [path for path in FILES if place(path) in PURE], ids=lambda path: path.name)
def test_the_pure_rooms_import_no_io(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & WORLD


def test_no_private_name_is_imported_across_rooms() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpuaria."):
                foreign = room(node.module or "") not in (place(path), "_version")
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not (foreign and private), f"{path} imports {private} of {node.module}"


def test_every_kind_of_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(
        "import os.path, gpuaria.http.client as n\n"
        "from gpuaria import plan, fetch\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from gpuaria.cli.app import app\n"
        "def late():\n    from gpuaria.storage.locks import lock\n"
    )
    found = imports(tmp_path / "x.py")
    assert set(found) == {
        *(
            "os.path",
            "gpuaria.http.client",
            "gpuaria.plan",
            "gpuaria",
            "typing",
            "gpuaria.cli.app",
            "gpuaria.storage.locks",
        )
    }
    assert [room(name) for name in ("gpuaria", "gpuaria.http.client", "gpuaria.cli.app")] == ["__init__", "http", "cli"]
