"""Checks the route to the hub and to each mirror, stage by stage; with a repo, up to the bytes of a real file."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gpuaria import fetching
from gpuaria.dns.deadline import BackgroundCall, Deadline
from gpuaria.dns.findings import NO_TIME, DnsAnswer, TlsFinding
from gpuaria.dns.resolvers import Resolvers
from gpuaria.doctor.finding import Notes
from gpuaria.doctor.storage import cache_fix
from gpuaria.errors import AccessDenied, DiskError, GpuariaError, NetworkError, NoSpace, NotFound
from gpuaria.fetching import World, request_for
from gpuaria.mirrors.measure.findings import LookupFinding, MirrorFindings, TcpFinding
from gpuaria.mirrors.measure.stream import SampleLimits
from gpuaria.mirrors.measure.survey import Reads, Tools, survey
from gpuaria.os_errors import explained
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, Mirror, RemoteFile, RepoRef
from gpuaria.settings import Settings
from gpuaria.sources.protocol import About, ChecksToken, Stated
from gpuaria.storage import space
from gpuaria.storage.layout import Layout
from gpuaria.text import decimal
from gpuaria.trust import ListingTrust, OriginUnavailable, listing_from_mirrors

RESOLVE = 2.2  # seconds for listing the files
SILENCE = 1.0  # seconds without a response from the hub, after which mirrors are asked too
_SAMPLE = SampleLimits(seconds=0.6, ceiling=2 << 20)
_NOTHING = RemoteFile(SafePath.parse("nothing"), 0, None)
_HUBS = ("https://huggingface.co", "https://hf-mirror.com")
_STAGES = {"dns": "DNS", "tcp": "TCP", "tls": "TLS", "lookup": "hub protocol", "fresh": "commit", "bytes": "bytes"}


class RouteChecks:
    """Measures all mirrors. `errors`: the errors of their resolve requests, by the mirror's name.

    `works`: whether a fetch would find a file list that it may trust, and bytes.
    """

    def __init__(self, settings: Settings, world: World, ref: RepoRef | None, deadline: Deadline, notes: Notes) -> None:
        self._settings, self._world = settings, world
        self._ref, self._deadline, self._notes = ref, deadline, notes
        self._manifest: Manifest | None = None  # the requested files
        self._whole = 0  # files of the repo
        self._file = _NOTHING
        self.errors: dict[str, GpuariaError] = {}
        self.works = False

    def measure(
        self, resolvers: Resolvers, context: ssl.SSLContext, environ: Mapping[str, str]
    ) -> list[MirrorFindings]:
        """Measure all mirrors at once, and add the findings to the notes."""
        if self._ref is not None:
            self._resolve(self._ref)
        mirrors = self._world.mirrors
        tools = Tools(self._resolve_file, resolvers, context, environ, pings=False)
        budget = min(self._settings.probe_budget, max(0.5, self._deadline.remaining() - 0.9))
        commit = self._manifest.version if self._manifest else ""
        found = survey(mirrors, commit, self._file, tools, budget, Reads((1,), _SAMPLE))
        self._conclude(dict(zip(mirrors, found, strict=True)))
        return list(found)

    def _resolve(self, ref: RepoRef) -> None:
        """List the repo's files as a fetch does, and check that they fit on the disk."""
        try:
            done = self._listed(ref)
        except NetworkError as error:
            text, fix = f"cannot list {ref}: {error.message}", f"gpuaria resolve {ref}"
            return self._notes.unknown("repo", text, fix, error.exit_code)
        except GpuariaError as error:
            return self._notes.failed("repo", error)
        if done is None:
            text = f"listing the files of {ref} took longer than {RESOLVE} s"
            return self._notes.unknown("repo", text, f"gpuaria resolve {ref}", NetworkError.exit_code)
        whole, layout = done
        try:
            self._manifest = request_for(ref).selected(whole)
        except NotFound as error:
            return self._notes.failed("repo", error)
        self._whole = len(whole.files)
        self._world = fetching.with_listed_servers(self._world, whole)
        if self._manifest.files:
            self._file = max(self._manifest.files, key=lambda file: file.size)
        seen = layout.inspect(self._manifest.files)
        missing = [file for file in self._manifest.files if seen[file.path].size != file.size]
        need = sum(max(0, file.size - seen[file.path].partial) for file in missing)
        return self._room(need)

    def _listed(self, ref: RepoRef) -> tuple[Manifest, Layout] | None:
        """List the files as a fetch does; if the hub is silent, ask the mirrors earlier than a fetch would."""
        request, world = request_for(ref), self._world
        deadline = self._deadline.within(RESOLVE)
        first = BackgroundCall(lambda: fetching.resolve(request, world))
        done = first.result(deadline.within(SILENCE), 0)
        if done is not None or world.policy == "origin" or len(world.mirrors) < 2:
            return done or first.result(deadline, 0)
        trusted = ListingTrust(world.http, world.source, world.mirrors, world.policy, world.emit)
        silent = OriginUnavailable(NetworkError(f"{world.origin.base} is silent"))
        other = BackgroundCall(lambda: listing_from_mirrors(trusted, ref, request.chosen(), silent))
        done = first.result(deadline, 0)
        listed = None if done is not None else other.result(Deadline(0), 0)
        return (listed, world.target.layout(ref, listed.version)) if isinstance(listed, Manifest) else done

    def _room(self, need: int) -> None:
        settings = self._settings
        fix = cache_fix(settings)
        try:
            place = self._world.target.folder or settings.cache_dir
            with explained(place):
                space.check_free(place, need)
        except NoSpace as error:
            return self._notes.problem("room", error.message, fix, error.exit_code)
        except DiskError as error:
            return self._notes.unknown("room", error.message, fix, error.exit_code)
        return self._notes.ok("room", f"{decimal(need)} to download, and there is enough space")

    def _resolve_file(self, mirror: Mirror) -> tuple[str, Stated] | None:
        """Return the URL of the file; without a file, only check that a hub responds."""
        http, source = self._world.http, self._world.source
        manifest = self._manifest
        try:
            if manifest is None or self._file is _NOTHING or (manifest.restricted and mirror.anonymous):
                if isinstance(source, ChecksToken):
                    source.whoami(mirror.base, http, anonymous=not mirror.own_token)
                else:
                    http.head(mirror.base, anonymous=True)
                return None
            address = source.locate(mirror, manifest, self._file, http)
        except GpuariaError as error:
            self.errors[mirror.name] = error
            raise
        if address is None:
            return None
        return address.url, Stated(manifest.version)  # `locate` has checked size and digest

    def _conclude(self, found: Mapping[Mirror, MirrorFindings]) -> None:
        """Add a finding for each mirror. The hub's failure counts only if no mirror may replace it."""
        carriers = [mirror for mirror, one in found.items() if self._carries(mirror, one)]
        world = self._world
        listed = self._manifest is not None if self._ref else world.origin in carriers or world.policy != "origin"
        self.works = bool(carriers) and listed
        for mirror, one in found.items():
            self._add_finding(mirror, one)
        refused = isinstance(self.errors.get(world.origin.name), AccessDenied | NotFound)
        if self._manifest is not None and self.works and not refused:
            self._repo(self._manifest)

    def _carries(self, mirror: Mirror, found: MirrorFindings) -> bool:
        """Return whether the mirror delivers bytes; without a file, whether it responds as a hub."""
        if found.failed[0] or found.lookup.state != "measured":
            return False
        return self._file is _NOTHING or found.bytes.state == "measured" or (mirror.primary and not _out_of_time(found))

    def _add_finding(self, mirror: Mirror, found: MirrorFindings) -> None:
        """Add the finding of one mirror. Denied access to a repo is not a failure of the route."""
        error, steps = self.errors.get(mirror.name), _steps(mirror, found)
        if mirror.primary and isinstance(error, AccessDenied | NotFound):
            self._notes.failed("repo", error)
            return self._notes.ok("endpoint", f"{steps}, the hub responds")
        stage, why = found.failed
        if stage:
            text = f"{steps}, {_STAGES[stage]} failed: {_short(why)}"
            return self._failed(mirror, text, _fix(mirror, stage, error, self._world.source.about), error)
        if found.lookup.state != "measured" or (self._file is not _NOTHING and _out_of_time(found)):
            behind = "hub protocol" if found.lookup.state != "measured" else "bytes"
            text = f"{steps}, {behind}: no response in time"
            status = NetworkError.exit_code if mirror.primary and not self.works else 0
            fix = f"curl -sv -o /dev/null {mirror.base}"
            return self._notes.unknown(_topic(mirror), text, fix, status)
        return self._notes.ok(_topic(mirror), steps)

    def _failed(self, mirror: Mirror, text: str, fix: str, error: GpuariaError | None) -> None:
        if mirror.primary and not self.works:
            status = error.exit_code if error else NetworkError.exit_code
            return self._notes.problem("endpoint", text, fix, status)
        more = "; mirrors can replace it" if mirror.primary else ""
        return self._notes.warn(_topic(mirror), text + more, fix)

    def _repo(self, manifest: Manifest) -> None:
        text = f"{self._ref} has {self._whole} files at commit {manifest.version[:12]}; its bytes are available"
        if len(manifest.files) < self._whole:
            text += f"; requested: {len(manifest.files)} of {self._whole} files"
        if manifest.trust not in ("quorum", "mirror only"):
            return self._notes.ok("repo", text)
        text += f"; file list only from {manifest.vouched_by} ({manifest.trust})"
        return self._notes.warn("repo", text, f"gpuaria fetch {manifest.name} --revision KNOWN_COMMIT")


