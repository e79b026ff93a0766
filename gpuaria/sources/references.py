"""Parse references to repos of the Hub: names, `hf:` references, URLs of pages. Pure."""

import re
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from gpuaria.errors import UnsafePath, UsageError
from gpuaria.paths import SafePath
from gpuaria.records import RepoKind, RepoRef
from gpuaria.text import printable
from gpuaria.urls import redacted

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com")
_KINDS: dict[str, RepoKind] = {"models": "model", "datasets": "dataset", "spaces": "space"}
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION_HINT = "Give a branch, a tag or a commit."


def parse(text: str, kind: RepoKind | None, revision: str, endpoints: Sequence[str], default: str) -> RepoRef:
    """Parse `name`, `org/name@rev`, `hf:datasets/org/name`, `hf://…`, or the URL of a repo, tree or blob page.

    Only in `hf://` a path may follow the revision, as in fsspec; elsewhere a slash belongs to the branch. The path of
    a tree page is a folder and ends in a slash. Raises UsageError.
    """
    rest, path, from_text = text.strip(), "", ""
    if re.match(r"https?://", rest, re.IGNORECASE):
        names, from_text, path = _split_page(_page_path(rest, endpoints))
    else:
        name, at, after = re.sub(r"^hf:(//)?", "", rest).partition("@")
        names = name.strip("/").split("/")
        if not rest.startswith("hf://"):
            from_text = unquote(after)
        elif match := re.fullmatch(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.*))?", after, re.DOTALL):
            from_text, path = unquote(match[1]), match[2] or ""
        if at and not from_text:
            raise UsageError(f"{printable(text)} names no revision after the @", "Leave out the @ for main.")
    named: RepoKind | None = None
    if names[0] in _KINDS and len(names) > 1:
        named, names = _KINDS[names[0]], names[1:]
    if kind and named and kind != named:
        raise UsageError(f"{printable(text)} names a {named}, --type says {kind}", "Leave one of them out.")
    if not is_name(names):
        raise UsageError(f"{printable(text)} is not a repo name", "Give it as name or organisation/name.")
    if revision and from_text and revision != from_text:
        raise UsageError(
            f"{printable(text)} names another revision than --revision {printable(revision)}",
            "Leave one of them out.",
        )
    chosen = revision or from_text or default
    _check_revision(chosen)
    return RepoRef("hf", kind or named or "model", "/".join(names), chosen, path)


def is_name(parts: Sequence[str]) -> bool:
    """True if the parts between slashes are a valid `name` or `organisation/name` of the Hub."""
    return 1 <= len(parts) <= 2 and all(_is_valid_part(part) for part in parts)


def _is_valid_part(part: str) -> bool:
    return bool(_NAME.fullmatch(part)) and "--" not in part and ".." not in part and not part.endswith(".git")


def _check_revision(revision: str) -> None:
    try:
        SafePath.parse(revision)
    except UnsafePath as error:
        why = error.message.rpartition(": ")[2]
        raise UsageError(f"{printable(revision)} is not a revision: {why}", _REVISION_HINT) from None
    if revision.startswith("-") or re.search(r"[\s~^:?*\[]", revision):
        raise UsageError(f"{printable(revision)} is not a revision", _REVISION_HINT)


def _page_path(url: str, endpoints: Sequence[str]) -> list[str]:
    """The parts of a page's path below its hub, each decoded by itself: a branch may be `feature%2Fx`."""
    for base in (*endpoints, *(f"https://{host}" for host in HUB_HOSTS)):
        try:
            parts, hub = urlsplit(url), urlsplit(base)
            same = parts.username is None and (parts.hostname, parts.port) == (hub.hostname, hub.port)
        except ValueError:
            continue
        folder = hub.path.rstrip("/")
        if same and f"{parts.path}/".startswith(f"{folder}/"):
            return [unquote(part) for part in parts.path.removeprefix(folder).strip("/").split("/")]
    raise UsageError(
        f"{redacted(url)} is not a URL of the configured hub ({', '.join(map(redacted, endpoints))})",
        "Give the repo's name, or set HF_ENDPOINT to that hub.",
    )


def _split_page(parts: list[str]) -> tuple[list[str], str, str]:
    """Split the path of a hub page into names, revision and path inside the repo."""
    start = 1 if parts[0] in _KINDS else 0
    for at in range(start + 1, min(len(parts), start + 3)):
        if parts[at] in ("tree", "blob", "resolve", "raw", "blame", "commits", "commit", "discussions", "settings"):
            after = parts[at + 1 :]
            if at == start + 1 and len(parts) == at + 1 and parts[at] not in ("discussions", "settings"):
                continue  # a repo with that name: org/tree
            if parts[at] in ("discussions", "settings") or not after:
                return parts[:at], "", ""
            if after[0] == "refs" and len(after) >= 3:
                return parts[:at], "/".join(after[:3]), _path_in_repo(parts[at], after[3:])
            return parts[:at], after[0], _path_in_repo(parts[at], after[1:])
    return parts, "", ""


def _path_in_repo(page: str, parts: list[str]) -> str:
    """Return the path inside the repo that a page shows; a folder ("tree") ends in a slash."""
    if page == "commits" or not parts:
        return ""
    return "/".join(parts) + ("/" if page == "tree" else "")
