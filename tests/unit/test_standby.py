"""What holds a machine that rests, whoever is killed meanwhile: its process, or its file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.engines import locks
from labkit.engines.vm import accel, checkpoints, machine, process, proxy_process, qmp
from labkit.engines.vm.engine import VmEngine
from labkit.engines.vm.machine import Machine
from labkit.engines.vm.standby import MachineControl
from labkit.errors import EngineError

LAB = "resting"
SOON = 20.0  # seconds; a deadline, not a measure
Qemu = Callable[[Path], "subprocess.Popen[bytes]"]

KILLED_WHILE_IT_SAVED = """
import os, signal
from labkit.engines import locks
with locks.hold("resting") as held, held.step("saving"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Clock:
    """What was asked of machines that are not there: to go on, and to set their clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.fails = False
        monkeypatch.setattr(qmp, "resume", lambda directory: self.asked.append("go on"))
        monkeypatch.setattr(proxy_process, "reached", lambda running: running)
        monkeypatch.setattr(Machine, "set_clock", lambda running: self.set())

    def set(self) -> None:
        self.asked.append("clock")
        if self.fails:
            raise EngineError("it does not answer")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """A lab whose record is there, and nothing else."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    directory = machine.lab_directory(LAB)
    directory.mkdir(parents=True)
    return Machine(
        lab=LAB,
        docker="26.1",
        accel="tcg",
        memory_mb=1,
        pid=0,
        inside=(1, 2),
        port=3,
        relay=4,
        tls="",
        directory=str(directory),
        state="swarm",
    ).record()


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch, resting: Machine) -> list[str]:
    """The machines that are started out of the file: no QEMU may be there then, or get it."""
    started: list[str] = []

    @contextmanager
    def launched(lab: str, directory: Path, *_: object, **__: object) -> Iterator[SimpleNamespace]:
        assert not machine.qemus_in(directory)
        yield SimpleNamespace(machine=lambda *_, **__: resting)

    def load(directory: Path, saved: Path, *, loaded: Callable[[], None], **_: Any) -> None:
        started.append(saved.read_text())
        loaded()

    monkeypatch.setattr(process, "_launched", launched)
    monkeypatch.setattr(qmp, "load", load)
    return started


def cut_short() -> None:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_SAVED], check=False)


def mend() -> None:
    with locks.hold(LAB) as held:
        assert held.cut_short == "saving"
        checkpoints.go_on(LAB, held)
    assert locks.begun(LAB) is None


def test_one_that_was_written_when_its_saver_was_killed_is_kept(
    resting: Machine, asked: Clock, idle_qemu: Qemu
) -> None:
    resting.hibernated.write_text("all of it")
    cut_short()
    mend()  # its QEMU has ended already
    idle_qemu(Path(resting.directory))
    cut_short()
    mend()  # or has not yet
    assert resting.hibernated.read_text() == "all of it"
    assert asked.asked == []


def test_one_that_was_not_written_yet_goes_on(
    resting: Machine, asked: Clock, idle_qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []
    monkeypatch.setattr(proxy_process, "reached", lambda m: reached.append(m.lab) or m)
    qemu = idle_qemu(Path(resting.directory))
    replace(resting, pid=qemu.pid).record()
    cut_short()
    mend()
    assert asked.asked == ["go on", "clock"]
    assert reached == [LAB]  # whoever was killed may have been its proxy


def test_it_wakes_from_its_file_and_the_qemu_beside_it_ends(
    resting: Machine, asked: Clock, woken: list[str], idle_qemu: Qemu
) -> None:
    resting.hibernated.write_text("all of it")
    waiting = idle_qemu(Path(resting.directory))  # of a proxy that was killed while it woke it
    control = MachineControl(Path(resting.directory))
    assert control.state() == "hibernated"
    control.wake()
    assert waiting.wait(SOON) != 0
    assert woken == ["all of it"]
    assert not resting.hibernated.exists()
    assert asked.asked == ["clock"]


def test_one_that_was_woken_runs_though_its_clock_cannot_be_set(
    resting: Machine, asked: Clock, woken: list[str]
) -> None:
    resting.hibernated.write_text("all of it")
    control = MachineControl(Path(resting.directory))
    asked.fails = True
    control.wake()
    control.wake()  # whatever asks it: it is never started over itself
    assert woken == ["all of it"]
    assert asked.asked == ["clock", "go on", "clock"]


def test_it_is_hibernated_when_its_file_is_there_though_its_end_failed(
    resting: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> bool:
        raise EngineError("QEMU is gone before it has answered")

    monkeypatch.setattr(process, "hibernate", refused)
    control = MachineControl(Path(resting.directory))
    assert not control.hibernate(lambda: True)
    resting.hibernated.write_text("all of it")
    assert control.hibernate(lambda: True)


def test_no_qemu_starts_where_one_works(resting: Machine, idle_qemu: Qemu) -> None:
    working = idle_qemu(Path(resting.directory))
    with (
        pytest.raises(EngineError, match=f"has a QEMU already: process {working.pid}") as caught,
        process._launched(LAB, Path(resting.directory), "ram", 1),
    ):
        pass
    assert f"labkit down --lab {LAB}" in caught.value.hint
    assert working.poll() is None


def test_a_socket_of_one_that_was_killed_is_not_taken_for_the_next_ones(
    resting: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = Path(resting.directory) / "qmp.sock"
    socket.touch()
    there: list[bool] = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        there.append(socket.exists())
        return subprocess.Popen(["false"])

    (Path(resting.directory) / "qemu.log").touch()
    monkeypatch.setattr(process, "_start_qemu", start)
    monkeypatch.setattr(process, "_qemu_argv", lambda *_, **__: [])
    monkeypatch.setattr(accel, "decide", lambda _: accel.Verdict("tcg", "", ""))
    with (
        pytest.raises(EngineError, match="did not start"),
        process._launched(LAB, Path(resting.directory), "ram", 1),
    ):
        pass
    assert there == [False]


def test_a_wake_that_is_under_way_ends_where_the_lab_is_put_on_disk(
    resting: Machine, idle_qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it could take the file away when nobody saves the lab any more."""
    ended: list[Path] = []
    monkeypatch.setattr(machine, "end_proxies", ended.append)
    resting.hibernated.write_text("all of it")
    waking = idle_qemu(Path(resting.directory))
    assert not VmEngine().hibernate(LAB)
    assert ended == [Path(resting.directory)]
    assert waking.wait(SOON) != 0
    assert resting.hibernated.read_text() == "all of it"


def test_one_that_ran_by_then_is_put_on_disk(
    resting: Machine, idle_qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting.hibernated.write_text("of before")
    # Its proxy takes the file away in the last moment.
    monkeypatch.setattr(machine, "end_proxies", lambda directory: resting.hibernated.unlink())
    running = idle_qemu(Path(resting.directory))
    hibernated: list[str] = []
    monkeypatch.setattr(
        process, "hibernate", lambda saved, unwanted: hibernated.append(saved.lab) or True
    )
    assert VmEngine().hibernate(LAB)
    assert hibernated == [LAB]
    assert running.poll() is None


def test_what_is_no_lab_yet_is_not_put_on_disk(resting: Machine, idle_qemu: Qemu) -> None:
    qemu = idle_qemu(Path(resting.directory))
    replace(resting, pid=qemu.pid).record()
    making = KILLED_WHILE_IT_SAVED.replace("saving", "making")
    subprocess.run([sys.executable, "-c", making], check=False)
    assert not VmEngine().hibernate(LAB)
    left = locks.begun(LAB)
    assert left
    assert left.step == "making"  # the next `up` removes what is there
