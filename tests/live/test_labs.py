"""Every lab, with its solutions, on the live swarm: each check passes, and a second time too."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit import paths, release, report, runner, swarm
from tests.conftest import LAB

SOURCES = release.find_labs(paths.REPOSITORY / "labs" / "source")


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_lab(lab: swarm.Lab, source: Path, tmp_path: Path) -> None:
    results = runner.run_labs([source], workdir=tmp_path, env={"LABKIT_LAB": LAB}, timeout=300)
    (result,) = results
    assert result.error is None
    assert [(c.id, c.status, c.message) for c in result.checks if c.status != "pass"] == []
    assert result.checks
    page = report.write_report(results, tmp_path / "report", facts={"Docker": lab.docker})
    text = (page.parent / f"{source.stem}.html").read_text()
    assert "data:image/png;base64" in text
    assert "<table" in text
    for html in (page.read_text(), text):
        assert 'src="http' not in html
