"""Makes nodes one swarm, and tells who is in it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from labkit.engines.ending import to_the_end
from labkit.errors import SwarmError
from labkit.transport.base import DaemonError

if TYPE_CHECKING:
    from labkit.swarm.lab import Lab
    from labkit.swarm.places import Node

log = logging.getLogger(__name__)

_RENEW_TRIES = 3
_TRYING = ("pending", "error")  # what an engine says of itself that has not joined yet


def node_rows(lab: Lab) -> list[dict[str, Any]]:
    try:
        # One that has only just joined has no name yet.
        rows = {row["Description"].get("Hostname"): row for row in lab.manager.docker.api.nodes()}
    except DaemonError as problem:
        raise SwarmError(
            f"{lab.manager.name} is not a manager of a swarm: {problem.args[0]}",
            hint=f"labkit down --lab {lab.name}, then labkit up --lab {lab.name}",
        ) from problem
    result = []
    for node in lab.nodes.values():
        row = rows.get(node.hostname)
        result.append(
            {
                "name": node.name,
                "hostname": node.hostname,
                "role": row["Spec"]["Role"] if row else "none",
                "address": node.address,
                "state": row["Status"]["State"] if row else "not in the swarm",
            }
        )
    return result


def all_ready(lab: Lab) -> tuple[bool, str]:
    rows = node_rows(lab)
    states = ", ".join(f"{row['name']} {row['state']}" for row in rows)
    return all(row["state"] == "ready" for row in rows), states


def ingress_of(node: Node) -> dict[str, Any]:
    """Return what a node knows of the routing mesh's network; empty where it has none yet.

    It is known by its flag: a person may have made it anew with another name.
    """
    api = node.docker.api
    try:
        return dict(api.inspect_network("ingress"))
    except DaemonError as problem:
        if problem.status != 404:
            raise
    found = [row for row in api.networks(filters={"driver": "overlay"}) if row.get("Ingress")]
    return dict(api.inspect_network(found[0]["Id"])) if found else {}


def form(lab: Lab, managers: int) -> None:
    """Make the nodes one swarm: the first begins it, the others join side by side."""
    first, *others = lab.nodes.values()
    subnets = [lab.engine.machines.pool] if lab.engine.machines and lab.engine.machines.pool else None

    def begin() -> None:
        first.docker.swarm.init(
            advertise_addr=first.address,
            listen_addr="0.0.0.0:2377",
            default_addr_pool=subnets,
            dispatcher_heartbeat_period=lab.heartbeat_s * 1_000_000_000,
        )
        _note(lab, first)

    # To the end, so that who has joined while Ctrl-C was pressed is known, and leaves again.
    with to_the_end(len(lab.nodes)) as pool:
        pool.submit(begin).result()
        # Managers agree on each new one, so they come one after the other; workers need not wait.
        for node in others[: managers - 1]:
            pool.submit(join, lab, node, "Manager").result()
        for future in [pool.submit(join, lab, node, "Worker") for node in others[managers - 1 :]]:
            future.result()

    wait_for_members(lab)


def join(lab: Lab, node: Node, role: str) -> None:
    """Make a node a member of a lab's swarm; raises DaemonError where it is none in time."""
    first = lab.manager
    token = first.docker.api.inspect_swarm()["JoinTokens"][role]
    try:
        node.docker.swarm.join(
            remote_addrs=[f"{first.address}:2377"],
            join_token=token,
            advertise_addr=node.address,
            listen_addr="0.0.0.0:2377",
        )
    except DaemonError:
        # The engine would go on trying, and be a member later that nobody knows of.
        if node.docker.api.info()["Swarm"]["LocalNodeState"] in _TRYING:
            node.docker.swarm.leave(force=True)
        raise
    _note(lab, node)


def _note(lab: Lab, node: Node) -> None:
    """Have it written down at once that a machine of somebody's own is in the lab's swarm."""
    if lab.engine.machines:
        lab.engine.machines.joined(node.hostname)


def renew_tokens(manager: Node) -> None:
    """Make new join tokens; those that were there let nobody join any more.

    Where the managers have no leader for the moment they stay as they are, and the log says so.
    """
    api = manager.docker.api
    for _ in range(_RENEW_TRIES):
        try:
            now = api.inspect_swarm()
            api.update_swarm(
                now["Version"]["Index"],
                now["Spec"],
                rotate_worker_token=True,
                rotate_manager_token=True,
            )
            return
        except DaemonError as problem:  # the swarm was changed meanwhile, or has no leader
            log.info("the join tokens are not renewed: %s", problem.args[0])


def wait_for_members(lab: Lab) -> None:
    """Wait until the manager sees every node ready, and every node has the routing mesh."""

    lab.wait_for(
        "every node to be ready in the manager's eyes",
        lambda: all_ready(lab),
        seconds=120,
        log=lab.manager.log,
        hint="labkit up --keep leaves the nodes for a look",
    )
    with side_by_side(len(lab.nodes)) as pool:
        for future in [pool.submit(_wait_for_ingress, lab, node) for node in lab.nodes.values()]:
            future.result()


def _wait_for_ingress(lab: Lab, node: Node) -> None:
    """Wait until a node has the namespace through which published ports are reached."""

    def look() -> tuple[bool, str]:
        names = node.run(["ls", "/run/docker/netns"]).text.split()
        return "ingress_sbox" in names, f"namespaces: {', '.join(names) or 'none'}"

    lab.wait_for(f"the routing mesh on {node.name}", look, seconds=120, log=node.log)


@contextlib.contextmanager
def side_by_side(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose waiting work is dropped when something fails, so that the failure is heard."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
