"""The text of each file format, and what the readers reject."""

import ast
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuaria import formats
from gpuaria.errors import BadListing, GpuariaError, UnsafePath, UsageError
from gpuaria.formats import aria2_input, manifest, metalink, sha256sums
from gpuaria.formats.metalink import Pieces
from gpuaria.paths import SafePath
from gpuaria.records import Digest, RemoteFile, RepoRef, to_json
from tests.support.manifests import COMMIT, NAMES, SHA, URL, a_file, a_manifest, is_safe_path, urls_for_all


def test_formats_do_no_input_or_output() -> None:
    forbidden = {"os", "socket", "subprocess", "time", "random", "threading", "pathlib"}
    for source in Path(formats.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.split(".")[0] for alias in node.names}, source
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, source


def test_manifest_text_matches_the_documentation() -> None:
    subject = a_manifest(a_file("b"), RemoteFile(SafePath("a"), 0, None))
    assert manifest.dump(subject) == (
        '{\n "format": "gpuaria-manifest/1",\n "ref": {\n  "source": "hf",\n  "kind": "model",\n  "name": "org/name",\n'
        '  "revision": "main",\n  "path": ""\n },\n "name": "org/name",\n "commit": "' + COMMIT + '",\n'
        ' "vouched_by": "https://huggingface.co",\n "trust": "origin",\n "restricted": false,\n "files": [\n'
        '  {"path": "a", "size": 0, "digest": null, "oid": ""},\n'
        '  {"path": "b", "size": 5, "digest": {"algorithm": "sha256", "hex": "' + SHA + '"}, "oid": ""}\n ]\n}\n'
    )


VALID = manifest.dump(a_manifest(a_file("a b"), a_file("c")))


def _set(*keys: str | int, to: Any) -> Callable[[Any], None]:
    def change(row: Any) -> None:
        for key in keys[:-1]:
            row = row[key]
        row[keys[-1]] = to

    return change


def _drop(key: str) -> Callable[[Any], None]:
    return lambda row: row.pop(key)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("format", to="gpuaria-manifest/2"), "'gpuaria-manifest/2'"),
        (_set("format", to=1), "format is not named"),
        (_drop("format"), "format is not named"),
        (_drop("trust"), "no 'trust'"),
        (_set("more", to=1), "unknown key 'more'"),
        (_set("ref", "kind", to="weights"), "ref.kind"),
        (_set("ref", "source", to=""), "ref.source is empty"),
        (_set("ref", to=[]), "ref is not a JSON object"),
        (_set("ref", "revision", to="a\nb"), "ref.revision"),
        (_set("commit", to="main"), "commit is 'main'"),
        (_set("commit", to=COMMIT.upper()), "commit"),
        (_set("trust", to="much"), "trust"),
        (_set("trust", to=None), "trust is of type NoneType"),
        (_set("restricted", to=0), "restricted"),
        (_set("files", to={}), "files"),
        (_set("files", 0, to="x"), "files[0] is not a JSON object"),
        (_set("files", 0, "path", to=3), "files[0].path"),
        (_set("files", 0, "path", to="../x"), "'../x'"),
        (_set("files", 0, "path", to="c"), "'c' twice"),
        (_set("files", 0, "path", to="c/d"), "'c' both as a file and as a folder"),
        (_set("files", 0, "size", to=-1), "files[0].size"),
        (_set("files", 0, "size", to=True), "files[0].size"),
        (_set("files", 0, "size", to=5.0), "files[0].size"),
        (_set("files", 0, "size", to="5"), "files[0].size"),
        (_set("files", 0, "size", to=2**53 + 1), "files[0].size"),
        (_set("files", 0, "oid", to="xyz"), "files[0].oid"),
        (_set("files", 0, "oid", to=None), "files[0].oid"),
        (_set("files", 0, "digest", to=SHA), "files[0].digest is not a JSON object"),
        (_set("files", 0, "digest", "hex", to=SHA.upper()), "sha256 that is not one"),
        (_set("files", 0, "digest", "hex", to=SHA[:-1]), "sha256 that is not one"),
        (_set("files", 0, "digest", "hex", to=SHA + "\n"), "sha256 that is not one"),
        (_set("files", 0, "digest", "hex", to=""), "sha256 that is not one"),
        (_set("files", 0, "digest", "hex", to=7), "files[0].digest.hex"),
        (_set("files", 0, "digest", "algorithm", to="crc32"), "unknown algorithm 'crc32'"),
        (_set("vouched_by", to="https://me:pw@hub.example"), "hub.example"),
    ],
)
def test_manifest_load_reports_what_is_wrong(change: Callable[[Any], None], said: str) -> None:
    row = json.loads(VALID)
    change(row)
    with pytest.raises(GpuariaError) as caught:
        manifest.load(json.dumps(row))
    assert said in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[" * 200_000, '{"a":' * 200_000, "1" * 5000, '{"format": 1, "format": 2}', "NaN"]
)
def test_manifest_load_rejects_other_documents(text: str) -> None:
    with pytest.raises(BadListing):
        manifest.load(text)


