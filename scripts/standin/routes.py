"""The hub's routes: from a request to status, headers and body, without sockets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlencode

from . import documents, gitserver
from .http_server import BadRange, parse_range
from .repo import Commit, Entry, Repo, pointer_text

if TYPE_CHECKING:
    from .hub import Hub

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
PREFIXES = {"datasets": "dataset", "spaces": "space"}
_VERBS = ("revision", "tree", "refs", "paths-info", "resolve", "raw")
_EXPANDED_PAGE = 50


@dataclass(frozen=True)
class Request:
    """One request to the hub; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def parts(self) -> list[str]:
        """The segments of the path, still quoted."""
        return self.target.partition("?")[0].strip("/").split("/")

    def value(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True).get(name, [default])[-1]

    def flag(self, name: str) -> bool:
        """Return True if a query parameter is "true" or "1"."""
        return self.value(name).lower() in ("true", "1")


@dataclass
class Reply:
    """Status, headers and body to send."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class Refusal(Exception):
    """An error response of the Hub. code: X-Error-Code; commit: X-Repo-Commit; both optional."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


class Moved(Exception):
    """The repository was renamed. The text is the relative URL to redirect to."""


def bucket(target: str) -> str:
    """Return the rate-limit bucket of a request: resolve and resolve-cache count as resolvers."""
    path = target.partition("?")[0]
    if path.startswith("/api/resolve-cache/") or "/resolve/" in path:
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"


def respond(hub: Hub, request: Request) -> Reply:
    """Return the hub's reply to a request."""
    try:
        return _route(hub, request)
    except Moved as moved:
        return _redirect(307, str(moved), "Temporary Redirect")
    except Refusal as refusal:
        return _refuse(refusal, json_body=request.target.startswith("/api/"))


def _route(hub: Hub, request: Request) -> Reply:
    parts = request.parts
    if parts == ["api", "whoami-v2"]:
        return _whoami(hub, request)
    if parts[:2] == ["api", "resolve-cache"] and len(parts) > 4 and parts[2] in KINDS:
        return _cached(hub, request)
    if parts[0] == "api" and len(parts) > 2 and parts[1] in KINDS:
        return _api(hub, request)
    head = parts[:1] if parts[0] in PREFIXES else []
    if parts[-2:] == ["info", "refs"] or parts[-1] == "git-upload-pack":
        return _git(hub, request, head)
    if {"resolve", "raw"} & set(parts[len(head) + 1 : len(head) + 3]):
        return _file(hub, request, head)
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")


def _whoami(hub: Hub, request: Request) -> Reply:
    who = hub.token_status(request.headers)
    if who == "bad":
        raise Refusal(401, "Invalid credentials in Authorization header")
    if who == "anonymous":
        raise Refusal(401, "Invalid username or password.")
    token = {"displayName": "standin", "role": "read"}
    auth = {"type": "access_token", "accessToken": token}
    return _json({"type": "user", "id": "0" * 24, "name": "standin", "fullname": "Stand In", "orgs": [], "auth": auth})


def _enter(hub: Hub, request: Request, head: list[str], *, content: bool) -> tuple[Repo, list[str]]:
    """Return the repository of a path and the segments after its name. Raises Refusal or Moved."""
    kind = KINDS.get(head[-1], "model") if head and head[0] == "api" else PREFIXES.get(head[0] if head else "", "model")
    parts = request.parts[len(head) :]
    name, rest = _split_name(hub, kind, parts)
    repo, who = hub.find(kind, name), hub.token_status(request.headers)
    if who == "bad" and not (repo and repo.gated and content):
        raise Refusal(401, "Invalid credentials in Authorization header")
    if repo is None or (repo.private and who in ("anonymous", "bad")):
        if who == "anonymous":
            raise Refusal(401, "Invalid username or password.")
        raise Refusal(404, "Repository not found", "RepoNotFound")
    if repo.repo_id != name:
        query = request.target.partition("?")[1:]
        raise Moved("/" + "/".join([*head, quote(repo.repo_id), *rest]) + "".join(query))
    if repo.disabled:
        raise Refusal(403, "Access to this resource is disabled.")
    if content and repo.gated and who != "granted":
        text = f"Access to {repo.kind} {repo.repo_id} is restricted"
        if who == "valid":
            raise Refusal(403, f"{text} and you are not in the authorized list.", "GatedRepo")
        raise Refusal(401, f"{text}. You must have access to it and be authenticated to access it.", "GatedRepo")
    return repo, rest


def _split_name(hub: Hub, kind: str, parts: list[str]) -> tuple[str, list[str]]:
    for size in (2, 1):
        name = "/".join(map(unquote, parts[:size]))
        if len(parts) >= size and hub.find(kind, name):
            return name, parts[size:]
    size = 1 if len(parts) < 2 or parts[1] in _VERBS else 2
    return "/".join(map(unquote, parts[:size])), parts[size:]


def _revision(repo: Repo, quoted: str) -> Commit:
    revision = unquote(quoted)
    commit = repo.resolve(revision)
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return repo.commits[commit]


