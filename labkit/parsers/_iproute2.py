"""The two grammars of iproute2 that several parsers share.

`ip addr` and `ip link` print a link on a line of its own, with more lines below it: `read_links`.
`ip neigh`, `ip route` and `bridge fdb` print one entry per line, keywords with values: `read_entries`.
Both read the JSON form (-j) as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from labkit.parsers._json import (
    is_json,
    number_of,
    object_of,
    objects_of,
    read_objects,
    text_of,
    words_of,
)
from labkit.parsers._table import (
    ADDRESS,
    NUMBER,
    ParseError,
    Where,
    check_address,
    grammar,
    is_number,
    lines,
    match,
    shown,
)
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
_LINK = grammar(
    link=(
        rf"(?P<index>{NUMBER}): (?P<interface>[^@:\s]+)(@(?P<peer>[^:\s]+))?: "
        r"<(?P<flags>[^>]*)> (?P<pairs>.*)"
    ),
    one_line=rf"(?P<index>{NUMBER}): (?P<interface>\S+) +(?P<rest>inet.*)",
    mac=r" +link/(?P<link_type>\S+)( (?P<mac>[0-9a-f:.]+)( brd \S+)?)?(?P<rest>( .*)?)",
    address=(
        rf" +(?P<family>inet6?) (?P<address>{ADDRESS})( peer {ADDRESS})?(/(?P<prefix_length>{NUMBER}))?"
        r"( .*)? scope (?P<scope>\S+).*"
    ),
    # `id` is the VNI of a VXLAN, and of a VLAN something else.
    kind=(
        r" +(?P<kind>veth|bridge|vxlan|dummy|tun|ipvlan|macvlan|vlan)"
        rf"((?<=vxlan) id (?P<vni>{NUMBER})(?= |$)|(?! id ))( .*)?"
    ),
    direction=r" +(?P<direction>RX|TX): +bytes .*",
    counters=(
        rf" +(?P<bytes>{NUMBER}) +(?P<packets>{NUMBER}) +(?P<errors>{NUMBER}) +(?P<dropped>{NUMBER})"
        r"( .*)?"
    ),
    noise=r" +(valid_lft|altname|alias|bridge_slave|promiscuity|numtxqueues) .*",
    brief=(
        r"(?P<interface>[^@\s]+)(@(?P<peer>\S+))? +(?P<state>[A-Z]+)"
        r"(( +(?P<mac>[^<\s]+))? +<(?P<flags>[^>]*)>| +(?P<addresses>[0-9a-f:].*))?"
    ),
)
_HEADS = ("link", "one_line", "brief")
_BRIEF_ADDRESS = re.compile(
    rf"(?P<address>{ADDRESS})(?: peer {ADDRESS})?(?:/(?P<prefix_length>{NUMBER}))?"
    rf"(?: metric {NUMBER})?(?: +|$)"
)
_NETNSID = re.compile(rf"link-netnsid ({NUMBER}(?= |$)|unknown)")


@dataclass
class Link:
    """One link: the columns that both tools have, those of `ip link` alone, and its addresses."""

    common: Row
    details: Row = field(default_factory=dict)
    addresses: list[Row] = field(default_factory=list)


def read_links(text: str) -> list[Link]:
    """Read links with their addresses out of any form of `ip addr` and `ip link`.

    Raises ParseError for a line, or an entry of the JSON, that is not understood.
    """
    if is_json(text):
        return [_link_of_json(entry, where) for entry, where in read_objects(text, "ip addr")]
    links: list[Link] = []
    form = direction = ""
    for kind, found, where in _link_lines(text):
        if kind in _HEADS:
            if form not in ("", kind):
                raise ParseError(*where, "all links in one form")
            form, direction = kind, ""
            _add_head(links, kind, found, where)
        elif not links:
            raise ParseError(*where, "a line `1: lo: <…>` before it")
        elif kind == "direction":
            direction = found["direction"].lower()
        elif kind == "counters" and not direction:
            raise ParseError(*where, "a line `RX: bytes …` or `TX: bytes …` before it")
        else:
            _add_line(links[-1], kind, found, direction, where)
    return links


def _link_lines(text: str) -> Iterator[tuple[str, Row, Where]]:
    """Yield what each line says; `ip -o` folds a link into one line, with backslashes."""
    for where in lines(text):
        for part in where[1].split("\\"):
            if line := part.rstrip():
                yield *match(where, line, _LINK, "a line of ip addr/link"), where


def _add_head(links: list[Link], kind: str, found: Row, where: Where) -> None:
    """Begin a link with its first line; of `ip -o addr` each line names its link again."""
    if kind == "link":
        links.append(_link_of_head(found, where))
    elif kind == "brief":
        links.append(_link_of_brief(found, where))
    else:
        inner = _LINK["address"].fullmatch(" " + found.pop("rest"))
        if inner is None:
            raise ParseError(*where, "an address as `ip -o addr` prints it")
        if not links or links[-1].common["index"] != found["index"]:
            links.append(Link(common=found))
        links[-1].addresses.append(_address(inner.groupdict(), where))


def _link_of_head(found: Row, where: Where) -> Link:
    """Read `12: eth0@if13: <UP> mtu 1450 …`: behind the flags are keywords with their values."""
    words = found.pop("pairs").split()
    values: Row = {}
    for key in ("mtu", "state", "master"):
        if key in words:
            values[key] = next(iter(words[words.index(key) + 1 :]), None)
            if values[key] is None:
                raise ParseError(*where, f"a value after {key!r}")
    if "mtu" in values and not is_number(values["mtu"]):
        raise ParseError(*where, "a number after 'mtu'")
    return Link(common=found | values)


def _link_of_brief(found: Row, where: Where) -> Link:
    """Read a line of `ip -br addr` or `ip -br link`."""
    text = found.pop("addresses") or ""
    addresses: list[Row] = []
    at = 0
    while at < len(text):
        address = _BRIEF_ADDRESS.match(text, at)
        if address is None:
            raise ParseError(*where, "addresses as `ip -br addr` prints them")
        family = "inet6" if ":" in address["address"] else "inet"
        addresses.append(_address({"family": family} | address.groupdict(), where))
        at = address.end()
    return Link(common=found, addresses=addresses)


def _address(found: Row, where: Where) -> Row:
    """Return an address of a link; raises ParseError where it is none."""
    check_address(found["address"], where, "ip addr")
    return found


def _add_line(link: Link, kind: str, found: Row, direction: str, where: Where) -> None:
    """Add what one of the lines below a link says about it."""
    if kind == "mac":
        netns = _NETNSID.search(found["rest"])
        if netns is None and "link-netnsid" in found["rest"]:
            raise ParseError(*where, "a number after 'link-netnsid'")
        known = netns is not None and netns[1] != "unknown"
        link.common |= {"mac": found["mac"], "link_netnsid": netns[1] if netns and known else None}
        link.details["link_type"] = found["link_type"]
    elif kind == "kind":
        link.details |= found
    elif kind == "address":
        link.addresses.append(_address(found, where))
    elif kind == "counters":
        link.details |= {f"{direction}_{name}": found[name] for name in _COUNTERS}


def _link_of_json(entry: Row, where: Where) -> Link:
    """Read one entry of `ip -j addr` or `ip -j link`."""
    interface = text_of(entry, "ifname", where)
    if interface is None:
        raise ParseError(*where, "'ifname', the name of the link")
    other = number_of(entry, "link_index", where)
    info = object_of(entry, "linkinfo", where)
    kind = text_of(info, "info_kind", where)
    vni = number_of(object_of(info, "info_data", where), "id", where) if kind == "vxlan" else None
    counters = object_of(entry, "stats64", where)
    netns_is_known = entry.get("link_netnsid") != -1  # which the text form calls unknown
    return Link(
        common={
            "index": number_of(entry, "ifindex", where),
            "interface": interface,
            "peer": text_of(entry, "link", where) or (None if other is None else f"if{other}"),
            "flags": ",".join(words_of(entry, "flags", where)) if "flags" in entry else None,
            "mtu": number_of(entry, "mtu", where),
            "state": text_of(entry, "operstate", where),
            "master": text_of(entry, "master", where),
            "mac": text_of(entry, "address", where),
            "link_netnsid": number_of(entry, "link_netnsid", where) if netns_is_known else None,
        },
        details={"link_type": text_of(entry, "link_type", where), "kind": kind, "vni": vni}
        | {
            f"{direction}_{name}": number_of(object_of(counters, direction, where), name, where)
            for direction in ("rx", "tx")
            for name in _COUNTERS
        },
        # There is an empty object where an address was filtered out.
        addresses=[_address_of_json(one, where) for one in objects_of(entry, "addr_info", where)],
    )


def _address_of_json(entry: Row, where: Where) -> Row:
    """Read one object of `addr_info`."""
    address = text_of(entry, "local", where)
    if address is None:
        raise ParseError(*where, "'local', the address")
    return _address(
        {
            "family": "inet6" if ":" in address else "inet",
            "address": address,
            "prefix_length": number_of(entry, "prefixlen", where),
            "scope": text_of(entry, "scope", where),
        },
        where,
    )


@dataclass(frozen=True)
class EntryForm:
    """How iproute2 prints one kind of entry: a head, keywords with their values, single words.

    The JSON form is read as strictly as the text: a key that is not named here is refused, like a word.
    """

    tool: str
    head: re.Pattern[str]
    words: Mapping[str, str]  # keyword -> the column that takes its value
    keys: Mapping[str, str]  # key of the JSON form -> the column that takes its value
    skipped: frozenset[str] = frozenset()  # keywords whose value no column takes
    skipped_keys: frozenset[str] = frozenset()  # keys of the JSON form that no column takes
    numbers: frozenset[str] = frozenset()  # columns that hold whole numbers
    addresses: frozenset[str] = frozenset()  # columns that hold IP addresses, with a length or without
    states: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    noise: re.Pattern[str] = re.compile(r"(?!)")
    mended: tuple[re.Pattern[str], str] | None = None  # what to put right in a line, and how


def read_entries(text: str, form: EntryForm, interface: str | None) -> Iterator[Row]:
    """Read the entries of one form, as text or as JSON: the columns of the form, `state` and `flags`.

    ``interface`` is the device that was asked for, which the tool then leaves out. Raises ParseError
    for a line, or an entry of the JSON, that is not understood.
    """
    if is_json(text):
        for entry, where in read_objects(text, form.tool):
            yield _checked(_entry_of_json(entry, form, interface, where), form, where)
        return
    for where in lines(text):
        if not form.noise.fullmatch(where[1]):
            yield _checked(_entry_of_line(form, interface, where), form, where)


def _checked(row: Row, form: EntryForm, where: Where) -> Row:
    """Return a row; raises ParseError where an address is none."""
    for name in form.addresses:
        if row.get(name) not in (None, "default"):
            check_address(row[name].partition("/")[0], where, f"{form.tool} without -r")
    return row


def _entry_of_json(entry: Row, form: EntryForm, interface: str | None, where: Where) -> Row:
    known = form.keys.keys() | form.skipped_keys | form.flags | {"state", "flags"}
    if unknown := sorted(entry.keys() - known):
        raise ParseError(*where, f"no key {shown(unknown[0])} in the JSON of `{form.tool} -j`")
    row: Row = {
        column: (number_of if column in form.numbers else text_of)(entry, key, where)
        for key, column in form.keys.items()
    }
    head = next(iter(form.keys))
    if row[form.keys[head]] is None:
        raise ParseError(*where, f"{head!r}, which every entry has")
    # `ip -j neigh` has its flags as keys, the others have them in a list.
    flags = {*words_of(entry, "flags", where), *(form.flags & entry.keys())}
    states = words_of(entry, "state", where)
    for word in (*sorted(flags - form.flags), *sorted({*states} - form.states)):
        raise ParseError(*where, f"no word {shown(word)} in `{form.tool}`")
    return row | {"interface": row["interface"] or interface} | _joined(states, flags)


def _entry_of_line(form: EntryForm, interface: str | None, where: Where) -> Row:
    line = where[1]
    if form.mended:
        wrong, right = form.mended
        line = wrong.sub(right, line)
    head = form.head.match(line)
    if head is None:
        raise ParseError(*where, f"an entry as `{form.tool}` prints it")
    row: Row = {"interface": interface} | head.groupdict()
    seen: set[str] = set()
    rest = iter(line[head.end() :].split())
    for word in rest:
        if word in seen:
            raise ParseError(*where, f"{word!r} once")
        if word in form.words or word in form.skipped:
            value = next(rest, None)
            if value is None:
                raise ParseError(*where, f"a value after {word!r}")
            column = form.words.get(word)
            if column in form.numbers and not is_number(value):
                raise ParseError(*where, f"a number after {word!r}")
            if column:
                row[column] = value
        elif word not in form.states and word not in form.flags:
            raise ParseError(*where, f"no word {shown(word)} in `{form.tool}`")
        seen.add(word)
    return row | _joined(seen & form.states, seen & form.flags)


def _joined(states: Iterable[str], flags: Iterable[str]) -> Row:
    """Return the columns `state` and `flags`."""
    return {"state": ",".join(sorted(states)) or None, "flags": ",".join(sorted(flags)) or None}
