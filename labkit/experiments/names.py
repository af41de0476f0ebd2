"""What a name stands for, and whose address it is (labs 05 and 06)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.capture import words
from labkit.experiments.asking import places_of
from labkit.schema import Column, table

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Node, Place, Task

# The types and classes of records that BIND's dig knows (lib/dns/rdata): it takes such a word for one.
_RECORDS = """
    A A6 AAAA AFSDB AMTRELAY ANY APL ATMA AVC AXFR CAA CDNSKEY CDS CERT CH CHAOS CNAME CSYNC
    DHCID DLV DNAME DNSKEY DOA DS EID EUI48 EUI64 GID GPOS HINFO HIP HS HTTPS IN IPSECKEY ISDN
    IXFR KEY KEYDATA KX L32 L64 LOC LP MAILA MAILB MB MD MF MG MINFO MR MX NAPTR NID NIMLOC NINFO
    NONE NS NSAP NSAP-PTR NSEC NSEC3 NSEC3PARAM NULL NXNAME NXT OPENPGPKEY OPT PTR PX RESERVED0
    RESINFO RKEY RP RRSIG RT SIG SINK SMIMEA SOA SPF SRV SSHFP SVCB TA TALINK TKEY TLSA TSIG TXT
    UID UINFO UNSPEC URI WALLET WKS X25 ZONEMD
"""
_NO_NAME = re.compile(r"[-+@].*|(TYPE|CLASS)\d+|IXFR=.*", re.IGNORECASE)

Owners = dict[tuple[str, str], str]  # (network, address) -> owner


@table(
    Column("network", "str", "ingress, an overlay, docker_gwbridge"),
    Column("address", "str", "IPv4, or IPv6 where the network has it"),
    Column(
        "owner",
        "str",
        "a task, `virtual IP of …`, `load balancer of …` a node, or the network's gateway",
    ),
)
def owners(lab: Lab) -> list[Row]:
    """List who has which address in the swarm, as its managers and nodes say: one row per address.

    Raises:
        SwarmError: a node could not be asked.
    """
    found: Owners = {}
    names: dict[str, str] = {}  # of the networks, by their id
    for node in lab.nodes.values():
        networks = node.docker.api.networks()
        names |= {network["Id"]: network["Name"] for network in networks}
        for network in networks:
            if network["Driver"] in ("overlay", "bridge"):
                found |= _gateways(network)
            if network["Driver"] == "overlay":
                found |= _load_balancers(node, network)
    for service in lab.manager.docker.api.services():
        found |= _virtual_addresses(service, names)
        for task in lab.tasks(service["Spec"]["Name"]):
            for given in (*task.addresses.items(), *task.ipv6_addresses().items()):
                # Each node gives out IPv6 addresses for itself: two tasks may have the same one.
                found[given] = f"{found[given]}, {task.name}" if given in found else task.name
    return [
        {"network": network, "address": address, "owner": owner}
        for (network, address), owner in sorted(found.items())
    ]


def _gateways(network: dict[str, Any]) -> Owners:
    """The gateways that a network's address management names."""
    configs = (network["IPAM"] or {}).get("Config") or ()
    gateways = [_host(config["Gateway"]) for config in configs if config.get("Gateway")]
    return {(network["Name"], gateway): "the network's gateway" for gateway in gateways}


def _load_balancers(node: Node, network: dict[str, Any]) -> Owners:
    """The address of an overlay's load balancer on one node."""
    ends = node.docker.api.inspect_network(network["Id"])["Containers"] or {}
    return {
        (network["Name"], _host(end[family])): f"load balancer of {node.name}"
        for key, end in ends.items()
        if key == "ingress-sbox" or key.startswith("lb-")
        for family in ("IPv4Address", "IPv6Address")
        if end.get(family)
    }


def _virtual_addresses(service: dict[str, Any], names: dict[str, str]) -> Owners:
    """The virtual IPs of a service, one for each of its networks."""
    addresses = service.get("Endpoint", {}).get("VirtualIPs") or ()
    return {
        (
            names.get(one["NetworkID"], "?"),
            _host(one["Addr"]),
        ): f"virtual IP of {service['Spec']['Name']}"
        for one in addresses
        if one.get("Addr")
    }


