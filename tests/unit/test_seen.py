"""A paragraph of a released lab tells on which Docker versions its claims were seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit import paths
from labkit.authoring import seen


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    def run(docker: str, **claims: bool) -> dict[str, object]:
        return {"docker": docker, "labs": [{"claims": claims}, {"claims": {"a": True}}, {}]}

    file = tmp_path / "matrix.json"
    file.write_text(json.dumps([run("26.1", a=True, b=True), run("28.5", a=False, c=True)]))
    return file


def test_a_claim_was_seen_where_all_its_cells_passed(matrix: Path) -> None:
    assert seen.by_claim(matrix) == {
        "a": {"26.1": True, "28.5": False},
        "b": {"26.1": True},
        "c": {"28.5": True},
    }
    assert seen.by_claim(matrix.with_name("none.json")) == {}


def test_several_claims_were_seen_where_each_was(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"a": {"20.10": True, "26.1": True}, "b": {"20.10": False, "26.1": True}, "c": {}}
    monkeypatch.setattr(seen, "by_claim", lambda: known)
    assert seen.mark(["a"]) == " <small>(seen on Docker 20.10, 26.1)</small>"
    assert seen.mark(["a", "b"]) == " <small>(seen on Docker 26.1)</small>"
    assert seen.mark(["a", "c"]) == ""
    assert seen.mark(["unknown"]) == ""


def test_every_stated_claim_of_a_released_lab_says_where_it_was_seen() -> None:
    for source in sorted(paths.SOURCES.glob("*.md")):
        stated = source.read_text().count("<!-- claim: ")
        released = (paths.RELEASE / f"{source.stem}.ipynb").read_text()
        assert released.count("(seen on Docker ") == stated, source.stem