def _api(hub: Hub, request: Request) -> Reply:
    repo, rest = _enter(hub, request, request.parts[:2], content=False)
    verb = rest[0] if rest else "revision"
    if verb == "refs" and len(rest) == 1:
        return _json(documents.refs(repo, pulls=request.flag("include_prs")))
    if verb == "tree" and len(rest) > 1:
        return _tree(hub, request, repo, rest)
    if verb == "paths-info" and len(rest) == 2 and request.method == "POST":
        return _paths_info(hub, request, repo, _revision(repo, rest[1]))
    if verb == "revision" and len(rest) in (0, 2):
        commit = _revision(repo, rest[1] if rest else quote(repo.branch, safe=""))
        blobs, security = request.flag("blobs"), request.flag("securityStatus")
        return _json(documents.info(repo, commit, blobs=blobs, security=security))
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")


def _tree(hub: Hub, request: Request, repo: Repo, rest: list[str]) -> Reply:
    commit = _revision(repo, rest[1])
    expand, folder = request.flag("expand"), unquote("/".join(rest[2:])).strip("/")
    paths = documents.paths_in(commit, folder, recursive=request.flag("recursive"))
    if paths is None:
        raise Refusal(404, f"{folder} does not exist on this revision", "EntryNotFound", commit.oid)
    asked = request.value("limit")
    limit = min(int(asked) if asked.isdecimal() and int(asked) else hub.page, hub.page)
    limit = min(limit, _EXPANDED_PAGE) if expand else limit
    start = 0
    if mark := request.value("cursor"):
        try:
            start = paths.index(documents.after(mark)) + 1
        except (ValueError, KeyError, TypeError) as error:
            raise Refusal(400, "Invalid cursor") from error
    chosen = paths[start : start + limit]
    reply = _json([documents.item(repo, commit, path, expand=expand, xet=hub.xet_hash) for path in chosen])
    if start + limit < len(paths):
        query = {name: request.value(name) for name in ("expand", "recursive") if request.value(name)}
        query |= {"limit": str(limit), "cursor": documents.cursor(commit, chosen[-1], limit)}
        path = request.target.partition("?")[0]
        reply.headers.append(("Link", f'<{hub.link_host or hub.url}{path}?{urlencode(query)}>; rel="next"'))
    return reply


def _paths_info(hub: Hub, request: Request, repo: Repo, commit: Commit) -> Reply:
    try:
        if "json" in request.headers.get("content-type", ""):
            form = json.loads(request.body)
            paths, expand = form["paths"], bool(form.get("expand"))
        else:
            fields = parse_qs(request.body.decode(), keep_blank_values=True)
            paths, expand = fields["paths"], fields.get("expand", [""])[-1].lower() in ("true", "1")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(400, "Invalid body: paths are required") from error
    names = [paths] if isinstance(paths, str) else paths
    found = [name for name in names if name in commit.listing]
    return _json([documents.item(repo, commit, name, expand=expand, xet=hub.xet_hash) for name in found])


def _entry(commit: Commit, quoted: list[str]) -> Entry:
    path = "/".join(map(unquote, quoted))
    if path not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", commit.oid)
    return commit.files[path]


def _cached(hub: Hub, request: Request) -> Reply:
    repo, rest = _enter(hub, request, request.parts[:3], content=True)
    commit = _revision(repo, rest[0]) if rest else None
    if commit is None or (hub.sealed_cache and "etag=" not in request.target):
        raise Refusal(404, "Entry not found", "EntryNotFound")
    if hub.cache_slash not in "/".join(rest[1:]) and "/" in unquote("/".join(rest[1:])):
        raise Refusal(404, "Sorry, we can't find the page you are looking for.")
    return _content(request, commit, _entry(commit, rest[1:]))


def _git(hub: Hub, request: Request, head: list[str]) -> Reply:
    """Reply to git, which may append `.git` to the repository."""
    repo, rest = _enter(hub, replace(request, target=request.target.replace(".git/", "/", 1)), head, content=True)
    if "version=2" not in request.headers.get("git-protocol", ""):
        raise Refusal(400, "This hub speaks version 2 of git's protocol only.")
    kind = f"application/x-{request.value('service')}-advertisement"
    try:
        if rest == ["info", "refs"] and request.value("service") == "git-upload-pack":
            return Reply(200, [("Content-Type", kind), ("Cache-Control", "no-cache")], gitserver.advertisement())
        if rest == ["git-upload-pack"] and request.method == "POST":
            packed = request.headers.get("content-encoding") == "gzip"
            reply = gitserver.upload_pack(repo, gzip.decompress(request.body) if packed else request.body)
            return Reply(200, [("Content-Type", "application/x-git-upload-pack-result")], reply)
    except ValueError as error:
        raise Refusal(400, str(error)) from error
    raise Refusal(403, "Only git-upload-pack is served here.")


