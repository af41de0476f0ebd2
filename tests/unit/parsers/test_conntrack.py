"""`conntrack -L`: flows of TCP, UDP and ICMP."""

from __future__ import annotations

from pathlib import Path

from labkit.schema import Row
from tests.unit.parsers.helpers import Example, check_golden, check_rows, each_capture_of, each_example

CONNTRACK = """\
tcp      6 431999 ESTABLISHED src=10.0.0.2 dst=10.0.0.7 sport=43210 dport=5000 src=10.0.0.7 \
dst=10.0.0.2 sport=3000 dport=43210 [ASSURED] mark=256 use=1
udp      17 29 src=10.0.1.5 dst=127.0.0.11 sport=55355 dport=53 [UNREPLIED] src=127.0.0.11 \
dst=10.0.1.5 sport=40000 dport=55355 mark=0 use=1
icmp     1 29 src=10.0.0.7 dst=10.0.0.8 type=8 code=0 id=1 src=10.0.0.8 dst=10.0.0.7 type=0 \
code=0 id=1 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.
"""

EXAMPLES: list[Example] = [
    (
        "conntrack -L",
        CONNTRACK,
        [
            {
                "protocol": "tcp",
                "timeout_s": 431_999,
                "state": "ESTABLISHED",
                "destination": "10.0.0.7",
                "destination_port": 5000,
                "reply_source": "10.0.0.7",
                "reply_source_port": 3000,
                "assured": True,
                "unreplied": False,
                "mark": 256,
            },
            {"protocol": "udp", "state": None, "unreplied": True, "reply_source_port": 40000},
            {"protocol": "icmp", "source_port": None, "reply_destination": "10.0.0.7"},
        ],
    ),
]


@each_capture_of("conntrack")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)
