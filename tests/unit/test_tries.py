"""What a learner is told after a miss, the hints, and the notes of both in the evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import get_ipython

import labkit
from labkit import checks, outcomes, tries
from labkit.authoring import release
from labkit.errors import UnknownNameError, UsageError
from labkit.evidence import cells, notes, reader
from labkit.evidence.recorded import Recorder
from labkit.evidence.writer import Writer
from tests.grading import course

HINTS = """
<!-- hints: largest
1. Look at `numbers`.
2. Put them in order.
3. It is the last one then.
-->

What do they add up to?"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A notebook's shell with the course's lab, whose first question has hints."""
    lab = tmp_path / "labs" / f"{course.LAB}.md"
    lab.parent.mkdir()
    lab.write_text(course.SOURCE.replace("\nWhat do they add up to?", HINTS))
    (tmp_path / f"{course.LAB}.ipynb").write_text(release.build(lab))
    monkeypatch.setattr(outcomes, "_released_labs", lambda: tmp_path)
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    get_ipython()
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    caches = (outcomes.listen, cells._watch, tries._kept_by)
    for cache in caches:
        cache.cache_clear()
    outcomes.listen()
    cells.now()
    shell.run_cell("from labkit import checks\nnumbers = [3, 1, 2]")
    yield shell
    notes.keep(None)
    for cache in caches:
        cache.cache_clear()
    InteractiveShell.clear_instance()


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A file of evidence that notes are kept in."""
    path = tmp_path / "mine.evidence.jsonl"
    notes.keep(Recorder(Writer(path, "ada"), "node1", "26.1"))
    return path


def check(shell: InteractiveShell, question: str, answer: str) -> str:
    """Answer a question, and run its check; returns what the check says where it does not pass."""
    found = {q.id: q for q in outcomes.questions(outcomes.notebook_of("01"))}[question]
    shell.run_cell(answer, store_history=True)
    result = shell.run_cell(found.text, store_history=True)
    return str(result.error_in_exec or "")


def test_a_miss_is_told_where_to_look_and_the_third_what_was_measured(
    shell: InteractiveShell,
) -> None:
    for wrong in (1, 2, 2, 1):  # the same one again is no new try
        said = check(shell, "largest", f"largest = {wrong}")
        assert said.startswith(f"The largest on node2: {wrong} is not what was measured.")
        assert "Where to look: Look at `numbers`." in said
        assert 'labkit.hint("largest")' in said
        assert "3" not in said
    assert check(shell, "largest", "largest = 9") == ("The largest on node2: you said 9, measured 3.")
    assert check(shell, "largest", "largest = 3") == ""


def test_without_hints_and_in_marking_all_is_told_at_once(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "measured 5" in check(shell, "port", "import labkit; you = labkit.variant('ada'); port = 1")
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert "measured 3" in check(shell, "largest", "largest = 1")


def test_hints_come_one_by_one(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no check has missed yet"):
        labkit.hint()
    check(shell, "largest", "largest = 1")  # shows the first one
    capsys.readouterr()
    labkit.hint()
    assert capsys.readouterr().out == "Hint 1: Look at `numbers`.\nHint 2: Put them in order.\n"
    for _ in range(2):
        labkit.hint("01.largest")
    assert capsys.readouterr().out.count("Hint 3: It is the last one then.") == 2
    with pytest.raises(UsageError, match=r"there are no hints for 01\.total"):
        labkit.hint("01.total")
    with pytest.raises(UnknownNameError, match="largst"):
        labkit.hint("01.largst")
    with pytest.raises(UnknownNameError, match="lab"):
        labkit.hint("77.largest")


def test_tries_hints_and_predictions_are_evidence(shell: InteractiveShell, evidence: Path) -> None:
    for wrong in (1, 1, 2):
        check(shell, "largest", f"largest = {wrong}")
    labkit.hint("largest")
    lines = notes.of(reader.read(evidence).lines)
    assert [(n.kind, n.row.get("answer"), n.row.get("step")) for n in lines] == [
        ("try", "1", None),
        ("try", "2", None),
        ("hint", None, 2),
    ]
    assert reader.read(evidence).broken == ()
    tries._kept_by.cache_clear()  # the kernel is restarted: the third try is the third
    assert "measured 3" in check(shell, "largest", "largest = 0")
    assert notes.counts(notes.earlier()) == {"largest": (3, 1)}


def test_what_was_tried_is_known_when_evidence_is_kept_again(
    shell: InteractiveShell, evidence: Path
) -> None:
    for wrong in (1, 2):
        check(shell, "largest", f"largest = {wrong}")
    recorder = notes.recorder()
    notes.keep(None)
    tries._kept_by.cache_clear()  # a new kernel, in which `attach` has not run yet
    assert len(tries.hints("largest")) == 1
    notes.keep(recorder)
    assert "measured 3" in check(shell, "largest", "largest = 0")


def test_a_prediction_is_shown_beside_what_was_measured(
    shell: InteractiveShell, evidence: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks.predicted("yes", "no", name="an answer")
    checks.predicted("no", "no", name="an answer")
    checks.predicted(..., "no", name="an answer")
    assert capsys.readouterr().out.splitlines() == [
        "You predicted 'yes' for an answer. Measured: 'no'.",
        "You predicted 'no' for an answer, and so it was measured.",
        "You made no prediction for an answer. Measured: 'no'.",
    ]
    assert not evidence.exists() or not notes.earlier()  # no question's check called it
    with pytest.raises(checks.CouldNotRun):
        checks.predicted("yes", None, name="an answer")


def test_hints_are_in_the_release_and_not_in_its_text(shell: InteractiveShell) -> None:
    notebook = json.loads(outcomes.notebook_of("01").read_text())
    assert notebook["metadata"]["labkit"]["hints"]["largest"][0] == "Look at `numbers`."
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    assert not [text for text in texts if "hints:" in text or "Put them in order" in text]
    assert "What do they add up to?" in texts


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("<!-- hints: largst\n1. Look.\n-->", "there is no check:largst"),
        ("<!-- hints: largest\nLook.\n-->", "hints are lines"),
        ("<!-- hints: largest\n2. Look.\n-->", "hints are lines"),
        ("<!-- hints: largest\n1. a\n2. b\n3. c\n4. d\n-->", "hints are lines"),
        ("<!-- hints: largest\n1. a\n-->\n\n<!-- hints: largest\n1. b\n-->", "has hints twice"),
    ],
)
def test_bad_hints_are_refused_with_their_line(tmp_path: Path, block: str, problem: str) -> None:
    lab = tmp_path / f"{course.LAB}.md"
    text = course.SOURCE.replace("What do they add up to?", f"{block}\n\nWhat do they add up to?")
    lab.write_text(text)
    with pytest.raises(UsageError, match=problem) as refused:
        release.build(lab)
    line = text.splitlines().index(block.splitlines()[0]) + 1
    assert f"line {line}:" in str(refused.value)


def test_what_is_answered_in_words_has_no_hints() -> None:
    """The score lists such a question beside the others, so its name is a known one."""
    with pytest.raises(UsageError, match="why is answered in words, which a person reads"):
        tries.find("03.why")
