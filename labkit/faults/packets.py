"""Faults by rules of iptables: packets that are dropped, or not marked."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from labkit.experiments.asking import TASK_PORT, curl, ping
from labkit.faults.fault import SHORT_S, Fault, Step
from labkit.faults.testbed import PLAIN, SECRET, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.swarm import Place

COMMENT = "labkit-fault"
"""The comment of every rule of iptables that a fault adds."""


def _drop(place: Place, *rules: str) -> list[Step]:
    """Return steps that drop packets in a place; each rule is a chain and what iptables matches."""
    steps = []
    for rule in rules:
        chain, *match = rule.split()
        rest = [chain, *match, "-m", "comment", "--comment", COMMENT, "-j", "DROP"]
        argv = ["iptables", "-w", "10"]
        steps.append(Step(place, [*argv, "-I", *rest], [*argv, "-D", *rest]))
    return steps


def _both_ways(bench: Bench, match: str) -> list[Step]:
    """Return steps that drop what comes into node3 and what leaves it."""
    return _drop(bench.nodes[2].place, f"INPUT {match}", f"OUTPUT {match}")


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
    """Ping back over the plain and the encrypted network."""
    return [
        bench.asker.run(ping(bench.back.addresses[network], SHORT_S)) for network in (PLAIN, SECRET)
    ]


def _ping_both_and_states(bench: Bench) -> list[Capture]:
    """Ping back over both networks, then list node1's IPsec states."""
    return [*_ping_both_networks(bench), bench.nodes[0].run(["ip", "xfrm", "state"])]


def _ping_small_and_large(bench: Bench) -> list[Capture]:
    """Ping back with ping's own 56 bytes and with 1400, which the rule of the fault matches."""
    small = ping(bench.back.addresses[PLAIN], SHORT_S)
    return [bench.asker.run(argv) for argv in (small, [*small[:-1], "-s", "1400", small[-1]])]


def _firewall_of_a_task(bench: Bench) -> list[Step]:
    """Return the step that shuts the app's port in the network namespace of front."""
    return _drop(bench.front.sandbox, f"INPUT -p tcp --dport {TASK_PORT}")


def _ask_front(bench: Bench) -> list[Capture]:
    """Ping front from asker, list the rules in front's namespace, and ask front for an answer."""
    address = bench.front.addresses[PLAIN]
    return [
        bench.asker.run(ping(address, SHORT_S)),
        bench.front.sandbox.run(["iptables", "-w", "10", "-S", "INPUT"]),
        bench.asker.run(curl(f"http://{address}:{TASK_PORT}/", SHORT_S)),
    ]


def _firewall_of_a_node(bench: Bench) -> list[Step]:
    """Return the step by which node2 forwards nothing to the published port."""
    return _drop(bench.nodes[1].place, f"DOCKER-USER -p tcp --dport {bench.port}")


def _ask_node2(bench: Bench) -> list[Capture]:
    """Ask the published port of node2 there, and from node1."""
    node1, node2, _ = bench.nodes
    return [
        node2.run(curl(f"http://127.0.0.1:{bench.port}/", SHORT_S)),
        node1.run(curl(f"http://{node2.address}:{bench.port}/", SHORT_S)),
        node2.run(["iptables", "-w", "10", "-S", "DOCKER-USER"]),
    ]


def _unmark(bench: Bench) -> list[Step]:
    """Return steps that remove node1's rules that mark what is to be encrypted."""
    argv = ["iptables", "-w", "10", "-t", "mangle"]
    rules = bench.nodes[0].run([*argv, "-S", "OUTPUT"]).check().lines
    marking = [shlex.split(rule)[1:] for rule in rules if "MARK" in rule]
    return [Step(bench.nodes[0].place, [*argv, "-D", *m], [*argv, "-A", *m]) for m in marking]


def _ping_both_and_marks(bench: Bench) -> list[Capture]:
    """Ping back over both networks, then list the rules of node1 that mark."""
    marks = bench.nodes[0].run(["iptables", "-w", "10", "-t", "mangle", "-S", "OUTPUT"])
    return [*_ping_both_networks(bench), marks]


