"""Leaves each machine as it was found, and says what is left where one does not answer."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.engines.base import FAULT, MADE_BY
from labkit.engines.hosts import endpoint, facts, tools
from labkit.engines.hosts.mending import mend, typed
from labkit.engines.hosts.record import LOOK, Kept, Record
from labkit.errors import EngineError, LabkitError, SwarmError
from labkit.transport.base import DaemonError

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.engines.hosts.facts import Membership

log = logging.getLogger(__name__)
T = TypeVar("T")

_SERVICE = "com.docker.swarm.service.name"
_TASK = "com.docker.swarm.task.id"
_PATIENCE_S, _PAUSE_S = 90.0, 0.5
_NOT_FOUND, _IN_USE = 404, 409
_THINGS = f"services and networks with the label {MADE_BY}"


@dataclass
class _Try:
    """One try to leave a lab's machines: which of them answer, and why one could not be left."""

    record: Record
    clients: dict[str, DockerClient]
    failed: dict[str, str]

    def each(self, hosts: Iterable[Kept], step: Callable[[Kept, DockerClient], T]) -> dict[str, T]:
        """Do a step on those that answer, side by side; one that fails does not stop the others.

        Returns what the step returned, by the machine's name.
        """

        def one(kept: Kept) -> T | LabkitError:
            try:
                return step(kept, self.clients[kept.name])
            except LabkitError as problem:
                return problem

        chosen = [kept for kept in hosts if kept.name in self.clients]
        done = {}
        with ThreadPoolExecutor(max(len(chosen), 1)) as pool:
            for kept, found in zip(chosen, pool.map(one, chosen), strict=True):
                if isinstance(found, LabkitError):
                    self.failed.setdefault(kept.name, str(found.args[0]))
                else:
                    done[kept.name] = found
        return done


def leave(record: Record) -> None:
    """Take a lab off its machines; raises EngineError where one cannot be left as it was found.

    What could not be done stays in the record, and the next call does it.
    """
    failed: dict[str, str] = {}
    record.leaving = True
    record.write()
    with contextlib.ExitStack() as stack:
        now = _Try(record, _clients(record, failed, stack), failed)
        if record.lab != LOOK:  # a look takes nothing of a swarm's, whoever is at work there
            now.each([kept for kept in record.hosts if kept.undo], partial(mend, record.lab))
            record.write()  # what undoes a fault may not be done twice
            parts = now.each(record.hosts, _part)
            members = _members(now, parts)
            _take_things(now, members)
            if not record.shared:
                _leave_swarm(now, members, parts)
        done = [kept for kept in record.hosts if not kept.undo]  # what undoes it runs in the container
        now.each(done, partial(_clear, record.lab))
    if not failed:
        record.remove()
        return
    record.hosts = [kept for kept in record.hosts if kept.name in failed]
    record.write()
    raise EngineError(
        "; ".join(f"{name} is not as it was found: {why}" for name, why in failed.items())
        + f". What may be left there: {_left(record)}",
        hint=f"when it answers again: labkit down --lab {record.lab}",
    )


def _left(record: Record) -> str:
    tags = {tag for kept in record.hosts for tag, before in kept.before.images.items() if not before}
    parts = [
        *(f"what `{line}` undoes, on {kept.name}" for kept in record.hosts for line in typed(kept)),
        f"the container {tools.container(record.lab)}",
        *(f"the image {tag}" for tag in sorted(tags)),
    ]
    if record.lab == LOOK:
        return ", ".join(parts)
    if record.shared:
        parts.append(_THINGS)
    elif any(kept.node for kept in record.hosts):
        parts.append("its membership of the swarm that labkit made (docker swarm leave --force)")
        parts.append("that swarm's overlay networks (they go with a restart of its Docker engine)")
    return ", ".join(parts)


def _clients(
    record: Record, failed: dict[str, str], stack: contextlib.ExitStack
) -> dict[str, DockerClient]:
    """Return a client of each machine that answers."""

    def one(kept: Kept) -> DockerClient | LabkitError:
        try:
            return endpoint.client(kept.name, kept.endpoint)
        except LabkitError as problem:
            return problem

    found = {}
    with ThreadPoolExecutor(max(len(record.hosts), 1)) as pool:
        for kept, client in zip(record.hosts, pool.map(one, record.hosts), strict=True):
            if isinstance(client, LabkitError):
                failed[kept.name] = str(client.args[0])
            else:
                found[kept.name] = client
                stack.callback(client.close)
    return found


# --- whose swarm it is ---------------------------------------------------------------------------


