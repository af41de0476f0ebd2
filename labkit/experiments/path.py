"""The way of a request to a published port, hop by hop (lab 02)."""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING, Any

from labkit import parsers
from labkit.errors import SwarmError, UsageError
from labkit.experiments.asking import (
    PROBE,
    TIMEOUT_S,
    address_of,
    at_rest,
    curl,
    probe,
    run_in_batches,
)
from labkit.experiments.neighbours import link_of
from labkit.schema import Column, table

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Node, Place, Task

HOPS = ("DNAT", "MASQUERADE", "MARK", "IPVS", "SNAT", "VXLAN", "REDIRECT", "INPUT", "OUTPUT", "answers")
CONNECTIONS, PACKETS = "connections", "packets"
THERE, BACK = "to the task", "to the client"

_LOST = re.compile(r"(\d+) packets dropped by kernel")


@table(
    Column("node", "str", "the node that it is on"),
    Column("place", "str", "the node's ingress_sbox"),
    Column("mark", "int", "that a rule sets on packets for the port; absent: no such rule"),
    Column("fwmark", "int", "the mark that IPVS takes packets by; absent: no such service in IPVS"),
    Column("scheduler", "str", "how IPVS chooses a destination: rr is one after the other; or absent"),
    Column(
        "destinations", "str", "the IPv4 addresses that it chooses from, in order, with commas between"
    ),
    Column("snat_to", "str", "IPv4 that the packets get as their source; absent: no such rule"),
)
def balancers(lab: Lab, service: str) -> list[Row]:
    """Read what each node's `ingress_sbox` has for a service's published port: one row per node.

    Raises:
        UsageError: the service publishes no port.
        CommandFailed: the rules or IPVS's table could not be read.
        SwarmError: a node could not be asked.
    """
    published, _ = _ports(lab, service)
    places = [node.netns("ingress_sbox") for node in lab.nodes.values()]
    rules = lab.run_all([(place, ["iptables-save"]) for place in places])
    services = lab.run_all([(place, ["ipvsadm", "-ln"]) for place in places])
    rows: list[Row] = []
    for place, saved, listed in zip(places, rules, services, strict=True):
        mark = _rule(saved, table="mangle", chain="PREROUTING", target="MARK", dport=published)
        snat = _rule(saved, table="nat", chain="POSTROUTING", target="SNAT")
        marked = _mark_of(mark)
        balanced = listed.check().table
        balanced = balanced[balanced["fwmark"] == (-1 if marked is None else marked)]
        rows.append(
            {
                "node": place.node.name,
                "place": place.label,
                "mark": marked,
                "fwmark": balanced["fwmark"].iloc[0] if len(balanced) else None,
                "scheduler": balanced["scheduler"].iloc[0] if len(balanced) else None,
                "destinations": ",".join(sorted(balanced["destination"].dropna())),
                "snat_to": snat["target_options"].split()[-1] if snat else None,
            }
        )
    return rows


@table(
    Column("node", "str", "the node that asked"),
    Column("place", "str", "the same: the probe ran on the node itself"),
    Column("asked", "str", "the node whose port was asked"),
    *PROBE,
    Column("container", "str", "that answered: the beginning of its id; absent: none did"),
    Column("server_node", "str", "the node that it runs on; absent: no answer"),
    Column("client", "str", "IPv4 that it saw as the client's; absent: no answer"),
)
def clients(lab: Lab, service: str) -> list[Row]:
    """Let every node ask the published port of every node who its client is: one row per request.

    A node asks itself at 127.0.0.1.

    Raises:
        UsageError: the service publishes no port.
        SwarmError: a node could not be asked.
    """
    published, _ = _ports(lab, service)
    pairs = list(product(lab.nodes.values(), repeat=2))
    asking = []
    for asker, asked in pairs:
        address = "127.0.0.1" if asker is asked else asked.address
        asking.append((asker.place, curl(f"http://{address}:{published}/whoami", TIMEOUT_S)))
    rows: list[Row] = []
    for (asker, asked), capture in zip(pairs, run_in_batches(lab, asking), strict=True):
        answer = capture.table.iloc[0]
        row = {"node": asker.name, "place": asker.place.label, "asked": asked.name}
        row |= probe(capture)
        rows.append(row | {key: answer[key] for key in ("container", "server_node", "client")})
    return rows


