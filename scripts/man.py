"""Write man/: one page for gpuaria and one for each command, from the help texts and docs/exit-status.md.

python scripts/man.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpuaria import __version__
from gpuaria.cli.app import COMMANDS
from gpuaria.cli.dispatch import parser

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "man"
FILES = """.SH FILES
.TP
.I /etc/gpuaria/config.yaml
settings of the site
.TP
.I ~/.config/gpuaria/config.yaml
settings of the user
.TP
.I ./gpuaria.yaml
settings of the project
.PP
A later file overrides an earlier one; environment variables and options override all files.
.B gpuaria config
prints each setting, its value and where it comes from.
"""


def pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    group = parser()
    return {
        "gpuaria.1": main_page(group),
        **{f"gpuaria-{name}.1": command_page(name, group.commands[name]) for name in COMMANDS},
    }


def main_page(group: Any) -> str:
    """Return the page of `gpuaria` itself: its commands, exit statuses and settings files."""
    commands = "".join(
        f".TP\n.BR gpuaria\\-{name} (1)\n{escaped(first_line(group.commands[name].help))}\n" for name in COMMANDS
    )
    return (
        _head("gpuaria", group.help)
        + ".SH SYNOPSIS\n.B gpuaria\n.I COMMAND\n.RI [ ARGUMENTS ...]\n"
        + f".SH DESCRIPTION\n{_paragraphs(group.help)}"
        + f".SH COMMANDS\n{commands}"
        + f".SH OPTIONS\n{_options(group)}"
        + f".SH EXIT STATUS\n{exit_statuses()}"
        + FILES
    )


def command_page(name: str, command: Any) -> str:
    """Return the page of one command."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    synopsis = "".join(f'.RI [ "{escaped(param.metavar or param.name.upper())}" ...]\n' for param in arguments)
    described = "".join(
        f".TP\n.I {escaped(param.metavar or param.name.upper())}\n{escaped(param.help)}\n"
        for param in arguments
        if param.help
    )
    return (
        _head(f"gpuaria-{name}", command.help)
        + f".SH SYNOPSIS\n.B gpuaria {name}\n.RI [ OPTIONS ]\n{synopsis}"
        + f".SH DESCRIPTION\n{_paragraphs(command.help)}"
        + (f".SH ARGUMENTS\n{described}" if described else "")
        + f".SH OPTIONS\n{_options(command)}"
        + ".SH EXIT STATUS\nSee\n.BR gpuaria (1).\n.SH SEE ALSO\n.BR gpuaria (1)\n"
    )


def exit_statuses() -> str:
    """Return the table of docs/exit-status.md as a list."""
    text = (ROOT / "docs" / "exit-status.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    return "".join(f".TP\n.B {status}\n{escaped(meaning.replace('`', ''))}\n" for status, meaning in rows)


def escaped(text: str) -> str:
    """Return `text` for roff: backslashes and hyphens as typed, no line that starts with a control character."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def first_line(text: str) -> str:
    """Return the first line of a help text."""
    return text.strip().partition("\n")[0]


def _head(title: str, text: str) -> str:
    """Return the title line and the NAME section. The title has no date, so that equal sources give equal pages."""
    name, line = escaped(title), escaped(first_line(text).rstrip("."))
    return f'.TH "{name.upper()}" "1" "" "gpuaria {__version__}" "gpuaria"\n.SH NAME\n{name} \\- {line}\n'


def _paragraphs(text: str) -> str:
    return ".PP\n".join(escaped(" ".join(part.split())) + "\n" for part in text.strip().split("\n\n"))


def _options(command: Any) -> str:
    return "".join(_option(param) for param in command.params if param.param_type_name == "option") + (
        '.TP\n.BR \\-h ", " \\-\\-help\nShow the help text and exit.\n'
    )


def _option(param: Any) -> str:
    names = ' ", " '.join(escaped(name) for name in param.opts)
    value = "" if param.is_flag else f' " " \\fI{escaped(param.metavar or "VALUE")}\\fR'
    return f".TP\n.BR {names}{value}\n{escaped(param.help or '')}\n"


def _stale() -> Iterator[Path]:
    """Yield the files in man/ that no command has."""
    yield from (path for path in FOLDER.glob("*") if path.name not in pages())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path in _stale():
        path.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
