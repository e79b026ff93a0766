"""A second reader of files that real aria2c is still downloading."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpuaria import fetching
from gpuaria import plan as planning
from gpuaria.errors import GpuariaError, Interrupted, WrongBytes
from gpuaria.events import Event
from gpuaria.fetching import execute
from gpuaria.fetching.request import request_for
from gpuaria.mirrors.hub_files import HubFiles
from gpuaria.mirrors.pool import MirrorPool
from gpuaria.records import RemoteFile, Verdict
from gpuaria.runtime import Runtime
from gpuaria.settings import load
from gpuaria.storage.layout import Layout
from gpuaria.transfer.follow import Reader
from gpuaria.transfer.results import Results
from standin import Repo
from tests.support.user import Serve, User

SIZE = 90_000_000  # two ranges
BIG, SMALL = "w.safetensors", "config.json"


@pytest.fixture(scope="module")
def data() -> bytes:
    return random.Random(3).randbytes(SIZE)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> Repo:
    return Repo.build("org/big", {BIG: data, SMALL: b"{}"}, folder=tmp_path_factory.mktemp("follow"), direct=True)


@dataclass
class Heard:
    """A listener that ignores all events."""

    said: list[Event] = field(default_factory=list)

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        """Do nothing."""

    def emit(self, event: Event) -> None:
        self.said.append(event)


@dataclass
class Fetch:
    """One fetch in a thread, whose files can be followed."""

    results: Results
    layout: Layout
    files: dict[str, RemoteFile]
    stop: threading.Event
    error: BaseException | None = None

    def follow(self, name: str) -> Reader:
        return self.results.follow(self.files[name], self.layout)


Start = Callable[..., Fetch]


@pytest.fixture
def start(user: User, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts a fetch of org/big into a folder; the fetch ends with the test."""

    def begin(patience: str = "30s") -> Fetch:
        settings = load({"patience": patience, "timeout": "2s"}, user.environ(), user.home)
        runtime, stop, heard = Runtime(settings), threading.Event(), Heard()
        ready = threading.Event()
        found: list[Fetch] = []

        def run() -> None:
            with runtime, runtime.world(tmp_path / "out", heard.emit, stop) as world:
                request = request_for(runtime.ref("org/big"))
                manifest, layout = fetching.resolve(request, world)
                limits = runtime._limits(request, world)
                with layout.lock(5.0):
                    layout.begin(manifest)
                    plan = planning.make(manifest, layout.inspect(manifest.files), world.mirrors, limits.rules)
                    pool = MirrorPool(HubFiles(world.source, manifest, world.http), world.mirrors)
                    results = Results(pool, (step.file.path for step in plan.steps), heard)
                    found.append(Fetch(results, layout, {str(f.path): f for f in manifest.files}, stop))
                    ready.set()
                    try:
                        goal = execute.Destination(manifest, layout, world.mirrors)
                        execute.execute(plan, goal, world, limits, results)
                    except GpuariaError as error:
                        found[0].error = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(30)
        threads.append((thread, stop))
        return found[0]

    threads: list[tuple[threading.Thread, threading.Event]] = []
    yield begin
    for thread, stop in threads:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def read_all(reader: Reader, size: int) -> bytes:
    body = bytearray()
    while len(body) < size:
        body += reader.read(len(body), 1 << 20, timeout=60)
    return bytes(body)


def test_a_file_in_flight_is_read_to_its_end(start: Start, serve: Serve, repo: Repo, data: bytes) -> None:
    serve(repo, limit_rate=1_000_000)
    fetch = start()
    with fetch.follow(BIG) as reader:
        first = reader.read(0, 1000, timeout=60)
        assert first == data[:1000]
        assert not reader.verified, "the second range is still to come"
        assert read_all(reader, SIZE) == data
        reader.wait_verified(60)
        assert reader.verified
        assert reader.read(SIZE, 10) == b""
        assert reader.arrived() == [(0, SIZE)]
    with fetch.follow(SMALL) as reader:
        reader.wait_verified(60)
        assert read_all(reader, 2) == b"{}"
        assert reader.read(1, 99) == b"}"


def test_a_late_reader_gets_the_published_file(start: Start, serve: Serve, repo: Repo, data: bytes) -> None:
    serve(repo)
    fetch = start()
    fetch.follow(BIG).wait_verified(60)
    with fetch.follow(BIG) as reader:
        assert reader.verified
        assert read_all(reader, SIZE) == data


def test_a_failed_file_wakes_its_readers_with_the_error(start: Start, serve: Serve, repo: Repo) -> None:
    hub = serve(repo)
    hub.cdn.fault(BIG, "status", status=404)
    with start(patience="2s").follow(BIG) as reader, pytest.raises(GpuariaError, match=r"^w\.safetensors: 127"):
        reader.read(0, 1000, timeout=60)


def test_wrong_bytes_raise_an_error_in_the_reader(start: Start, serve: Serve, repo: Repo) -> None:
    hub = serve(repo, limit_rate=2_000_000)
    hub.cdn.fault(BIG, "flip", offset=1000)
    with start().follow(BIG) as reader:
        assert reader.read(0, 1000, timeout=60)
        with pytest.raises(WrongBytes, match="did not pass"):
            reader.wait_verified(60)


def test_the_end_of_the_run_wakes_its_readers(start: Start, serve: Serve, repo: Repo) -> None:
    serve(repo, limit_rate=10_000)
    fetch = start()
    threading.Timer(1.0, fetch.stop.set).start()
    with fetch.follow(BIG) as reader, pytest.raises(Interrupted):
        reader.read(0, 1000, timeout=60)


def test_a_reader_waits_no_longer_than_its_timeout(start: Start, serve: Serve, repo: Repo) -> None:
    serve(repo, limit_rate=10_000)
    with start().follow(BIG) as reader, pytest.raises(TimeoutError, match=r"w\.safetensors"):
        reader.read(0, 1000, timeout=0.2)
