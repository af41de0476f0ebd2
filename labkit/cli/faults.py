"""Commands for faults: list, inject, check, heal."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from labkit.cli.options import Json, Lab, print_json
from labkit.errors import UsageError

app = typer.Typer(help="Break one thing on purpose, find it, mend it.", no_args_is_help=True)


@app.command("list")
def list_(lab: Lab = "default", as_json: Json = False) -> None:
    """List the faults that can be injected, and whether one is."""
    from labkit import faults, swarm

    found = swarm.find(lab)
    now = faults.injected(found) if found else None
    if found:
        found.close()
    told = {"fault": None if now.secret else now.fault, "secret": now.secret} if now else None
    if as_json:
        rows = [
            {
                "id": fault.id,
                "level": fault.level,
                "title": fault.title,
                "symptom": fault.complaint,
                "check": fault.red[0],
                "source": fault.source,
            }
            for fault in faults.FAULTS.values()
        ]
        print_json({"faults": rows, "injected": told})
        return
    for fault in faults.FAULTS.values():
        print(f"{fault.id:<22} {fault.title}")
    if now:
        print(f"\ninjected: {'a secret one' if now.secret else now.fault}; labkit fault heal mends it")
    else:
        print("\ninjected: none")


@app.command("inject")
def inject(
    fault: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As labkit fault list names it.")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Do not say which; without an ID any one is taken.")
    ] = False,
    lab: Lab = "default",
    as_json: Json = False,
) -> None:
    """Break one thing and wait until it shows; the services to try it on are made if need be."""
    from labkit import faults, swarm
    from labkit.progress import Bars

    if fault is None and not secret:
        raise UsageError("which fault?", hint="labkit fault list, or: labkit fault inject --secret")
    wanted = None if fault is None else faults.of(fault)
    found = swarm.get(lab)
    began = time.monotonic()
    try:
        with Bars().stage("a secret fault" if secret or wanted is None else wanted.title):
            if wanted is None:
                faults.inject_any(found)
            else:
                faults.inject(found, wanted.id, secret=secret)
    finally:
        found.close()
    shown = None if secret else wanted
    if as_json:
        seconds = round(time.monotonic() - began, 2)
        print_json({"fault": shown.id if shown else None, "secret": secret, "seconds": seconds})
    else:
        print(f"injected: {f'{shown.id}. {shown.complaint}' if shown else 'you find out what'}")
        print("what is red: labkit fault check; mend it by hand, or: labkit fault heal")


@app.command("play")
def play(
    level: Annotated[
        int, typer.Option(help="1: the docker CLI shows it; 2; 3: kernel and packets.")
    ] = 1,
    lab: Lab = "default",
) -> None:
    """Be told what a user says of a fault, find it and mend it; exit code 1 where it is not mended."""
    from labkit import swarm
    from labkit.cli import incident

    found = swarm.get(lab)
    try:
        mended = incident.play(found, level)
    finally:
        found.close()
    if not mended:
        raise typer.Exit(1)


@app.command("check")
def check(lab: Lab = "default", as_json: Json = False) -> None:
    """Ask every check of the services that faults are tried on; exit code 1 where one is red."""
    from labkit import faults, swarm

    found = swarm.get(lab)
    try:
        seen = faults.examine(found)
    finally:
        found.close()
    if as_json:
        columns = ["check", "question", "node", "place", "ok", "expected", "found"]
        print_json(seen[columns].to_dict("records"))
    else:
        for row in seen.itertuples():
            wrong = "" if row.ok else f": expected {row.expected}, found {row.found}"
            print(f"{'ok ' if row.ok else 'NO '} {row.check:<14} {row.question}{wrong}")
    if not seen["ok"].all():
        raise typer.Exit(1)


@app.command("heal")
def heal(lab: Lab = "default", as_json: Json = False) -> None:
    """Undo what is injected, and wait until every check is green again."""
    from labkit import faults, swarm
    from labkit.progress import Bars

    found = swarm.get(lab)
    began = time.monotonic()
    try:
        with Bars().stage("mending"):
            healed = faults.injected(found)
            green = faults.heal(found) is not None
    finally:
        found.close()
    name = None if healed is None or healed.secret else healed.fault
    if as_json:
        seconds = round(time.monotonic() - began, 2)
        print_json({"healed": healed is not None, "fault": name, "green": green, "seconds": seconds})
        return
    what = "nothing was injected" if healed is None else f"healed: {name or 'the secret fault'}"
    print(f"{what}; {'every check is green' if green else 'there are no checks to ask'}")
