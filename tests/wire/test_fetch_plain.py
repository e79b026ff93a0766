"""Files on web servers: a URL, a list, a folder with checksums, a Metalink; end to end through aria2c."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote

import pytest

from standin import Seen
from tests.support.recorded import Reply, Scripted
from tests.support.user import User

BIG = random.Random(9).randbytes(9_000_000)
FILES = {"big.bin": BIG, "sub/a b.txt": b"text\n", "empty.bin": b""}


class Web(Scripted):
    """A web server with ranges; `files` by path."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(self._answer)
        self.files = files

    def _answer(self, seen: Seen) -> Reply:
        data = self.files.get(unquote(seen.target.partition("?")[0]).lstrip("/"))
        if data is None:
            return 404, {"content-type": "text/html"}, b"<html>not here</html>"
        kind = "text/html" if data.startswith(b"<html") else "application/octet-stream"
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", ""))
        tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        if not found or int(found[1]) >= len(data):
            return 200, {"content-type": kind, "etag": tag, "accept-ranges": "bytes"}, data
        start, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        return 206, {"content-range": f"bytes {start}-{end}/{len(data)}", "etag": tag}, data[start : end + 1]

    def bodies(self) -> int:
        """Return the number of requests for files, listings excluded."""
        return sum(one.method == "GET" and "SUMS" not in one.target for one in self.journal.snapshot())


Webs = Callable[..., Web]


@pytest.fixture
def webs() -> Iterator[Webs]:
    """Start web servers."""
    with ExitStack() as stack:
        yield lambda files: stack.enter_context(Web(files))


def in_folder(files: dict[str, bytes], sums: str = "SHA256SUMS", algorithm: str = "sha256") -> dict[str, bytes]:
    """Return the files below m/, with their checksums."""
    lines = [f"{hashlib.new(algorithm, data).hexdigest()}  {path}\n" for path, data in files.items()]
    return {**{f"m/{path}": data for path, data in files.items()}, f"m/{sums}": "".join(lines).encode()}


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a target, without gpuaria's own folder."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".gpuaria/")}


def test_a_folder_with_sha256sums(user: User, webs: Webs) -> None:
    web = webs(in_folder(FILES))
    done = user.run("fetch", f"{web.url}/m/", "--json").ok()
    target = user.home / "m"
    assert (Path(done.report["path"]), contents(target)) == (target, FILES)
    assert (done.report["verdicts"], done.report["trust"]) == ({"ok": 3}, "origin")
    assert done.report["ref"] == f"plain:{web.url}/m/"
    before = web.bodies()
    assert user.run("fetch", f"{web.url}/m/", "--json").ok().report["bytes_fetched"] == 0
    assert web.bodies() == before
    assert "skip" in user.run("fetch", f"{web.url}/m/", "--dry-run").ok().out
    assert user.run("verify", "m").ok().out.startswith(f"{target}: 3 ok")
    assert f"requested as plain:{web.url}/m/" in user.run("why", "m/big.bin").ok().out
    lock = user.home / "lock.json"
    lock.write_text(user.run("resolve", f"{web.url}/m/", "--format", "manifest").ok().out)
    assert contents(user.run("fetch", "--lock", lock, "--to", "again").ok().path) == FILES
    url = f"{web.url}/m/"
    web.close()
    assert user.run("fetch", url, "--offline").ok().path == target
    assert not (user.home / ".cache/huggingface").exists()
    (target / "big.bin").write_bytes(b"x" * len(BIG))
    assert user.run("verify", "m").status == 4


def test_a_url_without_a_digest_is_pinned_at_the_first_fetch(user: User, webs: Webs) -> None:
    web = webs({"x/w.bin": BIG})
    done = user.run("fetch", f"plain:{web.url}/x/w.bin", "--json").ok()
    assert (done.report["verdicts"], done.report["trust"]) == ({"unverifiable": 1}, "none")
    saved = json.loads((user.home / "w.bin/.gpuaria/manifest.json").read_text())
    assert saved["files"][0]["pinned"] == {"algorithm": "sha256", "hex": hashlib.sha256(BIG).hexdigest()}
    before = web.bodies()
    again = user.run("fetch", f"plain:{web.url}/x/w.bin", "--json").ok()
    assert (again.report["bytes_fetched"], again.report["verdicts"], web.bodies()) == (0, {"unverifiable": 1}, before)
    assert user.run("verify", "w.bin", "--strict").status == 3
    (user.home / "w.bin/w.bin").write_bytes(b"y" * len(BIG))
    assert user.run("verify", "w.bin").status == 4


