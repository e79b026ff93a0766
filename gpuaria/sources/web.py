"""Base class and helpers for sources whose files are URLs, with sizes reported by the server."""

import calendar
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qs, unquote, urlsplit

from gpuaria.errors import (
    AccessDenied,
    BadListing,
    FileNotInRepo,
    GpuariaError,
    NetworkError,
    NotAHub,
    RateLimited,
    UnsafePath,
    UsageError,
)
from gpuaria.http.client import Http
from gpuaria.http.content_range import content_range
from gpuaria.http.messages import Response
from gpuaria.http.redirects import redirect_target
from gpuaria.paths import SafePath
from gpuaria.records import Digest, Manifest, Mirror, MirrorUrl, RemoteFile, RepoKind, RepoRef
from gpuaria.sources.protocol import About, Wanted
from gpuaria.text import printable
from gpuaria.urls import check_redirect, redacted

PARALLEL_REQUESTS = 8  # requests for sizes
MAX_SIZE = 1 << 50
_PAGE = "text/html"


@dataclass(frozen=True, slots=True)
class Listed:
    """A file in a listing. `size`: bytes, None if not listed; `urls`: see RemoteFile."""

    path: SafePath
    size: int | None = None
    digest: Digest | None = None
    oid: str = ""
    urls: tuple[str, ...] = ()


class WebSource:
    """Base class of a source whose files are URLs below an endpoint.

    Subclasses define `about`, `resolve` and `file_url`.
    """

    about: About

    def parse(
        self, text: str, kind: RepoKind | None, revision: str, endpoints: Sequence[str], default: str = ""
    ) -> RepoRef:
        """Parse `scheme:REPO`, `scheme:REPO@REVISION`, or the URL of REPO below an endpoint. Raises UsageError."""
        rest = text.strip().removeprefix(f"{self.about.name}:").removeprefix("//")
        if "://" in rest:
            hosts = (f"https://{host}" for host in self.about.hosts)
            base = next((base for base in (*endpoints, *hosts) if base and rest.startswith(f"{base}/")), None)
            rest = unquote(urlsplit(rest.removeprefix(f"{base}/")).path) if base is not None else rest
        name, _, named = rest.strip("/").partition("@")
        try:
            return RepoRef(self.about.name, kind or "", str(SafePath.parse(name)), revision or named or default)
        except UnsafePath:
            hint = f"Give it as {self.about.name}:NAME."
            raise UsageError(f"{printable(text)} is not a name of {self.about.title}", hint) from None

    def resolve(self, ref: RepoRef, mirror: Mirror, http: Http, wanted: Wanted) -> Manifest:
        """See Source."""
        raise NotImplementedError

    def file_url(self, mirror: Mirror, manifest: Manifest, file: RemoteFile) -> str:
        """See Source."""
        raise NotImplementedError

    def locate(self, mirror: Mirror, manifest: Manifest, file: RemoteFile, http: Http) -> MirrorUrl | None:
        """Return the Location of one HEAD response, without following it, or the URL itself."""
        url = self.file_url(mirror, manifest, file)
        response = http.head(url, anonymous=mirror.anonymous)
        if target := redirect_target(response):
            check_redirect(response.url, target)
            return MirrorUrl(mirror, target, expiry(target))
        if response.status in (403, 405, 501):  # some servers refuse HEAD, or sign URLs for GET only
            return MirrorUrl(mirror, response.url, expiry(response.url))
        if response.status >= 300:
            raise self.refused(mirror, manifest, file, response, http)
        self.check(response, mirror, manifest)
        size = _length(response)
        if size is not None and size != file.size:
            raise NetworkError(f"{mirror.base} reports a wrong size for {file.path}: {size} bytes, not {file.size}")
        if manifest.restricted and not mirror.anonymous and http.has_credential(url):
            return None
        return MirrorUrl(mirror, response.url, expiry(response.url))

    def check(self, response: Response, mirror: Mirror, manifest: Manifest) -> None:
        """Accept every response; the download checks the size."""

    def refused(
        self, mirror: Mirror, manifest: Manifest, file: RemoteFile, response: Response, http: Http
    ) -> GpuariaError:
        """Return the error for the status."""
        return refusal(response, str(file.path))


