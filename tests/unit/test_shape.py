"""The shape of the code: arguments that fit one hand, and nothing that outlives its statement."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpuaria

ROOT = Path(gpuaria.__file__).parent
MOST = 6  # parameters, self and cls not counted
LONGEST = 350  # lines of a module in transfer/
FILES = sorted(ROOT.rglob("*.py"))
TRANSFER = [path for path in FILES if path.relative_to(ROOT).parts[0] == "transfer"]
# Functions with more parameters, as (module, function).
KNOWN = {("api.py", "fetch")}  # keyword-only words of the public function, which its users write out


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


def test_no_function_has_more_parameters_than_fit_one_hand() -> None:
    outside = [path for path in FILES if path.relative_to(ROOT).parts[0] != "cli"]
    found = {(name_of(path), one.name) for path in outside for one in functions(path) if parameters(one) > MOST}
    assert found - KNOWN == set()


def kept(tree: ast.AST) -> list[int]:
    """Lines at which a lambda or a partial is stored, or handed to something that may store it.

    A lambda that is an argument of a call in the same statement ends with it if that call is one of these.
    """
    passing = {"sorted", "min", "max", "wait_for", "sort", "next", "filter", "map", "judge"}
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
def test_no_lambda_and_no_partial_outlives_its_statement_in_transfer(path: Path) -> None:
    assert kept(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", TRANSFER, ids=lambda path: path.name)
def test_the_modules_of_transfer_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_finder_sees_what_is_kept_and_what_is_not() -> None:
    assert kept(ast.parse("a = sorted(b, key=lambda c: c)\nmin(b, key=lambda c: c)")) == []
    assert kept(ast.parse("a = lambda: 1\nf(lambda: 2)\nfrom functools import partial\npartial(f)")) == [1, 2, 4]
