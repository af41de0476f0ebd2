"""Nodes that are not there: the sockets of a daemon and of an agent, and a script behind them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from labkit import swarm
from labkit.engines.base import Connection
from labkit.transport.base import AGENT
from labkit.transport.daemon import daemon
from labkit.transport.live import LiveLink

Run = Callable[[list[str]], "str | dict[str, Any]"]
Answer = Callable[[str, str, bytes], tuple[int, str, bytes]]


class FakeNode:
    """Answers commands by `run` and requests by `api`; counts both."""

    def __init__(self, run: Run, api: Answer) -> None:
        self.run, self.api = run, api
        self.commands: list[list[str]] = []
        self.requests: list[str] = []

    def reach(self, path: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        serve = self._agent if path == AGENT else self._daemon

        def answer() -> None:
            with theirs:
                serve(theirs)

        threading.Thread(target=answer, daemon=True).start()
        return ours

    def _agent(self, link: socket.socket) -> None:
        watched: dict[int, dict[str, Any]] = {}

        def answer(message: dict[str, Any]) -> None:
            link.sendall(json.dumps(message).encode() + b"\n")

        for line in link.makefile():
            request = json.loads(line)
            if request.get("stop"):
                if request["id"] in watched:
                    answer(watched.pop(request["id"]))
                continue
            argv = _inside(request["argv"])
            self.commands.append(argv)
            told = self.run(argv)
            fields = told if isinstance(told, dict) else {"stdout": told}
            done = {
                "id": request["id"],
                "code": 0,
                "stdout": "",
                "stderr": "",
                "started": time.time(),
                "seconds": 0.01,
                "timed_out": False,
            } | fields
            if request["ready"] and not fields.get("code"):
                watched[request["id"]] = done
                answer({"id": request["id"], "ready": True})
            elif later := done.pop("after", 0):
                threading.Timer(later, answer, [done]).start()
            else:
                answer(done)

    def _daemon(self, link: socket.socket) -> None:
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                node.requests.append(f"{self.command} {self.path}")
                status, kind, content = node.api(self.command, self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if "events" in self.path:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for line in content.splitlines(keepends=True):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        Handler(link, ("", 0), None)  # type: ignore[arg-type]


def _inside(argv: list[str]) -> list[str]:
    """Take off the words by which a command finds its way into a container."""
    if argv[3:4] != ["labkit"]:
        return argv
    if "--wd=" not in " ".join(argv) and "--" not in argv:
        return ["look"]
    for _ in range(argv.count("--") if "setpriv" in argv else 1):
        argv = argv[argv.index("--") + 1 :]
    return argv


def as_json(value: object, status: int = 200) -> tuple[int, str, bytes]:
    """Return a Docker engine's answer."""
    return status, "application/json", json.dumps(value).encode()


def lab_of(nodes: Mapping[str, FakeNode]) -> swarm.Lab:
    """Make a lab of fake nodes; the first is the manager."""
    made = {
        name: swarm.Node(
            name=name,
            address=f"172.30.0.{number}",
            container=f"lab-{name}-1",
            docker_version="26.1",
            link=LiveLink(name, node.reach),
            log=list,
        )
        for number, (name, node) in enumerate(nodes.items(), 2)
    }
    first = next(iter(nodes.values()))
    engine = Connection(
        kind="vm",
        accel="tcg",
        client=daemon("the machine", first.reach),
        environment={},
        label="vm",
        open_socket=lambda *_: socket.socket(),
    )
    return swarm.Lab("default", engine, "26.1", made)