_TRANSLATION = (
    Column("order", "int", "in which the request comes by, from 1"),
    Column("node", "str", "the node of the place"),
    Column("place", "str", "the node itself, its ingress_sbox, the task's network namespace"),
    Column("source", "str", "IPv4 that the request comes from"),
    Column("source_port", "int", "port that it comes from"),
    Column("destination", "str", "IPv4 that it comes to"),
    Column("destination_port", "int", "port that it comes to"),
    Column("new_source", "str", "IPv4 that it goes on from"),
    Column("new_source_port", "int", "port that it goes on from"),
    Column("new_destination", "str", "IPv4 that it goes on to"),
    Column("new_destination_port", "int", "port that it goes on to"),
)


@table(*_TRANSLATION)
def translations(lab: Lab, service: str, *, via: Node) -> list[Row]:
    """Make one request to a node's published port, and look up what each place made of it.

    One row per place: the node, its ingress_sbox, the network namespace of the task that answered. What
    connection tracking knows there is followed from one place to the next: packets leave a place as
    they come to the next one.

    Raises:
        UsageError: the service publishes no port.
        CommandFailed: the request was not answered, or connection tracking could not be read.
        SwarmError: connection tracking has no such connection, or a node could not be asked.
    """
    published, _ = _ports(lab, service)
    return _translations(lab, lab.tasks(service), published, via)


@table(*_TRANSLATION, Column("counted", "str", "what counted it there, in the packet's order"))
def packet(lab: Lab, service: str, *, via: Node) -> list[Row]:
    """Make one request to a published port; tell what each place made of it, and what counted it.

    One row per place, as in `translations`, from the counters before and after the request. Nobody else
    should ask the service meanwhile: a counter tells how many came by, and not who.

    Raises:
        UsageError: the service publishes no port.
        CommandFailed: the request was not answered, or a counter could not be read.
        SwarmError: connection tracking has no such connection, or a node could not be asked.
    """
    published, target = _ports(lab, service)
    tasks, sandbox = lab.tasks(service), via.netns("ingress_sbox")

    def read() -> list[Row]:
        return _counters(lab, via, sandbox, tasks, published, target)

    before = at_rest(lab, read)
    rows = _translations(lab, tasks, published, via)
    after = at_rest(lab, read)
    rose: dict[str, list[str]] = {}
    for old, new in zip(before, after, strict=True):
        if new["way"] == THERE and _rise(old["after"], new["after"]):
            rose.setdefault(new["place"], []).append(new["hop"])
    return [
        {**row, "counted": ", ".join(sorted(set(rose.get(str(row["place"]), [])), key=HOPS.index))}
        for row in rows
    ]


@table(
    Column("order", "int", "from 1, in the order in which a request comes by"),
    Column("via", "str", "the node whose port was asked"),
    Column("requests", "int", "how many requests were made"),
    Column("answered", "int", "how many of them were answered"),
    Column("node", "str", "where it was counted; of answers: the node of the task that gave them"),
    Column("place", "str", "likewise; of answers: the task"),
    Column("hop", "str", ", ".join(HOPS)),
    Column("what", "str", "the rule or object, as its tool prints it; absent: there is none"),
    Column("counted", "str", "connections or packets"),
    Column("way", "str", "to the task, or to the client"),
    Column("task", "str", "whose share it is; absent: the counter does not tell tasks apart"),
    Column("before", "int", "the counter before the requests; absent: there is none"),
    Column("after", "int", "the counter after them; absent: there is none"),
    Column("rise", "int", "the difference"),
)
def hops(
    lab: Lab, service: str, *, via: Node, requests: int, timeout_s: float = TIMEOUT_S
) -> list[Row]:
    """Read every hop's counters before and after requests to a published port: one row per counter.

    Each request has a connection of its own and is made on the node itself, to 127.0.0.1. tcpdump
    counts on the wire at that node meanwhile. Both readings are made when the counters have come to
    rest: IPVS shows a packet up to two seconds late.

    Raises:
        UsageError: the service publishes no port.
        CommandFailed: a counter could not be read.
        SwarmError: tcpdump lost packets, or a node could not be asked.
    """
    published, target = _ports(lab, service)
    tasks = lab.tasks(service)
    sandbox = via.netns("ingress_sbox")
    uplink = link_of(via.place, via.address)
    # Only the heads of the packets: then no block of the kernel's buffer overflows.
    recording = ["tcpdump", "-n", "-s", "192", "-i", uplink, "udp", "port", "4789"]
    url = f"http://127.0.0.1:{published}/whoami#[1-{requests}]"
    asking = [*curl(url, timeout_s), "-H", "Connection: close"]

    def read() -> list[Row]:
        return _counters(lab, via, sandbox, tasks, published, target)

    before = at_rest(lab, read)
    with via.place.watch(recording) as wire:
        asked = via.run(asking, timeout=60.0 + timeout_s * requests)
        after = at_rest(lab, read)
    answers = _answers(asked, tasks)
    recorded = answers + _crossing(wire.result(), tasks, published)
    rows = [{**row, "before": old["after"]} for old, row in zip(before, after, strict=True)]
    rows += [{**row, "before": 0} for row in recorded]
    rows.sort(key=lambda row: HOPS.index(row["hop"]))
    answered = sum(row["after"] for row in answers)
    fixed = {"via": via.name, "requests": requests, "answered": answered}
    return [
        {"order": order, **fixed, **row, "rise": _rise(row["before"], row["after"])}
        for order, row in enumerate(rows, 1)
    ]


