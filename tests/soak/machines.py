"""Labs on three machines of one's own, each with a kernel and a Docker engine: a real `--hosts`.

They are embedded machines without a lab, and a second network card of each is on one virtual network:
the first one's QEMU is the switch, which the others' connect to, by a socket in a directory.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import yaml

from labkit.engines import DEFAULT_DOCKER, images, kind_of
from labkit.engines.vm import image, machine, process
from labkit.engines.vm.machine import Machine
from labkit.progress import Bars
from tests.hosts import found_on, shut, stopped_at
from tests.soak.home import Home
from tests.soak.results import Figures, Part

if TYPE_CHECKING:
    from docker import DockerClient

NAMES = ("alpha", "beta", "gamma")
LABS = ("01", "02", "03", "04", "05", "06", "07")
LAB = "soak-hosts"
MEMORY_MB = 1536
_UP_S, _LAB_S = 1800.0, 2400.0
# As sh -c READY NAME ADDRESS, in the machine's own namespaces: what its owner would have done. Labkit's
# relay there has the port that a swarm's managers listen on.
_READY = """\
kill $(grep -l 'labkit/rela[y].py' /proc/[0-9]*/cmdline | cut -d / -f 3)
hostname "$1"; mount --make-rshared /; ip address add "$2/24" dev eth1; ip link set eth1 up
"""
_KERNEL = "cat /proc/sys/kernel/random/boot_id"


def run(home: Home, seed: int) -> None:
    """Look at three machines, make them a lab, pass labs there, and leave them as they were."""
    part = Part("hosts", 4 + len(LABS), seed)
    with tempfile.TemporaryDirectory(dir=home.directory) as place, _machines(Path(place)) as running:
        file = Path(place) / "hosts.yaml"
        file.write_text(yaml.safe_dump({"hosts": [_row(*one) for one in running.items()]}))
        engines = {name: one.client() for name, one in running.items()}
        before = found_on(engines)
        try:
            part.in_turn(
                {
                    "three kernels": lambda: _three_kernels(engines),
                    "a wrong firewall on one is named": lambda: _firewall(home, file, engines),
                    "the machines are a lab": lambda: _up(home, file),
                }
            )
            for number in LABS:  # one that fails is not the last
                part.in_turn({f"lab {number}": partial(_lab, home, number)})
        finally:
            part.in_turn({"each is left as it was found": lambda: _down(home, engines, before)})


# --- the machines --------------------------------------------------------------------------------


@contextlib.contextmanager
def _machines(place: Path) -> Iterator[dict[str, Machine]]:
    """Boot three machines on one network, and give each its name and its address."""
    nodes = image.node_disk(DEFAULT_DOCKER, Bars())
    lines = [place / f"{name}.lan" for name in NAMES[1:]]
    running: dict[str, Machine] = {}
    try:
        for number, name in enumerate(NAMES):
            disks = place / name
            disks.mkdir()
            with patch.object(
                process, "_qemu_argv", _on_the_network(process._qemu_argv, number, lines)
            ):
                running[name] = process.boot(name, DEFAULT_DOCKER, disks, nodes, memory_mb=MEMORY_MB)
            client = running[name].client()
            _in_it(client, ["sh", "-ec", _READY, "ready", name, _address(number)])
            client.close()
        yield running
    finally:
        for name in NAMES:
            machine.remove(machine.lab_directory(name))


def _on_the_network(
    argv: Callable[..., list[str]], number: int, lines: list[Path]
) -> Callable[..., list[str]]:
    """Return what names QEMU's arguments, with a second card; the first machine is the switch."""
    card = ["-device", f"virtio-net-pci,netdev=lan,romfile=,mac=52:54:00:00:00:0{number + 1}"]
    line = "stream,id={},server={},addr.type=unix,addr.path={}"
    if number:
        lan = ["-netdev", line.format("lan", "off", lines[number - 1])]
    else:
        lan = ["-netdev", "hubport,id=lan,hubid=1"]
        for port, path in enumerate(lines):
            lan += ["-netdev", line.format(f"to{port}", "on", path)]
            lan += ["-netdev", f"hubport,id=port{port},hubid=1,netdev=to{port}"]
    return lambda *given, **named: [*argv(*given, **named), *lan, *card]


