"""The ground rooms: errors of the operating system, URLs, text, records, hashing, and verification of files."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from gpuaria import os_errors, text, urls
from gpuaria.errors import DiskError, NetworkError, NoSpace, NotWritable, UnsafePath
from gpuaria.hashing import git_id
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, Mirror, MirrorUrl, RemoteFile, RepoRef, Report, Verdict, count_outcomes
from gpuaria.verification import verify_file

REF = RepoRef("hf", "model", "org/name")
DATA = b"some bytes"
SHA256 = hashlib.sha256(DATA).hexdigest()


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, NoSpace), (errno.EACCES, NotWritable), (errno.ELOOP, UnsafePath), (errno.EIO, DiskError)],
)
def test_an_os_error_names_the_path(number: int, kind: type[DiskError]) -> None:
    with pytest.raises(kind, match="/models/gpt2"), os_errors.explained("/models", ("gpt2",)):
        raise OSError(number, os.strerror(number))


def test_a_missing_file_passes_if_the_caller_expects_it() -> None:
    with pytest.raises(FileNotFoundError), os_errors.explained("/models", missing=True):
        raise FileNotFoundError(errno.ENOENT, "missing")


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOENT, "does not allow new folders"), (errno.EIO, os.strerror(errno.EIO))]
)
def test_a_folder_that_cannot_be_made_is_named(number: int, said: str) -> None:
    error = os_errors.unmade(OSError(number, os.strerror(number)), Path("/proc/x"))
    assert "/proc/x" in error.message
    assert said in error.message
    assert error.hint


def test_an_error_knows_whether_a_retry_may_help() -> None:
    assert NetworkError("x", retry="never").retry == "never"
    assert NetworkError("x").retry == NetworkError.usual_retry


# --- URLs ------------------------------------------------------------------------------------------------------------


def test_a_url_has_a_host_a_port_and_an_origin() -> None:
    assert urls.host_and_port("https://HUB.example/x") == ("hub.example", 443)
    assert urls.host_and_port("ftp://hub.example/x") == ("hub.example", 0)
    assert urls.url_origin("http://hub.example/x") == "http://hub.example:80"
    assert urls.authority("https://me:word@hub.example:8443/x") == "hub.example:8443"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://hub.example/a", "https://hub.example/a"),
        ("https://bücher.example/ä b", "https://xn--bcher-kva.example/%C3%A4%20b"),
    ],
)
def test_a_url_is_converted_to_ascii(url: str, expected: str) -> None:
    assert urls.ascii_url(url) == expected


def test_a_url_with_a_password_is_rejected_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^https://hub\.example/a$"):
        urls.ascii_url("https://me:word@hub.example/a?signature=1")


@pytest.mark.parametrize(
    ("written", "expected"),
    [("1.1.1.1", ("1.1.1.1", None)), ("1.1.1.1:53", ("1.1.1.1", 53)), ("::1", ("::1", None)), ("[::1]:5", ("::1", 5))],
)
def test_an_ip_address_may_have_a_port(written: str, expected: tuple[str, int | None]) -> None:
    address, port = urls.ip_and_port(written)
    assert (str(address), port) == expected


@pytest.mark.parametrize("written", ["1.1.1.1:0", "1.1.1.1:65536", "[::1", "hub.example", "1.1.1.1:x"])
def test_other_text_is_not_an_ip_address(written: str) -> None:
    with pytest.raises(ValueError):
        urls.ip_and_port(written)


@pytest.mark.parametrize("target", ["http://b.example/", "ftp://b.example/", "file:///etc/passwd"])
def test_an_unsafe_redirect_is_an_error(target: str) -> None:
    with pytest.raises(NetworkError, match="not encrypted"):
        urls.check_redirect("https://a.example/?signature=1", target)


def test_a_safe_redirect_passes() -> None:
    urls.check_redirect("https://a.example/", "https://b.example/")
    urls.check_redirect("http://a.example/", "http://b.example/")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://a.example/", True),
        ("http://localhost:8000/", True),
        ("http://127.0.0.1/", True),
        ("http://[::1]/", True),
        ("http://127.0.0.1.example.org/", False),
        ("http://10.0.0.1/", False),
    ],
)
def test_a_credential_needs_tls_or_this_machine(url: str, allowed: bool) -> None:
    assert urls.encrypted_or_local(url) is allowed


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (140_200_000_000, "140.2 GB"), (10**19, "10000.0 PB")],
)
def test_sizes_are_decimal(size: int, expected: str) -> None:
    assert text.decimal(size) == expected


def test_hostile_characters_are_replaced_or_quoted() -> None:
    assert text.harmless("a\x1bb é") == "a?b é"
    assert text.printable("a\u202eb") == "'a\\u202eb'"
    assert text.printable("x" * 200).endswith("...'")


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_reference_prints_its_kind_its_source_and_no_query() -> None:
    assert str(REF) == "org/name@main"
    assert str(RepoRef("hf", "dataset", "org/name", "")) == "datasets/org/name"
    assert str(RepoRef("plain", "model", "https://a.example/b?signature=1", "")) == "plain:https://a.example/b"
    assert not REF.pinned
    assert RepoRef("hf", "model", "org/name", "0" * 40).pinned


def test_a_manifest_knows_its_size_and_its_version() -> None:
    files = tuple(RemoteFile(SafePath(name), 5, Digest("sha256", SHA256), "1" * 40) for name in ("a", "b"))
    assert Manifest(REF, "org/name", "c" * 40, "https://hub", "origin", files).version == "c" * 40
    without = Manifest(REF, "org/name", "", "https://hub", "origin", files)
    reordered = Manifest(REF, "org/name", "", "https://hub", "origin", files[::-1])
    assert without.version == reordered.version != Manifest(REF, "n", "", "https://hub", "origin", files[:1]).version
    assert without.size == 10
    assert [file.lfs for file in files] == [True, True]


def test_only_the_origin_and_mirrors_with_their_own_token_get_a_credential() -> None:
    mirrors = [
        Mirror("o", "https://o", primary=True),
        Mirror("t", "https://t", own_token=True),
        Mirror("m", "https://m"),
    ]
    assert [mirror.anonymous for mirror in mirrors] == [False, False, True]


def test_a_signed_url_is_not_printed() -> None:
    assert "secret" not in repr(MirrorUrl(Mirror("m", "https://m"), "https://m/x?secret=1"))


def test_outcomes_are_counted_and_a_report_has_a_speed() -> None:
    path = SafePath("a")
    verdicts = [Verdict(path, "ok"), Verdict(path, "missing"), Verdict(path, "ok")]
    assert count_outcomes(verdicts) == {"ok": 2, "missing": 1}
    assert [verdict.good for verdict in verdicts] == [True, False, True]
    assert Report("org/name", "", "", 1, 3000, 0, 2.0, 1, "https://hub", "origin").speed == 1500
    assert Report("org/name", "", "", 0, 0, 0, 0.0, 1, "https://hub", "origin").speed == 0


def test_a_git_id_is_that_of_git() -> None:
    assert git_id("blob", b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


# --- verification ----------------------------------------------------------------------------------------------------

WEAK, WRONG = Digest("md5", hashlib.md5(DATA).hexdigest()), Digest("sha256", "0" * 64)
RIGHT = Digest("sha256", SHA256)


@pytest.mark.parametrize(
    ("digest", "pinned", "outcome", "said"),
    [
        (RIGHT, None, "ok", ""),
        (WRONG, None, "wrong digest", SHA256),
        (None, None, "unverifiable", "no digest"),
        (None, RIGHT, "unverifiable", "first saw it"),
        (None, WRONG, "wrong digest", SHA256),
        (WEAK, None, "ok", "only by md5"),
        (WEAK, RIGHT, "ok", "first saw it"),
    ],
)
def test_the_best_known_digest_decides(
    tmp_path: Path, digest: Digest | None, pinned: Digest | None, outcome: str, said: str
) -> None:
    (tmp_path / "f").write_bytes(DATA)
    verdict = verify_file(tmp_path / "f", RemoteFile(SafePath("f"), len(DATA), digest, pinned=pinned))
    assert verdict.outcome == outcome
    assert said in verdict.detail


def test_a_file_of_another_size_or_kind_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    file = RemoteFile(SafePath("f"), 3, RIGHT)
    assert verify_file(tmp_path / "f", file) == Verdict(file.path, "wrong size", "10 bytes, not 3")
    assert verify_file(tmp_path, file).detail == "is not a regular file"
    assert verify_file(tmp_path / "g", file).outcome == "missing"


def test_an_unreadable_file_and_one_that_grows_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(DATA)
    file = RemoteFile(SafePath("f"), len(DATA), RIGHT)
    monkeypatch.setattr("gpuaria.verification.hash_stream", lambda *given: (SHA256, 99))
    assert verify_file(path, file).detail == "99 bytes, not 10"

    def fail(*given: object) -> tuple[str, int]:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr("gpuaria.verification.hash_stream", fail)
    assert verify_file(path, file).detail == "cannot be read: input/output error"
