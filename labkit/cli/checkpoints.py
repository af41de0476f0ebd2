"""Commands for checkpoints: save, restore, list, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from labkit import engines
from labkit.cli.options import Json, Lab, print_json

app = typer.Typer(
    help="Checkpoints of a lab to come back to (embedded machine only).", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The checkpoint's name.")]


@app.command("save")
def save(name: Name, lab: Lab = "default") -> None:
    """Save a checkpoint of the lab as it is now."""
    from labkit.progress import Bars

    with Bars().stage(f"keeping {name}"):
        engines.checkpoints(lab).save(name)
    print(f"kept; back to it: labkit checkpoint restore {name}")


@app.command("restore")
def restore(name: Name, lab: Lab = "default") -> None:
    """Return the lab to a checkpoint; what came after it is lost."""
    from labkit.cli.swarms import status
    from labkit.progress import Bars

    with Bars().stage(f"back to {name}"):
        engines.checkpoints(lab).restore(name)
    status(lab)


@app.command("list")
def list_(lab: Lab = "default", as_json: Json = False) -> None:
    """List the checkpoints of the lab."""
    from datetime import datetime

    found = engines.checkpoints(lab).list()
    if as_json:
        print_json([checkpoint._asdict() for checkpoint in found])
        return
    for checkpoint in found:
        when = datetime.fromtimestamp(checkpoint.created).strftime("%Y-%m-%d %H:%M")
        print(f"{checkpoint.size / 1e6:10.1f} MB  {when}  {checkpoint.name}")
    if not found:
        print("none yet; labkit checkpoint save NAME")


@app.command("remove")
def remove(name: Name, lab: Lab = "default") -> None:
    """Remove a checkpoint."""
    engines.checkpoints(lab).remove(name)