def _file(hub: Hub, request: Request, head: list[str]) -> Reply:
    repo, rest = _enter(hub, request, head, content=True)
    if len(rest) < 3 or rest[0] not in ("resolve", "raw"):
        raise Refusal(404, "Sorry, we can't find the page you are looking for.")
    commit = _revision(repo, rest[1])
    entry = _entry(commit, rest[2:])
    if rest[0] == "raw":
        return _ranged(request, commit, entry, _raw(entry))
    if entry.size and entry.sha256:
        return _shape_b(hub, repo, commit, entry)
    if not entry.size or repo.private or repo.gated or repo.direct or "/" not in repo.repo_id:
        return _content(request, commit, entry)
    return _shape_a(hub, request, repo, commit, entry)


def _shape_a(hub: Hub, request: Request, repo: Repo, commit: Commit, entry: Entry) -> Reply:
    """Return the reply for a small file of a public repository: a relative redirect to the resolve cache."""
    path = request.target.partition("?")[0]
    query = urlencode({path: "", "etag": f'"{entry.oid}"'})
    path = hub.cache_slash.join(quote(part, safe="") for part in entry.path.split("/"))
    location = f"/api/resolve-cache/{repo.kind}s/{repo.repo_id}/{commit.oid}/{path}?{query}"
    reply = _redirect(307, location, "Temporary Redirect")
    reply.headers += [("X-Repo-Commit", commit.oid), ("X-Linked-Etag", f'"{entry.oid}"')]
    return reply


def _shape_b(hub: Hub, repo: Repo, commit: Commit, entry: Entry) -> Reply:
    """Return the reply for an LFS file: an absolute redirect to a signed URL at the byte server."""
    reply = _redirect(302, hub.signed_url(repo, entry), "Found")
    reply.headers += [
        ("X-Repo-Commit", commit.oid),
        ("X-Linked-Size", str(entry.size)),
        ("X-Linked-Etag", f'"{entry.sha256}"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", "no-store"),
    ]
    if hub.xet_hash:
        auth = f"{hub.link_host or hub.url}/api/{repo.kind}s/{repo.repo_id}/xet-read-token/{commit.oid}"
        plan = f"https://cas-server.xethub.hf.co/v1/reconstructions/{entry.xet}"
        reply.headers += [
            ("X-Xet-Hash", entry.xet),
            ("Link", f'<{auth}>; rel="xet-auth", <{plan}>; rel="xet-reconstruction-info"'),
        ]
    return reply


def _content(request: Request, commit: Commit, entry: Entry) -> Reply:
    """Return the file itself, as the resolve cache and shape C do."""
    return _ranged(request, commit, entry, entry.file.read_bytes)


def _raw(entry: Entry) -> Callable[[], bytes]:
    return (lambda: pointer_text(entry.sha256, entry.size)) if entry.sha256 else entry.file.read_bytes


def _ranged(request: Request, commit: Commit, entry: Entry, read: Callable[[], bytes]) -> Reply:
    data, etag = read(), f'"{entry.etag}"'
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Repo-Commit", commit.oid),
        ("ETag", etag),
        ("X-Linked-Etag", etag),
        ("X-Linked-Size", str(len(data))),
        ("Accept-Ranges", "bytes"),
        ("Content-Disposition", f"inline; filename*=UTF-8''{quote(entry.path.split('/')[-1])}"),
    ]
    wanted = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    try:
        span = parse_range(wanted, len(data))
    except BadRange:
        return Reply(416, [("Content-Range", f"bytes */{len(data)}"), ("X-Repo-Commit", commit.oid)])
    if span is None:
        return Reply(200, headers, data)
    start, end = span
    return Reply(206, [*headers, ("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")], data[start:end])


def _json(value: object) -> Reply:
    return Reply(200, [("Content-Type", "application/json; charset=utf-8")], documents.dump(value))


def _redirect(status: int, location: str, phrase: str) -> Reply:
    text = f"{phrase}. Redirecting to {location}"
    return Reply(status, [("Content-Type", "text/plain; charset=utf-8"), ("Location", location)], text.encode())


def _refuse(refusal: Refusal, *, json_body: bool) -> Reply:
    headers = [("X-Error-Message", refusal.message.encode("ascii", "replace").decode().replace("\n", " "))]
    if refusal.code:
        headers.append(("X-Error-Code", refusal.code))
    if refusal.commit:
        headers.append(("X-Repo-Commit", refusal.commit))
    if json_body:
        body = documents.dump({"error": refusal.message})
        return Reply(refusal.status, [("Content-Type", "application/json; charset=utf-8"), *headers], body)
    return Reply(refusal.status, [("Content-Type", "text/plain; charset=utf-8"), *headers], refusal.message.encode())


def too_many(seconds: int) -> Reply:
    """Return the reply for an exhausted rate limit: status 429 with an HTML page."""
    page = b"<!DOCTYPE html><html><body><h1>429</h1><p>We had to rate limit your IP.</p></body></html>"
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Retry-After", str(seconds))]
    return Reply(HTTPStatus.TOO_MANY_REQUESTS, headers, page)
