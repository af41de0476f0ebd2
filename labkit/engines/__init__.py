"""Where the nodes of a swarm run. Every engine ends in the same thing, a Docker daemon that answers.

docker   the daemon that this machine has
hosts    machines of one's own, which a file names: their daemons are the nodes' own
vm       a private daemon in a virtual machine that labkit builds: no Docker, no root
auto     the first of them that can be used here; never `hosts`

Another engine is one more row in `ENGINES` (CONTRIBUTING.md tells how to add one). A lab whose answers
come from evidence says that its engine is `replay`; that one starts nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from labkit.errors import EngineError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from labkit.engines.base import Checkpoints, Connection, Engine, SwarmSpec
    from labkit.engines.hosts.judgement import Row
    from labkit.progress import Progress

ENGINES = {
    "docker": "labkit.engines.docker:DockerEngine",
    "hosts": "labkit.engines.hosts.engine:HostsEngine",
    "vm": "labkit.engines.vm.engine:VmEngine",
}
"""Name -> the class of the engine, loaded when it is asked for: `labkit --help` needs none of them.

`auto` tries them in this order, and takes the last where none can be used.
"""

PRIVATE = "vm"
"""The engine that gives each user a machine of their own, also where many use one computer."""

COMMANDS = {
    "vm": ("labkit.engines.vm.commands", "The embedded machine: build it, hand it on, look at it.")
}
"""Name -> the module of an engine's own commands, `labkit NAME …`, and what `labkit --help` says."""

DEFAULT_DOCKER = "26.1"
"""The Docker version of the nodes where none is named: Debian stable's."""

OTHER_ENGINE = "use the embedded machine: labkit up --engine vm"
"""The next step for who has a daemon that a swarm's nodes cannot run on."""


def _load(where: str) -> Any:
    """Return what a name `MODULE:NAME` stands for; `pkgutil`, which can do it too, slows `--help`."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


@cache
def _engine(where: str) -> Engine:
    engine: Engine = _load(where)()
    return engine


def every() -> list[Engine]:
    """Return the engines, in the order in which `auto` tries them."""
    return [_engine(where) for where in ENGINES.values()]


def choose(kind: str) -> tuple[Engine, str]:
    """Return the engine that a name stands for, and why; raises UsageError and UnknownNameError."""
    if kind == "replay":
        raise UsageError(
            "a replay has no engine that could be started: its answers come from evidence",
            hint="labkit run --replay labs/evidence, or in a notebook: labkit.attach(replay=True)",
        )
    if kind != "auto":
        if kind not in ENGINES:
            raise UnknownNameError("engine", kind, ["auto", *ENGINES])
        return _engine(ENGINES[kind]), "asked for"
    reasons: list[str] = []
    for engine in every():
        refusal = engine.refusal()
        if not refusal:
            return engine, reasons[0] if reasons else f"a {engine.kind.capitalize()} engine answers"
        reasons.append(refusal)
    return engine, reasons[0]


def on_hosts(file: Path) -> Engine:
    """Return the engine for the machines that a file names."""
    engine: Engine = _load(ENGINES["hosts"])(file)
    return engine


def hosts_of(lab: str) -> Path | None:
    """Return the file that named a lab's machines; None where it is not on machines of one's own."""
    from pathlib import Path

    from labkit.engines.hosts import record

    kept = record.read(lab)
    return Path(kept.file) if kept else None


def preflight(file: Path, docker: str, progress: Progress) -> list[Row]:
    """Look whether machines can be a swarm, and leave them as they were found.

    Raises HostsError for the file, EngineError where a machine does not answer.
    """
    from labkit.engines import locks
    from labkit.engines.hosts import engine, record

    with locks.hold(record.LOOK):
        return engine.preflight(file, docker, progress)


@contextmanager
def looked_at(file: Path, docker: str, progress: Progress) -> Iterator[Connection]:
    """Reach the machines of a swarm that runs, and leave them as they were found.

    Raises HostsError for the file, UsageError where they are in no swarm, EngineError where a machine
    does not answer or is not what the file says.
    """
    from labkit.engines import locks
    from labkit.engines.hosts import engine, record

    with locks.hold(record.LOOK), engine.looked_at(file, docker, progress) as connection:
        yield connection


def _by_lookup() -> list[Engine]:
    """The engines as a lab is looked for: the one that knows its labs from files comes first."""
    return every()[::-1]


def find(lab: str) -> Connection | None:
    """Find the daemon that a lab's nodes run on, whichever engine has it; none while it is made."""
    from labkit.engines import locks

    begun = locks.begun(lab)
    if begun and begun.step == "making":
        return None
    return next(filter(None, (engine.find(lab) for engine in _by_lookup())), None)


def labs() -> list[str]:
    """List the labs of this machine, also those of which only a part is there."""
    from labkit.engines import locks

    return sorted({lab for engine in every() for lab in engine.labs()} | {*locks.left()})


def remove(lab: str) -> bool:
    """Leave nothing of a lab on any engine; returns whether there was anything."""
    return any([engine.remove(lab) for engine in _by_lookup()])


def sweep() -> None:
    """Remove what commands that were killed have left behind; what others are at stays."""
    from labkit import files

    for engine in every():
        engine.sweep()
    files.remove_scratch()


def spec_of(lab: str) -> SwarmSpec | None:
    """Return what a lab was asked to be, also one that has crashed; None where no engine knows."""
    return next(filter(None, (engine.spec_of(lab) for engine in _by_lookup())), None)


def kind_of(lab: str) -> str | None:
    """Return the name of the engine that knows what a lab was asked to be, None where none does."""
    return next((engine.kind for engine in _by_lookup() if engine.spec_of(lab)), None)


def crash_log(lab: str) -> str | None:
    """Return the last lines of a lab's machine that exited unexpectedly; None where none did."""
    return next(filter(None, (engine.crash_log(lab) for engine in _by_lookup())), None)


def share(directory: Path, spec: SwarmSpec, make: Callable[[str], None], progress: Progress) -> None:
    """Put a saved state into a cache that all users of this machine may read.

    `make` starts such a swarm on the named engine, and ends it, where no state of it is kept. Raises
    UsageError where the cache cannot be written to.
    """
    from labkit.engines.vm import sharing, snapshots

    try:
        snapshots.fitting(spec)
    except snapshots.SnapshotRefused as refused:
        progress.say(f"a saved state is made: {refused.args[0]}")
        make(PRIVATE)
    sharing.share(directory, spec, progress)


def checkpoints(lab: str) -> Checkpoints:
    """Return the checkpoints of a lab; raises EngineError where its engine cannot keep any."""
    running = next((engine for engine in _by_lookup() if engine.find(lab)), None)
    for engine in [running] if running else _by_lookup():
        if (kept := engine.checkpoints(lab)) is not None:
            return kept
    raise EngineError(
        f"lab {lab!r} does not run on the embedded machine, and nothing else can be kept",
        hint="labkit up --engine vm",
    )
