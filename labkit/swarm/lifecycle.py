"""The life of a lab: up, find, reset, down.

What a lab is stands in labels on the daemon and in the swarm itself, nowhere else. Swarm verbs reach
only the daemons inside the lab's own nodes: the daemon that carries them is never made part of a swarm.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labkit import engines, paths, topology
from labkit.engines import DEFAULT_DOCKER, locks, versions
from labkit.engines.base import Connection, SwarmSpec
from labkit.engines.ending import undisturbed
from labkit.errors import (
    EngineError,
    LabkitError,
    SwarmError,
    UnknownNameError,
    UsageError,
    redact,
)
from labkit.progress import Progress
from labkit.swarm import membership, nodes
from labkit.swarm.lab import Lab
from labkit.swarm.places import Node

if TYPE_CHECKING:
    from labkit.engines.base import Engine

log = logging.getLogger(__name__)

DEFAULT_NODES = 3

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_READY_SECONDS = 60.0  # for a node that was there to be ready again


class AlreadyUp(UsageError):
    """A lab that was to be started runs."""


class BeingMade(EngineError):
    """A lab is not there yet: another process makes it."""


def check_name(lab: str) -> None:
    """Refuse a lab name that cannot be part of a container's; raises UsageError."""
    if not _NAME.fullmatch(lab):
        raise UsageError(
            f"{lab!r} cannot be a lab's name: small letters, digits and hyphens, 31 at most, "
            "beginning with a letter or digit",
            hint="labkit up --lab monday",
        )


def default_lab() -> str:
    """Return the lab that is meant where none is named."""
    return os.environ.get("LABKIT_LAB", "default")


def find(lab: str) -> Lab | None:
    """Find a running lab, or None; raises EngineError where its engine does not answer."""
    from docker.errors import DockerException
    from requests import RequestException

    check_name(lab)
    connection = engines.find(lab)
    if connection is None:
        return None
    try:
        found = nodes.lab_on(lab, connection)
    except (DockerException, RequestException, OSError) as problem:
        raise EngineError(
            f"the engine of lab {lab!r} does not answer ({type(problem).__name__})",
            hint=f"labkit reset --lab {lab}",
        ) from problem
    return found if found.nodes else None


def get(lab: str) -> Lab:
    """Return a running lab.

    Raises UnknownNameError, BeingMade while another process makes it, EngineError where its machine has
    ended.
    """
    found = find(lab)
    if found is not None:
        return found
    if (begun := locks.begun(lab)) and begun.step == "making":
        if begun.held:
            raise BeingMade(
                f"process {begun.pid} is making lab {lab!r}",
                hint=f"wait for it, then labkit status --lab {lab}",
            )
        raise EngineError(
            f"process {begun.pid} was killed while it made lab {lab!r}", hint=f"labkit up --lab {lab}"
        )
    if (lines := engines.crash_log(lab)) is not None:
        kept = engines.spec_of(lab)
        raise EngineError(
            f"the embedded machine of lab {lab!r} has ended by itself; its last words:\n{lines}",
            hint=f"labkit {'reset' if kept else 'up'} --lab {lab}",
        )
    hint = "labkit up" if lab == "default" else f"labkit up --lab {lab}"
    raise UnknownNameError("running lab", lab, engines.labs(), hint=hint)


def find_or_up(
    lab: str, *, docker: str | None = None, engine: str | None = None, progress: Progress
) -> Lab:
    """Return a running lab, or start it; of many who want it at once, one starts it and all get it.

    Without a version or an engine it is the one that LABKIT_DOCKER and LABKIT_ENGINE name, as `labkit
    lab` sets them for all that it starts. Raises what `find` and `up` raise.
    """
    docker = docker or os.environ.get("LABKIT_DOCKER") or DEFAULT_DOCKER
    engine = engine or os.environ.get("LABKIT_ENGINE") or "auto"
    try:
        return find(lab) or up(lab, docker=docker, engine=engine, progress=progress).lab
    except AlreadyUp:  # another process made it meanwhile
        return get(lab)


class UpResult(NamedTuple):
    """A swarm that answers: its lab, how long it took, whether it was restored, and its status."""

    lab: Lab
    seconds: float
    api_seconds: float  # until the daemon's API answered
    restored: bool
    status: dict[str, Any]
    """Asked before another command could take the lab down: who made it can tell so in any case."""


