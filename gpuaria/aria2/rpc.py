"""aria2's JSON-RPC, through aria2p: one multicall per poll, and only downloads that gpuaria started."""

import base64
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aria2p
import requests

from gpuaria.aria2.binary import HINT, NO_CONTROL_FILES
from gpuaria.errors import Aria2Error
from gpuaria.records import Aria2Status

_KEYS = ["gid", "status", "totalLength", "completedLength", "downloadSpeed", "connections", "errorCode", "errorMessage"]
_GONE = {"removed", "complete", "error"}
_QUERY = re.compile(r"(?<=[^\s?])\?[^\s]*=[^\s]*")  # the query of a URL in a message; it may be a signature


class _Client(aria2p.Client):  # type: ignore[misc]
    """aria2p's client on one keep-alive connection, without the proxies of the environment."""

    session: requests.Session

    def post(self, payload: str) -> Any:
        return self.session.post(self.server, data=payload, timeout=self.timeout).json()


class Rpc:
    """RPC client of one daemon. Methods raise Aria2Error; if the daemon does not respond, its `retry` is "later"."""

    def __init__(self, url: str, secret: str, *, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        self._display_url = f"{parts.scheme}://{parts.hostname}:{parts.port or 6800}"
        self._client = _Client(
            host=f"{parts.scheme}://{_bracketed(parts.hostname)}", port=parts.port or 6800, secret=secret
        )
        self._client.timeout = timeout
        self._client.session = requests.Session()
        self._client.session.trust_env = False

    def close(self) -> None:
        """Close the connection. The daemon keeps running."""
        self._client.session.close()

    def _call(self, method: str, *params: Any) -> Any:
        with self._translate_errors():
            try:
                return self._client.call(method, list(params))
            except aria2p.ClientException as error:
                if "unauthorized" in str(error).lower():
                    raise Aria2Error(
                        f"aria2c at {self._display_url} rejects the RPC secret",
                        "Set GPUARIA_RPC_SECRET to its --rpc-secret.",
                    ) from None
                raise Aria2Error(
                    f"aria2c at {self._display_url} refuses {method}: {error}",
                    "Use aria2 1.36 or 1.37, built with Metalink.",
                ) from None

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn a failed or malformed response into Aria2Error."""
        try:
            yield
        except (requests.RequestException, ValueError, RecursionError, aria2p.ClientException) as error:
            raise Aria2Error(
                f"aria2c at {self._display_url} does not respond ({type(error).__name__})",
                "Check that it runs with --enable-rpc on that port.",
                retry="later",
            ) from None
        except (KeyError, TypeError, AttributeError):
            raise self._not_aria2() from None

    def _not_aria2(self) -> Aria2Error:
        return Aria2Error(f"the server at {self._display_url} is not aria2c", "Check the port in GPUARIA_RPC or --rpc.")

    def version(self) -> str:
        """Return the daemon's version; the call also checks the secret. Raises Aria2Error for aria2-next."""
        response = self._call("aria2.getVersion")
        if not isinstance(response, dict) or "version" not in response:
            raise self._not_aria2()
        if product := response.get("product"):  # aria2 itself has no such key
            raise Aria2Error(f"at {self._display_url} runs {product} {response['version']}: {NO_CONTROL_FILES}", HINT)
        return str(response["version"])

    def add_download(self, metalink: str, options: Mapping[str, str]) -> str:
        """Start the download of a Metalink with one file; return the gid that aria2 assigned.

        aria2 ignores a requested gid for a Metalink, and only a Metalink can declare the size.
        """
        gids = self._call("aria2.addMetalink", base64.b64encode(metalink.encode()).decode(), dict(options))
        if not isinstance(gids, list) or len(gids) != 1:
            raise Aria2Error(f"aria2c at {self._display_url} made {gids!r:.80} of one file")
        return str(gids[0])

    def find_gids(self, paths: Collection[str]) -> dict[str, str]:
        """Return gids of downloads by path, for `paths`: for when the response to `add_download` was lost."""
        keys = ["gid", "files"]
        calls: list[tuple[str, list[Any]]] = [
            ("aria2.tellStopped", [0, 1000, keys]),
            ("aria2.tellWaiting", [0, 1000, keys]),
            ("aria2.tellActive", [keys]),
        ]
        known = [
            status
            for statuses in self._multicall(calls if paths else [])
            if isinstance(statuses, list)
            for status in statuses
        ]
        found = {file["path"]: str(status["gid"]) for status in known for file in status.get("files", ())}
        return {path: found[path] for path in paths if path in found}

    def poll(self, gids: Sequence[str]) -> tuple[dict[str, Aria2Status], dict[str, dict[str, list[int]]]]:
        """Return by gid the state of each download, and its connections' speeds (bytes per second) by URL."""
        calls = [("aria2.tellStatus", [gid, _KEYS]) for gid in gids] + [("aria2.getServers", [gid]) for gid in gids]
        results = self._multicall(calls)
        transfers, servers = {}, {}
        for gid, status, busy in zip(gids, results, results[len(gids) :], strict=False):
            transfers[gid] = _parse_status(gid, status)
            servers[gid] = _parse_speeds(busy)
        return transfers, servers

    def is_idle(self) -> bool:
        """True if the daemon has neither active nor queued downloads."""
        return not any(self._multicall([("aria2.tellActive", [["gid"]]), ("aria2.tellWaiting", [0, 1, ["gid"]])]))

    def stop_download(self, gid: str) -> None:
        """Stop a download. aria2 flushes its data and saves its control file within 0.1 s."""
        self._multicall([("aria2.forceRemove", [gid])])

    def remove_download(self, gid: str) -> None:
        """Stop a download and delete its result. Its data and control file stay on disk."""
        self.stop_download(gid)
        self._multicall([("aria2.removeDownloadResult", [gid])])

    def forget_results(self, gids: Sequence[str]) -> None:
        """Delete the results of finished downloads."""
        self._multicall([("aria2.removeDownloadResult", [gid]) for gid in gids])

    def change_uris(self, gid: str, drop: Sequence[str], add: Sequence[str]) -> None:
        """Replace URLs of an active download. On a paused download the call aborts aria2c (Piece.cc)."""
        self._multicall([("aria2.changeUri", [gid, 1, list(drop), list(add)])])

    def _multicall(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Return the results in order; a call that aria2 refuses yields its fault, a dict."""
        if not calls:
            return []
        token = [f"token:{self._client.secret}"] if self._client.secret else []
        packed = [{"methodName": method, "params": token + params} for method, params in calls]
        with self._translate_errors():
            results = self._client.call("system.multicall", [packed], insert_secret=False)
        return [result[0] if isinstance(result, list) else result for result in results]


def _bracketed(host: str | None) -> str:
    return f"[{host}]" if host and ":" in host else str(host)


def _parse_status(gid: str, status: Mapping[str, Any]) -> Aria2Status:
    if "status" not in status:  # a fault: the daemon does not know this gid
        return Aria2Status(gid, "gone", 0, 0, 0, 0, "", str(status.get("message", "")))
    state = str(status["status"])
    return Aria2Status(
        gid,
        state,
        int(status.get("totalLength", 0)),
        int(status.get("completedLength", 0)),
        0 if state in _GONE else int(status.get("downloadSpeed", 0)),
        0 if state in _GONE else int(status.get("connections", 0)),
        str(status.get("errorCode", "")) if state == "error" else "",
        _QUERY.sub("", str(status.get("errorMessage", ""))) if state == "error" else "",
    )


def _parse_speeds(servers: Any) -> dict[str, list[int]]:
    """Return bytes per second of each connection by URL, from a response to aria2.getServers."""
    speeds: dict[str, list[int]] = {}
    for entry in servers if isinstance(servers, list) else []:
        for server in entry.get("servers", ()):
            speeds.setdefault(str(server.get("uri", "")), []).append(int(server.get("downloadSpeed", 0)))
    return speeds
