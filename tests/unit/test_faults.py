"""Faults can be told apart, and a learner's cases follow from the learner alone."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from labkit import faults, variants
from labkit.capture import Capture
from labkit.errors import UnknownNameError, UsageError
from labkit.faults import injection
from labkit.faults.fault import Step
from labkit.faults.testbed import Bench
from labkit.schema import schema_of


def test_each_fault_has_a_check_and_a_pattern_of_its_own() -> None:
    every = list(faults.FAULTS.values())
    assert len(every) >= 12
    assert len({fault.check for fault in every}) == len(every)
    assert len({frozenset(fault.red) for fault in every}) == len(every)
    assert {check for fault in every for check in (*fault.red, *fault.either)} <= set(faults.CHECKS)
    table = faults.signatures()
    assert table["red"].sum() == sum(len(fault.red) for fault in every)
    assert table["either"].sum() == sum(len(fault.either) for fault in every)
    assert not (table["red"] & table["either"]).any()
    # Lab 10 asks why: who does not get a short answer does not get a long one.
    assert {fault.id for fault in every if "far" in fault.red} < {
        fault.id for fault in every if "far-large" in fault.red
    }


def test_cases_are_faults_and_differ_between_learners() -> None:
    learners = [variants.of(f"learner-{n}") for n in range(40)]
    for number, choices in enumerate(faults.CASES, 1):
        given = [faults.of_case(you, number).id for you in learners]
        assert set(given) == set(choices)
        assert given == [faults.of_case(you, number).id for you in learners]
    with pytest.raises(UsageError, match="cases 1 to 3"):
        faults.of_case(learners[0], 4)


def test_an_unknown_fault_is_refused_with_the_nearest_ids() -> None:
    with pytest.raises(UnknownNameError, match="'vxlan-drop'; there are: vxlan-dropped, ") as caught:
        faults.of("vxlan-drop")
    assert "vxlan-dropped" in caught.value.hint


def test_a_case_does_not_say_what_it_is() -> None:
    for name, fault in faults.FAULTS.items():
        case = faults.Case.sealing(fault)
        assert name not in repr(case)
        assert case.is_called(f" {name} ")
        assert not case.is_called("something-else")


# --- what the checks of the bench read -----------------------------------------------------------


def bench() -> Bench:
    """Make a bench whose tasks have an address per network; nothing can be run on it."""
    tasks: Any = {
        name: SimpleNamespace(
            addresses={"bench-plain": f"10.0.9.{n}", "bench-secret": f"10.0.8.{n}"},
            node=SimpleNamespace(address=f"172.30.0.{n}"),
        )
        for n, name in enumerate(("asker", "front", "back"), 2)
    }
    lab: Any = SimpleNamespace(name="default")
    return Bench(lab, port=6000, labels={}, **tasks)


def found(check: str, stdout: str, **fields: Any) -> str:
    """Return what a check reads in the output of its command."""
    argv = {"neighbours": "ip neigh", "forwarding": "bridge fdb show dev vxlan0"}
    capture = Capture(
        argv=tuple(argv.get(check, "curl").split()),
        place="node1",
        node="node1",
        stdout=stdout,
        started=datetime(2026, 11, 22, tzinfo=UTC),
        seconds=0.1,
        docker="26.1.5",
        **{"code": 0, "stderr": ""} | fields,
    )
    return faults.CHECKS[check].found(bench(), capture)


@pytest.mark.parametrize(
    ("code", "word"), [(0, "answers"), (7, "not connected"), (28, "time-out"), (35, "exit code 35")]
)
def test_a_curl_for_many_urls_is_read_by_the_url(code: int, word: str) -> None:
    assert found("near", f"http://10.0.9.3:3000/ {code}\nhttp://10.0.9.4:3000/ 0\n", code=code) == word


def test_a_curl_that_printed_nothing_counts_by_its_own_exit_code() -> None:
    assert found("near", "", code=28) == "time-out"
    assert found("near", "", code=0) == "exit code 1"


def test_the_mac_address_is_the_one_that_libnetwork_makes() -> None:
    mac = "02:42:0a:00:09:04"
    assert faults.CHECKS["neighbours"].expected(bench()) == mac
    assert found("neighbours", f"10.0.9.4 dev vxlan0 lladdr {mac} PERMANENT\n") == mac
    assert found("neighbours", "") == "no entry"
    assert found("forwarding", f"{mac} dst 172.30.0.3 link-netnsid 0 self permanent\n") == "172.30.0.3"
    assert found("forwarding", "") == "no entry"


def test_names_and_idle_connections_are_read_without_their_noise() -> None:
    assert found("far-name", "10.0.9.4\n") == "10.0.9.4"
    assert found("far-name", ";; communications error: timed out\n") == "no address"
    assert found("idle", "answers\n") == "answers"
    reset = "Traceback …\nConnectionResetError: [Errno 104] Connection reset by peer\n"
    assert found("idle", "", code=1, stderr=reset) == "ConnectionResetError"


def test_front_and_the_other_services_are_counted_apart() -> None:
    rows = "asker 1/1\nfront 1/2\nback 1/1\ndoor 0/1\n"
    assert found("scale", rows) == "front 1/2"
    assert found("services", rows) == "door 0/1"
    assert found("services", "asker 1/1\nfront 1/2\n") == "all run"


# --- what the swarm remembers --------------------------------------------------------------------


class Configs:
    """The config objects of a swarm, as Docker's API lists, creates and removes them."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def configs(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        named = [(n, d) for n, d in self.rows.items() if n.startswith(filters["name"])]
        return [{"Spec": {"Name": name, "Data": data}} for name, data in named]

    def create_config(self, name: str, data: bytes) -> None:
        self.rows[name] = base64.b64encode(data).decode()


def test_the_undo_is_kept_in_the_swarm_last_step_first() -> None:
    api = Configs()
    lab: Any = SimpleNamespace(manager=SimpleNamespace(docker=SimpleNamespace(api=api)))
    place: Any = SimpleNamespace(node=SimpleNamespace(name="node3"), netns=None)
    steps = [Step(place, ["a"], ["undo", "a"]), Step(place, ["b"]), Step(place, ["c"], ["undo", "c"])]
    assert faults.injected(lab) is None
    injection._remember(lab, faults.of("esp-dropped"), True, steps)
    api.rows["labkit-fault-of-somebody"] = ""
    now = faults.injected(lab)
    assert now is not None
    assert (now.fault, now.secret) == ("esp-dropped", True)
    assert now.undo == [
        {"node": "node3", "netns": None, "argv": ["undo", "c"]},
        {"node": "node3", "netns": None, "argv": ["undo", "a"]},
    ]


def test_every_table_declares_its_columns() -> None:
    for table in (faults.examine, faults.signatures, faults.suspects):
        assert all(column.meaning for column in schema_of(table).columns)
    assert list(faults.suspects(1).columns) == ["fault", "title", "symptom"]
    assert faults.signatures().dtypes[["red", "either"]].tolist() == ["boolean", "boolean"]
