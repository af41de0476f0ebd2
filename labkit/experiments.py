"""Experiments: many probes, one tidy table. Each takes what it looks at and returns a DataFrame.

A row is one probe or one count. Where a row is a probe it has `place`, `argv`, `code`, `timed_out` and
`stderr`, so that `checks.reached` and `checks.not_reached` can judge it by the tool's own word.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit import probes, swarm
from labkit.errors import SwarmError

if TYPE_CHECKING:
    import pandas as pd

    from labkit.probes import Capture
    from labkit.swarm import Lab, Place, Task

_TASK_PORT = 3000  # where the app listens in its container
_TIMEOUT_S = 5.0  # long beside an answer, also under emulation
_SIDE_BY_SIDE = 6  # probes at a time: more than that, and an emulated node is late with its answers


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
    captures: dict[int, Capture] = {}
    # The slow ones, which time out, go together.
    order = sorted(range(len(commands)), key=lambda at: (asked[at]["trial"], asked[at]["protocol"]))
    for begin in range(0, len(order), _SIDE_BY_SIDE):
        batch = order[begin : begin + _SIDE_BY_SIDE]
        done = lab.run_all([commands[at] for at in batch], timeout=60.0 + timeout_s)
        captures.update(zip(batch, done, strict=True))
    rows = [row | _probe(captures[at]) for at, row in enumerate(asked)]
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
    watching = ["tcpdump", "-p", "-n", "-l", "--immediate-mode", "-i", "any"]
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
    return pd.DataFrame(rows).astype({"state": "str", "answer": "str"})


# --- Whose address it is, and who answers for it (labs 05 and 06) ---------------------------------


def owners(lab: Lab) -> pd.DataFrame:
    """Who has which address in the swarm, as its managers and nodes tell it: a row an address.

    network    str    ingress, an overlay, docker_gwbridge
    address    str    IPv4
    owner      str    a task, `virtual IP of …`, `load balancer of …` a node, or the network's gateway
    """
    import pandas as pd

    api = lab.manager.docker.api
    rows: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for node in lab.nodes.values():
        for network in node.docker.api.networks():
            names[network["Id"]] = network["Name"]
            if network["Driver"] not in ("overlay", "bridge"):
                continue
            for config in (network["IPAM"] or {}).get("Config") or ():
                if config.get("Gateway"):
                    gateway = config["Gateway"].split("/")[0]
                    rows[network["Name"], gateway] = "the network's gateway"
            if network["Driver"] == "overlay":
                ends = node.docker.api.inspect_network(network["Id"])["Containers"] or {}
                for key, end in ends.items():
                    if key == "ingress-sbox" or key.startswith("lb-"):
                        address = end["IPv4Address"].split("/")[0]
                        rows[network["Name"], address] = f"load balancer of {node.name}"
    for service in api.services():
        name = service["Spec"]["Name"]
        for virtual in service.get("Endpoint", {}).get("VirtualIPs") or ():
            if virtual.get("Addr"):
                key = names.get(virtual["NetworkID"], "?"), virtual["Addr"].split("/")[0]
                rows[key] = f"virtual IP of {name}"
        for task in lab.tasks(name):
            for network_name, address in task.addresses.items():
                rows[network_name, address] = task.name
    table = [{"network": n, "address": a, "owner": owner} for (n, a), owner in sorted(rows.items())]
    return pd.DataFrame(table, columns=["network", "address", "owner"])


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


def lookups(
    lab: Lab,
    sources: Iterable[Task | Place],
    names: Sequence[str],
    *,
    trials: int = 1,
    timeout_s: int = 2,
) -> pd.DataFrame:
    """Ask the DNS for every name from every place, again and again: a row an address that was given.

    A question that got no address has one row. A place asks for one name after the other, once each in
    a trial; the places ask side by side.

    node             str
    place            str    where it was asked
    name             str    the name that was asked for
    trial            int    from 1
    status           str    NOERROR, NXDOMAIN, SERVFAIL, REFUSED, or TIMEOUT: nobody replied
    position         int    of the address in the reply, from 1; absent: no address
    answer           str    IPv4; absent: no address
    owner            str    as in `owners`
    ttl_s            int    seconds that the answer may be kept
    server           str    who replied
    query_time_ms    int
    """
    import pandas as pd

    places = [_place(source) for source in sources]
    argv = ["dig", f"+time={timeout_s}", "+tries=1", "+nosearch", *names]
    captures = [
        (trial, capture)
        for trial in range(1, trials + 1)
        for capture in lab.run_all([(place, argv) for place in places], timeout=120)
    ]
    known = owners(lab)
    who = dict(zip(known["address"], known["owner"], strict=True))
    rows: list[dict[str, Any]] = []
    for trial, capture in captures:
        fixed = {"node": capture.node, "place": capture.place, "trial": trial}
        replies = _by_question(capture.table.to_dict("records"))
        for name, reply in zip(names, replies, strict=True):
            status = {"name": name, "status": reply[0]["status"]}
            given = [row for row in reply if row["type"] == "A"]
            for position, row in enumerate(given, 1):
                said = {key: row[key] for key in ("answer", "ttl_s", "server", "query_time_ms")}
                mine = {"position": position, "owner": who.get(str(row["answer"]))}
                rows.append({**fixed, **status, **mine, **said})
            if not given:
                rows.append({**fixed, **status})
    columns = ["node", "place", "name", "trial", "status", "position", "answer", "owner", "ttl_s"]
    found = pd.DataFrame(rows, columns=[*columns, "server", "query_time_ms"])
    return found.astype(dict.fromkeys(["position", "ttl_s", "query_time_ms"], "Int64"))


def _by_question(rows: Iterable[dict[Any, Any]]) -> list[list[dict[Any, Any]]]:
    """Put the rows of dig's replies together by question; one without a reply stands alone."""
    replies: list[list[dict[Any, Any]]] = []
    for row in rows:
        silent = row["status"] == "TIMEOUT"
        if silent or not replies or replies[-1][0]["question"] != row["question"]:
            replies.append([row])
        else:
            replies[-1].append(row)
    return replies


def resolve(
    source: Task,
    target: Task,
    *,
    change: str,
    network: str = "my-overlay",
    timeout_s: float = _TIMEOUT_S,
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
    row |= {"address": address, **_probe(pinged), "said": said}
    row |= {key: mine[key].iloc[0] if len(mine) else None for key in ("mac", "state")}
    return pd.DataFrame([row])
