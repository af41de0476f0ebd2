"""Leaves each machine as it was found, and says what is left where one does not answer."""

from __future__ import annotations

import contextlib
import logging
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.engines.base import FAULT, MADE_BY
from labkit.engines.hosts import endpoint, facts, tools
from labkit.engines.hosts.record import LOOK, Kept, Record
from labkit.errors import EngineError, LabkitError, SwarmError
from labkit.transport.base import Command, DaemonError
from labkit.transport.live import LiveLink

if TYPE_CHECKING:
    from docker import DockerClient

    from labkit.engines.hosts.facts import Membership

log = logging.getLogger(__name__)
T = TypeVar("T")

_SERVICE = "com.docker.swarm.service.name"
_TASK = "com.docker.swarm.task.id"
_PATIENCE_S, _PAUSE_S = 90.0, 0.5
_NOT_FOUND = 404
_THINGS = f"services and networks with the label {MADE_BY}"


def leave(record: Record) -> None:
    """Take a lab off its machines; raises EngineError where one cannot be left as it was found.

    What could not be done stays in the record, and the next call does it.
    """
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        clients = _clients(record, failed, stack)
        if record.lab != LOOK:  # a look takes nothing of a swarm's, whoever is at work there
            _mend(record, clients, failed)
            parts = _each(record.hosts, clients, failed, lambda _, client: facts.membership(client))
            members = _members(record, parts, failed)
            _take_things(record, members, clients, failed)
            if not record.shared:
                _leave_swarm(record, members, parts, clients, failed)
        done = [kept for kept in record.hosts if not kept.undo]  # what undoes it runs in the container
        _each(done, clients, failed, partial(_clear, record.lab))
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
        *(f"what `{line}` undoes, on {kept.name}" for kept in record.hosts for line in _typed(kept)),
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


def _each(
    hosts: Iterable[Kept],
    clients: dict[str, DockerClient],
    failed: dict[str, str],
    step: Callable[[Kept, DockerClient], T],
) -> dict[str, T]:
    """Do a step on the machines that answer, side by side; one that fails does not stop the others.

    Returns what the step returned, by the machine's name.
    """

    def one(kept: Kept) -> T | LabkitError:
        try:
            return step(kept, clients[kept.name])
        except LabkitError as problem:
            return problem

    chosen = [kept for kept in hosts if kept.name in clients]
    done = {}
    with ThreadPoolExecutor(max(len(chosen), 1)) as pool:
        for kept, found in zip(chosen, pool.map(one, chosen), strict=True):
            if isinstance(found, LabkitError):
                failed.setdefault(kept.name, str(found.args[0]))
            else:
                done[kept.name] = found
    return done


# --- what a fault has broken ---------------------------------------------------------------------


def _mend(record: Record, clients: dict[str, DockerClient], failed: dict[str, str]) -> None:
    """Undo the fault that is injected, before anything that knows of it is removed."""
    broken = [kept for kept in record.hosts if kept.undo]
    if broken:
        _each(broken, clients, failed, partial(_undo, record.lab))
        record.write()  # some of it must not be done twice


def _undo(lab: str, kept: Kept, client: DockerClient) -> None:
    """Run what undoes a fault on a machine; a command fails where a person mended by hand before."""
    if lab not in tools.labs(client):
        told = "; ".join(_typed(kept))
        log.warning(
            "labkit's tools are not on %s any more; what undoes the fault there: %s", kept.name, told
        )
        kept.undo = []
        return
    link = LiveLink(kept.name, tools.reach(client, kept.endpoint, lab))
    try:
        while kept.undo:
            step = kept.undo[0]
            words = Command(tuple(step["argv"]), kept.name, step["netns"], timeout=_PATIENCE_S)
            _, pending = link.runner.submit(words)
            result = pending.result()
            if result.code:
                log.info("%s: undoing the fault: %s", kept.name, result.stderr.strip())
            kept.undo.pop(0)
    finally:
        link.close()


def _typed(kept: Kept) -> list[str]:
    """Return what undoes the fault on a machine as a person types it there."""
    return [
        shlex.join([*(["nsenter", f"--net={step['netns']}"] if step["netns"] else []), *step["argv"]])
        for step in kept.undo
    ]


# --- whose swarm it is ---------------------------------------------------------------------------


def _members(
    record: Record, parts: Mapping[str, Membership], failed: dict[str, str]
) -> dict[str, Membership]:
    """Return the machines that are in the lab's swarm now, whatever role they have there.

    A node id is of one swarm only, and stays when the role changes. Those that are written down are the
    lab's, and with them all that a manager among them lists: who joined while `up` was killed. Any
    other swarm is somebody's own, and nothing of it is touched.
    """
    known = {kept.node for kept in record.hosts if kept.node}
    known |= {key for part in parts.values() if part.node in known for key in part.members}
    for kept in record.hosts:
        part = parts.get(kept.name)
        if part and part.inside and kept.node and not part.node:  # locked, or not started yet
            failed.setdefault(
                kept.name, f"its swarm is {part.state}, so nobody can tell whether it is the lab's"
            )
    return {name: part for name, part in parts.items() if part.node in known}


