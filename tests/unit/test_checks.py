"""Checks: four outcomes, each a sentence; all but pass raise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from labkit import checks
from labkit.errors import CheckFailed, CouldNotRun, Unanswered


@dataclass
class FakeCapture:
    """The fields of a Capture that checks read."""

    argv: tuple[str, ...] = ("curl", "-m", "2", "http://10.0.1.4:3000")
    place: str = "hello-a.1"
    node: str = "node-2"
    code: int | None = 0
    stdout: str = "inet 10.0.1.5/24"
    stderr: str = ""
    timed_out: bool = False


def typed(*argv: str, place: str = "hello.1", code: int = 0) -> FakeCapture:
    return FakeCapture(argv=argv, place=place, code=code, stdout="10.0.0.3 dev eth0 REACHABLE")


def outcome(check: object, *args: object, **options: object) -> str:
    """Call a check that must not pass; return the exact class that it raised."""
    with pytest.raises(CheckFailed) as caught:
        check(*args, **options)  # type: ignore[operator]
    assert str(caught.value)[0].isupper() or str(caught.value)[0] == "`"
    return type(caught.value).__name__


@pytest.mark.parametrize(
    ("check", "rest"),
    [
        (checks.answered, ()),
        (checks.one_of, (["arp", "firewall"],)),
        (checks.equals, (3,)),
        (checks.true, ("the DROP counter rose",)),
        (checks.rises, (4,)),
        (checks.contains, ("10.0.1.5",)),
        (checks.table, ()),
        (checks.reached, ()),
        (checks.not_reached, ()),
    ],
)
def test_ellipsis_is_unanswered(check: object, rest: tuple[object, ...]) -> None:
    assert outcome(check, ..., *rest) == "Unanswered"


@pytest.mark.parametrize("value", [{"nat": "x", "arp": ...}, ["x", ...], ("x", ...)])
def test_partly_answered_is_unanswered(value: object) -> None:
    assert outcome(checks.answered, value) == "Unanswered"


def test_unanswered_does_not_show_what_was_measured() -> None:
    with pytest.raises(Unanswered) as caught:
        checks.equals(..., "firewall", name="the cause")
    assert "firewall" not in str(caught.value)
    with pytest.raises(Unanswered) as caught:
        checks.close(..., 1424, abs=1, name="the MTU")
    assert "1424" not in str(caught.value)


def test_pass_prints_one_sentence_and_returns_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.equals("Firewall ", "firewall", name="the cause", node="node-1") is None
    assert capsys.readouterr() == ("The cause on node-1: 'firewall', as you said.\n", "")


def test_a_wrong_answer_names_place_answer_and_measurement() -> None:
    with pytest.raises(CheckFailed) as caught:
        checks.equals(3, np.int64(2), name="the number of hops", node="node-1")
    assert str(caught.value) == "The number of hops on node-1: you said 3, measured 2."
    with pytest.raises(CheckFailed, match=r"you said \[3\], measured \[2\]"):
        checks.equals([3], [np.int64(2)], name="the hops")


@pytest.mark.parametrize("measured", [None, math.nan, np.nan, pd.NA, pd.NaT])
def test_nothing_measured_could_not_run(measured: object) -> None:
    assert outcome(checks.equals, 2, measured) == "CouldNotRun"
    assert outcome(checks.close, 2, measured, rel=0.1) == "CouldNotRun"
    assert outcome(checks.true, measured, "it rose") == "CouldNotRun"
    assert outcome(checks.rises, measured, 5) == "CouldNotRun"


def test_equals_takes_columns_and_sets() -> None:
    checks.equals(["a", "b"], pd.Series(["a", "b"]))
    checks.equals({"a", "b"}, {"b", "a"})
    assert outcome(checks.equals, ["a"], pd.Series(["a", "b"])) == "CheckFailed"


def test_one_of_credits_any_choice() -> None:
    checks.one_of("ARP", ["arp", "firewall"])
    checks.one_of(2, range(1, 10))
    assert outcome(checks.one_of, "dns", ["arp", "firewall"]) == "CheckFailed"


def test_close_keeps_to_its_tolerance() -> None:
    checks.close(110, 100, rel=0.1)
    checks.close(1423, 1424, abs=1)
    assert outcome(checks.close, 111, 100, rel=0.1) == "CheckFailed"
    assert outcome(checks.close, 1422, 1424, abs=1) == "CheckFailed"
    assert outcome(checks.close, "many", 100, rel=0.1) == "CheckFailed"
    assert outcome(checks.close, math.inf, 100, rel=0.1) == "CheckFailed"
    assert outcome(checks.close, True, 1, abs=1) == "CheckFailed"


@pytest.mark.parametrize("options", [{}, {"rel": 0.1, "abs": 1}])
def test_close_needs_exactly_one_tolerance(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="either"):
        checks.close(1, 1, **options)


def test_true_shows_the_sentence_and_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    checks.true(np.bool_(True), "Every node has an ingress_sbox.")
    assert capsys.readouterr().out == "Every node has an ingress_sbox.\n"
    with pytest.raises(CheckFailed) as caught:
        checks.true([], "Every node has an ingress_sbox.", found=["node-1"], node="node-3")
    assert str(caught.value) == (
        "This is not so on node-3: Every node has an ingress_sbox. Found: ['node-1']."
    )


def test_reached() -> None:
    checks.reached(FakeCapture())
    with pytest.raises(CheckFailed) as caught:
        checks.reached(FakeCapture(code=28))
    assert type(caught.value) is CheckFailed
    assert "from hello-a.1 on node-2" in str(caught.value)


@pytest.mark.parametrize("code", [7, 28, 52, 56])
def test_not_reached_passes_where_curl_got_no_answer(code: int) -> None:
    checks.not_reached(FakeCapture(code=code))


def test_not_reached_fails_on_an_answer() -> None:
    assert outcome(checks.not_reached, FakeCapture(code=0)) == "CheckFailed"


@pytest.mark.parametrize(
    "capture",
    [
        FakeCapture(code=None),
        FakeCapture(code=1),  # curl: a protocol that it does not speak
        FakeCapture(code=6),  # curl: no such name
        FakeCapture(code=124),
        FakeCapture(code=125),
        FakeCapture(code=126, stderr="exec failed: no such file"),
        FakeCapture(code=127),
        FakeCapture(code=137),
        FakeCapture(code=28, timed_out=True),
        FakeCapture(argv=("ping", "-c", "1", "nowhere"), code=2),
    ],
)
def test_a_probe_that_did_not_run_proves_nothing(capture: FakeCapture) -> None:
    assert outcome(checks.not_reached, capture) == "CouldNotRun"
    assert outcome(checks.reached, capture) == "CouldNotRun"
    with pytest.raises(CouldNotRun) as caught:
        checks.not_reached(capture)
    assert capture.stderr in str(caught.value)


def test_pings_code_for_no_answer_is_one() -> None:
    checks.not_reached(FakeCapture(argv=("/bin/ping", "-c", "1", "10.0.1.4"), code=1))


def test_rows_and_tables_of_probes(capsys: pytest.CaptureFixture[str]) -> None:
    df = pd.DataFrame({"node": ["node-1", "node-2", "node-3"], "code": [28, 7, 0]})
    checks.not_reached(df[df.code > 0], name="tasks")
    assert capsys.readouterr().out == "The 2 probes for tasks were not answered.\n"
    checks.reached(df.iloc[2])
    checks.reached({"node": "node-3", "code": 0})
    assert outcome(checks.not_reached, df) == "CheckFailed"
    assert outcome(checks.not_reached, df.iloc[:0]) == "CouldNotRun"
    assert outcome(checks.not_reached, None) == "CouldNotRun"
    df["code"] = [28, math.nan, 28]
    assert outcome(checks.not_reached, df) == "CouldNotRun"


def test_rises() -> None:
    checks.rises(4, np.int64(5))
    checks.rises(4, 14, by=10)
    assert outcome(checks.rises, 4, 4) == "CheckFailed"
    assert outcome(checks.rises, 4, 13, by=10) == "CheckFailed"
    assert outcome(checks.rises, 9, 2) == "CouldNotRun"  # reset in between
    assert outcome(checks.rises, "4 packets", 5) == "CouldNotRun"


def test_contains() -> None:
    checks.contains(FakeCapture(), "10.0.1.5")
    checks.contains(pd.Series(["ingress", "my-overlay"]), "my-overlay")
    checks.contains("PERMANENT", "permanent")
    assert outcome(checks.contains, FakeCapture(), "10.0.9.9") == "CheckFailed"
    assert outcome(checks.contains, ["ingress"], "in") == "CheckFailed"  # an item, not a part
    assert outcome(checks.contains, "", "x") == "CouldNotRun"
    assert outcome(checks.contains, [], "x") == "CouldNotRun"
    assert outcome(checks.contains, FakeCapture(code=127), "10.0.1.5") == "CouldNotRun"


def test_a_command_of_the_learners_own() -> None:
    right: dict[str, Any] = {"tool": "ip neigh", "place": "hello.1", "shows": "10.0.0.3"}
    for argv in ("ip neigh", "/sbin/ip -s neigh show", "ip n"):
        checks.ran(typed(*argv.split()), **right)
    checks.ran(typed("sh", "-c", "ip neigh|sort"), **right)
    assert outcome(checks.ran, ..., **right) == "Unanswered"
    for wrong in (
        "ip neigh",
        typed("ip", "addr"),
        typed("neigh", "ip"),
        typed("ip", "neigh", place="node1"),
        typed("ip", "neigh", code=1),
    ):
        assert outcome(checks.ran, wrong, **right) == "CheckFailed"
    for shown in ("10.9", "0.0.0.3", ["10.0.0.3", "STALE"]):
        assert outcome(checks.ran, typed("ip", "neigh"), **{**right, "shows": shown}) == "CheckFailed"
    checks.ran(typed("ip", "neigh"), **{**right, "shows": ["10.0.0.3", "REACHABLE"]})
    assert outcome(checks.ran, typed("ip", "neigh", code=127), **right) == "CouldNotRun"
    for codes in (28, [7, 28]):
        checks.ran(typed("curl", "x", code=28), "curl", place=["hello.1", "node1"], code=codes)
    both = [typed("ip", "neigh"), typed("ip", "addr")]
    checks.ran(both, "")
    assert outcome(checks.ran, both, "ip neigh") == "CheckFailed"
    assert outcome(checks.ran, [], "") == "CheckFailed"
    assert outcome(checks.ran, [...], "") == "Unanswered"


def test_table() -> None:
    df = pd.DataFrame({"node": ["node-1"], "code": [0]})
    checks.table(df, columns=["node", "code"])
    assert outcome(checks.table, df, columns=["rtt_ms"]) == "CouldNotRun"
    assert outcome(checks.table, df, min_rows=2) == "CouldNotRun"
    assert outcome(checks.table, df.iloc[:0]) == "CouldNotRun"
    assert outcome(checks.table, "node-1 0") == "CouldNotRun"


def test_every_check_says_when_it_raises() -> None:
    """The names that a notebook calls; each docstring names the outcomes that it can have."""
    public = [
        getattr(checks, name)
        for name in vars(checks)
        if not name.startswith("_") and getattr(vars(checks)[name], "__module__", "") == checks.__name__
    ]
    assert len(public) == 13
    for check in public:
        assert "Unanswered" in (check.__doc__ or ""), check.__name__


def test_two_commands_are_compared() -> None:
    one = typed("curl", "-sS", "10.0.1.5:3000")
    other_words = typed("curl", "10.0.1.6:3000", code=28)
    other_place = typed("curl", "-sS", "10.0.1.5:3000", place="node2")
    checks.compared(one, other_words)  # with any code of the tool's own
    checks.compared(one, other_place)
    assert outcome(checks.compared, one, ...) == "Unanswered"
    assert outcome(checks.compared, one, one) == "CheckFailed"
    assert outcome(checks.compared, one, typed("ping", "10.0.1.6")) == "CheckFailed"
    assert outcome(checks.compared, one, "curl") == "CheckFailed"
    assert outcome(checks.compared, one, typed("curl", "10.0.1.6", code=127)) == "CouldNotRun"


def test_what_runs_in_a_container_is_the_tool_that_is_compared() -> None:
    inside = typed("docker", "exec", "-i", "visitor", "getent", "ahostsv4", "tasks.web")
    checks.compared(inside, typed("getent", "ahostsv4", "tasks.web"))
    assert outcome(checks.compared, inside, typed("dig", "tasks.web")) == "CheckFailed"


@pytest.mark.parametrize(
    "command",
    [
        "docker run --detach --network net-amber --name visitor node-test sleep 9",
        "docker run --detach --name=visitor --network=net-amber node-test sleep 9",
    ],
)
def test_options_are_known_in_any_order_and_form(command: str) -> None:
    checks.ran(typed(*command.split()), "docker run", words=["visitor", "net-amber"])
    with pytest.raises(CheckFailed, match="`docker run` with guest on node1"):
        checks.ran(typed(*command.split()), "docker run", words=["guest"], place="node1")


def test_a_port_behind_an_address_does_not_hide_it() -> None:
    gone = typed("ipvsadm", "-d", "-f", "272", "-r", "10.0.1.250:0")
    checks.ran(gone, "ipvsadm -d", words=["10.0.1.250"])
    assert outcome(checks.ran, gone, "ipvsadm -d", words=["10.0.1.25"]) == "CheckFailed"


@pytest.mark.parametrize(("value", "measured"), [("28", 28), (["2"], [2]), ("4097 ", 16.5)])
def test_a_number_in_quotation_marks_is_told_as_that(value: object, measured: object) -> None:
    with pytest.raises(CheckFailed, match=r"is text\. Write a number, without quotation marks"):
        checks.equals(value, measured, name="the code")


@pytest.mark.parametrize(("value", "measured"), [("28", "28"), (28, 28.0), (["A "], ["a"])])
def test_what_is_written_as_it_was_measured_passes(value: object, measured: object) -> None:
    checks.equals(value, measured)


def test_a_range_is_told_by_its_ends() -> None:
    with pytest.raises(
        CheckFailed, match=r"^`tasks_found` should be a whole number from 0 to 999; found"
    ):
        checks.one_of("two", range(1000), name="tasks_found")


def test_no_choices_at_all_are_told() -> None:
    with pytest.raises(CheckFailed, match="should be one of ; found"):
        checks.one_of("two", [], name="the address")
