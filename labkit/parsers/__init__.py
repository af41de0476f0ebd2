"""What the network tools print, as tables: pure functions from text to DataFrame.

The rules, for every parser here:

- The docstring is the schema. It lists each column with its type, unit and meaning, and the table
  is built from that list, so that the two cannot differ: same columns, same dtypes, always.
  (The price: labkit does not run under `python -OO`, which drops docstrings.)
- Types: ``str`` (NaN when absent), ``int`` ("Int64", <NA> when absent), ``float`` ("float64", NaN
  when absent), ``bool`` ("boolean"). Nothing is nested; lists are joined with a comma.
- Columns are flat lower snake case, with the unit in the name (``rtt_ms``) unless it is a count.
- Empty text gives an empty table, with all its columns.
- A line that is not understood raises `ParseError` with its number; known noise (headers,
  footers, warnings) is passed over. Nothing is guessed and no line is dropped in silence.
- No parser has a column ``node``, ``place`` or ``trial``: those say where and when a probe ran.

`parse` finds the parser that fits a command. To add a tool: write a generator of rows with its
columns in the docstring, decorate it with `_parser`, name it in `_TOOLS`, and put captured output
of it into ``tests/captures``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ParamSpec

from labkit.errors import LabkitError, UsageError

if TYPE_CHECKING:
    import pandas as pd

P = ParamSpec("P")
Row = dict[str, Any]
Patterns = Mapping[str, re.Pattern[str]]

_DTYPES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "str": ("str", str),
    "int": ("Int64", int),
    "float": ("float64", float),
    "bool": ("boolean", bool),
}
_COLUMNS = re.compile(r"^ +([a-z][\w, ]*?) {2,}(str|int|float|bool)\b", re.MULTILINE)


class ParseError(LabkitError):
    """A line of a tool's output that its parser does not understand."""

    def __init__(self, number: int, line: str, expected: str) -> None:
        super().__init__(
            f"line {number}: expected {expected}, found {line!r}",
            hint="look at the raw text; a new form of the tool's output belongs in tests/captures",
        )
        self.number = number
        self.line = line
        self.expected = expected


def columns(parser: Callable[..., pd.DataFrame]) -> dict[str, str]:
    """Return a parser's columns and their dtypes, as its docstring lists them."""
    found = _COLUMNS.findall(parser.__doc__ or "")
    return {name: _DTYPES[kind][0] for names, kind in found for name in names.split(", ")}


