"""aria2c reads our Metalinks and input files correctly."""

import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from gpuaria.aria2 import binary
from gpuaria.formats import aria2_input, metalink
from gpuaria.formats.metalink import Pieces
from gpuaria.paths import SafePath
from gpuaria.records import Manifest
from tests.support.manifests import NAMES, a_file, a_manifest


class _Echo(http.server.BaseHTTPRequestHandler):
    """Serve every path's own decoded text, so that a mixed-up file is detected."""

    def do_GET(self) -> None:
        body = _content(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _content(path: str) -> bytes:
    return b"" if path.endswith("empty") else unquote(path).encode()


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _engines() -> list[str]:
    return list(dict.fromkeys(path for path in (binary.find_binary().path, binary.bundled()) if path))


def _run(engine: str, folder: Path, flag: str, text: str) -> dict[str, bytes]:
    """Return the files that `aria2c -M` or `aria2c -i` downloads into an empty folder, by path."""
    source, target = folder / "source", folder / "target"
    source.write_text(text, encoding="utf-8", newline="")
    target.mkdir()
    command = [engine, "--no-conf", "--quiet", f"--dir={target}", "--disable-ipv6", flag, str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stdout + result.stderr
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def _served(base: str, names: list[str]) -> tuple[Manifest, dict[SafePath, list[tuple[str, str]]], dict[str, bytes]]:
    paths_of = {name: f"/a?x=1&y={quote(name, safe='')}" for name in names}
    contents = {name: _content(path) for name, path in paths_of.items()}
    subject = a_manifest(*(a_file(name, content) for name, content in contents.items()))
    return subject, {SafePath(name): [(base + path, "de")] for name, path in paths_of.items()}, contents


@pytest.fixture(params=_engines() or [""], ids=lambda path: Path(path).parts[-3] if path else "none")
def engine(request: pytest.FixtureRequest) -> str:
    if not request.param:
        pytest.skip("no aria2c")
    return str(request.param)


@pytest.mark.wire
def test_aria2_reads_our_metalink(engine: str, base: str, tmp_path: Path) -> None:
    names = [*NAMES, " lead", "tail ", "${HOME}/x", "empty"]
    subject, where, contents = _served(base, names)
    pieces = {
        SafePath(name): Pieces("sha256", 1 << 20, (hashlib.sha256(content).hexdigest(),))
        for name, content in contents.items()
        if content
    }
    assert _run(engine, tmp_path, "-M", metalink.dump(subject, where, pieces=pieces)) == contents


@pytest.mark.wire
def test_aria2_misreads_the_ampersand_in_a_metalink(engine: str, base: str, tmp_path: Path) -> None:
    """If this fails, aria2 is fixed and `misread_by_aria2` can be removed."""
    subject, where, contents = _served(base, ["a&b"])
    assert _run(engine, tmp_path, "-M", metalink.dump(subject, where)) == {"a&#38;b": contents["a&b"]}
    assert metalink.misread_by_aria2("a&b")
    assert not any(metalink.misread_by_aria2(name) for name in NAMES)


@pytest.mark.wire
def test_aria2_reads_our_input_file(engine: str, base: str, tmp_path: Path) -> None:
    subject, where, contents = _served(base, [*NAMES, "a&b", "empty"])
    assert _run(engine, tmp_path, "-i", aria2_input.dump(subject, where)) == contents


@pytest.mark.wire
def test_aria2_respects_the_directory(engine: str, base: str, tmp_path: Path) -> None:
    subject, where, contents = _served(base, ["a b"])
    elsewhere = tmp_path / "else where"
    assert _run(engine, tmp_path, "-i", aria2_input.dump(subject, where, directory=str(elsewhere))) == {}
    assert (elsewhere / "a b").read_bytes() == contents["a b"]


@pytest.mark.wire
@pytest.mark.parametrize(("name", "becomes"), [(" lead", "lead"), ("tail ", "tail")])
def test_aria2_misreads_the_names_we_reject(engine: str, base: str, tmp_path: Path, name: str, becomes: str) -> None:
    assert list(_run(engine, tmp_path, "-i", f"{base}/x\n  out={name}\n")) == [becomes]


@pytest.mark.wire
def test_aria2_expands_home(engine: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")
    assert list(_run(engine, tmp_path, "-i", f"{base}/x\n  out=a${{HOME}}/x\n")) == ["a/elsewhere/x"]


@pytest.mark.wire
def test_aria2_verifies_the_declared_checksums(engine: str, base: str, tmp_path: Path) -> None:
    subject, where, _ = _served(base, ["x"])
    wrong = a_manifest(a_file("x", b"other"))
    (tmp_path / "source").write_text(aria2_input.dump(wrong, where))
    command = [engine, "--no-conf", "--quiet", f"--dir={tmp_path}", "-i", str(tmp_path / "source")]
    assert subprocess.run(command, capture_output=True, timeout=30).returncode == 32
    assert subject.files[0].digest != wrong.files[0].digest


@pytest.mark.wire
def test_aria2_drops_a_mirror_with_another_size(engine: str, base: str, tmp_path: Path) -> None:
    good, bad = f"{base}/a-longer-name", f"{base}/x"
    content = _content("/a-longer-name")
    text = metalink.for_download("0a1b.part", len(content), [bad, good])
    assert _run(engine, tmp_path, "-M", text) == {"0a1b.part": content}
