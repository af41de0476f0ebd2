"""Before it is handed in: can the notebook be graded as it stands? A sentence each."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

import labkit
from labkit import paths
from labkit.authoring import release
from labkit.evidence import cells
from labkit.evidence import files as evidence
from labkit.evidence.files import Writer
from labkit.grading import precheck as submission

NAME = "03_reach_a_container"
SOURCE = """\
# Reach a container

```{code-cell}
import labkit
```

```{code-cell}
:tags: [answer:cause]
### BEGIN SOLUTION
cause = "firewall"
### END SOLUTION
```

```{code-cell}
:tags: [check:cause, points:1]
assert cause == "firewall"
```
"""


@pytest.fixture
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook that was answered and run, with its evidence; the release is beside it."""
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    (tmp_path / f"{NAME}.md").write_text(SOURCE)
    release.release(tmp_path, tmp_path / "release")
    path = tmp_path / "ada" / f"{NAME}.ipynb"
    path.parent.mkdir()
    path.write_text((tmp_path / "release" / path.name).read_text())
    change(path, answered)
    writer = Writer(evidence.beside(path), "ada")
    node = {"name": "node1", "address": "", "container": "", "docker": ""}
    row = {"lab": "default", "engine": "vm", "accel": None, "labkit": "", "nodes": [node]}
    for run in (1, 2):
        writer.write("lab", cells.Cell(run, "", "import labkit"), writer.now(), row, docker="26.1")
    return path


def change(path: Path, how: Callable[[Any], None]) -> None:
    notebook = nbformat.read(path, as_version=4)
    how(notebook)
    nbformat.write(notebook, path)


def answered(notebook: Any) -> None:
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.execution_count = number
            cell.source = cell.source.replace("...", '"arp"')


def refused(path: Path) -> list[str]:
    found = submission.check(path, path.parents[1] / "release")
    return [remark.sentence for remark in found if not remark.ok]


def test_what_can_be_graded_is_said_so(handed: Path) -> None:
    found = list(submission.check(handed, handed.parents[1] / "release"))
    assert [remark for remark in found if not remark.ok] == []
    told = " ".join(remark.sentence for remark in found)
    assert "Every question of the lab is in it. Each of them is there once." in told
    assert "The evidence 03_reach_a_container.evidence.jsonl is there: 2 lines" in told
    assert "Its chain of hashes is whole." in told
    assert "Still without an answer" not in told


def test_missing_and_doubled_cells_are_named(handed: Path) -> None:
    def double(notebook: Any) -> None:
        notebook.cells.append(copy.deepcopy(notebook.cells[2]))
        notebook.cells[-1].id = "again"

    whole = handed.read_text()
    change(handed, lambda notebook: notebook.cells.pop())
    assert refused(handed) == [
        "These cells are missing: check-cause. Take them from a fresh copy of the lab."
    ]
    handed.write_text(whole)
    change(handed, double)
    assert refused(handed)[0].startswith("These cells are there more than once: answer-cause.")


def test_what_is_not_answered_or_not_run_is_told_and_can_be_graded(handed: Path) -> None:
    handed.write_text((handed.parents[1] / "release" / handed.name).read_text())
    found = list(submission.check(handed, handed.parents[1] / "release"))
    told = " ".join(remark.sentence for remark in found)
    assert all(remark.ok for remark in found)
    assert "Still without an answer, which gives no points: cause." in told
    assert "3 of 3 code cells show no run" in told


def test_evidence_that_is_missing_or_broken_is_told(handed: Path) -> None:
    file = evidence.beside(handed)
    text = file.read_text()
    file.write_text(text.replace('"vm"', '"mv"', 1))
    (told,) = refused(handed)
    assert told.startswith("Its chain of hashes is broken: line 1 (attach()) was changed")
    file.unlink()
    writer = Writer(file, "ada")
    row = {"node": "node1", "method": "GET", "path": "/x", "body": None, "error": "no"}
    writer.write("api", cells.Cell(1, "", "x"), writer.now(), row, docker="26.1")
    assert refused(handed)[0].startswith("The evidence does not say which lab it is of. Remove")
    file.write_text("")
    assert "holds no evidence" in refused(handed)[0]
    file.unlink()
    assert refused(handed)[0].startswith("There is no evidence: 03_reach_a_container.evidence.jsonl")


def test_a_cell_that_changed_after_its_run_is_told(handed: Path) -> None:
    identity = nbformat.read(handed, as_version=4).cells[1].id
    writer = Writer(evidence.beside(handed), "ada")
    row = {"node": "node1", "method": "GET", "path": "/x", "body": None, "error": "no"}
    for text, told in (("import labkit  # as it was", True), ("import labkit", False)):
        writer.write("api", cells.Cell(1, identity, text), writer.now(), row, docker="26.1")
        found = list(submission.check(handed, handed.parents[1] / "release"))
        changed = "1 cells were changed after they were run (`import labkit`)"
        assert any(remark.sentence.startswith(changed) for remark in found) == told


def test_another_learners_evidence_is_told(handed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_LEARNER", "bob")
    found = list(submission.check(handed, handed.parents[1] / "release"))
    assert found[-1].sentence.startswith("Parts of the evidence are of ada, and you are bob")


def test_what_is_no_notebook_of_the_kit_is_told(handed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "MAX_NOTEBOOK", 10)
    assert "is the limit" in refused(handed)[0]
    monkeypatch.undo()
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    other = handed.with_name("mine.ipynb")
    handed.rename(other)
    assert "No lab is called mine.ipynb" in refused(other)[0]
    other.write_text("{" + json.dumps(NAME))
    assert "mine.ipynb is no notebook that can be read" in refused(other)[0]


def test_the_verdict_is_printed(
    handed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (handed.parents[1] / "labs").mkdir()
    (handed.parents[1] / "release").rename(handed.parents[1] / "labs" / "release")
    monkeypatch.setattr(paths, "REPOSITORY", handed.parents[1])
    labkit.submit_check(handed)
    told = capsys.readouterr().out
    assert f"It can be graded. Hand in {NAME}.ipynb and {NAME}.evidence.jsonl." in told
    evidence.beside(handed).unlink()
    labkit.submit_check(str(handed))
    told = capsys.readouterr().out
    assert "NO  There is no evidence" in told
    assert told.endswith("It cannot be graded as it stands: mend what is marked NO, then ask again.\n")
    labkit.submit_check()
    assert capsys.readouterr().out.startswith("Which notebook?")
