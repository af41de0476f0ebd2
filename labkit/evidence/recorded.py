"""The link to a node that keeps a record of all that goes over it, around a live one.

Three things are not kept, because they have no end or no text: streams of a Docker daemon that go on
until somebody stops them, connections that are handed over (attach), and files. They work, and the
evidence says that they were asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.evidence import cells
from labkit.evidence.api import reason_not_kept, request_row, response_of, response_row
from labkit.evidence.format import row_of_result
from labkit.evidence.writer import Writer
from labkit.transport.base import Command, CommandResult, CommandRunner
from labkit.transport.daemon import daemon

if TYPE_CHECKING:
    from pathlib import Path

    from docker import DockerClient
    from requests import PreparedRequest, Response

    from labkit.transport.live import LiveLink

Finish = Callable[[Mapping[str, Any]], None]
"""Completes a record that was started: called with the fields of the request and of its response."""


class RecordedLink:
    """The link to a node, with a record of what goes over it."""

    def __init__(self, node: str, docker: str, live: LiveLink, writer: Writer) -> None:
        self._live = live
        self._recorder = Recorder(writer, node, docker)

    @cached_property
    def runner(self) -> CommandRunner:
        """What runs commands on the node."""
        return _RecordedRunner(self._live.runner, self._recorder)

    @cached_property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        return daemon(self._live.node, self._live.reach, through=self._through)

    def demand(self, command: Command) -> None:
        """Raise an error for a command that is not to be run there; no record is kept of that."""
        self._live.demand(command)

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
        row = request_row(request)
        finish = self._recorder.start("api")
        if reason := reason_not_kept(request):
            finish(row | {"error": reason})
            return send()
        try:
            response = send()
            # All of it now: what is read later would come at a time that nobody knows.
            content = response.content
        except Exception as problem:
            finish(row | {"error": f"{type(problem).__name__}: {problem}"})
            raise
        kind = response.headers.get("Content-Type", "")
        finish(row | response_row(response.status_code, kind, content))
        return response_of(request, response.status_code, kind, content)


class Recorder:
    """Writes down what was asked of one node, under the cell that asked."""

    def __init__(self, writer: Writer, node: str, docker: str) -> None:
        self._writer, self._node, self._docker = writer, node, docker

    @property
    def path(self) -> Path:
        """The file that the record is kept in."""
        return self._writer.path

    def start(self, kind: str) -> Finish:
        """Start a record; call the result with the whole row when the response is there."""
        started, cell = self._writer.now(), cells.now()

        def finish(row: Mapping[str, Any]) -> None:
            whole = {"node": self._node, **row} if kind in ("command", "api") else row
            try:
                self._writer.write(kind, cell, started, whole, docker=self._docker)
            except OSError as problem:
                # The lab goes on: who cannot hand in evidence can still learn.
                warnings.warn(
                    f"labkit: the evidence {self._writer.path} is not kept: {problem.strerror}. "
                    "Make room and remove the file; Restart Kernel and Run All Cells begins it anew.",
                    stacklevel=1,
                )

        return finish


class _RecordedRunner:
    """Runs commands and records them; each is written before its result is handed on."""

    def __init__(self, live: CommandRunner, recorder: Recorder) -> None:
        self._live, self._recorder = live, recorder
        self._ready: set[int] = set()

    def submit(self, command: Command) -> tuple[int, Future[CommandResult]]:
        finish = self._recorder.start("command")
        result: Future[CommandResult] = Future()
        number, running = self._live.submit(command)

        def ended(live: Future[CommandResult]) -> None:
            row = {
                "place": command.place,
                "netns": command.netns,
                "pid": command.pid,
                "argv": list(command.argv),
                "ready": number in self._ready,
            }
            if problem := live.exception():
                finish(row | {"error": str(problem.args[0])})
                result.set_exception(problem)
                return
            finish(row | row_of_result(live.result()))
            result.set_result(live.result())

        running.add_done_callback(ended)
        return number, result

    def wait_ready(self, number: int, timeout: float) -> None:
        self._live.wait_ready(number, timeout)
        self._ready.add(number)

    def stop(self, number: int) -> None:
        self._live.stop(number)

    def close(self) -> None:
        self._live.close()
