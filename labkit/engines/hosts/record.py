"""What is known of a lab on machines of one's own: which they are, and what was there before.

One small JSON file in the state directory, so that `down`, `status` and `attach` work from any process.
It holds paths of certificates and no secret.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

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


def note(lab: str, host: str, node: str) -> None:
    """Write down the node id that a machine has got; it may be called from several threads."""
    with _noting:
        kept = read(lab)
        if kept:
            for found in kept.hosts:
                if found.name == host:
                    found.node = node
            kept.write()


def labs() -> list[str]:
    """List the labs that are on machines of one's own."""
    return sorted(path.name.removesuffix(_ENDING) for path in paths.machines().glob(f"*{_ENDING}"))


def _path(lab: str) -> Path:
    return paths.machines() / f"{lab}{_ENDING}"