def _part(_: Kept, client: DockerClient) -> Membership:
    """Return a machine's part in a swarm; a manager without a leader lists nobody."""
    info = client.info()
    try:
        return facts.membership(client, info)
    except DaemonError as problem:
        log.info("%s", problem.args[0])
        return facts.part(info)


def _members(now: _Try, parts: Mapping[str, Membership]) -> dict[str, Membership]:
    """Return the machines that are in the lab's swarm now, whatever role they have there.

    A node id is of one swarm only, and stays when the role changes. Those that are written down are the
    lab's, and with them all that a manager among them lists: who joined while `up` was killed. Any
    other swarm is somebody's own, and nothing of it is touched.
    """
    known = {kept.node for kept in now.record.hosts if kept.node}
    known |= {key for part in parts.values() if part.node in known for key in part.members}
    for kept in now.record.hosts:
        part = parts.get(kept.name)
        if part and part.inside and kept.node and not part.node:  # locked, or not started yet
            now.failed.setdefault(
                kept.name,
                f"its part in a swarm is {part.state!r}, so nobody can tell whether that is the lab's "
                "(docker info tells why; docker swarm leave --force ends it)",
            )
    return {name: part for name, part in parts.items() if part.node in known}


# --- a swarm that labkit made --------------------------------------------------------------------


def _leave_swarm(now: _Try, members: Mapping[str, Membership], parts: Mapping[str, Membership]) -> None:
    """Have each machine leave the swarm that labkit made; who is in another one stays there."""
    hosts = [k for k in now.record.hosts if k.name in parts and k.name not in now.failed]
    for kept in hosts:
        if kept.name not in members and parts[kept.name].inside:
            log.warning(
                "%s is in a swarm that labkit has not written down as its own, and stays there; "
                "if it is one that labkit began: docker swarm leave --force, on %s",
                kept.name,
                kept.name,
            )
    now.each([k for k in hosts if not parts[k.name].inside], _tidy)
    # Managers last: a swarm that has lost them would keep its workers waiting.
    for manages in (False, True):
        some = [k for k in hosts if k.name in members and members[k.name].manages is manages]
        now.each(some, _leave_and_tidy)


def _leave_and_tidy(kept: Kept, client: DockerClient) -> None:
    """Leave the swarm, and remove what is left of its tasks."""
    client.swarm.leave(force=True)
    for box in client.api.containers(all=True, filters={"label": _TASK}):
        _gone(partial(client.api.remove_container, box["Id"], force=True, v=True))
    _tidy(kept, client)


def _tidy(kept: Kept, client: DockerClient) -> None:
    """Wait until Docker has removed what it had for the swarm, and remove what it does not."""
    _wait_for_overlays(client, lambda key: key not in kept.before.overlays)
    if not kept.before.gateway:
        until(f"the network {facts.GATEWAY_BRIDGE} to go", lambda: remove_gateway(client))


def remove_gateway(client: DockerClient) -> bool:
    """Remove the bridge that Docker made for the swarm, with the routing mesh's end on it."""
    api = client.api
    try:
        row = api.inspect_network(facts.GATEWAY_BRIDGE)
    except DaemonError as problem:
        if problem.status == _NOT_FOUND:
            return True
        raise
    for end in (row.get("Containers") or {}).values():
        if str(end.get("Name")).startswith("gateway_"):
            with contextlib.suppress(DaemonError):
                api.disconnect_container_from_network(end["Name"], row["Id"], force=True)
    try:
        api.remove_network(row["Id"])
    except DaemonError as problem:
        log.debug("%s", problem.args[0])
        return False
    return True


# --- what is in a swarm --------------------------------------------------------------------------


def _take_things(now: _Try, members: Mapping[str, Membership]) -> None:
    """Remove the lab's services, networks and notes while there is a manager to do it.

    Of a swarm that stays, these are the things with labkit's label. Of one that labkit made it is all:
    a node that leaves with tasks at work may keep their overlay network (seen on 26.1, in four of nine
    swarms), and then no command removes it there.
    """
    record = now.record
    if not record.shared:
        _note_volumes(now, members, None)
    if record.emptied or not members:
        return
    manager = next((now.clients[name] for name, part in members.items() if part.manages), None)
    try:
        if manager:
            _take(now, members, manager.api)
            record.emptied = True
        elif record.shared and now.failed:
            raise SwarmError("no manager of the swarm answers")
        elif record.shared:
            log.warning("no machine manages the swarm any more; what may be left in it: %s", _THINGS)
    except LabkitError as problem:
        if not record.shared:  # its nodes leave it all the same
            log.warning("what runs in the swarm was not removed first: %s", problem.args[0])
            return
        for name in members:
            now.failed.setdefault(name, str(problem.args[0]))


