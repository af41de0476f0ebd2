"""One look at a swarm: its rows, its pictures, and the widget that shows one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from IPython.core.formatters import DisplayFormatter

from labkit import panel, swarm
from labkit.errors import UnknownNameError
from labkit.panel.widgets import SwarmWidget
from labkit.swarm.watch import State
from tests.unit.fakes import lab_that_is_looked_at


@pytest.fixture
def lab() -> Iterator[swarm.Lab]:
    made = lab_that_is_looked_at()
    yield made
    made.close()


def test_a_look_has_what_people_look_for_in_order(lab: swarm.Lab) -> None:
    seen = lab.look()
    first, second = seen.nodes
    assert (first.name, first.leader, first.availability) == ("node1", True, "drain")
    assert (second.name, second.role, second.address) == ("node2", "worker", "172.30.0.3")
    assert [(row.name, row.subnet, row.ingress, row.encrypted) for row in seen.networks] == [
        ("both", "10.1.0.0/24", False, True),
        ("ingress", "10.0.0.0/24", True, False),
    ]
    (web,) = seen.services
    assert (web.running, web.wanted, web.mode) == (1, 2, "replicated")
    assert web.addresses == {"both": "10.1.0.2"}
    assert web.ports == ("8080->3000/tcp",)
    # The newest of each slot, and no more than two of those that have ended.
    shown = [(row.name, row.state, row.error) for row in seen.tasks]
    assert shown == [
        ("web.1", "running", ""),
        ("web.1", "failed", "exit 3"),
        ("web.1", "failed", "exit 2"),
        ("web.2", "preparing", ""),
    ]
    assert seen.moves


def test_a_look_prints_as_a_picture(lab: swarm.Lab) -> None:
    assert str(lab.look()).splitlines() == [
        "● node1 manager, leader, ready, drained, 172.30.0.2",
        "● node2 worker, ready, 172.30.0.3",
        "    ● web.1 running: 10.0.0.5 on ingress",
        "    ▲ web.1 failed: exit 3",
        "    ▲ web.1 failed: exit 2",
        "    ◐ web.2 preparing, to be running",
        "Service web: 1 of 2 run; published: 8080->3000/tcp; virtual IP 10.1.0.2 on both",
        "Overlay both: 10.1.0.0/24, encrypted",
        "Overlay ingress: 10.0.0.0/24, the routing mesh",
    ]


def test_nothing_that_the_swarm_says_becomes_html(lab: swarm.Lab) -> None:
    seen = lab.look()
    tasks = tuple(replace(task, error="<img src=x>") for task in seen.tasks)
    shown = replace(seen, tasks=tasks)._repr_html_()
    assert "&lt;img" in shown
    assert "<img" not in shown


def test_the_widget_looks_while_it_is_shown(monkeypatch: pytest.MonkeyPatch, lab: swarm.Lab) -> None:
    did: list[str] = []
    monkeypatch.setattr("labkit.swarm.watch.Watch.ask", lambda _, seconds: did.append("ask"))
    monkeypatch.setattr("labkit.swarm.watch.Watch.rest", lambda _: did.append("rest"))
    monkeypatch.setattr("labkit.swarm.lifecycle.get", lambda _: lab)
    widget = panel.swarm(lab)
    data, _ = DisplayFormatter().format(widget)
    assert "web.1 running" in data["text/html"]
    assert "● Your swarm is up." in data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert not did
    widget.shown = True
    widget.shown = False
    assert did == ["ask", "rest"]
    widget._take(State("default", "lost", "it <b>broke</b>", "labkit reset"))
    assert "Your swarm does not answer" in widget.picture
    assert "it &lt;b&gt;broke" in widget.picture
    widget.close()


def test_on_a_replay_the_widget_says_that_nothing_runs(lab: swarm.Lab) -> None:
    widget = panel.swarm(replace(lab, learner="ada"))
    assert isinstance(widget, SwarmWidget)
    assert "You work with recorded answers" in widget.picture
    widget.shown = True  # and nothing is looked for
    widget.close()


def test_a_lab_that_does_not_run_is_told(lab: swarm.Lab) -> None:
    with pytest.raises(UnknownNameError, match="no running lab is called 'nobody'"):
        panel.swarm(replace(lab, name="nobody"))
