"""What crosses the wire between the nodes, how long it may be, and how fast it is (lab 09)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit import parsers
from labkit.experiments.asking import TIMEOUT_S, curl, place_of, probe
from labkit.experiments.ingress import rule_counters
from labkit.experiments.neighbours import link_of

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab, Node, Place, Task

_TAP = ["tcpdump", "-n", "-l", "--immediate-mode", "-i"]
_OVERLAYS = ["(", "udp", "port", "4789", "or", "esp", ")"]
_A_PACKET = re.compile(r"^(?=\d\d:\d\d:\d\d\.\d+ IP )", re.MULTILINE)


def overheard(
    source: Task, target: Task, ways: Mapping[str, str], *, word: str, trials: int = 1
) -> pd.DataFrame:
    """Send a word to a target by several ways, and read what its node's uplink carries: a row a packet.

    The word is in a header of the request. `ways` is name -> URL.

    node               str    the target's node, where the packets were read
    way                category
    trial              int    from 1
    kind               str    VXLAN or ESP
    source             str    IPv4 of the sender, a node
    destination        str    IPv4 of the receiver, a node
    inner_source       str    IPv4 in the frame within; absent where tcpdump cannot read it
    inner_destination  str    likewise
    vni                int    VXLAN network identifier; absent where tcpdump cannot read it
    length_bytes       int    of what is within, as tcpdump counts it; with ESP all of it
    has_word           bool   the word can be read in the packet
    """
    import pandas as pd

    uplink = _uplink(target.node)
    tables = []
    for trial in range(1, trials + 1):
        for way, url in ways.items():
            argv = [*curl(url, 2 * TIMEOUT_S), "-H", f"Cookie: word={word}"]
            with target.node.place.watch([*_TAP, uplink, "-A", *_OVERLAYS]) as wire:
                source.run(argv).check()
            packets = [text for text in _A_PACKET.split(wire.result().text) if text.strip()]
            heads = [
                line
                for text in packets
                for line in text.splitlines()[: 2 if "VXLAN" in text.partition("\n")[0] else 1]
            ]
            seen = parsers.tcpdump("\n".join(heads))
            seen["length_bytes"] = seen["inner_length_bytes"].fillna(seen["length_bytes"])
            seen["has_word"] = [word in text for text in packets]
            tables.append(seen.assign(node=target.node.name, way=way, trial=trial))
    found = pd.concat(tables, ignore_index=True).rename(columns={"protocol": "kind"})
    found["way"] = pd.Categorical(found["way"], categories=list(ways), ordered=True)
    columns = ["node", "way", "trial", "kind", "source", "destination", "inner_source"]
    return found[[*columns, "inner_destination", "vni", "length_bytes", "has_word"]]


def crossings(
    source: Task,
    target: Task,
    *,
    networks: Sequence[str],
    change: str,
    pings: int = 5,
    timeout_s: float = 2.0,
) -> pd.DataFrame:
    """Ping a target over several networks and count how its node gets the pings: a row a network.

    change             str    what was changed before, as the caller calls it
    node               str    the source's node
    place              str    the source's container
    network            str
    address            str    the target's IPv4
    pings              int    how many were sent, one after the other
    argv               str
    code               int    ping's exit code
    timed_out          bool   labkit had to end it
    reached            bool   at least one was answered
    seconds            float  how long it ran
    answer             str    absent
    stderr             str
    vxlan_packets      int    readable packets that came to the target's node
    esp_packets        int    encrypted packets that came to the target's node
    marked_packets     int    packets that MARK rules on the source's node counted
    dropped_packets    int    that the target's node dropped, as they should have been encrypted
    """
    import pandas as pd

    uplink = _uplink(target.node)
    coming = [*_OVERLAYS, "and", "src", "host", source.node.address]
    rows = []
    for network in networks:
        address = target.addresses[network]
        argv = ["ping", "-n", "-c", str(pings), "-i", "0.2", "-W", f"{timeout_s:g}", address]
        before = _marked(source.node), _refused(target.node)
        with target.node.place.watch([*_TAP, uplink, *coming]) as wire:
            pinged = source.run(argv)
        kinds = list(wire.result().table["protocol"])
        row: dict[str, Any] = {"change": change, "node": source.node.name, "place": source.name}
        row |= {"network": network, "address": address, "pings": pings, **probe(pinged)}
        row |= {f"{kind.lower()}_packets": kinds.count(kind) for kind in ("VXLAN", "ESP")}
        row["marked_packets"] = _marked(source.node) - before[0]
        row["dropped_packets"] = _refused(target.node) - before[1]
        rows.append(row)
    return pd.DataFrame(rows).astype({"answer": "str"})


def encryption(lab: Lab, network: str) -> pd.DataFrame:
    """What each node has to encrypt an overlay with: a row a node.

    Keys belong to two nodes, not to a network, and Docker never takes them away; before Docker 26 it
    left the rule as well. So the keys of a node may be those of an overlay that is gone, and only the
    rules for this overlay's network identifier are counted.

    node     str
    keys     int    IPsec states: one key for one direction between two nodes
    rules    int    rules in mangle OUTPUT that mark the packets of this overlay
    """
    import pandas as pd

    options = lab.manager.docker.api.inspect_network(network)["Options"]
    vni = int(options["com.docker.network.driver.overlay.vxlanid_list"])
    # The match is a BPF program with the number in it, or before Docker 23 u32's comparison.
    wanted = re.compile(rf"[ ,]{vni},.*MARK|={vni << 8:#x}\b.*MARK")
    commands = ["ip xfrm state list nokeys", "iptables -t mangle -S OUTPUT"]
    asked = lab.run_all([(node.place, one) for node in lab.nodes.values() for one in commands])
    return pd.DataFrame(
        {
            "node": states.node,
            "keys": states.check().text.count("proto esp"),
            "rules": sum(bool(wanted.search(line)) for line in rules.check().lines),
        }
        for states, rules in zip(asked[::2], asked[1::2], strict=True)
    )


def wire_sizes(
    source: Task, target: Task, *, networks: Sequence[str], sizes: Iterable[int]
) -> pd.DataFrame:
    """Ping a target with payloads of several sizes, never in fragments: a row a network and size.

    The same ping is recorded at the source's interface and at its node's uplink.

    node             str    the source's node
    place            str    the source's container
    network          str
    payload_bytes    int    what `ping -s` says: without the headers of ICMP and IP
    argv             str
    code             int    ping's exit code
    timed_out        bool   labkit had to end it
    reached          bool   it was answered
    seconds          float  how long it ran
    answer           str    absent
    stderr           str    `message too long` and the like
    inner_bytes      int    the frame that left the source's interface; absent: none left
    wire_bytes       int    the frame that left its node; absent: none left
    added_bytes      int    the difference
    """
    import pandas as pd

    rows = []
    sizes = list(sizes)
    uplink = _uplink(source.node)
    leaving = [*_OVERLAYS, "and", "src", "host", source.node.address]
    dump = [*_TAP[:1], "-tt", "-e", *_TAP[1:]]
    for network in networks:
        mine, address = source.addresses[network], target.addresses[network]
        at_source = [*dump, link_of(source.sandbox, mine), "icmp", "and", "src", "host", mine]
        at_node = [*dump, uplink, *leaving, "and", "dst", "host", target.node.address]
        pings = []
        with source.sandbox.watch(at_source) as inside, source.node.place.watch(at_node) as outside:
            for size in sizes:
                options = ["-n", "-c", "1", "-M", "do", "-W", f"{TIMEOUT_S:g}", "-s", str(size)]
                pings.append(source.run(["ping", *options, address]))
        frames = [inside.result().table, outside.result().table]
        for size, pinged in zip(sizes, pings, strict=True):
            began = pinged.started.timestamp()
            inner, wire = (
                seen[seen["time_s"].between(began, began + pinged.seconds)]["frame_bytes"]
                for seen in frames
            )
            row: dict[str, Any] = {"node": source.node.name, "place": source.name, "network": network}
            row |= {"payload_bytes": size, **probe(pinged)}
            row["inner_bytes"] = inner.iloc[0] if len(inner) else None
            row["wire_bytes"] = wire.iloc[0] if len(wire) else None
            rows.append(row)
    kinds = {"answer": "str", "inner_bytes": "Int64", "wire_bytes": "Int64"}
    found = pd.DataFrame(rows).astype(kinds)
    return found.assign(added_bytes=found["wire_bytes"] - found["inner_bytes"])


def speeds(
    routes: Mapping[str, tuple[Task | Place, str]],
    *,
    trials: int = 5,
    connects: int = 2,
    size_bytes: int = 2_000_000,
) -> pd.DataFrame:
    """Measure several routes in turn, again and again: a row a transfer, each on its own connection.

    `routes` is name -> who asks, and the URL of the app. A trial is some small answers and a long one,
    over one route after the other, so that a slow moment hits them all alike. The first is not counted.

    node           str       where it was asked
    place          str       the source's container
    route          category
    trial          int       from 1
    argv           str       the command, shortened
    code           int       curl's exit code
    timed_out      bool      labkit had to end it
    reached        bool      exit code 0
    stderr         str
    size_bytes     int       of the answer
    connect_ms     float     until TCP was connected: there and back once, without the app
    total_ms       float     until the last byte was there
    rate_mbps      float     million bits a second, from the connection to the last byte; long answers
    """
    import pandas as pd

    captures = []
    for trial in range(trials + 1):
        for route, (source, url) in routes.items():
            urls = [url] * connects + [f"{url}/bytes/{size_bytes}"]
            argv = ["curl", "-sS", "-m", "60", "-H", "Connection: close", "-w", parsers.CURL_FORMAT]
            argv += [word for one in urls for word in ("-o", "/dev/null", one)]
            captures.append((route, trial, url, place_of(source).run(argv)))
    tables = []
    for route, trial, url, capture in captures:
        if not trial:
            continue
        seen = capture.table.rename(columns={"exit_code": "code"})
        seen = seen.assign(route=route, trial=trial, argv=f"curl {url}")
        tables.append(seen.assign(timed_out=capture.timed_out, stderr=capture.stderr.strip()))
    found = pd.concat(tables, ignore_index=True)
    found["route"] = pd.Categorical(found["route"], categories=list(routes), ordered=True)
    found["reached"] = found["code"] == 0
    found["connect_ms"] = found["time_connect_s"] * 1000
    found["total_ms"] = found["time_total_s"] * 1000
    transfer_s = found["time_total_s"] - found["time_connect_s"]
    long = found["size_bytes"] == size_bytes
    found["rate_mbps"] = (found["size_bytes"].astype(float) * 8 / 1e6 / transfer_s).where(long)
    columns = ["node", "place", "route", "trial", "argv", "code", "timed_out", "reached", "stderr"]
    return found[[*columns, "size_bytes", "connect_ms", "total_ms", "rate_mbps"]]


def _uplink(node: Node) -> str:
    """The interface by which a node's overlay packets come and go."""
    return link_of(node.place, node.address)


def _marked(node: Node) -> int:
    """How many packets of a node were marked for encryption."""
    rules = rule_counters(node.place, "OUTPUT", table="mangle")
    return int(rules[rules["match_text"].str.contains("0xd0c4e3", na=False)]["packets"].sum())


def _refused(node: Node) -> int:
    """How many packets a node dropped that came in plain and should have come encrypted."""
    rules = rule_counters(node.place, "INPUT")
    plain = rules["match_text"].str.contains("pol none", na=False)
    return int(rules[plain & (rules["target"] == "DROP")]["packets"].sum())
