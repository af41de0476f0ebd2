"""Which cell of a notebook runs now: evidence is filed under it, and a replay looks there first."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a cell; two runs of the same cell are two of these."""

    run: int
    """The number that the notebook shows in front of it; 0 where no cell runs, as in a script."""
    id: str
    """What the notebook calls the cell; empty where its front end does not tell."""
    text: str

    @property
    def source(self) -> str:
        """A short name for the cell's text, the same in every notebook that holds it."""
        return source_of(self.text)


_NONE = Cell(0, "", "")


def source_of(text: str) -> str:
    """Return the short name of a cell's text; empty for a cell without any."""
    text = text.strip()
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12] if text else ""


def now() -> Cell:
    """Return the cell that runs now; the same object as long as it runs."""
    return _watch().cell


def notebook() -> Path | None:
    """Return the file of the notebook that this kernel runs for, None where it is not known.

    LABKIT_NOTEBOOK names it where the front end does not.
    """
    named = _named()
    return named if named and named.is_file() else None


def moved() -> str:
    """Say that the notebook is not where it was when its kernel began; empty where it is.

    Jupyter tells a kernel the file once, so after a renaming only another start tells the new one.
    """
    named = _named()
    if named is None or named.exists() or os.environ.get("LABKIT_NOTEBOOK"):
        return ""
    return (
        f"No evidence is kept, since {named.name} is not there any more: "
        "if this notebook was renamed or moved, restart the kernel."
    )


def _named() -> Path | None:
    """Return the notebook that this kernel was started for, whether its file is there or not."""
    # A program that a cell starts inherits the name, and is not the notebook.
    if not hasattr(_shell(), "kernel"):
        return None
    path = Path(os.environ.get("LABKIT_NOTEBOOK") or os.environ.get("JPY_SESSION_NAME", ""))
    return path if path.suffix == ".ipynb" else None


def _shell() -> Any:
    """The IPython of this process, None where there is none; never loads it."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


class _Watch:
    """Hears from IPython when a cell begins and ends."""

    def __init__(self) -> None:
        self.cell = _NONE
        shell = _shell()
        if shell is None:
            return
        # The cell that called us began before anybody listened.
        texts = shell.history_manager.input_hist_raw
        parent = getattr(shell, "parent_header", None) or {}
        told = str(parent.get("metadata", {}).get("cellId") or "")
        self._texts = texts  # begins with an empty one
        self._ids = _ids_in(os.environ.get("LABKIT_NOTEBOOK"))
        self.cell = Cell(len(texts) - 1, told or self._id_of(texts[-1]), texts[-1])
        shell.events.register("pre_run_cell", self._begins)
        shell.events.register("post_run_cell", self._ends)

    def _begins(self, info: Any) -> None:
        text = str(info.raw_cell or "")
        self.cell = Cell(len(self._texts), str(info.cell_id or self._id_of(text)), text)

    def _ends(self, _: object) -> None:
        self.cell = _NONE

    def _id_of(self, text: str) -> str:
        """The id that the notebook's file has for a text; cells with the same one go in order."""
        ids = self._ids.get(source_of(text), [])
        return ids.pop(0) if len(ids) > 1 else "".join(ids)


def _ids_in(notebook: str | None) -> dict[str, list[str]]:
    """Read the ids of a notebook's code cells, by the short names of their texts."""
    found: dict[str, list[str]] = {}
    if not notebook:
        return found
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        file = Path(notebook)
        for cell in once_saved(lambda: json.loads(file.read_text(encoding="utf-8")))["cells"]:
            if cell["cell_type"] == "code" and (name := source_of("".join(cell["source"]))):
                found.setdefault(name, []).append(str(cell.get("id", "")))
    return found


def once_saved(read: Callable[[], Any]) -> Any:
    """Return what reads a notebook's file; while a front end saves it, half of it is there: look again.

    Raises what the reading raises, ValueError after two seconds.
    """
    for _ in range(20):
        with contextlib.suppress(ValueError):
            return read()
        time.sleep(0.1)
    return read()


@functools.cache
def _watch() -> _Watch:
    return _Watch()
