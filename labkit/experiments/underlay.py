"""What crosses the wire between the nodes, how long it may be, and how fast it is (lab 09)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from labkit import parsers
from labkit.capture import words
from labkit.experiments.asking import PROBE, TIMEOUT_S, address_of, curl, place_of, probe
from labkit.experiments.ingress import rule_counters
from labkit.experiments.neighbours import link_of
from labkit.schema import Column, schema_of, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Node, Place, Task

_TAP = ["tcpdump", "-n", "-l", "--immediate-mode", "-i"]
_OVERLAYS = ["(", "udp", "port", "4789", "or", "esp", ")"]
_PACKET_HEAD = re.compile(r"^(?=\d\d:\d\d:\d\d\.\d+ IP )", re.MULTILINE)


@table(
    Column("node", "str", "the target's node, where the packets were read"),
    Column("way", "category", "the way's name; the categories are all ways, in order"),
    Column("trial", "int", "from 1"),
    Column("kind", "str", "VXLAN or ESP"),
    Column("source", "str", "IPv4 of the sender, a node"),
    Column("destination", "str", "IPv4 of the receiver, a node"),
    Column(
        "inner_source",
        "str",
        "IPv4 of the sender in the frame inside; absent where tcpdump cannot read it",
    ),
    Column("inner_destination", "str", "IPv4 of the receiver in it; absent likewise"),
    Column("vni", "int", "VXLAN network identifier; absent where tcpdump cannot read it"),
    Column("length_bytes", "int", "bytes of what is inside, as tcpdump counts it; of ESP, all of it"),
    Column("has_word", "bool", "the word can be read in the packet"),
)
def overheard(
    source: Task, target: Task, ways: Mapping[str, str], *, word: str, trials: int = 1
) -> pd.DataFrame:
    """Send a word to a target by several ways, and record its node's uplink: one row per packet.

    The word is in a header of the request. `ways` is name -> URL.

    Raises:
        CommandFailed: a request was not answered.
        SwarmError: a node could not be asked.
    """
    import pandas as pd

    uplink = _uplink(target.node)
    parts = []
    for trial in range(1, trials + 1):
        for way, url in ways.items():
            argv = [*curl(url, 2 * TIMEOUT_S), "-H", f"Cookie: word={word}"]
            with target.node.place.watch([*_TAP, uplink, "-A", *_OVERLAYS]) as wire:
                source.run(argv).check()
            parts.append(_packets_of(wire.result().text, word).assign(way=way, trial=trial))
    found = pd.concat(parts, ignore_index=True).rename(columns={"protocol": "kind"})
    found["node"] = [target.node.name] * len(found)
    found["way"] = pd.Categorical(found["way"], categories=list(ways), ordered=True)
    return found[list(schema_of(overheard).dtypes)]


def _packets_of(text: str, word: str) -> pd.DataFrame:
    """Read a recording that shows the packets' contents as text, and look for a word in each packet."""
    packets = [packet for packet in _PACKET_HEAD.split(text) if packet.strip()]
    heads = [
        line
        for packet in packets
        # The head of a VXLAN packet is followed by the head of the frame inside.
        for line in packet.splitlines()[: 2 if "VXLAN" in packet.partition("\n")[0] else 1]
    ]
    seen = parsers.tcpdump("".join(f"{head}\n" for head in heads))
    seen["length_bytes"] = seen["inner_length_bytes"].fillna(seen["length_bytes"])
    seen["has_word"] = [word in packet for packet in packets]
    return seen