def test_manifest_load_rejects_duplicate_keys() -> None:
    with pytest.raises(BadListing, match="one key twice"):
        manifest.load(VALID.replace('"trust": "origin"', '"trust": "none", "trust": "origin"'))


def test_a_manifest_of_another_source_may_have_another_form_of_commit() -> None:
    subject = a_manifest(ref=RepoRef("modelscope", "model", "org/name"), commit="v1.0")
    assert manifest.load(manifest.dump(subject)) == subject


def test_manifest_dump_rejects_what_load_rejects() -> None:
    with pytest.raises(BadListing, match="commit"):
        manifest.dump(a_manifest(commit="main"))
    with pytest.raises(BadListing, match="twice"):
        manifest.dump(a_manifest(a_file("a"), a_file("a")))
    with pytest.raises(UsageError) as caught:
        manifest.dump(a_manifest(vouched_by="https://me:s3cret@hub.example/"))
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(("hex_text", "good"), [("0" * 8, True), ("0" * 64, True), ("0" * 7, False), ("0" * 65, False)])
def test_a_digest_prefix_has_a_minimum_length(hex_text: str, good: bool) -> None:
    subject = a_manifest(RemoteFile(SafePath("a"), 1, Digest("sha256-prefix", hex_text)))
    if good:
        assert manifest.load(manifest.dump(subject)) == subject
    else:
        with pytest.raises(BadListing):
            manifest.dump(subject)


@pytest.mark.parametrize("load", [manifest.load, metalink.load])
def test_size_limits(load: Callable[..., object]) -> None:
    with pytest.raises(BadListing, match="10 characters"):
        load(" " * 11, limit=10)


BAD_URLS = [
    "ftp://a.example/f",
    "file:///etc/passwd",
    "HTTP://a.example/f",
    "//a.example/f",
    "a.example/f",
    "",
    "http://",
    "http:///f",
    "https://a.example/a b",
    "https://a.example/a\tb",
    "https://a.example/a\nb",
    "https://a.example/a\n  out=evil",
    "https://a.example/f\n",
    "https://a.example/\x7f",
    "https://a.example/\u2028",
    "https://a.example/\u00a0",
    "https://a.example/é",
    "https://a.example\\@b.example/",
    "https://a.example:port/",
    "https://me:s3cret@a.example/f",
    "https://s3cret@a.example/f",
    "https://me:s3/cret@a.example/f",
    "https://me:s3cret@a.example\n/f",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls_are_rejected_and_not_repeated(url: str) -> None:
    subject = a_manifest(a_file("x"))
    for dump in (metalink.dump, aria2_input.dump):
        with pytest.raises(UsageError) as caught:
            dump(subject, urls_for_all(subject, url))
        assert "s3cret" not in caught.value.message + caught.value.hint
        assert "me:" not in caught.value.message
    with pytest.raises(UsageError):
        metalink.for_download("x", 5, [url])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x",
        "https://[::1]:1/x",
        "https://a.example",
        "https://a.example?x=1&y=<2>",
        "https://a.example/@scope/x%20y?sig=a%2Fb&e=me@b.example#f",
        "https://a_b.example/${HOME}/[1-3]",
    ],
)
def test_good_urls_are_unchanged(url: str) -> None:
    subject = a_manifest(a_file("x"))
    assert metalink.load(metalink.dump(subject, urls_for_all(subject, url)))[0].urls == ((url, ""),)
    assert aria2_input.load(aria2_input.dump(subject, urls_for_all(subject, url)))[0].uris == (url,)


