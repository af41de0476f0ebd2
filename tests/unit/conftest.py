"""No unit test starts a machine, by mistake either: it would cost minutes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NoReturn

import pytest

from labkit.engines.vm import process


@pytest.fixture(autouse=True)
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a unit test tried to start QEMU")

    monkeypatch.setattr(process, "_start_qemu", refuse)


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A command that a test calls in this process shows the kit's log; the next test has it back."""
    kit = logging.getLogger("labkit")
    handlers, level, propagate = kit.handlers[:], kit.level, kit.propagate
    yield
    kit.handlers[:], kit.propagate = handlers, propagate
    kit.setLevel(level)
