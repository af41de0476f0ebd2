"""The labs on their recordings: run once, kept, and run again when something has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit import paths
from labkit.authoring import recorded, release, runner
from labkit.authoring.runner import CheckResult, LabResult
from labkit.outcomes import Outcome
from labkit.progress import Progress

LABS = release.find_labs(paths.SOURCES, ["02", "03"])


class Runner:
    """Runs nothing; notes which labs it was asked for."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.outcome = Outcome.PASS
        self.error: str | None = None

    def __call__(self, sources: Sequence[Path], *, workdir: Path, **_: Any) -> list[LabResult]:
        (source,) = sources
        self.ran.append(source.stem)
        path = workdir / f"{source.stem}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(), path)  # type: ignore[no-untyped-call]
        checks = (CheckResult("who", self.outcome, "The code is 7, and 28 was measured."),)
        return [LabResult(source.stem, "", 1.0, 0.0, checks, self.error, path)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Runner:
    made = Runner()
    monkeypatch.setattr(runner, "run_labs", made)
    return made


def test_a_lab_is_run_once_and_again_when_its_environment_changes(run: Runner, tmp_path: Path) -> None:
    for _ in range(2):
        assert len(recorded.executed(LABS, tmp_path, env={}, progress=Progress())) == 2
    assert run.ran == [lab.stem for lab in LABS]
    recorded.executed(LABS[:1], tmp_path, env={"LABKIT_PROJECTOR": "1"}, progress=Progress())
    assert run.ran[2:] == [LABS[0].stem]
    assert len(list(tmp_path.iterdir())) == 2  # the older one is gone


@pytest.mark.parametrize(
    ("outcome", "error", "said"),
    [
        (Outcome.FAIL, None, "28 was measured"),
        (Outcome.PASS, "cell 3 ended in NameError", "cell 3 ended in NameError"),
    ],
)
def test_a_lab_that_does_not_pass_is_not_kept(
    run: Runner, tmp_path: Path, outcome: Outcome, error: str | None, said: str
) -> None:
    run.outcome, run.error = outcome, error
    with pytest.raises(recorded.RecordingError, match=said):
        recorded.executed(LABS[:1], tmp_path, env={}, progress=Progress())
    assert list(tmp_path.iterdir()) == []


def test_what_a_recording_says_of_its_swarm() -> None:
    row = recorded.row_of_swarm(LABS[0].stem)
    assert len(row["nodes"]) == 3
    assert row["docker"].startswith("26.1")
