"""Hands labs in, collects and gives back where a class works on one machine: nbgrader's exchange.

The exchange of a course is a folder that its instructor and its learners share:

    outbound/ASSIGNMENT/                        the labs that are open, for everybody to read
    inbound/LEARNER+ASSIGNMENT+TIME+RANDOM/     what was handed in; no learner can list this folder
    feedback/HASH.html                          pages; only who handed in can tell the name

A learner's side hands in and fetches through nbgrader. The instructor's side collects by itself: who
handed in is whose the folder is, and not what its name says; links in it lead nowhere, and only the
files of a submission are taken.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import files
from labkit.errors import UnknownNameError, UsageError
from labkit.evidence import files as evidence
from labkit.evidence import signing
from labkit.grading.gradebook import CONFIG
from labkit.grading.lateness import TIMESTAMP, time_of
from labkit.grading.texts import visible

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from nbgrader.coursedir import CourseDirectory

log = logging.getLogger(__name__)

VARIABLE = "LABKIT_EXCHANGE"
"""Names the exchange of a learner's course, in the environment."""

_TIME, _SECRET = TIMESTAMP, "submission_secret.txt"
_FORMAT = "%Y-%m-%d %H:%M:%S.%f UTC"
_SLOWEST = timedelta(minutes=5)  # from the beginning of handing in to its end
_MOST_BYTES = 128 * 1024 * 1024  # of a file that was handed in
_LONGEST_REMARK = 400  # characters


@dataclass(frozen=True)
class Exchange:
    """The exchange of a course: nbgrader's root folder, and the course's name in it."""

    root: Path
    course: str

    @property
    def folder(self) -> Path:
        """Return the folder of the course."""
        return self.root / self.course

    def open_labs(self) -> list[str]:
        """List the labs that can be handed in."""
        outbound = self.folder / "outbound"
        return sorted(path.name for path in outbound.glob("*") if path.is_dir())


def of_learner() -> Exchange | None:
    """Return the exchange that the environment names; None where there is none."""
    named = os.environ.get(VARIABLE)
    return Exchange(Path(named).parent, Path(named).name) if named else None


def of_course(course: Path) -> Exchange:
    """Return the exchange of an instructor's course folder; raises UsageError where it names none."""
    from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader

    hint = "in the folder `course` that `labkit class init` made, or: --course DIR"
    try:
        config = PyFileConfigLoader(CONFIG, path=str(course)).load_config()
        return Exchange(Path(config.Exchange.root), str(config.CourseDirectory.course_id))
    except (ConfigFileNotFound, TypeError) as problem:
        raise UsageError(f"{course / CONFIG} names no exchange", hint=hint) from problem


# --- the learner's side ---------------------------------------------------------------------------


def hand_in(exchange: Exchange, notebook: Path) -> str:
    """Hand a notebook in with its evidence; returns when, as the exchange has it.

    What was handed in before stays there; the last one counts. Raises UsageError where there is no such
    notebook or its lab is not open, and where the exchange takes nothing.
    """
    if not notebook.is_file():
        hint = "labkit class hand-in 03_reach_a_container.ipynb"
        raise UsageError(f"{notebook} is not there", hint=hint)
    lab = notebook.stem
    if lab not in exchange.open_labs():
        raise UnknownNameError("open lab", lab, exchange.open_labs(), hint="ask who teaches to open it")
    from nbgrader.exchange.default import ExchangeSubmit

    with tempfile.TemporaryDirectory() as place:
        staged = Path(place) / lab
        staged.mkdir()
        for path in (notebook, evidence.beside(notebook)):
            if path.is_file():
                shutil.copy2(path, staged)
        submit = ExchangeSubmit(**_parts(exchange, lab), assignment_dir=place)
        with _told():
            submit.start()
        return str(submit.timestamp)


def fetch(exchange: Exchange, folder: Path) -> list[Path]:
    """Put the pages that were given back into FOLDER/feedback, the newest of each lab; returns them."""
    from nbgrader.exchange.default import ExchangeFetchFeedback

    if not (exchange.folder / "feedback").is_dir():
        return []  # nothing was given back to anybody yet
    fetching = ExchangeFetchFeedback(**_parts(exchange, ""))
    with _told():
        fetching.init_src()
    newest = {lab: Path(page) for lab, _, page in sorted(fetching.feedback_files)}
    pages = []
    for lab, page in sorted(newest.items()):
        with _told():
            text = page.read_text(encoding="utf-8")
        target = folder / "feedback" / f"{lab}.html"
        files.write_text(target, text)
        pages.append(target)
    return pages


