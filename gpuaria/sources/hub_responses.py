"""Check the responses of a hub, and turn an unsuccessful one into the error that it stands for."""

import json
from typing import Any

from gpuaria.errors import (
    AccessDenied,
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
)
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.records import Manifest, Mirror, RemoteFile, RepoRef
from gpuaria.urls import redacted

NOT_A_HUB_HINT = "A captive portal or a broken mirror may have responded; check HF_ENDPOINT and --mirror."
MIRROR_HINT = "Try again, or use another endpoint."


def parse_json(response: Response, endpoint: str) -> Any:
    """Return the JSON of a successful response; None for any other response. Raises NotAHub."""
    if response.status != 200:
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        kind = response.headers.get("content-type", "no content type").partition(";")[0]
        raise NotAHub(f"{endpoint} does not respond like a hub ({kind} instead of JSON)", NOT_A_HUB_HINT) from None


def check_commit(response: Response, mirror: Mirror, manifest: Manifest) -> None:
    """Raise NotAHub or NetworkError if a response is not for the manifest's commit."""
    commit = response.headers.get("x-repo-commit", "")
    if not commit:
        raise NotAHub(f"{mirror.base} sent no X-Repo-Commit header: it is not a hub", NOT_A_HUB_HINT)
    if commit != manifest.commit:
        raise NetworkError(f"{mirror.base} serves commit {commit[:12]} instead of {manifest.commit[:12]}")


def check_same_file(response: Response, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> None:
    """Raise NetworkError if a response has another commit, size or digest than the manifest."""
    check_commit(response, mirror, manifest)
    size = response.headers.get("x-linked-size", "")
    if size and size != str(file.size):
        raise NetworkError(f"{mirror.base} reports a wrong size for {file.path}: {size} bytes, not {file.size}")
    etag = response.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
    if etag and file.digest and len(etag) == len(file.digest.hex) and etag != file.digest.hex:
        raise NetworkError(
            f"{mirror.base} reports a wrong digest for {file.path}: {etag[:12]}, not {file.digest.hex[:12]}"
        )


def refusal_error(response: Response, ref: RepoRef, endpoint: str, http: Http, path: str = "") -> GpuariaError:
    """Return the error for an unsuccessful response, by X-Error-Code, then X-Error-Message, then status."""
    code, text = response.headers.get("x-error-code", ""), response.headers.get("x-error-message", "")
    prefix = "" if ref.kind == "model" else f"{ref.kind}s/"
    page, sent = f"{endpoint}/{prefix}{ref.name}", http.has_credential(endpoint)
    status = response.status
    if code == "GatedRepo":
        if sent and status == 401:  # a valid token without access gets 403
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
        return FileNotInRepo(
            f"{endpoint} has no file {path or ref.path!r} in {ref.name}", f"List the files: gpuaria resolve {ref.name}"
        )
    if "Invalid credentials" in text or (status == 401 and sent):
        return BadToken(f"{endpoint} rejects your token", "Create a new token in your settings there, or unset it.")
    if code == "RepoNotFound" or status in (401, 404, 410):
        other = "--type dataset" if ref.kind == "model" else "--type model"
        unseen = "" if sent else ", or it is private and no token was sent (HF_TOKEN, --token)"
        return RepoNotFound(
            f"{endpoint} has no {ref.kind} {ref.name}{unseen}",
            f"Check the spelling; is it another repo type ({other})?",
        )
    if not path and _is_blocked(response):
        return Blocked(
            f"access to {endpoint} is blocked: HTTP {status} with a page that is not the hub's", NOT_A_HUB_HINT
        )
    if status == 403:
        return AccessDenied(f"{endpoint} refuses {ref.name}: {text or 'no reason given'}", f"See {page}.")
    if status == 429:
        return RateLimited(
            f"{endpoint} keeps returning HTTP 429 (too many requests)", "Log in: a token raises the quota."
        )
    if status == 200 or status < 400:
        return NotAHub(f"{endpoint} does not respond like a hub (HTTP {status})", NOT_A_HUB_HINT)
    return NetworkError(
        f"{endpoint} returned HTTP {status} for {redacted(response.url).removeprefix(endpoint)}", "Try again later."
    )


def _is_blocked(response: Response) -> bool:
    """True if a middlebox blocked an API request: 451, or 403 with neither JSON nor a header of the hub."""
    html = response.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json"
    named = any(name.startswith("x-error-") for name in response.headers)
    return response.status == 451 or (response.status == 403 and html and not named)
