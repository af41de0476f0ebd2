"""Which commands there are, and the module of each: it is loaded when the command is asked for.

So `labkit --help` loads none of them, and a command only what it needs itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperGroup

from labkit import engines

if TYPE_CHECKING:
    # typer has click inside, and gives its classes no other name.
    from typer._click import Command, Context, HelpFormatter


class Entry(NamedTuple):
    """A command: where it is, what `labkit --help` says of it, and whether it has commands itself."""

    module: str
    line: str
    """In fewer than 64 characters, so that it stands on one line of a terminal."""
    group: bool = False


COMMANDS = {
    "lab": Entry("labkit.cli.lab", "Copy the labs, stand a swarm up, open JupyterLab."),
    "up": Entry("labkit.cli.swarms", "Stand up a swarm that answers."),
    "status": Entry("labkit.cli.swarms", "Look at a lab: its nodes and their state."),
    "reset": Entry("labkit.cli.swarms", "Return a lab to the swarm that it began as."),
    "down": Entry("labkit.cli.swarms", "Take a lab down and leave nothing of it."),
    "exec": Entry("labkit.cli.swarms", "Run a command on a node, in a task or a namespace."),
    "env": Entry("labkit.cli.swarms", "Print what points the ordinary docker at a lab."),
    "doctor": Entry("labkit.cli.swarms", "Tell what this machine can run, why, and the remedies."),
    "run": Entry("labkit.cli.labs", "Execute the labs with their solutions on the swarm."),
    "hint": Entry("labkit.cli.labs", "Show the hints of a question."),
    "answers": Entry("labkit.cli.labs", "Print an instructor's key of a lab for one learner."),
    "bench": Entry("labkit.cli.labs", "Measure what people wait for."),
    "claims": Entry("labkit.cli.labs", "Show what the labs state, who says so, where it was seen."),
    "release": Entry("labkit.cli.labs", "Build the learners' notebooks from the sources."),
    "grade": Entry("labkit.cli.marking", "Mark submissions, each on its own evidence."),
    "sign": Entry("labkit.cli.marking", "Sign evidence that was handed in, on the lab's host."),
    "signing-key": Entry("labkit.cli.marking", "Make a pair of keys to sign evidence with."),
    "feedback": Entry("labkit.cli.marking", "Write each learner's pages: answers and marks."),
    "marks": Entry("labkit.cli.marking", "Put marks into an export of Moodle or Canvas."),
    "platform": Entry("labkit.cli.platform", "Send marks to a learning platform, by LTI.", group=True),
    "checkpoint": Entry(
        "labkit.cli.checkpoints", "Keep a lab as it is, and come back to it.", group=True
    ),
    "fault": Entry("labkit.cli.faults", "Break one thing on purpose, find it, mend it.", group=True),
    "diagnose": Entry("labkit.cli.diagnosing", "Say what is wrong with a swarm, and what mends it."),
    "class": Entry("labkit.cli.classroom", "A class: its check, its server, handing in.", group=True),
}
"""Name -> a command of this package."""

_ALL = COMMANDS | {name: Entry(*entry, group=True) for name, entry in engines.COMMANDS.items()}
"""These and the engines' own, in the order of `labkit --help`."""


class _Loaded(Mapping[str, "Command"]):
    """The commands by name; each is loaded when it is first asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._loaded:
            self._loaded[name] = _load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_ALL)

    def __len__(self) -> int:
        return len(_ALL)


def _load(name: str) -> Command:
    """Return a command; raises KeyError where there is none of that name."""
    entry = _ALL[name]
    holder = typer.Typer(rich_markup_mode=None)
    holder.add_typer(import_module(entry.module).app, name=name if entry.group else None)
    return typer.main.get_group(holder).commands[name]


class Commands(TyperGroup):
    """The command `labkit`, whose commands are loaded when they are asked for."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": _Loaded()})

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names of the commands, and load none."""
        return list(self.commands)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write a line for each command, and load none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.line) for name, entry in _ALL.items()])
