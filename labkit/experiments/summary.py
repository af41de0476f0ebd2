"""Which of the five techniques acts on one request, where, and with which address (lab 11)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from labkit.errors import SwarmError
from labkit.experiments.asking import TASK_PORT, at_rest, curl, probe
from labkit.experiments.names import owners
from labkit.experiments.neighbours import link_of

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab, Place, Task

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
    """List where a request from a source can be acted on: in the order in which it may pass.

    The source's namespace, that of the network's load balancer on each node that has one, and those of
    the tasks.
    """
    tasks = list(servers)
    using = list(lab.nodes.values()) if network == "ingress" else [t.node for t in tasks]
    nodes = {node.name: node for node in (source.node, *using)}
    found = [source, *(node.load_balancer(network) for node in nodes.values())]
    return [*found, *(task.sandbox for task in tasks if task.sandbox != source)]


def evidence(lab: Lab, places: Iterable[Place], *, forget: bool = False) -> pd.DataFrame:
    """Read every counter, and every neighbour entry, that a technique leaves behind: a row each.

    Counters are read when they have come to rest: IPVS shows a connection up to two seconds late. With
    `forget` the neighbour tables are emptied after that, so that what comes in later is new.

    technique    category    DNS, iptables (marks, accepts, drops), NAT, IPVS, ARP
    node         str
    place        str
    what         str         the rule, the IPVS destination or the neighbour
    value        str         the address, port or mark that it gives; absent: none
    count        int         packets or connections counted so far; of a neighbour 1
    """
    import pandas as pd

    chosen = list(places)

    def counted() -> list[dict[str, Any]]:
        rules = _read(lab, [(place, ["iptables-save", "-c"]) for place in chosen], _rules)
        balancer = ["ipvsadm", "-ln", "--stats", "--exact"]
        return rules + _read(lab, [(place, balancer) for place in chosen], _balanced)

    def known() -> list[dict[str, Any]]:
        return _read(lab, [(p, ["ip", "neigh", "show", *_whose(p)]) for p in chosen], _known)

    # Neighbours are read next to the request: some seconds later the kernels ask each other whether
    # what they have learned still holds, and learn more by that.
    if forget:
        rows = at_rest(lab, counted)
        flush = ["ip", "neigh", "flush"]
        for gone in lab.run_all([(p, [*flush, *(_whose(p) or ["all"])]) for p in chosen]):
            gone.check()
        rows += known()
    else:
        rows = known()
        rows += at_rest(lab, counted)
    found = pd.DataFrame(rows, columns=["technique", "node", "place", "what", "value", "count"])
    found["technique"] = pd.Categorical(found["technique"], categories=TECHNIQUES, ordered=True)
    return found.astype({"value": "str"})


def _read(
    lab: Lab,
    commands: list[tuple[Place, list[str]]],
    reader: Callable[[pd.DataFrame], Iterator[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Run commands side by side and read their tables: a row each thing found."""
    return [
        {"node": capture.node, "place": capture.place, **found}
        for capture in lab.run_all(commands)
        for found in reader(capture.check().table)
    ]


def _whose(place: Place) -> list[str]:
    """Choose the neighbours that are looked at: on a node itself not those between the nodes."""
    return ["dev", _GATEWAY] if place.netns is None and place.pid is None else []


def _row(technique: str, what: object, value: object, count: object) -> dict[str, Any]:
    return {"technique": technique, "what": what, "value": value, "count": int(str(count))}