FAULTS = (
    Fault(
        id="vxlan-dropped",
        level=3,
        title="node3 drops UDP port 4789, in and out",
        complaint=(
            "Since the security team was here nobody reaches what runs on node3, and they say that "
            "they only shut a port that nobody uses"
        ),
        remedy="Open UDP port 4789 between all nodes again: remove the rules on node3",
        source="moby/moby#33911, moby/moby#40590",
        red=("far", "far-large", "far-encrypted", "port-node3"),
        steps=lambda bench: _both_ways(bench, "-p udp --dport 4789"),
        evidence=_ask_for_the_mac,
        shows=_mac_but_silence,
    ),
    Fault(
        id="gossip-dropped",
        level=3,
        title="node3 drops TCP and UDP port 7946, in and out",
        complaint="`docker node ls` says Ready everywhere, and still node3 is as if it were gone",
        remedy="Open port 7946, TCP and UDP, between all nodes again: remove the rules on node3",
        source="docs.docker.com/engine/swarm/swarm-tutorial, open protocols and ports",
        red=("neighbours", "forwarding", "far-name", "far", "far-large", "far-encrypted"),
        steps=_gossip,
        evidence=_ask_for_the_mac,
        shows=_no_mac_though_ready,
        # Node3 forgets the others too, sooner or later; on 20.10 not within the 150 s of a trial.
        either=("port-node3",),
    ),
    Fault(
        id="esp-dropped",
        level=3,
        title="node3 drops what is encrypted (ESP, IP protocol 50)",
        complaint="What we moved to the network that is safe to use cannot be reached any more",
        remedy="Let IP protocol 50 through between all nodes: remove the rule on node3",
        source="docker/docs#8640, moby/moby#27425",
        red=("far-encrypted",),
        steps=lambda bench: _drop(bench.nodes[2].place, "INPUT -p esp"),
        evidence=_ping_both_and_states,
        shows=lambda seen: seen[0].ok and not seen[1].ok and "spi" in seen[2].text,
    ),
    Fault(
        id="large-vxlan-dropped",
        level=3,
        title="node3 drops UDP port 4789 where a packet has 1400 bytes or more",
        complaint="Logging in works, but each page with a list on it hangs",
        remedy="Let full packets through between all nodes: remove the rules on node3",
        source="moby/moby#41332, moby/moby#33596",
        red=("far-large",),
        steps=lambda bench: _both_ways(bench, "-p udp --dport 4789 -m length --length 1400:65535"),
        evidence=_ping_small_and_large,
        shows=lambda seen: seen[0].ok and not seen[1].ok,
    ),
    Fault(
        id="unmarked",
        level=3,
        title="node1 marks no packet of the encrypted overlay, so it sends them as they are",
        complaint="The encrypted network was fine until somebody tidied up the firewall of node1",
        remedy="Put the rules back that mark the packets of the overlay, in the table mangle of node1",
        source="moby/moby#43382",
        red=("far-encrypted", "marks"),
        steps=_unmark,
        evidence=_ping_both_and_marks,
        shows=lambda seen: seen[0].ok and not seen[1].ok and "MARK" not in seen[2].text,
    ),
    Fault(
        id="task-firewalled",
        level=2,
        title="a rule in the network namespace of front drops what comes for the app",
        complaint="front runs, Docker says, and its log says that it listens. It answers nobody",
        remedy="Remove the rule from the chain INPUT in the task's own namespace",
        source="moby/moby#27913",
        red=("near", "name", "idle", "call"),
        steps=_firewall_of_a_task,
        evidence=_ask_front,
        shows=lambda seen: seen[0].ok and COMMENT in seen[1].text and seen[2].code == 28,
        says={"near": "time-out"},
    ),
    Fault(
        id="user-firewall",
        level=2,
        title="a rule in DOCKER-USER of node2 drops what comes from outside for the published port",
        complaint="On the server itself the page opens. From any other computer it does not",
        remedy="Remove the rule from the chain DOCKER-USER of node2",
        source="moby/moby#4737; docs.docker.com/engine/network/packet-filtering-firewalls",
        red=("outside",),
        steps=_firewall_of_a_node,
        evidence=_ask_node2,
        shows=lambda seen: seen[0].ok and not seen[1].ok and COMMENT in seen[2].text,
    ),
)
