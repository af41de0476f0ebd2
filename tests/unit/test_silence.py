"""Connections are closed when nobody has asked anything for a while, and are made anew."""

from __future__ import annotations

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
from tests.unit.fakes import FakeNode, answer_a_look

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


def test_nothing_is_closed_while_a_request_is_under_way() -> None:
    going, closed = threading.Event(), list[float]()
    session = requests.Session()
    session.send = lambda *_, **__: going.wait(SOON)  # type: ignore[method-assign,assignment,return-value]
    session.close = lambda: closed.append(time.monotonic())  # type: ignore[method-assign]
    hang_up_after_silence(session)
    asking = threading.Thread(target=session.send, args=(requests.PreparedRequest(),))
    asking.start()
    time.sleep(0.5)  # longer than the silence
    assert not closed
    going.set()
    asking.join()
    assert comes_true(lambda: len(closed) == 1)


def run(argv: list[str]) -> str:
    return "done"


def test_an_agents_stream_ends_in_silence_but_not_under_a_command() -> None:
    node, streams = FakeNode(run, answer_a_look), list[socket.socket]()

    def reach(path: str) -> socket.socket:
        streams.append(node.reach(path))
        return streams[-1]

    def ended() -> list[bool]:
        return [stream.fileno() < 0 for stream in streams]

    link = LiveLink("node1", reach)
    agent = link.runner

    def run_one() -> str:
        _, future = agent.submit(Command(("true",), "node1"))
        return future.result(SOON).stdout

    assert [run_one() for _ in range(3)] == ["done"] * 3
    assert len(streams) == 1
    assert comes_true(lambda: ended() == [True])
    assert run_one() == "done"
    assert len(streams) == 2
    number, held = agent.submit(Command(("hold",), "node1", ready="listening"))
    time.sleep(0.5)
    assert ended() == [True, False]  # somebody waits
    assert not held.done()
    agent.stop(number)  # says that it is done
    assert held.result(SOON).stdout == "done"
    assert comes_true(lambda: ended() == [True, True])
    agent.stop(number)  # it has ended, and so has its stream: nothing to do
    for _ in range(20):  # asked just as it hangs up
        assert run_one() == "done"
        time.sleep(0.2)
    link.close()
    assert comes_true(lambda: all(ended()))
