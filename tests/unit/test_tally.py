"""`labkit.score()`: what the checks of this notebook said, and no more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import get_ipython

from labkit import outcomes as tally
from labkit.errors import UsageError
from tests.grading import course


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    get_ipython()  # makes one where there is none
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    tally.listen.cache_clear()
    tally.listen()  # as the import of labkit.checks does, once in a process
    yield shell
    tally.listen.cache_clear()
    InteractiveShell.clear_instance()


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    made = course.Course(course.sources(tmp_path)[0])
    path = tmp_path / "release" / f"{course.LAB}.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(made.released))
    return path


def run(shell: InteractiveShell, notebook: Path, **answers: str) -> None:
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
            source = answers.get(grade_id.removeprefix("answer-"), "".join(cell["source"]))
            shell.run_cell(source, store_history=True)


def test_outcomes_of_the_last_run(shell: InteractiveShell, notebook: Path) -> None:
    run(shell, notebook, largest="largest = 3", total="total = 7")
    table = tally.score(notebook)
    assert table["outcome"].to_dict() == {
        "largest": "pass",
        "total": "fail",
        "port": "unanswered",
        "why": "read by a person",
        "all": "1 passed",
    }
    assert table.loc["all", ["points", "of"]].to_list() == [2, 7.5]
    run(shell, notebook, **course.RIGHT)
    assert tally.score(notebook).loc["all", "points"] == 6


def test_a_check_whose_text_was_changed_is_not_that_check(
    shell: InteractiveShell, notebook: Path
) -> None:
    shell.run_cell("from labkit import checks")
    shell.run_cell('"""The largest of your numbers."""\nprint("fine")')
    assert tally.score(notebook).loc["largest", "outcome"] == "not run"
    assert tally.score(notebook).loc["all", "points"] == 0


def test_the_lab_is_found_by_its_checks(shell: InteractiveShell, notebook: Path) -> None:
    with pytest.raises(UsageError, match="no check of a lab has run"):
        tally.score(release=notebook.parent)
    run(shell, notebook, largest="largest = 3")
    assert tally.score(release=notebook.parent).loc["largest", "outcome"] == "pass"


def test_a_notebook_that_is_just_being_saved_is_waited_for(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, asked = notebook.read_text(), tally.questions(notebook)
    notebook.write_text("")
    monkeypatch.setattr(time, "sleep", lambda _: notebook.write_text(whole))
    assert tally.questions(notebook) == asked


def test_what_is_no_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_text("[]")
    with pytest.raises(UsageError, match=r"x\.ipynb cannot be read"):
        tally.questions(tmp_path / "x.ipynb")
