"""Pre-submission check: can the notebook be graded as it stands? One sentence per remark."""

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
from labkit.evidence.writer import Writer
from labkit.grading import precheck

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
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    found = precheck.check(path, path.parents[1] / "release")
    return [remark.sentence for remark in found if not remark.ok]


def test_what_can_be_graded_is_said_so(submitted: Path) -> None:
    found = list(precheck.check(submitted, submitted.parents[1] / "release"))
    assert [remark for remark in found if not remark.ok] == []
    shown = " ".join(remark.sentence for remark in found)
    assert "Every question of the lab is in it. Each of them is there once." in shown
    assert "The evidence 03_reach_a_container.evidence.jsonl is there: 2 lines" in shown
    assert "Its chain of hashes is whole." in shown
    assert "Still without an answer" not in shown


def test_missing_and_doubled_cells_are_named(submitted: Path) -> None:
    def double(notebook: Any) -> None:
        notebook.cells.append(copy.deepcopy(notebook.cells[2]))
        notebook.cells[-1].id = "again"

    whole = submitted.read_text()
    change(submitted, lambda notebook: notebook.cells.pop())
    assert refused(submitted) == [
        "These cells are missing: check-cause. Take them from a fresh copy of the lab."
    ]
    submitted.write_text(whole)
    change(submitted, double)
    assert refused(submitted)[0].startswith("These cells are there more than once: answer-cause.")


def test_what_is_not_answered_or_not_run_is_reported_and_can_be_graded(submitted: Path) -> None:
    submitted.write_text((submitted.parents[1] / "release" / submitted.name).read_text())
    found = list(precheck.check(submitted, submitted.parents[1] / "release"))
    shown = " ".join(remark.sentence for remark in found)
    assert all(remark.ok for remark in found)
    assert "Still without an answer, which gives no points: cause." in shown
    assert "3 of 3 code cells show no run" in shown


def test_evidence_that_is_missing_or_broken_is_reported(submitted: Path) -> None:
    file = evidence.beside(submitted)
    text = file.read_text()
    file.write_text(text.replace('"vm"', '"mv"', 1))
    (shown,) = refused(submitted)
    assert shown.startswith("Its chain of hashes is broken: line 1 (attach()) was changed")
    file.unlink()
    writer = Writer(file, "ada")
    row = {"node": "node1", "method": "GET", "path": "/x", "body": None, "error": "no"}
    writer.write("api", cells.Cell(1, "", "x"), writer.now(), row, docker="26.1")
    assert refused(submitted)[0].startswith("The evidence does not say which lab it is of. Remove")
    file.write_text("")
    assert "holds no evidence" in refused(submitted)[0]
    file.unlink()
    assert refused(submitted)[0].startswith("There is no evidence: 03_reach_a_container.evidence.jsonl")


def test_a_cell_that_changed_after_its_run_is_reported(submitted: Path) -> None:
    identity = nbformat.read(submitted, as_version=4).cells[1].id
    writer = Writer(evidence.beside(submitted), "ada")
    row = {"node": "node1", "method": "GET", "path": "/x", "body": None, "error": "no"}
    for text, shown in (("import labkit  # as it was", True), ("import labkit", False)):
        writer.write("api", cells.Cell(1, identity, text), writer.now(), row, docker="26.1")
        found = list(precheck.check(submitted, submitted.parents[1] / "release"))
        changed = "1 cells were changed after they were run (`import labkit`)"
        assert any(remark.sentence.startswith(changed) for remark in found) == shown


def test_another_learners_evidence_is_reported(
    submitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_LEARNER", "bob")
    found = list(precheck.check(submitted, submitted.parents[1] / "release"))
    assert found[-1].sentence.startswith("Parts of the evidence are of ada, and you are bob")


def test_what_is_no_notebook_of_the_kit_is_named(
    submitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precheck, "MAX_NOTEBOOK", 10)
    assert "is the limit" in refused(submitted)[0]
    monkeypatch.undo()
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    other = submitted.with_name("mine.ipynb")
    submitted.rename(other)
    assert "No lab is called mine.ipynb" in refused(other)[0]
    other.write_text("{" + json.dumps(NAME))
    assert "mine.ipynb is no notebook that can be read" in refused(other)[0]


def test_the_verdict_is_printed(
    submitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "RELEASE", submitted.parents[1] / "release")
    labkit.submit_check(submitted)
    shown = capsys.readouterr().out
    assert f"It can be graded. Hand in {NAME}.ipynb and {NAME}.evidence.jsonl." in shown
    evidence.beside(submitted).unlink()
    labkit.submit_check(str(submitted))
    shown = capsys.readouterr().out
    assert "NO  There is no evidence" in shown
    assert shown.endswith("It cannot be graded as it stands: mend what is marked NO, then ask again.\n")
    labkit.submit_check()
    assert capsys.readouterr().out.startswith("Which notebook?")


def test_a_notebook_that_was_renamed_is_told(
    submitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LABKIT_NOTEBOOK", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", str(submitted))
    submitted.rename(submitted.with_name("mine.ipynb"))
    labkit.submit_check()  # no kernel: a program that a cell started, say
    assert capsys.readouterr().out.startswith("Which notebook?")
    monkeypatch.setattr(cells, "_shell", lambda: type("Shell", (), {"kernel": None}))
    labkit.submit_check()
    told = capsys.readouterr().out
    assert f"{NAME}.ipynb is not there any more" in told
    assert "restart the kernel" in told
    monkeypatch.setenv("LABKIT_NOTEBOOK", str(submitted))  # who named it knows where it is
    labkit.submit_check()
    assert capsys.readouterr().out.startswith("Which notebook?")
