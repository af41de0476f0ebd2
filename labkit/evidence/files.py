"""Evidence: a file of everything that a lab asked of its swarm, and of every answer, in order.

It is text, one JSON object a line, beside the notebook that asked: `04_join_an_overlay.evidence.jsonl`,
or packed, with `.gz`. Each line has

    number, kind             from 1; lab (the lab was attached), command (on a node) or api (of a node's
                             Docker engine)
    session, run             the kernel that asked, and the number of the cell's run in it
    cell, source             what the notebook calls the cell (where it tells), a short hash of its text
    learner, docker          whose variant it was; the Docker version
    started, seconds         when it was asked, in UTC, and how long the answer took
    previous, hash           the hash of the line before; the SHA-256 of this line up to here

and, by its kind,

    lab        lab, engine, accel, labkit, nodes
    command    node, place, netns, pid, argv, ready; code, stdout, stderr, timed_out, and, by the node's
               own clock, began, ran
    api        node, method, path, body; status, type, response, encoding (text or base64)

Where there was no answer, `error` says why instead. A text of more than `MAX_TEXT` characters is left
out, and `cut` tells its length and its SHA-256. Join tokens are blotted out.

What the chain of hashes proves: that the file is whole and in order, as *somebody* wrote it. One
changed byte, a line taken out, put in or moved is found. It holds no secret, so who can run labkit can
also make a false chain that is whole; lines missing at the very end leave no trace either. `problems`
therefore also looks for what does not fit in itself. What it finds is a report for a person and not a
verdict: a clock that was set, a second kernel or a copied folder look odd too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gzip
import hashlib
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths, variants
from labkit.capture import RECORDED, Capture
from labkit.errors import UsageError, redact
from labkit.evidence import cells

if TYPE_CHECKING:
    import io

SUFFIX = ".evidence.jsonl"
MAX_TEXT = 2_000_000  # characters of one output, request or answer
MAX_BYTES = 64 * 1024 * 1024  # of a file, unpacked

# Goes on while a laptop sleeps, where the system has such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_LINE = re.compile(rb'(\{.*),"hash":"([0-9a-f]{64})"\}', re.DOTALL)
_START = "0" * 64  # what stands for the hash before the first line
_TEXTS = ("stdout", "stderr", "body", "response")
_SLACK_S = 2.0  # what clocks on one machine may differ by, and threads be late
_LATEST = 1e11  # seconds since the epoch: no date beyond it can be told
_AHEAD = timedelta(minutes=10)  # what the clocks of two machines may differ by

_Types = dict[str, type | tuple[type, ...]]
_NUMBER = (int, float)
_COMMON: _Types = {
    "number": int,
    "kind": str,
    "session": str,
    "run": int,
    "cell": str,
    "source": str,
    "learner": str,
    "docker": str,
    "started": str,
    "seconds": _NUMBER,
    "previous": str,
}
_ASKED: dict[str, _Types] = {
    "lab": {"lab": str, "engine": str, "accel": (str, type(None)), "labkit": str, "nodes": list},
    "command": {
        "node": str,
        "place": str,
        "netns": (str, type(None)),
        "pid": (int, type(None)),
        "argv": list,
        "ready": bool,
    },
    "api": {"node": str, "method": str, "path": str, "body": (str, type(None))},
}
_ANSWERED: dict[str, _Types] = {
    "lab": {},
    "command": {
        "code": int,
        "stdout": str,
        "stderr": str,
        "began": _NUMBER,
        "ran": _NUMBER,
        "timed_out": bool,
    },
    "api": {"status": int, "type": str, "response": str, "encoding": str},
}
_NODE: _Types = {"name": str, "address": str, "container": str, "docker": str}


# --- where it lies -------------------------------------------------------------------------------


def target() -> Path | None:
    """Return the file that this process keeps evidence in, None where it keeps none.

    LABKIT_EVIDENCE names it; without that a notebook's kernel keeps it beside the notebook.
    """
    if named := os.environ.get("LABKIT_EVIDENCE"):
        return Path(named)
    notebook = cells.notebook()
    return beside(notebook) if notebook else None


def beside(notebook: Path) -> Path:
    """Return the evidence file that belongs to a notebook."""
    return notebook.with_suffix(SUFFIX)


def of_lab(directory: Path, lab: str) -> Path:
    """Return the evidence of a lab in a directory, packed or not; raises UsageError."""
    names = [f"{lab}{SUFFIX}", f"{lab}{SUFFIX}.gz"]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise UsageError(
        f"{directory} holds no evidence of {lab}: neither {names[0]} nor {names[1]}",
        hint=f"labkit run {lab[:2]} --evidence {directory}, on a machine that can run a swarm",
    )


def of_notebook(directory: Path) -> Path:
    """Return the evidence of this notebook's lab in a directory; raises UsageError."""
    notebook = cells.notebook()
    if notebook is None:
        raise UsageError(
            f"which recording of {directory}? This is no notebook whose name is known",
            hint=f"labkit.attach(replay='{directory}/03_reach_a_container{SUFFIX}.gz')",
        )
    return of_lab(directory, notebook.stem)


