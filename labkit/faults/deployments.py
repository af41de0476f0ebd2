"""Faults of what is deployed: tasks that never run, and a name that two services have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from labkit.engines.base import MADE_BY
from labkit.experiments.asking import TASK_PORT
from labkit.faults.fault import Fault, Step
from labkit.faults.testbed import FRONT, LABEL, PLAIN, Bench, listing
from labkit.swarm import APP_IMAGE

if TYPE_CHECKING:
    from labkit.capture import Capture

_LATE = "late"  # a service that only a fault makes
_TWICE = "bench-twice"  # a network that only a fault makes
_MADE = ["--label", f"{MADE_BY}=labkit fault inject"]  # or nobody would know that they are labkit's


def _on_manager(bench: Bench, do: list[str], undo: list[str]) -> list[Step]:
    """Return one step that runs on the manager's node."""
    return [Step(bench.lab.manager.place, do, undo)]


def _scale(bench: Bench) -> list[Step]:
    """Return the step that asks for a second task of front, which finds no address."""
    argv = ["docker", "service", "scale", "--detach"]
    return _on_manager(bench, [*argv, f"{FRONT}=2"], [*argv, f"{FRONT}=1"])


def _states_of(service: str) -> Callable[[Bench], list[Capture]]:
    """Return what lists the tasks of a service with their states and Swarm's reasons."""
    return lambda bench: [bench.lab.manager.run(listing(service))]


def _late(*options: str, network: str = PLAIN) -> Callable[[Bench], list[Step]]:
    """Return what makes the step that creates the service `late` with more options, on node2."""

    def steps(bench: Bench) -> list[Step]:
        argv = ["docker", "service", "create", "--detach", "--no-resolve-image", "--name", _LATE]
        argv += ["--network", network, "--constraint", f"node.hostname=={bench.nodes[1].name}"]
        argv += [*_MADE, "--label", f"{LABEL}={bench.port}", "--stop-grace-period", "1s"]
        return _on_manager(bench, [*argv, *options, APP_IMAGE], ["docker", "service", "rm", _LATE])

    return steps


# Its health check asks for the name of healthy tasks.
_OWN_NAME = (
    "--health-cmd",
    f"curl -fsS -m 2 http://{_LATE}:{TASK_PORT}",
    "--health-retries=1000",
    "--health-interval=5s",
    "--health-timeout=10s",
)


def _overlap(bench: Bench) -> list[Step]:
    """Return steps that make a network with the subnet of bench-plain, and the service on it."""
    manager = bench.lab.manager
    (row,) = (r for r in manager.docker.api.networks(names=[PLAIN]) if r["Name"] == PLAIN)
    subnet = row["IPAM"]["Config"][0]["Subnet"]
    argv = ["docker", "network", "create", "--driver", "overlay", "--subnet", subnet]
    argv += [*_MADE, _TWICE]
    # The network is in use until the last task's address is given back.
    gone = f"for i in $(seq 100); do docker network rm {_TWICE} && break; sleep 0.2; done"
    return [Step(manager.place, argv, ["sh", "-c", gone]), *_late(network=_TWICE)(bench)]


def _names_of_front(bench: Bench) -> list[Capture]:
    """Ask the DNS for front, and show the aliases of `late`."""
    form = "{{json .Spec.TaskTemplate.Networks}}"
    return [
        bench.asker.run(["dig", "+time=2", "+tries=1", "+nosearch", "+short", FRONT]),
        bench.lab.manager.run(["docker", "service", "inspect", "--format", form, _LATE]),
    ]


def _ask_late(bench: Bench) -> list[Capture]:
    """List the task's state, resolve the service's name, and ask the app inside its container."""
    container = f"$(docker ps -q -f label=com.docker.swarm.service.name={_LATE})"
    inside = f"docker exec {container} curl -sS -m 2 http://127.0.0.1:{TASK_PORT}"
    return [
        *_states_of(_LATE)(bench),
        bench.asker.run(["dig", "+time=2", "+tries=1", "+nosearch", "+short", _LATE]),
        bench.nodes[1].run(["sh", "-c", inside]),
    ]


