"""`ip link`: the interfaces in one network namespace."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._iproute2 import LINK_COLUMNS, LINK_NETNSID, MAC, read_links
from labkit.schema import Column, Row, table


@table(
    *LINK_COLUMNS,
    Column("link_type", "str", "ether, loopback"),
    MAC,
    LINK_NETNSID,
    Column("kind", "str", "veth, bridge, vxlan (with -d)"),
    Column("vni", "int", "VXLAN network identifier (with -d)"),
    Column("rx_bytes", "int", "received (with -s)"),
    Column("rx_packets", "int", "received (with -s)"),
    Column("rx_errors", "int", "packets that arrived damaged (with -s)"),
    Column("rx_dropped", "int", "packets that arrived and were not taken (with -s)"),
    Column("tx_bytes", "int", "sent (with -s)"),
    Column("tx_packets", "int", "sent (with -s)"),
    Column("tx_errors", "int", "packets that could not be sent (with -s)"),
    Column("tx_dropped", "int", "packets that were dropped before they were sent (with -s)"),
)
def ip_link(text: str) -> Iterator[Row]:
    """Read `ip link`, also with -br, -d, -s or -j: one row per link.

    Example::

        $ ip -br link
        lo               UNKNOWN        00:00:00:00:00:00 <LOOPBACK,UP,LOWER_UP>
        br0              UP             72:2f:32:c9:9a:a6 <BROADCAST,MULTICAST,UP,LOWER_UP>
        vxlan0@if10      UNKNOWN        72:2f:32:c9:9a:a6 <BROADCAST,MULTICAST,UP,LOWER_UP>
    """
    for link in read_links(text):
        yield link.common | link.details
