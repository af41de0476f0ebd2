"""Labs come and go whole: interrupted, side by side, on another engine; nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from labkit import paths, swarm
from labkit.engines.docker import refuse_unfit
from labkit.engines.vm import machine
from labkit.errors import EngineError
from labkit.swarm import nodes
from tests import BIN
from tests.conftest import LAB, Command


def machines_at(lab: str) -> list[psutil.Process]:
    """The QEMU processes of a lab."""
    return machine.qemus_in(machine.lab_directory(lab))


@pytest.mark.parametrize(("after", "number"), [("machine", signal.SIGINT), ("engine", signal.SIGTERM)])
def test_an_interrupted_up_leaves_nothing(after: str, number: signal.Signals) -> None:
    lab = "interrupted"
    process = subprocess.Popen(
        [BIN, "up", "--engine", "vm", "--lab", lab, "--fresh"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    directory = machine.lab_directory(lab)
    try:
        sign = directory / ("serial.log" if after == "machine" else "machine.json")
        deadline = time.monotonic() + 200
        while not sign.exists() and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        os.kill(process.pid, number)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in told
    assert "Traceback" not in told
    assert not directory.exists()
    assert machines_at(lab) == []


def test_an_interrupted_build_leaves_nothing_half_made(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BIN, "vm", "build"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LABKIT_HOME": str(tmp_path)},
    )
    deadline = time.monotonic() + 60
    while not (began := list((tmp_path / "cache").glob("unfinished-*"))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not any(path.exists() for path in began)
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"build.lock"}
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def test_a_killed_up_is_found_and_removed_by_down(labkit: Command) -> None:
    lab = "killed"
    process = subprocess.Popen(
        [BIN, "up", "--engine", "vm", "--lab", lab, "--fresh"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while not machines_at(lab) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert machines_at(lab)
    done = labkit("down", "--lab", lab, "--json")
    assert json.loads(done.stdout) == {"down": [lab]}
    assert machines_at(lab) == []
    assert not machine.lab_directory(lab).exists()


def test_a_lab_on_another_engine_lives_beside_and_goes_whole(
    lab: swarm.Lab, labkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded machine's engine, reached through DOCKER_HOST, is a Docker engine like any other."""
    for name, value in lab.engine.environment.items():
        monkeypatch.setenv(name, value)
    client = lab.engine.client
    before = {
        "containers": {box.id for box in client.containers.list(all=True)},
        "networks": {network.id for network in client.networks.list()},
        "volumes": {volume.id for volume in client.volumes.list()},
    }
    done = labkit("up", "--engine", "docker", "--lab", "beside", "--nodes", "2", "--json", timeout=400)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["engine"], [node["state"] for node in told["nodes"]]) == ("docker", ["ready", "ready"])
    assert [node["state"] for node in lab.status()["nodes"]] == ["ready"] * 3
    assert labkit("down", "--lab", "beside").returncode == 0
    assert before == {
        "containers": {box.id for box in client.containers.list(all=True)},
        "networks": {network.id for network in client.networks.list()},
        "volumes": {volume.id for volume in client.volumes.list()},
    }


def test_what_the_engines_kernel_lacks_is_named(
    lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        nodes.KERNEL_NEEDS, "no_such", ["ip", "link", "add", "x", "type", "no_such_kind"]
    )
    with pytest.raises(EngineError) as caught:
        nodes.check_kernel(lab.manager)
    assert "modprobe -a no_such;" in str(caught.value)
    assert "ip_vs" not in str(caught.value)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"OSType": "windows"}, "windows containers, expected linux"),
        ({"OSType": "linux", "SecurityOptions": ["name=rootless"]}, "no privileged containers"),
        ({"OSType": "linux", "SecurityOptions": ["name=userns"]}, "no privileged containers"),
    ],
)
def test_an_engine_that_says_it_cannot_is_believed(info: dict[str, object], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        refuse_unfit(info)


def test_the_machines_live_under_the_state_directory_only(lab: swarm.Lab) -> None:
    running = machine.find(LAB)
    assert running
    assert Path(running.directory).parent == paths.machines()
    assert Path(running.directory).stat().st_mode & 0o077 == 0
