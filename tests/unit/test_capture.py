"""The Capture: like a terminal to a person, a table to a program, plain JSON on disk."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from labkit.capture import Capture, argv_of, table
from labkit.errors import CommandFailed, UsageError

NEIGH = "10.0.1.6 dev eth0 lladdr 02:42:0a:00:01:06 REACHABLE \n"
TOKEN = "SWMTKN-1-0abc-1def"


def capture(command: str = "ip neigh", stdout: str = NEIGH, **changes: Any) -> Capture:
    """Make a capture of a run in a task on node2, with these fields changed."""
    fields: dict[str, Any] = {
        "argv": argv_of(command),
        "place": "hello-a.1",
        "node": "node2",
        "code": 0,
        "stdout": stdout,
        "stderr": "",
        "started": datetime(2026, 11, 22, 14, 52, tzinfo=UTC),
        "seconds": 0.4,
        "docker": "26.1.5",
    }
    return Capture(**fields | changes)


# --- what a person sees --------------------------------------------------------------------------


def test_it_shows_like_a_terminal() -> None:
    assert str(capture()) == f"hello-a.1 $ ip neigh\n{NEIGH.rstrip(chr(10))}"
    assert repr(capture()) == str(capture())


def test_a_failure_shows_both_streams_and_the_exit_code() -> None:
    shown = str(capture("curl -m3 10.0.0.8", "", stderr="curl: (28) timed out\n", code=28))
    assert shown == "hello-a.1 $ curl -m3 10.0.0.8\ncurl: (28) timed out\n[exit code 28]"


def test_a_stopped_command_says_so() -> None:
    shown = str(capture(stdout="", code=124, timed_out=True, seconds=3.0))
    assert shown.endswith("\n[stopped after 3.0 s, exit code 124]")


def test_html_is_escaped_and_has_no_colours_of_its_own() -> None:
    shown = capture("curl 'http://a/?x=<b>'", "<script>&\n")._repr_html_()
    assert "&lt;script&gt;&amp;" in shown
    assert "<script>" not in shown
    assert "<b>hello-a.1 $ curl" in shown
    assert "color: inherit" in shown
    assert "#" not in shown.split(">")[0]


def test_a_long_output_is_folded() -> None:
    lines = [f"line {number}" for number in range(1, 101)]
    shown = capture("iptables -S", "\n".join(lines))._repr_html_()
    head, tail = shown.split("<details>")
    assert "line 24<" in head
    assert "line 25" not in head
    assert "76 more lines" in tail
    assert "line 100" in tail
    assert "<details" not in capture("iptables -S", "\n".join(lines[:40]))._repr_html_()
    assert str(capture("iptables -S", "\n".join(lines))).endswith("line 100")


def marked(text: str, *parts: str) -> list[str]:
    """What a notebook marks."""
    shown = capture("ipvsadm -Ln", text).mark(*parts)._repr_html_()
    return re.findall(r"<mark [^>]*>(.*?)</mark>", shown)


def test_parts_that_matter_are_marked() -> None:
    rules = "-> 10.0.0.2:0 Masq\n-> 10.0.0.21:0 Masq\n-> 110.0.0.2:0 <DROP> DROPPED\n10.0.0.2."
    assert marked(rules, "10.0.0.2") == ["10.0.0.2", "10.0.0.2"]
    assert marked(rules, "DROP", "->") == ["-&gt;", "-&gt;", "-&gt;", "DROP"]
    assert marked(rules, "nowhere", "") == []
    assert marked(rules) == []


def test_what_is_marked_is_unfolded_and_no_part_of_the_evidence() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    one = capture("iptables -S", text).mark("line 99")
    assert "<details open>" in one._repr_html_()
    assert "<details>" in one.mark("line 1")._repr_html_()
    assert one == capture("iptables -S", text)
    assert "marked" not in one.to_json()


def test_join_tokens_are_shown_nowhere() -> None:
    one = capture(f"docker swarm join --token {TOKEN} 10.1.1.1", TOKEN, stderr=TOKEN)
    for shown in (str(one), repr(one), one._repr_html_(), json.dumps(one.to_json())):
        assert "1def" not in shown
    assert one.text == TOKEN


def test_words_and_lines() -> None:
    one = capture("tcpdump 'udp port 4789'", "a\nb\n")
    assert one.argv == ("tcpdump", "udp port 4789")
    assert one.command == "tcpdump 'udp port 4789'"
    assert (one.text, one.lines) == ("a\nb\n", ["a", "b"])


# --- success and failure -------------------------------------------------------------------------


def test_check_returns_the_capture_or_raises() -> None:
    good = capture()
    assert good.ok
    assert good.check() is good
    with pytest.raises(CommandFailed, match=r"on hello-a.1: `ip neigh` ended with code 2\nno way"):
        capture(code=2, stderr="no way\n").check()
    with pytest.raises(CommandFailed, match=r"stopped after 0.4 s"):
        capture(timed_out=True).check()


def test_it_cannot_be_changed_and_knows_its_time_zone() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        capture().code = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="time zone"):
        capture(started=datetime(2026, 11, 22))


# --- tables --------------------------------------------------------------------------------------


def test_table_says_where_it_was_run_first() -> None:
    found = capture().table
    assert list(found.columns[:3]) == ["node", "place", "address"]
    assert found.iloc[0][["node", "place", "state"]].tolist() == ["node2", "hello-a.1", "REACHABLE"]


def test_an_empty_table_keeps_its_columns_and_dtypes() -> None:
    empty = capture(stdout="").table
    assert len(empty) == 0
    assert empty.dtypes.equals(capture().table.dtypes)


def test_the_exit_code_reaches_the_curl_parser() -> None:
    assert capture("curl -sm3 10.0.0.8", "", code=28).table["exit_code"].tolist() == [28]


def test_many_captures_stack_into_one_table() -> None:
    many = [capture(), capture(stdout=""), capture(node="node3", place="hello-b.1")]
    stacked = table(many)
    assert stacked["node"].tolist() == ["node2", "node3"]
    assert stacked.index.tolist() == [0, 1]
    assert stacked.dtypes.equals(capture().table.dtypes)


def test_captures_of_different_tools_do_not_stack() -> None:
    with pytest.raises(UsageError, match="`ip neigh` and `ip route`"):
        table([capture(), capture("ip route", "")])
    with pytest.raises(UsageError, match="no captures"):
        table([])


# --- on disk -------------------------------------------------------------------------------------


def test_json_round_trip() -> None:
    one = capture(code=124, timed_out=True)
    assert Capture.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    "change",
    [
        {"argv": "ip neigh"},
        {"argv": [1]},
        {"code": "0"},
        {"started": "yesterday"},
        {"started": "2026-11-22T14:52:00"},
        {"stdout": None},
    ],
)
def test_broken_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"not a capture: '{next(iter(change))}' is"):
        Capture.from_json(capture().to_json() | change)
    with pytest.raises(UsageError, match="not a capture"):
        Capture.from_json({})


# --- commands ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("ip neigh", ("ip", "neigh")),
        (["ip", "neigh"], ("ip", "neigh")),
        (["grep", "|"], ("grep", "|")),
        ("tcpdump 'tcp[13] & 2 != 0 | x'", ("tcpdump", "tcp[13] & 2 != 0 | x")),
        ("docker ps --format='{{.A}} | {{.B}}'", ("docker", "ps", "--format={{.A}} | {{.B}}")),
        ('sh -c "ip a | wc -l > x"', ("sh", "-c", "ip a | wc -l > x")),
        ("curl http://a/?x=1&y=2", ("curl", "http://a/?x=1&y=2")),
    ],
)
def test_argv_of_splits_words(command: str | list[str], argv: tuple[str, ...]) -> None:
    assert argv_of(command) == argv


@pytest.mark.parametrize(
    "command", ["a | b", "a ; b", "a; b", "a && b", "a || b", "a > b", "a 2>&1", "a >b", "a &"]
)
def test_argv_of_refuses_shell(command: str) -> None:
    with pytest.raises(UsageError, match="there is no shell here") as caught:
        argv_of(command)
    assert "quote" in caught.value.hint


@pytest.mark.parametrize("command", ["", "  ", [], "echo 'a"])
def test_argv_of_refuses_what_is_no_command(command: str | list[str]) -> None:
    with pytest.raises(UsageError):
        argv_of(command)


def test_importing_it_does_not_import_pandas() -> None:
    code = "import sys, labkit.capture; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
