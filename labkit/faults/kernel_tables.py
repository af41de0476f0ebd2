"""Faults in the kernel's tables of one node: nat, IPVS, and the forwarding database (FDB) of VXLAN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.experiments.asking import curl
from labkit.faults.fault import SHORT_S, Fault, Step, connected_but_silent
from labkit.faults.testbed import PLAIN, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture


def _flush_nat(bench: Bench) -> list[Step]:
    """Return the step that empties node2's nat table; its undo holds the table as it is now."""
    node = bench.nodes[1]
    saved = node.run(["iptables-save", "-t", "nat"]).check().text
    undo = ["sh", "-c", 'printf %s "$1" | iptables-restore', "sh", saved]
    return [Step(node.place, ["iptables", "-w", "10", "-t", "nat", "-F"], undo)]


def _nat_and_curl(bench: Bench) -> list[Capture]:
    """List node2's nat rules, and ask the published port there, with the time to connect."""
    node = bench.nodes[1]
    return [
        node.run(["iptables", "-w", "10", "-t", "nat", "-S"]),
        node.run([*curl(f"http://127.0.0.1:{bench.port}", SHORT_S), "-w", "%{time_connect}"]),
    ]


def _shorten_ipvs(bench: Bench) -> list[Step]:
    """Return the step that lowers IPVS's time-out of an idle TCP connection from 900 s to 1 s."""
    place = bench.nodes[0].load_balancer(PLAIN)
    argv = ["ipvsadm", "--set"]
    return [Step(place, [*argv, "1", "120", "300"], [*argv, "900", "120", "300"])]


def _ipvs_timeouts(bench: Bench) -> list[Capture]:
    return [bench.nodes[0].load_balancer(PLAIN).run(["ipvsadm", "-l", "--timeout"])]


def _point_elsewhere(bench: Bench) -> list[Step]:
    """Return the step by which node1 sends what is for back to node2."""
    place = bench.nodes[0].overlay(PLAIN)
    argv = ["bridge", "fdb", "replace", bench.mac(), "dev", "vxlan0", "self", "permanent", "dst"]
    wrong, right = bench.nodes[1].address, bench.back.node.address
    return [Step(place, [*argv, wrong], [*argv, right])]


def _where_is_back(bench: Bench) -> list[Capture]:
    """List the forwarding databases of node1 and node2, then the address of back's node."""
    argv = ["bridge", "fdb", "show", "dev", "vxlan0"]
    here, there = (node.overlay(PLAIN).run(argv).check() for node in bench.nodes[:2])
    return [here, there, bench.back.node.run(["hostname", "-i"])]


def _they_disagree(seen: list[Capture]) -> bool:
    """Whether the two databases send the same MAC address to different nodes."""
    tables = [capture.table.dropna(subset="vtep") for capture in seen[:2]]
    here, there = (dict(zip(table["mac"], table["vtep"], strict=True)) for table in tables)
    return any(here[mac] != there[mac] for mac in here.keys() & there.keys())


FAULTS = (
    Fault(
        id="nat-flushed",
        title="the nat table of node2 is empty",
        symptom="The published port of node2 connects and then says nothing",
        red=("port-node2",),
        steps=_flush_nat,
        evidence=_nat_and_curl,
        shows=lambda seen: "--dport" not in seen[0].text and connected_but_silent(seen[1]),
    ),
    Fault(
        id="ipvs-timeout",
        title="node1 forgets a balanced connection of bench-plain after one second of silence",
        symptom="A connection that was quiet for a while is dead",
        red=("idle",),
        steps=_shorten_ipvs,
        evidence=_ipvs_timeouts,
        shows=lambda seen: seen[0].text.split()[-3:] == ["1", "120", "300"],
    ),
    Fault(
        id="stale-fdb",
        title="node1 believes that the task of back is on node2",
        symptom="One task is not reached from one node, and from the others it is",
        red=("forwarding", "far", "far-large"),
        steps=_point_elsewhere,
        evidence=_where_is_back,
        shows=_they_disagree,
    ),
)
