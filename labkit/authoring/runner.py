"""Execute labs headless and read off what their checks said.

A check's outcome is how its cell ended: in no error (pass), in one of the three errors of
`labkit.errors` (fail, unanswered, could not run), or in any other error (could not run).
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.authoring.release import check_id, claims_of, read_source, title
from labkit.evidence import files as evidence

if TYPE_CHECKING:
    from nbformat import NotebookNode

OnProgress = Callable[[str, int, int], None]

STATUSES = ("pass", "fail", "unanswered", "could not run")
STATUS_OF = {"CheckFailed": "fail", "Unanswered": "unanswered", "CouldNotRun": "could not run"}


@dataclass(frozen=True)
class CheckResult:
    """What one check said."""

    id: str
    status: str
    message: str


@dataclass(frozen=True)
class LabResult:
    """What one lab gave; ``error`` tells what stopped it before its end, None where nothing did.

    Of its ``seconds``, ``waited`` passed without the kernel computing: it waited for the swarm.
    ``claims`` tells of each claim of the ledger that the lab's cells prove whether they all passed.
    """

    id: str
    title: str
    seconds: float
    waited: float
    checks: tuple[CheckResult, ...]
    error: str | None
    notebook_path: Path
    claims: dict[str, bool] = field(default_factory=dict)


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
    ``on_progress`` is told the lab, the number of cells done and the number of cells.
    """
    notebooks = {path.stem: _read(path) for path in sources}  # refuse bad markup before a long run
    kept = {lab: evidence.of_lab(replay.resolve(), lab) for lab in notebooks} if replay else {}
    workdir.mkdir(parents=True, exist_ok=True)
    results = []
    for lab, notebook in notebooks.items():
        written = evidence.beside(workdir.resolve() / f"{lab}.ipynb")
        written.unlink(missing_ok=True)
        named = "LABKIT_REPLAY" if replay else "LABKIT_EVIDENCE"
        own = {named: str(kept.get(lab, written))}
        around = {k: v for k, v in os.environ.items() if k not in ("LABKIT_REPLAY", "LABKIT_EVIDENCE")}
        results.append(_run(lab, notebook, workdir, {**around, **own, **env}, timeout, on_progress))
    return results


def to_json(results: Sequence[LabResult]) -> dict[str, Any]:
    """Give the results the form of `labkit run --json`; what did not pass counts as failed."""
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
    passed = statuses.count("pass")
    return {"labs": labs, "passed": passed, "failed": len(statuses) - passed}


def _read(path: Path) -> NotebookNode:
    import nbformat

    if path.suffix == ".md":
        return read_source(path)
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def _run(
    lab: str,
    notebook: NotebookNode,
    workdir: Path,
    env: Mapping[str, str],
    timeout: float,
    on_progress: OnProgress | None,
) -> LabResult:
    """Execute one notebook in a kernel of its own."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    errors: dict[int, tuple[str, str]] = {}

    def note_error(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        content = execute_reply["content"]
        errors[cell_index] = (content["ename"], content["evalue"])

    # Without directories to look in, the only kernel is this interpreter's own, whatever kernel
    # specs the machine has.
    kernel = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[])
    )
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=math.ceil(timeout),
        interrupt_on_timeout=True,
        error_on_timeout={
            "ename": "TimeoutError",
            "evalue": f"it took longer than {timeout:g} s and was interrupted",
            "traceback": [],
        },
        shutdown_kernel="immediate",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        on_cell_error=note_error,
    )
    cells = notebook.cells
    error = None
    done = 0
    cpu = 0.0
    started = time.monotonic()
    path = workdir / f"{lab}.ipynb"
    running = ExitStack()
    try:
        with _signals_wait():
            running.enter_context(client.setup_kernel(cwd=str(workdir), env=env, cleanup_kc=True))
        # Cell by cell and not by `client.execute`, whose signal handlers swallow Ctrl-C.
        for done, cell in enumerate(cells):
            if on_progress:
                on_progress(lab, done, len(cells))
            client.execute_cell(cell, done)
        done = len(cells)
        client.set_widgets_metadata()
        if on_progress:
            on_progress(lab, done, len(cells))
    except CellExecutionError:
        error = _describe(cells[done], done, *errors[done])
    except DeadKernelError:
        error = _describe(cells[done], done, "DeadKernelError", "the kernel died")
    finally:
        with _signals_wait():
            if kernel.has_kernel:
                cpu = _cpu_seconds(kernel)
            running.close()
            nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    seconds = time.monotonic() - started

    checks = []
    for index, cell in enumerate(cells):
        name = check_id(cell)
        if name is None:
            continue
        if index in errors:
            kind, message = errors[index]
            status = STATUS_OF.get(kind, "could not run")
            if kind not in STATUS_OF:
                message = f"The check ended in {kind}: {message}"
        elif index < done:
            status, message = "pass", _printed(cell)
        else:
            status, message = "could not run", f"The lab stopped before this check: {error}"
        checks.append(CheckResult(name, status, message))
    claims: dict[str, bool] = {}
    for index, cell in enumerate(cells):
        proved = index < done and index not in errors
        claims |= {claim: claims.get(claim, True) and proved for claim in claims_of(cell)}
    waited = max(0.0, seconds - cpu)
    return LabResult(lab, title(notebook), seconds, waited, tuple(checks), error, path, claims)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let Ctrl-C and a polite kill take effect only after the block, if they come in it.

    A kernel half started or half stopped has sockets that nothing closes, on which Python then waits
    for ever at its own end.
    """
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def _describe(cell: NotebookNode, index: int, kind: str, message: str) -> str:
    """Say in one line which cell stopped the lab, and how."""
    code = next((line for line in cell.source.splitlines() if line.strip()), "")
    # A table in the message is what an assertion compared, so all of it counts.
    return f"cell {index + 1} (`{code.strip()}`) ended in {kind}: {' '.join(message.split())}"


def _printed(cell: NotebookNode) -> str:
    text = "".join(o.text for o in cell.outputs if o.get("name") == "stdout")
    return " ".join(text.split())


def _cpu_seconds(kernel: Any) -> float:
    """Return the processor time of a kernel and of the processes that it has ended."""
    import psutil

    try:
        return float(sum(psutil.Process(kernel.provisioner.pid).cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0
