"""Connections are closed when nobody has asked anything for a while, and are made anew."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from labkit.transport import silence
from labkit.transport.base import Command
from labkit.transport.live import LiveLink
from labkit.transport.silence import Silence, hang_up_after_silence

SOON = 10.0  # seconds; a deadline, not a measure


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SECONDS", 0.2)


def comes_true(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while not look() and time.monotonic() < deadline:
        time.sleep(0.01)
    return look()


def test_it_hangs_up_once_for_each_silence() -> None:
    hung_up: list[float] = []
    quiet = Silence(lambda: hung_up.append(time.monotonic()))
    began = time.monotonic()
    for _ in range(4):
        quiet.broken()
        time.sleep(0.1)
    assert comes_true(lambda: len(hung_up) == 1)
    assert hung_up[0] - began > 0.4
    time.sleep(0.3)
    assert len(hung_up) == 1
    quiet.broken()
    assert comes_true(lambda: len(hung_up) == 2)
    quiet.broken()
    quiet.end()
    time.sleep(0.3)
    assert len(hung_up) == 2


class Slow(BaseHTTPRequestHandler):
    """Answers after as many seconds as the path says, and keeps the connection open."""

    protocol_version = "HTTP/1.1"
    opened: list[tuple[str, int]] = []  # noqa: RUF012 (each test makes it anew)
    closed = 0

    def setup(self) -> None:
        super().setup()
        self.opened.append(self.client_address)

    def finish(self) -> None:
        super().finish()
        type(self).closed += 1

    def do_GET(self) -> None:
        time.sleep(float(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"HI")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Slow.opened, Slow.closed = [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_session_closes_what_it_keeps_and_goes_on(address: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        hang_up_after_silence(session)
        for _ in range(3):
            assert session.get(f"{address}/0").text == "HI"
        assert len(Slow.opened) == 1
        assert comes_true(lambda: Slow.closed == 1)
        assert session.get(f"{address}/0.5").text == "HI"  # an answer that takes longer still comes
        assert len(Slow.opened) == 2
    assert comes_true(lambda: Slow.closed == 2)


class Node:
    """Stands in for a node's agent: it says `done` for each command that is not `hold`."""

    def __init__(self) -> None:
        self.streams: list[socket.socket] = []
        self.ended: list[int] = []
        self.threads: list[threading.Thread] = []

    def reach(self, path: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.streams.append(theirs)
        self.threads.append(
            threading.Thread(target=self._serve, args=(len(self.streams), theirs), daemon=True)
        )
        self.threads[-1].start()
        return ours

    def _serve(self, number: int, stream: socket.socket) -> None:
        with stream, stream.makefile("rw") as lines:
            for line in lines:
                asked = json.loads(line)
                if asked.get("argv") == ["hold"]:
                    continue
                told = {"code": 0, "stdout": "done", "stderr": "", "started": 0.0, "seconds": 0.0}
                lines.write(json.dumps({"id": asked["id"], **told, "timed_out": False}) + "\n")
                lines.flush()
        self.ended.append(number)


def test_an_agents_stream_ends_in_silence_but_not_under_a_command() -> None:
    node = Node()
    link = LiveLink("node1", node.reach)
    agent = link.runner

    def run(*argv: str) -> str:
        _, future = agent.submit(Command(argv, "node1"))
        return future.result(SOON).stdout

    assert [run("true") for _ in range(3)] == ["done"] * 3
    assert len(node.streams) == 1
    assert comes_true(lambda: node.ended == [1])
    assert run("true") == "done"
    assert len(node.streams) == 2
    number, held = agent.submit(Command(("hold",), "node1"))
    time.sleep(0.5)
    assert node.ended == [1]  # somebody waits
    assert not held.done()
    agent.stop(number)  # says that it is done
    assert held.result(SOON).stdout == "done"
    assert comes_true(lambda: node.ended == [1, 2])
    agent.stop(number)  # it has ended, and so has its stream: nothing to do
    for _ in range(20):  # asked just as it hangs up
        assert run("true") == "done"
        time.sleep(0.2)
    link.close()
    for thread in node.threads:
        thread.join(SOON)
    assert sorted(node.ended) == [*range(1, len(node.streams) + 1)]
