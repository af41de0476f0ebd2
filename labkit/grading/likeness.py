"""Find answers that are too alike: a report for a person, and not a verdict.

Compared are the answers of different learners to one question of one lab, as sequences of four words
(letters, digits and `_`). What the notebook as handed out, the lab's source or many learners have too
says nothing, so it does not count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_WORD = re.compile(r"\w+")
_LENGTH = 4  # words of a sequence
_FEWEST = 8  # sequences that an answer needs to be compared: 11 words
_MOST = 5000  # sequences of an answer that are compared
_ALIKE = 0.6  # of the sequences of both answers, those that are in both
_USUAL = 0.25  # of the learners who answered: what more of them wrote is the course's own way to say it
_FEW = 3  # learners who may share a sequence in a small class before it is usual

_Sequence = tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """One learner's answer to a question."""

    submission: str  # a name of it for people
    student: str
    lab: str
    question: str
    text: str


def alike(
    answers: Iterable[Answer], known: Mapping[str, Iterable[str]]
) -> dict[tuple[str, str], list[str]]:
    """Return, by two submissions, a sentence for each question whose answers are too alike.

    ``known`` are the texts of each lab that everybody has, or that the course expects.
    """
    by_question: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        by_question[answer.lab, answer.question].append(answer)
    expected = {lab: set().union(*map(_sequences, texts)) for lab, texts in known.items()}
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (lab, question), given in by_question.items():
        for one, other, both, all_of_them in _pairs(given, expected.get(lab, set())):
            share = f"{both} of {all_of_them} sequences of {_LENGTH} words"
            found[one, other].append(f"answer {question}: {share}")
    return dict(found)


def _pairs(given: Iterable[Answer], expected: set[_Sequence]) -> Iterator[tuple[str, str, int, int]]:
    """Yield two submissions whose answers are alike, how much is in both, and how much there is."""
    students, sequences = {}, {}
    for answer in given:
        students[answer.submission] = answer.student
        sequences[answer.submission] = _sequences(answer.text) - expected
    places: dict[_Sequence, list[str]] = defaultdict(list)
    for name, own in sequences.items():
        for sequence in own:
            places[sequence].append(name)
    usual = max(_FEW, int(_USUAL * len(sequences)))
    shared: dict[tuple[str, str], int] = defaultdict(int)
    rare: dict[str, int] = defaultdict(int)
    for names in places.values():
        if len({students[name] for name in names}) > usual:
            continue
        for at, one in enumerate(names):
            rare[one] += 1
            for other in names[at + 1 :]:
                if students[one] != students[other]:
                    shared[min(one, other), max(one, other)] += 1
    for (one, other), both in sorted(shared.items()):
        all_of_them = rare[one] + rare[other] - both
        if min(rare[one], rare[other]) >= _FEWEST and both >= _ALIKE * all_of_them:
            yield one, other, both, all_of_them


def _sequences(text: str) -> set[_Sequence]:
    words = _WORD.findall(text.lower())
    count = min(len(words) - _LENGTH + 1, _MOST)
    return {tuple(words[at : at + _LENGTH]) for at in range(max(count, 0))}
