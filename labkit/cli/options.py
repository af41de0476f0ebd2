"""What the commands share: their options, and how a document goes to stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from labkit.engines import ENGINES

Lab = Annotated[str, typer.Option("--lab", envvar="LABKIT_LAB", help="The lab's name.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Docker = Annotated[
    str, typer.Option("--docker", envvar="LABKIT_DOCKER", help="Docker version of the nodes.")
]
Compose = Annotated[
    Path | None, typer.Option(help="Another description of the nodes than compose/swarm.yaml.")
]
Hosts = Annotated[
    Path | None,
    typer.Option("--hosts", metavar="FILE", help="Machines of your own, as docs/hosts.md tells."),
]
Nodes = Annotated[int, typer.Option(help="How many nodes, 1 to 20.")]
Managers = Annotated[int, typer.Option(help="How many of them are managers.")]
_KINDS = list(ENGINES)
EngineKind = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="LABKIT_ENGINE",
        help=f"auto, {', '.join(_KINDS[:-1])} or {_KINDS[-1]}.",
    ),
]
Database = Annotated[str, typer.Option(help="Another gradebook: a SQLAlchemy URL.")]


def print_json(document: object) -> None:
    """Print the one document that --json promises."""
    print(json.dumps(document, indent=2, ensure_ascii=False))