def refusal(response: Response, what: str) -> GpuariaError:
    """Return the error for an unsuccessful response."""
    url, shown = redacted(response.url), printable(what)
    if response.status in (404, 410):
        return FileNotInRepo(f"{url} does not exist", f"Check the URL of {shown}.")
    if response.status in (401, 403):
        return AccessDenied(f"{url} denies access (HTTP {response.status})", "Add its token to the setting tokens.")
    if response.status == 429:
        return RateLimited(f"{url} keeps returning HTTP 429 (too many requests)", "Try again later.")
    return NetworkError(f"{url} returned HTTP {response.status}", "Try again later.")


def sized(files: Sequence[Listed], url_of: "Sequence[str]", http: Http, *, anonymous: bool = False) -> list[RemoteFile]:
    """Return the files with their sizes. A missing size is requested at the file's URL in `url_of` (same order).

    A file without a strong digest gets the server's ETag as its `oid`, which reveals a change. Raises NetworkError or
    NotFound for the first file without a size, BadListing if the server and the listing disagree.
    """

    def with_size(file: Listed, url: str) -> RemoteFile:
        size, oid = file.size, file.oid
        changeable = file.digest is None or file.digest.weak
        if size is None or (changeable and not oid):
            measured = measure(url, http, anonymous=anonymous)
            if size is not None and measured.size != size:
                raise BadListing(
                    f"{redacted(url)} has {measured.size} bytes, but the listing says {size}", "Correct the listing."
                )
            size, oid = measured.size, (oid or measured.tag) if changeable else oid
        return RemoteFile(file.path, size, file.digest, oid, file.urls)

    if len(files) < 2:
        return [with_size(file, url) for file, url in zip(files, url_of, strict=True)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL_REQUESTS, thread_name_prefix="gpuaria-size") as pool:
        tasks = [pool.submit(with_size, file, url) for file, url in zip(files, url_of, strict=True)]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True, slots=True)
class SizeAndTag:
    """A server's statements about a URL: `size` in bytes; `tag`, its ETag or Last-Modified, empty if neither."""

    size: int
    tag: str


def measure(url: str, http: Http, *, anonymous: bool = False) -> SizeAndTag:
    """Return size and tag of the file at `url`, by HEAD, else by a range request for its first byte.

    The credential is sent to its own URL origin only. Raises NotFound, AccessDenied, NetworkError; NotAHub if `url` is
    a web page.
    """
    response = http.head(url, anonymous=anonymous, cross_origin=True)
    size = _length(response) if response.status == 200 else None
    if size is None and response.status in (200, 403, 405, 501):
        response, size = _first_byte(url, http, anonymous)
    if response.status not in (200, 206):
        raise refusal(replace(response, url=url), urlsplit(url).path)
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == _PAGE and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        raise NotAHub(
            f"{redacted(url)} is a web page, not a file",
            "Give the URL of the file itself; a page of a hub, with HF_ENDPOINT set to that hub.",
        )
    if size is None:
        raise NetworkError(
            f"{redacted(url)} sends no Content-Length", "gpuaria does not download a file of unknown size."
        )
    tag = response.headers.get("etag", "").strip() or response.headers.get("last-modified", "").strip()
    return SizeAndTag(size, tag if tag.isprintable() else "")


def _first_byte(url: str, http: Http, anonymous: bool) -> tuple[Response, int | None]:
    with http.download(url, 0, 1, anonymous=anonymous) as (response, _):
        part = content_range(response.headers)
        if response.status == 206 and part and part.start == 0 and part.size is not None and part.size <= MAX_SIZE:
            return response, part.size
        return response, _length(response)


def _length(response: Response) -> int | None:
    text = response.headers.get("content-length", "")
    coded = response.headers.get("content-encoding", "identity") != "identity"
    return int(text) if re.fullmatch(r"\d{1,15}", text) and not coded and int(text) <= MAX_SIZE else None


def expiry(url: str) -> float | None:
    """Return the expiry of a signed URL (CloudFront, SigV4, Azure) in Unix seconds, None without one."""
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    if re.fullmatch(r"\d{9,11}", query.get("expires", "")):
        return float(query["expires"])
    for vendor in ("amz", "goog"):
        date, life = query.get(f"x-{vendor}-date", ""), query.get(f"x-{vendor}-expires", "")
        if re.fullmatch(r"\d{8}T\d{6}Z", date) and re.fullmatch(r"\d{1,7}", life):
            return _utc(date, "%Y%m%dT%H%M%SZ", float(life))
    return _utc(query.get("se", ""), "%Y-%m-%dT%H:%M:%SZ", 0.0)


def _utc(text: str, form: str, plus: float) -> float | None:
    try:
        return calendar.timegm(time.strptime(text, form)) + plus
    except (ValueError, OverflowError):
        return None
