"""An error in a listener ends all requests."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import gpuaria
from gpuaria.events import Event, Progress
from standin import Repo
from tests.support.user import Serve, User


def test_an_error_in_a_listener_ends_all_requests(user: User, serve: Serve, tmp_path: Path) -> None:
    """Ctrl-C in a program that uses gpuaria: downloads in other threads must stop."""
    hub = serve(Repo.build("org/many", {f"{n}.txt": b"%d" % n for n in range(100)}, folder=tmp_path, direct=True))
    hub.fault("/resolve", delay=0.5)

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gpuaria.fetch("org/many", to=user.home / "out", environ=user.environ(), emit=emit, small_jobs=8)
    asked = hub.count()
    time.sleep(2)
    assert hub.count() <= asked + 8
