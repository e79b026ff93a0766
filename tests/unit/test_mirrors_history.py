"""The mirror history: what is stored by network, and how it fades."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuaria.dns.findings import DnsAnswer, TlsFinding
from gpuaria.mirrors.history import MAX_AGE, MAX_ROWS, Experience, History, outcome_of
from gpuaria.mirrors.measure.findings import (
    BytesFinding,
    FreshFinding,
    IcmpFinding,
    LookupFinding,
    MirrorFindings,
    TcpFinding,
    Throughput,
    read,
)
from gpuaria.mirrors.network import default_route, network_id
from gpuaria.records import Mirror, to_json
from tests.support.clock import FakeClock

MIRROR, OTHER = Mirror("m", "https://m.example"), Mirror("o", "https://o.example")
DAY = 86400.0
READING = Throughput(1, 900_000, 0.9, 1e6, 2e6, True)
FOUND = MirrorFindings(
    "m",
    "m.example",
    LookupFinding("measured", 0.1),
    BytesFinding("measured", "cdn.example", "192.0.2.1", 206, connect=0.03, rate=1e6, rates=(READING,)),
    FreshFinding("fresh", "a" * 40, 100, "e"),
    addresses=("192.0.2.1",),
    dns=(DnsAnswer("system", "m.example", 4, "measured", ("192.0.2.1",), None, 0.01),),
    icmp=(IcmpFinding("192.0.2.1", "measured", 0.02, 0.001, 0.25),),
    tcp=(TcpFinding("192.0.2.1", 443, "measured", 0.03),),
    tls=(TlsFinding("192.0.2.1", "measured", 0.05, "TLSv1.3"),),
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000_000_000.0)


def test_an_unknown_mirror_has_no_past(clock: FakeClock) -> None:
    past = History(None, "net", clock).past_of(MIRROR)
    assert (past.rate, past.confidence, past.failures, past.last_seen, past.last_failure) == (None, 0, 0, None, "")


def test_rates_fade_within_days_and_failures_within_hours(clock: FakeClock) -> None:
    history = History(None, "net", clock)
    history.record_outcome(MIRROR, Experience("transfer", 1e6))
    history.record_outcome(MIRROR, Experience("transfer", reason="stalled"))
    clock.advance(3600)
    assert history.past_of(MIRROR).failures == pytest.approx(0.5)
    assert history.past_of(MIRROR).last_failure == "stalled"
    clock.advance(3 * DAY - 3600)
    sure = history.past_of(MIRROR).confidence
    history.record_outcome(MIRROR, Experience("transfer", 8e6))
    past = history.past_of(MIRROR)
    assert past.rate == pytest.approx(4e6)  # weights 1 and 2 on a logarithmic scale: 1e6 * 8 ** (2 / 3)
    assert past.confidence > sure
    assert past.failures < 1e-9
    assert past.last_seen == clock.now


def test_a_transfer_outweighs_a_probe(clock: FakeClock) -> None:
    history = History(None, "net", clock)
    history.record_outcome(MIRROR, Experience("probe", 1e6))
    before = history.past_of(MIRROR).confidence
    history.record_outcome(MIRROR, Experience("transfer", 1e8))
    past = history.past_of(MIRROR)
    assert past.rate is not None
    assert past.rate > 3e7
    assert past.confidence > 2 * before


@given(st.lists(st.tuples(st.floats(1, 1e10), st.floats(0, 30 * DAY)), min_size=1, max_size=20))
def test_an_expected_rate_lies_between_the_measured_rates(rows: list[tuple[float, float]]) -> None:
    clock = FakeClock(1_000_000_000.0)
    history = History(None, "net", clock)
    for rate, pause in rows:
        history.record_outcome(MIRROR, Experience("probe", rate))
        clock.advance(pause)
    past = history.past_of(MIRROR)
    history.close()
    assert 0 <= past.confidence < 1
    if past.rate is not None:
        assert min(r for r, _ in rows) * 0.999 <= past.rate <= max(r for r, _ in rows) * 1.001


def test_networks_and_mirrors_have_separate_histories(tmp_path: Path, clock: FakeClock) -> None:
    home, office = History(tmp_path, "home", clock), History(tmp_path, "office", clock)
    home.record_outcome(MIRROR, Experience("transfer", 1e6))
    assert home.past_of(MIRROR).rate == pytest.approx(1e6)
    assert office.past_of(MIRROR).rate is None
    assert home.past_of(OTHER).rate is None


def test_the_history_outlives_the_process_and_follows_the_base_url(tmp_path: Path, clock: FakeClock) -> None:
    first = History(tmp_path / "new" / "folder", "net", clock)
    first.record_outcome(MIRROR, Experience("transfer", 5e6))
    first.record_survey(MIRROR, FOUND, "subject")
    first.close()
    again = History(tmp_path / "new" / "folder", "net", clock)
    renamed = replace(MIRROR, name="another")
    assert again.past_of(renamed).rate is not None
    assert again.recent_findings(renamed, 60, "subject") == replace(FOUND, mirror="another")
    assert again.problem == ""


def test_a_survey_is_kept_for_a_time_and_for_one_subject(clock: FakeClock) -> None:
    history = History(None, "net", clock)
    history.record_survey(MIRROR, FOUND, "commit a file b")
    clock.advance(100)
    assert history.recent_findings(MIRROR, 100, "commit a file b") == FOUND
    assert history.recent_findings(MIRROR, 99, "commit a file b") is None
    other = history.recent_findings(MIRROR, 100, "another file")
    assert other is not None
    assert (other.fresh.verdict, other.lookup.state, other.bytes) == ("unknown", "not measured", FOUND.bytes)
    clock.advance(-1000)  # the clock was set back
    assert history.recent_findings(MIRROR, 100, "commit a file b") is None


def test_a_mirror_that_failed_for_one_file_is_probed_for_another(clock: FakeClock) -> None:
    history = History(None, "net", clock)
    stale = replace(FOUND, fresh=FreshFinding("stale", problem="old"), bytes=BytesFinding("not measured"))
    history.record_survey(MIRROR, stale, "a")
    assert history.recent_findings(MIRROR, 60, "a") == stale
    assert history.recent_findings(MIRROR, 60, "b") is None


def test_a_survey_is_stored_as_an_outcome() -> None:
    assert outcome_of(FOUND) == Experience("probe", 2e6, 0.03, 0.25)
    dead = replace(FOUND, tcp=(TcpFinding("192.0.2.1", 443, "failed", problem="connection refused"),), tls=())
    assert outcome_of(dead) == Experience("probe", reason="tcp: connection refused")
    for error, counts in (("NetworkError", True), ("RateLimited", True), ("FileNotInRepo", False), ("Gated", False)):
        refused = replace(FOUND, lookup=LookupFinding("failed", problem="no", error=error))
        assert (outcome_of(refused) is not None) == counts
    assert (
        outcome_of(replace(FOUND, fresh=FreshFinding("stale", problem="x"), bytes=BytesFinding("not measured"))) is None
    )
    assert outcome_of(replace(FOUND, bytes=BytesFinding("not measured"))) is None


def test_only_a_marked_failure_counts_as_one(clock: FakeClock) -> None:
    history = History(None, "net", clock)
    history.record_outcome(MIRROR, Experience("probe", math.nan))
    history.record_outcome(MIRROR, Experience("probe", math.inf))
    assert history.past_of(MIRROR).rate is None


@pytest.mark.parametrize("case", ["garbage", "a file for a folder", "newer", "a folder for a file"])
def test_an_unusable_database_costs_only_the_history(tmp_path: Path, clock: FakeClock, case: str) -> None:
    folder, file = tmp_path / "state", tmp_path / "state" / "mirrors.sqlite3"
    if case == "a file for a folder":
        folder.write_text("x")
    else:
        folder.mkdir()
    if case == "garbage":
        file.write_bytes(b"this is no database, " * 100)
    if case == "a folder for a file":
        file.mkdir()
    if case == "newer":
        with sqlite3.connect(file) as db:
            db.execute("PRAGMA user_version = 99")
    history = History(folder, "net", clock)
    assert "cannot be used" in history.problem
    history.record_outcome(MIRROR, Experience("transfer", 1e6))
    assert history.past_of(MIRROR).rate == pytest.approx(1e6)
    if case == "garbage":
        assert file.read_bytes().startswith(b"this is no database")


def test_damage_to_an_open_database_is_reported(tmp_path: Path, clock: FakeClock) -> None:
    history = History(tmp_path, "net", clock)
    with sqlite3.connect(tmp_path / "mirrors.sqlite3") as db:
        db.execute("DROP TABLE outcomes")
    history.record_outcome(MIRROR, Experience("transfer", 1e6))
    assert history.past_of(MIRROR).rate is None
    assert "cannot be" in history.problem


def test_findings_of_another_format_are_ignored(tmp_path: Path, clock: FakeClock) -> None:
    history = History(tmp_path, "net", clock)
    history.record_survey(MIRROR, FOUND, "s")
    with sqlite3.connect(tmp_path / "mirrors.sqlite3") as db:
        db.execute("UPDATE surveys SET findings = '{\"mirror\": 3}'")
    assert history.recent_findings(MIRROR, 60, "s") is None


def test_the_database_size_is_bounded(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "mirrors.sqlite3"
    History(tmp_path, "net", clock).close()
    with sqlite3.connect(file) as db:
        rows = [
            ("net", MIRROR.base, clock.now - number, "probe", 1.0, None, None, "") for number in range(MAX_ROWS + 500)
        ]
        db.executemany("INSERT INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    history = History(tmp_path, "net", clock)
    assert count(file) == MAX_ROWS
    for _ in range(64):
        history.record_outcome(MIRROR, Experience("probe", 2.0))
    assert count(file) == MAX_ROWS
    clock.advance(MAX_AGE + 1)
    History(tmp_path, "net", clock)
    assert count(file) == 0


def count(file: Path) -> int:
    with sqlite3.connect(file) as db:
        return int(db.execute("SELECT count(*) FROM outcomes").fetchone()[0])


def test_findings_survive_json_and_bad_ones_are_rejected() -> None:
    text = to_json(FOUND)
    assert read(MirrorFindings, text) == FOUND
    wrongs: list[object] = [
        {},
        [],
        None,
        {**text, "bytes": 3},
        {**text, "fresh": {**text["fresh"], "verdict": "maybe"}},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            read(MirrorFindings, wrong)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("", "")),
        ({"addresses": (), "dns": (DnsAnswer("r", "h", 4, "failed", problem="NXDOMAIN"),)}, ("dns", "NXDOMAIN")),
        ({"addresses": (), "dns": (DnsAnswer("r", "h", 4, "measured", ("10.0.0.1",), lies=("no",)),)}, ("dns", "no")),
        ({"icmp": (IcmpFinding("a", "failed", problem="no reply"),)}, ("", "")),
        ({"tls": (TlsFinding("a", "failed", problem="expired"),)}, ("tls", "expired")),
        ({"tcp": (*FOUND.tcp, TcpFinding("b", 443, "failed", problem="x"))}, ("", "")),
        ({"bytes": BytesFinding("failed", problem="stalled")}, ("bytes", "stalled")),
    ],
)
def test_the_failing_stage_is_reported(changes: dict[str, object], expected: tuple[str, str]) -> None:
    assert replace(FOUND, **changes).failed == expected  # type: ignore[arg-type]


HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


def test_a_network_is_identified_by_its_default_route(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    names = set()
    for gateway in ("0102A8C0", "0101A8C0"):
        routes.write_text(f"{HEAD}eth0 00000000 {gateway} 0003 0 0 100 00000000 0 0 0\n")
        names.add(network_id(routes))
        assert network_id(routes) in names
    names.add(network_id(tmp_path / "none"))
    assert len(names) == 3
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


def test_the_active_default_route_with_the_lowest_metric_is_used(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    lines = [
        "wlan0 00000000 0102A8C0 0003 0 0 600 00000000 0 0 0",
        "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0",
    ]
    lines += [
        "eth1 00000000 0101A8C0 0002 0 0 1 00000000 0 0 0",
        "eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0",
        "x",
    ]
    routes.write_text(HEAD + "\n".join(lines))
    assert default_route(routes) == "eth0 0101A8C0"
    routes.write_text(HEAD)
    assert default_route(routes) == ""
    assert len(network_id()) == 16
