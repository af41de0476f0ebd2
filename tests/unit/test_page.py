"""The server's part of the page: how far a learner is, what one look sees, what a click stands for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import nbgrader_cells, paths, swarm
from labkit.errors import UnknownNameError, UsageError
from labkit.nbgrader_cells import Role, role_of
from labkit.page import LABEXTENSIONS, actions, labs, view
from labkit.page.view import View
from labkit.swarm import watch
from labkit.swarm.watch import State
from tests.unit.fakes import FakeNode, as_json, lab_of

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


# --- one look ------------------------------------------------------------------------------------


def node(name: str, **more: Any) -> dict[str, Any]:
    return {
        "ID": f"id-{name}",
        "Description": {"Hostname": name},
        "Spec": {"Role": "worker", "Availability": "active"},
        "Status": {"State": "ready", "Addr": "0.0.0.0"},
    } | more


def task(slot: int, state: str, desired: str, at: int, **status: Any) -> dict[str, Any]:
    return {
        "ID": f"{slot}-{at}",
        "ServiceID": "s1",
        "NodeID": "id-node2",
        "Slot": slot,
        "CreatedAt": f"2026-11-29T10:00:{at:02}.0Z",
        "DesiredState": desired,
        "Status": {"State": state, "Timestamp": f"2026-11-29T10:00:{at:02}.0Z"} | status,
    }


NODES = [
    node("node2"),
    node("node1", Spec={"Role": "manager", "Availability": "drain"}, ManagerStatus={"Leader": True}),
]
NETWORKS = [
    {"Id": "n1", "Name": "ingress", "Ingress": True, "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}},
    {
        "Id": "n2",
        "Name": "both",
        "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.1.0.0/24"}]},
        "Options": {"encrypted": ""},
    },
]
SERVICES = [
    {
        "ID": "s1",
        "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 2}}},
        "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2},
        "Endpoint": {
            "VirtualIPs": [{"NetworkID": "n2", "Addr": "10.1.0.2/24"}],
            "Ports": [{"Protocol": "tcp", "TargetPort": 3000, "PublishedPort": 8080}],
        },
    }
]
TASKS = [
    task(2, "preparing", "running", 9),
    *(task(1, "failed", "shutdown", at, Err=f"exit {at}") for at in range(4)),
    task(1, "running", "running", 5, ContainerStatus={"ContainerID": "c" * 64, "PID": 7}),
    task(1, "running", "running", 6) | {"ServiceID": "gone"},
]
ANSWERS = {"/nodes": NODES, "/networks": NETWORKS, "/services": SERVICES, "/tasks": TASKS}


def api(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
    return as_json(ANSWERS["/" + path.split("?")[0].rpartition("/")[2]])


@pytest.fixture
def lab() -> Iterator[swarm.Lab]:
    made = lab_of({name: FakeNode(lambda _: "", api) for name in ("node1", "node2")})
    yield made
    made.close()


def test_a_look_has_what_people_look_for_in_order(lab: swarm.Lab) -> None:
    seen = lab.look()
    first, second = seen.nodes
    assert (first.name, first.leader, first.availability) == ("node1", True, "drain")
    assert (second.name, second.role, second.address) == ("node2", "worker", "172.30.0.3")
    assert [(row.name, row.subnet, row.ingress, row.encrypted) for row in seen.networks] == [
        ("both", "10.1.0.0/24", False, True),
        ("ingress", "10.0.0.0/24", True, False),
    ]
    (web,) = seen.services
    assert (web.running, web.wanted, web.mode) == (1, 2, "replicated")
    assert web.addresses == {"both": "10.1.0.2"}
    assert web.ports == ("8080->3000/tcp",)
    # The newest of each slot, and no more than two of those that have ended.
    shown = [(row.name, row.state, row.error) for row in seen.tasks]
    assert shown == [
        ("web.1", "running", ""),
        ("web.1", "failed", "exit 3"),
        ("web.1", "failed", "exit 2"),
        ("web.2", "preparing", ""),
    ]
    assert seen.moves


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


def test_long_work_has_its_command() -> None:
    save = actions.work("monday", {"do": "save", "checkpoint": "it's mine"})
    assert save
    assert save[0] == """labkit checkpoint save 'it'"'"'s mine' --lab monday"""
    reset = actions.work("monday", {"do": "reset"})
    assert reset
    assert reset[0] == "labkit reset --lab monday"
    assert actions.work("monday", {"do": ["reset"]}) is None


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


def the_watch_ends() -> None:
    for thread in threading.enumerate():
        if thread.name == "labkit watch":
            thread.join(10)
            assert not thread.is_alive()


def test_the_browsers_part_needs_no_build() -> None:
    package = json.loads((LABEXTENSIONS / "labkit" / "package.json").read_text())
    assert (LABEXTENSIONS / "labkit" / package["jupyterlab"]["_build"]["load"]).is_file()
