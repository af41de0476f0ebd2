"""No unit test starts a machine, by mistake either: it would cost minutes."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from labkit.engines.vm import process


@pytest.fixture(autouse=True)
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a unit test tried to start QEMU")

    monkeypatch.setattr(process, "_start_qemu", refuse)


@pytest.fixture
def idle_qemu(tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts a process in a directory that bears QEMU's name and does nothing."""
    program = tmp_path / "qemu-system-x86_64"
    program.symlink_to(str(shutil.which("sleep")))
    with ExitStack() as ending:

        def start(directory: Path) -> subprocess.Popen[bytes]:
            process = ending.enter_context(subprocess.Popen([str(program), "60"], cwd=directory))
            ending.callback(process.kill)
            return process

        yield start


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command that a test calls in this process shows the kit's log; the next test has it back."""
    kit = logging.getLogger("labkit")
    handlers, level, propagate = kit.handlers[:], kit.level, kit.propagate
    yield
    kit.handlers[:], kit.propagate = handlers, propagate
    kit.setLevel(level)