def _runs_but_starts(seen: list[Capture]) -> bool:
    """Whether the app answers although the task is still starting and its name unknown."""
    states, name, inside = seen
    resolved = [line for line in name.lines if not line.startswith(";")]
    return "Starting" in states.text and not resolved and inside.text.strip() == "HI"


def _refused(reason: str) -> Callable[[list[Capture]], bool]:
    """Return whether a task of `late` waits for this reason."""
    return lambda seen: reason in seen[0].text


FAULTS = (
    Fault(
        id="addresses-used-up",
        level=1,
        title="front is scaled to two tasks, and bench-small has no address left",
        complaint="I scaled front to two. The second task has been New for an hour",
        remedy="Take front back to one task, or give it a network with a larger subnet",
        source="moby/moby#37338, moby/moby#37073",
        red=("scale", "states"),
        steps=_scale,
        evidence=_states_of(FRONT),
        shows=lambda seen: any(line.split()[1] == "New" for line in seen[0].lines),
    ),
    Fault(
        id="health-needs-own-name",
        level=1,
        title="a new service, late, has a health check that asks for the service's own name",
        complaint="late never gets ready, though its app answers as soon as it is started",
        remedy="Let the health check ask 127.0.0.1, or remove the service",
        source="moby/moby#35451, moby/moby#36737",
        red=("services", "states"),
        steps=_late(*_OWN_NAME),
        evidence=_ask_late,
        shows=_runs_but_starts,
        says={"states": r"^late\.1 Starting$"},
    ),
    Fault(
        id="alias-shared",
        level=2,
        title="a new service, late, has the alias front on bench-plain",
        complaint="Each second visitor of the shop lands in somebody else's test system",
        remedy="Give late another alias, or a network of its own; or remove it",
        source="moby/moby#41532, moby/moby#40129, moby/moby#40213",
        red=("front-name",),
        steps=_late(network=f"name={PLAIN},alias={FRONT}"),
        evidence=_names_of_front,
        shows=lambda seen: len(seen[0].lines) == 2 and FRONT in seen[1].text,
        says={"front-name": ", "},
    ),
    Fault(
        id="constraint-unmet",
        level=1,
        title="a new service, late, wants a node with a label that no node has",
        complaint="late stays Pending, and three nodes have nothing to do",
        remedy="Give a node the label, or take the constraint from late; or remove it",
        source="docs.docker.com/engine/swarm/services, placement constraints",
        red=("services", "states"),
        steps=_late("--constraint", "node.labels.zone==east"),
        evidence=_states_of(_LATE),
        shows=_refused("scheduling constraints"),
        says={"states": r"\(scheduling constraints not satisfied on \d+ nodes?\)"},
    ),
    Fault(
        id="host-port-taken",
        level=1,
        title="two tasks of a new service, late, want the same port of one node",
        complaint="One task of late runs, the other one never does. The image is the same",
        remedy="Let at most one task run per node, or publish on the routing mesh; or remove late",
        source="docs.docker.com/engine/swarm/services, publish in host mode",
        red=("services", "states"),
        steps=_late("--replicas=2", f"--publish=mode=host,published=8080,target={TASK_PORT}"),
        evidence=_states_of(_LATE),
        shows=_refused("host-mode port"),
        says={"states": "host-mode port"},
    ),
    Fault(
        id="memory-reserved",
        level=1,
        title="a new service, late, reserves more memory than a node has",
        complaint="late does not start, and there is plenty of memory left on each node",
        remedy="Reserve what late needs; or remove it",
        source="docs.docker.com/engine/swarm/services, reserve memory or CPUs",
        red=("services", "states"),
        steps=_late("--reserve-memory=512g"),
        evidence=_states_of(_LATE),
        shows=_refused("insufficient resources"),
        says={"states": "insufficient resources"},
    ),
    Fault(
        id="subnets-overlap",
        level=1,
        title="a new service, late, is on a network that has the subnet of bench-plain",
        complaint="late stays New, and nothing says why",
        remedy="Remove late and its network; make the network with a subnet that no other has",
        source="moby/moby#33626, moby/moby#24220",
        red=("services", "states"),
        steps=_overlap,
        evidence=_states_of(_LATE),
        shows=lambda seen: any(line.split()[1] == "New" for line in seen[0].lines),
        says={"states": "late.1 New"},
    ),
)
