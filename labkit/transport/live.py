"""The link to a node that runs: its daemon's API, and its agent that runs commands.

Both listen on unix sockets inside the node's container and nowhere else.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import shlex
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.errors import SwarmError
from labkit.transport import containers
from labkit.transport.base import (
    AGENT,
    Command,
    CommandResult,
    DaemonError,
    NodeUnreachable,
    Reach,
    Refuse,
    TaskReplaced,
    ended_first,
    stream_ended,
)
from labkit.transport.daemon import daemon
from labkit.transport.silence import Silence

if TYPE_CHECKING:
    from docker import DockerClient

log = logging.getLogger(__name__)


class LiveLink:
    """The link to a node that runs."""

    def __init__(self, node: str, reach: Reach, refuse: Refuse | None = None) -> None:
        self.node, self.reach, self._refuse = node, reach, refuse

    @cached_property
    def runner(self) -> Agent:
        """The kept-open agent, opened when it is first asked for."""
        return Agent(self.node, self.reach, lambda: self.docker, self.demand)

    @cached_property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        return daemon(self.node, self.reach)

    def demand(self, command: Command) -> None:
        """Raise an error for a command that is not to be run there; nothing is run."""
        if self._refuse:
            self._refuse(command, lambda: self.docker)

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def now(self) -> float:
        """The monotonic clock of this machine."""
        return time.monotonic()

    def close(self) -> None:
        """Close what was opened."""
        for name in ("runner", "docker"):
            if name in self.__dict__:
                getattr(self, name).close()


class Agent:
    """Runs commands on one node, many side by side, over one kept-open stream.

    Where the stream has ended, the next command opens another: it is closed after some silence, and a
    machine that was put away meanwhile has lost its connections; all else is as it was.
    """

    def __init__(
        self,
        node: str,
        reach: Reach,
        docker: Callable[[], DockerClient],
        refuse: Callable[[Command], None] | None = None,
    ) -> None:
        self._name, self._reach, self._docker, self._refuse = node, reach, docker, refuse
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._results: dict[int, Future[CommandResult]] = {}
        self._ready: dict[int, Future[None]] = {}
        self._tasks: dict[int, Command] = {}  # those that need their container to be there
        self._known: dict[str, tuple[dict[str, Any], str]] = {}  # what `_words` found out of containers
        self._closed = False
        self._silence = Silence(self._hang_up)
        self._open()

    def _open(self) -> None:
        """Open the stream; raises NodeUnreachable."""
        try:
            self._socket = self._reach(AGENT)
        except OSError as problem:
            raise NodeUnreachable(self._name, f"{type(problem).__name__}: {problem}"[:300]) from problem
        self._ended = False
        name = f"labkit agent {self._name}"
        threading.Thread(target=self._read, args=(self._socket,), name=name, daemon=True).start()

    def submit(self, command: Command) -> tuple[int, Future[CommandResult]]:
        """Start a command; returns its number and the future of its result.

        With `ready`, `wait_ready` returns when stderr holds that text. Raises NodeUnreachable where no
        stream can be had. The result is TaskReplaced, raised, where the command's container is gone.
        """
        number = next(self._numbers)
        result: Future[CommandResult] = Future()
        if command.ready:
            self._ready[number] = Future()
        try:
            argv = self.words(command)
        except SwarmError as problem:
            self._fail(number, result, problem)
            return number, result
        self._results[number] = result
        if command.container:
            self._tasks[number] = command
        if log.isEnabledFor(
            logging.DEBUG
        ):  # every command passes here: nothing is put together in vain
            typed = shlex.join(command.argv)
            log.debug("%s, command %d on %s: %s", self._name, number, command.place, typed)
        netns = None if command.container else command.netns
        timing = {"timeout": command.timeout, "ready": command.ready}
        self._send({"id": number, "argv": argv, "netns": netns, **timing})
        return number, result

    def words(self, command: Command) -> list[str]:
        """Return a command as it is run on the node: one of a container finds its way in by itself.

        Raises TaskReplaced where the container is gone, and what `refuse` raises.
        """
        if self._refuse:
            self._refuse(command)
        if command.container is None:
            return list(command.argv)
        if command.pid is None:
            _, _, pid, *_ = (command.netns or "").split("/")  # /proc/PID/ns/net
            return containers.beside(int(pid), command.container, command.argv)
        if command.container not in self._known:
            self._known[command.container] = self._look(command)
        return containers.entering(command.pid, *self._known[command.container], command.argv)

    def _look(self, command: Command) -> tuple[dict[str, Any], str]:
        """Ask what a container is set to, and what is in it; that does not change while it runs."""
        assert command.container
        assert command.pid is not None
        try:
            row = self._docker().api.inspect_container(command.container)
        except DaemonError as problem:
            if problem.status == 404:
                raise TaskReplaced(command.place, command.container) from problem
            raise
        looking = tuple(containers.looking(command.pid, command.container))
        _, seen = self.submit(Command(looking, command.place))
        found = seen.result()
        if found.code:
            raise TaskReplaced(command.place, command.container)
        return row, found.stdout

    def _fail(self, number: int, result: Future[CommandResult], problem: SwarmError) -> None:
        result.set_exception(problem)
        ready = self._ready.get(number)
        if ready and not ready.done():
            ready.set_exception(problem)

    def wait_ready(self, number: int, timeout: float) -> None:
        """Wait until a command that was given `ready` has said so."""
        try:
            self._ready[number].result(timeout)
        finally:
            self._ready.pop(number)

    def stop(self, number: int) -> None:
        """Interrupt a command if it still runs; raises NodeUnreachable where its stream has ended."""
        if number in self._results:
            self._send({"id": number, "stop": True}, anew=False)

    def close(self) -> None:
        """End the agent, and with it whatever it still runs."""
        self._closed = True
        self._silence.end()
        _end(self._socket)

    def _hang_up(self) -> None:
        """End the stream if no command is under way on it."""
        with self._sending:
            if not self._results and not self._ended:
                self._ended = True
                _end(self._socket)

    def _send(self, message: dict[str, Any], *, anew: bool = True) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._sending:
                if self._ended:  # nobody would read the answer
                    if self._closed or not anew:
                        raise stream_ended(self._name)
                    self._open()
                self._socket.sendall(line)
            self._silence.broken()
        except OSError as problem:
            raise stream_ended(self._name) from problem

    def _read(self, stream: socket.socket) -> None:
        """Hand each message of the agent to who waits for it, until the stream ends."""
        try:
            with stream.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError) as problem:
            log.info("the stream to %s ended: %s", self._name, problem)
        left: list[Future[Any]] = []
        with self._sending:
            if stream is self._socket and not self._ended:  # else nothing was under way on it
                self._ended = True
                left += [*self._results.values(), *self._ready.values()]
                self._results.clear()
        stream.close()
        for future in left:
            if not future.done():
                future.set_exception(stream_ended(self._name))

    def _take(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if number not in self._results:  # nobody waits: its stream ended before it was sent
            return
        if message.get("ready"):
            # Nobody waits any more where it took too long.
            if ready := self._ready.get(number):
                ready.set_result(None)
            return
        task = self._tasks.pop(number, None)
        if task and _gone(message, task):
            replaced = TaskReplaced(task.place, task.container or "")
            self._fail(number, self._results.pop(number), replaced)
            return
        # Left there for who asks later: it may end before anybody waits.
        ready = self._ready.get(number)
        if ready and not ready.done():
            ready.set_exception(ended_first(message["stderr"]))
        result = _result_of(message)
        log.debug("%s, command %d: code %d in %.3f s", self._name, number, result.code, result.seconds)
        self._results.pop(number).set_result(result)
        self._silence.broken()


def _end(stream: socket.socket) -> None:
    """End a stream for both sides; who reads it here closes it."""
    with contextlib.suppress(OSError):  # it has ended already
        stream.shutdown(socket.SHUT_RDWR)


def _gone(message: dict[str, Any], task: Command) -> bool:
    """Whether a command did not run, since its process is not of the task's container any more."""
    said = message["code"] == containers.NOT_OF and containers.not_of(task.container or "")
    return bool(said) and message["stderr"].endswith(str(said))


def _result_of(message: dict[str, Any]) -> CommandResult:
    """Read the agent's last message on a command; its fields are told in compose/node/agent.py."""
    names = ("code", "stdout", "stderr", "started", "seconds", "timed_out")
    return CommandResult(**{name: message[name] for name in names})
