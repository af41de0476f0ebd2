"""A roster says whose folder is whose, or which line of it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import UsageError
from labkit.grading import roster, submissions
from tests.grading.course import LAB

MOODLE = "Anna Müller_12345_assignsubmission_file_"


def hand_in(directory: Path, *folders: str) -> None:
    for folder in folders:
        (directory / folder).mkdir(parents=True)
        (directory / folder / f"{LAB}.ipynb").write_text("{}")


@pytest.mark.parametrize("mark", [",", ";"])
def test_a_folder_gets_its_learner(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "roster.csv"
    lines = [
        f"student{mark}group{mark}folder",
        f"anna{mark}3{mark}{MOODLE}",
        f"zoe{mark}3{mark}Zoe Z",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    found = roster.read(path)
    assert found == {MOODLE: "anna", "Zoe Z": "zoe"}
    # As macOS writes it: the two dots are a character of their own.
    hand_in(tmp_path / "in", MOODLE.replace("ü", "u\u0308"), "bob")
    handed_in, notes = submissions.find(tmp_path / "in", [LAB], roster=found)
    assert [(s.student, s.refused, s.path.is_file()) for s in handed_in] == [
        ("anna", "", True),
        ("bob", "", True),
        ("zoe", "", False),
    ]
    assert notes == []


def test_two_folders_of_one_learner(tmp_path: Path) -> None:
    hand_in(tmp_path, "Anna M", "anna")
    found, _ = submissions.find(tmp_path, [LAB], roster={"Anna M": "anna"})
    assert [(s.student, s.refused) for s in found] == [
        ("anna", ""),
        ("anna", "anna has another folder too, Anna M"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,id\nA,ada\n", "no columns folder and student"),
        (b"", "no columns folder and student"),
        (b"folder,student\nA,ada\nB,../eve\n", "line 3: '../eve' cannot be a learner's id"),
        (b"folder,student\nA,\n", "line 2: ' ' cannot be a learner's id"),
        (b"folder,student\nA,ada\nB,ada\n", "line 3: .* is there twice"),
        (b"folder,student\nA,ada\nA,bob\n", "line 3: .* is there twice"),
        (b"folder,student\nM\xfcller,ada\n", "it is not UTF-8"),
    ],
)
def test_a_roster_that_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "roster.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        roster.read(path)
