"""What is kept of a batch: by what a submission is known that was marked before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.grading import results, submissions
from labkit.grading.submissions import Submission

LAB = "03_reach_a_container"


@pytest.mark.parametrize("name", [f"{LAB}.ipynb", f"{LAB}.evidence.jsonl"])
def test_a_file_is_hashed_as_far_as_it_is_read(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that its size and date tell it from another: a sparse one would take days."""
    monkeypatch.setattr(submissions, "MAX_BYTES", 10)
    submission = Submission("ada", LAB, LAB, tmp_path / f"{LAB}.ipynb")

    def key(data: bytes, date: int = 1) -> str:
        (tmp_path / name).write_bytes(data)
        os.utime(tmp_path / name, (date, date))
        return results.key_of(submission, [])

    within = key(b"0123456789")
    assert key(b"0123456789", date=2) == within
    assert key(b"012345678X") != within
    beyond = key(b"0123456789 and more")
    assert beyond != within
    assert key(b"0123456789 and MORE") == beyond
    assert key(b"X123456789 and more") != beyond
    assert key(b"0123456789 and more", date=2) != beyond
    assert key(b"0123456789 and more.") != beyond
