"""The command `labkit`: words in, one document out.

With --json there is exactly one JSON document on stdout; everything else goes to stderr. Exit codes:
0 done, 1 a check or experiment failed, 2 wrong use, 3 the engine or swarm could not be had.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import typer

from labkit import __version__
from labkit.cli.commands import Commands
from labkit.errors import LabkitError, redact

app = typer.Typer(
    cls=Commands,
    help="Hands-on labs on container networking, on a real Docker Swarm on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"labkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "-v", "--verbose", count=True, help="Show reasons on stderr; -vv every command too."
        ),
    ] = 0,
) -> None:
    """Hands-on labs on container networking, on a real Docker Swarm on this machine."""
    from labkit import logs

    logs.show(verbose)


class _Stopped(BaseException):
    """Ctrl-C, a polite kill or a closed terminal.

    Not KeyboardInterrupt, which typer turns into a bare exit code.
    """


def _stop(*_: object) -> NoReturn:
    raise _Stopped


def main() -> NoReturn:
    """Run the command; a typed error becomes one message and its exit code."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which `nohup` asks for
        signal.signal(signal.SIGHUP, _stop)
    try:
        code = app(standalone_mode=False)
    except _Stopped as stopped:
        _fail(_told("stopped by Ctrl-C; `labkit status` tells what runs", stopped), 130)
    except LabkitError as problem:
        _fail(_told(str(problem), problem), problem.exit_code)
    except Exception as problem:
        if type(problem).__module__.partition(".")[0] in ("docker", "requests"):
            message = redact(f"{type(problem).__name__}: {problem}")
            _fail(_told(f"a Docker engine refused: {message}\nNext step: labkit status", problem), 3)
        # typer's own errors, of wrong use, have a message made for people.
        if not hasattr(problem, "format_message"):
            raise
        if type(problem).__name__ == "NoArgsIsHelpError":
            print(problem.format_message(), file=sys.stderr)
            sys.exit(2)
        _fail(f"{problem.format_message()}\nNext step: labkit --help", 2)
    sys.exit(code or 0)


def _told(message: str, problem: BaseException) -> str:
    """Return a message with what was noted beside it: what a clean-up could not do."""
    return "\n".join([message, *getattr(problem, "__notes__", ())])


def _fail(message: str, code: int) -> NoReturn:
    print(f"labkit: {message}", file=sys.stderr)
    sys.exit(code)