def of_kit() -> Path:
    """Return the recording of this notebook's lab that the kit came with; raises UsageError."""
    return of_notebook(paths.REPOSITORY / "labs" / "evidence")


# --- writing -------------------------------------------------------------------------------------


class Writer:
    """Adds lines to a file of evidence, for threads and for other processes that do so too."""

    def __init__(self, path: Path, learner: str) -> None:
        self.path, self.learner = path, learner
        self.session = os.urandom(4).hex()
        self._lock = threading.Lock()  # a file's lock is the whole process's
        self._file: io.FileIO | None = None
        self._size, self._number, self._hash = -1, 0, _START
        # The wall clock may be set while a lab runs; within a session time only goes forward.
        self._epoch = time.time() - time.clock_gettime(_CLOCK)
        self._open()

    def now(self) -> float:
        """Seconds since the epoch, on a clock that only goes forward."""
        return self._epoch + time.clock_gettime(_CLOCK)

    def write(
        self, kind: str, cell: cells.Cell, started: float, row: Mapping[str, Any], *, docker: str
    ) -> None:
        """Write what was asked at `started` and has its answer now; raises OSError."""
        ended = self.now()
        bounded, cut = _bounded(row)
        with self._lock, self._locked() as file:
            head = {
                "number": self._number + 1,
                "kind": kind,
                "session": self.session,
                "run": cell.run,
                "cell": cell.id,
                "source": cell.source,
                "learner": self.learner,
                "docker": docker,
                "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="microseconds"),
                "seconds": round(ended - started, 6),
            }
            whole = {**head, **bounded, **({"cut": cut} if cut else {}), "previous": self._hash}
            text = json.dumps(whole, separators=(",", ":"))[:-1].encode()
            digest = hashlib.sha256(text).hexdigest()
            line = b'%s,"hash":"%s"}\n' % (text, digest.encode())
            if self._size + len(line) > MAX_BYTES:
                raise OSError(errno.EFBIG, f"it has reached {MAX_BYTES // 2**20} MiB")
            if (file.write(line) or 0) < len(line):  # no room for all of it
                file.truncate(self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size, self._number, self._hash = self._size + len(line), self._number + 1, digest

    def _open(self) -> io.FileIO:
        self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115
        self._size = -1
        return self._file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[io.FileIO]:
        """Hold the file alone, and know its last line."""
        file = self._file or self._open()
        if not os.fstat(file.fileno()).st_nlink:  # somebody removed it, to begin anew
            file.close()
            file = self._open()
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.fstat(file.fileno()).st_size != self._size:
                self._catch_up(file)
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _catch_up(self, file: io.FileIO) -> None:
        """Go on where the file ends; half a line, of a process that was killed, is taken off."""
        file.seek(0)
        data = file.readall()[: MAX_BYTES + 1]
        whole = data.rfind(b"\n") + 1
        if whole < len(data) <= MAX_BYTES:
            file.truncate(whole)
        *_, last = data[:whole].split(b"\n")[:-1] or [b""]
        found = _LINE.fullmatch(last)
        number = re.match(rb'\{"number":(\d{1,9}),', last)
        self._number = int(number[1]) if number else data.count(b"\n")
        self._hash = found[2].decode() if found else _START
        self._size = os.fstat(file.fileno()).st_size


@functools.cache
def writer(path: Path, learner: str) -> Writer:
    """Return this process's writer of a file: one session, however often a lab is attached."""
    return Writer(path, learner)


def _bounded(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave out texts that are too long, and tell what was left out; blot out join tokens."""
    kept, cut = dict(row), {}
    for name in _TEXTS:
        text = kept.get(name)
        if not isinstance(text, str):
            continue
        if len(text) > MAX_TEXT:
            digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
            kept[name], cut[name] = "", {"characters": len(text), "sha256": digest}
        else:
            kept[name] = redact(text)
    if "argv" in kept:
        kept["argv"] = [redact(word) for word in kept["argv"]]
    return kept, cut


def pack(path: Path, packed: Path) -> None:
    """Write a packed copy; the same evidence gives the same bytes."""
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One well-formed line: its place in the file, from 1, and what it holds."""

    at: int
    row: dict[str, Any]
    started: float  # seconds since the epoch

    @property
    def kind(self) -> str:
        """What was asked: lab, command or api."""
        return str(self.row["kind"])

    @property
    def ended(self) -> float:
        """When the answer was there, in seconds since the epoch."""
        return float(self.started + self.row["seconds"])

    @property
    def asked(self) -> str:
        """What was asked, as a person would say it."""
        return describe(self.kind, self.row)

    @property
    def capture(self) -> Capture | None:
        """The command and its answer; None for any other line."""
        row = self.row
        if self.kind != "command" or "error" in row:
            return None
        return Capture(
            argv=tuple(row["argv"]),
            place=row["place"],
            node=row["node"],
            code=row["code"],
            stdout=row["stdout"],
            stderr=row["stderr"],
            started=datetime.fromtimestamp(row["began"], UTC),
            seconds=row["ran"],
            docker=row["docker"],
            timed_out=row["timed_out"],
        )


def describe(kind: str, row: Mapping[str, Any]) -> str:
    """Say in a few words what was asked."""
    if kind == "command":
        words = " ".join(row["argv"])
        return f"`{words if len(words) <= 80 else words[:77] + '...'}` on {row['place']}"
    if kind == "api":
        return f"{row['method']} {str(row['path'])[:80]} of the engine on {row['node']}"
    return "attach()"


@dataclass(frozen=True)
class Evidence:
    """A file of evidence as it was read: its good lines, and what is wrong with the others."""

    path: Path
    lines: tuple[Line, ...]
    broken: tuple[tuple[int, str], ...]
    """Places in the file, and what is wrong there."""

    @property
    def attached(self) -> bool:
        """Whether it says which lab it is of; one that was removed while its kernel ran does not."""
        return any(line.kind == "lab" for line in self.lines)

    @property
    def learner(self) -> str:
        """Whose it says it is: what its last line says."""
        return str(self.lines[-1].row["learner"])


def read(path: Path) -> Evidence:
    """Read a file of evidence, packed or not; raises UsageError where that cannot be done.

    Lines that are no evidence are left out, with a word in `broken`; so are hashes that do not fit.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as problem:
        told = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise UsageError(
            f"the evidence {path} cannot be read: {told}",
            hint="it lies beside the notebook that made it",
        ) from problem
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"the evidence {path} is larger than {MAX_BYTES // 2**20} MiB",
            hint=f"remove {path.name}, then Restart Kernel and Run All Cells leaves what one run needs",
        )
    good, broken = [], []
    previous, number = _START, 0
    texts = data.split(b"\n")
    if not texts[-1]:
        texts.pop()
    for at, text in enumerate(texts, 1):
        found = _LINE.fullmatch(text)
        row = _row(text) if found else None
        if found is None or row is None:
            broken.append((at, f"line {at} is no line of evidence"))
            continue
        stated = found[2].decode()
        line = Line(at, row, datetime.fromisoformat(row["started"]).timestamp())
        good.append(line)
        if hashlib.sha256(found[1]).hexdigest() != stated:
            broken.append((at, f"line {at} ({line.asked}) was changed after it was written"))
        if row["previous"] != previous or row["number"] != number + 1:
            broken.append(
                (at, f"before line {at} ({line.asked}) a line was taken out, put in or moved")
            )
        previous, number = stated, row["number"]
    if not good:
        raise UsageError(
            f"{path} holds no evidence", hint="run the notebook on a swarm: labkit up, then Run All"
        )
    return Evidence(path, tuple(good), tuple(broken))


def _row(text: bytes) -> dict[str, Any] | None:
    """Parse a line; None for anything that is not well-formed. Nothing of it can be trusted."""
    try:
        row = json.loads(text)
        if not isinstance(row, dict) or not _fits(row, _COMMON):
            return None
        if row["kind"] not in _ASKED or not _fits(row, _ASKED[row["kind"]]):
            return None
        if "error" in row:
            if not isinstance(row["error"], str):
                return None
        elif not _fits(row, _ANSWERED[row["kind"]]):
            return None
        words = row.get("argv", [])
        nodes = row.get("nodes", [])
        if not all(isinstance(word, str) for word in words):
            return None
        if not all(isinstance(node, dict) and _fits(node, _NODE) for node in nodes):
            return None
        if row["kind"] == "lab" and not nodes:
            return None
        if not isinstance(row.get("cut", {}), dict):
            return None
        moment = datetime.fromisoformat(row["started"])
        times = [moment.timestamp(), row["seconds"], row.get("began", 0.0), row.get("ran", 0.0)]
        plausible = moment.tzinfo and all(0 <= value < _LATEST for value in times)
        return row if plausible else None
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _fits(row: Mapping[str, Any], types: _Types) -> bool:
    return all(name in row and isinstance(row[name], kind) for name, kind in types.items())


# --- judging -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What does not fit, in a sentence, and the question that it may matter for; None: all of them."""

    question: str | None
    sentence: str


def problems(
    path: Path,
    *,
    learner: str | None = None,
    notebook: Mapping[str, Any] | None = None,
    handed_out: datetime | None = None,
    now: datetime | None = None,
) -> list[Finding]:
    """Tell what in a file of evidence does not fit; an empty list where all does.

    `learner` is who handed it in. By the `notebook` (nbformat's) that was handed in with it, a finding
    gets its question, and what the notebook shows is looked up in the evidence. `handed_out` is when
    the learners got the notebook.
    """
    try:
        evidence = read(path)
    except UsageError as problem:
        return [Finding(None, problem.args[0])]
    questions = _questions(notebook) if notebook else {}
    rows = {line.at: line for line in evidence.lines}
    found = [
        (questions.get(rows[at].row["source"]) if at in rows else None, "chain", sentence)
        for at, sentence in evidence.broken
    ]
    if not evidence.attached:
        found.append((None, "lab", f"no line of {path.name} says that a lab was attached"))
    looks = [
        *(_strangers(evidence.lines, learner) if learner else ()),
        *_impossible(evidence.lines, handed_out, now or datetime.now(UTC)),
    ]
    found += [(questions.get(line.row["source"]), kind, sentence) for line, kind, sentence in looks]
    if notebook:
        found += _not_shown(evidence.lines, notebook, questions)
    return _gathered(found)


def _gathered(found: Iterable[tuple[str | None, str, str]]) -> list[Finding]:
    """Say the same of a hundred lines once for each question."""
    groups: dict[tuple[str | None, str], list[str]] = {}
    for question, kind, sentence in found:
        groups.setdefault((question, kind), []).append(sentence)
    findings = []
    for (question, _), (first, *others) in groups.items():
        more = f"; so it is with {len(others)} more" if others else ""
        findings.append(Finding(question, f"{first}{more}."))
    return findings


def _questions(notebook: Mapping[str, Any]) -> dict[str, str]:
    """Tell which check each code cell comes before, by the hash of the cell's text."""
    found: dict[str, str] = {}
    waiting: list[str] = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        marks = cell["metadata"].get("nbgrader", {})
        if marks.get("grade") and not marks.get("solution"):
            question = str(marks["grade_id"]).removeprefix("check-")
            found |= {source: question for source in waiting if source not in found}
            waiting = []
        else:
            waiting.append(cells.source_of("".join(cell["source"])))
    return found


_Looks = Iterator[tuple[Line, str, str]]


def _strangers(lines: Sequence[Line], learner: str) -> _Looks:
    """Find what was asked in another learner's name, or with another's variant."""
    try:
        you = variants.of(learner)
    except UsageError:  # a course may name its learners as it likes; then nobody has a variant
        you = None
    for line in lines:
        whose = line.row["learner"]
        if whose != learner:
            yield line, "learner", f"line {line.at} ({line.asked}) is of {whose!r}, not of {learner!r}"
            continue
        for name, value, own in variants.seen_in(line.row.get("argv", ()), you) if you else ():
            told = f"line {line.at} ({line.asked}) has the {name} {value}; that of {learner!r} is {own}"
            yield line, "variant", told


def _impossible(lines: Sequence[Line], handed_out: datetime | None, now: datetime) -> _Looks:
    """Find times that cannot be."""
    latest: dict[str, tuple[float, int]] = {}
    for line in lines:
        where = f"line {line.at} ({line.asked})"
        moment = datetime.fromtimestamp(line.started, UTC)
        when = f"{where} is of {moment:%Y-%m-%d %H:%M} UTC"
        if moment > now + _AHEAD:
            yield line, "future", f"{when}, which is still to come"
        if handed_out and moment < handed_out - _AHEAD:
            then = f"{handed_out.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            yield line, "early", f"{when}, before the notebook was handed out, {then}"
        session = line.row["session"]
        before, at = latest.get(session, (line.ended, line.at))
        if line.ended < before - _SLACK_S:
            told = f"{before - line.ended:.0f} s before line {at}, which stands above it"
            yield line, "order", f"{where} ended {told}"
        if line.ended >= before:
            latest[session] = (line.ended, line.at)
        if (capture := line.capture) and capture.seconds > 1.1 * line.row["seconds"] + _SLACK_S:
            took, ran = line.row["seconds"], capture.seconds
            told = f"it ran for {ran:.1f} s, and its answer was there after {took:.1f} s"
            yield line, "length", f"{where} cannot be: {told}"
    yield from _overlapping(lines)


def _overlapping(lines: Sequence[Line]) -> _Looks:
    """Find requests of a cell that are older than a cell that ran before it: one runs at a time."""
    began: dict[tuple[str, int], float] = {}
    for line in lines:
        key = (line.row["session"], line.row["run"])
        began[key] = min(began.get(key, line.started), line.started)
    latest: dict[str, tuple[float, int]] = {}
    # For each run of a cell, the run before it that began last.
    before: dict[tuple[str, int], tuple[float, int]] = {}
    for (session, run), start in sorted(began.items()):
        if run > 0:
            before[session, run] = latest.get(session, (start, run))
            latest[session] = max(before[session, run], (start, run))
    for line in lines:
        run = line.row["run"]
        start, other = before.get((line.row["session"], run), (0.0, 0))
        if line.started < start - _SLACK_S:
            early = f"{start - line.started:.0f} s before the earlier cell run [{other}]"
            where = f"line {line.at} ({line.asked}), of cell run [{run}],"
            yield line, "overlap", f"{where} was asked {early}"


_PROMPT = re.compile(r"^\S[^\n]* \$ ")


def _not_shown(
    lines: Sequence[Line], notebook: Mapping[str, Any], questions: Mapping[str, str]
) -> Iterator[tuple[str | None, str, str]]:
    """Find output of a command that the notebook shows and the evidence does not have."""
    captures = [(line, capture) for line in lines if (capture := line.capture)]
    kept = {str(capture) for _, capture in captures}
    unknown = {_first(str(capture)) for line, capture in captures if "cut" in line.row}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            text = "".join(output.get("data", {}).get("text/plain", ""))
            question = questions.get(cells.source_of("".join(cell["source"])))
            if text.startswith(RECORDED):
                yield (
                    question,
                    "replayed",
                    "the notebook shows output of a recording, not of a live swarm",
                )
            elif _PROMPT.match(text) and text not in kept and _first(text) not in unknown:
                told = f"the notebook shows an output of `{_first(text)}` that is not in the evidence"
                yield question, "shown", told


def _first(text: str) -> str:
    return text.split("\n", 1)[0][:100]
