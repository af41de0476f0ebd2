"""Everything that can go wrong, as a small tree of types, each with its exit code.

    LabkitError          1   the root: has .hint (the next step) and .exit_code
    ├── UsageError       2   what was asked for does not exist or makes no sense
    │   ├── UnknownNameError    an unknown node, task, lab, engine, Docker version, notebook
    │   └── FileError           a YAML file that somebody wrote is wrong: file, line and key
    │       ├── TopologyError       the Compose file of the nodes
    │       ├── VersionsError       a file of Docker versions
    │       └── HostsError          a file of machines of one's own
    ├── EngineError      3   no engine is available, or it lacks what Swarm needs
    │   └── BuildError          the embedded machine could not be built
    ├── SwarmError       3   the swarm could not be started or reached
    │   └── WaitTimeout         a state that did not come: expected, last seen, last log lines
    ├── CommandFailed    1   a command on a node failed
    ├── NotInEvidence    1   a replay has no recorded answer to a request
    └── CheckFailed      1   a check's outcome other than pass
        ├── Unanswered          the answer cell is still empty
        └── CouldNotRun         what the check needs was not measured

Modules that raise an error of their own derive it from one of these, beside the code that raises it. A
message says what failed, where, and what was expected against what was found; ``hint`` says what to do
next. Secrets never enter a message: `redact` is applied to every message and hint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# A token lets anyone join the swarm, SWMKEY unlocks a manager; a key in PEM may be cut off at its end.
_SECRET = re.compile(
    r"(SWMTKN-)\d+-[0-9a-z]+-[0-9a-z]+|(SWMKEY-)\d+-[\w+/=]+"
    r"|(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


def redact(text: str) -> str:
    """Replace the swarm's join tokens and unlock keys, and private keys, by how they begin and `…`."""
    return _SECRET.sub(lambda found: f"{found[found.lastindex or 0]}…", text)


class LabkitError(Exception):
    """The root of the kit's errors: a message, and the next step in ``hint``."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(redact(message))
        self.hint = redact(hint)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\nNext step: {self.hint}" if self.hint else message


class UsageError(LabkitError):
    """What was asked for does not exist or makes no sense."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not among the known ones, which the message lists."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = ", ".join(known) or "none"
        message = f"no {kind} is called {name!r}; there are: {names}"
        super().__init__(message, hint=hint or "take one of those")


class FileError(UsageError):
    """A YAML file that somebody wrote is wrong; the message names file, line and key."""

    _next_step = "mend that line of {file}"

    def __init__(self, file: str, line: int, key: str, problem: str) -> None:
        super().__init__(
            f"{file}, line {line}, key {key!r}: {problem}", hint=self._next_step.format(file=file)
        )


class TopologyError(FileError):
    """The Compose file of the nodes is wrong."""

    _next_step = "mend that line of {file}; `git diff {file}` shows what changed"


class VersionsError(FileError):
    """A file of Docker versions is wrong."""

    _next_step = "mend that line of {file}; docs/versions.md has an example"


class HostsError(FileError):
    """A file of machines of one's own is wrong."""

    _next_step = "mend that line of {file}; docs/hosts.md has an example"


class EngineError(LabkitError):
    """No engine is available, or it lacks what Swarm needs."""

    exit_code = 3


class BuildError(EngineError):
    """The embedded machine could not be built."""


class SwarmError(LabkitError):
    """The swarm could not be started or reached."""

    exit_code = 3


class WaitTimeout(SwarmError):
    """A state that did not come in time: what was expected, what was seen last, the last log lines."""

    def __init__(
        self,
        wanted: str,
        *,
        seconds: float,
        last: str,
        log: Sequence[str] = (),
        hint: str = "",
    ) -> None:
        lines = [f"waited {seconds:.0f} s for {wanted}", f"last seen: {last}"]
        if log:
            lines.append("last log lines:")
            lines.extend(f"  {line}" for line in log)
        super().__init__("\n".join(lines), hint=hint)
        self.wanted = wanted
        self.last = last


class CommandFailed(LabkitError):
    """A command on a node failed: its exit code is not 0, or it was stopped when its time was up."""

    def __init__(self, place: str, argv: Sequence[str], code: int, stderr: str) -> None:
        super().__init__(f"on {place}: `{' '.join(argv)}` ended with code {code}\n{stderr.strip()}")
        self.code = code


class NotInEvidence(LabkitError):
    """A replay has no recorded answer: the message names the request, the cell and the reason."""

    def _render_traceback_(self) -> list[str]:
        """Show only the message: frames of the library are of no use to a learner."""
        return [f"{type(self).__name__}: {self}"]


class CheckFailed(LabkitError):
    """A check found something else than its sentence says: expected against found."""

    def _render_traceback_(self) -> list[str]:
        """Show only the message; IPython calls this in place of its traceback."""
        return [f"{type(self).__name__}: {self}"]


class Unanswered(CheckFailed):
    """The answer that the check is about is still `...`."""


class CouldNotRun(CheckFailed):
    """Nothing was measured, or a probe did not run, so the check can say nothing."""