def test_a_url_with_a_user_is_rejected_by_host_name() -> None:
    with pytest.raises(UsageError, match=r"'a\.example'"):
        metalink.for_download("x", 5, ["https://me:s3cret@a.example/f"])


def test_signed_urls_do_not_appear_in_a_repr() -> None:
    subject = a_manifest(a_file("x"))
    where = urls_for_all(subject, "https://a.example/x?sig=s3cret")
    assert "s3cret" not in repr(metalink.load(metalink.dump(subject, where)))
    assert "s3cret" not in repr(aria2_input.load(aria2_input.dump(subject, where)))


def test_a_file_without_a_url_is_rejected() -> None:
    for dump in (metalink.dump, aria2_input.dump):
        with pytest.raises(UsageError, match="'x' has no URL"):
            dump(a_manifest(a_file("x")), {})


def test_metalink_text_matches_the_documentation() -> None:
    subject = a_manifest(a_file('a&"<b>'), a_file("git", algorithm="git-sha1"))
    where = {
        SafePath('a&"<b>'): [("https://a.example/?x=1&y=2", "CN"), ("https://b.example/", "xyz")],
        SafePath("git"): [(URL, "de")],
    }
    text = metalink.dump(subject, where, pieces={SafePath('a&"<b>'): Pieces("sha256", 4, (SHA, SHA))})
    assert text.splitlines()[0] == '<?xml version="1.0" encoding="UTF-8"?>'
    assert '<metalink xmlns="urn:ietf:params:xml:ns:metalink">' in text
    assert "<generator>gpuaria/" in text
    assert '<file name="a&amp;&quot;&lt;b&gt;">' in text
    assert f'<hash type="sha-256">{SHA}</hash>' in text
    assert '<pieces length="4" type="sha-256">' in text
    assert '<url priority="1" location="cn">https://a.example/?x=1&amp;y=2</url>' in text
    assert '<url priority="2">https://b.example/</url>' in text
    assert "sha-1" not in text
    assert metalink.load(text)[0].pieces == Pieces("sha256", 4, (SHA, SHA))


@pytest.mark.parametrize(
    "name", ["a\0b", "a\x0bb", "a\ud800b", "a\ufffe", "\uffff", "a\nb", "../x", "/x", "a\n  out=evil"]
)
def test_metalink_rejects_bad_names(name: str) -> None:
    subject = a_manifest(a_file(name))
    with pytest.raises(UnsafePath):
        metalink.dump(subject, urls_for_all(subject))


def _document(inside: str) -> str:
    return f'<metalink xmlns="{metalink.NAMESPACE}">{inside}</metalink>'


