"""Run the cells of a notebook that a stranger wrote, one by one, and keep what they say within bounds.

Whatever a cell does, it costs its own time and no more: a loop is interrupted, a kernel that cannot be
interrupted is killed, output is kept up to a size, and the rest is counted and let go. A cell's time is
its processor's, so that a busy machine takes no marks; by the clock it has three times as much.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import nbformat
import psutil
import zmq

from labkit.grading.sandbox import CageProvisioner, Limits

if TYPE_CHECKING:
    from nbformat import NotebookNode

KEPT_OF_CELL = 2_000_000  # characters of one cell's outputs
KEPT_OF_NOTEBOOK = 20_000_000
_CLOCK_FACTOR = 3.0  # a cell's time by the clock, to its time of the processor
_START_S = 120.0  # for a kernel to begin, on a machine that grades on all cores
_INTERRUPT_S = 10.0  # for a cell to end when it is interrupted
_LAST_S = 20.0  # for the reply after the last output, or the other way round


@dataclass
class Ran:
    """What became of one cell: its outputs, within bounds, and the error that it ended in, if any."""

    outputs: list[Any] = field(default_factory=list)
    kind: str = ""
    message: str = ""
    dropped: int = 0
    """Characters of output that were not kept."""

    @property
    def ok(self) -> bool:
        """Whether it ended in no error."""
        return not self.kind


class KernelLost(Exception):
    """The kernel is gone; its text says why."""


class NoKernel(Exception):
    """A kernel did not begin, which is nobody's fault who handed in."""


