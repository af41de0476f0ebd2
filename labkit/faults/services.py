"""Faults of what is asked and published: an address, a port, a network that nobody has there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from labkit.errors import SwarmError
from labkit.experiments.asking import TASK_PORT, curl
from labkit.faults.fault import SHORT_S, Fault, Step, connected_but_silent
from labkit.faults.testbed import ASKER, CALLS, DOOR, FRONT, LABEL, PLAIN, PROBE, SMALL, Bench

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.swarm import Lab


def _change_label(
    service: str, label: str, url: Callable[[Bench], str]
) -> Callable[[Bench], list[Step]]:
    """Return what makes the step that puts this URL into a label of a service."""

    def steps(bench: Bench) -> list[Step]:
        argv = ["docker", "service", "update", "--detach", "--label-add"]
        wrong, right = url(bench), bench.label(service, label)
        do, undo = ([*argv, f"{label}={value}", service] for value in (wrong, right))
        return [Step(bench.lab.manager.place, do, undo)]

    return steps


def _four_and_six(bench: Bench) -> list[Capture]:
    """Show the door's label, then ask localhost by IPv4 and by IPv6, with the time to connect."""
    url = f"http://localhost:{bench.port}"
    asked = [
        bench.nodes[0].run([*curl(url, SHORT_S), "-w", "%{time_connect}", *options])
        for options in (["-4", "-o", "/dev/null"], ["-6"])
    ]
    return [_label(bench, DOOR, PROBE), *asked]


def _label(bench: Bench, service: str, label: str) -> Capture:
    """Show one label of a service as the manager has it."""
    form = f'{{{{index .Spec.Labels "{label}"}}}}'
    return bench.lab.manager.run(["docker", "service", "inspect", "--format", form, service])


def _both_ports(bench: Bench) -> list[Capture]:
    """Show the asker's label, then ask front at the published port and at the container's port."""
    asked = [
        bench.asker.run(curl(f"http://{FRONT}:{port}/", SHORT_S)) for port in (bench.port, TASK_PORT)
    ]
    return [_label(bench, ASKER, CALLS), *asked]


def _remove_ingress(bench: Bench) -> list[Step]:
    """Return steps that remove the published service and then the network it was published on.

    The undo makes the network; `heal` makes the missing service. Raises SwarmError where the network
    is missing already, EngineError where it is not the lab's to remove.
    """
    manager, node2 = bench.lab.manager, bench.nodes[1]
    manager.place.demand(["docker", "network", "rm", "ingress"])  # below, in a shell, nobody asks
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
        Step(node2.place, ["sh", "-c", f"while {running} | grep -q .; do sleep 0.2; done"]),
        Step(manager.place, ["sh", "-c", "echo y | docker network rm ingress"], again),
    ]


def _wake(lab: Lab) -> None:
    """Update the nodes that missed the new ingress network, until the routing mesh is on every node.

    An engine that hears of the network together with its own address there may look for the address
    too early ("failed to find a load balancer IP to use for network", seen on 26.1). It tries again
    after any update of its node; a label is the smallest one, and is removed at the end. Raises
    WaitTimeout.
    """
    update = ["docker", "node", "update"]
    label = f"{LABEL}.woken"
    attempts: dict[str, int] = {}

    def look() -> tuple[bool, str]:
        asleep = _without_ingress(lab)
        for name in asleep:
            attempts[name] = attempts.get(name, 0) + 1
            added = ["--label-add", f"{label}={attempts[name]}", lab.node(name).hostname]
            lab.manager.run([*update, *added]).check()
        return not asleep, f"without: {', '.join(asleep)}"

    try:
        lab.wait_for("the routing mesh on every node", look, seconds=120, every_s=10)
    finally:
        for name in attempts:
            lab.manager.run([*update, "--label-rm", label, lab.node(name).hostname])


def _without_ingress(lab: Lab) -> list[str]:
    """Return the nodes whose engine lacks the manager's ingress network, or has no peers there."""
    known = {
        node.name: [
            (network.id, bool(network.attrs.get("Peers")))
            for network in node.docker.networks.list(names=["ingress"], greedy=True)
        ]
        for node in lab.nodes.values()
    }
    expected = known[lab.manager.name][:1]
    return [name for name, rows in known.items() if rows != expected or not any(up for _, up in rows)]


def _ingress_and_curl(bench: Bench) -> list[Capture]:
    """List the manager's networks, and ask the published port on node1."""
    return [
        bench.lab.manager.run(["docker", "network", "ls", "--format", "{{.Name}}"]),
        bench.nodes[0].run(curl(f"http://127.0.0.1:{bench.port}", SHORT_S)),
    ]


def _call(url: Callable[[Bench], str]) -> Callable[[Bench], list[Step]]:
    """Return what makes the step by which asker calls another address."""
    return _change_label(ASKER, CALLS, url)


def _call_and_near(bench: Bench) -> list[Capture]:
    """Show the asker's label, ask there, and ask front at its address on the shared network."""
    label = _label(bench, ASKER, CALLS)
    near = f"http://{bench.front.addresses[PLAIN]}:{TASK_PORT}/"
    return [label, *(bench.asker.run(curl(url, SHORT_S)) for url in (label.text.strip(), near))]


