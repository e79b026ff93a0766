"""The servers of a scenario: stand-in hubs with real nginx, each on a lab host, run by this process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks import content
from lab import Counter, Loop, Net, inside
from standin import Hub, RateLimit, Repo

Place = Net | Loop
CDN = "cdn"


@dataclass
class Served:
    """The running hubs by host, the origin first. Large files come from the host `cdn` if there is one."""

    place: Place
    hubs: dict[str, Hub] = field(default_factory=dict)

    @property
    def origin(self) -> Hub:
        """The hub whose listing decides."""
        return next(iter(self.hubs.values()))

    @property
    def mirrors(self) -> list[str]:
        """The URLs of the other hubs."""
        return [hub.url for hub in list(self.hubs.values())[1:]]

    @cached_property
    def counters(self) -> dict[str, Counter]:
        """Counters of the bytes that each host sent."""
        return self.place.counters()

    def reset(self) -> None:
        """Forget the requests so far."""
        for name, hub in self.hubs.items():
            with inside(self.place.space(name)):
                hub.reset()

    def asked(self) -> int:
        """Return the number of requests to the origin, without those for bytes of large files."""
        return self.origin.count()

    def sent(self) -> int:
        """Return the bytes of large files that the servers sent, from nginx's log."""
        total = 0
        for name, hub in self.hubs.items():
            with inside(self.place.space(name)):
                total += sum(seen.sent for seen in hub.cdn.requests)
        return total


@dataclass(frozen=True)
class Work:
    """A repo and the servers to fetch it from."""

    repo: Repo
    served: Served

    @property
    def name(self) -> str:
        """The repo's name at the hub."""
        return self.repo.repo_id

    @cached_property
    def files(self) -> dict[str, Path]:
        """The servers' copy of each file."""
        return {path: entry.file for path, entry in self.repo.commits[self.repo.head].files.items()}

    @cached_property
    def size(self) -> int:
        """Total size in bytes."""
        return sum(entry.size for entry in self.repo.commits[self.repo.head].files.values())

    def finals(self, path: str) -> list[str]:
        """Return the final URLs of a large file, one for each mirror."""
        entry = self.repo.commits[self.repo.head].files[path]
        return [hub.signed_url(self.repo, entry) for hub in self.served.hubs.values()]

    def resolves(self, path: str) -> str:
        """Return the hub's own URL of a file."""
        return f"{self.served.origin.url}/{self.name}/resolve/main/{path}"

    def right(self, folder: Path) -> bool:
        """Return whether the folder holds every file, byte for byte."""
        return all(content.same(folder / path, file) for path, file in self.files.items())


# gpuaria pauses before a hub's quota is used up. Scenario 6 requests more files than the Hub allows in five minutes
# (3,000) and would measure the pause.
ROOMY = RateLimit(api=1_000_000, resolvers=1_000_000, pages=1_000_000)


@contextmanager
def serve(place: Place, repos: Sequence[Repo], limit_rate: int = 0) -> Iterator[Served]:
    """Start the servers of every host; `limit_rate` in bytes/s for each connection to nginx."""
    with ExitStack() as stack:

        def start(host: str, **options: object) -> Hub:
            told = {"name": host, "limit_rate": limit_rate, "rate": ROOMY, **options}
            hub = Hub(repos, host=place.ip[host], **told)  # type: ignore[arg-type]
            with inside(place.space(host)):
                stack.enter_context(hub)
            return hub

        base: Mapping[str, object] = {"location_base": start(CDN)} if CDN in place.hosts else {}
        yield Served(place, {host: start(host, **base) for host in place.hosts if host != CDN})