def _translations(lab: Lab, tasks: list[Task], published: int, via: Node) -> list[Row]:
    """Return the rows of `translations`."""
    url = f"http://127.0.0.1:{published}/whoami"
    asked = via.run([*curl(url, TIMEOUT_S), "-w", parsers.CURL_FORMAT]).check().table.iloc[0]
    (task,) = (t for t in tasks if t.container.startswith(asked["container"]))
    places = [via.place, via.netns("ingress_sbox"), task.sandbox]
    tracked = lab.run_all([(place, ["conntrack", "-L", "-p", "tcp"]) for place in places])
    ends = ("source", "source_port", "destination", "destination_port")
    replies = ("reply_destination", "reply_destination_port", "reply_source", "reply_source_port")
    now = dict(zip(ends, ("127.0.0.1", asked["local_port"], "127.0.0.1", published), strict=True))
    rows: list[Row] = []
    for place, capture in zip(places, tracked, strict=True):
        flows = capture.check().table
        for name in ends:
            flows = flows[flows[name] == now[name]]
        if flows.empty:
            known = ", ".join(f"{name} {value}" for name, value in now.items())
            raise SwarmError(
                f"connection tracking of {place.label} has noted no connection with {known}",
                hint="run the cell again: a noted connection goes two minutes after its end",
            )
        new = {end: flows.iloc[0][reply] for end, reply in zip(ends, replies, strict=True)}
        row = {"order": len(rows) + 1, "node": place.node.name, "place": place.label, **now}
        rows.append(row | {f"new_{end}": value for end, value in new.items()})
        now = new
    return rows


def _rise(before: int | None, after: int | None) -> int | None:
    """Return by how much a counter rose; None where there is no counter."""
    return None if before is None or after is None else after - before


