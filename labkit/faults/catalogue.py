"""The faults: what each does to the bench, what undoes it, what shows it, which checks it turns red.

A fault is a list of steps. Each step is one command and the command that undoes it; both are known
before anything is changed. To add a fault: write its steps, its evidence, and the checks that it turns
red, its own check first; tests/live/test_faults.py then proves all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.errors import SwarmError
from labkit.experiments.asking import TASK_PORT, curl, ping
from labkit.faults.testbed import ASKER, CALLS, DOOR, FRONT, LABEL, PLAIN, PROBE, SECRET, Bench
from labkit.swarm import APP_IMAGE

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.swarm import Lab, Node, Place

COMMENT = "labkit-fault"  # of every iptables rule that is put in
_LATE = "late"  # a service that only a fault makes
_SHORT_S = 2.0


@dataclass(frozen=True)
class Step:
    """One command that breaks something, and the one that undoes it; either may be absent."""

    place: Place
    do: list[str] | None = None
    undo: list[str] | None = None


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in real swarms, made on purpose."""

    id: str
    title: str  # what is broken
    symptom: str  # what people notice of it
    red: tuple[str, ...]  # the checks that it turns red, its own check first
    steps: Callable[[Bench], list[Step]]
    evidence: Callable[[Bench], list[Capture]]
    shows: Callable[[list[Capture]], bool]  # whether the evidence is that of this fault
    settle: Callable[[Lab], None] | None = None  # what is left to do when it has been undone
    either: tuple[str, ...] = ()  # the checks that it may turn red or not

    @property
    def check(self) -> str:
        """The check that this fault, before all, turns red."""
        return self.red[0]


# --- packets dropped on a node -------------------------------------------------------------------


def _drop(node: Node, *rules: str) -> list[Step]:
    """Drop packets on a node: each rule is a chain and what is matched."""
    steps = []
    for rule in rules:
        chain, *match = rule.split()
        rest = [chain, *match, "-m", "comment", "--comment", COMMENT, "-j", "DROP"]
        argv = ["iptables", "-w", "10"]
        steps.append(Step(node.place, [*argv, "-I", *rest], [*argv, "-D", *rest]))
    return steps


def _both_ways(bench: Bench, match: str) -> list[Step]:
    return _drop(bench.nodes[2], f"INPUT {match}", f"OUTPUT {match}")


def _gossip(bench: Bench) -> list[Step]:
    return [s for proto in ("udp", "tcp") for s in _both_ways(bench, f"-p {proto} --dport 7946")]


def _ask_for_the_mac(bench: Bench) -> list[Capture]:
    """Let asker forget the MAC address of back, ask again, and look; then what Swarm's managers say."""
    address = bench.back.addresses[PLAIN]
    sandbox = bench.asker.sandbox
    sandbox.run(["ip", "neigh", "flush", "to", address])
    return [
        bench.asker.run(ping(address, _SHORT_S)),
        sandbox.run(["ip", "neigh", "show", "to", address]),
        bench.lab.manager.run(["docker", "node", "ls", "--format", "{{.Hostname}} {{.Status}}"]),
    ]


def _mac_but_silence(seen: list[Capture]) -> bool:
    asked, neighbour, _ = seen
    return not asked.ok and "lladdr" in neighbour.text and "Unreachable" not in asked.text


def _no_mac_though_ready(seen: list[Capture]) -> bool:
    asked, neighbour, nodes = seen
    ready = all(line.endswith(" Ready") for line in nodes.lines)
    return not asked.ok and "lladdr" not in neighbour.text and ready


def _ping_both_networks(bench: Bench) -> list[Capture]:
    asked = [
        bench.asker.run(ping(bench.back.addresses[network], _SHORT_S)) for network in (PLAIN, SECRET)
    ]
    return [*asked, bench.nodes[0].run(["ip", "xfrm", "state"])]


def _ping_small_and_large(bench: Bench) -> list[Capture]:
    small = ping(bench.back.addresses[PLAIN], _SHORT_S)
    return [bench.asker.run(argv) for argv in (small, [*small[:-1], "-s", "1400", small[-1]])]


# --- tables of the kernel on a node --------------------------------------------------------------


