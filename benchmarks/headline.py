"""Write the top of docs/benchmarks.md and its picture from the figures below them: python -m benchmarks.headline."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PICTURE = PAGE.with_suffix(".svg")
BODY = "## Results"  # the first line below the top
PANELS = {  # scenario: contestants, from the first column of its table
    1: ("gpuaria", "aria2c -x16", "hf download"),
    2: ("gpuaria", "aria2c -x16", "hf download"),
    5: ("gpuaria", "aria2c -j16", "hf download"),
    7: ("gpuaria", "aria2c -x16, then sha256sum", "aria2c -x16"),
}
VERIFIES = ("gpuaria", "aria2c -x16, then sha256sum")
WIDTH, LEFT, BAR, ROW, GAP = 820, 220, 320, 24, 46  # pixels


@dataclass(frozen=True)
class Bar:
    """The median time of one contestant; `computed` is the share of the work, in percent, that it is computed from."""

    name: str
    seconds: float
    computed: str = ""


def top(body: str) -> str:
    """Return the title, the version, three numbers and the picture; the title alone if a figure is missing."""
    got = results(body)
    needed = ("1b", "5a", "5b", "10a", "2a", "7a")
    version = re.search(r"gpuaria (\d\S*), hf (\S+), aria2c (\S+),", " ".join(body.split()))
    dates = re.findall(r"^(\d{4}-\d\d-\d\d) \d\d:\d\d\.$", body, re.MULTILINE)
    if version is None or not dates or not all(got.get(key, "")[:1].isdigit() for key in needed):
        return "# Benchmarks\n\n"
    gpuaria, hf, aria2 = version.groups()
    plain, rivals = re.match(r"(.*?)(?: \((.*)\))?$", got["10a"]).groups()  # type: ignore[union-attr]
    missed = len(re.findall(r"^\| \d+[a-h] \|.*\| no \|", body, re.MULTILINE))
    goals = missed + len(re.findall(r"^\| \d+[a-h] \|.*\| yes \|", body, re.MULTILINE))
    return f"""# Benchmarks

gpuaria {gpuaria}, hf {hf} and aria2c {aria2}, measured on {max(dates)} on [one machine](#the-machine):

- **{got["1b"]} times as fast as `hf download`** for one large file where each connection gets 2 MB/s.
- **{got["5a"]} times as fast as `hf download`, {_number(got["5b"])} times as fast as `aria2c -j16`** for 2,000 small
  files at 160 ms.
- **{plain} of the file is downloaded again** after `kill -9` at 50 % ({rivals}).

![Seconds per download for gpuaria, aria2c and hf](benchmarks.svg)

gpuaria verifies every byte within these times. It is not always the fastest: one file over one far link takes as long
as with aria2c alone (2a: {_number(got["2a"])} times its speed), and without a limit on the network, unverified
aria2c is faster (7a: gpuaria takes {_number(got["7a"])} times as long). {missed} of {goals} goals are
[not met](#goals-that-are-not-met).

"""


def results(body: str) -> dict[str, str]:
    """Return the column "got" of the results table by goal."""
    rows = re.findall(r"^\| (\d+[a-h]) \| [^|]* \| [^|]* \| [^|]* \| ([^|]*) \|", body, re.MULTILINE)
    return {key: got.strip() for key, got in rows}


def bars(body: str, scenario: int) -> list[Bar]:
    """Return the times of a scenario's contestants, as far as the page has them."""
    section = re.search(rf"^## {scenario}\. .*?(?=^## |\Z)", body, re.MULTILINE | re.DOTALL)
    text = section.group() if section else ""
    found = []
    for name in PANELS[scenario]:
        row = re.search(rf"^\| {re.escape(name)} \|  \| ([\d.]+) s \|", text, re.MULTILINE)
        computed = re.search(rf"{name.split()[0]} did (\d+)% of the work .*?; ([\d.]+) s for all", text)
        if row:
            found.append(Bar(name, float(row[1])))
        elif computed:
            found.append(Bar(name, float(computed[2]), computed[1]))
    return found


def picture(body: str) -> str:
    """Return the SVG: a panel for each scenario in PANELS, each with a scale of its own."""
    parts, y = [], 20
    for scenario in PANELS:
        shown = bars(body, scenario)
        title = re.search(rf"^## ({scenario}\. .*)$", body, re.MULTILINE)
        if not shown or title is None:
            continue
        parts.append(_text(16, y + 12, title[1], "t"))
        for row, bar in enumerate(shown):
            parts += _bar(bar, y + GAP // 2 + row * ROW, max(each.seconds for each in shown))
        y += GAP + len(shown) * ROW
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}">
<title>Seconds per download, shorter is better</title>
<style>text {{ font: 13px sans-serif; fill: #24292f }} .t {{ font-weight: bold }} .n {{ fill: #57606a }}</style>
<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>
{chr(10).join(parts)}
</svg>
"""


def _bar(bar: Bar, y: int, most: float) -> Sequence[str]:
    width = max(2, round(BAR * bar.seconds / most))
    fill = "#1f6feb" if bar.name == "gpuaria" else "#b6bec8"
    note = f"computed from {bar.computed} % of the work" if bar.computed else ""
    note = "verified" if bar.name in VERIFIES else note
    stroke = ' stroke="#57606a" stroke-dasharray="4 3"' if bar.computed else ""
    return (
        _text(16, y + 14, bar.name, ""),
        f'<rect x="{LEFT}" y="{y + 2}" width="{width}" height="16" fill="{fill}"{stroke}/>',
        _text(LEFT + width + 8, y + 14, f"{bar.seconds:.4g} s{f' ({note})' if note else ''}", "n"),
    )


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{html.escape(text)}</text>'


def _number(got: str) -> str:
    """Return the figure that a cell begins with."""
    return got.split()[0]


def rewrite() -> None:
    """Write the top of the page and the picture again from the rest of the page."""
    page = PAGE.read_text(encoding="utf-8")
    body = page[page.index(BODY) :]
    PAGE.write_text(top(body) + body, encoding="utf-8")
    PICTURE.write_text(picture(body), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
