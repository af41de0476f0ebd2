"""Commands for marking: grade, feedback, marks for a platform, and sign for the host of a class."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli.options import Database, Json, print_json

if TYPE_CHECKING:
    from labkit.grading.batch import MarkAll

app = typer.Typer()


@app.command()
def grade(
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="DIR/STUDENT/NOTEBOOK.ipynb, nbgrader's course, or a ZIP file of them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("grades.csv"),
    course: Annotated[
        Path | None, typer.Option(help="nbgrader's course folder; else DIR, or one named like OUT.")
    ] = None,
    db: Database = "",
    source: Annotated[Path | None, typer.Option(help="The labs' sources, if not the kit's.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds a cell may take.", min=1)] = 30,
    roster: Annotated[
        Path | None, typer.Option(help="CSV with the columns folder,student: whose folder is whose.")
    ] = None,
    handed_out: Annotated[
        str, typer.Option(metavar="DATE", help="Report evidence from before, 2026-10-05T08:00 say.")
    ] = "",
    public_key: Annotated[
        Path | None, typer.Option(help="Tell which evidence the lab's host has signed with its key.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Report evidence and answers that are too alike.")
    ] = False,
    per_try: Annotated[
        float, typer.Option(help="Points that a question loses for each wrong answer before.", min=0)
    ] = 0.0,
    per_hint: Annotated[float, typer.Option(help="Points that it loses for each hint.", min=0)] = 0.0,
    due: Annotated[
        list[str] | None,
        typer.Option(metavar="[LAB=]DATE", help="When labs are due, 03=2026-12-01T23:59 say."),
    ] = None,
    late: Annotated[
        float, typer.Option(metavar="PERCENT", help="Of the points, for each day after it.", min=0)
    ] = 0.0,
    scheduler: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Mark on the workers of this Dask scheduler, tcp://HOST:8786."
        ),
    ] = "",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run strangers' code unsandboxed, with all your rights.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Mark submissions: each is run again on its own evidence, shut in, and needs no swarm."""
    from labkit import paths
    from labkit.authoring import release as releases
    from labkit.grading import batch as grading
    from labkit.grading import lateness
    from labkit.grading import roster as rosters
    from labkit.grading.sandbox import Limits
    from labkit.progress import Bars

    looks = grading.Looks(
        roster=rosters.read(roster) if roster else {},
        handed_out=_date(handed_out) if handed_out else None,
        public_key=public_key,
        compare=compare,
    )
    labs = releases.find_labs(source or paths.SOURCES)
    dates = lateness.read(due or (), [lab.stem for lab in labs])
    if unsafe:
        print("labkit: --unsafe: submissions run with all your rights", file=sys.stderr)
    rows = grading.grade(
        directory,
        sources=labs,
        out=out,
        course=course,
        database=db,
        limits=Limits(cell_seconds=timeout, notebook_seconds=10 * timeout),
        sandboxed=not unsafe,
        looks=looks,
        costs=grading.Costs(per_try, per_hint, lateness.Due(dates, late)),
        mark_all=_on(scheduler),
        progress=Bars(),
    )
    if as_json:
        print_json(rows)
    else:
        _show_marks(rows, out, course or grading.course_of(directory, out))


def _on(scheduler: str) -> MarkAll:
    """Return what marks: the workers of a scheduler, or this machine where none is named."""
    from functools import partial

    from labkit.grading import dask_marking, processes

    return partial(dask_marking.mark_all, scheduler=scheduler) if scheduler else processes.mark_all


def _date(text: str) -> datetime:
    """Read a date in this machine's time zone, or the one it names; raises UsageError."""
    from labkit.errors import UsageError

    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as problem:
        raise UsageError(
            f"{text!r} is no date", hint="--handed-out 2026-10-05, 2026-10-05T08:00 or …T08:00+02:00"
        ) from problem