def _flush_nat(bench: Bench) -> list[Step]:
    node = bench.nodes[1]
    saved = node.run(["iptables-save", "-t", "nat"]).check().text
    undo = ["sh", "-c", 'printf %s "$1" | iptables-restore', "sh", saved]
    return [Step(node.place, ["iptables", "-w", "10", "-t", "nat", "-F"], undo)]


def _nat_and_curl(bench: Bench) -> list[Capture]:
    node = bench.nodes[1]
    return [
        node.run(["iptables", "-w", "10", "-t", "nat", "-S"]),
        node.run([*curl(f"http://127.0.0.1:{bench.port}", _SHORT_S), "-w", "%{time_connect}"]),
    ]


def _connected_but_silent(capture: Capture) -> bool:
    """Whether a curl with `-w %{time_connect}` had a connection and then no answer in time."""
    return capture.code == 28 and float(capture.text or 0) > 0


def _shorten_ipvs(bench: Bench) -> list[Step]:
    place = bench.nodes[0].load_balancer(PLAIN)
    argv = ["ipvsadm", "--set"]
    return [Step(place, [*argv, "1", "120", "300"], [*argv, "900", "120", "300"])]


def _ipvs_timeouts(bench: Bench) -> list[Capture]:
    return [bench.nodes[0].load_balancer(PLAIN).run(["ipvsadm", "-l", "--timeout"])]


def _point_elsewhere(bench: Bench) -> list[Step]:
    place = bench.nodes[0].overlay(PLAIN)
    argv = ["bridge", "fdb", "replace", bench.mac(), "dev", "vxlan0", "self", "permanent", "dst"]
    wrong, right = bench.nodes[1].address, bench.back.node.address
    return [Step(place, [*argv, wrong], [*argv, right])]


def _where_is_back(bench: Bench) -> list[Capture]:
    """What node1 and node2 hold for the MAC address of back, and where back is."""
    argv = ["bridge", "fdb", "show", "dev", "vxlan0"]
    here, there = (node.overlay(PLAIN).run(argv).check() for node in bench.nodes[:2])
    return [here, there, bench.back.node.run(["hostname", "-i"])]


def _they_disagree(seen: list[Capture]) -> bool:
    tables = [capture.table.dropna(subset="vtep") for capture in seen[:2]]
    here, there = (dict(zip(table["mac"], table["vtep"], strict=True)) for table in tables)
    return any(here[mac] != there[mac] for mac in here.keys() & there.keys())


# --- services ------------------------------------------------------------------------------------


def _on_manager(bench: Bench, do: list[str], undo: list[str] | None) -> list[Step]:
    return [Step(bench.lab.manager.place, do, undo)]


def _scale(bench: Bench) -> list[Step]:
    argv = ["docker", "service", "scale", "--detach"]
    return _on_manager(bench, [*argv, f"{FRONT}=2"], [*argv, f"{FRONT}=1"])


def _states(bench: Bench, service: str) -> Capture:
    argv = ["docker", "service", "ps", "--filter", "desired-state=running", "--format"]
    return bench.lab.manager.run([*argv, "{{.Name}} {{.CurrentState}}", service])


def _chicken_and_egg(bench: Bench) -> list[Step]:
    argv = ["docker", "service", "create", "--detach", "--no-resolve-image", "--name", _LATE]
    argv += ["--network", PLAIN, "--constraint", f"node.hostname=={bench.nodes[1].name}"]
    argv += ["--label", f"{LABEL}={bench.port}", "--stop-grace-period", "1s"]
    argv += ["--health-cmd", f"curl -fsS -m 2 http://{_LATE}:{TASK_PORT}", "--health-retries", "1000"]
    argv += ["--health-interval", "5s", "--health-timeout", "10s", APP_IMAGE]
    return _on_manager(bench, argv, ["docker", "service", "rm", _LATE])


def _late(bench: Bench) -> list[Capture]:
    """The state of its task, what its name resolves to, and its app asked in the container."""
    box = f"$(docker ps -q -f label=com.docker.swarm.service.name={_LATE})"
    inside = f"docker exec {box} curl -sS -m 2 http://127.0.0.1:{TASK_PORT}"
    return [
        _states(bench, _LATE),
        bench.asker.run(["dig", "+time=2", "+tries=1", "+nosearch", "+short", _LATE]),
        bench.nodes[1].run(["sh", "-c", inside]),
    ]


