"""The errors: their tree as documented, their exit codes, and what never enters a message."""

from __future__ import annotations

import re
from typing import Any

import pytest

from labkit import errors
from labkit.errors import LabkitError, UnknownNameError, WaitTimeout

_ROW = re.compile(r"^ {4}[│├└─ ]*(\w+) +(?:([0-9]) )?", re.MULTILINE)


def test_the_docstring_shows_the_tree_as_it_is() -> None:
    tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0]
    documented = dict(_ROW.findall(tree))
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, LabkitError)
    }
    assert documented.keys() == classes.keys()
    for name, code in documented.items():
        if code:
            assert classes[name].exit_code == int(code)


@pytest.mark.parametrize("kind", [LabkitError, errors.SwarmError, errors.CheckFailed])
def test_a_join_token_enters_neither_message_nor_hint(kind: type[LabkitError]) -> None:
    token = "SWMTKN-1-0abc-1def"
    problem = kind(f"refused: {token}", hint=f"docker swarm join --token {token}")
    assert "1def" not in str(problem)
    assert str(problem).count("SWMTKN-…") == 2


def test_a_hint_is_the_next_step() -> None:
    assert str(LabkitError("no")) == "no"
    assert str(LabkitError("no", hint="try yes")) == "no\nNext step: try yes"
    assert "there are: a, b\nNext step: take one of those" in str(UnknownNameError("node", "c", "ab"))


def test_a_time_out_shows_what_was_seen_last() -> None:
    problem = WaitTimeout("three nodes", seconds=12.4, last="two nodes", log=["one", "two"])
    assert str(problem).splitlines() == [
        "waited 12 s for three nodes",
        "last seen: two nodes",
        "last log lines:",
        "  one",
        "  two",
    ]


def test_a_daemons_refusal_is_the_kits_error_and_the_sdks() -> None:
    from docker.errors import NotFound
    from requests import Response

    from labkit.transport import daemon
    from labkit.transport.base import DaemonError

    response = Response()
    response.status_code = 404
    problem = NotFound("no", response=response, explanation="no such service")
    error: Any = daemon._refusal("node1", 404, problem)
    assert isinstance(error, DaemonError)
    assert isinstance(error, NotFound)  # the SDK itself catches what it knows
    assert (error.status, error.response, type(error).__name__) == (404, response, "DaemonError")
    assert "the Docker engine of node1 answered 404: no such service" in str(error)
    assert "labkit exec node1 -- docker info" in str(error)
