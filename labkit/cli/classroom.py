"""Commands for a class: the check that each participant runs, the report on all of them, and slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.options import EngineKind, Json, print_json

if TYPE_CHECKING:
    from labkit.classroom.report import Report, Times

app = typer.Typer(
    help="Before a class: check each machine, sum the checks up, make slides.", no_args_is_help=True
)
_LONGEST_TEXT = 160  # characters in a cell of the table; --csv and --json have all of them


@app.command()
def check(
    learner: Annotated[
        str, typer.Option(help="Your id in the class; without it LABKIT_LEARNER, or your login.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="The file to write, if not class-check-ID.json here.")
    ] = None,
    engine: EngineKind = "auto",
    as_json: Json = False,
) -> None:
    """Check, in fifteen minutes at most, whether this machine is ready, and write the file to send."""
    from labkit.classroom import check as checks
    from labkit.progress import Bars

    you = checks.participant(learner)
    file = checks.target(you.learner, out)
    found = checks.run(you, engine=engine, progress=Bars())
    checks.write(file, found)
    if as_json:
        print_json(found)
    else:
        for step in found["steps"]:
            print(f"  {'ok ' if step['ok'] else 'NO '} {step['name']}: {step['message']}")
            if step["remedy"]:
                print(f"       remedy: {step['remedy']}")
        if found["ready"]:
            print(f"ready; send {file}")
        else:
            print(f"not ready: do what the remedy says and check again, or send {file} as it is")
    if not found["ready"]:
        raise typer.Exit(1)


@app.command()
def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE_OR_DIR…", help="What the participants have sent.")
    ],
    roster: Annotated[
        Path | None, typer.Option(help="CSV with the columns folder,student: who should have sent one.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Sum the participants' files up: who is ready, who needs what, and whose file is missing."""
    from dataclasses import asdict

    from labkit.classroom import report as reports
    from labkit.grading import roster as rosters

    found = reports.report(files, rosters.read(roster).values() if roster else ())
    if csv:
        reports.write_csv(csv, found.rows)
    if as_json:
        print_json(asdict(found))
    else:
        _show_report(found)


@app.command()
def slides(
    labs: Annotated[list[str] | None, typer.Argument(help="03, reach_a_container, …")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")] = Path("slides"),
    as_json: Json = False,
) -> None:
    """Make slides of the labs, an HTML file each that needs no network; of all where none is named."""
    from labkit import paths
    from labkit.authoring import release
    from labkit.classroom import slides as decks
    from labkit.progress import Bars

    written = decks.write(release.find_labs(paths.SOURCES, labs or ()), out, Bars())
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            print(path)
        print("open one in a browser: arrow keys turn the slides; print it for a PDF, a slide a page")


def _show_report(found: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from labkit.grading.texts import visible

    words = ("learner", "status", "step", "message", "remedy", "kit")
    table = Table("learner", "status", "step", "what it said", "remedy", "labkit", "made", "restored")
    for row in found.rows:
        texts = [visible(row[name] or "", _LONGEST_TEXT) for name in words]
        table.add_row(*map(escape, texts), _seconds(row["made_s"]), _seconds(row["restored_s"]))
    console = Console(emoji=False, highlight=False)
    console.print(table)
    lines = [f"{one['file']}: {one['sentence']}" for one in found.problems]
    lines += [
        f"labkit {kit}, and yours is {found.kit}: {', '.join(learners)}"
        for kit, learners in found.other_kits.items()
    ]
    lines += [_times("labkit up that makes the swarm", found.made)] if found.made else []
    lines += [_times("labkit up that restores it", found.restored)] if found.restored else []
    for line in lines:
        console.print(escape(line), soft_wrap=True)
    statuses = ("ready", "not ready", "missing")
    print("; ".join(f"{status}: {found.count(status)}" for status in statuses))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _times(what: str, times: Times) -> str:
    return (
        f"{what}: median {times.median:.1f} s of {times.machines}, "
        f"worst {times.worst:.1f} s ({times.slowest})"
    )
