"""Run the cells of a learner's notebook one by one, within limits of time and output.

Whatever a cell does, it costs its own time and no more: an endless loop is interrupted, a kernel that
does not react to that is killed, and output is kept up to a size; the rest is counted and dropped. A
cell's time is processor time, so that a busy machine takes no marks; by the clock it has three times as
much.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import nbformat
import psutil
import zmq

from labkit.grading.sandbox import Limits, SandboxProvisioner

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_CELL_OUTPUT = 2_000_000  # characters of one cell's outputs
MAX_NOTEBOOK_OUTPUT = 20_000_000
_MAX_LINE = 20_000  # characters of an error's message, and of a line of its traceback
_MAX_NAME = 200  # of the name of its class
_CLOCK_FACTOR = 3.0  # a cell's time by the clock, to its processor time
_BUSY_SHARE = 0.8  # of its processor time; a cell that used less is waiting for a busy machine
_START_S = 120.0  # for a kernel to start, on a machine that grades on all cores
_INTERRUPT_S = 10.0  # for a cell to end when it is interrupted
_LAST_S = 20.0  # for the reply after the last output, or the other way round
_POLL_MS = 100
# Instructors see the outputs in a browser, where HTML of a learner's would run.
_SAFE_TYPES = ("text/plain", "image/png")

_log = logging.getLogger(__name__)


@dataclass
class CellResult:
    """What one cell gave: its outputs, within bounds, and the error that it ended in, if any."""

    outputs: list[Any] = field(default_factory=list)
    error: str = ""
    """The name of the error's class; empty where the cell ended in no error."""
    message: str = ""
    dropped: int = 0
    """Characters of output that were not kept."""
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended in no error."""
        return not self.error


class KernelLost(Exception):
    """The kernel is gone; its text says why."""


class KernelStartError(Exception):
    """The kernel failed to start, which is not the learner's fault."""


