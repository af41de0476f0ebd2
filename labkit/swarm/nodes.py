"""Starts the nodes of a lab on a daemon, and finds those that run there."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
from typing import TYPE_CHECKING

from labkit.engines import OTHER_ENGINE
from labkit.engines.base import LAB_LABEL, Connection, Machines
from labkit.errors import EngineError, SwarmError, WaitTimeout
from labkit.swarm.lab import APP_IMAGE, Lab
from labkit.swarm.membership import side_by_side
from labkit.swarm.places import Node
from labkit.swarm.waiting import wait_for
from labkit.transport.base import DaemonError, NodeUnreachable
from labkit.transport.live import LiveLink

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

    from labkit import topology

log = logging.getLogger(__name__)


def lab_on(name: str, connection: Connection) -> Lab:
    """Return the lab whose nodes run on a daemon, or are machines of one's own; there may be none."""
    if connection.machines:
        return _lab_of(name, connection, connection.machines)
    label = f"{LAB_LABEL}={connection.label}"
    rows = connection.client.containers.list(filters={"label": label})
    nodes = {}
    for row in sorted(rows, key=lambda r: _order(r.attrs["Config"]["Hostname"])):
        config = row.attrs["Config"]
        (network,) = row.attrs["NetworkSettings"]["Networks"].values()
        container = row.name or row.id or ""
        nodes[config["Hostname"]] = Node(
            name=config["Hostname"],
            address=network["IPAddress"],
            container=container,
            docker_version=config["Labels"]["labkit.docker"],
            link=LiveLink(config["Hostname"], connection.reach(container, row.attrs["State"]["Pid"])),
            log=functools.partial(_log_of, row),
        )
    docker = next(iter(nodes.values())).docker_version if nodes else ""
    return Lab(name, connection, docker, nodes)


def _lab_of(name: str, connection: Connection, machines: Machines) -> Lab:
    """Return the lab whose nodes are machines of one's own."""
    nodes = {
        seat.name: Node(
            name=seat.name,
            address=seat.address,
            container=seat.container,
            docker_version=seat.docker,
            link=LiveLink(seat.hostname, seat.reach, seat.refuse),  # errors name the machine itself
            log=list,
            machine=seat.hostname,
        )
        for seat in machines.seats()
    }
    return Lab(name, connection, next(iter(nodes.values())).docker_version, nodes)


def _log_of(container: Container) -> list[str]:
    with contextlib.suppress(Exception):
        return container.logs(tail=8).decode(errors="replace").splitlines()
    return []


def _order(hostname: str) -> tuple[int, str]:
    return (int(re.sub(r"\D", "", hostname) or 0), hostname)


def start(lab: str, connection: Connection, described: topology.Topology) -> Lab:
    """Start every node's container side by side and wait until their daemons have the app's image.

    Raises EngineError where the daemon cannot run them, SwarmError where one does not start.
    """
    client = connection.client
    network = f"{described.project}_{described.network}"
    client.networks.create(
        network,
        driver="bridge",
        internal=described.internal,
        labels={**described.network_labels},
        check_duplicate=True,
    )
    with side_by_side(len(described.nodes)) as pool:
        for future in [
            pool.submit(_start_node, client, described, n, network) for n in described.nodes
        ]:
            future.result()
        started = lab_on(lab, connection)
        if missing := {node.name for node in described.nodes} - set(started.nodes):
            raise SwarmError(
                f"{', '.join(sorted(missing))} started and ended again",
                hint="labkit up --keep leaves the nodes for a look",
            )
        for future in [pool.submit(_wait_for_node, node) for node in started.nodes.values()]:
            future.result()
    check_kernel(started.manager)
    return started


def _start_node(
    client: DockerClient, described: topology.Topology, node: topology.Node, network: str
) -> None:
    from docker.errors import APIError

    try:
        api = client.api
        made = api.create_container(
            node.image,
            name=f"{described.project}-{node.name}-1",
            hostname=node.name,
            environment=dict(node.environment),
            labels=dict(node.labels),
            volumes=list(node.volumes),
            host_config=api.create_host_config(
                privileged=node.privileged,
                network_mode=network,
                tmpfs=dict.fromkeys(node.tmpfs, ""),
                cgroupns="private" if node.cgroup == "private" else "host",
            ),
            networking_config={"EndpointsConfig": {network: {}}},
        )
        api.start(made["Id"])
        log.debug("%s is started as %s", node.name, made["Id"][:12])
    except APIError as problem:
        answer = str(problem.explanation or problem)
        if "privileged" in answer.lower():
            raise EngineError(
                f"the engine refuses privileged containers, which a node is: {answer}",
                hint=f"use an engine that allows them, or {OTHER_ENGINE}",
            ) from problem
        raise SwarmError(f"{node.name} could not be started: {answer}") from problem


def _wait_for_node(node: Node) -> None:
    """Wait until the node's daemon answers and holds the app's image.

    The stream to the daemon waits for its socket, so an error here means that the node has ended.
    """

    def look() -> tuple[bool, str]:
        try:
            found = node.docker.api.images(APP_IMAGE)
        except NodeUnreachable as problem:
            told = str(problem.args[0])
            if "timed out" not in told:
                raise
            return False, told  # it lives, and is slow to begin: on a busy machine, emulated
        return bool(found), f"its daemon answers, the image {APP_IMAGE} is not there yet"

    hint = f"labkit up --keep, then: docker logs {node.container}"
    wanted = f"the Docker daemon of {node.name} with the image {APP_IMAGE}"
    began = time.monotonic()
    try:
        wait_for(wanted, look, log=node.log, hint=hint)
    except (DaemonError, NodeUnreachable) as problem:
        waited = time.monotonic() - began
        last = problem.args[0]
        lines = node.log()
        raise WaitTimeout(wanted, seconds=waited, last=last, log=lines, hint=hint) from problem


# What a node needs of the kernel, each with a try that changes nothing that stays.
KERNEL_NEEDS = {
    "ip_vs": ["ipvsadm", "-ln"],
    "vxlan": ["ip", "link", "add", "labkit-try", "type", "vxlan", "id", "1", "dstport", "4789"],
    "xt_ipvs": ["iptables", "-C", "INPUT", "-m", "ipvs", "--ipvs"],
}


def check_kernel(node: Node) -> None:
    """Raise EngineError where the engine's kernel lacks what Swarm's network is made of."""
    lacking = []
    for module, argv in KERNEL_NEEDS.items():
        # A namespace of its own, so that nothing of the try stays.
        tried = node.run(["unshare", "--net", "--", *argv])
        missing = "does not exist" not in tried.stderr and "Bad rule" not in tried.stderr
        if tried.code and (module != "xt_ipvs" or missing):
            lacking.append(f"{module} ({(tried.stderr.strip().splitlines() or ['?'])[-1]})")
    if lacking:
        modules = " ".join(item.split()[0] for item in lacking)
        raise EngineError(
            f"the engine's kernel lacks what Swarm needs: {', '.join(lacking)}",
            hint=f"on the machine that runs the engine: sudo modprobe -a {modules}; or {OTHER_ENGINE}",
        )
