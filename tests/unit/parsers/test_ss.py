"""`ss`: listening and connected sockets, with processes and without a state."""

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

SS = """\
Netid State  Recv-Q Send-Q Local Address:Port  Peer Address:PortProcess
udp   UNCONN 0      0         127.0.0.11:43210      0.0.0.0:*    \
users:(("dockerd",pid=123,fd=40))
tcp   LISTEN 0      4096               *:7946             *:*
"""

EXAMPLES: list[Example] = [
    (
        "ss -lunpt",
        SS,
        [
            {
                "netid": "udp",
                "state": "UNCONN",
                "local_address": "127.0.0.11",
                "local_port": 43210,
                "peer_port": None,
                "process": "dockerd",
                "pid": 123,
            },
            {"netid": "tcp", "send_queue": 4096, "local_address": "*", "process": None},
        ],
    ),
    (
        "ss -tn state time-wait",
        "Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n"
        "0      0          127.0.0.1:8123    [::1]:37250       \n",
        [{"netid": "tcp", "state": None, "peer_address": "::1", "peer_port": 37250}],
    ),
]


@each_capture_of("ss")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("ss -t", "ESTAB 0 0 10.0.1.5:http 10.0.1.6:3000", "ss -n"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
