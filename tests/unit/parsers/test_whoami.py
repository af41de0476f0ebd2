"""The answers of the labs' app to /whoami, as `curl -s` prints them."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.parsers import ParseError, whoami
from tests.unit.parsers.helpers import WHOAMI, check_golden, each_capture_of, records


@each_capture_of("curl", "whoami-plain")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path, whoami)


def test_many_lines_are_many_rows() -> None:
    expected = {
        "container": "c1",
        "server_node": "node2",
        "addresses": "10.0.0.7,10.0.1.5",
        "client": "10.0.0.2",
    }
    assert records(whoami(f"{WHOAMI}\n\n{WHOAMI}\n")) == [expected, expected]


@pytest.mark.parametrize("line", ["HI", "{}", '{"container": 1, "addresses": [], "client": "x"}'])
def test_another_answer_is_refused(line: str) -> None:
    with pytest.raises(ParseError, match="line 2: expected the JSON of /whoami"):
        whoami(f"{WHOAMI}\n{line}\n")
