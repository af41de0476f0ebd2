"""The one container that labkit runs on each machine, and the two images that it puts there.

The container has a node's files less its engine, and the machine's network and processes: its agent
runs the labs' commands with the node's tools in the machine's namespaces. It sees the namespaces of the
machine's containers come and go, since `/run/docker` is mounted there as a slave. The engine's socket
is reached through the machine's first process, so that an engine that was restarted is found again.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.engines import debian, images
from labkit.engines.hosts.facts import IMAGE_OF_APP
from labkit.errors import BuildError, EngineError
from labkit.progress import Progress
from labkit.transport.base import DAEMON, Command, CommandResult, DaemonError
from labkit.transport.live import LiveLink
from labkit.transport.streams import through_exec

if TYPE_CHECKING:
    import socket

    from docker import DockerClient

    from labkit.engines.hosts.endpoint import Endpoint
    from labkit.transport.base import Reach

LABEL = "labkit.hosts"
"""The label with the lab's name on the container. It is not that of the other engines' nodes: where one
of the machines is this one, they would take it for a lab of theirs."""

_PUT_SECONDS = 900.0
# What of a node's file system is its engine: a third of the bytes, and not started here.
_ENGINE = re.compile(
    r"\./usr/s?bin/(dockerd|docker-proxy|containerd|containerd-shim\S*|runc|ctr)|"
    r"\./usr/(lib|libexec)/docker/cli-plugins/.+"
)
_BLOCK, _PIECE = 512, 1 << 20
_HEADS = b"xgLK"  # of a tar's entries, those that say more of the next one
_ENTRYPOINT = ["/usr/bin/python3", "/srv/server.py"]
# The rules that Docker made are seen by the iptables of its kind only; Debian's default is nft.
_START = r"""
for name in docker.sock xtables.lock; do ln -s "/proc/1/root/run/$name" "/run/$name"; done
if grep -qs nat /proc/net/ip_tables_names && iptables-legacy -t nat -S DOCKER >/dev/null 2>&1; then
    for tool in iptables ip6tables; do update-alternatives --set "$tool" "/usr/sbin/$tool-legacy"; done
fi
exec python3 /usr/local/lib/labkit/agent.py
"""
# As sh -c PUT NAME NODE: the node image has the app's files, and they need not be sent once more.
_PUT = r"""
tar -C /usr/share/labkit/node-test -c . | docker import --change "ENV NODE=$2" \
    --change 'ENTRYPOINT ["/usr/bin/python3","/srv/server.py"]' --change 'EXPOSE 3000/tcp' - "$1"
"""


def container(lab: str) -> str:
    """Return the container's name."""
    return f"labkit-{lab}-tools"


def image(docker: str) -> str:
    """Return the name of the tools' image."""
    return f"labkit/tools:{docker}"


def ensure(client: DockerClient, docker: str, stop: threading.Event) -> None:
    """Make sure that a machine has the tools: the node's file system from here, or the node image.

    The latter is built there from its Dockerfile where none can be made here. Raises BuildError.
    """
    from docker.errors import ImageNotFound

    name, key = image(docker), debian.node_key(docker)
    try:
        if client.images.get(name).labels.get(images.KEY_LABEL) == key:
            return
    except ImageNotFound:
        pass
    if images.can_make(docker):
        with debian.build_lock():
            tar = debian.node_tar(docker, Progress())
        pieces = until_stopped(without_engine(tar), stop)
        images.put(client, name, pieces, [f"LABEL {images.KEY_LABEL}={key}"])
        return
    images.ensure(client, docker, Progress())
    repository, tag = name.split(":")
    client.api.tag(images.name(docker), repository, tag)


def until_stopped(pieces: Iterable[bytes], stop: threading.Event) -> Iterator[bytes]:
    """Yield the pieces of what is sent to a machine; raises EngineError where it is to stop."""
    for piece in pieces:
        _go_on(stop)
        yield piece


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise EngineError("stopped")


