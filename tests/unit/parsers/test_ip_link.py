"""`ip link` with details and counters, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from labkit.schema import Row
from tests.unit.parsers.helpers import (
    Example,
    check_golden,
    check_refused,
    check_rows,
    each_capture_of,
    each_example,
    each_refused,
)

IP_LINK = """\
3: vxlan0@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue master br0 state UNKNOWN
    link/ether 46:66:95:88:b3:dc brd ff:ff:ff:ff:ff:ff link-netnsid 0 promiscuity 1  allmulti 1
    vxlan id 4097 srcport 0 0 dstport 4789 proxy l2miss l3miss ttl auto ageing 300 udpcsum
    bridge_slave state forwarding priority 32 cost 100 hairpin off guard off
    RX:  bytes packets errors dropped  missed   mcast
           252       4      0       0       0       3
    TX:  bytes packets errors dropped carrier collsns
           414       5      0       8       0       0
"""
VXLAN0 = {
    "index": 3,
    "interface": "vxlan0",
    "peer": "if3",
    "flags": "BROADCAST,MULTICAST,UP,LOWER_UP",
    "mtu": 1450,
    "state": "UNKNOWN",
    "master": "br0",
    "link_type": "ether",
    "mac": "46:66:95:88:b3:dc",
    "link_netnsid": 0,
    "kind": "vxlan",
    "vni": 4097,
    "rx_bytes": 252,
    "rx_packets": 4,
    "rx_errors": 0,
    "rx_dropped": 0,
    "tx_bytes": 414,
    "tx_packets": 5,
    "tx_errors": 0,
    "tx_dropped": 8,
}
IP_LINK_JSON = json.dumps(
    [
        {},
        {
            "ifindex": 3,
            "link_index": 3,
            "ifname": "vxlan0",
            "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
            "mtu": 1450,
            "master": "br0",
            "operstate": "UNKNOWN",
            "link_type": "ether",
            "address": "46:66:95:88:b3:dc",
            "link_netnsid": 0,
            "linkinfo": {"info_kind": "vxlan", "info_data": {"id": 4097}},
            "stats64": {
                "rx": {"bytes": 252, "packets": 4, "errors": 0, "dropped": 0, "multicast": 3},
                "tx": {"bytes": 414, "packets": 5, "errors": 0, "dropped": 8, "collisions": 0},
            },
        },
    ]
)

EXAMPLES: list[Example] = [
    ("ip -s -d link show", IP_LINK, [VXLAN0]),
    ("ip -j -s -d link", IP_LINK_JSON, [VXLAN0]),
    (
        "ip -br link",
        "vxlan0           UNKNOWN        46:66:95:88:b3:dc <BROADCAST,MULTICAST,UP,LOWER_UP> \n",
        [{"interface": "vxlan0", "mac": "46:66:95:88:b3:dc", "state": "UNKNOWN", "mtu": None}],
    ),
]


@each_capture_of("ip_link")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("ip link", "1: lo: <UP> mtu large state UP", "line 1: expected a number after 'mtu'"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
