"""A running swarm and the parts of it that a lab looks at and changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from labkit.capture import Capture
from labkit.engines.base import Connection
from labkit.errors import UnknownNameError, UsageError
from labkit.swarm import membership
from labkit.swarm.places import Node, Place, Task
from labkit.swarm.waiting import wait_for

APP_IMAGE = "node-test"  # compose/node/entrypoint puts it on every node
_MADE_BY = "labkit.made-by"  # the label that holds the command line of a service or network


@dataclass(frozen=True)
class Lab:
    """A running swarm and everything in it that a lab looks at."""

    name: str
    engine: Connection
    docker: str
    nodes: dict[str, Node]
    learner: str | None = None
    """Whose evidence the answers come from, on the replay engine."""

    @property
    def manager(self) -> Node:
        """The first manager: the node that service commands are typed on."""
        return next(iter(self.nodes.values()))

    @property
    def heartbeat_s(self) -> int:
        """Seconds from one word of a node to its manager to the next, as `labkit up` sets it.

        A node that misses three is taken for lost and its tasks are made anew elsewhere. In emulation a
        busy node can be late by more than Swarm's own five seconds.
        """
        return 30 if self.engine.accel == "tcg" else 5

    def wait_for(
        self,
        wanted: str,
        look: Callable[[], tuple[bool, str]],
        *,
        seconds: float | None = None,
        log: Callable[[], Sequence[str]] = tuple,
        hint: str = "",
        every_s: float = 0.0,
    ) -> None:
        """Look at the lab until it is true, as `swarm.wait_for`; a replay has nothing to wait for."""
        link = self.manager.link
        wait_for(
            wanted,
            look,
            seconds=seconds,
            log=log,
            hint=hint,
            every_s=every_s,
            clock=link.now,
            pause=link.pause,
        )

    def pause(self, seconds: float) -> None:
        """Let the swarm work for so long; a replay has nothing to wait for."""
        self.manager.link.pause(seconds)

    def node(self, name: str) -> Node:
        """Return a node by name; raises UnknownNameError."""
        if name not in self.nodes:
            raise UnknownNameError("node", name, self.nodes)
        return self.nodes[name]

    def tasks(self, service: str) -> list[Task]:
        """List the running tasks of a service, by slot; raises UnknownNameError."""
        api = self.manager.docker.api
        known = [row["Spec"]["Name"] for row in api.services()]
        if service not in known:
            raise UnknownNameError("service", service, known, hint="docker service ls, on node1")
        names = {row["ID"]: row["Description"]["Hostname"] for row in api.nodes()}
        rows = api.tasks(filters={"service": service, "desired-state": "running"})
        found = []
        for row in rows:
            status = row["Status"].get("ContainerStatus") or {}
            if row["Status"]["State"] != "running" or not status.get("PID"):
                continue
            addresses = {
                item["Network"]["Spec"]["Name"]: item["Addresses"][0].split("/")[0]
                for item in row.get("NetworksAttachments") or ()
                if item.get("Addresses")
            }
            slot = row.get("Slot", 0)
            found.append(
                Task(
                    name=f"{service}.{slot}",
                    service=service,
                    slot=slot,
                    node=self.nodes[names[row["NodeID"]]],
                    container=status["ContainerID"],
                    pid=status["PID"],
                    addresses=addresses,
                )
            )
        return sorted(found, key=lambda task: task.slot)

    def task(self, name: str) -> Task:
        """Return a task by its name SERVICE.SLOT; raises UnknownNameError."""
        service, _, slot = name.rpartition(".")
        if not service or not slot.isdigit():
            raise UsageError(f"a task is named SERVICE.N, as in hello-a.1; found {name!r}")
        tasks = self.tasks(service)
        for task in tasks:
            if task.name == name:
                return task
        raise UnknownNameError("running task", name, [task.name for task in tasks])

    def network(self, name: str, *, options: Sequence[str] = ()) -> Capture:
        """Create an overlay network with the docker CLI on the manager.

        One that was made by the same command line is kept; one of the same name that was made otherwise
        is replaced, and the services on it are removed.
        """
        argv = ["docker", "network", "create", "--driver", "overlay", *options]
        made_by = " ".join([*argv, name])
        found = self.manager.docker.api.networks(names=[name])
        row = next((r for r in found if r["Name"] == name), None)
        if row and row["Labels"].get(_MADE_BY) == made_by:
            return self.manager.run(["docker", "network", "ls", "--filter", f"name=^{name}$"])
        if row:
            self._remove_network(row["Id"], name)
        return self.manager.run([*argv, "--label", f"{_MADE_BY}={made_by}", name]).check()

    def _remove_network(self, identity: str, name: str) -> None:
        for service in self.manager.docker.api.services():
            attached = service["Spec"]["TaskTemplate"].get("Networks") or ()
            if identity in {network["Target"] for network in attached}:
                self.remove_service(service["Spec"]["Name"])

        def look() -> tuple[bool, str]:
            # The last task's address is given back a moment after its container is gone.
            removed = self.manager.run(["docker", "network", "rm", name])
            return removed.ok, removed.stderr.strip()

        self.wait_for(f"the network {name} to be removed", look, seconds=60)

    def service(
        self,
        name: str,
        *,
        image: str = APP_IMAGE,
        replicas: int = 1,
        publish: str | None = None,
        networks: Iterable[str] = (),
        options: Sequence[str] = (),
        command: Sequence[str] = (),
        wait: bool = True,
    ) -> Capture:
        """Create a service with the docker CLI on the manager and wait until its tasks run.

        Without `wait` they start meanwhile, side by side with those of the next service. A service that
        was made by the same command line is kept, so that a cell may run twice; one of the same name
        that was made otherwise is replaced.
        """
        argv = ["docker", "service", "create", "--name", name, "--replicas", str(replicas)]
        if publish:
            argv += ["--publish", publish]
        for network in networks:
            argv += ["--network", network]
        argv += options
        made_by = " ".join([*argv, image, *command])
        found = self.manager.docker.api.services(filters={"name": name})
        row = next((r for r in found if r["Spec"]["Name"] == name), None)
        if row and row["Spec"].get("Labels", {}).get(_MADE_BY) != made_by:
            self.remove_service(name)
            row = None
        if row:
            capture = self.manager.run(["docker", "service", "ps", name])
        else:
            # Every node has the image, and asking a registry would only end in its time-out.
            label = ["--label", f"{_MADE_BY}={made_by}", "--detach", "--no-resolve-image"]
            capture = self.manager.run([*argv, *label, image, *command]).check()
        if wait:
            self.wait_for_tasks(name, replicas)
        return capture

    def update_service(self, name: str, *options: str) -> Capture:
        """Run `docker service update` on the manager and wait until the update is complete."""
        capture = self.manager.run(["docker", "service", "update", "--detach", *options, name]).check()

        def look() -> tuple[bool, str]:
            # Swarm empties this when it takes an update on, so an earlier one's is not seen.
            status = self.manager.docker.api.inspect_service(name).get("UpdateStatus") or {}
            state = str(status.get("State", "not begun"))
            return state == "completed", f"{state} {status.get('Message', '')}".strip()

        hint = f"labkit exec {self.manager.name} -- docker service ps --no-trunc {name}"
        self.wait_for(f"the update of {name} to complete", look, hint=hint)
        return capture

    def wait_for_tasks(self, service: str, replicas: int) -> list[Task]:
        """Wait until so many tasks of a service run, and return them."""
        tasks: list[Task] = []

        def look() -> tuple[bool, str]:
            # One request a look: while tasks start, every processor is busy with that.
            rows = self.manager.docker.api.tasks(filters={"service": service})
            states = sorted(f"{r['Status']['State']} {r['Status'].get('Err', '')}" for r in rows)
            if sum(state.startswith("running") for state in states) >= replicas:
                tasks[:] = self.tasks(service)
            return len(tasks) == replicas, f"{len(tasks)} running; all tasks: {', '.join(states)}"

        self.wait_for(
            f"{replicas} running tasks of {service}",
            look,
            hint=f"labkit exec {self.manager.name} -- docker service ps --no-trunc {service}",
        )
        return tasks

    def remove_service(self, *names: str) -> None:
        """Remove services and wait until their containers are gone."""
        self.manager.run(["docker", "service", "rm", *names])
        label = "com.docker.swarm.service.name"

        def look() -> tuple[bool, str]:
            left = [
                f"{box['Labels'][label]} on {node.name}"
                for node in self.nodes.values()
                for box in node.docker.api.containers(all=True, filters={"label": label})
                if box["Labels"][label] in names
            ]
            return not left, f"containers of {', '.join(left)}"

        self.wait_for(f"the containers of {', '.join(names)} to go", look)

    def keep_only(self, *services: str) -> list[str]:
        """Remove every other service, so that no earlier lab holds a port; returns their names.

        Networks stay: a lab that needs one says so by `network`.
        """
        found = [row["Spec"]["Name"] for row in self.manager.docker.api.services()]
        gone = sorted(name for name in found if name not in services)
        if gone:
            self.remove_service(*gone)
        return gone

    def wait_for_nodes(self) -> None:
        """Wait until the manager calls every node ready, and every engine knows all the others."""

        def look() -> tuple[bool, str]:
            ready, states = membership.all_ready(self)
            if not ready:
                return False, states
            peers = {
                node.name: len(node.docker.api.inspect_network("ingress").get("Peers") or ())
                for node in self.nodes.values()
            }
            told = ", ".join(f"{name} knows {count}" for name, count in peers.items())
            return set(peers.values()) == {len(self.nodes)}, told

        self.wait_for(
            "every node to be ready in the manager's eyes, and known to the others",
            look,
            seconds=120,
            log=self.manager.log,
            hint="labkit status tells what the manager says; labkit reset gives a fresh swarm",
        )

    def wait_for_answers(self, service: str, *, port: int = 3000) -> list[Task]:
        """Wait until every task of a service can be asked at every address it has; returns the tasks.

        A task runs before its app listens and before the other nodes have heard of its addresses. Asked
        is from the namespaces that balance the load, so that the tasks' own caches stay untouched.
        """
        tasks: list[Task] = []

        def look() -> tuple[bool, str]:
            # A node that is busy for too long counts as lost, and its tasks are replaced meanwhile.
            tasks[:] = self.tasks(service)
            asked: dict[tuple[str, str], list[str]] = {}
            for task in tasks:
                for network, address in task.addresses.items():
                    theirs = dict.fromkeys(t.node.name for t in tasks)
                    for node in self.nodes if network == "ingress" else theirs:
                        asked.setdefault((node, network), []).append(address)
            # One curl asks many: under emulation its start costs more than the asking.
            curl = ["curl", "-sS", "--fail-early", "-m", "5"]
            commands = [
                (
                    self.nodes[node].load_balancer(network),
                    [*curl, *(f"http://{a}:{port}" for a in told)],
                )
                for (node, network), told in asked.items()
            ]
            alone = [task.sandbox for task in tasks if not task.addresses]
            commands += [(place, [*curl, f"http://127.0.0.1:{port}"]) for place in alone]
            silent = [f"{c.place}: {c.stderr.strip()}" for c in self.run_all(commands) if not c.ok]
            return bool(tasks) and not silent, "; ".join(silent) or "no task runs"

        self.wait_for(
            f"the tasks of {service} to answer at port {port}",
            look,
            seconds=120,
            hint=f"labkit exec {self.manager.name} -- docker service ps --no-trunc {service}",
        )
        return tasks

    def wait_for_port(self, port: int) -> None:
        """Wait until a published port answers on every node."""
        argv = ["curl", "-sS", "-m", "5", f"http://127.0.0.1:{port}"]

        def look() -> tuple[bool, str]:
            asked = self.run_all([(node.place, argv) for node in self.nodes.values()])
            silent = [
                f"{capture.node}: {capture.stderr.strip()}" for capture in asked if not capture.ok
            ]
            return not silent, "; ".join(silent)

        self.wait_for(f"port {port} to answer on every node", look, seconds=120)

    def clean(self) -> list[str]:
        """Remove every service and every network that labs made; returns their names."""
        api = self.manager.docker.api
        gone = self.keep_only()
        for row in api.networks(filters={"driver": "overlay"}):
            if row["Name"] != "ingress":
                removed = self.manager.run(["docker", "network", "rm", row["Name"]])
                if removed.ok:
                    gone.append(row["Name"])
        return gone

    def take_out(self, node: Node) -> Capture:
        """Let a worker leave the swarm and have the manager forget it; its tasks begin elsewhere."""
        identity = node.docker.api.info()["Swarm"]["NodeID"]
        capture = node.run(["docker", "swarm", "leave"]).check()
        self.manager.run(["docker", "node", "rm", "--force", identity]).check()

        return capture

    def take_in(self, node: Node) -> None:
        """Make a node a worker that takes tasks, whether it has left the swarm or was drained."""
        if node.docker.api.info()["Swarm"]["LocalNodeState"] == "inactive":
            membership.join(self.manager, node, "Worker")
            membership.wait_for_members(self)
        self.manager.run(["docker", "node", "update", "--availability", "active", node.name]).check()

    def run_all(
        self, commands: Iterable[tuple[Place, str | Sequence[str]]], *, timeout: float = 60.0
    ) -> list[Capture]:
        """Run many commands side by side, in many places; the captures come in the order given."""
        started = [place.start(command, timeout=timeout) for place, command in commands]
        return [running.result() for running in started]

    def status(self) -> dict[str, Any]:
        """Return what `labkit status --json` prints."""
        return {
            "lab": self.name,
            "engine": self.engine.kind,
            "accel": self.engine.accel,
            "docker": self.manager.docker_version,
            "nodes": membership.node_rows(self),
        }

    def close(self) -> None:
        """Close what is kept open to the nodes; the swarm goes on."""
        for node in self.nodes.values():
            node.close()
        self.engine.client.close()


def place_of(lab: Lab, node: str, *, task: str | None, netns: str | None) -> Place:
    """Return the place that `labkit exec` names; raises UsageError where node and task disagree."""
    where = lab.node(node)
    if task and netns:
        raise UsageError("a command runs in a task or in a namespace, not in both")
    if netns:
        return where.netns(netns)
    if not task:
        return where.place
    found = lab.task(task)
    if found.node.name != node:
        raise UsageError(
            f"{task} runs on {found.node.name}, not on {node}",
            hint=f"labkit exec {found.node.name} --task {task} -- …",
        )
    return found.place
