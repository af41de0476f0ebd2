"""Every lab, with its solutions, on the live swarm: each check passes.

A lab mostly waits, for time-outs and for the swarm, so two run side by side, each on its own swarm.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from labkit import paths, release, report, runner, swarm
from labkit.progress import Bars
from tests.conftest import LAB

SOURCES = release.find_labs(paths.REPOSITORY / "labs" / "source")
BESIDE = f"{LAB}-beside"


@pytest.fixture(scope="module")
def runs(
    lab: swarm.Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[runner.LabResult]]]:
    """What each lab gave or will give."""
    free: SimpleQueue[str] = SimpleQueue()
    free.put(LAB)

    def run(source: Path) -> runner.LabResult:
        name = free.get()
        try:
            (result,) = runner.run_labs(
                [source],
                workdir=tmp_path_factory.mktemp(source.stem),
                env={"LABKIT_LAB": name},
                timeout=300,
            )
        finally:
            free.put(name)
        return result

    swarm.down(BESIDE)
    with ThreadPoolExecutor(2) as pool:
        try:
            swarm.up(BESIDE, engine="vm", progress=Bars()).lab.close()
            free.put(BESIDE)
            yield {source.stem: pool.submit(run, source) for source in SOURCES}
        finally:
            pool.shutdown(cancel_futures=True)
            swarm.down(BESIDE)


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_lab(
    lab: swarm.Lab, runs: dict[str, Future[runner.LabResult]], source: Path, tmp_path: Path
) -> None:
    result = runs[source.stem].result()
    assert result.error is None
    assert [(c.id, c.status, c.message) for c in result.checks if c.status != "pass"] == []
    assert result.checks
    page = report.write_report([result], tmp_path / "report", facts={"Docker": lab.docker})
    text = (page.parent / f"{source.stem}.html").read_text()
    assert "data:image/png;base64" in text
    assert "<table" in text
    for html in (page.read_text(), text):
        assert 'src="http' not in html
