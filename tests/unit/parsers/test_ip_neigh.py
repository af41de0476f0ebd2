"""`ip neigh`: states, flags, and the words that no column takes."""

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
        "ip neigh",
        "10.0.1.6 dev eth0 lladdr 02:42:0a:00:01:06 REACHABLE \n"
        "10.0.1.9 dev eth0  ref 1 used 1/61/1probes 4 INCOMPLETE \n"
        "10.0.1.7 dev vxlan0 lladdr 02:42:0a:00:01:07 extern_learn PERMANENT \n",
        [
            {"address": "10.0.1.6", "interface": "eth0", "state": "REACHABLE", "flags": None},
            {"address": "10.0.1.9", "mac": None, "state": "INCOMPLETE"},
            {"interface": "vxlan0", "mac": "02:42:0a:00:01:07", "flags": "extern_learn"},
        ],
    ),
    (
        "ip neigh show dev vxlan0",
        "10.0.1.6 lladdr 02:42:0a:00:01:06 PERMANENT \n",
        [{"address": "10.0.1.6", "interface": "vxlan0", "state": "PERMANENT"}],
    ),
    (
        "ip -j neigh show dev vxlan0",
        '[{"dst":"10.0.1.6","lladdr":"02:42:0a:00:01:06","router":null,"state":["PERMANENT"]}]',
        [{"address": "10.0.1.6", "interface": "vxlan0", "state": "PERMANENT", "flags": "router"}],
    ),
]


@each_capture_of("ip_neigh")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("ip -j neigh", '[{"dst": ', "line 1: expected the JSON of"),
        ("ip neigh", "10.0.1.6 dev eth0 lladdr", "a value after 'lladdr'"),
        ("ip neigh", "10.0.1.6 dev eth0 SLEEPY", "no word 'SLEEPY'"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
