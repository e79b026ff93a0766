"""The Hugging Face Hub and everything that speaks its protocol.

Shapes are those of huggingface_hub 2.x and docs/hub. A resolve response has one of three forms: the bytes themselves, a
redirect within the hub (a file in git, or a repo that has moved), or one to a signed address elsewhere (a file in LFS).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

from gpuaria.errors import (
    AccessDenied,
    BadListing,
    BadToken,
    Blocked,
    FileNotInRepo,
    Gated,
    GpuariaError,
    NetworkError,
    NotAHub,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    UnsafePath,
)
from gpuaria.hashing import EMPTY, lfs_pointer_oid
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.http.redirects import redirect_target
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, Mirror, MirrorUrl, RemoteFile, RepoKind, RepoRef
from gpuaria.sources import git, git_verify, references
from gpuaria.sources.git_verify import MAX_ENTRIES
from gpuaria.sources.protocol import About, RepoInfo, Stated
from gpuaria.sources.web import expiry
from gpuaria.text import printable
from gpuaria.urls import authority, check_redirect, redacted, url_origin

MAX_SIZE = 1 << 50
MAX_PAGES = 20_000
PAGE = 1000  # entries of a tree
AT_ONCE = 10_000  # files that a repo's own page is believed to name; beyond 50,000 it is known to leave some out
FILES_TOO = "blobs=true"  # asks a repo's own page for sizes and ids
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')


class HuggingFace:
    """The `hf:` source: KnowsFreshness, ProvesListing, RedirectsSmallFiles, ChecksToken."""

    about = About(
        name="hf",
        title="the Hugging Face Hub",
        hosts=references.HUB_HOSTS,
        endpoint="https://huggingface.co",
        endpoint_variables=("GPUARIA_ENDPOINT", "HF_ENDPOINT"),
        token_variables=("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
        buckets=((r"/resolve/|^/api/resolve-cache/", "resolvers"), (r"^/api/", "api"), ("", "pages")),
        layout="hf",
        digests=("sha256", "git-sha1"),
        versions=True,
        revision="main",
    )

    def parse(
        self, text: str, kind: RepoKind | None, revision: str, endpoints: Sequence[str], default: str = "main"
    ) -> RepoRef:
        """See references.parse."""
        return references.parse(text, kind, revision, endpoints, default)

    def resolve(self, ref: RepoRef, mirror: Mirror, http: Http, wanted: Callable[[str], bool]) -> Manifest:
        """The listing of the commit that the revision is now."""
        return self.listing(ref, self.commit(ref, mirror.base, http), mirror.base, http, wanted)

    def commit(self, ref: RepoRef, endpoint: str, http: Http) -> RepoInfo:
        """One request. Two where the name has moved, and then the second one asks for the files too.

        Not of a dataset: it may have more of them than a hub can name in one response.
        """
        url = _about(ref, ref.name, ref.revision, endpoint)
        response = http.get(url, redirect_query="" if ref.kind == "dataset" else FILES_TOO)
        info = _json(response, endpoint)
        if not isinstance(info, dict):
            raise _refusal(response, ref, endpoint, http)
        commit, name = info.get("sha"), info.get("id") or ref.name
        if not isinstance(commit, str) or not _SHA1.fullmatch(commit) or not isinstance(name, str):
            raise NotAHub(f"{endpoint} returned no commit id for {ref.name}", _NOT_A_HUB_HINT)
        if not references.is_name(name.split("/")):
            raise NotAHub(f"{endpoint} returned an invalid repo name: {printable(name)}", _NOT_A_HUB_HINT)
        if _SHA1.fullmatch(ref.revision) and ref.revision != commit:
            raise NotAHub(f"{endpoint} returned commit {commit} instead of {ref.revision}", _NOT_A_HUB_HINT)
        if info.get("disabled") is True:
            raise AccessDenied(f"the hub has disabled {name}", f"See {endpoint}/{name} for the reason.")
        restricted, siblings = bool(info.get("private")) or bool(info.get("gated")), _siblings(info)
        named = frozenset(path for one in siblings if isinstance(path := one.get("rfilename"), str))
        return RepoInfo(name, commit, restricted, named, _entries(siblings))

    def listing(
        self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http, wanted: Callable[[str], bool]
    ) -> Manifest:
        """The recursive tree at the commit, page by page, where one response does not bring all."""
        files: dict[str, RemoteFile] = {}
        for entry in info.entries or self._at_once(ref, info, endpoint, http) or self._tree(ref, info, endpoint, http):
            if entry.get("type") in ("directory", "unknown"):  # "unknown": a submodule
                continue
            if entry.get("type") != "file":
                raise BadListing(f"{endpoint} lists an entry that is neither file nor folder", _MIRROR_HINT)
            try:
                file = _file(entry)
            except UnsafePath:
                if wanted(str(entry.get("path"))):
                    raise
                continue
            known = files.setdefault(file.path, file)
            if known != file:
                raise BadListing(f"{endpoint} lists {printable(file.path)} twice, differently", _MIRROR_HINT)
        ordered = tuple(files[path] for path in sorted(files))
        return Manifest(ref, info.name, info.commit, endpoint, "origin", ordered, info.restricted)

    def _at_once(self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http) -> Sequence[Mapping[str, Any]]:
        """The files of a repo whose tree would come on more than two pages; empty where the hub cannot."""
        if not 2 * PAGE < len(info.names) <= AT_ONCE:
            return ()
        try:
            about = _json(http.get(f"{_about(ref, info.name, info.commit, endpoint)}?{FILES_TOO}"), endpoint)
        except NetworkError:  # if it is not the question that is too much, the tree tells so too
            return ()
        entries = _entries(_siblings(about)) if isinstance(about, dict) else ()
        return entries if {entry["path"] for entry in entries} == info.names else ()

    def _tree(self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http) -> Iterator[dict[str, Any]]:
        tree = f"{endpoint}/api/{ref.kind}s/{info.name}/tree/{info.commit}"
        url, seen, names, total = f"{tree}?recursive=true&expand=false", set[str](), set[str](), 0
        while url:
            if url in seen or len(seen) >= MAX_PAGES:
                raise BadListing(f"the file list of {info.name} at {endpoint} never ends", _MIRROR_HINT)
            seen.add(url)
            response = http.get(url)
            page = _json(response, endpoint)
            if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
                raise _refusal(response, ref, endpoint, http)
            total += len(page)
            if total > MAX_ENTRIES:
                raise BadListing(
                    f"{endpoint} lists more than {MAX_ENTRIES:,} files and folders in {info.name}",
                    "gpuaria cannot download a repo of this size. If it is smaller, the listing is wrong.",
                )
            yield from page
            before, url = len(names), _next_page(response, tree, endpoint)
            names.update(str(entry.get("path")) for entry in page)
            if url and len(names) == before:
                raise BadListing(f"the file list of {info.name} at {endpoint} never ends: it repeats", _MIRROR_HINT)
        if missing := info.names - names:
            raise BadListing(
                f"the file list of {info.name} at {endpoint} is incomplete: {printable(min(missing))} is missing",
                _MIRROR_HINT,
            )

    def unproven(self, manifest: Manifest, mirror: Mirror, http: Http) -> str:
        """By the commit's git objects, from `/{prefix}{id}`, the URL of the repo's page, which git would clone."""
        prefix = "" if manifest.ref.kind == "model" else f"{manifest.ref.kind}s/"
        try:
            sent = git.objects(f"{mirror.base}/{prefix}{manifest.name}", manifest.ref.revision, http)
        except NetworkError as error:
            return error.message
        return git_verify.unproven_reason(manifest.ref.revision, manifest, sent)

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """`/{prefix}{id}/resolve/{commit}/{path}`; the commit, never a moving name."""
        prefix = "" if manifest.ref.kind == "model" else f"{manifest.ref.kind}s/"
        return f"{mirror.base}/{prefix}{manifest.name}/resolve/{manifest.commit}/{quote(file.path)}"

    def shortcuts(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
        """`/api/resolve-cache/{kind}s/{id}/{commit}/{path}`, where the Hub's 307 for a file that is in git leads.

        The Hub writes a slash in the path as %2F; others may leave it.
        """
        if file.digest is None or file.digest.algorithm != "git-sha1":
            return ()
        folder = f"{mirror.base}/api/resolve-cache/{manifest.ref.kind}s/{manifest.name}/{manifest.commit}/"
        return tuple(dict.fromkeys(folder + quote(file.path, safe) for safe in ("", "/")))

    def sends_on(self, mirror: Mirror, manifest: Manifest) -> bool:
        """The Hub itself, for repos of a user or an organisation whose bytes are for everybody."""
        return urlsplit(mirror.base).hostname == "huggingface.co" and "/" in manifest.name and not manifest.restricted

    def locate(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, http: Http) -> MirrorUrl | None:
        """One HEAD; its Location is the signed address, which is not followed.

        One more, without the token, to a mirror that has one of its own and sends no Location: its bytes may need it.
        """
        url = self.file_url(mirror, manifest, file)
        response = http.head(url, anonymous=mirror.anonymous)
        if response.status >= 400:
            raise self.refused(mirror, manifest, file, response, http)
        _check_same(response, mirror, manifest, file)
        target = redirect_target(response)
        if target:
            check_redirect(response.url, target)
            return MirrorUrl(mirror, target, expiry(target))
        if response.status != 200:
            raise NetworkError(
                f"{mirror.base} returned HTTP {response.status} for {file.path} without a file URL", _MIRROR_HINT
            )
        if manifest.restricted and not mirror.anonymous and http.has_credential(url):
            return None
        if mirror.own_token and http.head(response.url, anonymous=True).status != 200:
            return None
        return MirrorUrl(mirror, response.url, expiry(response.url))

    def stated(self, headers: Mapping[str, str]) -> Stated:
        """By `X-Repo-Commit`, `X-Linked-Size` and `X-Linked-Etag`, as huggingface_hub's constants.py names them.

        The etag of a large file is the content's sha256, of a small one the git blob id. Some caches strip the linked
        ones.
        """
        length = headers.get("x-linked-size", "").strip()
        etag = headers.get("x-linked-etag", "").strip().removeprefix("W/").strip('"')
        size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        return Stated(headers.get("x-repo-commit", "").strip(), size, etag)

    def whoami(self, base: str, http: Http, *, anonymous: bool) -> Response:
        """`/api/whoami-v2`, which every hub answers with JSON."""
        with http.open("GET", f"{base}/api/whoami-v2", anonymous=anonymous) as (head, chunks):
            target = redirect_target(head)
            if target:
                raise NotAHub(
                    f"{base} does not respond like a hub: it redirects to {urlsplit(target).hostname}", _PORTAL
                )
            body = b""
            for chunk in chunks:
                body += chunk
                if len(body) > _CEILING:
                    break
        response = Response(head.status, head.url, head.headers, body)
        if response.status >= 500:
            raise NetworkError(f"{base} returned HTTP {response.status}", _AGAIN)
        if response.status != 429 and not _is_object(body):
            kind = response.headers.get("content-type", "no content type").partition(";")[0]
            raise NotAHub(f"{base} does not respond like a hub ({kind} instead of JSON)", _PORTAL)
        return response

    def check(self, response: Response, mirror: Mirror, manifest: Manifest) -> None:
        """By X-Repo-Commit, which every hub sends."""
        _check_commit(response, mirror, manifest)

    def refused(
        self, mirror: Mirror, manifest: Manifest, file: RemoteFile, response: Response, http: Http
    ) -> GpuariaError:
        """By X-Error-Code first, then X-Error-Message, then status."""
        return _refusal(response, manifest.ref, mirror.base, http, file.path)


_NOT_A_HUB_HINT = "A captive portal or a broken mirror may have responded; check HF_ENDPOINT and --mirror."
_MIRROR_HINT = "Try again, or use another endpoint."
_CEILING = 1 << 20  # bytes of a response to whoami
_AGAIN = "gpuaria doctor  # again, once the endpoint answers"
_PORTAL = "export HF_ENDPOINT=https://huggingface.co  # or log in to this network in a browser"


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _about(ref: RepoRef, name: str, revision: str, endpoint: str) -> str:
    """Return the URL of a repo's metadata at a revision."""
    return f"{endpoint}/api/{ref.kind}s/{name}/revision/{quote(revision, safe='')}"


