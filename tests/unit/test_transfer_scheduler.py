"""The scheduler's rules: events in, commands out, without a clock or a network."""

import ast
import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest

from gpuaria.errors import AccessDenied, FileNotInRepo, GpuariaError, NetworkError, NotAHub
from gpuaria.mirrors.pool import Delivered, Incompatible, Recovered, Refused, ServedWrongBytes, Stalled
from gpuaria.paths import SafePath
from gpuaria.records import Mirror, MirrorUrl, RemoteFile, Step, Verdict
from gpuaria.storage.layout import ClaimResult
from gpuaria.transfer import commands, events, tuning
from gpuaria.transfer.commands import Command
from gpuaria.transfer.ranges import PIECE, ByteRange
from gpuaria.transfer.scheduler import Scheduler
from gpuaria.transfer.steering import TransferLimits
from gpuaria.transfer.task import FileTask, State

ORIGIN = Mirror("hub", "https://hub", primary=True)
NEAR, FAR = Mirror("near", "https://near"), Mirror("far", "https://far")
SIZE = 200 * PIECE
PURE = ("scheduler", "recovery", "run_tasks", "steering", "delivery", "task", "events", "commands", "ranges", "pace")


class Known:
    """A fake mirror pool."""

    def __init__(self) -> None:
        self.away: set[Mirror] = set()
        self.unusable: set[Mirror] = set()
        self.ready: list[Mirror] = []
        self.bad: dict[Mirror, str] = {}

    def usable(self, mirrors: Sequence[Mirror]) -> list[Mirror]:
        return [mirror for mirror in mirrors if mirror not in self.away] or list(mirrors)

    def incompatible(self, mirrors: Sequence[Mirror]) -> set[Mirror]:
        return self.unusable.intersection(mirrors)

    def due_for_test(self, wanted: Collection[Mirror]) -> list[Mirror]:
        return [mirror for mirror in self.ready if mirror in wanted]

    def stalled_mirrors(self, now: float, connections: Mapping[Mirror, int]) -> dict[Mirror, str]:
        return {mirror: why for mirror, why in self.bad.items() if mirror in connections}

    def forget_speed(self, mirror: Mirror) -> None:
        """Do nothing."""


