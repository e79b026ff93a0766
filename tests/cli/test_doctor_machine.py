"""`gpuaria doctor` and the local machine: aria2c, disk, permissions, limits."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpuaria.dns.deadline import Deadline
from gpuaria.doctor import examine
from gpuaria.doctor.finding import Notes
from gpuaria.doctor.trace import route_to
from gpuaria.records import to_json
from gpuaria.settings import load
from standin import Repo
from tests.support.doctor import TOKEN, DoctorRun, run_json
from tests.support.ports import closed_url
from tests.support.user import Serve, User


def script(path: Path, text: str) -> str:
    """Write an executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo aria2 version 1.19.0", ("1.19.0", "gpuaria needs 1.36")),
        ("echo hello", ("is not aria2c: unexpected output",)),
        ("echo aria2 version 1.36.0; echo 'Enabled Features: GZip, HTTPS'", ("without Metalink",)),
    ],
)
def test_an_unusable_aria2c(text: str, words: tuple[str, ...], user: User) -> None:
    seen = run_json(user, GPUARIA_ARIA2C=script(user.home / "aria2c", text), HF_HUB_OFFLINE="1")
    assert seen.status == 9
    seen.has("aria2c", "problem", *words, fix="apt install aria2")


def test_an_attached_aria2c_that_does_not_run(user: User) -> None:
    seen = run_json(user, GPUARIA_RPC=f"{closed_url()}/jsonrpc", GPUARIA_RPC_SECRET=TOKEN, HF_HUB_OFFLINE="1")
    assert seen.status == 9
    seen.has("aria2c", "problem", "does not respond", fix="aria2c --enable-rpc")
    assert TOKEN not in seen.text


def test_offline(user: User, serve: Serve, small: Repo) -> None:
    hub = serve(small)
    seen = run_json(user, "org/small", HF_HUB_OFFLINE="1")
    assert seen.status == 5
    seen.has("offline", "warning", "HF_HUB_OFFLINE is set", fix="unset HF_HUB_OFFLINE")
    seen.has("repo", "problem", "org/small")
    assert not seen.of("endpoint")
    assert hub.count() == 0
    user.quick("fetch", "org/small").ok()
    seen = run_json(user, "org/small", HF_HUB_OFFLINE="1")
    assert seen.status == 0
    seen.has("repo", "ok", "all 4 files")


def test_a_cache_that_is_not_writable(user: User) -> None:
    place = "/proc/hub"
    seen = run_json(user, GPUARIA_CACHE_DIR=place, HF_HUB_OFFLINE="1")
    assert seen.status == 8
    seen.has("cache", "problem", place, "cannot write to the cache", fix="export GPUARIA_CACHE_DIR=")
    (user.home / "file").write_text("")
    seen = run_json(user, HF_HUB_CACHE=str(user.home / "file"), HF_HUB_OFFLINE="1")
    assert seen.status == 8
    seen.has("cache", "problem", "file", fix="export HF_HUB_CACHE=")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 20 MB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_small_or_full_disk(user: User, tiny: Path, serve: Serve, big: Repo) -> None:
    serve(big)
    seen = run_json(user, "org/big", HF_HUB_CACHE=str(tiny / "hub"))
    assert seen.status == 0
    seen.has("cache", "warning", "free", fix="export HF_HUB_CACHE=")
    seen.has("room", "ok", "9.0 MB")
    (tiny / "ballast").write_bytes(bytes(15_000_000))
    seen = run_json(user, "org/big", HF_HUB_CACHE=str(tiny / "hub"))
    assert seen.status == 8
    seen.has("cache", "problem", "is full", fix="export HF_HUB_CACHE=")
    seen.has("room", "problem", "9.0 MB needed", fix="export HF_HUB_CACHE=")


@contextmanager
def powerless() -> Iterator[None]:
    """Run as a user without privileges."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_without_write_permission(user: User) -> None:
    environ, notes = user.environ(HF_HUB_OFFLINE="1"), Notes()
    settings = load({}, environ, user.home)
    with powerless():
        found = examine(settings, environ, "", None, "", with_trace=False)
        route_to("localhost", "127.0.0.1", Deadline(5), notes)
    seen = DoctorRun(found.exit_code, str(found), to_json(found)["findings"])
    assert seen.status in (8, 9)  # 9 if the folder for temporary files is not writable
    seen.has("cache", "problem", str(user.home), fix="export HF_HUB_CACHE=")
    if Path("/proc/sys/net/ipv4/ping_group_range").read_text().split() == ["1", "0"]:
        seen.has("ICMP", "warning", "not permitted", fix="ping_group_range")
    assert [(f.topic, f.state, "not permitted" in f.text) for f in notes.snapshot()] == [("route", "warning", True)]


def test_an_unusable_state_folder_is_a_warning(user: User) -> None:
    seen = run_json(user, GPUARIA_STATE_DIR="/proc/state", HF_HUB_OFFLINE="1")
    assert seen.status == 0
    seen.has("state", "warning", "/proc/state", fix="export GPUARIA_STATE_DIR=")


def test_few_open_files(user: User) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        seen = run_json(user, HF_HUB_OFFLINE="1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    seen.has("open files", "warning", "512", fix="ulimit -n ")


def test_invalid_settings(user: User) -> None:
    seen = run_json(user, GPUARIA_JOBS="many")
    assert seen.status == 10
    seen.has("settings", "problem", "GPUARIA_JOBS")