def _runs_but_starts(seen: list[Capture]) -> bool:
    states, name, inside = seen
    resolved = [line for line in name.lines if not line.startswith(";")]
    return "Starting" in states.text and not resolved and inside.text.strip() == "HI"


def _say(service: str, label: str, url: Callable[[Bench], str]) -> Callable[[Bench], list[Step]]:
    """Change what a label of a service says."""

    def steps(bench: Bench) -> list[Step]:
        argv = ["docker", "service", "update", "--detach", "--label-add"]
        words = [f"{label}={text}" for text in (url(bench), bench.label(service, label))]
        do, undo = ([*argv, word, service] for word in words)
        return _on_manager(bench, do, undo)

    return steps


def _four_and_six(bench: Bench) -> list[Capture]:
    url = f"http://localhost:{bench.port}"
    asked = [
        bench.nodes[0].run([*curl(url, _SHORT_S), "-w", "%{time_connect}", *way])
        for way in (["-4", "-o", "/dev/null"], ["-6"])
    ]
    return [_label(bench, DOOR, PROBE), *asked]


def _label(bench: Bench, service: str, label: str) -> Capture:
    form = f'{{{{index .Spec.Labels "{label}"}}}}'
    return bench.lab.manager.run(["docker", "service", "inspect", "--format", form, service])


def _both_ports(bench: Bench) -> list[Capture]:
    asked = [
        bench.asker.run(curl(f"http://{FRONT}:{port}/", _SHORT_S)) for port in (bench.port, TASK_PORT)
    ]
    return [_label(bench, ASKER, CALLS), *asked]


def _remove_ingress(bench: Bench) -> list[Step]:
    """Remove what is published, and then the network; the door comes back with the bench."""
    manager, two = bench.lab.manager, bench.nodes[1]
    rows = manager.docker.api.networks(names=["ingress"])
    found = [row for row in rows if row["Ingress"]]
    if not found:
        raise SwarmError("this swarm has no network ingress to remove", hint="labkit reset")
    config = found[0]["IPAM"]["Config"][0]
    again = ["docker", "network", "create", "--driver", "overlay", "--ingress"]
    again += ["--subnet", config["Subnet"], "--gateway", config["Gateway"], "ingress"]
    running = f"docker ps -q -f label=com.docker.swarm.service.name={DOOR}"
    return [
        Step(manager.place, ["docker", "service", "rm", DOOR]),
        Step(two.place, ["sh", "-c", f"while {running} | grep -q .; do sleep 0.2; done"]),
        Step(manager.place, ["sh", "-c", "echo y | docker network rm ingress"], again),
    ]


def _wake(lab: Lab) -> None:
    """Let every node set the routing mesh up that has missed a new ingress network.

    An engine that hears of the network together with its own address there may look for the address
    too early ("failed to find a load balancer IP to use for network", seen on 26.1). It tries again
    whenever its node is changed, and so its label is.
    """
    change = ["docker", "node", "update"]
    mark = f"{LABEL}.woken"
    woken: dict[str, int] = {}

    def look() -> tuple[bool, str]:
        known = {
            node.name: [
                (network.id, bool(network.attrs.get("Peers")))
                for network in node.docker.networks.list(names=["ingress"], greedy=True)
            ]
            for node in lab.nodes.values()
        }
        wanted = known[lab.manager.name][:1]
        asleep = [name for name, rows in known.items() if rows != wanted or not rows[0][1]]
        for name in asleep:
            woken[name] = woken.get(name, 0) + 1
            lab.manager.run([*change, "--label-add", f"{mark}={woken[name]}", name]).check()
        return not asleep, f"without: {', '.join(asleep)}"

    try:
        lab.wait_for("the routing mesh on every node", look, seconds=120, every_s=10)
    finally:
        for name in woken:
            lab.manager.run([*change, "--label-rm", mark, name])


def _ingress_and_curl(bench: Bench) -> list[Capture]:
    return [
        bench.lab.manager.run(["docker", "network", "ls", "--format", "{{.Name}}"]),
        bench.nodes[0].run(curl(f"http://127.0.0.1:{bench.port}", _SHORT_S)),
    ]