class Run:
    """A scheduler with a fake clock."""

    def __init__(self, **limits: float) -> None:
        self.known, self.now = Known(), 100.0
        self.scheduler = Scheduler(TransferLimits(**limits), self.known, ORIGIN)  # type: ignore[arg-type]
        self._names = itertools.count()

    def add(self, carrier: str = "aria2", size: int = SIZE, mirrors: tuple[Mirror, ...] = (ORIGIN, NEAR)) -> FileTask:
        file = RemoteFile(SafePath(f"{next(self._names)}.bin"), size, None)
        return self.scheduler.add(Step(file, "download", "", carrier, mirrors=mirrors, connections=32))  # type: ignore[arg-type]

    def tell(self, event: events.TransferEvent) -> list[Command]:
        return list(self.scheduler.handle(event, self.now))

    def tick(self, seconds: float = 0.0) -> list[Command]:
        self.now += seconds
        return self.tell(events.Tick(self.now))

    def resolved(self, task: FileTask, mirror: Mirror, found: object = "url") -> list[Command]:
        if found == "url":
            found = MirrorUrl(mirror, f"{mirror.base}/{task.file.path}")
        assert found is None or isinstance(found, MirrorUrl | GpuariaError)
        return self.tell(events.Resolved(task, task.attempt, mirror, found, self.now))

    def begun(self, *, cuts: Sequence[int] = (), **add: object) -> FileTask:
        """Return a file that aria2 downloads in ranges that end at `cuts`."""
        task = self.add(**add)  # type: ignore[arg-type]
        self.tick()
        self.tell(events.Claimed(task, ClaimResult.GRANTED))
        self.resolved(task, task.step.mirrors[0])
        for mirror in task.step.mirrors[1:]:
            self.resolved(task, mirror)
        borders = [0, *cuts, task.file.size]
        row = [ByteRange(a, b) for a, b in itertools.pairwise(borders)]
        self.tell(events.Prepared(task, row, hard_links=True))
        assert state_of(task) is State.DOWNLOADING
        return task

    def progress(self, task: FileTask, completed: int, connections: int = 32) -> list[Command]:
        """Report that `completed` bytes of the running range are done."""
        one = task.running[-1]
        each = [1000] * (connections // max(1, len(task.urls)))
        speeds = dict.fromkeys(task.urls, each)
        self.tell(events.Progressed(task, {one: completed}, {one: connections}, 1000.0, speeds))
        return self.tell(events.ReadingDone({}))


def state_of(task: FileTask) -> State:
    return task.state


def kinds(found: Sequence[Command]) -> list[str]:
    return [type(command).__name__ for command in found]


@pytest.fixture
def run() -> Run:
    return Run()


# --- the start -----------------------------------------------------------------------------------------------------


def test_a_large_file_is_claimed_resolved_prepared_and_started(run: Run) -> None:
    task = run.add()
    assert kinds(run.tick()) == ["Claim", "WarmUp"]
    assert state_of(task) is State.RESOLVING
    assert run.tell(events.Claimed(task, ClaimResult.GRANTED)) == [
        commands.Resolve(task, ORIGIN, 1, fresh=False),
        commands.Resolve(task, NEAR, 1, fresh=False),
    ]
    assert run.resolved(task, NEAR) == [commands.Prepare(task, 0)]
    one, two = ByteRange(0, PIECE), ByteRange(PIECE, SIZE)
    found = run.tell(events.Prepared(task, [one, two], hard_links=True))
    assert found == [commands.SetBytesOnDisk(task, 0), commands.StartRange(task, one)]
    late = run.resolved(task, ORIGIN)
    assert late == [commands.ChangeUrls(task, None, task.urls[ORIGIN])], "it joins the download"


@pytest.mark.parametrize(("jobs", "files", "begun"), [(1, 3, 1), (4, 3, 3), (4, 9, 4)])
def test_the_number_of_parallel_files_is_limited(jobs: int, files: int, begun: int) -> None:
    run = Run(jobs=jobs)
    tasks = [run.add() for _ in range(files)]
    assert kinds(run.tick()).count("Claim") == begun
    assert [task.state for task in tasks].count(State.RESOLVING) == begun
    assert tasks[0].state is State.RESOLVING, "in their order"


def test_a_file_on_its_last_connections_makes_room_for_another() -> None:
    run = Run(jobs=1)
    first = run.begun()
    second = run.add()
    assert "Claim" not in kinds(run.tick())
    first.ending = True
    assert commands.Claim(second) in run.tick()


def test_small_files_keep_every_worker_busy() -> None:
    run = Run(http_jobs=2)
    tasks = [run.add("http") for _ in range(10)]
    assert run.tick() == [commands.Claim(task) for task in tasks[:4]]
    assert run.tell(events.Claimed(tasks[0], ClaimResult.GRANTED)) == [commands.Download(tasks[0])]
    assert run.tell(events.Settled(tasks[0], good=True)) == [commands.Unclaim(tasks[0]), commands.Claim(tasks[4])]
    assert tasks[0].state is State.DONE


@pytest.mark.parametrize("carrier", ["aria2", "http"])
def test_bytes_that_another_fetch_downloads_are_waited_for(run: Run, carrier: str) -> None:
    task = run.add(carrier)
    run.tick()
    assert kinds(run.tell(events.Claimed(task, ClaimResult.HELD))) == ["EmitEvent"]
    assert state_of(task) is State.WAITING
    assert "Claim" not in kinds(run.tick(tuning.HELD_PAUSE / 2))
    assert "Claim" in kinds(run.tick(tuning.HELD_PAUSE))
    assert kinds(run.tell(events.Claimed(task, ClaimResult.HELD))) == [], "said once"
    run.tick(10_000)
    assert run.tell(events.Claimed(task, ClaimResult.PRESENT)) == [commands.Publish(task, present=True)]
    assert run.tell(events.Hashed(task, Verdict(task.file.path, "ok"), present=True)) == [commands.Unclaim(task)]
    assert state_of(task) is State.DONE
    assert run.scheduler.idle


def held_for(run: Run, task: FileTask, seconds: int, *, growing: bool) -> list[Command]:
    """Return the last commands while another fetch holds the file for `seconds`."""
    found: list[Command] = []
    for at in range(seconds * 2):
        found = run.tick(0.5)
        looks = [command.read_progress for command in found if isinstance(command, commands.Claim)]
        if not looks:
            return found
        mark = (("staged", (1, at if growing else 0, 0)),)
        found = run.tell(events.Claimed(task, ClaimResult.HELD, mark if looks == [True] else None))
    return found


@pytest.mark.parametrize("carrier", ["aria2", "http"])
def test_a_holder_that_stores_no_bytes_is_waited_for_until_the_stall_time_out(carrier: str) -> None:
    run = Run(patience=20)
    task = run.add(carrier)
    run.tick()
    (said,) = run.tell(events.Claimed(task, ClaimResult.HELD))
    assert isinstance(said, commands.EmitEvent)
    assert f"{task.file.path}: another fetch on this machine is downloading it" in str(said.event)
    held_for(run, task, 19, growing=False)
    assert state_of(task) is State.WAITING
    held_for(run, task, 300, growing=True)
    assert state_of(task) is State.WAITING, "a holder that stores bytes is waited for without limit"
    held_for(run, task, 30, growing=False)
    assert state_of(task) is State.FAILED
    assert run.scheduler.idle


def test_the_failure_reports_the_stalled_fetch_and_what_to_do() -> None:
    run = Run(patience=5)
    task = run.add()
    run.tick()
    run.tell(events.Claimed(task, ClaimResult.HELD))
    found: list[Command] = []
    for _ in range(20):
        if task.state is not State.FAILED:
            found = held_for(run, task, 1, growing=False)
    fail = next(command for command in found if isinstance(command, commands.Fail))
    assert "has made no progress for" in fail.verdict.detail
    assert fail.cause is not None
    assert "kill" in fail.cause.hint


def test_time_while_this_process_was_stopped_does_not_count() -> None:
    run = Run(patience=20)
    task = run.add()
    run.tick()
    run.tell(events.Claimed(task, ClaimResult.HELD))
    held_for(run, task, 10, growing=False)
    run.now += 10_000
    held_for(run, task, 2, growing=False)
    assert state_of(task) is State.WAITING


@pytest.mark.parametrize("hidden", ["cdn: No URI available.", "cdn: Resource not found"])
def test_an_http_status_that_aria2_hides_is_requested(run: Run, hidden: str) -> None:
    task = run.begun()
    found = run.tell(events.RangeFailed(task, hidden, "3"))
    assert found[-1] == commands.CheckMirrors(task, tuple(task.urls.values()), refusals=True)
    found = run.tell(
        events.MirrorsChecked(task, {}, {ORIGIN: "cdn: it returned HTTP 503", NEAR: "near: it returned HTTP 403"})
    )
    assert commands.NoteProblem(task, "cdn: it returned HTTP 503; near: it returned HTTP 403") in found


def test_a_mirror_is_quarantined_for_the_requested_status(run: Run) -> None:
    task = run.begun(mirrors=(ORIGIN, NEAR))
    task.urls.pop(NEAR)
    found = run.tell(events.RangeFailed(task, "hub: No URI available.", "1"))
    assert "RecordOutcome" not in kinds(found)
    found = run.tell(events.MirrorsChecked(task, {}, {ORIGIN: "hub: it returned HTTP 503"}))
    assert commands.RecordOutcome(ORIGIN, Refused("hub: it returned HTTP 503")) in found


def test_a_wrong_file_published_by_another_fetch_is_retried_a_few_times(run: Run) -> None:
    task = run.add()
    for _ in range(tuning.WRONG_TRIES + 1):
        run.tick(1)
        run.tell(events.Claimed(task, ClaimResult.PRESENT))
        found = run.tell(events.Hashed(task, Verdict(task.file.path, "wrong digest"), present=True))
        assert "Discard" not in kinds(found), "they are not ours"
    assert kinds(found) == ["Fail", "Unclaim"]
    assert state_of(task) is State.FAILED


# --- resolving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "mirrors", "expected", "state"),
    [
        ([None], (ORIGIN,), ["Download"], State.DOWNLOADING),
        ([None, NetworkError("x")], (ORIGIN, NEAR), ["NoteProblem", "RecordOutcome", "Download"], State.DOWNLOADING),
        ([AccessDenied("no")], (ORIGIN,), ["NoteProblem", "Fail", "Unclaim", "Abort"], State.FAILED),
        ([FileNotInRepo("no")], (ORIGIN,), ["NoteProblem", "Fail", "Unclaim"], State.FAILED),
        ([NetworkError("x")], (ORIGIN,), ["NoteProblem"], State.WAITING),
        ([NotAHub("x")], (ORIGIN,), ["NoteProblem"], State.WAITING),
        ([NetworkError("x"), FileNotInRepo("no")], (ORIGIN, NEAR), ["NoteProblem", "RecordOutcome"] * 2, State.WAITING),
    ],
)
def test_the_meaning_of_responses_without_a_url(
    run: Run, answers: list[GpuariaError | None], mirrors: tuple[Mirror, ...], expected: list[str], state: State
) -> None:
    task = run.add(mirrors=mirrors)
    run.tick()
    run.tell(events.Claimed(task, ClaimResult.GRANTED))
    found = [
        command for mirror, one in zip(mirrors, answers, strict=True) for command in run.resolved(task, mirror, one)
    ]
    assert kinds(found) == expected
    assert state_of(task) is state


