"""A lab that nobody asks anything rests, and is as it was for who asks next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labkit import swarm
from labkit.engines.vm import machine, qmp
from labkit.engines.vm.checkpoints import MachineCheckpoints
from labkit.engines.vm.machine import Machine
from labkit.progress import Progress
from labkit.swarm import membership
from labkit.transport import silence
from tests.conftest import Command

LAB = "idle"
SOON = 60.0  # seconds; a deadline, not a measure


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> Iterator[swarm.Lab]:
    """A lab that is paused after a second of silence, or twelve with a connection; with a service."""
    monkeypatch.setenv("LABKIT_PAUSE_AFTER", "1")
    monkeypatch.setenv("LABKIT_HIBERNATE_AFTER", "0")
    yield from _lab()


@pytest.fixture
def hanging_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[swarm.Lab]:
    """A lab that is paused after four seconds of silence, and from which this process hangs up soon."""
    monkeypatch.setattr(silence, "SECONDS", 0.5)
    monkeypatch.setenv("LABKIT_PAUSE_AFTER", "4")
    monkeypatch.setenv("LABKIT_HIBERNATE_AFTER", "0")
    yield from _lab()


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[swarm.Lab]:
    """A lab that is hibernated two seconds after it was paused, with a service on it."""
    monkeypatch.setenv("LABKIT_PAUSE_AFTER", "1")
    monkeypatch.setenv("LABKIT_HIBERNATE_AFTER", "1.2")
    yield from _lab()


def _lab() -> Iterator[swarm.Lab]:
    swarm.down(LAB)
    try:
        lab = swarm.up(LAB, engine="vm", progress=Progress()).lab
        lab.service("hello", publish="8080:3000", replicas=2)
        lab.wait_for_answers("hello")
        lab.wait_for_port(8080)  # the routing mesh opens it some moments after the tasks answer
        yield lab
        lab.close()
    finally:
        swarm.down(LAB)


def found() -> Machine:
    running = machine.find(LAB)
    assert running
    return running


def is_paused() -> tuple[bool, str]:
    running = not qmp.runs(machine.lab_directory(LAB))
    return running, "it runs"


def is_hibernated() -> tuple[bool, str]:
    qemus = machine.qemus_in(machine.lab_directory(LAB))
    return not qemus and found().hibernated.exists(), f"QEMU {qemus}"


def prove(lab: swarm.Lab) -> None:
    """Every node is ready and answers, also through the mesh, and the clock is right."""
    assert membership.all_ready(lab)[0]
    told = lab.node("node2").run(["date", "+%s.%N"]).check()
    assert abs(float(told.stdout) - time.time()) < 2
    for node in lab.nodes.values():
        assert node.docker.api.ping()
        assert node.run("curl -sS -m 10 http://127.0.0.1:8080").ok


def test_it_stands_still_and_goes_on_where_it_was(resting: swarm.Lab, labkit: Command) -> None:
    swarm.wait_for("the machine to be paused", is_paused, seconds=SOON)
    process = psutil.Process(found().pid)
    before = process.cpu_times()
    time.sleep(2)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.02  # 1 % of a core
    prove(resting)  # the same connections go on
    swarm.wait_for("the machine to be paused again", is_paused, seconds=SOON)
    listed = labkit("exec", "node1", "--lab", LAB, "--", "docker", "node", "ls")
    assert listed.stdout.count("Ready") == 3

    # Who ended the proxy has not ended the lab.
    swarm.wait_for("the machine to be paused once more", is_paused, seconds=SOON)
    gone = found()
    killed = psutil.Process(gone.proxy)
    killed.kill()
    killed.wait(SOON)  # on a busy machine it is there, and answers nobody, for a moment more
    again = swarm.get(LAB)
    prove(again)
    again.close()
    assert (found().port, found().relay) == (gone.port, gone.relay)
    assert found().proxy != gone.proxy


def test_it_is_not_paused_while_a_command_runs(resting: swarm.Lab) -> None:
    capture = resting.manager.run("sleep 6", timeout=60)
    assert capture.ok
    assert capture.seconds < 30


def test_an_open_notebook_that_asks_nothing_lets_it_rest(hanging_up: swarm.Lab) -> None:
    prove(hanging_up)
    began = time.monotonic()
    swarm.wait_for("the machine to be paused", is_paused, seconds=SOON)
    assert time.monotonic() - began < 40  # it takes 48 s while somebody is connected
    prove(hanging_up)


def test_a_checkpoint_is_saved_of_a_lab_that_rests(resting: swarm.Lab) -> None:
    checkpoints = MachineCheckpoints(LAB)
    swarm.wait_for("the machine to be paused", is_paused, seconds=SOON)
    checkpoints.save("rested")
    try:
        prove(resting)
        swarm.wait_for("the machine to be paused again", is_paused, seconds=SOON)
        checkpoints.restore("rested")
        with_checkpoint = swarm.get(LAB)
        prove(with_checkpoint)
        with_checkpoint.close()
    finally:
        checkpoints.remove("rested")


def test_hibernated_it_has_no_process_and_comes_back(leaving: swarm.Lab, labkit: Command) -> None:
    swarm.wait_for("the machine to be hibernated", is_hibernated, seconds=SOON)
    prove(leaving)  # by the connections of before, which are made again
    assert not found().hibernated.exists()
    swarm.wait_for("the machine to be hibernated again", is_hibernated, seconds=SOON)
    assert "no lab's machine runs" in labkit("vm", "hibernate", "--lab", LAB).stdout
    swarm.get(LAB).close()  # its proxy has ended, too: this starts it again, on the same ports
    prove(leaving)
    asked_for = labkit("vm", "hibernate", "--lab", LAB)  # by who does not want to wait for that
    assert f"on disk: {LAB}" in asked_for.stdout, asked_for.stderr
    assert is_hibernated()[0]
    assert machine.proxies_in(machine.lab_directory(LAB)) == []
    again = swarm.get(LAB)
    prove(again)
    again.close()
    assert swarm.down(LAB)
    assert not Path(machine.lab_directory(LAB)).exists()
    assert machine.proxies_in(machine.lab_directory(LAB)) == []
