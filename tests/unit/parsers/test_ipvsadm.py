"""`ipvsadm`: services with destinations, statistics, connections."""

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

IPVS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  10.0.0.5:80 rr persistent 300
  -> 10.0.0.7:8080                Masq    1      2          1
FWM  256 rr
  -> 10.0.0.7:0                   Masq    1      0          4
  -> 10.0.0.8:0                   Masq    0      0          3
FWM  257 rr
"""
IPVS_STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
FWM  256                                 4       24       16     1608      12K
  -> 10.0.0.7:0                          3       12        8      804      898
FWM  257                                 9       54       36     3618     4041
"""
IPVS_CONNECTIONS = """\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:57  ESTABLISHED 10.0.0.2:43210     10.0.0.5:5000      10.0.0.7:5000
UDP 04:05  UDP         10.0.0.2:5353      10.0.0.5:53        10.0.0.8:53
"""

EXAMPLES: list[Example] = [
    (
        "ipvsadm -ln",
        IPVS,
        [
            {
                "protocol": "TCP",
                "service_address": "10.0.0.5",
                "service_port": 80,
                "fwmark": None,
                "flags": "persistent 300",
                "destination": "10.0.0.7",
                "destination_port": 8080,
                "active_connections": 2,
            },
            {"protocol": "FWM", "fwmark": 256, "service_address": None, "inactive_connections": 4},
            {"fwmark": 256, "scheduler": "rr", "destination": "10.0.0.8", "weight": 0},
            {"fwmark": 257, "destination": None, "weight": None},
        ],
    ),
    (
        "ipvsadm -ln --stats",
        IPVS_STATS,
        [
            {
                "fwmark": 256,
                "destination": "10.0.0.7",
                "destination_port": None,
                "connections": 3,
                "out_bytes": 898,
                "service_connections": 4,
                "service_out_bytes": 12_000,
            },
            {"fwmark": 257, "destination": None, "connections": None, "service_connections": 9},
        ],
    ),
    (
        "ipvsadm -lnc",
        IPVS_CONNECTIONS,
        [
            {
                "protocol": "TCP",
                "expires_s": 897,
                "state": "ESTABLISHED",
                "source": "10.0.0.2",
                "source_port": 43210,
                "virtual": "10.0.0.5",
                "virtual_port": 5000,
                "destination": "10.0.0.7",
                "destination_port": 5000,
            },
            {"protocol": "UDP", "expires_s": 245, "state": "UDP"},
        ],
    ),
]


@each_capture_of("ipvsadm")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("ipvsadm -l", "TCP  web:http rr", "line 1: expected a line of `ipvsadm -ln`"),
        ("ipvsadm -lc", "TCP 01:13  TIME_WAIT   a:b     c:http      d:e", "a line of `ipvsadm -lnc`"),
        ("ipvsadm -ln", "  -> 10.0.0.7:0   Masq    1      0          0", "a service before"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
