"""The library and `labkit exec` as an impatient person uses them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from labkit import experiments, plots, swarm
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


def test_a_subnet_that_an_earlier_lab_left_taken_is_free_again(lab: swarm.Lab) -> None:
    lab.network("left", options="--subnet 10.77.0.0/24")
    lab.service("on-left", networks="left", options="--stop-grace-period 1s")
    lab.network("next", options=["--subnet=10.77.0.128/25"])
    try:
        names = {row["Name"] for row in lab.manager.docker.api.networks(filters={"driver": "overlay"})}
        assert "next" in names
        assert "left" not in names
        lab.service("on-next", networks="next", options="--stop-grace-period 1s")  # tasks that start
        lab.remove_service("on-next")
    finally:
        lab.manager.run("docker network rm next").check()
    theirs = "docker network create --driver overlay --subnet 10.77.0.0/24 theirs"
    lab.manager.run(theirs).check()
    try:
        with pytest.raises(UsageError, match=r"'theirs' already .* subnet 10\.77\.0\.0/24"):
            lab.network("next", options="--subnet 10.77.0.0/16")
    finally:
        lab.manager.run("docker network rm theirs").check()


def test_a_global_service_has_a_task_on_each_node(lab: swarm.Lab, labkit: Command) -> None:
    options = "--mode global --stop-grace-period 1s"
    lab.service("each", publish="mode=host,published=5050,target=3000", options=options)
    try:
        tasks = lab.tasks("each")
        assert [task.name for task in tasks] == [f"each.{node}" for node in lab.nodes]
        asked = labkit("exec", "--lab", LAB, "node2", "--task", "each.node2", "--", "hostname")
        assert asked.stdout.strip() == lab.task("each.node2").container[:12]
        lab.wait_for_port(5050)
        ways = {node: (lab.manager.place, f"http://{node}:5050/whoami") for node in lab.nodes}
        answered = experiments.spread(lab, ways, requests=1)
        assert list(answered["task"]) == [task.name for task in tasks]
    finally:
        lab.remove_service("each")


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


def test_ipv6_is_shown_beside_ipv4(lab: swarm.Lab) -> None:
    six = ["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]
    lab.network("six", options=six)
    lab.service("both", replicas=2, networks="six", options="--endpoint-mode dnsrr")
    tasks = lab.tasks("both")
    try:
        given = experiments.addresses(tasks)
        assert set(given["family"]) == {"IPv4", "IPv6"}
        for task in tasks:
            (mine,) = given.query(f"task == {task.name!r} and family == 'IPv6'")["address"]
            links = experiments.interfaces(task)
            shown = links[links["address"] == mine]
            assert list(shown["network"]) == ["six"]
            assert task.run(["ping", "-6", "-c", "1", mine]).ok
            owner = experiments.owners(lab).set_index("address")["owner"][mine]
            assert task.name in owner  # of both, where two nodes gave out the same
        asked = experiments.lookups(lab, tasks, "both")
        assert set(asked["family"]) == {"IPv4", "IPv6"}
        of_ipv4 = asked[asked["family"] == "IPv4"]
        assert set(of_ipv4["answer"]) == {task.addresses["six"] for task in tasks}
        # Swarm's DNS has no IPv6 address of a task: an empty answer is an answer too.
        assert asked[asked["family"] == "IPv6"]["answer"].isna().all()
    finally:
        lab.keep_only()


def test_a_routing_mesh_made_anew_is_found(lab: swarm.Lab) -> None:
    def made(name: str, *options: str) -> None:
        lab.manager.run(["sh", "-c", f"yes | docker network rm {old}"]).check()
        argv = ["docker", "network", "create", "-d", "overlay", "--ingress", *options, name]
        swarm.wait_for("the old one to be gone", lambda: ((c := lab.manager.run(argv)).ok, c.stderr))

    old = "ingress"
    made("doors", "--subnet", "10.11.0.0/16")
    try:
        old = "doors"
        lab.service("open", replicas=2, publish="5000:3000", options="--constraint node.role==worker")
        tasks = lab.wait_for_answers("open")
        assert {name for task in tasks for name in task.addresses} == {"doors"}
        for name in ("ingress", "doors"):
            assert tasks[0].node.load_balancer(name).label.endswith("/ingress_sbox")
            assert "10.11.0.1/16" in tasks[0].node.overlay(name).run(["ip", "addr"]).check().text
        asked = experiments.reach(lab, [tasks[0].node.load_balancer("ingress")], tasks)
        assert asked["reached"].all()
    finally:
        lab.keep_only()
        made("ingress", "--subnet", "10.0.0.0/24")


def test_the_picture_of_the_network_is_whole(lab: swarm.Lab) -> None:
    lab.network("drawn")
    lab.service("drawn", replicas=2, networks="drawn")
    try:
        table = experiments.topology(lab)
        ends = table.dropna(subset=["peer_place"])
        ones = set(zip(ends["node"], ends["place"], ends["interface"], strict=True))
        others = set(zip(ends["node"], ends["peer_place"], ends["peer"], strict=True))
        assert ones == others  # the other end of each pair has this end for its other one
        for task in lab.tasks("drawn"):
            mine = table[table["place"] == task.name]
            assert task.addresses["drawn"] in set(mine["address"])
            assert "overlay drawn" in set(mine["peer_place"])
        vxlans = table[table["device"] == "vxlan"].groupby("network")["vni"]
        assert (vxlans.nunique() == 1).all()  # one number on every node
        assert vxlans.first().is_unique
        assert "drawn.1" in plots.topology(table).get_figure(root=True).alternative_text
    finally:
        lab.keep_only()


def test_the_way_of_one_request_is_drawn_with_what_counted_it(lab: swarm.Lab) -> None:
    lab.network("drawn")
    lab.service("asked", publish="5000:3000", networks="drawn", replicas=2)
    try:
        lab.wait_for_answers("asked")
        via = lab.manager
        way = experiments.packet(lab, "asked", via=via)
        assert list(way["place"])[:2] == [via.name, f"{via.name}/ingress_sbox"]
        counted = [set(row.split(", ")) for row in way["counted"]]
        assert counted[0] == {"DNAT", "MASQUERADE"}
        assert counted[1] == {"MARK", "IPVS", "SNAT"}
        assert counted[2] == {"REDIRECT", "INPUT"}
        axes = plots.packet(way, network=experiments.topology(lab))
        assert "becomes" in axes.get_figure(root=True).alternative_text
    finally:
        lab.keep_only()
