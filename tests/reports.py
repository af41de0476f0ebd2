"""What reports are made from: two labs that ran, and the rows of a class that was marked."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbformat
from nbformat import v4

from labkit.authoring.runner import CheckResult, LabResult
from labkit.outcomes import Outcome

PNG = base64.b64encode(b"\x89PNG pretend").decode()
ALT = 'Who reaches whom. In it: ✗ time-out, "HI".'
_LINE = "<tr><th>{}</th><td>10.0.1.{}</td></tr>"


def table(rows: int) -> str:
    """A table as pandas writes it."""
    body = "".join(_LINE.format(n, n) for n in range(rows))
    head = "<thead><tr><th></th><th>address</th></tr></thead>"
    style = "<style scoped>.dataframe thead th { text-align: right; }</style>"
    return f'<div>{style}<table class="dataframe">{head}<tbody>{body}</tbody></table></div>'


def labs(directory: Path) -> list[LabResult]:
    """Two labs that ran: one with every outcome and what a hostile notebook shows, one that stopped."""
    hostile = '<script src="https://evil.example/x.js"></script>'
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "a1"}, "text/plain": "a widget"}
    outputs = [
        v4.new_output(
            "display_data",
            {"image/png": PNG + "\n", "text/plain": "Figure"},
            metadata={"image/png": {"alt": ALT}},
        ),
        v4.new_output("display_data", {"image/png": PNG, "text/plain": "Figure"}),
        v4.new_output("execute_result", {"text/html": table(2), "text/plain": "df"}),
        v4.new_output("execute_result", {"text/html": table(40), "text/plain": "df"}),
        v4.new_output("display_data", {"text/html": hostile}),
        v4.new_output("display_data", widget),
        v4.new_output("stream", name="stdout", text="3 <packets> dropped\n"),
    ]
    cells = [
        v4.new_markdown_cell("# Reach a container\n\n[more](https://docs.docker.com) $x^2$"),
        v4.new_markdown_cell("## Who drops it?\n\n![p](https://evil.example/p.png)"),
        v4.new_markdown_cell("Text without a heading of its own."),
        v4.new_code_cell("df", outputs=outputs),
    ]
    path = directory / "03_reach_a_container.ipynb"
    nbformat.write(v4.new_notebook(cells=cells), path)  # type: ignore[no-untyped-call]
    checks = tuple(
        CheckResult(f"check_{n}", status, f"Sentence {n} with <b> and `curl`.")
        for n, status in enumerate(Outcome)
    )
    claims = {"icmp-crosses": True, "tcp-<is>-lost": False}
    return [
        LabResult("03_reach_a_container", "Reach a container", 12.34, 3.0, checks, None, path, claims),
        LabResult("04_join_an_overlay", "Join an <overlay>", 1.0, 0.5, (), "cell 2 broke", path),
    ]


def row(student: str, lab: str = "03_reach_a_container", **changes: Any) -> dict[str, Any]:
    """The row of a learner who passed `who` and has written an answer that waits to be read."""
    made = {
        "student": student,
        "assignment": lab,
        "lab": lab,
        "questions": [
            question("who", points=2.0),
            question("why", status="by hand", points=None, in_words=True),
        ],
        "status": "graded",
        "problem": "",
        "predictions": [],
        "findings": [],
        "evidence": "",
        "alike": [],
        "seconds": 1.0,
        **changes,
    }
    questions = made["questions"]
    return {
        "points": sum(q["points"] or 0 for q in questions),
        "max": sum(q["max"] for q in questions),
        "to_mark_by_hand": sum(q["points"] is None for q in questions),
        **made,
    }


def question(name: str, **changes: Any) -> dict[str, Any]:
    """A question of a row, passed unless it is told otherwise."""
    made = {"id": name, "status": "pass", "max": 2.0, "points": 0.0, "message": "Fits."}
    return {**made, "tries": 0, "hints": 0, "asked": f"Say `{name}`.", "in_words": False, **changes}


def klass() -> list[dict[str, Any]]:
    """The rows of a class of five, who are in five places."""
    who = {"status": "fail", "tries": 2, "hints": 1}
    guess = {"question": "who", "name": "the code", "measured": "28"}
    return [
        row("ada", predictions=[{**guess, "predicted": "28"}]),
        row("bob", questions=[question("who", **who), question("arp", points=2.0)]),
        row("bob", "04_join_an_overlay", questions=[question("join", points=2.0)]),
        row(
            "cy",
            questions=[question("who", status="unanswered"), question("arp", points=2.0)],
            predictions=[{**guess, "predicted": "7"}],
            findings=[{"question": "who", "sentence": "A line was taken out."}],
            alike=[{"with": "bob", "shared": ["evidence: the session"]}],
            evidence="broken",
        ),
        row(
            "dan",
            status="missing",
            problem="it was not handed in",
            questions=[question("who", status="could not run"), question("why", in_words=True)],
        ),
        row(
            "eve",
            status="stopped",
            problem="it took too long",
            questions=[question("who", status="could not run"), question("arp", status="fail")],
        ),
    ]
