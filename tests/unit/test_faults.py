"""Faults can be told apart, and a learner's cases follow from the learner alone."""

from __future__ import annotations

import pytest

from labkit import faults, variants
from labkit.errors import UnknownNameError, UsageError


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


def test_an_unknown_fault_is_answered_with_what_may_have_been_meant() -> None:
    with pytest.raises(UnknownNameError, match="'vxlan-drop'; there are: vxlan-dropped, ") as caught:
        faults.of("vxlan-drop")
    assert "vxlan-dropped" in caught.value.hint


def test_a_case_does_not_say_what_it_is() -> None:
    for name, fault in faults.FAULTS.items():
        case = faults.Case.sealing(fault)
        assert name not in repr(case)
        assert case.is_called(f" {name} ")
        assert not case.is_called("something-else")
