"""Execute labs without a browser, and collect the outcomes of their checks.

A check's outcome follows from how its cell ended: without an error (pass), or in an error
(`labkit.outcomes`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.authoring.markup import claims_of
from labkit.authoring.release import read_source, title
from labkit.evidence import files
from labkit.files import scratch
from labkit.nbgrader_cells import check_of
from labkit.outcomes import Outcome, explained

if TYPE_CHECKING:
    from nbformat import NotebookNode

OnProgress = Callable[[str, int, int], None]
"""Is called with a lab, the number of its cells that are done, and the number of its cells."""

_log = logging.getLogger(__name__)

_WAITING = 10  # tasks that may wait for one another while a cell runs; nbclient has three


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check, and the sentence that explains it."""

    id: str
    status: Outcome
    message: str


@dataclass(frozen=True)
class LabResult:
    """The result of one lab."""

    id: str
    title: str
    seconds: float
    waited: float
    """Of the seconds, those in which the kernel did not compute: it waited for the swarm."""
    checks: tuple[CheckResult, ...]
    error: str | None
    """What stopped the lab before its end; None where nothing did."""
    notebook_path: Path
    claims: dict[str, bool] = field(default_factory=dict)
    """For each claim of the ledger that the lab's cells prove, whether they all passed."""


def run_labs(
    sources: Sequence[Path],
    *,
    workdir: Path,
    env: Mapping[str, str],
    timeout: float,
    replay: Path | None = None,
    on_progress: OnProgress | None = None,
) -> list[LabResult]:
    """Execute labs, sources or built notebooks, one after the other, as Run All would.

    The kernel runs in ``workdir``, with ``env`` added to this process's environment, and every cell
    has ``timeout`` seconds. Each executed notebook, whole or not, is kept as ``workdir``/ID.ipynb, its
    evidence beside it. With ``replay``, a directory of evidence, that answers instead of a swarm.

    Raises MarkupError for a source that cannot be built and UsageError for a lab without evidence,
    both before anything runs.
    """
    notebooks = {path.stem: _read(path) for path in sources}  # refuse bad markup before a long run
    kept = {lab: files.of_lab(replay.resolve(), lab) for lab in notebooks} if replay else {}
    workdir.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if k not in ("LABKIT_REPLAY", "LABKIT_EVIDENCE")}
    results = []
    for lab, notebook in notebooks.items():
        written = files.beside(workdir.resolve() / f"{lab}.ipynb")
        written.unlink(missing_ok=True)
        variable = "LABKIT_REPLAY" if replay else "LABKIT_EVIDENCE"
        own = {variable: str(kept.get(lab, written))}
        run = _Run(lab, notebook, workdir, {**inherited, **own, **env}, timeout, on_progress)
        run.execute()
        results.append(run.result())
    return results


def to_json(results: Sequence[LabResult]) -> dict[str, Any]:
    """Return the results in the form of `labkit run --json`; what did not pass counts as failed."""
    labs: list[dict[str, Any]] = []
    for result in results:
        lab: dict[str, Any] = {
            "id": result.id,
            "title": result.title,
            "seconds": round(result.seconds, 1),
            "waited": round(result.waited, 1),
            "checks": [{"id": c.id, "status": c.status, "message": c.message} for c in result.checks],
            "claims": result.claims,
        }
        if result.error is not None:
            lab["error"] = result.error
        labs.append(lab)
    statuses = [check.status for result in results for check in result.checks]
    passed = statuses.count(Outcome.PASS)
    return {"labs": labs, "passed": passed, "failed": len(statuses) - passed}


def _read(path: Path) -> NotebookNode:
    import nbformat

    if path.suffix == ".md":
        return read_source(path)
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


