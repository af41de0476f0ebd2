"""No unit test starts a machine, by mistake either: it would cost minutes."""

from __future__ import annotations

from typing import NoReturn

import pytest

from labkit.engines.vm import process


@pytest.fixture(autouse=True)
def no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a unit test tried to start QEMU")

    monkeypatch.setattr(process, "_start_qemu", refuse)
