"""What every lab gives: hints for each check, and a rubric for each answer in words."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from labkit import paths
from labkit.authoring import release
from labkit.nbgrader_cells import Role, question_of, role_of

LABS = release.find_labs(paths.SOURCES)
WITH_OWN_EXPERIMENT = [lab for lab in LABS if lab.stem[:2] != "00"]  # that one is an introduction


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_hints_and_rubrics(lab: Path) -> None:
    notebook = release.read_source(lab)
    notes = notebook.metadata["labkit"]
    checks = {question_of(c): c for c in notebook.cells if role_of(c) is Role.CHECK}
    assert set(notes["hints"]) == set(checks)
    for question, hints in notes["hints"].items():
        is_prediction = "checks.one_of(" in checks[question].source
        assert len(hints) == 3 or (is_prediction and len(hints) == 2), question
        assert [hint for hint in hints if len(hint) > 300] == []
    in_words = {question_of(c) for c in notebook.cells if role_of(c) is Role.TEXT_ANSWER}
    assert set(notes["rubrics"]) == in_words


def sections(notebook: Any) -> dict[str, list[Any]]:
    """The cells below each heading of the second level, by its words."""
    found: dict[str, list[Any]] = {}
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (said := re.findall(r"^## (.+)$", cell.source, re.M)):
            heading = said[-1]
        found.setdefault(heading, []).append(cell)
    return found


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_command_is_typed_in_each_round(lab: Path) -> None:
    found = sections(release.read_source(lab))
    rounds = {name: cells for name, cells in found.items() if name.startswith("Round")}
    assert rounds
    for name, cells in rounds.items():
        typed = {question_of(c) for c in cells if role_of(c) is Role.ANSWER and ".run(" in c.source}
        checks = [c for c in cells if role_of(c) is Role.CHECK and "checks.ran(" in c.source]
        assert typed & {question_of(check) for check in checks}, name


@pytest.mark.parametrize("lab", WITH_OWN_EXPERIMENT, ids=lambda lab: lab.stem)
def test_a_lab_ends_with_an_experiment_of_ones_own(lab: Path) -> None:
    cells = sections(release.read_source(lab))["Your own experiment"]
    (check,) = (c for c in cells if role_of(c) is Role.CHECK)
    assert "checks.compared(" in check.source
    assert [c for c in cells if role_of(c) is Role.TEXT_ANSWER]


def test_most_questions_have_another_answer_for_each_learner() -> None:
    """Of those that are no predictions: their solutions read something of the learner's own swarm."""
    own, all_of_them = 0, 0
    for lab in LABS:
        cells = release.read_source(lab).cells
        checks = {question_of(c): c.source for c in cells if role_of(c) is Role.CHECK}
        for cell in cells:
            if role_of(cell) is not Role.ANSWER or "checks.one_of(" in checks[question_of(cell)]:
                continue
            values = [n.value for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Assign)]
            all_of_them += 1
            own += any(isinstance(n, ast.Name) for value in values for n in ast.walk(value))
    assert own / all_of_them >= 2 / 3, (own, all_of_them)


WORDS_A_MINUTE = 130  # of a text in a second language: 139, M. Brysbaert, 2019; ours are technical
TYPING, READY_MADE = 1.0, 0.25  # minutes for an answer, and for a look at a ready-made cell's output
CHECKED = 0.1  # for what a check says of an answer
STATED = re.compile(r"\*\*What you'll need\.\*\* [^*]*?about (\d+) minutes")
TOLERANCE = 5.0  # minutes


@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_takes_no_longer_than_it_says(lab: Path) -> None:
    notebook = release.read_source(lab)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    stated = next(found for text in texts if (found := STATED.search(text)))
    # The claims of the article, which lab 00 lists, are for looking up.
    read = re.sub(r"<!--.*?-->|^\|[^\n]*\|$", "", "\n".join(texts), flags=re.DOTALL | re.M)
    answers = sum(role_of(cell) is Role.ANSWER for cell in notebook.cells)
    checks = sum(role_of(cell) is Role.CHECK for cell in notebook.cells)
    given = sum(cell.cell_type == "code" for cell in notebook.cells) - answers - checks
    cells = TYPING * answers + READY_MADE * given + CHECKED * checks
    assert len(read.split()) / WORDS_A_MINUTE + cells <= int(stated[1]) + TOLERANCE
