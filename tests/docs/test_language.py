"""The language of the code and the documents: the words that docs/glossary.md rejects, and how a docstring opens.

`python -m tests.docs.test_language` lists every violation.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

GLOSSARY = ROOT / "docs/glossary.md"
CODE = ("gpuaria", "scripts", "benchmarks", "tests")
SPEAKS = ("gpuaria", "scripts", "benchmarks")  # the rooms whose string literals are messages to a user
OPENERS = re.compile(
    r"it|they|those|these|who|whoever|what|where|whether|nothing|nobody|how|which|when|that|whose", re.IGNORECASE
)
# Constructions that a list of words cannot express.
PATTERNS = {
    'write "is not a", not "is no"': re.compile(r"(?<!there )\b(?:is|are|was|were|be) no (?!longer\b|more\b)\w+", re.I),
    'name the actor instead of "one that"': re.compile(r"(?:^|(?<=[.:;] ))(?:One|Ones|one|ones) (?:that|which|who)\b"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """One violation; `text` is what has to be rewritten and `advice` how."""

    path: str
    line: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: {self.advice}"


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive prose of a file, from `line` on. `docstring`: its first word is checked too."""

    line: int
    text: str
    docstring: bool = False


def rejected_words(glossary: str) -> dict[str, re.Pattern[str]]:
    """Return the advice and the pattern of each row of the table "Words not used".

    A phrase matches in any case and across line ends, unless it begins with a capital letter.
    """
    section = glossary.split("## Words not used", 1)[1].split("\n## ", 1)[0]
    rows = {}
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|$", section, re.MULTILINE):
        phrases = re.findall(r"`([^`]+)`", row[0])
        either = "|".join(_phrase(phrase) for phrase in phrases)
        rows[f"{row[1]} (not: {', '.join(phrases)})"] = re.compile(rf"(?<![\w-])(?:{either})(?![\w-])")
    return rows


def _phrase(text: str) -> str:
    words = r"\s+".join(re.escape(word) for word in text.split())
    return words if text[0].isupper() else f"(?i:{words})"


def prose(text: str) -> str:
    """Blank out code, URLs and link targets, line ends kept."""
    for code in (r"^ *```.*?^ *```", r"``.+?``", r"`[^`]+`", r"\]\([^)]*\)", r"\b\w+://[^\s)>\"']+", r"<!--.*?-->"):
        text = re.sub(code, _blank, text, flags=re.MULTILINE | re.DOTALL)
    return text


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "\N{LOWER ONE EIGHTH BLOCK}", match.group())


def passages(source: str, *, messages: bool) -> Iterator[Passage]:
    """Yield docstrings, comments and test names of Python source, and its string literals if they are `messages`."""
    tree = ast.parse(source)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
                if isinstance(first.value.value, str):
                    yield Passage(first.lineno, first.value.value, docstring=True)
            if not isinstance(node, ast.Module | ast.ClassDef) and node.name.startswith("test_"):
                yield Passage(node.lineno, node.name.replace("_", " "))
    yield from _comments(source)
    if messages:
        yield from _strings(tree, docstrings)


def _strings(tree: ast.Module, docstrings: set[int]) -> Iterator[Passage]:
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            text = node.value
        else:
            continue
        if " " in text.strip():
            yield Passage(node.lineno, text)


def _comments(source: str) -> Iterator[Passage]:
    """Yield comments; those of consecutive lines are one passage."""
    start, lines = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if lines and token.start[0] != start + len(lines):
            yield Passage(start, "\n".join(lines))
            lines = []
        if not lines:
            start = token.start[0]
        lines.append(token.string.lstrip("#! "))
    if lines:
        yield Passage(start, "\n".join(lines))


def violations(path: str, passage: Passage, words: Mapping[str, re.Pattern[str]]) -> Iterator[Found]:
    """Yield what is wrong with a passage."""
    text = prose(passage.text)
    first = re.match(r"\W*([A-Za-z]+)", text)
    if passage.docstring and first and OPENERS.fullmatch(first[1]):
        yield Found(path, passage.line, first[1], "a docstring opens with what the thing returns, does or is")
    for advice, pattern in (*words.items(), *PATTERNS.items()):
        for match in pattern.finditer(text):
            yield Found(path, passage.line + text.count("\n", 0, match.start()), match.group(), advice)


