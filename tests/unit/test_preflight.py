"""The judgement of machines: what is found is made up here, each with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from labkit.engines.hosts import judgement
from labkit.engines.hosts.facts import Facts, Membership
from labkit.engines.hosts.inventory import Host, Inventory
from labkit.engines.hosts.judgement import NotFit, Row
from labkit.engines.hosts.wire import MODULES, Look, Wire, ports_of

HOSTS = (
    Host("alpha", True, docker="unix:///a"),
    Host("beta", False, docker="unix:///b"),
    Host("gamma", False, docker="unix:///c"),
)
FILE = Inventory("hosts.yaml", HOSTS)
ADDRESS = {"alpha": "192.0.2.11", "beta": "192.0.2.12", "gamma": "192.0.2.13"}
FACTS = {
    host.name: Facts(
        hostname=host.name,
        version="26.1.5",
        unfit="",
        clock_s=0.1,
        clock_error_s=0.05,
        swarm=Membership("inactive"),
        networks={"bridge": ("172.17.0.0/16",)},
        images={},
        overlays=(),
        volumes=(),
    )
    for host in HOSTS
}
LOOKS = {
    name: Look(
        address=address,
        interface="eth0",
        mtu=1500,
        networks=[("eth0", "192.0.2.0/24"), ("docker0", "172.17.0.0/16")],
        modules=dict.fromkeys(MODULES, (True, "loaded")),
        socket=True,
        kernel="6.12.1",
    )
    for name, address in ADDRESS.items()
}


def wires(*lost: tuple[str, str, str, str], alien: bool = False, said: str = "") -> dict[str, Wire]:
    """What all see where everything gets through but `lost`: source, target, port, where it stops."""
    stops = {(a, b, port): where for a, b, port, where in lost}
    seen: dict[str, set[tuple[str, ...]]] = {name: set() for name in ADDRESS}
    passed: dict[str, set[tuple[str, ...]]] = {name: set() for name in ADDRESS}
    sent: dict[str, dict[str, dict[str, str]]] = {name: {} for name in ADDRESS}
    for a in HOSTS:
        for b in HOSTS:
            if a is b:
                continue
            told = sent[a.name].setdefault(ADDRESS[b.name], {})
            for port in ports_of(b.manager):
                way = (ADDRESS[a.name], ADDRESS[b.name])
                stop = stops.get((a.name, b.name, port), "")
                tcp = port.endswith("/tcp")
                first = "syn" if tcp else "probe"
                told[port] = "timed out" if stop and tcp else said if stop else ""
                if stop == "out":
                    continue
                seen[a.name].add(("out", *way, port, first))
                if stop == "way":
                    if alien:
                        passed[b.name].add(("203.0.113.9", way[1], port))
                    continue
                seen[b.name].add(("in", *way, port, first))
                if stop == "in":
                    continue
                if not tcp:
                    passed[b.name].add((*way, port))
                    continue
                seen[b.name].add(("out", *way[::-1], port, "synack"))
                if stop != "back":
                    seen[a.name].add(("in", *way[::-1], port, "synack"))
    return {
        name: Wire(sent[name], {}, frozenset(seen[name]), frozenset(passed[name])) for name in ADDRESS
    }


def failed(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.ok]


def of_wires(found: dict[str, Wire]) -> list[Row]:
    return judgement.of_wires(FILE, FACTS, LOOKS, found)


def test_machines_that_are_well_have_nothing_to_mend() -> None:
    rows = judgement.of_engines(FILE, FACTS)
    rows += judgement.of_machines(FILE, FACTS, LOOKS)
    rows += of_wires(wires())
    judgement.demand(rows)
    assert {row.what for row in rows} == {
        "Docker engine",
        "name",
        "clock",
        "swarm",
        "address",
        "Docker socket",
        "kernel modules",
        "address overlap",
        "2377/tcp",
        "7946/tcp",
        "7946/udp",
        "4789/udp",
        "ESP, IP protocol 50",
        "MTU",
    }
    both = {(row.source, row.target) for row in rows if row.what == "4789/udp"}
    assert both == {(a, b) for a in ADDRESS for b in ADDRESS if a != b}
    assert {row.target for row in rows if row.what == "2377/tcp"} == {"alpha"}
    assert rows[0].to_json() == {
        "from": "alpha",
        "to": "",
        "what": "Docker engine",
        "ok": True,
        "seen": "Docker 26.1.5",
        "remedy": "",
    }


@pytest.mark.parametrize("port", ["7946/udp", "4789/udp", "esp"])
@pytest.mark.parametrize(
    ("where", "seen", "remedy"),
    [
        ("out", "the firewall of beta stops it going out", "on beta, let"),
        ("in", "the firewall of gamma stops it coming in", "on gamma, let"),
        ("way", "something between them stops it", "the network's firewall or security group"),
    ],
)
def test_a_firewall_is_named_with_its_host_port_and_direction(
    port: str, where: str, seen: str, remedy: str
) -> None:
    found = failed(of_wires(wires(("beta", "gamma", port, where))))
    (row,) = found
    assert (row.source, row.target) == ("beta", "gamma")
    assert row.what == {"esp": "ESP, IP protocol 50"}.get(port, port)
    assert seen in row.seen
    assert remedy in row.remedy
    if where == "in":
        match = "-p esp" if port == "esp" else f"-p udp --dport {port.partition('/')[0]}"
        assert f"sudo iptables -I INPUT {match} -s 192.0.2.12 -j ACCEPT" in row.remedy


@pytest.mark.parametrize(
    ("where", "seen", "remedy"),
    [
        ("out", "the firewall of beta stops it going out", "on beta, let 7946/tcp out"),
        ("in", "the firewall of gamma stops it coming in", "on gamma, let 7946/tcp in"),
        ("back", "the answer", ""),
        ("way", "something between them", "security group"),
    ],
)
def test_a_connection_that_is_not_made(where: str, seen: str, remedy: str) -> None:
    (row,) = failed(of_wires(wires(("beta", "gamma", "7946/tcp", where))))
    assert (row.source, row.target, row.what) == ("beta", "gamma", "7946/tcp")
    assert "timed out" in row.seen or where in ("back", "way")
    assert seen in row.seen or where == "back"
    assert remedy in row.remedy


def test_an_answer_that_is_lost() -> None:
    found = wires(("beta", "gamma", "7946/tcp", "back"))
    (row,) = failed(of_wires(found))
    assert "whose answer is lost on the way back to beta" in row.seen
    answer = ("in", ADDRESS["gamma"], ADDRESS["beta"], "7946/tcp", "synack")
    found["beta"] = replace(found["beta"], seen=found["beta"].seen | {answer})
    (row,) = failed(of_wires(found))
    assert "the firewall of beta stops the answer coming in" in row.seen
    assert "--sport 7946 -s 192.0.2.13" in row.remedy


def test_what_the_kernel_says_is_told() -> None:
    (row,) = failed(of_wires(wires(("alpha", "beta", "esp", "out"), said="Operation not permitted")))
    assert "(Operation not permitted)" in row.seen


def test_a_translated_address_is_named() -> None:
    (row,) = failed(of_wires(wires(("alpha", "beta", "4789/udp", "way"), alien=True)))
    assert "translated (NAT)" in row.seen


def test_a_way_that_is_narrower_than_the_interface() -> None:
    (row,) = failed(of_wires(wires(("alpha", "beta", "mtu", "way"))))
    assert row.what == "MTU"
    assert "a packet of 1500 bytes, the MTU of eth0 on alpha, does not get there whole" in row.seen
    assert "com.docker.network.driver.mtu" in row.remedy
    jumbo = LOOKS | {"alpha": replace(LOOKS["alpha"], mtu=9000)}
    rows = judgement.of_wires(FILE, FACTS, jumbo, wires(("alpha", "beta", "mtu", "in")))
    assert "beta has an MTU of 1500" in failed(rows)[0].seen


def test_a_port_that_is_shut_says_nothing_of_the_mtu() -> None:
    lost = [("alpha", "beta", port, "in") for port in ("4789/udp", "mtu")]
    assert [row.what for row in failed(of_wires(wires(*lost)))] == ["4789/udp"]


def test_a_port_that_another_program_has() -> None:
    found = wires()
    found["beta"] = replace(found["beta"], taken={"7946/tcp": "Address in use", "2377/tcp": "in use"})
    (row,) = failed(of_wires(found))  # nobody asks a worker at 2377
    assert (row.source, row.what) == ("beta", "7946/tcp")
    member = {name: replace(fact, swarm=Membership("active")) for name, fact in FACTS.items()}
    assert not failed(judgement.of_wires(FILE, member, LOOKS, found))  # Swarm itself has it


@pytest.mark.parametrize(
    ("change", "what", "seen", "remedy"),
    [
        ({"version": "19.03.8"}, "Docker engine", "Docker 19.03.8", "20.10 or newer"),
        ({"unfit": "it is rootless"}, "Docker engine", "it is rootless", "as root"),
        (
            {"hostname": "ip-10-0-0-4"},
            "name",
            "it calls itself ip-10-0-0-4",
            "write `name: ip-10-0-0-4`",
        ),
        ({"clock_s": 7.3}, "clock", "7.20 s ahead, give or take 0.10 s", "set-ntp true"),
        ({"clock_s": -9.9}, "clock", "10.00 s behind", "set the clock of beta"),
    ],
)
def test_what_an_engine_says(change: dict[str, Any], what: str, seen: str, remedy: str) -> None:
    facts = FACTS | {"beta": replace(FACTS["beta"], **change)}
    (row,) = failed(judgement.of_engines(FILE, facts))
    assert (row.source, row.what) == ("beta", what)
    assert seen in row.seen
    assert remedy in row.remedy


def test_a_clock_that_is_asked_slowly_is_not_blamed() -> None:
    facts = FACTS | {"beta": replace(FACTS["beta"], clock_s=2.5, clock_error_s=1.0)}
    assert not failed(judgement.of_engines(FILE, facts))


def swarms(**states: Membership) -> dict[str, Facts]:
    return {name: replace(fact, swarm=states[name]) for name, fact in FACTS.items()}


ONE = frozenset({"n1"})
LEAD = Membership(
    "active", "n1", manages=True, managers=ONE, members={"n1": "alpha", "n2": "beta", "n3": "gamma"}
)
WORK = Membership("active", "n2", managers=ONE)
NONE = Membership("inactive")


@pytest.mark.parametrize(
    ("alpha", "beta", "gamma", "where", "seen", "remedy"),
    [
        (LEAD, NONE, WORK, "beta", "in none, and alpha, gamma in one", "docker swarm leave"),
        (LEAD, Membership("locked", "n2", managers=ONE), WORK, "beta", "in one, locked", "docker info"),
        (
            LEAD,
            replace(WORK, managers=frozenset({"n9"})),
            WORK,
            "beta",
            "in another one than alpha",
            "leave it",
        ),
        (
            LEAD,
            replace(WORK, manages=True),
            WORK,
            "beta",
            "manager of the one that runs",
            "`role: manager`",
        ),
        (
            replace(LEAD, members={**LEAD.members, "n4": "delta"}),
            WORK,
            WORK,
            "alpha",
            "delta is a node",
            "add it",
        ),
    ],
)
def test_machines_that_are_not_one_swarm(
    alpha: Membership, beta: Membership, gamma: Membership, where: str, seen: str, remedy: str
) -> None:
    (row,) = failed(judgement.of_engines(FILE, swarms(alpha=alpha, beta=beta, gamma=gamma)))
    assert (row.source, row.what) == (where, "swarm")
    assert seen in row.seen
    assert remedy in row.remedy


def test_a_swarm_that_runs_is_taken() -> None:
    rows = judgement.of_engines(FILE, swarms(alpha=LEAD, beta=WORK, gamma=WORK))
    assert not failed(rows)
    assert "is used and stays" in next(row.seen for row in rows if row.what == "swarm")


@pytest.mark.parametrize(
    ("change", "what", "seen", "remedy"),
    [
        ({"interface": ""}, "address", "192.0.2.12 is on no interface", "write `address:`"),
        ({"socket": False}, "Docker socket", "there is no /run/docker.sock", "listen there too"),
        (
            {
                "modules": dict.fromkeys(MODULES, (True, "loaded"))
                | {"ip_vs": (False, "Can't initialize")}
            },
            "kernel module ip_vs",
            "Can't initialize",
            "on beta: sudo modprobe ip_vs (kernel 6.12.1)",
        ),
        (
            {"networks": [("eth1", "10.0.4.0/22")]},
            "address overlap",
            "10.0.4.0/22 (eth1)",
            "another `pool:`",
        ),
    ],
)
def test_what_a_machine_has(change: dict[str, Any], what: str, seen: str, remedy: str) -> None:
    looks = LOOKS | {"beta": replace(LOOKS["beta"], **change)}
    (row,) = failed(judgement.of_machines(FILE, FACTS, looks))
    assert (row.source, row.what) == ("beta", what)
    assert seen in row.seen
    assert remedy in row.remedy


def test_machines_behind_one_address_each_of_its_own() -> None:
    looks = {name: replace(look, address="10.0.2.15") for name, look in LOOKS.items()}
    found = [row for row in failed(judgement.of_machines(FILE, FACTS, looks)) if row.what == "address"]
    assert [row.source for row in found] == ["alpha", "beta", "gamma"]
    assert "10.0.2.15 is the address of beta too" in found[0].seen


def test_another_pool_makes_room_and_the_labs_own_subnets_are_told() -> None:
    looks = LOOKS | {
        "beta": replace(LOOKS["beta"], networks=[("eth1", "10.0.0.0/8"), ("eth0", "link")])
    }
    assert failed(judgement.of_machines(FILE, FACTS, looks))
    rows = judgement.of_machines(replace(FILE, pool="172.28.0.0/14"), FACTS, looks)
    assert not failed(rows)
    assert any("labs 01 and 04 take a subnet of 10.100.0.0" in row.seen for row in rows)


def test_a_docker_network_that_hides_another_machine() -> None:
    facts = FACTS | {"gamma": replace(FACTS["gamma"], networks={"docker_gwbridge": ("192.0.2.8/29",)})}
    found = failed(judgement.of_machines(FILE, facts, LOOKS))
    assert [(row.source, row.target) for row in found] == [("gamma", "alpha"), ("gamma", "beta")]
    assert "192.0.2.11 of alpha is inside its network docker_gwbridge, 192.0.2.8/29" in found[0].seen


def test_all_that_failed_is_in_the_refusal() -> None:
    lost = (("beta", "gamma", "esp", "in"), ("gamma", "beta", "4789/udp", "out"))
    with pytest.raises(NotFit) as caught:
        judgement.demand(of_wires(wires(*lost)))
    told = str(caught.value)
    assert "2 of what was looked at" in told
    assert "beta → gamma: ESP, IP protocol 50" in told
    assert "gamma → beta: 4789/udp" in told
    assert "remedy: on gamma, let ESP" in told
    assert "labkit doctor --hosts" in told
    assert caught.value.exit_code == 3
