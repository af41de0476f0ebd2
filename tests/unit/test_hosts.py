"""Machines of one's own: what is put there, what is written down, how each is left as it was found."""

from __future__ import annotations

import io
import json
import signal
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest

from labkit import engines, faults, swarm
from labkit.engines.base import MADE_BY, lab_names
from labkit.engines.hosts import endpoint, facts, guard, leaving, record, tools, wire
from labkit.engines.hosts.endpoint import Endpoint
from labkit.engines.hosts.guard import NotOnHosts
from labkit.engines.hosts.judgement import NotFit
from labkit.errors import (
    BuildError,
    EngineError,
    LabkitError,
    SwarmError,
    UnknownNameError,
    UsageError,
)
from labkit.experiments import swarms
from labkit.progress import Progress
from labkit.swarm import membership
from labkit.transport.base import DAEMON
from tests.unit.fakes import FakeNode, as_json
from tests.unit.test_preflight import ADDRESS, LOOKS, wires

FILE = """\
hosts:
  - {name: alpha, role: manager, docker: unix:///alpha, address: 192.0.2.11}
  - {name: beta, docker: unix:///beta, address: 192.0.2.12}
  - {name: gamma, docker: unix:///gamma, address: 192.0.2.13}
"""
TOOLS = tools.image("26.1")
CAME = facts.seconds("2026-11-30T01:00:00Z")  # labkit, to each machine


class Cluster:
    """The swarm that fake machines may be in."""

    def __init__(self) -> None:
        self.members: dict[str, str] = {}  # hostname -> role
        self.number = 1  # which swarm it is: another one has other node ids
        self.services: dict[str, dict[str, str]] = {}  # name -> labels
        self.younger: set[str] = set()  # services that were made after labkit came
        self.overlays: dict[str, dict[str, str]] = {}
        self.configs: set[str] = set()
        self.hosts = {name: FakeHost(name, self) for name in ADDRESS}

    def node(self, name: str) -> str:
        return f"{self.number}-{name}"


