"""What is between a lab and one of its nodes: the words of a command, its result, and the link.

Everything that a lab asks of its swarm goes through a node's `Link`. There are three of them: the live
one (`labkit.transport.live`), one that keeps a record on the way (`labkit.evidence.recorded`), and one
that answers from a record (`labkit.evidence.replayed`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from labkit.errors import SwarmError

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import PreparedRequest, Response

Reach = Callable[[str], socket.socket]
"""Connects to a unix socket inside one node, by its path; waits where it is not there yet."""

Refuse = Callable[["Command", Callable[[], "DockerClient"]], None]
"""Raises an error for a command that is not to be run on a node; may ask the node's daemon."""

Through = Callable[["PreparedRequest", Callable[[], "Response"]], "Response"]
"""Carries one request to a daemon's API: given the request and what would send it."""

DAEMON = "/run/docker.sock"
AGENT = "/run/labkit-agent.sock"

API_VERSION = "1.41"
"""The API that is spoken with every daemon: Docker 20.10's, which all later versions know as well."""


class Command(NamedTuple):
    """A command for a node's agent; compose/node/agent.py tells what the fields mean there."""

    argv: tuple[str, ...]
    place: str
    """What a person calls the spot; the agent needs only the next two."""
    netns: str | None = None
    pid: int | None = None
    timeout: float | None = None
    ready: str | None = None
    container: str | None = None
    """The container that `pid`, or the process that `netns` is of, has to belong to."""


@dataclass(frozen=True)
class CommandResult:
    """What came back from one command, as the node's agent reports it.

    ``started`` is in seconds since the epoch by the node's clock, ``seconds`` how long it ran. One that
    is ``recorded`` comes from evidence and not from a swarm.
    """

    code: int
    stdout: str
    stderr: str
    started: float
    seconds: float
    timed_out: bool = False
    recorded: bool = False


class CommandRunner(Protocol):
    """Runs commands on one node: live, with a record, or from a record."""

    def submit(self, command: Command) -> tuple[int, Future[CommandResult]]:
        """Start a command; returns its number and the future of its result."""
        ...

    def wait_ready(self, number: int, timeout: float) -> None:
        """Wait until a command has printed its `ready`; raises SwarmError where it ends first."""
        ...

    def stop(self, number: int) -> None:
        """Interrupt a command that still runs."""
        ...

    def close(self) -> None:
        """End the stream, and with it what still runs."""
        ...


class Link(Protocol):
    """Everything that is between a lab and one of its nodes, time included."""

    @property
    def runner(self) -> CommandRunner:
        """What runs commands on the node."""
        ...

    @property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        ...

    def demand(self, command: Command) -> None:
        """Raise what running a command would raise where it is not to be run; nothing is run."""
        ...

    def pause(self, seconds: float) -> None:
        """Let the node work for so long."""
        ...

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def close(self) -> None:
        """Close what is kept open to the node."""
        ...


class NodeUnreachable(SwarmError):
    """A node that was there no longer answers: its lab was reset, taken down, or its machine ended."""

    def __init__(self, node: str, problem: str) -> None:
        super().__init__(
            f"{node} no longer answers: {problem}",
            hint="`labkit status` tells what runs; if the lab was reset or taken down since, attach "
            "again: lab = labkit.attach()",
        )


class DaemonError(SwarmError):
    """A node's Docker engine refused a request, or failed at it; `status` is that of its answer."""

    def __init__(self, node: str, status: int, problem: str) -> None:
        super().__init__(
            f"the Docker engine of {node} answered {status}: {problem}",
            hint=f"labkit exec {node} -- docker info, tells whether it is well",
        )
        self.status = status


class TaskReplaced(SwarmError):
    """A task's container is gone, so nothing may run where it was."""

    def __init__(self, place: str, container: str) -> None:
        task, _, _ = place.partition(" ")
        super().__init__(
            f"{task} was replaced or has ended: its container {container[:12]} no longer runs",
            hint=f"ask for the tasks again: lab.tasks({task.rpartition('.')[0]!r})",
        )


def stream_ended(node: str) -> SwarmError:
    """The error for a node whose stream has ended."""
    return NodeUnreachable(node, "the stream to it has ended")


def ended_first(stderr: str) -> SwarmError:
    """The error for a command that ended before it was ready."""
    return SwarmError(f"it ended first: {stderr}")
