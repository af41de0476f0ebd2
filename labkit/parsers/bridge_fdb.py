"""`bridge fdb`: by which port, and to which node, a bridge or a VXLAN interface sends a frame."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labkit.parsers._iproute2 import EntryForm, read_entries
from labkit.schema import Column, Row, table

_FDB = EntryForm(
    tool="bridge fdb",
    head=re.compile(r"(?P<mac>([0-9a-f]{2}:){5}[0-9a-f]{2})(?= |$)"),
    words={"dev": "interface", "dst": "vtep", "master": "master", "vlan": "vlan", "vni": "vni"},
    skipped=frozenset({"src_vni", "via", "port", "used", "link-netnsid"}),
    keys={
        "mac": "mac",
        "ifname": "interface",
        "dst": "vtep",
        "vlan": "vlan",
        "vni": "vni",
        "master": "master",
    },
    skipped_keys=frozenset(
        {"src_vni", "viaIf", "viaIfIndex", "port", "used", "updated", "linkNetNsId", "link_netnsid"}
    ),
    addresses=frozenset({"vtep"}),
    numbers=frozenset({"vlan", "vni"}),
    states=frozenset({"permanent", "static", "stale"}),
    flags=frozenset({"self", "router", "extern_learn", "offload", "sticky", "locked"}),
)


@table(
    Column("mac", "str", "hardware address that frames are sent to"),
    Column("interface", "str", "the port that frames to it leave by"),
    Column("vtep", "str", "IP address of the node behind the tunnel (vxlan ports)"),
    Column("vlan", "int", "VLAN identifier"),
    Column("vni", "int", "only where it differs from the port's own"),
    Column("master", "str", "the bridge whose table it is in; absent: the port's own table"),
    Column("state", "str", "permanent, static, stale; absent: learned from traffic"),
    Column("flags", "str", "self, extern_learn, offload, …"),
)
def bridge_fdb(text: str, *, interface: str | None = None) -> Iterator[Row]:
    """Read `bridge fdb`, also with -s or -j: one row per entry, which is a MAC address on a port.

    ``interface`` is for `bridge fdb show dev X`, which leaves the name out.

    Example::

        $ bridge fdb show dev vxlan0
        02:42:0a:00:01:04 master br0
        72:2f:32:c9:9a:a6 master br0 permanent
        02:42:0a:00:01:06 dst 192.168.208.4 link-netnsid 0 self permanent
    """
    yield from read_entries(text, _FDB, interface)
