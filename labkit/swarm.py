"""Makes a swarm out of nodes and gives its parts their names: lab, node, task, sandbox.

What a lab is stands in labels on the engine and in the swarm itself, nowhere else. Swarm verbs reach
only the daemons inside the lab's own nodes: the engine that carries them is never made part of a swarm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labkit import (
    __version__,
    channel,
    engines,
    evidence,
    paths,
    recording,
    topology,
    variants,
)
from labkit import replay as replays
from labkit.engines import bootstrap, checkpoints, states, vm
from labkit.errors import (
    EngineError,
    SwarmError,
    UnknownNameError,
    UsageError,
    WaitTimeout,
)
from labkit.probes import Capture, argv_of
from labkit.progress import Bars, Progress

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

APP_IMAGE = "node-test"  # compose/node/entrypoint puts it on every node
DEFAULT_DOCKER = "26.1"
DEFAULT_NODES = 3

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_READY_SECONDS = 300.0
_COMMAND_SECONDS = 120.0  # how long one command on a node may take
_MADE_BY = "labkit.made-by"  # the label that holds the command line of a service or network
_PAUSE = 0.2  # between two looks at something that has to become true
# The kernel hands packets to tcpdump in blocks, up to a second late; those still in a block are lost
# when it is interrupted.
_LAST_PACKETS = 1.5


def wait_for(
    wanted: str,
    look: Callable[[], tuple[bool, str]],
    *,
    seconds: float | None = None,
    log: Callable[[], Sequence[str]] = tuple,
    hint: str = "",
    every_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Look until it is true; raises WaitTimeout with the last state seen and the last log lines.

    `look` returns whether it is true, and a word on the state. With `every_s` there is always that
    pause between two looks. What waits for a lab takes `Lab.wait_for`, which has the lab's own clock.
    """
    seconds = _READY_SECONDS if seconds is None else seconds
    began = clock()
    while True:
        looked = clock()
        done, last = look()
        if done:
            return
        if clock() - began > seconds:
            raise WaitTimeout(wanted, seconds=seconds, last=last, log=log(), hint=hint)
        # Looking costs the nodes time, under emulation much: they get twice that for themselves.
        pause(every_s or max(_PAUSE, 2 * (clock() - looked)))


