"""Where commands run: a node, a network namespace of it, a task and its sandbox."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.capture import Capture, argv_of
from labkit.errors import SwarmError, UnknownNameError, UsageError, WaitTimeout
from labkit.transport.base import Command, CommandResult, CommandRunner, Link

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.swarm.lab import Lab

_COMMAND_SECONDS = 120.0  # how long one command on a node may take
_READY_SECONDS = 120.0  # until a command that is watched has begun to watch
_LAST_LINES = 5  # of its errors, where it has not
_STOPS, _STOP_EVERY = 10, 0.5  # how often what was left alone is stopped, and seconds between
# The kernel hands packets to tcpdump in blocks, up to a second late; those still in a block are lost
# when it is interrupted.
_LAST_PACKETS = 1.5


@dataclass(frozen=True)
class Place:
    """Somewhere that commands run: a node, a network namespace of it, or a task's container."""

    node: Node
    label: str
    netns: str | None = None
    pid: int | None = None
    container: str | None = None
    """A task's container; no command runs where `pid`, or the process of `netns`, is not of it."""

    def start(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Running:
        """Start a command and return at once; `.result()` waits for its Capture.

        Raises UsageError for a command that cannot be, NodeUnreachable where the node does not answer.
        """
        return self._submit(command, timeout=timeout)

    def run(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Capture:
        """Run a command to its end. It is a list or one line of words; there is no shell.

        Who stops waiting, with Ctrl-C say, ends the command. Raises what `start` raises, and
        TaskReplaced where the place is a task that is gone.
        """
        return self.start(command, timeout=timeout).result()

    def demand(self, command: str | Sequence[str]) -> None:
        """Raise what `run` would raise for a command that is not run here; nothing is run.

        For what takes several steps, of which a later one may be refused.
        """
        argv = argv_of(command)
        self.node.link.demand(Command(argv, self.label, self.netns, self.pid, container=self.container))

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
        after it. Raises WaitTimeout where `ready` does not come, SwarmError where the command ends
        first.
        """
        running = self._submit(command, ready=ready)
        try:
            try:
                self.node.runner.wait_ready(running.number, _READY_SECONDS)
            except TimeoutError as problem:
                raise running.never_ready(ready, _READY_SECONDS) from problem
            yield running
            self.node.link.pause(linger_s)
        finally:
            running.stop()
            running.result()

    def _submit(
        self, command: str | Sequence[str], *, timeout: float | None = None, ready: str | None = None
    ) -> Running:
        argv = argv_of(command)
        self.node.asked.append((self.label, argv))
        number, pending = self.node.runner.submit(
            Command(argv, self.label, self.netns, self.pid, timeout, ready, self.container)
        )
        return Running(self, argv, number, pending)


@dataclass(frozen=True)
class Running:
    """A command under way."""

    place: Place
    argv: tuple[str, ...]
    number: int
    pending: Future[CommandResult]

    def done(self) -> bool:
        """Whether the command has ended."""
        return self.pending.done()

    def stop(self) -> None:
        """Interrupt the command; it may take a moment to end. One that has ended stays as it is."""
        self.place.node.runner.stop(self.number)

    def never_ready(self, ready: str, seconds: float) -> WaitTimeout:
        """End the command and return the error for one that did not print its `ready`."""
        self.stop()
        lines = self.result().stderr.splitlines()
        return WaitTimeout(
            f"{ready!r} on the standard error of `{shlex.join(self.argv)}`, on {self.place.label}",
            seconds=seconds,
            last=lines[-1] if lines else "nothing was printed there",
            log=lines[-_LAST_LINES:],
            hint="watch(…, ready=…) takes the words that the command prints there when it has begun",
        )

    def result(self) -> Capture:
        """Wait for the end and return what was captured.

        Who stops waiting ends the command. Raises NodeUnreachable and TaskReplaced.
        """
        try:
            result = self.pending.result()
        except BaseException:
            end([self])
            raise
        return Capture.of(
            self.argv,
            result,
            place=self.place.label,
            node=self.place.node.name,
            docker=self.place.node.docker_version,
        )


def end(commands: Sequence[Running]) -> None:
    """Interrupt commands, and give them a moment to end."""
    for _ in range(_STOPS):
        left = [command for command in commands if not command.pending.done()]
        # Again and again: a node runs so many at a time, and one that has not begun cannot be stopped.
        for command in left:
            with contextlib.suppress(SwarmError):
                command.stop()
        if not wait([command.pending for command in left], timeout=_STOP_EVERY).not_done:
            return


@dataclass(frozen=True)
class Node:
    """A node of the swarm: a container with a Docker engine of its own, or a machine of one's own."""

    name: str
    address: str
    container: str
    docker_version: str
    link: Link = field(repr=False)
    log: Callable[[], list[str]] = field(repr=False)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list, repr=False, compare=False)
    """What this process ran there, in order: the label of the place, and the command."""
    machine: str = ""
    """What a machine of one's own calls itself."""

    @property
    def hostname(self) -> str:
        """What Docker calls the node: in `docker node ls`, in `--constraint node.hostname==…`."""
        return self.machine or self.name

    @property
    def runner(self) -> CommandRunner:
        """What runs commands on the node."""
        return self.link.runner

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

    def write(self, path: str, text: str) -> Capture:
        """Write a text to a file on the node, over what is there.

        Raises CommandFailed where it cannot be written, NodeUnreachable.
        """
        return self.run(["sh", "-c", 'printf %s "$1" > "$2"', "sh", text, path]).check()

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
        identity = str(self._network(network)["Id"])
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
        """Return the namespace that balances an overlay's virtual IPs on this node: lb_<id>.

        That of the routing mesh is `ingress_sbox`. Raises UnknownNameError.
        """
        # The routing mesh is known by its flag: its network may have been made anew with another name.
        row = {} if network == "ingress" else self._network(network)
        if row.get("Ingress", not row):
            return self.netns("ingress_sbox")
        place = self.netns(f"lb_{row['Id'][:9]}")
        return Place(self, f"{self.name}/lb_{network}", netns=place.netns)

    def _network(self, network: str) -> dict[str, Any]:
        for row in self.docker.api.networks(names=[network]):
            if row["Name"] == network:
                return dict(row)
        rows = self.docker.api.networks()
        for row in rows:
            if network == "ingress" and row.get("Ingress"):  # made anew with another name
                return dict(row)
        raise UnknownNameError(f"network on {self.name}", network, [row["Name"] for row in rows])

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
    ingress: str | None = None
    """What the routing mesh's network is called, where the task is on it."""
    ipv6: frozenset[str] = frozenset()
    """The networks that have IPv6 too."""

    @cached_property
    def place(self) -> Place:
        """The task's container: its tools, its rights, its user, directory and environment."""
        return Place(self.node, self.name, pid=self.pid, container=self.container)

    @cached_property
    def sandbox(self) -> Place:
        """The task's network namespace with the node's tools and rights (iptables, tcpdump, …)."""
        netns = f"/proc/{self.pid}/ns/net"
        return Place(self.node, f"{self.name} sandbox", netns=netns, container=self.container)

    def ipv6_addresses(self) -> dict[str, str]:
        """Return the task's IPv6 address on each network that has one; network -> address.

        Only its node knows them all: Swarm gives a task one address on a network, and of which family
        is chance where there are two; the node adds the other (seen on 26.1).
        """
        if not self.ipv6:
            return {}
        found = _addresses_there(self.node, self.container, "GlobalIPv6Address")
        return {name: address for name, address in found.items() if name in self.ipv6}

    def run(self, command: str | Sequence[str], *, timeout: float = _COMMAND_SECONDS) -> Capture:
        """Run a command in the task's container, as `docker exec` does."""
        return self.place.run(command, timeout=timeout)


def runs(row: Mapping[str, Any]) -> bool:
    """Whether a task, as the API lists it, has a process."""
    status = row["Status"]
    return status["State"] == "running" and bool((status.get("ContainerStatus") or {}).get("PID"))


def addresses_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the first address of a task, as the API lists it, on each of its networks."""
    attached = [item for item in row.get("NetworksAttachments") or () if item.get("Addresses")]
    return {item["Network"]["Spec"]["Name"]: item["Addresses"][0].split("/")[0] for item in attached}


def task_of(service: str, row: Mapping[str, Any], node: Node) -> Task:
    """Return a running task of a service from what the API lists of it."""
    container = row["Status"]["ContainerStatus"]
    addresses = addresses_of(row)
    attached = row.get("NetworksAttachments") or ()
    specs = [item["Network"]["Spec"] for item in attached if item.get("Addresses")]
    slot = row.get("Slot", 0)
    if any(":" in address for address in addresses.values()):
        there = _addresses_there(node, container["ContainerID"], "IPAddress")
        addresses = {name: there.get(name, given) for name, given in addresses.items()}
    return Task(
        name=f"{service}.{slot or node.name}",  # of a global service each node has one
        service=service,
        slot=slot,
        node=node,
        container=container["ContainerID"],
        pid=container["PID"],
        addresses=addresses,
        ingress=next((spec["Name"] for spec in specs if spec.get("Ingress")), None),
        ipv6=frozenset(spec["Name"] for spec in specs if spec.get("IPv6Enabled")),
    )


def _addresses_there(node: Node, container: str, family: str) -> dict[str, str]:
    """Return a container's addresses of one family as its node has them; network -> address."""
    networks = node.docker.api.inspect_container(container)["NetworkSettings"]["Networks"]
    return {name: network[family] for name, network in networks.items() if network.get(family)}


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
    if found.node.name != where.name:
        raise UsageError(
            f"{task} runs on {found.node.name}, not on {where.name}",
            hint=f"labkit exec {found.node.name} --task {task} -- …",
        )
    return found.place
