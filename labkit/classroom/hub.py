"""Writes what a class on one server needs: a JupyterHub that is ready to start, and a course folder.

Each learner has an account of the machine, whose login is the learner's id. What keeps learners apart
is the machine's own: files by their owner, and a lab's machine by its network and its proxy.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labkit import engines, files, paths, swarm
from labkit.engines import DEFAULT_DOCKER
from labkit.engines.base import SwarmSpec
from labkit.errors import UnknownNameError, UsageError
from labkit.evidence import signing
from labkit.grading import gradebook
from labkit.grading import roster as rosters
from labkit.progress import Progress

SPAWNERS = ("systemd", "local")
FORMS = ("jupyterhub_config.py", "labkit-hub.service", "README.md")
KEY = "signing-key"
"""The key in the course folder that what was collected is signed with."""

_LOGIN = re.compile(r"[a-z][a-z0-9_-]{0,31}")  # what Debian's useradd takes, and a learner's id may be
_PLAIN = re.compile(r"[A-Za-z0-9._/-]+")  # a path that no shell and no unit reads otherwise
_COURSE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_MAKING = "class"  # the lab whose only purpose is its saved state
_FIRST_PERSON = 1000  # user ids below are of the system's own accounts
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike on paper


@dataclass(frozen=True)
class Class:
    """What a class is to be."""

    directory: Path
    learners: Sequence[str]
    instructors: Sequence[str]
    course: str = "labkit"
    docker: str = DEFAULT_DOCKER
    spawner: str = "systemd"
    """`systemd`, with limits for each learner, or `local`."""
    port: int = 8000
    memory: str = "3G"
    cpus: float = 2.0
    python: Path = field(default_factory=lambda: Path(sys.executable))

    @property
    def state(self) -> Path:
        """Return the shared cache with the saved state."""
        return self.directory / "state"

    @property
    def exchange(self) -> Path:
        """Return the exchange of the course."""
        return self.directory / "exchange" / self.course


def logins(named: Sequence[str], roster: Path | None) -> list[str]:
    """Return the learners' logins, those named and those of a CSV file's column `student`.

    Raises UsageError where there are none.
    """
    found = [*named, *(rosters.learners(roster) if roster else ())]
    if not found:
        raise UsageError("a class has learners", hint="labkit class init DIR ada bob, or --roster FILE")
    return found


def write(wanted: Class, progress: Progress) -> list[str]:
    """Write the folder of a class; returns the logins for which `logins.txt` has a password.

    Who has an account already keeps it. A saved state of a swarm is made where none is kept here.
    Raises UsageError for what cannot be a class, and where the folder holds anything but a saved state
    or cannot be written; EngineError and SwarmError where no state can be made.
    """
    _refuse(wanted)
    _share(wanted, progress)
    people = [*wanted.instructors, *wanted.learners]
    new = [login for login in people if not _account(login)]
    try:
        wanted.directory.mkdir(parents=True, exist_ok=True)
        (wanted.directory / "hub").mkdir(mode=0o700)
        _exchange(wanted)
        _course(wanted)
        for name in FORMS:
            files.write_text(wanted.directory / name, _filled(f"hub/{name}.j2", wanted), mode=0o644)
        lines = [f"{login}:{_password()}::::/home/{login}:/bin/bash\n" for login in new]
        files.write_text(wanted.directory / "logins.txt", "".join(lines), mode=0o600)
    except OSError as problem:
        raise UsageError(
            f"{wanted.directory} cannot be written: {problem}", hint="as root, or with another DIR"
        ) from problem
    return new


def _refuse(wanted: Class) -> None:
    """Raise UsageError for what cannot be a class."""
    _refuse_people([*wanted.instructors, *wanted.learners])
    if not wanted.instructors:
        raise UsageError("a class has an instructor", hint="labkit class init … --instructor LOGIN")
    if wanted.spawner not in SPAWNERS:
        raise UnknownNameError("spawner", wanted.spawner, SPAWNERS)
    if not _COURSE.fullmatch(wanted.course):
        raise UsageError(
            f"{wanted.course!r} cannot be a course's name: small letters, digits, _ and -, 32 at most",
            hint="--course networks-2027",
        )
    if shutil.which("configurable-http-proxy", path=_path(wanted)) is None:
        raise UsageError(
            "JupyterHub's proxy is missing: no configurable-http-proxy is found",
            hint="apt-get install --no-install-recommends node-configurable-http-proxy",
        )
    _refuse_places(wanted)


def _refuse_people(people: Sequence[str]) -> None:
    for login in people:
        if not _LOGIN.fullmatch(login):
            raise UsageError(
                f"{login!r} cannot be a login: a small letter, then letters, digits, _ and -",
                hint="a learner's login here is their id in all marks",
            )
        if people.count(login) > 1:
            raise UsageError(f"{login!r} is there twice", hint="name each person once")
        if (user := _account(login)) and user.pw_uid < _FIRST_PERSON:
            raise UsageError(f"{login!r} is an account of the system's own", hint="take another login")


def _refuse_places(wanted: Class) -> None:
    for path in (wanted.directory, wanted.python):
        if not _PLAIN.fullmatch(str(path)):
            raise UsageError(
                f"{path} stands in commands and units: letters, digits and . _ / - only",
                hint="another directory, /srv/class say",
            )
    for path in (wanted.python.resolve(), paths.PACKAGE):
        if closed := _closed(path):
            raise UsageError(
                f"learners cannot run {wanted.python}: {closed} is closed to them",
                hint="install labkit where everybody may read it: python3 -m venv /opt/labkit",
            )
    there = [path.name for path in wanted.directory.glob("*") if path != wanted.state]
    if there:
        raise UsageError(
            f"{wanted.directory} holds {there[0]} already, and a class is never written over",
            hint="name another directory, or remove this one",
        )


def _share(wanted: Class, progress: Progress) -> None:
    """Put a saved state where all learners can use it; one that fits is made where there is none."""
    spec = SwarmSpec.of(wanted.docker, swarm.DEFAULT_NODES, 1)

    def make(engine: str) -> None:
        swarm.up(_MAKING, docker=wanted.docker, engine=engine, progress=progress).lab.close()
        swarm.down(_MAKING)

    engines.share(wanted.state, spec, make, progress)


def _exchange(wanted: Class) -> None:
    """Make the exchange: everybody may write to its root, as nbgrader asks, and remove their own."""
    root = wanted.exchange.parent
    root.mkdir()
    root.chmod(0o1777)
    for name, mode in (("", 0o755), ("outbound", 0o755), ("inbound", 0o2733)):
        folder = wanted.exchange / name
        folder.mkdir()
        folder.chmod(mode)


def _course(wanted: Class) -> None:
    """Make the instructor's folder: nbgrader's configuration, and the key of this host."""
    course = wanted.directory / "course"
    course.mkdir(mode=0o700)
    exchange = (
        f"c.CourseDirectory.course_id = {wanted.course!r}\n"
        f"c.Exchange.root = {str(wanted.exchange.parent)!r}\n"
    )
    text = gradebook.config_text(gradebook.default_url(course)) + exchange
    files.write_text(course / gradebook.CONFIG, text, mode=0o600)
    signing.make_key(course / KEY)


def _filled(form: str, wanted: Class) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("labkit"),
        autoescape=False,  # these are no pages
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    more = {
        "hub": wanted.directory / "hub",
        "state": wanted.state,
        "exchange": wanted.exchange,
        "engine": engines.PRIVATE,
        "python": str(wanted.python),
        "bin": wanted.python.parent,
    }
    return environment.get_template(form).render(vars(wanted) | more)


def _closed(path: Path) -> Path | None:
    """Return the folder above a path, or the path, that others may not enter or run; None without."""
    ways = [*reversed(path.parents), path]
    return next((way for way in ways if not way.stat().st_mode & stat.S_IXOTH), None)


def _path(wanted: Class) -> str:
    return f"{wanted.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def _account(login: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(login)
    except KeyError:
        return None


def _password() -> str:
    """Return a password to be read from paper: three groups of four, about 59 bits."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))
