"""All settings, each declared once as a field of SettingsTable."""
# ruff: noqa: RUF009 - `key` returns a dataclass field that carries a row of the table

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from gpuaria.records import Mirror
from gpuaria.settings import kinds
from gpuaria.settings.keys import Key, key
from gpuaria.settings.secret import Secret
from gpuaria.settings.tokens import TokenSource, tokens

TrustPolicy = Literal["origin", "quorum", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsTable:
    """The values of all settings. Sizes are bytes, times seconds, speeds bytes per second."""

    endpoint: str = key(
        kinds.base_url(),
        "https://huggingface.co",
        "The hub whose file listings are trusted, and the only host that receives the hub's token.",
        "GPUARIA_ENDPOINT",
        "HF_ENDPOINT",
        files="not project",
    )
    token: Secret = key(
        kinds.secret(),
        "",
        "The hub's access token.",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        files="none",
    )
    token_file: Path | None = key(
        kinds.path(),
        "$HF_HOME/token",
        "The file with the access token, in the format of `hf auth login`.",
        "GPUARIA_TOKEN_FILE",
        "HF_TOKEN_PATH",
        files="not project",
    )
    implicit_token: bool = key(
        kinds.yes_or_no(),
        "yes",
        "Use a token from the environment or a file, not only one given on the command line.",
        "GPUARIA_IMPLICIT_TOKEN",
        disabling=("HF_HUB_DISABLE_IMPLICIT_TOKEN",),
        files="not project",
    )
    tokens: tuple[TokenSource, ...] = key(
        tokens(),
        "",
        "Tokens of further hosts; each token is sent to its own host only.",
        "GPUARIA_TOKENS",
        files="not project",
        example="{mirror.example: env:MIRROR_TOKEN, hub.example: 'helper:git credential fill'}",
    )
    send_token_in_clear_text_to: tuple[str, ...] = key(
        kinds.hosts(),
        "",
        "Hosts that may receive their token over unencrypted http, readable by anyone on the network.",
        "GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO",
        files="not project",
        example="[hub.lan]",
    )
    _cache_dir: Path | None = key(
        kinds.path(),
        "$HF_HOME/hub",
        "The Hugging Face cache, shared with the huggingface_hub client.",
        "GPUARIA_CACHE_DIR",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        files="not project",
    )
    _mirrors: tuple[Mirror, ...] | None = key(
        kinds.mirrors(),
        "auto",
        "Mirrors to download from: a list, none, or auto to use known mirrors when the hub fails.",
        "GPUARIA_MIRRORS",
        flag="--mirror",
    )
    known_mirrors: tuple[Mirror, ...] = key(
        kinds.mirror_rows(),
        "",
        "Named mirrors that `mirrors: auto` may use, replacing the shipped list.",
        "GPUARIA_KNOWN_MIRRORS",
        files="not project",
        example="[hf-mirror, {name: campus, base: https://hf-mirror.campus.example, location: DE}]",
    )
    slow: int = key(
        kinds.size(),
        "1 MB",
        "With `mirrors: auto`, add known mirrors when the hub stays below this speed for 10 s; 0 for never.",
        "GPUARIA_SLOW",
        unit="bytes/s",
    )
    location: str = key(
        kinds.label(),
        "",
        "This machine's country (DE) or continent (Europe), to prefer near mirrors; default: GeoIP or time zone.",
        "GPUARIA_LOCATION",
        example="DE",
    )
    connections: int = key(
        kinds.whole_number(1, 16),
        "16",
        "Connections per server for one large file.",
        "GPUARIA_CONNECTIONS",
        unit="connections per server",
    )
    jobs: int = key(kinds.whole_number(1, 64), "4", "Large files downloaded in parallel.", "GPUARIA_JOBS", unit="files")
    small_jobs: int = key(
        kinds.whole_number(1, 128), "32", "Small files downloaded in parallel.", "GPUARIA_SMALL_JOBS", unit="files"
    )
    small_file: int = key(
        kinds.size(),
        "8 MB",
        "Files below this size are small: each is downloaded with a single request.",
        "GPUARIA_SMALL_FILE",
        unit="bytes",
    )
    min_split: int = key(
        kinds.size(2**20, 2**30),  # aria2's own limits for --min-split-size
        "1 MiB",
        "The smallest segment that gets its own connection.",
        "GPUARIA_MIN_SPLIT",
        unit="bytes",
    )
    aria2c: str = key(
        kinds.program(),
        "",
        "The aria2c program to run instead of the bundled one or the one on PATH.",
        "GPUARIA_ARIA2C",
        files="not project",
        example="/usr/bin/aria2c",
    )
    rpc: str = key(
        kinds.rpc_url(),
        "",
        "URL of a running aria2c to use instead of starting one.",
        "GPUARIA_RPC",
        files="not project",
        example="http://127.0.0.1:6800/jsonrpc",
    )
    rpc_secret: Secret = key(
        kinds.secret(),
        "",
        "RPC secret of the running aria2c; a settings file that contains it must have mode 0600.",
        "GPUARIA_RPC_SECRET",
        files="not project",
        example="its-rpc-secret",
    )
    connect_timeout: float = key(
        kinds.timeout(), "10 s", "Time-out for connecting to a server.", "GPUARIA_CONNECT_TIMEOUT", unit="seconds"
    )
    timeout: float = key(
        kinds.timeout(), "30 s", "Time-out while a server sends no data.", "GPUARIA_TIMEOUT", unit="seconds"
    )
    patience: float = key(
        kinds.duration(),
        "10 min",
        "Stall time-out: the longest wait for a rate limit, another run's file lock, or a download without progress.",
        "GPUARIA_PATIENCE",
        unit="seconds",
    )
    trust: TrustPolicy = key(
        kinds.choice("origin", "quorum", "any"),
        "quorum",
        "Whose file listing to trust: the hub's (origin), also that of mirrors that agree (quorum), or any mirror's.",
        "GPUARIA_TRUST",
        files="not project",
    )
    offline: bool = key(
        kinds.yes_or_no(),
        "no",
        "Use only local files, without any network access.",
        "GPUARIA_OFFLINE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    )
    symlinks: bool | None = key(
        kinds.yes_or_no(auto=True),
        "auto",
        "Use symlinks in the cache's snapshots; auto uses them where the file system supports them.",
        "GPUARIA_SYMLINKS",
        disabling=("HF_HUB_DISABLE_SYMLINKS",),
    )
    ca_bundle: Path | None = key(
        kinds.path(),
        "",
        "A PEM file with trusted certificate authorities, replacing those of the system (or certifi).",
        "GPUARIA_CA_BUNDLE",
        "SSL_CERT_FILE",
        files="not project",
        example="/etc/ssl/certs/ca-certificates.crt",
    )
    _state_dir: Path | None = key(
        kinds.path(),
        "$XDG_STATE_HOME/gpuaria",
        "Folder for the mirror history, the receipts and the audit log.",
        "GPUARIA_STATE_DIR",
        files="not project",
    )
    probe_budget: float = key(
        kinds.timeout(), "3 s", "Time limit for measuring all mirrors.", "GPUARIA_PROBE_BUDGET", unit="seconds"
    )
    resolvers: tuple[str, ...] = key(
        kinds.resolvers(),
        "8.8.8.8, 1.1.1.1, 223.5.5.5",
        "Additional DNS servers; a fetch queries them only if the system's resolver fails.",
        "GPUARIA_RESOLVERS",
        flag="--resolver",
        example="[8.8.8.8, 1.1.1.1, 223.5.5.5]",
    )
    verify_jobs: int = key(
        kinds.whole_number(1, 16), "2", "AllowedFiles hashed in parallel.", "GPUARIA_VERIFY_JOBS", unit="files"
    )
    max_speed: int = key(
        kinds.size(), "0", "Download speed limit; 0 for no limit.", "GPUARIA_MAX_SPEED", unit="bytes/s"
    )
    check_content: bool = key(
        kinds.yes_or_no(),
        "yes",
        "Reject a safetensors file whose header contradicts itself or the file size.",
        "GPUARIA_CHECK_CONTENT",
        files="not project",
    )
    no_pickle: bool = key(
        kinds.yes_or_no(),
        "no",
        "Reject pickle files, which can run arbitrary code when loaded.",
        "GPUARIA_NO_PICKLE",
        files="not project",
    )
    signature_key: Path | None = key(
        kinds.path(),
        "",
        "Public key (PEM) for checking a repo's model.sig; needs gpuaria[model-signing].",
        "GPUARIA_SIGNATURE_KEY",
        files="not project",
        example="/etc/gpuaria/signer.pub",
    )


def _with_name(name: str, row: Key) -> Key:
    return replace(row, name=name, flag=row.flag or "--" + name.replace("_", "-"))


_ROWS = {f.name: f.metadata["key"] for f in fields(SettingsTable)}
FIELDS = {name.removeprefix("_"): name for name in _ROWS}  # key -> name of its field
_KEYS = tuple(_with_name(name.removeprefix("_"), row) for name, row in _ROWS.items())


def describe() -> tuple[Key, ...]:
    """Return every key, in the order of the reference page."""
    return _KEYS
