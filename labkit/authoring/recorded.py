"""The labs as they ran on the recordings that the kit ships: their notebooks, with tables and pictures.

For what is made of a lab's output where no swarm runs, the documentation's pages and the slides. An
executed notebook is kept, and a lab is run again only when its source, its recording, the kit or what
draws has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths
from labkit.authoring import runner
from labkit.errors import LabkitError
from labkit.evidence import files, reader
from labkit.files import scratch, write_text
from labkit.progress import Progress

if TYPE_CHECKING:
    from nbformat import NotebookNode

_CELL_SECONDS = 300  # of a replay, which waits for nothing


class RecordingError(LabkitError):
    """A lab stops on its own recording, or a check of it does not pass there."""


def executed(
    sources: Sequence[Path], kept: Path, *, env: Mapping[str, str], progress: Progress
) -> list[NotebookNode]:
    """Return each lab's source as executed on its recording; runs what changed since the last time.

    The notebooks are kept in the directory ``kept``. ``env`` is added to the kernel's environment.
    Raises RecordingError, MarkupError, and UsageError for a lab without a recording.
    """
    import nbformat

    kept.mkdir(parents=True, exist_ok=True)
    targets = {source: kept / f"{source.stem}-{_key(source, env)}.ipynb" for source in sources}
    missing = [source for source in sources if not targets[source].is_file()]
    if missing:
        with progress.stage(f"{len(missing)} labs on their recordings") as step, scratch() as work:
            for source in missing:  # one by one, so that what has run is kept where a later one stops
                (result,) = runner.run_labs(
                    [source],
                    workdir=work,
                    env=env,
                    timeout=_CELL_SECONDS,
                    replay=paths.EVIDENCE,
                    on_progress=lambda lab, done, cells: step.note(f"{lab}: cell {done} of {cells}"),
                )
                _keep(result, targets[source])
    return [
        nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        for path in targets.values()
    ]


def row_of_swarm(lab: str) -> dict[str, Any]:
    """Return what a lab's recording says of its swarm: started, docker, nodes and more."""
    lines = reader.read(files.of_lab(paths.EVIDENCE, lab)).lines
    return dict(next(line.row for line in lines if line.kind == "lab"))


def _keep(result: runner.LabResult, target: Path) -> None:
    """Put an executed notebook in its place, and remove those of earlier keys."""
    failed = [check.message for check in result.checks if check.status != "pass"]
    if problem := result.error or "; ".join(failed):
        raise RecordingError(
            f"lab {result.id} does not pass on its recording: {problem}",
            hint=f"labkit run {result.id[:2]} --replay labs/evidence shows more",
        )
    for old in target.parent.glob(f"{result.id}-*.ipynb"):
        old.unlink()
    write_text(target, result.notebook_path.read_text(encoding="utf-8"))


def _key(source: Path, env: Mapping[str, str]) -> str:
    """Return a short hash of everything that a lab's output depends on."""
    digest = hashlib.sha256(repr(sorted(env.items())).encode())
    recording = files.of_lab(paths.EVIDENCE, source.stem)
    for path in [source, recording, *sorted(paths.PACKAGE.rglob("*.py"))]:
        digest.update(path.read_bytes())
    for package in ("matplotlib", "pandas"):
        digest.update(version(package).encode())
    return digest.hexdigest()[:16]
