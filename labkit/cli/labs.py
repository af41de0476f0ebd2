"""Commands for the labs: run, hint, answers, claims, release, bench."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit import __version__
from labkit.cli.options import EngineKind, Json, Lab, print_json
from labkit.errors import UsageError

if TYPE_CHECKING:
    from labkit.authoring.runner import LabResult
    from labkit.progress import Progress

app = typer.Typer()


@app.command()
def run(
    labs: Annotated[list[str] | None, typer.Argument(help="03, reach_a_container, …")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    docker: Annotated[str | None, typer.Option(help="Docker version of the nodes.")] = None,
    engine: EngineKind = "auto",
    lab: Lab = "default",
    evidence: Annotated[
        Path | None, typer.Option(help="Also keep each lab's evidence in this directory, packed.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="No swarm: answers from the evidence in this directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Execute the labs with their solutions on the live swarm; all of them where none is named."""
    from labkit import paths
    from labkit.authoring import claims as ledger
    from labkit.authoring import release, runner
    from labkit.authoring.report import write_report
    from labkit.progress import Bars

    if replay and (evidence or docker):
        raise UsageError(
            "a replay leaves no evidence, and its Docker version is the recorded one",
            hint="labkit run --replay labs/evidence, without --evidence and --docker",
        )
    sources = release.find_labs(paths.SOURCES, labs or ())
    bars = Bars()
    if replay:
        facts = _facts_of_evidence(replay, sources)
    else:
        facts = _facts_of_swarm(lab, docker, engine, bars)
    directory = report or paths.results() / "report"
    directory.mkdir(parents=True, exist_ok=True)
    with bars.stage(f"{len(sources)} labs") as step:
        results = runner.run_labs(
            sources,
            workdir=directory / "notebooks",
            env={"LABKIT_LAB": lab},
            timeout=300,
            replay=replay,
            on_progress=lambda name, done, cells: step.note(f"{name}: cell {done} of {cells}"),
        )
    if evidence:
        _keep_evidence(results, evidence)
    statements = ledger.statements(paths.LABS)
    page = write_report(results, directory, facts={**facts, **_facts_of_kit()}, statements=statements)
    document = runner.to_json(results)
    if as_json:
        print_json(document)
    else:
        _show_outcomes(results)
        print(f"{document['passed']} passed, {document['failed']} failed; report: {page}")
    if document["failed"] or any(result.error for result in results):
        raise typer.Exit(1)


@app.command()
def hint(
    question: Annotated[str, typer.Argument(metavar="LAB.QUESTION", help="03.who, say.")],
    step: Annotated[int, typer.Option(help="Up to which hint; the last is nearly the answer.")] = 1,
    as_json: Json = False,
) -> None:
    """Show the hints of a question, the first one or as many as asked for."""
    from labkit import tries

    lab, _, _ = question.rpartition(".")
    if not lab:
        raise UsageError(f"{question!r} names no lab", hint="labkit hint LAB.QUESTION: 03.who, say")
    given = tries.find(question).hints
    if not 1 <= step <= len(given):
        raise UsageError(f"{question} has {len(given)} hints; --step {step} is none of them")
    if as_json:
        print_json(list(given[:step]))
    else:
        for number, text in enumerate(given[:step], 1):
            print(f"Hint {number} of {len(given)}: {text}")


@app.command()
def answers(
    lab: Annotated[str, typer.Argument(metavar="LAB", help="03, reach_a_container, …")],
    learner: Annotated[str, typer.Option(help="Whose names and numbers the key shall have.")],
    as_json: Json = False,
) -> None:
    """Print an instructor's key of a lab for one learner."""
    from labkit import paths
    from labkit.authoring import answers as keys
    from labkit.authoring import release as releases

    (source,) = releases.find_labs(paths.SOURCES, [lab])
    rows = keys.key(source, learner)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['id']} ({row['points']:g}): {row['asked']}")
        for line in row["solution"].splitlines():
            print(f"    {line}")
        for one in row["rubric"]:
            print(f"    {one['points']:g} of them: {one['criterion']}")


def _show_outcomes(results: list[LabResult]) -> None:
    for result in results:
        for check in result.checks:
            print(f"{check.status:<13} {result.id} {check.id}: {check.message.strip()}")
        if result.error:
            print(f"{'STOPPED':<13} {result.id}: {result.error}")


