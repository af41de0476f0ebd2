"""The check before a class: each step, what fails is told, and nothing is left whatever happens."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from labkit import __version__, doctor, engines, swarm, variants
from labkit.classroom import check, returned
from labkit.cli import app
from labkit.engines.base import Check
from labkit.errors import EngineError, SwarmError, UsageError
from labkit.progress import Progress
from labkit.swarm import Lab, UpResult
from tests.unit.fakes import Toy

YOU = variants.of("ada")
HOST = socket.gethostname()


class Swarm(Toy):
    """Two nodes; `said` is what `docker node ls` prints on the manager."""

    said = "node1 Ready\nnode2 Ready\n"

    def run(self, argv: list[str]) -> str | dict[str, Any]:
        return self.said if argv[:3] == ["docker", "node", "ls"] else super().run(argv)


class FakeEngine:
    """An engine that keeps swarms, or does not."""

    kind = "vm"

    def __init__(self, *, keeps: bool = True, refused: str = "") -> None:
        self.keeps, self.refused = keeps, refused

    def refusal(self) -> str:
        return self.refused

    def accel(self) -> str:
        return "tcg"

    def checkpoints(self, lab: str) -> object:
        return object() if self.keeps else None

    def examine(self) -> list[Check]:
        return [Check("programs", False, "missing: qemu", "sudo apt-get install qemu")]


class Machine:
    """What the check asks of the kit, with a note of all that was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = FakeEngine()
        self.swarm = Swarm()
        self.restored = [False, True]
        self.done: list[str] = []
        self.left: list[str] = ["default"]
        self.fails: Callable[[], object] = lambda: None
        monkeypatch.setattr(engines, "choose", lambda kind: (self.engine, "no Docker engine answers"))
        monkeypatch.setattr(engines, "labs", lambda: self.left)
        monkeypatch.setattr(doctor, "examine", lambda: {"checks": [self.finding]})
        monkeypatch.setattr(swarm, "up", self.up)
        monkeypatch.setattr(swarm, "down", self.down)

    finding = {  # noqa: RUF012, a test changes none of it
        "name": "disk",
        "ok": True,
        "detail": f"5 GB free in {Path.home()}/.cache on {HOST}",
        "remedy": "",
    }

    def up(self, lab: str, *, engine: str, progress: Progress) -> UpResult:
        self.done.append(f"up {engine}")
        self.left.append(lab)
        self.fails()
        return UpResult(self.swarm.lab, 12.5, 1.0, self.restored.pop(0), {})

    def down(self, lab: str) -> bool:
        self.done.append("down")
        assert lab == check.lab_of("ada")
        if lab in self.left:
            self.left.remove(lab)
        return True


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(Lab, "close", lambda self: None)
    return Machine(monkeypatch)


def run() -> dict[str, Any]:
    return check.run(YOU, progress=Progress())


def steps(found: dict[str, Any]) -> dict[str, bool]:
    return {step["name"]: step["ok"] for step in found["steps"]}


def test_a_machine_that_is_ready(machine: Machine, tmp_path: Path) -> None:
    found = run()
    names = ["doctor", "up", "nodes", "port", "restore", "down"]
    assert steps(found) == dict.fromkeys(names, True)
    assert found["ready"] is True
    assert (found["made_s"], found["restored_s"]) == (12.5, 12.5)
    assert machine.done == ["down", "up auto", "down", "up auto", "down"]
    assert machine.left == ["default"]
    assert found["kit"] == __version__
    assert found["engine"] == {"kind": "vm", "accel": "tcg", "why": "no Docker engine answers"}
    messages = {step["name"]: step["message"] for step in found["steps"]}
    assert messages["nodes"] == "docker node ls: node1 Ready, node2 Ready; each runs a command"
    assert messages["port"] == f"port {YOU.port} answers on node1, node2"
    check.write(tmp_path / "a.json", found)
    assert returned.read(tmp_path / "a.json").ready
    assert (tmp_path / "a.json").stat().st_size < 5000


def test_no_second_swarm_where_the_first_was_restored_or_none_is_kept(machine: Machine) -> None:
    machine.restored = [True]
    found = run()
    assert "restore" not in steps(found)
    assert (found["made_s"], found["restored_s"]) == (None, 12.5)
    machine.engine.keeps = False
    machine.restored = [False]
    found = run()
    assert "restore" not in steps(found)
    assert found["restored_s"] is None


def test_a_step_that_fails_ends_the_check_with_its_remedy(machine: Machine) -> None:
    def fail() -> NoReturn:
        raise EngineError("the disk is full", hint="make room")

    machine.fails = fail
    found = run()
    assert steps(found) == {"doctor": True, "up": False, "down": True}
    assert found["ready"] is False
    assert found["steps"][1]["message"] == "the disk is full"
    assert found["steps"][1]["remedy"] == "make room"
    assert machine.left == ["default"]


