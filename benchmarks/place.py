"""The servers of a scenario: stand-in hubs with real nginx, each on a host of a lab, run by this process."""

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
    """The hubs by host; the first one is the origin. Large files come from the host `cdn` if there is one."""

    place: Place
    hubs: dict[str, Hub] = field(default_factory=dict)

    @property
    def origin(self) -> Hub:
        """The hub that vouches."""
        return next(iter(self.hubs.values()))

    @property
    def mirrors(self) -> list[str]:
        """The addresses of the others."""
        return [hub.url for hub in list(self.hubs.values())[1:]]

    @cached_property
    def counters(self) -> dict[str, Counter]:
        """What each host has sent."""
        return self.place.counters()

    def reset(self) -> None:
        """Forget the requests so far."""
        for name, hub in self.hubs.items():
            with inside(self.place.space(name)):
                hub.reset()

    def asked(self) -> int:
        """Requests to the origin, those for the bytes of large files not among them."""
        return self.origin.count()

    def sent(self) -> int:
        """Bytes of large files that the servers have sent, by nginx's own log."""
        total = 0
        for name, hub in self.hubs.items():
            with inside(self.place.space(name)):
                total += sum(seen.sent for seen in hub.cdn.requests)
        return total


@dataclass(frozen=True)
class Work:
    """A repo to be fetched from servers."""

    repo: Repo
    served: Served

    @property
    def name(self) -> str:
        """As the hub knows it."""
        return self.repo.repo_id

    @cached_property
    def files(self) -> dict[str, Path]:
        """Where the servers have each file."""
        return {path: entry.file for path, entry in self.repo.commits[self.repo.head].files.items()}

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.repo.commits[self.repo.head].files.values())

    def finals(self, path: str) -> list[str]:
        """Addresses of a large file at every mirror that need no look-up any more."""
        entry = self.repo.commits[self.repo.head].files[path]
        return [hub.signed(self.repo, entry) for hub in self.served.hubs.values()]

    def resolves(self, path: str) -> str:
        """The address that the hub gives out for a file."""
        return f"{self.served.origin.url}/{self.name}/resolve/main/{path}"

    def right(self, folder: Path) -> bool:
        """Whether the folder holds every file, byte for byte."""
        return all(content.same(folder / path, file) for path, file in self.files.items())


# gpuaria obeys what a hub says of its quota before it is refused. Scenario 6 asks for more than the Hub's 3,000 files
# in five minutes, and would measure that pause.
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
