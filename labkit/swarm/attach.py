"""What a notebook attaches to: the running lab with its answers kept as evidence, or a replay."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from labkit import __version__, variants
from labkit.engines.base import Connection
from labkit.errors import EngineError
from labkit.evidence import cells, files, notes, replayed
from labkit.evidence.recorded import RecordedLink, Recorder
from labkit.evidence.writer import writer
from labkit.progress import Bars
from labkit.swarm import lifecycle
from labkit.swarm.lab import Lab
from labkit.swarm.places import Node
from labkit.transport.live import LiveLink


def attach(lab: str | None = None, *, replay: bool | str | Path = False) -> Lab:
    """Return a running lab, or start it with a progress bar; its answers are kept as evidence.

    With `replay` there is no swarm: the answers come from evidence, of a file or (True) from the
    recording of this notebook's lab that the kit came with. LABKIT_REPLAY, a file or a directory of
    such recordings, goes before that. Raises UsageError for evidence that cannot be read.
    """
    named = replayed.asked()
    if named is None and replay:
        named = files.of_kit() if replay is True else Path(replay)
    if named:
        return _replayed(named)
    replayed.end()
    wanted = lab or lifecycle.default_lab()
    try:
        found = lifecycle.find_or_up(wanted, progress=Bars())
    except EngineError as problem:
        hint = f"{problem.hint}; without any swarm, with recorded answers: labkit.attach(replay=True)"
        raise EngineError(problem.args[0], hint=hint.removeprefix("; ")) from problem
    if file := files.target():
        return _with_evidence(found, file)
    if moved := cells.moved():
        print(moved)
    return found


def _with_evidence(lab: Lab, file: Path) -> Lab:
    """Keep evidence of all that is asked of a lab from now on."""
    try:
        lines = writer(file, variants.of().learner)
    except OSError as problem:
        print(f"No evidence is kept: {file}: {problem.strerror}. The lab itself works.")
        return lab
    nodes = {}
    for node in lab.nodes.values():
        assert isinstance(node.link, LiveLink)
        link = RecordedLink(node.name, node.docker_version, node.link, lines)
        nodes[node.name] = dataclasses.replace(node, link=link)
    kept = dataclasses.replace(lab, nodes=nodes)
    recorder = Recorder(lines, kept.manager.name, kept.manager.full_version)
    notes.keep(recorder)
    recorder.start("lab")(
        {
            "lab": kept.name,
            "engine": kept.engine.kind,
            "accel": kept.engine.accel,
            "labkit": __version__,
            "nodes": [
                {
                    "name": node.name,
                    "address": node.address,
                    "container": node.container,
                    "docker": node.docker_version,
                    **({"machine": node.machine} if node.machine else {}),
                }
                for node in nodes.values()
            ],
        }
    )
    return kept


def _replayed(file: Path) -> Lab:
    """Return the lab that a file of evidence is of, and tell the learner that it does not run."""
    notes.keep(None)
    replay = replayed.begin(file)
    line = replay.take("lab", {})
    replay.done(line)
    row = line.row
    nodes = {
        node["name"]: Node(
            name=node["name"],
            address=node["address"],
            container=node["container"],
            docker_version=node["docker"],
            link=replayed.ReplayedLink(node["name"], replay),
            log=list,
            machine=node.get("machine", ""),
        )
        for node in row["nodes"]
    }
    connection = Connection(
        kind="replay",
        accel=row["accel"],
        client=replayed.ReplayedLink("the machine", replay).docker,
        environment={},
        label=row["lab"],
        open_socket=lambda *_: replayed.nowhere(file.name),
    )
    print(
        f"Replay of {file.name}: no swarm is running. Every answer was recorded on "
        f"{datetime.fromtimestamp(line.started, UTC):%Y-%m-%d %H:%M} UTC, "
        f"of {replay.evidence.learner}'s swarm with Docker {row['docker']}."
    )
    return Lab(
        row["lab"],
        connection,
        nodes[row["nodes"][0]["name"]].docker_version,
        nodes,
        replay.evidence.learner,
    )
