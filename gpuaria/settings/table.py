"""Every key, declared once, as the fields of Settings."""
# ruff: noqa: RUF009 - `_key` is dataclasses.field with a row of the table in it

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from gpuaria.errors import ConfigError
from gpuaria.records import Mirror
from gpuaria.settings import kinds, sources, values
from gpuaria.settings.kinds import Kind
from gpuaria.settings.known import KnownMirror, Names
from gpuaria.settings.secret import Secret, Variables
from gpuaria.settings.tokens import TokenSource, in_file, tokens
from gpuaria.urls import url_origin

Layer = Literal["built-in", "site", "user", "project", "file", "environment", "flag"]
Files = Literal["any", "not project", "none"]
Policy = Literal["origin", "quorum", "any"]


@dataclass(frozen=True, slots=True)
class SettingSource:
    """Where a value comes from: `where` is "path:line", a variable's name, a flag, or empty for a plain default."""

    layer: Layer
    where: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, for the loader and for the reference.

    `default` is text as a settings file would have it, empty for none. `variables`: the first that is set counts;
    `disabling`: true in one of these means no. `files`: which settings files may hold it.
    """

    name: str
    kind: Kind
    default: str
    help: str
    unit: str = ""
    variables: tuple[str, ...] = ()
    disabling: tuple[str, ...] = ()
    files: Files = "any"
    example: str = ""
    flag: str = ""

    @property
    def expects(self) -> str:
        """What the value must be, in words."""
        return self.kind.expects

    @property
    def secret(self) -> bool:
        """Whether the value is a credential."""
        return isinstance(self.kind.empty, Secret)


def _key(kind: Kind, default: str, sentence: str, *variables: str, **more: Any) -> Any:
    return field(metadata={"key": Key("", kind, default, sentence, variables=variables, **more)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one run; made by `load`. Sizes are bytes, times seconds, speeds bytes per second."""

    endpoint: str = _key(
        kinds.address(),
        "https://huggingface.co",
        "The hub that vouches for listings, and the only host that is sent the hub's token.",
        "GPUARIA_ENDPOINT",
        "HF_ENDPOINT",
        files="not project",
    )
    token: Secret = _key(
        kinds.secret(),
        "",
        "The hub's access token.",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        files="none",
    )
    token_file: Path | None = _key(
        kinds.path(),
        "$HF_HOME/token",
        "The file that holds the access token, as `hf auth login` writes it.",
        "GPUARIA_TOKEN_FILE",
        "HF_TOKEN_PATH",
        files="not project",
    )
    implicit_token: bool = _key(
        kinds.switch(),
        "yes",
        "Whether a token is used that was not given on the command line.",
        "GPUARIA_IMPLICIT_TOKEN",
        disabling=("HF_HUB_DISABLE_IMPLICIT_TOKEN",),
        files="not project",
    )
    tokens: tuple[TokenSource, ...] = _key(
        tokens(),
        "",
        "Where the tokens of single hosts are, each sent to its own host only.",
        "GPUARIA_TOKENS",
        files="not project",
        example="{mirror.example: env:MIRROR_TOKEN, hub.example: 'helper:git credential fill'}",
    )
    send_token_in_clear_text_to: tuple[str, ...] = _key(
        kinds.hosts(),
        "",
        "Hosts that are sent their token over http, where everyone on the way can read it.",
        "GPUARIA_SEND_TOKEN_IN_CLEAR_TEXT_TO",
        files="not project",
        example="[hub.lan]",
    )
    _cache_dir: Path | None = _key(
        kinds.path(),
        "$HF_HOME/hub",
        "The cache that is shared with the huggingface_hub client.",
        "GPUARIA_CACHE_DIR",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        files="not project",
    )
    _mirrors: tuple[Mirror, ...] | None = _key(
        kinds.mirrors(),
        "auto",
        "Servers of the hub's protocol that may serve bytes: a list, none, or auto for known ones when the hub fails.",
        "GPUARIA_MIRRORS",
        flag="--mirror",
    )
    known_mirrors: tuple[Mirror, ...] = _key(
        kinds.mirror_rows(),
        "",
        "The mirrors that `mirrors: auto` may use, instead of the shipped ones; each has its name here.",
        "GPUARIA_KNOWN_MIRRORS",
        files="not project",
        example="[hf-mirror, {name: campus, base: https://hf-mirror.campus.example, location: DE}]",
    )
    slow: int = _key(
        kinds.size(),
        "1 MB",
        "With `mirrors: auto`, known mirrors join when the hub delivers less than this for 10 s; 0 for never.",
        "GPUARIA_SLOW",
        unit="bytes/s",
    )
    location: str = _key(
        kinds.label(),
        "",
        "This machine's country (DE) or continent (Europe), to try near mirrors first; else GeoIP or the time zone.",
        "GPUARIA_LOCATION",
        example="DE",
    )
    connections: int = _key(
        kinds.whole(1, 16),
        "16",
        "Connections to one server for one large file.",
        "GPUARIA_CONNECTIONS",
        unit="connections per server",
    )
    jobs: int = _key(kinds.whole(1, 64), "4", "Large files that are downloaded at once.", "GPUARIA_JOBS", unit="files")
    small_jobs: int = _key(
        kinds.whole(1, 128), "32", "Small files that are downloaded at once.", "GPUARIA_SMALL_JOBS", unit="files"
    )
    small_file: int = _key(
        kinds.size(), "8 MB", "A file below this size is fetched in one piece.", "GPUARIA_SMALL_FILE", unit="bytes"
    )
    min_split: int = _key(
        kinds.size(2**20, 2**30),  # aria2's own limits for --min-split-size
        "1 MiB",
        "The smallest segment that gets a connection of its own.",
        "GPUARIA_MIN_SPLIT",
        unit="bytes",
    )
    aria2c: str = _key(
        kinds.program(),
        "",
        "The aria2c to run, instead of the system's one or the shipped one.",
        "GPUARIA_ARIA2C",
        files="not project",
        example="/usr/bin/aria2c",
    )
    rpc: str = _key(
        kinds.rpc_address(),
        "",
        "A running aria2c to attach to, instead of starting one.",
        "GPUARIA_RPC",
        files="not project",
        example="http://127.0.0.1:6800/jsonrpc",
    )
    rpc_secret: Secret = _key(
        kinds.secret(),
        "",
        "The secret of that aria2c; a file that holds it must have mode 0600.",
        "GPUARIA_RPC_SECRET",
        files="not project",
        example="its-rpc-secret",
    )
    connect_timeout: float = _key(
        kinds.timeout(), "10 s", "How long a server may take to accept.", "GPUARIA_CONNECT_TIMEOUT", unit="seconds"
    )
    timeout: float = _key(
        kinds.timeout(), "30 s", "How long a server may stay silent.", "GPUARIA_TIMEOUT", unit="seconds"
    )
    patience: float = _key(
        kinds.duration(),
        "10 min",
        "How long to wait for a rate limit, for another run's lock, or for a file of which nothing comes.",
        "GPUARIA_PATIENCE",
        unit="seconds",
    )
    trust: Policy = _key(
        kinds.choice("origin", "quorum", "any"),
        "quorum",
        "Who may vouch for a listing: the endpoint (or a commit itself), also mirrors that agree, or any one mirror.",
        "GPUARIA_TRUST",
        files="not project",
    )
    offline: bool = _key(
        kinds.switch(),
        "no",
        "Whether to work from what is on disk, without any network.",
        "GPUARIA_OFFLINE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
    )
    symlinks: bool | None = _key(
        kinds.switch(auto=True),
        "auto",
        "Whether the cache's snapshots are links to blobs; auto means where the file system has them.",
        "GPUARIA_SYMLINKS",
        disabling=("HF_HUB_DISABLE_SYMLINKS",),
    )
    ca_bundle: Path | None = _key(
        kinds.path(),
        "",
        "A PEM file with the certificate authorities to trust, instead of the system's (or certifi's).",
        "GPUARIA_CA_BUNDLE",
        "SSL_CERT_FILE",
        files="not project",
        example="/etc/ssl/certs/ca-certificates.crt",
    )
    _state_dir: Path | None = _key(
        kinds.path(),
        "$XDG_STATE_HOME/gpuaria",
        "Where the history of mirrors, the receipts and the audit log are kept.",
        "GPUARIA_STATE_DIR",
        files="not project",
    )
    probe_budget: float = _key(
        kinds.timeout(), "3 s", "How long measuring all mirrors may take.", "GPUARIA_PROBE_BUDGET", unit="seconds"
    )
    resolvers: tuple[str, ...] = _key(
        kinds.resolvers(),
        "8.8.8.8, 1.1.1.1, 223.5.5.5",
        "DNS servers that are asked beside the system's own, by a fetch only where that is of no use.",
        "GPUARIA_RESOLVERS",
        flag="--resolver",
        example="[8.8.8.8, 1.1.1.1, 223.5.5.5]",
    )
    verify_jobs: int = _key(
        kinds.whole(1, 16), "2", "Files that are hashed at once.", "GPUARIA_VERIFY_JOBS", unit="files"
    )
    max_speed: int = _key(
        kinds.size(), "0", "The most to download per second, 0 for no limit.", "GPUARIA_MAX_SPEED", unit="bytes/s"
    )
    check_content: bool = _key(
        kinds.switch(),
        "yes",
        "Whether a safetensors file is refused whose header contradicts itself or the file's size.",
        "GPUARIA_CHECK_CONTENT",
        files="not project",
    )
    no_pickle: bool = _key(
        kinds.switch(),
        "no",
        "Whether pickles are refused, which may run any code when they are loaded.",
        "GPUARIA_NO_PICKLE",
        files="not project",
    )
    signature_key: Path | None = _key(
        kinds.path(),
        "",
        "The public key (PEM) that a repo's model.sig is checked with; needs gpuaria[model-signing].",
        "GPUARIA_SIGNATURE_KEY",
        files="not project",
        example="/etc/gpuaria/signer.pub",
    )
    _setting_sources: dict[str, SettingSource] = field(repr=False, compare=False)
    _names: Names = field(default_factory=Names, repr=False, compare=False)
    _sources: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _environ: Variables = field(default_factory=lambda: Variables({}), repr=False, compare=False)
    _hidden: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @property
    def mirrors(self) -> tuple[Mirror, ...]:
        """The mirrors that are always used; none with `mirrors: auto`."""
        return self._mirrors or ()

    @property
    def auto(self) -> bool:
        """Whether known mirrors may join when the endpoint fails or is slow."""
        return self._mirrors is None

    def candidates(self) -> tuple[KnownMirror, ...]:
        """The mirrors that may join: `known_mirrors`, else the shipped table with the names that layers replaced."""
        return self._names.candidates(self.known_mirrors) if self.auto else ()

    @property
    def cache_dir(self) -> Path:
        """The cache's folder. Raises ConfigError where no home folder is known and nothing names it."""
        return self._needed("cache_dir", self._cache_dir)

    @property
    def state_dir(self) -> Path:
        """The state's folder. Raises ConfigError where no home folder is known and nothing names it."""
        return self._needed("state_dir", self._state_dir)

    def setting_source(self, key: str) -> SettingSource:
        """The layer that set `key`, and where in it. Raises KeyError for a key that does not exist."""
        return self._setting_sources[key]

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Each key, its value for people ("(set, hidden)" for a credential), its layer, and where in it."""
        for key in describe():
            origin = self.setting_source(key.name)
            yield key.name, key.kind.show(getattr(self, FIELDS[key.name])), origin.layer, origin.where
        kind = {key.name: key.kind for key in describe()}
        for name, value in sorted(self._sources.items()):
            origin = self.setting_source(name)
            yield name, kind[sources.plain_key(name)].show(value), origin.layer, origin.where

    def for_source(self, about: sources.Declared) -> "Settings":
        """The same settings with the endpoint, the token and the mirrors of that source in the place of `hf`'s.

        A flag is for the source of this run, whichever it is. Raises ConfigError for a variable of the source.
        """
        if about.name == sources.USUAL:
            return self
        found: dict[str, Any] = {"endpoint": about.endpoint, "token": Secret(), "token_file": None, "mirrors": ()}
        origins = dict.fromkeys(found, SettingSource("built-in"))
        for key in found:
            name = sources.full(about.name, key)
            if name in self._sources:
                found[key], origins[key] = self._sources[name], self.setting_source(name)
            if self.setting_source(key).layer == "flag":
                found[key], origins[key] = getattr(self, FIELDS[key]), self.setting_source(key)
        for key, variables in (("endpoint", about.endpoint_variables), ("token", about.token_variables)):
            variable = next((name for name in variables if self._environ.get(name)), "")
            if variable and origins[key].layer not in ("environment", "flag"):
                found[key], origins[key] = self._read(key, variable), SettingSource("environment", variable)
        changed = {FIELDS[key]: value for key, value in found.items()}
        hidden = self._hidden | frozenset(about.token_variables)
        return replace(self, **changed, _setting_sources={**self._setting_sources, **origins}, _hidden=hidden)

    def _read(self, key: str, variable: str) -> Any:
        """The value of an environment variable that a source declares."""
        read = values.address if key == "endpoint" else values.credential
        try:
            value = read(self._environ.get(variable))
        except ValueError:
            raise ConfigError(f"{variable}: it is no {key}", "Correct or unset it.") from None
        return Secret(value) if key == "token" else value

    @property
    def secret_variables(self) -> frozenset[str]:
        """The environment variables that hold credentials of ours, which no child process is to see."""
        own = {name for key in describe() if key.secret for name in key.variables}
        named = {source.variable for source in self.tokens if source.variable}
        return frozenset(own | named | self._hidden | sources.secret_variables(self._environ.names()))

    def token_source(self, base: str) -> TokenSource | None:
        """Where the token of that address's own host is, as `tokens` says; None on --token or without implicit ones."""
        if not self.implicit_token:
            return None
        if url_origin(base) == url_origin(self.endpoint) and self.setting_source("token").layer == "flag":
            return None
        return next((source for source in self.tokens if source.url_origin == url_origin(base)), None)

    def find_token(self) -> Secret:
        """The token to use, false for none; reads token_file. Raises ConfigError, without the token in it."""
        if not self.implicit_token:
            return self.token if self.setting_source("token").layer == "flag" else Secret()
        return self.token or self._token_from_file()

    def _token_from_file(self) -> Secret:
        if self.token_file is None:
            return Secret()
        where = f"token_file {self.token_file}"
        optional = self.setting_source("token_file").layer in (
            "built-in",
            "environment",
        )  # as the huggingface_hub client
        if not optional and not self.token_file.exists():
            raise ConfigError(f"{where} does not exist", "Correct the path, or write the token there.")
        return in_file(self.token_file, where)

    def _needed(self, key: str, path: Path | None) -> Path:
        if path is None:
            names = " or ".join(next(k for k in describe() if k.name == key).variables[:1])
            raise ConfigError(f"{key} is not known: there is no home folder", f"Set HOME, or {names}.")
        return path


def _named(name: str, key: Key) -> Key:
    return replace(key, name=name, flag=key.flag or "--" + name.replace("_", "-"))


FIELDS = {f.name.removeprefix("_"): f.name for f in fields(Settings) if "key" in f.metadata}
_KEYS = tuple(_named(f.name.removeprefix("_"), f.metadata["key"]) for f in fields(Settings) if "key" in f.metadata)


def describe() -> tuple[Key, ...]:
    """Every key in the order of the reference, with its default, variables, unit and help as text."""
    return _KEYS