def _take(now: _Try, members: Mapping[str, Membership], api: Any) -> None:
    def ours(labels: Mapping[str, str] | None) -> bool:
        return not now.record.shared or MADE_BY in (labels or {})

    services = [row for row in api.services() if ours(row["Spec"].get("Labels"))]
    names = {row["Spec"]["Name"] for row in services}
    if now.record.shared:
        _note_volumes(now, members, names)
    for row in services:
        _gone(partial(api.remove_service, row["ID"]))
    there = [now.clients[name] for name in members]
    until(
        f"the tasks of {', '.join(sorted(names))} to go",
        lambda: not any(_has_tasks(client, names) for client in there),
    )
    overlays = [row for row in api.networks() if row["Scope"] == "swarm" and not row.get("Ingress")]
    taken = {row["Id"]: row["Name"] for row in overlays if ours(row.get("Labels"))}
    for key, name in taken.items():
        until(f"the network {name} to go", partial(_removed, api, key))
    for client in there:
        _wait_for_overlays(client, taken.__contains__)
    _gone(partial(api.remove_config, FAULT))


def _note_volumes(now: _Try, members: Mapping[str, Membership], services: set[str] | None) -> None:
    """Write down the volumes of these services' tasks, of all where None, while the tasks are there."""

    def one(kept: Kept, client: DockerClient) -> None:
        found = {
            str(mount["Name"])
            for box in client.api.containers(all=True, filters={"label": _TASK})
            if services is None or box["Labels"].get(_SERVICE) in services
            for mount in box.get("Mounts") or ()
            if mount.get("Type") == "volume" and mount.get("Name")
        }
        kept.volumes = sorted({*kept.volumes, *found} - {*kept.before.volumes})

    now.each([kept for kept in now.record.hosts if kept.name in members], one)
    now.record.write()


def _wait_for_overlays(client: DockerClient, ours: Callable[[str], bool]) -> None:
    """Wait until an engine has removed overlay networks by itself; raises SwarmError."""
    names = sorted(name for key, name in facts.overlays(client).items() if ours(key))
    until(
        f"the overlay networks {', '.join(names)} to go",
        lambda: not any(ours(key) for key in facts.overlays(client)),
    )


def _has_tasks(client: DockerClient, services: set[str]) -> bool:
    rows = client.api.containers(all=True, filters={"label": _SERVICE})
    return any(row["Labels"].get(_SERVICE) in services for row in rows)


def _removed(api: Any, network: str) -> bool:
    try:
        api.remove_network(network)
    except DaemonError as problem:
        return problem.status == _NOT_FOUND
    return True


# --- on each machine -----------------------------------------------------------------------------


def _clear(lab: str, kept: Kept, client: DockerClient) -> None:
    """Remove the volumes of the lab's tasks, labkit's container and the images that it put there."""
    api = client.api
    for name in kept.volumes:
        _remove_volume(api, kept.name, name)
    for box in api.containers(all=True, filters={"label": f"{tools.LABEL}={lab}"}):
        _gone(partial(api.remove_container, box["Id"], force=True, v=True))
    now = facts.images_of(client)
    for tag, before in kept.before.images.items():
        if tag in now and now[tag] != before:
            until(f"the image {tag} to be free", partial(_untagged, api, tag))
            if before:
                repository, _, name = tag.rpartition(":")
                api.tag(before, repository, name)


def _remove_volume(api: Any, host: str, name: str) -> None:
    try:
        _gone(partial(api.remove_volume, name))
    except DaemonError as problem:
        if problem.status != _IN_USE:
            raise
        log.warning("the volume %s stays on %s, something else has it in use", name, host)


def _untagged(api: Any, tag: str) -> bool:
    """Remove an image; a container that has just ended may still have it."""
    try:
        api.remove_image(tag)
    except DaemonError as problem:
        if problem.status == _NOT_FOUND:
            return True
        log.debug("%s", problem.args[0])
        return False
    return True


def _gone(remove: Callable[[], object]) -> None:
    """Remove something, unless it has gone by itself meanwhile."""
    try:
        remove()
    except DaemonError as problem:
        if problem.status != _NOT_FOUND:
            raise


def until(wanted: str, look: Callable[[], bool]) -> None:
    """Try until it is so; raises SwarmError."""
    deadline = time.monotonic() + _PATIENCE_S
    while not look():
        if time.monotonic() > deadline:
            raise SwarmError(f"waited {_PATIENCE_S:.0f} s for {wanted}")
        time.sleep(_PAUSE_S)