def test_responses_of_an_earlier_try_are_ignored(run: Run) -> None:
    task = run.add()
    run.tick()
    run.tell(events.Claimed(task, ClaimResult.GRANTED))
    assert run.tell(events.Resolved(task, task.attempt - 1, NEAR, None, run.now)) == []


def test_a_file_with_only_incompatible_mirrors_goes_to_http(run: Run) -> None:
    task = run.add()
    run.known.unusable = {ORIGIN, NEAR}
    run.tick()
    assert run.tell(events.Claimed(task, ClaimResult.GRANTED)) == [commands.Download(task)]
    assert run.scheduler.in_state(*State) == []


def test_each_expiring_url_is_renewed_once(run: Run) -> None:
    task = run.begun()
    task.use_url(MirrorUrl(NEAR, "https://near/signed", run.now + 90), run.now)
    assert "Renew" not in kinds(run.tick(5))
    task.last_progress = run.now + 55
    assert commands.Renew(task, NEAR) in run.tick(55)
    assert "Renew" not in kinds(run.tick(1))
    fresh = MirrorUrl(NEAR, "https://near/again", run.now + 3600)
    (change,) = run.tell(events.Replaced(task, fresh, run.now, renewed=True))
    assert isinstance(change, commands.ChangeUrls)
    assert change.new == fresh


