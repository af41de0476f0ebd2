"""The command `labkit`: words in, one document out.

With --json there is exactly one JSON document on stdout; everything else goes to stderr. Exit codes:
0 done, 1 a check or experiment failed, 2 wrong use, 3 the engine or swarm could not be had.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from labkit import __version__
from labkit.cli.lab import lab as open_lab
from labkit.errors import LabkitError, UsageError, redact

if TYPE_CHECKING:
    from labkit.progress import Progress
    from labkit.swarm import Started

app = typer.Typer(
    help="Hands-on labs on container networking, on a real Docker Swarm on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
vm_app = typer.Typer(
    help="The embedded machine: build it once, see what the cache holds.", no_args_is_help=True
)
app.command("lab")(open_lab)
app.add_typer(vm_app, name="vm")
checkpoint_app = typer.Typer(
    help="Moments of a lab to come back to (embedded machine only).", no_args_is_help=True
)
app.add_typer(checkpoint_app, name="checkpoint")
fault_app = typer.Typer(help="Break one thing on purpose, find it, mend it.", no_args_is_help=True)
app.add_typer(fault_app, name="fault")

Lab = Annotated[str, typer.Option("--lab", envvar="LABKIT_LAB", help="The lab's name.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Docker = Annotated[str, typer.Option("--docker", help="Docker version of the nodes.")]
Compose = Annotated[
    Path | None, typer.Option(help="Another description of the nodes than compose/swarm.yaml.")
]
Nodes = Annotated[int, typer.Option(help="How many nodes, 1 to 20.")]
Managers = Annotated[int, typer.Option(help="How many of them are managers.")]
Moment = Annotated[str, typer.Argument(metavar="NAME", help="The checkpoint's name.")]
EngineKind = Annotated[str, typer.Option("--engine", help="auto, docker or vm.")]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"labkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Hands-on labs on container networking, on a real Docker Swarm on this machine."""


class _Stopped(BaseException):
    """Ctrl-C or a polite kill. Not KeyboardInterrupt, which typer turns into a bare exit code."""


def _stop(*_: object) -> NoReturn:
    raise _Stopped


def main() -> NoReturn:
    """Run the command; a typed error becomes one message and its exit code."""
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = app(standalone_mode=False)
    except _Stopped:
        _fail("stopped by Ctrl-C; `labkit status` tells what runs", 130)
    except LabkitError as problem:
        _fail(str(problem), problem.exit_code)
    except Exception as problem:
        if type(problem).__module__.partition(".")[0] in ("docker", "requests"):
            told = redact(f"{type(problem).__name__}: {problem}")
            _fail(f"a Docker engine did not do what it was asked: {told}\nNext step: labkit status", 3)
        # typer's own errors, of wrong use, have a message made for people.
        if not hasattr(problem, "format_message"):
            raise
        _fail(f"{problem.format_message()}\nNext step: labkit --help", 2)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"labkit: {message}", file=sys.stderr)
    sys.exit(code)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _show_status(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    accel = f", {status['accel']}" if status["accel"] else ""
    title = f"lab {status['lab']}: Docker {status['docker']} on engine {status['engine']}{accel}"
    table = Table(title=title, title_justify="left")
    for column in ("name", "role", "address", "state"):
        table.add_column(column)
    for node in status["nodes"]:
        table.add_row(node["name"], node["role"], node["address"], node["state"])
    Console().print(table)


@app.command()
def up(
    nodes: Nodes = 3,
    managers: Managers = 1,
    docker: Docker = "26.1",
    engine: EngineKind = "auto",
    lab: Lab = "default",
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the saved state anew.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave what failed for a look.")] = False,
    compose: Compose = None,
    as_json: Json = False,
) -> None:
    """Stand up a swarm that answers."""
    from labkit import swarm
    from labkit.progress import Bars

    started = swarm.up(
        lab,
        nodes=nodes,
        managers=managers,
        docker=docker,
        engine=engine,
        fresh=fresh,
        keep=keep,
        compose=compose,
        progress=Bars(),
    )
    _show_started(started, as_json)


def _show_started(started: Started, as_json: bool) -> None:
    seconds, restored = started.seconds, started.restored
    times = {"seconds": round(seconds, 2), "api_seconds": round(started.api_seconds, 2)}
    status = {**started.lab.status(), **times, "restored": restored}
    started.lab.close()
    if as_json:
        _print_json(status)
        return
    _show_status(status)
    how = "restored" if restored else "made"
    print(f"{how} in {seconds:.1f} s; try: labkit exec node1 -- docker node ls")


@app.command()
def status(lab: Lab = "default", as_json: Json = False) -> None:
    """Look at a lab: its nodes and their state."""
    from labkit import swarm

    began = time.monotonic()
    found = swarm.get(lab)
    told = {**found.status(), "seconds": round(time.monotonic() - began, 2)}
    found.close()
    if as_json:
        _print_json(told)
    else:
        _show_status(told)


@app.command()
def reset(lab: Lab = "default", compose: Compose = None, as_json: Json = False) -> None:
    """Return a lab to the swarm that it began as."""
    from labkit import swarm
    from labkit.progress import Bars

    _show_started(swarm.reset(lab, compose=compose, progress=Bars()), as_json)


@app.command()
def down(
    lab: Lab = "default",
    every: Annotated[bool, typer.Option("--all", help="Every lab of this machine.")] = False,
    as_json: Json = False,
) -> None:
    """Take a lab down and leave nothing of it."""
    from labkit import engines, swarm
    from labkit.engines.vm import process as vm
    from labkit.engines.vm import snapshots as states

    names = [lab]
    if every:
        names = sorted({*engines.labs(), *vm.leftovers(), *states.leftovers()})
    gone = [name for name in names if swarm.down(name)]
    if as_json:
        _print_json({"down": gone})
    elif gone:
        print(f"down: {', '.join(gone)}")
    else:
        print("nothing to take down")


@app.command()
def exec(
    node: Annotated[str, typer.Argument(help="A node, as labkit status names it.")],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="What to run.")],
    lab: Lab = "default",
    task: Annotated[str | None, typer.Option(help="In this task, SERVICE.N.")] = None,
    netns: Annotated[str | None, typer.Option(help="In this network namespace.")] = None,
    as_json: Json = False,
) -> None:
    """Run a command on a node, in a task, or in a network namespace of that node."""
    from labkit import swarm

    found = swarm.get(lab)
    try:
        where = swarm.place_of(found, node, task=task, netns=netns)
        capture = where.run(command)
    finally:
        found.close()
    if as_json:
        told = capture.to_json()
        _print_json({"node": node, **{k: told[k] for k in told if k != "node"}})
    else:
        sys.stdout.write(capture.stdout)
        sys.stderr.write(capture.stderr)
    raise typer.Exit(capture.code)