# --- the instructor's side ------------------------------------------------------------------------


def open_lab(course: Path, notebook: Path) -> None:
    """Open a lab: from now on learners can hand it in. One that is open is made anew."""
    from nbgrader.exchange.default import ExchangeReleaseAssignment

    lab = notebook.stem
    parts = _parts(of_course(course), lab, course)
    files.write_text(course / "release" / lab / notebook.name, notebook.read_text(encoding="utf-8"))
    with _told():
        ExchangeReleaseAssignment(**parts, force=True).start()


@dataclass(frozen=True)
class Collected:
    """A submission in the exchange, or where it was taken to: whose, of which lab, handed in when."""

    learner: str
    lab: str
    handed_in: datetime
    folder: Path
    remark: str = ""
    """What was odd about it."""

    def with_remark(self, told: str) -> Collected:
        """Return the same, with one more remark, of which every character can be seen."""
        remarks = [self.remark, visible(told, _LONGEST_REMARK)]
        return replace(self, remark="; ".join(filter(None, remarks)))


def collect(course: Path, key: Path) -> list[Collected]:
    """Take what learners handed in last, of every open lab, into COURSE/submitted/LEARNER/LAB.

    What was collected before, with its evidence signed, and is not newer is left alone. Evidence is
    signed with the private key of this host, as received from its owner; a remark says why it was not.
    What cannot be read is logged and left. Returns what was taken; raises UsageError where it cannot
    be written, and then what was collected before is there as it was.
    """
    exchange = of_course(course)
    host = signing.private_key(key)
    inbound, labs = exchange.folder / "inbound", exchange.open_labs()
    newest: dict[tuple[str, str], Collected] = {}
    for name in sorted(os.listdir(inbound)) if inbound.is_dir() else []:
        found = _handed_in(inbound / name, labs)
        if found:
            before = newest.get((found.learner, found.lab))
            if not before or before.handed_in < found.handed_in:
                newest[found.learner, found.lab] = found
    taken = []
    for found in newest.values():
        if _is_new(course, found):
            try:
                with _opened(found.folder) as directory:
                    taken.append(_take(course, found, directory, host))
            except OSError as problem:
                log.warning("%s was not taken: %s", visible(str(found.folder)), visible(str(problem)))
    return taken


def give_back(course: Path) -> list[Path]:
    """Put the pages that `labkit feedback` wrote where each learner alone can fetch theirs.

    Returns the pages; one of a submission whose secret is missing or spoilt is logged and left. Raises
    UsageError where there are none.
    """
    exchange = of_course(course)
    pages: list[Path] = []
    for folder in sorted({page.parent for page in (course / "feedback").glob("*/*/*.html")}):
        with _told():
            pages += _given(exchange, course, folder)
    if not pages:
        raise UsageError(f"{course} has no pages to give back", hint=f"labkit feedback {course}, first")
    return pages


def _given(exchange: Exchange, course: Path, folder: Path) -> list[Path]:
    """Give the pages of one learner's lab back, each under a name that their secret makes."""
    from nbgrader.exchange.default import ExchangeReleaseFeedback

    learner, lab = folder.parts[-2:]
    for name in (_TIME, _SECRET):
        kept = course / "submitted" / learner / lab / name
        content = kept.read_bytes() if kept.is_file() else b""
        if not content.strip() or not content.isascii():  # the secret is the learner's to spoil
            told = "%s %s is not given back: its %s is missing or spoilt"
            log.warning(told, visible(learner), visible(lab), name)
            return []
        (folder / name).write_bytes(content)
    pages = sorted(folder.glob("*.html"))
    for page in pages:
        page.chmod(0o644)  # nbgrader keeps the mode, and who is told the name has to read it
    parts = _parts(exchange, lab, course)
    parts["coursedir"].student_id = learner
    ExchangeReleaseFeedback(**parts).start()
    return pages


def _handed_in(folder: Path, labs: list[str]) -> Collected | None:
    """Read what a folder of the exchange is, by its owner and name; None where it is no submission."""
    parts = folder.name.split("+")
    if len(parts) != 4 or parts[1] not in labs:
        return None
    try:
        with _opened(folder) as directory:
            owner = pwd.getpwuid(os.fstat(directory).st_uid).pw_name
            changed = _changed(directory)
        when = time_of(parts[2])
    except (OSError, KeyError, ValueError) as problem:
        log.warning("%s is no submission: %s", visible(str(folder)), visible(str(problem)))
        return None
    found = Collected(owner, parts[1], when, folder)
    if owner != parts[0]:
        found = found.with_remark(f"it was handed in by {owner}, under the name of {parts[0]}")
    if abs(changed - when) > _SLOWEST:
        told = f"it was changed at {changed:{_FORMAT}}, and its name says {when:{_FORMAT}}"
        found = replace(found, handed_in=changed).with_remark(told)
    return found