@dataclass(frozen=True)
class Place:
    """Somewhere that commands run: a node, a network namespace of it, or a task's container."""

    node: Node
    label: str
    netns: str | None = None
    pid: int | None = None

    def start(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Running:
        """Start a command and return at once; `.result()` waits for its Capture."""
        return self._submit(command, timeout=timeout)

    def run(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Capture:
        """Run a command to its end. It is a list or one line of words; there is no shell."""
        return self.start(command, timeout=timeout).result()

    @contextlib.contextmanager
    def watch(
        self,
        command: str | Sequence[str],
        *,
        ready: str = "listening on",
        linger_s: float = _LAST_PACKETS,
    ) -> Iterator[Running]:
        """Run a command, tcpdump say, while the body runs; it is interrupted at the end.

        The body begins when the command's stderr holds `ready`; the command goes on for `linger_s`
        after it.
        """
        running = self._submit(command, ready=ready)
        self.node.agent.wait_ready(running.number, _COMMAND_SECONDS)
        try:
            yield running
            self.node.link.pause(linger_s)
        finally:
            self.node.agent.stop(running.number)
            running.result()

    def _submit(
        self, command: str | Sequence[str], *, timeout: float | None = None, ready: str | None = None
    ) -> Running:
        argv = argv_of(command)
        number, answer = self.node.agent.submit(
            channel.Command(argv, self.label, self.netns, self.pid, timeout, ready)
        )
        return Running(self, argv, number, answer)


@dataclass(frozen=True)
class Running:
    """A command under way."""

    place: Place
    argv: tuple[str, ...]
    number: int
    answer: Future[dict[str, Any]]

    def result(self) -> Capture:
        """Wait for the end and return what was captured."""
        told = self.answer.result()
        return Capture(
            argv=self.argv,
            place=self.place.label,
            node=self.place.node.name,
            code=told["code"],
            stdout=told["stdout"],
            stderr=told["stderr"],
            started=datetime.fromtimestamp(told["started"], UTC),
            seconds=told["seconds"],
            docker=self.place.node.docker_version,
            timed_out=told["timed_out"],
            recorded=told.get("recorded", False),
        )


@dataclass(frozen=True)
class Node:
    """A node of the swarm: a container with a Docker engine of its own."""

    name: str
    address: str
    container: str
    docker_version: str
    link: channel.Link = field(repr=False)
    log: Callable[[], list[str]] = field(repr=False)

    @property
    def agent(self) -> channel.Runs:
        """What runs commands on the node."""
        return self.link.agent

    @property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        return self.link.docker

    @cached_property
    def place(self) -> Place:
        """The node itself as a place: its own network namespace, its own files."""
        return Place(self, self.name)

    @cached_property
    def full_version(self) -> str:
        """The version that the node's daemon says of itself, 26.1.5 say."""
        return str(self.docker.api.version()["Version"])

    def run(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Capture:
        """Run a command on the node."""
        return self.place.run(command, timeout=timeout)

    def netns(self, name: str) -> Place:
        """Return a network namespace under /run/docker/netns, by name or by its beginning.

        `ingress_sbox`, `lb_…` and `1-…` are the ones that Swarm makes. Raises UnknownNameError.
        """
        known = sorted(self.run(["ls", "/run/docker/netns"]).text.split())
        found = [n for n in known if n == name] or [n for n in known if n.startswith(name)]
        if len(found) != 1:
            kind = f"network namespace of {self.name}"
            hint = "the name begins several; write more of it" if found else ""
            raise UnknownNameError(kind, name, found or known, hint=hint)
        return Place(self, f"{self.name}/{found[0]}", netns=f"/run/docker/netns/{found[0]}")

    def overlay(self, network: str) -> Place:
        """Return the namespace where an overlay's bridge and VXLAN device live on this node.

        libnetwork names it by an epoch and the network's id: 1-<first ten characters>.
        """
        identity = self._network_id(network)
        known = self.run(["ls", "/run/docker/netns"]).text.split()
        for name in known:
            if re.fullmatch(rf"\d+-{identity[:10]}", name):
                return Place(self, f"{self.name}/{network}", netns=f"/run/docker/netns/{name}")
        raise SwarmError(
            f"{network!r} has no namespace on {self.name}: an overlay exists only where a task "
            f"uses it; there are {', '.join(known)}",
            hint="take a node that runs a task on that network",
        )

    def load_balancer(self, network: str) -> Place:
        """Return the namespace that balances an overlay's virtual IPs on this node: lb_<id>."""
        if network == "ingress":
            return self.netns("ingress_sbox")
        place = self.netns(f"lb_{self._network_id(network)[:9]}")
        return Place(self, f"{self.name}/lb_{network}", netns=place.netns)

    def _network_id(self, network: str) -> str:
        for row in self.docker.api.networks(names=[network]):
            if row["Name"] == network:
                return str(row["Id"])
        known = [row["Name"] for row in self.docker.api.networks()]
        raise UnknownNameError(f"network on {self.name}", network, known)

    def close(self) -> None:
        """Close what is kept open to this node."""
        self.link.close()


@dataclass(frozen=True)
class Task:
    """A running task of a service: one container on one node."""

    name: str
    service: str
    slot: int
    node: Node
    container: str
    pid: int
    addresses: dict[str, str]  # network -> IPv4 address

    @cached_property
    def place(self) -> Place:
        """The task's container: its tools, its rights."""
        return Place(self.node, self.name, pid=self.pid)

    @cached_property
    def sandbox(self) -> Place:
        """The task's network namespace with the node's tools and rights (iptables, tcpdump, …)."""
        return Place(self.node, f"{self.name} sandbox", netns=f"/proc/{self.pid}/ns/net")

    def run(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Capture:
        """Run a command in the task's container, as `docker exec` does."""
        return self.place.run(command, timeout=timeout)


@dataclass(frozen=True)
class Lab:
    """A running swarm and everything in it that a lab looks at."""

    name: str
    engine: engines.Engine
    docker: str
    nodes: dict[str, Node]
    learner: str | None = None
    """Whose evidence the answers come from, on the replay engine."""

    @property
    def manager(self) -> Node:
        """The first manager: the node that service commands are typed on."""
        return next(iter(self.nodes.values()))

    @property
    def heartbeat_s(self) -> int:
        """Seconds from one word of a node to its manager to the next, as `labkit up` sets it.

        A node that misses three is taken for lost and its tasks are made anew elsewhere. In emulation a
        busy node can be late by more than Swarm's own five seconds.
        """
        return 30 if self.engine.accel == "tcg" else 5

    def wait_for(
        self,
        wanted: str,
        look: Callable[[], tuple[bool, str]],
        *,
        seconds: float | None = None,
        log: Callable[[], Sequence[str]] = tuple,
        hint: str = "",
        every_s: float = 0.0,
    ) -> None:
        """Look at the lab until it is true, as `swarm.wait_for`; a replay has nothing to wait for."""
        link = self.manager.link
        wait_for(
            wanted,
            look,
            seconds=seconds,
            log=log,
            hint=hint,
            every_s=every_s,
            clock=link.now,
            pause=link.pause,
        )

    def pause(self, seconds: float) -> None:
        """Let the swarm work for so long; a replay has nothing to wait for."""
        self.manager.link.pause(seconds)

    def node(self, name: str) -> Node:
        """Return a node by name; raises UnknownNameError."""
        if name not in self.nodes:
            raise UnknownNameError("node", name, self.nodes)
        return self.nodes[name]

    def tasks(self, service: str) -> list[Task]:
        """List the running tasks of a service, by slot; raises UnknownNameError."""
        api = self.manager.docker.api
        known = [row["Spec"]["Name"] for row in api.services()]
        if service not in known:
            raise UnknownNameError("service", service, known, hint="docker service ls, on node1")
        names = {row["ID"]: row["Description"]["Hostname"] for row in api.nodes()}
        rows = api.tasks(filters={"service": service, "desired-state": "running"})
        found = []
        for row in rows:
            status = row["Status"].get("ContainerStatus") or {}
            if row["Status"]["State"] != "running" or not status.get("PID"):
                continue
            addresses = {
                item["Network"]["Spec"]["Name"]: item["Addresses"][0].split("/")[0]
                for item in row.get("NetworksAttachments") or ()
                if item.get("Addresses")
            }
            slot = row.get("Slot", 0)
            found.append(
                Task(
                    name=f"{service}.{slot}",
                    service=service,
                    slot=slot,
                    node=self.nodes[names[row["NodeID"]]],
                    container=status["ContainerID"],
                    pid=status["PID"],
                    addresses=addresses,
                )
            )
        return sorted(found, key=lambda task: task.slot)

    def task(self, name: str) -> Task:
        """Return a task by its name SERVICE.SLOT; raises UnknownNameError."""
        service, _, slot = name.rpartition(".")
        if not service or not slot.isdigit():
            raise UsageError(f"a task is named SERVICE.N, as in hello-a.1; found {name!r}")
        tasks = self.tasks(service)
        for task in tasks:
            if task.name == name:
                return task
        raise UnknownNameError("running task", name, [task.name for task in tasks])

    def network(self, name: str, *, options: Sequence[str] = ()) -> Capture:
        """Create an overlay network with the docker CLI on the manager.

        One that was made by the same command line is kept; one of the same name that was made otherwise
        is replaced, and the services on it are removed.
        """
        argv = ["docker", "network", "create", "--driver", "overlay", *options]
        made_by = " ".join([*argv, name])
        found = self.manager.docker.api.networks(names=[name])
        row = next((r for r in found if r["Name"] == name), None)
        if row and row["Labels"].get(_MADE_BY) == made_by:
            return self.manager.run(["docker", "network", "ls", "--filter", f"name=^{name}$"])
        if row:
            self._remove_network(row["Id"], name)
        return self.manager.run([*argv, "--label", f"{_MADE_BY}={made_by}", name]).check()

    def _remove_network(self, identity: str, name: str) -> None:
        for service in self.manager.docker.api.services():
            attached = service["Spec"]["TaskTemplate"].get("Networks") or ()
            if identity in {network["Target"] for network in attached}:
                self.remove_service(service["Spec"]["Name"])

        def look() -> tuple[bool, str]:
            # The last task's address is given back a moment after its container is gone.
            removed = self.manager.run(["docker", "network", "rm", name])
            return removed.ok, removed.stderr.strip()

        self.wait_for(f"the network {name} to be removed", look, seconds=60)

    def service(
        self,
        name: str,
        *,
        image: str = APP_IMAGE,
        replicas: int = 1,
        publish: str | None = None,
        networks: Iterable[str] = (),
        options: Sequence[str] = (),
        command: Sequence[str] = (),
        wait: bool = True,
    ) -> Capture:
        """Create a service with the docker CLI on the manager and wait until its tasks run.

        Without `wait` they start meanwhile, side by side with those of the next service. A service that
        was made by the same command line is kept, so that a cell may run twice; one of the same name
        that was made otherwise is replaced.
        """
        argv = ["docker", "service", "create", "--name", name, "--replicas", str(replicas)]
        if publish:
            argv += ["--publish", publish]
        for network in networks:
            argv += ["--network", network]
        argv += options
        made_by = " ".join([*argv, image, *command])
        found = self.manager.docker.api.services(filters={"name": name})
        row = next((r for r in found if r["Spec"]["Name"] == name), None)
        if row and row["Spec"].get("Labels", {}).get(_MADE_BY) != made_by:
            self.remove_service(name)
            row = None
        if row:
            capture = self.manager.run(["docker", "service", "ps", name])
        else:
            # Every node has the image, and asking a registry would only end in its time-out.
            label = ["--label", f"{_MADE_BY}={made_by}", "--detach", "--no-resolve-image"]
            capture = self.manager.run([*argv, *label, image, *command]).check()
        if wait:
            self.wait_for_tasks(name, replicas)
        return capture

    def update_service(self, name: str, *options: str) -> Capture:
        """Run `docker service update` on the manager and wait until the update is complete."""
        capture = self.manager.run(["docker", "service", "update", "--detach", *options, name]).check()

        def look() -> tuple[bool, str]:
            # Swarm empties this when it takes an update on, so an earlier one's is not seen.
            status = self.manager.docker.api.inspect_service(name).get("UpdateStatus") or {}
            state = str(status.get("State", "not begun"))
            return state == "completed", f"{state} {status.get('Message', '')}".strip()

        hint = f"labkit exec {self.manager.name} -- docker service ps --no-trunc {name}"
        self.wait_for(f"the update of {name} to complete", look, hint=hint)
        return capture

    def wait_for_tasks(self, service: str, replicas: int) -> list[Task]:
        """Wait until so many tasks of a service run, and return them."""
        tasks: list[Task] = []

        def look() -> tuple[bool, str]:
            # One request a look: while tasks start, every processor is busy with that.
            rows = self.manager.docker.api.tasks(filters={"service": service})
            states = sorted(f"{r['Status']['State']} {r['Status'].get('Err', '')}" for r in rows)
            if sum(state.startswith("running") for state in states) >= replicas:
                tasks[:] = self.tasks(service)
            return len(tasks) == replicas, f"{len(tasks)} running; all tasks: {', '.join(states)}"

        self.wait_for(
            f"{replicas} running tasks of {service}",
            look,
            hint=f"labkit exec {self.manager.name} -- docker service ps --no-trunc {service}",
        )
        return tasks

    def remove_service(self, *names: str) -> None:
        """Remove services and wait until their containers are gone."""
        self.manager.run(["docker", "service", "rm", *names])
        label = "com.docker.swarm.service.name"

        def look() -> tuple[bool, str]:
            left = [
                f"{box['Labels'][label]} on {node.name}"
                for node in self.nodes.values()
                for box in node.docker.api.containers(all=True, filters={"label": label})
                if box["Labels"][label] in names
            ]
            return not left, f"containers of {', '.join(left)}"

        self.wait_for(f"the containers of {', '.join(names)} to go", look)

    def keep_only(self, *services: str) -> list[str]:
        """Remove every other service, so that no earlier lab holds a port; returns their names.

        Networks stay: a lab that needs one says so by `network`.
        """
        found = [row["Spec"]["Name"] for row in self.manager.docker.api.services()]
        gone = sorted(name for name in found if name not in services)
        if gone:
            self.remove_service(*gone)
        return gone

    def wait_for_nodes(self) -> None:
        """Wait until the manager calls every node ready, and every engine knows all the others."""

        def look() -> tuple[bool, str]:
            ready, states = _all_ready(self)
            if not ready:
                return False, states
            peers = {
                node.name: len(node.docker.api.inspect_network("ingress").get("Peers") or ())
                for node in self.nodes.values()
            }
            told = ", ".join(f"{name} knows {count}" for name, count in peers.items())
            return set(peers.values()) == {len(self.nodes)}, told

        self.wait_for(
            "every node to be ready in the manager's eyes, and known to the others",
            look,
            seconds=120,
            log=self.manager.log,
            hint="labkit status tells what the manager says; labkit reset gives a fresh swarm",
        )

    def wait_for_answers(self, service: str, *, port: int = 3000) -> list[Task]:
        """Wait until every task of a service can be asked at every address it has; returns the tasks.

        A task runs before its app listens and before the other nodes have heard of its addresses. Asked
        is from the namespaces that balance the load, so that the tasks' own caches stay untouched.
        """
        tasks: list[Task] = []

        def look() -> tuple[bool, str]:
            # A node that is busy for too long counts as lost, and its tasks are replaced meanwhile.
            tasks[:] = self.tasks(service)
            asked: dict[tuple[str, str], list[str]] = {}
            for task in tasks:
                for network, address in task.addresses.items():
                    theirs = dict.fromkeys(t.node.name for t in tasks)
                    for node in self.nodes if network == "ingress" else theirs:
                        asked.setdefault((node, network), []).append(address)
            # One curl asks many: under emulation its start costs more than the asking.
            curl = ["curl", "-sS", "--fail-early", "-m", "5"]
            commands = [
                (
                    self.nodes[node].load_balancer(network),
                    [*curl, *(f"http://{a}:{port}" for a in told)],
                )
                for (node, network), told in asked.items()
            ]
            alone = [task.sandbox for task in tasks if not task.addresses]
            commands += [(place, [*curl, f"http://127.0.0.1:{port}"]) for place in alone]
            silent = [f"{c.place}: {c.stderr.strip()}" for c in self.run_all(commands) if not c.ok]
            return bool(tasks) and not silent, "; ".join(silent) or "no task runs"

        self.wait_for(
            f"the tasks of {service} to answer at port {port}",
            look,
            seconds=120,
            hint=f"labkit exec {self.manager.name} -- docker service ps --no-trunc {service}",
        )
        return tasks

    def wait_for_port(self, port: int) -> None:
        """Wait until a published port answers on every node."""
        argv = ["curl", "-sS", "-m", "5", f"http://127.0.0.1:{port}"]

        def look() -> tuple[bool, str]:
            asked = self.run_all([(node.place, argv) for node in self.nodes.values()])
            silent = [
                f"{capture.node}: {capture.stderr.strip()}" for capture in asked if not capture.ok
            ]
            return not silent, "; ".join(silent)

        self.wait_for(f"port {port} to answer on every node", look, seconds=120)

    def clean(self) -> list[str]:
        """Remove every service and every network that labs made; returns their names."""
        api = self.manager.docker.api
        gone = self.keep_only()
        for row in api.networks(filters={"driver": "overlay"}):
            if row["Name"] != "ingress":
                removed = self.manager.run(["docker", "network", "rm", row["Name"]])
                if removed.ok:
                    gone.append(row["Name"])
        return gone

    def take_out(self, node: Node) -> Capture:
        """Let a worker leave the swarm and have the manager forget it; its tasks begin elsewhere."""
        identity = node.docker.api.info()["Swarm"]["NodeID"]
        capture = node.run(["docker", "swarm", "leave"]).check()
        self.manager.run(["docker", "node", "rm", "--force", identity]).check()

        return capture

    def take_in(self, node: Node) -> None:
        """Make a node a worker that takes tasks, whether it has left the swarm or was drained."""
        if node.docker.api.info()["Swarm"]["LocalNodeState"] == "inactive":
            _join(self.manager, node, "Worker")
            _wait_for_members(self)
        self.manager.run(["docker", "node", "update", "--availability", "active", node.name]).check()

    def run_all(
        self, commands: Iterable[tuple[Place, str | Sequence[str]]], *, timeout: float = 60.0
    ) -> list[Capture]:
        """Run many commands side by side, in many places; the captures come in the order given."""
        started = [place.start(command, timeout=timeout) for place, command in commands]
        return [running.result() for running in started]

    def status(self) -> dict[str, Any]:
        """Return what `labkit status --json` prints."""
        return {
            "lab": self.name,
            "engine": self.engine.kind,
            "accel": self.engine.accel,
            "docker": self.manager.docker_version,
            "nodes": _node_rows(self),
        }

    def close(self) -> None:
        """Close what is kept open to the nodes; the swarm goes on."""
        for node in self.nodes.values():
            node.close()
        self.engine.client.close()


def _node_rows(lab: Lab) -> list[dict[str, Any]]:
    from docker.errors import APIError

    try:
        rows = {row["Description"]["Hostname"]: row for row in lab.manager.docker.api.nodes()}
    except APIError as problem:
        raise SwarmError(
            f"{lab.manager.name} is not a manager of a swarm: {problem.explanation}",
            hint=f"labkit down --lab {lab.name}, then labkit up --lab {lab.name}",
        ) from problem
    result = []
    for node in lab.nodes.values():
        row = rows.get(node.name)
        result.append(
            {
                "name": node.name,
                "role": row["Spec"]["Role"] if row else "none",
                "address": node.address,
                "state": row["Status"]["State"] if row else "not in the swarm",
            }
        )
    return result


def _all_ready(lab: Lab) -> tuple[bool, str]:
    rows = _node_rows(lab)
    states = ", ".join(f"{row['name']} {row['state']}" for row in rows)
    return all(row["state"] == "ready" for row in rows), states


def check_name(lab: str) -> None:
    """Refuse a lab name that cannot be part of a container's; raises UsageError."""
    if not _NAME.fullmatch(lab):
        raise UsageError(
            f"{lab!r} cannot be a lab's name: small letters, digits and hyphens, 31 at most, "
            "beginning with a letter or digit",
            hint="labkit up --lab monday",
        )


def default_lab() -> str:
    """Return the lab that is meant where none is named."""
    return os.environ.get("LABKIT_LAB", "default")


def find(lab: str) -> Lab | None:
    """Find a running lab, or None."""
    check_name(lab)
    engine = engines.find(lab)
    if engine is None:
        return None
    found = _lab(lab, engine)
    if not found.nodes:
        return None
    return found


def get(lab: str) -> Lab:
    """Return a running lab; raises UnknownNameError, EngineError where its machine has ended."""
    found = find(lab)
    if found is None:
        if (words := vm.last_words(lab)) is not None:
            raise EngineError(
                f"the embedded machine of lab {lab!r} has ended by itself; its last words:\n{words}",
                hint=f"labkit down --lab {lab}, then labkit up --lab {lab}",
            )
        hint = "labkit up" if lab == "default" else f"labkit up --lab {lab}"
        raise UnknownNameError("running lab", lab, engines.labs(), hint=hint)
    return found


def attach(lab: str | None = None, *, replay: bool | str | Path = False) -> Lab:
    """Return a running lab, or start it with a progress bar; its answers are kept as evidence.

    With `replay` there is no swarm: the answers come from evidence, of a file or (True) from the
    recording of this notebook's lab that the kit came with. LABKIT_REPLAY, a file or a directory of
    such recordings, goes before that. Raises UsageError for evidence that cannot be read.
    """
    named = replays.asked()
    if named is None and replay:
        named = evidence.of_kit() if replay is True else Path(replay)
    if named:
        return _replayed(named)
    replays.end()
    wanted = lab or default_lab()
    try:
        found = find(wanted) or up(wanted, progress=Bars()).lab
    except EngineError as problem:
        hint = f"{problem.hint}; without any swarm, with recorded answers: labkit.attach(replay=True)"
        raise EngineError(problem.args[0], hint=hint.removeprefix("; ")) from problem
    file = evidence.target()
    return _recorded(found, file) if file else found


def _recorded(lab: Lab, file: Path) -> Lab:
    """Keep evidence of all that is asked of a lab from now on."""
    try:
        writer = evidence.writer(file, variants.of().learner)
    except OSError as problem:
        print(f"No evidence is kept: {file}: {problem.strerror}. The lab itself works.")
        return lab
    nodes = {}
    for node in lab.nodes.values():
        assert isinstance(node.link, channel.Live)
        link = recording.Recorded(node.name, node.docker_version, node.link, writer)
        nodes[node.name] = dataclasses.replace(node, link=link)
    kept = dataclasses.replace(lab, nodes=nodes)
    pen = recording.Pen(writer, kept.manager.name, kept.manager.full_version)
    pen.begins("lab")(
        {
            "lab": kept.name,
            "engine": kept.engine.kind,
            "accel": kept.engine.accel,
            "labkit": __version__,
            "nodes": [
                {
                    "name": node.name,
                    "address": node.address,
                    "container": node.container,
                    "docker": node.docker_version,
                }
                for node in nodes.values()
            ],
        }
    )
    return kept


def _replayed(file: Path) -> Lab:
    """Return the lab that a file of evidence tells of, and say that it is not there."""
    replay = replays.begin(file)
    line = replay.take("lab", {})
    replay.done(line)
    row = line.row
    nodes = {
        told["name"]: Node(
            name=told["name"],
            address=told["address"],
            container=told["container"],
            docker_version=told["docker"],
            link=replays.Replayed(told["name"], replay),
            log=list,
        )
        for told in row["nodes"]
    }
    engine = engines.Engine(
        kind="replay",
        accel=row["accel"],
        client=replays.Replayed("the machine", replay).docker,
        environment={},
        label=row["lab"],
        open_socket=lambda *_: replays.nowhere(file.name),
    )
    print(
        f"Replay of {file.name}: no swarm is running. Every answer was recorded on "
        f"{datetime.fromtimestamp(line.started, UTC):%Y-%m-%d %H:%M} UTC, "
        f"of {replay.evidence.learner}'s swarm with Docker {row['docker']}."
    )
    return Lab(
        row["lab"],
        engine,
        nodes[row["nodes"][0]["name"]].docker_version,
        nodes,
        replay.evidence.learner,
    )


def _lab(name: str, engine: engines.Engine) -> Lab:
    """Find the nodes of a lab on its engine; there may be none."""
    rows = engine.client.containers.list(filters={"label": f"{engines.LAB_LABEL}={engine.label}"})
    nodes = {}
    for row in sorted(rows, key=lambda r: _order(r.attrs["Config"]["Hostname"])):
        settings = row.attrs["NetworkSettings"]["Networks"]
        (network,) = settings.values()
        config = row.attrs["Config"]
        container = row.name or row.id or ""
        nodes[config["Hostname"]] = Node(
            name=config["Hostname"],
            address=network["IPAddress"],
            container=container,
            docker_version=config["Labels"]["labkit.docker"],
            link=channel.Live(config["Hostname"], engine.reach(container, row.attrs["State"]["Pid"])),
            log=functools.partial(_log_of, row),
        )
    docker = next(iter(nodes.values())).docker_version if nodes else ""
    return Lab(name, engine, docker, nodes)


def _log_of(container: Container) -> list[str]:
    with contextlib.suppress(Exception):
        return container.logs(tail=8).decode(errors="replace").splitlines()
    return []


def _order(hostname: str) -> tuple[int, str]:
    return (int(re.sub(r"\D", "", hostname) or 0), hostname)


def wanted(
    docker: str, nodes: int, managers: int, *, compose: Path = paths.COMPOSE / "swarm.yaml"
) -> states.Wanted:
    """Describe a swarm, for the saved state that it has."""
    return states.Wanted(docker, nodes, managers, bootstrap.key_of(compose))


class Started(NamedTuple):
    """A swarm that answers, and how it was had."""

    lab: Lab
    seconds: float
    api_seconds: float  # until the engine's API answered
    restored: bool


def up(
    lab: str = "default",
    *,
    nodes: int = DEFAULT_NODES,
    managers: int = 1,
    docker: str = DEFAULT_DOCKER,
    engine: str = "auto",
    fresh: bool = False,
    keep: bool = False,
    compose: Path | None = None,
    progress: Progress,
) -> Started:
    """Stand up a swarm: on the embedded machine from a saved state, which is made where there is none.

    With `fresh`, a state that is there is made anew. What fails half way is taken down again, unless
    `keep`. Raises UsageError for what cannot be asked, EngineError and SwarmError for what cannot be
    had.
    """
    began = time.monotonic()
    check_name(lab)
    if not 1 <= managers <= max(nodes, 1):
        raise UsageError(
            f"{managers} managers of {nodes} nodes were asked for; at least 1, at most all of them",
            hint="labkit up --nodes 3 --managers 1",
        )
    bootstrap.release(docker)
    chosen, _ = engines.choose(engine)
    file = compose or paths.COMPOSE / "swarm.yaml"
    label = vm.INNER_LAB if chosen == "vm" else lab
    described = topology.load(file, lab=label, docker=docker, nodes=nodes)
    if find(lab):
        raise UsageError(f"lab {lab!r} is up already", hint=f"labkit status --lab {lab}")
    try:
        if chosen == "vm":
            asked = wanted(docker, nodes, managers, compose=file)
            had = _up_embedded(lab, asked, described, fresh=fresh, progress=progress)
        else:
            opened = engines.open_docker(lab, docker, progress)
            answered = time.monotonic()
            had = _Had(_make(lab, opened, described, managers, progress), answered, restored=False)
    except BaseException:
        if not keep:
            with _undisturbed(), contextlib.suppress(Exception):
                down(lab)
        raise
    return Started(
        lab=had.lab,
        seconds=time.monotonic() - began,
        api_seconds=had.answered - began,
        restored=had.restored,
    )


class _Had(NamedTuple):
    lab: Lab
    answered: float  # when, by the monotonic clock, the engine's API first answered
    restored: bool


def _up_embedded(
    lab: str, wanted: states.Wanted, described: topology.Topology, *, fresh: bool, progress: Progress
) -> _Had:
    """Restore the wanted swarm, and make its state first where none fits."""
    if (words := vm.last_words(lab)) is not None:
        progress.say(f"the machine of lab {lab!r} had ended by itself; its last words:\n{words}")
    vm.remove(vm.lab_directory(lab))
    store = vm.node_disk(wanted.docker, progress)
    state = states.newest(wanted)
    if state and not fresh:
        try:
            states.check(state)
            return _Had(*_restore(lab, wanted, state), restored=True)
        except (EngineError, SwarmError, OSError) as refused:
            progress.say(f"the saved state is not used: {refused.args[0]}; it is made anew")
    shop = states.workshop(lab)
    guest = _made_in_machine(lab, wanted, described, shop, store, progress)
    with progress.stage("letting the swarm come to rest"):
        vm.settle(guest)
    with progress.stage("saving the swarm's state"):
        vm.save(guest, shop / vm.DEVICES)
        vm.remove(vm.lab_directory(lab))
        state = states.publish(wanted, shop)
        states.prune({guest.state for guest in vm.found()} | checkpoints.states_in_use())
    return _Had(*_restore(lab, wanted, state), restored=False)


def _made_in_machine(
    lab: str,
    wanted: states.Wanted,
    described: topology.Topology,
    shop: Path,
    store: Path,
    progress: Progress,
) -> vm.Machine:
    """Boot the embedded machine and make the swarm in it; a machine that ends by itself is booted anew.

    QEMU before 8.1 may run kernel code that is half rewritten, and the guest panics: see vm.boot.
    """

    def attempt() -> vm.Machine:
        with progress.stage("starting the embedded machine"):
            guest = vm.boot(lab, wanted.docker, shop, store, memory_mb=wanted.memory_mb)
        _make(lab, engines.of_machine(guest), described, wanted.managers, progress).close()
        return guest

    try:
        return attempt()
    except Exception:
        if (words := vm.last_words(lab)) is None:
            raise
        progress.say(f"the machine ended by itself and is started anew; its last words:\n{words}")
    return attempt()


def _make(
    lab: str, engine: engines.Engine, described: topology.Topology, managers: int, progress: Progress
) -> Lab:
    """Start the nodes on an engine and make them a swarm."""
    with progress.stage(f"{len(described.nodes)} nodes with Docker {described.docker}"):
        started = _start_nodes(lab, engine, described)
    with progress.stage(f"swarm of {len(described.nodes)}"):
        _form(started, managers)
    return started


def reset(lab: str, *, compose: Path | None = None, progress: Progress) -> Started:
    """Return a lab to the swarm that it began as: the same nodes, and nothing of what was done on them.

    A lab with a Compose file of its own needs it again. Raises UnknownNameError where no such lab runs.
    """
    began = time.monotonic()
    found = get(lab)
    kind, docker, nodes = found.engine.kind, found.docker, len(found.nodes)
    guest = vm.find(lab)
    if guest:
        managers = int(states.read(Path(guest.state))["wanted"]["managers"])
    else:
        managers = sum(_manages(node) for node in found.nodes.values())
    found.close()
    down(lab)
    started = up(
        lab,
        nodes=nodes,
        managers=max(managers, 1),
        docker=docker,
        engine=kind,
        compose=compose,
        progress=progress,
    )
    return started._replace(seconds=time.monotonic() - began)


def _manages(node: Node) -> bool:
    return bool(node.docker.api.info()["Swarm"]["ControlAvailable"])


def _restore(lab: str, wanted: states.Wanted, state: Path) -> tuple[Lab, float]:
    """Start the machine of a lab from its saved state and prove that the swarm is there."""
    guest = vm.restore(
        lab,
        wanted.docker,
        state,
        memory_mb=wanted.memory_mb,
        sound=states.checker(state),
    )
    states.used(state)
    with ThreadPoolExecutor(1) as thread:
        # The clock stood still while nothing ran.
        clock = thread.submit(guest.set_clock)
        restored = _lab(lab, engines.of_machine(guest))
        answered = time.monotonic()
        clock.result()
    _prove(restored, wanted.nodes)
    return restored, answered


def _prove(lab: Lab, nodes: int) -> None:
    """Raise SwarmError where not every daemon answers, or the manager does not see each node ready.

    Asks only; nothing of it stays.
    """
    first, *others = lab.nodes.values()
    with _side_by_side(nodes) as pool:
        seen = pool.submit(_node_rows, lab)
        list(pool.map(lambda node: node.docker.api.ping(), others))
        rows = seen.result()
    ready = [row["name"] for row in rows if row["state"] == "ready"]
    if len(ready) != nodes:
        raise SwarmError(f"{len(ready)} of {nodes} nodes are ready in {first.name}'s eyes: {rows}")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Clean up to the end, even where an impatient person presses Ctrl-C once more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_nodes(lab: str, engine: engines.Engine, described: topology.Topology) -> Lab:
    """Start every node's container side by side and wait until their daemons have the app's image."""
    client = engine.client
    network = f"{described.project}_{described.network}"
    client.networks.create(
        network,
        driver="bridge",
        internal=described.internal,
        labels={**described.network_labels},
        check_duplicate=True,
    )
    with _side_by_side(len(described.nodes)) as pool:
        for future in [
            pool.submit(_start_node, client, described, n, network) for n in described.nodes
        ]:
            future.result()
        started = _lab(lab, engine)
        if missing := {node.name for node in described.nodes} - set(started.nodes):
            raise SwarmError(
                f"{', '.join(sorted(missing))} started and ended again",
                hint="labkit up --keep leaves the nodes for a look",
            )
        for future in [pool.submit(_wait_for_node, node) for node in started.nodes.values()]:
            future.result()
    _preflight(started.manager)
    return started


@contextlib.contextmanager
def _side_by_side(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose waiting work is dropped when something fails, so that the failure is heard."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _start_node(
    client: DockerClient, described: topology.Topology, node: topology.Node, network: str
) -> None:
    from docker.errors import APIError

    try:
        api = client.api
        made = api.create_container(
            node.image,
            name=f"{described.project}-{node.name}-1",
            hostname=node.name,
            environment=dict(node.environment),
            labels=dict(node.labels),
            volumes=list(node.volumes),
            host_config=api.create_host_config(
                privileged=node.privileged,
                network_mode=network,
                tmpfs=dict.fromkeys(node.tmpfs, ""),
                cgroupns="private" if node.cgroup == "private" else "host",
            ),
            networking_config={"EndpointsConfig": {network: {}}},
        )
        api.start(made["Id"])
    except APIError as problem:
        told = str(problem.explanation or problem)
        if "privileged" in told.lower():
            raise EngineError(
                f"the engine refuses privileged containers, which a node is: {told}",
                hint="use an engine that allows them, or: labkit up --engine vm",
            ) from problem
        raise SwarmError(f"{node.name} could not be started: {told}") from problem


def _wait_for_node(node: Node) -> None:
    """Wait until the node's daemon answers and holds the app's image.

    The stream to the daemon waits for its socket, so an error here means that the node has ended.
    """
    from docker.errors import APIError
    from requests import RequestException

    def look() -> tuple[bool, str]:
        found = node.docker.api.images(APP_IMAGE)
        return bool(found), f"its daemon answers, the image {APP_IMAGE} is not there yet"

    hint = f"labkit up --keep, then: docker logs {node.container}"
    wanted = f"the Docker daemon of {node.name} with the image {APP_IMAGE}"
    began = time.monotonic()
    try:
        wait_for(wanted, look, log=node.log, hint=hint)
    except (APIError, RequestException, OSError) as problem:
        waited = time.monotonic() - began
        last = f"{type(problem).__name__}: {problem}"[:300]
        log = node.log()
        raise WaitTimeout(wanted, seconds=waited, last=last, log=log, hint=hint) from problem


# What a node needs of the kernel, each with a try that changes nothing that stays.
_NEEDS = {
    "ip_vs": ["ipvsadm", "-ln"],
    "vxlan": ["ip", "link", "add", "labkit-try", "type", "vxlan", "id", "1", "dstport", "4789"],
    "xt_ipvs": ["iptables", "-C", "INPUT", "-m", "ipvs", "--ipvs"],
}


def _preflight(node: Node) -> None:
    """Raise EngineError where the engine's kernel lacks what Swarm's network is made of."""
    lacking = []
    for module, argv in _NEEDS.items():
        # A namespace of its own, so that nothing of the try stays.
        tried = node.run(["unshare", "--net", "--", *argv])
        missing = "does not exist" not in tried.stderr and "Bad rule" not in tried.stderr
        if tried.code and (module != "xt_ipvs" or missing):
            lacking.append(f"{module} ({(tried.stderr.strip().splitlines() or ['?'])[-1]})")
    if lacking:
        modules = " ".join(item.split()[0] for item in lacking)
        raise EngineError(
            f"the engine's kernel lacks what Swarm needs: {', '.join(lacking)}",
            hint=f"on the machine that runs the engine: sudo modprobe -a {modules}; "
            "or use the embedded machine: labkit up --engine vm",
        )


def _form(lab: Lab, managers: int) -> None:
    """Make the nodes one swarm: the first begins it, the others join side by side."""
    first, *others = lab.nodes.values()
    first.docker.swarm.init(
        advertise_addr=first.address,
        listen_addr="0.0.0.0:2377",
        dispatcher_heartbeat_period=lab.heartbeat_s * 1_000_000_000,
    )
    # Managers agree on each new one, so they come one after the other; workers need not wait.
    for node in others[: managers - 1]:
        _join(first, node, "Manager")
    workers = others[managers - 1 :]
    if workers:
        with _side_by_side(len(workers)) as pool:
            for future in [pool.submit(_join, first, node, "Worker") for node in workers]:
                future.result()

    _wait_for_members(lab)


def _join(first: Node, node: Node, role: str) -> None:
    """Make a node a member of the swarm that another one manages."""
    node.docker.swarm.join(
        remote_addrs=[f"{first.address}:2377"],
        join_token=first.docker.api.inspect_swarm()["JoinTokens"][role],
        advertise_addr=node.address,
        listen_addr="0.0.0.0:2377",
    )


def _wait_for_members(lab: Lab) -> None:
    """Wait until the manager sees every node ready, and every node has the routing mesh."""

    lab.wait_for(
        "every node to be ready in the manager's eyes",
        lambda: _all_ready(lab),
        seconds=120,
        log=lab.manager.log,
        hint="labkit up --keep leaves the nodes for a look",
    )
    with _side_by_side(len(lab.nodes)) as pool:
        for future in [pool.submit(_wait_for_ingress, lab, node) for node in lab.nodes.values()]:
            future.result()


def _wait_for_ingress(lab: Lab, node: Node) -> None:
    """Wait until a node has the namespace through which published ports are reached."""

    def look() -> tuple[bool, str]:
        names = node.run(["ls", "/run/docker/netns"]).text.split()
        return "ingress_sbox" in names, f"namespaces: {', '.join(names) or 'none'}"

    lab.wait_for(f"the routing mesh on {node.name}", look, seconds=120, log=node.log)


def down(lab: str) -> bool:
    """Take a lab down and leave nothing of it; returns whether there was anything."""
    check_name(lab)
    directory, unfinished = vm.lab_directory(lab), states.unfinished_of(lab)
    if directory.exists() or unfinished.exists():
        # The machine and all that is in it go at once.
        vm.remove(directory)
        vm.remove(unfinished)
        return True
    engine = engines.find(lab)
    if engine is None:
        return False
    label = f"{engines.LAB_LABEL}={lab}"
    boxes = engine.client.containers.list(all=True, filters={"label": label})
    if boxes:
        with ThreadPoolExecutor(len(boxes)) as pool:
            list(pool.map(lambda box: box.remove(v=True, force=True), boxes))
    for network in engine.client.networks.list(filters={"label": label}):
        network.remove()
    return True


def place_of(lab: Lab, node: str, *, task: str | None, netns: str | None) -> Place:
    """Return the place that `labkit exec` names; raises UsageError where node and task disagree."""
    where = lab.node(node)
    if task and netns:
        raise UsageError("a command runs in a task or in a namespace, not in both")
    if netns:
        return where.netns(netns)
    if not task:
        return where.place
    found = lab.task(task)
    if found.node.name != node:
        raise UsageError(
            f"{task} runs on {found.node.name}, not on {node}",
            hint=f"labkit exec {found.node.name} --task {task} -- …",
        )
    return found.place
