"""The table of a timeline, from what the watchers print."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from labkit.experiments.timeline import events_table, moments
from labkit.plots import timeline


def task(slot: int, address: str, *, state: str = "running", wanted: str = "running") -> dict[str, Any]:
    return {
        "slot": slot,
        "node": f"node{slot}",
        "state": state,
        "wanted": wanted,
        "container": f"c{address[-1]}" * 32,
        "addresses": [address],
    }


def swarm(at: float, tasks: dict[str, dict[str, Any]], **nodes: str) -> dict[str, Any]:
    shows = {"tasks": tasks, "nodes": nodes or {"node1": "ready", "node2": "ready"}}
    return {"source": "swarm", "at": at, "late": 0.4, "shows": shows}


@pytest.fixture
def line() -> pd.DataFrame:
    """Slot 2 crashes at 101 and comes back as 10.1.0.4; slot 3 had gone before."""
    old = {
        "t1": task(1, "10.1.0.2"),
        "t2": task(2, "10.1.0.3"),
        "t0": task(3, "10.1.0.9", state="shutdown", wanted="shutdown"),
    }
    new = old | {
        "t2": task(2, "10.1.0.3", state="failed", wanted="shutdown"),
        "t3": task(2, "10.1.0.4", state="starting"),
    }
    both = {"hello": ["10.1.0.8"], "tasks.hello": ["10.1.0.2", "10.1.0.3"]}
    one = {"hello": ["10.1.0.8"], "tasks.hello": ["10.1.0.2"]}
    lines: list[dict[str, Any]] = [
        swarm(99.0, old),
        {"source": "DNS", "at": 99.1, "late": 0.2, "shows": both},
        {"source": "IPVS", "at": 99.1, "late": 0.1, "shows": {"10.1.0.3": 1, "10.1.0.77": 1}},
        {"source": "request", "at": 99.5, "took": 0.1, "what": "answered", "container": "c3" * 6},
        {"source": "container", "at": 101.0, "what": "ended", "container": "c3" * 6},
        {"source": "container", "at": 101.0, "what": "ended", "container": "c9" * 6},
        {"source": "request", "at": 101.1, "took": 3.0, "what": "time-out", "container": None},
        {"source": "DNS", "at": 101.4, "late": 0.2, "shows": one},
        {"source": "IPVS", "at": 101.5, "late": 0.1, "shows": {"10.1.0.77": 1}},
        swarm(102.0, new, node1="ready", node2="down"),
        swarm(103.0, new | {"t3": task(2, "10.1.0.4")}, node1="ready", node2="down"),
    ]
    return events_table("hello", lines, began=100.0)


def test_only_what_changed_has_a_row_and_is_named_by_its_task(line: pd.DataFrame) -> None:
    seen = line[line["time_s"] > 0]
    rows = list(seen[["time_s", "source", "task", "what"]].itertuples(index=False, name=None))
    assert [row for row in rows if row[1] not in ("request", "node")] == [
        (1.0, "container", "hello.2", "ended"),
        (1.4, "DNS", "hello.2", "out"),
        (1.5, "IPVS", "hello.2", "out"),
        (2.0, "task", "hello.2", "failed"),
        (2.0, "task", "hello.2 new", "starting"),
        (3.0, "task", "hello.2 new", "running"),
    ]


def test_a_request_has_the_task_that_answered(line: pd.DataFrame) -> None:
    requests = line[line["source"] == "request"].set_index("time_s")
    assert requests.loc[-0.5, "task"] == "hello.2"
    assert pd.isna(requests.loc[1.1, "task"])
    assert requests.loc[1.1, "took_s"] == 3.0


def test_the_virtual_address_and_other_services_are_not_taken_for_tasks(line: pd.DataFrame) -> None:
    virtual = line[line["address"] == "10.1.0.8"]
    assert list(virtual["what"]) == ["in"]
    assert set(virtual["task"]) == {"virtual IP of hello"}
    assert "10.1.0.77" not in set(line["address"])
    assert "10.1.0.9" not in set(line["address"])


def test_moments(line: pd.DataFrame) -> None:
    when = moments(line)
    left = when.loc["hello.2"]
    assert (left["ended"], left["out_of_dns"], left["out_of_ipvs"]) == (1.0, 1.4, 1.5)
    assert left["in_dns"] < 0
    assert pd.isna(left["sigterm"])
    assert when.loc["node2", "down"] == 2.0


def test_what_nobody_told_of_has_no_bar() -> None:
    """A task that never gets healthy is in no DNS answer and in no IPVS: its lanes stay empty."""
    rows = [
        {"time_s": at, "source": source, "task": "web.1 new", "node": "node2", "what": what}
        for at, source, what in [(2.0, "container", "started"), (9.0, "container", "ended")]
    ]
    rows += [{"time_s": 12.0, "source": "request", "what": "answered"}]
    axes = timeline(pd.DataFrame(rows, columns=["time_s", "source", "task", "node", "what"]))
    lanes = [text.get_text() for text in axes.get_yticklabels()]
    (bar,) = axes.patches
    assert lanes[round(bar.get_y() + bar.get_height() / 2)] == "container"
    assert (bar.get_x(), bar.get_width()) == (2.0, 7.0)