@dataclass(frozen=True)
class _SwarmRecipe:
    """How a lab's swarm is made on a daemon, for the engine that has one."""

    lab: str
    described: topology.Topology
    managers: int
    progress: Progress

    def make(self, connection: Connection) -> Lab:
        """Start the nodes and make them a swarm."""
        count = len(self.described.nodes)
        with self.progress.stage(f"{count} nodes with Docker {self.described.docker}"):
            started = nodes.start(self.lab, connection, self.described)
        with self.progress.stage(f"swarm of {count}"):
            membership.form(started, self.managers)
        return started

    def find(self, connection: Connection) -> Lab:
        """Return the lab whose nodes run on the daemon."""
        return nodes.lab_on(self.lab, connection)

    def prove(self, found: Lab) -> None:
        """Raise SwarmError where a daemon does not answer, or the manager does not see a node ready.

        Asks only; nothing of it stays. On a busy machine a manager may lose its lead or a node be late
        with its heartbeats for a moment, and one more look costs less than another swarm.
        """
        count = len(self.described.nodes)
        if len(found.nodes) != count:
            raise SwarmError(f"{len(found.nodes)} of {count} nodes run: {', '.join(found.nodes)}")
        first, *others = found.nodes.values()

        def look() -> tuple[bool, str]:
            try:
                return membership.all_ready(found)
            except SwarmError as problem:
                return False, problem.args[0]

        wanted = f"{count} nodes to be ready in {first.name}'s eyes"
        with membership.side_by_side(count) as pool:
            ready = pool.submit(found.wait_for, wanted, look, seconds=_READY_SECONDS)
            list(pool.map(lambda node: node.docker.api.ping(), others))
            ready.result()

    def renew(self, found: Lab) -> None:
        """Make new join tokens."""
        membership.renew_tokens(found.manager)

    def close(self, found: Lab) -> None:
        """Close what is kept open to the nodes."""
        found.close()


@dataclass(frozen=True)
class _MachinesRecipe:
    """How machines of one's own are made one swarm; one that they are already is taken."""

    lab: str
    progress: Progress

    def make(self, connection: Connection) -> Lab:
        """Make the machines a swarm, or wait until theirs is ready."""
        assert connection.machines
        found = nodes.lab_on(self.lab, connection)
        with self.progress.stage(f"swarm of {len(found.nodes)}"):
            if connection.machines.shared:
                membership.wait_for_members(found)
            else:
                membership.form(found, connection.machines.managers)
        return found

    def find(self, connection: Connection) -> Lab:
        """Return the lab on the machines."""
        return nodes.lab_on(self.lab, connection)

    def prove(self, found: Lab) -> None:
        """Raise SwarmError where the manager does not see a machine ready."""
        membership.wait_for_members(found)

    def renew(self, found: Lab) -> None:
        """Nothing is kept of such a swarm, so none shares anything."""

    def close(self, found: Lab) -> None:
        """Close what is kept open to the machines."""
        found.close()


def up(
    lab: str = "default",
    *,
    nodes: int = DEFAULT_NODES,
    managers: int = 1,
    docker: str = DEFAULT_DOCKER,
    engine: str = "auto",
    fresh: bool = False,
    keep: bool = False,
    compose: Path | None = None,
    hosts: Path | None = None,
    progress: Progress,
) -> UpResult:
    """Stand up a swarm on an engine; out of a snapshot where the engine keeps one that fits.

    `hosts` is a file of machines of one's own: these are the nodes then, as the file says.

    With `fresh`, a snapshot that is there is made again. What fails half way is taken down again,
    unless `keep`. Raises UsageError for what cannot be asked, EngineError and SwarmError for what
    cannot be had.
    """
    began = time.monotonic()
    check_name(lab)
    if not 1 <= managers <= max(nodes, 1):
        raise UsageError(
            f"{managers} managers of {nodes} nodes were asked for; at least 1, at most all of them",
            hint="labkit up --nodes 3 --managers 1",
        )
    versions.release(docker)
    if hosts:
        if (nodes, managers, compose) != (DEFAULT_NODES, 1, None):
            raise UsageError(
                "what machines of your own are, their file says: no number of nodes or managers and no "
                "Compose file goes with it",
                hint=f"labkit up --hosts {hosts}",
            )
        with locks.hold(lab) as held:
            return _up_on_hosts(held, lab, hosts, docker, began, keep=keep, progress=progress)
    chosen, reason = engines.choose(engine)
    log.info("the engine is %s: %s", chosen.kind, reason)
    file = compose or paths.COMPOSE / "swarm.yaml"
    described = topology.load(file, lab=chosen.label(lab), docker=docker, nodes=nodes)
    recipe = _SwarmRecipe(lab, described, managers, progress)
    spec = SwarmSpec.of(docker, nodes, managers, file)
    with locks.hold(lab) as held:
        _make_room(lab, held)
        return _made(held, chosen, recipe, spec, began, fresh=fresh, keep=keep)


def _make_room(lab: str, held: locks.Hold) -> None:
    """Remove what was half made; raises AlreadyUp where the lab runs."""
    _clear(lab, held)
    if find(lab):
        raise AlreadyUp(f"lab {lab!r} is up already", hint=f"labkit status --lab {lab}")
    if engines.hosts_of(lab):  # one of its machines did not answer when it was taken down
        engines.remove(lab)


