"""A learner's server on a hub: how it is stopped, and the lab kept."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from labkit.page import singleuser

_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
HIBERNATE = [sys.executable, "-m", "labkit", "vm", "hibernate", "--all"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run to the end."""
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda argv, check: commands.append(argv))
    return commands


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not end when it is asked to."""
    argv = [sys.executable, "-c", f"{_DEAF}; time.sleep(60)"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def test_a_server_that_does_not_end_keeps_no_lab_from_the_disk(
    server: subprocess.Popen[bytes], ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singleuser, "_END_SECONDS", 0.2)
    singleuser.stop(server.pid)
    assert not psutil.pid_exists(server.pid)
    assert ran == [HIBERNATE]
    singleuser.stop(server.pid)  # nobody has this number any more
    assert ran == [HIBERNATE, HIBERNATE]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_a_server_that_ended_by_itself_has_no_number(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd then puts nothing in the place of $MAINPID."""
    monkeypatch.setattr(sys, "argv", ["singleuser", "--stop"])
    runpy.run_module("labkit.page.singleuser", run_name="__main__")
    assert ran == [HIBERNATE]
