"""`ip neigh`: which hardware addresses are known for the IP addresses nearby."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._iproute2 import EntryForm, read_entries
from labkit.schema import Column, Row, table

_NEIGH = EntryForm(
    tool="ip neigh",
    head=re.compile(r"(?P<address>[0-9a-f.:]+)(?= )"),
    words={"dev": "interface", "lladdr": "mac"},
    skipped=frozenset({"proto", "ref", "used", "probes"}),
    keys={"dst": "address", "dev": "interface", "lladdr": "mac"},
    skipped_keys=frozenset({"protocol", "refcnt", "used", "confirmed", "updated", "probes"}),
    addresses=frozenset({"address"}),
    states=frozenset(
        ("PERMANENT", "NOARP", "REACHABLE", "STALE", "DELAY", "PROBE", "INCOMPLETE", "FAILED")
    ),
    flags=frozenset({"router", "proxy", "extern_learn", "offload", "managed", "extern_valid"}),
    # `ip -s neigh` sets "probes" right behind the figures before it.
    mended=(re.compile("(?<=[0-9])probes "), " probes "),
)


@table(
    Column("address", "str", "IP address of the neighbour"),
    Column("interface", "str", "where it is reached"),
    Column("mac", "str", "absent while INCOMPLETE or FAILED"),
    Column("state", "str", "PERMANENT, REACHABLE, STALE, DELAY, PROBE, INCOMPLETE, FAILED, NOARP"),
    Column("flags", "str", "router, proxy, extern_learn, …"),
)
def ip_neigh(text: str, *, interface: str | None = None) -> Iterator[Row]:
    """Read `ip neigh`, also with -s or -j: one row per neighbour.

    ``interface`` is for `ip neigh show dev X`, which leaves the name out.

    Example::

        $ ip neigh
        10.0.1.2 dev eth1 lladdr 02:42:0a:00:01:05 REACHABLE
        10.0.1.250 dev eth1 FAILED
    """
    yield from read_entries(text, _NEIGH, interface)
