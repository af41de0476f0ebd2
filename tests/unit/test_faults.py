"""Faults can be told apart, and a learner's incidents follow from the learner alone."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import re
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from labkit import faults, variants
from labkit.capture import Capture
from labkit.engines.base import MADE_BY
from labkit.errors import UnknownNameError, UsageError
from labkit.faults import condition, deployments, injection
from labkit.faults.fault import Step
from labkit.faults.testbed import Bench
from labkit.schema import schema_of


def may_be_red(fault: faults.Fault) -> set[frozenset[str]]:
    """All sets of checks that a fault may turn red."""
    sizes = range(len(fault.either) + 1)
    some = itertools.chain.from_iterable(itertools.combinations(fault.either, size) for size in sizes)
    return {frozenset({*fault.red, *more}) for more in some}


def test_no_two_faults_have_one_signature() -> None:
    every = list(faults.FAULTS.values())
    assert len(every) >= 24
    for one, other in itertools.combinations(every, 2):
        if may_be_red(one) & may_be_red(other):  # then what the checks found tells them apart
            both = one.says.keys() & other.says.keys()
            assert any(one.says[check] != other.says[check] for check in both), (one.id, other.id)


def test_the_table_of_signatures_is_that_of_the_faults() -> None:
    every = list(faults.FAULTS.values())
    assert {check for fault in every for check in (*fault.red, *fault.either)} <= set(faults.CHECKS)
    table = faults.signatures()
    assert table["red"].sum() == sum(len(fault.red) for fault in every)
    assert table["either"].sum() == sum(len(fault.either) for fault in every)
    assert not (table["red"] & table["either"]).any()
    # Lab 10 asks why: who does not get a short answer does not get a long one.
    assert {fault.id for fault in every if "far" in fault.red} < {
        fault.id for fault in every if "far-large" in fault.red
    }


def test_a_fault_is_known_by_its_red_checks_and_what_they_found() -> None:
    port, unshared = faults.of("wrong-port"), faults.of("unshared-network")
    assert port.fits({"call": "not connected: front:6000"})
    assert not unshared.fits({"call": "not connected: front:6000"})
    assert unshared.fits({"call": "time-out: 10.250.0.5:3000"})
    assert not port.fits({})
    assert not port.fits({"call": "not connected: front:6000", "near": "time-out"})
    dead = faults.of("dead-backend")
    assert dead.fits({"name": "2 of 4 answer"})
    assert dead.fits({"name": "2 of 4 answer", "idle": "time-out"})


def test_each_fault_says_what_people_need_of_it() -> None:
    for fault in faults.FAULTS.values():
        assert fault.level in faults.LEVELS
        assert len(fault.complaint) > 30
        assert not fault.complaint.endswith((".", "!"))
        assert re.search(r"#\d+|docs\.docker\.com", fault.source), fault.id
        assert len(fault.remedy) > 20
        # A complaint is a user's: it names nothing that only the cause has.
        assert fault.id not in fault.complaint


def test_incidents_follow_from_the_learner_and_cover_every_fault() -> None:
    learners = [variants.of(f"learner-{n}") for n in range(400)]
    given = {level: [faults.of_learner(you, level) for you in learners] for level in faults.LEVELS}
    assert {fault.id for found in given.values() for fault in found} == set(faults.FAULTS)
    for level, found in given.items():
        assert {fault.level for fault in found} == {level}
        assert [faults.of_learner(you, level) for you in learners[:9]] == found[:9]
    with pytest.raises(UsageError, match="levels 1 to 3"):
        faults.of_learner(learners[0], 4)


def test_an_unknown_fault_is_refused_with_the_nearest_ids() -> None:
    with pytest.raises(UnknownNameError, match="'vxlan-drop'; there are: vxlan-dropped, ") as caught:
        faults.of("vxlan-drop")
    assert "vxlan-dropped" in caught.value.hint


def closed(**fields: Any) -> faults.Closed:
    """Return the end of an incident of level 1."""
    ended: dict[str, Any] = {"mended": True, "red": {}, "changes": [], "looks": 5, "hints": 0}
    return faults.Closed(level=1, **ended | fields)


@pytest.mark.parametrize(
    ("fields", "stars", "said"),
    [
        ({}, 3, "★★★"),
        ({"looks": 30}, 2, "★★☆"),
        ({"hints": 1}, 2, "★★☆"),
        ({"changes": ["gone: task back.1: 0123"], "looks": 30}, 1, "gone: task back.1"),
        ({"mended": False, "red": {"far": "time-out"}}, 0, "The incident goes on"),
        ({"mended": False}, 0, "the kit has undone it"),
    ],
)
def test_the_stars_of_an_incident(fields: dict[str, Any], stars: int, said: str) -> None:
    assert closed(**fields).stars == stars
    assert said in str(closed(**fields))


def test_what_was_changed_besides_is_told_but_not_what_the_remedy_makes_anew() -> None:
    before = ["service door: as 1", "task door.1: aa", "task back.1: bb", "node1: nat -A X"]
    after = ["service door: as 2", "task door.1: cc", "task back.1: dd", "node1: nat -A X"]
    assert condition.changes(before, before) == []
    assert condition.changes(before, after, remade=("door",)) == [
        "gone: task back.1: bb",
        "new: task back.1: dd",
    ]


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
    return Bench(lab, port=6000, vip="10.0.9.9", labels={}, **tasks)


def found(check: str, stdout: str, **fields: Any) -> str:
    """Return what a check reads in the output of its command."""
    argv = {"neighbours": "ip neigh", "forwarding": "bridge fdb show dev vxlan0"}
    return faults.CHECKS[check].found(bench(), capture_of(argv.get(check, "curl"), stdout, **fields))


def capture_of(command: str, stdout: str, **fields: Any) -> Capture:
    """Return what a command on node1 printed."""
    return Capture(
        argv=tuple(command.split()),
        place="node1",
        node="node1",
        stdout=stdout,
        started=datetime(2026, 11, 22, tzinfo=UTC),
        seconds=0.1,
        docker="26.1.5",
        **{"code": 0, "stderr": ""} | fields,
    )


@pytest.mark.parametrize(
    ("code", "word"), [(0, "answers"), (7, "not connected"), (28, "time-out"), (35, "exit code 35")]
)
def test_a_curl_for_many_urls_is_read_by_the_url(code: int, word: str) -> None:
    lines = f"http://10.0.9.3:3000/ {code} 0.000000\nhttp://10.0.9.4:3000/ 0 0.001000\n"
    assert found("near", lines, code=code) == word


def test_a_connection_without_an_answer_is_another_word() -> None:
    assert found("near", "http://10.0.9.3:3000/ 28 0.002000\n", code=28) == "connected, silent"


def test_the_url_of_a_label_is_told_where_it_is_not_answered() -> None:
    url, stands = "http://door:3000/", bench()
    asked = dataclasses.replace(stands, labels={"asker": {"labkit.calls": url}})
    read = faults.CHECKS["call"].found
    assert read(asked, capture_of("curl", f"{url} 0 0.1\n")) == "answers"
    assert read(asked, capture_of("curl", f"{url} 6 0.0\n", code=6)) == "name unknown: door:3000"


def test_requests_by_name_are_counted() -> None:
    lines = [f"http://front:3000/bytes/{n} {0 if n % 2 else 28} 0.1" for n in (1, 2, 3, 4)]
    assert found("name", "\n".join(lines), code=28) == "2 of 4 answer"
    assert found("name", "", code=6) == "0 of 4 answer"


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
    answers = "tasks.back.bench-plain. 600 IN A 10.0.9.4\nfront. 600 IN A 10.0.9.9\n"
    assert found("far-name", answers) == "10.0.9.4"
    assert found("front-name", answers + "front. 600 IN A 10.0.9.2\n") == "10.0.9.2, 10.0.9.9"
    assert found("far-name", ";; communications error: timed out\n") == "no address"
    assert found("idle", "answers\n") == "answers"
    reset = "Traceback …\nConnectionResetError: [Errno 104] Connection reset by peer\n"
    assert found("idle", "", code=1, stderr=reset) == "ConnectionResetError"


def test_front_and_the_other_services_are_counted_apart() -> None:
    rows = "asker 1/1\nfront 1/2\nback 1/1\ndoor 0/1\n"
    assert found("scale", rows) == "front 1/2"
    assert found("services", rows) == "door 0/1"
    assert found("services", "asker 1/1\nfront 1/2\nback 1/1\n") == "door missing"


def test_tasks_that_do_not_run_are_told_with_swarms_reason() -> None:
    rows = [
        "front.1 Running 5 minutes ago ",
        'late.1 Pending 3 seconds ago "no suitable node (insufficient resources on 3 nodes)"',
        "front.2 New 2 seconds ago ",
    ]
    pending = "late.1 Pending: no suitable node (insufficient resources on 3 nodes)"
    assert found("states", "\n".join(rows)) == f"front.2 New; {pending}"
    assert found("states", rows[0]) == "all run"


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

    def remove_config(self, name: str) -> None:
        del self.rows[name]


def test_the_undo_is_kept_in_the_swarm_last_step_first(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Configs()
    told: list[Any] = []
    lab: Any = SimpleNamespace(
        manager=SimpleNamespace(docker=SimpleNamespace(api=api)),
        engine=SimpleNamespace(machines=SimpleNamespace(broken=told.append)),
        node=lambda _: SimpleNamespace(hostname="gamma"),
    )
    monkeypatch.setattr(condition, "of", lambda _: ["node1: nat -A X"])
    place: Any = SimpleNamespace(node=SimpleNamespace(name="node3"), label="node3", netns=None)
    steps = [Step(place, ["a"], ["undo", "a"]), Step(place, ["b"]), Step(place, ["c"], ["undo", "c"])]
    assert faults.injected(lab) is None
    injection._remember(lab, faults.of("esp-dropped"), True, steps)
    api.rows["labkit-fault-of-somebody"] = ""
    now = faults.injected(lab)
    assert now is not None
    assert (now.fault, now.secret, now.before) == ("esp-dropped", True, ["node1: nat -A X"])
    assert now.undo == [
        {"node": "node3", "place": "node3", "netns": None, "argv": ["undo", "c"]},
        {"node": "node3", "place": "node3", "netns": None, "argv": ["undo", "a"]},
    ]
    injection.forget(lab)
    assert faults.injected(lab) is None
    assert told == [[{**step, "node": "gamma"} for step in now.undo], []]  # machines outlive the swarm


def test_what_a_fault_deploys_has_labkits_label() -> None:
    """In a swarm that is not labkit's nothing else says whose it is."""
    row = {"Name": "bench-plain", "IPAM": {"Config": [{"Subnet": "10.0.9.0/24"}]}}
    api = SimpleNamespace(networks=lambda names: [row])
    node = SimpleNamespace(hostname="node2", place=None, docker=SimpleNamespace(api=api))
    bench: Any = SimpleNamespace(lab=SimpleNamespace(manager=node), nodes=[node] * 3, port=7000)
    steps = [*deployments._late()(bench), *deployments._overlap(bench)]
    made = [step.do for step in steps if step.do]
    assert [argv[1] for argv in made] == ["service", "network", "service"]
    assert all(f"{MADE_BY}=labkit fault inject" in argv for argv in made)


def test_every_table_declares_its_columns() -> None:
    for table in (faults.examine, faults.signatures):
        assert all(column.meaning for column in schema_of(table).columns)
    assert faults.signatures().dtypes[["red", "either"]].tolist() == ["boolean", "boolean"]
