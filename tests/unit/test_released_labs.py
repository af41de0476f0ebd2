"""The learners' notebooks in the repository: built from today's sources, with no answer in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit import paths
from labkit.authoring import markup, release

SOURCES = release.find_labs(paths.SOURCES)
RELEASED = paths.RELEASE


def test_they_are_fresh() -> None:
    assert release.stale(paths.SOURCES, RELEASED) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_line_of_a_solution_is_in_any_byte(source: Path) -> None:
    text = (RELEASED / f"{source.stem}.ipynb").read_text()
    for cell in release.read_source(source).cells:
        for line in markup.solution(cell).splitlines():
            if len(line.strip()) > 3:
                assert json.dumps(line.strip())[1:-1] not in text
