"""Every aria2 option that gpuaria sets, and why. aria2 accepts misspelt names in silence, so names live here only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# For a daemon of our own, in its conf file.
DAEMON: Mapping[str, tuple[str, str]] = {
    "enable-rpc": ("true", "we drive it"),
    "rpc-listen-all": ("false", "loopback only"),
    "rpc-save-upload-metadata": ("false", "a Metalink holds signed addresses; it must not stay on disk"),
    "max-concurrent-downloads": ("1000", "gpuaria decides how many run, not aria2's queue"),
    "max-download-result": ("1000", "finished entries stay until they were read"),
    "auto-save-interval": ("1", "after a kill -9, at most the last second is fetched again"),
    "no-netrc": ("true", "a netrc password must not travel to a CDN"),
    "check-certificate": ("true", "a mirror must be who it says"),
    "min-tls-version": ("TLSv1.2", "older ones are broken"),
    "follow-torrent": ("false", "a file is a file, whatever type its server claims"),
    "follow-metalink": ("false", "the same"),
    "enable-dht": ("false", "nothing else may listen"),
    "enable-dht6": ("false", "nothing else may listen"),
    "bt-enable-lpd": ("false", "nothing else may listen"),
    "console-log-level": ("error", "its output is kept for the message when it fails to start"),
    "summary-interval": ("0", "progress comes over RPC"),
    "show-console-readout": ("false", "progress comes over RPC"),
    "disk-cache": ("64M", "fewer and longer writes"),
}

# For each download, so that an attached daemon needs no setting of its own.
DOWNLOAD: Mapping[str, tuple[str, str]] = {
    "continue": ("true", "a control file beside the bytes says which pieces are there"),
    "allow-overwrite": ("true", "staging holds only our own names"),
    "auto-file-renaming": ("false", "the name is how the bytes are found again"),
    "allow-piece-length-change": ("true", "a resume may have been begun with another piece length"),
    "always-resume": ("false", "a server without ranges starts the file again instead of failing"),
    "max-resume-failure-tries": ("1", "the same"),
    "piece-length": ("1M", "the grain of resume and of the last segments"),
    "http-accept-gzip": ("false", "digests are over the bytes as they are"),
    "header": ("Accept-Encoding: identity", "without it a server may pack what it sends"),
    "enable-http-keep-alive": ("true", "one handshake per connection"),
    "enable-http-pipelining": ("false", "measured to be harmful"),
    "no-netrc": ("true", "a netrc password must not travel to a CDN"),
    "remote-time": ("false", "the layouts trust a file's time"),
    "follow-torrent": ("false", "a file is a file, whatever type its server claims"),
    "follow-metalink": ("false", "the same"),
    "rpc-save-upload-metadata": ("false", "an attached daemon must not keep signed addresses on disk either"),
    "metalink-enable-unique-protocol": ("false", "every address of the Metalink is meant"),
    "reuse-uri": ("false", "an address is given as often as its mirror gets connections"),
    "max-tries": ("3", "then gpuaria decides by the kind of error"),
    "retry-wait": ("1", "without it a 503 is final"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How one download is cut: connections in all and per server, smallest cut and limits (bytes, bytes/s, s)."""

    split: int = 16
    per_server: int = 16
    min_split: int = 1 << 20
    connect_timeout: float = 10.0
    timeout: float = 30.0
    max_speed: int = 0


def relay_options(url: str) -> dict[str, str]:
    """The options by which one download goes through our own relay, and through no proxy of the environment."""
    return {**proxy_options(url, url), "proxy-method": "tunnel"}


def proxy_options(http: str = "", https: str = "", direct: Sequence[str] = ()) -> dict[str, str]:
    """The options by which one download uses these proxies, for http and https URLs, and none for the hosts `direct`.

    The daemon's own proxies do not apply to it: an empty value erases them (aria2c(1), --all-proxy).
    """
    return {
        "all-proxy": "",
        "http-proxy": http,
        "https-proxy": https,
        "no-proxy": ",".join(direct),
        "proxy-method": "get",
    }


def download_options(folder: Path, shape: Shape, user_agent: str) -> dict[str, str]:
    """The options of one addMetalink call; aria2 refuses more than 16 per server and a cut below 1 MiB."""
    return {name: value for name, (value, _) in DOWNLOAD.items()} | {
        "dir": str(folder),
        "split": str(max(1, shape.split)),
        "max-connection-per-server": str(min(16, max(1, shape.per_server))),
        "min-split-size": str(max(1 << 20, shape.min_split)),
        "connect-timeout": str(min(600, max(1, round(shape.connect_timeout)))),
        "timeout": str(min(600, max(1, round(shape.timeout)))),
        "max-download-limit": str(max(0, shape.max_speed)),
        "file-allocation": "none",
        "user-agent": user_agent,
    }
