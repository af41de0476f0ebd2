"""Who answers ARP, and what an entry in a table is good for (labs 03 and 05)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from labkit.errors import SwarmError
from labkit.experiments.asking import TASK_PORT, TIMEOUT_S, curl, ping, probe
from labkit.experiments.names import owners

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture
    from labkit.swarm import Lab, Place, Task


def neighbour(
    source: Task,
    target: Task,
    *,
    network: str = "ingress",
    port: int = TASK_PORT,
    timeout_s: float = 4.0,
) -> pd.DataFrame:
    """Curl and ping a target without, with a learned and with a permanent neighbour entry: a row each.

    tcpdump watches meanwhile, in the source's network namespace, what leaves for the target. The entry
    is taken away at the end.

    node            str     the source's node
    place           str     the source
    trial           int     from 1, in the order in which they were made
    entry           str     none, learned (by ping), by hand (permanent, the right MAC address)
    state           str     of the entry before the probe, as `ip neigh` says it; absent: no entry
    tool            str     curl or ping
    argv            str
    code            int
    timed_out       bool
    reached         bool
    seconds         float
    answer          str
    stderr          str
    arp_frames      int     ARP requests that left
    icmp_frames     int
    tcp_frames      int
    """
    import pandas as pd

    mine, other = source.addresses[network], target.addresses[network]
    links = source.run(["ip", "addr"]).check().table
    device = str(links[links["address"] == mine]["interface"].iloc[0])
    links = target.run(["ip", "addr"]).check().table
    mac = str(links[links["address"] == other]["mac"].iloc[0])
    forget = ["ip", "neigh", "flush", "to", other, "nud", "all"]
    by_hand = ["ip", "neigh", "replace", other, "lladdr", mac, "dev", device, "nud", "permanent"]
    watching = ["tcpdump", "-p", "-n", "-l", "--immediate-mode", "-i", "any"]
    watching += ["src", mine, "and", "dst", other]
    tools = {
        "curl": curl(f"http://{other}:{port}", timeout_s),
        "ping": ping(other, timeout_s),
    }
    rows: list[dict[str, object]] = []
    try:
        for entry in ("none", "learned", "by hand"):
            for tool, argv in tools.items():
                source.sandbox.run(forget)
                if entry == "learned":
                    source.run(tools["ping"])
                elif entry == "by hand":
                    source.sandbox.run(by_hand).check()
                neighbours = source.run(["ip", "neigh"]).check().table
                states = neighbours[neighbours["address"] == other]["state"]
                with source.sandbox.watch(watching) as wire:
                    capture = source.run(argv)
                left = list(wire.result().table["protocol"])
                row = {"node": source.node.name, "place": source.name, "trial": len(rows) + 1}
                row |= {"entry": entry, "state": states.iloc[0] if len(states) else None, "tool": tool}
                frames = {f"{kind.lower()}_frames": left.count(kind) for kind in ("ARP", "ICMP", "TCP")}
                rows.append({**row, **probe(capture), **frames})
    finally:
        source.sandbox.run(forget)
    return pd.DataFrame(rows).astype({"state": "str", "answer": "str"})


def neighbours(lab: Lab, looks: Mapping[str, Capture]) -> pd.DataFrame:
    """Several named looks at `ip neigh`, with the owner of each address: a row an entry.

    node         str
    place        str         where it was looked
    look         category    the look's name; in order, and there also where the look found nothing
    address      str         IPv4 of the neighbour
    network      str         the network that the address belongs to
    owner        str         as in `owners`; absent where nobody in the swarm has it
    interface    str
    mac          str         absent while INCOMPLETE or FAILED
    state        str         PERMANENT, REACHABLE, STALE, DELAY, PROBE, INCOMPLETE, FAILED
    """
    import pandas as pd

    tables = [capture.check().table.assign(look=look) for look, capture in looks.items()]
    found = pd.concat(tables, ignore_index=True)
    found = found.merge(owners(lab), on="address", how="left")
    found["look"] = pd.Categorical(found["look"], categories=list(looks), ordered=True)
    columns = ["node", "place", "look", "address", "network", "owner", "interface", "mac", "state"]
    return found[columns].sort_values(["look", "address"], kind="stable", ignore_index=True)


def link_of(place: Place, address: str) -> str:
    """Return the name of the interface that has an address; raises SwarmError."""
    links = place.run(["ip", "-4", "addr"]).check().table
    found = links[links["address"] == address]["interface"]
    if found.empty:
        raise SwarmError(f"no interface of {place.label} has the address {address}")
    return str(found.iloc[0])


def frames(
    lab: Lab,
    source: Task,
    target: Task,
    *,
    network: str = "my-overlay",
    pings: int = 3,
    trials: int = 1,
) -> pd.DataFrame:
    """Empty both tasks' neighbour caches, ping, and record every frame at three spots: a row a frame.

    The spots are both tasks' interfaces on the network, and the wire between the nodes: VXLAN packets
    (UDP port 4789) at the source's node, of any network.

    node           str      where it was recorded
    spot           category the source's name, `wire`, the target's name
    trial          int      from 1
    time_s         float    seconds since midnight on that node
    kind           str      ARP, ICMP or other; on the wire, of the frame inside VXLAN
    source         str      IPv4; for ARP the one that speaks
    destination    str      IPv4; for an ARP request the one that is wanted
    info           str      what tcpdump says of it
    vni            int      VXLAN network identifier, on the wire
    """
    import pandas as pd

    dump = ["tcpdump", "-n", "-l", "--immediate-mode", "-i"]
    uplink = link_of(source.node.place, source.node.address)
    spots = {
        task.name: (task.sandbox, [*dump, link_of(task.sandbox, task.addresses[network])])
        for task in (source, target)
    }
    spots["wire"] = (source.node.place, [*dump, uplink, "udp", "port", "4789"])
    order = [source.name, "wire", target.name]
    tables = []
    for trial in range(1, trials + 1):
        with contextlib.ExitStack() as stack:
            watched = {
                spot: stack.enter_context(place.watch(argv)) for spot, (place, argv) in spots.items()
            }
            flush = ["ip", "neigh", "flush", "all"]
            for emptied in lab.run_all([(task.sandbox, flush) for task in (source, target)]):
                emptied.check()
            argv = ["ping", "-n", "-c", str(pings), "-i", "0.5", "-W", "5"]
            source.run([*argv, target.addresses[network]]).check()
            # Whoever records may be a moment behind: the last of it must be on its way by now.
            source.run(["ip", "neigh"])
        for spot in order:
            seen = watched[spot].result().table
            inner = "inner_" if spot == "wire" else ""
            names = {inner + name: name for name in ("protocol", "source", "destination", "info")}
            part = seen[["node", "time_s", "vni", *names]].rename(columns=names)
            part.insert(1, "spot", [spot] * len(part))
            part.insert(2, "trial", [trial] * len(part))
            tables.append(part)
    found = pd.concat(tables, ignore_index=True)
    found["spot"] = pd.Categorical(found["spot"], categories=order, ordered=True)
    found["kind"] = found["protocol"].where(found["protocol"].isin(["ARP", "ICMP"]), "other")
    columns = ["node", "spot", "trial", "time_s", "kind", "source", "destination", "info", "vni"]
    return found[columns]


def resolve(
    source: Task,
    target: Task,
    *,
    change: str,
    network: str = "my-overlay",
    timeout_s: float = TIMEOUT_S,
) -> pd.DataFrame:
    """Forget a target's MAC address, ping the target, look what was found: one row.

    change       str     what was changed before, as the caller calls it
    node         str
    place        str     the source's container
    address      str     the target's IPv4
    argv         str     the ping
    code         int     its exit code
    timed_out    bool    labkit had to end it
    reached      bool    exit code 0
    seconds      float   how long it ran
    answer       str     absent
    stderr       str
    said         str     the first answer or error that ping printed
    mac          str     in the source's neighbour table afterwards; absent: none
    state        str     of that entry
    """
    import pandas as pd

    address = target.addresses[network]
    source.sandbox.run(["ip", "neigh", "flush", "to", address]).check()
    pinged = source.run(["ping", "-n", "-c", "2", "-W", f"{timeout_s:g}", address])
    table = source.run(["ip", "neigh"]).check().table
    mine = table[table["address"] == address]
    said = next((line for line in pinged.lines if "icmp_seq" in line), "nothing came back")
    row: dict[str, Any] = {"change": change, "node": source.node.name, "place": source.name}
    row |= {"address": address, **probe(pinged), "said": said}
    row |= {key: mine[key].iloc[0] if len(mine) else None for key in ("mac", "state")}
    return pd.DataFrame([row])
