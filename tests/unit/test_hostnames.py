"""A node that Docker calls otherwise than the lab: what people see, and what Docker is told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit import experiments, swarm
from labkit.diagnosis import declared
from labkit.errors import UnknownNameError
from labkit.evidence import format, notes, replayed
from labkit.experiments.asking import tasks_by_container
from labkit.experiments.timeline import _as_the_lab_calls_it
from labkit.faults import condition, deployments, services, testbed
from labkit.page import actions
from labkit.swarm import attach
from tests.unit.fakes import ANSWERS, SERVICES, FakeNode, as_json, lab_of

MACHINES = {"node1": "alpha", "node2": "beta"}
MORE = {
    "/info": {"Swarm": {"LocalNodeState": "active"}},
    "/swarm": {},
    "/version": {"Version": "26.1.5"},
}


def answer(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
    """Answer as the daemons of two machines that call themselves alpha and beta."""
    what = path.split("?")[0].rpartition("/")[2]
    told = json.dumps((ANSWERS | MORE)[f"/{what}"])
    for name, machine in MACHINES.items():
        told = told.replace(f'"Hostname": "{name}"', f'"Hostname": "{machine}"')
    return as_json(json.loads(told))


@pytest.fixture
def lab() -> Iterator[swarm.Lab]:
    made = lab_of({name: FakeNode(lambda _: "", answer) for name in MACHINES})
    nodes = {
        name: dataclasses.replace(node, machine=MACHINES[name]) for name, node in made.nodes.items()
    }
    yield dataclasses.replace(made, nodes=nodes)
    made.close()


def test_a_node_is_found_by_both_names(lab: swarm.Lab) -> None:
    assert lab.node("beta") is lab.node("node2")
    assert (lab.node("node2").hostname, lab.called("beta"), lab.called("other")) == (
        "beta",
        "node2",
        "other",
    )
    with pytest.raises(UnknownNameError, match="no node is called 'gamma'"):
        lab.node("gamma")


def test_a_node_of_labkits_has_one_name() -> None:
    made = lab_of({"node1": FakeNode(lambda _: "", answer)})
    assert made.manager.hostname == "node1"
    made.close()


def test_what_docker_tells_has_the_labs_names(lab: swarm.Lab) -> None:
    seen = lab.look()
    assert [row.name for row in seen.nodes] == ["node1", "node2"]
    assert seen.nodes[1].told == "worker, ready, 172.30.0.3, beta"
    assert seen.nodes[1].address == "172.30.0.3"
    assert {row.node for row in seen.tasks} == {"node2"}
    assert [task.node.name for task in lab.tasks("web")] == ["node2"]
    rows = [(row["name"], row["hostname"], row["state"]) for row in lab.status()["nodes"]]
    assert rows == [("node1", "alpha", "ready"), ("node2", "beta", "ready")]
    assert list(experiments.nodes(lab)["node"]) == ["node1", "node2"]


def test_the_task_of_a_global_service_has_its_nodes_name(
    lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = {"ContainerID": "c" * 64, "PID": 7}
    task = {"ID": "t", "ServiceID": "s1", "NodeID": "id-node2"}
    task |= {"Status": {"State": "running", "ContainerStatus": box}}
    monkeypatch.setitem(ANSWERS, "/tasks", [task])
    assert tasks_by_container(lab) == {"c" * 12: "web.node2"}


def test_a_diagnosis_has_the_labs_names(lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {**SERVICES[0]["Spec"], "TaskTemplate": {}}
    monkeypatch.setitem(SERVICES[0], "Spec", spec)
    monkeypatch.setitem(ANSWERS, "/networks", [])
    said = declared.of(lab)
    assert set(said.states) == {"node1", "node2"}
    assert [task.node.name for task in said.running] == ["node2"]


def test_what_a_watcher_prints_has_the_labs_names(lab: swarm.Lab) -> None:
    tasks = {"t1": {"node": "beta", "slot": 1}, "t2": {"node": None, "slot": 2}}
    line = {"source": "swarm", "at": 1.0, "shows": {"nodes": {"alpha": "ready"}, "tasks": tasks}}
    shows = _as_the_lab_calls_it(lab, line)["shows"]
    assert shows["nodes"] == {"node1": "ready"}
    assert [task["node"] for task in shows["tasks"].values()] == ["node2", None]


def test_docker_is_told_its_own_names(lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    drained = actions.of(lab, {"do": "drain", "node": "node2"})
    assert drained.argv[-1] == "beta"
    lab.take_in(lab.node("node2"))
    assert lab.manager.asked[-1][1][-1] == "beta"
    bench: Any = SimpleNamespace(lab=lab, nodes=tuple(lab.nodes.values()), port=6000)
    (step,) = deployments._late()(bench)
    assert step.do
    assert "node.hostname==beta" in step.do
    asleep = [["node2"], []]
    monkeypatch.setattr(services, "_without_ingress", lambda _: asleep.pop(0))
    monkeypatch.setattr(type(lab), "wait_for", lambda _, __, look, **___: look() and look())
    services._wake(lab)
    assert [argv[-1] for _, argv in lab.manager.asked[-2:]] == ["beta", "beta"]


def test_the_bench_is_placed_by_dockers_names(lab: swarm.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    third = dataclasses.replace(lab.node("node2"), name="node3", machine="gamma")
    three = dataclasses.replace(lab, nodes={**lab.nodes, "node3": third})
    placed: dict[str, str] = {}
    monkeypatch.setattr(type(lab), "network", lambda *_, **__: None)
    monkeypatch.setattr(
        type(lab), "service", lambda _, name, options, **__: placed.update({name: options[1]})
    )
    testbed.create_missing(three, 6000)
    assert placed == {
        "asker": "node.hostname==alpha",
        "front": "node.hostname==beta",
        "door": "node.hostname==beta",
        "back": "node.hostname==gamma",
    }
    assert [line for line in condition.of(lab) if line.startswith("node node2: as")]


def test_a_replay_tells_docker_the_same(lab: swarm.Lab, tmp_path: Path) -> None:
    file = tmp_path / "toy.evidence.jsonl"
    attach._with_evidence(lab, file)
    found = attach._replayed(file)
    replayed.end()
    notes.keep(None)
    assert {node.name: node.hostname for node in found.nodes.values()} == MACHINES
    lines = map(json.loads, file.read_text().splitlines())
    line = next(line for line in lines if line["kind"] == "lab")
    assert format.well_formed(json.dumps(line).encode())
    line["nodes"][0]["machine"] = 7
    assert format.well_formed(json.dumps(line).encode()) is None
