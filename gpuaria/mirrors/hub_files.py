"""The files of one commit as its source serves them: their URLs at each mirror, and the meaning of responses."""

from dataclasses import dataclass

from gpuaria.errors import GpuariaError
from gpuaria.http.client import Http
from gpuaria.http.messages import Response
from gpuaria.records import Manifest, Mirror, MirrorUrl, RemoteFile
from gpuaria.sources.protocol import Source, sends_on, shortcuts


@dataclass(frozen=True, slots=True)
class HubFiles:
    """One source, one manifest, and the HTTP client for its files."""

    source: Source
    manifest: Manifest
    http: Http

    def locate(self, mirror: Mirror, file: RemoteFile) -> MirrorUrl | None:
        """Return the final URL of a file at a mirror; None if its bytes need a credential. Raises GpuariaError."""
        return self.source.locate(mirror, self.manifest, file, self.http)

    def usual_url(self, mirror: Mirror, file: RemoteFile) -> str:
        """Return the URL of a file at a mirror, which may redirect."""
        return self.source.file_url(mirror, self.manifest, file)

    def redirect_targets(self, mirror: Mirror, file: RemoteFile) -> tuple[str, ...]:
        """Return the URL to which `usual_url` of a small file may redirect, in each spelling, the most likely first."""
        return shortcuts(self.source, mirror, self.manifest, file)

    def redirects_small_files(self, mirror: Mirror) -> bool:
        """Return True if a mirror is known to redirect small files before the first request."""
        return sends_on(self.source, mirror, self.manifest)

    def check_response(self, mirror: Mirror, response: Response) -> None:
        """Raise NetworkError if a response shows another commit, or does not come from a hub."""
        self.source.check(response, mirror, self.manifest)

    def error_for(self, mirror: Mirror, file: RemoteFile, response: Response) -> GpuariaError:
        """Return the error that an unsuccessful response means."""
        return self.source.refused(mirror, self.manifest, file, response, self.http)
