"""Who answers ARP, and what an entry in a table is good for (labs 03 and 05)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

from labkit.errors import SwarmError
from labkit.experiments.asking import PROBE, TASK_PORT, TIMEOUT_S, address_of, curl, ping, probe
from labkit.experiments.names import owners
from labkit.schema import Column, schema_of, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Place, Task

_ENTRIES = ("none", "learned", "by hand")


@table(
    Column("node", "str", "the source's node"),
    Column("place", "str", "the source's container"),
    Column("trial", "int", "from 1, in the order in which they were made"),
    Column("entry", "str", "none, learned (by ping), by hand (permanent, the right MAC address)"),
    Column("state", "str", "of the entry before the probe, as `ip neigh` says it; absent: no entry"),
    Column("tool", "str", "curl or ping"),
    *PROBE,
    Column("arp_frames", "int", "ARP requests that left"),
    Column("icmp_frames", "int", "ICMP frames that left"),
    Column("tcp_frames", "int", "TCP frames that left"),
)
def reach_by_entry(
    source: Task,
    target: Task,
    *,
    network: str = "ingress",
    port: int = TASK_PORT,
    timeout_s: float = 4.0,
) -> list[Row]:
    """Curl and ping a target with no neighbour entry, a learned one, a fixed one: one row per probe.

    tcpdump records meanwhile, in the source's network namespace, what leaves for the target. The entry
    is taken away at the end.

    Raises:
        CommandFailed: a tool failed that is not the probe itself.
        SwarmError: a node could not be asked.
    """
    mine, other = address_of(source, network), address_of(target, network)
    links = source.run(["ip", "addr"]).check().table
    device = str(links[links["address"] == mine]["interface"].iloc[0])
    links = target.run(["ip", "addr"]).check().table
    mac = str(links[links["address"] == other]["mac"].iloc[0])
    forget = ["ip", "neigh", "flush", "to", other, "nud", "all"]
    by_hand = ["ip", "neigh", "replace", other, "lladdr", mac, "dev", device, "nud", "permanent"]
    probes = {"curl": curl(f"http://{other}:{port}", timeout_s), "ping": ping(other, timeout_s)}
    rows: list[Row] = []
    try:
        for entry, (tool, argv) in product(_ENTRIES, probes.items()):
            source.sandbox.run(forget)
            if entry == "learned":
                source.run(probes["ping"])
            elif entry == "by hand":
                source.sandbox.run(by_hand).check()
            fixed = {"trial": len(rows) + 1, "entry": entry, "tool": tool}
            rows.append(fixed | _watched(source, argv, mine=mine, other=other))
    finally:
        source.sandbox.run(forget)
    return rows


def _watched(source: Task, argv: list[str], *, mine: str, other: str) -> Row:
    """Run one probe and count, by protocol, the frames that leave for the other address."""
    neighbours = source.run(["ip", "neigh"]).check().table
    states = neighbours[neighbours["address"] == other]["state"]
    recording = ["tcpdump", "-p", "-n", "-l", "--immediate-mode", "-i", "any"]
    with source.sandbox.watch([*recording, "src", mine, "and", "dst", other]) as wire:
        capture = source.run(argv)
    left = list(wire.result().table["protocol"])
    row: Row = {"node": source.node.name, "place": source.name, **probe(capture)}
    row["state"] = states.iloc[0] if len(states) else None
    return row | {f"{kind.lower()}_frames": left.count(kind) for kind in ("ARP", "ICMP", "TCP")}


@table(
    Column("node", "str", "the node of the place"),
    Column("place", "str", "where it was looked"),
    Column("look", "category", "the look's name; the categories are all looks, in order"),
    Column("address", "str", "IPv4 of the neighbour"),
    Column("network", "str", "the network that the address belongs to"),
    Column("owner", "str", "as in `owners`; absent where nobody in the swarm has it"),
    Column("interface", "str", "the interface that reaches the neighbour"),
    Column("mac", "str", "absent while INCOMPLETE or FAILED"),
    Column("state", "str", "PERMANENT, REACHABLE, STALE, DELAY, PROBE, INCOMPLETE, FAILED"),
)
def neighbour_tables(lab: Lab, looks: Mapping[str, Capture]) -> pd.DataFrame:
    """Put named looks at `ip neigh` together, with the owner of each address: one row per entry.

    Raises:
        CommandFailed: one of the looks failed.
        SwarmError: a node could not be asked.
    """
    import pandas as pd

    tables = [capture.check().table.assign(look=look) for look, capture in looks.items()]
    found = pd.concat(tables, ignore_index=True)
    found = found.merge(owners(lab), on="address", how="left")
    found["look"] = pd.Categorical(found["look"], categories=list(looks), ordered=True)
    found = found.sort_values(["look", "address"], kind="stable", ignore_index=True)
    return found[list(schema_of(neighbour_tables).dtypes)]


def link_of(place: Place, address: str) -> str:
    """Return the name of the interface that has an address.

    Raises:
        CommandFailed: `ip` failed there.
        SwarmError: no interface has the address, or the node could not be asked.
    """
    links = place.run(["ip", "-4", "addr"]).check().table
    found = links[links["address"] == address]["interface"]
    if found.empty:
        raise SwarmError(f"no interface of {place.label} has the address {address}")
    return str(found.iloc[0])


@table(
    Column("node", "str", "where it was recorded"),
    Column("spot", "category", "the source's name, `wire`, the target's name; in this order"),
    Column("trial", "int", "from 1"),
    Column("time_s", "float", "seconds since midnight on that node"),
    Column("kind", "str", "ARP, ICMP or other; on the wire, of the frame inside VXLAN"),
    Column("source", "str", "IPv4; of an ARP frame, the sender"),
    Column("destination", "str", "IPv4; of an ARP request, the address that is asked for"),
    Column("info", "str", "what tcpdump prints about it"),
    Column("vni", "int", "VXLAN network identifier; absent: not on the wire"),
)
def frames(
    lab: Lab,
    source: Task,
    target: Task,
    *,
    network: str = "my-overlay",
    pings: int = 3,
    trials: int = 1,
) -> pd.DataFrame:
    """Empty both tasks' neighbour caches, ping, record every frame at three spots: one row per frame.

    The spots are both tasks' interfaces on the network, and the wire between the nodes: VXLAN packets
    (UDP port 4789) at the source's node, of any network.

    Raises:
        CommandFailed: the ping was not answered, or another tool failed.
        SwarmError: a node could not be asked.
    """
    import pandas as pd

    dump = ["tcpdump", "-n", "-l", "--immediate-mode", "-i"]
    uplink = link_of(source.node.place, source.node.address)
    spots = {
        task.name: (task.sandbox, [*dump, link_of(task.sandbox, address_of(task, network))])
        for task in (source, target)
    }
    spots["wire"] = (source.node.place, [*dump, uplink, "udp", "port", "4789"])
    order = [source.name, "wire", target.name]
    pinging = ["ping", "-n", "-c", str(pings), "-i", "0.5", "-W", "5", address_of(target, network)]
    parts = []
    for trial in range(1, trials + 1):
        with contextlib.ExitStack() as stack:
            recordings = {
                spot: stack.enter_context(place.watch(argv)) for spot, (place, argv) in spots.items()
            }
            flush = ["ip", "neigh", "flush", "all"]
            for emptied in lab.run_all([(task.sandbox, flush) for task in (source, target)]):
                emptied.check()
            source.run(pinging).check()
            # tcpdump may be a moment late: one more command gives the last frames time to arrive.
            source.run(["ip", "neigh"])
        parts += [_frames_of(recordings[spot].result(), spot).assign(trial=trial) for spot in order]
    found = pd.concat(parts, ignore_index=True)
    found["spot"] = pd.Categorical(found["spot"], categories=order, ordered=True)
    return found


def _frames_of(recorded: Capture, spot: str) -> pd.DataFrame:
    """Read the frames of one recording; on the wire, those that are inside VXLAN."""
    seen = recorded.table
    inner = "inner_" if spot == "wire" else ""
    names = {inner + name: name for name in ("protocol", "source", "destination", "info")}
    part = seen[["node", "time_s", "vni", *names]].rename(columns=names)
    protocol = part.pop("protocol")
    part["kind"] = protocol.where(protocol.isin(["ARP", "ICMP"]), "other")
    return part.assign(spot=spot)


@table(
    Column("change", "str", "what was changed before, as the caller calls it"),
    Column("node", "str", "the source's node"),
    Column("place", "str", "the source's container"),
    Column("address", "str", "the target's IPv4"),
    *PROBE,
    Column("said", "str", "the first answer or error that ping printed, or `nothing came back`"),
    Column("mac", "str", "of the target, in the source's neighbour table afterwards; absent: none"),
    Column("state", "str", "of that entry; absent: there is none"),
)
def resolve(
    source: Task,
    target: Task,
    *,
    change: str,
    network: str = "my-overlay",
    timeout_s: float = TIMEOUT_S,
) -> list[Row]:
    """Forget a target's MAC address, ping the target, and look which one was found: one row.

    Raises:
        CommandFailed: `ip neigh` failed.
        SwarmError: the node could not be asked.
    """
    address = address_of(target, network)
    source.sandbox.run(["ip", "neigh", "flush", "to", address]).check()
    pinged = source.run(["ping", "-n", "-c", "2", "-W", f"{timeout_s:g}", address])
    known = source.run(["ip", "neigh"]).check().table
    mine = known[known["address"] == address]
    said = next((line for line in pinged.lines if "icmp_seq" in line), "nothing came back")
    row: Row = {"change": change, "node": source.node.name, "place": source.name}
    row |= {"address": address, **probe(pinged), "said": said}
    return [row | {key: mine[key].iloc[0] if len(mine) else None for key in ("mac", "state")}]
