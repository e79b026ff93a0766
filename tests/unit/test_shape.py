"""Limits on the code: parameters per function, lines per module, and no stored lambda in transfer/."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpuaria

ROOT = Path(gpuaria.__file__).parent
MOST = 6  # without self and cls
LONGEST = 350  # lines of a module in transfer/
FILES = sorted(ROOT.rglob("*.py"))
TRANSFER = [path for path in FILES if path.relative_to(ROOT).parts[0] == "transfer"]
# Functions that may have more parameters, as (module, function).
KNOWN = {("api.py", "fetch")}  # keyword-only parameters of a public function


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_no_function_has_too_many_parameters() -> None:
    outside = [path for path in FILES if path.relative_to(ROOT).parts[0] != "cli"]
    found = {(name_of(path), one.name) for path in outside for one in functions(path) if parameters(one) > MOST}
    assert found - KNOWN == set()


def kept(tree: ast.AST) -> list[int]:
    """Return the lines that store a lambda or a partial, or pass it to code that may store it.

    A lambda as an argument of one of these calls ends with its statement and is allowed.
    """
    passing = {"sorted", "min", "max", "wait_for", "sort", "next", "filter", "map", "check_file"}
    allowed: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in passing:
                given = [*node.args, *(word.value for word in node.keywords)]
                allowed |= {id(each) for each in given if isinstance(each, ast.Lambda)}
    lambdas = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Lambda) and id(node) not in allowed]
    partials = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "partial")
        or (isinstance(node, ast.Attribute) and node.attr == "partial")
    ]
    return [*lambdas, *partials]


@pytest.mark.parametrize("path", TRANSFER, ids=lambda path: path.name)
def test_no_lambda_or_partial_is_stored_in_transfer(path: Path) -> None:
    assert kept(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", TRANSFER, ids=lambda path: path.name)
def test_modules_of_transfer_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_check_finds_stored_lambdas_only() -> None:
    assert kept(ast.parse("a = sorted(b, key=lambda c: c)\nmin(b, key=lambda c: c)")) == []
    assert kept(ast.parse("a = lambda: 1\nf(lambda: 2)\nfrom functools import partial\npartial(f)")) == [1, 2, 4]
