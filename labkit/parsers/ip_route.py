"""`ip route`: where packets go from one network namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._iproute2 import EntryForm, read_entries
from labkit.schema import Column, Row, table

_ROUTE = EntryForm(
    tool="ip route",
    head=re.compile(
        r"((?P<type>unicast|local|broadcast|multicast|anycast|blackhole|unreachable|prohibit|throw)"
        r" )?(?P<destination>default|[0-9a-f.:]+(/[0-9]{1,3})?)(?= |$)"
    ),
    words={
        "via": "gateway",
        "dev": "interface",
        "proto": "protocol",
        "scope": "scope",
        "src": "source",
        "metric": "metric",
        "table": "table",
    },
    skipped=frozenset({"uid", "mtu", "from", "iif", "pref", "expires", "error", "hoplimit"}),
    keys={
        "dst": "destination",
        "type": "type",
        "gateway": "gateway",
        "dev": "interface",
        "protocol": "protocol",
        "scope": "scope",
        "prefsrc": "source",
        "metric": "metric",
        "table": "table",
    },
    # What a route has besides, and how a tunnel packs its packets (encap).
    skipped_keys=frozenset({"uid", "metrics", "from", "iif", "pref", "expires", "error", "hoplimit"})
    | {"cache", "encap", "id", "src", "ttl", "tos"},
    numbers=frozenset({"metric"}),
    addresses=frozenset({"destination", "gateway", "source"}),
    flags=frozenset({"linkdown", "onlink", "pervasive", "dead"}),
    noise=re.compile(r"\s+cache.*"),  # the second line of `ip route get`
    # How a tunnel packs the packets: with a source and a destination of its own.
    mended=(re.compile(" encap ip6?( (id|src|dst|ttl|hoplimit|tos) [0-9a-f.:]+)+"), ""),
)


@table(
    Column("type", "str", "unicast, local, broadcast, blackhole, unreachable, …"),
    Column("destination", "str", "`default`, an address, or address/length"),
    Column("gateway", "str", "the next hop"),
    Column("interface", "str", "the one that packets leave by"),
    Column("protocol", "str", "who made the route: kernel, boot, static, ra, …"),
    Column("scope", "str", "link, host, global"),
    Column("source", "str", "preferred source address"),
    Column("metric", "int", "of two routes to one destination, the lower is taken"),
    Column("table", "str", "absent means main"),
    Column("flags", "str", "linkdown, onlink, …"),
)
def ip_route(text: str, *, interface: str | None = None) -> Iterator[Row]:
    """Read `ip route` and `ip route get`, also with -j: one row per route.

    ``interface`` is for `ip route show dev X`, which leaves the name out.

    Example::

        $ ip route
        default via 172.18.0.1 dev eth2
        10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.6
    """
    for row in read_entries(text, _ROUTE, interface):
        # No route has a state, as neighbours and forwarding entries have.
        del row["state"]
        yield row | {"type": row.get("type") or "unicast"}
