"""Every fault: its evidence comes, its checks and no others go red, and healed all are green again.

How often each is tried is said by LABKIT_FAULT_ROUNDS; once where it is not set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from labkit import faults, swarm, variants
from labkit.errors import UsageError
from labkit.faults import injection
from labkit.faults.health import wait_until_green
from tests.conftest import LAB, Command

ROUNDS = range(int(os.environ.get("LABKIT_FAULT_ROUNDS", "1")))


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


def red(lab: swarm.Lab) -> set[str]:
    """The checks that are red now."""
    seen = faults.examine(lab)
    return set(seen[~seen["ok"]]["check"])


@pytest.mark.parametrize("fault", faults.FAULTS.values(), ids=list(faults.FAULTS))
@pytest.mark.parametrize("trial", ROUNDS)
def test_fault(bench: swarm.Lab, trial: int, fault: faults.Fault) -> None:
    assert faults.inject(bench, fault.id).is_called(fault.id)  # ends when this very fault is seen
    assert red(bench) - {*fault.either} == {*fault.red}
    faults.heal(bench)  # ends when every check is green
    assert not fault.shows(fault.evidence(faults.find(bench)))
    assert faults.injected(bench) is None


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
    never = faults.Fault("never", "", "", ("far",), faults.of("esp-dropped").steps, lambda _: [], bool)
    monkeypatch.setitem(faults.FAULTS, "never", never)
    with pytest.raises(Exception, match="the evidence of never"):
        faults.inject(bench, "never")
    assert faults.injected(bench) is None
    assert faults.COMMENT not in bench.node("node3").run("iptables -S").text


def test_the_same_case_twice_is_one_and_another_is_refused(bench: swarm.Lab) -> None:
    you = variants.of("ada")
    case = faults.inject_case(bench, you, 3)
    assert faults.inject_case(bench, you, 3) == case
    with pytest.raises(UsageError, match="one at a time"):
        faults.inject_case(bench, you, 1)
    faults.heal(bench)
