"""Fuzz tests of the parsers: input from outside is read or rejected, and only gpuaria's own errors leave a parser.

A few hundred inputs of each kind by default, 100,000 in all with `make faults`, more for fast parsers.
GPUARIA_TEST_SEED changes the random data.
"""

from __future__ import annotations

import email.utils
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from gpuaria.errors import GpuariaError
from gpuaria.formats import aria2_input, metalink
from gpuaria.hashing import lfs_pointer_oid
from gpuaria.http.messages import Response
from gpuaria.http.ratelimit import RateBudget, retry_after
from gpuaria.records import RepoRef
from gpuaria.settings import load
from gpuaria.sources.huggingface import HuggingFace
from tests.support.checkout import ROOT
from tests.support.seed import SEED

HUB, COMMIT, SHA256 = "https://hub.example", "c" * 40, "a" * 64


def many(count: int) -> pytest.MarkDecorator:
    """Return the number of inputs: a few, or `count` with `make faults`."""
    deep = pytest.param(count, marks=[pytest.mark.deep, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize("count", [200, deep])


TOKENS = [
    *("", "\0", "\n", "\r\n", "\t", " ", "  dir=/tmp", "../", "\u202e", "\ud800", "\ufeff", "²", "٣", "-1", "1e999"),
    *("9" * 400, "9" * 5000, "NaN", "null", "true", "{}", "[]", "[" * 3000, "&x;", "<!DOCTYPE a [<!ENTITY x 'y'>]>"),
    *("]]>", "<![CDATA[", "*a", "&a ", "!!python/object:os.system ", "<<: ", "%YAML 9\n", "- ", ": ", "? ", "#", "'"),
    *('"', "${HOME}", "~nobody/", "http://[::1", "http://u:p@h/", "file:///etc/passwd", "sha-256", "0x10", "1_000"),
]


def mutated(*texts: str) -> st.SearchStrategy[str]:
    """Draw valid texts with up to six cuts, each with other data in its place."""
    place = st.integers(0, max(map(len, texts)))
    length = st.integers(0, 3) | st.integers(0, 40)
    cut = st.tuples(place, length, st.sampled_from(TOKENS) | st.text(max_size=8))

    def apply(text: str, cuts: list[tuple[int, int, str]]) -> str:
        for at, length, instead in cuts:
            at %= len(text) + 1
            text = text[:at] + instead + text[at + length :]
        return text

    return st.builds(apply, st.sampled_from(texts), st.lists(cut, max_size=6))


def hunt(strategy: st.SearchStrategy[Any], count: int, read: Callable[[Any], object]) -> None:
    """Call `read` with `count` inputs."""
    had = 0

    @seed(SEED)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def one(value: Any) -> None:
        nonlocal had
        had += 1
        try:
            read(value)
        except GpuariaError as caught:
            refused = caught
        else:
            return
        assert refused.exit_code != 1
        assert refused.message
        assert "\n" not in refused.message

    one()
    assert had >= count


# --- listing ------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(TOKENS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PLAIN = {"type": "file", "oid": "b" * 40, "size": 3, "path": "a.txt"}
LARGE = {
    "type": "file",
    "oid": lfs_pointer_oid(SHA256, 9),
    "size": 9,
    "path": "m.bin",
    "lfs": {"oid": SHA256, "size": 9},
}
FIELDS = st.sampled_from(["type", "oid", "size", "path", "lfs", "other"])
ENTRY = st.builds(
    lambda entry, changes: {**entry, **changes},
    st.sampled_from([PLAIN, LARGE]),
    st.dictionaries(FIELDS, JSON | st.sampled_from([1 << 60, -1, 3.0, {"oid": SHA256}]), max_size=2),
)
PAGE = st.lists(ENTRY | JSON, max_size=3).map(lambda page: _text(page)) | mutated(json.dumps([PLAIN, LARGE]))
INFO = st.dictionaries(
    st.sampled_from(["sha", "id", "private", "gated", "siblings", "disabled"]), JSON | st.just(COMMIT), max_size=4
).map(lambda info: _text(info)) | mutated(json.dumps({"sha": COMMIT, "id": "a/b", "siblings": [{"rfilename": "x"}]}))
LINK = mutated(f'<{HUB}/api/models/a/b/tree/{COMMIT}?cursor=x>; rel="next"', '<http://[x>; rel="next"', "<>; rel=next")


def _text(value: object) -> str:
    try:
        return json.dumps(value)
    except ValueError:
        return str(value)


class Hub:
    """A hub with prepared responses."""

    def __init__(self, answers: list[Response]) -> None:
        self.answers = answers

    def get(self, url: str, **_: object) -> Response:
        return self.answers.pop(0) if self.answers else Response(200, url, {}, b"[]")

    def has_credential(self, url: str) -> bool:
        return False


def listed(value: tuple[str, list[tuple[int, str, str]]]) -> None:
    about, pages = value
    source, ref = HuggingFace(), RepoRef("hf", "model", "a/b")
    answers = [Response(200, f"{HUB}/x", {}, about.encode("utf-8", "replace"))]
    answers += [
        Response(code, f"{HUB}/x", {"link": link}, text.encode("utf-8", "replace")) for code, text, link in pages
    ]
    hub: Any = Hub(answers)
    try:
        info = source.commit(ref, HUB, hub)
    except GpuariaError:
        info = source.commit(ref, HUB, Hub([Response(200, HUB, {}, json.dumps({"sha": COMMIT}).encode())]))  # type: ignore[arg-type]
        hub.answers = hub.answers[-len(pages) :] if pages else []
    manifest = source.listing(ref, info, HUB, hub, lambda path: True)
    assert all(file.size >= 0 and ".." not in file.path.parts for file in manifest.files)


@many(10_000)
def test_random_listings(count: int) -> None:
    status = st.sampled_from([200, 200, 200, 200, 200, 204, 302, 404, 429, 500, 999])
    hunt(st.tuples(INFO, st.lists(st.tuples(status, PAGE, LINK), max_size=3)), count, listed)


# --- Metalink, input file -----------------------------------------------------------------------------------------

METALINK = f"""<?xml version="1.0" encoding="UTF-8"?>
<metalink xmlns="urn:ietf:params:xml:ns:metalink"><generator>x/1</generator>
  <file name="a/b.bin"><size>9</size><hash type="sha-256">{SHA256}</hash>
    <pieces length="4" type="sha-1"><hash>{"b" * 40}</hash><hash>{"c" * 40}</hash><hash>{"d" * 40}</hash></pieces>
    <url location="de" priority="1">https://h.example/b.bin?x=1&amp;y=2</url></file>
</metalink>
"""
INPUT = f"https://h.example/b\thttps://m.example/b\n  dir=a\n  out=b.bin\n  checksum=sha-256={SHA256}\n# x\n\tx=1\n"


@many(15_000)
def test_random_metalinks(count: int) -> None:
    own = metalink.for_download("w", 9, ["https://h.example/w"] * 2)
    hunt(mutated(METALINK, own) | st.text(max_size=60), count, metalink.load)


@many(30_000)
def test_random_input_files(count: int) -> None:
    hunt(mutated(INPUT, "http://h/\n dir=x\n") | st.text(max_size=60), count, aria2_input.load)


# --- settings -----------------------------------------------------------------------------------------------------

EXAMPLE = (ROOT / "configs/example.yaml").read_text()
LINES = re.findall(r"^#([a-z_]+: .*)$", EXAMPLE, re.MULTILINE)


def some(chance: random.Random) -> str:
    return "\n".join(chance.sample(LINES, 3)) + "\n"


CONFIGS = [some(random.Random(number)) for number in range(40)]
CONFIGS += ["mirrors:\n  - {name: a, base: 'https://h.example/{prefix}x', notes: n}\n  - https://m.example\n"]


@many(15_000)
def test_random_settings_files(count: int, tmp_path: Path) -> None:
    place = tmp_path / "config.yaml"
    environ = {"HOME": str(tmp_path)}

    def read(content: str | bytes) -> None:
        place.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        load({}, environ, tmp_path, config_file=place, site=tmp_path / "none")

    hunt(mutated(*CONFIGS) | st.binary(max_size=40), count, read)


# --- when to ask again --------------------------------------------------------------------------------------------

SECONDS = mutated("120", "0", "1.5", email.utils.formatdate(2e9, usegmt=True), "Sunday, 06-Nov-94 08:49:37 GMT")
LIMITS = mutated('"api";r=0;t=55', '"pages"; r=12; t=7', '"a-b";r=1;t=1, "c";r=0;t=2')
POLICY = mutated('"fixed window";"api";q=500;w=300', '"pages";q=100;w=300')
HEADERS = st.fixed_dictionaries({}, optional={"retry-after": SECONDS, "ratelimit": LIMITS, "ratelimit-policy": POLICY})


@many(30_000)
def test_random_retry_delays(count: int) -> None:
    def read(headers: dict[str, str]) -> None:
        asked = retry_after(headers, 1.8e9)
        assert asked is None or asked >= 0
        budget = RateBudget(clock=lambda: 1e6)
        for _ in range(2):
            budget.update(f"{HUB}/api/x", headers)
            assert budget.reserve(f"{HUB}/api/x") >= 0

    hunt(HEADERS, count, read)
