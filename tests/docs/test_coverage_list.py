"""The modules that `make coverage` holds to 100 % (pyproject.toml): every pure room, and the pure modules of others."""

import tomllib
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.unit.test_layers import FILES, PURE, WORLD, imports, place

REPORT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]["report"]
LISTED = {path for pattern in REPORT["include"] for path in ROOT.glob(pattern)}


def test_every_pattern_names_a_module() -> None:
    assert [pattern for pattern in REPORT["include"] if not list(ROOT.glob(pattern))] == []


def test_the_list_has_each_pure_room() -> None:
    assert {path for path in FILES if place(path) in PURE} <= LISTED


def test_every_listed_module_must_be_covered_in_full() -> None:
    assert REPORT["fail_under"] == 100


@pytest.mark.parametrize("path", sorted(LISTED), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_listed_module_does_not_touch_the_world(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & WORLD
