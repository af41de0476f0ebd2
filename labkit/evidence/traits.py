"""What only one run of a lab can have, by which copied evidence is told from evidence that was made.

Labs that come from one snapshot honestly share what the snapshot holds: the ids of nodes, of the
network `ingress`, of images, the swarm's keys. What a lab makes while it is recorded is its own:

- the sessions of the kernels that asked;
- the ids of the services, tasks and containers that were made after the first line, by their own date,
  and of all that was made by a command or request that says so;
- the MAC addresses of interfaces in those networks' namespaces and in tasks, where they are random
  (02:42:… follows from the IP address);
- how long each command ran, to the nanosecond: moving all dates does not change it.

Two labs may share them all the same, with no ill will: two people worked on one lab, or one copied a
folder to start from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from labkit.evidence.reader import Evidence, Line

_ID = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-f]{64}|[0-9a-z]{25})(?![0-9A-Za-z])")
_OWN_MAC = re.compile(r"link/ether ((?:[0-9a-f]{2}:){5}[0-9a-f]{2})")
_NETWORK_NAMESPACE = re.compile(r"/(?:1-|lb_)([0-9a-z]{9,10})$")
_FRACTION = re.compile(r"(\.\d{6})\d+")
_MOST = 100_000  # values of a kind that are kept of one file
_SLACK_S = 2.0  # what the clocks of a machine and of its swarm may differ by


@dataclass(frozen=True)
class Traits:
    """What a file of evidence has that another one should not have."""

    sessions: frozenset[str]
    made: frozenset[str]
    """Ids of services, tasks, containers and networks that were made while it was recorded."""
    seen: frozenset[str]
    """Every id in it, with those of the snapshot."""
    macs: frozenset[str]
    times: frozenset[float]
    """How long commands ran, in seconds; round numbers are left out."""


def traits_of(evidence: Evidence) -> Traits:
    """Gather what is a file's own."""
    start = min(line.started for line in evidence.lines) - _SLACK_S
    made: set[str] = set()
    times: set[float] = set()
    answers: set[str] = set()
    for line in evidence.lines:
        made.update(_printed(line))
        answers.update(_texts(line))
        ran = line.row.get("ran")
        if isinstance(ran, float) and round(ran, 5) != ran:
            times.add(ran)
    seen: set[str] = set()
    for text in answers:  # each once: who waits for something asks the same again and again
        seen.update(_ID.findall(text))
        made.update(_dated(text, start))
    return Traits(
        sessions=frozenset(line.row["session"] for line in evidence.lines),
        made=frozenset(sorted(made)[:_MOST]),
        seen=frozenset(sorted(seen)[:_MOST]),
        macs=frozenset(sorted(_macs(evidence.lines, made))[:_MOST]),
        times=frozenset(sorted(times)[:_MOST]),
    )


def _texts(line: Line) -> Iterator[str]:
    """Yield what a line has of the swarm's own words."""
    for name in ("stdout", "response"):
        text = line.row.get(name)
        if isinstance(text, str):
            yield text


def _printed(line: Line) -> Iterator[str]:
    """Yield the id of what a line made, where its answer says so."""
    row = line.row
    if line.kind == "command" and row["argv"][:1] == ["docker"] and {"create", "run"} & {*row["argv"]}:
        words = str(row.get("stdout", "")).split()
        yield from (word for word in words[:1] if _ID.fullmatch(word))
    elif row.get("method") == "POST" and str(row["path"]).partition("?")[0].endswith("/create"):
        yield from _ID.findall(str(row.get("response", "")))[:1]


def _dated(text: str, start: float) -> Iterator[str]:
    """Yield the ids in a JSON answer of what was made from a moment on.

    Nodes and networks are left out: all labs that run on after a node has joined anew share its id, and
    of a network a node gives the date on which it came to it.
    """
    if not text.startswith(("{", "[")):
        return
    document = None
    with suppress(ValueError, RecursionError, MemoryError):
        document = json.loads(text)
    for item in _objects(document):
        name = item.get("ID", item.get("Id"))
        if (
            not isinstance(name, str)
            or not _ID.fullmatch(name)
            or {"Scope", "Description"} & item.keys()
        ):
            continue
        if _moment(item.get("CreatedAt", item.get("Created"))) >= start:
            yield name
            status = item.get("Status")
            task = status.get("ContainerStatus") if isinstance(status, dict) else None
            container = task.get("ContainerID") if isinstance(task, dict) else None
            if isinstance(container, str) and _ID.fullmatch(container):
                yield container


def _objects(document: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in a JSON document, however deep."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _moment(value: object) -> float:
    """Return a date of Docker's API in seconds since the epoch; the epoch for what is no date."""
    with suppress(ValueError, OverflowError):  # JSON has numbers that no float has
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            text = _FRACTION.sub(r"\1", value).replace("Z", "+00:00")
            moment = datetime.fromisoformat(text)
            return moment.timestamp() if moment.tzinfo else 0.0
    return 0.0


def _macs(lines: Iterable[Line], made: set[str]) -> Iterator[str]:
    """Yield the random addresses of interfaces in tasks and in the namespaces of new networks."""
    prefixes = {name[:length] for name in made for length in (9, 10)}
    for line in lines:
        if line.kind != "command" or line.row["place"] == line.row["node"]:
            continue
        namespace = _NETWORK_NAMESPACE.search(line.row["netns"] or "")
        in_task = line.row["pid"] is not None and line.row["netns"] is None
        if in_task or (namespace and namespace[1] in prefixes):
            found = _OWN_MAC.findall(str(line.row.get("stdout", "")))
            yield from (mac for mac in found if not mac.startswith("02:42:"))
