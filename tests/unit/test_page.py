"""The server's part of the page: how far a learner is, what one look sees, what a click stands for."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from labkit import nbgrader_cells, paths, swarm
from labkit.capture import argv_of
from labkit.engines import locks
from labkit.engines.base import MADE_BY, Machines
from labkit.errors import UnknownNameError, UsageError
from labkit.nbgrader_cells import Role, role_of
from labkit.page import LABEXTENSIONS, actions, labs, services, view
from labkit.page.view import View
from labkit.swarm import watch
from labkit.swarm.watch import State
from tests.unit.fakes import SERVICES, lab_that_is_looked_at

RELEASED = sorted(paths.RELEASE.glob("*.ipynb"))


def checks_of(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if role_of(cell) is Role.CHECK]


def fails(name: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": "", "traceback": []}


# --- the labs of a folder ------------------------------------------------------------------------


def test_each_released_lab_has_a_row_with_its_title(tmp_path: Path) -> None:
    rows = labs.of_folder(tmp_path, paths.RELEASE)
    assert [row.name for row in rows] == [path.name for path in RELEASED]
    assert not any(row.there or row.run or row.problem for row in rows)
    assert all(row.title and row.about and row.checks and row.of for row in rows)
    assert not any("`" in row.about or "**" in row.about for row in rows)


def test_a_check_counts_that_ran_as_it_was_released(tmp_path: Path) -> None:
    released = RELEASED[3]
    notebook = json.loads(released.read_text())
    passed, failed, changed, *others = checks_of(notebook)
    for cell in (passed, failed, changed):
        cell["execution_count"] = 1
    failed["outputs"] = [fails("CheckFailed")]
    changed["source"] = ["pass"]
    (tmp_path / released.name).write_text(json.dumps(notebook))
    row = labs.of_folder(tmp_path, paths.RELEASE)[3]
    assert (row.there, row.checks, row.run, row.passed) == (True, 3 + len(others), 2, 1)
    assert 0 < row.points < row.of


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 1}', "\udcff"])
def test_a_copy_that_cannot_be_read_is_told(text: str, tmp_path: Path) -> None:
    copy = tmp_path / RELEASED[0].name
    copy.write_bytes(text.encode(errors="surrogateescape"))
    row = labs.of_folder(tmp_path, paths.RELEASE)[0]
    assert row.problem.startswith(f"{copy.name} is no notebook that can be read")


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_each_question_names_the_cell_that_gives_its_points(path: Path) -> None:
    cells = {nbgrader_cells.grade_id_of(cell): cell for cell in json.loads(path.read_text())["cells"]}
    rows = labs.questions(path.name, paths.RELEASE)
    assert rows
    for row in rows:
        cell = cells[row.cell]
        assert nbgrader_cells.points_of(cell) == row.of
        assert row.text in ("", "".join(cell["source"]).strip())
        assert bool(row.text) == bool(row.hints) == (role_of(cell) is Role.CHECK)


def test_a_notebook_that_is_no_lab_is_told() -> None:
    with pytest.raises(UnknownNameError, match=r"no lab is called 'mine\.ipynb'"):
        labs.questions("mine.ipynb", paths.RELEASE)


@pytest.fixture
def lab() -> Iterator[swarm.Lab]:
    made = lab_that_is_looked_at()
    yield made
    made.close()


# --- what a click stands for ---------------------------------------------------------------------


UPDATE = "docker node update --availability"


@pytest.mark.parametrize(
    ("asked", "where", "command"),
    [
        ({"do": "scale", "service": "web", "to": 5}, "node1", "docker service scale --detach web=5"),
        ({"do": "drain", "node": "node2"}, "node1", f"{UPDATE} drain node2"),
        ({"do": "activate", "node": "node2"}, "node1", f"{UPDATE} active node2"),
        ({"do": "lose", "node": "node2"}, "node2", "ip link set eth0 down"),
        ({"do": "return", "node": "node2"}, "node2", "ip link set eth0 up"),
    ],
)
def test_a_click_is_one_command_in_one_place(
    asked: dict[str, Any], where: str, command: str, lab: swarm.Lab
) -> None:
    action = actions.of(lab, asked)
    assert (action.place.label, " ".join(action.argv)) == (where, command)
    assert f'.run("{command}")' in action.cell


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "no action is called ''"),
        ({"do": ["drain"]}, r"no action is called \"\['drain'\]\""),
        ({"do": "scale", "service": "nobody", "to": 1}, "no service is called 'nobody'"),
        ({"do": "scale", "service": "web", "to": "5"}, "found '5'"),
        ({"do": "scale", "service": "web", "to": True}, "found True"),
        ({"do": "scale", "service": "web", "to": -1}, "found -1"),
        ({"do": "kill"}, "a task is named"),
        ({"do": "drain", "node": "node9"}, "no node is called 'node9'"),
        ({"do": "lose", "node": "node1"}, "node1 is the manager"),
    ],
)
def test_a_click_that_cannot_be_is_told(asked: dict[str, Any], told: str, lab: swarm.Lab) -> None:
    with pytest.raises((UnknownNameError, UsageError), match=told):
        actions.of(lab, asked)


@pytest.mark.parametrize(
    "asked", [{"do": "scale", "service": "web", "to": 0}, {"do": "kill", "task": "web.1"}]
)
def test_in_somebodys_swarm_a_click_changes_what_a_lab_made(
    asked: dict[str, Any], lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Machines(
        seats=list, joined=lambda _: None, broken=lambda _: None, managers=1, shared=True
    )
    shared = dataclasses.replace(lab, engine=dataclasses.replace(lab.engine, machines=machines))
    with pytest.raises(UsageError, match="labkit did not make web, and the swarm ran before"):
        actions.of(shared, asked)
    made = {**SERVICES[0]["Spec"], "Labels": {MADE_BY: "docker service create"}}
    monkeypatch.setitem(SERVICES[0], "Spec", made)
    assert actions.of(shared, asked).argv[0] == "docker"


def test_long_work_has_its_command() -> None:
    save = actions.work("monday", {"do": "save", "checkpoint": "it's mine"})
    assert save
    assert save[0] == """labkit checkpoint save 'it'"'"'s mine' --lab monday"""
    reset = actions.work("monday", {"do": "reset"})
    assert reset
    assert reset[0] == "labkit reset --lab monday"
    assert actions.work("monday", {"do": ["reset"]}) is None


@pytest.mark.parametrize(
    ("asked", "argv", "cell"),
    [
        ({"node": "node2"}, "node2 -- bash", 'lab.node("node2")'),
        (
            {"node": "node2", "netns": "ingress_sbox"},
            "node2 --netns ingress_sbox -- bash",
            'lab.node("node2").netns("ingress_sbox")',
        ),
    ],
)
def test_a_shell_is_opened_in_one_place(
    asked: dict[str, Any], argv: str, cell: str, lab: swarm.Lab
) -> None:
    shell = actions.shell(lab, asked)
    assert (" ".join(shell.argv), shell.cell, shell.keeps) == (argv, cell, True)


def test_what_was_typed_becomes_cells(lab: swarm.Lab) -> None:
    shell = actions.shell(lab, {"node": "node2"})
    typed = ["ip neigh", "", " clear", 'curl -s "http://10.0.0.3/"', "ip a | grep eth0", "exit"]
    assert actions.cells(shell, typed) == [
        'lab.node("node2").run("ip neigh")',
        r'lab.node("node2").run("curl -s \"http://10.0.0.3/\"")',
        'lab.node("node2").run(["bash", "-c", "ip a | grep eth0"])',
    ]
    assert len(actions.cells(shell, ["ip neigh"] * 50)) == 20


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("ip -d link show type vxlan", True),
        ("tcpdump -ni eth0 'udp port 4789 && !(host 10.0.0.3)'", True),
        ('docker service create --env "A=B * ~ # |" --name web nginx', True),
        (r"find / -name a\*b \;", True),
        (r'echo "a \" b" it\'s', True),
        ("curl http://10.0.0.3/?a=1", False),
        ("ls /sys/class/net/*/address", False),
        ("ls /proc/[0-9]/ns", False),
        ("docker inspect {web,api}", False),
        ("docker stop $(docker ps -q)", False),
        ('docker rm "$(docker ps -lq)"', False),
        ('echo "`hostname`"', False),
        (r'echo "\$HOME"', False),
        ("echo $HOSTNAME", False),
        ("ls ~", False),
        ("N=1 env", False),
        ("ip neigh # all of them", False),
        ("ip a|grep eth0", False),
        ("ip a>/run/a", False),
        ("sleep 5&", False),
        ("! true", False),
        ("(ip neigh)", False),
        ("echo 'not closed", False),
        ("ip neigh \\", False),
    ],
)
def test_a_cell_runs_what_the_shell_ran(line: str, plain: bool, lab: swarm.Lab) -> None:
    (cell,) = actions.cells(actions.shell(lab, {"node": "node2"}), [line])
    argument = ast.literal_eval(cell.removeprefix('lab.node("node2").run(').removesuffix(")"))
    assert argument == (line if plain else ["bash", "-c", line])
    if plain:  # the words that a shell makes of it
        told = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
        )
        assert argv_of(line) == tuple(told.stdout.split("\0")[:-1])


# --- what is asked about a service ---------------------------------------------------------------


def test_the_way_of_a_request_is_told_step_by_step(
    monkeypatch: pytest.MonkeyPatch, lab: swarm.Lab
) -> None:
    way = pd.read_csv(Path(__file__).with_name("tables") / "packet.csv")
    monkeypatch.setattr("labkit.experiments.packet", lambda *_, via: way)
    answer = services.of(lab, {"ask": "way", "service": "web", "node": "node2"})
    assert [step.node for step in answer.steps] == ["node2", "node2", "node3"]
    assert answer.steps[1].place.startswith("2   node2/ingress_sbox, counted by MARK")
    assert (answer.where, answer.command) == ("node2", "curl http://127.0.0.1:5000/whoami")
    assert 'experiments.packet(lab, "web", via=lab.node("node2"))' in answer.cell


def test_balancers_name_the_tasks_that_they_choose_from(
    monkeypatch: pytest.MonkeyPatch, lab: swarm.Lab
) -> None:
    here = {"node": "node1", "place": "node1/ingress_sbox", "mark": 256}
    rows = pd.DataFrame(
        [
            here | {"destinations": "10.0.0.5,10.0.0.9"},
            here | {"node": "node2", "mark": pd.NA, "destinations": ""},
        ]
    )
    monkeypatch.setattr("labkit.experiments.balancers", lambda *_: rows)
    answer = services.of(lab, {"ask": "balancers", "service": "web"})
    first, second = (step.told for step in answer.steps)
    assert first == "mark 0x100; 10.0.0.5 (web.1), 10.0.0.9 (no running task)"
    assert second == "no rule marks its packets; nobody to choose"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"ask": "all", "service": "web"}, "no question is called 'all'"),
        ({"ask": "way", "service": "nobody"}, "no service is called 'nobody'"),
        ({"ask": "way", "service": "web", "node": "node9"}, "no node is called 'node9'"),
    ],
)
def test_a_question_that_cannot_be_is_told(asked: dict[str, Any], told: str, lab: swarm.Lab) -> None:
    with pytest.raises(UnknownNameError, match=told):
        services.of(lab, asked)


# --- watching ------------------------------------------------------------------------------------


def test_on_recorded_answers_nothing_is_looked_for_or_done() -> None:
    async def ask() -> State:
        shown = View("default", "labs/evidence")
        with pytest.raises(UsageError, match="there is no swarm"):
            shown.begin("labkit reset", lambda _: None)
        _, state = await shown.newer(-1, 0)
        return state

    assert asyncio.run(ask()).state == "recorded"


def test_work_that_fails_is_told_until_the_next_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise UnknownNameError("running lab", "toy", [])

    monkeypatch.setattr(view, "_ASKED_FOR_S", 0.5)  # the thread ends within this test
    monkeypatch.setattr(watch, "_ABSENT_S", 0.1)
    monkeypatch.setattr("labkit.swarm.lifecycle.get", refuse)

    def work(_: object) -> None:
        raise UsageError("it broke", hint="mend it")

    async def ask() -> list[State]:
        shown = View("toy")
        shown.begin("labkit reset", work)
        with pytest.raises(UsageError, match="one thing at a time"):
            shown.begin("labkit reset", work)
        version, state = await shown.newer(-1, 5)
        states = [state]
        while states[-1].state == "working":
            version, state = await shown.newer(version, 5)
            states.append(state)
        return states

    first, *_, last = asyncio.run(ask())
    the_watch_ends()
    assert (first.state, first.told) == ("working", "labkit reset")
    assert last.state == "none"
    assert "it broke" in last.failed


def test_a_look_that_began_before_the_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, begun, done = threading.Event(), threading.Event(), threading.Event()

    def look(_: str) -> None:
        looking.set()
        begun.wait(10)
        raise UnknownNameError("running lab", "toy", [])

    monkeypatch.setattr(view, "_ASKED_FOR_S", 0.5)
    monkeypatch.setattr("labkit.swarm.lifecycle.get", look)

    async def ask() -> State:
        shown = View("toy")
        asked = asyncio.create_task(shown.newer(shown.version, 5))
        await asyncio.to_thread(looking.wait, 10)
        shown.begin("labkit reset", lambda _: done.wait(10))
        version, _ = await asked
        begun.set()
        _, state = await shown.newer(version, 0.3)
        done.set()
        return state

    state = asyncio.run(ask())
    the_watch_ends()
    assert state.state == "working"


def test_a_swarm_that_a_notebook_starts_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    monkeypatch.setattr(view, "_ASKED_FOR_S", 0.5)

    async def ask() -> State:
        shown = View("toy")
        _, state = await shown.newer(shown.version, 5)
        return state

    with locks.hold("toy") as held, held.step("making"):
        state = asyncio.run(ask())
        the_watch_ends()
    assert (state.state, state.hint) == ("working", "")
    assert "is making lab 'toy'" in state.told


def the_watch_ends() -> None:
    for thread in threading.enumerate():
        if thread.name == "labkit watch":
            thread.join(10)
            assert not thread.is_alive()


def test_the_browsers_part_needs_no_build() -> None:
    package = json.loads((LABEXTENSIONS / "labkit" / "package.json").read_text())
    assert (LABEXTENSIONS / "labkit" / package["jupyterlab"]["_build"]["load"]).is_file()
