"""Attacks on the sandbox, each in a cell: the table of `sandbox_attacks.py`."""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from labkit.grading import seccomp
from labkit.grading.kernel import Kernel, KernelLost
from labkit.grading.sandbox import Limits
from tests.grading import sandbox_attacks as attacks

LIMITS = Limits(cell_seconds=10, notebook_seconds=120, memory=768 * 2**20)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One sandbox for all attacks that it survives; the grader has something to be looked for."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    os.environ["SECRET_OF_THE_GRADER"] = "of the grader"
    kernel = Kernel(tmp_path_factory.mktemp("given"), {}, LIMITS, sandboxed=True)
    with socket.socket(socket.AF_UNIX) as abstract, kernel.running():
        abstract.bind(b"\0of-the-grader")
        abstract.listen()
        numbers = {name: seccomp._TESTED[name][column] for name in ("clone", "prctl")}
        names = "".join(f"{name.upper()} = {number}\n" for name, number in numbers.items())
        assert kernel.run(f"{attacks.PRELUDE}{names}GRADER = {os.getpid()}").ok
        yield kernel
    del os.environ["SECRET_OF_THE_GRADER"]


@pytest.mark.parametrize("name", attacks.HELD)
def test_the_sandbox_holds(name: str, kernel: Kernel) -> None:
    attack = attacks.HELD[name]
    result = kernel.run(attack.code)
    assert result.ok, (result.error, result.message)
    printed = "".join(output.get("text", "") for output in result.outputs)
    assert attacks.held(attack, printed), printed


def test_the_grader_listens_nowhere_and_tells_no_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kernel = Kernel(tmp_path, {}, LIMITS, sandboxed=True)
    with kernel.running():
        key = kernel._client.session.key.decode()
        assert len(key) > 20
        command_lines = [word for process in _everybody() for word in _command_line(process)]
        listening = [one for one in psutil.Process().net_connections("inet") if one.status == "LISTEN"]
    assert listening == []
    assert "bwrap" in command_lines
    assert not any(key in word for word in command_lines)
    assert "bwrap" in caplog.text
    assert key not in caplog.text


def _everybody() -> list[psutil.Process]:
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # or a zombie, of an earlier test: it has no command line
        return []


@pytest.mark.parametrize("name", attacks.ENDED)
def test_the_sandbox_is_ended(name: str, tmp_path: Path) -> None:
    attack = attacks.ENDED[name]
    kernel = Kernel(tmp_path, {}, LIMITS, sandboxed=True)
    with kernel.running():
        assert kernel.run(attacks.PRELUDE).ok
        with pytest.raises(KernelLost, match=attack.printed):
            kernel.run(attack.code)