def test_a_file_that_changed_at_its_url_is_downloaded_again(user: User, webs: Webs) -> None:
    web = webs({"w.bin": b"one"})
    user.run("fetch", f"{web.url}/w.bin").ok()
    web.files["w.bin"] = b"two"
    assert user.run("fetch", f"{web.url}/w.bin", "--json").ok().report["bytes_fetched"] == 3
    assert (user.home / "w.bin/w.bin").read_bytes() == b"two"


def test_a_weak_digest_is_labelled_and_not_sufficient_later(user: User, webs: Webs) -> None:
    web = webs(in_folder(FILES, "MD5SUMS", "md5"))
    done = user.run("fetch", f"{web.url}/m/", "--json").ok()
    assert (done.report["verdicts"], done.report["weak"]) == ({"ok": 3}, 3)
    assert any("weak digest (md5)" in event.get("text", "") for event in done.events)
    told = json.loads(user.run("verify", "m", "--json").ok().out)
    assert all("md5, a weak digest" in row["detail"] and "first saw" in row["detail"] for row in told["weak"])
    assert user.run("fetch", f"{web.url}/m/", "--json").ok().report["bytes_fetched"] == 0
    wrong = webs(in_folder(FILES, "MD5SUMS", "md5") | {"m/big.bin": b"z" * len(BIG)})
    assert user.run("fetch", f"{wrong.url}/m/", "--to", "wrong").status == 4


def test_a_list_and_its_mirrors(user: User, webs: Webs) -> None:
    one, two = webs({"w.bin": BIG}), webs({"w.bin": BIG, "t.txt": b"text"})
    (user.home / "urls.txt").write_text(f"# a list\n{one.url}/w.bin {two.url}/w.bin\n\n{two.url}/t.txt\n")
    done = user.run("fetch", "plain:urls.txt", "--json").ok()
    assert contents(user.home / "urls") == {"w.bin": BIG, "t.txt": b"text"}
    assert not any("t.txt" in target for target in one.targets)
    assert {use["name"] for use in done.report["mirrors"]} <= {one.url[7:], two.url[7:]}


def test_a_metalink_whose_first_server_lacks_the_file(user: User, webs: Webs) -> None:
    full, broken = webs({"w.bin": BIG, "t.txt": b"text"}), webs({"w.bin": b"z" * len(BIG)})
    rows = [("w.bin", BIG, (broken, full)), ("t.txt", b"text", (full,))]
    files = "".join(
        f'<file name="{name}"><size>{len(data)}</size><hash type="sha-256">{hashlib.sha256(data).hexdigest()}</hash>'
        + "".join(f'<url priority="{at}">{web.url}/{name}</url>' for at, web in enumerate(servers, 1))
        + "</file>"
        for name, data, servers in rows
    )
    (user.home / "x.meta4").write_text(f'<metalink xmlns="urn:ietf:params:xml:ns:metalink">{files}</metalink>')
    done = user.run("fetch", "plain:x.meta4", "--to", "got", "--json").ok()
    assert contents(user.home / "got") == {"w.bin": BIG, "t.txt": b"text"}
    assert done.report["verdicts"] == {"ok": 2}
    named = json.loads(user.run("mirrors", "plain:x.meta4", "--json").out)
    assert len(named["mirrors"]) == 2


def test_invalid_requests_are_rejected(user: User, webs: Webs) -> None:
    web = webs({"page": b"<html>log in</html>", "bare/x": b"x"})
    user.run("fetch", f"{web.url}/page").refused(2, "HF_ENDPOINT", f"plain:{web.url}/page")
    user.run("fetch", f"plain:{web.url}/page").refused(7, "web page")
    user.run("fetch", f"{web.url}/gone.bin").refused(5, "does not exist")
    user.run("fetch", f"{web.url}/bare/").refused(5, "SHA256SUMS")
    user.run("fetch", "plain:no-such-list.txt").refused(5, "no-such-list.txt")
    user.run("fetch", "https://me:word@host.example/x").refused(2, "user or password")
    user.run("fetch", f"plain:{web.url}/bare/x", "--revision", "v1").refused(2, "--revision")


def test_a_token_goes_only_to_its_host(user: User, webs: Webs) -> None:
    web, other = webs({"w.bin": b"w"}), webs({"w.bin": b"w"})
    user.env |= {"HF_TOKEN": "hf_marker0123456789", "OWN": "token-of-web", "GPUARIA_TOKENS": f"{web.url}=env:OWN"}
    user.run("fetch", f"{web.url}/w.bin").ok()
    user.run("fetch", f"{other.url}/w.bin", "--to", "x").ok()
    assert all(seen.headers.get("authorization") == "Bearer token-of-web" for seen in web.journal.snapshot())
    assert not any("authorization" in seen.headers for seen in other.journal.snapshot())
