"""`curl` with CURL_FORMAT and without, one transfer and several, success and failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.parsers import CURL_FORMAT, parse
from labkit.schema import Row
from tests.unit.parsers.helpers import (
    WHOAMI,
    Example,
    check_golden,
    check_rows,
    each_capture_of,
    each_example,
    records,
)

CURL_OK = (
    "\n[curl exit=0 http=200 lookup_s=0.000030 connect_s=0.000155 total_s=0.006676"
    " remote=10.0.1.6:3000 local=10.0.1.5:44510 connects=1 size=3 error=]\n"
)
CURL_TIMED_OUT = (
    "\n[curl exit=28 http=000 lookup_s=0.000025 connect_s=0.000000 total_s=1.001716"
    " remote=:0 local=:0 connects=0 size=0 error=Connection timed out after 1001 ms]\n"
)

EXAMPLES: list[Example] = [
    (
        "curl -s -w FORMAT URL URL",
        f"HI\n{CURL_OK}{WHOAMI}\n{CURL_OK}{CURL_TIMED_OUT}",
        [
            {
                "exit_code": 0,
                "exit_meaning": "ok",
                "http_code": 200,
                "time_connect_s": 0.000155,
                "time_total_s": 0.006676,
                "remote_ip": "10.0.1.6",
                "remote_port": 3000,
                "local_ip": "10.0.1.5",
                "local_port": 44510,
                "body": "HI",
                "error": None,
                "container": None,
            },
            {
                "body": WHOAMI,
                "container": "c1",
                "server_node": "node2",
                "addresses": "10.0.0.7,10.0.1.5",
                "client": "10.0.0.2",
            },
            {
                "exit_code": 28,
                "exit_meaning": "timed out",
                "http_code": None,
                "time_connect_s": None,
                "remote_ip": None,
                "remote_port": None,
                "error": "Connection timed out after 1001 ms",
                "body": "",
            },
        ],
    ),
    (
        "curl -si URL",
        f"HTTP/1.1 200 OK\nContent-Type: application/json\n\n{WHOAMI}\n",
        [{"http_code": 200, "exit_code": None, "container": "c1"}],
    ),
]


@each_capture_of("curl")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)


def test_a_silent_failure_is_a_row() -> None:
    argv = ["curl", "-s", "-m3", "http://10.0.0.8:3000"]
    (row,) = records(parse(argv, "", code=28))
    assert (row["exit_code"], row["exit_meaning"], row["http_code"]) == (28, "timed out", None)
    (row,) = records(parse(argv, "", "curl: (7) Failed to connect to 10.0.0.8\n"))
    assert (row["exit_code"], row["error"]) == (7, "Failed to connect to 10.0.0.8")


@pytest.mark.parametrize(
    "body",
    [
        '{"container": 1, "addresses": [], "client": "10.0.0.2"}',
        '{"container": "c1", "addresses": [1], "client": "10.0.0.2"}',
        "[" * 100_000,
        "1" * 100_000,
    ],
    ids=["container", "addresses", "nested", "digits"],
)
def test_a_body_that_only_looks_like_whoami_is_a_body(body: str) -> None:
    (row,) = records(parse(["curl", "-s", "http://10.0.0.8"], body))
    assert (row["body"], row["container"]) == (body, None)


def test_curl_prints_what_the_parser_reads() -> None:
    # The examples above hold what curl made of this format; here only that they fit together.
    printed = CURL_FORMAT.replace(r"\n", "\n")
    for number, line in enumerate((CURL_OK, CURL_TIMED_OUT)):
        names = [part.partition("=")[0] for part in printed.split() if "=" in part]
        assert names == [part.partition("=")[0] for part in line.split() if "=" in part], number
