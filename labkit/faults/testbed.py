"""The bench that faults are tried on: four small services on three nodes.

    asker    node1    bench-plain, bench-secret    asks the others
    front    node2    bench-plain, bench-small     one task; bench-small has no address for another
    back     node3    bench-plain, bench-secret
    door     node2    published

All that describes the bench is kept in the swarm itself (names of services, and the label
`labkit.bench` with the published port), so that any process finds it. Two labels hold the URLs that are
asked: `labkit.calls` of `asker` is where it calls its partner, `labkit.probe` of `door` is where node1
looks whether the door answers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.errors import UsageError
from labkit.experiments.asking import TASK_PORT
from labkit.swarm.places import runs, task_of

if TYPE_CHECKING:
    from labkit.swarm import Lab, Node, Task

PLAIN, SECRET, SMALL = "bench-plain", "bench-secret", "bench-small"
ASKER, FRONT, BACK, DOOR = SERVICES = ("asker", "front", "back", "door")
LABEL, CALLS, PROBE = "labkit.bench", "labkit.calls", "labkit.probe"
# Four addresses, of which the last is for broadcasts: a virtual IP, a load balancer and one task.
_SMALL = ["--subnet", "10.250.0.0/29", "--gateway", "10.250.0.1", "--ip-range", "10.250.0.4/30"]


@dataclass(frozen=True)
class Bench:
    """The bench as it stands now: its published port, and the tasks that are asked by address."""

    lab: Lab
    port: int
    asker: Task
    front: Task
    back: Task
    vip: str  # of front, on bench-plain
    labels: dict[str, dict[str, str]]  # service -> label -> value

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        """The first three nodes of the lab, which the bench is on."""
        return _three_nodes(self.lab)

    def mac(self) -> str:
        """Return the MAC address of `back`: libnetwork makes it of 02:42 and the IPv4 address."""
        packed = ipaddress.IPv4Address(self.back.addresses[PLAIN]).packed
        return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + packed)

    def label(self, service: str, name: str) -> str:
        """Return the value of a service's label; empty where there is no such service or label."""
        return self.labels.get(service, {}).get(name, "")


def _three_nodes(lab: Lab) -> tuple[Node, Node, Node]:
    if len(lab.nodes) < 3:
        raise UsageError(
            f"lab {lab.name!r} has {len(lab.nodes)} nodes, and the bench for faults needs three",
            hint=f"labkit down --lab {lab.name}, then labkit up --lab {lab.name} --nodes 3",
        )
    first, second, third, *_ = lab.nodes.values()
    return first, second, third


def create_missing(lab: Lab, port: int) -> None:
    """Create the networks and services of the bench that are not there; nothing is checked.

    `port` is the published port of `door`. Raises UsageError on fewer than three nodes.
    """
    node1, node2, node3 = _three_nodes(lab)
    lab.network(PLAIN)
    lab.network(SECRET, options=["--opt", "encrypted"])
    lab.network(SMALL, options=_SMALL)
    call, probe = f"{CALLS}=http://{FRONT}:{TASK_PORT}/", f"{PROBE}=http://127.0.0.1:{port}/"

    def create(
        name: str, node: Node, networks: Sequence[str], *more: str, publish: str | None = None
    ) -> None:
        options = ["--constraint", f"node.hostname=={node.hostname}", "--stop-grace-period", "1s"]
        options += ["--label", f"{LABEL}={port}", *more]
        lab.service(name, networks=networks, options=options, publish=publish)

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        created = [
            pool.submit(create, ASKER, node1, [PLAIN, SECRET], "--label", call),
            pool.submit(create, FRONT, node2, [PLAIN, SMALL]),
            pool.submit(create, BACK, node3, [PLAIN, SECRET]),
            pool.submit(create, DOOR, node2, [], "--label", probe, publish=f"{port}:{TASK_PORT}"),
        ]
        for one in created:
            one.result()


def listing(*services: str) -> list[str]:
    """Return the command that lists the tasks that ought to run, as NAME STATE … ago ERROR."""
    argv = ["docker", "service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format"]
    return [*argv, "{{.Name}} {{.CurrentState}} {{.Error}}", *services]


def labels(lab: Lab) -> dict[str, dict[str, str]]:
    """Return the labels of those services of the bench that there are: service -> label -> value."""
    return {row["Spec"]["Name"]: row["Spec"]["Labels"] for row in _services(lab)}


def _services(lab: Lab) -> list[dict[str, Any]]:
    return list(lab.manager.docker.api.services(filters={"label": LABEL}))


def _virtual_ip(lab: Lab, service: dict[str, Any], network: str) -> str:
    """Return the virtual IP of a service on a network; empty where it has none there."""
    ids = [row["Id"] for row in lab.manager.docker.api.networks(names=[network])]
    given = service.get("Endpoint", {}).get("VirtualIPs") or ()
    return next((row["Addr"].partition("/")[0] for row in given if row["NetworkID"] in ids), "")


def find(lab: Lab) -> Bench:
    """Return the bench as it stands; raises UsageError where it is not there, or not all of it."""
    services = {row["Spec"]["Name"]: row for row in _services(lab)}
    tasks = _first_tasks(lab, {row["ID"]: name for name, row in services.items()})
    missing = [name for name in (ASKER, FRONT, BACK) if name not in tasks]
    if missing:
        raise UsageError(
            f"lab {lab.name!r} has no bench for faults, or not all of it: "
            f"no task runs of {', '.join(missing)}",
            hint="faults.stage(lab) in a notebook; `labkit fault inject` does it by itself",
        )
    found = {name: row["Spec"]["Labels"] for name, row in services.items()}
    vip = _virtual_ip(lab, services[FRONT], PLAIN)
    three = tasks[ASKER], tasks[FRONT], tasks[BACK]
    return Bench(lab, int(found[ASKER][LABEL]), *three, vip, found)


def _first_tasks(lab: Lab, names: Mapping[str, str]) -> dict[str, Task]:
    """Return the running task with the number 1 of each service; `names` has the services by id.

    Asked is once for all, and by no threads: a replay answers the same request in its order.
    """
    api = lab.manager.docker.api
    nodes = {row["ID"]: lab.called(row["Description"]["Hostname"]) for row in api.nodes()}
    found = [
        task_of(names[row["ServiceID"]], row, lab.node(nodes[row["NodeID"]]))
        for row in api.tasks(filters={"desired-state": "running"})
        if row["ServiceID"] in names and runs(row)
    ]
    return {task.service: task for task in found if task.slot == 1}
