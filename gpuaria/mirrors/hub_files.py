"""The files of one commit as its source serves them: where each mirror answers for them, and what the answers mean."""

from dataclasses import dataclass

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.records import Manifest, Mirror, MirrorUrl, RemoteFile
from gpuaria.sources.protocol import Source, sends_on, shortcuts


@dataclass(frozen=True, slots=True)
class HubFiles:
    """One source, one manifest, and the client that asks for its files."""

    source: Source
    manifest: Manifest
    http: Http

    def locate(self, mirror: Mirror, file: RemoteFile) -> MirrorUrl | None:
        """The final URL of a file at a mirror; None where its bytes need a credential. Raises GpuariaError."""
        return self.source.locate(mirror, self.manifest, file, self.http)

    def usual_url(self, mirror: Mirror, file: RemoteFile) -> str:
        """The URL at which a mirror answers for a file, possibly by a redirect."""
        return self.source.file_url(mirror, self.manifest, file)

    def redirect_targets(self, mirror: Mirror, file: RemoteFile) -> tuple[str, ...]:
        """The URL to which `usual_url` of a small file may redirect, in each spelling, the likeliest first."""
        return shortcuts(self.source, mirror, self.manifest, file)

    def redirects_small_files(self, mirror: Mirror) -> bool:
        """True if a mirror is known to redirect small files, before the first request."""
        return sends_on(self.source, mirror, self.manifest)

    def check(self, mirror: Mirror, answer: Response) -> None:
        """Raise NetworkError where a response shows another commit, or that no hub answers."""
        self.source.check(answer, mirror, self.manifest)

    def refused(self, mirror: Mirror, file: RemoteFile, answer: Response) -> GpuariaError:
        """The error for which a response without success stands."""
        return self.source.refused(mirror, self.manifest, file, answer, self.http)
