"""A task's own state, and the events of a run."""

import time

import pytest

from gpuaria.events import Event
from gpuaria.http.client import Http
from gpuaria.mirrors.hub_files import HubFiles
from gpuaria.mirrors.pool import MirrorPool
from gpuaria.paths import SafePath
from gpuaria.records import Manifest, Mirror, MirrorUrl, RemoteFile, RepoRef, Step, Verdict
from gpuaria.sources.huggingface import HuggingFace
from gpuaria.transfer.ranges import PIECE, ByteRange
from gpuaria.transfer.results import Results
from gpuaria.transfer.task import TRANSITIONS, FileTask, State

SIZE = 64 * PIECE
LATE = Mirror("late", "http://a")


@pytest.fixture
def task() -> FileTask:
    return FileTask(Step(RemoteFile(SafePath("w.bin"), SIZE, None, ""), "download", "", "aria2"))


@pytest.mark.parametrize(("life", "least"), [(3600.0, 2390.0), (30.0, 19.0), (-5.0, 0.5)])
def test_a_url_knows_its_renewal_time(task: FileTask, life: float, least: float) -> None:
    now = time.time()
    task.use_url(MirrorUrl(LATE, "http://a/", now + life), now)
    assert now + least <= task.renew_at[LATE] <= now + max(1.5, life)
    assert task.used == set(task.urls) == {LATE}


@pytest.mark.parametrize(
    ("completed", "connections", "spare"),
    [(0, 32, True), (48 * PIECE, 16, False), (48 * PIECE, 15, True), (SIZE, 0, False), (SIZE - 10, 0, False)],
)
def test_a_piece_is_spare_if_no_connection_can_hold_it(
    task: FileTask, completed: int, connections: int, spare: bool
) -> None:
    task.ranges = [ByteRange(0, SIZE, completed=completed, running=True, connections=connections)]
    task.connections = connections
    assert task.has_free_piece is spare
    task.ranges.append(ByteRange(SIZE, 2 * SIZE))
    assert task.has_free_piece


def test_every_state_has_transitions_except_two() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state, nexts in TRANSITIONS.items() if not nexts} == {State.DONE, State.FAILED}


@pytest.mark.parametrize("state", State)
def test_an_undeclared_transition_is_a_bug(task: FileTask, state: State) -> None:
    for after in State:
        task.state = state
        if after in TRANSITIONS[state]:
            task.move(after)
            assert task.state is after
        else:
            with pytest.raises(AssertionError, match=r"w\.bin"):
                task.move(after)


class Heard:
    def __init__(self) -> None:
        self.said: list[Event] = []

    def settled(self, file: RemoteFile, verdict: Verdict) -> None:
        """Do nothing."""

    def emit(self, event: Event) -> None:
        self.said.append(event)


def test_a_late_thread_emits_nothing_after_the_last_event() -> None:
    heard, file = Heard(), RemoteFile(SafePath("a"), 1, None)
    manifest = Manifest(RepoRef("hf", "model", "org/r"), "org/r", "0" * 40, "http://a", "origin", (file,))
    results = Results(MirrorPool(HubFiles(HuggingFace(), manifest, Http()), [LATE]), (), heard)
    results.record_verdict(file, Verdict(file.path, "ok"))
    results.close()
    results.record_verdict(file, Verdict(file.path, "failed"))
    assert len(heard.said) == 1
    assert results.verdicts[file.path].outcome == "failed"
