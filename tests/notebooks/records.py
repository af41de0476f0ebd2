"""How a test replays what was recorded, files it under a cell, and reads it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit import swarm
from labkit.evidence import cells
from labkit.evidence import replayed as replay
from labkit.swarm import lifecycle


def replayed(file: Path, monkeypatch: pytest.MonkeyPatch) -> swarm.Lab:
    """The same lab without a swarm, as in another process."""
    monkeypatch.setattr(lifecycle, "find", lambda _: pytest.fail("a replay looked for a swarm"))
    monkeypatch.setenv("LABKIT_REPLAY", str(file))
    replay.end()
    return labkit.attach()


@contextlib.contextmanager
def cell(text: str, run: int, identity: str = "") -> Iterator[None]:
    """Everything in here is asked by one run of a cell."""
    watch = cells._watch()
    watch.cell = cells.Cell(run, identity, text)
    try:
        yield
    finally:
        watch.cell = cells._NONE


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def ask(lab: swarm.Lab) -> str:
    return lab.manager.run("curl http://hello").text.strip()