class Kernel:
    """A kernel for one submission; without the sandbox it has all rights of its user.

    ``folder`` is its working directory, ``environment`` what it gets of variables.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], limits: Limits, *, sandboxed: bool
    ) -> None:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        self._limits = limits
        # Without directories to look in, the only kernel is this interpreter's own.
        specs = KernelSpecManager(kernel_dirs=[])
        self._manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
        self._sandbox: SandboxProvisioner | None = None
        if sandboxed:
            self._sandbox = SandboxProvisioner(
                kernel_id="submission", kernel_spec=self._manager.kernel_spec, parent=self._manager
            )
            self._sandbox.limits = limits
            self._manager.provisioner = self._sandbox
        self._folder, self._environment = folder, dict(environment)
        self._output_left = MAX_NOTEBOOK_OUTPUT
        self._deadline = 0.0  # of the notebook, on the monotonic clock

    @property
    def attempts(self) -> list[str]:
        """What the code tried that has no place in an answer; complete after the kernel's end."""
        return self._sandbox.monitor.attempts if self._sandbox and self._sandbox.monitor else []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the kernel, and end it and all that it started; raises KernelStartError."""
        try:
            self._manager.start_kernel(cwd=str(self._folder), env=self._environment)
            self._client = self._manager.client()
            self._client.start_channels()
            try:
                try:
                    self._client.wait_for_ready(timeout=_START_S)
                except RuntimeError as problem:
                    raise KernelStartError(f"its kernel did not begin: {problem}") from problem
                self._deadline = time.monotonic() + self._limits.notebook_seconds
                yield
            finally:
                self._client.stop_channels()
        finally:
            if self._manager.has_kernel:
                self._manager.shutdown_kernel(now=True)

    def run(self, code: str, *, cell_id: str = "", quiet: bool = False) -> CellResult:
        """Run one cell; raises KernelLost where the kernel does not survive it."""
        code = code.encode(errors="replace").decode()  # half a character cannot be sent
        message_id = self._send({"code": code, "silent": quiet, "store_history": not quiet}, cell_id)
        clock, outputs, reply = self._wait(message_id)
        result = CellResult(outputs.merged(), dropped=outputs.dropped)
        if clock.interrupted_because:
            result.error, result.timed_out = "TimeoutError", True
            result.message = f"It {clock.interrupted_because} and was interrupted."
        elif reply and reply.get("status") != "ok":
            result.error = str(reply.get("ename") or "Error")[:_MAX_NAME]
            result.message = str(reply.get("evalue") or "")[:_MAX_LINE]
        if result.error and not any(output.output_type == "error" for output in result.outputs):
            result.outputs.append(error_output(result.error, result.message))
        return result

    def ask(self, expression: str) -> str | None:
        """Return what the kernel says that an expression's value is; None where it says nothing.

        A learner's code can make the kernel say anything. Raises KernelLost.
        """
        asked = {"code": "", "silent": True, "user_expressions": {"asked": expression}}
        _, _, reply = self._wait(self._send(asked))
        found: Any = reply
        for key in ("user_expressions", "asked", "data", "text/plain"):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, str) else None

    def _send(self, content: Mapping[str, Any], cell_id: str = "") -> str:
        """Ask the kernel to run code; returns the message's id."""
        content = {**content, "allow_stdin": False, "stop_on_error": False}
        session = self._client.session
        request = session.msg("execute_request", content, metadata={"cellId": cell_id})
        self._client.shell_channel.send(request)
        return str(request["header"]["msg_id"])

    def _wait(self, message_id: str) -> tuple[_CellClock, _Outputs, Mapping[str, Any] | None]:
        """Wait until a request is done with; returns the reply last, None where it was lost."""
        clock = _CellClock(self._limits, self._deadline, self._cpu_seconds())
        outputs = _Outputs(self._output_left)
        reply = self._collect(message_id, clock, outputs)
        self._output_left = outputs.notebook_left
        return clock, outputs, reply

    def _collect(
        self, message_id: str, clock: _CellClock, outputs: _Outputs
    ) -> Mapping[str, Any] | None:
        """Take the outputs of a cell until it is over; returns the reply, None where it was lost."""
        shell, iopub = self._client.shell_channel, self._client.iopub_channel
        poller = zmq.Poller()
        poller.register(shell.socket, zmq.POLLIN)
        poller.register(iopub.socket, zmq.POLLIN)
        reply: Mapping[str, Any] | None = None
        idle = False
        while not (reply and idle):
            self._check_alive()
            if clock.is_over():
                if reply or idle:  # one of the two was lost; the cell is over
                    break
                self._enforce(clock)
            ready = dict(poller.poll(_POLL_MS))
            # A flood of output must not keep the reply waiting.
            if reply is None and shell.socket in ready and (message := _next(shell, message_id)):
                reply = message["content"]
                clock.wait_at_most(_LAST_S)
            message = _next(iopub, message_id) if iopub.socket in ready else None
            if message is None:
                continue
            if message["msg_type"] != "status":
                outputs.add(message)
            elif message["content"].get("execution_state") == "idle":
                idle = True
                clock.wait_at_most(_LAST_S)
        return reply

    def _enforce(self, clock: _CellClock) -> None:
        """Give a cell whose time is over more of it, interrupt it, or kill its kernel."""
        if clock.interrupted_because:
            self._manager.shutdown_kernel(now=True)
            raise KernelLost(
                f"it {clock.interrupted_because}, and did not stop when it was interrupted"
            )
        if clock.extend(self._cpu_seconds()):
            return
        clock.interrupt()
        _log.info("interrupting a cell: it %s", clock.interrupted_because)
        self._manager.interrupt_kernel()

    def _cpu_seconds(self) -> float:
        """Return the processor time of the kernel and of all that it started."""
        if self._sandbox and self._sandbox.monitor:
            return self._sandbox.monitor.cpu_seconds
        with contextlib.suppress(psutil.Error):
            pid = getattr(self._manager.provisioner, "pid", None)
            return float(sum(psutil.Process(pid).cpu_times()[:4])) if pid else 0.0
        return 0.0

    def _check_alive(self) -> None:
        monitor = self._sandbox.monitor if self._sandbox else None
        if monitor and monitor.killed_because:
            raise KernelLost(f"it took {monitor.killed_because} and was stopped")
        if not self._manager.is_alive():
            raise KernelLost("its kernel died")