@table(
    Column("change", "str", "what was changed before, as the caller calls it"),
    Column("node", "str", "the source's node"),
    Column("place", "str", "the source's container"),
    Column("network", "str", "the network that was pinged over"),
    Column("address", "str", "the target's IPv4"),
    Column("pings", "int", "how many were sent, one after the other"),
    *PROBE,
    Column("vxlan_packets", "int", "readable packets that came to the target's node"),
    Column("esp_packets", "int", "encrypted packets that came to the target's node"),
    Column("marked_packets", "int", "packets that MARK rules on the source's node counted"),
    Column("dropped_packets", "int", "packets that the target's node dropped, as they came in plain"),
)
def crossings(
    source: Task,
    target: Task,
    *,
    networks: str | Sequence[str],
    change: str,
    pings: int = 5,
    timeout_s: float = 2.0,
) -> list[Row]:
    """Ping a target over several networks and count how its node gets the pings: one row per network.

    A ping that was answered at least once is `reached`.

    Raises:
        CommandFailed: the rules of a node could not be read.
        SwarmError: a node could not be asked.
    """
    uplink = _uplink(target.node)
    coming = [*_OVERLAYS, "and", "src", "host", source.node.address]
    rows: list[Row] = []
    for network in words("networks", networks):
        address = address_of(target, network)
        argv = ["ping", "-n", "-c", str(pings), "-i", "0.2", "-W", f"{timeout_s:g}", address]
        before = _marked(source.node), _refused(target.node)
        with target.node.place.watch([*_TAP, uplink, *coming]) as wire:
            pinged = source.run(argv)
        kinds = list(wire.result().table["protocol"])
        row: Row = {"change": change, "node": source.node.name, "place": source.name}
        row |= {"network": network, "address": address, "pings": pings, **probe(pinged)}
        row |= {f"{kind.lower()}_packets": kinds.count(kind) for kind in ("VXLAN", "ESP")}
        row["marked_packets"] = _marked(source.node) - before[0]
        row["dropped_packets"] = _refused(target.node) - before[1]
        rows.append(row)
    return rows


@table(
    Column("node", "str", "its name"),
    Column("keys", "int", "IPsec states: one key for one direction between two nodes"),
    Column("rules", "int", "rules in mangle OUTPUT that mark the packets of this overlay"),
)
def encryption(lab: Lab, network: str) -> list[Row]:
    """Count what each node has to encrypt an overlay with: one row per node.

    Keys belong to two nodes, not to a network, and Docker never takes them away; before Docker 26 it
    left the rule as well. So the keys of a node may be those of an overlay that is gone, and only the
    rules for this overlay's network identifier are counted.

    Raises:
        CommandFailed: keys or rules of a node could not be read.
        SwarmError: a node could not be asked.
    """
    options = lab.manager.docker.api.inspect_network(network)["Options"]
    vni = int(options["com.docker.network.driver.overlay.vxlanid_list"])
    # The match is a BPF program with the number in it, or before Docker 23 u32's comparison.
    marking = re.compile(rf"[ ,]{vni},.*MARK|={vni << 8:#x}\b.*MARK")
    commands = ["ip xfrm state list nokeys", "iptables -t mangle -S OUTPUT"]
    asked = lab.run_all([(node.place, one) for node in lab.nodes.values() for one in commands])
    return [
        {
            "node": states.node,
            "keys": states.check().text.count("proto esp"),
            "rules": sum(bool(marking.search(line)) for line in rules.check().lines),
        }
        for states, rules in zip(asked[::2], asked[1::2], strict=True)
    ]


@table(
    Column("node", "str", "the source's node"),
    Column("place", "str", "the source's container"),
    Column("network", "str", "the network that was pinged over"),
    Column("payload_bytes", "int", "what `ping -s` says: without the headers of ICMP and IP"),
    *PROBE,
    Column("inner_bytes", "int", "the frame that left the source's interface; absent: none left"),
    Column("wire_bytes", "int", "the frame that left its node; absent: none left"),
    Column("added_bytes", "int", "the difference; absent: no frame left"),
)
def wire_sizes(
    source: Task, target: Task, *, networks: str | Sequence[str], sizes: Iterable[int]
) -> list[Row]:
    """Ping a target with payloads of several sizes, never in fragments: one row per network and size.

    The same ping is recorded at the source's interface and at its node's uplink.

    Raises:
        SwarmError: a node could not be asked.
    """
    rows: list[Row] = []
    sizes = list(sizes)
    uplink = _uplink(source.node)
    leaving = [*_OVERLAYS, "and", "src", "host", source.node.address]
    dump = [*_TAP[:1], "-tt", "-e", *_TAP[1:]]
    for network in words("networks", networks):
        mine, address = address_of(source, network), address_of(target, network)
        at_source = [*dump, link_of(source.sandbox, mine), "icmp", "and", "src", "host", mine]
        at_node = [*dump, uplink, *leaving, "and", "dst", "host", target.node.address]
        pings = []
        with source.sandbox.watch(at_source) as inside, source.node.place.watch(at_node) as outside:
            for size in sizes:
                options = ["-n", "-c", "1", "-M", "do", "-W", f"{TIMEOUT_S:g}", "-s", str(size)]
                pings.append(source.run(["ping", *options, address]))
        inner_frames, wire_frames = inside.result().table, outside.result().table
        for size, pinged in zip(sizes, pings, strict=True):
            inner, wire = _frame_of(pinged, inner_frames), _frame_of(pinged, wire_frames)
            row: Row = {"node": source.node.name, "place": source.name, "network": network}
            row |= {"payload_bytes": size, **probe(pinged), "inner_bytes": inner, "wire_bytes": wire}
            row["added_bytes"] = None if inner is None or wire is None else wire - inner
            rows.append(row)
    return rows