def test_metalink_load_reads_documents_of_other_tools() -> None:
    text = "\ufeff" + _document(
        f"""<published>2026-01-01T00:00:00Z</published><other xmlns="urn:x"><file name="../no"/></other>
        <file name="d/x"><identity>x</identity>
        <size> 5 </size><hash type="md5">{"A" * 32}</hash><hash type="sha256">unknown</hash>
        <hash type="sha-256">{SHA.upper()}</hash><pieces length="5" type="tiger"><hash>x</hash></pieces>
        <pieces length="5" type="sha-1"><hash>{"b" * 40}</hash></pieces>
        <pieces length="3" type="sha-256"><hash>{SHA}</hash><hash>{SHA}</hash></pieces>
        <url>http://last.example/</url><url priority="7" location="DE"> http://b.example/ </url>
        <url priority="2">ftp://c.example/</url><url priority="2" location="germany">http://a.example/</url>
        <metaurl mediatype="torrent">http://a.example/x.torrent</metaurl></file><file name="bare"/>"""
    )
    first, bare = metalink.load(text)
    assert (first.name, first.size) == ("d/x", 5)
    assert first.digests == (Digest("md5", "a" * 32), Digest("sha256", SHA))
    assert first.pieces == Pieces("sha256", 3, (SHA, SHA))
    assert first.urls == (("http://a.example/", ""), ("http://b.example/", "de"), ("http://last.example/", ""))
    assert (bare.size, bare.digests, bare.pieces, bare.urls) == (None, (), None, ())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", BadListing),
        ("<metalink/>", BadListing),
        ('<metalink version="3.0" xmlns="http://www.metalinker.org/"/>', BadListing),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + _document("&a;"), BadListing),
        ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + _document("&a;"), BadListing),
        ('<!DOCTYPE x [<!ATTLIST a b CDATA "long">]>' + _document("<a/><a/>"), BadListing),
        ("<!DOCTYPE x>" + _document(""), BadListing),
        ("<a " + 'b="" ' * 1_000_001 + "/>", BadListing),
        (_document("\ud800"), BadListing),
        (_document("\0"), BadListing),
        (_document("<file/>"), UnsafePath),
        (_document('<file name="../x"/>'), UnsafePath),
        (_document('<file name="a&#10;b"/>'), UnsafePath),
        (_document('<file name="x"/><file name="x"/>'), BadListing),
        (_document('<file name="x"><size>-1</size></file>'), BadListing),
        (_document('<file name="x"><size>٣</size></file>'), BadListing),
        (_document(f'<file name="x"><size>{"9" * 5000}</size></file>'), BadListing),
        (_document('<file name="x"><size>1</size><size>2</size></file>'), BadListing),
        (_document('<file name="x"><hash type="sha-256">00</hash></file>'), BadListing),
        (_document('<file name="x"><url priority="high">http://a.example/</url></file>'), BadListing),
        (_document('<file name="x"><url>http://me:pw@a.example/</url></file>'), UsageError),
        (
            _document(f'<file name="x"><pieces type="md5" length="0"><hash>{"0" * 32}</hash></pieces></file>'),
            BadListing,
        ),
        (_document(f'<file name="x"><pieces type="md5"><hash>{"0" * 32}</hash></pieces></file>'), BadListing),
        (
            _document(
                f'<file name="x"><size>9</size><pieces type="md5" length="3"><hash>{"0" * 32}</hash></pieces></file>'
            ),
            BadListing,
        ),
        ("<a>" * 300_000 + "</a>" * 300_000, BadListing),
        ("<a>" + "<a/>" * 2_000_001 + "</a>", BadListing),
    ],
)
def test_metalink_load_rejects_bad_documents(text: str, error: type[GpuariaError]) -> None:
    with pytest.raises(error) as caught:
        metalink.load(text)
    assert "pw" not in caught.value.message


@pytest.mark.parametrize(
    "pieces",
    [
        Pieces("sha256", 4, (SHA,)),
        Pieces("sha256", 0, (SHA,)),
        Pieces("git-sha1", 5, ("0" * 40,)),
        Pieces("sha256", 5, ("<x/>",)),
    ],
)
def test_pieces_must_add_up_to_the_file(pieces: Pieces) -> None:
    with pytest.raises(BadListing):
        metalink.for_download("x", 5, [URL], pieces)


