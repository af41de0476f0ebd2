"""What a diagnosis concludes from tables, rules and what the manager says; on a swarm: tests/live."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from labkit import diagnosis, faults, paths
from labkit.capture import Capture
from labkit.diagnosis import calls, declared, deployments, firewalls, kernel, seen
from labkit.diagnosis.declared import Declared, Network, Port, Service, Wanted
from labkit.diagnosis.seen import Argv, Namespace, NodeSeen
from labkit.swarm import Node, Place, Task
from tests.unit.fakes import FakeNode, as_json, lab_of

CAPTURES = Path(__file__).parents[1] / "captures"
PACKAGE = Path(diagnosis.__file__).parent


@pytest.mark.parametrize("version", ["20.10", "26.1", "28.5"])
def test_an_overlay_is_read_on_all_its_devices(version: str) -> None:
    first, second = (
        "10.0.1.6 dev vxlan0 lladdr",
        "10.0.7.9 dev vxlan1 lladdr 02:42:0a:00:07:09 PERMANENT",
    )
    files = ("ip-neigh--overlay-text", "bridge-fdb--overlay-all")
    texts = [(CAPTURES / version / f"{name}.txt").read_text().partition("\n")[2] for name in files]
    assert first in texts[0]
    own = "10.0.7.9 dev br1 lladdr 02:42:0a:00:07:01 REACHABLE"  # of the bridge, and no word of Swarm
    read = shown(NEIGHBOURS=f"{texts[0]}{second}\n{own}\n", FORWARDING=texts[1])
    space = Namespace("front", Place(node("node1", NODE1), "node1/front"), read)
    assert space.neighbours["10.0.1.6"] == "02:42:0a:00:01:06"
    assert space.neighbours["10.0.7.9"] == "02:42:0a:00:07:09"
    assert space.forwarding.keys() == {"02:42:0a:00:01:04", "02:42:0a:00:01:06"}


@pytest.mark.parametrize("version", ["20.10", "26.1", "28.5"])
def test_a_node_leads_its_published_ports_into_the_mesh(version: str) -> None:
    text = (CAPTURES / version / "iptables-save--node.txt").read_text().partition("\n")[2]
    node1 = node("node1", NODE1)
    front = Task("web.1", "web", 1, node1, "", 1, {"ingress": "10.0.0.6"}, ingress="ingress")
    ports = tuple(Port(published, 3000, "tcp", ingress=True) for published in (5000, 5001))
    told = dataclasses.replace(said(dataclasses.replace(service("web"), ports=ports)), running=(front,))
    read = {"node1": NodeSeen(node1, read=shown(RULES=text, LINKS=""))}
    (found,) = kernel.published(told, read)
    assert (found.fault, "port 5001" in found.what) == ("nat-flushed", True)


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
        (
            "no suitable node (scheduling constraints not satisfied on 2 nodes; "
            "host-mode port already in use on 1 node)",
            "host-port-taken",
        ),
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


def test_a_service_that_tells_its_own_name_calls_nobody() -> None:
    shop = dataclasses.replace(service("shop"), urls={"ROOT_URL": "http://shop/", "DB": "http://back/"})
    (found,) = calls.addresses(said(shop, service("back")), {})
    assert "to call back" in found.what


NODE1, NODE3 = "192.168.208.2", "192.168.208.4"
NO_GOSSIP = "-A INPUT -p udp -m udp --dport 7946 -j DROP"
HEARD = "02:42:0a:00:01:02 dev vxlan0 dst 192.168.208.2 link-netnsid 0 self permanent\n"
# As `ip -j addr` tells it; the interface has a kind that `ip -d addr` has a line of its own for.
LINKS = """\
[{"ifindex":2,"ifname":"ifb0","flags":["BROADCAST","NOARP"],"mtu":1500,"qdisc":"noop","operstate":"DOWN",
"group":"default","txqlen":32,"link_type":"ether","address":"7e:73:41:00:8a:11",
"broadcast":"ff:ff:ff:ff:ff:ff","addr_info":[]},
{"ifindex":4,"link_index":6,"ifname":"eth0","flags":["UP"],"mtu":1450,"operstate":"UP","link_type":"ether",
"address":"02:42:0a:00:01:03","link_netnsid":0,"addr_info":[{"family":"inet","local":"%s","prefixlen":24,
"scope":"global"}]}]
"""
IFB = """\
2: ifb0: <BROADCAST,NOARP> mtu 1500 qdisc noop state DOWN group default qlen 32
    link/ether 7e:73:41:00:8a:11 brd ff:ff:ff:ff:ff:ff promiscuity 0  allmulti 0 minmtu 0 maxmtu 0
    ifb numtxqueues 1 numrxqueues 1 gso_max_size 65536 gso_max_segs 65535 tso_max_size 524280
