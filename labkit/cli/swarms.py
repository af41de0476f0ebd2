"""Commands for the swarm: up, status, reset, down, exec, env, doctor."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from labkit.cli.options import (
    Compose,
    Docker,
    EngineKind,
    Hosts,
    Json,
    Lab,
    Managers,
    Nodes,
    print_json,
)
from labkit.engines import DEFAULT_DOCKER
from labkit.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.capture import Capture
    from labkit.swarm import Place, UpResult
    from labkit.transport.attached import Attached

app = typer.Typer()


def _show_status(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    accel = f", {status['accel']}" if status["accel"] else ""
    title = f"lab {status['lab']}: Docker {status['docker']} on engine {status['engine']}{accel}"
    table = Table(title=title, title_justify="left")
    columns = ["name", "role", "address", "state"]
    if any(node["hostname"] != node["name"] for node in status["nodes"]):
        columns.insert(1, "hostname")  # of machines of one's own, which their owner knows by that
    for column in columns:
        table.add_column(column)
    for node in status["nodes"]:
        table.add_row(*(node[column] for column in columns))
    Console().print(table)


@app.command()
def up(
    nodes: Nodes = 3,
    managers: Managers = 1,
    docker: Docker = DEFAULT_DOCKER,
    engine: EngineKind = "auto",
    lab: Lab = "default",
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the saved state anew.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave what failed for a look.")] = False,
    compose: Compose = None,
    hosts: Hosts = None,
    as_json: Json = False,
) -> None:
    """Stand up a swarm that answers.

    With --hosts the nodes are machines of your own, each with its Docker engine; how many there are,
    and which Docker runs there, the machines say themselves. They are looked at first, as labkit doctor
    --hosts does, and nothing is made where a swarm could not work.
    """
    from labkit import swarm
    from labkit.progress import Bars

    result = swarm.up(
        lab,
        nodes=nodes,
        managers=managers,
        docker=docker,
        engine=engine,
        fresh=fresh,
        keep=keep,
        compose=compose,
        hosts=hosts,
        progress=Bars(),
    )
    _show_result(result, as_json)


def _show_result(result: UpResult, as_json: bool) -> None:
    seconds, restored = result.seconds, result.restored
    times = {"seconds": round(seconds, 2), "api_seconds": round(result.api_seconds, 2)}
    status = {**result.status, **times, "restored": restored}
    result.lab.close()
    if as_json:
        print_json(status)
        return
    _show_status(status)
    how = "restored" if restored else "made"
    first = status["nodes"][0]["name"]
    print(f"{how} in {seconds:.1f} s; try: labkit exec {first} -- docker node ls")


@app.command()
def status(lab: Lab = "default", as_json: Json = False) -> None:
    """Look at a lab: its nodes and their state."""
    from labkit import swarm

    began = time.monotonic()
    found = swarm.get(lab)
    seen = {**found.status(), "seconds": round(time.monotonic() - began, 2)}
    found.close()
    if as_json:
        print_json(seen)
    else:
        _show_status(seen)


@app.command()
def reset(lab: Lab = "default", compose: Compose = None, as_json: Json = False) -> None:
    """Return a lab to the swarm that it began as."""
    from labkit import swarm
    from labkit.progress import Bars

    _show_result(swarm.reset(lab, compose=compose, progress=Bars()), as_json)


@app.command()
def down(
    lab: Lab = "default",
    every: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
    as_json: Json = False,
) -> None:
    """Take a lab down and leave nothing of it."""
    from labkit import engines, swarm

    names = engines.labs() if every else [lab]
    gone = [name for name in names if swarm.down(name)]
    if every:
        engines.sweep()
    if as_json:
        print_json({"down": gone})
    elif gone:
        print(f"down: {', '.join(gone)}")
    else:
        print("nothing to take down")


class _Exec(TyperCommand):
    """Says where the `--` is missing that keeps labkit from reading the command's own options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)  # what reads them takes them off
        try:
            return super().parse_args(ctx, args)
        except Exception as problem:
            option = getattr(problem, "option_name", None)  # of an option that is not there, only
            if option is None or "--" in words:
                raise
            known = self._first_word(ctx, words)
            hint = shlex.join([*words[:known], "--", *words[known:]])
            raise UsageError(
                f"{option} is no option of labkit exec",
                hint=f"put -- before the command: labkit exec {hint}",
            ) from problem

    def _first_word(self, ctx: Any, words: list[str]) -> int:
        """Return where the command begins: after the node, and labkit's own options before it."""
        takes = {
            option: not getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for option in parameter.opts
        }
        at = 0
        while at < len(words) and words[at].startswith("-"):
            at += 2 if takes.get(words[at], False) else 1
        return at + 1


