"""No file that is handed in harms the batch: right marks and a finding, or a clear refusal."""

from __future__ import annotations

import csv
import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nbconvert.filters import markdown2html

from labkit.evidence import audit, signing
from labkit.grading import feedback, inspection, results, submissions
from labkit.grading.batch import Looks, grade
from labkit.grading.sandbox import Limits
from labkit.grading.submissions import Submission, UnreadableError
from tests.grading import course
from tests.grading.attacks_files import ATTACKS, EVIDENCE, Attack, Place
from tests.grading.conftest import files

IN_BATCH = {n: a for n, a in ATTACKS.items() if a.in_batch or a.points is not None}
HANDED_OUT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An honest learner's folder, the host's key, and the course."""
    base = tmp_path_factory.mktemp("honest")
    sources = course.sources(base)
    place = Place(base / "ada", base / "ada", base / "host.key", course.Course(sources[0]))
    place.notebook()
    signing.make_key(place.key)
    path = place.evidence()
    signing.sign(path, signing.private_key(place.key), lab=course.LAB, learner="ada")
    return place


def hand_in(attack: Attack, folder: str, honest: Place, directory: Path) -> None:
    """Put an attack's folder, and ada's, into a directory."""
    ada = directory / "ada"
    if not ada.exists():
        ada.mkdir(parents=True)
        for path in honest.folder.iterdir():
            (ada / path.name).write_bytes(path.read_bytes())
    (directory / folder).mkdir()
    try:
        attack.make(replace(honest, folder=directory / folder, ada=ada))
    except PermissionError:
        pytest.skip("only root makes devices")


def outcome_of(found: Submission) -> tuple[str, list[str]]:
    """What becomes of a submission, and what its notebook's reader says."""
    if found.refused:
        return "refused", [found.refused]
    if not os.path.lexists(found.path):
        return "missing", []
    try:
        cells = submissions.read(found.path)
    except UnreadableError as problem:
        return "unreadable", [str(problem)]
    assert all(len(cell.id) <= 64 for cell in cells)
    assert len(json.dumps(cells)) < 1_000_000
    said = []
    if path := found.evidence:
        said = [
            f.sentence for f in audit.problems(path, learner=found.student, notebook={"cells": cells})
        ]
    return "taken", said


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_told_and_harms_nobody(name: str, honest: Place, tmp_path: Path) -> None:
    attack, directory = ATTACKS[name], tmp_path / "in"
    hand_in(attack, attack.folder, honest, directory)
    before = files(honest.folder)
    began = time.process_time()
    found, notes = submissions.find(directory, [course.LAB])
    ada, other = sorted(found, key=lambda s: s.student != "ada")
    assert outcome_of(ada) == ("taken", [])
    outcome, said = outcome_of(other)
    inspected = inspection.inspect(found, public_key=Path(f"{honest.key}.pub"), handed_out=HANDED_OUT)
    assert inspected[f"ada {course.LAB}"].signed == "signed"
    report = [*notes, *other.remarks, *said]
    if mine := inspected.get(inspection.name_of(other)):
        report += [finding.sentence for finding in mine.findings]
    assert outcome == attack.outcome, report
    for words in attack.says:
        assert words in "\n".join(report)
    assert all(sentence.isprintable() for sentence in report)
    assert ada.remarks == ()
    assert files(honest.folder) == before
    assert time.process_time() - began < 20


def test_signatures_are_told_apart(honest: Place, tmp_path: Path) -> None:
    signed = {}
    for name in ("evidence_of_ada_renamed", "signature_of_ada", "changed_after_signing"):
        directory = tmp_path / name
        hand_in(ATTACKS[name], "mallory", honest, directory)
        found, _ = submissions.find(directory, [course.LAB])
        inspected = inspection.inspect(found, public_key=Path(f"{honest.key}.pub"))
        signed[name] = inspected[f"mallory {course.LAB}"].signed
    assert signed == {
        "evidence_of_ada_renamed": "unsigned",
        "signature_of_ada": "broken",
        "changed_after_signing": "broken",
    }


