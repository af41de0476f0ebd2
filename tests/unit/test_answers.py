"""The instructor's key for one learner, and the warning where nobody is a learner of their own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import labkit
from labkit import variants
from labkit.authoring import answers
from labkit.errors import UsageError
from tests.grading import course


def test_the_key_has_the_learners_own_values(tmp_path: Path) -> None:
    (source,) = course.sources(tmp_path)
    rows = {row["id"]: row for row in answers.key(source, "ada")}
    assert list(rows) == ["largest", "total", "port", "why"]
    assert rows["port"]["solution"] == f"port = {variants.of('ada').port}"
    assert rows["total"] == {
        "id": "total",
        "points": 3.0,
        "asked": "The sum of your numbers.",
        "solution": "total = 6",
        "rubric": [],
    }
    assert rows["why"]["solution"] == "Because it is so."
    with pytest.raises(UsageError, match="cannot be a learner's id"):
        answers.key(source, "not an id")


def test_a_shared_login_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_LEARNER", raising=False)
    monkeypatch.setattr(variants.getpass, "getuser", lambda: "jovyan")
    with pytest.warns(UserWarning, match="'jovyan' is a login that many people share"):
        labkit.variant()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labkit.variant("jovyan")  # it was said who it is
        monkeypatch.setenv("LABKIT_LEARNER", "jovyan")
        labkit.variant()
        monkeypatch.delenv("LABKIT_LEARNER")
        monkeypatch.setattr(variants.getpass, "getuser", lambda: "ada")
        labkit.variant()