def _counters(
    lab: Lab, via: Node, sandbox: Place, tasks: list[Task], published: int, target: int
) -> list[Row]:
    """Read the counters of rules and of IPVS, always in the same order."""
    save = ["iptables-save", "-c"]
    stats = ["ipvsadm", "-ln", "--stats", "--exact"]
    asked: list[tuple[Place, list[str]]] = [(via.place, save), (sandbox, save), (sandbox, stats)]
    node, box, balanced, *ends = lab.run_all([*asked, *((task.sandbox, save) for task in tasks)])

    def read(
        capture: Capture, hop: str, counted: str, way: str, task: Task | None = None, **wanted: Any
    ) -> Row:
        rule = _rule(capture, **wanted) or {}
        return _row(capture, hop, rule.get("rule"), counted, way, task, rule.get("packets"))

    bridge: dict[str, Any] = {"target": "MASQUERADE", "out_interface": "docker_gwbridge"}
    marking: dict[str, Any] = {"table": "mangle", "target": "MARK", "dport": published}
    rows = [
        read(node, "DNAT", CONNECTIONS, THERE, chain="DOCKER-INGRESS", target="DNAT", dport=published),
        read(node, "MASQUERADE", CONNECTIONS, THERE, table="nat", chain="POSTROUTING", **bridge),
        read(box, "MARK", PACKETS, THERE, chain="PREROUTING", **marking),
        read(box, "SNAT", CONNECTIONS, THERE, table="nat", chain="POSTROUTING", target="SNAT"),
    ]
    mark = _mark_of(_rule(box, chain="PREROUTING", **marking))
    figures = balanced.check().table
    figures = figures[figures["fwmark"] == (-1 if mark is None else mark)]
    for task, saved in zip(tasks, ends, strict=True):
        address = address_of(task, "ingress")
        mine = figures[figures["destination"] == address]
        what = f"FWM {mark} -> {address}:0" if len(mine) else None
        for name, counted, way in (
            ("connections", CONNECTIONS, THERE),
            ("in_packets", PACKETS, THERE),
            ("out_packets", PACKETS, BACK),
        ):
            count = mine[name].iloc[0] if len(mine) else None
            rows.append(_row(balanced, "IPVS", what, counted, way, task, count))
        inward: dict[str, Any] = {"destination": address, "target": "ACCEPT", "dport": target}
        outward: dict[str, Any] = {"source": address, "target": "ACCEPT", "sport": target}
        rows += [
            read(saved, "REDIRECT", CONNECTIONS, THERE, task, target="REDIRECT", dport=published),
            read(saved, "INPUT", PACKETS, THERE, task, chain="INPUT", **inward),
            read(saved, "OUTPUT", PACKETS, BACK, task, chain="OUTPUT", **outward),
        ]
    return rows


def _crossing(recorded: Capture, tasks: list[Task], published: int) -> list[Row]:
    """Count the frames of the published port in a recording of VXLAN; raises SwarmError for a gap."""
    lost = _LOST.search(recorded.stderr)
    if lost and int(lost[1]):
        raise SwarmError(
            f"tcpdump on {recorded.place} lost {lost[1]} packets, so its count is worth nothing",
            hint="run the cell again, with fewer requests",
        )
    frames = recorded.table
    rows = []
    for task in tasks:
        for way, end in ((THERE, "destination"), (BACK, "source")):
            mine = frames[f"inner_{end}"].eq(address_of(task, "ingress"))
            mine &= frames[f"inner_{end}_port"].eq(published)
            count = int(mine.sum())
            rows.append(_row(recorded, "VXLAN", recorded.command, PACKETS, way, task, count))
    return rows


def _answers(asked: Capture, tasks: list[Task]) -> list[Row]:
    """Count who answered."""
    by = list(parsers.whoami(asked.text)["container"])
    rows = []
    for task in tasks:
        count = by.count(task.container[:12])
        row = _row(asked, "answers", asked.command, CONNECTIONS, BACK, task, count)
        rows.append({**row, "node": task.node.name, "place": task.name})
    return rows


def _row(
    capture: Capture, hop: str, what: str | None, counted: str, way: str, task: Task | None, count: Any
) -> Row:
    """Return what a row of `hops` has before both readings are there."""
    return {
        "node": capture.node,
        "place": capture.place,
        "hop": hop,
        "what": what,
        "counted": counted,
        "way": way,
        "task": task.name if task else None,
        "after": count,
    }


def _rule(saved: Capture, **wanted: Any) -> dict[str, Any] | None:
    """Return the first rule of an iptables-save with these values; None where there is none."""
    rules = saved.check().table
    for column, value in wanted.items():
        rules = rules[rules[column].eq(value)]
    return None if rules.empty else {str(key): value for key, value in rules.iloc[0].items()}


def _mark_of(rule: dict[str, Any] | None) -> int | None:
    """Read the number out of `--set-xmark 0x100/0xffffffff`."""
    return int(rule["target_options"].split()[-1].partition("/")[0], 16) if rule else None


def _ports(lab: Lab, service: str) -> tuple[int, int]:
    """Return the port that a service publishes through the routing mesh, and the one behind it."""
    ports = lab.manager.docker.api.inspect_service(service)["Endpoint"].get("Ports") or ()
    for port in ports:
        if port["PublishMode"] == "ingress":
            return port["PublishedPort"], port["TargetPort"]
    raise UsageError(f"{service} publishes no port", hint="lab.service(…, publish='5000:3000')")