# --- one batch, with kernels ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def marked(honest: Place, tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("attacks")
    for name, attack in IN_BATCH.items():
        folder = attack.folder if attack.in_batch else name
        hand_in(attack, folder, honest, base / "in")
    roster = {"Müller Anna": "anna"}
    rows = grade(
        base / "in",
        sources=course.sources(base),
        out=base / "grades.csv",
        limits=Limits(cell_seconds=10, notebook_seconds=90),
        looks=Looks(roster=roster, public_key=Path(f"{honest.key}.pub"), compare=True),
    )
    feedback.write(base / "grades")
    return base, {row["student"]: row for row in rows}


def test_the_batch_gives_everybody_the_right_marks(marked: Any) -> None:
    _, rows = marked
    assert (rows["ada"]["points"], rows["ada"]["evidence"]) == (6, "signed")
    assert (rows["anna"]["points"], rows["anna"]["status"]) == (6, "graded")
    points = {name: rows[name]["points"] for name, a in IN_BATCH.items() if not a.in_batch}
    assert points == {name: a.points for name, a in IN_BATCH.items() if not a.in_batch}
    (why,) = rows["evidence_is_a_bomb"]["findings"]
    assert (why["question"], "larger than 64 MiB" in why["sentence"]) == (None, True)
    refused = [row for row in rows.values() if row["status"] == "refused"]
    assert len(refused) == sum(a.in_batch for a in IN_BATCH.values()) - 1  # one is on the roster
    assert {row["points"] for row in refused} == {None}
    (alike,) = [a for a in rows["evidence_of_ada_renamed"]["alike"] if a["with"].startswith("ada ")]
    assert "1 session" in alike["shared"][0]


def test_tables_and_pages_show_names_and_do_nothing(marked: Any) -> None:
    base, rows = marked
    json.dumps(list(rows.values()), ensure_ascii=False).encode()
    raw = (base / "grades.csv").read_bytes().decode()
    assert not set(raw) & set("\x1b\x07\u202e\ud800")
    with (base / "grades.csv").open(newline="") as file:
        fields = [field for row in csv.reader(file) for field in row]
    assert not [field for field in fields if field.startswith(("=", "+", "-", "@", "\t", "\r"))]
    pages = list((base / "grades" / "feedback").rglob("*.html"))
    assert {page.parts[-3] for page in pages} == {
        s for s, r in rows.items() if r["status"] != "refused"
    }
    for page in pages:
        assert page.is_relative_to(base / "grades" / "feedback")
        assert "onerror" not in page.read_text()


def test_an_answer_in_words_is_shown_and_does_nothing(marked: Any) -> None:
    base, _ = marked
    name = "markup_in_words"
    (page,) = (base / "grades" / "feedback" / name).rglob("*.html")
    assert "a &lt; b, [why](javascript:alert(1))" in page.read_text()
    (ran,) = (base / "grades" / "autograded" / name).rglob("*.ipynb")
    words = [c["source"] for c in json.loads(ran.read_text())["cells"] if c["cell_type"] == "markdown"]
    shown = markdown2html("".join(words[-1]))
    assert "<p>a &lt; b, [why](javascript:alert(1)) !<a href=" in shown
    assert "<img" not in shown


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\uff1d", "a;b\n="])
def test_no_field_begins_a_formula(tmp_path: Path, first: str) -> None:
    refused = Submission("x", "a", "a", tmp_path, refused=f"{first}cmd|' /C calc'!A0")
    results.write_csv(tmp_path / "t.csv", [results.refused_row(refused, 1.0)])
    text = (tmp_path / "t.csv").read_bytes().decode()
    assert all(field.startswith('"') for field in text.splitlines()[0].split(","))
    assert "'=" in text or f"\"'{first}" in text
    assert EVIDENCE not in text