def test_for_download_holds_only_name_size_and_urls() -> None:
    loaded = metalink.load(
        metalink.for_download("0a1b.part", 5, [URL, "http://b.example/"], Pieces("md5", 5, ("0" * 32,)))
    )
    assert [(f.name, f.size, f.digests, f.urls) for f in loaded] == [
        ("0a1b.part", 5, (), ((URL, ""), ("http://b.example/", "")))
    ]
    assert loaded[0].pieces == Pieces("md5", 5, ("0" * 32,))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a&b", "é", "x\n", "../x", "x" * 256])
def test_for_download_accepts_only_our_own_names(name: str) -> None:
    with pytest.raises(UnsafePath):
        metalink.for_download(name, 5, [URL])


def test_input_file_text_matches_the_documentation() -> None:
    subject = a_manifest(a_file("a b"), a_file("git", algorithm="git-sha1"))
    where = {
        SafePath("a b"): [("http://a.example/x", "cn"), ("http://a.example/y", ""), ("http://b.example/x", "")],
        SafePath("git"): [(URL, "")],
    }
    lines = aria2_input.dump(subject, where, connections=4).splitlines()
    assert lines[:2] == ["# org/name", f"# commit {COMMIT}"]
    assert lines[3:8] == [
        "http://a.example/x\thttp://a.example/y\thttp://b.example/x",
        "  out=a b",
        f"  checksum=sha-256={SHA}",
        "  split=8",
        "  max-connection-per-server=4",
    ]
    assert sum("checksum" in line for line in lines) == 1


@pytest.mark.parametrize("name", [" lead", "tail ", "${HOME}/x", "a${HOME}", "a\n  out=evil", "a\tb", "a\rb", "../x"])
def test_input_file_rejects_names_that_aria2_misreads(name: str) -> None:
    subject = a_manifest(a_file(name))
    with pytest.raises(UnsafePath):
        aria2_input.dump(subject, urls_for_all(subject))


@pytest.mark.parametrize("directory", ["", " /x", "/x ", "${HOME}/x", "/x\n  out=evil", "/x\ty"])
def test_input_file_rejects_folders_that_aria2_misreads(directory: str) -> None:
    subject = a_manifest(a_file("x"))
    with pytest.raises(UnsafePath):
        aria2_input.dump(subject, urls_for_all(subject), directory=directory)


@pytest.mark.parametrize("connections", [0, -1, 17])
def test_input_file_rejects_what_aria2_rejects(connections: int) -> None:
    with pytest.raises(UsageError):
        aria2_input.dump(a_manifest(), {}, connections=connections)


def test_input_file_comment_cannot_be_escaped() -> None:
    subject = a_manifest(name="x\nhttp://evil.example/", commit="c\r\nhttp://evil.example/")
    assert aria2_input.load(aria2_input.dump(subject, {})) == []
    with pytest.raises(UsageError):
        aria2_input.dump(a_manifest(name="https://me:pw@a.example/"), {})


def test_input_file_load_reads_files_of_other_tools() -> None:
    text = (
        "# c\r\n\r\nhttp://a/\thttp://b/ \r\n\tout = x\r\n# c\n\n split=2\n split=3\n"
        " header=A: b=c\n header=D: e\nftp://c/\u2028x\n"
    )
    first, second = aria2_input.load(text)
    assert first.uris == ("http://a/", "http://b/")
    assert first.options == {"out": "x", "split": "3", "header": "A: b=c\nD: e"}
    assert (second.uris, second.options) == (("ftp://c/\u2028x",), {})


@pytest.mark.parametrize("text", [" out=x\n", "http://a/\n out\n", "http://a/\n --out=x\n", "http://a/\n OUT=x\n"])
def test_input_file_load_rejects_what_aria2_ignores(text: str) -> None:
    with pytest.raises(BadListing, match="line "):
        aria2_input.load(text)