def _changed(directory: int) -> datetime:
    """Return when a folder or a file in it was changed last, as the kernel notes it for itself."""
    looks = [os.fstat(directory)]
    looks += [os.stat(n, dir_fd=directory, follow_symlinks=False) for n in os.listdir(directory)]
    return datetime.fromtimestamp(max(look.st_ctime for look in looks), UTC).replace(tzinfo=None)


def _is_new(course: Path, found: Collected) -> bool:
    """Whether a submission is newer than the one of the same lab that was collected before, if any.

    The same one is new as long as its evidence was not signed.
    """
    place = _place(course, found)
    kept = evidence.beside(place / f"{found.lab}.ipynb")
    try:
        before = time_of((place / _TIME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    signed = signing.signature_beside(kept).exists() or not kept.exists()
    return before < found.handed_in or (before == found.handed_in and not signed)


def _place(course: Path, found: Collected) -> Path:
    return course / "submitted" / found.learner / found.lab


def _take(course: Path, found: Collected, directory: int, host: Ed25519PrivateKey) -> Collected:
    """Copy a submission out of its open folder into the course folder, and sign it.

    It takes its place there whole and signed, so that one that was interrupted is taken again. Raises
    UsageError where it cannot be written.
    """
    target = _place(course, found)
    unfinished = target.with_name(f".{found.lab}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        left = _copied(found.lab, directory, unfinished)
        (unfinished / _TIME).write_text(f"{found.handed_in:{_FORMAT}}", encoding="utf-8")
        refused = _signed(found, unfinished, host)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except OSError as problem:
        raise UsageError(
            f"{target} cannot be written: {problem}", hint="make room, then: labkit class collect"
        ) from problem
    taken = replace(found, folder=target)
    if left:
        taken = taken.with_remark(f"it has no plain file {', '.join(left)}")
    return taken.with_remark(refused)


def _copied(lab: str, directory: int, into: Path) -> list[str]:
    """Copy the files of a submission out of its open folder; returns which of them are not there.

    Raises OSError where one cannot be written.
    """
    notebook = f"{lab}.ipynb"
    left = []
    for name in (notebook, evidence.beside(Path(notebook)).name, _SECRET):
        content = _content(directory, name)
        if content is None:
            left.append(name)
        else:
            (into / name).write_bytes(content)
    return left


def _content(directory: int, name: str) -> bytes | None:
    """Read a plain file in an open folder; None where there is none, or where it is too large."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(name, flags, dir_fd=directory), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not evidence.is_plain(file.fileno()) or size > _MOST_BYTES:
                return None
            return file.read(_MOST_BYTES)
    except OSError:
        return None


def _signed(found: Collected, folder: Path, host: Ed25519PrivateKey) -> str:
    """Sign the evidence of a submission in a folder; returns why it was not signed.

    Raises NotWritten where the signature cannot be written.
    """
    file = evidence.beside(folder / f"{found.lab}.ipynb")
    if file.exists():
        try:
            signing.sign(file, host, lab=found.lab, learner=found.learner)
        except signing.NotWritten:
            raise  # that is not the learner's
        except UsageError as problem:
            return str(problem.args[0]).replace(f"{folder}{os.sep}", "")
    return ""


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder that a learner may put a link in the place of."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _parts(exchange: Exchange, lab: str, course: Path | None = None) -> dict[str, Any]:
    """Return what each of nbgrader's steps is made with."""
    from nbgrader.auth import Authenticator
    from nbgrader.coursedir import CourseDirectory

    root = {"root": str(course.resolve())} if course else {}
    directory: CourseDirectory = CourseDirectory(course_id=exchange.course, assignment_id=lab, **root)
    return {"coursedir": directory, "authenticator": Authenticator(), "root": str(exchange.root)}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Make nbgrader's errors the kit's."""
    from nbgrader.exchange import ExchangeError

    try:
        yield
    except (ExchangeError, OSError, RuntimeError) as problem:
        raise UsageError(
            f"the exchange refuses: {problem}", hint="ask who keeps the class's server"
        ) from problem
