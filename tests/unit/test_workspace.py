"""A learner's copies of the labs: new, renewed, and never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit import workspace
from labkit.errors import UsageError


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two released notebooks."""
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "01_a.ipynb").write_text("one")
    (folder / "02_b.ipynb").write_text("two")
    return folder


def results(copies: list[workspace.Copy]) -> dict[str, str]:
    """Name -> result."""
    return {copy.path.stem: copy.result for copy in copies}


def test_an_empty_folder_gets_every_lab(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mine"
    assert results(workspace.fill(folder, release)) == {"01_a": "copied", "02_b": "copied"}
    assert (folder / "01_a.ipynb").read_text() == "one"
    assert results(workspace.fill(folder, release)) == {"01_a": "current", "02_b": "current"}


def test_work_is_kept_and_what_nobody_touched_is_renewed(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    workspace.fill(folder, release)
    (folder / "01_a.ipynb").write_text("one, and my answer")
    first, _ = workspace.fill(folder, release)
    assert (first.result, first.outdated) == ("kept", False)

    (release / "01_a.ipynb").write_text("one, better")
    (release / "02_b.ipynb").write_text("two, better")
    first, second = workspace.fill(folder, release)
    assert (first.result, first.outdated) == ("kept", True)
    assert (folder / "01_a.ipynb").read_text() == "one, and my answer"
    assert second.result == "updated"
    assert (folder / "02_b.ipynb").read_text() == "two, better"
    assert results(workspace.fill(folder, release)) == {"01_a": "kept", "02_b": "current"}


def test_a_lab_with_evidence_was_worked_on(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    workspace.fill(folder, release)
    (folder / "01_a.evidence.jsonl").write_text("{}")
    (release / "01_a.ipynb").write_text("one, better")
    assert results(workspace.fill(folder, release))["01_a"] == "kept"


def test_a_lab_that_was_removed_comes_fresh(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    workspace.fill(folder, release)
    (folder / "01_a.ipynb").unlink()
    assert results(workspace.fill(folder, release)) == {"01_a": "copied", "02_b": "current"}


@pytest.mark.parametrize("record", [None, "", "[]", "not JSON"])
def test_without_a_record_other_notebooks_count_as_work(
    record: str | None, release: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "01_a.ipynb").write_text("something else")
    if record is not None:
        (folder / workspace.RECORD).write_text(record)
    assert results(workspace.fill(folder, release)) == {"01_a": "kept", "02_b": "copied"}
    assert (folder / "01_a.ipynb").read_text() == "something else"


def test_what_is_no_file_is_left_alone(release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "01_a.ipynb").mkdir(parents=True)
    (folder / "02_b.ipynb").symlink_to("nowhere")
    assert results(workspace.fill(folder, release)) == {"01_a": "kept", "02_b": "kept"}
    assert (folder / "02_b.ipynb").is_symlink()


def test_a_folder_that_cannot_be_used_is_refused(release: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be copied"):
        workspace.fill(tmp_path / "file", release)
    with pytest.raises(UsageError, match="the kit's own"):
        workspace.fill(release, release)
