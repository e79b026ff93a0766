"""The man pages in man/, which scripts/man.py writes from the help texts."""

import shutil
import subprocess
from importlib import metadata

import pytest
from packaging.version import Version

import man
from gpuaria.cli.app import COMMANDS
from gpuaria.cli.dispatch import parser
from tests.support.checkout import ROOT

PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "man").iterdir()}


@pytest.mark.skipif(
    Version(metadata.version("typer")) < Version("0.27"), reason="an older typer formats help texts in another way"
)
def test_the_man_pages_match_the_help_texts() -> None:
    assert man.pages() == PAGES, "run make man"


def test_each_command_has_a_page_with_all_of_its_options() -> None:
    for name in COMMANDS:
        options = [param for param in parser().commands[name].params if param.param_type_name == "option"]
        text = PAGES[f"gpuaria-{name}.1"].replace("\\-", "-")
        assert [flag for param in options for flag in param.opts if flag not in text] == []


def test_text_is_escaped_for_roff() -> None:
    assert man.escaped("a-b\\c\n.d\n'e") == "a\\-b\\ec\n\\&.d\n\\&'e"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
@pytest.mark.parametrize("name", PAGES)
def test_groff_formats_each_page_without_a_warning(name: str) -> None:
    command = ["groff", "-man", "-ww", "-Tascii", str(ROOT / "man" / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("GPUARIA")
