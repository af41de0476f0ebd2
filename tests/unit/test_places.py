"""Where commands run: what is read of a task from the engine's API."""

from __future__ import annotations

from typing import Any

from labkit.swarm.places import task_of
from tests.unit.fakes import FakeNode, as_json, lab_of

NETWORK = {"Spec": {"Name": "six", "IPv6Enabled": True}}


def test_a_task_has_both_addresses_whichever_swarm_gave() -> None:
    """Of the two pools Swarm takes one by chance, and the node adds an address of the other (26.1)."""
    there = {"IPAddress": "10.80.0.2", "GlobalIPv6Address": "fd80::4"}
    node = FakeNode(
        run=lambda _: "", api=lambda *_: as_json({"NetworkSettings": {"Networks": {"six": there}}})
    )
    for given, asked in (("10.80.0.2/24", 0), ("fd80::4/64", 1)):
        node.requests.clear()
        row: dict[str, Any] = {
            "Slot": 1,
            "Status": {"ContainerStatus": {"ContainerID": "abc", "PID": 7}},
            "NetworksAttachments": [{"Network": NETWORK, "Addresses": [given]}],
        }
        task = task_of("both", row, lab_of({"node1": node}).node("node1"))
        assert task.addresses == {"six": "10.80.0.2"}
        assert len(node.requests) == asked
        assert task.ipv6_addresses() == {"six": "fd80::4"}