def _frame_of(pinged: Capture, frames: pd.DataFrame) -> int | None:
    """Return the bytes of the first frame that was recorded while a ping ran; None: there is none."""
    began = pinged.started.timestamp()
    frames = frames[frames["time_s"].between(began, began + pinged.seconds)]
    return int(frames["frame_bytes"].iloc[0]) if len(frames) else None


@table(
    Column("node", "str", "where it was asked"),
    Column("place", "str", "the source's container"),
    Column("route", "category", "the route's name; the categories are all routes, in order"),
    Column("trial", "int", "from 1"),
    Column("argv", "str", "the command, shortened"),
    Column("code", "int", "curl's exit code"),
    Column("timed_out", "bool", "labkit had to end it"),
    Column("reached", "bool", "exit code 0"),
    Column("stderr", "str", "what curl printed as its error"),
    Column("size_bytes", "int", "bytes of the answer"),
    Column(
        "connect_ms", "float", "milliseconds until TCP was connected: one round trip, without the app"
    ),
    Column("total_ms", "float", "milliseconds until the last byte was there"),
    Column(
        "rate_mbps",
        "float",
        "10⁶ bits per second, from connection to last byte; absent: a short answer",
    ),
)
def speeds(
    routes: Mapping[str, tuple[Task | Place, str]],
    *,
    trials: int = 5,
    connects: int = 2,
    size_bytes: int = 2_000_000,
) -> pd.DataFrame:
    """Measure several routes in turn, several times: one row per transfer, on a connection of its own.

    `routes` is name -> who asks, and the URL of the app. A trial is some small answers and a long one,
    over one route after the other, so that a slow moment hits all routes alike. The first is left out.

    Raises:
        SwarmError: a node could not be asked.
    """
    import pandas as pd

    captures = []
    for trial in range(trials + 1):
        for route, (source, url) in routes.items():
            urls = [url] * connects + [f"{url}/bytes/{size_bytes}"]
            argv = ["curl", "-sS", "-m", "60", "-H", "Connection: close", "-w", parsers.CURL_FORMAT]
            argv += [word for one in urls for word in ("-o", "/dev/null", one)]
            captures.append((route, trial, url, place_of(source).run(argv)))
    parts = [
        capture.table.rename(columns={"exit_code": "code"}).assign(
            route=route,
            trial=trial,
            argv=f"curl {url}",
            timed_out=capture.timed_out,
            stderr=capture.stderr.strip(),
        )
        for route, trial, url, capture in captures
        if trial
    ]
    found = pd.concat(parts, ignore_index=True)
    found["route"] = pd.Categorical(found["route"], categories=list(routes), ordered=True)
    found["reached"] = found["code"] == 0
    found["connect_ms"] = found["time_connect_s"] * 1000
    found["total_ms"] = found["time_total_s"] * 1000
    transfer_s = found["time_total_s"] - found["time_connect_s"]
    is_long = found["size_bytes"] == size_bytes
    found["rate_mbps"] = (found["size_bytes"].astype(float) * 8 / 1e6 / transfer_s).where(is_long)
    return found[list(schema_of(speeds).dtypes)]


def _uplink(node: Node) -> str:
    """Return the interface by which a node's overlay packets come and go."""
    return link_of(node.place, node.address)


def _marked(node: Node) -> int:
    """Return how many packets of a node were marked for encryption."""
    rules = rule_counters(node.place, "OUTPUT", table="mangle")
    return int(rules[rules["match_text"].str.contains("0xd0c4e3", na=False)]["packets"].sum())


def _refused(node: Node) -> int:
    """Return how many packets a node dropped that came in plain and should have come encrypted."""
    rules = rule_counters(node.place, "INPUT")
    plain = rules["match_text"].str.contains("pol none", na=False)
    return int(rules[plain & (rules["target"] == "DROP")]["packets"].sum())
