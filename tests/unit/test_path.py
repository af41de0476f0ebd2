"""The hops of a request: found in what real nodes of each version printed, and counted by task."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labkit.capture import Capture
from labkit.engines import versions
from labkit.errors import SwarmError
from labkit.experiments import path

CAPTURES = Path(__file__).parents[1] / "captures"
TASK: Any = SimpleNamespace(
    name="hello.1",
    node=SimpleNamespace(name="node2"),
    ingress="ingress",
    sandbox=None,
    addresses={"ingress": "10.0.0.6"},
    container="0123456789abcdef",
)
WIRE = """\
12:00:00.000001 IP 192.168.1.2.47078 > 192.168.1.3.4789: VXLAN, flags [I] (0x08), vni 4096
IP 10.0.0.4.33000 > 10.0.0.6.5000: Flags [S], seq 1, win 64860, length 0
12:00:00.000002 IP 192.168.1.3.52342 > 192.168.1.2.4789: VXLAN, flags [I] (0x08), vni 4096
IP 10.0.0.6.5000 > 10.0.0.4.33000: Flags [S.], seq 1, ack 2, win 64308, length 0
12:00:00.000003 IP 192.168.1.2.47078 > 192.168.1.3.4789: VXLAN, flags [I] (0x08), vni 4096
IP 10.0.0.4.33000 > 10.0.0.6.5000: Flags [.], ack 1, win 507, length 0
12:00:00.000004 IP 192.168.1.2.47078 > 192.168.1.3.4789: VXLAN, flags [I] (0x08), vni 4097
IP 10.0.1.4.33000 > 10.0.1.6.5000: Flags [.], ack 1, win 507, length 0
12:00:00.000005 IP 192.168.1.2.47078 > 192.168.1.3.4789: VXLAN, flags [I] (0x08), vni 4096
IP 10.0.0.4.33000 > 10.0.0.6.3000: Flags [.], ack 1, win 507, length 0
"""


def capture(argv: list[str], stdout: str, stderr: str = "") -> Capture:
    return Capture(tuple(argv), "node1", "node1", 0, stdout, stderr, datetime.now(UTC), 0.1, "26.1")


def captured(docker: str, name: str) -> Capture:
    first, _, text = (CAPTURES / docker / f"{name}.txt").read_text().partition("\n")
    return capture(json.loads(first.removeprefix("$ ")), text)


@pytest.mark.parametrize("docker", versions.shipped())
def test_every_rule_is_found_on_every_version(docker: str) -> None:
    names = ["iptables-save--node", "iptables-save--ingress_sbox"]
    names += ["ipvsadm--ingress_sbox-exact-stats", "iptables-save--sandbox"]
    answers = [captured(docker, name) for name in names]
    lab: Any = SimpleNamespace(run_all=lambda _: answers)
    node: Any = SimpleNamespace(place=None)
    rows = path._counters(lab, node, TASK, [TASK], 5000, 3000)
    assert [row["hop"] for row in rows if row["what"] is None] == []
    assert {row["hop"] for row in rows} == set(path.HOPS) - {"VXLAN", "answers"}
    figures = {(r["counted"], r["way"]): r["after"] for r in rows if r["hop"] == "IPVS"}
    assert figures["connections", "to the task"] == 2
    assert min(figures["packets", "to the task"], figures["packets", "to the client"]) > 10


def test_frames_of_the_port_are_counted_by_task_and_way() -> None:
    rows = path._crossing(capture(["tcpdump", "-n"], WIRE), [TASK], 5000)
    assert [(row["way"], row["after"]) for row in rows] == [("to the task", 2), ("to the client", 1)]


def test_a_recording_with_a_gap_is_refused() -> None:
    counts = "3 packets captured\n5 packets received by filter\n2 packets dropped by kernel\n"
    with pytest.raises(SwarmError, match="lost 2 packets"):
        path._crossing(capture(["tcpdump", "-n"], WIRE, counts), [TASK], 5000)


def test_answers_are_counted_by_container() -> None:
    line = '{"container": "%s", "node": "node1", "addresses": [], "client": "10.0.0.4"}\n'
    asked = capture(["curl"], line % "0123456789ab" + line % "ffffffffffff")
    (row,) = path._answers(asked, [TASK])
    assert (row["node"], row["place"], row["after"]) == ("node2", "hello.1", 1)
