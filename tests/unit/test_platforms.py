"""Marks for Moodle and Canvas: put into their own exports, and nothing else of these changed."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from labkit.errors import LabkitError
from labkit.grading import platforms
from labkit.grading.platforms import Mark
from tests import BIN

CANVAS = """\
Student,ID,SIS User ID,SIS Login ID,Section,03 Reach a container (3311),04 Overlay (3312),Final Score
    Points Possible,,,,,31,10,(read only)
"Lovelace, Ada",101,s1,ada,A,,,0
"Babbage, Charles",102,s2,charles,A,7,9,0
"Turing, Alan",103,s3,alan,B,,,0
"""
MOODLE = (
    "\ufeff"
    '"First name","Last name","ID number","Email address","Assignment: Lab 03 (Real)",'
    '"Assignment: Lab 03 (Percentage)","Last downloaded from this course"\r\n'
    "Ada,Lovelace,,ada@example.org,-,-,1795370000\r\n"
    'Alan,"Turing; OBE",,alan@example.org,-,-,1795370000\r\n'
)
WORKSHEET = """\
Identifier,Full name,Email address,Status,Grade,Maximum grade,Feedback comments
Participant 7,Ada Lovelace,ada@example.org,Submitted for grading,,62.00,
"""
MARKS = [
    Mark("ada", "03_reach_a_container", 25.5, 31, 0),
    Mark("Alan", "03_reach_a_container", 3, 31, 2),
]


def exported(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "export.csv"
    path.write_bytes(text.encode())
    return path


def test_canvas_gets_its_own_file_with_the_marks_in_it(tmp_path: Path) -> None:
    filled = platforms.fill(exported(tmp_path, CANVAS), MARKS)
    expected = CANVAS.replace(
        '"Lovelace, Ada",101,s1,ada,A,,,0', '"Lovelace, Ada",101,s1,ada,A,25.5,,0'
    )
    assert filled.text == expected
    assert filled.marks == 1
    assert filled.left_out == (
        "Alan 03: 2 answers are still to be read",
        "charles: no marks",
        "alan: no marks",
    )
    more = platforms.fill(exported(tmp_path, CANVAS), MARKS, unread=True)
    assert 'Alan",103,s3,alan,B,3,,0' in more.text


def test_moodle_keeps_its_form(tmp_path: Path) -> None:
    real, percent = "Assignment: Lab 03 (Real)", "Assignment: Lab 03 (Percentage)"
    export = exported(tmp_path, MOODLE)
    with pytest.raises(LabkitError, match="which column of the export is for lab 03"):
        platforms.fill(export, MARKS)
    filled = platforms.fill(export, MARKS[:1], columns={"03": real})  # "ID number" is empty
    assert filled.text.startswith("\ufeff")
    rows = list(csv.reader(filled.text.removeprefix("\ufeff").splitlines()))
    assert rows[1] == ["Ada", "Lovelace", "", "ada@example.org", "25.5", "-", "1795370000"]
    assert rows[2][1] == "Turing; OBE"
    assert filled.text.count("\r\n") == 3
    shown = platforms.fill(export, MARKS[:1], columns={"03": percent}, learner="Email address")
    assert "82.26 %" in shown.text


def test_another_maximum_is_scaled_only_where_that_is_asked_for(tmp_path: Path) -> None:
    export = exported(tmp_path, WORKSHEET)
    with pytest.raises(LabkitError, match="gives 31 points, and 'Grade' takes 62"):
        platforms.fill(export, MARKS[:1])
    assert ",51,62.00," in platforms.fill(export, MARKS[:1], scale=True).text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nothing", "has no learners"),
        ("a,b\n1,2\n", "no column of the export is called ''"),
        (CANVAS.replace("charles", "ADA"), "has 'ada' twice in 'SIS Login ID'"),
        (CANVAS.replace("03 Reach a container", "ARP"), "Its name or number have: none"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(LabkitError, match=told.replace("'", ".")):
        platforms.fill(exported(tmp_path, text), MARKS)


def test_two_marks_for_one_lab_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabkitError, match="ada 03 has two marks for one lab"):
        platforms.fill(exported(tmp_path, CANVAS), [MARKS[0], MARKS[0]])


def test_the_command_fills_in_what_grade_wrote(tmp_path: Path) -> None:
    grades, out = tmp_path / "grades.csv", tmp_path / "filled.csv"
    grades.write_text(
        '"student","assignment","lab","points","max","to_mark_by_hand","status"\n'
        '"ada","ps1","03_reach_a_container","25.5","31","0","marked"\n'
        '"eve","ps1","03_reach_a_container","","31","0","refused"\n'
    )
    into = exported(tmp_path, CANVAS)
    argv = [BIN, "marks", grades, "--into", into, "--out", out]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "marks: 1" in done.stdout
    assert "ada,A,25.5," in out.read_text()
    wrong = subprocess.run([*argv, "--column", "03"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--column wants LAB=TITLE" in wrong.stderr
    lost = subprocess.run(
        [BIN, "marks", into, "--into", into, "--out", out], capture_output=True, text=True, check=False
    )
    assert "is no table of marks" in lost.stderr
