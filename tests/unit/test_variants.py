"""A learner's variant: the same for the same id, another for another."""

from __future__ import annotations

import ipaddress

import pytest

import labkit
from labkit.errors import UsageError


def test_the_same_id_gives_the_same_variant() -> None:
    assert labkit.variant("ada") == labkit.variant("ada")


def test_thirty_learners_share_no_port_and_subnet() -> None:
    made = [labkit.variant(f"learner{number}") for number in range(30)]
    assert len({(v.port, v.subnet) for v in made}) == 30
    assert len({v.service for v in made}) > 10


@pytest.mark.parametrize("learner", [f"learner{number}" for number in range(50)])
def test_every_variant_is_one_that_a_swarm_can_run(learner: str) -> None:
    mine = labkit.variant(learner)
    subnet = ipaddress.ip_network(mine.subnet)
    assert subnet.prefixlen == 24
    assert not subnet.overlaps(ipaddress.ip_network("10.0.0.0/10"))  # Swarm hands these out
    assert str(subnet).startswith(mine.address_prefix)
    assert 5100 <= mine.port < 6000
    assert mine.requests % mine.replicas == 0


def test_the_id_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_LEARNER", "grace")
    assert labkit.variant().learner == "grace"


@pytest.mark.parametrize("learner", ["../x", "a b", "-", "x" * 65])
def test_an_id_that_cannot_name_a_folder_is_refused(learner: str) -> None:
    with pytest.raises(UsageError, match="learner's id"):
        labkit.variant(learner)
