"""The swarm is real, whole, shut in, and reached the way the design says."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
from collections import Counter
from pathlib import Path

import docker
import psutil
import pytest

from labkit import parsers, swarm
from labkit.engines.vm import isolation, machine
from labkit.errors import SwarmError, UnknownNameError, UsageError
from labkit.swarm import waiting
from tests.conftest import LAB, Command


def test_every_node_is_ready_and_of_the_version_that_was_asked_for(lab: swarm.Lab) -> None:
    told = lab.status()
    assert [(n["name"], n["role"], n["state"]) for n in told["nodes"]] == [
        ("node1", "manager", "ready"),
        ("node2", "worker", "ready"),
        ("node3", "worker", "ready"),
    ]
    assert lab.manager.full_version.startswith("26.1.")


def test_the_engine_that_carries_the_nodes_is_no_swarm(lab: swarm.Lab) -> None:
    assert lab.engine.client.info()["Swarm"]["LocalNodeState"] == "inactive"


def test_the_state_stands_in_labels(lab: swarm.Lab) -> None:
    for box in lab.engine.client.containers.list():
        assert box.labels["labkit.lab"] == lab.engine.label
        assert box.labels["labkit.docker"] == "26.1"


def test_ingress_sbox_balances_over_both_tasks(hello: swarm.Lab, labkit: Command) -> None:
    done = labkit("exec", "--lab", LAB, "node1", "--netns", "ingress_sbox", "--", "ipvsadm", "-ln")
    assert done.returncode == 0
    table = parsers.parse(["ipvsadm", "-ln"], done.stdout)
    tasks = {task.addresses["ingress"] for task in hello.tasks("hello-a")}
    assert set(table["protocol"]) == {"FWM"}
    assert set(table["destination"]) == tasks
    assert len(tasks) == 2


def test_eight_requests_from_each_node_are_answered_four_and_four(hello: swarm.Lab) -> None:
    argv = ["curl", "-sS", "-m", "20", "http://127.0.0.1:5000/whoami"]
    answered: Counter[tuple[str, str]] = Counter()
    for _ in range(8):
        for capture in hello.run_all([(node.place, argv) for node in hello.nodes.values()]):
            answered[capture.node, json.loads(capture.check().stdout)["container"]] += 1
    assert len(answered) == 6
    assert set(answered.values()) == {4}


def test_the_app_says_who_it_is_and_whom_it_saw(hello: swarm.Lab) -> None:
    a, b = hello.tasks("hello-a")
    capture = a.run(["curl", "-sS", "-m", "20", f"http://{b.addresses['my-overlay']}:3000/whoami"])
    said = json.loads(capture.check().stdout)
    assert said["node"] == b.node.name
    assert b.container.startswith(said["container"])
    assert {b.addresses["ingress"], b.addresses["my-overlay"]} <= set(said["addresses"])
    assert said["client"] == a.addresses["my-overlay"]


def test_a_task_runs_commands_with_the_rights_of_its_container(hello: swarm.Lab) -> None:
    task, _ = hello.tasks("hello-a")
    ours = task.run(["grep", "CapBnd", "/proc/self/status"]).check().stdout
    box = task.node.docker.containers.get(task.container)
    theirs = box.exec_run(["grep", "CapBnd", "/proc/self/status"]).output.decode()
    assert ours == theirs
    assert "Operation not permitted" in task.run("ip neigh flush all").stderr
    assert task.run("hostname").stdout.strip() == task.container[:12]


def test_the_sandbox_has_the_nodes_tools_in_the_tasks_namespace(hello: swarm.Lab) -> None:
    task, _ = hello.tasks("hello-a")
    drops = parsers.parse(["iptables", "-S"], task.sandbox.run("iptables -S OUTPUT").check().stdout)
    wanted = drops[(drops["target"] == "DROP") & (drops["protocol"] == "tcp")]
    assert list(wanted["source"]) == [task.addresses["ingress"]]


def test_a_watch_sees_what_happens_while_it_lasts(hello: swarm.Lab) -> None:
    a, b = hello.tasks("hello-a")
    with a.sandbox.watch("tcpdump -n -i any --immediate-mode icmp") as running:
        a.run(["ping", "-c", "2", b.addresses["my-overlay"]]).check()
    table = running.result().table
    assert (table["protocol"] == "ICMP").sum() >= 4


def test_a_slow_command_is_stopped_and_says_so(lab: swarm.Lab) -> None:
    capture = lab.manager.run("sleep 60", timeout=1)
    assert capture.timed_out
    assert not capture.ok
    assert capture.seconds < 30


def test_a_program_that_is_not_there_gives_127(lab: swarm.Lab) -> None:
    assert lab.manager.run("no-such-program").code == 127


def test_nodes_have_no_way_out(lab: swarm.Lab) -> None:
    for node in lab.nodes.values():
        assert "default" not in node.run("ip route").check().stdout
    # 192.0.2.1 is an address for documentation: nobody is there, and no route leads to it.
    capture = lab.manager.run("curl -sS -m 3 http://192.0.2.1")
    assert capture.code == 7


def test_only_loopback_listens_and_only_with_our_certificate(lab: swarm.Lab) -> None:
    running = machine.find(LAB)
    assert running
    listening = [
        c.laddr for c in psutil.Process(running.proxy).net_connections() if c.status == "LISTEN"
    ]
    ports = (running.port, running.relay)
    assert {(a.ip, a.port) for a in listening} == {("127.0.0.1", port) for port in ports}
    # The machine itself listens in a network of its own, where this user may have one.
    apart = os.readlink(f"/proc/{running.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    assert apart is (subprocess.run([*isolation._unshare(), "true"], check=False).returncode == 0)
    for port in running.inside if apart else ():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    context = ssl.create_default_context(cafile=str(Path(running.tls) / "ca.pem"))

    def ask_without_a_certificate(port: int, question: bytes) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
            contextlib.suppress(ssl.SSLError),  # TLS 1.3 tells it at the first read
        ):
            stream.sendall(question)
            return stream.recv(100)
        return b""

    assert ask_without_a_certificate(running.port, b"GET /_ping HTTP/1.0\r\n\r\n") == b""
    assert ask_without_a_certificate(running.relay, b'{"clock": 1}\n') == b""
    assert abs(running.set_clock()) < 2


def test_who_is_no_user_of_the_lab_gets_no_connection(lab: swarm.Lab) -> None:
    running = machine.find(LAB)
    assert running
    for port in (running.port, running.relay):
        # TLS wants to hear the client first: who is let in waits here.
        words = f"exec 3<>/dev/tcp/127.0.0.1/{port}; timeout 2 cat <&3"
        own = subprocess.run(["bash", "-c", words], capture_output=True, timeout=20, check=False)
        assert own.returncode == 124
        if os.geteuid() == 0:  # who may be somebody else
            other = subprocess.run(
                ["bash", "-c", words], user="nobody", cwd="/", timeout=20, check=False
            )
            assert other.returncode in (0, 1)  # the end, or a reset
    assert lab.manager.run("true").ok


def test_an_ordinary_client_sees_the_nodes(
    lab: swarm.Lab, labkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in labkit("env", "--lab", LAB).stdout.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        monkeypatch.setenv(name, value)
    client = docker.from_env(version="1.41")
    client.api.trust_env = False
    assert {box.name for box in client.containers.list()} == {
        f"labkit-{lab.engine.label}-node{i}-1" for i in (1, 2, 3)
    }


def test_exec_gives_the_commands_own_exit_code_and_one_document(
    lab: swarm.Lab, labkit: Command
) -> None:
    done = labkit("exec", "--lab", LAB, "--json", "node2", "--", "sh", "-c", "echo out; exit 7")
    assert done.returncode == 7
    told = json.loads(done.stdout)
    assert told["node"] == "node2"
    assert told["argv"] == ["sh", "-c", "echo out; exit 7"]
    assert (told["code"], told["stdout"]) == (7, "out\n")
    assert told["seconds"] > 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["node9", "--", "true"], "no node is called 'node9'; there are: node1, node2, node3"),
        (["node1", "--netns", "lb_nope", "--", "true"], "ingress_sbox"),
        (["node1", "--task", "hello-a.9", "--", "true"], "hello-a.1, hello-a.2"),
        (["node1", "--task", "nobody.1", "--", "true"], "no service is called 'nobody'"),
        (["node1", "--task", "hello", "--", "true"], "SERVICE.N"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(
    hello: swarm.Lab, labkit: Command, argv: list[str], said: str
) -> None:
    done = labkit("exec", "--lab", LAB, *argv)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_lab_of_the_same_name_is_refused(lab: swarm.Lab, labkit: Command) -> None:
    done = labkit("up", "--lab", LAB)
    assert done.returncode == 2
    assert "is up already" in done.stderr


def test_a_published_port_that_is_taken_is_told(hello: swarm.Lab) -> None:
    with pytest.raises(Exception, match="port '5000' is already in use"):
        hello.service("late", publish="5000:3000")
    with pytest.raises(UnknownNameError):
        hello.tasks("late")


def test_a_service_that_cannot_run_ends_in_a_diagnosis(
    hello: swarm.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_READY_SECONDS", 30.0)
    with pytest.raises(SwarmError) as caught:
        hello.service("broken", command=["no-such-flag"], options=["--entrypoint", "/no-such-program"])
    assert "broken" in str(caught.value)
    assert "no-such-program" in str(caught.value)
    hello.remove_service("broken")


def test_the_same_service_twice_is_one_service(hello: swarm.Lab) -> None:
    before = {task.container for task in hello.tasks("hello-a")}
    hello.service("hello-a", publish="5000:3000", networks=["my-overlay"], replicas=2)
    assert {task.container for task in hello.tasks("hello-a")} == before


def test_a_name_that_begins_several_namespaces_is_refused(hello: swarm.Lab) -> None:
    with pytest.raises(UsageError):
        hello.tasks("hello-a")[0].node.netns("1-")