"""
ASKER = LINKS % "10.0.1.3"


def node(name: str, address: str) -> Node:
    return Node(name, address, "", "26.1", link=None, log=list)  # type: ignore[arg-type]


def shown(**outputs: str) -> dict[Argv, Capture]:
    """Return what was read in a place, by the names of `seen` for the commands."""

    def captures() -> Iterator[Capture]:
        for command, text in outputs.items():
            argv: Argv = getattr(seen, command)
            yield Capture(argv, "a place", "node", 0, text, "", datetime.now(UTC), 0.1, "26.1")

    return {capture.argv: capture for capture in captures()}


@pytest.mark.parametrize(
    ("rule", "forwarding", "faults_found"),
    [
        ("", HEARD, {"wrong-neighbour"}),  # it knows of node1, and lacks one of its tasks
        ("", "", {"gossip-dropped"}),
        (NO_GOSSIP, HEARD, set()),  # it forgets node1, one thing after another
        (NO_GOSSIP, "", set()),
    ],
)
def test_what_a_node_lacks_without_gossip_is_no_finding_of_its_own(
    rule: str, forwarding: str, faults_found: set[str]
) -> None:
    filtered = "\n".join(["*filter", ":INPUT ACCEPT [0:0]", rule, "COMMIT"])
    node1, node3 = node("node1", NODE1), node("node3", NODE3)
    asker = Task("asker.1", "asker", 1, node1, "", 1, {"front": "10.0.1.3"})
    overlay = shown(NEIGHBOURS="", FORWARDING=forwarding)
    read = {
        "node1": NodeSeen(
            node1, read=shown(RULES="*filter\nCOMMIT", LINKS=""), tasks={"asker.1": shown(LINKS=ASKER)}
        ),
        "node3": NodeSeen(
            node3,
            read=shown(RULES=filtered, LINKS=""),
            overlays=[Namespace("front", Place(node3, "node3/front"), overlay)],
        ),
    }
    told = dataclasses.replace(said(), running=(asker,))
    found = [*kernel.neighbours(told, read), *kernel.gossip(told, read)]
    assert {finding.fault for finding in found} == faults_found


def test_a_table_that_is_not_understood_is_told_and_the_rest_is_read() -> None:
    def run(argv: list[str]) -> str:
        match argv:
            case ["ip", "addr"] | ["ip", "-d", "addr"]:
                return IFB
            case ["ip", "-j", "addr"]:
                return LINKS % "172.30.0.2"
            case ["find", *_]:
                return "nsfs 7 1-front\nnsfs 8 lb_front\n"
            case ["bridge", *_]:
                return "02:42:0a:00:01:02 dev vxlan0 dst 172.30.0.3 beyond self permanent\n"
        return ""

    lab = lab_of({"node1": FakeNode(run, lambda *_: as_json({}))})
    told = said(networks=(network("front", "10.0.1.0/24"),))
    read = seen.of(lab, told)
    lab.close()
    assert read["node1"].interfaces == {"172.30.0.2": "eth0"}
    assert [space.place.label for space in read["node1"].balancers] == ["node1/lb_front"]
    assert not read["node1"].overlays
    (found,) = deployments.unread(told, read)
    assert found.what.startswith("node1/1-front shows what labkit does not understand")
    assert "bridge fdb show: line 1: expected no word 'beyond'" in found.evidence


def test_nothing_is_said_of_a_node_whose_own_tables_are_not_understood() -> None:
    left_out = "# Table `filter' is incompatible, use 'nft' tool.\n"
    node1 = FakeNode(lambda argv: left_out * (argv == ["iptables-save"]), lambda *_: as_json({}))
    lab = lab_of({"node1": node1})
    shop = dataclasses.replace(service("shop"), ports=(Port(8080, 80, "tcp", ingress=True),))
    told = said(shop)
    read = seen.of(lab, told)
    lab.close()
    found = [finding for examine in diagnosis._EXAMINERS for finding in examine(told, read)]
    assert [finding.where for finding in found] == ["node1", "the swarm"]  # which has no mesh here


def test_a_task_that_just_ends_takes_nothing_from_its_node() -> None:
    def run(argv: list[str]) -> str | dict[str, object]:
        return {"code": 125, "stderr": "labkit: no process of gone\n"} if argv[0] == "ss" else ""

    lab = lab_of({"node1": FakeNode(run, lambda *_: as_json({}))})
    gone = Task("web.1", "web", 1, lab.node("node1"), "gone", 7, {})
    read = seen.of(lab, dataclasses.replace(said(), running=(gone,)))["node1"]
    lab.close()
    assert (read.silent, set(read.read), read.tasks) == ("", {seen.RULES, seen.LINKS}, {})


@pytest.mark.parametrize(("streak", "told"), [(0, {}), (2, {"web.1": "refused"})])
def test_a_check_that_fails_in_the_start_period_is_no_failure(
    streak: int, told: dict[str, str]
) -> None:
    health = {"FailingStreak": streak, "Log": [{"ExitCode": 7, "Output": "refused\n"}]}
    node1 = FakeNode(lambda _: "", lambda *_: as_json({"State": {"Health": health}}))
    starting = Wanted("web.1", "web", "starting", "", "node1", "abc")
    lab = lab_of({"node1": node1})
    read = seen.of(lab, dataclasses.replace(said(), wanted=(starting,)))
    lab.close()
    assert read["node1"].health == told


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("-p tcp -m tcp --dport 8080 -j DROP", ["node1"]),
        ("-i eth0 -p tcp -m tcp --dport 8080 -j DROP", []),  # there are other ways in
    ],
)
def test_nobody_outside_is_who_comes_by_any_interface(rule: str, found: list[str]) -> None:
    filtered = f"*filter\n:DOCKER-USER - [0:0]\n-A DOCKER-USER {rule}\nCOMMIT"
    node1 = node("node1", NODE1)
    read = {"node1": NodeSeen(node1, read=shown(RULES=filtered, LINKS=LINKS % NODE1))}
    shop = dataclasses.replace(service("shop"), ports=(Port(8080, 80, "tcp", ingress=True),))
    assert [one.where for one in firewalls.of_published_ports(said(shop), read)] == found


NODE2, DATA1, NOBODYS = "192.168.208.3", "10.9.0.1", "203.0.113.9"
LEADS = "02:42:0a:00:01:03 dev vxlan1 dst {} self permanent\n"


def data_path(forwarding: str, filtered: str = "*filter\nCOMMIT") -> dict[str, NodeSeen]:
    """Return a swarm whose node1 has an interface of its own for data, as node3 has heard."""
    node1, node2, node3 = node("node1", NODE1), node("node2", NODE2), node("node3", NODE3)
    there = shown(NEIGHBOURS="", FORWARDING=HEARD.replace(NODE1, NODE3))
    overlay = shown(
        NEIGHBOURS="10.0.1.3 dev vxlan1 lladdr 02:42:0a:00:01:03 PERMANENT\n", FORWARDING=forwarding
    )
    return {
        "node1": NodeSeen(
            node1,
            read=shown(RULES=filtered, LINKS=LINKS % DATA1),
            overlays=[Namespace("front", Place(node1, "node1/front"), there)],
            tasks={"asker.1": shown(LINKS=ASKER)},
        ),
        "node2": NodeSeen(node2, read=shown(RULES="*filter\nCOMMIT", LINKS="")),
        "node3": NodeSeen(
            node3,
            read=shown(RULES="*filter\nCOMMIT", LINKS=""),
            overlays=[Namespace("front", Place(node3, "node3/front"), overlay)],
        ),
    }


@pytest.mark.parametrize(
    ("forwarding", "evidence"),
    [
        (LEADS.format(NODE1), []),
        (LEADS.format(DATA1), []),  # --data-path-addr
        (LEADS.format(NOBODYS), []),  # translated on the way, for all that is known
        (LEADS.format(NOBODYS) + HEARD, [f"dst {NOBODYS}; the task is on node1, {NODE1}"]),
        (LEADS.format(NODE2), [f"dst {NODE2}; the task is on node1, {NODE1}"]),
        (HEARD.replace(NODE1, DATA1), [f"dst not there; the task is on node1, {DATA1}"]),
    ],
)
def test_vxlan_may_end_at_any_address_of_the_node(forwarding: str, evidence: list[str]) -> None:
    read = data_path(forwarding)
    asker = Task("asker.1", "asker", 1, read["node1"].node, "", 1, {"front": "10.0.1.3"})
    told = dataclasses.replace(said(), running=(asker,))
    found = [*kernel.neighbours(told, read), *kernel.gossip(told, read)]
    assert [one.evidence.partition("02:42:0a:00:01:03 ")[2] for one in found] == evidence


OPEN = "-A INPUT -p {0} -m {0} --dport 7946 -j ACCEPT"


@pytest.mark.parametrize(
    ("rule", "forwarding", "stopped"),
    [
        ("-s 192.168.208.0/24 -p udp -m udp --dport 7777 -j ACCEPT", LEADS.format(DATA1), False),
        ("-s 10.9.0.0/24 -p udp -m udp --dport 7777 -j ACCEPT", LEADS.format(DATA1), True),
        ("-i eth0 -p udp -m udp --dport 7777 -j ACCEPT", LEADS.format(DATA1), False),
        ("-i eth0 -p udp -m udp --dport 7777 -j ACCEPT", "", False),  # its end is not known
        ("-i eth1 -p udp -m udp --dport 7777 -j ACCEPT", LEADS.format(DATA1), True),
        ("-p udp -m udp --dport 4789 -j ACCEPT", LEADS.format(DATA1), True),
    ],
)
def test_a_firewall_is_asked_for_the_address_and_the_port_of_data(
    rule: str, forwarding: str, stopped: bool
) -> None:
    lines = [OPEN.format("udp"), OPEN.format("tcp"), f"-A INPUT {rule}"]
    read = data_path(forwarding, "\n".join(["*filter", ":INPUT DROP [0:0]", *lines, "COMMIT"]))
    found = firewalls.between_nodes(dataclasses.replace(said(), vxlan_port=7777), read)
    assert [one.fault for one in found] == ["vxlan-dropped"] * stopped


def manager(**told: object) -> Declared:
    """Return what is read of a manager that tells this, and else nothing."""

    def api(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        if "/containers/" in path:
            return as_json({"message": "no such container"}, 404)
        return as_json(told.get(path.partition("?")[0].rpartition("/")[2], []))

    lab = lab_of({"node1": FakeNode(lambda _: "", api)})
    try:
        return declared.of(lab)
    finally:
        lab.close()


@pytest.mark.parametrize(("told", "port"), [({}, 4789), ({"DataPathPort": 7777}, 7777)])
def test_the_manager_tells_the_port_of_the_overlays(told: dict[str, int], port: int) -> None:
    assert manager(swarm=told).vxlan_port == port


@pytest.mark.parametrize("states", [("ready", "down"), ("down", "ready")])
def test_a_node_that_has_joined_again_is_what_it_is_now(states: tuple[str, str]) -> None:
    rows = [
        {"ID": state, "Description": {"Hostname": "node1"}, "Status": {"State": state}}
        for state in states
    ]
    assert manager(swarm={}, nodes=rows).states == {"node1": "ready"}


def test_a_task_whose_node_cannot_tell_its_address_is_not_known() -> None:
    """Of an overlay with IPv6 too, Swarm may have the other address alone."""
    six = {"Network": {"Spec": {"Name": "six", "IPv6Enabled": True}}, "Addresses": ["fd80::4/64"]}
    task = {
        "ServiceID": "1",
        "NodeID": "2",
        "Slot": 1,
        "Status": {"State": "running", "ContainerStatus": {"ContainerID": "abc", "PID": 7}},
        "NetworksAttachments": [six],
    }
    told = manager(
        swarm={},
        nodes=[{"ID": "2", "Description": {"Hostname": "node1"}, "Status": {"State": "ready"}}],
        services=[{"ID": "1", "Spec": {"Name": "web", "TaskTemplate": {}}}],
        tasks=[task],
    )
    assert (len(told.wanted), told.running, told.knows_all("web")) == (1, (), False)


MARK = "-A INPUT -d 10.0.0.2/32 -j MARK --set-xmark 0x101/0xffffffff\n"
BALANCED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
FWM  257 rr
  -> 10.0.1.7:0                   Masq    1      0          0
"""


