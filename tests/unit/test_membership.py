"""`experiments.members`: what `docker network inspect -v` says on each node, as one table."""

from __future__ import annotations

import json

from labkit import experiments, plots
from tests.unit.fakes import FakeNode, as_json, lab_of

# As Docker 26.1.5 writes them: the first node has no member and knows the network as a manager does.
NONE = {"Name": "door", "Containers": None}
TASK = "door_web.1.rnym7g0uryscicqs1nzbdcdr3"
MINE = {"Name": "mine", "EndpointIP": "10.0.1.11", "Info": {"Host IP": "172.30.0.3"}}
WEB = {"Name": TASK, "EndpointIP": "10.0.1.4", "Info": {"Host IP": "172.30.0.9"}}
SERVICES = {
    "": {"VIP": "<nil>", "Tasks": [MINE]},
    "door_web": {"VIP": "10.0.1.2", "Tasks": [WEB]},
    "gone": {"VIP": "10.0.1.7", "Tasks": None},
}
BOTH = {
    "Name": "door",
    "Containers": {
        "4b4b": {"Name": "mine", "IPv4Address": "10.0.1.11/24"},
        "lb-door": {"Name": "door-endpoint", "IPv4Address": "10.0.1.5/24"},
    },
    "Services": SERVICES,
}


def node(answer: dict[str, object]) -> FakeNode:
    return FakeNode(lambda argv: answer, lambda *_: as_json({}))


def test_each_node_tells_its_own_containers_and_those_of_all_nodes() -> None:
    lab = lab_of(
        {
            "node1": node({"stdout": json.dumps([NONE])}),
            "node2": node({"stdout": json.dumps([BOTH])}),
            "node3": node({"stderr": "network door not found", "code": 1}),
        }
    )
    found = experiments.members(lab, "door")
    assert list(found.fillna("").itertuples(index=False, name=None)) == [
        ("node2", "Containers", "mine", "", "10.0.1.11", "node2"),
        ("node2", "Containers", "door-endpoint", "", "10.0.1.5", "node2"),
        ("node2", "Services", "mine", "", "10.0.1.11", "node2"),
        ("node2", "Services", "door_web.1", "door_web", "10.0.1.4", ""),
    ]
    axes = plots.members(found)
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert [row.split()[0] for row in rows] == ["10.0.1.4", "10.0.1.5", "10.0.1.11"]


def test_a_text_is_written_as_it_is() -> None:
    fake = FakeNode(lambda argv: "", lambda *_: as_json({}))
    lab = lab_of({"node1": fake})
    lab.manager.write("a file", "x: $HOME `id` 'y'\n%s\n")
    assert fake.commands[-1][-2:] == ["x: $HOME `id` 'y'\n%s\n", "a file"]
