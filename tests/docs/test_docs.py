"""Check the documentation: links, commands, quoted output, and the pages generated from code.

`python -m tests.docs.test_docs` writes docs/settings.md again.
"""

import ast
import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuaria import errors
from gpuaria.cli.output.lines import pickles, summary
from gpuaria.records import MirrorUse, PickleFile, Report
from gpuaria.settings import Key, describe
from tests.support.checkout import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def settings_page() -> str:
    """Return docs/settings.md, from the table in gpuaria/settings/table.py."""
    rows = ["| key | default | meaning | environment |", "|---|---|---|---|", *map(_row, describe())]
    return f"""# Settings

Later sources override earlier ones: built-in, `/etc/gpuaria/config.yaml` (site), `~/.config/gpuaria/config.yaml`
(user), `./gpuaria.yaml` (project), environment, flags. `gpuaria config` prints each value with its source and line.
An unknown key is an error. Examples are in [configs/](../configs/). A project's file cannot set where a token is
sent or which programs run.

{chr(10).join(rows)}

## Settings per source

`endpoint`, `token`, `token_file` and `mirrors` above belong to `hf`. Every other [source](sources.md) has its own:

```yaml
sources:
  demo:
    endpoint: https://demo.example
    token_file: ~/.config/demo/token
    mirrors: [https://mirror.example]
```

`GPUARIA_SOURCES_DEMO_ENDPOINT`, `_TOKEN`, `_TOKEN_FILE` and `_MIRRORS` do the same, and so do the variables that a
source declares. A flag (`--token`, `--mirror`) applies to the source of the run. `sources.hf` is another name for the
keys above.
"""


def _row(key: Key) -> str:
    default = f"`{key.default}`" if key.default else ""
    variables = " ".join(f"`{name}`" for name in (*key.variables, *key.disabling))
    unit = f" ({key.unit})" if key.unit else ""
    return f"| `{key.name}` | {default} | {key.help.rstrip('.')}{unit} | {variables} |"


def test_the_settings_page_matches_the_table() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_page(), "run python -m tests.docs.test_docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            file = (page.parent / target) if target else page
            assert file.exists(), target
            assert not anchor or anchor in _anchors(file), f"{target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors that a Markdown renderer makes from the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_in_the_docs_is_valid(page: Path) -> None:
    """Parse each command line with the program's own parser, which finds unknown commands and flags."""
    from gpuaria.cli.arguments import split_patterns
    from gpuaria.cli.dispatch import parser

    group = parser()
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    for line in re.findall(r"^(?:\$ |P=\$\()?(gpuaria [a-z].*)$", blocks, re.MULTILINE):
        words = shlex.split(re.split(r"\s#|\s>|;|\||&&", line)[0].strip(" )"))
        known = group.commands
        assert words[1] in known, line
        split_patterns(words[1:])
        flags = {flag for parameter in known[words[1]].params for flag in parameter.opts}
        used = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
        assert used <= flags | {"--help"}, line


def test_the_guide_and_the_picture_show_the_summary_that_the_program_prints() -> None:
    """Format the figures of the recorded run again; `python scripts/terminal_picture.py` records another one."""
    guide = (DOCS / "guide.md").read_text(encoding="utf-8")
    picture = html.unescape((DOCS / "fetch.svg").read_text(encoding="utf-8")).replace("\xa0", " ")
    recorded = Report(
        *("gpt2-medium@main", "", "", 12, 293_100_000, 0, 10.9, 9, "http://127.0.0.1:46207", "origin", {"ok": 12}),
        mirrors=(
            MirrorUse("127.0.0.2:42855", 112_000_000, 2),
            MirrorUse("127.0.0.1:46207", 92_300_000, 5),
            MirrorUse("127.0.0.3:38955", 88_800_000, 6),
        ),
    )
    for line in summary(recorded):
        assert f"> {line}\n" in guide
        assert f">{line}<" in picture
    (warning,) = pickles(
        2, [PickleFile("evil.pkl", ("posix.system",), True), PickleFile("pytorch_model.bin", (), True)]
    )
    assert f"{warning}\n" in guide


def test_the_troubleshooting_page_quotes_messages_of_the_program() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        text for cell in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for text in re.findall("`([^`]+)`", cell)
    ]
    assert len(quoted) > 40
    known = list(_texts())
    for message in quoted:
        parts = [part.strip(" :;,") for part in re.split(r"\.\.\.|\(|\)", message)]
        pattern = re.compile(".*".join(re.escape(part) for part in parts if part), re.DOTALL)
        assert any(pattern.search(text) for text in known), f"no message of the program is {message!r}"


def _texts() -> Iterator[str]:
    """Yield the string literals of the program, with NUL for each value in an f-string."""
    for path in (ROOT / "gpuaria").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_exit_status_page_has_every_status() -> None:
    text = (DOCS / "exit-status.md").read_text(encoding="utf-8")
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert documented == raised | {0}


def test_the_readme_shows_two_existing_commands() -> None:
    readme, makefile = (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", readme):
        if target not in ("a",):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make demo" in readme
    assert "make test" in readme


def test_decisions_have_context_choice_cost_and_what_was_tried() -> None:
    for page in (DOCS / "decisions").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert all(f"**{word}.**" in text for word in ("Context", "Choice", "Cost", "Tried")), page.name


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
