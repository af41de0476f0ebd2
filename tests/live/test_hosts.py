"""Machines of one's own, with real Docker engines: the nodes of a lab that have left its swarm.

Each has an engine, networks, a firewall and a name of its own. The test carries its engine's API to a
unix socket here, and from then on labkit knows nothing of the lab that they are from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import engines, swarm
from labkit.engines import debian
from labkit.engines.hosts import facts, leaving, tools
from labkit.engines.hosts.guard import NotOnHosts
from labkit.engines.images import KEY_LABEL
from labkit.errors import EngineError
from labkit.progress import Bars, Progress
from labkit.swarm import membership
from labkit.transport.base import DAEMON
from labkit.transport.live import LiveLink
from tests.conftest import Command
from tests.hosts import found_on, shut, stopped_at

MACHINES, LAB = "hosts-machines", "hosts"
HOSTNAMES = ("alpha", "beta", "gamma")


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _serve(door: socket.socket, link: LiveLink) -> None:
    with contextlib.suppress(OSError):
        while True:
            ours, _ = door.accept()
            theirs = link.reach(DAEMON)
            for pair in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=_carry, args=pair, daemon=True).start()


def _part(lab: swarm.Lab) -> None:
    for node in reversed(lab.nodes.values()):
        node.docker.swarm.leave(force=True)
    for node in lab.nodes.values():
        leaving.until("the routing mesh to go", lambda node=node: not facts.overlays(node.docker))


# As sh -c PUT LABEL: the node's own files under the name of the image of the tools. Their real way
# takes two minutes, emulated.
_PUT = """\
tar -cT /dev/null | docker import --change "LABEL $1" - labkit/tools:26.1
mount --bind / "$(docker image inspect --format '{{.GraphDriver.Data.UpperDir}}' labkit/tools:26.1)"
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[swarm.Lab]:
    """Three machines whose engines are in no swarm, and have the image of the tools already."""
    swarm.down(MACHINES)
    try:
        started = swarm.up(MACHINES, engine="vm", progress=Bars()).lab
        _part(started)
        put = ["sh", "-ec", _PUT, "put", f"{KEY_LABEL}={debian.node_key('26.1')}"]
        named = zip(started.nodes.values(), HOSTNAMES, strict=True)
        nodes = {node.name: dataclasses.replace(node, machine=name) for node, name in named}
        ready = [(node.place, put) for node in nodes.values()]
        ready += [(node.place, ["hostname", node.hostname]) for node in nodes.values()]
        for done in started.run_all(ready):
            done.check()
        yield dataclasses.replace(started, nodes=nodes)
        started.close()
    finally:
        swarm.down(MACHINES)