class FakeHost:
    """A machine with a Docker engine that keeps what is put there."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name, self.cluster = name, cluster
        self.images = {"busybox:1": "sha256:busy"}
        self.networks = {"bridge": "172.17.0.0/16"}
        self.overlays: set[str] = set()  # that it kept of a swarm that it left
        self.volumes = {"theirs"}
        self.containers: dict[str, dict[str, Any]] = {}
        self.silent = self.locked = self.leaderless = False
        self.node = FakeNode(self.run, self.api)

    def task(self, service: str, *volumes: str) -> None:
        """Have a container of a service, with volumes."""
        name = f"{service}.1"
        labels = {
            "com.docker.swarm.task.id": name,
            "com.docker.swarm.service.name": service,
        }
        mounts = [{"Type": "volume", "Name": volume} for volume in volumes]
        self.containers[name] = {"Id": name, "Labels": labels, "Mounts": mounts}
        self.volumes |= set(volumes)

    def state(self) -> dict[str, Any]:
        return {
            "images": dict(self.images),
            "networks": dict(self.networks) | dict.fromkeys(self.overlays, ""),
            "volumes": set(self.volumes),
            "containers": set(self.containers),
            "member": self.cluster.members.get(self.name),
        }

    def reach(self, path: str) -> socket.socket:
        if self.silent:
            raise ConnectionRefusedError(f"{self.name} is off")
        return self.node.reach(path)

    def run(self, argv: list[str]) -> str | dict[str, Any]:
        if argv[0] == "sh" and "docker import" in argv[2]:
            self.images["node-test:latest"] = f"sha256:app-{argv[-1]}"
        return "1-ingress\ningress_sbox\n" if argv[0] == "ls" else "\n"

    def api(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        what, _, query = unquote(path.removeprefix("/v1.41/")).partition("?")
        asked = json.loads(body) if body else {}
        if method == "GET":
            return self.told(what, parse_qs(query))
        kind, _, rest = what.partition("/")
        rest = rest.removeprefix("id-of-")
        if method == "DELETE":
            return self.removed(kind, rest)
        if what == "containers/create":
            name = parse_qs(query)["name"][0]
            self.containers[name] = {
                "Id": name,
                "Created": CAME,
                "Labels": asked["Labels"],
                "Mounts": [],
                "Host": asked["HostConfig"],
            }
            return as_json({"Id": name}, 201)
        if kind == "swarm":
            self.change_membership(rest, asked)
        if rest.endswith("/tag"):
            tag = f"{parse_qs(query)['repo'][0]}:{parse_qs(query)['tag'][0]}"
            self.images[tag] = rest.removesuffix("/tag")
        return as_json({} if kind != "swarm" else "n-alpha")

    def change_membership(self, verb: str, asked: dict[str, Any]) -> None:
        members = self.cluster.members
        if verb == "leave":
            members.pop(self.name)
            self.overlays |= set(self.cluster.overlays)  # no engine removes them after that
            for name in [
                n for n, box in self.containers.items() if "com.docker.swarm.task.id" in box["Labels"]
            ]:
                del self.containers[name]
        else:
            members[self.name] = "manager" if verb == "init" else "worker"
            self.networks["docker_gwbridge"] = "172.18.0.0/16"

    def removed(self, kind: str, name: str) -> tuple[int, str, bytes]:
        there: Any = {
            "containers": self.containers,
            "images": self.images,
            "volumes": self.volumes,
            "networks": self.cluster.overlays if name in self.cluster.overlays else self.networks,
            "services": self.cluster.services,
            "configs": self.cluster.configs,
        }[kind]
        if name not in there:
            return as_json({"message": f"no such thing: {name}"}, 404)
        mounted = [m["Name"] for box in self.containers.values() for m in box["Mounts"]]
        if kind == "volumes" and name in mounted:
            return as_json({"message": f"volume is in use: {name}"}, 409)
        if kind == "services":
            for host in self.cluster.hosts.values():
                host.containers.pop(f"{name}.1", None)
        if isinstance(there, set):
            there.remove(name)
        else:
            del there[name]
        return as_json({})

    def told(self, what: str, query: dict[str, list[str]]) -> tuple[int, str, bytes]:
        members = self.cluster.members
        if what == "_ping":
            return 200, "text/plain", b"OK"
        if what == "services" and members.get(self.name) == "worker":
            return as_json({"message": "This node is not a swarm manager."}, 503)
        if self.leaderless and what in ("nodes", "services"):
            return as_json({"message": "The swarm does not have a leader."}, 503)
        if what.startswith("images/") and what.endswith("/json") and what != "images/json":
            tag = what.removeprefix("images/").removesuffix("/json")
            tag = tag if ":" in tag else f"{tag}:latest"
            if tag not in self.images:
                return as_json({"message": "no such image"}, 404)
            env = [f"NODE={self.images[tag].removeprefix('sha256:app-')}"]
            config = {"Entrypoint": tools._ENTRYPOINT, "Env": env}
            return as_json({"Id": self.images[tag], "Config": config})
        if what.startswith("networks/"):
            name = what.removeprefix("networks/")
            if name not in self.networks:
                return as_json({"message": "no such network"}, 404)
            return as_json({"Id": name, "Name": name, "Containers": {}})
        return as_json(self.listed(what, query, members))

    def listed(self, what: str, query: dict[str, list[str]], members: dict[str, str]) -> object:
        wanted = json.loads(query.get("filters", ["{}"])[0]).get("label") or [""]
        key, _, value = str(next(iter(wanted))).partition("=")
        if what == "info":
            return self.info(members)
        if what == "version":
            return {"Version": "26.1.5"}
        if what == "volumes":
            return {"Volumes": [{"Name": name} for name in self.volumes]}
        if what == "images/json":
            return [{"Id": identity, "RepoTags": [tag]} for tag, identity in self.images.items()]
        if what == "networks":
            local = [
                {
                    "Id": n,
                    "Name": n,
                    "Scope": "local",
                    "Labels": {},
                    "IPAM": {"Config": [{"Subnet": net}]},
                }
                for n, net in self.networks.items()
            ]
            overlays = [
                {"Id": n, "Name": n, "Scope": "swarm", "Labels": labels, "IPAM": None}
                for n, labels in (
                    self.cluster.overlays if self.name in members else dict.fromkeys(self.overlays)
                ).items()
            ]
            return [row for row in [*local, *overlays] if not key or key in str(row["Labels"])]
        if what == "containers/json":
            return [
                box
                for box in self.containers.values()
                if key in box["Labels"] and value in ("", box["Labels"][key])
            ]
        if what == "services":
            return [
                {
                    "ID": f"id-of-{name}",
                    "CreatedAt": f"2026-11-30T0{1 if name in self.cluster.younger else 0}:30:00.5Z",
                    "Spec": {"Name": name, "Labels": labels},
                }
                for name, labels in self.cluster.services.items()
            ]
        if what == "configs":
            return [{"ID": name, "Spec": {"Name": name}} for name in self.cluster.configs]
        if what == "nodes":
            return [
                {
                    "ID": self.cluster.node(name),
                    "Description": {"Hostname": name},
                    "Spec": {"Role": role},
                    "Status": {"State": "ready"},
                }
                for name, role in members.items()
            ]
        return {"JoinTokens": {"Worker": "w", "Manager": "m"}}

    def info(self, members: dict[str, str]) -> dict[str, Any]:
        managers = [
            {"NodeID": self.cluster.node(name)} for name, role in members.items() if role == "manager"
        ]
        role = members.get(self.name)
        inside = "locked" if self.locked else "active"
        return {
            "Name": self.name,
            "ServerVersion": "26.1.5",
            "OSType": "linux",
            "SystemTime": "2026-11-30T01:00:00.123456789Z",
            "Swarm": {
                "LocalNodeState": inside if role else "inactive",
                "NodeID": self.cluster.node(self.name) if role and not self.locked else "",
                "ControlAvailable": role == "manager",
                "RemoteManagers": managers if role else None,
            },
        }


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    """Three machines on which nothing is the matter; what is looked at there is of `test_preflight`."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")  # nobody is there
    found = Cluster()
    by_url = {f"unix:///{name}": host for name, host in found.hosts.items()}
    monkeypatch.setattr(Endpoint, "dial", lambda self: by_url[self.url].reach(DAEMON))

    def through_exec(client: Any, container: str, path: str) -> socket.socket:
        name = client.info()["Name"]
        assert container in found.hosts[name].containers
        return found.hosts[name].reach(path)

    def ensure(client: Any, docker: str, stop: threading.Event) -> None:
        found.hosts[client.info()["Name"]].images.setdefault(tools.image(docker), "sha256:tools")

    monkeypatch.setattr(tools, "through_exec", through_exec)
    monkeypatch.setattr(tools, "ensure", ensure)
    monkeypatch.setattr(wire, "look", lambda link, _: LOOKS[link.node])
    monkeypatch.setattr(wire, "cross", lambda *_: wires())
    monkeypatch.setattr(leaving, "_PATIENCE_S", 2.0)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yaml"
    path.write_text(FILE)
    return path


def up(file: Path, lab: str = "mine") -> swarm.UpResult:
    return swarm.up(lab, hosts=file, progress=Progress())


