"""Looks in a file of evidence for what does not fit: a report for a person, and not a verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from labkit import variants
from labkit.capture import RECORDED
from labkit.errors import UsageError
from labkit.evidence import cells
from labkit.evidence.reader import Evidence, Line, read
from labkit.nbgrader_cells import check_of

_SLACK_S = 2.0  # what clocks on one machine may differ by, and threads be late
_AHEAD = timedelta(minutes=10)  # what the clocks of two machines may differ by


@dataclass(frozen=True)
class Finding:
    """What does not fit, in a sentence, and the question that it may matter for; None: all of them."""

    question: str | None
    sentence: str


def problems(
    path: Path,
    *,
    learner: str | None = None,
    notebook: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> list[Finding]:
    """Tell what in a file of evidence does not fit; an empty list where all does.

    `learner` is who handed it in. By the `notebook` (nbformat's) that was handed in with it, a finding
    gets its question, and what the notebook shows is looked up in the evidence.
    """
    try:
        evidence = read(path)
    except UsageError as problem:
        return [Finding(None, problem.args[0])]
    questions = _questions(notebook) if notebook else {}
    rows = {line.at: line for line in evidence.lines}
    found = [
        (questions.get(rows[at].row["source"]) if at in rows else None, "chain", sentence)
        for at, sentence in evidence.broken
    ]
    if not evidence.attached:
        found.append((None, "lab", f"no line of {path.name} says that a lab was attached"))
    looks = [
        *(_strangers(evidence.lines, learner) if learner else ()),
        *_impossible(evidence.lines, now or datetime.now(UTC)),
    ]
    found += [(questions.get(line.row["source"]), kind, sentence) for line, kind, sentence in looks]
    if notebook:
        found += _not_shown(evidence.lines, notebook, questions)
        found += _of_another_notebook(evidence.lines, notebook)
    return _gathered(found)


def early(evidence: Evidence, handed_out: datetime) -> list[Finding]:
    """Tell what in the evidence is older than the handing out of the notebook."""
    looks = _early(evidence.lines, handed_out)
    return _gathered((None, kind, sentence) for _, kind, sentence in looks)


def _gathered(found: Iterable[tuple[str | None, str, str]]) -> list[Finding]:
    """Say the same of a hundred lines once for each question."""
    groups: dict[tuple[str | None, str], list[str]] = {}
    for question, kind, sentence in found:
        groups.setdefault((question, kind), []).append(sentence)
    findings = []
    for (question, _), (first, *others) in groups.items():
        more = f"; so it is with {len(others)} more" if others else ""
        findings.append(Finding(question, f"{first}{more}."))
    return findings


def _questions(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Tell which check each code cell comes before, by the hash of the cell's text."""
    found: dict[str, str] = {}
    waiting: list[str] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        question = check_of(cell)
        if question is not None:
            found |= {source: question for source in waiting if source not in found}
            waiting = []
        else:
            waiting.append(cells.source_of("".join(cell["source"])))
    return found


_Looks = Iterator[tuple[Line, str, str]]


def _strangers(lines: Sequence[Line], learner: str) -> _Looks:
    """Find what was asked in another learner's name, or with another's variant."""
    try:
        you = variants.of(learner)
    except UsageError:  # a course may name its learners as it likes; then nobody has a variant
        you = None
    for line in lines:
        whose = line.row["learner"]
        if whose != learner:
            yield line, "learner", f"line {line.at} ({line.asked}) is of {whose!r}, not of {learner!r}"
            continue
        for name, value, own in variants.seen_in(line.row.get("argv", ()), you) if you else ():
            told = f"line {line.at} ({line.asked}) has the {name} {value}; that of {learner!r} is {own}"
            yield line, "variant", told


def _early(lines: Sequence[Line], handed_out: datetime) -> _Looks:
    """Find what was asked before the learners got the notebook."""
    for line in lines:
        moment = datetime.fromtimestamp(line.started, UTC)
        if moment < handed_out - _AHEAD:
            then = f"{handed_out.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            when = f"line {line.at} ({line.asked}) is of {moment:%Y-%m-%d %H:%M} UTC"
            yield line, "early", f"{when}, before the notebook was handed out, {then}"


def _impossible(lines: Sequence[Line], now: datetime) -> _Looks:
    """Find times that cannot be."""
    latest: dict[str, tuple[float, int]] = {}
    for line in lines:
        where = f"line {line.at} ({line.asked})"
        moment = datetime.fromtimestamp(line.started, UTC)
        if moment > now + _AHEAD:
            told = f"{where} is of {moment:%Y-%m-%d %H:%M} UTC, which is still to come"
            yield line, "future", told
        session = line.row["session"]
        before, at = latest.get(session, (line.ended, line.at))
        if line.ended < before - _SLACK_S:
            told = f"{before - line.ended:.0f} s before line {at}, which stands above it"
            yield line, "order", f"{where} ended {told}"
        if line.ended >= before:
            latest[session] = (line.ended, line.at)
        if (capture := line.capture) and capture.seconds > 1.1 * line.row["seconds"] + _SLACK_S:
            took, ran = line.row["seconds"], capture.seconds
            told = f"it ran for {ran:.1f} s, and its answer was there after {took:.1f} s"
            yield line, "length", f"{where} cannot be: {told}"
    yield from _overlapping(lines)


def _overlapping(lines: Sequence[Line]) -> _Looks:
    """Find requests of a cell that are older than a cell that ran before it: one runs at a time."""
    began: dict[tuple[str, int], float] = {}
    for line in lines:
        key = (line.row["session"], line.row["run"])
        began[key] = min(began.get(key, line.started), line.started)
    latest: dict[str, tuple[float, int]] = {}
    # For each run of a cell, the run before it that began last.
    before: dict[tuple[str, int], tuple[float, int]] = {}
    for (session, run), start in sorted(began.items()):
        if run > 0:
            before[session, run] = latest.get(session, (start, run))
            latest[session] = max(before[session, run], (start, run))
    for line in lines:
        run = line.row["run"]
        start, other = before.get((line.row["session"], run), (0.0, 0))
        if line.started < start - _SLACK_S:
            early = f"{start - line.started:.0f} s before the earlier cell run [{other}]"
            where = f"line {line.at} ({line.asked}), of cell run [{run}],"
            yield line, "overlap", f"{where} was asked {early}"


_PROMPT = re.compile(r"^\S[^\n]* \$ ")


def _not_shown(
    lines: Sequence[Line], notebook: Mapping[str, Any], questions: Mapping[str, str]
) -> Iterator[tuple[str | None, str, str]]:
    """Find output of a command that the notebook shows and the evidence does not have."""
    captures = [(line, capture) for line in lines if (capture := line.capture)]
    kept = {str(capture) for _, capture in captures}
    unknown = {_first(str(capture)) for line, capture in captures if "cut" in line.row}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/plain", ""))
            question = questions.get(cells.source_of("".join(cell["source"])))
            if text.startswith(RECORDED):
                yield (
                    question,
                    "replayed",
                    "the notebook shows output of a recording, not of a live swarm",
                )
            elif _PROMPT.match(text) and text not in kept and _first(text) not in unknown:
                told = f"the notebook shows an output of `{_first(text)}` that is not in the evidence"
                yield question, "shown", told


def _of_another_notebook(
    lines: Sequence[Line], notebook: Mapping[str, Any]
) -> Iterator[tuple[str | None, str, str]]:
    """Find evidence of which nothing was asked by a cell of the notebook, but for attaching."""
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    attaching = {cells.source_of(text) for text in texts if "attach(" in text}
    asked = {line.row["source"] for line in lines if line.kind in ("command", "api")} - attaching
    if attaching and asked and asked.isdisjoint(map(cells.source_of, texts)):
        told = "no cell of the notebook asked what it holds: it is another notebook's, or all changed"
        yield None, "notebook", told


def _first(text: str) -> str:
    return text.split("\n", 1)[0][:100]
