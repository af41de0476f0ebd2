"""What is known of a lab on machines of one's own: which they are, and what was there before.

One small JSON file in the state directory, so that `down`, `status` and `attach` work from any process.
It holds paths of certificates and no secret.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit import files, paths
from labkit.engines.hosts.endpoint import Endpoint
from labkit.errors import EngineError

LOOK = "look"
"""The name of the record, and of the containers, of machines that are only looked at."""

_ENDING = ".hosts.json"
_noting = threading.Lock()


@dataclass
class Before:
    """What was on a machine before labkit came."""

    images: dict[str, str]
    """The tags that labkit may put there, with the image that had each; empty where none had it."""
    volumes: list[str]
    overlays: list[str]
    """The ids of overlay networks: Docker may keep one of a swarm that the machine has left."""
    gateway: bool
    """Whether it had the bridge that Docker makes for a swarm."""


@dataclass
class Kept:
    """One machine of a lab."""

    name: str
    manager: bool
    endpoint: Endpoint
    version: str
    """Of its Docker engine."""
    address: str
    before: Before
    node: str = ""
    """Its id in the lab's swarm, which no node of another swarm has; empty before it was in it."""
    undo: list[dict[str, Any]] = field(default_factory=list)
    """The commands that undo what a fault has broken on it, in order: netns, argv."""
    volumes: list[str] = field(default_factory=list)
    """Those of the lab's tasks, once they are about to be removed."""


@dataclass
class Record:
    """A lab on machines of one's own."""

    lab: str
    file: str
    docker: str
    """The Docker version of the node image, which the tools are of."""
    shared: bool
    """Whether the swarm ran before, and stays."""
    hosts: list[Kept]
    leaving: bool = False
    """Whether it is being taken down: what is left is no lab any more."""
    emptied: bool = False
    """Whether what the lab had in the swarm is removed already."""

    def write(self) -> None:
        """Write it down; raises OSError."""
        files.write_json(_path(self.lab), asdict(self), mode=0o600)

    def remove(self) -> None:
        """Forget it."""
        _path(self.lab).unlink(missing_ok=True)


def read(lab: str) -> Record | None:
    """Return what is known of a lab, None where it is not on machines of one's own.

    Raises EngineError where another version of labkit has written it.
    """
    path = _path(lab)
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        hosts = [
            Kept(**{**h, "endpoint": Endpoint(**h["endpoint"]), "before": Before(**h["before"])})
            for h in row.pop("hosts")
        ]
        return Record(**row, hosts=hosts)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as problem:
        raise EngineError(
            f"{path} was written by another version of labkit ({problem})",
            hint=f"take that version for: labkit down --lab {lab}",
        ) from problem


def note_node(lab: str, host: str, node: str) -> None:
    """Write down the node id that a machine has got."""
    with _changing(lab) as hosts:
        for kept in hosts:
            if kept.name == host:
                kept.node = node


def note_undo(lab: str, steps: Sequence[Mapping[str, Any]]) -> None:
    """Write down what undoes the fault that is injected, instead of what was there.

    What is in the namespace of a task goes with the task. Its process's number may be another one's by
    the time that it is undone, so it is left out.
    """
    with _changing(lab) as hosts:
        for kept in hosts:
            kept.undo = [
                {"netns": step["netns"], "argv": step["argv"]}
                for step in steps
                if step["node"] == kept.name and not str(step["netns"]).startswith("/proc/")
            ]


@contextmanager
def _changing(lab: str) -> Iterator[list[Kept]]:
    """Give the machines of a lab to be changed, by one thread at a time; none where it is gone."""
    with _noting:
        kept = read(lab)
        yield kept.hosts if kept else []
        if kept:
            kept.write()


def labs() -> list[str]:
    """List the labs that are on machines of one's own."""
    return sorted(path.name.removesuffix(_ENDING) for path in paths.machines().glob(f"*{_ENDING}"))


def _path(lab: str) -> Path:
    return paths.machines() / f"{lab}{_ENDING}"
