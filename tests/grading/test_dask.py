"""Marking on the workers of a Dask scheduler: the same marks, also where a worker is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import UsageError
from labkit.grading import batch as batches
from labkit.grading import dask_marking, results
from labkit.grading.marking import Job
from tests.grading.conftest import LIMITS, Batch

CHOSEN = ("solved", "half", "deleted_check", "forged_evidence", "not_json", "reads", "ends", "nothing")
SOON = 60.0


@contextmanager
def dask(base: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler on loopback, and workers that have a thread each."""
    file = base / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(program: str, *options: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", f"distributed.cli.{program}", *options]
        return subprocess.Popen([*argv, "--host", "127.0.0.1"], **quiet)  # type: ignore[call-overload]

    with ExitStack() as running:
        listening = ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        scheduler = running.enter_context(start("dask_scheduler", *listening))
        running.callback(scheduler.kill)
        deadline = time.monotonic() + SOON
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(base)]
        started = []
        for _ in range(workers):
            worker = running.enter_context(start("dask_worker", address, *options))
            running.callback(worker.kill)
            started.append(worker)
        yield address, started


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what differs from run to run, and without what is said of learners not chosen."""
    kept = [{**row, "seconds": 0, "findings": sorted(map(str, row["findings"]))} for row in rows]
    return [row for row in kept if row["student"] in CHOSEN]


def test_the_same_marks_with_a_worker_killed_on_the_way(batch: Batch, tmp_path: Path) -> None:
    for name in CHOSEN:
        shutil.copytree(batch.handed_in / name, tmp_path / "in" / name)

    with dask(tmp_path, 2) as (address, workers):

        def mark_all(jobs: Sequence[Job]) -> Generator[Job]:
            for number, job in enumerate(dask_marking.mark_all(jobs, address)):
                if number == 0:  # the others are on their way
                    workers[0].kill()
                yield job

        out = tmp_path / "grades.csv"
        there = {"sources": batch.sources, "limits": LIMITS}
        rows = batches.grade(tmp_path / "in", out=out, mark_all=mark_all, **there)  # type: ignore[arg-type]
        again = tmp_path / "again"
        shutil.copytree(tmp_path / "in", again)
        here = batches.grade(again, out=tmp_path / "here.csv", **there)  # type: ignore[arg-type]
    assert [row["student"] for row in rows] == sorted(CHOSEN)
    assert plain(rows) == plain(here)
    assert {row["student"]: row["points"] for row in rows} == {
        name: batch.rows[name]["points"] for name in CHOSEN
    }


def test_a_worker_with_another_labkit_marks_nothing(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(batch.handed_in / "solved", tmp_path / "in" / "solved")
    monkeypatch.setattr(results, "hash_of_kit", lambda: "another")
    with dask(tmp_path, 1) as (address, _), pytest.raises(UsageError, match="another labkit"):
        batches.grade(
            tmp_path / "in",
            sources=batch.sources,
            out=tmp_path / "grades.csv",
            limits=LIMITS,
            mark_all=lambda jobs: dask_marking.mark_all(jobs, address),
        )


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_marking, "_CONNECT_S", 1)
    with pytest.raises(UsageError, match="no Dask scheduler answers at tcp:"):
        list(dask_marking.mark_all([], "tcp://127.0.0.1:9"))
