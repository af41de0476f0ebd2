"""Which of Swarm's words on a task mean that waiting is of no use."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.errors import SwarmError, UsageError
from labkit.swarm import obstacles
from tests.unit.fakes import Toy


def task(state: str, err: str = "", *, at: int = 0, slot: int = 1, spec: str = "now") -> dict[str, Any]:
    return {
        "Slot": slot,
        "CreatedAt": f"2026-01-01T00:00:{at:02}Z",
        "Spec": {"image": spec},
        "Status": {"State": state, "Err": err},
    }


NO_IMAGE = task("rejected", "No such image: nowhere:latest")
POOL = "invalid pool request: Pool overlaps with other one on this address space"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([NO_IMAGE, task("preparing", at=1)], "rejected: No such image: nowhere:latest"),
        ([task("rejected", POOL, at=n) for n in range(3)], f"rejected: {POOL}"),
        ([task("rejected", POOL, at=n) for n in range(2)], ""),
        ([task("rejected", POOL, slot=n) for n in range(40)], ""),
        ([task("failed", "task: non-zero exit (1)", at=n) for n in range(5)], ""),
        ([NO_IMAGE, task("running", at=1)], ""),
        ([task("rejected", "No such image: x", spec="before"), task("preparing", at=1)], ""),
        ([task("pending"), task("starting", slot=2)], ""),
        ([], ""),
    ],
)
def test_only_what_no_new_try_mends_is_an_obstacle(rows: list[dict[str, Any]], found: str) -> None:
    assert obstacles.obstacle(rows) == found


def test_a_stopped_update_has_the_words_of_the_last_task() -> None:
    told = obstacles.stopped(
        {"State": "paused", "Message": "update paused"}, [task("rejected", "No such image: x")]
    )
    assert told == "paused: update paused (No such image: x)"


def test_another_label_keeps_the_tasks_and_another_image_does_not() -> None:
    spec = {"TaskTemplate": {"image": 1}, "EndpointSpec": {}}
    assert obstacles.keeps_tasks({"Spec": {**spec, "Labels": {"a": "b"}}, "PreviousSpec": spec})
    assert not obstacles.keeps_tasks({"Spec": {**spec, "TaskTemplate": {}}, "PreviousSpec": spec})
    assert not obstacles.keeps_tasks({"Spec": spec})


def test_a_wait_for_a_service_whose_image_is_nowhere_ends_at_once() -> None:
    toy = Toy()
    toy.tasks = lambda name: [NO_IMAGE | {"NodeID": "n1"}]  # type: ignore[method-assign]
    with pytest.raises(SwarmError, match="a task of a cannot start: rejected: No such image"):
        toy.lab.service("a")
    with pytest.raises(SwarmError, match="No such image"):
        toy.lab.wait_for_answers("a")


def test_no_answers_are_waited_for_where_no_task_is_wanted() -> None:
    toy = Toy()
    toy.lab.service("a", replicas=0)
    toy.services["a"]["Spec"]["Mode"] = {"Replicated": {"Replicas": 0}}
    with pytest.raises(UsageError, match="a is to have no task"):
        toy.lab.wait_for_answers("a")


def test_a_service_is_not_asked_before_it_has_all_its_tasks() -> None:
    toy = Toy()
    toy.lab.service("a", replicas=2)
    toy.services["a"]["Spec"]["Mode"] = {"Replicated": {"Replicas": 2}}
    both = toy.tasks("a")
    looks = iter([both[:1], both[:1]])
    toy.tasks = lambda name: next(looks, both)  # type: ignore[method-assign]
    assert [task.slot for task in toy.lab.wait_for_answers("a")] == [1, 2]


def test_a_manager_that_is_too_busy_is_asked_again() -> None:
    toy = Toy()
    answer, busy = toy.nodes["node1"].api, iter([1, 1])

    def api(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if "/tasks" in path and next(busy, 0):
            return 500, "application/json", b'{"message": "rpc error: DeadlineExceeded"}'
        return answer(method, path, body)

    toy.nodes["node1"].api = api
    toy.lab.service("a")
    assert next(busy, 0) == 0
