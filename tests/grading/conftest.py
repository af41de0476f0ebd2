"""One batch for all tests that look at what became of it: it takes a minute."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labkit.grading.batch import grade
from labkit.grading.sandbox import Limits
from tests.grading import course

LIMITS = Limits(cell_seconds=10, notebook_seconds=90)


@dataclass(frozen=True)
class Batch:
    """A batch that was marked, and how."""

    base: Path
    sources: list[Path]
    rows: dict[str, dict[str, Any]]
    before: dict[Path, str]
    seconds: float

    @property
    def handed_in(self) -> Path:
        return self.base / "in"

    @property
    def course(self) -> Path:
        return self.base / "grades"

    def again(self, **options: Any) -> list[dict[str, Any]]:
        """Mark the same folder again."""
        out = self.base / "grades.csv"
        return grade(self.handed_in, sources=self.sources, out=out, limits=LIMITS, **options)


def files(directory: Path) -> dict[Path, str]:
    """Every file below a directory, by the hash of what it holds."""
    found = (p for p in directory.rglob("*") if p.is_file())
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture(scope="session")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    base = tmp_path_factory.mktemp("batch")
    sources = course.sources(base)
    course.hand_in(course.Course(sources[0]), base / "in")
    (base / "beside.txt").write_text("not to be touched")
    before = files(base)
    began = time.monotonic()
    rows = grade(base / "in", sources=sources, out=base / "grades.csv", limits=LIMITS)
    seconds = time.monotonic() - began
    return Batch(base, sources, {row["student"]: row for row in rows}, before, seconds)
