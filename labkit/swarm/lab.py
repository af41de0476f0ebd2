"""A running swarm and the parts of it that a lab looks at and changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import Any

from labkit.capture import Capture
from labkit.engines.base import MADE_BY, Connection
from labkit.errors import NotInEvidence, SwarmError, UnknownNameError, UsageError
from labkit.swarm import answers, arguments, membership, networks, obstacles
from labkit.swarm.look import Look, look_at
from labkit.swarm.places import Node, Place, Running, Task, end, runs, task_of
from labkit.swarm.waiting import wait_for
from labkit.transport.base import DaemonError

APP_IMAGE = "node-test"  # compose/node/entrypoint puts it on every node


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
    def shared(self) -> bool:
        """Whether the swarm was there before labkit, so that only what labkit made is labkit's."""
        return bool(self.engine.machines and self.engine.machines.shared)

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
        """Look at the lab until it is true, as `swarm.wait_for`; a replay has nothing to wait for.

        A manager that is too busy to answer is asked again.
        """
        link = self.manager.link

        def patient() -> tuple[bool, str]:
            try:
                return look()
            except DaemonError as problem:
                if problem.status < 500:
                    raise
                return False, str(problem.args[0])

        wait_for(
            wanted,
            patient,
            seconds=seconds,
            log=log,
            hint=hint,
            every_s=every_s,
            clock=link.now,
            pause=link.pause,
        )

    def look(self) -> Look:
        """Look once at all of it: nodes, overlay networks, services, tasks.

        What comes back prints as a picture, and a notebook shows it as one. Raises DaemonError.
        """
        return look_at(self)

    def pause(self, seconds: float) -> None:
        """Let the swarm work for so long; a replay has nothing to wait for."""
        self.manager.link.pause(seconds)

    def node(self, name: str) -> Node:
        """Return a node by its name in the lab, or by what Docker calls it; raises UnknownNameError."""
        called = name if name in self.nodes else self.called(name)
        if called not in self.nodes:
            raise UnknownNameError("node", name, self.nodes)
        return self.nodes[called]

    def called(self, hostname: str) -> str:
        """Return the lab's name for what Docker calls so; of a node that is not the lab's, the same."""
        known = {node.hostname: name for name, node in self.nodes.items()}
        return known.get(hostname, hostname)

    def tasks(self, service: str) -> list[Task]:
        """List the running tasks of a service, by slot or node; raises UnknownNameError."""
        self._service(service)
        return self._running(service)

    def _service(self, name: str) -> dict[str, Any]:
        """Return what the API lists of a service; raises UnknownNameError."""
        rows = {row["Spec"]["Name"]: row for row in self.manager.docker.api.services()}
        if name not in rows:
            hint = f"docker service ls, on {self.manager.name}"
            raise UnknownNameError("service", name, rows, hint=hint)
        return dict(rows[name])

    def _running(self, service: str) -> list[Task]:
        api = self.manager.docker.api
        names = {row["ID"]: self.called(row["Description"]["Hostname"]) for row in api.nodes()}
        rows = api.tasks(filters={"service": service, "desired-state": "running"})
        found = [task_of(service, row, self.nodes[names[row["NodeID"]]]) for row in rows if runs(row)]
        return sorted(found, key=lambda task: (task.slot, task.node.name))

    def task(self, name: str) -> Task:
        """Return a task by its name SERVICE.SLOT, of a global service SERVICE.NODE.

        Raises UsageError, UnknownNameError.
        """
        service, _, slot = name.rpartition(".")
        if not service or not (slot.isdigit() or slot in self.nodes):
            raise UsageError(f"a task is named SERVICE.N, as in hello-a.1; found {name!r}")
        tasks = self.tasks(service)
        for task in tasks:
            if task.name == name:
                return task
        raise UnknownNameError("running task", name, [task.name for task in tasks])

    def network(self, name: str, *, options: str | Sequence[str] = ()) -> Capture:
        """Create an overlay network with the docker CLI on the manager.

        One that was made by the same command line is kept. One of the same name that a lab made
        otherwise is replaced, and the services on it are removed; one that a lab made on the same
        subnet is removed too. An overlay that somebody else made is taken where no options are asked
        for. Raises UsageError where it is not, or has the subnet; CommandFailed.
        """
        return networks.create(self, name, options)

    def service(
        self,
        name: str,
        *,
        image: str = APP_IMAGE,
        replicas: int = 1,
        publish: str | Sequence[str] | None = None,
        networks: str | Iterable[str] = (),
        options: str | Sequence[str] = (),
        command: str | Sequence[str] = (),
        wait: bool = True,
    ) -> Capture:
        """Create a service with the docker CLI on the manager and wait until its tasks run.

        Where a parameter takes words, it takes one string of them too. Without `wait` the tasks start
        meanwhile, side by side with those of the next service. A service that was made by the same
        command line is kept, so that a cell may run twice; one of the same name that was made otherwise
        is replaced. With `--mode global` among the options there is a task on each node that may have
        one, whatever `replicas` is.

        Raises UsageError for an argument that cannot be, before anything is made; CommandFailed where
        docker refuses; SwarmError where a task cannot start; WaitTimeout.
        """
        argv, rest = arguments.create_service(
            name,
            replicas=replicas,
            publish=publish,
            networks=networks,
            options=options,
            image=image,
            command=command,
        )
        made_by = " ".join([*argv, *rest])
        found = self.manager.docker.api.services(filters={"name": name})
        row = next((r for r in found if r["Spec"]["Name"] == name), None)
        if row and (row["Spec"].get("Labels") or {}).get(MADE_BY) != made_by:
            self.remove_service(name)
            row = None
        if row:
            capture = self.manager.run(["docker", "service", "ps", name])
        else:
            # Every node has the image, and asking a registry would only end in its time-out.
            label = ["--label", f"{MADE_BY}={made_by}", "--detach", "--no-resolve-image"]
            capture = self.manager.run([*argv, *label, *rest]).check()
        if wait and arguments.is_global(argv):
            self._wait_for_one_each(name)
        elif wait:
            self.wait_for_tasks(name, replicas)
        return capture

    def update_service(self, name: str, *options: str) -> Capture:
        """Run `docker service update` on the manager and wait until the update is complete.

        Raises UsageError for options that cannot be, CommandFailed where docker refuses, SwarmError
        where Swarm stops the update, WaitTimeout.
        """
        arguments.name_of("service", name)
        argv = ["docker", "service", "update", "--detach", *arguments.update_words(options), name]
        capture = self.manager.run(argv).check()
        api = self.manager.docker.api

        def look() -> tuple[bool, str]:
            # Swarm empties this when it takes an update on, so an earlier one's is not seen.
            row = api.inspect_service(name)
            status = row.get("UpdateStatus") or {}
            state = str(status.get("State", "not begun"))
            if state in ("paused", "rollback_started", "rollback_paused", "rollback_completed"):
                told = obstacles.stopped(status, api.tasks(filters={"service": name}))
                raise SwarmError(f"the update of {name} was stopped: {told}", hint=self._ps(name))
            # Where the tasks may stay as they are, Swarm has nothing to report.
            done = state == "completed" or (not status and obstacles.keeps_tasks(row))
            return done, f"{state} {status.get('Message', '')}".strip()

        self.wait_for(f"the update of {name} to complete", look, hint=self._ps(name))
        return capture

    def _ps(self, service: str) -> str:
        return f"labkit exec {self.manager.name} -- docker service ps --no-trunc {service}"

    def wait_for_tasks(self, service: str, replicas: int) -> list[Task]:
        """Wait until so many tasks of a service run, and return them.

        Raises SwarmError where a task cannot start and never will, with Swarm's reason; WaitTimeout.
        """
        wanted = arguments.count_of("replicas", replicas)
        tasks: list[Task] = []

        def look() -> tuple[bool, str]:
            # One request a look: while tasks start, every processor is busy with that.
            rows = self.manager.docker.api.tasks(filters={"service": service})
            states = sorted(f"{r['Status']['State']} {r['Status'].get('Err', '')}" for r in rows)
            if sum(state.startswith("running") for state in states) >= wanted:
                tasks[:] = self.tasks(service)
            if len(tasks) == wanted:
                return True, ""
            self._refuse(service, rows)
            return False, f"{len(tasks)} running; all tasks: {', '.join(states)}"

        self.wait_for(f"{wanted} running tasks of {service}", look, hint=self._ps(service))
        return tasks

    def _wait_for_one_each(self, service: str) -> None:
        """Wait until each node that may have a task of a global service has one that runs."""
        api = self.manager.docker.api

        def look() -> tuple[bool, str]:
            rows = api.services(filters={"name": service}, status=True)
            row = next(row for row in rows if row["Spec"]["Name"] == service)
            self._refuse(service, api.tasks(filters={"service": service}))
            running, wanted = (row["ServiceStatus"][f"{kind}Tasks"] for kind in ("Running", "Desired"))
            return 0 < wanted == running, f"{running} of {wanted} run"

        self.wait_for(f"the tasks of {service}, one on each node", look, hint=self._ps(service))

    def _refuse(self, service: str, rows: Iterable[dict[str, Any]]) -> None:
        if reason := obstacles.obstacle(rows):
            raise SwarmError(f"a task of {service} cannot start: {reason}", hint=self._ps(service))

    def remove_service(self, *names: str) -> None:
        """Remove services and wait until their containers are gone; raises UsageError, WaitTimeout.

        Where the swarm was there before labkit, it raises UsageError for a service that no lab made.
        """
        arguments.names_of("service", names)
        self.demand_own(*names)
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

    def demand_own(self, *services: str) -> None:
        """Raise UsageError where the swarm was there before labkit, and no lab made these services."""
        if foreign := sorted(set(services) - set(self._own_services())) if self.shared else ():
            raise UsageError(
                f"labkit did not make {', '.join(foreign)}, and the swarm ran before this lab",
                hint="take one that a lab made; the swarm's owner can change others, without labkit",
            )

    def keep_only(self, *services: str) -> list[str]:
        """Remove every other service, so that no earlier lab holds a port; returns their names.

        Networks stay: a lab that needs one says so by `network`. Raises UsageError.
        """
        for name in services:
            arguments.name_of("service", name)
        gone = sorted(name for name in self._own_services() if name not in services)
        if gone:
            self.remove_service(*gone)
        return gone

    def _own_services(self) -> list[str]:
        """Return the names of the services that are the lab's: all, or those that a lab made."""
        specs = [row["Spec"] for row in self.manager.docker.api.services()]
        if self.shared:
            specs = [spec for spec in specs if MADE_BY in (spec.get("Labels") or {})]
        return [spec["Name"] for spec in specs]

    def wait_for_nodes(self) -> None:
        """Wait until the manager calls every node ready, and every engine knows all the others."""

        def look() -> tuple[bool, str]:
            ready, states = membership.all_ready(self)
            if not ready:
                return False, states
            peers = {
                node.name: len(membership.ingress_of(node).get("Peers") or ())
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

        A task runs before its app listens and before the other nodes have heard of its addresses.

        Raises UnknownNameError, UsageError where the service is to have no task, SwarmError where a
        task cannot start, WaitTimeout.
        """
        tasks: list[Task] = []

        def look() -> tuple[bool, str]:
            # A node that is busy for too long counts as lost, and its tasks are replaced meanwhile.
            wanted = answers.wanted(self._service(service))
            tasks[:] = self._running(service)
            if len(tasks) < wanted:
                self._why_too_few(service)
                return False, f"{len(tasks)} of {wanted} tasks run"
            try:
                asked = self.run_all(answers.questions(self.nodes, tasks, port))
            except NotInEvidence:  # a recording where fewer tasks were enough; it tells how it went on
                return True, ""
            silent = [f"{c.place}: {c.stderr.strip()}" for c in asked if not c.ok]
            return not silent, "; ".join(silent)

        self.wait_for(
            f"the tasks of {service} to answer at port {port}",
            look,
            seconds=120,
            hint=self._ps(service),
        )
        return tasks

    def _why_too_few(self, service: str) -> None:
        """Raise where a task of a service will never run."""
        try:
            rows = self.manager.docker.api.tasks(filters={"service": service})
        except NotInEvidence:  # a recording of before this was asked; it tells how it went on
            return
        self._refuse(service, rows)

    def wait_for_port(self, port: int) -> None:
        """Wait until a published port answers on every node; raises WaitTimeout.

        Where the routing mesh's network was removed and made anew, a node has it with its first task.
        """
        answers.wait_for_port(self, port)

    def clean(self) -> list[str]:
        """Remove every service and every network that labs made; returns their names."""
        api = self.manager.docker.api
        gone = self.keep_only()
        for row in api.networks(filters={"driver": "overlay"}):
            if not row.get("Ingress") and not (self.shared and MADE_BY not in (row["Labels"] or {})):
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
            membership.join(self, node, "Worker")
            membership.wait_for_members(self)
        self.manager.run(
            ["docker", "node", "update", "--availability", "active", node.hostname]
        ).check()

    def run_all(
        self, commands: Iterable[tuple[Place, str | Sequence[str]]], *, timeout: float = 60.0
    ) -> list[Capture]:
        """Run many commands side by side, in many places; the captures come in the order given.

        Who stops waiting ends all of them. Raises what `Place.run` raises.
        """
        started: list[Running] = []
        try:
            started += (place.start(command, timeout=timeout) for place, command in commands)
            futures.wait([running.pending for running in started])
            return [running.result() for running in started]
        except BaseException:
            end(started)
            raise

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