def _parser(read: Callable[P, Iterable[Row]]) -> Callable[P, pd.DataFrame]:
    """Make a parser of a generator of rows; the columns come from its docstring."""

    @wraps(read)
    def parser(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
        import pandas as pd  # here, since it costs more than all the rest of labkit together

        rows = list(read(*args, **kwargs))
        casts = dict(_DTYPES.values())
        return pd.DataFrame(
            {
                name: pd.Series(
                    [None if row.get(name) is None else casts[dtype](row[name]) for row in rows],
                    dtype=dtype,
                )
                for name, dtype in columns(parser).items()
            }
        )

    return parser


def _classify(
    text: str, patterns: Patterns, expected: str
) -> Iterator[tuple[str, Row, tuple[int, str]]]:
    """Name each line by the first pattern that fits all of it: name, what was caught, where."""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line:
            continue
        for kind, pattern in patterns.items():
            if found := pattern.fullmatch(line):
                yield kind, found.groupdict(), (number, line)
                break
        else:
            raise ParseError(number, line, expected)


def _json_objects(text: str, tool: str) -> list[Row] | None:
    """Read what a tool prints with -j; None when the text is not JSON."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as exc:
        line = text.splitlines()[exc.lineno - 1]
        raise ParseError(exc.lineno, line, f"the JSON of `{tool} -j`") from exc
    # iproute2 leaves empty objects where a filter took an entry out.
    return [entry for entry in found if entry]


def _count(text: str) -> int:
    """Read a counter that may be shortened: 12K is 12000 in iptables and in ipvsadm."""
    factor = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(text[-1])
    return int(text[:-1]) * factor if factor else int(text)


def _endpoint(text: str, separator: str = ":") -> tuple[str | None, int | None]:
    """Split `address:port`; an absent address, and port 0 or *, become None."""
    address, _, port = text.rpartition(separator)
    return address.strip("[]") or None, None if port in ("*", "0") else int(port)


# --- ip and bridge -------------------------------------------------------------------------------

_LINK = {
    "link": re.compile(
        r"(?P<index>\d+): (?P<interface>[^@:\s]+)(@(?P<peer>[^:\s]+))?: "
        r"<(?P<flags>[^>]*)> (?P<pairs>.*)"
    ),
    "oneline": re.compile(r"(?P<index>\d+): (?P<interface>\S+) +(?P<rest>inet.*)"),
    "mac": re.compile(r" +link/(?P<link_type>\S+)( (?P<mac>[0-9a-f:.]+)( brd \S+)?)?(?P<rest>.*)"),
    "address": re.compile(
        r" +(?P<family>inet6?) (?P<address>[^ /]+)( peer [^ /]+)?(/(?P<prefix_length>\d+))?"
        r"( .*)? scope (?P<scope>\S+).*"
    ),
    "kind": re.compile(
        r" +(?P<kind>veth|bridge|vxlan|dummy|tun|ipvlan|macvlan)( id (?P<vni>\d+))?( .*)?"
    ),
    "way": re.compile(r" +(?P<way>RX|TX): +bytes .*"),
    "counters": re.compile(
        r" +(?P<bytes>\d+) +(?P<packets>\d+) +(?P<errors>\d+) +(?P<dropped>\d+)( .*)?"
    ),
    "noise": re.compile(r" +(valid_lft|altname|alias|bridge_slave|promiscuity|numtxqueues) .*"),
    "brief": re.compile(
        r"(?P<interface>[^@\s]+)(@(?P<peer>\S+))? +(?P<state>[A-Z]+)"
        r"( +(?P<mac>\S+) <(?P<flags>[^>]*)>| +(?P<addresses>[0-9a-f].*))?"
    ),
}


def _address(text: str) -> Row:
    """Read one `10.0.1.5/24`."""
    address, _, length = text.partition("/")
    family = "inet6" if ":" in address else "inet"
    return {"family": family, "address": address, "prefix_length": length or None}


def _links(text: str) -> list[Row]:
    """Read links with their addresses out of any form of `ip addr` and `ip link`."""
    if (entries := _json_objects(text, "ip addr")) is not None:
        return [_link_of_json(entry) for entry in entries]
    links: list[Row] = []
    way = ""
    # `ip -o` folds an entry into one line with backslashes.
    for kind, found, where in _classify(text.replace("\\", "\n"), _LINK, "a line of ip addr/link"):
        if kind in ("link", "brief"):
            pairs = (found.pop("pairs", None) or "").split()
            words = dict(zip(pairs[::2], pairs[1::2], strict=False))
            addresses = re.sub(r" peer \S+", "", found.pop("addresses", None) or "").split()
            links.append(
                {
                    "state": words.get("state"),
                    "mtu": words.get("mtu"),
                    "master": words.get("master"),
                }
                | found
                | {"addresses": [_address(address) for address in addresses]}
            )
        elif kind == "oneline":
            inner = _LINK["address"].fullmatch(" " + found["rest"])
            if inner is None:
                raise ParseError(*where, "an address as `ip -o addr` prints it")
            if not links or links[-1]["index"] != found["index"]:
                links.append(found | {"addresses": []})
            links[-1]["addresses"].append(inner.groupdict())
        elif kind == "way":
            way = found["way"].lower()
        elif not links:
            raise ParseError(*where, "a line `1: lo: <…>` before it")
        elif kind == "mac":
            netns = re.search(r"link-netnsid (\d+)", found.pop("rest"))
            links[-1] |= found | {"link_netnsid": netns[1] if netns else None}
        elif kind == "kind":
            links[-1] |= found
        elif kind == "address":
            links[-1]["addresses"].append(found)
        elif kind == "counters":
            links[-1] |= {f"{way}_{name}": value for name, value in found.items()}
    return links


def _link_of_json(entry: Row) -> Row:
    """Rename one entry of `ip -j addr` or `ip -j link`."""
    peer = f"if{entry['link_index']}" if "link_index" in entry else None
    info = entry.get("linkinfo", {})
    return {
        "index": entry.get("ifindex"),
        "interface": entry["ifname"],
        "peer": entry.get("link") or peer,
        "flags": ",".join(entry["flags"]) if "flags" in entry else None,
        "mtu": entry.get("mtu"),
        "state": entry.get("operstate"),
        "master": entry.get("master"),
        "link_type": entry.get("link_type"),
        "mac": entry.get("address"),
        "link_netnsid": entry.get("link_netnsid"),
        "kind": info.get("info_kind"),
        "vni": info.get("info_data", {}).get("id"),
        "addresses": [
            _address(f"{address['local']}/{address['prefixlen']}") | {"scope": address.get("scope")}
            # There is an empty object where an address was filtered out.
            for address in entry.get("addr_info", [])
            if address
        ],
    } | {
        f"{way}_{name}": value
        for way, counters in entry.get("stats64", {}).items()
        for name, value in counters.items()
    }


@_parser
def ip_addr(text: str) -> Iterator[Row]:
    """Read `ip addr`, also with -br, -o or -j: a row an address.

    A link without an address gives a row as well. The brief form has only interface, peer, state
    and the addresses.

        index            int    number of the interface in its network namespace
        interface        str    name, without `@peer`
        peer             str    the other end of a veth pair: `if12`, or its name
        flags            str    BROADCAST,MULTICAST,UP,LOWER_UP
        mtu              int    bytes
        state            str    UP, DOWN, UNKNOWN
        master           str    the bridge it is a port of
        mac              str
        link_netnsid     int    where the peer is, when in another namespace
        family           str    inet, inet6
        address          str    without the prefix length
        prefix_length    int    bits
        scope            str    host, link, global
    """
    for link in _links(text):
        for address in link["addresses"] or [{}]:
            yield link | address


@_parser
def ip_link(text: str) -> Iterator[Row]:
    """Read `ip link`, also with -br, -d, -s or -j: a row a link.

    index         int    number of the interface in its network namespace
    interface     str    name, without `@peer`
    peer          str    the other end of a veth pair: `if12`, or its name
    flags         str    BROADCAST,MULTICAST,UP,LOWER_UP
    mtu           int    bytes
    state         str    UP, DOWN, UNKNOWN
    master        str    the bridge it is a port of
    link_type     str    ether, loopback
    mac           str
    link_netnsid  int    where the peer is, when in another namespace
    kind          str    veth, bridge, vxlan (with -d)
    vni           int    VXLAN network identifier (with -d)
    rx_bytes, rx_packets, rx_errors, rx_dropped  int    received (with -s)
    tx_bytes, tx_packets, tx_errors, tx_dropped  int    sent (with -s)
    """
    yield from _links(text)


@dataclass(frozen=True)
class _Form:
    """How iproute2 prints one kind of entry: a beginning, `keyword value` pairs, single words."""

    tool: str
    head: re.Pattern[str]
    words: Mapping[str, str]  # keyword: column
    keys: Mapping[str, str]  # key of the JSON form: column
    states: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    noise: re.Pattern[str] = re.compile(r"\s*")


def _entries(text: str, form: _Form, interface: str | None) -> Iterator[Row]:
    """Read the entries of one form, as text or as JSON."""
    if (found := _json_objects(text, form.tool)) is not None:
        for entry in found:
            # `ip -j neigh` has its flags as keys, the others have them in a list.
            row = {column: entry.get(key) for key, column in form.keys.items()}
            state = row.get("state") or []
            yield row | {
                "interface": row["interface"] or interface,
                "state": (state if isinstance(state, str) else ",".join(state)) or None,
                "flags": ",".join(sorted(form.flags & {*entry, *entry.get("flags", [])})) or None,
            }
        return
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if form.noise.fullmatch(line):
            continue
        head = form.head.match(line)
        if head is None:
            raise ParseError(number, line, f"an entry as `{form.tool}` prints it")
        row = {"interface": interface} | head.groupdict()
        states: set[str] = set()
        flags: set[str] = set()
        rest = iter(line[head.end() :].split())
        for word in rest:
            if word in form.states:
                states.add(word)
            elif word in form.flags:
                flags.add(word)
            elif word not in form.words:
                raise ParseError(number, line, f"no word {word!r} in `{form.tool}`")
            elif (value := next(rest, None)) is None:
                raise ParseError(number, line, f"a value after {word!r}")
            else:
                row[form.words[word]] = value
        yield row | {
            "state": ",".join(sorted(states)) or None,
            "flags": ",".join(sorted(flags)) or None,
        }


_NEIGH = _Form(
    tool="ip neigh",
    head=re.compile(r"(?P<address>[0-9a-f.:]+)(?= )"),
    words={"dev": "interface", "lladdr": "mac", "proto": "", "ref": "", "used": "", "probes": ""},
    keys={"dst": "address", "dev": "interface", "lladdr": "mac", "state": "state"},
    states=frozenset(
        ("PERMANENT", "NOARP", "REACHABLE", "STALE", "DELAY", "PROBE", "INCOMPLETE", "FAILED")
    ),
    flags=frozenset({"router", "proxy", "extern_learn", "offload", "managed", "extern_valid"}),
)


@_parser
def ip_neigh(text: str, *, interface: str | None = None) -> Iterator[Row]:
    """Read `ip neigh`, also with -s or -j: a row a neighbour.

    ``interface`` is for `ip neigh show dev X`, which leaves the name out.

        address      str    IP address of the neighbour
        interface    str
        mac          str    absent while INCOMPLETE or FAILED
        state        str    PERMANENT, REACHABLE, STALE, DELAY, PROBE, INCOMPLETE, FAILED, NOARP
        flags        str    router, proxy, extern_learn, …
    """
    # `ip -s neigh` sets "probes" right behind the figures before it.
    yield from _entries(re.sub(r"(?<=\d)probes ", " probes ", text), _NEIGH, interface)


_ROUTE = _Form(
    tool="ip route",
    head=re.compile(
        r"((?P<type>unicast|local|broadcast|multicast|anycast|blackhole|unreachable|prohibit|throw)"
        r" )?(?P<destination>default|[0-9a-f.:]+(/\d+)?)(?= |$)"
    ),
    words={
        "via": "gateway",
        "dev": "interface",
        "proto": "protocol",
        "scope": "scope",
        "src": "source",
        "metric": "metric",
        "table": "table",
    }
    | dict.fromkeys(("uid", "mtu", "from", "iif", "pref", "expires", "error", "hoplimit"), ""),
    keys={
        "type": "type",
        "dst": "destination",
        "gateway": "gateway",
        "dev": "interface",
        "protocol": "protocol",
        "scope": "scope",
        "prefsrc": "source",
        "metric": "metric",
        "table": "table",
    },
    flags=frozenset({"linkdown", "onlink", "pervasive", "dead"}),
    noise=re.compile(r"\s*|\s+cache.*"),  # the second line of `ip route get`
)


@_parser
def ip_route(text: str, *, interface: str | None = None) -> Iterator[Row]:
    """Read `ip route` and `ip route get`, also with -j: a row a route.

    ``interface`` is for `ip route show dev X`, which leaves the name out.

        type           str    unicast, local, broadcast, blackhole, unreachable, …
        destination    str    `default`, an address, or address/length
        gateway        str    the next hop
        interface      str
        protocol       str    kernel, boot, static, ra, …
        scope          str    link, host, global
        source         str    preferred source address
        metric         int
        table          str    absent means main
        flags          str    linkdown, onlink, …
    """
    for row in _entries(text, _ROUTE, interface):
        yield row | {"type": row.get("type") or "unicast"}


_FDB = _Form(
    tool="bridge fdb",
    head=re.compile(r"(?P<mac>([0-9a-f]{2}:){5}[0-9a-f]{2})(?= |$)"),
    words={"dev": "interface", "dst": "vtep", "master": "master", "vlan": "vlan", "vni": "vni"}
    | dict.fromkeys(("src_vni", "via", "port", "used", "link-netnsid"), ""),
    keys={
        "mac": "mac",
        "ifname": "interface",
        "dst": "vtep",
        "vlan": "vlan",
        "vni": "vni",
        "master": "master",
        "state": "state",
    },
    states=frozenset({"permanent", "static", "stale"}),
    flags=frozenset({"self", "router", "extern_learn", "offload", "sticky", "locked"}),
)


@_parser
def bridge_fdb(text: str, *, interface: str | None = None) -> Iterator[Row]:
    """Read `bridge fdb`, also with -s or -j: a row a MAC address.

    ``interface`` is for `bridge fdb show dev X`, which leaves the name out.

        mac          str
        interface    str    the port that frames to it leave by
        vtep         str    IP address of the node behind the tunnel (vxlan ports)
        vlan         int
        vni          int    only where it differs from the port's own
        master       str    the bridge whose table it is in; absent: the port's own table
        state        str    permanent, static, stale; absent: learned from traffic
        flags        str    self, extern_learn, offload, …
    """
    yield from _entries(text, _FDB, interface)


# --- iptables ------------------------------------------------------------------------------------

_CHAIN = re.compile(
    r"Chain (?P<chain>\S+) \((policy (?P<policy>\S+)( \S+ packets, \S+ bytes)?|\d+ references)\)"
)
_LIST_NAMES = {
    "pkts": "packets",
    "prot": "protocol",
    "in": "in_interface",
    "out": "out_interface",
}
# iptables 1.8.9 prints numbers with -n, 1.8.11 names again.
_PROTOCOLS = {
    "0": "all",
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "50": "esp",
    "58": "ipv6-icmp",
    "132": "sctp",
}


@_parser
def iptables_list(text: str, *, table: str = "filter") -> Iterator[Row]:
    """Read `iptables -nL`, also with -v, -x or --line-numbers: a row a rule.

    ``table`` is what stood behind -t, since the listing does not say it. Shortened counters (12K)
    become numbers; -x prints them in full.

        table            str    filter, nat, mangle, …
        chain            str
        policy           str    ACCEPT or DROP; absent for chains of one's own
        num              int    place in its chain, from 1
        packets          int    with -v
        bytes            int    with -v
        target           str    absent: the rule only counts
        protocol         str    by name: all, tcp, udp, icmp, sctp
        in_interface     str    `*` is any (with -v)
        out_interface    str    `*` is any (with -v)
        source           str    `0.0.0.0/0` is any
        destination      str    `0.0.0.0/0` is any
        match_text       str    the rest, as printed: `tcp dpt:3000 ctstate NEW`
    """
    chain: Row = {}
    names: list[str] = []
    num = 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line or line.startswith("#"):
            continue
        if found := _CHAIN.fullmatch(line):
            chain, names, num = found.groupdict(), [], 0
            continue
        if not chain:
            raise ParseError(number, line, "a line `Chain NAME (…)`")
        if not names:
            names = [_LIST_NAMES.get(name, name) for name in line.split()]
            if "target" not in names or "opt" not in names:
                raise ParseError(number, line, "the column heads of `iptables -L`")
            continue
        num += 1
        opt = names.index("opt")
        fields = names
        words = line.split(maxsplit=len(names))
        if len(words) >= opt and words[opt - 1] in ("--", "-f", "!f"):
            # A rule without a target leaves that column blank.
            fields = [name for name in names if name != "target"]
            words = line.split(maxsplit=len(fields))
        row = dict(zip(fields, words, strict=False))
        if len(words) < len(fields) or row["opt"] not in ("--", "-f", "!f"):
            raise ParseError(number, line, f"a rule under {' '.join(names)}")
        protocol = row["protocol"].removeprefix("!")
        yield (
            chain
            | row
            | {
                "table": table,
                "num": num,
                "packets": _count(row["packets"]) if "packets" in row else None,
                "bytes": _count(row["bytes"]) if "bytes" in row else None,
                "protocol": row["protocol"].replace(protocol, _PROTOCOLS.get(protocol, protocol)),
                "match_text": words[len(fields)] if len(words) > len(fields) else None,
            }
        )


_RULE_OPTIONS = {
    "-s": "source",
    "-d": "destination",
    "-p": "protocol",
    "-i": "in_interface",
    "-o": "out_interface",
    "--sport": "sport",
    "--dport": "dport",
}
_RULE = {
    "table": re.compile(r"\*(?P<table>\S+)"),
    "chain": re.compile(r"(-P |:)(?P<chain>\S+) (?P<policy>\S+)( (-c \d+ \d+|\[\d+:\d+\]))?"),
    "rule": re.compile(r"(\[(?P<packets>\d+):(?P<bytes>\d+)\] )?(?P<rule>-A (?P<chain>\S+).*)"),
    "noise": re.compile(r"COMMIT|#.*|-N \S+"),
}


@_parser
def iptables_rules(text: str, *, table: str = "filter") -> Iterator[Row]:
    """Read `iptables -S` (also -v) and `iptables-save` (also -c): a row a rule.

    ``table`` is what stood behind -t, for -S, which does not say it.

        table             str    filter, nat, mangle, …
        chain             str
        policy            str    ACCEPT or DROP; absent for chains of one's own
        num               int    place in its chain, from 1
        packets           int    with -v or -c
        bytes             int    with -v or -c
        target            str    absent: the rule only counts
        target_options    str    what follows it: `--to-destination 172.18.0.2:5000`
        protocol          str    absent: any
        in_interface      str    absent: any
        out_interface     str    absent: any
        source            str    absent: any; `!` in front: any but this; without /32
        destination       str    the same
        sport             int    source port; ranges are in `rule` only
        dport             int    destination port; ranges are in `rule` only
        rule              str    the whole rule as printed, without its counters
    """
    policies: dict[str, str] = {}
    nums: dict[str, int] = {}
    for kind, found, where in _classify(text, _RULE, "a line of `iptables -S` or iptables-save"):
        if kind == "table":
            table, policies, nums = found["table"], {}, {}
        elif kind == "chain" and found["policy"] != "-":
            policies[found["chain"]] = found["policy"]
        elif kind == "rule":
            chain = found["chain"]
            nums[chain] = nums.get(chain, 0) + 1
            # `-S -v` has the counters in the middle of the rule, iptables-save -c in front.
            if counted := re.search(r" -c (\d+) (\d+)", where[1]):
                found |= {"packets": counted[1], "bytes": counted[2]}
                found["rule"] = found["rule"].replace(counted[0], "")
            yield (
                found
                | _rule(found["rule"])
                | {
                    "table": table,
                    "policy": policies.get(chain),
                    "num": nums[chain],
                }
            )


def _rule(rule: str) -> Row:
    """Pick the common options out of one `-A CHAIN …`."""
    row: Row = {}
    words = shlex.split(rule)
    for at, word in enumerate(words[:-1]):
        value = words[at + 1]
        if word in ("-j", "-g"):
            row["target"] = value
            row["target_options"] = shlex.join(words[at + 2 :]) or None
            break
        if word in ("--sport", "--dport") and not value.isdigit():
            continue
        if word in _RULE_OPTIONS:
            negated = "!" if words[at - 1] == "!" and "port" not in word else ""
            row[_RULE_OPTIONS[word]] = negated + value.removesuffix("/32")
    return row


# --- IPVS ----------------------------------------------------------------------------------------

_SERVICE = r"(?P<protocol>TCP|UDP|SCTP|FWM) +(?P<service>\S+)( IPv6)?"
_IPVS_NOISE = r"IP Virtual Server version .*|Prot LocalAddress:Port .*|  -> RemoteAddress:Port.*"
_IPVS = {
    "noise": re.compile(_IPVS_NOISE),
    "service": re.compile(rf"{_SERVICE} +(?P<scheduler>[a-z]\w*)( +(?P<flags>.+))?"),
    "destination": re.compile(
        r" +-> +(?P<destination>\S+) +(?P<forward>[A-Z]\w+) +(?P<weight>\d+)"
        r" +(?P<active_connections>\d+) +(?P<inactive_connections>\d+)"
    ),
}
_TRAFFIC = ("connections", "in_packets", "out_packets", "in_bytes", "out_bytes")
_TRAFFIC_FIELDS = "".join(rf" +(?P<{name}>\d+[KMGT]?)" for name in _TRAFFIC)
_IPVS_STATS = {
    "noise": re.compile(_IPVS_NOISE),
    "service": re.compile(_SERVICE + _TRAFFIC_FIELDS),
    "destination": re.compile(rf" +-> +(?P<destination>\S+){_TRAFFIC_FIELDS}"),
}


def _ipvs(text: str, patterns: Patterns, expected: str) -> Iterator[tuple[Row, Row]]:
    """Yield each service with each destination, or with an empty one when it has none."""
    service: Row | None = None
    alone = False
    for kind, found, where in _classify(text, patterns, expected):
        if kind == "service":
            if service and alone:
                yield service, {}
            address, port = None, None
            if found["protocol"] != "FWM":
                address, port = _endpoint(found["service"])
            fwmark = None if address else found["service"]
            service = found | {"service_address": address, "service_port": port, "fwmark": fwmark}
            alone = True
        elif kind == "destination":
            if service is None:
                raise ParseError(*where, "a service before its destinations")
            address, port = _endpoint(found["destination"])
            yield service, found | {"destination": address, "destination_port": port}
            alone = False
    if service and alone:
        yield service, {}


@_parser
def ipvsadm(text: str) -> Iterator[Row]:
    """Read `ipvsadm -ln`: a row a destination, and one for a service that has none.

    protocol                str    TCP, UDP, or FWM: by firewall mark
    service_address         str    the virtual address; absent for FWM
    service_port            int    absent for FWM
    fwmark                  int    the mark, for FWM
    scheduler               str    rr, wrr, …
    flags                   str    `persistent 300`
    destination             str    absent: the service has no destination
    destination_port        int    absent: the port is left as it is
    forward                 str    Masq, Route, Tunnel, Local
    weight                  int    0: no new connections
    active_connections      int
    inactive_connections    int
    """
    for service, destination in _ipvs(text, _IPVS, "a line of `ipvsadm -ln`"):
        yield service | destination


@_parser
def ipvsadm_stats(text: str) -> Iterator[Row]:
    """Read `ipvsadm -ln --stats`: a row a destination, and one for a service that has none.

    A service's own figures outlive the destinations that they came from.

        protocol                 str    TCP, UDP, or FWM: by firewall mark
        service_address          str    the virtual address; absent for FWM
        service_port             int    absent for FWM
        fwmark                   int    the mark, for FWM
        destination              str    absent: the service has no destination
        destination_port         int    absent: the port is left as it is
        connections              int    this destination's, since it was added
        in_packets, out_packets  int    this destination's
        in_bytes, out_bytes      int    this destination's
        service_connections      int    the whole service's
        service_in_packets, service_out_packets  int    the whole service's
        service_in_bytes, service_out_bytes      int    the whole service's
    """
    for service, destination in _ipvs(text, _IPVS_STATS, "a line of `ipvsadm -ln --stats`"):
        yield (
            {name: service[name] for name in columns(ipvsadm_stats) if name in service}
            | {f"service_{name}": _count(service[name]) for name in _TRAFFIC}
            | destination
            | {name: _count(destination[name]) if destination else None for name in _TRAFFIC}
        )


_IPVS_CONNECTIONS = {
    "noise": re.compile(r"IPVS connection entries|pro expire state .*"),
    "connection": re.compile(
        r"(?P<protocol>[A-Z]+) +(?P<minutes>\d+):(?P<seconds>\d\d) +(?P<state>\S+)"
        r" +(?P<source>\S+) +(?P<virtual>\S+) +(?P<destination>\S+)( .*)?"
    ),
}


@_parser
def ipvsadm_connections(text: str) -> Iterator[Row]:
    """Read `ipvsadm -lnc`: a row a connection.

    protocol            str    TCP, UDP
    expires_s           int    seconds until the entry goes, if nothing more comes
    state               str    ESTABLISHED, FIN_WAIT, SYN_RECV, UDP, …
    source              str    the client
    source_port         int
    virtual             str    the address that the client asked for
    virtual_port        int
    destination         str    the task that was chosen
    destination_port    int
    """
    for kind, found, _ in _classify(text, _IPVS_CONNECTIONS, "a line of `ipvsadm -lnc`"):
        if kind == "connection":
            row: Row = {"expires_s": int(found["minutes"]) * 60 + int(found["seconds"])}
            for name in ("source", "virtual", "destination"):
                found[name], row[f"{name}_port"] = _endpoint(found[name])
            yield found | row


# --- names ---------------------------------------------------------------------------------------

_NSLOOKUP = {
    "server": re.compile(r"Server:\s+(?P<server>\S+)"),
    "at": re.compile(r"Address:\s+(?P<address>\S+)#(?P<port>\d+)"),
    "name": re.compile(r"Name:\s+(?P<name>\S+)"),
    "address": re.compile(r"Address:\s+(?P<address>\S+)"),
    "pointer": re.compile(r"(?P<name>\S+)\s+name = (?P<answer>\S+)"),
    "alias": re.compile(r"(?P<name>\S+)\s+canonical name = (?P<answer>\S+)"),
    "failed": re.compile(r"\*\* server can't find (?P<name>[^\s:]+): (?P<status>\w+)"),
    "none": re.compile(r"\*\*\* Can't find (?P<name>[^\s:]+): No answer"),
    "timeout": re.compile(r";; (connection timed out; )?no servers could be reached"),
    "noise": re.compile(
        r"(Non-a|A)uthoritative answer.*|;; (communications error|Got|Truncated|Warning).*"
    ),
}


@_parser
def nslookup(text: str) -> Iterator[Row]:
    """Read `nslookup NAME`: a row an answer, and one for each failure.

    server         str    who answered
    server_port    int
    name           str    the name that was asked for, as the server spells it
    type           str    A, AAAA, CNAME, PTR; absent for a failure
    answer         str    an address or a name; absent for a failure
    status         str    NOERROR, NOANSWER, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT
    """
    server: Row = {}
    name = None
    for kind, found, _ in _classify(text, _NSLOOKUP, "a line of nslookup"):
        if kind == "server":
            server = found
        elif kind == "at":
            server |= {"server_port": found["port"]}
        elif kind == "name":
            name = found["name"]
        elif kind == "address":
            answer = found["address"]
            family = "AAAA" if ":" in answer else "A"
            yield server | {"name": name, "type": family, "answer": answer, "status": "NOERROR"}
        elif kind in ("pointer", "alias"):
            record = "PTR" if kind == "pointer" else "CNAME"
            yield server | found | {"type": record, "status": "NOERROR"}
        elif kind == "failed":
            yield server | found
        elif kind == "none":
            yield server | found | {"status": "NOANSWER"}
        elif kind == "timeout":
            yield server | {"status": "TIMEOUT"}


_DIG = {
    "header": re.compile(r";; ->>HEADER<<- opcode: \w+, status: (?P<status>\w+), id: \d+"),
    "timeout": re.compile(r";; (connection timed out; )?no servers could be reached"),
    "section": re.compile(r";; (?P<section>[A-Z]+) (SECTION|PSEUDOSECTION):"),
    "time": re.compile(r";; Query time: (?P<query_time_ms>\d+) msec"),
    "server": re.compile(r";; SERVER: (?P<server>[^#\s]+)#(?P<server_port>\d+).*"),
    "question": re.compile(r";(?P<question>[^;\s]\S*)\s+IN\s+(?P<question_type>[A-Z0-9]+)"),
    "noise": re.compile(r";.*"),
    "record": re.compile(
        r"(?P<name>\S+)\s+(?P<ttl_s>\d+)\s+(IN|CH|HS)\s+(?P<type>[A-Z0-9]+)\s+(?P<answer>.+)"
    ),
    "short": re.compile(r"(?P<answer>[0-9a-f.:]+|(\d+ )*\S+\.|\".*\")"),
}


@_parser
def dig(text: str) -> Iterator[Row]:
    """Read `dig NAME`, also +short or +noall +answer: a row an answer.

    A question without an answer gives one row as well. With +short there are only type and answer.

        question         str    the name asked for, with its final dot
        question_type    str    A, PTR, …
        status           str    NOERROR, NXDOMAIN, SERVFAIL, REFUSED, TIMEOUT
        name             str    the name that the answer is for
        ttl_s            int    seconds that the answer may be kept
        type             str    A, AAAA, CNAME, PTR
        answer           str    absent: no answer
        server           str    who answered
        server_port      int
        query_time_ms    int
    """
    query: Row = {}
    answers: list[Row] = []
    section = "ANSWER"
    for kind, found, where in _classify(text, _DIG, "a line of dig"):
        if kind in ("header", "timeout"):
            if query:
                yield from (query | answer for answer in answers or [{}])
            query, answers = {"status": "TIMEOUT"} | found, []
        elif kind == "section":
            section = found["section"]
        elif kind in ("time", "server", "question"):
            query |= found
        elif kind == "record" and section == "ANSWER":
            answers.append(found)
        elif kind == "short":
            if query:
                raise ParseError(*where, "a record: name, ttl, class, type, data")
            is_address = re.fullmatch(r"[0-9a-f.:]+[0-9a-f:]", found["answer"])
            family = "AAAA" if ":" in found["answer"] else "A"
            answers.append(found | {"type": family if is_address else None})
    if query or answers:
        yield from (query | answer for answer in answers or [{}])


# --- requests ------------------------------------------------------------------------------------

CURL_FORMAT = (
    r"\n[curl exit=%{exitcode} http=%{http_code} lookup_s=%{time_namelookup}"
    r" connect_s=%{time_connect} total_s=%{time_total} remote=%{remote_ip}:%{remote_port}"
    r" local=%{local_ip}:%{local_port} connects=%{num_connects} size=%{size_download}"
    r" error=%{errormsg}]\n"
)
"""What `curl -s -w` is to print behind the body, for `curl` to read."""

_CURL_LINE = re.compile(
    r"\n\[curl exit=(?P<exit_code>\d+) http=(?P<http>\d+) lookup_s=(?P<lookup_s>[\d.]+)"
    r" connect_s=(?P<connect_s>[\d.]+) total_s=(?P<total_s>[\d.]+) remote=(?P<remote>\S*)"
    r" local=(?P<local>\S*) connects=(?P<connects>\d+) size=(?P<size_bytes>\d+)"
    r" error=(?P<error>.*)\]\n"
)
_CURL_EXITS = {
    0: "ok",
    3: "not a URL",
    6: "name not resolved",
    7: "could not connect: refused or no route",
    18: "answer cut short",
    22: "HTTP error",
    28: "timed out",
    35: "TLS handshake failed",
    52: "empty answer",
    55: "sending failed",
    56: "receiving failed: connection reset",
    124: "ended by `timeout`",
}


@_parser
def curl(text: str, stderr: str = "", *, code: int | None = None) -> Iterator[Row]:
    """Read `curl -s`, best with ``-w CURL_FORMAT``: a row a transfer.

    Without the format there is one row with body, exit code (from ``code`` or curl's message) and,
    when the headers were printed, the HTTP code. A body from the app's /whoami also fills the
    columns of `whoami`.

        exit_code        int      curl's own: 0, 6, 7, 28, …
        exit_meaning     str      the same in words
        http_code        int      absent: no HTTP answer
        time_lookup_s    float    seconds until the name was resolved
        time_connect_s   float    seconds until TCP was connected; absent: it never was, or was kept
        time_total_s     float    seconds in all
        remote_ip        str      whom curl was connected to
        remote_port      int
        local_ip         str      curl's own end
        local_port       int
        connects         int      new connections; 0: one was used again, or none came about
        size_bytes       int      of the body
        error            str      curl's message
        body             str      what the server sent, without the last line end
        container, server_node, addresses, client  str    as in `whoami`
    """
    at = 0
    for found in _CURL_LINE.finditer(text):
        body = text[at : found.start()]
        at = found.end()
        remote_ip, remote_port = _endpoint(found["remote"])
        local_ip, local_port = _endpoint(found["local"])
        yield (
            found.groupdict()
            | _identity_in(body)
            | {
                "exit_meaning": _CURL_EXITS.get(int(found["exit_code"])),
                "http_code": int(found["http"]) or None,
                "time_lookup_s": found["lookup_s"],
                "time_connect_s": float(found["connect_s"]) or None,
                "time_total_s": found["total_s"],
                "remote_ip": remote_ip,
                "remote_port": remote_port,
                "local_ip": local_ip,
                "local_port": local_port,
                "error": found["error"] or None,
                "body": body.removesuffix("\n"),
            }
        )
    rest = text[at:]
    message = re.search(r"^curl: \((\d+)\) (.*)", stderr, re.MULTILINE)
    if at or not (rest or message or code is not None):
        return
    if code is None and message:
        code = int(message[1])
    status = re.match(r"HTTP/[\d.]+ (\d{3})\b", rest)
    yield _identity_in(rest) | {
        "exit_code": code,
        "exit_meaning": None if code is None else _CURL_EXITS.get(code),
        "http_code": status[1] if status else None,
        "error": message[2] if message else None,
        "body": rest.removesuffix("\n"),
    }


def _identity(line: str) -> Row | None:
    """Read one answer of /whoami; None when it is something else."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict) or not found.keys() >= {"container", "addresses", "client"}:
        return None
    return {
        "container": found["container"],
        "server_node": found.get("node"),
        "addresses": ",".join(found["addresses"]),
        "client": found["client"],
    }


def _identity_in(body: str) -> Row:
    """Return the identity that stands in the last line of a body, if one does."""
    lines = body.strip().splitlines()
    return (_identity(lines[-1]) if lines else None) or {}


@_parser
def whoami(text: str) -> Iterator[Row]:
    """Read answers of the app's /whoami, one JSON line each: a row an answer.

    container      str    the container that answered, by its host name
    server_node    str    the node it runs on; not called `node`, which is where the probe ran
    addresses      str    its IPv4 addresses, joined with commas
    client         str    whose address the server saw
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            found = _identity(line)
            if found is None:
                raise ParseError(number, line, "the JSON of /whoami: container, addresses, client")
            yield found


_FROM = r"(\[[\d.]+\] )?(?:(\d+ bytes f|F)rom) ((?P<host>\S+) \((?P<named>[^)]+)\)|(?P<bare>\S+?)):?"
_PING = {
    "head": re.compile(r"PING (?P<target>\S+) ?\((?P<address>[^)]+)\).*"),
    "reply": re.compile(
        rf"{_FROM} icmp_seq=(?P<sequence>\d+)( ident=\d+)? ttl=(?P<ttl>\d+)"
        r"( time=(?P<rtt_ms>[\d.]+) ms)?( \((?P<note>[^)]*)\))?"
    ),
    "error": re.compile(rf"{_FROM} icmp_seq=(?P<sequence>\d+) (?P<error>.+)"),
    "waiting": re.compile(r"(\[[\d.]+\] )?(?P<error>no answer yet) for icmp_seq=(?P<sequence>\d+)"),
    "count": re.compile(
        r"(?P<transmitted>\d+) packets transmitted, (?P<received>\d+) received,"
        r"( \+(?P<duplicates>\d+) duplicates,)?( \+\d+ corrupted,)?( \+(?P<errors>\d+) errors,)?"
        r" (?P<loss_pct>[\d.]+)% packet loss(, time (?P<duration_ms>\d+)ms)?"
    ),
    "rtt": re.compile(
        r"rtt min/avg/max/mdev = (?P<rtt_min_ms>[\d.]+)/(?P<rtt_avg_ms>[\d.]+)"
        r"/(?P<rtt_max_ms>[\d.]+)/(?P<rtt_mdev_ms>[\d.]+) ms.*"
    ),
    "noise": re.compile(r"--- \S+ ping statistics ---|pipe \d+.*|ping: .*|\^C.*|WARNING: .*"),
}


@_parser
def ping(text: str) -> Iterator[Row]:
    """Read the summary of `ping`: one row.

    target         str      as it was typed
    address        str      what it was resolved to
    transmitted    int      absent: ping was ended before its summary
    received       int
    duplicates     int
    errors         int      `Destination Host Unreachable` and the like
    loss_pct       float    percent
    duration_ms    int
    rtt_min_ms, rtt_avg_ms, rtt_max_ms, rtt_mdev_ms  float    absent: no reply
    """
    row: Row = {}
    for kind, found, _ in _classify(text, _PING, "a line of ping"):
        if kind in ("head", "rtt"):
            row |= found
        elif kind == "count":
            row |= found | {name: found[name] or 0 for name in ("duplicates", "errors")}
    if row:
        yield row


@_parser
def ping_replies(text: str) -> Iterator[Row]:
    """Read the single replies of `ping`: a row a reply or an error.

    sequence    int
    address     str      who replied, or who reported the error
    ttl         int      hops left
    rtt_ms      float    absent: no reply
    error       str      `Destination Host Unreachable`, `no answer yet`, …
    """
    for kind, found, _ in _classify(text, _PING, "a line of ping"):
        if kind in ("reply", "error", "waiting"):
            yield found | {"address": found.get("named") or found.get("bare")}


# --- packets, flows, sockets ---------------------------------------------------------------------

_MAC = r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}"
_FRAME = re.compile(
    r"(?P<time> ?(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d+ |\d+\.\d+ )?"
    r"((?P<interface>\S+) +(?P<direction>In|Out|B|M|P)(?= |$) *)?"
    rf"((ifindex \d+ (?P<mac>{_MAC})? ?|(?P<source_mac>{_MAC}) > (?P<destination_mac>{_MAC}), )"
    r"(ethertype (?P<ethertype>[^ ,]+) \(0x[0-9a-f]+\)|802\.3), length (?P<frame_bytes>\d+): ?)?"
    r"(?P<packet>.*)"
)
_IP = re.compile(r"(IP6? )?(?P<source>[0-9a-f.:]+) > (?P<destination>[0-9a-f.:]+): (?P<info>.*)")
_ARP = re.compile(
    rf"(ARP, )?(?P<info>(Request who-has (?P<wanted>[\d.]+)( \({_MAC}\))? tell (?P<asker>[\d.]+)"
    rf"|Reply (?P<owner>[\d.]+) is-at {_MAC}|Announcement (?P<announced>[\d.]+)).*)"
)
# The first that fits names the protocol; with ports and none of these it is UDP.
_IN_IP = {
    "TCP": re.compile(r"Flags \["),
    "VXLAN": re.compile(r"VXLAN"),
    "ESP": re.compile(r"ESP\("),
    "ICMP6": re.compile(r"(HBH )?ICMP6"),
    "ICMP": re.compile(r"ICMP"),
    "IGMP": re.compile(r"igmp"),
    "SCTP": re.compile(r"sctp"),
    "GRE": re.compile(r"GRE"),
}
_TCPDUMP_NOISE = re.compile(
    r"\s+0x[0-9a-f]{4}: .*|(tcpdump|reading from file|Warning|listening on)\b.*"
    r"|\d+ packets? (captured|received by filter|dropped by kernel|dropped by interface)"
)


@_parser
def tcpdump(text: str) -> Iterator[Row]:
    """Read `tcpdump -n`, also with -e, -t…, or -i any: a row a packet.

    A VXLAN packet and the frame in it, which tcpdump prints on a line of its own, are one row.
    Not for -v, -x, -X or -A, which spread a packet over many lines.

        time                         str      as printed
        time_s                       float    seconds since midnight; with -tt since 1970
        interface                    str      with -i any
        direction                    str      In, Out, B(roadcast), M(ulticast), P (for others)
        source_mac, destination_mac  str      with -e; with -i any only the source
        protocol                     str      TCP, UDP, ICMP, ICMP6, ARP, VXLAN, ESP, IGMP, …
        source                       str      IP address; for ARP the one that speaks
        source_port                  int
        destination                  str      IP address; for an ARP request the one that is wanted
        destination_port             int
        tcp_flags                    str      `S`, `S.`, `P.`, `F.`, `R`, `.`
        length_bytes                 int      of the payload, as tcpdump counts it
        frame_bytes                  int      of the whole frame, with -e
        vni                          int      VXLAN network identifier
        info                         str      what tcpdump says behind the addresses
        inner_source_mac, inner_destination_mac  str    of the frame in VXLAN, with -e
        inner_protocol, inner_source             str    the same columns for the frame in VXLAN
        inner_source_port                        int
        inner_destination                        str
        inner_destination_port                   int
        inner_tcp_flags                          str
        inner_length_bytes, inner_frame_bytes    int
        inner_info                               str
    """
    outer: Row | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line or _TCPDUMP_NOISE.fullmatch(line):
            continue
        frame = _frame(number, line)
        if outer is not None:
            if frame["time"] is None:
                inner = {f"inner_{name}": value for name, value in frame.items()}
                yield inner | outer
                outer = None
                continue
            yield outer
            outer = None
        if frame["time"] is None and frame["direction"] is None and frame["source"] is None:
            raise ParseError(number, line, "a packet as `tcpdump -n` prints it")
        if frame["vni"] is not None:
            outer = frame
        else:
            yield frame
    if outer is not None:
        yield outer


def _frame(number: int, line: str) -> Row:
    """Read one line of tcpdump."""
    found = _FRAME.fullmatch(line)
    if found is None:  # cannot be: its parts are optional, and it ends in .*
        raise ParseError(number, line, "a packet as `tcpdump -n` prints it")
    row = found.groupdict()
    packet = row.pop("packet")
    row["source_mac"] = row["source_mac"] or row.pop("mac")
    if row["time"]:
        row["time"] = row["time"].strip()
        row["time_s"] = sum(
            float(part) * 60**power
            for power, part in enumerate(reversed(row["time"].split()[-1].split(":")))
        )
    vni = re.match(r"VXLAN, .*\bvni (\d+)", packet.partition(": ")[2])
    row |= {"vni": vni[1] if vni else None, "source": None, "info": packet}
    if (arp := _ARP.fullmatch(packet)) and row["ethertype"] in (None, "ARP"):
        return (
            row
            | {
                "protocol": "ARP",
                "source": arp["asker"] or arp["owner"] or arp["announced"],
                "destination": arp["wanted"],
                "info": arp["info"],
            }
            | _lengths(packet)
        )
    if ip := _IP.fullmatch(packet):
        return row | _ip_packet(ip["source"], ip["destination"], ip["info"]) | _lengths(packet)
    if row["ethertype"] in ("IPv4", "IPv6") or re.match(r"IP6? ", packet):
        raise ParseError(number, line, "one line a packet with numeric addresses: -n, without -v")
    word = re.match(r"\w+", packet)
    return row | {"protocol": word[0] if word else None} | _lengths(packet)


def _ip_packet(source: str, destination: str, info: str) -> Row:
    """Split addresses from ports (10.0.0.7.3000, fe80::1.546) and name the protocol."""
    row: Row = {"info": info}
    has_ports = False
    for name, text in (("source", source), ("destination", destination)):
        row[name] = text
        if re.fullmatch(r"(\d+\.){4}\d+|[^.]*:[^.]*\.\d+", text):
            has_ports = True
            row[name], _, row[f"{name}_port"] = text.rpartition(".")
    family = "IP6" if ":" in source else "IP"
    row["protocol"] = next(
        (name for name, pattern in _IN_IP.items() if pattern.match(info)),
        "UDP" if has_ports else family,
    )
    flags = re.match(r"Flags \[([^\]]*)\]", info)
    return row | {"tcp_flags": flags[1] if flags else None}


def _lengths(packet: str) -> Row:
    """Find the payload's length: `length 64`, or `(48)` behind a DNS message."""
    found = re.search(r"\blength (\d+)", packet) or re.search(r" \((\d+)\)$", packet)
    return {"length_bytes": found[1] if found else None}


_TUPLE = (
    r"src=(?P<{0}source>\S+) dst=(?P<{0}destination>\S+)( type=\d+ code=\d+ id=\d+)?"
    r"( sport=(?P<{0}source_port>\d+) dport=(?P<{0}destination_port>\d+))?"
    r"( packets=(?P<{0}packets>\d+) bytes=(?P<{0}bytes>\d+))?"
)
_CONNTRACK = {
    "flow": re.compile(
        r"(ipv[46] +\d+ )?(?P<protocol>[a-z]\S*) +\d+ ((?P<timeout_s>\d+) )?((?P<state>[A-Z]\S*) )?"
        + _TUPLE.format("")
        + r"(?P<unreplied> \[UNREPLIED\])? "
        + _TUPLE.format("reply_")
        + r"(?P<assured> \[ASSURED\])?( \[(HW_)?OFFLOAD\])?( mark=(?P<mark>\d+))?( .*)?"
    ),
    "noise": re.compile(r"conntrack v.*"),
}


@_parser
def conntrack(text: str) -> Iterator[Row]:
    """Read `conntrack -L`, also with -o extended: a row a flow.

    protocol                                     str     tcp, udp, icmp
    timeout_s                                    int     seconds until the entry goes
    state                                        str     ESTABLISHED, …; absent for udp, icmp
    source, destination                          str     as the first packet had them
    source_port, destination_port                int     absent for icmp
    reply_source, reply_destination              str     as an answer has them: shows the NAT
    reply_source_port, reply_destination_port    int
    unreplied                                    bool    no answer was seen
    assured                                      bool    kept when the table is full
    mark                                         int
    packets, bytes, reply_packets, reply_bytes   int     where accounting is on
    """
    for kind, found, _ in _classify(text, _CONNTRACK, "a flow as `conntrack -L` prints it"):
        if kind == "flow":
            yield found | {name: bool(found[name]) for name in ("unreplied", "assured")}


_SS = {
    "noise": re.compile(r"(Netid|State|Recv-Q) .*|\s.*"),
    "socket": re.compile(
        r"((?P<netid>tcp|udp|raw|sctp|dccp|mptcp|icmp6?) +)?((?P<state>[A-Z][A-Z0-9-]+) +)?"
        r"(?P<receive_queue>\d+) +(?P<send_queue>\d+) +(?P<local>\S+:(\d+|\*)) +"
        r"(?P<peer>\S+:(\d+|\*))( +(?P<rest>.*))?"
    ),
}
_SS_USER = re.compile(r'users:\(\("(?P<process>[^"]*)",pid=(?P<pid>\d+),')


@_parser
def ss(text: str, *, netid: str | None = None) -> Iterator[Row]:
    """Read `ss -lunpt`, `ss -tn` and their like, for TCP and UDP: a row a socket.

    ``netid`` is for `ss -t` or `ss -u`, which leave that column out.

        netid            str    tcp, udp
        state            str    LISTEN, ESTAB, UNCONN, …; absent where ss was asked for one state
        receive_queue    int    bytes; for LISTEN connections that wait to be accepted
        send_queue       int    bytes; for LISTEN how many may wait
        local_address    str    `0.0.0.0`, `*` and `::` are any
        local_port       int
        peer_address     str
        peer_port        int    absent: any
        process          str    with -p: its name, the first if many share the socket
        pid              int    with -p
    """
    for kind, found, _ in _classify(text, _SS, "a TCP or UDP socket as `ss -n` prints it"):
        if kind != "socket":
            continue
        local_address, local_port = _endpoint(found["local"])
        peer_address, peer_port = _endpoint(found["peer"])
        user = _SS_USER.search(found["rest"] or "")
        yield (
            found
            | (user.groupdict() if user else {})
            | {
                "netid": found["netid"] or netid,
                "local_address": local_address,
                "local_port": local_port,
                "peer_address": peer_address,
                "peer_port": peer_port,
            }
        )


# --- from a command to its parser ----------------------------------------------------------------

# What runs another command: how many words of its own come before that command, and which of its
# options take the next word as their value.
_WRAPPERS: dict[tuple[str, ...], tuple[int, Collection[str]]] = {
    ("timeout",): (1, ("-k", "--kill-after", "-s", "--signal")),
    ("nsenter",): (0, ("-t", "--target", "-S", "--setuid", "-G", "--setgid")),
    ("docker", "exec"): (1, ("-e", "--env", "--env-file", "-u", "--user", "-w", "--workdir")),
    ("ip", "netns", "exec"): (1, ()),
    ("sudo",): (0, ("-u", "-g")),
    ("stdbuf",): (0, ("-i", "-o", "-e")),
}
_IP_OPTIONS_WITH_VALUE = ("-n", "-netns", "-f", "-family")


def _unwrap(argv: Sequence[str]) -> list[str]:
    """Take `timeout 3`, `nsenter … --`, `docker exec C` and their like off the front."""
    words = list(argv)
    while words:
        name = PurePosixPath(words[0]).name
        for wrapper, (own, with_value) in _WRAPPERS.items():
            if (name, *words[1 : len(wrapper)]) == wrapper:
                words = _skip_options(words[len(wrapper) :], with_value)[own:]
                break
        else:
            return [name, *words[1:]]
    return words


def _skip_options(words: list[str], with_value: Collection[str]) -> list[str]:
    """Drop the options in front, up to the first word that is none."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            return words[at + 1 :]
        at += 2 if words[at] in with_value else 1
    return words[at:]


def _letters(argv: Sequence[str]) -> set[str]:
    """Collect the letters of all short options, also of those written together."""
    return {letter for word in argv[1:] if re.fullmatch(r"-[A-Za-z0-9]+", word) for letter in word[1:]}


def _value_of(argv: Sequence[str], *names: str) -> str | None:
    """Return the word behind the first of these names."""
    return next((after for word, after in pairwise(argv) if word in names), None)


_Text = Callable[[str], "pd.DataFrame"]


def _ip_tool(argv: Sequence[str]) -> _Text | None:
    rest = _skip_options(list(argv[1:]), _IP_OPTIONS_WITH_VALUE)
    what = rest[0] if rest else " "
    dev = _value_of(rest, "dev")
    # ip takes any beginning of a word; this is its own order of preference.
    if "address".startswith(what):
        return ip_addr
    if "route".startswith(what):
        return partial(ip_route, interface=dev)
    if "neighbour".startswith(what) or "neighbor".startswith(what):
        return partial(ip_neigh, interface=dev)
    return ip_link if "link".startswith(what) else None


def _bridge_tool(argv: Sequence[str]) -> _Text | None:
    rest = _skip_options(list(argv[1:]), ("-n", "-netns"))
    if not rest or not "fdb".startswith(rest[0]):
        return None
    return partial(bridge_fdb, interface=_value_of(rest, "dev"))


def _iptables_tool(argv: Sequence[str]) -> _Text | None:
    letters = _letters(argv)
    table = _value_of(argv, "-t", "--table") or "filter"
    if "S" in letters or "--list-rules" in argv:
        return partial(iptables_rules, table=table)
    if "L" in letters or "--list" in argv:
        return partial(iptables_list, table=table)
    return None


def _ipvsadm_tool(argv: Sequence[str]) -> _Text:
    if "--stats" in argv:
        return ipvsadm_stats
    return ipvsadm_connections if {"c"} & _letters(argv) or "--connection" in argv else ipvsadm


def _ss_tool(argv: Sequence[str]) -> _Text:
    kinds = [name for name in ("tcp", "udp") if name[0] in _letters(argv) or f"--{name}" in argv]
    return partial(ss, netid=kinds[0] if len(kinds) == 1 else None)


def _conntrack_tool(argv: Sequence[str]) -> _Text | None:
    return conntrack if "L" in _letters(argv) or "--dump" in argv else None


_TOOLS: dict[str, Callable[[Sequence[str]], _Text | None]] = {
    "bridge fdb": _bridge_tool,
    "conntrack -L": _conntrack_tool,
    "curl": lambda _: curl,
    "dig": lambda _: dig,
    "ip addr|link|neigh|route": _ip_tool,
    "iptables -L|-S": _iptables_tool,
    "iptables-save": lambda _: iptables_rules,
    "ipvsadm -l": _ipvsadm_tool,
    "nslookup": lambda _: nslookup,
    "ping": lambda _: ping,
    "ss": _ss_tool,
    "tcpdump": lambda _: tcpdump,
}


def parse(
    argv: Sequence[str], stdout: str, stderr: str = "", *, code: int | None = None
) -> pd.DataFrame:
    """Read what a command printed, with the parser that fits it.

    Sees through `timeout`, `nsenter`, `docker exec`, `ip netns exec`, `sudo` and `stdbuf`. The
    exit ``code`` matters to curl alone, which may fail without a word.
    """
    command = _unwrap(argv)
    # iptables-legacy and iptables-nft-save are iptables and iptables-save by another name.
    name = re.sub(r"^iptables-(legacy|nft)", "iptables", command[0]) if command else ""
    choose = next((choose for tool, choose in _TOOLS.items() if tool.split()[0] == name), None)
    parser = choose(command) if choose else None
    if parser is None:
        raise UsageError(
            f"no parser for `{shlex.join(argv)}`; there are some for: {', '.join(_TOOLS)}",
            hint="the raw text is in the capture's .text and .lines",
        )
    if parser is curl:
        return curl(stdout, stderr, code=code)
    return parser(stdout)
