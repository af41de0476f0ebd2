"""Experiments: many probes, one tidy table. Each takes what it looks at and returns a DataFrame.

A row is one probe or one count. Where a row is a probe it has `place`, `argv`, `code`, `timed_out` and
`stderr`, so that `checks.reached` and `checks.not_reached` can judge it by the tool's own word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit import probes, swarm

if TYPE_CHECKING:
    import pandas as pd

    from labkit.probes import Capture
    from labkit.swarm import Lab, Place, Task

_TASK_PORT = 3000  # where the app listens in its container
_TIMEOUT_S = 5.0  # long beside an answer, also under emulation


def _place(source: Task | Place) -> Place:
    """Return the place that a source's commands run in: of a task, its container."""
    return source if isinstance(source, swarm.Place) else source.place


def _curl(url: str, timeout_s: float) -> list[str]:
    return ["curl", "-sS", "-m", f"{timeout_s:g}", url]


def _ping(address: str, timeout_s: float) -> list[str]:
    return ["ping", "-n", "-c", "1", "-W", f"{timeout_s:g}", address]


def _probe(capture: Capture) -> dict[str, Any]:
    """The columns that every probe's row has."""
    tool = capture.argv[0]
    return {
        "argv": capture.command,
        "code": capture.code,
        "timed_out": capture.timed_out,
        "reached": capture.ok,
        "seconds": round(capture.seconds, 3),
        "answer": capture.text.strip() if tool == "curl" and capture.ok else None,
        "stderr": capture.stderr.strip(),
    }


def addresses(tasks: Iterable[Task]) -> pd.DataFrame:
    """Where tasks are and which addresses Swarm gave them: a row a task and network.

    node         str    the node that the task runs on
    task         str    SERVICE.SLOT
    container    str    the first twelve characters of the container's id
    network      str
    address      str    IPv4
    """
    import pandas as pd

    rows = [
        {
            "node": task.node.name,
            "task": task.name,
            "container": task.container[:12],
            "network": network,
            "address": address,
        }
        for task in tasks
        for network, address in sorted(task.addresses.items())
    ]
    return pd.DataFrame(rows, columns=["node", "task", "container", "network", "address"])


def reach(
    lab: Lab,
    sources: Iterable[Task | Place],
    targets: Iterable[Task],
    *,
    networks: Sequence[str] = ("ingress",),
    port: int = _TASK_PORT,
    trials: int = 2,
    timeout_s: float = _TIMEOUT_S,
) -> pd.DataFrame:
    """Ping and curl every target from every source, all side by side: a row a probe.

    node         str     the node that the probe ran on
    place        str     where it ran: a task's container, or a namespace of a node
    target       str     the task whose address was asked
    network      str     the network of that address
    address      str     IPv4
    protocol     str     ICMP (ping) or TCP (curl)
    port         int     absent for ICMP
    trial        int     from 1
    argv         str     the command as one would type it
    code         int     its exit code
    timed_out    bool    labkit had to end it
    reached      bool    exit code 0
    seconds      float   how long it ran
    answer       str     what curl printed
    stderr       str     what the tool said against it
    """
    import pandas as pd

    places = [_place(source) for source in sources]
    asked: list[dict[str, Any]] = []
    commands: list[tuple[Place, list[str]]] = []
    for trial in range(1, trials + 1):
        for place in places:
            for target in targets:
                for network in networks:
                    address = target.addresses[network]
                    fixed = {"node": place.node.name, "place": place.label, "target": target.name}
                    fixed |= {"network": network, "address": address}
                    for protocol, argv in (
                        ("ICMP", _ping(address, timeout_s)),
                        ("TCP", _curl(f"http://{address}:{port}", timeout_s)),
                    ):
                        to_port = port if protocol == "TCP" else None
                        asked.append(fixed | {"protocol": protocol, "port": to_port, "trial": trial})
                        commands.append((place, argv))
    captures = lab.run_all(commands, timeout=60.0 + timeout_s)
    rows = [row | _probe(capture) for row, capture in zip(asked, captures, strict=True)]
    return pd.DataFrame(rows).astype({"port": "Int64"})


def ports(
    lab: Lab,
    source: Task | Place,
    target: Task,
    ports: Iterable[int],
    *,
    step: str,
    network: str = "ingress",
    trials: int = 2,
    timeout_s: float = _TIMEOUT_S,
) -> pd.DataFrame:
    """Curl several ports of one target, side by side: a row a probe; columns as `reach`, and:

    step         str     what was changed before these probes, as the caller calls it
    """
    import pandas as pd

    place, address = _place(source), target.addresses[network]
    asked = [(port, trial) for trial in range(1, trials + 1) for port in ports]
    captures = lab.run_all(
        [(place, _curl(f"http://{address}:{port}", timeout_s)) for port, _ in asked],
        timeout=60.0 + timeout_s,
    )
    fixed = {"step": step, "node": place.node.name, "place": place.label, "target": target.name}
    fixed |= {"network": network, "address": address, "protocol": "TCP"}
    rows = [
        fixed | {"port": port, "trial": trial} | _probe(capture)
        for (port, trial), capture in zip(asked, captures, strict=True)
    ]
    return pd.DataFrame(rows)


def rule_counters(place: Place, *chains: str, table: str = "filter") -> pd.DataFrame:
    """Rules of iptables chains with their counters: a row a rule; no chain named means all of them.

    Columns as `parsers.iptables_list`, after `node` and `place`; `packets` counts from the making of
    the rule.
    """
    argv = ["iptables", "-t", table, "-n", "-v", "-x", "-L"]
    captures = [place.run([*argv, chain]).check() for chain in chains] or [place.run(argv).check()]
    return probes.table(captures)