@pytest.mark.parametrize(("running", "found"), [(0, ["dead-backend"]), (1, [])])
def test_whom_nobody_knows_may_be_the_task_that_is_not_known(running: int, found: list[str]) -> None:
    node1 = node("node1", NODE1)
    balancer = Namespace("front", Place(node1, "lb"), shown(MARKS=MARK, SERVERS=BALANCED))
    read = {"node1": NodeSeen(node1, read=shown(RULES="", LINKS=""), balancers=[balancer])}
    one = Wanted("web.1", "web", "running", "", "node1", "abc")
    told = dataclasses.replace(said(service("web", "front")), wanted=(one,) * running)
    assert [finding.fault for finding in kernel.balancers(told, read)] == found


@pytest.mark.parametrize(("port", "found"), [(4789, ["unmarked"]), (7777, [])])
def test_what_is_encrypted_is_marked_by_the_port_of_the_overlays(port: int, found: list[str]) -> None:
    mark = "*mangle\n-A OUTPUT -p udp -m udp --dport 7777 -m u32 --u32 0x0=0x1 -j MARK --set-xmark 0xd0"
    read = data_path("", mark)
    there = Task("back.1", "back", 1, read["node3"].node, "", 1, {"front": "10.0.1.4"})
    secret = dataclasses.replace(network("front", "10.0.1.0/24"), encrypted=True)
    told = dataclasses.replace(said(networks=(secret,)), running=(there,), vxlan_port=port)
    assert [one.fault for one in kernel.marks(told, read)] == found


