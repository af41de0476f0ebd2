"""What every lab gives: hints for each check, and a rubric for each answer in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit import paths
from labkit.authoring import release
from labkit.nbgrader_cells import Role, question_of, role_of

LABS = release.find_labs(paths.SOURCES)


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
