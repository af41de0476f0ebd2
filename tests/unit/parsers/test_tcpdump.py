"""`tcpdump`: with and without frames (-e), VXLAN packets with the frame in them."""

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

TCPDUMP = """\
22:13:20.000000 eth0  Out IP 10.0.0.7.43210 > 10.0.0.8.3000: Flags [S], seq 1, win 64860, length 0
22:13:22.010000 eth0  B   ARP, Request who-has 10.0.0.8 tell 10.0.0.7, length 28
22:13:23.015000 eth0  In  ARP, Reply 10.0.0.8 is-at 02:42:0a:00:00:08, length 28
22:13:28.040000 lo    In  IP 10.0.1.5.40000 > 127.0.0.11.53: 4660+ A? hello-a. (25)
22:13:30.030000 eth0  Out IP6 fe80::1.5000 > fe80::2.6000: UDP, length 3
22:13:36.080000 eth1  Out IP 172.20.0.2.45678 > 172.20.0.3.4789: VXLAN, flags [I] (0x08), vni 4097
IP 10.0.1.5.43210 > 10.0.1.6.3000: Flags [P.], seq 0:33, ack 1, win 64860, length 33: HTTP: GET /
22:13:52.160000 eth1  Out IP 172.20.0.2 > 172.20.0.3: ESP(spi=0x12345678,seq=0x1), length 100
"""
TCPDUMP_E = """\
1700000016.500000 02:42:ac:14:00:02 > 02:42:ac:14:00:03, ethertype IPv4 (0x0800), length 148: \
172.20.0.2.45678 > 172.20.0.3.4789: VXLAN, flags [I] (0x08), vni 4097
02:42:0a:00:01:05 > ff:ff:ff:ff:ff:ff, ethertype ARP (0x0806), length 42: \
Request who-has 10.0.1.6 tell 10.0.1.5, length 28
2 packets captured
"""

EXAMPLES: list[Example] = [
    (
        "tcpdump -ni any",
        TCPDUMP,
        [
            {
                "time": "22:13:20.000000",
                "time_s": 80_000.0,
                "interface": "eth0",
                "direction": "Out",
                "protocol": "TCP",
                "source": "10.0.0.7",
                "source_port": 43210,
                "destination": "10.0.0.8",
                "destination_port": 3000,
                "tcp_flags": "S",
                "length_bytes": 0,
                "vni": None,
            },
            {"protocol": "ARP", "source": "10.0.0.7", "destination": "10.0.0.8"},
            {"protocol": "ARP", "source": "10.0.0.8", "destination": None, "direction": "In"},
            {"protocol": "UDP", "destination_port": 53, "length_bytes": 25},
            {"protocol": "UDP", "source": "fe80::1", "source_port": 5000},
            {
                "protocol": "VXLAN",
                "source": "172.20.0.2",
                "destination_port": 4789,
                "vni": 4097,
                "inner_protocol": "TCP",
                "inner_source": "10.0.1.5",
                "inner_source_port": 43210,
                "inner_destination": "10.0.1.6",
                "inner_destination_port": 3000,
                "inner_tcp_flags": "P.",
                "inner_length_bytes": 33,
            },
            {"protocol": "ESP", "length_bytes": 100, "source_port": None, "vni": None},
        ],
    ),
    (
        "tcpdump -ntte",
        TCPDUMP_E,
        [
            {
                "time_s": 1_700_000_016.5,
                "source_mac": "02:42:ac:14:00:02",
                "frame_bytes": 148,
                "vni": 4097,
                "inner_destination_mac": "ff:ff:ff:ff:ff:ff",
                "inner_protocol": "ARP",
                "inner_destination": "10.0.1.6",
                "inner_frame_bytes": 42,
            }
        ],
    ),
]


@each_capture_of("tcpdump")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("tcpdump -n", "22:13:20.000000 IP (tos 0x0, ttl 64)\n    10.0.0.7.1 > 10.0.0.8.2:", "-v"),
        ("tcpdump", "22:13:20.000000 IP hello-a.43210 > b.http: Flags [S]", "numeric addresses"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
