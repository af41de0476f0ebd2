"""What a name stands for, and whose address it is (labs 05 and 06)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.capture import words
from labkit.experiments.asking import places_of
from labkit.schema import Column, table

if TYPE_CHECKING:
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
    Column("address", "str", "IPv4"),
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
            found |= {(network, address): task.name for network, address in task.addresses.items()}
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
        (network["Name"], _host(end["IPv4Address"])): f"load balancer of {node.name}"
        for key, end in ends.items()
        if key == "ingress-sbox" or key.startswith("lb-")
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
    Column("answer", "str", "IPv4; absent: no address"),
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
    a trial; the places ask side by side.

    Raises:
        UsageError: a source is no task and no place, or a name is no string.
        SwarmError: a node could not be asked.
    """
    places, names = places_of(sources), words("names", names)
    argv = ["dig", f"+time={timeout_s}", "+tries=1", "+nosearch"]
    for name in names:
        # Without -q, dig would take these words for a type, a class or an option.
        odd = name.upper() in _RECORDS.split() or _NO_NAME.fullmatch(name)
        argv += ["-q", name] if odd else [name]
    captures = [
        (trial, capture)
        for trial in range(1, trials + 1)
        for capture in lab.run_all([(place, argv) for place in places], timeout=120)
    ]
    known = owners(lab)
    who = dict(zip(known["address"], known["owner"], strict=True))
    rows: list[Row] = []
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
    return rows


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
