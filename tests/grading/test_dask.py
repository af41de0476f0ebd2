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
from tests.grading import course
from tests.grading.conftest import LIMITS

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


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chosen learners have handed in, with the lab's source beside it."""
    base = tmp_path_factory.mktemp("dask")
    course.hand_in(course.Course(course.sources(base)[0]), base / "in")
    for folder in (base / "in").iterdir():
        if folder.name not in CHOSEN:
            shutil.rmtree(folder)
    return base / "in"


def grade(handed_in: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    sources = [handed_in.parent / "labs" / f"{course.LAB}.md"]
    return batches.grade(handed_in, sources=sources, out=out, limits=LIMITS, **more)


def test_the_same_marks_with_a_worker_killed_on_the_way(handed_in: Path, tmp_path: Path) -> None:
    with dask(tmp_path, 2) as (address, workers):

        def mark_all(jobs: Sequence[Job]) -> Generator[Job]:
            for number, job in enumerate(dask_marking.mark_all(jobs, address)):
                if number == 0:  # the others are on their way
                    workers[0].kill()
                yield job

        there = grade(handed_in, tmp_path / "there.csv", mark_all=mark_all)
    here = grade(handed_in, tmp_path / "here.csv")
    assert [row["student"] for row in there] == sorted(CHOSEN)
    assert {row["student"]: row["points"] for row in there} == {
        name: course.LEARNERS[name].points for name in CHOSEN
    }
    for rows in (here, there):
        for row in rows:
            row["seconds"] = 0
    assert there == here


def test_a_worker_with_another_labkit_marks_nothing(
    handed_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "hash_of_kit", lambda: "another")
    with dask(tmp_path, 1) as (address, _), pytest.raises(UsageError, match="another labkit"):
        grade(
            handed_in,
            tmp_path / "grades.csv",
            mark_all=lambda jobs: dask_marking.mark_all(jobs, address),
        )


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_marking, "_CONNECT_S", 1)
    with pytest.raises(UsageError, match="no Dask scheduler answers at tcp:"):
        list(dask_marking.mark_all([], "tcp://127.0.0.1:9"))
