"""Faults: the evidence comes, its checks and no others go red, and mended all are as before.

One of each kind is tried. LABKIT_FAULT_ROUNDS asks for every fault, so many times; `make soak` does it
on every version.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from labkit import diagnosis, faults, swarm
from labkit.errors import UsageError
from labkit.faults import condition, incidents, injection
from labkit.faults.health import red_checks, wait_until_green
from tests import BIN
from tests.conftest import LAB, Command

ROUNDS = int(os.environ.get("LABKIT_FAULT_ROUNDS", "0"))
ONE_OF_EACH = [
    "alias-shared",  # a service too many
    "dead-backend",  # IPVS
    "gossip-dropped",  # what all nodes know
    "names-lost",  # a task's own rules
    "subnets-overlap",  # a network and a service
    "unmarked",  # what is not encrypted
    "unshared-network",  # a label
    "vxlan-dropped",  # a whole node
]


DIAGNOSED = ONE_OF_EACH[::2]  # each takes a quarter of a minute in emulation; all: `make soak`


@pytest.fixture(scope="module")
def bench(lab: swarm.Lab) -> Iterator[swarm.Lab]:
    """The swarm with the bench on it."""
    lab.keep_only()
    faults.stage(lab)
    yield lab
    faults.heal(lab)
    lab.clean()


@pytest.fixture(autouse=True)
def nothing_left(bench: swarm.Lab) -> Iterator[None]:
    """A test that fails leaves no fault to the next one."""
    yield
    if faults.injected(bench):
        faults.heal(bench)


def wait_until_named(bench: swarm.Lab, fault: str) -> None:
    """Wait until a diagnosis, which is not told of the fault, names it and nothing else."""

    def look() -> tuple[bool, str]:
        told = diagnosis.findings(bench)
        return {finding.fault for finding in told} == {fault}, f"findings: {told}"

    bench.wait_for(f"the diagnosis of {fault}", look, seconds=60)


def test_a_healthy_swarm_has_no_finding(bench: swarm.Lab, labkit: Command) -> None:
    done = labkit("diagnose", "--lab", LAB)
    assert (done.returncode, done.stdout) == (
        0,
        "nothing is wrong that can be seen in its tables, rules and tasks\n",
    )


@pytest.mark.parametrize("name", list(faults.FAULTS) * ROUNDS or ONE_OF_EACH)
def test_fault(bench: swarm.Lab, name: str) -> None:
    fault = faults.of(name)
    before = condition.of(bench)
    faults.inject(bench, fault.id)  # ends when this very fault is seen
    found: dict[str, str] = {}

    def looks_like_it() -> tuple[bool, str]:  # one look on a busy machine can miss a check's time
        found.clear()
        found.update(red_checks(bench))
        return fault.fits(found), f"red: {found}"

    bench.wait_for(f"the checks of {fault.id}", looks_like_it, seconds=60)
    assert [other.id for other in faults.FAULTS.values() if other.fits(found)] == [fault.id]
    if ROUNDS or name in DIAGNOSED:
        wait_until_named(bench, fault.id)
    faults.heal(bench)  # by its remedy; ends when every check is green
    assert not fault.shows(fault.evidence(faults.find(bench)))
    assert faults.injected(bench) is None
    assert condition.changes(before, condition.of(bench), remade=fault.remade) == []


def test_a_fault_is_mended_by_another_process_and_twice(bench: swarm.Lab, labkit: Command) -> None:
    done = labkit("fault", "inject", "stale-fdb", "--secret", "--lab", LAB, "--json")
    assert json.loads(done.stdout)["fault"] is None
    assert "stale" not in done.stdout + done.stderr
    told = json.loads(labkit("fault", "list", "--lab", LAB, "--json").stdout)
    assert told["injected"] == {"fault": None, "secret": True}
    again = labkit("fault", "inject", "wrong-port", "--lab", LAB)
    assert again.returncode == 2
    assert "a secret fault is injected already" in again.stderr
    assert f"labkit fault heal --lab {LAB}" in again.stderr
    checked = labkit("fault", "check", "--lab", LAB, "--json")
    assert checked.returncode == 1
    rows = {row["check"]: row["ok"] for row in json.loads(checked.stdout)}
    assert {name for name, ok in rows.items() if not ok} == set(faults.of("stale-fdb").red)
    named = labkit("diagnose", "--lab", LAB)
    assert named.returncode == 1
    assert "on purpose: labkit fault inject stale-fdb" in " ".join(named.stdout.split())
    for healed in (True, False):
        done = labkit("fault", "heal", "--lab", LAB, "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout)["healed"] is healed


def test_what_was_mended_by_hand_is_healed_without_harm(bench: swarm.Lab) -> None:
    faults.inject(bench, "esp-dropped")
    node = bench.node("node3")
    (rule,) = [x for x in node.run("iptables -S INPUT").lines if faults.COMMENT in x]
    node.run(f"iptables -D {rule.removeprefix('-A ')}").check()
    wait_until_green(bench)
    healed = faults.heal(bench)
    assert healed is not None
    assert healed["ok"].all()


def test_a_fault_that_does_not_come_about_is_undone(
    bench: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(injection, "_SHOWN_SECONDS", 0.0)
    never = dataclasses.replace(faults.of("esp-dropped"), id="never", evidence=lambda _: [], shows=bool)
    monkeypatch.setitem(faults.FAULTS, "never", never)
    with pytest.raises(Exception, match="the evidence of never"):
        faults.inject(bench, "never")
    assert faults.injected(bench) is None
    assert faults.COMMENT not in bench.node("node3").run("iptables -S").text


def test_an_incident_is_mended_by_hand_and_the_swarm_judges(bench: swarm.Lab) -> None:
    fault = faults.of("stale-fdb")
    incident = faults.open_incident(bench, fault)
    assert fault.complaint in str(incident)
    assert faults.open_incident(bench, fault).complaint == fault.complaint  # the cell runs twice
    with pytest.raises(UsageError, match="one at a time"):
        faults.open_incident(bench, faults.of("wrong-port"))
    assert "forwarding" in incident.hint()
    assert incident.looks == 0
    overlay = bench.node("node1").overlay("bench-plain")
    overlay.run("bridge fdb show dev vxlan0")
    looks = incident.looks
    assert looks >= 1
    for place, argv in faults.remedy(bench):
        place.run(argv).check()
    rule = "-p udp --dport 9 -j ACCEPT"
    bench.node("node2").run(f"iptables -A INPUT {rule}").check()
    closed = faults.close_incident(incident)
    bench.node("node2").run(f"iptables -D INPUT {rule}").check()
    assert closed.mended
    assert closed.hints == 1
    assert closed.looks > looks
    assert [line for line in closed.changes if "dport 9" in line]
    assert (closed.cause, closed.source) == (fault.title, fault.source)
    assert any("bridge fdb replace" in line for line in closed.commands)
    assert faults.close_incident(incident) is closed
    assert faults.injected(bench) is None


def test_what_is_not_mended_by_hand_is_not_mended(
    bench: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "_JUDGED_SECONDS", 1.0)
    incident = faults.open_incident(bench, faults.of("wrong-port"))
    closed = faults.close_incident(incident)
    assert (closed.mended, list(closed.red), closed.cause) == (False, ["call"], "")
    faults.heal(bench)
    assert not faults.close_incident(incident).mended


def test_an_incident_is_played_in_a_terminal(bench: swarm.Lab) -> None:
    typed = "help\nnode1 docker service ls\nasker.1 curl -m 2 http://front:3000\nnode9 true\nhint\n"
    typed += "asker.1/net ip -br addr\nnode1/bench-plain bridge fdb show dev vxlan0\ngive up\n"
    argv = [BIN, "fault", "play", "--level", "1", "--lab", LAB]
    done = subprocess.run(argv, input=typed, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "A user says: " in done.stdout
    assert "no node is called 'node9'" in done.stdout
    assert "Of the checks of the bench these are red" in done.stdout
    assert "It was: " in done.stdout
    assert faults.injected(bench) is None
