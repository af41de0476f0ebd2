"""What is known of an embedded machine by its process and its directory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.engines.vm import machine

SOME_S = 5.0


@pytest.fixture
def panicked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A lab whose machine has a record and last words."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    directory = machine.lab_directory("late")
    directory.mkdir(parents=True)
    (directory / machine.RECORD).write_text("{}")
    (directory / "serial.log").write_text("Kernel panic - not syncing: Fatal exception\n")
    return "late"


def still_there(times: int) -> Iterator[object]:
    yield from [object()] * times
    while True:
        yield None


def test_a_machine_is_found_where_the_home_is_behind_a_link(
    idle_qemu: Callable[[Path], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "data")
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    directory = machine.lab_directory("linked")
    directory.mkdir(parents=True)
    qemu = idle_qemu(directory)
    assert [found.pid for found in machine.qemus_in(directory)] == [qemu.pid]


def test_a_machine_that_is_just_ending_has_crashed(
    panicked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = still_there(3)  # QEMU hangs up on its clients, and then ends
    monkeypatch.setattr(machine, "find", lambda lab: next(looks))
    assert "Kernel panic" in str(machine.crash_log(panicked, patience_s=SOME_S))


def test_a_machine_that_goes_on_has_not_crashed(panicked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find", lambda lab: object())
    assert machine.crash_log(panicked) is None
    assert machine.crash_log(panicked, patience_s=0.1) is None


def test_a_lab_that_never_had_a_machine_has_not_crashed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    assert machine.crash_log("never", patience_s=SOME_S) is None
