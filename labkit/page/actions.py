"""What a click on the page does to the swarm: one command, in one place, that anybody can type too."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labkit import engines, swarm
from labkit.errors import UnknownNameError, UsageError
from labkit.progress import Progress
from labkit.swarm import Lab, Node, Place
from labkit.swarm.watch import Work

Asked = Mapping[str, Any]


@dataclass(frozen=True)
class Action:
    """A command and the place that it is typed in, and the same as the cell of a notebook."""

    place: Place
    argv: tuple[str, ...]
    cell: str


def of(lab: Lab, asked: Asked) -> Action:
    """Return what `asked["do"]` stands for; raises UnknownNameError and UsageError."""
    name = str(asked.get("do", ""))
    if name not in ACTIONS:
        raise UnknownNameError("action", name, list(ACTIONS))
    return ACTIONS[name](lab, asked)


def _on(place: Place, where: str, *argv: str) -> Action:
    return Action(place, argv, f'{where}.run("{" ".join(argv)}")')


def _scale(lab: Lab, asked: Asked) -> Action:
    service, to = _service(lab, asked), asked.get("to")
    if not isinstance(to, int) or isinstance(to, bool) or not 0 <= to <= 99:
        raise UsageError(f"a service has 0 to 99 tasks; found {to!r}", hint="a whole number")
    return _on(
        lab.manager.place, "lab.manager", "docker", "service", "scale", "--detach", f"{service}={to}"
    )


def _service(lab: Lab, asked: Asked) -> str:
    name = str(asked.get("service", ""))
    known = [row["Spec"]["Name"] for row in lab.manager.docker.api.services()]
    if name not in known:
        raise UnknownNameError("service", name, known)
    lab.demand_own(name)
    return name


def _kill(lab: Lab, asked: Asked) -> Action:
    task = lab.task(str(asked.get("task", "")))
    lab.demand_own(task.service)
    cell = f'task = lab.task("{task.name}")\ntask.node.run(["docker", "kill", task.container])'
    return Action(task.node.place, ("docker", "kill", task.container[:12]), cell)


def _availability(word: str) -> Callable[[Lab, Asked], Action]:
    def action(lab: Lab, asked: Asked) -> Action:
        node = lab.node(str(asked.get("node", "")))
        argv = ("docker", "node", "update", "--availability", word, node.hostname)
        return _on(lab.manager.place, "lab.manager", *argv)

    return action


def _interface(state: str) -> Callable[[Lab, Asked], Action]:
    def action(lab: Lab, asked: Asked) -> Action:
        node = _worker(lab, asked)
        return _on(node.place, f'lab.node("{node.name}")', "ip", "link", "set", "eth0", state)

    return action


def _worker(lab: Lab, asked: Asked) -> Node:
    node = lab.node(str(asked.get("node", "")))
    if node is lab.manager:
        raise UsageError(
            f"{node.name} is the manager that is asked here: cut off, it would call all others lost",
            hint="cut off a worker",
        )
    return node


ACTIONS: dict[str, Callable[[Lab, Asked], Action]] = {
    "scale": _scale,
    "kill": _kill,
    "drain": _availability("drain"),
    "activate": _availability("active"),
    "lose": _interface("down"),
    "return": _interface("up"),
}
"""Name -> what it stands for; each reads the names that it needs from what was asked."""

WORKS: dict[str, tuple[tuple[str, ...], Callable[[str, str, Progress], object]]] = {
    "start": (("up",), lambda lab, _, progress: swarm.find_or_up(lab, progress=progress).close()),
    "reset": (("reset",), lambda lab, _, progress: swarm.reset(lab, progress=progress).lab.close()),
    "save": (("checkpoint", "save"), lambda lab, name, _: engines.checkpoints(lab).save(name)),
    "restore": (
        ("checkpoint", "restore"),
        lambda lab, name, _: engines.checkpoints(lab).restore(name),
    ),
}
"""Name -> the words of `labkit` that do the same, and what does it: with a lab, a checkpoint's name."""


def work(lab: str, asked: Asked) -> tuple[str, Work] | None:
    """Return the command of WORKS that `asked["do"]` stands for, and what does it; None for another."""
    found = WORKS.get(str(asked.get("do", "")))
    if found is None:
        return None
    words, does = found
    name = str(asked.get("checkpoint", ""))
    named = [name] if words[0] == "checkpoint" else []
    command = shlex.join(["labkit", *words, *named, "--lab", lab])
    return command, functools.partial(does, lab, name)


@dataclass(frozen=True)
class Shell:
    """A shell in a place of the swarm: what the place is called, and the words of `labkit` for it."""

    place: Place
    argv: tuple[str, ...]
    """After ``labkit exec --lab LAB -it``."""
    cell: str
    """The place in a notebook."""
    keeps: bool
    """Whether the shell can keep what is typed: bash does, on a node; a task's own need not be bash."""


def shell(lab: Lab, asked: Asked) -> Shell:
    """Return the shell that is asked for.

    It is in a `node`, a `netns` of it, a `task`, or with `sandbox` in the network namespace of a task,
    with the node's tools. Raises UnknownNameError.
    """
    if name := str(asked.get("task", "")):
        task = lab.task(name)
        cell = f'lab.task("{name}")'
        if not asked.get("sandbox"):
            argv = (task.node.name, "--task", name, "--", "sh")
            return Shell(task.place, argv, cell, keeps=False)
        row = task.node.docker.api.inspect_container(task.container)
        netns = str(row["NetworkSettings"]["SandboxKey"]).rpartition("/")[2]
        argv = (task.node.name, "--netns", netns, "--", "bash")
        return Shell(task.sandbox, argv, f"{cell}.sandbox", keeps=True)
    node = lab.node(str(asked.get("node", "")))
    cell = f'lab.node("{node.name}")'
    if not (name := str(asked.get("netns", ""))):
        return Shell(node.place, (node.name, "--", "bash"), cell, keeps=True)
    place = node.netns(name)
    netns = place.label.partition("/")[2]
    return Shell(place, (node.name, "--netns", netns, "--", "bash"), f'{cell}.netns("{netns}")', True)


_NOT_ASKED = {"exit", "logout", "clear", "history"}
_NEWEST = 20
# A line that means the same without a shell: nothing in it stands for something else, outside of quotes
# or, as `$` and the backquote do, inside of double ones, and it begins with no assignment.
_PLAIN = re.compile(r"""(?!\S*=)(?:'[^']*'|"(?:\\[^$`]|[^"\\$`])*"|\\.|[^'"\\|&;<>$`*?\[\]{}~#!()])+""")


def cells(shell: Shell, typed: Iterable[str]) -> list[str]:
    """Return the newest lines that were typed in a shell as cells of a notebook, a command each."""
    found: list[str] = []
    for line in (line.strip() for line in typed):
        if not line or line in _NOT_ASKED:
            continue
        command = line if _PLAIN.fullmatch(line) else ["bash", "-c", line]
        found.append(f"{shell.cell}.run({json.dumps(command, ensure_ascii=False)})")
    return found[-_NEWEST:]