class _CellClock:
    """The time that one cell has left; monotonic seconds.

    ``cpu_at_start`` is the kernel's processor time, in seconds, when the cell began.
    """

    def __init__(self, limits: Limits, notebook_deadline: float, cpu_at_start: float) -> None:
        self._limits, self._notebook_deadline = limits, notebook_deadline
        self._began, self._cpu_at_start = time.monotonic(), cpu_at_start
        self._allowed = min(limits.cell_seconds, max(0.0, notebook_deadline - self._began))
        self._ends = self._began + self._allowed
        self.interrupted_because = ""
        """Why the cell was interrupted, as what "it" did; empty where it was not."""

    def is_over(self) -> bool:
        """Whether the time that was given last has passed."""
        return time.monotonic() > self._ends

    def wait_at_most(self, seconds: float) -> None:
        """End no later than in so many seconds."""
        self._ends = min(self._ends, time.monotonic() + seconds)

    def extend(self, cpu_now: float) -> bool:
        """Give a little more time to a cell that had to wait for a processor; False where it had it."""
        now = time.monotonic()
        waited_long = now - self._began >= _CLOCK_FACTOR * self._allowed
        if waited_long or cpu_now - self._cpu_at_start >= _BUSY_SHARE * self._allowed:
            return False
        self._ends = now + 0.25
        return True

    def interrupt(self) -> None:
        """Note why the cell is interrupted now, and give it the time to end."""
        now = time.monotonic()
        self.interrupted_because = f"took longer than {self._limits.cell_seconds:g} s"
        if now > self._notebook_deadline:
            notebook_seconds = self._limits.notebook_seconds
            self.interrupted_because = f"took longer than the {notebook_seconds:g} s of a notebook"
        self._ends = now + _INTERRUPT_S


class _Outputs:
    """The outputs of one cell, within the bounds of a cell and of what the notebook has left."""

    def __init__(self, notebook_left: int) -> None:
        self.notebook_left = notebook_left
        """Characters that the cells after this one may still write."""
        self.dropped = 0
        self._kept = 0
        self._outputs: list[Any] = []

    def add(self, message: Any) -> None:
        """Keep a message of the kernel, if it shows something and there is room for it."""
        output, size = _output(message)
        if output is None:
            return
        if self._kept + size > MAX_CELL_OUTPUT or size > self.notebook_left:
            self.dropped += size
            return
        self._kept += size
        self.notebook_left -= size
        self._outputs.append(output)

    def merged(self) -> list[Any]:
        """Return the outputs; what was printed in pieces is put together, as a notebook shows it."""
        merged: list[Any] = []
        for output in self._outputs:
            last = merged[-1] if merged else None
            if last is not None and output.output_type == "stream" and last.get("name") == output.name:
                last.text += output.text
            else:
                merged.append(output)
        return merged


def calling(function: str, *arguments: str | list[str]) -> str:
    """Return code that calls a function `MODULE.NAME` of `labkit.grading` and sets no name.

    The function gets the kernel's names, then the arguments.
    """
    module, _, name = function.partition(".")
    words = ", ".join(["globals()", *map(repr, arguments)])
    return f"__import__('labkit.grading.{module}', fromlist=[{name!r}]).{name}({words})"


def error_output(name: str, message: str) -> NotebookNode:
    """Make the output of a cell that ended in an error."""
    traceback = [f"{name}: {message}"]
    output: NotebookNode = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {"output_type": "error", "ename": name, "evalue": message, "traceback": traceback}
    )
    return output


def _next(channel: Any, message_id: str) -> Any:
    """Take the next message that answers a request; None for any other, and where none came."""
    try:
        message = channel.get_msg(timeout=0)
        answers = message["parent_header"].get("msg_id") == message_id
        return message if answers and isinstance(message["content"], dict) else None
    except Empty:
        return None
    except Exception:  # a learner's code can send what only looks like a message of a kernel
        return None


def _output(message: Any) -> tuple[Any, int]:
    """Turn a message into an output and its size; None for a message that shows nothing."""
    if message["msg_type"] not in ("stream", "display_data", "execute_result", "error"):
        return None, 0
    try:
        output = nbformat.v4.output_from_msg(message)  # type: ignore[no-untyped-call]
        if output.output_type == "stream":
            output.name = "stderr" if output.name == "stderr" else "stdout"
            return output, len(output.text)
        if output.output_type == "error":
            output.traceback = [str(line)[:_MAX_LINE] for line in output.traceback[:200]]
            output.evalue = str(output.evalue)[:_MAX_LINE]
            output.ename = str(output.ename)[:_MAX_NAME]
            return output, len(output.evalue) + sum(map(len, output.traceback))
        kept = {k: v for k, v in output.data.items() if k in _SAFE_TYPES and isinstance(v, str)}
        output.data, output.metadata = kept, {}
        return output, sum(map(len, kept.values()))
    except Exception:  # a learner's code can send what no kernel sends
        return None, 0
