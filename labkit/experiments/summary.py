"""Which of the five techniques acts on one request, where, and with which address (lab 11)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from labkit.errors import SwarmError
from labkit.experiments.asking import PROBE, TASK_PORT, address_of, at_rest, curl, probe
from labkit.experiments.names import owners
from labkit.experiments.neighbours import link_of
from labkit.schema import Column, schema_of, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.schema import Row
    from labkit.swarm import Lab, Place, Task

Words = tuple[str, ...]
Changes = dict[Words, Words]  # a command that changes something -> the command that undoes it

TECHNIQUES = ["DNS", "iptables", "NAT", "IPVS", "ARP"]
_OF_TARGET = {
    "ACCEPT": "iptables",
    "DROP": "iptables",
    "MARK": "iptables",
    "DNAT": "NAT",
    "SNAT": "NAT",
    "MASQUERADE": "NAT",
    "REDIRECT": "NAT",
}
_DNS_CHAIN = "DOCKER_OUTPUT"  # holds nothing but the way to the DNS server of the Docker Engine
_GATEWAY = "docker_gwbridge"  # of a node's own neighbours, those that a request can meet


def stations(lab: Lab, source: Place, servers: Iterable[Task], *, network: str) -> list[Place]:
    """List the places where something can act on a request, in the order in which it may pass them.

    They are the source's namespace, that of the network's load balancer on each node that has one, and
    those of the tasks. It returns places, no table.

    Raises:
        UnknownNameError: a node has no load balancer for the network.
    """
    tasks = list(servers)
    is_ingress = network == "ingress" or any(network == task.ingress for task in tasks)
    using = list(lab.nodes.values()) if is_ingress else [t.node for t in tasks]
    nodes = {node.name: node for node in (source.node, *using)}
    found = [source, *(node.load_balancer(network) for node in nodes.values())]
    return [*found, *(task.sandbox for task in tasks if task.sandbox != source)]


@table(
    Column("technique", "category", "DNS, iptables (marks, accepts, drops), NAT, IPVS, ARP"),
    Column("node", "str", "the node of the place"),
    Column("place", "str", "where it was read"),
    Column("what", "str", "the rule, the IPVS destination or the neighbour"),
    Column("value", "str", "the address, port or mark that it gives; absent: none"),
    Column("count", "int", "packets or connections counted so far; of a neighbour 1"),
)
def technique_counters(lab: Lab, places: Iterable[Place], *, forget: bool = False) -> pd.DataFrame:
    """Read each counter and each neighbour entry in which a technique can be seen: one row each.

    Counters are read when they have come to rest: IPVS shows a connection up to two seconds late. With
    `forget` the neighbour tables are emptied after that, so that what comes in later is new.

    Raises:
        CommandFailed: a table of the kernel could not be read or emptied.
        SwarmError: a node could not be asked.
    """
    import pandas as pd

    chosen = list(places)

    def counters() -> list[Row]:
        rules = _read(lab, [(place, ["iptables-save", "-c"]) for place in chosen], _rules)
        balancer = ["ipvsadm", "-ln", "--stats", "--exact"]
        return rules + _read(lab, [(place, balancer) for place in chosen], _balanced)

    def neighbours() -> list[Row]:
        return _read(lab, [(p, ["ip", "neigh", "show", *_whose(p)]) for p in chosen], _known)

    # Neighbours are read right before or after the request: some seconds later the kernels check what
    # they have learned, and learn more by that.
    if forget:
        rows = at_rest(lab, counters)
        flush = ["ip", "neigh", "flush"]
        for emptied in lab.run_all([(p, [*flush, *(_whose(p) or ["all"])]) for p in chosen]):
            emptied.check()
        rows += neighbours()
    else:
        rows = neighbours()
        rows += at_rest(lab, counters)
    found = pd.DataFrame(rows, columns=list(schema_of(technique_counters).dtypes))
    found["technique"] = pd.Categorical(found["technique"], categories=TECHNIQUES, ordered=True)
    return found


def _read(
    lab: Lab,
    commands: list[tuple[Place, list[str]]],
    reader: Callable[[pd.DataFrame], Iterator[Row]],
) -> list[Row]:
    """Run commands side by side and read their tables: one row per thing found."""
    return [
        {"node": capture.node, "place": capture.place, **found}
        for capture in lab.run_all(commands)
        for found in reader(capture.check().table)
    ]


def _whose(place: Place) -> list[str]:
    """Return the words that choose the neighbours; on a node itself, not those between the nodes."""
    return ["dev", _GATEWAY] if place.netns is None and place.pid is None else []


def _row(technique: str, what: object, value: object, count: object) -> Row:
    """Return a row of `technique_counters` without its place."""
    return {"technique": technique, "what": what, "value": value, "count": int(str(count))}


def _rules(rules: pd.DataFrame) -> Iterator[Row]:
    """Yield a row for each rule of a technique; a rule on the way to the DNS server counts for both."""
    for row in rules[rules["target"].isin(list(_OF_TARGET))].to_dict("records"):
        what, value = f"{row['table']} {row['rule']}", None
        if row["target"] == "MARK":
            value = _mark(row["target_options"])
        elif row["target"] in ("DNAT", "SNAT", "REDIRECT"):
            value = str(row["target_options"]).split()[1]  # --to-destination 172.18.0.2:5000
        yield _row(_OF_TARGET[str(row["target"])], what, value, row["packets"])
        if row["chain"] == _DNS_CHAIN:
            yield _row("DNS", what, row["destination"], row["packets"])


def _mark(options: object) -> str:
    """Return the number in `--set-xmark 0x100/0xffffffff`, in decimal."""
    return str(int(str(options).split()[1].partition("/")[0], 16))


def _balanced(services: pd.DataFrame) -> Iterator[Row]:
    """Yield a row for each destination of IPVS."""
    for row in services[services["destination"].notna()].to_dict("records"):
        what = f"FWM {row['fwmark']} -> {row['destination']}"
        yield _row("IPVS", what, row["destination"], row["connections"])


def _known(neighbours: pd.DataFrame) -> Iterator[Row]:
    """Yield a row for each neighbour whose MAC address is known."""
    for row in neighbours[neighbours["mac"].notna()].to_dict("records"):
        yield _row("ARP", f"{row['address']} is at {row['mac']}", row["address"], 1)


@table(
    Column("request", "str", "as the caller calls it"),
    Column("technique", "category", "DNS, iptables, NAT, IPVS, ARP"),
    Column("node", "str", "the node of the place"),
    Column("place", "str", "where it was read; in the order in which the places were read"),
    Column("what", "str", "the rule, the IPVS destination or the neighbour"),
    Column("value", "str", "the address, port or mark that it gives; absent: none"),
    Column("owner", "str", "whose address that is, as in `owners`; absent: nobody's in the swarm"),
    Column("before", "int", "the count before the request"),
    Column("after", "int", "the count after it"),
    Column("count", "int", "by how much it rose: 0 where it had no part in the request"),
)
def techniques(lab: Lab, before: pd.DataFrame, after: pd.DataFrame, *, request: str) -> pd.DataFrame:
    """Compare two tables of `technique_counters`, from before and after a request: one row per counter.

    Raises:
        SwarmError: a node could not be asked.
    """
    keys = ["technique", "node", "place", "what", "value"]
    found = before.merge(after, on=keys, how="outer", suffixes=("_before", "_after"))
    counts = found[["count_before", "count_after"]].fillna(0).astype(int)
    found["before"], found["after"] = counts["count_before"], counts["count_after"]
    found["count"] = found["after"] - found["before"]
    known = owners(lab)
    owner_of = dict(zip(known["address"], known["owner"], strict=True))
    found["owner"] = found["value"].map(owner_of).astype("str")
    found["request"] = [request] * len(found)
    order = {place: number for number, place in enumerate(dict.fromkeys(before["place"]))}
    found["at"] = found["place"].map(order)
    found = found.sort_values(["at", "technique"], kind="stable", ignore_index=True)
    return found[list(schema_of(techniques).dtypes)]


@table(
    Column("taken", "str", "nothing, DNS, iptables, NAT, IPVS, ARP, nothing again"),
    Column("where", "str", "the namespace that was changed; absent: nothing was"),
    Column("change", "str", "the command that changed it; absent: nothing was changed"),
    Column("node", "str", "the source's node"),
    Column("place", "str", "the source"),
    Column("request", "str", "by name, by virtual IP, by task address"),
    *PROBE,
)
def ablation(
    lab: Lab, source: Task, service: str, *, network: str, timeout_s: float = 4.0
) -> list[Row]:
    """Take away one technique after the other, and ask in three ways each time: one row per request.

    Every change is undone before the next one is made, also when something fails.

    Raises:
        CommandFailed: a change could not be made or undone.
        SwarmError: a rule to be taken away was not found, or a node could not be asked.
    """
    virtual = _virtual_ip(lab, service, network)
    hosts = {"by name": service, "by virtual IP": virtual}
    hosts["by task address"] = address_of(lab.tasks(service)[0], network)
    rows: list[Row] = []

    def ask(taken: str, where: str | None, change: str | None) -> None:
        argvs = [curl(f"http://{host}:{TASK_PORT}", timeout_s) for host in hosts.values()]
        fixed = {"taken": taken, "where": where, "change": change, "node": source.node.name}
        answers = lab.run_all([(source.place, argv) for argv in argvs])
        for request, capture in zip(hosts, answers, strict=True):
            rows.append({**fixed, "place": source.name, "request": request, **probe(capture)})

    ask("nothing", None, None)
    for technique, place, changes in _cuts(source, virtual, network):
        with _changed(place, changes):
            first, *others = map(shlex.join, changes)
            ask(technique, place.label, f"{first} (and {len(others)} more)" if others else first)
    ask("nothing again", None, None)
    return rows


@contextmanager
def _changed(place: Place, changes: Changes) -> Iterator[None]:
    """Make changes, each with the command that undoes it, for as long as the body runs."""
    done = []
    try:
        for change, undo in changes.items():
            place.run(change).check()
            done.append(undo)
        yield
    finally:
        for undo in done:
            place.run(undo).check()


def _virtual_ip(lab: Lab, service: str, network: str) -> str:
    """Return the virtual IP that a service has on a network."""
    known = owners(lab)
    mine = (known["owner"] == f"virtual IP of {service}") & (known["network"] == network)
    return str(known[mine]["address"].iloc[0])


def _cuts(source: Task, virtual: str, network: str) -> Iterator[tuple[str, Place, Changes]]:
    """Yield for each technique the place where it is taken away, and the changes that do it."""
    balancer = source.node.load_balancer(network)
    rules = balancer.run(["iptables-save"]).check().table

    def rule(found: pd.DataFrame) -> Changes:
        if len(found) != 1:
            raise SwarmError(f"{len(found)} rules in {balancer.label} where one was expected")
        row = found.iloc[0]
        words = shlex.split(str(row["rule"]))[1:]
        begin = ("iptables", "-t", str(row["table"]))
        return {(*begin, "-D", *words): (*begin, "-A", *words)}

    silence = ("-d", "127.0.0.11", "-j", "DROP")
    yield (
        "DNS",
        source.sandbox,
        {("iptables", "-I", "OUTPUT", *silence): ("iptables", "-D", "OUTPUT", *silence)},
    )
    marking = rules[(rules["target"] == "MARK") & (rules["destination"] == virtual)]
    yield "iptables", balancer, rule(marking)
    yield "NAT", balancer, rule(rules[(rules["target"] == "SNAT") & (rules["chain"] == "POSTROUTING")])
    mark = _mark(marking["target_options"].iloc[0])
    shared = balancer.run(["ipvsadm", "-ln"]).check().table
    mine = shared[shared["fwmark"].astype("str") == mark]["destination"]
    edit = ("ipvsadm", "-e", "-f", mark, "-m", "-r")
    yield "IPVS", balancer, {(*edit, d, "-w", "0"): (*edit, d, "-w", "1") for d in mine}
    link = link_of(source.sandbox, address_of(source, network))
    wrong = ("ip", "neigh", "replace", virtual, "lladdr", "02:00:00:00:00:01", "dev", link)
    forget = ("ip", "neigh", "del", virtual, "dev", link)
    yield "ARP", source.sandbox, {(*wrong, "nud", "permanent"): forget}
