"""`dig`: in full, +short, and questions without an answer."""

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

DIG = """\

; <<>> DiG 9.18.24-1-Debian <<>> hello-a
;; global options: +cmd
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1234
;; flags: qr rd ra; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 1

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags:; udp: 1232
;; QUESTION SECTION:
;hello-a.\t\t\tIN\tA

;; ANSWER SECTION:
hello-a.\t\t600\tIN\tA\t10.0.1.2
hello-a.\t\t600\tIN\tA\t10.0.1.3

;; Query time: 4 msec
;; SERVER: 127.0.0.11#53(127.0.0.11) (UDP)
;; WHEN: Sun Nov 22 14:52:42 UTC 2026
;; MSG SIZE  rcvd: 48

"""
DIG_NXDOMAIN = """\
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 1234
;; QUESTION SECTION:
;nobody.\t\t\tIN\tA

;; AUTHORITY SECTION:
.\t\t\t86400\tIN\tSOA\ta.root-servers.net. nstld.verisign-grs.com. 1 2 3 4 5
"""

EXAMPLES: list[Example] = [
    (
        "dig hello-a",
        DIG,
        [
            {
                "question": "hello-a.",
                "question_type": "A",
                "status": "NOERROR",
                "ttl_s": 600,
                "type": "A",
                "answer": "10.0.1.2",
                "server": "127.0.0.11",
                "server_port": 53,
                "query_time_ms": 4,
            },
            {"answer": "10.0.1.3", "query_time_ms": 4},
        ],
    ),
    ("dig nobody", DIG_NXDOMAIN, [{"question": "nobody.", "status": "NXDOMAIN", "answer": None}]),
    (
        "dig +short hello-a",
        "10.0.1.2\nfe80::1\nhello-a.1.abc.my-overlay.\n",
        [{"type": "A", "status": None}, {"type": "AAAA"}, {"type": None}],
    ),
    (
        "dig hello-a",
        "; <<>> DiG 9.18 <<>> hello-a\n;; global options: +cmd\n"
        ";; communications error to 127.0.0.11#53: timed out\n;; no servers could be reached\n",
        [{"status": "TIMEOUT", "answer": None}],
    ),
]


@each_capture_of("dig")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


@each_refused(
    [
        ("dig hello-a", DIG + "10.0.1.2\n", "expected a record"),
    ]
)
def test_a_line_that_is_half_right_is_refused(command: str, text: str, message: str) -> None:
    check_refused(command, text, message)
