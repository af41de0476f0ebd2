"""Look at the evidence of a whole batch: what is signed, what is too early, what two of them share.

Marking looks at one submission at a time; this looks across them, and at the recordings that the kit
ships. It is done anew in every batch, as the next submission may be the copy of an old one.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from labkit import paths
from labkit.errors import UsageError
from labkit.evidence import audit, files, reader, signing
from labkit.evidence.audit import Finding
from labkit.evidence.signing import Signed
from labkit.evidence.traits import Traits, traits_of
from labkit.grading import workers
from labkit.grading.submissions import Submission

_MOST_NAMED = 5  # others that are named in a finding
_FEWEST_TIMES = 3  # exact times that two files share by chance are fewer


@dataclass(frozen=True)
class Inspected:
    """What was found about the evidence of one submission."""

    signed: str
    """signed, unsigned or broken; empty where no public key was given or there is no evidence."""
    findings: tuple[Finding, ...] = ()
    alike: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By another submission, as `name_of` names it: what the two share."""


@dataclass(frozen=True)
class _Look:
    """What a process needs to look at one file of evidence."""

    name: str
    student: str
    lab: str
    path: Path
    public_key: Path | None = None
    handed_out: datetime | None = None


@dataclass(frozen=True)
class _Seen:
    """What was seen in one file of evidence."""

    signed: str = ""
    findings: tuple[Finding, ...] = ()
    traits: Traits | None = None


def name_of(submission: Submission) -> str:
    """Name a submission to a person: learner and lab, with the assignment where it has another name."""
    s = submission
    return f"{s.student} {s.lab}" if s.assignment == s.lab else f"{s.student} {s.assignment}/{s.lab}"


def inspect(
    submissions: Sequence[Submission],
    *,
    public_key: Path | None = None,
    handed_out: datetime | None = None,
) -> dict[str, Inspected]:
    """Look at the evidence of submissions; returns what was found by `name_of`.

    Raises UsageError where the public key cannot be read.
    """
    if public_key is not None:
        signing.public_key(public_key)
    looks = [
        _Look(name_of(s), s.student, s.lab, path, public_key, handed_out)
        for s in submissions
        if (path := s.evidence) is not None
    ]
    if not looks:
        return {}
    seen = _look_at(looks)
    students = {look.name: look.student for look in looks}
    traits = {name: found.traits for name, found in seen.items() if found.traits}
    shared = _shared({**traits, **_shipped(paths.EVIDENCE)}, students)
    inspected = {}
    for look in looks:
        found = seen[look.name]
        alike = shared.get(look.name, {})
        findings = (*found.findings, *_told(alike))
        inspected[look.name] = Inspected(found.signed, findings, alike)
    return inspected


@functools.cache
def _shipped(directory: Path) -> dict[str, Traits]:
    """Read the recordings that the kit ships."""
    return {
        f"the kit's recording of {path.name.partition('.')[0]}": traits_of(reader.read(path))
        for path in sorted(directory.glob(f"*{files.SUFFIX}.gz"))
    }


def _look_at(looks: Sequence[_Look]) -> dict[str, _Seen]:
    """Look at files in processes of their own, which may take no more memory than they should."""
    count = min(len(looks), os.cpu_count() or 1)
    pool = ProcessPoolExecutor(count, workers.context(), initializer=workers.limit_memory)
    seen = {}
    with pool:
        results = [(look, pool.submit(_see, look)) for look in looks]
        for look, result in results:
            try:
                seen[look.name] = result.result()
            except Exception as problem:  # a stranger's file: it costs itself, never the class
                sentence = f"its evidence was not compared with others': {type(problem).__name__}."
                seen[look.name] = _Seen(findings=(Finding(None, sentence),))
    return seen


def _see(look: _Look) -> _Seen:
    """Read a file of evidence; where that cannot be done, marking tells it."""
    try:
        data = reader.content(look.path)
    except UsageError:
        return _Seen(signed=Signed.BROKEN if look.public_key else "")
    signed, findings = "", []
    if look.public_key:
        key = signing.public_key(look.public_key)
        verdict, why = signing.verify(look.path, data, key, lab=look.lab, learner=look.student)
        signed = verdict.value
        if verdict is Signed.BROKEN:
            findings.append(Finding(None, f"the signature of the evidence does not hold: {why}."))
    try:
        evidence = reader.parse(look.path, data)
    except UsageError:
        return _Seen(signed, tuple(findings))
    if look.handed_out:
        findings += audit.early(evidence, look.handed_out)
    return _Seen(signed, tuple(findings), traits_of(evidence))


# --- what two share ------------------------------------------------------------------------------


def _shared(
    traits: Mapping[str, Traits], students: Mapping[str, str]
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Tell of each submission what its evidence shares with that of another learner, or of the kit.

    A learner's own labs may share what they like: they ran on one machine, one after the other.
    """
    pairs: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    kinds: dict[str, tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]] = {
        "session": _both({name: t.sessions for name, t in traits.items()}),
        # An id of a snapshot is honestly in both; one that was made in either of them is not.
        "id": ({n: t.made for n, t in traits.items()}, {n: t.seen for n, t in traits.items()}),
        "MAC address": _both({name: t.macs for name, t in traits.items()}),
        "exact running time": _both(
            {name: frozenset(map(repr, t.times)) for name, t in traits.items()}
        ),
    }
    for kind, (own, everywhere) in kinds.items():
        places: dict[str, list[str]] = defaultdict(list)
        for name, values in everywhere.items():
            for value in values:
                places[value].append(name)
        for name, values in own.items():
            for value in values:
                for other in places.get(value, ()):
                    if other != name and students.get(name) != students.get(other):
                        pairs[min(name, other), max(name, other)][kind].add(value)
    told: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for (one, other), found in sorted(pairs.items()):
        if sentences := tuple(_counted(found)):
            for name, with_whom in ((one, other), (other, one)):
                if name in students:
                    told[name][with_whom] = sentences
    return told


def _both(
    values: dict[str, frozenset[str]],
) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    return values, values


def _counted(found: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Say how many values of each kind two files share, and name one."""
    for kind, values in found.items():
        first, *others = sorted(values)
        if kind == "exact running time" and 1 + len(others) < _FEWEST_TIMES:
            continue
        yield f"{1 + len(others)} {kind}{'s' if others else ''} ({first[:25]}{', …' if others else ''})"


def _told(alike: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Say in a finding with whom a submission shares what only one run of a lab can have."""
    for other in list(alike)[:_MOST_NAMED]:
        sentence = f"its evidence shares with {other}: {', '.join(alike[other])}."
        yield Finding(None, sentence)
    if len(alike) > _MOST_NAMED:
        yield Finding(None, f"so it does with {len(alike) - _MOST_NAMED} more.")