def test_sums_text_matches_the_documentation() -> None:
    files = [
        a_file("b c"),
        a_file("git", algorithm="git-sha1"),
        RemoteFile(SafePath("none"), 1, None),
        a_file("x\n\\y"),
    ]
    sha1 = hashlib.sha1(b"hello").hexdigest()
    assert sha256sums.dump(a_manifest(*files)) == (
        f"{SHA}  b c\n# no sha256: git (git-sha1 {sha1})\n# no sha256: none\n\\{SHA}  x\\n\\\\y\n"
    )


@pytest.mark.parametrize(
    "line",
    [f"{SHA}  a b", f"{SHA} *a b", f"{SHA}  ./a b", f"{SHA.upper()}  a b", f"\\{SHA}  a b", f"SHA256 (a b) = {SHA}"],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n# comment\n\n"])
def test_sums_load_reads_every_form(line: str, end: str) -> None:
    assert sha256sums.load(line + end) == {SafePath("a b"): Digest("sha256", SHA)}


@pytest.mark.parametrize("name", ["x)", "x) = y", "(x", " lead", "tail ", "a\u2028b"])
def test_sums_load_keeps_odd_names(name: str) -> None:
    if not is_safe_path(name):
        for line in (f"{SHA}  {name}\n", f"SHA256 ({name}) = {SHA}\n"):
            with pytest.raises(UnsafePath):
                sha256sums.load(line)
    else:
        assert list(sha256sums.load(f"{SHA}  {name}\n")) == [name]
        assert list(sha256sums.load(f"SHA256 ({name}) = {SHA}\n")) == [name]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x", BadListing),
        (f"{SHA} x", BadListing),
        (f"{SHA[:-1]}  x", BadListing),
        (f"{SHA}  ", BadListing),
        (f"MD5 (x) = {'0' * 32}", BadListing),
        (f"\\{SHA}  a\\tb", BadListing),
        (f"\\{SHA}  a\\", BadListing),
        (f"{SHA}  x\n{'0' * 64}  x", BadListing),
        (f"\\{SHA}  a\\nb", UnsafePath),
        (f"{SHA}  ../x", UnsafePath),
        (f"{SHA}  /x", UnsafePath),
    ],
)
def test_sums_load_rejects_bad_lines(text: str, error: type[GpuariaError]) -> None:
    with pytest.raises(error):
        sha256sums.load(text)


def test_sha256sum_and_gpuaria_read_each_other(tmp_path: Path) -> None:
    sha256sum = shutil.which("sha256sum")
    if not sha256sum:
        pytest.skip("no sha256sum")
    names = [*NAMES, " lead", "tail ", "new\nline", "back\\slash", "carriage\rreturn", "\\n", "*star", "a  b"]
    for name in names:
        SafePath(name).under(tmp_path).parent.mkdir(parents=True, exist_ok=True)
        SafePath(name).under(tmp_path).write_bytes(name.encode())
    subject = a_manifest(*(a_file(n, n.encode()) for n in names), a_file("small", algorithm="git-sha1"))
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(sha256sums.dump(subject), encoding="utf-8", newline="")
    command = [sha256sum, "--check", "--strict", "--quiet", "SHA256SUMS"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    safe = [name for name in names if is_safe_path(name)]
    for flag in ("--text", "--binary", "--tag"):
        written = subprocess.run(
            [sha256sum, flag, "--", *safe], cwd=tmp_path, capture_output=True, timeout=20, check=True
        )
        assert sha256sums.load(written.stdout.decode()) == {
            SafePath(n): Digest("sha256", hashlib.sha256(n.encode()).hexdigest()) for n in safe
        }


def test_to_json_matches_the_manifest() -> None:
    subject = a_manifest(a_file("x"))
    assert json.loads(manifest.dump(subject)) == {"format": manifest.FORMAT, **to_json(subject)}
