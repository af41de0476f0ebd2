"""The claims ledger: what the labs state about Docker's network, who says so, and where it was seen.

`labs/claims.yaml` has the statements, the labs' cells prove them by the tag `claim:ID`, and the last
run of `make matrix` tells on which Docker versions those cells passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.authoring import release
from labkit.errors import UsageError

if TYPE_CHECKING:
    from nbformat import NotebookNode

VERDICTS = ("right", "imprecise", "wrong")
_FIELDS = ("id", "statement", "source", "verdict")
# Paragraphs that state nothing about the network: they ask, quote what is put to the test, or plan.
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
    """One statement of the labs, with the cells that prove it and the versions it was seen on.

    `evidence` names the cells, as `check:ID` or `guard after check:ID`; `seen` maps a Docker version to
    whether they all passed there.
    """

    id: str
    statement: str
    source: str
    verdict: str
    lab: str
    evidence: tuple[str, ...]
    seen: dict[str, bool]


def ledger(labs: Path, matrix: Path) -> list[Claim]:
    """Read the claims of a directory of labs; raises UsageError where the file is not a ledger.

    A claim that no cell proves has an empty `lab`.
    """
    proofs: dict[str, list[tuple[str, str]]] = {}
    for path in release.find_labs(labs / "source"):
        for claim, cell in _proofs(release.read_source(path)):
            proofs.setdefault(claim, []).append((path.stem, cell))
    runs = json.loads(matrix.read_text()) if matrix.exists() else []
    found = []
    for row in _rows(labs / "claims.yaml"):
        proved = proofs.get(row["id"], [])
        seen: dict[str, bool] = {}
        for run in runs:
            told = [c[row["id"]] for lab in run["labs"] if row["id"] in (c := lab.get("claims", {}))]
            if told:
                seen[run["docker"]] = all(told)
        found.append(
            Claim(
                **{name: row[name] for name in _FIELDS},
                lab=proved[0][0] if proved else "",
                evidence=tuple(cell for _, cell in proved),
                seen=seen,
            )
        )
    return found


def problems(labs: Path) -> list[str]:
    """Tell what does not fit between the ledger and the labs' sources, a sentence each."""
    known = [row["id"] for row in _rows(labs / "claims.yaml")]
    told = [
        f"claims.yaml has {claim} twice" for claim in sorted({c for c in known if known.count(c) > 1})
    ]
    proved: set[str] = set()
    for path in release.find_labs(labs / "source"):
        notebook = release.read_source(path)
        proved |= (mine := {claim for claim, _ in _proofs(notebook)})
        noted = set(_noted(notebook))
        told += [
            f"{path.name} proves {claim}, which claims.yaml has not" for claim in mine - set(known)
        ]
        told += [f"{path.name} states {claim} and does not prove it" for claim in noted - mine]
        told += [f"{path.name}: no claim carries: {sentence}" for sentence in _bare(notebook)]
    return sorted(told) + [f"no lab proves {claim}" for claim in known if claim not in proved]


def _rows(file: Path) -> list[dict[str, str]]:
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
        check = release.check_id(cell)
        last = f"check:{check}" if check else last
        for claim in release.claims_of(cell):
            yield claim, last if check else f"guard after {last}"


def _noted(notebook: NotebookNode) -> Iterator[str]:
    for cell in _prose(notebook):
        for note in release.CLAIM_NOTE.finditer(cell):
            yield from note[1].split()


def _bare(notebook: NotebookNode) -> Iterator[str]:
    """Yield the sentences with a number or a "because" that no claim carries."""
    for cell in _prose(notebook):
        for paragraph in re.split(r"\n\s*\n", cell):
            text = paragraph.strip()
            if release.CLAIM_NOTE.search(text) or text.startswith(_OPENINGS):
                continue
            plain = _REFERENCE.sub("", _QUOTED.sub("", _CODE.sub("", text)))
            yield from (s for s in _SENTENCE.split(plain) if _FACTUAL.search(s) and "?" not in s)


def _prose(notebook: NotebookNode) -> list[str]:
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [_SOLUTION.sub("", cell) for cell in cells]


def to_json(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Give the claims the form of `labkit claims --json`."""
    return [{**vars(claim), "evidence": list(claim.evidence)} for claim in claims]
