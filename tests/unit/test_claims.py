"""The claims ledger: nothing is stated that no cell proves, nothing is proved that no one states."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from labkit import paths
from labkit.authoring import claims
from labkit.errors import UsageError

LABS = paths.LABS
MATRIX = paths.MATRIX

LAB = """# Try a thing

**What you'll do.** Try it 3 times.

```{{code-cell}}
:tags: [answer:a]
### BEGIN SOLUTION
a = 1
### END SOLUTION
```

```{{code-cell}}
:tags: [check:a, points:1{tag}]
assert a == 1
```

{prose}
"""
ROW = "- {id: sky-is-blue, statement: The sky is blue., source: A1, verdict: right}\n"


def labs(tmp_path: Path, *, prose: str = "", tag: str = ", claim:sky-is-blue", rows: str = ROW) -> Path:
    """A directory of one lab and its ledger."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "01_try_it.md").write_text(LAB.format(tag=tag, prose=prose))
    (tmp_path / "claims.yaml").write_text(rows)
    return tmp_path


def test_the_ledger_and_the_labs_fit() -> None:
    assert claims.problems(LABS) == []


def test_every_claim_was_seen_on_every_version() -> None:
    rows = claims.ledger(LABS, MATRIX)
    assert len(rows) >= 60
    everywhere = {version: True for version in ("20.10", "26.1", "28.5")}
    assert {claim.id: claim.seen for claim in rows if claim.seen != everywhere} == {}


def test_every_sentence_of_the_article_is_in_the_ledger() -> None:
    sources = " ".join(claim.source for claim in claims.ledger(LABS, MATRIX))
    assert set(re.findall(r"\bA\d+\b", sources)) >= {f"A{n}" for n in range(1, 22)}


def test_a_claim_has_its_lab_its_cells_and_where_it_was_seen(tmp_path: Path) -> None:
    run = {"docker": "26.1", "labs": [{"claims": {"sky-is-blue": True}}]}
    (tmp_path / "matrix.json").write_text(json.dumps([run]))
    (claim,) = claims.ledger(labs(tmp_path), tmp_path / "matrix.json")
    assert (claim.lab, claim.evidence, claim.seen) == ("01_try_it", ("check:a",), {"26.1": True})


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ({"tag": ""}, "no lab proves sky-is-blue"),
        ({"rows": ""}, "01_try_it.md proves sky-is-blue, which claims.yaml has not"),
        ({"rows": ROW * 2}, "claims.yaml has sky-is-blue twice"),
        (
            {"prose": "Grass is. <!-- claim: grass -->"},
            "01_try_it.md states grass and does not prove it",
        ),
        ({"prose": "It takes 7 hops."}, "01_try_it.md: no claim carries: It takes 7 hops."),
        ({"prose": "It is so because."}, "01_try_it.md: no claim carries: It is so because."),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, case: dict[str, str], problem: str) -> None:
    assert claims.problems(labs(tmp_path, **case)) == [problem]


@pytest.mark.parametrize(
    "prose",
    [
        "It takes 7 hops. <!-- claim: sky-is-blue -->",
        "Does it take 7 hops?",
        'The article says *"it takes 7 hops"*, see A7 and lab 03.',
        "**Predict.** Write 2, 3 or 0.",
        "The address `10.0.0.7` is the task's.",
    ],
)
def test_what_asks_quotes_or_is_carried_is_let_through(tmp_path: Path, prose: str) -> None:
    assert claims.problems(labs(tmp_path, prose=prose)) == []


@pytest.mark.parametrize("row", ["- {id: x}\n", ROW.replace("right", "maybe"), "- 7\n"])
def test_a_row_that_is_no_claim_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(UsageError, match="claim 1: expected id, statement, source, verdict"):
        claims.problems(labs(tmp_path, rows=row))
