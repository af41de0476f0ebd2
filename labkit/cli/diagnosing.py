"""The command `diagnose`."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from labkit.cli.options import Json, Lab, print_json

if TYPE_CHECKING:
    from labkit.diagnosis import Finding

app = typer.Typer()

_WIDTH, _INDENT = 92, 11


@app.command()
def diagnose(lab: Lab = "default", as_json: Json = False) -> None:
    """Say what is wrong with a swarm, with the evidence, and what mends it; nothing is changed.

    Exit code 1 where something is wrong.
    """
    from labkit import diagnosis, swarm
    from labkit.progress import Bars

    running = swarm.get(lab)
    try:
        with Bars().stage(f"looking at {len(running.nodes)} nodes"):
            found = diagnosis.findings(running)
    finally:
        running.close()
    if as_json:
        print_json({"lab": lab, "findings": [asdict(finding) for finding in found]})
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
