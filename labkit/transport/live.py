"""The link to a node that runs: its daemon's API, and its agent that runs commands.

Both listen on unix sockets inside the node's container and nowhere else.
"""

from __future__ import annotations

import itertools
import json
import logging
import shlex
import threading
import time
from concurrent.futures import Future
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.transport.base import AGENT, Command, CommandResult, Reach, ended_first, stream_ended
from labkit.transport.daemon import daemon

if TYPE_CHECKING:
    from docker import DockerClient

log = logging.getLogger(__name__)


class LiveLink:
    """The link to a node that runs."""

    def __init__(self, node: str, reach: Reach) -> None:
        self.node, self.reach = node, reach

    @cached_property
    def runner(self) -> Agent:
        """The kept-open agent, opened when it is first asked for."""
        return Agent(self.node, self.reach)

    @cached_property
    def docker(self) -> DockerClient:
        """A docker client of the node's own daemon."""
        return daemon(self.reach)

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
    """Runs commands on one node, many side by side, over one kept-open stream."""

    def __init__(self, node: str, reach: Reach) -> None:
        self._name = node
        self._socket = reach(AGENT)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._results: dict[int, Future[CommandResult]] = {}
        self._ready: dict[int, Future[None]] = {}
        thread = threading.Thread(target=self._read, name=f"labkit agent {node}", daemon=True)
        thread.start()

    def submit(self, command: Command) -> tuple[int, Future[CommandResult]]:
        """Start a command; returns its number and the future of its result.

        With `ready`, `wait_ready` returns when stderr holds that text. Raises SwarmError where the
        stream has ended.
        """
        number = next(self._numbers)
        result: Future[CommandResult] = Future()
        self._results[number] = result
        if command.ready:
            self._ready[number] = Future()
        if log.isEnabledFor(
            logging.DEBUG
        ):  # every command passes here: nothing is put together in vain
            typed = shlex.join(command.argv)
            log.debug("%s, command %d on %s: %s", self._name, number, command.place, typed)
        fields = {name: value for name, value in command._asdict().items() if name != "place"}
        self._send({"id": number, **fields})
        return number, result

    def wait_ready(self, number: int, timeout: float) -> None:
        """Wait until a command that was given `ready` has said so."""
        try:
            self._ready[number].result(timeout)
        finally:
            del self._ready[number]

    def stop(self, number: int) -> None:
        """Interrupt a command that still runs."""
        self._send({"id": number, "stop": True})

    def close(self) -> None:
        """End the agent, and with it whatever it still runs."""
        self._socket.close()

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        try:
            with self._sending:
                self._socket.sendall(line)
        except OSError as problem:
            raise stream_ended(self._name) from problem

    def _read(self) -> None:
        """Hand each message of the agent to who waits for it, until the stream ends."""
        try:
            with self._socket.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError) as problem:
            log.info("the stream to %s ended: %s", self._name, problem)
        left: list[Future[Any]] = [*self._results.values(), *self._ready.values()]
        for future in left:
            if not future.done():
                future.set_exception(stream_ended(self._name))
        self._results.clear()

    def _take(self, message: dict[str, Any]) -> None:
        number = message["id"]
        if message.get("ready"):
            self._ready[number].set_result(None)
            return
        # Left there for who asks later: it may end before anybody waits.
        ready = self._ready.get(number)
        if ready and not ready.done():
            ready.set_exception(ended_first(message["stderr"]))
        result = _result_of(message)
        log.debug("%s, command %d: code %d in %.3f s", self._name, number, result.code, result.seconds)
        self._results.pop(number).set_result(result)


def _result_of(message: dict[str, Any]) -> CommandResult:
    """Read the agent's last message on a command; its fields are told in compose/node/agent.py."""
    names = ("code", "stdout", "stderr", "started", "seconds", "timed_out")
    return CommandResult(**{name: message[name] for name in names})
