"""What a class's submissions share: honest labs nothing, copies what only one run of a lab can have."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from labkit import paths
from labkit.evidence import files, reader, traits
from labkit.grading import inspection, likeness
from labkit.grading.likeness import Answer
from labkit.grading.submissions import Submission
from tests.grading.attacks_files import rechain

RECORDINGS = sorted(paths.EVIDENCE.glob(f"*{files.SUFFIX}.gz"))
# Each goes on with what the one before has left.
IN_A_ROW = {("04", "05"), ("04", "06"), ("05", "06"), ("13", "14")}
Row = dict[str, Any]


def test_labs_of_one_snapshot_share_nothing_of_their_own() -> None:
    found = {path.name[:2]: traits.traits_of(reader.read(path)) for path in RECORDINGS}
    pairs = list(itertools.combinations(found.items(), 2))
    alike = [(one, other) for (one, a), (other, b) in pairs if a.seen & b.seen]
    assert len(alike) >= 55  # eleven of them, at least, come from one snapshot
    for (one, a), (other, b) in pairs:
        assert not a.sessions & b.sessions
        assert not a.times & b.times
        assert not a.macs & b.macs
        shared = (a.made & b.seen) | (b.made & a.seen)
        assert not shared or (one, other) in IN_A_ROW
    assert all(len(t.made) >= 5 and len(t.times) > 30 for t in found.values())
    assert any(t.macs for t in found.values())


def _only_ids(row: Row) -> Row:
    """Keep nothing of the recording but what the swarm itself gave out."""
    changed = {**row, "session": "00000000", "learner": "mallory"}
    return changed | ({"ran": round(row["ran"], 2)} if "ran" in row else {})


def _only_times(row: Row) -> Row:
    text = json.dumps({**row, "session": "00000000"})
    for name in set(traits._ID.findall(text)):
        text = text.replace(name, name[::-1])
    changed: Row = json.loads(text)
    return changed


def _only_session(row: Row) -> Row:
    changed = _only_times(_only_ids(row))
    return {**changed, "session": row["session"]}


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda row: row, {"session", "ids", "exact running times"}),
        (_only_ids, {"ids"}),
        (_only_times, {"exact running times"}),
        (_only_session, {"session"}),
    ],
)
def test_a_recording_made_anew_is_known(tmp_path: Path, change: Any, kinds: set[str]) -> None:
    path = tmp_path / "03_reach_a_container.ipynb"
    rechain(files.of_lab(paths.EVIDENCE, path.stem), files.beside(path), change)
    mine = Submission("mallory", path.stem, path.stem, path)
    found = inspection.inspect([mine])[inspection.name_of(mine)]
    (sentence,) = [f.sentence for f in found.findings]
    assert sentence.startswith(f"its evidence shares with the kit's recording of {path.stem}: ")
    assert {
        kind for kind in ("session", "ids", "exact running times") if f" {kind} " in sentence
    } == kinds


def test_a_learners_own_labs_may_share(tmp_path: Path) -> None:
    handed_in = []
    for student, name in (("ada", "one"), ("ada", "two"), ("bob", "two")):
        path = tmp_path / student / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        rechain(RECORDINGS[2], files.beside(path), lambda row: {**row, "session": "11111111"})
        handed_in.append(Submission(student, name, name, path))
    found = inspection.inspect(handed_in)
    with_whom = {name: [other for other in i.alike if "kit" not in other] for name, i in found.items()}
    assert with_whom == {
        "ada one": ["bob two"],
        "ada two": ["bob two"],
        "bob two": ["ada one", "ada two"],
    }


def test_a_number_that_no_float_has_is_no_date(tmp_path: Path) -> None:
    """Whoever writes it into evidence would stop the marking of a whole class."""
    name, path = "a" * 64, tmp_path / f"03{files.SUFFIX}"
    answer = f'[{{"Id": "{name}", "Created": {"9" * 400}}}]'
    rechain(RECORDINGS[2], path, lambda row: {**row, "stdout": answer} if "stdout" in row else row)
    found = traits.traits_of(reader.read(path))
    assert name in found.seen
    assert name not in found.made


def test_what_cannot_be_looked_at_costs_nobody_else_anything() -> None:
    odd = inspection._Look("ada 03", "ada", "03", Path("a\0b"))  # no file system has such a name
    good = inspection._Look("bob 03", "bob", "03", RECORDINGS[2])
    seen = inspection._look_at([odd, good])
    (finding,) = seen["ada 03"].findings
    assert finding.sentence == "its evidence was not compared with others': ValueError."
    assert seen["bob 03"].traits is not None


# --- answers -------------------------------------------------------------------------------------

WHY = (
    "The counter of the DROP rule rose by three, so the packets came as far as node two and no further."
)

EXPECTED = "Because a rule drops what comes to the task's address from anywhere but the mesh."


def alike(**answers: str) -> dict[tuple[str, str], list[str]]:
    given = [Answer(name, name, "03", "why", text) for name, text in answers.items()]
    expected = [
        "Because a rule drops what comes to the address of the task from anywhere but the mesh."
    ]
    return likeness.alike(given, {"03": expected})


def test_a_copied_answer_is_told_with_what_is_shared() -> None:
    changed = WHY.replace("rose by three", "went up by three")
    found = alike(
        ada=WHY, bob=changed.upper(), eve="No idea.", dan="I saw that ARP was answered, so it is TCP."
    )
    assert list(found) == [("ada", "bob")]
    (sentence,) = found["ada", "bob"]
    assert sentence.startswith("answer why: ")


@pytest.mark.parametrize(
    "answers",
    [
        {"ada": "a rule drops it", "bob": "a rule drops it"},  # too short to say anything
        {  # as the course expects it
            "ada": EXPECTED,
            "bob": EXPECTED.upper(),
        },
        dict.fromkeys(("ada", "bob", "eve", "dan"), WHY),  # as most of the class say it
        {
            "ada": WHY,
            "bob": f"{WHY[:40]} but I think that ARP had failed before, as its table was empty.",
        },
    ],
)
def test_what_says_nothing_is_not_told(answers: dict[str, str]) -> None:
    assert alike(**answers) == {}
