"""`ip addr`: the addresses of the interfaces in one network namespace."""

from __future__ import annotations

from collections.abc import Iterator

from labkit.parsers._iproute2 import LINK_COLUMNS, LINK_NETNSID, MAC, read_links
from labkit.schema import Column, Row, table


@table(
    *LINK_COLUMNS,
    MAC,
    LINK_NETNSID,
    Column("family", "str", "inet, inet6"),
    Column("address", "str", "without the prefix length"),
    Column("prefix_length", "int", "bits"),
    Column("scope", "str", "host, link, global"),
)
def ip_addr(text: str) -> Iterator[Row]:
    """Read `ip addr`, also with -br, -o or -j: one row per address.

    A link without an address gives a row as well. The brief form has only interface, peer, state
    and the addresses.

    Example::

        $ ip addr
        1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
            link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
            inet 127.0.0.1/8 scope host lo
               valid_lft forever preferred_lft forever
        13: eth0@if14: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UP group default
            link/ether 02:42:0a:00:00:06 brd ff:ff:ff:ff:ff:ff link-netnsid 0
            inet 10.0.0.6/24 brd 10.0.0.255 scope global eth0
               valid_lft forever preferred_lft forever
    """
    for link in read_links(text):
        for address in link.addresses or [{}]:
            yield link.common | address
