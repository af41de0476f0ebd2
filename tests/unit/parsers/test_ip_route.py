"""`ip route` and `ip route get`, as text and as JSON."""

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

EXAMPLES: list[Example] = [
    (
        "ip route",
        "default via 172.18.0.1 dev eth1 \n"
        "10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.5 linkdown \n"
        "blackhole 10.9.0.0/16 metric 5 \n",
        [
            {"type": "unicast", "destination": "default", "gateway": "172.18.0.1"},
            {"destination": "10.0.1.0/24", "source": "10.0.1.5", "flags": "linkdown"},
            {"type": "blackhole", "destination": "10.9.0.0/16", "interface": None, "metric": 5},
        ],
    ),
    (
        "ip route get 10.0.1.6",
        "10.0.1.6 dev eth0 src 10.0.1.5 uid 0 \n    cache \n",
        [{"destination": "10.0.1.6", "interface": "eth0", "source": "10.0.1.5"}],
    ),
    (
        "ip -j route",
        '[{"dst":"default","gateway":"172.18.0.1","dev":"eth1","flags":[]},'
        '{"type":"blackhole","dst":"10.9.0.0/16","flags":["linkdown"]}]',
        [
            {"type": "unicast", "gateway": "172.18.0.1", "interface": "eth1", "flags": None},
            {"type": "blackhole", "interface": None, "flags": "linkdown"},
        ],
    ),
]


@each_capture_of("ip_route")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("ip route", "10.0.1.0/24 dev eth0 metric low", "a number after 'metric'"),
        ("ip -j route", "[1]", "line 1: expected objects in the JSON"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
