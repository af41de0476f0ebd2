"""What a diagnosis concludes from rules and from what the manager says; on a swarm: tests/live."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path

import pytest

from labkit import diagnosis, faults, paths
from labkit.diagnosis import calls, deployments
from labkit.diagnosis.declared import Declared, Network, Service, Wanted
from labkit.diagnosis.packets import Packet, Rules

CAPTURES = Path(__file__).parents[1] / "captures"
PACKAGE = Path(diagnosis.__file__).parent
VXLAN, FULL = Packet("udp", 4789), Packet("udp", 4789, length=1450)


def rules(*lines: str, policy: str = "ACCEPT") -> Rules:
    own = sorted({line.split()[1] for line in lines} - {"INPUT"})
    chains = [f":INPUT {policy} [0:0]", *(f":{chain} - [0:0]" for chain in own)]
    # The rules of another table must not count.
    other = ["*nat", ":INPUT DROP [0:0]", "-A INPUT -j DROP", "COMMIT"]
    return Rules("\n".join([*other, "*filter", *chains, *lines, "COMMIT"]), "filter")


STOP = "-A INPUT -p udp -m udp --dport 4789 -j DROP"


@pytest.mark.parametrize(
    ("lines", "packet", "by"),
    [
        ([], VXLAN, None),
        ([STOP], VXLAN, STOP),
        ([STOP], Packet("udp", 7946), None),
        ([STOP], Packet("esp"), None),
        (["-A INPUT -p udp -m udp --dport 4789 -j ACCEPT", STOP], VXLAN, None),
        ([STOP.replace("--dport", "! --dport")], VXLAN, None),
        ([STOP.replace("--dport", "! --dport")], Packet("udp", 53), "--dport"),
        (["-A INPUT -p udp -m multiport --dports 53,4000:5000 -j REJECT"], VXLAN, "multiport"),
        (["-A INPUT -s 10.1.0.0/16 -j DROP"], VXLAN, None),  # from where is not known
        (["-A INPUT -s 10.1.0.0/16 -j DROP"], Packet("esp", source="10.1.2.3"), "-s"),
        (["-A INPUT ! -s 10.1.0.0/16 -j DROP"], Packet("esp", source="10.1.2.3"), None),
        (["-A INPUT -i lo -j DROP"], VXLAN, None),
        (["-A INPUT ! -i lo -j DROP"], VXLAN, "lo"),
        (["-A INPUT -i eth+ -j DROP"], Packet("esp", interface="eth1"), "eth+"),
        (["-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j DROP"], VXLAN, None),
        (["-A INPUT -m conntrack --ctstate INVALID,NEW -j DROP"], VXLAN, "NEW"),
        (["-A INPUT -m u32 --u32 0x0=0x1 -j DROP"], VXLAN, None),  # asks for something unknown
        (["-A INPUT -p udp -m length --length 1400:65535 -j DROP"], VXLAN, None),
        (["-A INPUT -p udp -m length --length 1400:65535 -j DROP"], FULL, "length"),
        (['-A INPUT -m comment --comment "a -j ACCEPT of ours" -j DROP'], VXLAN, "ours"),
        (["-A INPUT -j LOG", "-A INPUT -j MINE", "-A MINE -p udp -j DROP"], VXLAN, "MINE"),
        (["-A INPUT -j MINE", "-A MINE -p udp -j RETURN", "-A MINE -j DROP"], VXLAN, None),
        (["-A INPUT -j MINE", "-A MINE -j INPUT", STOP], VXLAN, STOP),  # round in a circle
    ],
)
def test_a_packet_meets_the_rules_in_their_order(
    lines: list[str], packet: Packet, by: str | None
) -> None:
    found = rules(*lines).stops(packet, "INPUT")
    assert found is None if by is None else found is not None and by in found


def test_where_no_rule_decides_the_policy_does() -> None:
    assert rules(policy="DROP").stops(VXLAN, "INPUT") == "-P INPUT DROP"
    accepts = "-A INPUT -p udp -m udp --dport 4789 -j ACCEPT"
    assert rules(accepts, policy="DROP").stops(VXLAN, "INPUT") is None


@pytest.mark.parametrize("version", ["20.10", "26.1", "28.5"])
def test_what_docker_itself_sets_up_stops_nothing(version: str) -> None:
    for name in ("node", "node-encrypted", "sandbox"):
        text = (CAPTURES / version / f"iptables-save--{name}.txt").read_text()
        saved = Rules(text.partition("\n")[2], "filter")
        for packet in (VXLAN, FULL, Packet("tcp", 7946), Packet("esp"), Packet("tcp", 3000)):
            assert saved.stops(packet, "INPUT") is None
            assert saved.stops(packet, "DOCKER-USER") is None


def network(name: str, subnet: str, pool: str = "", gateway: str = "") -> Network:
    own = ipaddress.IPv4Network(subnet)
    pools = (ipaddress.IPv4Network(pool or subnet),)
    return Network(name, name, False, False, (own,), pools, frozenset({gateway}))


def service(name: str, *networks: str, aliases: tuple[str, ...] = ()) -> Service:
    virtual = dict.fromkeys(networks, "10.0.0.2")
    called = dict.fromkeys(networks, frozenset(aliases))
    return Service(name, frozenset(networks), virtual, (), called, {}, "")


def said(*services: Service, networks: tuple[Network, ...] = (), **waits: str) -> Declared:
    wanted = [Wanted(f"{name}.1", name, "pending", error, "", "") for name, error in waits.items()]
    return Declared({}, networks, services, tuple(wanted), ())


def test_the_room_of_a_network_is_what_can_be_given_out() -> None:
    assert network("a", "10.250.0.0/29", "10.250.0.4/30", "10.250.0.1").room == 3
    assert network("a", "10.250.0.0/29", gateway="10.250.0.1").room == 5
    assert network("a", "10.1.0.0/16", gateway="10.1.0.1").room == 65_533


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ("no suitable node (scheduling constraints not satisfied on 3 nodes)", "constraint-unmet"),
        ("no suitable node (host-mode port already in use on 1 node)", "host-port-taken"),
        ("no suitable node (insufficient resources on 3 nodes)", "memory-reserved"),
        ("", None),
    ],
)
def test_a_task_waits_for_the_reason_that_swarm_gives(error: str, fault: str | None) -> None:
    (found,) = deployments.waiting(said(service("late"), late=error), {})
    assert (found.fault, found.where) == (fault, "late")
    assert error in found.evidence


def test_a_task_that_no_address_is_given_waits_for_its_network() -> None:
    plain = network("plain", "10.9.1.0/24")
    twice = Network("twice", "twice", False, False, (), (), frozenset(), allocated=False)
    (found,) = deployments.waiting(said(service("late", "twice"), networks=(plain, twice), late=""), {})
    assert (found.fault, "inspect twice: no subnet" in found.evidence) == ("subnets-overlap", True)
    one = network("one", "10.9.2.0/30", gateway="10.9.2.1")
    (found,) = deployments.waiting(said(service("late", "one"), networks=(one, plain), late=""), {})
    assert (found.fault, "one has 1 addresses" in found.evidence) == ("addresses-used-up", True)


def test_a_name_of_two_services_is_found_where_both_are() -> None:
    shop, test = service("shop", "front"), service("test", "front", aliases=("shop", "test-shop"))
    (found,) = deployments.aliases(said(shop, test), {})
    assert (found.fault, found.where) == ("alias-shared", "front")
    assert not [*deployments.aliases(said(shop, service("test", "back", aliases=("shop",))), {})]


def test_a_password_in_an_address_is_not_told() -> None:
    shop = dataclasses.replace(service("shop"), urls={"API": "http://me:secret@back:80/buy?key=secret"})
    (found,) = calls.addresses(said(shop, service("back")), {})
    assert found.fault == "no-common-network"
    assert "API=http://back:80" in found.evidence
    assert "secret" not in str(found)


def test_every_fault_has_its_finding_and_every_finding_a_lab() -> None:
    text = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    for fault in faults.FAULTS:
        assert f'"{fault}"' in text, fault
    known = {path.name[:2] for path in paths.SOURCES.glob("*.md")}
    named = set(re.findall(r'lab="(\d\d)"', text))
    assert named
    assert named <= known
