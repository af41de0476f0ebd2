"""The recordings that the kit ships are of the labs as they are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from labkit import paths
from labkit.authoring import release
from labkit.evidence import cells

LABS = release.find_labs(paths.SOURCES)


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_every_recorded_cell_is_one_of_the_lab(lab: Path) -> None:
    code = [cell.source for cell in release.read_source(lab).cells if cell.cell_type == "code"]
    with gzip.open(paths.EVIDENCE / f"{lab.stem}.evidence.jsonl.gz", "rt", encoding="utf-8") as lines:
        recorded = {str(json.loads(line).get("source", "")) for line in lines}
    assert recorded - {""} <= {cells.source_of(text) for text in code}
