"""Who reaches whom over a network, and what the packet filters count (labs 03 and 04)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit import capture as probes
from labkit.experiments.asking import SIDE_BY_SIDE, TASK_PORT, TIMEOUT_S, curl, ping, place_of, probe

if TYPE_CHECKING:
    import pandas as pd

    from labkit.capture import Capture
    from labkit.swarm import Lab, Place, Task


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
    port: int = TASK_PORT,
    trials: int = 2,
    timeout_s: float = TIMEOUT_S,
) -> pd.DataFrame:
    """Ping and curl every target from every source, many side by side: a row a probe.

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

    places = [place_of(source) for source in sources]
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
                        ("ICMP", ping(address, timeout_s)),
                        ("TCP", curl(f"http://{address}:{port}", timeout_s)),
                    ):
                        to_port = port if protocol == "TCP" else None
                        asked.append(fixed | {"protocol": protocol, "port": to_port, "trial": trial})
                        commands.append((place, argv))
    captures: dict[int, Capture] = {}
    # The slow ones, which time out, go together.
    order = sorted(range(len(commands)), key=lambda at: (asked[at]["trial"], asked[at]["protocol"]))
    for begin in range(0, len(order), SIDE_BY_SIDE):
        batch = order[begin : begin + SIDE_BY_SIDE]
        done = lab.run_all([commands[at] for at in batch], timeout=60.0 + timeout_s)
        captures.update(zip(batch, done, strict=True))
    rows = [row | probe(captures[at]) for at, row in enumerate(asked)]
    return pd.DataFrame(rows).astype({"port": "Int64", "answer": "str"})


def ports(
    lab: Lab,
    source: Task | Place,
    target: Task,
    ports: Iterable[int],
    *,
    step: str,
    network: str = "ingress",
    trials: int = 2,
    timeout_s: float = TIMEOUT_S,
) -> pd.DataFrame:
    """Curl several ports of one target, side by side: a row a probe; columns as `reach`, and:

    step         str     what was changed before these probes, as the caller calls it
    """
    import pandas as pd

    place, address = place_of(source), target.addresses[network]
    asked = [(port, trial) for trial in range(1, trials + 1) for port in ports]
    captures = lab.run_all(
        [(place, curl(f"http://{address}:{port}", timeout_s)) for port, _ in asked],
        timeout=60.0 + timeout_s,
    )
    fixed = {"step": step, "node": place.node.name, "place": place.label, "target": target.name}
    fixed |= {"network": network, "address": address, "protocol": "TCP"}
    rows = [
        fixed | {"port": port, "trial": trial} | probe(capture)
        for (port, trial), capture in zip(asked, captures, strict=True)
    ]
    return pd.DataFrame(rows).astype({"answer": "str"})


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
    port: int = TASK_PORT,
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
        curls = lab.run_all([(source.place, curl(url, timeout_s))] * count)
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