def _show_marks(rows: list[dict[str, Any]], out: Path, course: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from labkit.grading import overview
    from labkit.grading.results import predictions

    has_signatures = any(row["evidence"] for row in rows)
    columns = ["learner", "lab", "points", "of", "by hand", "status"]
    table = Table(*columns, *(["evidence"] if has_signatures else []))
    for row in rows:
        told = f"{row['status']}: {row['problem']}" if row["problem"] else row["status"]
        points = "?" if row["points"] is None else f"{row['points']:g}"
        marks = [points, f"{row['max']:g}", str(row["to_mark_by_hand"] or "")]
        signed = [row["evidence"]] if has_signatures else []
        table.add_row(escape(row["student"]), row["lab"], *marks, escape(told), *signed)
    console = Console()
    console.print(table)
    for row in rows:
        who = f"{row['student']} {row['lab'][:2]}"
        told = []
        for found in row["findings"]:
            about = f" {found['question']}" if found["question"] else ""
            told.append(f"{who}{about}: {found['sentence']}")
        for other in row["alike"]:
            told.append(f"{who}: like {other['with']}: {'; '.join(other['shared'])}")
        for line in told:
            console.print(escape(line), highlight=False, soft_wrap=True)
    if sums := predictions(rows):
        summed = Table("lab", "question", "predicted", "learners", "as measured", "others said")
        for one in sums:
            others = ", ".join(f"{said} ({count})" for said, count in one["others"].items())
            counts = [str(one["made"]), str(one["as_measured"])]
            summed.add_row(
                one["lab"][:2], one["question"], escape(one["name"]), *counts, escape(others)
            )
        console.print(summed)
    print(f"submissions: {len(rows)}; marks: {out}; the class, for you alone: {course / overview.NAME}")
    print(f"pages for the learners: labkit feedback {course}")
    if by_hand := sum(row["to_mark_by_hand"] for row in rows):
        print(f"answers to read: {by_hand}; jupyter lab in {course}, menu Nbgrader, Formgrader")


@app.command()
def sign(
    evidence: Annotated[Path, typer.Argument(metavar="EVIDENCE", help="LAB.evidence.jsonl, or .gz.")],
    key: Annotated[Path, typer.Option(help="The host's private key.")],
    learner: Annotated[str, typer.Option(help="Who handed it in, as the host knows it.")],
    as_json: Json = False,
) -> None:
    """Sign evidence that was handed in, on the host of the lab and with a key learners cannot read."""
    from labkit.evidence import files, signing

    lab = evidence.name.removesuffix(".gz").removesuffix(files.SUFFIX)
    path = signing.sign(evidence, signing.private_key(key), lab=lab, learner=learner)
    if as_json:
        print_json({"evidence": str(evidence), "signature": str(path)})
    else:
        print(f"signed as {learner}'s: {path}")


@app.command("signing-key")
def signing_key(
    key: Annotated[Path, typer.Argument(metavar="KEYFILE", help="Where the private key shall be.")],
    as_json: Json = False,
) -> None:
    """Make a pair of keys: KEYFILE to sign with on the host, KEYFILE.pub for `labkit grade`."""
    from labkit.evidence import signing

    public = signing.make_key(key)
    if as_json:
        print_json({"key": str(key), "public_key": str(public)})
    else:
        print(f"private key: {key} (for the host alone); public key: {public}")


@app.command()
def feedback(
    course: Annotated[Path, typer.Argument(metavar="COURSE", help="What `labkit grade` names.")],
    db: Database = "",
    as_json: Json = False,
) -> None:
    """Write each learner's pages: what was asked, answered and found, and the points."""
    from labkit.grading import feedback as pages

    written = pages.write(course, db)
    if as_json:
        print_json([str(path) for path in written])
    else:
        print(f"pages in {course / 'feedback'}: {len(written)}")


@app.command()
def marks(
    grades: Annotated[Path, typer.Argument(metavar="GRADES", help="The CSV file of `labkit grade`.")],
    into: Annotated[Path, typer.Option(help="The gradebook that Moodle or Canvas has exported.")],
    out: Annotated[Path, typer.Option(help="The file to write, for the platform to import.")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAB=TITLE", help="A lab's column in it, 03='Assignment: ARP (Real)' say."
        ),
    ] = None,
    learner_column: Annotated[str, typer.Option(help="Its column with the learners' ids.")] = "",
    scale: Annotated[
        bool, typer.Option("--scale", help="Turn points into those of a column with another maximum.")
    ] = False,
    unread: Annotated[
        bool, typer.Option("--unread", help="Also those with answers in words that nobody has read.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the marks into a gradebook's export, for Moodle or Canvas to import again."""
    from labkit.errors import UsageError
    from labkit.grading import platforms

    columns = dict(one.partition("=")[::2] for one in column or ())
    if not all(columns.values()):
        raise UsageError("--column wants LAB=TITLE", hint="--column 03='Assignment: ARP (Real)'")
    filled = platforms.fill(
        into,
        platforms.read_marks(grades),
        columns=columns,
        learner=learner_column,
        scale=scale,
        unread=unread,
    )
    platforms.write(out, filled)
    if as_json:
        print_json({"file": str(out), "marks": filled.marks, "left_out": list(filled.left_out)})
        return
    for sentence in filled.left_out:
        print(f"left out: {sentence}")
    print(f"marks: {filled.marks}, in {out}; import it where you exported {into.name}")