def drops(
    lab: Lab,
    source: Task,
    target: Task,
    *,
    requests: Sequence[int] = (0, 1, 2, 4),
    network: str = "ingress",
    port: int = _TASK_PORT,
    timeout_s: float = 2.0,
) -> pd.DataFrame:
    """Curl a target N times and see by how much the DROP counters for TCP rise: a row a chain and N.

    Looked at are OUTPUT and INPUT in the network namespaces of both ends.

    node         str     the node of the end that is looked at
    place        str     its network namespace
    chain        str     OUTPUT or INPUT
    trial        int     from 1, in the order in which they were made
    requests     int     how many curls were made, side by side
    answered     int     how many of them were answered
    packets      int     TCP packets that the chain's DROP rules counted meanwhile
    """
    import pandas as pd

    ends = [source.sandbox, target.sandbox]
    url = f"http://{target.addresses[network]}:{port}"

    def look() -> dict[tuple[str, str, str], int]:
        argv = ["iptables", "-t", "filter", "-n", "-v", "-x", "-L"]
        seen = probes.table([c.check() for c in lab.run_all([(end, argv) for end in ends])])
        found = {(end.node.name, end.label, chain): 0 for end in ends for chain in ("OUTPUT", "INPUT")}
        for row in seen[(seen["target"] == "DROP") & (seen["protocol"] == "tcp")].itertuples():
            found[str(row.node), str(row.place), str(row.chain)] += int(str(row.packets))
        return found

    rows = []
    for trial, count in enumerate(requests, 1):
        before = look()
        curls = lab.run_all([(source.place, _curl(url, timeout_s))] * count)
        after = look()
        answered = sum(capture.ok for capture in curls)
        for (node, place, chain), packets in after.items():
            rows.append(
                {
                    "node": node,
                    "place": place,
                    "chain": chain,
                    "trial": trial,
                    "requests": count,
                    "answered": answered,
                    "packets": packets - before[node, place, chain],
                }
            )
    return pd.DataFrame(rows)


def interfaces(task: Task) -> pd.DataFrame:
    """A task's interfaces, each with the network that it belongs to: a row an address.

    node          str
    place         str    the task's container
    interface     str
    address       str    IPv4
    network       str    ingress, an overlay, docker_gwbridge, or loopback
    mtu           int    bytes
    default       bool   the default route leaves by it
    """
    import pandas as pd

    links = task.run(["ip", "-4", "addr"]).check().table
    routes = task.run(["ip", "route"]).check().table
    default = set(routes[routes["destination"] == "default"]["interface"])
    by_address = {address: network for network, address in task.addresses.items()}
    rows = []
    for link in links.itertuples():
        local = str(link.address).startswith("127.")
        rows.append(
            {
                "node": task.node.name,
                "place": task.name,
                "interface": link.interface,
                "address": link.address,
                "network": "loopback"
                if local
                else by_address.get(str(link.address), "docker_gwbridge"),
                "mtu": link.mtu,
                "default": link.interface in default,
            }
        )
    return pd.DataFrame(rows)


def plumbing(source: Task, target: Task, *, networks: Sequence[str] = ("ingress",)) -> pd.DataFrame:
    """What a network has so that a source reaches a target on another node, counted: a row a piece.

    node       str    the source's node
    place      str    where it was looked for
    network    str
    piece      str    VXLAN device, neighbour entry, forwarding entry, DROP rule
    count      int    how many there are; for entries and rules: of the target's or source's address
    found      str    the first of them, as its tool printed it
    """
    import pandas as pd

    rules = source.sandbox.run(["iptables", "-S"]).check()
    rows: list[dict[str, object]] = []
    for network in networks:
        mine, other = source.addresses[network], target.addresses[network]
        overlay = source.node.overlay(network)
        links = overlay.run(["ip", "-d", "link", "show", "type", "vxlan"]).check()
        neighbours = overlay.run(["ip", "neigh", "show", "dev", "vxlan0"]).check()
        entry = next((line for line in neighbours.lines if line.startswith(f"{other} ")), "")
        mac = entry.partition("lladdr ")[2].partition(" ")[0]
        forwarding = overlay.run(["bridge", "fdb", "show", "dev", "vxlan0"]).check()
        looked = (
            (overlay.label, "VXLAN device", [x.strip() for x in links.lines if "vxlan id" in x]),
            (overlay.label, "neighbour entry", [entry] if entry else []),
            (
                overlay.label,
                "forwarding entry",
                [x for x in forwarding.lines if mac and x.startswith(mac) and "dst" in x],
            ),
            (
                source.sandbox.label,
                "DROP rule",
                [x for x in rules.lines if f"{mine}/32" in x and x.endswith("DROP")],
            ),
        )
        for place, piece, found in looked:
            row = {"node": source.node.name, "place": place, "network": network, "piece": piece}
            rows.append({**row, "count": len(found), "found": found[0].strip() if found else None})
    return pd.DataFrame(rows)


def neighbour(
    source: Task,
    target: Task,
    *,
    network: str = "ingress",
    port: int = _TASK_PORT,
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
    watching = ["tcpdump", "-n", "-l", "--immediate-mode", "-i", "any"]
    watching += ["src", mine, "and", "dst", other]
    tools = {
        "curl": _curl(f"http://{other}:{port}", timeout_s),
        "ping": _ping(other, timeout_s),
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
                rows.append({**row, **_probe(capture), **frames})
    finally:
        source.sandbox.run(forget)
    return pd.DataFrame(rows)
