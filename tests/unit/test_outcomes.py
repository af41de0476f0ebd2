"""The outcomes of checks, and `labkit.score()`, which shows those of this notebook."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import get_ipython

from labkit import nbgrader_cells, outcomes
from labkit.errors import CheckFailed, CouldNotRun, Unanswered, UsageError
from labkit.evidence import cells
from tests.grading import course


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    get_ipython()  # makes one where there is none
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    outcomes.listen.cache_clear()
    cells._watch.cache_clear()
    outcomes.listen()  # as the import of labkit.checks does, once in a process
    yield shell
    outcomes.listen.cache_clear()
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
            question = nbgrader_cells.question_of(cell)
            is_answer = nbgrader_cells.role_of(cell).is_answer and question in answers
            source = answers[question] if is_answer else "".join(cell["source"])
            shell.run_cell(source, store_history=True)


def test_outcomes_of_the_last_run(shell: InteractiveShell, notebook: Path) -> None:
    run(shell, notebook, largest="largest = 3", total="total = 7")
    table = outcomes.score(notebook)
    assert table["outcome"].to_dict() == {
        "largest": "pass",
        "total": "fail",
        "port": "unanswered",
        "why": "read by a person",
        "all": "1 passed",
    }
    assert table.loc["all", ["points", "of"]].to_list() == [2, 7.5]
    run(shell, notebook, **course.RIGHT)
    assert outcomes.score(notebook).loc["all", "points"] == 6


def test_a_check_whose_text_was_changed_is_not_that_check(
    shell: InteractiveShell, notebook: Path
) -> None:
    shell.run_cell("from labkit import checks")
    shell.run_cell('"""The largest of your numbers."""\nprint("fine")')
    assert outcomes.score(notebook).loc["largest", "outcome"] == "not run"
    assert outcomes.score(notebook).loc["all", "points"] == 0


def test_a_check_of_a_cell_that_never_ran_says_what_to_run(
    shell: InteractiveShell,
    notebook: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cells, "notebook", lambda: notebook)
    shell.run_cell("from labkit import checks")
    check = next(q for q in outcomes.questions(notebook) if q.id == "largest")
    done = shell.run_cell(check.text, store_history=True)
    assert isinstance(done.error_in_exec, NameError)
    said = capsys.readouterr().out
    assert "The check reads largest, and no cell that gives it a value has run" in said
    assert "Traceback" not in said
    # Another cell's mistake is shown as ever.
    shell.run_cell("largestt + 1", store_history=True)
    assert "Traceback" in capsys.readouterr().out


def test_the_lab_is_found_by_its_checks(shell: InteractiveShell, notebook: Path) -> None:
    with pytest.raises(UsageError, match="no check of a lab has run"):
        outcomes.score(release=notebook.parent)
    run(shell, notebook, largest="largest = 3")
    assert outcomes.score(release=notebook.parent).loc["largest", "outcome"] == "pass"


def test_of_two_labs_with_a_check_in_common_the_one_is_found_that_ran(
    shell: InteractiveShell, notebook: Path
) -> None:
    other = json.loads(notebook.read_text())
    graded = [cell for cell in other["cells"] if nbgrader_cells.role_of(cell).is_graded]
    common = next(cell for cell in graded if nbgrader_cells.question_of(cell) == "largest")
    other["cells"] = [common]
    (notebook.parent / "00_before_it.ipynb").write_text(json.dumps(other))
    run(shell, notebook, largest="largest = 3")
    found = outcomes.score(release=notebook.parent)
    assert len(found) == len(graded) + 1


def test_a_notebook_that_is_just_being_saved_is_waited_for(
    notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = notebook.read_text(), outcomes.questions(notebook)
    notebook.write_text("")
    monkeypatch.setattr(time, "sleep", lambda _: notebook.write_text(whole))
    assert outcomes.questions(notebook) == expected


def test_what_is_no_notebook_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_text("[]")
    with pytest.raises(UsageError, match=r"x\.ipynb cannot be read"):
        outcomes.questions(tmp_path / "x.ipynb")


@pytest.mark.parametrize("error", [CheckFailed, Unanswered, CouldNotRun])
def test_every_error_of_a_check_has_its_outcome(error: type[CheckFailed]) -> None:
    outcome, sentence = outcomes.explained(error.__name__, "so it is")
    assert (outcome, sentence) == (outcomes.of_error(error.__name__), "so it is")
    assert outcome is not outcomes.Outcome.PASS


def test_any_other_error_means_a_check_that_could_not_run() -> None:
    assert outcomes.explained("NameError", "no x") == (
        "could not run",
        "The check ended in NameError: no x",
    )
