"""Handing in and fetching what was given back, where the labs are on the server of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths
from labkit.errors import UnknownNameError, UsageError
from labkit.page import labs

if TYPE_CHECKING:
    from labkit.grading.exchange import Exchange


@dataclass(frozen=True)
class Class:
    """What a learner's page shows of the class: empty where this is no server of one."""

    course: str = ""
    open: list[str] = field(default_factory=list)
    """The labs that can be handed in, by their notebooks' names."""


@dataclass(frozen=True)
class Done:
    """What came of it, in sentences; and the pages that are there now, by their paths in the folder."""

    told: list[str]
    pages: list[str] = field(default_factory=list)


def look() -> Class:
    """Return which class this is the server of."""
    from labkit.grading import exchange

    found = exchange.of_learner()
    if not found:
        return Class()
    return Class(found.course, [f"{lab}.ipynb" for lab in found.open_labs()])


def do(folder: Path, asked: Mapping[str, Any]) -> Done:
    """Do what `asked["do"]` names; raises UnknownNameError, and what the exchange raises."""
    from labkit.grading import exchange

    found = exchange.of_learner()
    if not found:
        raise UsageError("this is not the server of a class", hint="hand in as your instructor says")
    name = str(asked.get("do", ""))
    if name == "hand in":
        return _hand_in(found, folder, Path(str(asked.get("path", ""))))
    if name == "fetch":
        pages = [str(page.relative_to(folder)) for page in exchange.fetch(found, folder)]
        return Done([] if pages else ["Nothing was given back yet."], pages)
    raise UnknownNameError("action", name, ["hand in", "fetch"])


def _hand_in(found: Exchange, folder: Path, path: Path) -> Done:
    """Hand in the notebook at a path in the folder, as it was saved, and say what will not be graded.

    A learner may work on a copy in a folder of their own: it is the one that they see.
    """
    from labkit.grading import exchange, precheck

    labs.released(path.name, paths.RELEASE)
    notebook = (folder / path).resolve()
    if not notebook.is_relative_to(folder.resolve()):
        raise UsageError(f"{path} is not in the folder of the labs", hint=f"move it to {folder}")
    when = exchange.hand_in(found, notebook)
    told = [f"Handed in at {when.rpartition('.')[0]} UTC. You can hand in again: the last one counts."]
    told += [remark.sentence for remark in precheck.check(notebook, paths.RELEASE) if not remark.ok]
    return Done(told)