def states(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {name: host.state() for name, host in cluster.hosts.items()}


def test_a_lab_comes_and_leaves_each_machine_as_it_was_found(cluster: Cluster, file: Path) -> None:
    cluster.hosts["beta"].images[TOOLS] = "sha256:tools"  # it was there before, and stays
    cluster.hosts["gamma"].images["node-test:latest"] = "sha256:app-node3"
    before = states(cluster)
    made = up(file)
    assert (made.restored, made.lab.engine.kind, made.lab.docker) == (False, "hosts", "26.1")
    nodes = made.lab.nodes
    assert list(nodes) == ["node1", "node2", "node3"]
    assert [(node.hostname, node.address) for node in nodes.values()] == list(ADDRESS.items())
    assert cluster.members == {"alpha": "manager", "beta": "worker", "gamma": "worker"}
    apps = [host.images["node-test:latest"] for host in cluster.hosts.values()]
    assert apps == [f"sha256:app-{name}" for name in nodes]
    box = cluster.hosts["alpha"].containers["labkit-mine-tools"]
    assert (box["Host"]["NetworkMode"], box["Host"]["PidMode"]) == ("host", "host")
    assert box["Labels"] == {"labkit.hosts": "mine"}
    assert "/var/lib/docker" in box["Host"]["Tmpfs"]
    made.lab.close()

    found = swarm.get("mine")
    assert not found.shared
    assert found.engine.environment == {"DOCKER_HOST": "unix:///alpha"}
    assert [row["state"] for row in found.status()["nodes"]] == ["ready"] * 3
    found.close()
    assert engines.labs() == ["mine"]
    assert engines.kind_of("mine") == "hosts"
    cluster.services["hello-a"], cluster.overlays["by-hand"] = {}, {}
    # A task of a lab, its volume, and a volume that somebody made meanwhile.
    cluster.hosts["beta"].task("hello-a", "data")
    cluster.hosts["beta"].volumes.add("new")
    assert swarm.down("mine")
    cluster.hosts["beta"].volumes.remove("new")
    assert states(cluster) == before
    assert engines.labs() == []
    assert not swarm.down("mine")


def test_a_swarm_that_runs_is_used_and_stays(cluster: Cluster, file: Path) -> None:
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    for host in cluster.hosts.values():
        host.networks["docker_gwbridge"] = "172.18.0.0/16"
    cluster.services["shop"] = {}
    cluster.overlays["shop-net"] = {}
    before = states(cluster)
    made = up(file)
    assert made.lab.shared
    cluster.services["hello-a"] = {MADE_BY: "docker service create"}
    cluster.overlays["my-overlay"] = {MADE_BY: "docker network create"}
    cluster.configs = {"theirs", "labkit-theirs", "labkit-fault"}
    with pytest.raises(UsageError, match="labkit did not make shop"):
        made.lab.remove_service("shop")
    with pytest.raises(NotOnHosts, match="the swarm ran before labkit came"):
        made.lab.node("beta").run("docker swarm leave")
    made.lab.close()
    assert swarm.down("mine")
    assert states(cluster) == before
    assert set(cluster.services) == {"shop"}
    assert set(cluster.overlays) == {"shop-net"}
    assert cluster.configs == {"theirs", "labkit-theirs"}


def test_the_volumes_of_a_labs_tasks_go_and_no_others(
    cluster: Cluster, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    up(file).lab.close()
    beta = cluster.hosts["beta"]
    cluster.services.update({"shop": {}, "hello-a": {MADE_BY: "docker service create"}})
    beta.task("hello-a", "data", "theirs", "both")
    beta.task("shop", "of-the-shop", "both")
    with caplog.at_level("WARNING", "labkit"):
        assert swarm.down("mine")
    assert beta.volumes == {"theirs", "of-the-shop", "both"}
    assert "the volume both stays on beta" in caplog.text


@pytest.mark.parametrize("shared", [False, True])
def test_a_down_that_was_killed_still_knows_the_volumes(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    if shared:
        cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    before = states(cluster)
    up(file).lab.close()
    cluster.services["hello-a"] = {MADE_BY: "docker service create"}
    cluster.hosts["beta"].task("hello-a", "data")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        kill.setattr(leaving, "until", killed)
        with pytest.raises(KeyboardInterrupt):
            swarm.down("mine")
    assert not cluster.services
    assert swarm.down("mine")
    assert states(cluster) == before


RULE = ["INPUT", "-p", "udp", "--dport", "4789", "-j", "DROP"]
BROKEN = [
    {"node": "gamma", "place": "gamma", "netns": None, "argv": ["iptables", "-D", *RULE]},
    {"node": "gamma", "place": "x", "netns": "/run/docker/netns/lb_x", "argv": ["ipvsadm", "-C"]},
    {"node": "gamma", "place": "front.1", "netns": "/proc/4711/ns/net", "argv": ["ip", "x"]},
]


def broken(cluster: Cluster, file: Path) -> list[tuple[str, set[str]]]:
    """Have a lab with a fault on gamma; returns what will be run there, with the services of then."""
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    lab = up(file).lab
    assert lab.engine.machines
    lab.engine.machines.broken(BROKEN)
    lab.close()
    cluster.services["front"] = {MADE_BY: "docker service create"}
    cluster.configs.add("labkit-fault")
    ran: list[tuple[str, set[str]]] = []

    def run(argv: list[str]) -> dict[str, Any]:
        ran.append((argv[0], set(cluster.services)))
        return {"code": 1, "stderr": "Bad rule"}  # as where a person mended by hand

    cluster.hosts["gamma"].node.run = run
    return ran


def test_a_fault_is_undone_before_anything_is_removed(cluster: Cluster, file: Path) -> None:
    before = states(cluster)
    ran = broken(cluster, file)
    assert swarm.down("mine")
    assert ran == [("iptables", {"front"}), ("ipvsadm", {"front"})]
    assert not cluster.configs
    cluster.members.clear()
    assert states(cluster) == before


def test_a_fault_that_cannot_be_undone_now_is_told_and_undone_later(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = broken(cluster, file)
    gamma = cluster.hosts["gamma"]
    gamma.silent = True
    with pytest.raises(EngineError, match="gamma is not as it was found") as caught:
        swarm.down("mine")
    assert f"what `iptables -D {' '.join(RULE)}` undoes, on gamma" in str(caught.value)
    assert "`nsenter --net=/run/docker/netns/lb_x ipvsadm -C`" in str(caught.value)
    gamma.silent = False

    def no_agent(client: Any, container: str, path: str) -> socket.socket:
        raise ConnectionRefusedError("the agent has ended")

    with monkeypatch.context() as ended:
        ended.setattr(tools, "through_exec", no_agent)
        with pytest.raises(EngineError, match="the agent has ended"):
            swarm.down("mine")
    assert gamma.containers  # what undoes it runs there
    assert swarm.down("mine")
    assert [program for program, _ in ran] == ["iptables", "ipvsadm"]
    assert not gamma.containers


def test_a_fault_whose_tools_are_gone_is_told(
    cluster: Cluster, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ran = broken(cluster, file)
    cluster.hosts["gamma"].containers.clear()
    with caplog.at_level("WARNING", "labkit"):
        assert swarm.down("mine")
    assert not ran
    assert f"what undoes the fault there: iptables -D {' '.join(RULE)}; nsenter" in caplog.text


def test_a_fault_that_was_mended_is_not_undone_again(cluster: Cluster, file: Path) -> None:
    ran = broken(cluster, file)
    found = swarm.get("mine")
    assert found.engine.machines
    found.engine.machines.broken([])
    found.close()
    assert swarm.down("mine")
    assert not ran


def test_a_lab_keeps_only_what_a_lab_made(cluster: Cluster, file: Path) -> None:
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    made = up(file)
    cluster.services.update(shop={}, old={MADE_BY: "docker service create"})
    assert made.lab.keep_only() == ["old"] or set(cluster.services) == {"shop"}
    made.lab.close()
    swarm.down("mine")


def test_what_would_cut_a_machine_off_is_not_run(cluster: Cluster, file: Path) -> None:
    made = up(file)
    beta = made.lab.node("beta")
    with pytest.raises(NotOnHosts, match="ip link set eth0 down` is not run on beta") as caught:
        beta.run("ip link set eth0 down")
    assert "--engine auto" in caught.value.hint
    assert beta.run("ip link show").code == 0
    made.lab.close()
    with pytest.raises(EngineError, match="nothing else can be kept"):
        engines.checkpoints("mine")
    swarm.down("mine")


@pytest.mark.parametrize(
    ("line", "shared", "refused"),
    [
        ("ip link set eth0 down", False, True),
        ("ip -4 address flush dev eth0", False, True),
        ("/usr/sbin/ip route del default", False, True),
        ("ip neigh flush dev eth0", False, False),
        ("ip -j address show", False, False),
        ("tc qdisc add dev eth0 root netem loss 10%", False, True),
        ("tc qdisc show dev eth0", False, False),
        ("iptables -F INPUT", False, True),
        ("iptables -w 10 -I INPUT -p udp --dport 4789 -j DROP", False, False),
        ("systemctl stop docker", False, True),
        ("systemctl status cron", False, False),
        ("reboot", False, True),
        ("pkill dockerd", False, True),
        ("kill -9 4711", False, False),
        ("docker system prune -f", False, True),
        ("docker swarm leave", False, False),
        ("docker swarm leave", True, True),
        ("docker swarm update --dispatcher-heartbeat 5s", True, True),
        ("docker swarm join-token worker", True, False),
        ("docker swarm join-token --rotate worker", True, True),
        ("docker node rm --force x", True, True),
        ("docker node update --availability drain x", True, True),
        ("docker node update --availability drain x", False, False),
        ("docker node promote x", True, True),
        ("docker network create --driver overlay --ingress mesh", True, True),
        ("docker network create --driver overlay mine", True, False),
        ("docker node ls", True, False),
        ("docker service ls", True, False),
    ],
)
def test_the_guard(line: str, shared: bool, refused: bool) -> None:
    assert bool(guard.refusal(tuple(line.split()), shared=shared)) is refused


@pytest.fixture
def shared(cluster: Cluster, file: Path) -> Iterator[swarm.Lab]:
    """A lab in a swarm that ran before, with its owner's things, a lab's, and what was typed since."""
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    cluster.services.update(
        {
            "shop": {},
            "nginx": {},
            "zoo_web": {"com.docker.stack.namespace": "zoo"},
            "hello-a": {MADE_BY: "docker service create"},
            "typed": {},
            "mine_web": {"com.docker.stack.namespace": "mine"},
        }
    )
    cluster.younger = {"typed", "mine_web"}
    cluster.overlays.update({"ingress": {}, "shop-net": {}, "my-overlay": {MADE_BY: "docker network"}})
    made = up(file).lab
    yield made
    made.close()
    cluster.services, cluster.overlays = {}, {}
    swarm.down("mine")


@pytest.mark.parametrize(
    ("line", "theirs"),
    [
        ("docker service rm shop", "shop"),
        ("docker service rm hello-a nginx shop", "nginx, shop"),
        ("docker service rm id-of-shop", "shop"),
        ("docker service scale --detach hello-a=2 shop=0", "shop"),
        ("docker service update --force shop", "shop"),
        ("docker service rollback shop", "shop"),
        ("docker network rm shop-net", "shop-net"),
        ("docker network disconnect shop-net box", "shop-net"),
        ("docker stack rm mine zoo", "zoo_web"),
        ("docker stack deploy -c stack.yaml zoo", "zoo_web"),
        ("docker service rm hello-a", ""),
        ("docker service scale --detach typed=2", ""),
        ("docker service update --label-add a=b --image node-test hello-a", ""),
        ("docker service logs shop", ""),
        ("docker network rm my-overlay", ""),
        ("docker network inspect shop-net", ""),
        ("docker stack deploy -c stack.yaml mine", ""),
        ("docker stack deploy -c stack.yaml other", ""),
        ("docker stack rm mine", ""),
        ("docker stack ps zoo", ""),
    ],
)
def test_what_its_owner_made_in_a_swarm_stays(line: str, theirs: str, shared: swarm.Lab) -> None:
    if not theirs:
        assert shared.manager.run(line).code == 0
        return
    told = f"labkit did not make {theirs}, and the swarm ran before this lab"
    with pytest.raises(NotOnHosts, match=told) as caught:
        shared.manager.run(line)
    assert "--engine auto" in caught.value.hint


def test_in_a_swarm_of_labkits_all_is_the_labs(cluster: Cluster, file: Path) -> None:
    made = up(file).lab
    cluster.services["shop"] = {}
    for line in ("docker service rm shop", "docker node update --availability drain gamma"):
        assert made.manager.run(line).code == 0
    made.close()
    swarm.down("mine")


def test_a_worker_says_itself_that_it_is_no_manager(shared: swarm.Lab) -> None:
    assert shared.node("beta").run("docker service rm shop").code == 0  # a fake refuses nothing


def test_no_node_of_somebodys_swarm_is_drained(cluster: Cluster, shared: swarm.Lab) -> None:
    with pytest.raises(NotOnHosts, match="docker node update --availability drain gamma"):
        swarms.leave_and_rejoin(shared, shared.node("gamma"), service="hello-a", port=5000)
    ran = [argv for host in cluster.hosts.values() for argv in host.node.commands]
    assert not any(argv[0] == "docker" for argv in ran)
    with pytest.raises(NotOnHosts, match="availability active gamma"):
        shared.take_in(shared.node("gamma"))


def test_the_routing_mesh_of_somebodys_swarm_is_not_broken(shared: swarm.Lab) -> None:
    bench: Any = SimpleNamespace(lab=shared, nodes=tuple(shared.nodes.values()))
    with pytest.raises(NotOnHosts, match="labkit did not make ingress"):
        faults.of("ingress-removed").steps(bench)
    left = {fault.id for fault in faults.of_level(1, shared=True)}
    assert {fault.id for fault in faults.of_level(1)} - left == {"ingress-removed"}


def test_machines_that_are_not_fit_are_refused_and_left(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = states(cluster)
    monkeypatch.setattr(wire, "cross", lambda *_: wires(("alpha", "beta", "4789/udp", "in")))
    with pytest.raises(NotFit, match="alpha → beta: 4789/udp"):
        up(file)
    assert states(cluster) == before
    assert engines.labs() == []


def test_a_look_leaves_nothing(cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = states(cluster)
    assert all(row.ok for row in engines.preflight(file, "26.1", Progress()))
    assert states(cluster) == before
    # One that was killed has left its container, and the next look knows what was there before.
    with monkeypatch.context() as killed:
        killed.setattr(leaving, "leave", lambda _: None)
        engines.preflight(file, "26.1", Progress())
    assert states(cluster) != before
    assert engines.labs() == [record.LOOK]
    engines.preflight(file, "26.1", Progress())
    assert states(cluster) == before
    assert engines.labs() == []


def test_a_swarm_is_looked_at_and_left(cluster: Cluster, file: Path) -> None:
    with pytest.raises(UsageError, match="in no swarm"), swarm.look_at(file, progress=Progress()):
        pass
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    before = states(cluster)
    with swarm.look_at(file, progress=Progress()) as found:
        assert list(found.nodes) == ["alpha", "beta", "gamma"]
        assert states(cluster) != before
        assert engines.labs() == [record.LOOK]
        with pytest.raises(NotOnHosts, match="stays as it is"):
            found.node("gamma").run("docker swarm leave")
    assert states(cluster) == before
    assert engines.labs() == []


def test_a_look_takes_nothing_from_a_lab(cluster: Cluster, file: Path) -> None:
    up(file).lab.close()
    cluster.services["hello-a"] = {MADE_BY: "docker service create"}
    cluster.overlays["my-overlay"] = {MADE_BY: "docker network create"}
    before, members = states(cluster), dict(cluster.members)
    engines.preflight(file, "26.1", Progress())
    with swarm.look_at(file, progress=Progress()) as found:
        assert list(found.nodes) == list(ADDRESS)
    assert states(cluster) == before
    assert (set(cluster.services), set(cluster.overlays)) == ({"hello-a"}, {"my-overlay"})
    assert cluster.members == members
    assert engines.labs() == ["mine"]
    assert swarm.down("mine")


def test_no_lab_is_called_as_a_look(cluster: Cluster, file: Path) -> None:
    with pytest.raises(UsageError, match="'look' is what labkit calls its own looks"):
        up(file, record.LOOK)


def test_a_look_at_a_lab_may_name_its_machines_in_another_order(cluster: Cluster, file: Path) -> None:
    up(file).lab.close()
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first, rest[0], rest[2], rest[1], ""]))
    with engines.looked_at(file, "26.1", Progress()) as connection:
        assert connection.machines
        assert [seat.name for seat in connection.machines.seats()] == ["alpha", "gamma", "beta"]
    swarm.down("mine")


@pytest.mark.parametrize(
    ("hostnames", "names"),
    [
        (["alpha", "beta", "gamma"], ["node1", "node2", "node3"]),
        (["node3", "node1", "node2"], ["node3", "node1", "node2"]),
        (["alpha", "node1", "node9"], ["node2", "node1", "node3"]),
        (["node2"], ["node1"]),
    ],
)
def test_what_a_lab_calls_machines(hostnames: list[str], names: list[str]) -> None:
    assert lab_names(hostnames) == dict(zip(hostnames, names, strict=True))


def test_a_look_leaves_a_swarm_that_was_made_meanwhile(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(link: Any, address: str) -> Any:
        cluster.members.update(alpha="manager", beta="worker", gamma="worker")
        return LOOKS[link.node]

    monkeypatch.setattr(wire, "look", looked)
    engines.preflight(file, "26.1", Progress())
    assert set(cluster.members) == set(ADDRESS)


def test_nothing_is_put_on_machines_of_two_minds(cluster: Cluster, file: Path) -> None:
    cluster.members["alpha"] = "manager"
    before = states(cluster)
    rows = engines.preflight(file, "26.1", Progress())
    assert {row.source for row in rows if not row.ok} == {"beta", "gamma"}
    with pytest.raises(NotFit, match="in none, and alpha in one"):
        up(file)
    assert states(cluster) == before


def test_another_image_with_the_apps_name_is_refused(cluster: Cluster, file: Path) -> None:
    cluster.hosts["beta"].images["node-test:latest"] = "sha256:app-elsewhere"
    with pytest.raises(NotFit, match="beta: image: it has an image node-test:latest"):
        up(file)


def test_a_lab_that_is_there_already_is_named(cluster: Cluster, file: Path) -> None:
    up(file).lab.close()
    with pytest.raises(swarm.lifecycle.AlreadyUp):
        up(file)
    with pytest.raises(NotFit, match="lab mine is there already"):
        up(file, "other")
    assert set(cluster.members) == set(ADDRESS)  # the refusal took nothing of the first
    assert swarm.reset("mine", progress=Progress()).lab.nodes
    assert swarm.down("mine")
    assert not cluster.members


def test_a_machine_that_does_not_answer_is_named_and_finished_later(
    cluster: Cluster, file: Path
) -> None:
    before = states(cluster)
    up(file).lab.close()
    cluster.hosts["beta"].silent = True
    with pytest.raises(EngineError, match=r"beta: no Docker engine answers at unix:///beta: .*is off"):
        swarm.get("mine")
    with pytest.raises(EngineError, match="beta is not as it was found") as caught:
        swarm.down("mine")
    told = str(caught.value)
    for part in ("labkit-mine-tools", TOOLS, "node-test:latest", "swarm leave --force"):
        assert part in told
    assert "labkit down --lab mine" in caught.value.hint
    left = states(cluster)
    assert {name: left[name] for name in ("alpha", "gamma")} == {
        name: before[name] for name in ("alpha", "gamma")
    }
    cluster.hosts["beta"].silent = False
    assert swarm.down("mine")
    assert states(cluster) == before


def test_an_overlay_network_that_stays_is_told(cluster: Cluster, file: Path) -> None:
    before = states(cluster)
    up(file).lab.close()
    cluster.overlays["my-overlay"] = {}
    cluster.members["alpha"] = "worker"  # nobody is there who could remove it before they leave
    with pytest.raises(EngineError, match=r"alpha is not as it was found: .*my-overlay") as caught:
        swarm.down("mine")
    assert "restart" in str(caught.value)
    for host in cluster.hosts.values():
        host.overlays.clear()
    assert swarm.down("mine")
    assert states(cluster) == before


@pytest.mark.parametrize("silent", ["alpha", "beta"])
def test_of_a_swarm_that_stays_too_the_rest_is_done_later(
    cluster: Cluster, file: Path, silent: str
) -> None:
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    before = states(cluster)
    up(file).lab.close()
    cluster.services["hello-a"] = {MADE_BY: "docker service create"}
    cluster.hosts[silent].silent = True
    with pytest.raises(EngineError, match=f"{silent} is not as it was found"):
        swarm.down("mine")
    assert set(cluster.services) == ({"hello-a"} if silent == "alpha" else set())
    cluster.hosts[silent].silent = False
    assert swarm.down("mine")
    assert states(cluster) == before
    assert not cluster.services


def everybody_in(cluster: Cluster) -> None:
    """Make the machines a swarm that labkit has not made, with a shop on it."""
    cluster.number += 1
    cluster.members = {"alpha": "manager", "beta": "worker", "gamma": "worker"}
    cluster.services, cluster.overlays = {"shop": {}}, {"shop-net": {}}


def test_a_machine_that_is_in_another_swarm_stays_there(
    cluster: Cluster, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up(file).lab.close()
    everybody_in(cluster)
    with caplog.at_level("WARNING", "labkit"):
        assert swarm.down("mine")
    assert (set(cluster.members), set(cluster.services)) == (set(ADDRESS), {"shop"})
    assert "alpha is in a swarm that labkit has not written down as its own" in caplog.text
    assert not any(host.containers for host in cluster.hosts.values())


def test_what_a_failed_up_could_not_remove_is_told_and_takes_no_swarm(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cross(*_: Any) -> Any:
        cluster.hosts["beta"].silent = True
        raise EngineError("the wire broke")

    monkeypatch.setattr(wire, "cross", cross)
    with pytest.raises(EngineError, match="the wire broke") as caught:
        up(file)
    (note,) = caught.value.__notes__
    assert "What was made of lab 'mine' could not all be removed: beta is not as it was" in note
    assert "Next step: when it answers again: labkit down --lab mine" in note
    with pytest.raises(UnknownNameError, match="no running lab is called 'mine'"):
        swarm.get("mine")
    with pytest.raises(EngineError, match=r"^beta is not as it was found"):
        up(file)
    cluster.hosts["beta"].silent = False
    everybody_in(cluster)
    assert swarm.down("mine")
    assert (set(cluster.members), set(cluster.services)) == (set(ADDRESS), {"shop"})
    assert set(cluster.overlays) == {"shop-net"}


@pytest.mark.parametrize("noted", [set(ADDRESS), {"alpha"}])
def test_the_swarm_of_an_up_that_was_killed_is_known(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch, noted: set[str]
) -> None:
    """Who joined and is not written down yet is known by the manager."""
    before, note = states(cluster), record.note_node

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as kill:
        kill.setattr(
            record, "note_node", lambda lab, host, node: host in noted and note(lab, host, node)
        )
        kill.setattr(membership, "wait_for_members", killed)
        kill.setattr(leaving, "leave", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            up(file)
    assert set(cluster.members) == set(ADDRESS)
    kept = record.read("mine")
    assert kept
    assert {host.node for host in kept.hosts if host.node} == {f"1-{name}" for name in noted}
    assert swarm.down("mine")
    assert states(cluster) == before


@pytest.mark.parametrize("shared", [False, True])
def test_roles_may_change_meanwhile(cluster: Cluster, file: Path, shared: bool) -> None:
    if shared:
        cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    before = states(cluster)
    up(file).lab.close()
    cluster.members.update(alpha="worker", gamma="manager")
    cluster.services["hello-a"] = {MADE_BY: "docker service create"}
    assert swarm.down("mine")
    assert not cluster.services
    cluster.members.update({"alpha": "manager", "gamma": "worker"} if shared else {})
    assert states(cluster) == before


@pytest.mark.parametrize("gone", [set(ADDRESS), {"alpha"}])
def test_a_swarm_that_its_owner_dissolved_is_done_with(
    cluster: Cluster, file: Path, gone: set[str]
) -> None:
    cluster.members.update(alpha="manager", beta="worker", gamma="worker")
    up(file).lab.close()
    for name in gone:
        del cluster.members[name]
    assert swarm.down("mine")
    assert set(cluster.members) == set(ADDRESS) - gone
    assert not any(host.containers for host in cluster.hosts.values())


def test_a_manager_that_has_lost_the_others_leaves(cluster: Cluster, file: Path) -> None:
    before = states(cluster)
    up(file).lab.close()
    cluster.members["beta"] = "manager"
    beta = cluster.hosts["beta"]
    beta.silent = True
    with pytest.raises(EngineError, match="beta is not as it was found"):
        swarm.down("mine")
    beta.silent, beta.leaderless = False, True
    assert swarm.down("mine")
    assert states(cluster) == before


def test_an_up_first_finishes_a_down(cluster: Cluster, file: Path) -> None:
    up(file).lab.close()
    cluster.hosts["beta"].silent = True
    with pytest.raises(EngineError, match="beta is not as it was found"):
        swarm.down("mine")
    cluster.hosts["beta"].silent = False
    up(file).lab.close()
    assert set(cluster.members) == set(ADDRESS)
    assert swarm.down("mine")


def test_a_locked_swarm_is_left_when_it_is_unlocked(cluster: Cluster, file: Path) -> None:
    before = states(cluster)
    up(file).lab.close()
    cluster.hosts["alpha"].locked = True
    with pytest.raises(EngineError, match=r"alpha is not as it was found: .* swarm is 'locked'"):
        swarm.down("mine")
    assert set(cluster.members) == {"alpha"}
    cluster.hosts["alpha"].locked = False
    assert swarm.down("mine")
    assert states(cluster) == before


def press_ctrl_c() -> None:
    main = threading.main_thread().ident
    assert main
    signal.pthread_kill(main, signal.SIGINT)


def test_nothing_is_put_on_a_machine_after_ctrl_c(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, ensure = states(cluster), tools.ensure
    told: list[bool] = []

    def slowly(client: Any, docker: str, stop: threading.Event) -> None:
        if client.info()["Name"] == "beta":
            press_ctrl_c()
            told.append(stop.wait(5))
            time.sleep(0.5)
        ensure(client, docker, stop)

    monkeypatch.setattr(tools, "ensure", slowly)
    with pytest.raises(KeyboardInterrupt):
        up(file)
    assert told == [True]
    assert states(cluster) == before
    assert not any("containers/create" in asked for asked in cluster.hosts["beta"].node.requests)
    assert engines.labs() == []


def test_what_is_sent_to_a_machine_stops_between_two_pieces() -> None:
    stop = threading.Event()
    pieces = tools.until_stopped([b"one", b"two"], stop)
    assert next(pieces) == b"one"
    stop.set()
    with pytest.raises(EngineError, match="stopped"):
        next(pieces)


def test_who_joins_while_ctrl_c_is_pressed_leaves_again(cluster: Cluster, file: Path) -> None:
    beta, before = cluster.hosts["beta"], states(cluster)
    answer, joined = beta.api, threading.Event()

    def slowly(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.endswith("/swarm/join"):
            press_ctrl_c()
            time.sleep(0.5)
            asked = answer(method, path, body)
            joined.set()
            return asked
        return answer(method, path, body)

    beta.node.api = slowly
    with pytest.raises(KeyboardInterrupt):
        up(file)
    assert joined.wait(5)
    assert states(cluster) == before


@pytest.mark.parametrize("trying", ["pending", "error"])
def test_who_cannot_join_in_time_does_not_go_on_trying(
    cluster: Cluster, file: Path, trying: str
) -> None:
    """As Docker does it: the request fails after 20 s, and the engine tries on."""
    gamma, before = cluster.hosts["gamma"], states(cluster)
    answer, told = gamma.api, "Timeout was reached before node joined."
    info = gamma.info
    left: list[str] = []

    def api(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.endswith("/swarm/join"):
            left.append(trying)
            return as_json({"message": told}, 503)
        if "/swarm/leave" in path:
            left.clear()
            return as_json({})
        return answer(method, path, body)

    def pending(members: dict[str, str]) -> dict[str, Any]:
        row = info(members)
        row["Swarm"]["LocalNodeState"] = left[0] if left else "inactive"
        return row

    gamma.node.api, gamma.info = api, pending  # type: ignore[method-assign]
    with pytest.raises(SwarmError, match="Timeout was reached"):
        up(file)
    assert not left
    assert states(cluster) == before


def test_an_image_that_labkit_replaced_has_its_name_again(cluster: Cluster, file: Path) -> None:
    alpha = cluster.hosts["alpha"]
    alpha.images[TOOLS] = "sha256:old"
    up(file).lab.close()
    alpha.images[TOOLS] = "sha256:tools"  # what `tools.start` does to one that is out of date
    swarm.down("mine")
    assert alpha.images[TOOLS] == "sha256:old"


def test_a_machine_whose_run_is_not_shared_is_told_what_to_do(
    cluster: Cluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beta, before = cluster.hosts["beta"], states(cluster)
    answer = beta.api

    def refuse(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if path.endswith("/start"):
            told = "path /run/docker is mounted on /run but it is not a shared or slave mount"
            return as_json({"message": told}, 500)
        return answer(method, path, body)

    monkeypatch.setattr(beta.node, "api", refuse)
    with pytest.raises(EngineError, match=r"beta answered 500: .* not a shared or slave") as caught:
        up(file)
    assert "mount --make-rshared /" in caught.value.hint
    assert states(cluster) == before


def test_the_machines_own_namespace_is_no_tasks() -> None:
    lines = ["nsfs 4026532303 default", "nsfs 4026532304 68f0b8ca0fc0"]
    assert [row["name"] for row in swarms.namespaces_of(lines, {})] == ["68f0b8ca0fc0"]


def test_the_engine_wants_a_file(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="needs machines of your own") as caught:
        swarm.up("mine", engine="hosts", progress=Progress())
    assert caught.value.hint == "labkit up --hosts hosts.yaml"
    assert engines.choose("auto")[0].kind == "vm"


def test_a_record_of_another_version_is_named(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "mine.hosts.json").write_text('{"hosts": [], "lab": "mine"}')
    with pytest.raises(EngineError, match=r"mine.hosts.json was written by another version"):
        engines.hosts_of("mine")


def test_why_ssh_does_not_get_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho 'me@alpha: Permission denied (publickey).' >&2\nexit 255\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(
        EngineError, match=r"ssh://me@alpha: .*Permission denied \(publickey\)"
    ) as caught:
        endpoint.client("alpha", Endpoint("ssh://me@alpha"))
    assert "ssh -T -o BatchMode=yes" in caught.value.hint


def test_an_engine_is_reached_through_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What stands in for ssh carries the bytes to a socket, as `docker system dial-stdio` does."""
    cluster = Cluster()
    path = tmp_path / "engine.sock"
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/usr/bin/env python3\n"
        "import os, socket, sys, threading\n"
        "assert sys.argv[-3:] == ['docker', 'system', 'dial-stdio'], sys.argv\n"
        f"link = socket.socket(socket.AF_UNIX); link.connect({str(path)!r})\n"
        "def away():\n"
        "    while data := os.read(0, 65536): link.sendall(data)\n"
        "    link.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=away, daemon=True).start()\n"
        "while data := link.recv(65536): os.write(1, data)\n"
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen(8)

        def serve() -> None:
            while True:
                try:
                    link, _ = door.accept()
                except OSError:
                    return
                threading.Thread(
                    target=cluster.hosts["alpha"].node._daemon, args=(link,), daemon=True
                ).start()

        threading.Thread(target=serve, daemon=True).start()
        client = endpoint.client("alpha", Endpoint("ssh://me@alpha:2222"))
        found = facts.ask(client)
        client.close()
    assert (found.hostname, found.version, found.swarm.inside) == ("alpha", "26.1.5", False)
    assert found.networks == {"bridge": ("172.17.0.0/16",)}


def test_an_error_of_several_machines_names_all(cluster: Cluster, file: Path) -> None:
    for name in ("beta", "gamma"):
        cluster.hosts[name].silent = True
    with pytest.raises(LabkitError) as caught:
        up(file)
    assert "beta: no Docker engine" in str(caught.value)
    assert "gamma: no Docker engine" in str(caught.value)


def test_the_tools_are_the_node_less_its_engine(tmp_path: Path) -> None:
    tar = tmp_path / "node.tar"
    long = "usr/share/" + "x" * 120
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as file:
        for name, size in (
            ("./usr/bin/ip", 700),
            ("./usr/sbin/dockerd", 5000),
            (f"./{long}", 1025),
            ("./usr/bin/containerd-shim-runc-v2", 3),
            ("./usr/bin/docker", 512),
            ("./usr/libexec/docker/cli-plugins/docker-buildx", 9),
            ("./etc/empty", 0),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.pax_headers = size, {"SCHILY.xattr.user.x": name}
            file.addfile(entry, io.BytesIO(name[-1:].encode() * size))
    with tarfile.open(fileobj=io.BytesIO(b"".join(tools.without_engine(tar)))) as left:
        found = {entry.name: (entry.size, entry.pax_headers) for entry in left}
        assert set(found) == {"./usr/bin/ip", f"./{long}", "./usr/bin/docker", "./etc/empty"}
        assert found["./usr/bin/ip"] == (700, {"SCHILY.xattr.user.x": "./usr/bin/ip"})
        content = left.extractfile("./usr/bin/docker")
        assert content
        assert content.read() == b"r" * 512
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(BuildError, match="is cut short"):
        list(tools.without_engine(tar))
