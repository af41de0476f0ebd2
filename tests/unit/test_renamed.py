"""Recordings that were made before a name changed still answer the labs' cells."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from labkit import capture, experiments, paths, plots
from labkit.authoring import release
from labkit.evidence import cells, renamed

SOURCES = sorted((paths.REPOSITORY / "labs" / "source").glob("*.md"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_recorded_cell_is_one_of_the_lab_as_it_is_now(path: Path) -> None:
    texts = [cell.source for cell in release.read_source(path).cells if cell.cell_type == "code"]
    known = {cells.source_of(text) for text in texts}
    known |= {cells.source_of(renamed.former(text)) for text in texts}
    recording = paths.REPOSITORY / "labs" / "evidence" / f"{path.stem}.evidence.jsonl.gz"
    with gzip.open(recording, "rt", encoding="utf-8") as lines:
        recorded = {str(json.loads(line).get("source", "")) for line in lines}
    assert recorded - {""} <= known


def test_the_names_of_now_exist_and_the_former_ones_do_not() -> None:
    packages = {"experiments": experiments, "plots": plots}
    for now, before in renamed.FORMER.items():
        package, _, name = now.partition(".")
        if package in packages:
            assert name in packages[package].__all__, now
            assert before.partition(".")[2] not in packages[package].__all__, before
    assert callable(capture.table)


def test_only_whole_names_are_taken_back() -> None:
    assert renamed.former("experiments.nodes(lab)") == "experiments.members(lab)"
    assert renamed.former("lab.nodes; my_experiments.nodes_of") == "lab.nodes; my_experiments.nodes_of"
    assert renamed.former("c = capture.table(all)") == "c = probes.table(all)"
