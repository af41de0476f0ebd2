"""What an engine is: it owns the machines that swarms run on, and hands out Docker daemons on them.

An `Engine` is one of the ways to have a Docker daemon for a lab's nodes. `acquire` returns a swarm of a
kind: how it is had is the engine's matter, so one may keep snapshots and another make each swarm anew.
How a swarm is *made* is not the engine's matter: that comes in as a `Recipe`. Everything after the
engine talks to a `Connection` and never asks which engine it came from.
"""

from __future__ import annotations

import functools
import hashlib
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from labkit import paths

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.progress import Progress
    from labkit.transport.base import Reach, Refuse

LAB_LABEL = "labkit.lab"
"""The label with the lab's name on every container and network of its nodes."""

MADE_BY = "labkit.made-by"
"""The label that holds the command line of a lab's service or network."""

FAULT = "labkit-fault"
"""The name of the config object in which a lab's swarm remembers the fault that is injected."""

T = TypeVar("T")


@dataclass(frozen=True)
class SwarmSpec:
    """What a swarm has to be. Equal specs share a snapshot, where an engine keeps any."""

    docker: str
    nodes: int
    managers: int
    description: str
    """The key of the Compose file's content."""

    @classmethod
    def of(cls, docker: str, nodes: int, managers: int, compose: Path | None = None) -> SwarmSpec:
        """Describe a swarm by its Compose file, the kit's own where none is named."""
        file = compose or paths.COMPOSE / "swarm.yaml"
        return cls(docker, nodes, managers, key_of(file))


@dataclass(frozen=True)
class Seat:
    """A node that is a machine of one's own: where it is, and how it is reached."""

    name: str
    """What the lab calls it."""
    hostname: str
    """What it calls itself, and Docker too."""
    address: str
    container: str
    """Labkit's container there."""
    docker: str
    reach: Reach = field(repr=False)
    refuse: Refuse = field(repr=False)


@dataclass(frozen=True)
class Machines:
    """Nodes that were there before labkit came, and their swarm."""

    seats: Callable[[], Sequence[Seat]]
    """Returns them, managers first."""
    joined: Callable[[str], None]
    """Notes that a machine is in the lab's swarm now, by its hostname."""
    broken: Callable[[Sequence[Mapping[str, Any]]], None]
    """Notes the commands that undo what is broken on them now: node (its hostname), netns, argv."""
    managers: int
    shared: bool
    """Whether the swarm was there before, too: then only what has labkit's label is labkit's."""
    pool: str | None = None
    """Where a swarm that is to be made gets its networks' addresses; None: Swarm's own choice."""


@dataclass(frozen=True)
class Connection:
    """A Docker daemon that answers and holds a lab's nodes, and how to reach it and them."""

    kind: str
    """The name of the engine that it belongs to, for people to read."""
    accel: str | None
    """The accelerator of a virtual machine: "kvm", or "tcg" where it is emulated."""
    client: DockerClient
    environment: Mapping[str, str]
    """What an ordinary docker client needs in its environment."""
    label: str
    """What the lab is called in the labels on this daemon."""
    open_socket: Callable[[str, int, str], socket.socket] = field(repr=False)
    """Connects to a unix socket in a container: its name, its first process, the socket's path."""
    pid: int | None = None
    """The process of the virtual machine that it runs in, where there is one of the lab's own."""
    machines: Machines | None = None
    """The nodes, where they are machines of one's own and not containers on the daemon."""

    def reach(self, container: str, pid: int) -> Reach:
        """Return what connects to the unix sockets of one container."""
        return functools.partial(self.open_socket, container, pid)


class Recipe(Protocol[T]):
    """How a swarm is made, handed to the engine that has the machine for it."""

    def make(self, connection: Connection) -> T:
        """Start the nodes and make them a swarm; raises EngineError and SwarmError."""
        ...

    def find(self, connection: Connection) -> T:
        """Return the swarm whose nodes run on the daemon."""
        ...

    def prove(self, found: T) -> None:
        """Raise SwarmError where the swarm is not whole and ready."""
        ...

    def renew(self, found: T) -> None:
        """Make anew what swarms out of one saved state share, where that is quick."""
        ...

    def close(self, found: T) -> None:
        """Close what is kept open to the swarm; it goes on."""
        ...


