"""Every aria2 option that gpuaria sets, with the reason. aria2 ignores misspelt names, so only this file has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# In the conf file of a daemon that gpuaria starts.
DAEMON: Mapping[str, tuple[str, str]] = {
    "enable-rpc": ("true", "gpuaria controls aria2c over RPC"),
    "rpc-listen-all": ("false", "loopback only"),
    "rpc-save-upload-metadata": ("false", "a Metalink holds signed URLs, which must not stay on disk"),
    "max-concurrent-downloads": ("1000", "gpuaria limits parallel downloads itself"),
    "max-download-result": ("1000", "results stay until gpuaria has read them"),
    "auto-save-interval": ("1", "after kill -9, at most one second of data is downloaded again"),
    "no-netrc": ("true", "a netrc password must not travel to a CDN"),
    "check-certificate": ("true", "verify every server"),
    "min-tls-version": ("TLSv1.2", "older versions are insecure"),
    "follow-torrent": ("false", "a file is a file, whatever type its server claims"),
    "follow-metalink": ("false", "the same"),
    "enable-dht": ("false", "nothing else may listen"),
    "enable-dht6": ("false", "nothing else may listen"),
    "bt-enable-lpd": ("false", "nothing else may listen"),
    "console-log-level": ("error", "the output goes into the message if aria2c fails to start"),
    "summary-interval": ("0", "progress comes over RPC"),
    "show-console-readout": ("false", "progress comes over RPC"),
    "disk-cache": ("64M", "fewer and longer writes"),
}

# For each download, so that an attached daemon needs no configuration.
DOWNLOAD: Mapping[str, tuple[str, str]] = {
    "continue": ("true", "resume by the control file next to the data"),
    "allow-overwrite": ("true", "the staging folder holds only gpuaria's files"),
    "auto-file-renaming": ("false", "gpuaria finds staged files by name"),
    "allow-piece-length-change": ("true", "the interrupted download may have used another piece length"),
    "always-resume": ("false", "a server without ranges starts the file again instead of failing"),
    "max-resume-failure-tries": ("1", "the same"),
    "piece-length": ("1M", "granularity of resume and of the last segments"),
    "http-accept-gzip": ("false", "digests are computed over the uncompressed bytes"),
    "header": ("Accept-Encoding: identity", "without it a server may compress the response"),
    "enable-http-keep-alive": ("true", "one handshake per connection"),
    "enable-http-pipelining": ("false", "slower in measurements"),
    "no-netrc": ("true", "a netrc password must not travel to a CDN"),
    "remote-time": ("false", "the layouts rely on a file's modification time"),
    "follow-torrent": ("false", "a file is a file, whatever type its server claims"),
    "follow-metalink": ("false", "the same"),
    "rpc-save-upload-metadata": ("false", "an attached daemon must not write signed URLs to disk"),
    "metalink-enable-unique-protocol": ("false", "use every URL of the Metalink"),
    "reuse-uri": ("false", "the Metalink repeats a URL once per connection to its mirror"),
    "max-tries": ("3", "then gpuaria decides by error class"),
    "retry-wait": ("1", "without it a 503 is final"),
}


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Connections and limits of one download.

    `split`: connections in total; `min_split`: smallest segment in bytes; `max_speed`: bytes per second, 0 for no
    limit; time-outs in seconds.
    """

    split: int = 16
    per_server: int = 16
    min_split: int = 1 << 20
    connect_timeout: float = 10.0
    timeout: float = 30.0
    max_speed: int = 0


def relay_options(url: str) -> dict[str, str]:
    """Return the options that send one download through gpuaria's relay and through no other proxy."""
    return {**proxy_options(url, url), "proxy-method": "tunnel"}


def proxy_options(http: str = "", https: str = "", direct: Sequence[str] = ()) -> dict[str, str]:
    """Return the options for a download that uses these proxies for http and https URLs, none for the hosts `direct`.

    They override the daemon's own proxies: an empty value clears them (aria2c(1), --all-proxy).
    """
    return {
        "all-proxy": "",
        "http-proxy": http,
        "https-proxy": https,
        "no-proxy": ",".join(direct),
        "proxy-method": "get",
    }


def download_options(folder: Path, shape: DownloadLimits, user_agent: str) -> dict[str, str]:
    """Return the options of one addMetalink call. aria2 allows 16 connections per server and segments from 1 MiB."""
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