@app.command()
def env(lab: Lab = "default", as_json: Json = False) -> None:
    """Print shell lines that point the ordinary docker at the lab's engine: eval "$(labkit env)"."""
    from labkit import engines
    from labkit.errors import UnknownNameError

    engine = engines.find(lab)
    if engine is None:
        raise UnknownNameError("running lab", lab, engines.labs(), hint="labkit up")
    if as_json:
        _print_json(dict(engine.environment))
        return
    for name, value in engine.environment.items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine can run, why, and the remedy for what it cannot."""
    from labkit import doctor as diagnosis

    told = diagnosis.examine()
    if as_json:
        _print_json(told)
        return
    accel = f", {told['accel']}" if told["accel"] else ""
    print(f"`labkit up` would use the engine {told['engine']}{accel}: {told['why']}")
    for check in told["checks"]:
        print(f"  {'ok ' if check['ok'] else 'NO '} {check['name']}: {check['detail']}")
        if check["remedy"] and not check["ok"]:
            print(f"       remedy: {check['remedy']}")


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
    from labkit.authoring import release, runner
    from labkit.authoring import report as reports
    from labkit.evidence import files as kept
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

        def show(name: str, done: int, cells: int) -> None:
            step.note(f"{name}: cell {done} of {cells}")

        results = runner.run_labs(
            sources,
            workdir=directory / "notebooks",
            env={"LABKIT_LAB": lab},
            timeout=300,
            replay=replay,
            on_progress=show,
        )
    if evidence:
        evidence.mkdir(parents=True, exist_ok=True)
        for item in results:
            file = kept.beside(item.notebook_path)
            if file.is_file():  # a lab that stopped early may have asked nothing
                kept.pack(file, evidence / f"{file.name}.gz")
    page = reports.write_report(results, directory, facts=facts)
    told = runner.to_json(results)
    if as_json:
        _print_json(told)
    else:
        for item in results:
            for check in item.checks:
                print(f"{check.status:<13} {item.id} {check.id}: {check.message.strip()}")
            if item.error:
                print(f"{'STOPPED':<13} {item.id}: {item.error}")
        print(f"{told['passed']} passed, {told['failed']} failed; report: {page}")
    if told["failed"] or any(item.error for item in results):
        raise typer.Exit(1)


def _facts_of_swarm(lab: str, docker: str | None, engine: str, bars: Progress) -> dict[str, str]:
    """Find the lab, or start it; returns what heads the report."""
    from labkit import swarm

    running = swarm.find(lab)
    if running is None:
        running = swarm.up(lab, docker=docker or swarm.DEFAULT_DOCKER, engine=engine, progress=bars).lab
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
    from labkit.evidence import files as evidence

    told: dict[str, set[str]] = {}
    for source in sources:
        lines = evidence.read(evidence.of_lab(directory, source.stem)).lines
        for line in lines:
            if line.kind == "lab":
                row = line.row
                engine = " ".join(filter(None, [row["engine"], row["accel"]]))
                told.setdefault("Docker version of the nodes", set()).add(row["docker"])
                told.setdefault("Engine", set()).add(
                    f"replay: no swarm was running; recorded on {engine}"
                )
                told.setdefault("Recorded", set()).add(row["started"][:10])
                told.setdefault("Learner", set()).add(row["learner"])
                told.setdefault("Nodes", set()).add(str(len(row["nodes"])))
    return {name: ", ".join(sorted(values)) for name, values in told.items()}


@app.command()
def bench(
    rounds: Annotated[int, typer.Option(help="How often each figure is measured.", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """Measure what people wait for, beside what they would do without labkit."""
    from labkit import benchmark, paths
    from labkit.progress import Bars

    results = paths.results() / "bench" / "results"
    results.mkdir(parents=True, exist_ok=True)
    for record in benchmark.run(rounds, Bars()):
        (results / f"{record['date']}.json").write_text(json.dumps(record, indent=2) + "\n")
    benchmark.plot(record, (paths.CHECKOUT / "docs" if paths.CHECKOUT else results) / "up.png")
    if as_json:
        _print_json(record)
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
        _print_json(ledger.to_json(found))
        return
    versions = sorted({version for claim in found for version in claim.seen})
    table = Table("lab", "statement", "source", "its words are", *versions, show_lines=True)
    for claim in found:
        marks = [{True: "✓", False: "✗", None: "?"}[claim.seen.get(version)] for version in versions]
        table.add_row(claim.lab[:2], claim.statement, claim.source, claim.verdict, *marks)
    Console().print(table)


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
        caged=not unsafe,
        progress=Bars(),
    )
    if as_json:
        _print_json(rows)
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
        _print_json([str(path) for path in written])
    else:
        print(f"pages in {course / 'feedback'}: {len(written)}")


@app.command()
def release() -> None:
    """Build the learners' notebooks in labs/release from the sources."""
    from labkit import paths
    from labkit.authoring import release as releases

    directory = paths.results()
    for path in releases.release(paths.SOURCES, directory / "labs" / "release"):
        print(path.relative_to(directory))