@dataclass(frozen=True)
class Acquired(Generic[T]):
    """A swarm that answers, and how it was had."""

    swarm: T
    answered: float
    """When its API first answered, by `time.monotonic`."""
    restored: bool


class Check(NamedTuple):
    """One thing that `labkit doctor` looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Checkpoint(NamedTuple):
    """One checkpoint of a lab: when it was saved, and how many bytes of disk it takes."""

    name: str
    created: float
    size: int


class Checkpoints(Protocol):
    """The checkpoints of one lab."""

    def list(self) -> Sequence[Checkpoint]:
        """Return them, oldest first."""
        ...

    def save(self, name: str) -> None:
        """Save the running lab; raises UsageError for a name that cannot be, EngineError."""
        ...

    def restore(self, name: str) -> None:
        """Put the lab back to a checkpoint; raises UnknownNameError, EngineError."""
        ...

    def remove(self, name: str) -> None:
        """Remove one; raises UnknownNameError."""
        ...


class Engine(Protocol):
    """One way to have a Docker daemon for the nodes of a lab."""

    kind: str
    """Its name, for `--engine` and in `labkit status`."""

    def refusal(self) -> str:
        """Return why this machine cannot use it, in one line; empty where it can."""
        ...

    def label(self, lab: str) -> str:
        """Return what a lab is called in the labels on this engine's daemon."""
        ...

    def acquire(
        self, lab: str, spec: SwarmSpec, recipe: Recipe[T], *, fresh: bool, progress: Progress
    ) -> Acquired[T]:
        """Return a swarm of a kind, made by the recipe or out of what is kept of an earlier one.

        With `fresh`, what is kept is made again. Raises EngineError and SwarmError; `remove` clears
        what is left of a failure.
        """
        ...

    def find(self, lab: str) -> Connection | None:
        """Return the daemon of a lab that runs, None where it does not."""
        ...

    def spec_of(self, lab: str) -> SwarmSpec | None:
        """Return what a lab was asked to be, also one that has crashed.

        None where there is no such lab, or the engine does not keep that.
        """
        ...

    def labs(self) -> Sequence[str]:
        """List the labs that are on this engine, also those of which only a part is there."""
        ...

    def remove(self, lab: str) -> bool:
        """Leave nothing of a lab; returns whether there was anything."""
        ...

    def sweep(self) -> None:
        """Remove what commands that were killed have left behind."""
        ...

    def crash_log(self, lab: str) -> str | None:
        """Return the last lines of a lab's machine that exited unexpectedly; None where none did."""
        ...

    def checkpoints(self, lab: str) -> Checkpoints | None:
        """Return the checkpoints of a lab, None where the engine cannot keep any."""
        ...

    def examine(self) -> Sequence[Check]:
        """Look at what the engine needs of this machine, for `labkit doctor`."""
        ...

    def accel(self) -> str | None:
        """Return the accelerator that it would use here; None for an engine without a machine."""
        ...

    def facts(self) -> dict[str, str]:
        """Return what figures measured on it have to be read with: name -> value."""
        ...


def lab_names(hostnames: Sequence[str]) -> dict[str, str]:
    """Return what a lab calls machines: node1, node2, … in their order, as the labs' texts do.

    One that calls itself so keeps its name: another one would be mistaken for it.
    """
    wanted = [f"node{number}" for number in range(1, len(hostnames) + 1)]
    free = iter([name for name in wanted if name not in hostnames])
    return {name: name if name in wanted else next(free) for name in hostnames}


def key_of(*parts: str | Path) -> str:
    """Name a result by everything that went into it: texts, and files by their content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]
