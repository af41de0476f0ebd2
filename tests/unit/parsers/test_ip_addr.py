"""`ip addr` in all its forms: full, brief, one line per address, JSON."""

from __future__ import annotations

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

IP_ADDR = """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
12: eth0@if13: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UP group default
    link/ether 02:42:0a:00:01:05 brd ff:ff:ff:ff:ff:ff link-netnsid 0
    inet 10.0.1.5/24 brd 10.0.1.255 scope global eth0
       valid_lft forever preferred_lft forever
    inet 10.0.1.2/32 scope global eth0
       valid_lft forever preferred_lft forever
"""

EXAMPLES: list[Example] = [
    (
        "ip addr",
        IP_ADDR,
        [
            {"index": 1, "interface": "lo", "address": "127.0.0.1", "prefix_length": 8},
            {
                "index": 12,
                "interface": "eth0",
                "peer": "if13",
                "mtu": 1450,
                "state": "UP",
                "mac": "02:42:0a:00:01:05",
                "link_netnsid": 0,
                "family": "inet",
                "address": "10.0.1.5",
                "prefix_length": 24,
                "scope": "global",
            },
            {"interface": "eth0", "address": "10.0.1.2", "prefix_length": 32},
        ],
    ),
    (
        "ip -br a",
        "lo               UNKNOWN        127.0.0.1/8 ::1/128 \n"
        "veth1@if4        UP             \n"
        "eth0@if13        UP             10.0.1.5/24 10.0.1.2/32 \n",
        [
            {"interface": "lo", "family": "inet", "address": "127.0.0.1"},
            {"interface": "lo", "family": "inet6", "address": "::1", "prefix_length": 128},
            {"interface": "veth1", "peer": "if4", "state": "UP", "address": None},
            {"interface": "eth0", "address": "10.0.1.5"},
            {"interface": "eth0", "address": "10.0.1.2"},
        ],
    ),
    (
        "ip -o -4 addr",
        "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n"
        "5: eth0    inet 10.0.1.5/24 brd 10.0.1.255 scope global eth0\\       valid_lft forever\n",
        [
            {"index": 1, "interface": "lo", "address": "127.0.0.1", "scope": "host"},
            {"index": 5, "interface": "eth0", "address": "10.0.1.5", "prefix_length": 24},
        ],
    ),
    (
        "ip -j addr",
        '[{"ifindex":9,"link_index":8,"ifname":"veth7","address":"02:42:0a:00:01:05","link_netnsid":-1,'
        '"addr_info":[]}]',
        [{"interface": "veth7", "peer": "if8", "mac": "02:42:0a:00:01:05", "link_netnsid": None}],
    ),
]


@each_capture_of("ip_addr")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("ip addr", "    inet 127.0.0.1/8 scope host lo", "before it"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