def _address(number: int) -> str:
    return f"192.0.2.{number + 11}"


def _row(name: str, one: Machine) -> dict[str, str]:
    number = NAMES.index(name)
    return {
        "name": name,
        "role": "worker" if number else "manager",
        "docker": f"tcp://127.0.0.1:{one.port}",
        "tls": one.tls,
        "address": _address(number),
    }


def _in_it(client: DockerClient, argv: list[str]) -> str:
    """Run a command in a machine's own namespaces, in a container that ends with it."""
    out: bytes = client.containers.run(
        images.name(DEFAULT_DOCKER),
        ["-t", "1", "-m", "-u", "-n", "--", *argv],
        entrypoint=["nsenter"],
        log_config={"Type": "json-file"},  # what it says comes back by this one alone
        privileged=True,
        pid_mode="host",
        remove=True,
    )
    return out.decode().strip()


# --- the steps -----------------------------------------------------------------------------------


def _three_kernels(engines: Mapping[str, DockerClient]) -> Figures:
    ids = {_in_it(client, _KERNEL.split()) for client in engines.values()}
    assert len(ids) == len(NAMES), ids
    client = engines[NAMES[0]]
    return {"kernel": _in_it(client, ["uname", "-r"]), "Docker": client.version()["Version"]}


def _firewall(home: Home, file: Path, engines: Mapping[str, DockerClient]) -> Figures:
    beta = engines["beta"]
    _in_it(beta, ["iptables", "-I", *shut("4789")])
    try:
        looked = home.run("doctor", "--hosts", str(file), "--json", timeout=_UP_S)
    finally:
        _in_it(beta, ["iptables", "-D", *shut("4789")])
    assert looked.code == 1, looked.err[-600:]
    wrong = {
        (row["from"], row["to"], row["what"]): row["seen"]
        for row in json.loads(looked.out)["checks"]
        if not row["ok"]
    }
    stopped = stopped_at("beta")
    assert wrong == {(one, "beta", "4789/udp"): stopped for one in ("alpha", "gamma")}, wrong
    return {"the look": f"{looked.seconds / 60:.1f} min"}


def _up(home: Home, file: Path) -> Figures:
    up = home.run("up", "--hosts", str(file), "--lab", LAB, "--json", timeout=_UP_S)
    assert up.code == 0, up.err[-600:]
    assert [node["state"] for node in json.loads(up.out)["nodes"]] == ["ready"] * len(NAMES)
    return {"up": f"{up.seconds / 60:.1f} min"}


def _lab(home: Home, number: str) -> Figures:
    assert kind_of(LAB) == "hosts", "the machines are no lab"  # a run would start one elsewhere
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=home.directory) as report:
        done = home.run("run", number, "--lab", LAB, "--report", report, "--json", timeout=_LAB_S)
    (lab,) = json.loads(done.out)["labs"]
    missed = [
        f"{check['id']}: {check['message']}" for check in lab["checks"] if check["status"] != "pass"
    ]
    assert "error" not in lab, lab["error"]
    assert not missed, missed
    untrue = [name for name, held in lab["claims"].items() if not held]
    assert not untrue, untrue
    passed = f"{len(lab['checks'])} of {len(lab['checks'])}"
    return {"checks": passed, "after": f"{(time.monotonic() - began) / 60:.1f} min"}


def _down(
    home: Home, engines: Mapping[str, DockerClient], before: Mapping[str, dict[str, Any]]
) -> None:
    down = home.run("down", "--lab", LAB, timeout=_UP_S)
    assert down.code == 0, down.err[-600:]
    assert found_on(engines) == before
