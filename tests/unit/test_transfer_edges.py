"""Rare events of a transfer: late messages, limits set in mid-download, a tail that fails, slow last pieces."""

import pytest

from gpuaria.errors import NotAHub
from gpuaria.mirrors.pool import Recovered, Refused, Stalled
from gpuaria.paths import SafePath
from gpuaria.records import MirrorUrl, RemoteFile, Step, Verdict
from gpuaria.storage.layout import ClaimResult
from gpuaria.transfer import commands, events, ranges, tuning
from gpuaria.transfer.delivery import Delivery
from gpuaria.transfer.pace import Pace
from gpuaria.transfer.ranges import PIECE, ByteRange
from gpuaria.transfer.task import FileTask, State
from tests.unit.test_transfer_scheduler import FAR, NEAR, ORIGIN, SIZE, Known, Run, kinds, state_of


@pytest.fixture
def run() -> Run:
    return Run()


def released(run: Run) -> FileTask:
    """Return a file that aria2 has released, with half of it still to download."""
    task = run.begun()
    run.progress(task, SIZE // 2)
    run.scheduler._steering.take_over(task)
    found = run.tell(events.Released(task, (), [(SIZE // 2, SIZE)]))
    assert kinds(found) == ["Credit", "SetBytesOnDisk", "FillTail"]
    return task


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_can_be_added_during_the_run(run: Run) -> None:
    file = RemoteFile(SafePath("late.bin"), SIZE, None)
    run.tell(events.Added(Step(file, "download", "", "aria2", mirrors=(ORIGIN,), connections=16)))
    assert not run.scheduler.idle
    assert kinds(run.tick()) == ["Claim", "WarmUp"]


def test_a_file_whose_ranges_are_all_on_disk_is_published(run: Run) -> None:
    task = run.begun()
    run.tell(events.EngineRestarted())
    whole = ByteRange(0, SIZE)
    whole.finish()
    found = run.tell(events.Prepared(task, [whole], hard_links=True))
    assert commands.Publish(task) in found
    assert commands.Hash(task, SIZE) in found
    assert state_of(task) is State.HASHING


def test_readings_are_frequent_near_the_end_only(run: Run) -> None:
    assert run.scheduler.near_end() is None
    task = run.begun()
    assert run.scheduler.near_end() is False
    task.pace.rate = float(SIZE)
    assert run.scheduler.near_end() is True


def test_mirrors_with_a_connection_are_counted(run: Run) -> None:
    task = run.begun()
    run.progress(task, PIECE)
    assert run.scheduler.serving_count == 2
    assert task.connection_count == 32


# --- late messages ---------------------------------------------------------------------------------------------------


def test_messages_about_a_file_in_another_state_are_ignored(run: Run) -> None:
    task = run.begun()
    assert run.tell(events.Released(task, (), ())) == []
    assert run.tell(events.Downloaded(task, complete=True)) == []
    assert run.tell(events.TailProgressed(task, 1000, 0, 8, 0)) == []
    assert task.bytes_on_disk == 0
    tail = released(run)
    assert run.tell(events.RangeFailed(tail, "time-out", "2")) == []
    assert state_of(tail) is State.FINISHING


def test_a_new_url_counts_only_for_a_running_download(run: Run) -> None:
    task = run.begun(mirrors=(ORIGIN,))
    assert run.tell(events.Replaced(task, MirrorUrl(ORIGIN, "https://hub/again"), run.now)) == [], "not asked for"
    tail = released(run)
    assert run.tell(events.Replaced(tail, MirrorUrl(ORIGIN, "https://hub/new"), run.now, renewed=True)) == []


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_limit_restarts_unlimited_downloads_once(run: Run) -> None:
    task, small = run.begun(), run.add("http")
    run.tick()
    run.tell(events.Claimed(small, ClaimResult.GRANTED))
    assert kinds(run.tell(events.SpeedLimited(1_000_000))) == ["Stop"]
    assert state_of(task) is State.QUEUED
    assert state_of(small) is State.DOWNLOADING
    assert run.tell(events.SpeedLimited(2_000_000)) == []


# --- the tail --------------------------------------------------------------------------------------------------------


def test_an_incomplete_tail_leads_to_a_retry(run: Run) -> None:
    task = released(run)
    found = run.tell(events.Downloaded(task, complete=False))
    assert kinds(found) == ["StopTail", "Stop", "NoteProblem"]
    assert state_of(task) is State.QUEUED
    assert not task.tail


def test_the_tail_s_bytes_are_hashed_as_they_become_contiguous(run: Run) -> None:
    task = released(run)
    found = run.tell(events.TailProgressed(task, PIECE, 0, 8, SIZE // 2 + PIECE))
    assert found == [
        commands.AnnounceBytes(task, 0, SIZE // 2 + PIECE),
        commands.Hash(task, SIZE // 2 + PIECE),
    ]


def test_ranges_that_aria2_completed_before_the_release_are_finished(run: Run) -> None:
    task = run.begun(cuts=[PIECE])
    run.scheduler._steering.take_over(task)
    run.tell(events.Released(task, (task.ranges[0],), [(PIECE, SIZE)]))
    assert task.ranges[0].done
    assert task.done == PIECE


def test_a_failure_stops_the_tail_of_the_file(run: Run) -> None:
    task = run.begun(cuts=[180 * PIECE])
    task.tail, task.tail_bytes = True, PIECE
    found = run.tell(events.RangeFailed(task, "checksum error", "32"))
    assert kinds(found)[:2] == ["Stop", "StopTail"]
    assert not task.tail


# --- steering --------------------------------------------------------------------------------------------------------


def begun_at(run: Run, rate: float, cuts: list[int], completed: int, connections: int) -> FileTask:
    """Return a download at a known rate, whose first range has `completed` bytes and some connections."""
    task = run.begun(cuts=cuts)
    run.progress(task, PIECE)
    run.tick(0.1)
    task.pace = Pace(rate=rate)
    run.progress(task, completed, connections)
    return task


def test_a_slow_download_gets_longer_ranges(run: Run) -> None:
    task = begun_at(run, PIECE / 2, [50 * PIECE, 100 * PIECE], 49 * PIECE, 2)
    found = run.tick(0.1)
    assert "StartRange" in kinds(found)
    assert [(one.start, one.end) for one in task.ranges] == [
        (0, 50 * PIECE),
        (50 * PIECE, 150 * PIECE),
        (150 * PIECE, SIZE),
    ]


def test_an_end_that_is_too_long_for_the_tail_is_cut_first(run: Run) -> None:
    task = begun_at(run, 5.0 * PIECE, [50 * PIECE], 48 * PIECE, 2)
    found = run.tick(0.1)
    assert "StartRange" in kinds(found)
    assert not task.tail


def test_the_tail_takes_the_end_over_from_idle_connections(run: Run) -> None:
    task = begun_at(run, 20.0 * PIECE, [], SIZE - 2 * PIECE, 2)
    assert kinds(run.tick(0.1)) == ["Release"]
    assert state_of(task) is State.FINISHING


def test_a_file_that_failed_is_not_taken_over_from_slow_connections(run: Run) -> None:
    task = begun_at(run, 1.0, [], PIECE, 32)
    task.failures_in_a_row = 1
    assert "Release" not in kinds(run.tick(tuning.IDLE_SECONDS * 2))


def test_slow_connections_with_the_last_pieces_are_noticed() -> None:
    pace = Pace()
    assert not pace.blocked_by_slow(0.0, 0, 100, idle=False)
    for second in range(8):
        pace.near_end(float(second), 10 * second, 10_000, 1, 1)
        blocked = pace.blocked_by_slow(float(second), 10 * second, 10_000, idle=True)
    assert blocked
    assert not pace.blocked_by_slow(20.0, 80, 0, idle=True), "no byte is left"


def test_aria2_keeps_its_pieces_while_the_tail_has_enough_to_do(run: Run) -> None:
    task = run.begun(cuts=[180 * PIECE])
    for done in range(0, 180 * PIECE, 5 * PIECE):
        run.progress(task, done)
        if "StartTail" in kinds(run.tick(0.25)):
            break
    run.progress(task, task.ranges[0].size - 20 * PIECE)
    assert run.tick(0.1) == []
    assert (state_of(task), task.tail) == (State.DOWNLOADING, True)


# --- mirrors ---------------------------------------------------------------------------------------------------------


def test_a_portal_in_place_of_the_only_hub_ends_the_run(run: Run) -> None:
    task = run.add(mirrors=(ORIGIN,))
    run.tick()
    for _ in range(tuning.PORTAL_RESPONSES + 1):
        run.tell(events.Claimed(task, ClaimResult.GRANTED))
        found = run.resolved(task, ORIGIN, NotAHub("a login page"))
        run.tick(100)
    assert kinds(found)[-1] == "Abort"
    assert state_of(task) is State.FAILED


def test_outcomes_of_mirrors_are_recorded(run: Run) -> None:
    assert run.tell(events.MirrorFailed(NEAR, "refused", 5.0)) == [
        commands.RecordOutcome(NEAR, Refused("refused", 5.0))
    ]
    assert run.tell(events.MirrorRecovered(NEAR)) == [commands.RecordOutcome(NEAR, Recovered())]


def test_a_stalled_mirror_is_dropped_from_the_downloads_that_use_it(run: Run) -> None:
    first, second = run.begun(), run.begun(mirrors=(ORIGIN, FAR))
    run.known.bad = {NEAR: "stalls"}
    run.tell(events.Progressed(first, {}, {first.running[0]: 2}, 0.0, {ORIGIN: [1000], NEAR: [0]}))
    run.tell(events.Progressed(second, {}, {second.running[0]: 2}, 0.0, {ORIGIN: [1000], FAR: [1000]}))
    found = run.tell(events.ReadingDone({ORIGIN: 1000}))
    assert commands.RecordOutcome(NEAR, Stalled("stalls")) in found
    assert NEAR not in first.urls
    assert set(second.urls) == {ORIGIN, FAR}


def test_a_mirror_without_a_free_piece_is_excused() -> None:
    run, forgotten = Run(), []
    task = run.begun()

    class Remembers(Known):
        def forget_speed(self, mirror: object) -> None:
            forgotten.append(mirror)

    task.connections = SIZE
    assert Delivery(Remembers())._excused([task], {ORIGIN: [1], NEAR: []}) == {NEAR}
    assert forgotten == [NEAR]


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_filled_parts_outside_a_gap_change_nothing() -> None:
    assert ranges.subtract([(10, 20)], [(0, 5), (12, 14), (30, 40)]) == [(10, 12), (14, 20)]


def test_a_trickle_is_not_progress() -> None:
    run = Run()
    task = run.begun()
    before = task.last_progress
    task.record_completed({task.ranges[0]: 1}, run.now + 50)
    assert (task.done, task.last_progress) == (1, before)
    assert Verdict(task.file.path, "ok").good