def _host(address: str) -> str:
    """Return an address without the length of its prefix."""
    return address.partition("/")[0]


@table(
    Column("node", "str", "the node of the place"),
    Column("place", "str", "where it was asked"),
    Column("name", "str", "the name that was asked for"),
    Column("trial", "int", "from 1"),
    Column(
        "status", "str", "NOERROR, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT, or UNREACHABLE: nobody listens"
    ),
    Column("position", "int", "of the address in the reply, from 1; absent: no address"),
    Column("family", "str", "IPv4 or IPv6: which addresses were asked for, type A or AAAA"),
    Column("answer", "str", "the address; absent: none"),
    Column("owner", "str", "whose address it is, as in `owners`; absent: nobody's in the swarm"),
    Column("ttl_s", "int", "seconds for which the answer may be kept; absent: no address"),
    Column("server", "str", "address and port of the server that replied; absent: no address"),
    Column("query_time_ms", "int", "milliseconds until the reply; absent: no address"),
)
def lookups(
    lab: Lab,
    sources: Task | Place | Iterable[Task | Place],
    names: str | Sequence[str],
    *,
    trials: int = 1,
    timeout_s: int = 2,
) -> list[Row]:
    """Ask the DNS for every name from every place, again and again: one row per address that was given.

    A question that got no address has one row. A place asks for one name after the other, once each in
    a trial; the places ask side by side. Where a network of the swarm has IPv6, each is asked for IPv6
    addresses too, after that.

    Raises:
        UsageError: a source is no task and no place, or a name is no string.
        SwarmError: a node could not be asked.
    """
    places, names = places_of(sources), words("names", names)
    captures = {"A": _ask(lab, places, names, "A", trials, timeout_s)}
    known = owners(lab)
    if any(":" in address for address in known["address"]):
        captures["AAAA"] = _ask(lab, places, names, "AAAA", trials, timeout_s)
    who = dict(zip(known["address"], known["owner"], strict=True))
    rows: list[Row] = []
    for kind, asked in captures.items():
        for trial, capture in asked:
            fixed = {"node": capture.node, "place": capture.place, "trial": trial}
            fixed["family"] = "IPv4" if kind == "A" else "IPv6"
            replies = _by_question(capture.table.to_dict("records"))
            for name, reply in zip(names, replies, strict=True):
                status = {"name": name, "status": reply[0]["status"]}
                given = [row for row in reply if row["type"] == kind]
                for position, row in enumerate(given, 1):
                    said = {key: row[key] for key in ("answer", "ttl_s", "server", "query_time_ms")}
                    mine = {"position": position, "owner": who.get(str(row["answer"]))}
                    rows.append({**fixed, **status, **mine, **said})
                if not given:
                    rows.append({**fixed, **status})
    return rows


def _ask(
    lab: Lab, places: Sequence[Place], names: Sequence[str], kind: str, trials: int, timeout_s: int
) -> list[tuple[int, Capture]]:
    """Ask the DNS from every place for records of one type, A or AAAA; returns trials and replies."""
    argv = ["dig", f"+time={timeout_s}", "+tries=1", "+nosearch"]
    for name in names:
        # Without -q, dig would take these words for a type, a class or an option.
        odd = name.upper() in _RECORDS.split() or _NO_NAME.fullmatch(name)
        argv += ["-q", name] if odd else [name]
        argv += [] if kind == "A" else ["-t", kind]
    return [
        (trial, capture)
        for trial in range(1, trials + 1)
        for capture in lab.run_all([(place, argv) for place in places], timeout=120)
    ]


def _by_question(rows: Iterable[dict[Any, Any]]) -> list[list[Row]]:
    """Put the rows of dig's replies together by question; one without a reply stands alone."""
    replies: list[list[Row]] = []
    for row in rows:
        silent = row["status"] in ("TIMEOUT", "UNREACHABLE")
        if silent or not replies or replies[-1][0]["question"] != row["question"]:
            replies.append([row])
        else:
            replies[-1].append(row)
    return replies
