"""Record a real fetch from the servers of the demo and draw docs/fetch.svg, the picture in the README.

python scripts/terminal_picture.py [--megabytes N]
"""

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

from demo import REPO, clean
from standin import Hub, Repo, make_gpt2

PICTURE = Path(__file__).parents[1] / "docs" / "fetch.svg"
COLUMNS, LINES = 110, 30
PER_CONNECTION = 500_000  # bytes/s: slow enough to see the bars
CONTROL = re.compile(r"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)")
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: {char_height}px;
line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Record the run and write the picture; print what it shows."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--megabytes", type=int, default=300, help="size of the model")
    options = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpuaria-picture-") as folder:
        lines = record(Path(folder), options.megabytes)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    text = console.export_text(clear=False)
    PICTURE.write_text(console.export_svg(title="gpuaria", code_format=SVG), encoding="utf-8")
    print(text)


def record(work: Path, megabytes: int) -> list[str]:
    """Fetch the demo's model; return the command, the screen in the middle of the run, and the last lines."""
    repo = Repo.build(f"openai-community/{REPO}", make_gpt2(work / "made", megabytes), folder=work / "store")
    with (
        Hub([repo], name="hub", limit_rate=PER_CONNECTION) as hub,
        Hub([repo], name="east", limit_rate=PER_CONNECTION, host="127.0.0.2") as east,
        Hub([repo], name="west", limit_rate=PER_CONNECTION, host="127.0.0.3") as west,
    ):
        mirrors = ["--mirror", east.url, "--mirror", west.url]
        environment = {**clean(work / "home", hub.url), "TERM": "xterm-256color"}
        output = in_terminal([sys.executable, "-m", "gpuaria", "fetch", REPO, *mirrors], environment)
    seen = frames(output)
    middle = [screen for screen in seen if "connections to" in screen[-1]][len(seen) // 2]
    opening = next(i for i, (one, other) in enumerate(zip(middle, seen[-1], strict=False)) if one != other)
    shown = [f"$ gpuaria fetch {REPO} {' '.join(mirrors)}", *middle, "\x1b[2m...\x1b[0m", *seen[-1][opening:]]
    return [line.replace(str(work / "home"), "~").rstrip() for line in shown]


def in_terminal(argv: list[str], environment: dict[str, str]) -> str:
    """Run a command on a pseudo-terminal; return its output. Raises CalledProcessError if it fails."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(argv, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    received = b""
    try:
        while chunk := os.read(ours, 65536):
            received += chunk
    except OSError:
        pass  # EIO: the last process on the terminal has ended
    os.close(ours)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, argv, received)
    return received.decode()


def frames(output: str) -> list[list[str]]:
    """Return the screen before each time that lines are erased, and the last one; colours stay in the lines."""
    screen, row, found, erasing = [""], 0, [], False
    for part in CONTROL.split(output):
        if part.startswith("\x1b[") and part[-1] in "AK":
            if not erasing:
                found.append(list(screen))
            erasing = True
            if part.endswith("A"):
                row -= int(part[2:-1] or 1)
            else:
                screen[row] = ""
        elif part == "\n":
            row, erasing = row + 1, False
            screen += [""] * (row + 1 - len(screen))
        elif part and part != "\r" and not part.startswith("\x1b[?"):
            screen[row] += part
            erasing = False
    return [*found, [line for line in screen if line]]


if __name__ == "__main__":
    main()