def _siblings(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the files listed in a repo's metadata; empty if there is no list."""
    siblings = info.get("siblings")
    return [one for one in siblings if isinstance(one, dict)] if isinstance(siblings, list) else []


def _entries(siblings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files that a repo's own page counts up, as its tree does; nothing where only the tree tells all."""
    entries = []
    for one in siblings if len(siblings) <= AT_ONCE else ():
        path, oid, size, lfs = (one.get(key) for key in ("rfilename", "blobId", "size", "lfs"))
        no_bytes = size == 0 and not lfs and str(oid) not in EMPTY  # a submodule, perhaps
        if not isinstance(path, str) or oid is None or size is None or no_bytes:
            return []
        large = {"oid": lfs.get("sha256"), "size": lfs.get("size")} if isinstance(lfs, dict) else lfs
        entries.append({"type": "file", "path": path, "oid": oid, "size": size, "lfs": large})
    return entries


def _json(response: Response, endpoint: str) -> Any:
    """Return the JSON of a successful response; None for any other response. Raises NotAHub."""
    if response.status != 200:
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise NotAHub(f"{endpoint} does not respond like a hub ({kind} instead of JSON)", _NOT_A_HUB_HINT) from None


def _next_page(response: Response, tree: str, endpoint: str) -> str:
    """The next page's address, moved to the endpoint in use: a naive proxy passes the hub's own host through."""
    match = _NEXT.search(response.headers.get("link", ""))
    if not match:
        return ""
    try:
        link = urljoin(response.url, match[1])
        target, foreign = urlsplit(link), url_origin(link) != url_origin(endpoint)
    except ValueError:
        raise BadListing(f"{endpoint} continues its file list at an invalid URL", _MIRROR_HINT) from None
    if foreign and target.hostname not in references.HUB_HOSTS:
        elsewhere = f"{target.scheme}://{authority(link)}"
        raise BadListing(f"{endpoint} continues its file list on another server, {elsewhere}", _MIRROR_HINT)
    if not target.path.endswith(urlsplit(tree).path.removeprefix(urlsplit(endpoint).path)):
        raise BadListing(f"{endpoint} continues its file list at another path", _MIRROR_HINT)
    pairs = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in parse_qsl(target.query))
    return f"{tree}?{pairs}"


def _file(entry: Mapping[str, Any]) -> RemoteFile:
    """One tree entry, checked; the pointer rebuilt from sha256 and size must hash to the entry's own git id."""
    path, size, oid, lfs = entry.get("path"), entry.get("size"), entry.get("oid"), entry.get("lfs")
    if not isinstance(path, str):
        raise BadListing("the file list has an entry without a name", _MIRROR_HINT)
    shown = printable(path)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        raise BadListing(f"the file list has an invalid size for {shown}: {size!r:.40}", _MIRROR_HINT)
    if not isinstance(oid, str) or not _SHA1.fullmatch(oid):
        raise BadListing(f"the file list has no valid git id for {shown}", _MIRROR_HINT)
    safe = SafePath.parse(path)
    if lfs is None:
        return RemoteFile(safe, size, Digest("git-sha1", oid), oid)
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or lfs.get("size") != size:
        raise BadListing(f"the file list has no valid LFS digest and size for {shown}", _MIRROR_HINT)
    if lfs_pointer_oid(sha256, size) != oid:
        raise BadListing(
            f"the file list contradicts itself: the sha256 of {shown} does not match its git id", _MIRROR_HINT
        )
    return RemoteFile(safe, size, Digest("sha256", sha256), oid)


def _check_commit(response: Response, mirror: Mirror, manifest: Manifest) -> None:
    """Raise NotAHub or NetworkError where a mirror does not respond for the manifest's commit."""
    commit = response.headers.get("x-repo-commit", "")
    if not commit:
        raise NotAHub(f"{mirror.base} sent no X-Repo-Commit header: it is not a hub", _NOT_A_HUB_HINT)
    if commit != manifest.commit:
        raise NetworkError(f"{mirror.base} serves commit {commit[:12]} instead of {manifest.commit[:12]}")


def _check_same(response: Response, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> None:
    """Raise NetworkError if a mirror's response is for other bytes than the manifest's."""
    _check_commit(response, mirror, manifest)
    size = response.headers.get("x-linked-size", "")
    if size and size != str(file.size):
        raise NetworkError(f"{mirror.base} reports a wrong size for {file.path}: {size} bytes, not {file.size}")
    etag = response.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
    if etag and file.digest and len(etag) == len(file.digest.hex) and etag != file.digest.hex:
        raise NetworkError(
            f"{mirror.base} reports a wrong digest for {file.path}: {etag[:12]}, not {file.digest.hex[:12]}"
        )


def _not_the_hubs(response: Response) -> bool:
    """True if something on the way refused an API request: 451, or a 403 that carries no JSON and no hub's header."""
    html = response.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json"
    named = any(name.startswith("x-error-") for name in response.headers)
    return response.status == 451 or (response.status == 403 and html and not named)


def _refusal(response: Response, ref: RepoRef, endpoint: str, http: Http, path: str = "") -> GpuariaError:
    """An response that is no success, as the error it stands for: X-Error-Code first, then message, then status."""
    code, text = response.headers.get("x-error-code", ""), response.headers.get("x-error-message", "")
    prefix = "" if ref.kind == "model" else f"{ref.kind}s/"
    page, sent = f"{endpoint}/{prefix}{ref.name}", http.has_credential(endpoint)
    status = response.status
    if code == "GatedRepo":
        if sent and status == 401:  # 403 is what a token that the hub knows gets without a grant
            return BadToken(
                f"{endpoint} rejects your token, and {ref.name} is gated",
                f"Create a token at {endpoint}/settings/tokens, for an account that has accepted the terms at {page}.",
            )
        if sent:
            return Gated(
                f"{ref.name} is gated, and your token has no access to it",
                f"Request access at {page}, and check that the token may read gated repos.",
            )
        return Gated(
            f"{ref.name} is gated: you must accept its terms first",
            f"Accept them at {page}, then pass your token in HF_TOKEN or with --token.",
        )
    if code == "RevisionNotFound":
        return RevisionNotFound(
            f"{ref.name} has no revision {ref.revision!r}", f"See the branches at {page}/tree/main."
        )
    if code == "EntryNotFound" or (status in (404, 410) and path and code != "RepoNotFound"):
        return FileNotInRepo(f"{endpoint} has no file {path or ref.path!r} in {ref.name}")
    if "Invalid credentials" in text or (status == 401 and sent):
        return BadToken(f"{endpoint} rejects your token", "Create a new token in your settings there, or unset it.")
    if code == "RepoNotFound" or status in (401, 404, 410):
        other = "--type dataset" if ref.kind == "model" else "--type model"
        unseen = "" if sent else ", or it is private and no token was sent (HF_TOKEN, --token)"
        return RepoNotFound(
            f"{endpoint} has no {ref.kind} {ref.name}{unseen}",
            f"Check the spelling; is it another repo type ({other})?",
        )
    if not path and _not_the_hubs(response):
        return Blocked(
            f"access to {endpoint} is blocked: HTTP {status} with a page that is not the hub's", _NOT_A_HUB_HINT
        )
    if status == 403:
        return AccessDenied(f"{endpoint} refuses {ref.name}: {text or 'no reason given'}", f"See {page}.")
    if status == 429:
        return RateLimited(
            f"{endpoint} keeps returning HTTP 429 (too many requests)", "Log in: a token raises the quota."
        )
    if status == 200 or status < 400:
        return NotAHub(f"{endpoint} does not respond like a hub (HTTP {status})", _NOT_A_HUB_HINT)
    return NetworkError(
        f"{endpoint} returned HTTP {status} for {redacted(response.url).removeprefix(endpoint)}", "Try again later."
    )
