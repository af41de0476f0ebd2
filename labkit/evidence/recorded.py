"""Keeps a record of everything that a lab asks of its nodes, on the way: a `Link` around a live one.

Three things are not kept, because they have no end or no words: streams of a Docker engine that go on
until somebody stops them, connections that are handed over (attach), and files. They work, and the
evidence says that they were asked for.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from labkit.evidence import cells
from labkit.evidence.files import Writer
from labkit.transport import live as channel

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import PreparedRequest, Response

    from labkit.transport.live import Command

_VERSION = f"/v{channel.API_VERSION}"


class Recorded:
    """The link to a node, with a record of what goes over it."""

    def __init__(self, node: str, docker: str, live: channel.Live, writer: Writer) -> None:
        self._live = live
        self._pen = Pen(writer, node, docker)

    @cached_property
    def agent(self) -> channel.Runs:
        """What runs commands on the node."""
        return _Agent(self._live.agent, self._pen)

    @cached_property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        return channel.daemon(self._live.reach, through=self._through)

    def pause(self, seconds: float) -> None:
        """Wait."""
        self._live.pause(seconds)

    def now(self) -> float:
        """The monotonic clock of this machine."""
        return self._live.now()

    def close(self) -> None:
        """Close what was opened."""
        if "docker" in self.__dict__:
            self.docker.close()
        self._live.close()

    def _through(self, request: PreparedRequest, send: Callable[[], Response]) -> Response:
        asked = asked_of(request)
        why = endless(request)
        note = self._pen.begins("api")
        if why:
            note(asked | {"error": why})
            return send()
        try:
            response = send()
            # All of it now: what is read later would come at a time that nobody knows.
            content = response.content
        except Exception as problem:
            note(asked | {"error": f"{type(problem).__name__}: {problem}"})
            raise
        kind = response.headers.get("Content-Type", "")
        note(asked | answered(response.status_code, kind, content))
        return response_of(request, response.status_code, kind, content)


class Pen:
    """Writes what was asked of one node, under the cell that asked."""

    def __init__(self, writer: Writer, node: str, docker: str) -> None:
        self._writer, self._node, self._docker = writer, node, docker

    def begins(self, kind: str) -> Callable[[Mapping[str, Any]], None]:
        """Something is asked now; returns what writes it down when it has its answer."""
        started, cell = self._writer.now(), cells.now()

        def note(row: Mapping[str, Any]) -> None:
            whole = {"node": self._node, **row} if kind != "lab" else row
            try:
                self._writer.write(kind, cell, started, whole, docker=self._docker)
            except OSError as problem:
                # The lab goes on: who cannot hand in evidence can still learn.
                warnings.warn(
                    f"labkit: the evidence {self._writer.path} is not kept: {problem.strerror}. "
                    "Make room and remove the file; Restart Kernel and Run All Cells begins it anew.",
                    stacklevel=1,
                )

        return note


class _Agent:
    """A node's agent, with a record of its commands; each is written before its answer is given."""

    def __init__(self, live: channel.Agent, pen: Pen) -> None:
        self._live, self._pen = live, pen
        self._ready: set[int] = set()

    def submit(self, command: Command) -> tuple[int, Future[dict[str, Any]]]:
        note = self._pen.begins("command")
        asked = {
            "place": command.place,
            "netns": command.netns,
            "pid": command.pid,
            "argv": list(command.argv),
        }
        answer: Future[dict[str, Any]] = Future()
        number, running = self._live.submit(command)

        def ended(told: Future[dict[str, Any]]) -> None:
            row = {**asked, "ready": number in self._ready}
            if problem := told.exception():
                note(row | {"error": str(problem.args[0])})
                answer.set_exception(problem)
                return
            result = told.result()
            words = {name: result[name] for name in ("code", "stdout", "stderr")}
            times = {"began": result["started"], "ran": result["seconds"]}
            note(row | words | times | {"timed_out": result["timed_out"]})
            answer.set_result(result)

        running.add_done_callback(ended)
        return number, answer

    def wait_ready(self, number: int, timeout: float) -> None:
        self._live.wait_ready(number, timeout)
        self._ready.add(number)

    def stop(self, number: int) -> None:
        self._live.stop(number)

    def close(self) -> None:
        self._live.close()


# --- requests to a Docker engine, in words -------------------------------------------------------


def asked_of(request: PreparedRequest) -> dict[str, Any]:
    """Say what a request asks: method, path without the API's version, body."""
    body, words = request.body, None
    if isinstance(body, bytes):
        try:
            words = body.decode()
        except UnicodeDecodeError:
            words = f"base64:{base64.b64encode(body).decode()}"
    elif body is not None:
        words = body if isinstance(body, str) else "(a stream)"
    path = request.path_url.removeprefix(_VERSION)
    return {"method": request.method, "path": path, "body": words}


def endless(request: PreparedRequest) -> str:
    """Say why a request's answer cannot be kept; empty where it can."""
    address = urlsplit(request.path_url)
    words = {name: values[-1] for name, values in parse_qs(address.query).items()}
    if "Upgrade" in request.headers:
        return "a connection that is handed over is not kept"
    if address.path.endswith("/events") and "until" not in words:
        return "events without an end (until=…) are not kept"
    if address.path.endswith("/logs") and words.get("follow") in ("1", "True", "true"):
        return "logs that are followed are not kept"
    if address.path.endswith("/stats") and words.get("stream") not in ("0", "False", "false"):
        return "a stream of statistics is not kept"
    if address.path.endswith(("/get", "/archive", "/export")):
        return "files are not kept"
    return ""


def answered(status: int, kind: str, content: bytes) -> dict[str, Any]:
    """Say what the answer to a request was."""
    try:
        text, encoding = content.decode(), "text"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(content).decode(), "base64"
    return {"status": status, "type": kind, "response": text, "encoding": encoding}


def content_of(row: Mapping[str, Any]) -> bytes:
    """Return the bytes that `answered` put into words."""
    text = str(row["response"])
    return base64.b64decode(text) if row["encoding"] == "base64" else text.encode(errors="replace")


class _Body(io.BytesIO):
    """An answer's bytes, with what the docker SDK looks for in one that comes in chunks."""

    chunked = True

    @property
    def chunk_left(self) -> int:
        return len(self.getbuffer()) - self.tell()


def response_of(request: PreparedRequest, status: int, kind: str, content: bytes) -> Response:
    """Make an answer anew from what is kept of it: live and replayed, the SDK reads the same."""
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPResponse

    raw = HTTPResponse(
        _Body(content), headers={"Content-Type": kind}, status=status, preload_content=False
    )
    return HTTPAdapter().build_response(request, raw)
