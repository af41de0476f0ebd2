"""One process at a time changes a lab; what one that was killed had begun is known."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labkit import engines
from labkit.engines import locks
from labkit.errors import EngineError

KILLED = """
import os, signal
from labkit.engines import locks
with locks.hold("lab") as held, held.step({step!r}):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, on a machine without a Docker engine."""
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")  # nobody is there
    return tmp_path


def killed(step: str) -> None:
    """Kill a process that is at a step of the lab."""
    subprocess.run([sys.executable, "-c", KILLED.format(step=step)], check=False)


def test_nothing_stays_of_a_step_that_came_to_its_end(home: Path) -> None:
    with locks.hold("lab") as held:
        assert held.cut_short is None
        with held.step("making"):
            assert locks.begun("lab") == ("making", os.getpid(), True)
            assert engines.labs() == ["lab"]
    assert locks.begun("lab") is None
    assert list(home.iterdir()) == []


def test_nothing_stays_of_a_step_that_failed(home: Path) -> None:
    with pytest.raises(KeyError), locks.hold("lab") as held, held.step("saving"):
        raise KeyError
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("step", ["making", "saving"])
def test_a_killed_one_is_known_until_somebody_has_mended_it(home: Path, step: str) -> None:
    killed(step)
    begun = locks.begun("lab")
    assert begun
    assert (begun.step, begun.held) == (step, False)
    with locks.hold("lab") as held:  # it only looks
        assert held.cut_short == step
    with locks.hold("lab") as held:
        assert held.cut_short == step
        held.done()
    assert locks.begun("lab") is None
    assert list(home.iterdir()) == []


def test_one_waits_for_the_other() -> None:
    inside: list[int] = []
    most = 0

    def change() -> None:
        nonlocal most
        for _ in range(100):
            with locks.hold("lab"):
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(change) for _ in range(4)]:
            done.result()
    assert most == 1


def test_who_waits_in_vain_is_told_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE", 0.2)
    with locks.hold("lab") as held, held.step("making"):
        with pytest.raises(EngineError, match=f"process {os.getpid()} is making lab 'lab'") as caught:
            locks.hold("lab").__enter__()
        with locks.hold("another"):
            pass
    assert f"kill {os.getpid()}" in caught.value.hint


def test_a_lab_that_is_being_made_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: object) -> str:
        return "its daemon"

    for engine in engines.every():
        monkeypatch.setattr(type(engine), "find", found)
    assert engines.find("lab")
    killed("making")
    assert engines.find("lab") is None
    killed("saving")
    assert engines.find("lab")