def _out_of_time(found: MirrorFindings) -> bool:
    return found.bytes.problem == NO_TIME


def _topic(mirror: Mirror) -> str:
    return "endpoint" if mirror.primary else "mirror"


def _steps(mirror: Mirror, found: MirrorFindings) -> str:
    """Return the stages that succeeded, each with its time."""
    steps = [f"proxy {found.proxy}"] if found.proxy else []
    own = [a for a in found.dns if a.host == found.host and a.addresses]
    stages: dict[str, Sequence[DnsAnswer | TcpFinding | TlsFinding | LookupFinding]] = {
        "DNS": own,
        "TCP": found.tcp,
        "TLS": found.tls,
        "hub protocol": (found.lookup,),
    }
    for name, rows in stages.items():
        times = [row.seconds for row in rows if row.state == "measured" and row.seconds is not None]
        steps += [f"{name} {1000 * min(times):.0f} ms"] if times else []
    if found.bytes.state == "measured" and found.bytes.rate:
        steps.append(f"bytes {decimal(round(found.bytes.rate))}/s from {found.bytes.final_host}")
    return ", ".join([mirror.base, *steps])


def _short(why: str) -> str:
    """Return `why` without the waiting limit, which is a fetch's."""
    return why.partition(", longer than the waiting limit")[0]