# --- downloading ---------------------------------------------------------------------------------------------------


def test_a_finished_range_is_hashed_and_the_next_one_starts(run: Run) -> None:
    task = run.begun(cuts=[100 * PIECE])
    first, second = task.ranges
    found = run.tell(events.RangeDone(task, first))
    assert found == [commands.AnnounceBytes(task, 0, first.end), commands.Hash(task, first.end)]
    assert commands.StartRange(task, second) in run.tick()
    run.tell(events.RangeDone(task, second))
    assert run.tick()[-1] == commands.Publish(task)
    assert state_of(task) is State.HASHING
    found = run.tell(events.Hashed(task, Verdict(task.file.path, "ok")))
    assert found[-1] == commands.Unclaim(task)
    assert {c.mirror for c in found if isinstance(c, commands.RecordOutcome) and c.what == Delivered(files=1)} == {
        ORIGIN,
        NEAR,
    }
    assert run.scheduler.idle


def test_the_tail_starts_before_aria2_ends_and_gets_the_rest(run: Run) -> None:
    task = run.begun(cuts=[180 * PIECE])
    size, rate = task.ranges[0].size, 20 * PIECE  # bytes per second
    for done in range(0, size, rate // 4):
        run.progress(task, done)
        found = run.tick(0.25)
        if "StartTail" in kinds(found):
            break
    assert task.tail
    assert task.ranges[-1].in_tail
    run.tell(events.TailProgressed(task, 1000, 0, 8, 0))
    assert task.bytes_on_disk == task.done + 1000
    run.tell(events.RangeDone(task, task.ranges[0]))
    assert commands.Release(task) in run.tick()
    assert state_of(task) is State.FINISHING
    found = run.tell(events.Released(task, (), ()))
    assert kinds(found) == ["Credit", "SetBytesOnDisk", "FillTail"]
    run.tell(events.TailProgressed(task, 2000, 0, 8, task.ranges[0].end))
    found = run.tell(events.Downloaded(task, complete=True))
    assert kinds(found) == ["MarkComplete", "AnnounceBytes", "StopTail", "Stop", "Publish"]
    assert state_of(task) is State.HASHING


def test_progress_is_saved_in_every_state_with_bytes_in_flight(run: Run) -> None:
    task = run.begun()
    run.tick(tuning.SAVE_INTERVAL)
    run.progress(task, PIECE)
    assert commands.SaveProgress(task, alone=False) in run.tick(tuning.SAVE_INTERVAL)
    assert "SaveProgress" not in kinds(run.tick(tuning.SAVE_INTERVAL / 2))
    task.move(State.FINISHING)
    task.tail = True
    assert commands.SaveProgress(task, alone=True) in run.tick(tuning.SAVE_INTERVAL)


def test_with_a_speed_limit_aria2_downloads_everything() -> None:
    run = Run(max_speed=1_000_000)
    task = run.begun(cuts=[180 * PIECE])
    for done in range(0, task.ranges[0].size, 5 * PIECE):
        run.progress(task, done, connections=1)
        assert not {"StartTail", "Release", "StartRange"} & set(kinds(run.tick(0.25)))


def test_a_stalled_file_is_retried_and_its_mirrors_are_recorded(run: Run) -> None:
    task = run.begun(mirrors=(ORIGIN, NEAR, FAR))
    del task.urls[FAR]
    found = run.tick(tuning.SEVERAL_TIMEOUT + tuning.GRACE + 0.1)
    assert {"Stop", "RecordOutcome", "NoteProblem"} <= set(kinds(found))
    assert {c.mirror for c in found if isinstance(c, commands.RecordOutcome)} == {ORIGIN, NEAR}
    assert state_of(task) is State.WAITING


def test_a_stalled_mirror_yields_to_another_with_the_same_host_name(run: Run) -> None:
    """aria2 opens at most 16 connections to a host name; the first URL may get all of them, at every retry."""
    task = run.begun()
    run.tell(events.Progressed(task, {task.running[0]: 0}, {task.running[0]: 16}, 0.0, {NEAR: [0] * 16, ORIGIN: []}))
    run.tell(events.Progressed(task, {task.running[0]: 0}, {task.running[0]: 0}, 0.0, {NEAR: [], ORIGIN: []}))
    found = run.tick(60)
    assert [one.mirror for one in found if isinstance(one, commands.RecordOutcome)] == [NEAR]


def test_bytes_are_credited_and_a_stalled_mirror_is_dropped(run: Run) -> None:
    task = run.begun()
    one = task.running[0]
    run.known.bad = {NEAR: "it stopped sending"}
    url = task.urls[NEAR]
    run.tell(events.Progressed(task, {one: 900}, {one: 2}, 900.0, {ORIGIN: [2], NEAR: [1]}))
    found = run.tell(events.ReadingDone({ORIGIN: 600, NEAR: 300}))
    assert found == [
        commands.Credit(task, ORIGIN, 600),
        commands.Credit(task, NEAR, 300),
        commands.RecordOutcome(NEAR, Stalled("it stopped sending")),
        commands.NoteProblem(task, "near: it stopped sending"),
        commands.ChangeUrls(task, url, None),
        commands.FindRefusal(url, "it stopped sending"),
    ]
    run.known.ready = [NEAR]
    assert commands.TestMirror(NEAR, [task]) in run.tick()
    assert run.tell(events.MirrorRecovered(NEAR)) == [commands.RecordOutcome(NEAR, Recovered())]
    assert run.tell(events.MirrorFailed(NEAR, "it returned HTTP 503", 9.0)) == [
        commands.RecordOutcome(NEAR, Refused("it returned HTTP 503", 9.0))
    ]
    assert run.tell(events.Replaced(task, url, run.now)) == [commands.ChangeUrls(task, None, url)]


def test_a_restarted_aria2c_continues_every_download(run: Run) -> None:
    tasks = [run.begun(), run.begun()]
    assert run.tell(events.EngineRestarted()) == [commands.Prepare(task, 0) for task in tasks]
    found = run.tell(events.Prepared(tasks[0], [ByteRange(0, SIZE, completed=5000)], hard_links=True))
    assert commands.Credit(tasks[0], None, 5000) in found


# --- another try ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["", "3", "22"])
def test_a_failure_soon_after_bytes_is_retried_at_once(run: Run, code: str) -> None:
    task = run.begun()
    run.tell(events.RangeFailed(task, "it hung up", code))
    assert state_of(task) is State.QUEUED
    run.tick()
    assert state_of(task) is State.RESOLVING
    resolve = run.tell(events.Claimed(task, ClaimResult.GRANTED))[0]
    assert isinstance(resolve, commands.Resolve)
    assert resolve.fresh


def test_retry_delays_grow_until_the_stall_time_out() -> None:
    run = Run(patience=20)
    task, pauses, failed = run.begun(), [], False
    while not failed:
        found = run.tell(events.RangeFailed(task, "it is away", "3"))
        failed = "Fail" in kinds(found)
        if task.state is State.WAITING:
            pauses.append(task.not_before - run.now)
            run.tick(task.not_before - run.now)
        elif not failed:
            run.tick()
        if not failed:
            run.tell(events.Claimed(task, ClaimResult.GRANTED))
            run.resolved(task, ORIGIN)
            run.tell(events.Prepared(task, [ByteRange(0, SIZE)], hard_links=True))
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert state_of(task) is State.FAILED
    assert kinds(found)[-2:] == ["Fail", "Unclaim"]


@pytest.mark.parametrize(
    ("found", "again", "kept"),
    [
        ({}, State.QUEUED, True),
        ({NEAR: "it does not say"}, State.QUEUED, True),
        ({NEAR: "it compresses files"}, State.QUEUED, False),
    ],
)
def test_an_ambiguous_failure_is_investigated(run: Run, found: dict[Mirror, str], again: State, kept: bool) -> None:
    task = run.begun()
    asked = run.tell(events.RangeFailed(task, "no range", "8"))
    assert isinstance(asked[-1], commands.CheckMirrors)
    assert state_of(task) is State.WAITING
    assert "Claim" not in kinds(run.tick(1000)), "the answer is waited for"
    run.now -= 1000
    out = run.tell(events.MirrorsChecked(task, found))
    assert state_of(task) is again
    assert bool(task.ranges) is kept
    assert ("Discard" in kinds(out)) is not kept
    for mirror, why in found.items():
        assert commands.RecordOutcome(mirror, Incompatible(why, others=True)) in out
        assert mirror not in task.step.mirrors


def test_without_a_compatible_mirror_http_downloads_the_rest(run: Run) -> None:
    task = run.begun()
    run.tell(events.RangeFailed(task, "no range", "8"))
    out = run.tell(events.MirrorsChecked(task, {ORIGIN: "it does not say", NEAR: "it does not say"}))
    assert kinds(out)[-2:] == ["KeepPrefix", "Download"]
    assert run.tell(events.Settled(task, good=False)) == [commands.Unclaim(task)]
    assert state_of(task) is State.FAILED


def test_an_unusable_control_file_is_discarded(run: Run) -> None:
    task = run.begun()
    task.failures_in_a_row = 1
    run.tell(events.RangeFailed(task, "Download aborted.", "1"))
    assert "Discard" in kinds(run.tell(events.MirrorsChecked(task, {})))
    assert task.ranges == []


# --- wrong bytes ---------------------------------------------------------------------------------------------------


def test_wrong_bytes_are_downloaded_from_the_origin_alone_then_from_the_others(run: Run) -> None:
    task, verdict = run.begun(), Verdict("0.bin", "wrong digest", "sha256 differs")

    def wrong() -> list[Command]:
        for one in task.ranges:
            run.tell(events.RangeDone(task, one))
        run.tick()
        assert kinds(run.tell(events.Hashed(task, verdict))) == ["Discard", "CheckMirrors"]
        return run.tell(events.MirrorsChecked(task, {}))

    def again() -> None:
        run.tick()
        run.tell(events.Claimed(task, ClaimResult.GRANTED))
        for mirror in task.step.mirrors:
            run.resolved(task, mirror)
        run.tell(events.Prepared(task, [ByteRange(0, SIZE)], hard_links=True))

    found = wrong()
    words = "0.bin failed its checksum (from it or another mirror)"
    assert [c for c in found if isinstance(c, commands.RecordOutcome)] == [
        commands.RecordOutcome(ORIGIN, ServedWrongBytes(words)),
        commands.RecordOutcome(NEAR, ServedWrongBytes(words)),
    ]
    assert task.step.mirrors == (ORIGIN,)
    again()
    wrong()
    assert (task.step.mirrors, task.guilty) == ((NEAR,), {ORIGIN})
    again()
    assert kinds(wrong())[-2:] == ["Fail", "Unclaim"]
    assert state_of(task) is State.FAILED


# --- what may not be in here ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PURE)
def test_the_rules_do_no_input_or_output(name: str) -> None:
    path = Path(__file__).parents[2] / "gpuaria" / "transfer" / f"{name}.py"
    tree = ast.parse(path.read_text())
    found = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    found |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not found & {"os", "time", "threading", "socket", "pathlib", "subprocess", "random", "queue"}


# --- mirrors that join ---------------------------------------------------------------------------------------------


def test_added_mirrors_serve_every_remaining_file() -> None:
    run = Run(jobs=2)
    active = run.begun(mirrors=(ORIGIN,))
    resolving, queued, small = run.add(mirrors=(ORIGIN,)), run.add(mirrors=(ORIGIN,)), run.add("http", 10, (ORIGIN,))
    run.tick()
    run.tell(events.Claimed(resolving, ClaimResult.GRANTED))
    found = run.tell(events.MirrorsJoined((NEAR, FAR)))
    assert found == [
        commands.Stop(active),  # a running download never opens more connections than at its start
        commands.Resolve(resolving, NEAR, 1, fresh=False),
        commands.Resolve(resolving, FAR, 1, fresh=False),
    ]
    assert [task.state for task in (active, resolving, queued)] == [State.QUEUED, State.RESOLVING, State.QUEUED]
    assert {task.step.mirrors for task in (active, resolving, queued, small)} == {(ORIGIN, NEAR, FAR)}
    assert active.step.connections == 32 + 2 * 16
    assert run.resolved(resolving, FAR) == [commands.Prepare(resolving, 2 * SIZE)]


def test_the_bytes_still_to_download(run: Run) -> None:
    assert run.scheduler.needs_bytes == (False, False)
    small = run.add("http", 10)
    assert run.scheduler.needs_bytes == (False, True)
    run.add()
    assert run.scheduler.needs_bytes == (True, True)
    run.tick()
    run.tell(events.Claimed(small, ClaimResult.HELD))
    assert run.scheduler.needs_bytes == (True, True)