class _Run:
    """One notebook, executed in a kernel of its own."""

    def __init__(
        self,
        lab: str,
        notebook: NotebookNode,
        workdir: Path,
        env: Mapping[str, str],
        timeout: float,
        on_progress: OnProgress | None,
    ) -> None:
        self._lab, self._notebook, self._workdir = lab, notebook, workdir
        self._env, self._timeout, self._on_progress = env, timeout, on_progress
        self._path = workdir / f"{lab}.ipynb"
        self._done = 0  # cells
        self._errors: dict[int, tuple[str, str]] = {}  # by the cell's place: name and message
        self._stopped_by: str | None = None
        self._seconds = self._cpu_seconds = 0.0

    def execute(self) -> None:
        """Run the cells in order and write the notebook, as far as it came."""
        import nbformat
        from nbclient.exceptions import CellExecutionError, DeadKernelError

        running = ExitStack()
        # Not where Jupyter keeps such files: there, that of a run that was killed stays for good.
        kernel, client = self._kernel_and_client(running.enter_context(scratch()) / "kernel.json")
        began = time.monotonic()
        with _Signals() as signals:
            try:
                with signals.wait():
                    kernel_runs = client.setup_kernel(
                        cwd=str(self._workdir), env=self._env, cleanup_kc=True
                    )
                    running.enter_context(kernel_runs)
                self._execute_cells(client)
            except CellExecutionError:
                self._stopped_by = self._describe_stop(*self._errors[self._done])
            except DeadKernelError:
                self._stopped_by = self._describe_stop("DeadKernelError", "the kernel died")
            except KeyboardInterrupt:
                with signals.wait():
                    _end_what_waits()
                raise
            finally:
                with signals.wait():
                    if kernel.has_kernel:
                        self._cpu_seconds = _cpu_seconds(kernel)
                    running.close()
                    _leave_out_controls(self._notebook)
                    nbformat.write(self._notebook, self._path)  # type: ignore[no-untyped-call]
        self._seconds = time.monotonic() - began
        _log.info("%s: %d cells in %.1f s", self._lab, self._done, self._seconds)

    def result(self) -> LabResult:
        """Return what the executed cells gave."""
        cells = self._notebook.cells
        checks = [
            CheckResult(question, *self._outcome(index))
            for index, cell in enumerate(cells)
            if (question := check_of(cell)) is not None
        ]
        claims: dict[str, bool] = {}
        for index, cell in enumerate(cells):
            passed = index < self._done and index not in self._errors
            claims |= {claim: claims.get(claim, True) and passed for claim in claims_of(cell)}
        return LabResult(
            id=self._lab,
            title=title(self._notebook),
            seconds=self._seconds,
            waited=max(0.0, self._seconds - self._cpu_seconds),
            checks=tuple(checks),
            error=self._stopped_by,
            notebook_path=self._path,
            claims=claims,
        )

    def _kernel_and_client(self, connection: Path) -> tuple[Any, Any]:
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient

        def note_error(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
            content = execute_reply["content"]
            self._errors[cell_index] = (content["ename"], content["evalue"])

        def name_cell(cell: NotebookNode, cell_index: int) -> None:
            # As JupyterLab does: evidence is filed by it, and a replay of another text finds it there.
            assert client.kc
            client.kc.session.metadata = {"cellId": cell.id}

        # Without directories to look in, the only kernel is this interpreter's own, whatever kernel
        # specs the machine has.
        kernel = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(connection),
        )
        client = NotebookClient(
            self._notebook,
            km=kernel,
            timeout=math.ceil(self._timeout),
            interrupt_on_timeout=True,
            error_on_timeout={
                "ename": "TimeoutError",
                "evalue": f"it took longer than {self._timeout:g} s and was interrupted",
                "traceback": [],
            },
            shutdown_kernel="immediate",
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
            on_cell_execute=name_cell,
            on_cell_error=note_error,
        )
        return kernel, client

    def _execute_cells(self, client: Any) -> None:
        # Cell by cell and not by `client.execute`, whose signal handlers swallow Ctrl-C.
        for index, cell in enumerate(self._notebook.cells):
            self._report_progress(index)
            client.execute_cell(cell, index)
        self._report_progress(len(self._notebook.cells))

    def _report_progress(self, done: int) -> None:
        self._done = done
        if self._on_progress:
            self._on_progress(self._lab, done, len(self._notebook.cells))

    def _outcome(self, index: int) -> tuple[Outcome, str]:
        """Return the outcome of the check in a cell, and its sentence."""
        if index in self._errors:
            return explained(*self._errors[index])
        if index < self._done:
            return Outcome.PASS, _printed(self._notebook.cells[index])
        return Outcome.COULD_NOT_RUN, f"The lab stopped before this check: {self._stopped_by}"

    def _describe_stop(self, error: str, message: str) -> str:
        """Say in one line which cell stopped the lab, and how."""
        source = self._notebook.cells[self._done].source
        code = next((line for line in source.splitlines() if line.strip()), "")
        # A table in the message is what an assertion compared, so all of it counts.
        message = " ".join(message.split())
        return f"cell {self._done + 1} (`{code.strip()}`) ended in {error}: {message}"


class _Signals:
    """Ctrl-C, a polite kill and a closed terminal, while a notebook is executed.

    The first one takes effect at once, but for what is done in `wait`: a kernel half started or half
    stopped has sockets that nothing closes, on which Python then waits for ever when it ends. Those
    that follow while the first is obeyed are the same wish, and cut nothing short.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._held = False
        self._came: list[int] = []

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():  # no signal arrives in another
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Let a signal take effect only after the block."""
        obeyed, self._held = self._held, True
        try:
            yield
        finally:
            self._held = obeyed
            if self._came and not obeyed:
                first, *_ = self._came
                self._came.clear()
                self._arrived(first, None)

    def _arrived(self, number: int, frame: Any) -> None:
        if self._held:
            self._came.append(number)
            return
        self._held = True
        handler = self._before[number]
        if callable(handler):
            handler(number, frame)
        else:  # the system's own way, which ends the process or does nothing
            signal.signal(number, handler)
            signal.raise_signal(number)
        self._held = False  # whoever was asked goes on


def _end_what_waits() -> None:
    """End what the event loop still waits for, when Ctrl-C has cut a cell short.

    asyncio hands the KeyboardInterrupt to each task that waited for the one that it came in, and raises
    it once more for each: here, and not while the kernel is taken down.
    """
    from jupyter_core.utils import run_sync

    async def end() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    for _ in range(_WAITING):
        # An `end` that was itself cut short is one of the others for the next one.
        with suppress(KeyboardInterrupt, asyncio.CancelledError):
            run_sync(end)()
            return


def _printed(cell: NotebookNode) -> str:
    text = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
    return " ".join(text.split())


def _leave_out_controls(notebook: NotebookNode) -> None:
    """Leave what stands in place of a control: the control ends with the kernel, and would hide it."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def _cpu_seconds(kernel: Any) -> float:
    """Return the processor time of a kernel and of the processes that it has ended."""
    import psutil

    try:
        return float(sum(psutil.Process(kernel.provisioner.pid).cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0
