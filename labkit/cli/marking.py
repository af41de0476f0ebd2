"""Commands for marking: grade, feedback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit.cli.options import Json, print_json

app = typer.Typer()


@app.command()
def grade(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="DIR/STUDENT/NOTEBOOK.ipynb, or nbgrader's course.")
    ],
    out: Annotated[Path, typer.Option(help="The CSV file to write.")] = Path("grades.csv"),
    course: Annotated[
        Path | None, typer.Option(help="nbgrader's course folder; else DIR, or one named like OUT.")
    ] = None,
    db: Annotated[str, typer.Option(help="Another gradebook: a SQLAlchemy URL.")] = "",
    source: Annotated[Path | None, typer.Option(help="The labs' sources, if not the kit's.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds a cell may take.", min=1)] = 30,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run strangers' code without a cage, with all your rights.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Mark submissions: each is run again on its own evidence, shut in, and needs no swarm."""
    from labkit import paths
    from labkit.authoring import release as releases
    from labkit.grading import batch as grading
    from labkit.grading import sandbox as cage
    from labkit.progress import Bars

    if unsafe:
        print("labkit: --unsafe: submissions run with all your rights", file=sys.stderr)
    rows = grading.grade(
        directory,
        sources=releases.find_labs(source or paths.SOURCES),
        out=out,
        course=course,
        database=db,
        limits=cage.Limits(cell_seconds=timeout, notebook_seconds=10 * timeout),
        sandboxed=not unsafe,
        progress=Bars(),
    )
    if as_json:
        print_json(rows)
    else:
        _show_marks(rows, out, course or grading.course_of(directory, out))


def _show_marks(rows: list[dict[str, Any]], out: Path, course: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("learner", "lab", "points", "of", "by hand", "status")
    for row in rows:
        told = f"{row['status']}: {row['problem']}" if row["problem"] else row["status"]
        marks = [f"{row['points']:g}", f"{row['max']:g}", str(row["to_mark_by_hand"] or "")]
        table.add_row(escape(row["student"]), row["lab"], *marks, escape(told))
    console = Console()
    console.print(table)
    for row in rows:
        for found in row["findings"]:
            about = f" {found['question']}" if found["question"] else ""
            told = escape(f"{row['student']} {row['lab'][:2]}{about}: {found['sentence']}")
            console.print(told, highlight=False, soft_wrap=True)
    print(f"submissions: {len(rows)}; marks: {out}; pages for the learners: labkit feedback {course}")
    if by_hand := sum(row["to_mark_by_hand"] for row in rows):
        print(f"answers to read: {by_hand}; jupyter lab in {course}, menu Nbgrader, Formgrader")


@app.command()
def feedback(
    course: Annotated[Path, typer.Argument(metavar="COURSE", help="What `labkit grade` names.")],
    db: Annotated[str, typer.Option(help="Another gradebook: a SQLAlchemy URL.")] = "",
    as_json: Json = False,
) -> None:
    """Write each learner's pages: what was asked, answered and found, and the points."""
    from labkit.grading import feedback as pages

    written = pages.write(course, db)
    if as_json:
        print_json([str(path) for path in written])
    else:
        print(f"pages in {course / 'feedback'}: {len(written)}")
