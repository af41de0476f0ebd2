"""Commands for a class: the check before it, its server, handing in and giving back, and slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.options import Docker, EngineKind, Json, print_json
from labkit.engines import DEFAULT_DOCKER

if TYPE_CHECKING:
    from labkit.classroom.report import Report, Times
    from labkit.grading.exchange import Exchange

app = typer.Typer(
    help="A class: check each machine before it, make its server, hand in, collect and give back.",
    no_args_is_help=True,
)

Course = Annotated[Path, typer.Option(metavar="DIR", help="The course folder that `init` made.")]
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


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, /srv/class say.")],
    learners: Annotated[
        list[str] | None, typer.Argument(metavar="LOGIN…", help="The learners' logins, their ids.")
    ] = None,
    instructor: Annotated[
        list[str] | None, typer.Option(metavar="LOGIN", help="Who teaches; once for each.")
    ] = None,
    roster: Annotated[
        Path | None, typer.Option(help="CSV with a column `student`: the learners' logins.")
    ] = None,
    course: Annotated[str, typer.Option(help="The course's name in the exchange.")] = "labkit",
    spawner: Annotated[
        str, typer.Option(help="systemd, with limits for each learner; or local, without.")
    ] = "systemd",
    memory: Annotated[str, typer.Option(help="The most memory of a learner, swarm and all.")] = "3G",
    cpus: Annotated[float, typer.Option(help="The most processors of a learner.", min=0.5)] = 2.0,
    port: Annotated[int, typer.Option(help="The hub's port of loopback, and the two after it.")] = 8000,
    docker: Docker = DEFAULT_DOCKER,
) -> None:
    """Write a JupyterHub that is ready to start: a lab for each learner, out of one saved state."""
    from labkit.classroom import hub
    from labkit.progress import Bars

    wanted = hub.Class(
        directory.resolve(),
        hub.logins(learners or (), roster),
        instructor or [],
        course=course,
        docker=docker,
        spawner=spawner,
        port=port,
        memory=memory,
        cpus=cpus,
    )
    new = hub.write(wanted, Bars())
    print(f"{wanted.directory}: a class of {len(wanted.learners)}; {len(new)} accounts are to be made")
    print(f"next: the steps in {wanted.directory / 'README.md'}")


@app.command("hand-in")
def hand_in(
    notebooks: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK…", help="03_reach_….ipynb")],
) -> None:
    """Hand notebooks in, each with its evidence; the last time counts."""
    from labkit.grading import exchange

    course = _exchange()
    for notebook in notebooks:
        print(f"{notebook.name}: handed in at {exchange.hand_in(course, notebook)}")


@app.command()
def fetch(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Your folder of labs.")] = Path(),
) -> None:
    """Fetch the pages that were given back to you, into DIR/feedback."""
    from labkit.grading import exchange

    pages = exchange.fetch(_exchange(), directory)
    for page in pages:
        print(page)
    if not pages:
        print("nothing was given back yet")


def _exchange() -> Exchange:
    from labkit.errors import UsageError
    from labkit.grading import exchange

    found = exchange.of_learner()
    if not found:
        raise UsageError(
            f"no {exchange.VARIABLE} names the exchange of a class: this is not the server of one",
            hint="hand in the notebook and its .evidence.jsonl as your instructor says",
        )
    return found


@app.command("open")
def open_(
    labs: Annotated[list[str], typer.Argument(metavar="LAB…", help="03, reach_a_container, …")],
    course: Course = Path(),
) -> None:
    """Open labs: from now on learners can hand them in."""
    from labkit import paths
    from labkit.authoring import release
    from labkit.grading import exchange

    for source in release.find_labs(paths.SOURCES, labs):
        exchange.open_lab(course, paths.RELEASE / f"{source.stem}.ipynb")
        print(f"open: {source.stem}")


@app.command()
def collect(course: Course = Path(), as_json: Json = False) -> None:
    """Take what learners handed in last into the course folder, and sign it as received."""
    from dataclasses import asdict

    from labkit.classroom import hub
    from labkit.grading import exchange

    taken = exchange.collect(course, course / hub.KEY)
    if as_json:
        rows = [asdict(one) for one in taken]
        print_json(
            [
                r | {"handed_in": f"{r['handed_in'].isoformat()}Z", "folder": str(r["folder"])}
                for r in rows
            ]
        )
        return
    for one in taken:
        told = f"; {one.remark}" if one.remark else ""
        print(f"{one.learner} {one.lab}: handed in at {one.handed_in:%Y-%m-%d %H:%M:%S} UTC{told}")
    print(f"collected: {len(taken)}; mark them: labkit grade {course}")


@app.command("return")
def return_(course: Course = Path()) -> None:
    """Give back the pages that `labkit feedback` wrote: each learner can fetch their own."""
    from labkit.grading import exchange

    print(f"given back: {len(exchange.give_back(course))}")


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