# --- a swarm that labkit made --------------------------------------------------------------------


def _leave_swarm(
    record: Record,
    members: Mapping[str, Membership],
    parts: Mapping[str, Membership],
    clients: dict[str, DockerClient],
    failed: dict[str, str],
) -> None:
    """Have each machine leave the swarm that labkit made; who is in another one stays there."""
    leaving = [kept for kept in record.hosts if kept.name in parts and kept.name not in failed]
    for kept in leaving:
        if kept.name not in members and parts[kept.name].inside:
            log.warning(
                "%s is in a swarm that labkit has not written down as its own, and stays there; "
                "if it is one that labkit began: docker swarm leave --force, on %s",
                kept.name,
                kept.name,
            )
    _each([k for k in leaving if not parts[k.name].inside], clients, failed, _tidy)
    # Managers last: a swarm that has lost them would keep its workers waiting.
    for manages in (False, True):
        some = [k for k in leaving if k.name in members and members[k.name].manages is manages]
        _each(some, clients, failed, _leave_and_tidy)


def _leave_and_tidy(kept: Kept, client: DockerClient) -> None:
    """Leave the swarm, and remove what its tasks had."""
    volumes = set(_volumes_of_tasks(client)) - set(kept.before.volumes)
    client.swarm.leave(force=True)
    for box in client.api.containers(all=True, filters={"label": _TASK}):
        _gone(partial(client.api.remove_container, box["Id"], force=True, v=True))
    for name in volumes:
        _gone(partial(client.api.remove_volume, name))
    _tidy(kept, client)


def _tidy(kept: Kept, client: DockerClient) -> None:
    """Wait until Docker has removed what it had for the swarm, and remove what it does not."""
    _wait_for_overlays(client, lambda key: key not in kept.before.overlays)
    if not kept.before.gateway:
        until(f"the network {facts.GATEWAY_BRIDGE} to go", lambda: remove_gateway(client))


def _volumes_of_tasks(client: DockerClient) -> Iterator[str]:
    for box in client.api.containers(all=True, filters={"label": _TASK}):
        for mount in box.get("Mounts") or ():
            if mount.get("Type") == "volume" and mount.get("Name"):
                yield str(mount["Name"])


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


def _take_things(
    record: Record,
    members: Mapping[str, Membership],
    clients: dict[str, DockerClient],
    failed: dict[str, str],
) -> None:
    """Remove the lab's services, networks and notes while there is a manager to do it.

    Of a swarm that stays, these are the things with labkit's label. Of one that labkit made it is all:
    a node that leaves with tasks at work may keep their overlay network (seen on 26.1, in four of nine
    swarms), and then no command removes it there.
    """
    if record.emptied or not members:
        return
    manager = next((clients[name] for name, part in members.items() if part.manages), None)
    try:
        if manager:
            _take(manager.api, clients, whole=not record.shared)
            record.emptied = True
        elif record.shared and failed:
            raise SwarmError("no manager of the swarm answers")
        elif record.shared:
            log.warning("no machine manages the swarm any more; what may be left in it: %s", _THINGS)
    except LabkitError as problem:
        if not record.shared:  # its nodes leave it all the same
            log.warning("what runs in the swarm was not removed first: %s", problem.args[0])
            return
        for name in members:
            failed.setdefault(name, str(problem.args[0]))


def _take(api: Any, clients: dict[str, DockerClient], *, whole: bool) -> None:
    def ours(labels: Mapping[str, str] | None) -> bool:
        return whole or MADE_BY in (labels or {})

    services = [row for row in api.services() if ours(row["Spec"].get("Labels"))]
    for row in services:
        _gone(partial(api.remove_service, row["ID"]))
    names = {row["Spec"]["Name"] for row in services}
    until(
        f"the tasks of {', '.join(sorted(names))} to go",
        lambda: not any(_has_tasks(client, names) for client in clients.values()),
    )
    overlays = [row for row in api.networks() if row["Scope"] == "swarm" and not row.get("Ingress")]
    taken = {row["Id"]: row["Name"] for row in overlays if ours(row.get("Labels"))}
    for key, name in taken.items():
        until(f"the network {name} to go", partial(_removed, api, key))
    for client in clients.values():
        _wait_for_overlays(client, taken.__contains__)
    _gone(partial(api.remove_config, FAULT))


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
    """Remove labkit's container and the images that it put there."""
    api = client.api
    for box in api.containers(all=True, filters={"label": f"{tools.LABEL}={lab}"}):
        _gone(partial(api.remove_container, box["Id"], force=True, v=True))
    now = facts.images_of(client)
    for tag, before in kept.before.images.items():
        if tag in now and now[tag] != before:
            until(f"the image {tag} to be free", partial(_untagged, api, tag))
            if before:
                repository, _, name = tag.rpartition(":")
                api.tag(before, repository, name)


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
