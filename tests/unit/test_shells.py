"""What was typed in a shell of the page stays with that shell, whatever its terminal is called."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from labkit import swarm
from labkit.errors import UsageError
from labkit.page import actions
from labkit.page.shells import Shells
from tests.unit.fakes import lab_that_is_looked_at


class Terminals:
    """Names terminals as terminado does: by the lowest number that is free."""

    def __init__(self) -> None:
        self.terminals: dict[str, object] = {}
        self.commands: list[list[str]] = []

    def create(self, *, shell_command: list[str]) -> dict[str, str]:
        name = next(str(n) for n in itertools.count(1) if str(n) not in self.terminals)
        self.terminals[name] = object()
        self.commands.append(shell_command)
        return {"name": name}


@pytest.fixture
def lab() -> Iterator[swarm.Lab]:
    made = lab_that_is_looked_at()
    yield made
    made.close()


def test_a_terminals_name_that_is_used_again_mixes_no_shells(
    lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminals, shells = Terminals(), Shells("toy")
    first = shells.open(actions.shell(lab, {"node": "node1"}), terminals)
    terminals.terminals.clear()  # it has ended
    second = shells.open(actions.shell(lab, {"node": "node2"}), terminals)
    assert first["name"] == second["name"]
    assert shells.still_open(terminals) == [{key: second[key] for key in ("command", "shell")}]

    # What each node keeps, in the file that its shell was started with.
    kept = {
        node: next(word.removeprefix("HISTFILE=") for word in argv if word.startswith("HISTFILE="))
        for node, argv in zip(("node1", "node2"), terminals.commands, strict=True)
    }

    def node(name: str) -> SimpleNamespace:
        lines = [f"ip neigh show dev {name}"]
        return SimpleNamespace(
            run=lambda argv: SimpleNamespace(lines=lines if argv == ["cat", kept[name]] else [])
        )

    monkeypatch.setattr(swarm, "get", lambda _: SimpleNamespace(node=node, close=lambda: None))
    assert shells.typed(first["shell"]) == ['lab.node("node1").run("ip neigh show dev node1")']
    assert shells.typed(second["shell"]) == ['lab.node("node2").run("ip neigh show dev node2")']
    kept["node2"] = "nothing was typed there"
    with pytest.raises(UsageError, match="no command was typed in node2 yet"):
        shells.typed(second["shell"])


def test_a_shell_of_an_earlier_server_is_told() -> None:
    with pytest.raises(UsageError, match="not known any more"):
        Shells("toy").typed("0123456789abcdef")


def test_the_shell_of_a_task_keeps_nothing(lab: swarm.Lab) -> None:
    terminals, shells = Terminals(), Shells("toy")
    opened = shells.open(actions.shell(lab, {"task": "web.1"}), terminals)
    assert opened["shell"] == ""
    assert not [word for word in terminals.commands[0] if "HISTFILE" in word]
    assert shells.still_open(terminals) == []