def test_only_overlays_have_addresses_to_give_out() -> None:
    row = {"Id": "a", "Name": "a", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "fd00::/64"}]}}
    ranged = {"Subnet": "10.1.0.0/16", "IPRange": "10.1.2.3/24"}
    rows = [
        row | {"Id": "lan", "Name": "lan", "Driver": "macvlan", "IPAM": {}},
        row | {"Id": "six", "Name": "six"},
        row | {"Id": "range", "Name": "range", "IPAM": {"Config": [ranged]}},
    ]
    networks = manager(swarm={}, networks=rows).networks
    assert [(one.name, one.room) for one in networks] == [("six", 0), ("range", 256)]
    late = service("late", "lan", "six")
    (found,) = deployments.waiting(said(late, networks=networks, late=""), {})
    assert found.fault is None


def test_an_overlay_without_a_subnet_does_not_tell_its_driver() -> None:
    twice = {"Id": "twice", "Name": "twice", "Driver": "", "IPAM": {"Config": None}}
    networks = manager(swarm={}, networks=[twice]).networks
    (found,) = deployments.waiting(said(service("late", "twice"), networks=networks, late=""), {})
    assert found.fault == "subnets-overlap"


SHUT = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 9100 -j DROP\nCOMMIT\n"
LISTENS = """\
Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port
tcp   LISTEN 0      128          0.0.0.0:9100      0.0.0.0:*
"""


@pytest.mark.parametrize(
    ("addresses", "found"), [({"front": "10.0.1.3"}, "exporter.1 on node1"), ({}, None)]
)
def test_the_firewall_of_a_machine_is_not_that_of_a_task_on_its_network(
    addresses: dict[str, str], found: str | None
) -> None:
    node1 = node("node1", NODE1)
    exporter = Task("exporter.1", "exporter", 1, node1, "", 1, addresses)
    read = {"node1": NodeSeen(node1, tasks={"exporter.1": shown(RULES=SHUT, LISTENING=LISTENS)})}
    told = dataclasses.replace(said(), running=(exporter,))
    assert [one.where for one in firewalls.of_tasks(told, read)] == [found] * bool(found)


def test_every_fault_has_its_finding_and_every_finding_a_lab() -> None:
    text = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    for fault in faults.FAULTS:
        assert f'"{fault}"' in text, fault
    known = {path.name[:2] for path in paths.SOURCES.glob("*.md")}
    named = set(re.findall(r'lab="(\d\d)"', text))
    assert named
    assert named <= known
