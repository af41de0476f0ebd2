"""The commands `labkit vm …`: build the embedded machine, hand it on, see what the cache holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from labkit.engines import DEFAULT_DOCKER

app = typer.Typer(
    help="The embedded machine: build it once, see what the cache holds.", no_args_is_help=True
)

Docker = Annotated[str, typer.Option("--docker", help="Docker version of the nodes.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


@app.command("build")
def build(docker: Docker = DEFAULT_DOCKER) -> None:
    """Build the embedded machine and its node image from Debian's packages."""
    from labkit.engines import versions
    from labkit.engines.vm import image
    from labkit.progress import Bars

    versions.release(docker)
    print(image.node_disk(docker, Bars()).parent)


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="The file to write, class.tar.zst say.")],
    nodes: Annotated[int, typer.Option(help="How many nodes, 1 to 20.")] = 3,
    managers: Annotated[int, typer.Option(help="How many of them are managers.")] = 1,
    docker: Docker = DEFAULT_DOCKER,
    as_json: Json = False,
) -> None:
    """Write the machine and the saved state of a swarm into one file, for a class."""
    from labkit.engines.base import SwarmSpec
    from labkit.engines.vm import bundle
    from labkit.progress import Bars

    written = bundle.write(file, SwarmSpec.of(docker, nodes, managers), Bars())
    if as_json:
        _print_json({"file": str(file), **written})
        return
    print(f"{file}: {written['file'] / 1e6:.0f} MB, of {written['content'] / 1e6:.0f} MB")
    print("It holds the machine's keys: hand it to the class, and to nobody else.")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `labkit vm export` wrote.")],
    as_json: Json = False,
) -> None:
    """Take over what another machine exported; `labkit up` needs no network then."""
    from labkit.engines.vm import bundle
    from labkit.progress import Bars

    docker, refused = bundle.read(file, Bars())
    if as_json:
        _print_json({"docker": docker, "state_refused": refused or None})
        return
    if refused:
        print(f"The saved state is not for this machine: {refused}. The first `labkit up` makes one.")
    print(f"imported; next: labkit up --engine vm --docker {docker}")


@app.command("share")
def share(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The shared cache, made if need be.")
    ],
    nodes: Annotated[int, typer.Option(help="How many nodes, 1 to 20.")] = 3,
    managers: Annotated[int, typer.Option(help="How many of them are managers.")] = 1,
    docker: Docker = DEFAULT_DOCKER,
) -> None:
    """Put a saved state where every user of this machine can use it, and nobody else can change it."""
    from labkit.engines.base import SwarmSpec
    from labkit.engines.vm import sharing
    from labkit.progress import Bars

    print(sharing.share(directory, SwarmSpec.of(docker, nodes, managers), Bars()))
    print(f"Whoever has LABKIT_SHARED={directory.resolve()} takes it from there.")


@app.command("hibernate")
def hibernate(
    lab: Annotated[str, typer.Option(envvar="LABKIT_LAB", help="The name of the lab.")] = "default",
    every: Annotated[bool, typer.Option("--all", help="Every lab of this user.")] = False,
) -> None:
    """Put a lab away on disk, without a process; whoever asks it something next wakes it."""
    from labkit.engines.vm.engine import VmEngine

    engine = VmEngine()
    names = [name for name in (engine.labs() if every else [lab]) if engine.hibernate(name)]
    print(f"on disk: {', '.join(names)}" if names else "no lab's machine runs")


@app.command("info")
def info(as_json: Json = False) -> None:
    """Show what the cache holds and how much disk it takes."""
    from labkit.engines.vm import image

    facts = image.facts()
    if as_json:
        _print_json(facts)
        return
    files = facts["files"]
    assert isinstance(files, dict)
    for name, size in files.items():
        print(f"{size / 1e6:10.1f} MB  {name}")
    print(f"{sum(files.values()) / 1e6:10.1f} MB  in {facts['directory']}")
