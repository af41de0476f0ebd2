"""A toy swarm that keeps evidence, for tests of recordings and replays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.evidence import replayed as replay
from labkit.evidence import writer
from labkit.swarm import lifecycle
from tests.unit.fakes import Toy


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test replays what another one has opened."""
    for name in ("LABKIT_REPLAY", "LABKIT_EVIDENCE", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    writer.writer.cache_clear()
    yield
    replay.end()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "toy.evidence.jsonl"


@pytest.fixture
def toy(file: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A toy swarm that `labkit.attach()` finds, and keeps evidence of."""
    made = Toy()
    monkeypatch.setattr(lifecycle, "find", lambda _: made.lab)
    monkeypatch.setenv("LABKIT_EVIDENCE", str(file))
    return made
