"""The command `diagnose`."""

from __future__ import annotations

import textwrap
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from labkit.cli.options import Docker, Hosts, Json, Lab, print_json
from labkit.engines import DEFAULT_DOCKER

if TYPE_CHECKING:
    from labkit.diagnosis import Finding

app = typer.Typer()

_WIDTH, _INDENT = 92, 11


@app.command()
def diagnose(
    lab: Lab = "default", hosts: Hosts = None, docker: Docker = DEFAULT_DOCKER, as_json: Json = False
) -> None:
    """Say what is wrong with a swarm, with the evidence, and what mends it; nothing is changed.

    With --hosts: with the swarm that machines of your own are, whoever made it. They are left as they
    were found. Exit code 1 where something is wrong.
    """
    from labkit import diagnosis, swarm
    from labkit.progress import Bars

    bars = Bars()
    there = swarm.look_at(hosts, docker=docker, progress=bars) if hosts else closing(swarm.get(lab))
    with there as one, bars.stage(f"looking at {len(one.nodes)} nodes"):
        found = diagnosis.findings(one)
    if as_json:
        about = {"hosts": str(hosts)} if hosts else {"lab": lab}
        print_json({**about, "findings": [asdict(finding) for finding in found]})
    elif found:
        print("\n\n".join(map(_told, found)))
    else:
        print("nothing is wrong that can be seen in its tables, rules and tasks")
    if found:
        raise typer.Exit(1)


def _told(finding: Finding) -> str:
    learn = f"lab {finding.lab}"
    if finding.fault:
        learn += f"; on purpose: labkit fault inject {finding.fault}"
    rows = {
        "where": finding.where,
        "seen": finding.evidence,
        "why": finding.why,
        "remedy": finding.remedy,
        "learn": learn,
    }
    return "\n".join([f"NO  {finding.what}", *(_row(name, text) for name, text in rows.items())])


def _row(name: str, text: str) -> str:
    begin = f"    {name}".ljust(_INDENT)
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=begin,
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
