"""`bridge fdb`: entries of a bridge and of a VXLAN interface, as text and as JSON."""

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
        "bridge fdb",
        "02:42:0a:00:01:06 dev vxlan0 dst 172.20.0.3 link-netnsid 0 self permanent\n"
        "26:61:69:86:ec:7f dev veth1 used 1/0 master br0 \n"
        "52:3b:6a:6e:2a:1f dev veth1 vlan 1 master br0 permanent\n",
        [
            {"interface": "vxlan0", "vtep": "172.20.0.3", "state": "permanent", "flags": "self"},
            {"mac": "26:61:69:86:ec:7f", "master": "br0", "state": None, "flags": None},
            {"vlan": 1, "master": "br0", "state": "permanent"},
        ],
    ),
    (
        "bridge -j fdb show dev vxlan0",
        '[{"mac":"02:42:0a:00:01:06","dst":"172.20.0.3","flags":["self"],"state":"permanent"},'
        '{"mac":"26:61:69:86:ec:7f","flags":[],"master":"br0","state":""}]',
        [
            {"interface": "vxlan0", "vtep": "172.20.0.3", "state": "permanent", "flags": "self"},
            {"interface": "vxlan0", "master": "br0", "state": None, "flags": None},
        ],
    ),
]


@each_capture_of("bridge_fdb")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("bridge fdb", "02:42:0a:00:01:06 dev vxlan0 vlan none", "a number after 'vlan'"),
        ("bridge fdb", "02:42:0a:00:01:06 dev vxlan0 beside", "no word 'beside' in `bridge fdb`"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