def _up_on_hosts(
    held: locks.Hold,
    lab: str,
    hosts: Path,
    docker: str,
    began: float,
    *,
    keep: bool = False,
    progress: Progress,
) -> UpResult:
    """Make machines of one's own a lab."""
    _make_room(lab, held)
    recipe = _MachinesRecipe(lab, progress)
    # How many they are, and what runs there, the file and the machines themselves say.
    spec = SwarmSpec(docker, 0, 0, str(hosts))
    return _made(held, engines.on_hosts(hosts), recipe, spec, began, fresh=False, keep=keep)


def _clear(lab: str, held: locks.Hold) -> None:
    """Remove what was half made of a lab when its maker was killed."""
    if held.cut_short == "making":
        engines.remove(lab)
        held.done()


def _made(
    held: locks.Hold,
    engine: Engine,
    recipe: _SwarmRecipe | _MachinesRecipe,
    spec: SwarmSpec,
    began: float,
    *,
    fresh: bool,
    keep: bool,
) -> UpResult:
    """Have an engine make a lab, which nobody sees before it is whole."""
    lab = recipe.lab
    with held.step("making"):
        try:
            acquired = engine.acquire(lab, spec, recipe, fresh=fresh, progress=recipe.progress)
        except BaseException as problem:
            if not keep:
                with undisturbed():
                    _take_back(lab, problem)
            raise
    return UpResult(
        lab=acquired.swarm,
        seconds=time.monotonic() - began,
        api_seconds=acquired.answered - began,
        restored=acquired.restored,
        status=acquired.swarm.status(),
    )


def _take_back(lab: str, problem: BaseException) -> None:
    """Remove what was half made; what could not be is told beside the problem that comes first."""
    try:
        engines.remove(lab)
    except LabkitError as left:
        problem.add_note(f"What was made of lab {lab!r} could not all be removed: {left}")
    except Exception as left:
        problem.add_note(
            f"What was made of lab {lab!r} could not all be removed: {redact(str(left))}\n"
            f"Next step: labkit down --lab {lab}"
        )


def reset(lab: str, *, compose: Path | None = None, progress: Progress) -> UpResult:
    """Return a lab to the swarm that it began as: the same nodes, and nothing of what was done on them.

    A lab with a Compose file of its own needs it again. Raises UnknownNameError where no such lab runs.
    """
    began = time.monotonic()
    check_name(lab)
    with locks.hold(lab) as held:
        _clear(lab, held)
        if hosts := engines.hosts_of(lab):
            kept = engines.spec_of(lab)
            engines.remove(lab)
            docker = kept.docker if kept else DEFAULT_DOCKER
            return _up_on_hosts(held, lab, hosts, docker, began, progress=progress)
        # What the engine has kept of it does for a lab whose nodes do not answer any more.
        kind, spec = engines.kind_of(lab), engines.spec_of(lab)
        if kind is None or spec is None:
            kind, spec = _asked_of_it(lab)
        # Before anything is removed: the version's row may be in a file that is not named any more.
        versions.release(spec.docker)
        file = compose or paths.COMPOSE / "swarm.yaml"
        engine, _ = engines.choose(kind)
        described = topology.load(file, lab=engine.label(lab), docker=spec.docker, nodes=spec.nodes)
        recipe = _SwarmRecipe(lab, described, spec.managers, progress)
        wanted = SwarmSpec.of(spec.docker, spec.nodes, spec.managers, file)
        engines.remove(lab)
        return _made(held, engine, recipe, wanted, began, fresh=False, keep=False)


def _asked_of_it(lab: str) -> tuple[str, SwarmSpec]:
    """Return the engine of a lab, and what it is, by asking its nodes."""
    found = get(lab)
    managers = sum(_manages(node) for node in found.nodes.values())
    spec = SwarmSpec.of(found.docker, len(found.nodes), max(managers, 1))
    found.close()
    return found.engine.kind, spec


def _manages(node: Node) -> bool:
    return bool(node.docker.api.info()["Swarm"]["ControlAvailable"])


@contextlib.contextmanager
def look_at(hosts: Path, *, docker: str = DEFAULT_DOCKER, progress: Progress) -> Iterator[Lab]:
    """Reach the swarm that machines of one's own are, which labkit has not made; it stays as it is.

    `docker` is the version whose tools labkit brings. Raises HostsError for the file, UsageError where
    the machines are in no swarm, EngineError where one does not answer or is not what the file says.
    """
    versions.release(docker)
    with engines.looked_at(hosts, docker, progress) as connection:
        found = nodes.lab_on(connection.label, connection)
        try:
            yield found
        finally:
            found.close()


def down(lab: str) -> bool:
    """Take a lab down and leave nothing of it; returns whether there was anything."""
    check_name(lab)
    with locks.hold(lab) as held:
        there = engines.remove(lab) or held.cut_short is not None
        held.done()
    return there
