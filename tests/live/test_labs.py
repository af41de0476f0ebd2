"""Labs, with their solutions, on the live swarm: each check passes, and the evidence replays.

All of them take more than half an hour in emulation, so this is one; lab 03 runs live from the wheel,
in tests/dist. Each lab is replayed in tests/grading, where a request that was never recorded fails,
and `make matrix` runs every one live, on three versions of Docker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit import paths, swarm
from labkit.authoring import release, report, runner
from tests.conftest import LAB

LABS = ["06"]  # names, as tasks and nodes ask for them; rules, IPVS and ESP are what test_faults sees
SOURCES = release.find_labs(paths.REPOSITORY / "labs" / "source", LABS)


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_lab(lab: swarm.Lab, source: Path, tmp_path: Path) -> None:
    # This learner's variant has three replicas; more of them take minutes in emulation.
    env = {"LABKIT_LAB": LAB, "LABKIT_LEARNER": "learner"}
    results = runner.run_labs([source], workdir=tmp_path, env=env, timeout=300)
    (result,) = results
    assert result.error is None
    assert [(c.id, c.status, c.message) for c in result.checks if c.status != "pass"] == []
    assert result.checks
    page = report.write_report(
        results, tmp_path / "report", facts={"Docker": lab.docker}, statements={}
    )
    text = (page.parent / f"{source.stem}.html").read_text()
    assert "data:image/png;base64" in text
    assert "<table" in text
    for html in (page.read_text(), text):
        assert 'src="http' not in html

    (again,) = runner.run_labs(
        [source], workdir=tmp_path / "again", env=env, timeout=300, replay=tmp_path
    )
    assert again.error is None
    assert [(c.id, c.status) for c in again.checks] == [(c.id, c.status) for c in result.checks]
    assert seen(again.notebook_path) == seen(result.notebook_path)


def seen(notebook: Path) -> list[Any]:
    """The tables and plots of a notebook that ran, cell by cell."""
    cells = nbformat.read(notebook, as_version=4).cells  # type: ignore[no-untyped-call]
    shown = [(cell.id, o["data"]) for cell in cells for o in cell.get("outputs", ()) if "data" in o]
    tables = [(name, d["text/html"]) for name, d in shown if "<table" in d.get("text/html", "")]
    return tables + [(name, d["image/png"]) for name, d in shown if "image/png" in d]