def _rules(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in table[table["target"].isin(list(_OF_TARGET))].to_dict("records"):
        what, value = f"{row['table']} {row['rule']}", None
        if row["target"] == "MARK":
            value = _mark(row["target_options"])
        elif row["target"] in ("DNAT", "SNAT", "REDIRECT"):
            value = str(row["target_options"]).split()[1]  # --to-destination 172.18.0.2:5000
        yield _row(_OF_TARGET[str(row["target"])], what, value, row["packets"])
        if row["chain"] == _DNS_CHAIN:
            yield _row("DNS", what, row["destination"], row["packets"])


def _mark(options: object) -> str:
    """Read the number in `--set-xmark 0x100/0xffffffff`."""
    return str(int(str(options).split()[1].partition("/")[0], 16))


def _balanced(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in table[table["destination"].notna()].to_dict("records"):
        what = f"FWM {row['fwmark']} -> {row['destination']}"
        yield _row("IPVS", what, row["destination"], row["connections"])


def _known(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in table[table["mac"].notna()].to_dict("records"):
        yield _row("ARP", f"{row['address']} is at {row['mac']}", row["address"], 1)


def techniques(lab: Lab, before: pd.DataFrame, after: pd.DataFrame, *, request: str) -> pd.DataFrame:
    """Compare two looks at `evidence`, made before and after a request: a row each thing looked at.

    request      str         as the caller calls it
    technique    category    DNS, iptables, NAT, IPVS, ARP
    node         str
    place        str         in the order of the places that were looked at
    what         str         the rule, the IPVS destination or the neighbour
    value        str         the address, port or mark that it gives; absent: none
    owner        str         whose address that is, as in `owners`; absent: nobody's in the swarm
    before       int
    after        int
    count        int         by how much it rose: 0 where it had no part in the request
    """
    keys = ["technique", "node", "place", "what", "value"]
    found = before.merge(after, on=keys, how="outer", suffixes=("_before", "_after"))
    counts = found[["count_before", "count_after"]].fillna(0).astype(int)
    found["before"], found["after"] = counts["count_before"], counts["count_after"]
    found["count"] = found["after"] - found["before"]
    known = owners(lab)
    whose = dict(zip(known["address"], known["owner"], strict=True))
    found["owner"] = found["value"].map(whose).astype("str")
    found["request"] = [request] * len(found)
    order = {place: number for number, place in enumerate(dict.fromkeys(before["place"]))}
    found["at"] = found["place"].map(order)
    found = found.sort_values(["at", "technique"], kind="stable", ignore_index=True)
    return found[["request", *keys, "owner", "before", "after", "count"]]


def without(
    lab: Lab, source: Task, service: str, *, network: str, timeout_s: float = 4.0
) -> pd.DataFrame:
    """Take away one technique after the other and ask in three ways each time: a row a request.

    Every change is undone before the next one is made, also when something fails.

    taken        str     nothing, DNS, iptables, NAT, IPVS, ARP, nothing again
    where        str     the namespace that was changed
    change       str     the command that was used
    node         str     the source's node
    place        str     the source
    request      str     by name, by virtual IP, by task address
    argv         str
    code         int
    timed_out    bool
    reached      bool
    seconds      float
    answer       str
    stderr       str
    """
    import pandas as pd

    virtual = _virtual_ip(lab, service, network)
    urls = {"by name": service, "by virtual IP": virtual}
    urls["by task address"] = lab.tasks(service)[0].addresses[network]
    rows: list[dict[str, Any]] = []

    def ask(taken: str, where: str | None, change: str | None) -> None:
        argvs = [curl(f"http://{host}:{TASK_PORT}", timeout_s) for host in urls.values()]
        fixed = {"taken": taken, "where": where, "change": change, "node": source.node.name}
        for request, capture in zip(urls, lab.run_all([(source.place, a) for a in argvs]), strict=True):
            rows.append({**fixed, "place": source.name, "request": request, **probe(capture)})

    ask("nothing", None, None)
    for technique, place, changes in _cuts(source, virtual, network):
        with _changed(place, changes):
            ask(technique, place.label, shlex.join(next(iter(changes))))
    ask("nothing again", None, None)
    return pd.DataFrame(rows).astype({"where": "str", "change": "str", "answer": "str"})


@contextmanager
def _changed(place: Place, changes: Mapping[tuple[str, ...], tuple[str, ...]]) -> Iterator[None]:
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
    known = owners(lab)
    wanted = (known["owner"] == f"virtual IP of {service}") & (known["network"] == network)
    return str(known[wanted]["address"].iloc[0])


def _cuts(
    source: Task, virtual: str, network: str
) -> Iterator[tuple[str, Place, dict[tuple[str, ...], tuple[str, ...]]]]:
    """Yield for each technique where it is cut, and the commands: each with the one that undoes it."""
    balancer = source.node.load_balancer(network)
    rules = balancer.run(["iptables-save"]).check().table

    def rule(found: pd.DataFrame) -> dict[tuple[str, ...], tuple[str, ...]]:
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
    link = link_of(source.sandbox, source.addresses[network])
    wrong = ("ip", "neigh", "replace", virtual, "lladdr", "02:00:00:00:00:01", "dev", link)
    forget = ("ip", "neigh", "del", virtual, "dev", link)
    yield "ARP", source.sandbox, {(*wrong, "nud", "permanent"): forget}
