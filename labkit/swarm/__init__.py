"""A real Docker Swarm: its lab, nodes, tasks, the places where commands run, and how it comes and goes.

What a notebook attaches to, with its evidence, is in `labkit.swarm.attach`; nothing here knows of that.
"""

from __future__ import annotations

from labkit.swarm.lab import APP_IMAGE, Lab
from labkit.swarm.lifecycle import (
    DEFAULT_NODES,
    UpResult,
    check_name,
    default_lab,
    down,
    find,
    find_or_up,
    get,
    look_at,
    reset,
    up,
)
from labkit.swarm.places import Node, Place, Running, Task, place_of
from labkit.swarm.waiting import wait_for

__all__ = [
    "APP_IMAGE",
    "DEFAULT_NODES",
    "Lab",
    "Node",
    "Place",
    "Running",
    "Task",
    "UpResult",
    "check_name",
    "default_lab",
    "down",
    "find",
    "find_or_up",
    "get",
    "look_at",
    "place_of",
    "reset",
    "up",
    "wait_for",
]
