"""Faults in the tables of one node: nat, the FDB and neighbours of VXLAN."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from labkit.experiments.asking import curl, ping
from labkit.faults.fault import SHORT_S, Fault, Step, connected_but_silent
from labkit.faults.testbed import FRONT, PLAIN, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture


def _empty_the_door(bench: Bench) -> list[Step]:
    """Return steps that remove node2's rules for published ports; their undo adds them in order."""
    place, argv = bench.nodes[1].place, ["iptables", "-w", "10", "-t", "nat"]
    rules = [shlex.split(rule)[1:] for rule in _door(bench).check().lines if rule.startswith("-A")]
    # The undo runs from the last step to the first.
    return [Step(place, [*argv, "-D", *rule], [*argv, "-A", *rule]) for rule in reversed(rules)]


def _door(bench: Bench) -> Capture:
    """List node2's rules for published ports."""
    return bench.nodes[1].run(["iptables", "-w", "10", "-t", "nat", "-S", "DOCKER-INGRESS"])


def _door_and_curl(bench: Bench) -> list[Capture]:
    """List node2's rules for published ports, and ask one there, with the time to connect."""
    asking = [*curl(f"http://127.0.0.1:{bench.port}", SHORT_S), "-w", "%{time_connect}"]
    return [_door(bench), bench.nodes[1].run(asking)]


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


def _name_another(bench: Bench) -> list[Step]:
    """Return steps by which node1 says that back has a MAC address that nobody has.

    That of another task would not do: its container passes on what is not for it (seen on 26.1). Asker
    forgets what it knew before, when it is broken and when it is mended.
    """
    place, address = bench.nodes[0].overlay(PLAIN), bench.back.addresses[PLAIN]
    argv = ["ip", "neigh", "replace", address, "dev", "vxlan0", "nud", "permanent", "lladdr"]
    forget = ["ip", "neigh", "flush", "to", address]
    return [
        Step(bench.asker.sandbox, undo=forget),
        Step(place, [*argv, f"{bench.mac()[:-2]}fa"], [*argv, bench.mac()]),
        Step(bench.asker.sandbox, forget),
    ]


def _neighbours_and_ping(bench: Bench) -> list[Capture]:
    """List what node1 answers to ARP requests for back, and ping back from asker."""
    address = bench.back.addresses[PLAIN]
    argv = ["ip", "neigh", "show", "to", address, "dev", "vxlan0"]
    return [bench.nodes[0].overlay(PLAIN).run(argv), bench.asker.run(ping(address, SHORT_S))]


def _names_lost(bench: Bench) -> list[Step]:
    """Return the step that empties the nat table of asker, which leads to the DNS of Docker.

    Its undo holds the table as it is now.
    """
    place = bench.asker.sandbox
    saved = place.run(["iptables-save", "-t", "nat"]).check().text
    undo = ["sh", "-c", 'printf %s "$1" | iptables-restore', "sh", saved]
    return [Step(place, ["iptables", "-w", "10", "-t", "nat", "-F"], undo)]


def _nat_and_dig(bench: Bench) -> list[Capture]:
    """List the nat rules of asker, and ask the DNS there."""
    return [
        bench.asker.sandbox.run(["iptables", "-w", "10", "-t", "nat", "-S"]),
        bench.asker.run(["dig", "+time=1", "+tries=1", "+nosearch", "+short", FRONT]),
    ]


FAULTS = (
    Fault(
        id="nat-flushed",
        level=2,
        title="the chain DOCKER-INGRESS in the nat table of node2 is empty",
        complaint="node2 takes my connection and then never says a word. The other nodes answer",
        remedy="Put the rules back in that chain, as the other nodes have them and in their order",
        source="moby/moby#34939, moby/moby PR #50443",
        red=("port-node2", "outside"),
        steps=_empty_the_door,
        evidence=_door_and_curl,
        shows=lambda seen: "--dport" not in seen[0].text and connected_but_silent(seen[1]),
        says={"port-node2": "connected, silent"},
    ),
    Fault(
        id="stale-fdb",
        level=3,
        title="node1 sends what is for back to node2, where it does not run",
        complaint="back moved to another node last night. From one node nobody reaches it since",
        remedy="Let the entry for back's MAC address name its node: bridge fdb replace, on node1",
        source="moby/moby#52661, moby/moby#35807",
        red=("forwarding", "far", "far-large"),
        steps=_point_elsewhere,
        evidence=_where_is_back,
        shows=_they_disagree,
    ),
    Fault(
        id="wrong-neighbour",
        level=3,
        title="node1 answers ARP requests for back with a MAC address that nobody has any more",
        complaint="Somebody answers, says my neighbour table, and still no packet of mine arrives",
        remedy="Let the neighbour entry name back's own MAC address: ip neigh replace, on node1",
        source="moby/moby#52661, moby/moby#36069",
        red=("neighbours", "far", "far-large"),
        steps=_name_another,
        evidence=_neighbours_and_ping,
        shows=lambda seen: "lladdr" in seen[0].text and not seen[1].ok,
        says={"neighbours": "^02:"},
    ),
    Fault(
        id="names-lost",
        level=2,
        title="no rule leads asker's questions to the DNS of Docker",
        complaint="asker does not know one name any more. By its address everything answers",
        remedy="Put the rules of the table nat back in asker's namespace; a new task has them too",
        source="moby/libnetwork#1938, moby/moby#20101",
        red=("far-name", "front-name", "name", "idle", "call"),
        steps=_names_lost,
        evidence=_nat_and_dig,
        shows=lambda seen: "DOCKER" not in seen[0].text.replace("-N DOCKER", "") and not seen[1].ok,
    ),
)
