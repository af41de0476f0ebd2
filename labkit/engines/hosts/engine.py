"""The engine `hosts`: a swarm of machines of one's own, each with the Docker engine that it has.

Its nodes are there already, and so may be their swarm: then that is used, and stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from labkit.engines import images
from labkit.engines.base import (
    Acquired,
    Check,
    Connection,
    Machines,
    Recipe,
    Seat,
    SwarmSpec,
    key_of,
    lab_names,
)
from labkit.engines.ending import to_the_end
from labkit.engines.hosts import (
    endpoint,
    facts,
    guard,
    inventory,
    judgement,
    leaving,
    record,
    tools,
    wire,
)
from labkit.engines.hosts.facts import Facts
from labkit.engines.hosts.inventory import Host, Inventory
from labkit.engines.hosts.judgement import Row
from labkit.engines.hosts.record import LOOK, Before, Kept, Record
from labkit.errors import EngineError, LabkitError, UsageError
from labkit.transport.live import LiveLink

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.progress import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")
U = TypeVar("U")


class HostsEngine:
    """Machines of one's own, of a file or of a lab that runs on them."""

    kind = "hosts"

    def __init__(self, file: Path | None = None) -> None:
        self.file = file

    def refusal(self) -> str:
        """It is never chosen by itself: somebody has to name the machines."""
        return "no machines of your own are named"

    def label(self, lab: str) -> str:
        """Return what a lab is called in the labels on the machines."""
        return lab

    def acquire(
        self, lab: str, spec: SwarmSpec, recipe: Recipe[T], *, fresh: bool, progress: Progress
    ) -> Acquired[T]:
        """Look at the machines, put labkit's container on each, and make them a swarm.

        Raises NotFit, with what is wrong on which machine, before any of them is in a swarm.
        """
        if self.file is None:
            raise UsageError(
                "the engine hosts needs machines of your own", hint="labkit up --hosts hosts.yaml"
            )
        if lab == LOOK:
            raise UsageError(f"{LOOK!r} is what labkit calls its own looks", hint="take another --lab")
        found = inventory.read(self.file)
        visit = _Visit(lab, found, spec.docker)
        judgement.demand(visit.ask(progress))
        answered = time.monotonic()
        visit.put(progress)
        judgement.demand(visit.look(progress))
        visit.put_app(progress)
        made = recipe.make(_connection(visit.record, found.pool))
        return Acquired(made, answered, restored=False)

    def find(self, lab: str) -> Connection | None:
        """Return the engines of a lab's machines, None where it is not on any, or partly taken down."""
        kept = record.read(lab)
        return _connection(kept, None) if kept and not kept.leaving else None

    def spec_of(self, lab: str) -> SwarmSpec | None:
        """Return what is written down of a lab."""
        kept = record.read(lab)
        if kept is None:
            return None
        managers = sum(host.manager for host in kept.hosts)
        return SwarmSpec(kept.docker, len(kept.hosts), managers, key_of(kept.file))

    def labs(self) -> list[str]:
        """List the labs that something is written down of."""
        return record.labs()

    def remove(self, lab: str) -> bool:
        """Leave each machine as it was found; raises EngineError where one does not answer."""
        kept = record.read(lab)
        if kept is None:
            return False
        leaving.leave(kept)
        return True

    def sweep(self) -> None:
        """All that is there is in the records, and `remove` finds it."""

    def crash_log(self, lab: str) -> str | None:
        """There is no machine of labkit's that could have exited."""
        return None

    def checkpoints(self, lab: str) -> None:
        """Nobody can write down a machine that labkit did not make."""
        return

    def examine(self) -> list[Check]:
        """There is nothing to look at before machines are named: `labkit doctor --hosts FILE`."""
        return []

    def accel(self) -> None:
        """The machines are not labkit's."""
        return

    def facts(self) -> dict[str, str]:
        """Return what the engine is."""
        return {"engine": self.kind}