def without_engine(tar: Path) -> Iterator[bytes]:
    """Yield a node's file system without its engine, in pieces; all that stays is as it was."""
    with tar.open("rb") as file:
        pending = b""
        while head := file.read(_BLOCK):
            size = _size(head)
            if head[156] in _HEADS:
                pending += head + file.read(size)
                continue
            name = head[:100].rstrip(b"\0").decode(errors="replace")
            if _ENGINE.fullmatch(name):
                file.seek(size, os.SEEK_CUR)
            else:
                yield pending + head
                while size:
                    piece = file.read(min(size, _PIECE))
                    if not piece:
                        raise BuildError(f"{tar} is cut short", hint=f"remove it: rm {tar}")
                    yield piece
                    size -= len(piece)
            pending = b""


def _size(head: bytes) -> int:
    """Return how many bytes follow a head of a tar: whole blocks; none after a block of zeros."""
    digits = head[124:136].strip(b" \0")
    return -(-int(digits or b"0", 8) // _BLOCK) * _BLOCK


def start(client: DockerClient, lab: str, docker: str, stop: threading.Event) -> None:
    """Put the image of the tools on a machine and start the container.

    Raises BuildError, NodeUnreachable, EngineError where it is to stop meanwhile, and DaemonError where
    the engine refuses.
    """
    from docker.types import Mount

    ensure(client, docker, stop)
    _go_on(stop)
    api = client.api
    made = api.create_container(
        image(docker),
        name=container(lab),
        entrypoint=["sh", "-c", _START],
        labels={LABEL: lab},
        host_config=api.create_host_config(
            privileged=True,
            network_mode="host",
            pid_mode="host",
            cgroupns="host",
            # Over the image's volume, too: an anonymous one would be one thing more to remove.
            tmpfs=dict.fromkeys(("/run", "/tmp", "/var/lib/docker"), ""),
            mounts=[Mount("/run/docker", "/run/docker", type="bind", propagation="rslave")],
            restart_policy={"Name": "unless-stopped"},
        ),
    )
    try:
        api.start(made["Id"])
    except DaemonError as problem:
        if "shared" not in str(problem.args[0]):
            raise
        raise EngineError(
            f"{problem.args[0]}", hint="on that machine: sudo mount --make-rshared /"
        ) from problem


def labs(client: DockerClient) -> list[str]:
    """List the labs whose container is on a machine."""
    rows = client.api.containers(all=True, filters={"label": LABEL})
    return sorted(row["Labels"][LABEL] for row in rows)


def reach(client: DockerClient, endpoint: Endpoint, lab: str) -> Reach:
    """Return what connects to sockets of a machine: its engine's directly, others in the container."""
    name = container(lab)

    def connect(path: str) -> socket.socket:
        return endpoint.dial() if path == DAEMON else through_exec(client, name, path)

    return connect


def run(link: LiveLink, argv: list[str], *, timeout: float = 60.0) -> CommandResult:
    """Run a command on a machine; raises EngineError where it fails, NodeUnreachable."""
    _, pending = link.runner.submit(Command(tuple(argv), link.node, timeout=timeout))
    result = pending.result()
    if result.code:
        last = (result.stderr.strip().splitlines() or [f"code {result.code}"])[-1]
        raise EngineError(f"{link.node}: `{argv[0]}` failed in labkit's container: {last}")
    return result


def foreign_app(client: DockerClient, nodes: Collection[str]) -> bool:
    """Whether a machine has an image with the app's name that is not the app, on one of these nodes."""
    config = _app(client)
    return bool(config) and not any(_is_app(config, node) for node in nodes)


def put_app(link: LiveLink, client: DockerClient, node: str) -> None:
    """Make the app's image on a machine, where it is not there; raises EngineError.

    The app says that it runs on `node`.
    """
    if not _app(client):
        run(link, ["sh", "-c", _PUT, "put", IMAGE_OF_APP, node], timeout=_PUT_SECONDS)


def _app(client: DockerClient) -> dict[str, object]:
    from docker.errors import ImageNotFound

    try:
        return dict(client.api.inspect_image(IMAGE_OF_APP)["Config"])
    except ImageNotFound:
        return {}


def _is_app(config: dict[str, object], node: str) -> bool:
    environment = json.dumps(config.get("Env") or [])
    return config.get("Entrypoint") == _ENTRYPOINT and json.dumps(f"NODE={node}") in environment
