"""What is kept of a batch: which records are still valid, the rows, and the CSV table."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from labkit import files
from labkit.errors import UsageError
from labkit.evidence.files import open_plain
from labkit.grading import lateness, submissions, texts
from labkit.grading.gradebook import Book
from labkit.grading.inspection import Inspected
from labkit.grading.lateness import Due
from labkit.grading.marking import Job
from labkit.grading.submissions import Submission
from labkit.grading.texts import visible

_PACKAGE = Path(__file__).resolve().parent.parent
_COLUMNS = (
    *("student", "assignment", "lab", "points", "max", "to_mark_by_hand", "status", "problem"),
    *("questions", "findings", "evidence", "alike", "handed_in", "days_late", "lost_late"),
)
_OF_A_QUESTION = ("id", "status", "max", "message", "tries", "hints", "asked", "in_words")
_CHUNK = 1024 * 1024  # bytes
_LONGEST = 1000  # characters of a finding


def hash_of_kit() -> str:
    """Return the hash of the kit's code, on which marks depend."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of(submission: Submission, others: Iterable[str]) -> str:
    """Return the hash of everything that a submission's marks depend on; ``others`` are texts."""
    digest = hashlib.sha256()
    for text in others:
        digest.update(hashlib.sha256(text.encode()).digest())
    for path in (submission.path, submission.evidence):
        digest.update(b"|")
        if path is not None:
            with suppress(OSError, UsageError), open_plain(path) as file:
                digest.update(_hash_of(file))
    return digest.hexdigest()


def _hash_of(file: BufferedReader) -> bytes:
    """Return the hash of what may be read of a file; of what is larger, size and date say the rest.

    A file of many terabytes that takes no room on the disk is made in a moment, and never read through.
    """
    digest, left = hashlib.sha256(), submissions.MAX_BYTES
    while data := file.read(min(_CHUNK, left)):
        digest.update(data)
        left -= len(data)
    kept = os.fstat(file.fileno())
    if kept.st_size > submissions.MAX_BYTES:
        digest.update(f"{kept.st_size} {kept.st_mtime_ns}".encode())
    return digest.digest()


def is_marked(job: Job) -> bool:
    """Whether the same submission was marked before, from the same source and by the same kit."""
    with suppress(OSError, ValueError):
        return bool(read_record(job)["key"] == job.key) and job.notebook.is_file()
    return False


def read_record(job: Job) -> dict[str, Any]:
    """Read what was found when a submission was marked; `marking` describes it."""
    record: dict[str, Any] = json.loads(job.record.read_text(encoding="utf-8"))
    return record


def changed(job: Job, questions: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return which questions have another answer, or other points, than when they were last entered.

    A record is written anew whenever something is marked again, and a batch may be stopped before that
    is entered.
    """
    entered: dict[str, str] = {}
    with suppress(OSError, ValueError):
        entered = json.loads(job.entered.read_text(encoding="utf-8"))
    return {name for name, found in _hashes(questions).items() if entered.get(name) != found}


def keep_entered(job: Job, questions: Iterable[Mapping[str, Any]]) -> None:
    """Note that the gradebook has these questions of a record."""
    files.write_json(job.entered, _hashes(questions))


def _hashes(questions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    found = {
        question["id"]: json.dumps([question["points"], question["answer"]]) for question in questions
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in found.items()}


def row(book: Book, job: Job, inspected: Inspected, due: Due) -> dict[str, Any]:
    """Return the row of a submission, as `labkit grade --json` has it.

    The points are the gradebook's, where people may change them; None: a person still gives them. What
    lateness costs is taken off the sum.
    """
    submission = job.submission
    record = read_record(job)
    scores = book.scores(submission)
    questions = []
    for question in record["questions"]:
        kept = {name: question[name] for name in _OF_A_QUESTION}
        questions.append({**kept, "points": scores[question["id"]].points})
    later = [
        *({"question": None, "sentence": remark} for remark in submission.remarks),
        *(
            {"question": f.question, "sentence": visible(f.sentence, _LONGEST)}
            for f in inspected.findings
        ),
    ]
    earned = sum(q["points"] or 0 for q in questions)
    came = lateness.handed_in(submission.path)
    days = due.days_late(submission.lab, came)
    lost = due.lost(earned, days)
    return {
        "student": submission.student,
        "assignment": submission.assignment,
        "lab": submission.lab,
        "points": earned - lost,
        "max": sum(q["max"] for q in questions),
        "to_mark_by_hand": sum(scores[q["id"]].by_hand for q in questions),
        "status": record["status"],
        "problem": record["problem"],
        "questions": questions,
        "predictions": record["predictions"],
        "findings": [*record["findings"], *later],
        "evidence": inspected.signed,
        "alike": [],
        "seconds": record["seconds"],
        "handed_in": came.isoformat() if came else "",
        "days_late": days,
        "lost_late": lost,
    }


def refused_row(submission: Submission, most: float) -> dict[str, Any]:
    """Return the row of a submission that is not marked: it has no points, and says why."""
    return {
        "student": submission.student,
        "assignment": submission.assignment,
        "lab": submission.lab,
        "points": None,
        "max": most,
        "to_mark_by_hand": 0,
        "status": "refused",
        "problem": submission.refused,
        "questions": [],
        "predictions": [],
        "findings": [{"question": None, "sentence": remark} for remark in submission.remarks],
        "evidence": "",
        "alike": [],
        "seconds": 0.0,
        "handed_in": "",
        "days_late": 0,
        "lost_late": 0.0,
    }


def predictions(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sum the predictions of a class: one row per lab, question and thing that was predicted.

    Each has lab, question, name, made (how many learners), as_measured (of these), and others, the
    predictions that were measured otherwise, with how many made each.
    """
    found: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        for one in row["predictions"]:
            found.setdefault((row["lab"], one["question"], one["name"]), []).append(one)
    return [
        {
            "lab": lab,
            "question": question,
            "name": name,
            "made": len(made),
            "as_measured": sum(_came_true(one) for one in made),
            "others": dict(Counter(one["predicted"] for one in made if not _came_true(one))),
        }
        for (lab, question, name), made in found.items()
    ]


def _came_true(prediction: Mapping[str, str]) -> bool:
    """Whether it was measured as predicted; text compares without regard to case, as in a check."""
    return prediction["predicted"].casefold() == prediction["measured"].casefold()


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the table of marks: one line per row, questions and findings as text.

    Every field is quoted, and none can begin a formula.
    """
    texts.write_csv(path, _COLUMNS, map(_in_words, rows))


def _in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    marks = [
        f"{q['id']} {_points(q['points'])}/{_points(q['max'])}{_tries(q)}" for q in row["questions"]
    ]
    findings = [
        f"{f['question']}: {f['sentence']}" if f["question"] else f["sentence"] for f in row["findings"]
    ]
    alike = [f"{a['with']}: {', '.join(a['shared'])}" for a in row["alike"]]
    return {
        **row,
        "questions": "; ".join(marks),
        "findings": "\n".join(findings),
        "alike": "\n".join(alike),
    }


def _tries(question: Mapping[str, Any]) -> str:
    """Say how many wrong answers and hints a question had; empty where it had none."""
    words = {"tries": ("miss", "misses"), "hints": ("hint", "hints")}
    told = [f"{question[n]} {w[question[n] > 1]}" for n, w in words.items() if question[n]]
    return f" ({', '.join(told)})" if told else ""


def _points(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"
