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

    def pause(self, seconds: float) -> None:
        """Let the node work for so long."""
        ...

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def close(self) -> None:
        """Close what is kept open to the node."""
        ...


def stream_ended(node: str) -> SwarmError:
    """The error for a node whose stream has ended."""
    return SwarmError(f"the stream to {node} has ended", hint="`labkit status` tells what still runs")


def ended_first(stderr: str) -> SwarmError:
    """The error for a command that ended before it was ready."""
    return SwarmError(f"it ended first: {stderr}")
