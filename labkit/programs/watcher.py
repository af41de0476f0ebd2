"""Looks at one thing again and again, on a node, and prints a line of JSON whenever it has changed.

`experiments.timeline` sends this file's text to `python3 -c`; it needs nothing but Python. It says
`watching` on stderr when it has begun, and ends when it is interrupted. The words after it:

    client SERVICE PORT    in a container: DNS, requests on new connections and on ones that are kept
    ipvs                   in a namespace with IPVS: destinations and weights
    swarm SERVICE          on a manager: states of tasks and nodes
    ends CONTAINER=PID…    on a node: the end of containers' processes, as the kernel tells it
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import quote

DAEMON = "/run/docker.sock"
DNS_S, REQUEST_S, KEPT_S, IPVS_S, SWARM_S = 0.2, 0.2, 0.3, 0.1, 0.4  # from one look to the next
PATIENCE_S = 3.0  # of a request


def tell(**row: object) -> None:
    """Print one line; a single write, so that threads do not mix theirs."""
    os.write(1, json.dumps(row).encode() + b"\n")


def watch(source: str, look: Callable[[], object], every_s: float) -> None:
    """Tell what a look shows whenever it is not what the look before has shown.

    A slow look is followed by twice its time of rest: in emulation a look at the manager's tasks can
    take longer than the time to the next one, and looks without a pause slow down what they look at.
    """
    shown: object = None
    before = time.time()
    while True:
        began = time.time()
        now = look()
        ended = time.time()
        if now != shown:
            tell(source=source, at=ended, late=ended - before, shows=now)
            shown = now
        before = began
        took = ended - began
        time.sleep(max(every_s - took, 2 * took))


def resolve(name: str) -> list[str]:
    """Ask the container's DNS server for a name's addresses."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        return []
    return sorted({str(row[4][0]) for row in found})


def destinations() -> dict[str, int]:
    """Read IPVS's destinations and their weights, as `ipvsadm -ln` does, without a process a look."""
    found = {}
    with open("/proc/net/ip_vs") as table:
        for line in table:
            words = line.split()
            if words[0] == "->" and not words[1].startswith("Remote"):
                found[socket.inet_ntoa(bytes.fromhex(words[1][:8]))] = int(words[3])
    return found


class Daemon(http.client.HTTPConnection):
    """The node's Docker engine, over its unix socket."""

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(DAEMON)

    def ask(self, path: str) -> Any:
        """Return what the engine's API answers."""
        self.request("GET", path)
        return json.load(self.getresponse())


def swarm(daemon: Daemon, service: str) -> dict[str, Any]:
    """Return what a manager says of a service's tasks and of the nodes."""
    filters = quote(json.dumps({"service": [service]}))
    nodes = {row["ID"]: row for row in daemon.ask("/v1.41/nodes")}
    tasks = {}
    for row in daemon.ask(f"/v1.41/tasks?filters={filters}"):
        ends = row.get("NetworksAttachments") or ()
        tasks[row["ID"]] = {
            "slot": row.get("Slot", 0),
            "node": nodes[row["NodeID"]]["Description"]["Hostname"] if row.get("NodeID") else None,
            "state": row["Status"]["State"],
            "wanted": row["DesiredState"],
            "container": (row["Status"].get("ContainerStatus") or {}).get("ContainerID"),
            "addresses": [a.split("/")[0] for end in ends for a in end.get("Addresses") or ()],
        }
    states = {row["Description"]["Hostname"]: row["Status"]["State"] for row in nodes.values()}
    return {"nodes": states, "tasks": tasks}


def ask(connection: http.client.HTTPConnection) -> tuple[str, str | None]:
    """Ask the app who it is; returns what came of it, and the container."""
    try:
        connection.request("GET", "/whoami")
        return "answered", json.load(connection.getresponse())["container"]
    except ConnectionRefusedError:
        return "refused", None
    except TimeoutError:
        return "time-out", None
    except socket.gaierror:
        return "no address", None
    except (OSError, http.client.HTTPException, ValueError) as problem:
        no_way = (errno.EHOSTUNREACH, errno.ENETUNREACH)
        return "unreachable" if getattr(problem, "errno", None) in no_way else "broken off", None


def request(service: str, port: int) -> None:
    """Ask on a new connection."""
    began = time.time()
    connection = http.client.HTTPConnection(service, port, timeout=PATIENCE_S)
    what, container = ask(connection)
    connection.close()
    tell(source="request", at=began, took=time.time() - began, what=what, container=container)


def keep(connection: http.client.HTTPConnection, container: str) -> None:
    """Ask again and again on one connection, until it fails."""
    connection.auto_open = 0  # not opened anew when it has been closed
    what = "answered"
    while what == "answered":
        time.sleep(KEPT_S)
        began = time.time()
        what, _ = ask(connection)
        tell(source="kept", at=began, took=time.time() - began, what=what, container=container)


def client(service: str, port: int) -> None:
    """Hold one connection to each task, and then ask for the name and on new connections."""
    wanted = len(resolve(f"tasks.{service}"))
    held: dict[str, http.client.HTTPConnection] = {}
    for _ in range(4 * wanted):
        connection = http.client.HTTPConnection(service, port, timeout=PATIENCE_S)
        _, container = ask(connection)
        if container and container not in held and len(held) < wanted:
            held[container] = connection
        else:
            connection.close()
        if len(held) == wanted:
            break
    names = [service, f"tasks.{service}"]
    work: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (keep, (connection, container)) for container, connection in held.items()
    ]
    work.append((watch, ("DNS", lambda: {name: resolve(name) for name in names}, DNS_S)))
    for target, words in work:
        threading.Thread(target=target, args=words, daemon=True).start()
    print("watching", file=sys.stderr, flush=True)
    while True:
        threading.Thread(target=request, args=(service, port), daemon=True).start()
        time.sleep(REQUEST_S)


def ends(processes: dict[str, int]) -> None:
    """Tell when each container's process ends."""
    poller = select.poll()
    waiting = {os.pidfd_open(pid): container for container, pid in processes.items()}
    for fd in waiting:
        poller.register(fd, select.POLLIN)
    print("watching", file=sys.stderr, flush=True)
    while waiting:
        for fd, _ in poller.poll():
            tell(source="container", at=time.time(), what="ended", container=waiting.pop(fd))
            poller.unregister(fd)
    signal.pause()


def main(kind: str, *words: str) -> None:
    """Watch until interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with suppress(KeyboardInterrupt):
        if kind == "client":
            client(words[0], int(words[1]))
        if kind == "ends":
            ends({container: int(pid) for container, _, pid in (word.partition("=") for word in words)})
        print("watching", file=sys.stderr, flush=True)
        if kind == "ipvs":
            watch("IPVS", destinations, IPVS_S)
        daemon = Daemon("localhost")
        watch("swarm", lambda: swarm(daemon, words[0]), SWARM_S)
    os._exit(0)  # requests that are still open would hold the interpreter up


if __name__ == "__main__":
    main(*sys.argv[1:])
