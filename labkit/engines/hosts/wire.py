"""What gets from each machine to each other, tried with packets of Swarm's kinds.

`labkit/programs/crossing.py` tells how it is looked at; here all machines do so at once.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from labkit import programs
from labkit.engines.hosts import tools
from labkit.errors import EngineError, SwarmError
from labkit.transport.base import Command
from labkit.transport.live import LiveLink

MODULES = (
    "bridge",
    "br_netfilter",
    "esp4",
    "ip_vs",
    "nf_nat",
    "overlay",
    "veth",
    "vxlan",
    "xt_ipvs",
)
_READY_SECONDS = 90.0
_SEND_SECONDS = 120.0
_OF_ALL = ("7946/tcp", "7946/udp", "4789/udp", "esp", "mtu")
_OF_MANAGERS = "2377/tcp"


@dataclass(frozen=True)
class Look:
    """What one machine has, as `labkit/programs/hostlook.py` prints it."""

    address: str
    interface: str
    """The interface that has the address; empty where none has."""
    mtu: int
    networks: Sequence[tuple[str, str]]
    """Interface and subnet of what the machine reaches without a router, and of its other routes."""
    modules: Mapping[str, tuple[bool, str]]
    socket: bool
    kernel: str


@dataclass(frozen=True)
class Wire:
    """What one machine has sent and seen."""

    sent: Mapping[str, Mapping[str, str]]
    """Target's address -> port -> what the kernel said; empty where it took it."""
    taken: Mapping[str, str]
    """Port -> why nothing could listen there."""
    seen: frozenset[tuple[str, ...]]
    """in|out, source, target, port, syn|synack|probe: before the firewall coming in, behind it going
    out."""
    passed: frozenset[tuple[str, ...]]
    """Source, target, port: what the firewall has let in."""


def look(link: LiveLink, address: str | None) -> Look:
    """Look at a machine; raises EngineError and NodeUnreachable."""
    argv = programs.argv("hostlook", address or "-", *MODULES)
    row: dict[str, Any] = json.loads(tools.run(link, argv, timeout=_SEND_SECONDS).stdout)
    row["networks"] = [tuple(pair) for pair in row["networks"]]
    row["modules"] = {name: tuple(found) for name, found in row["modules"].items()}
    return Look(**row)


def cross(
    links: Mapping[str, LiveLink], looks: Mapping[str, Look], managers: Sequence[str]
) -> dict[str, Wire]:
    """Send from each machine to each other while all listen; raises EngineError and SwarmError."""
    word = secrets.token_hex(8)
    listening: dict[str, tuple[int, Any]] = {}
    try:
        for name, link in links.items():
            argv = programs.argv("crossing", "listen", looks[name].address, word)
            listening[name] = link.runner.submit(Command(tuple(argv), name, ready="listening"))
        for name, (number, _) in listening.items():
            _wait(links[name], number)
        with ThreadPoolExecutor(len(links)) as pool:
            sent = dict(
                zip(
                    links,
                    pool.map(lambda name: _send(name, links, looks, managers, word), links),
                    strict=True,
                )
            )
    finally:
        for name, (number, _) in listening.items():
            with contextlib.suppress(SwarmError):
                links[name].runner.stop(number)
    return {name: _wire(name, sent[name], pending.result()) for name, (_, pending) in listening.items()}


def _wait(link: LiveLink, number: int) -> None:
    try:
        link.runner.wait_ready(number, _READY_SECONDS)
    except TimeoutError as problem:
        raise EngineError(f"{link.node}: what listens there did not begin in time") from problem


def _send(
    name: str,
    links: Mapping[str, LiveLink],
    looks: Mapping[str, Look],
    managers: Sequence[str],
    word: str,
) -> dict[str, dict[str, str]]:
    own = looks[name]
    targets = [
        f"{looks[other].address}={','.join(ports_of(other in managers))}"
        for other in links
        if other != name
    ]
    argv = programs.argv("crossing", "send", own.address, word, str(own.mtu), *targets)
    sent: dict[str, dict[str, str]] = json.loads(
        tools.run(links[name], argv, timeout=_SEND_SECONDS).stdout
    )
    return sent


def ports_of(manager: bool) -> tuple[str, ...]:
    """Return what has to get to a machine; workers ask managers at 2377, and nobody asks workers."""
    return (_OF_MANAGERS, *_OF_ALL) if manager else _OF_ALL


def _wire(name: str, sent: dict[str, dict[str, str]], listened: Any) -> Wire:
    try:
        row = json.loads(listened.stdout)
    except ValueError as problem:
        last = (listened.stderr.strip().splitlines() or ["nothing"])[-1]
        raise EngineError(f"{name}: what listened there ended with: {last}") from problem
    return Wire(
        sent=sent,
        taken=row["taken"],
        seen=frozenset(map(tuple, row["seen"])),
        passed=frozenset(map(tuple, row["passed"])),
    )
