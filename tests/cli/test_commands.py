"""Each command is a module that registers itself, each option is declared once, and --help imports nothing slow."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

import gpuaria.cli
from gpuaria.cli.app import COMMANDS
from gpuaria.cli.dispatch import parser
from tests.support.user import User

CLI = Path(gpuaria.cli.__file__).parent
TWICE = {"--lock": "fetch takes its files from it, verify compares with it"}
HEAVY = (
    "gpuaria.api",
    "gpuaria.records",
    "gpuaria.settings",
    "gpuaria.http.client",
    "logging",
    "json",
    "yaml",
    "rich",
    "pydantic",
)


def test_every_command_is_a_module_of_that_name() -> None:
    group = parser()
    assert list(group.list_commands(None)) == list(COMMANDS)
    for name in COMMANDS:
        assert sys.modules[f"gpuaria.cli.{name}"].__name__ == group.commands[name].callback.__module__


def test_every_option_is_declared_once() -> None:
    """Shared options are in options.py; a second declaration could differ from the first."""
    declared: Counter[str] = Counter()
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option":
                declared.update(str(word.value) for word in node.args if isinstance(word, ast.Constant))
    assert declared["--type"] == 1
    assert {flag for flag, count in declared.items() if count > 1} == set(TWICE)


@pytest.mark.parametrize("words", [["--help"], ["fetch", "--help"], ["mirrors", "--help"]], ids=" ".join)
def test_help_imports_no_library_that_only_runs_need(words: list[str], user: User) -> None:
    script = f"import sys\nfrom gpuaria.cli.dispatch import main\nmain({words!r}, None)\nprint(*sys.modules)"
    loaded = user.command(sys.executable, "-c", script).ok().out.splitlines()[-1].split()
    assert not set(HEAVY) & set(loaded)


def test_a_run_imports_no_other_command(user: User) -> None:
    script = "import sys\nfrom gpuaria.cli.dispatch import main\nmain(['config'], None)\nprint(*sys.modules)"
    loaded = set(user.command(sys.executable, "-c", script).ok().out.splitlines()[-1].split())
    assert {name for name in COMMANDS if f"gpuaria.cli.{name}" in loaded} == {"config"}