def test_what_no_one_foresaw_is_told_too(machine: Machine) -> None:
    def fail() -> NoReturn:
        raise ZeroDivisionError("odd")

    machine.fails = fail
    step = run()["steps"][1]
    assert step["message"] == "ZeroDivisionError: odd"
    assert "labkit doctor" in step["remedy"]


def test_an_engine_that_cannot_be_used_stops_it_at_once(machine: Machine) -> None:
    machine.engine.refused = "no Docker engine answers"
    found = run()
    assert steps(found) == {"doctor": False, "down": True}
    assert found["steps"][0]["remedy"] == "sudo apt-get install qemu"


def test_a_node_that_is_not_ready(machine: Machine) -> None:
    machine.swarm.said = "node1 Ready\nnode2 Down\n"
    found = run()
    assert steps(found) == {"doctor": True, "up": True, "nodes": False, "down": True}
    assert found["steps"][2]["message"] == "docker node ls says: node1 Ready, node2 Down"


def test_something_left_is_no_success(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "down", lambda lab: True)
    found = run()
    assert steps(found)["down"] is False
    assert found["ready"] is False
    assert found["steps"][-1]["remedy"] == f"labkit down --lab {check.lab_of('ada')}"


def test_a_check_that_takes_too_long_is_stopped(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(check, "LONGEST_S", 0.3)
    machine.fails = lambda: time.sleep(30)
    began = time.monotonic()
    found = run()
    assert time.monotonic() - began < 10
    assert steps(found) == {"doctor": True, "up": False, "down": True}
    assert "was stopped" in found["steps"][1]["message"]
    assert "labkit up" in found["steps"][1]["remedy"]
    assert machine.left == ["default"]
    assert signal.getsignal(signal.SIGALRM) is before


def test_ctrl_c_leaves_nothing(machine: Machine) -> None:
    def press() -> None:
        main = threading.main_thread().ident
        threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT]).start()
        time.sleep(30)

    machine.fails = press
    with pytest.raises(KeyboardInterrupt):
        run()
    assert machine.done[-1] == "down"
    assert machine.left == ["default"]


def test_names_secrets_and_folders_stay_here(machine: Machine) -> None:
    def fail() -> NoReturn:
        raise SwarmError(
            f"on {HOST} at ssh://eve:secret@office.example.org:22 and tcp://127.0.0.1:9\n"
            f"{Path.home()}/x SWMTKN-1-abc-def \x1b[31m"
        )

    machine.fails = fail
    found = run()
    text = json.dumps(found)
    for word in (f"on {HOST}", "eve", "office", str(Path.home()) + "/", "abc-def", "\\u001b"):
        assert word not in text
    assert "ssh://…:22 and tcp://127.0.0.1:9 ~/x SWMTKN-… \\x1b[31m" in found["steps"][1]["message"]
    assert found["findings"][0]["detail"] == "5 GB free in ~/.cache on …"


def test_a_long_message_is_cut(machine: Machine) -> None:
    def fail() -> NoReturn:
        raise SwarmError("word " * 10_000)

    machine.fails = fail
    assert len(run()["steps"][1]["message"]) == 600


def test_the_lab_is_the_checks_own() -> None:
    swarm.check_name(check.lab_of("Anna.Müller@x"))
    assert check.lab_of("ada") != check.lab_of("bob")


def test_a_login_that_many_share_is_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_LEARNER", raising=False)
    monkeypatch.setattr("getpass.getuser", lambda: "student")
    with pytest.raises(UsageError, match="many people share"):
        check.participant("")
    assert check.participant("student").learner == "student"
    monkeypatch.setenv("LABKIT_LEARNER", "ada")
    assert check.participant("").learner == "ada"


def test_where_the_file_cannot_be_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        check.target("ada", tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        check.target("ada", tmp_path / "none" / "a.json")
    assert check.target("ada", None) == Path("class-check-ada.json")


def test_the_command_shows_steps_writes_the_file_and_ends_with_what_to_do(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["class", "check", "--learner", "ada"])
    assert done.exit_code == 0
    assert "  ok  nodes: docker node ls: node1 Ready" in done.stdout
    assert done.stdout.splitlines()[-1] == "ready; send class-check-ada.json"
    assert returned.read(tmp_path / "class-check-ada.json").learner == "ada"
    machine.swarm.said = "node1 Down\n"
    machine.restored = [True]
    done = CliRunner().invoke(app, ["class", "check", "--learner", "ada", "--out", "b.json", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout) == json.loads((tmp_path / "b.json").read_text())
    machine.restored = [True]
    done = CliRunner().invoke(app, ["class", "check", "--learner", "ada", "--out", "b.json"])
    assert done.stdout.splitlines()[-1].startswith("not ready: ")
    assert "send b.json" in done.stdout.splitlines()[-1]
