"""The two grammars of iproute2 that several parsers share.

`ip addr` and `ip link` print a link on a line of its own, with more lines below it: `read_links`.
`ip neigh`, `ip route` and `bridge fdb` print one entry per line, keywords with values: `read_entries`.
Both read the JSON form (-j) as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.parsers._table import ParseError, classify
from labkit.schema import Column, Row

LINK_COLUMNS = (
    Column("index", "int", "number of the interface in its network namespace"),
    Column("interface", "str", "name, without `@peer`"),
    Column("peer", "str", "the other end of a veth pair: `if12`, or its name"),
    Column("flags", "str", "BROADCAST,MULTICAST,UP,LOWER_UP"),
    Column("mtu", "int", "bytes"),
    Column("state", "str", "UP, DOWN, UNKNOWN"),
    Column("master", "str", "the bridge it is a port of"),
)
"""The columns that `ip addr` and `ip link` begin with."""

MAC = Column("mac", "str", "hardware address of the interface")
LINK_NETNSID = Column(
    "link_netnsid", "int", "namespace of the peer, when it is another; as numbered here"
)

_COUNTERS = ("bytes", "packets", "errors", "dropped")
_LINK = {
    "link": re.compile(
        r"(?P<index>\d+): (?P<interface>[^@:\s]+)(@(?P<peer>[^:\s]+))?: "
        r"<(?P<flags>[^>]*)> (?P<pairs>.*)"
    ),
    "one_line": re.compile(r"(?P<index>\d+): (?P<interface>\S+) +(?P<rest>inet.*)"),
    "mac": re.compile(r" +link/(?P<link_type>\S+)( (?P<mac>[0-9a-f:.]+)( brd \S+)?)?(?P<rest>.*)"),
    "address": re.compile(
        r" +(?P<family>inet6?) (?P<address>[^ /]+)( peer [^ /]+)?(/(?P<prefix_length>\d+))?"
        r"( .*)? scope (?P<scope>\S+).*"
    ),
    "kind": re.compile(
        r" +(?P<kind>veth|bridge|vxlan|dummy|tun|ipvlan|macvlan)( id (?P<vni>\d+))?( .*)?"
    ),
    "direction": re.compile(r" +(?P<direction>RX|TX): +bytes .*"),
    "counters": re.compile(
        r" +(?P<bytes>\d+) +(?P<packets>\d+) +(?P<errors>\d+) +(?P<dropped>\d+)( .*)?"
    ),
    "noise": re.compile(r" +(valid_lft|altname|alias|bridge_slave|promiscuity|numtxqueues) .*"),
    "brief": re.compile(
        r"(?P<interface>[^@\s]+)(@(?P<peer>\S+))? +(?P<state>[A-Z]+)"
        r"( +(?P<mac>\S+) <(?P<flags>[^>]*)>| +(?P<addresses>[0-9a-f].*))?"
    ),
}


@dataclass
class Link:
    """One link: the columns that both tools have, those of `ip link` alone, and its addresses."""

    common: Row
    details: Row = field(default_factory=dict)
    addresses: list[Row] = field(default_factory=list)


def read_links(text: str) -> list[Link]:
    """Read links with their addresses out of any form of `ip addr` and `ip link`."""
    if (entries := _json_objects(text, "ip addr")) is not None:
        return [_link_of_json(entry) for entry in entries]
    links: list[Link] = []
    direction = ""
    # `ip -o` folds an entry into one line with backslashes.
    for kind, found, where in classify(text.replace("\\", "\n"), _LINK, "a line of ip addr/link"):
        if kind == "link":
            links.append(_link_of_head(found, where))
        elif kind == "brief":
            links.append(_link_of_brief(found))
        elif kind == "one_line":
            inner = _LINK["address"].fullmatch(" " + found.pop("rest"))
            if inner is None:
                raise ParseError(*where, "an address as `ip -o addr` prints it")
            if not links or links[-1].common.get("index") != found["index"]:
                links.append(Link(common=found))
            links[-1].addresses.append(inner.groupdict())
        elif kind == "direction":
            direction = found["direction"].lower()
        elif not links:
            raise ParseError(*where, "a line `1: lo: <…>` before it")
        else:
            _add_line(links[-1], kind, found, direction)
    return links


def _link_of_head(found: Row, where: tuple[int, str]) -> Link:
    """Read `12: eth0@if13: <UP> mtu 1450 …`: behind the flags are keywords with their values."""
    words = found.pop("pairs").split()
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    mtu = pairs.get("mtu")
    if mtu is not None and not mtu.isdecimal():
        raise ParseError(*where, "a number after 'mtu'")
    return Link(common=found | {"mtu": mtu, "state": pairs.get("state"), "master": pairs.get("master")})


def _link_of_brief(found: Row) -> Link:
    """Read a line of `ip -br addr` or `ip -br link`."""
    addresses = re.sub(r" peer \S+", "", found.pop("addresses") or "").split()
    return Link(common=found, addresses=[_address(address) for address in addresses])


def _add_line(link: Link, kind: str, found: Row, direction: str) -> None:
    """Add what one of the lines below a link says about it."""
    if kind == "mac":
        netns = re.search(r"link-netnsid (\d+)", found["rest"])
        link.common |= {"mac": found["mac"], "link_netnsid": netns[1] if netns else None}
        link.details["link_type"] = found["link_type"]
    elif kind == "kind":
        link.details |= found
    elif kind == "address":
        link.addresses.append(found)
    elif kind == "counters":
        link.details |= {f"{direction}_{name}": found[name] for name in _COUNTERS}


def _address(text: str) -> Row:
    """Read one `10.0.1.5/24`."""
    address, _, length = text.partition("/")
    family = "inet6" if ":" in address else "inet"
    return {"family": family, "address": address, "prefix_length": length or None}


def _link_of_json(entry: Row) -> Link:
    """Read one entry of `ip -j addr` or `ip -j link`."""
    peer = f"if{entry['link_index']}" if "link_index" in entry else None
    info = entry.get("linkinfo", {})
    counters = entry.get("stats64", {})
    return Link(
        common={
            "index": entry.get("ifindex"),
            "interface": entry.get("ifname"),
            "peer": entry.get("link") or peer,
            "flags": ",".join(entry["flags"]) if "flags" in entry else None,
            "mtu": entry.get("mtu"),
            "state": entry.get("operstate"),
            "master": entry.get("master"),
            "mac": entry.get("address"),
            "link_netnsid": entry.get("link_netnsid"),
        },
        details={
            "link_type": entry.get("link_type"),
            "kind": info.get("info_kind"),
            "vni": info.get("info_data", {}).get("id"),
        }
        | {
            f"{direction}_{name}": counters.get(direction, {}).get(name)
            for direction in ("rx", "tx")
            for name in _COUNTERS
        },
        addresses=[
            _address(f"{address['local']}/{address['prefixlen']}") | {"scope": address.get("scope")}
            # There is an empty object where an address was filtered out.
            for address in entry.get("addr_info", [])
            if address
        ],
    )


@dataclass(frozen=True)
class EntryForm:
    """How iproute2 prints one kind of entry: a head, keywords with their values, single words."""

    tool: str
    head: re.Pattern[str]
    words: Mapping[str, str]  # keyword -> the column that takes its value
    keys: Mapping[str, str]  # key of the JSON form -> the column that takes its value
    skipped: frozenset[str] = frozenset()  # keywords whose value no column takes
    numbers: frozenset[str] = frozenset()  # columns that hold whole numbers
    states: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    noise: re.Pattern[str] = re.compile(r"\s*")


def read_entries(text: str, form: EntryForm, interface: str | None) -> Iterator[Row]:
    """Read the entries of one form, as text or as JSON: the columns of the form, `state` and `flags`.

    ``interface`` is the device that was asked for, which the tool then leaves out.
    """
    if (found := _json_objects(text, form.tool)) is not None:
        for entry in found:
            yield _entry_of_json(entry, form, interface)
        return
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not form.noise.fullmatch(line):
            yield _entry_of_line(number, line, form, interface)


def _entry_of_json(entry: Row, form: EntryForm, interface: str | None) -> Row:
    row = {column: entry.get(key) for key, column in form.keys.items()}
    state = row.get("state") or []
    # `ip -j neigh` has its flags as keys, the others have them in a list.
    flags = form.flags & {*entry, *entry.get("flags", [])}
    return row | {
        "interface": row["interface"] or interface,
        "state": (state if isinstance(state, str) else ",".join(state)) or None,
        "flags": ",".join(sorted(flags)) or None,
    }


def _entry_of_line(number: int, line: str, form: EntryForm, interface: str | None) -> Row:
    head = form.head.match(line)
    if head is None:
        raise ParseError(number, line, f"an entry as `{form.tool}` prints it")
    row: Row = {"interface": interface} | head.groupdict()
    states: set[str] = set()
    flags: set[str] = set()
    rest = iter(line[head.end() :].split())
    for word in rest:
        if word in form.states:
            states.add(word)
        elif word in form.flags:
            flags.add(word)
        elif word not in form.words and word not in form.skipped:
            raise ParseError(number, line, f"no word {word!r} in `{form.tool}`")
        elif (value := next(rest, None)) is None:
            raise ParseError(number, line, f"a value after {word!r}")
        elif column := form.words.get(word):
            if column in form.numbers and not value.isdecimal():
                raise ParseError(number, line, f"a number after {word!r}")
            row[column] = value
    return row | {
        "state": ",".join(sorted(states)) or None,
        "flags": ",".join(sorted(flags)) or None,
    }


def _json_objects(text: str, tool: str) -> list[dict[str, Any]] | None:
    """Read what a tool prints with -j; None when the text is not JSON."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as exc:
        line = text.splitlines()[exc.lineno - 1]
        raise ParseError(exc.lineno, line, f"the JSON of `{tool} -j`") from exc
    if not all(isinstance(entry, dict) for entry in found):
        raise ParseError(1, text.lstrip().splitlines()[0], f"objects in the JSON of `{tool} -j`")
    # iproute2 leaves empty objects where a filter took an entry out.
    return [entry for entry in found if entry]