@vm_app.command("build")
def vm_build(docker: Docker = "26.1") -> None:
    """Build the embedded machine and its node image from Debian's packages."""
    from labkit.engines import debian as bootstrap
    from labkit.engines.vm import process as vm
    from labkit.progress import Bars

    bootstrap.release(docker)
    print(vm.node_disk(docker, Bars()).parent)


@vm_app.command("export")
def vm_export(
    file: Annotated[Path, typer.Argument(help="The file to write, class.tar.zst say.")],
    nodes: Nodes = 3,
    managers: Managers = 1,
    docker: Docker = "26.1",
    as_json: Json = False,
) -> None:
    """Write the machine and the saved state of a swarm into one file, for a class."""
    from labkit import swarm
    from labkit.engines.vm import bundle
    from labkit.progress import Bars

    written = bundle.write(file, swarm.wanted(docker, nodes, managers), Bars())
    if as_json:
        _print_json({"file": str(file), **written})
        return
    print(f"{file}: {written['file'] / 1e6:.0f} MB, of {written['content'] / 1e6:.0f} MB")
    print("It holds the machine's keys: hand it to the class, and to nobody else.")


@vm_app.command("import")
def vm_import(
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


@vm_app.command("info")
def vm_info(as_json: Json = False) -> None:
    """Show what the cache holds and how much disk it takes."""
    from labkit.engines.vm import image as machine

    facts = machine.facts()
    if as_json:
        _print_json(facts)
        return
    files = facts["files"]
    assert isinstance(files, dict)
    for name, size in files.items():
        print(f"{size / 1e6:10.1f} MB  {name}")
    print(f"{sum(files.values()) / 1e6:10.1f} MB  in {facts['directory']}")


@checkpoint_app.command("save")
def checkpoint_save(name: Moment, lab: Lab = "default") -> None:
    """Keep this moment of the lab."""
    from labkit.engines.vm import checkpoints
    from labkit.progress import Bars

    with Bars().stage(f"keeping {name}"):
        checkpoints.save(lab, name)
    print(f"kept; back to it: labkit checkpoint restore {name}")


@checkpoint_app.command("restore")
def checkpoint_restore(name: Moment, lab: Lab = "default") -> None:
    """Return the lab to a moment that was kept; what came after it is lost."""
    from labkit.engines.vm import checkpoints
    from labkit.progress import Bars

    with Bars().stage(f"back to {name}"):
        checkpoints.restore(lab, name)
    status(lab)


@checkpoint_app.command("list")
def checkpoint_list(lab: Lab = "default", as_json: Json = False) -> None:
    """List the moments of the lab that were kept."""
    from datetime import datetime

    from labkit.engines.vm import checkpoints

    moments = checkpoints.kept(lab)
    if as_json:
        _print_json([vars(moment) for moment in moments])
        return
    for moment in moments:
        when = datetime.fromtimestamp(moment.created).strftime("%Y-%m-%d %H:%M")
        print(f"{moment.size / 1e6:10.1f} MB  {when}  {moment.name}")
    if not moments:
        print("none yet; labkit checkpoint save NAME")


@checkpoint_app.command("remove")
def checkpoint_remove(name: Moment, lab: Lab = "default") -> None:
    """Remove a moment that was kept."""
    from labkit.engines.vm import checkpoints

    checkpoints.remove(lab, name)


@fault_app.command("list")
def fault_list(lab: Lab = "default", as_json: Json = False) -> None:
    """List the faults that can be injected, and whether one is."""
    from labkit import faults, swarm

    found = swarm.find(lab)
    now = faults.injected(found) if found else None
    if found:
        found.close()
    told = {"fault": None if now.secret else now.fault, "secret": now.secret} if now else None
    if as_json:
        rows = [
            {"id": f.id, "title": f.title, "symptom": f.symptom, "check": f.check}
            for f in faults.FAULTS.values()
        ]
        _print_json({"faults": rows, "injected": told})
        return
    for fault in faults.FAULTS.values():
        print(f"{fault.id:<22} {fault.title}")
    if now:
        print(f"\ninjected: {'a secret one' if now.secret else now.fault}; labkit fault heal mends it")
    else:
        print("\ninjected: none")


@fault_app.command("inject")
def fault_inject(
    fault: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="As labkit fault list names it.")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Do not say which; without an ID any one is taken.")
    ] = False,
    lab: Lab = "default",
    as_json: Json = False,
) -> None:
    """Break one thing and wait until it shows; the services to try it on are made if need be."""
    from labkit import faults, swarm
    from labkit.progress import Bars

    if fault is None and not secret:
        raise UsageError("which fault?", hint="labkit fault list, or: labkit fault inject --secret")
    wanted = None if fault is None else faults.of(fault)
    found = swarm.get(lab)
    began = time.monotonic()
    try:
        with Bars().stage("a secret fault" if secret or wanted is None else wanted.title):
            if wanted is None:
                faults.inject_any(found)
            else:
                faults.inject(found, wanted.id, secret=secret)
    finally:
        found.close()
    shown = None if secret else wanted
    if as_json:
        seconds = round(time.monotonic() - began, 2)
        _print_json({"fault": shown.id if shown else None, "secret": secret, "seconds": seconds})
    else:
        print(f"injected: {f'{shown.id}. {shown.symptom}' if shown else 'you find out what'}")
        print("what is red: labkit fault check; mend it by hand, or: labkit fault heal")


