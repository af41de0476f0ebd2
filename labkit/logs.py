"""The kit's log: what it ran and asked, with times, for a person who looks for a fault.

Every module logs to `logging.getLogger(__name__)`, below the logger `labkit`, and prints nothing by
itself. The command's -v and -vv, or LABKIT_LOG, show it:

    -v,  LABKIT_LOG=info      reasons: why a snapshot was refused, a machine started again
    -vv, LABKIT_LOG=debug     every command, request to a daemon and QMP command, with its time
    LABKIT_LOG=debug:FILE     the same, into a file

Join tokens and keys are replaced by a mark before a line is written.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from labkit.errors import UsageError, redact

_LEVELS = {"warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


class _Redacted(logging.Formatter):
    """Formats a record without the secrets in it, those of a traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def show(verbosity: int = 0) -> None:
    """Show the log on stderr, or in the file that LABKIT_LOG names; call it once, in a program.

    `verbosity` is how often -v was given; it counts where it asks for more than LABKIT_LOG. Raises
    UsageError for a level that is none, and for a file that cannot be written.
    """
    name, _, file = os.environ.get("LABKIT_LOG", "warning").partition(":")
    if name not in _LEVELS:
        raise UsageError(
            f"LABKIT_LOG is {name!r}; there are: {', '.join(_LEVELS)}",
            hint="LABKIT_LOG=debug, or LABKIT_LOG=debug:labkit.log",
        )
    asked = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    handler: logging.Handler
    try:
        handler = logging.StreamHandler(sys.stderr)
        if file:
            handler = logging.FileHandler(Path(file).expanduser())
    except OSError as problem:
        raise UsageError(f"the log {file} cannot be written: {problem.strerror}") from problem
    handler.setFormatter(_Redacted(_FORMAT, datefmt="%H:%M:%S"))
    kit = logging.getLogger("labkit")
    kit.addHandler(handler)
    kit.setLevel(min(asked, _LEVELS[name]))
    kit.propagate = False
