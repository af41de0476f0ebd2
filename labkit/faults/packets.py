"""Faults that drop packets on node3: VXLAN, gossip, ESP and long packets, by rules of iptables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.experiments.asking import ping
from labkit.faults.fault import SHORT_S, Fault, Step
from labkit.faults.testbed import PLAIN, SECRET, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.swarm import Node

COMMENT = "labkit-fault"
"""The comment of every rule of iptables that a fault adds."""


def _drop(node: Node, *rules: str) -> list[Step]:
    """Return steps that drop packets on a node; each rule is a chain and what iptables matches."""
    steps = []
    for rule in rules:
        chain, *match = rule.split()
        rest = [chain, *match, "-m", "comment", "--comment", COMMENT, "-j", "DROP"]
        argv = ["iptables", "-w", "10"]
        steps.append(Step(node.place, [*argv, "-I", *rest], [*argv, "-D", *rest]))
    return steps


def _both_ways(bench: Bench, match: str) -> list[Step]:
    """Return steps that drop what comes into node3 and what leaves it."""
    return _drop(bench.nodes[2], f"INPUT {match}", f"OUTPUT {match}")


def _gossip(bench: Bench) -> list[Step]:
    """Return steps that drop gossip, which uses TCP and UDP port 7946, on node3."""
    return [s for proto in ("udp", "tcp") for s in _both_ways(bench, f"-p {proto} --dport 7946")]


def _ask_for_the_mac(bench: Bench) -> list[Capture]:
    """Let asker forget the MAC address of back and ping it: the ping, the entry, the nodes' states."""
    address = bench.back.addresses[PLAIN]
    sandbox = bench.asker.sandbox
    sandbox.run(["ip", "neigh", "flush", "to", address])
    return [
        bench.asker.run(ping(address, SHORT_S)),
        sandbox.run(["ip", "neigh", "show", "to", address]),
        bench.lab.manager.run(["docker", "node", "ls", "--format", "{{.Hostname}} {{.Status}}"]),
    ]


def _mac_but_silence(seen: list[Capture]) -> bool:
    """Whether the MAC address is known and still nothing answers."""
    asked, neighbour, _ = seen
    return not asked.ok and "lladdr" in neighbour.text and "Unreachable" not in asked.text


def _no_mac_though_ready(seen: list[Capture]) -> bool:
    """Whether the MAC address is unknown, though the manager calls every node ready."""
    asked, neighbour, nodes = seen
    ready = all(line.endswith(" Ready") for line in nodes.lines)
    return not asked.ok and "lladdr" not in neighbour.text and ready


def _ping_both_networks(bench: Bench) -> list[Capture]:
    """Ping back over the plain and the encrypted network, then list node1's IPsec states."""
    asked = [
        bench.asker.run(ping(bench.back.addresses[network], SHORT_S)) for network in (PLAIN, SECRET)
    ]
    return [*asked, bench.nodes[0].run(["ip", "xfrm", "state"])]


def _ping_small_and_large(bench: Bench) -> list[Capture]:
    """Ping back with ping's own 56 bytes and with 1400, which the rule of the fault matches."""
    small = ping(bench.back.addresses[PLAIN], SHORT_S)
    return [bench.asker.run(argv) for argv in (small, [*small[:-1], "-s", "1400", small[-1]])]


FAULTS = (
    Fault(
        id="vxlan-dropped",
        title="node3 drops UDP port 4789",
        symptom=(
            "No task reaches a task on node3 from elsewhere, though its name and MAC address are known"
        ),
        red=("far", "far-large", "far-encrypted", "port-node3"),
        steps=lambda bench: _both_ways(bench, "-p udp --dport 4789"),
        evidence=_ask_for_the_mac,
        shows=_mac_but_silence,
    ),
    Fault(
        id="gossip-dropped",
        title="node3 drops TCP and UDP port 7946",
        symptom="Nobody elsewhere knows the tasks on node3 any more, though the manager calls it Ready",
        red=("neighbours", "forwarding", "far-name", "far", "far-large", "far-encrypted"),
        steps=_gossip,
        evidence=_ask_for_the_mac,
        shows=_no_mac_though_ready,
        # Node3 forgets the others too, sooner or later; on 20.10 not within the 150 s of a trial.
        either=("port-node3",),
    ),
    Fault(
        id="esp-dropped",
        title="node3 drops ESP, IP protocol 50",
        symptom="Only the encrypted overlay is dead",
        red=("far-encrypted",),
        steps=lambda bench: _drop(bench.nodes[2], "INPUT -p esp"),
        evidence=_ping_both_networks,
        shows=lambda seen: seen[0].ok and not seen[1].ok and "spi" in seen[2].text,
    ),
    Fault(
        id="large-vxlan-dropped",
        title="node3 drops UDP port 4789 where a packet has 1400 bytes or more",
        symptom="Short answers come, long ones hang",
        red=("far-large",),
        steps=lambda bench: _both_ways(bench, "-p udp --dport 4789 -m length --length 1400:65535"),
        evidence=_ping_small_and_large,
        shows=lambda seen: seen[0].ok and not seen[1].ok,
    ),
)