def preflight(file: Path, docker: str, progress: Progress) -> list[Row]:
    """Look at machines and say what a swarm of them would lack; they are left as they were found.

    Raises HostsError for the file, EngineError where a machine does not answer or cannot be looked at.
    """
    with _looking(file, docker) as visit:
        rows = visit.ask(progress)
        if not all(row.ok for row in rows):
            return rows  # nothing is put on machines that are not what the file says
        visit.put(progress)
        return [*rows, *visit.look(progress)]


@contextmanager
def looked_at(file: Path, docker: str, progress: Progress) -> Iterator[Connection]:
    """Have labkit's tools on the machines of a swarm while the body looks at it.

    At the end the machines are as they were found. Raises what `preflight` raises, NotFit where the
    machines are not what the file says, UsageError where they are in no swarm.
    """
    with _looking(file, docker) as visit:
        judgement.demand(visit.ask(progress))
        if not visit.in_a_swarm():
            raise UsageError(
                f"the machines of {file} are in no swarm, so there is none to look at",
                hint=f"whether they could be one: labkit doctor --hosts {file}",
            )
        visit.put(progress)
        yield _connection(visit.record, visit.inventory.pool)


@contextmanager
def _looking(file: Path, docker: str) -> Iterator[_Visit]:
    """Visit machines to look at them, and leave them as they were found."""
    if left := record.read(LOOK):  # of a look that was killed
        leaving.leave(left)
    try:
        yield _Visit(LOOK, inventory.read(file), docker)
    finally:
        if kept := record.read(LOOK):
            leaving.leave(kept)


class _Visit:
    """The machines of a file while labkit gets ready on them."""

    def __init__(self, lab: str, found: Inventory, docker: str) -> None:
        self.lab, self.inventory, self.docker = lab, found, docker
        self.names = lab_names([host.name for host in found.hosts])
        self.endpoints = {host.name: endpoint.of(host) for host in found.hosts}
        self.clients: dict[str, DockerClient] = {}
        self.facts: dict[str, Facts] = {}
        self.stop = threading.Event()

    def ask(self, progress: Progress) -> list[Row]:
        """Ask every engine what it says of itself, and judge that; nothing is changed."""
        hosts = self.inventory.hosts
        with progress.stage(f"asking {len(hosts)} machines"):
            self.clients = self._all(lambda host: endpoint.client(host.name, self.endpoints[host.name]))
            self.facts = self._all(lambda host: facts.ask(self.clients[host.name]))
        rows = judgement.of_engines(self.inventory, self.facts)
        for host in hosts:
            # A lab that is looked at may have its machines in another order.
            ours = self.names.values() if self.lab == LOOK else [self.names[host.name]]
            if tools.foreign_app(self.clients[host.name], ours):
                rows.append(judgement.foreign_app(host))
            if self.lab != LOOK and (others := tools.labs(self.clients[host.name])):
                rows.append(judgement.other_lab(host, others))
        return rows

    def put(self, progress: Progress) -> None:
        """Write down what is there, and put labkit's container on each machine."""
        hosts = self.inventory.hosts
        self.record = Record(
            lab=self.lab,
            file=self.inventory.file,
            docker=self.docker,
            shared=self.in_a_swarm(),
            hosts=[self._kept(host) for host in hosts],
        )
        self.record.write()
        with progress.stage(f"labkit's tools on {len(hosts)} machines"):
            self._all(
                lambda host: tools.start(self.clients[host.name], self.lab, self.docker, self.stop)
            )

    def in_a_swarm(self) -> bool:
        """Return whether the machines are a swarm already; they are all in the same one, or in none."""
        return self.facts[self.inventory.hosts[0].name].swarm.inside

    def _kept(self, host: Host) -> Kept:
        found = self.facts[host.name]
        tags = (tools.image(self.docker), images.name(self.docker), facts.IMAGE_OF_APP)
        return Kept(
            name=host.name,
            manager=host.manager,
            endpoint=self.endpoints[host.name],
            version=".".join(found.version.split(".")[:2]),
            address=host.address or found.swarm.address,
            before=Before(
                images={tag: found.images.get(tag, "") for tag in tags},
                volumes=list(found.volumes),
                overlays=list(found.overlays),
                gateway=facts.GATEWAY_BRIDGE in found.networks,
            ),
            node=found.swarm.node,
        )

    def look(self, progress: Progress) -> list[Row]:
        """Look at each machine from the inside, then at what gets from each to each other."""
        with self._links() as links, progress.stage("looking at the machines, and between them"):
            kept = {host.name: host for host in self.record.hosts}
            looks = self._all(lambda host: wire.look(links[host.name], kept[host.name].address))
            for name, found in looks.items():
                kept[name].address = found.address
            self.record.write()
            rows = judgement.of_machines(self.inventory, self.facts, looks)
            if not all(look.interface for look in looks.values()):
                return rows  # nothing can be sent from an address that is not there
            managers = [host.name for host in self.inventory.hosts if host.manager]
            wires = wire.cross(links, looks, managers)
            return [*rows, *judgement.of_wires(self.inventory, self.facts, looks, wires)]

    def put_app(self, progress: Progress) -> None:
        """Make the labs' app there, where it is not."""
        with self._links() as links, progress.stage("the labs' app on the machines"):
            self._all(
                lambda host: tools.put_app(
                    links[host.name], self.clients[host.name], self.names[host.name]
                )
            )

    @contextmanager
    def _links(self) -> Iterator[Mapping[str, LiveLink]]:
        links = {
            name: LiveLink(name, tools.reach(self.clients[name], self.endpoints[name], self.lab))
            for name in self.clients
        }
        try:
            yield links
        finally:
            for link in links.values():
                link.close()

    def _all(self, step: Callable[[Host], U]) -> dict[str, U]:
        """Do a step for every machine, side by side; the failures of all are told.

        On Ctrl-C none goes on before all have ended: nothing is put on a machine after its clean-up.
        """
        hosts = self.inventory.hosts
        with to_the_end(len(hosts)) as pool:
            try:
                futures = {host.name: pool.submit(step, host) for host in hosts}
                wait(futures.values())
            except BaseException:
                self.stop.set()
                raise
        failed = [problem for future in futures.values() if (problem := future.exception())]
        others = [problem for problem in failed if not isinstance(problem, LabkitError)]
        if others:
            raise others[0]
        known = [problem for problem in failed if isinstance(problem, LabkitError)]
        if len(known) > 1:
            raise EngineError("\n".join(str(problem.args[0]) for problem in known), hint=known[0].hint)
        if known:
            raise known[0]
        return {name: future.result() for name, future in futures.items()}