@pytest.fixture(scope="module")
def file(machines: swarm.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that names them, each by a unix socket."""
    folder = tmp_path_factory.mktemp("hosts")
    lines = ["hosts:"]
    with contextlib.ExitStack() as stack:
        for number, node in enumerate(machines.nodes.values()):
            path = folder / f"{node.name}.sock"
            door = stack.enter_context(socket.socket(socket.AF_UNIX))
            door.bind(str(path))
            door.listen(64)
            assert isinstance(node.link, LiveLink)
            threading.Thread(target=_serve, args=(door, node.link), daemon=True).start()
            role = "worker" if number else "manager"
            lines.append(f"  - {{name: {node.hostname}, role: {role}, docker: 'unix://{path}'}}")
        written = folder / "hosts.yaml"
        written.write_text("\n".join(lines) + "\n")
        yield written


def found(machines: swarm.Lab) -> dict[str, dict[str, Any]]:
    return found_on({node.name: node.docker for node in machines.nodes.values()})


@contextlib.contextmanager
def dropped(node: swarm.Node, port: str) -> Iterator[None]:
    rule = shut(port)
    node.run(["iptables", "-w", "10", "-I", *rule]).check()
    try:
        yield
    finally:
        node.run(["iptables", "-w", "10", "-D", *rule]).check()


def test_a_wrong_firewall_is_named_and_nothing_is_left_of_the_look(
    machines: swarm.Lab, file: Path, labkit: Command
) -> None:
    _, node2, node3 = machines.nodes.values()
    before = found(machines)
    with dropped(node2, "4789"), dropped(node3, "7946"):
        looked = labkit("doctor", "--hosts", str(file), "--json")
    assert looked.returncode == 1, looked.stderr
    told = json.loads(looked.stdout)
    assert not told["ok"]
    wrong = {
        (row["from"], row["to"], row["what"]): row["seen"] for row in told["checks"] if not row["ok"]
    }
    at_beta, at_gamma = stopped_at("beta"), stopped_at("gamma")
    assert wrong == {
        ("alpha", "beta", "4789/udp"): at_beta,
        ("gamma", "beta", "4789/udp"): at_beta,
        ("alpha", "gamma", "7946/udp"): at_gamma,
        ("beta", "gamma", "7946/udp"): at_gamma,
    }
    ways = {(row["from"], row["to"]) for row in told["checks"] if row["what"].startswith("ESP")}
    assert ways == {(a, b) for a in HOSTNAMES for b in HOSTNAMES if a != b}
    assert found(machines) == before


def test_there_has_to_be_a_swarm_to_diagnose(file: Path, labkit: Command) -> None:
    none = labkit("diagnose", "--hosts", str(file))
    assert none.returncode == 2, none.stderr
    assert "are in no swarm" in none.stderr


@pytest.fixture
def shop(machines: swarm.Lab) -> Iterator[None]:
    """A swarm that labkit has not made, with a service of its own."""
    membership.form(machines, 1)
    try:
        create = "docker service create --detach --no-resolve-image --name shop --replicas 3"
        machines.manager.run(f"{create} --publish 8080:3000 node-test").check()
        machines.wait_for_answers("shop")
        yield
    finally:
        _part(machines)


@pytest.mark.usefixtures("shop")
def test_a_swarm_that_runs_is_diagnosed_used_and_stays(
    machines: swarm.Lab, file: Path, labkit: Command
) -> None:
    before = found(machines)
    well = labkit("diagnose", "--hosts", str(file), "--json")
    assert well.returncode == 0, well.stdout + well.stderr
    assert json.loads(well.stdout) == {"hosts": str(file), "findings": []}
    assert found(machines) == before

    made = swarm.up(LAB, hosts=file, progress=Progress()).lab
    try:
        made.network("my-overlay")
        made.service("hello-a", networks=["my-overlay"])
        with dropped(machines.node("node2"), "4789"):
            ill = labkit("diagnose", "--hosts", str(file), "--json")
        assert ill.returncode == 1, ill.stderr
        (finding,) = json.loads(ill.stdout)["findings"]
        assert (finding["where"], finding["fault"]) == ("beta", "vxlan-dropped")
        assert "--dport 4789 -j DROP" in finding["evidence"]
        assert len(made.tasks("hello-a")) == 1  # a look takes nothing from a lab
        assert made.keep_only("hello-a") == []
        with pytest.raises(NotOnHosts, match="stays as it is"):
            made.node("node3").run("docker swarm leave")
    finally:
        made.close()
    assert swarm.down(LAB)
    assert found(machines) == before
    assert [row["Spec"]["Name"] for row in machines.manager.docker.api.services()] == ["shop"]
    assert len(machines.tasks("shop")) == 3


def test_a_lab_comes_works_and_leaves_each_machine_as_it_was(
    machines: swarm.Lab, file: Path, labkit: Command
) -> None:
    """With LABKIT_HOSTS_IMAGES=1 node3 has neither image before, and gets them the long way."""
    node3 = machines.node("node3")
    api = node3.docker.api
    leaving.until("the bridge to go", lambda: leaving.remove_gateway(node3.docker))
    if os.environ.get("LABKIT_HOSTS_IMAGES"):
        for name in (
            tools.image("26.1"),
            facts.IMAGE_OF_APP,
        ):  # a name is taken off; the layer is mounted
            api.tag(name, "kept", name.split("/")[-1].split(":")[0])
            api.remove_image(name)
    before = found(machines)
    try:
        up = labkit("up", "--hosts", str(file), "--lab", LAB, "--json", timeout=400)
        assert up.returncode == 0, up.stderr
        told = json.loads(up.stdout)
        assert told["engine"] == "hosts"
        assert [
            (row["name"], row["hostname"], row["address"], row["state"]) for row in told["nodes"]
        ] == [(node.name, node.hostname, node.address, "ready") for node in machines.nodes.values()]
        made = swarm.get(LAB)
        try:
            _a_lab_works_there(made)
            _break(made.node("node2"), made)
            with pytest.raises(NotOnHosts, match="is not run on beta, a machine of your own"):
                made.node("node2").run("ip link set eth0 down")
            with pytest.raises(EngineError, match="nothing else can be kept"):
                engines.checkpoints(LAB)
        finally:
            made.close()
        down = labkit("down", "--lab", LAB)
        assert down.returncode == 0, down.stderr
        assert found(machines) == before
        assert "9999" not in machines.node("node2").run("iptables -S INPUT").check().text
    finally:
        swarm.down(LAB)


def _break(node: swarm.Node, lab: swarm.Lab) -> None:
    """Add a rule, and note what undoes it, as the injection of a fault does."""
    rule = shut("9999")
    node.run(["iptables", "-w", "10", "-I", *rule]).check()
    undo = {"node": node.hostname, "netns": None, "argv": ["iptables", "-w", "10", "-D", *rule]}
    assert lab.engine.machines
    lab.engine.machines.broken([undo])


def _a_lab_works_there(lab: swarm.Lab) -> None:
    """What labs do: services, the routing mesh, an overlay, namespaces, tasks, rules."""
    lab.network("my-overlay")
    kept = ["--mount", "type=volume,source=my-data,target=/data"]
    lab.service("hello-a", publish="5000:3000", networks=["my-overlay"], replicas=3, options=kept)
    tasks = lab.wait_for_answers("hello-a")
    assert {task.node.name for task in tasks} == set(lab.nodes)
    first, other, _ = tasks
    url = f"http://{other.addresses['my-overlay']}:3000/whoami"
    mesh = lab.manager.netns("ingress_sbox")
    overlay, balanced, rules, published, sockets = lab.run_all(
        [
            (first.place, ["curl", "-sS", "-m", "20", url]),
            (mesh, "ipvsadm -ln"),
            (lab.manager.place, "iptables -t nat -S DOCKER-INGRESS"),
            (lab.manager.place, "curl -sS -m 20 http://127.0.0.1:5000"),
            (first.sandbox, "ss -Hlnt"),
        ]
    )
    assert json.loads(overlay.check().text)["node"] == other.node.name
    assert balanced.text.count("Masq") == 3
    assert "--dport 5000" in rules.text
    assert published.text == "HI\n"
    assert ":3000" in sockets.text
    assert "vxlan" in lab.manager.overlay("my-overlay").run("ip -d link show").check().text
    assert {node.name for node in lab.look().nodes} == set(lab.nodes)
