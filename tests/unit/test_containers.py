"""A task's commands: as `docker exec` would run them, and never where the container is not."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
from typing import Any

import pytest

from labkit.errors import WaitTimeout
from labkit.swarm import places
from labkit.transport import containers
from labkit.transport.base import DaemonError, NodeUnreachable, TaskReplaced
from tests.unit.fakes import Toy

PASSWD = ["root:x:0:0:root:/root:/bin/sh", "www:x:33:34:www:/var/www:/bin/sh"]
GROUP = ["root:x:0:", "www:x:34:", "media:x:50:www,other", "staff:x:60:"]


@pytest.mark.parametrize(
    ("user", "who"),
    [
        ("", (0, 0, (), "/root")),
        ("www", (33, 34, (50,), "/var/www")),
        ("33", (33, 34, (50,), "/var/www")),
        ("www:staff", (33, 60, (), "/var/www")),
        ("www:7", (33, 7, (), "/var/www")),
        ("1234", (1234, 0, (), "/")),
        ("1234:5", (1234, 5, (), "/")),
    ],
)
def test_a_user_is_found_as_docker_finds_it(user: str, who: tuple[Any, ...]) -> None:
    assert containers.identity(user, PASSWD, GROUP) == who


def test_a_command_gets_environment_directory_and_rights_of_its_container() -> None:
    row = {
        "Id": "abc",
        "Config": {
            "Env": ["FOO=a b", "PATH=/bin"],
            "WorkingDir": "/tmp",
            "User": "www",
            "Hostname": "box",
        },
    }
    seen = "\n".join(["CapBnd:\t0000000000000005", "yes", *PASSWD, "", "==", *GROUP])
    argv = containers.entering(7, row, seen, ["id", "-u"])
    assert argv[3:6] == ["labkit", "7", "abc"]
    assert {"HOME=/var/www", "PATH=/bin", "HOSTNAME=box", "FOO=a b"} <= set(argv)
    assert "--wd=/proc/7/root/tmp" in argv
    assert argv[argv.index("--reuid") + 1] == "33"
    assert argv[argv.index("--groups") + 1] == "50"
    assert "--bounding-set=-all,+cap_0,+cap_2" in argv
    assert argv[-3:] == ["--", "id", "-u"]


def test_where_setpriv_is_missing_docker_itself_runs_the_command() -> None:
    argv = containers.entering(7, {"Id": "abc", "Config": {}}, "CapBnd: 0\nno\n\n==\n", ["id"])
    assert argv[-4:] == ["docker", "exec", "abc", "id"]


def test_a_replaced_task_runs_nothing() -> None:
    toy = Toy()
    toy.lab.service("r")
    (task,) = toy.lab.tasks("r")
    node = toy.nodes[task.node.name]
    assert task.run("hostname").text == "hostname\n"
    node.run = lambda argv: {"code": 125, "stderr": f"labkit: no process of {task.container}\n"}
    for place in (task.place, task.sandbox):
        with pytest.raises(TaskReplaced) as caught:
            place.run("hostname")
        assert "r.1 was replaced or has ended" in str(caught.value)
        assert "lab.tasks('r')" in str(caught.value)
    answer = node.api
    node.api = lambda method, path, body: (
        (404, "application/json", b'{"message": "No such container"}')
        if "containers/" in path
        else answer(method, path, body)
    )
    with pytest.raises(TaskReplaced):
        dataclasses.replace(task, container="gone").run("hostname")


def test_a_daemon_that_refuses_or_is_away_is_one_typed_error() -> None:
    toy = Toy()
    with pytest.raises(DaemonError, match="the Docker engine of node1 answered 404") as refused:
        toy.lab.manager.docker.api.inspect_network("none")
    assert refused.value.status == 404

    def nowhere(path: str) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    toy.nodes["node2"].reach = nowhere  # type: ignore[method-assign]
    link = places.Node("node2", "", "", "26.1", _link(nowhere), list)
    for ask in (lambda: link.docker.api.ping(), lambda: link.run("true")):
        with pytest.raises(NodeUnreachable, match=r"(?s)node2 no longer answers.*labkit.attach\(\)"):
            ask()


def _link(reach: Any) -> Any:
    from labkit.transport.live import LiveLink

    return LiveLink("node2", reach)


def test_a_command_ends_with_its_caller() -> None:
    toy = Toy()
    node = toy.nodes["node1"]
    node.run = lambda argv: {"after": 3.0}
    stopped: list[int] = []
    stop = toy.lab.manager.runner.stop
    toy.lab.manager.runner.stop = lambda number: (stopped.append(number), stop(number))[1]  # type: ignore
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        toy.lab.run_all([(toy.lab.manager.place, "sleep 77")] * 2)
    assert {1, 2} <= set(stopped)


def test_a_watch_that_never_gets_ready_says_what_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "_READY_SECONDS", 0.3)
    toy = Toy()
    toy.nodes["node1"].run = lambda argv: {"stderr": "first\nlast\n", "code": 1, "after": 1.0}
    with pytest.raises(WaitTimeout) as caught, toy.lab.manager.place.watch("tcpdump -i any"):
        pass
    told = str(caught.value)
    assert "'listening on' on the standard error of `tcpdump -i any`" in told
    assert "last seen: last" in told
