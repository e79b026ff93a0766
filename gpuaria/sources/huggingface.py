"""The Hugging Face Hub, and mirrors that speak its protocol.

Formats follow huggingface_hub 2.x and docs/hub. A resolve request returns the bytes, a redirect within the hub (a file
in git, or a renamed repo), or a redirect to a signed URL on another host (a file in LFS).
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from gpuaria.errors import (
    AccessDenied,
    BadListing,
    GpuariaError,
    NetworkError,
    NotAHub,
    UnsafePath,
)
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.http.redirects import redirect_target
from gpuaria.records import Manifest, Mirror, MirrorUrl, RemoteFile, RepoKind, RepoRef
from gpuaria.sources import git, git_verify, references
from gpuaria.sources.git_verify import MAX_ENTRIES
from gpuaria.sources.hub_listing import MAX_NAMES, SHA1, next_page, remote_file, siblings, tree_entries
from gpuaria.sources.hub_responses import (
    MIRROR_HINT,
    NOT_A_HUB_HINT,
    check_commit,
    check_same_file,
    parse_json,
    refusal_error,
)
from gpuaria.sources.protocol import About, RepoInfo, Stated
from gpuaria.sources.web import expiry
from gpuaria.text import printable
from gpuaria.urls import check_redirect

MAX_PAGES = 20_000
PAGE = 1000  # entries per page of a tree
FILES_TOO = "blobs=true"  # query for repo metadata with sizes and ids of files


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
        """Parse a reference; see references.parse."""
        return references.parse(text, kind, revision, endpoints, default)

    def resolve(self, ref: RepoRef, mirror: Mirror, http: Http, wanted: Callable[[str], bool]) -> Manifest:
        """List the current commit of the revision."""
        return self.listing(ref, self.commit(ref, mirror.base, http), mirror.base, http, wanted)

    def commit(self, ref: RepoRef, endpoint: str, http: Http) -> RepoInfo:
        """Resolve the revision in one request, two if the repo was renamed.

        The second request also asks for the files, except for a dataset, which may have too many for one response.
        """
        url = _info_url(ref, ref.name, ref.revision, endpoint)
        response = http.get(url, redirect_query="" if ref.kind == "dataset" else FILES_TOO)
        info = parse_json(response, endpoint)
        if not isinstance(info, dict):
            raise refusal_error(response, ref, endpoint, http)
        commit, name = info.get("sha"), info.get("id") or ref.name
        if not isinstance(commit, str) or not SHA1.fullmatch(commit) or not isinstance(name, str):
            raise NotAHub(f"{endpoint} returned no commit id for {ref.name}", NOT_A_HUB_HINT)
        if not references.is_name(name.split("/")):
            raise NotAHub(f"{endpoint} returned an invalid repo name: {printable(name)}", NOT_A_HUB_HINT)
        if SHA1.fullmatch(ref.revision) and ref.revision != commit:
            raise NotAHub(f"{endpoint} returned commit {commit} instead of {ref.revision}", NOT_A_HUB_HINT)
        if info.get("disabled") is True:
            raise AccessDenied(f"the hub has disabled {name}", f"See {endpoint}/{name} for the reason.")
        restricted, listed = bool(info.get("private")) or bool(info.get("gated")), siblings(info)
        named = frozenset(path for one in listed if isinstance(path := one.get("rfilename"), str))
        return RepoInfo(name, commit, restricted, named, tree_entries(listed))

    def listing(
        self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http, wanted: Callable[[str], bool]
    ) -> Manifest:
        """List the files of the commit, in one response if possible, else from the recursive tree, page by page."""
        files: dict[str, RemoteFile] = {}
        for entry in (
            info.entries or self._all_entries(ref, info, endpoint, http) or self._tree(ref, info, endpoint, http)
        ):
            if entry.get("type") in ("directory", "unknown"):  # "unknown": a submodule
                continue
            if entry.get("type") != "file":
                raise BadListing(f"{endpoint} lists an entry that is neither file nor folder", MIRROR_HINT)
            try:
                file = remote_file(entry)
            except UnsafePath:
                if wanted(str(entry.get("path"))):
                    raise
                continue
            known = files.setdefault(file.path, file)
            if known != file:
                raise BadListing(f"{endpoint} lists {printable(file.path)} twice, differently", MIRROR_HINT)
        ordered = tuple(files[path] for path in sorted(files))
        return Manifest(ref, info.name, info.commit, endpoint, "origin", ordered, info.restricted)

    def _all_entries(self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http) -> Sequence[Mapping[str, Any]]:
        """Return all files in one request if the tree has more than two pages; empty if that fails."""
        if not 2 * PAGE < len(info.names) <= MAX_NAMES:
            return ()
        try:
            about = parse_json(http.get(f"{_info_url(ref, info.name, info.commit, endpoint)}?{FILES_TOO}"), endpoint)
        except NetworkError:  # if the cause is not the size, requesting the tree fails too
            return ()
        entries = tree_entries(siblings(about)) if isinstance(about, dict) else ()
        return entries if {entry["path"] for entry in entries} == info.names else ()

    def _tree(self, ref: RepoRef, info: RepoInfo, endpoint: str, http: Http) -> Iterator[dict[str, Any]]:
        tree = f"{endpoint}/api/{ref.kind}s/{info.name}/tree/{info.commit}"
        url, seen, names, total = f"{tree}?recursive=true&expand=false", set[str](), set[str](), 0
        while url:
            if url in seen or len(seen) >= MAX_PAGES:
                raise BadListing(f"the file list of {info.name} at {endpoint} never ends", MIRROR_HINT)
            seen.add(url)
            response = http.get(url)
            page = parse_json(response, endpoint)
            if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
                raise refusal_error(response, ref, endpoint, http)
            total += len(page)
            if total > MAX_ENTRIES:
                raise BadListing(
                    f"{endpoint} lists more than {MAX_ENTRIES:,} files and folders in {info.name}",
                    "gpuaria cannot download a repo of this size. If it is smaller, the listing is wrong.",
                )
            yield from page
            before, url = len(names), next_page(response, tree, endpoint)
            names.update(str(entry.get("path")) for entry in page)
            if url and len(names) == before:
                raise BadListing(f"the file list of {info.name} at {endpoint} never ends: it repeats", MIRROR_HINT)
        if missing := info.names - names:
            raise BadListing(
                f"the file list of {info.name} at {endpoint} is incomplete: {printable(min(missing))} is missing",
                MIRROR_HINT,
            )

    def unproven(self, manifest: Manifest, mirror: Mirror, http: Http) -> str:
        """Check the manifest against git objects from the clone URL, `/{prefix}{id}`."""
        prefix = "" if manifest.ref.kind == "model" else f"{manifest.ref.kind}s/"
        try:
            sent = git.fetch_objects(f"{mirror.base}/{prefix}{manifest.name}", manifest.ref.revision, http)
        except NetworkError as error:
            return error.message
        return git_verify.unproven_reason(manifest.ref.revision, manifest, sent)

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """Return `/{prefix}{id}/resolve/{commit}/{path}`: always the commit, never a branch."""
        prefix = "" if manifest.ref.kind == "model" else f"{manifest.ref.kind}s/"
        return f"{mirror.base}/{prefix}{manifest.name}/resolve/{manifest.commit}/{quote(file.path)}"

    def shortcuts(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> tuple[str, ...]:
        """Return `/api/resolve-cache/{kind}s/{id}/{commit}/{path}`, the target of the Hub's 307 for a file in git.

        The Hub encodes a slash in the path as %2F; mirrors may not.
        """
        if file.digest is None or file.digest.algorithm != "git-sha1":
            return ()
        folder = f"{mirror.base}/api/resolve-cache/{manifest.ref.kind}s/{manifest.name}/{manifest.commit}/"
        return tuple(dict.fromkeys(folder + quote(file.path, safe) for safe in ("", "/")))

    def sends_on(self, mirror: Mirror, manifest: Manifest) -> bool:
        """True for public repos of a user or an organisation on the Hub itself."""
        return urlsplit(mirror.base).hostname == "huggingface.co" and "/" in manifest.name and not manifest.restricted

    def locate(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, http: Http) -> MirrorUrl | None:
        """Return the signed URL in the Location of one HEAD response, or the URL itself.

        If a mirror with its own token sends no Location, an anonymous HEAD checks whether its bytes need the token.
        """
        url = self.file_url(mirror, manifest, file)
        response = http.head(url, anonymous=mirror.anonymous)
        if response.status >= 400:
            raise self.refused(mirror, manifest, file, response, http)
        check_same_file(response, mirror, manifest, file)
        target = redirect_target(response)
        if target:
            check_redirect(response.url, target)
            return MirrorUrl(mirror, target, expiry(target))
        if response.status != 200:
            raise NetworkError(
                f"{mirror.base} returned HTTP {response.status} for {file.path} without a file URL", MIRROR_HINT
            )
        if manifest.restricted and not mirror.anonymous and http.has_credential(url):
            return None
        if mirror.own_token and http.head(response.url, anonymous=True).status != 200:
            return None
        return MirrorUrl(mirror, response.url, expiry(response.url))

    def stated(self, headers: Mapping[str, str]) -> Stated:
        """Read `X-Repo-Commit`, `X-Linked-Size` and `X-Linked-Etag` (huggingface_hub: constants.py).

        The etag is the sha256 of a large file, the git blob id of a small one. Some caches strip the linked headers.
        """
        length = headers.get("x-linked-size", "").strip()
        etag = headers.get("x-linked-etag", "").strip().removeprefix("W/").strip('"')
        size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        return Stated(headers.get("x-repo-commit", "").strip(), size, etag)

    def whoami(self, base: str, http: Http, *, anonymous: bool) -> Response:
        """Request `/api/whoami-v2`, to which every hub responds with JSON."""
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
        """Check X-Repo-Commit, which every hub sends."""
        check_commit(response, mirror, manifest)

    def refused(
        self, mirror: Mirror, manifest: Manifest, file: RemoteFile, response: Response, http: Http
    ) -> GpuariaError:
        """Return the error by X-Error-Code, then X-Error-Message, then status."""
        return refusal_error(response, manifest.ref, mirror.base, http, file.path)


_CEILING = 1 << 20  # bytes of a response to whoami
_AGAIN = "gpuaria doctor  # again, once the hub responds"
_PORTAL = "export HF_ENDPOINT=https://huggingface.co  # or log in to this network in a browser"


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _info_url(ref: RepoRef, name: str, revision: str, endpoint: str) -> str:
    """Return the URL of a repo's metadata at a revision."""
    return f"{endpoint}/api/{ref.kind}s/{name}/revision/{quote(revision, safe='')}"
