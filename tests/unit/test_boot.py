"""A machine that is booted: behind its proxy from the start, and no lab's before its daemon answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.engines.vm import machine, process, proxy_process
from labkit.engines.vm.machine import Machine
from labkit.errors import WaitTimeout

LAB, PROXY = "made", 4711


class Booting:
    """QEMU and the proxy are not started; notes where QEMU was to be, and when its daemon answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.beside: list[int | None] = []
        self.asked: list[Machine] = []
        self.answers = True
        self._home = home
        monkeypatch.setenv("LABKIT_HOME", str(home))
        monkeypatch.setattr(process, "_layer", lambda *_: None)
        monkeypatch.setattr(proxy_process, "start", self._proxy)
        monkeypatch.setattr(process, "_launched", self._launched)
        monkeypatch.setattr(process, "_wait_for_daemon", self._wait)

    @contextmanager
    def _proxy(self, directory: Path) -> Iterator[proxy_process.Started]:
        yield proxy_process.Started(PROXY, {"api": 3, "relay": 4})

    @contextmanager
    def _launched(
        self, *_: object, beside: int | None = None, **__: object
    ) -> Iterator[SimpleNamespace]:
        self.beside.append(beside)
        yield SimpleNamespace(machine=self._described, process=None)

    def _described(self, lab: str, docker: str, *, snapshot: str) -> Machine:
        directory = str(machine.lab_directory(lab))
        return Machine(lab, docker, "tcg", 1, 1, (1, 2), 1, 2, "", directory, snapshot)

    def _wait(self, started: Machine, _: object) -> None:
        # Its proxy carries what is asked when it finds it written down.
        self.asked.append(machine.read(Path(started.directory)))
        if not self.answers:
            raise WaitTimeout("its daemon", seconds=1, last="nothing")

    def boot(self) -> Machine:
        disks = self._home / "disks"
        disks.mkdir()
        return process.boot(LAB, "26.1", disks, self._home / "nodes", memory_mb=1)


@pytest.fixture
def booting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Booting:
    return Booting(monkeypatch, tmp_path)


def test_it_is_reached_through_its_proxy_alone(booting: Booting) -> None:
    started = booting.boot()
    assert booting.beside == [PROXY]
    assert booting.asked == [started] == [machine.read(machine.lab_directory(LAB))]
    assert (started.proxy, started.port, started.relay) == (PROXY, 3, 4)
    assert started.inside == (1, 2)


def test_one_whose_daemon_does_not_answer_has_not_crashed(booting: Booting) -> None:
    booting.answers = False
    with pytest.raises(WaitTimeout):
        booting.boot()
    assert machine.crash_log(LAB) is None


def test_it_is_never_put_on_disk(booting: Booting, monkeypatch: pytest.MonkeyPatch) -> None:
    started = booting.boot()
    saved: list[str] = []
    monkeypatch.setattr(process.qmp, "save_whole_and_quit", lambda *_: saved.append("whole") or False)
    assert not process.hibernate(started, lambda: True)
    assert saved == []
    process.hibernate(replace(started, state="swarm"), lambda: True)
    assert saved == ["whole"]
