"""Faults of services and their networks: what `docker service` and `docker network` can get wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from labkit.errors import SwarmError
from labkit.experiments.asking import TASK_PORT, curl
from labkit.faults.fault import SHORT_S, Fault, Step, connected_but_silent
from labkit.faults.testbed import ASKER, CALLS, DOOR, FRONT, LABEL, PLAIN, PROBE, Bench
from labkit.swarm import APP_IMAGE

if TYPE_CHECKING:
    from labkit.capture import Capture
    from labkit.swarm import Lab

_LATE = "late"  # a service that only a fault makes


def _on_manager(bench: Bench, do: list[str], undo: list[str]) -> list[Step]:
    """Return one step that runs on the manager's node."""
    return [Step(bench.lab.manager.place, do, undo)]


def _scale(bench: Bench) -> list[Step]:
    """Return the step that asks for a second task of front, which finds no address."""
    argv = ["docker", "service", "scale", "--detach"]
    return _on_manager(bench, [*argv, f"{FRONT}=2"], [*argv, f"{FRONT}=1"])


def _states(bench: Bench, service: str) -> Capture:
    """List the tasks of a service with their states, one per line."""
    argv = ["docker", "service", "ps", "--filter", "desired-state=running", "--format"]
    return bench.lab.manager.run([*argv, "{{.Name}} {{.CurrentState}}", service])


def _create_late(bench: Bench) -> list[Step]:
    """Return the step that creates `late`: its health check asks for the name of healthy tasks."""
    argv = ["docker", "service", "create", "--detach", "--no-resolve-image", "--name", _LATE]
    argv += ["--network", PLAIN, "--constraint", f"node.hostname=={bench.nodes[1].name}"]
    argv += ["--label", f"{LABEL}={bench.port}", "--stop-grace-period", "1s"]
    argv += ["--health-cmd", f"curl -fsS -m 2 http://{_LATE}:{TASK_PORT}", "--health-retries", "1000"]
    argv += ["--health-interval", "5s", "--health-timeout", "10s", APP_IMAGE]
    return _on_manager(bench, argv, ["docker", "service", "rm", _LATE])


def _ask_late(bench: Bench) -> list[Capture]:
    """List the task's state, resolve the service's name, and ask the app inside its container."""
    container = f"$(docker ps -q -f label=com.docker.swarm.service.name={_LATE})"
    inside = f"docker exec {container} curl -sS -m 2 http://127.0.0.1:{TASK_PORT}"
    return [
        _states(bench, _LATE),
        bench.asker.run(["dig", "+time=2", "+tries=1", "+nosearch", "+short", _LATE]),
        bench.nodes[1].run(["sh", "-c", inside]),
    ]


def _runs_but_starts(seen: list[Capture]) -> bool:
    """Whether the app answers although the task is still starting and its name unknown."""
    states, name, inside = seen
    resolved = [line for line in name.lines if not line.startswith(";")]
    return "Starting" in states.text and not resolved and inside.text.strip() == "HI"


def _change_label(
    service: str, label: str, url: Callable[[Bench], str]
) -> Callable[[Bench], list[Step]]:
    """Return what makes the step that puts this URL into a label of a service."""

    def steps(bench: Bench) -> list[Step]:
        argv = ["docker", "service", "update", "--detach", "--label-add"]
        wrong, right = url(bench), bench.label(service, label)
        do, undo = ([*argv, f"{label}={value}", service] for value in (wrong, right))
        return _on_manager(bench, do, undo)

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
    is missing already.
    """
    manager, node2 = bench.lab.manager, bench.nodes[1]
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
            lab.manager.run([*update, "--label-add", f"{label}={attempts[name]}", name]).check()
        return not asleep, f"without: {', '.join(asleep)}"

    try:
        lab.wait_for("the routing mesh on every node", look, seconds=120, every_s=10)
    finally:
        for name in attempts:
            lab.manager.run([*update, "--label-rm", label, name])


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


FAULTS = (
    Fault(
        id="addresses-used-up",
        title="front is scaled to two tasks, and bench-small has no address left",
        symptom="A new task stays New",
        red=("scale",),
        steps=_scale,
        evidence=lambda bench: [_states(bench, FRONT)],
        shows=lambda seen: any(line.split()[1] == "New" for line in seen[0].lines),
    ),
    Fault(
        id="health-needs-own-name",
        title="a new service, late, has a health check that asks for the service's own name",
        symptom="The service never gets ready, though its app answers",
        red=("services",),
        steps=_create_late,
        evidence=_ask_late,
        shows=_runs_but_starts,
    ),
    Fault(
        id="localhost-is-ipv6",
        title="the door is looked for at ::1",
        symptom=(
            "The published port connects and then says nothing at localhost, and answers at 127.0.0.1"
        ),
        red=("probe",),
        steps=_change_label(DOOR, PROBE, lambda bench: f"http://[::1]:{bench.port}/"),
        evidence=_four_and_six,
        shows=lambda seen: "::1" in seen[0].text and seen[1].ok and connected_but_silent(seen[2]),
    ),
    Fault(
        id="ingress-removed",
        title="the network ingress and what was published on it are gone",
        symptom="No node answers at the published port",
        red=("port-node1", "port-node2", "port-node3", "probe"),
        steps=_remove_ingress,
        evidence=_ingress_and_curl,
        shows=lambda seen: "ingress" not in seen[0].lines and seen[1].code == 7,
        settle=_wake,
    ),
    Fault(
        id="wrong-port",
        title="asker calls front at the published port",
        symptom="Within the overlay the connection is refused, though the service is well",
        red=("call",),
        steps=_change_label(ASKER, CALLS, lambda bench: f"http://{FRONT}:{bench.port}/"),
        evidence=_both_ports,
        shows=lambda seen: (
            seen[0].text.strip().endswith(f":{seen[1].argv[-1].rpartition(':')[2]}")
            and seen[1].code == 7
            and seen[2].ok
        ),
    ),
)