_FAULTS = (
    Fault(
        "vxlan-dropped",
        "node3 drops UDP port 4789",
        "No task reaches a task on node3 from elsewhere, though its name and MAC address are known",
        ("far", "far-large", "far-encrypted", "port-node3"),
        lambda bench: _both_ways(bench, "-p udp --dport 4789"),
        _ask_for_the_mac,
        _mac_but_silence,
    ),
    Fault(
        "gossip-dropped",
        "node3 drops TCP and UDP port 7946",
        "Nobody elsewhere knows the tasks on node3 any more, though the manager calls it Ready",
        ("neighbours", "forwarding", "far-name", "far", "far-large", "far-encrypted"),
        _gossip,
        _ask_for_the_mac,
        _no_mac_though_ready,
        # Node3 gives the others up too, but in its own time. On 20.10 it may never: seen for 150 s.
        either=("port-node3",),
    ),
    Fault(
        "esp-dropped",
        "node3 drops ESP, IP protocol 50",
        "Only the encrypted overlay is dead",
        ("far-encrypted",),
        lambda bench: _drop(bench.nodes[2], "INPUT -p esp"),
        _ping_both_networks,
        lambda seen: seen[0].ok and not seen[1].ok and "spi" in seen[2].text,
    ),
    Fault(
        "large-vxlan-dropped",
        "node3 drops UDP port 4789 where a packet has 1400 bytes or more",
        "Short answers come, long ones hang",
        ("far-large",),
        lambda bench: _both_ways(bench, "-p udp --dport 4789 -m length --length 1400:65535"),
        _ping_small_and_large,
        lambda seen: seen[0].ok and not seen[1].ok,
    ),
    Fault(
        "nat-flushed",
        "the nat table of node2 is empty",
        "The published port of node2 connects and then says nothing",
        ("port-node2",),
        _flush_nat,
        _nat_and_curl,
        lambda seen: "--dport" not in seen[0].text and _connected_but_silent(seen[1]),
    ),
    Fault(
        "ipvs-timeout",
        "node1 forgets a balanced connection of bench-plain after one second of silence",
        "A connection that was quiet for a while is dead",
        ("idle",),
        _shorten_ipvs,
        _ipvs_timeouts,
        lambda seen: seen[0].text.split()[-3:] == ["1", "120", "300"],
    ),
    Fault(
        "stale-fdb",
        "node1 believes that the task of back is on node2",
        "One task is not reached from one node, and from the others it is",
        ("forwarding", "far", "far-large"),
        _point_elsewhere,
        _where_is_back,
        _they_disagree,
    ),
    Fault(
        "addresses-used-up",
        "front is scaled to two tasks, and bench-small has no address left",
        "A new task stays New",
        ("scale",),
        _scale,
        lambda bench: [_states(bench, FRONT)],
        lambda seen: any(line.split()[1] == "New" for line in seen[0].lines),
    ),
    Fault(
        "health-needs-own-name",
        "a new service, late, has a health check that asks for the service's own name",
        "The service never gets ready, though its app answers",
        ("services",),
        _chicken_and_egg,
        _late,
        _runs_but_starts,
    ),
    Fault(
        "localhost-is-ipv6",
        "the door is looked for at ::1",
        "The published port connects and then says nothing at localhost, and answers at 127.0.0.1",
        ("probe",),
        _say(DOOR, PROBE, lambda bench: f"http://[::1]:{bench.port}/"),
        _four_and_six,
        lambda seen: "::1" in seen[0].text and seen[1].ok and _connected_but_silent(seen[2]),
    ),
    Fault(
        "ingress-removed",
        "the network ingress and what was published on it are gone",
        "No node answers at the published port",
        ("port-node1", "port-node2", "port-node3", "probe"),
        _remove_ingress,
        _ingress_and_curl,
        lambda seen: "ingress" not in seen[0].lines and seen[1].code == 7,
        _wake,
    ),
    Fault(
        "wrong-port",
        "asker calls front at the published port",
        "Within the overlay the connection is refused, though the service is well",
        ("call",),
        _say(ASKER, CALLS, lambda bench: f"http://{FRONT}:{bench.port}/"),
        _both_ports,
        lambda seen: (
            seen[0].text.strip().endswith(f":{seen[1].argv[-1].rpartition(':')[2]}")
            and seen[1].code == 7
            and seen[2].ok
        ),
    ),
)
FAULTS = {fault.id: fault for fault in _FAULTS}