class Toy:
    """A swarm of two nodes that knows services, and takes its time: a task runs at the third look.

    `curl` is answered by how often it was asked, so that no two answers are the same.
    """

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.count = 0
        self.lock = threading.Lock()
        self.nodes = {name: FakeNode(self.run, self.api) for name in ("node1", "node2")}
        self.lab = lab_of(self.nodes)

    def run(self, argv: list[str]) -> str | dict[str, Any]:
        with self.lock:
            if argv[:3] == ["docker", "service", "create"]:
                name = argv[argv.index("--name") + 1]
                labels = {
                    argv[n + 1].partition("=")[0]: argv[n + 1].partition("=")[2]
                    for n, word in enumerate(argv)
                    if word == "--label"
                }
                self.services[name] = {
                    "ID": f"id-{name}",
                    "Spec": {"Name": name, "Labels": labels},
                    "replicas": int(argv[argv.index("--replicas") + 1]),
                }
                self.looks[name] = 0
            elif argv[:3] == ["docker", "service", "rm"]:
                self.services.pop(argv[3], None)
            elif argv[0] == "curl":
                self.count += 1
                return f"answer {self.count}\n"
            elif argv[0] == "ls":
                return "1-ingress\ningress_sbox\n"
            elif argv[0] == "tcpdump":
                return {"stdout": "two packets\n", "stderr": "listening on any\n"}
            elif argv[0] == "fails":
                return {"code": 1, "stderr": "no such device\n"}
            elif argv[0] == "look":
                return "CapBnd: 00000000a80425fb\nyes\nroot:x:0:0:root:/root:/bin/sh\n\n==\n"
            elif argv[0] == "slow":
                return {"stdout": "done\n", "after": 0.5}
            return " ".join(argv) + "\n"

    def api(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        what = path.removeprefix("/v1.41/").partition("?")[0]
        with self.lock:
            if what == "_ping":
                return 200, "text/plain", b"OK"
            if what == "version":
                return as_json({"Version": "26.1.5"})
            if what == "services":
                return as_json(list(self.services.values()))
            if what == "nodes":
                names = enumerate(self.nodes, 1)
                return as_json(
                    [{"ID": f"n{n}", "Description": {"Hostname": name}} for n, name in names]
                )
            if what == "tasks":
                return as_json(
                    [task for name in self.services if name in path for task in self.tasks(name)]
                )
            if what == "events":
                return 200, "application/json", b'{"Action": "start"}\n{"Action": "die"}\n'
            if what == "containers/json":
                return as_json([])
            if what.startswith("containers/"):
                return as_json({"Id": what.split("/")[1], "Config": {"Hostname": "box"}})
            return as_json({"message": f"no such thing: {what}"}, 404)

    def tasks(self, name: str) -> list[dict[str, Any]]:
        self.looks[name] += 1
        state = "running" if self.looks[name] > 4 else "starting"
        return [
            {
                "Slot": slot,
                "NodeID": f"n{slot % 2 + 1}",
                "DesiredState": "running",
                "Status": {
                    "State": state,
                    "ContainerStatus": {"PID": 1000 + slot, "ContainerID": f"{name}{slot}"},
                },
            }
            for slot in range(1, self.services[name]["replicas"] + 1)
        ]


# What the API of a swarm of two nodes lists: a service, of which a task has failed again and again.


def node_row(name: str, **more: Any) -> dict[str, Any]:
    return {
        "ID": f"id-{name}",
        "Description": {"Hostname": name},
        "Spec": {"Role": "worker", "Availability": "active"},
        "Status": {"State": "ready", "Addr": "0.0.0.0"},
    } | more


def task_row(slot: int, state: str, desired: str, at: int, **status: Any) -> dict[str, Any]:
    return {
        "ID": f"{slot}-{at}",
        "ServiceID": "s1",
        "NodeID": "id-node2",
        "Slot": slot,
        "CreatedAt": f"2026-11-29T10:00:{at:02}.0Z",
        "DesiredState": desired,
        "Status": {"State": state, "Timestamp": f"2026-11-29T10:00:{at:02}.0Z"} | status,
    }


NODES = [
    node_row("node2"),
    node_row(
        "node1", Spec={"Role": "manager", "Availability": "drain"}, ManagerStatus={"Leader": True}
    ),
]
NETWORKS = [
    {"Id": "n1", "Name": "ingress", "Ingress": True, "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}},
    {
        "Id": "n2",
        "Name": "both",
        "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.1.0.0/24"}]},
        "Options": {"encrypted": ""},
    },
]
SERVICES = [
    {
        "ID": "s1",
        "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 2}}},
        "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2},
        "Endpoint": {
            "VirtualIPs": [{"NetworkID": "n2", "Addr": "10.1.0.2/24"}],
            "Ports": [{"Protocol": "tcp", "TargetPort": 3000, "PublishedPort": 8080}],
        },
    }
]
TASKS = [
    task_row(2, "preparing", "running", 9),
    *(task_row(1, "failed", "shutdown", at, Err=f"exit {at}") for at in range(4)),
    task_row(1, "running", "running", 5, ContainerStatus={"ContainerID": "c" * 64, "PID": 7})
    | {
        "NetworksAttachments": [
            {"Network": {"Spec": {"Name": "ingress"}}, "Addresses": ["10.0.0.5/24"]}
        ]
    },
    task_row(1, "running", "running", 6) | {"ServiceID": "gone"},
]
ANSWERS = {"/nodes": NODES, "/networks": NETWORKS, "/services": SERVICES, "/tasks": TASKS}


def answer_a_look(method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
    return as_json(ANSWERS["/" + path.split("?")[0].rpartition("/")[2]])


def lab_that_is_looked_at() -> swarm.Lab:
    """Make a lab of two fake nodes that list ANSWERS."""
    return lab_of(
        {name: FakeNode(lambda _: "ingress_sbox", answer_a_look) for name in ("node1", "node2")}
    )
