"""The library and `labkit exec` as an impatient person uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from labkit import experiments, swarm
from labkit.errors import SwarmError, UsageError
from labkit.transport.base import TaskReplaced
from tests import BIN
from tests.conftest import LAB, Command

SEEN = "id; pwd; cat /proc/self/cgroup; umask; env | sort; grep Cap /proc/self/status"


@pytest.fixture(scope="module")
def box(lab: swarm.Lab) -> Iterator[swarm.Task]:
    """A task with settings of its own, of a service with a name that is a type of DNS records."""
    settings = "--env FOO=bar --workdir /tmp --user www-data --restart-delay 1s"
    lab.network("use")
    lab.service("a", networks="use", options=f"{settings} --constraint node.hostname==node1")
    (task,) = lab.tasks("a")
    yield task
    lab.keep_only()


def test_a_tasks_command_sees_what_docker_exec_sees(box: swarm.Task) -> None:
    ours = box.run(["sh", "-c", SEEN]).check().stdout
    theirs = box.node.run(["docker", "exec", box.container, "sh", "-c", SEEN]).check().stdout
    assert "FOO=bar" in ours
    assert ours == theirs


def test_ctrl_c_ends_commands_in_node_and_task(lab: swarm.Lab, box: swarm.Task) -> None:
    box.run(["true"]).check()  # what is found out of a container is known from now on
    sleeping = [(place, ["sleep", "7777"]) for place in (box.place, box.node.place)]
    threading.Timer(5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        lab.run_all(sleeping, timeout=300)
    assert box.node.run(["pgrep", "-fx", "sleep 7777"]).code == 1


def test_a_replaced_task_is_named_and_nothing_runs_there(lab: swarm.Lab, box: swarm.Task) -> None:
    box.node.run(["docker", "rm", "--force", box.container]).check()
    for place in (box.place, box.sandbox):
        with pytest.raises(TaskReplaced, match=r"a\.1 was replaced"):
            place.run("hostname")
    lab.wait_for_tasks("a", 1)


def test_an_image_that_is_nowhere_is_told_at_once(lab: swarm.Lab) -> None:
    with pytest.raises(SwarmError, match="No such image: nowhere"):
        lab.service("lost", image="nowhere")
    with pytest.raises(SwarmError, match="a task of lost cannot start"):
        lab.wait_for_answers("lost")
    lab.remove_service("lost")


def test_a_network_of_somebody_else_is_taken_or_refused(lab: swarm.Lab) -> None:
    with pytest.raises(UsageError, match=r"'ingress' already .* for the routing mesh"):
        lab.network("ingress")
    lab.manager.run("docker network create theirs").check()
    try:
        with pytest.raises(UsageError, match="driver bridge"):
            lab.network("theirs")
    finally:
        lab.manager.run("docker network rm theirs").check()


def test_a_name_that_is_a_type_of_records_is_asked_as_a_name(lab: swarm.Lab) -> None:
    (task,) = lab.tasks("a")  # an earlier test has replaced the first one
    table = experiments.lookups(lab, task, "a")
    assert list(table["name"]) == ["a"]
    assert list(table["status"]) == ["NOERROR"]


def test_exec_passes_input_on_and_gives_its_hints(lab: swarm.Lab, labkit: Command) -> None:
    command = [BIN, "exec", "--lab", LAB, "node1", "--", "sh", "-c", "wc -c; echo end >&2; exit 3"]
    done = subprocess.run(command, input="x" * 100_000, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (3, "100000", "end\n")
    told = labkit("exec", "--lab", LAB, "node1", "docker", "ps", "-a")
    assert told.returncode == 2
    assert "labkit exec --lab live-tests node1 -- docker ps -a" in told.stderr
    told = labkit("exec", "--lab", LAB, "node1", "docker service ls | head -1")
    assert told.returncode == 2
    assert "sh -c" in told.stderr


def test_exec_shows_lines_as_they_come_and_ends_with_its_caller(lab: swarm.Lab) -> None:
    command = [BIN, "exec", "--lab", LAB, "node1", "--", "sh", "-c", "echo first; exec sleep 8888"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout
        assert one.stdout.readline() == "first\n"
        one.kill()

    def look() -> tuple[bool, str]:
        left = lab.manager.run(["pgrep", "-fx", "sleep 8888"])
        return left.code == 1, left.text

    swarm.wait_for("the command to end with its caller", look, seconds=30)
