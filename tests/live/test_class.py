"""The check before a class, on a real machine: beside a running lab, and with nothing left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from labkit import engines, swarm
from labkit.classroom import check, returned
from labkit.engines.vm import machine
from tests import BIN
from tests.conftest import Command

LEARNER = "live"
OWN = check.lab_of(LEARNER)
_ARGV = ["class", "check", "--engine", "vm", "--learner", LEARNER, "--out"]


def test_a_machine_that_is_ready(lab: swarm.Lab, labkit: Command, tmp_path: Path) -> None:
    before = [node["state"] for node in lab.status()["nodes"]]
    file = tmp_path / "check.json"
    done = labkit(*_ARGV, str(file), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"ready; send {file}"
    found = returned.read(file)
    assert found.ready
    assert found.restored_s is not None
    assert [step["name"] for step in json.loads(file.read_text())["steps"]][-1] == "down"
    assert OWN not in engines.labs()
    assert machine.qemus_in(machine.lab_directory(OWN)) == []
    assert [node["state"] for node in lab.status()["nodes"]] == before


def test_one_that_is_interrupted_leaves_nothing(lab: swarm.Lab, tmp_path: Path) -> None:
    file = tmp_path / "check.json"
    process = subprocess.Popen(
        [BIN, *_ARGV, file], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while not machine.qemus_in(machine.lab_directory(OWN)) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not file.exists()
    assert OWN not in engines.labs()
    assert machine.qemus_in(machine.lab_directory(OWN)) == []
