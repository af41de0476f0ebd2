"""Restored machines are not twins; killed commands, ended machines and two processes are got over."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from labkit import swarm
from labkit.engines import locks
from labkit.engines.vm import machine
from labkit.errors import EngineError
from labkit.progress import Progress
from tests import BIN
from tests.conftest import Command

SPARES = ("spare-one", "spare-two")

# Each word that it prints must be another one on every machine.
DRAW = """
for n in 1 2 3; do
    cat /proc/sys/kernel/random/uuid
    ip link add draw type dummy
    cat /sys/class/net/draw/address
    ip link del draw
done
python3 -c 'import os, ssl
for _ in range(3): print(os.urandom(8).hex(), ssl.RAND_bytes(8).hex())'
"""


def draw(lab: swarm.Lab) -> list[str]:
    """Draw what a lab makes at random: numbers, addresses, ids, keys."""
    drawn = lab.manager.run(["sh", "-ec", DRAW], timeout=120).check().stdout.split()
    assert len(drawn) == 12
    api = lab.manager.docker.api
    for number in range(2):
        drawn += [
            api.create_container("node-test")["Id"],
            api.create_network(f"bridge-{number}")["Id"],
            api.create_network(f"overlay-{number}", driver="overlay")["Id"],
        ]
    return [*drawn, *api.inspect_swarm()["JoinTokens"].values()]


@pytest.fixture
def spares() -> Iterator[list[swarm.Lab]]:
    """Two labs that have just come out of one saved state."""
    for name in SPARES:
        swarm.down(name)
    try:
        started = [swarm.up(name, engine="vm", progress=Progress()) for name in SPARES]
        assert started[1].restored
        yield [result.lab for result in started]
        for result in started:
            result.lab.close()
    finally:
        for name in SPARES:
            swarm.down(name)


def test_two_labs_of_one_state_have_nothing_random_in_common(spares: list[swarm.Lab]) -> None:
    first, second = (machine.find(name) for name in SPARES)
    assert first
    assert second
    assert first.state == second.state
    drawn = [value for lab in spares for value in draw(lab)]
    assert len(set(drawn)) == len(drawn)
    for lab in spares:
        told = lab.manager.run(["dmesg"]).text
        assert "crng reseeded due to virtual machine fork" in told


def test_a_lab_that_stood_still_for_a_killed_checkpoint_goes_on(
    spares: list[swarm.Lab], labkit: Command
) -> None:
    name = SPARES[0]
    with subprocess.Popen([BIN, "checkpoint", "save", "killed", "--lab", name]) as saving:
        deadline = time.monotonic() + 60
        while not ((begun := locks.begun(name)) and begun.step == "saving"):
            assert saving.poll() is None
            assert time.monotonic() < deadline
        saving.kill()
    left = locks.begun(name)
    assert left
    assert not left.held
    done = labkit("exec", "--lab", name, "node3", "--", "hostname")
    assert (done.returncode, done.stdout) == (0, "node3\n"), done.stderr
    assert locks.begun(name) is None
    listed = labkit("checkpoint", "list", "--lab", name, "--json")
    assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr


def test_a_lab_whose_maker_was_killed_is_nobodys_and_made_anew(
    spares: list[swarm.Lab], labkit: Command
) -> None:
    name = SPARES[0]
    with subprocess.Popen([BIN, "reset", "--lab", name], stdout=subprocess.DEVNULL) as resetting:
        deadline = time.monotonic() + 60
        while not ((begun := locks.begun(name)) and begun.step == "making"):
            assert resetting.poll() is None
            assert time.monotonic() < deadline
        resetting.kill()
    with pytest.raises(EngineError, match="was killed while it made lab 'spare-one'") as caught:
        swarm.get(name)
    assert caught.value.hint == "labkit up --lab spare-one"
    done = labkit("up", "--engine", "vm", "--lab", name)
    assert done.returncode == 0, done.stderr
    again = swarm.get(name)
    assert [node["state"] for node in again.status()["nodes"]] == ["ready"] * 3
    again.close()


def test_a_reset_brings_back_a_lab_whose_machine_has_ended(
    spares: list[swarm.Lab], labkit: Command
) -> None:
    pid = spares[0].engine.pid
    assert pid
    ended = psutil.Process(pid)
    ended.kill()
    psutil.wait_procs([ended], timeout=20)
    with pytest.raises(EngineError, match="has ended by itself") as caught:
        swarm.get(SPARES[0])
    assert caught.value.hint == f"labkit reset --lab {SPARES[0]}"
    done = labkit("reset", "--lab", SPARES[0], "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"ready"') == 3


def test_of_two_ups_at_once_the_second_finds_the_first_ones_lab(
    spares: list[swarm.Lab], labkit: Command
) -> None:
    swarm.down(SPARES[0])
    argv = ("up", "--engine", "vm", "--lab", SPARES[0])
    with ThreadPoolExecutor(2) as pool:
        first, second = sorted(pool.map(lambda _: labkit(*argv), range(2)), key=lambda r: r.returncode)
    assert first.returncode == 0, first.stderr
    assert second.returncode == 2, second.stderr
    assert "is up already" in second.stderr
    found = swarm.get(SPARES[0])
    assert [node["state"] for node in found.status()["nodes"]] == ["ready"] * 3
    found.close()


def test_a_closed_terminal_leaves_nothing_half_up(spares: list[swarm.Lab]) -> None:
    name = SPARES[0]
    swarm.down(name)
    argv = [BIN, "up", "--engine", "vm", "--lab", name]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as starting:
        deadline = time.monotonic() + 60
        while not machine.qemus_in(machine.lab_directory(name)):
            assert starting.poll() is None
            assert time.monotonic() < deadline
        os.kill(starting.pid, signal.SIGHUP)
        assert starting.wait(60) == 130
    assert machine.qemus_in(machine.lab_directory(name)) == []
    assert not machine.lab_directory(name).exists()
    assert locks.begun(name) is None