def _fix(mirror: Mirror, stage: str, error: GpuariaError | None, about: About) -> str:
    """Return a fix for the stage that failed."""
    if not mirror.primary:
        return f"gpuaria mirrors remove {mirror.name}  # or leave --mirror {mirror.base} out"
    if stage == "tls":
        return "export SSL_CERT_FILE=/path/to/the/bundle/of/your/network.pem"
    if error is not None and error.hint:
        return error.hint
    own = f"GPUARIA_SOURCES_{about.name.upper().replace('-', '_')}_ENDPOINT"
    variable = about.endpoint_variables[-1] if about.endpoint_variables else own
    other = next(url for url in _HUBS if url != mirror.base) if about.name == "hf" else "ANOTHER_URL"
    if stage == "dns":
        return f"export {variable}={other}  # or correct the name servers in /etc/resolv.conf"
    return f"export {variable}={other}  # or https_proxy=http://HOST:PORT, if this network has one"


def worst(found: list[MirrorFindings]) -> MirrorFindings | None:
    """Return a mirror that failed, else the slowest one to reach; None if no mirror has an IP address."""
    reached = [one for one in found if one.addresses]

    def badness(one: MirrorFindings) -> tuple[bool, float]:
        times = [t.seconds for t in one.tcp if t.seconds is not None]
        return bool(one.failed[0]), min(times, default=float("inf"))

    return max(reached, key=badness, default=None)


def offline(world: World, ref: RepoRef, notes: Notes) -> None:
    """Check, without the network, whether all files of a repo are on disk."""
    try:
        request = replace(request_for(ref), offline=True)
        whole, layout = fetching.resolve(request, world)
        manifest = request.selected(whole)
        seen = layout.inspect(manifest.files)
    except GpuariaError as error:
        return notes.failed("repo", error)
    missing = [file for file in manifest.files if seen[file.path].size != file.size]
    if missing:
        text = f"{len(missing)} of {len(manifest.files)} files of {ref} are not on disk, and gpuaria is offline"
        return notes.problem("repo", text, f"unset HF_HUB_OFFLINE; gpuaria fetch {ref}", NotFound.exit_code)
    return notes.ok("repo", f"all {len(manifest.files)} files of {ref} are in {layout.root}")
