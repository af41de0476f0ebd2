"""compose/swarm.yaml: what is read from it, and what a mistake in it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit import paths, topology
from labkit.errors import TopologyError, UsageError

SWARM = paths.COMPOSE / "swarm.yaml"


def load(text: str, tmp_path: Path, nodes: int = 3) -> topology.Topology:
    file = tmp_path / "swarm.yaml"
    file.write_text(text)
    return topology.load(file, lab="l", docker="26.1", nodes=nodes)


def test_the_repositorys_file_gives_three_private_privileged_nodes() -> None:
    found = topology.load(SWARM, lab="monday", docker="28.5", nodes=3)
    assert [node.name for node in found.nodes] == ["node1", "node2", "node3"]
    assert {node.image for node in found.nodes} == {"labkit/node:28.5"}
    assert all(node.privileged for node in found.nodes)
    assert found.internal
    assert found.project == "labkit-monday"
    assert found.nodes[0].labels == {"labkit.lab": "monday", "labkit.docker": "28.5"}


@pytest.mark.parametrize("nodes", [1, 2, 5, topology.MOST_NODES])
def test_any_number_of_nodes_comes_from_the_same_description(nodes: int) -> None:
    found = topology.load(SWARM, lab="l", docker="26.1", nodes=nodes)
    assert [node.name for node in found.nodes] == [f"node{i + 1}" for i in range(nodes)]


@pytest.mark.parametrize("nodes", [0, -1, 40])
def test_a_number_of_nodes_that_cannot_be_is_refused(nodes: int) -> None:
    with pytest.raises(UsageError, match=rf"{nodes} nodes was asked for; 1 to"):
        topology.load(SWARM, lab="l", docker="26.1", nodes=nodes)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "problem"),
    [
        (
            "  privileged: true",
            "  privileged: maybe",
            "privileged: maybe",
            "node1.privileged",
            "true or",
        ),
        (
            "  privileged: true",
            "  priviledged: true",
            "priviledged",
            "priviledged",
            "is not known here",
        ),
        ("  image: labkit", "  # image: labkit", "node1: {", "node1.image", "is missing"),
        ("networks: [underlay]", "networks: [other]", "node1: {", "networks", r"expected \[underlay\]"),
        ("internal: true", "internal: [", "internal: [", "", "is not YAML"),
        ("services:", "service:", "service:", "service", "is not known here"),
        (
            "hostname: node2",
            "hostname: node1",
            "name: labkit",
            "services",
            "two nodes have one hostname",
        ),
    ],
)
def test_a_broken_file_names_line_and_key(
    tmp_path: Path, old: str, new: str, line: str, key: str, problem: str
) -> None:
    text = SWARM.read_text().replace(old, new, 1)
    with pytest.raises(TopologyError, match=problem) as caught:
        load(text, tmp_path)
    named = int(str(caught.value).split("line ")[1].split(",")[0])
    lines = text.splitlines()
    # A parser notices an unclosed bracket where the next thing begins.
    near = "\n".join(lines[max(0, named - 4) : named + 1])
    assert line in near
    assert key in str(caught.value)


def test_an_empty_file_and_no_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="the file is empty"):
        load("", tmp_path)
    with pytest.raises(TopologyError, match="cannot be read"):
        topology.load(tmp_path / "no.yaml", lab="l", docker="26.1", nodes=3)


def test_a_variable_without_value_or_default_is_refused(tmp_path: Path) -> None:
    text = SWARM.read_text().replace("${LABKIT_DOCKER:-26.1}", "${NOBODY_SETS_THIS}", 1)
    with pytest.raises(TopologyError, match="has no value and no default"):
        load(text, tmp_path)
