"""The life of a lab: up, find, reset, down."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from labkit import engines, paths, topology
from labkit.engines import debian as bootstrap
from labkit.engines.vm import checkpoints
from labkit.engines.vm import process as vm
from labkit.engines.vm import snapshots as states
from labkit.errors import EngineError, SwarmError, UnknownNameError, UsageError, WaitTimeout
from labkit.progress import Progress
from labkit.swarm import membership
from labkit.swarm.lab import APP_IMAGE, Lab
from labkit.swarm.places import Node
from labkit.swarm.waiting import wait_for
from labkit.transport import live as channel

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

DEFAULT_DOCKER = "26.1"
DEFAULT_NODES = 3
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


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
    """Find a running lab, or None."""
    check_name(lab)
    engine = engines.find(lab)
    if engine is None:
        return None
    found = _lab(lab, engine)
    if not found.nodes:
        return None
    return found


def get(lab: str) -> Lab:
    """Return a running lab; raises UnknownNameError, EngineError where its machine has ended."""
    found = find(lab)
    if found is None:
        if (words := vm.last_words(lab)) is not None:
            raise EngineError(
                f"the embedded machine of lab {lab!r} has ended by itself; its last words:\n{words}",
                hint=f"labkit down --lab {lab}, then labkit up --lab {lab}",
            )
        hint = "labkit up" if lab == "default" else f"labkit up --lab {lab}"
        raise UnknownNameError("running lab", lab, engines.labs(), hint=hint)
    return found


def _lab(name: str, engine: engines.Engine) -> Lab:
    """Find the nodes of a lab on its engine; there may be none."""
    rows = engine.client.containers.list(filters={"label": f"{engines.LAB_LABEL}={engine.label}"})
    nodes = {}
    for row in sorted(rows, key=lambda r: _order(r.attrs["Config"]["Hostname"])):
        settings = row.attrs["NetworkSettings"]["Networks"]
        (network,) = settings.values()
        config = row.attrs["Config"]
        container = row.name or row.id or ""
        nodes[config["Hostname"]] = Node(
            name=config["Hostname"],
            address=network["IPAddress"],
            container=container,
            docker_version=config["Labels"]["labkit.docker"],
            link=channel.Live(config["Hostname"], engine.reach(container, row.attrs["State"]["Pid"])),
            log=functools.partial(_log_of, row),
        )
    docker = next(iter(nodes.values())).docker_version if nodes else ""
    return Lab(name, engine, docker, nodes)


def _log_of(container: Container) -> list[str]:
    with contextlib.suppress(Exception):
        return container.logs(tail=8).decode(errors="replace").splitlines()
    return []


def _order(hostname: str) -> tuple[int, str]:
    return (int(re.sub(r"\D", "", hostname) or 0), hostname)


def wanted(
    docker: str, nodes: int, managers: int, *, compose: Path = paths.COMPOSE / "swarm.yaml"
) -> states.Wanted:
    """Describe a swarm, for the saved state that it has."""
    return states.Wanted(docker, nodes, managers, bootstrap.key_of(compose))


class Started(NamedTuple):
    """A swarm that answers, and how it was had."""

    lab: Lab
    seconds: float
    api_seconds: float  # until the engine's API answered
    restored: bool


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
    progress: Progress,
) -> Started:
    """Stand up a swarm: on the embedded machine from a saved state, which is made where there is none.

    With `fresh`, a state that is there is made anew. What fails half way is taken down again, unless
    `keep`. Raises UsageError for what cannot be asked, EngineError and SwarmError for what cannot be
    had.
    """
    began = time.monotonic()
    check_name(lab)
    if not 1 <= managers <= max(nodes, 1):
        raise UsageError(
            f"{managers} managers of {nodes} nodes were asked for; at least 1, at most all of them",
            hint="labkit up --nodes 3 --managers 1",
        )
    bootstrap.release(docker)
    chosen, _ = engines.choose(engine)
    file = compose or paths.COMPOSE / "swarm.yaml"
    label = vm.INNER_LAB if chosen == "vm" else lab
    described = topology.load(file, lab=label, docker=docker, nodes=nodes)
    if find(lab):
        raise UsageError(f"lab {lab!r} is up already", hint=f"labkit status --lab {lab}")
    try:
        if chosen == "vm":
            asked = wanted(docker, nodes, managers, compose=file)
            had = _up_embedded(lab, asked, described, fresh=fresh, progress=progress)
        else:
            opened = engines.open_docker(lab, docker, progress)
            answered = time.monotonic()
            had = _Had(_make(lab, opened, described, managers, progress), answered, restored=False)
    except BaseException:
        if not keep:
            with _undisturbed(), contextlib.suppress(Exception):
                down(lab)
        raise
    return Started(
        lab=had.lab,
        seconds=time.monotonic() - began,
        api_seconds=had.answered - began,
        restored=had.restored,
    )


class _Had(NamedTuple):
    lab: Lab
    answered: float  # when, by the monotonic clock, the engine's API first answered
    restored: bool


def _up_embedded(
    lab: str, wanted: states.Wanted, described: topology.Topology, *, fresh: bool, progress: Progress
) -> _Had:
    """Restore the wanted swarm, and make its state first where none fits."""
    if (words := vm.last_words(lab)) is not None:
        progress.say(f"the machine of lab {lab!r} had ended by itself; its last words:\n{words}")
    vm.remove(vm.lab_directory(lab))
    store = vm.node_disk(wanted.docker, progress)
    state = states.newest(wanted)
    if state and not fresh:
        try:
            states.check(state)
            return _Had(*_restore(lab, wanted, state), restored=True)
        except (EngineError, SwarmError, OSError) as refused:
            progress.say(f"the saved state is not used: {refused.args[0]}; it is made anew")
    shop = states.workshop(lab)
    guest = _made_in_machine(lab, wanted, described, shop, store, progress)
    with progress.stage("letting the swarm come to rest"):
        vm.settle(guest)
    with progress.stage("saving the swarm's state"):
        vm.save(guest, shop / vm.DEVICES)
        vm.remove(vm.lab_directory(lab))
        state = states.publish(wanted, shop)
        states.prune({guest.state for guest in vm.found()} | checkpoints.states_in_use())
    return _Had(*_restore(lab, wanted, state), restored=False)


def _made_in_machine(
    lab: str,
    wanted: states.Wanted,
    described: topology.Topology,
    shop: Path,
    store: Path,
    progress: Progress,
) -> vm.Machine:
    """Boot the embedded machine and make the swarm in it; a machine that ends by itself is booted anew.

    QEMU before 8.1 may run kernel code that is half rewritten, and the guest panics: see vm.boot.
    """

    def attempt() -> vm.Machine:
        with progress.stage("starting the embedded machine"):
            guest = vm.boot(lab, wanted.docker, shop, store, memory_mb=wanted.memory_mb)
        _make(lab, engines.of_machine(guest), described, wanted.managers, progress).close()
        return guest

    try:
        return attempt()
    except Exception:
        if (words := vm.last_words(lab)) is None:
            raise
        progress.say(f"the machine ended by itself and is started anew; its last words:\n{words}")
    return attempt()


def _make(
    lab: str, engine: engines.Engine, described: topology.Topology, managers: int, progress: Progress
) -> Lab:
    """Start the nodes on an engine and make them a swarm."""
    with progress.stage(f"{len(described.nodes)} nodes with Docker {described.docker}"):
        started = _start_nodes(lab, engine, described)
    with progress.stage(f"swarm of {len(described.nodes)}"):
        membership.form(started, managers)
    return started


def reset(lab: str, *, compose: Path | None = None, progress: Progress) -> Started:
    """Return a lab to the swarm that it began as: the same nodes, and nothing of what was done on them.

    A lab with a Compose file of its own needs it again. Raises UnknownNameError where no such lab runs.
    """
    began = time.monotonic()
    found = get(lab)
    kind, docker, nodes = found.engine.kind, found.docker, len(found.nodes)
    guest = vm.find(lab)
    if guest:
        managers = int(states.read(Path(guest.state))["wanted"]["managers"])
    else:
        managers = sum(_manages(node) for node in found.nodes.values())
    found.close()
    down(lab)
    started = up(
        lab,
        nodes=nodes,
        managers=max(managers, 1),
        docker=docker,
        engine=kind,
        compose=compose,
        progress=progress,
    )
    return started._replace(seconds=time.monotonic() - began)


def _manages(node: Node) -> bool:
    return bool(node.docker.api.info()["Swarm"]["ControlAvailable"])


def _restore(lab: str, wanted: states.Wanted, state: Path) -> tuple[Lab, float]:
    """Start the machine of a lab from its saved state and prove that the swarm is there."""
    guest = vm.restore(
        lab,
        wanted.docker,
        state,
        memory_mb=wanted.memory_mb,
        sound=states.checker(state),
    )
    states.used(state)
    with ThreadPoolExecutor(1) as thread:
        # The clock stood still while nothing ran.
        clock = thread.submit(guest.set_clock)
        restored = _lab(lab, engines.of_machine(guest))
        answered = time.monotonic()
        clock.result()
    _prove(restored, wanted.nodes)
    return restored, answered


def _prove(lab: Lab, nodes: int) -> None:
    """Raise SwarmError where not every daemon answers, or the manager does not see each node ready.

    Asks only; nothing of it stays.
    """
    first, *others = lab.nodes.values()
    with membership.side_by_side(nodes) as pool:
        seen = pool.submit(membership.node_rows, lab)
        list(pool.map(lambda node: node.docker.api.ping(), others))
        rows = seen.result()
    ready = [row["name"] for row in rows if row["state"] == "ready"]
    if len(ready) != nodes:
        raise SwarmError(f"{len(ready)} of {nodes} nodes are ready in {first.name}'s eyes: {rows}")


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Clean up to the end, even where an impatient person presses Ctrl-C once more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_nodes(lab: str, engine: engines.Engine, described: topology.Topology) -> Lab:
    """Start every node's container side by side and wait until their daemons have the app's image."""
    client = engine.client
    network = f"{described.project}_{described.network}"
    client.networks.create(
        network,
        driver="bridge",
        internal=described.internal,
        labels={**described.network_labels},
        check_duplicate=True,
    )
    with membership.side_by_side(len(described.nodes)) as pool:
        for future in [
            pool.submit(_start_node, client, described, n, network) for n in described.nodes
        ]:
            future.result()
        started = _lab(lab, engine)
        if missing := {node.name for node in described.nodes} - set(started.nodes):
            raise SwarmError(
                f"{', '.join(sorted(missing))} started and ended again",
                hint="labkit up --keep leaves the nodes for a look",
            )
        for future in [pool.submit(_wait_for_node, node) for node in started.nodes.values()]:
            future.result()
    _preflight(started.manager)
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
    except APIError as problem:
        told = str(problem.explanation or problem)
        if "privileged" in told.lower():
            raise EngineError(
                f"the engine refuses privileged containers, which a node is: {told}",
                hint="use an engine that allows them, or: labkit up --engine vm",
            ) from problem
        raise SwarmError(f"{node.name} could not be started: {told}") from problem


def _wait_for_node(node: Node) -> None:
    """Wait until the node's daemon answers and holds the app's image.

    The stream to the daemon waits for its socket, so an error here means that the node has ended.
    """
    from docker.errors import APIError
    from requests import RequestException

    def look() -> tuple[bool, str]:
        found = node.docker.api.images(APP_IMAGE)
        return bool(found), f"its daemon answers, the image {APP_IMAGE} is not there yet"

    hint = f"labkit up --keep, then: docker logs {node.container}"
    wanted = f"the Docker daemon of {node.name} with the image {APP_IMAGE}"
    began = time.monotonic()
    try:
        wait_for(wanted, look, log=node.log, hint=hint)
    except (APIError, RequestException, OSError) as problem:
        waited = time.monotonic() - began
        last = f"{type(problem).__name__}: {problem}"[:300]
        log = node.log()
        raise WaitTimeout(wanted, seconds=waited, last=last, log=log, hint=hint) from problem


# What a node needs of the kernel, each with a try that changes nothing that stays.
_NEEDS = {
    "ip_vs": ["ipvsadm", "-ln"],
    "vxlan": ["ip", "link", "add", "labkit-try", "type", "vxlan", "id", "1", "dstport", "4789"],
    "xt_ipvs": ["iptables", "-C", "INPUT", "-m", "ipvs", "--ipvs"],
}


def _preflight(node: Node) -> None:
    """Raise EngineError where the engine's kernel lacks what Swarm's network is made of."""
    lacking = []
    for module, argv in _NEEDS.items():
        # A namespace of its own, so that nothing of the try stays.
        tried = node.run(["unshare", "--net", "--", *argv])
        missing = "does not exist" not in tried.stderr and "Bad rule" not in tried.stderr
        if tried.code and (module != "xt_ipvs" or missing):
            lacking.append(f"{module} ({(tried.stderr.strip().splitlines() or ['?'])[-1]})")
    if lacking:
        modules = " ".join(item.split()[0] for item in lacking)
        raise EngineError(
            f"the engine's kernel lacks what Swarm needs: {', '.join(lacking)}",
            hint=f"on the machine that runs the engine: sudo modprobe -a {modules}; "
            "or use the embedded machine: labkit up --engine vm",
        )


def down(lab: str) -> bool:
    """Take a lab down and leave nothing of it; returns whether there was anything."""
    check_name(lab)
    directory, unfinished = vm.lab_directory(lab), states.unfinished_of(lab)
    if directory.exists() or unfinished.exists():
        # The machine and all that is in it go at once.
        vm.remove(directory)
        vm.remove(unfinished)
        return True
    engine = engines.find(lab)
    if engine is None:
        return False
    label = f"{engines.LAB_LABEL}={lab}"
    boxes = engine.client.containers.list(all=True, filters={"label": label})
    if boxes:
        with ThreadPoolExecutor(len(boxes)) as pool:
            list(pool.map(lambda box: box.remove(v=True, force=True), boxes))
    for network in engine.client.networks.list(filters={"label": label}):
        network.remove()
    return True
