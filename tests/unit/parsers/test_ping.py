"""`ping`: its summary, and its single replies."""

from __future__ import annotations

from pathlib import Path

from labkit.parsers import ping_replies
from labkit.schema import Row
from tests.unit.parsers.helpers import (
    Example,
    check_golden,
    check_rows,
    each_capture_of,
    each_example,
    records,
)

PING = """\
PING hello-a (10.0.1.6) 56(84) bytes of data.
64 bytes from hello-a.1.abc.my-overlay (10.0.1.6): icmp_seq=1 ttl=64 time=0.061 ms
From 10.0.1.5 icmp_seq=2 Destination Host Unreachable

--- hello-a ping statistics ---
2 packets transmitted, 1 received, +1 errors, 50% packet loss, time 1031ms
rtt min/avg/max/mdev = 0.061/0.074/0.089/0.011 ms, pipe 2
"""
PING_DEAD = """\
PING 10.0.1.9 (10.0.1.9) 56(84) bytes of data.

--- 10.0.1.9 ping statistics ---
3 packets transmitted, 0 received, 100% packet loss, time 2040ms

"""

EXAMPLES: list[Example] = [
    (
        "ping -c2 hello-a",
        PING,
        [
            {
                "target": "hello-a",
                "address": "10.0.1.6",
                "transmitted": 2,
                "received": 1,
                "duplicates": 0,
                "errors": 1,
                "loss_pct": 50.0,
                "duration_ms": 1031,
                "rtt_min_ms": 0.061,
                "rtt_avg_ms": 0.074,
                "rtt_max_ms": 0.089,
                "rtt_mdev_ms": 0.011,
            }
        ],
    ),
    ("ping 10.0.1.9", PING_DEAD, [{"received": 0, "loss_pct": 100.0, "rtt_avg_ms": None}]),
    (
        "ping 10.0.1.9",
        PING_DEAD.partition("\n")[0] + "\n",
        [{"address": "10.0.1.9", "transmitted": None}],
    ),
]


@each_capture_of("ping")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_capture_of("ping")
def test_captured_output_gives_the_golden_replies(path: Path) -> None:
    check_golden(path, ping_replies)


def test_replies_are_single_rows() -> None:
    reply, error = records(ping_replies(PING))
    assert reply == {
        "sequence": 1,
        "address": "10.0.1.6",
        "ttl": 64,
        "rtt_ms": 0.061,
        "error": None,
    }
    assert (error["sequence"], error["address"]) == (2, "10.0.1.5")
    assert error["error"] == "Destination Host Unreachable"