def documents() -> list[Path]:
    """Return every page that is written for a reader, and the files with comments that are not Python."""
    patterns = ["*.md", "docs/**/*.md", "man/*.1", "configs/*.yaml", "benchmarks/*.yaml", "gpuaria/data/*.yaml"]
    patterns += ["Makefile", "pyproject.toml", "Containerfile", "scripts/*.sh", "scripts/**/*.c"]
    return sorted({page for pattern in patterns for page in ROOT.glob(pattern)})


def everything() -> list[Found]:
    """Return all violations of the project."""
    words = rejected_words(GLOSSARY.read_text(encoding="utf-8"))
    found: list[Found] = []
    for page in documents():
        name = str(page.relative_to(ROOT))
        found += violations(name, Passage(1, page.read_text(encoding="utf-8")), words)
    for room in CODE:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for passage in passages(path.read_text(encoding="utf-8"), messages=room in SPEAKS):
                found += violations(name, passage, words)
    return found


def test_every_sentence_keeps_to_the_glossary() -> None:
    found = everything()
    assert not found, "\n".join(map(str, found))


WORDS = rejected_words(GLOSSARY.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "Nobody asked for it.",
        "The mirror is asked\n  in vain.",
        "Vouched for by the hub.",
        "This is no hub.",
        "A mirror, which is no file server.",
        "Sends the request: one that fails is sent again.",
        "The file beside it.",
    ],
)
def test_a_rejected_word_is_found(text: str) -> None:
    assert list(violations("x", Passage(1, text), WORDS))


@pytest.mark.parametrize(
    "text",
    [
        "There is no mirror.",
        "The file is no longer there.",
        "`vouched_by` is a key, `nobody` a user and vouched_by too.",
        "See [the page](docs/nobody.md) and https://nobody.example/nobody.",
        "```\nnobody\n```\nText.",
        "The only one that answers.",
        "besides, in vainglory",
    ],
)
def test_good_text_passes(text: str) -> None:
    assert not list(violations("x", Passage(1, text), WORDS))


@pytest.mark.parametrize("text", ["It returns.", "  Whether it is.", "Who sent it", "*What* came of it.", "How."])
def test_a_docstring_that_opens_with_a_pronoun_is_found(text: str) -> None:
    assert list(violations("x", Passage(1, text, docstring=True), {}))
    assert not list(violations("x", Passage(1, text), {}))


@pytest.mark.parametrize("text", ["Return it.", "`It` is a class.", "The file that is it.", "Items.", "Whole numbers."])
def test_a_docstring_that_opens_with_a_noun_or_verb_passes(text: str) -> None:
    assert not list(violations("x", Passage(1, text, docstring=True), {}))


def test_every_kind_of_text_is_read() -> None:
    source = "\n".join(
        [
            '"""Module."""',
            "# first",
            "# second",
            "x = 1  # third",
            "class C:",
            '    """Class."""',
            "    def test_of_words(self):",
            '        """Function."""',
            '        return f"with {x} value", "two words", "word"',
        ]
    )
    said = {(p.line, p.text, p.docstring) for p in passages(source, messages=True)}
    assert said == {
        (1, "Module.", True),
        (2, "first\nsecond\nthird", False),
        (6, "Class.", True),
        (7, "test of words", False),
        (8, "Function.", True),
        (9, "with {} value", False),
        (9, "two words", False),
    }
    assert (9, "two words", False) not in {(p.line, p.text, p.docstring) for p in passages(source, messages=False)}


def test_the_table_of_words_is_read() -> None:
    assert len(WORDS) > 20


def definitions() -> Counter[str]:
    """Count the public classes and type aliases of gpuaria's modules by name."""
    found: Counter[str] = Counter()
    for path in (ROOT / "gpuaria").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] += 1
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] += 1
    return Counter({name: count for name, count in found.items() if re.match(r"[A-Z][A-Za-z0-9]*[a-z]", name)})


def test_no_two_classes_share_a_name() -> None:
    assert [name for name, count in definitions().items() if count > 1] == []


def test_the_glossary_names_classes_that_exist() -> None:
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| [^|]+ \| [^|]+ \|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 30
    assert set(rows) <= set(definitions())


if __name__ == "__main__":
    print(*everything(), sep="\n")