def _publish_another(bench: Bench) -> list[Step]:
    """Return the step that leads the published port to a port at which no app listens."""
    argv = ["docker", "service", "update", "--detach"]

    def update(old: int, new: int) -> list[str]:
        port = f"published={bench.port},target={new}"
        return [*argv, "--publish-rm", f"{old}", "--publish-add", port, DOOR]

    wrong, right = update(TASK_PORT, TASK_PORT + 1), update(TASK_PORT + 1, TASK_PORT)
    return [Step(bench.lab.manager.place, wrong, right)]


def _ports_and_curl(bench: Bench) -> list[Capture]:
    """Show what door publishes and whether Swarm has done it, and ask it on node1."""
    form = "{{json .Endpoint.Ports}}{{if .UpdateStatus}} {{.UpdateStatus.State}}{{end}}"
    return [
        bench.lab.manager.run(["docker", "service", "inspect", "--format", form, DOOR]),
        bench.nodes[0].run(curl(f"http://127.0.0.1:{bench.port}", SHORT_S)),
    ]


FAULTS = (
    Fault(
        id="localhost-is-ipv6",
        level=1,
        title="the door is looked for at ::1, where published ports do not answer",
        complaint="Our check at localhost connects and then waits for ever. At 127.0.0.1 it answers",
        remedy=f"Ask 127.0.0.1: the label {PROBE} of door has to say so",
        source="moby/moby#53091, moby/moby#31818",
        red=("probe",),
        steps=_change_label(DOOR, PROBE, lambda bench: f"http://[::1]:{bench.port}/"),
        evidence=_four_and_six,
        shows=lambda seen: "::1" in seen[0].text and seen[1].ok and connected_but_silent(seen[2]),
    ),
    Fault(
        id="ingress-removed",
        level=1,
        title="the network ingress and what was published on it are gone",
        complaint="No node answers at the published port any more, and all had been well for months",
        remedy=(
            "Make the network ingress again (docker network create --ingress), and then the service "
            "that was published on it: faults.stage(lab, you) makes what is missing"
        ),
        source="docs.docker.com/engine/swarm/networking, customize ingress",
        red=("port-node1", "port-node2", "port-node3", "outside", "probe", "services"),
        steps=_remove_ingress,
        evidence=_ingress_and_curl,
        shows=lambda seen: "ingress" not in seen[0].lines and seen[1].code == 7,
        settle=_wake,
        of_all=True,
        remade=(DOOR,),
    ),
    Fault(
        id="wrong-port",
        level=1,
        title="asker calls front at the published port, which only nodes have",
        complaint="Inside the overlay my connection to front is refused, though front is well",
        remedy=f"Call the port of the container, {TASK_PORT}: the label {CALLS} of asker has to say so",
        source="docs.docker.com/engine/swarm/ingress",
        red=("call",),
        steps=_call(lambda bench: f"http://{FRONT}:{bench.port}/"),
        evidence=_both_ports,
        shows=lambda seen: (
            seen[0].text.strip().endswith(f":{seen[1].argv[-1].rpartition(':')[2].strip('/')}/")
            and seen[1].code == 7
            and seen[2].ok
        ),
        says={"call": f": {FRONT}:"},
    ),
    Fault(
        id="unshared-network",
        level=1,
        title="asker calls front at its address on a network that asker is not on",
        complaint="Our proxy found an address of front by itself, and answers each request with 504, a "
        "time-out",
        remedy=f"Call an address on the shared network, or the name: the label {CALLS} of asker",
        source="traefik/traefik#3535, traefik/traefik#1808",
        red=("call",),
        steps=_call(lambda bench: f"http://{bench.front.addresses[SMALL]}:{TASK_PORT}/"),
        evidence=_call_and_near,
        shows=lambda seen: not seen[1].ok and seen[2].ok,
        says={"call": r": 10\.250\."},
    ),
    Fault(
        id="no-common-network",
        level=1,
        title="asker calls door by its name, and the two share no network",
        complaint="The service is there, `docker service ls` shows it, but its name does not resolve",
        remedy=f"Give both a common network, or call the one that is meant: the label {CALLS} of asker",
        source="docs.docker.com/engine/network/drivers/overlay",
        red=("call",),
        steps=_call(lambda bench: f"http://{DOOR}:{TASK_PORT}/"),
        evidence=_call_and_near,
        shows=lambda seen: seen[1].code == 6 and seen[2].ok,
        says={"call": f": {DOOR}:"},
    ),
    Fault(
        id="wrong-target",
        level=1,
        title="door publishes its port for a port of the container at which no app listens",
        complaint="Since the last change every node refuses the connection, and the app is up",
        remedy=f"Publish the port at which the app listens, {TASK_PORT}: docker service update",
        source="docs.docker.com/engine/swarm/ingress",
        red=("port-node1", "port-node2", "port-node3", "outside", "probe"),
        steps=_publish_another,
        evidence=_ports_and_curl,
        # While the task is made anew, other checks are red as well.
        shows=lambda seen: (
            f'"TargetPort":{TASK_PORT + 1}' in seen[0].text
            and seen[0].text.rstrip().endswith("completed")
            and not seen[1].ok
        ),
        remade=(DOOR,),  # Swarm starts a task anew whose service publishes another port
    ),
)
