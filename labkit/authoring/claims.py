"""The claims ledger: what the labs state about Docker's network, its source, and where it was seen.

`labs/claims.yaml` has the statements. The labs' cells prove them: a cell with the tag `claim:ID`. The
last run of `make matrix` shows on which Docker versions those cells passed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.authoring import release, seen
from labkit.authoring.markup import CLAIM_NOTE, claims_of
from labkit.errors import UsageError
from labkit.nbgrader_cells import check_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

VERDICTS = ("right", "imprecise", "wrong")
_FIELDS = ("id", "statement", "source", "verdict")
# Paragraphs that state nothing about the network: they ask, quote what is tested, or plan.
_OPENINGS = (
    "**Predict.**",
    "**Question.**",
    "**Run.**",
    "**Explain.**",
    "**What you'll",
    "#",
    "- ",
    "| ",
)
_SOLUTION = re.compile(r"<!-- BEGIN SOLUTION -->.*?<!-- END SOLUTION -->", re.S)
_CODE = re.compile(r"`[^`]*`")
_QUOTED = re.compile(r"\*\"[^\"]*\"\*|\"[^\"]*\"")
_REFERENCE = re.compile(
    r"\b(?:A\d+|labs? \d+(?:,? (?:and )?\d+)*|(?:Round|Step|Fault|Look) \d+|IPv[46])\b", re.I
)
_SENTENCE = re.compile(r"(?<=[.!?:])\s+")
_FACTUAL = re.compile(r"\d|\bbecause\b", re.I)


@dataclass(frozen=True)
class Claim:
    """One statement of the labs, with the cells that prove it and the versions it was seen on."""

    id: str
    statement: str
    source: str
    verdict: str  # one of VERDICTS, on the source's words
    lab: str  # empty where no cell proves it
    evidence: tuple[str, ...]
    """The cells that prove it, as `check:ID` or `guard after check:ID`."""
    seen: dict[str, bool]
    """By Docker version, whether all those cells passed there."""


def ledger(labs: Path, matrix: Path) -> list[Claim]:
    """Read the claims of a directory of labs, and what ``matrix`` says of them, which may not exist.

    Raises UsageError where `claims.yaml` is not a ledger, MarkupError for a source that cannot be read.
    """
    proofs: dict[str, list[tuple[str, str]]] = {}
    for path in release.find_labs(labs / "source"):
        for claim, cell in _proofs(release.read_source(path)):
            proofs.setdefault(claim, []).append((path.stem, cell))
    where = seen.by_claim(matrix)
    found = []
    for row in _rows(labs / "claims.yaml"):
        proved = proofs.get(row["id"], [])
        found.append(
            Claim(
                **{name: row[name] for name in _FIELDS},
                lab=proved[0][0] if proved else "",
                evidence=tuple(cell for _, cell in proved),
                seen=where.get(row["id"], {}),
            )
        )
    return found


def statements(labs: Path) -> dict[str, str]:
    """Return what each claim of the ledger states, by its id; raises UsageError as `ledger` does."""
    return {row["id"]: row["statement"] for row in _rows(labs / "claims.yaml")}


def problems(labs: Path) -> list[str]:
    """Return what does not fit between the ledger and the labs' sources, one sentence per problem."""
    known = [row["id"] for row in _rows(labs / "claims.yaml")]
    twice = sorted({claim for claim in known if known.count(claim) > 1})
    found = [f"claims.yaml has {claim} twice" for claim in twice]
    proved: set[str] = set()
    for path in release.find_labs(labs / "source"):
        notebook = release.read_source(path)
        here = {claim for claim, _ in _proofs(notebook)}
        proved |= here
        unknown = here - set(known)
        unproved = set(_noted(notebook)) - here
        found += [f"{path.name} proves {claim}, which claims.yaml has not" for claim in unknown]
        found += [f"{path.name} states {claim} and does not prove it" for claim in unproved]
        found += [f"{path.name}: no claim carries: {s}" for s in _sentences_without_claim(notebook)]
    return sorted(found) + [f"no lab proves {claim}" for claim in known if claim not in proved]


def _rows(file: Path) -> list[dict[str, str]]:
    """Read claims.yaml: one row per claim, with the columns id, statement, source, verdict."""
    import yaml

    rows = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    for number, row in enumerate(rows, 1):
        missing = [name for name in _FIELDS if not isinstance(row, dict) or not row.get(name)]
        if missing or set(row) != set(_FIELDS) or row["verdict"] not in VERDICTS:
            raise UsageError(
                f"{file}, claim {number}: expected {', '.join(_FIELDS)}, the verdict one of "
                f"{', '.join(VERDICTS)}; found {row}",
                hint="the head of the file explains the fields",
            )
    return [{name: str(row[name]) for name in _FIELDS} for row in rows]


def _proofs(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield each claim that a cell proves, with the cell's name."""
    last = "the beginning"
    for cell in notebook.cells:
        check = check_of(cell)
        last = f"check:{check}" if check else last
        for claim in claims_of(cell):
            yield claim, last if check else f"guard after {last}"


def _noted(notebook: NotebookNode) -> Iterator[str]:
    """Yield the claims that the prose states."""
    for cell in _prose(notebook):
        for note in CLAIM_NOTE.finditer(cell):
            yield from note[1].split()


def _sentences_without_claim(notebook: NotebookNode) -> Iterator[str]:
    """Yield the sentences with a number or a "because" that no claim carries."""
    for cell in _prose(notebook):
        for paragraph in re.split(r"\n\s*\n", cell):
            text = paragraph.strip()
            if CLAIM_NOTE.search(text) or text.startswith(_OPENINGS):
                continue
            plain = _REFERENCE.sub("", _QUOTED.sub("", _CODE.sub("", text)))
            yield from (s for s in _SENTENCE.split(plain) if _FACTUAL.search(s) and "?" not in s)


def _prose(notebook: NotebookNode) -> list[str]:
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [_SOLUTION.sub("", cell) for cell in cells]


def to_json(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Return the claims in the form of `labkit claims --json`."""
    return [{**vars(claim), "evidence": list(claim.evidence)} for claim in claims]