class Kernel:
    """A kernel for one submission; where it is not caged, it has all rights of its user."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], limits: Limits, *, caged: bool
    ) -> None:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import KernelManager

        self._limits = limits
        # Without directories to look in, the only kernel is this interpreter's own.
        specs = KernelSpecManager(kernel_dirs=[])
        self._manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
        self._cage: CageProvisioner | None = None
        if caged:
            self._cage = CageProvisioner(
                kernel_id="submission", kernel_spec=self._manager.kernel_spec, parent=self._manager
            )
            self._cage.limits = limits
            self._manager.provisioner = self._cage
        self._folder, self._environment = folder, dict(environment)
        self._left = KEPT_OF_NOTEBOOK
        self._ends = 0.0

    @property
    def attempts(self) -> list[str]:
        """What the code tried that has no place in an answer; known after the end."""
        return self._cage.watch.told if self._cage and self._cage.watch else []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the kernel, and end it and all that it started."""
        try:
            self._manager.start_kernel(cwd=str(self._folder), env=self._environment)
            self._client = self._manager.client()
            self._client.start_channels()
            try:
                try:
                    self._client.wait_for_ready(timeout=_START_S)
                except RuntimeError as problem:
                    raise NoKernel(f"its kernel did not begin: {problem}") from problem
                self._ends = time.monotonic() + self._limits.notebook_seconds
                yield
            finally:
                self._client.stop_channels()
        finally:
            if self._manager.has_kernel:
                self._manager.shutdown_kernel(now=True)

    def run(self, code: str, *, cell_id: str = "", quiet: bool = False) -> Ran:
        """Run one cell; raises KernelLost where the kernel does not survive it."""
        client, ran = self._client, Ran()
        content = {"code": code, "silent": quiet, "store_history": not quiet, "user_expressions": {}}
        content |= {"allow_stdin": False, "stop_on_error": False}
        request = client.session.msg("execute_request", content, metadata={"cellId": cell_id})
        shell, iopub = client.shell_channel, client.iopub_channel
        shell.send(request)
        asked = request["header"]["msg_id"]

        poller = zmq.Poller()
        poller.register(shell.socket, zmq.POLLIN)
        poller.register(iopub.socket, zmq.POLLIN)
        began, cpu = time.monotonic(), self._cpu()
        allowed = min(self._limits.cell_seconds, max(0.0, self._ends - began))
        ends, late = began + allowed, ""
        kept = 0
        reply: dict[str, Any] | None = None
        idle = False
        while not (reply and idle):
            self._check_alive()
            now = time.monotonic()
            if now > ends:
                if reply or idle:  # one of the two was lost; the cell is over
                    break
                waited = now - began
                if not late and waited < _CLOCK_FACTOR * allowed and self._cpu() - cpu < 0.8 * allowed:
                    ends = now + 0.25
                    continue
                if late:
                    raise KernelLost(self._kill(f"it {late}, and did not stop when it was interrupted"))
                late = f"took longer than {self._limits.cell_seconds:g} s"
                if now > self._ends:
                    late = f"took longer than the {self._limits.notebook_seconds:g} s of a notebook"
                self._manager.interrupt_kernel()
                ends = now + _INTERRUPT_S
            ready = dict(poller.poll(100))
            # A flood of output must not keep the reply waiting.
            if reply is None and shell.socket in ready and (message := self._next(shell, asked)):
                reply = message["content"]
                ends = min(ends, time.monotonic() + _LAST_S)
            message = self._next(iopub, asked) if iopub.socket in ready else None
            if message is None:
                continue
            if message["msg_type"] == "status":
                if message["content"].get("execution_state") == "idle":
                    idle = True
                    ends = min(ends, time.monotonic() + _LAST_S)
                continue
            output, size = _output(message)
            if output is None:
                continue
            if kept + size > KEPT_OF_CELL or size > self._left:
                ran.dropped += size
            else:
                kept += size
                self._left -= size
                ran.outputs.append(output)
        if late:
            ran.kind, ran.message = "TimeoutError", f"It {late} and was interrupted."
        elif reply and reply.get("status") != "ok":
            ran.kind, ran.message = str(reply.get("ename") or "Error"), str(reply.get("evalue") or "")
        _merge_streams(ran.outputs)
        if ran.kind and not any(output.output_type == "error" for output in ran.outputs):
            ran.outputs.append(error(ran.kind, ran.message))
        return ran

    def _next(self, channel: Any, asked: str) -> Any:
        """Take the next message that answers a request; None for any other, and where none came."""
        try:
            message = channel.get_msg(timeout=0)
            answers = message["parent_header"].get("msg_id") == asked
            return message if answers and isinstance(message["content"], dict) else None
        except Empty:
            return None
        except Exception:  # no message of a kernel, but something that looks like it
            return None

    def _cpu(self) -> float:
        """Return the processor time of the kernel and of all that it started, in seconds."""
        if self._cage and self._cage.watch:
            return self._cage.watch.cpu
        with contextlib.suppress(psutil.Error):
            pid = getattr(self._manager.provisioner, "pid", None)
            return float(sum(psutil.Process(pid).cpu_times()[:4])) if pid else 0.0
        return 0.0

    def _check_alive(self) -> None:
        if self._cage and self._cage.watch and self._cage.watch.killed:
            raise KernelLost(f"it took {self._cage.watch.killed} and was stopped")
        if not self._manager.is_alive():
            raise KernelLost("its kernel died")

    def _kill(self, why: str) -> str:
        self._manager.shutdown_kernel(now=True)
        return why


def error(kind: str, message: str) -> NotebookNode:
    """Make the output of a cell that ended in an error."""
    told = [f"{kind}: {message}"]
    output: NotebookNode = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {"output_type": "error", "ename": kind, "evalue": message, "traceback": told}
    )
    return output


def _output(message: Any) -> tuple[Any, int]:
    """Turn a message into an output and its size; None for a message that shows nothing."""
    if message["msg_type"] not in ("stream", "display_data", "execute_result", "error"):
        return None, 0
    try:
        output = nbformat.v4.output_from_msg(message)  # type: ignore[no-untyped-call]
        if output.output_type == "stream":
            return output, len(output.text)
        if output.output_type == "error":
            output.traceback = [str(line)[:20_000] for line in output.traceback][:200]
            output.evalue = str(output.evalue)[:20_000]
            return output, len(output.evalue) + sum(map(len, output.traceback))
        kept = {k: v for k, v in output.data.items() if k in _SHOWN and isinstance(v, str)}
        output.data, output.metadata = kept, {}
        return output, sum(map(len, kept.values()))
    except Exception:  # what a kernel may send, but no kernel does
        return None, 0


# Instructors see it in a browser, where HTML of a stranger's would run.
_SHOWN = ("text/plain", "image/png")


def _merge_streams(outputs: list[Any]) -> None:
    """Put together what was printed in pieces, as a notebook shows it."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            merged.append(output)
    outputs[:] = merged