def _keep_evidence(results: list[LabResult], directory: Path) -> None:
    """Pack the evidence that the labs have left beside their notebooks."""
    from labkit.evidence import files

    directory.mkdir(parents=True, exist_ok=True)
    for result in results:
        file = files.beside(result.notebook_path)
        if file.is_file():  # a lab that stopped early may have asked nothing
            files.pack(file, directory / f"{file.name}.gz")


def _facts_of_kit() -> dict[str, str]:
    """Return what a report says of the program that wrote it, and when."""
    return {
        "labkit": __version__,
        "Python": platform.python_version(),
        "Written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _facts_of_swarm(lab: str, docker: str | None, engine: str, bars: Progress) -> dict[str, str]:
    """Find the lab, or start it; returns what heads the report."""
    from labkit import swarm

    running = swarm.find(lab)
    if running is None:
        running = swarm.find_or_up(lab, docker=docker, engine=engine, progress=bars)
        print(f"lab {lab} stays up; labkit down --lab {lab} takes it down", file=sys.stderr)
    elif docker and running.docker != docker:
        raise UsageError(
            f"lab {lab!r} runs Docker {running.docker}, and {docker} was asked for",
            hint=f"labkit down --lab {lab}, then the same command again; or another --lab",
        )
    facts = {
        "Docker version of the nodes": running.manager.full_version,
        "Engine": " ".join(filter(None, [running.engine.kind, running.engine.accel])),
        "Nodes": str(len(running.nodes)),
        "Processors": str(os.cpu_count()),
    }
    running.close()
    return facts


def _facts_of_evidence(directory: Path, sources: list[Path]) -> dict[str, str]:
    """Read what the labs were recorded on; returns what heads the report."""
    from labkit.evidence import files, reader

    facts: dict[str, set[str]] = {}
    for source in sources:
        for line in reader.read(files.of_lab(directory, source.stem)).lines:
            if line.kind == "lab":
                row = line.row
                engine = " ".join(filter(None, [row["engine"], row["accel"]]))
                seen = {
                    "Docker version of the nodes": row["docker"],
                    "Engine": f"replay: no swarm was running; recorded on {engine}",
                    "Recorded": row["started"][:10],
                    "Learner": row["learner"],
                    "Nodes": str(len(row["nodes"])),
                }
                for name, value in seen.items():
                    facts.setdefault(name, set()).add(value)
    return {name: ", ".join(sorted(values)) for name, values in facts.items()}


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(help="How often each figure is measured.", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """Measure what people wait for, beside what they would do without labkit."""
    from labkit import benchmark, files, paths
    from labkit.progress import Bars

    results = paths.results() / "bench" / "results"
    results.mkdir(parents=True, exist_ok=True)
    for record in benchmark.run(rounds, Bars()):
        files.write_text(results / f"{record['date']}.json", json.dumps(record, indent=2) + "\n")
    benchmark.plot(record, (paths.CHECKOUT / "docs" if paths.CHECKOUT else results) / "up.png")
    if as_json:
        print_json(record)
    else:
        print(benchmark.table(record))


@app.command()
def claims(as_json: Json = False) -> None:
    """Show what the labs state about Docker's network, who says so, and where it was seen."""
    from rich.console import Console
    from rich.table import Table

    from labkit import paths
    from labkit.authoring import claims as ledger

    found = ledger.ledger(paths.LABS, paths.MATRIX)
    if as_json:
        print_json(ledger.to_json(found))
        return
    versions = sorted({version for claim in found for version in claim.seen})
    table = Table("lab", "statement", "source", "its words are", *versions, show_lines=True)
    for claim in found:
        marks = [{True: "✓", False: "✗", None: "?"}[claim.seen.get(version)] for version in versions]
        table.add_row(claim.lab[:2], claim.statement, claim.source, claim.verdict, *marks)
    Console().print(table)


@app.command()
def release() -> None:
    """Build the learners' notebooks in labs/release from the sources."""
    from labkit import paths
    from labkit.authoring import release as releases

    directory = paths.results()
    for path in releases.release(paths.SOURCES, directory / "labs" / "release"):
        print(path.relative_to(directory))