@app.command(cls=_Exec)
def exec(
    node: Annotated[str, typer.Argument(help="A node, as labkit status names it.")],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="What to run.")],
    lab: Lab = "default",
    task: Annotated[
        str | None, typer.Option(help="In this task, SERVICE.N; SERVICE.NODE if global.")
    ] = None,
    netns: Annotated[str | None, typer.Option(help="In this network namespace.")] = None,
    interactive: Annotated[
        bool, typer.Option("-i", "--interactive", help="Pass on what is typed; a pipe always is.")
    ] = False,
    terminal: Annotated[bool, typer.Option("-t", "--tty", help="Give it a terminal.")] = False,
    as_json: Json = False,
) -> None:
    """Run a command on a node, in a task, or in a network namespace of that node; -it for a shell."""
    from labkit import swarm
    from labkit.capture import argv_of

    # One word is a line of words, as in a notebook: what only a shell understands is refused.
    argv = argv_of(command[0] if len(command) == 1 else command)
    if terminal and not (sys.stdin.isatty() and not as_json):
        raise UsageError("-t needs a terminal here too, and no --json", hint="leave -t out")
    found = swarm.get(lab)
    try:
        where = swarm.place_of(found, node, task=task, netns=netns)
        capture = _attached(where, argv, interactive, terminal, quiet=as_json)
    finally:
        found.close()
    if as_json:
        row = capture.to_json()
        print_json({"node": node, **{name: row[name] for name in row if name != "node"}})
    raise typer.Exit(capture.code)


def _attached(
    place: Place, argv: tuple[str, ...], interactive: bool, terminal: bool, *, quiet: bool
) -> Capture:
    """Run a command with this process's input; what it prints is shown as it comes, unless `quiet`."""
    from labkit.capture import Capture
    from labkit.transport.attached import Attached
    from labkit.transport.base import Command, CommandResult
    from labkit.transport.live import LiveLink

    assert isinstance(place.node.link, LiveLink)
    printed: dict[int, list[bytes]] = {1: [], 2: []}

    def write(kind: int, data: bytes) -> None:
        if quiet:
            printed[kind].append(data)
            return
        stream = (sys.stdout if kind == 1 else sys.stderr).buffer
        stream.write(data)
        stream.flush()

    if terminal:
        argv = ("env", f"TERM={os.environ.get('TERM', 'dumb')}", *argv)
    words = Command(argv, place.label, place.netns, place.pid, container=place.container)
    started, began = time.time(), time.monotonic()
    running = Attached(place.node.link, words, terminal=terminal)
    source = sys.stdin.fileno() if sys.stdin and (interactive or not sys.stdin.isatty()) else None
    with _passing_on(running, terminal):
        running.feed(source)
        code = running.run(write)
    seconds = time.monotonic() - began
    stdout, stderr = (b"".join(printed[kind]).decode(errors="replace") for kind in (1, 2))
    result = CommandResult(code, stdout, stderr, started, seconds)
    node = place.node
    return Capture.of(argv, result, place=place.label, node=node.name, docker=node.docker_version)


@contextlib.contextmanager
def _passing_on(running: Attached, terminal: bool) -> Iterator[None]:
    """Pass on Ctrl-C, and with a terminal each key and the window's size; a second Ctrl-C gives up."""
    stop = signal.getsignal(signal.SIGINT)

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, stop)
        running.interrupt()

    def resize(*_: object) -> None:
        running.resize(*os.get_terminal_size(sys.stdin.fileno()))

    signal.signal(signal.SIGINT, interrupt)
    if not terminal:
        yield
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    signal.signal(signal.SIGWINCH, resize)
    resize()
    tty.setraw(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


@app.command()
def env(lab: Lab = "default", as_json: Json = False) -> None:
    """Print shell lines that point the ordinary docker at the lab's engine: eval "$(labkit env)"."""
    from labkit import engines

    connection = engines.find(lab)
    if connection is None:
        raise UnknownNameError("running lab", lab, engines.labs(), hint="labkit up")
    if as_json:
        print_json(dict(connection.environment))
        return
    for name, value in connection.environment.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def doctor(hosts: Hosts = None, docker: Docker = DEFAULT_DOCKER, as_json: Json = False) -> None:
    """Tell what this machine can run, why, and the remedy for what it cannot.

    With --hosts: what machines of your own lack for a swarm, each of them and from each to each other;
    exit code 1 where they lack something. They are left as they were found.
    """
    if hosts:
        _preflight(hosts, docker, as_json)
        return
    from labkit import doctor as examination

    found = examination.examine()
    if as_json:
        print_json(found)
        return
    accel = f", {found['accel']}" if found["accel"] else ""
    print(f"`labkit up` would use the engine {found['engine']}{accel}: {found['why']}")
    for check in found["checks"]:
        print(f"  {'ok ' if check['ok'] else 'NO '} {check['name']}: {check['detail']}")
        if check["remedy"] and not check["ok"]:
            print(f"       remedy: {check['remedy']}")


def _preflight(hosts: Path, docker: str, as_json: bool) -> None:
    from labkit import engines
    from labkit.progress import Bars

    rows = engines.preflight(hosts, docker, Bars())
    failed = [row for row in rows if not row.ok]
    if as_json:
        print_json({"hosts": str(hosts), "ok": not failed, "checks": [row.to_json() for row in rows]})
    else:
        for row in rows:
            print(f"  {'ok ' if row.ok else 'NO '} {row}")
            if not row.ok:
                print(f"       remedy: {row.remedy}")
    if failed:
        raise typer.Exit(1)