@fault_app.command("check")
def fault_check(lab: Lab = "default", as_json: Json = False) -> None:
    """Ask every check of the services that faults are tried on; exit code 1 where one is red."""
    from labkit import faults, swarm

    found = swarm.get(lab)
    try:
        seen = faults.examine(found)
    finally:
        found.close()
    if as_json:
        columns = ["check", "question", "node", "place", "ok", "expected", "found"]
        _print_json(seen[columns].to_dict("records"))
    else:
        for row in seen.itertuples():
            wrong = "" if row.ok else f": expected {row.expected}, found {row.found}"
            print(f"{'ok ' if row.ok else 'NO '} {row.check:<14} {row.question}{wrong}")
    if not seen["ok"].all():
        raise typer.Exit(1)


@fault_app.command("heal")
def fault_heal(lab: Lab = "default", as_json: Json = False) -> None:
    """Undo what is injected, and wait until every check is green again."""
    from labkit import faults, swarm
    from labkit.progress import Bars

    found = swarm.get(lab)
    began = time.monotonic()
    try:
        with Bars().stage("mending"):
            healed = faults.injected(found)
            green = faults.heal(found) is not None
    finally:
        found.close()
    name = None if healed is None or healed.secret else healed.fault
    if as_json:
        seconds = round(time.monotonic() - began, 2)
        _print_json({"healed": healed is not None, "fault": name, "green": green, "seconds": seconds})
        return
    what = "nothing was injected" if healed is None else f"healed: {name or 'the secret fault'}"
    print(f"{what}; {'every check is green' if green else 'there are no checks to ask'}")


if __name__ == "__main__":
    main()
