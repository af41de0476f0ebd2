"""Commands for the swarm: up, status, reset, down, exec, env, doctor."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli.options import Compose, Docker, EngineKind, Json, Lab, Managers, Nodes, print_json
from labkit.engines import DEFAULT_DOCKER
from labkit.errors import UnknownNameError

if TYPE_CHECKING:
    from labkit.swarm import UpResult

app = typer.Typer()


def _show_status(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    accel = f", {status['accel']}" if status["accel"] else ""
    title = f"lab {status['lab']}: Docker {status['docker']} on engine {status['engine']}{accel}"
    table = Table(title=title, title_justify="left")
    for column in ("name", "role", "address", "state"):
        table.add_column(column)
    for node in status["nodes"]:
        table.add_row(node["name"], node["role"], node["address"], node["state"])
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
    as_json: Json = False,
) -> None:
    """Stand up a swarm that answers."""
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
        progress=Bars(),
    )
    _show_result(result, as_json)


def _show_result(result: UpResult, as_json: bool) -> None:
    seconds, restored = result.seconds, result.restored
    times = {"seconds": round(seconds, 2), "api_seconds": round(result.api_seconds, 2)}
    status = {**result.lab.status(), **times, "restored": restored}
    result.lab.close()
    if as_json:
        print_json(status)
        return
    _show_status(status)
    how = "restored" if restored else "made"
    print(f"{how} in {seconds:.1f} s; try: labkit exec node1 -- docker node ls")


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


@app.command()
def exec(
    node: Annotated[str, typer.Argument(help="A node, as labkit status names it.")],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="What to run.")],
    lab: Lab = "default",
    task: Annotated[str | None, typer.Option(help="In this task, SERVICE.N.")] = None,
    netns: Annotated[str | None, typer.Option(help="In this network namespace.")] = None,
    as_json: Json = False,
) -> None:
    """Run a command on a node, in a task, or in a network namespace of that node."""
    from labkit import swarm

    found = swarm.get(lab)
    try:
        where = swarm.place_of(found, node, task=task, netns=netns)
        capture = where.run(command)
    finally:
        found.close()
    if as_json:
        row = capture.to_json()
        print_json({"node": node, **{name: row[name] for name in row if name != "node"}})
    else:
        sys.stdout.write(capture.stdout)
        sys.stderr.write(capture.stderr)
    raise typer.Exit(capture.code)


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
def doctor(as_json: Json = False) -> None:
    """Tell what this machine can run, why, and the remedy for what it cannot."""
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