def _connection(kept: Record, pool: str | None) -> Connection:
    """Return the machines of a lab as every engine hands out its nodes; raises EngineError."""
    with ThreadPoolExecutor(len(kept.hosts)) as threads:
        clients = dict(
            zip(
                [host.name for host in kept.hosts],
                threads.map(lambda host: endpoint.client(host.name, host.endpoint), kept.hosts),
                strict=True,
            )
        )

    hostnames = [host.name for host in kept.hosts]
    # Who only has a swarm looked at knows it by the machines' own names.
    names = dict(zip(hostnames, hostnames, strict=True)) if kept.lab == LOOK else lab_names(hostnames)

    def seats() -> list[Seat]:
        return [
            Seat(
                name=names[host.name],
                hostname=host.name,
                address=host.address,
                container=tools.container(kept.lab),
                docker=host.version,
                reach=tools.reach(clients[host.name], host.endpoint, kept.lab),
                refuse=guard.of(host.name, kept.shared),
            )
            for host in kept.hosts
        ]

    def joined(name: str) -> None:
        record.note_node(kept.lab, name, str(clients[name].info()["Swarm"]["NodeID"]))

    first = kept.hosts[0]
    return Connection(
        kind=HostsEngine.kind,
        accel=None,
        client=clients[first.name],
        environment=first.endpoint.environment(),
        label=kept.lab,
        open_socket=lambda container, _, path: tools.reach(
            clients[first.name], first.endpoint, kept.lab
        )(path),
        machines=Machines(
            seats=seats,
            joined=joined,
            broken=partial(record.note_undo, kept.lab),
            managers=sum(host.manager for host in kept.hosts),
            shared=kept.shared,
            pool=pool,
        ),
    )
