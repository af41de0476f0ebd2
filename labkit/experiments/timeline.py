"""One change, and the order of what follows from it (lab 08)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.experiments.asking import TASK_PORT
from labkit.programs import watcher

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab, Place, Task

SOURCES = ["node", "task", "container", "DNS", "IPVS", "request", "kept"]

_COLUMNS = ["time_s", "source", "task", "node", "address", "what", "late_s", "took_s"]
_ENDED = {"complete", "shutdown", "failed", "rejected", "remove", "orphaned"}
_SIGNALS = {"9": "SIGKILL", "15": "SIGTERM"}
_MOMENTS = {
    "started": ("container", "started", "min"),
    "healthy": ("container", "healthy", "min"),
    "in_dns": ("DNS", "in", "min"),
    "in_ipvs": ("IPVS", "weight 1", "min"),
    "first_answer": ("request", "answered", "min"),
    "out_of_dns": ("DNS", "out", "min"),
    "weight_0": ("IPVS", "weight 0", "min"),
    "last_answer": ("request", "answered", "max"),
    "sigterm": ("container", "SIGTERM", "min"),
    "sigkill": ("container", "SIGKILL", "min"),
    "last_kept_answer": ("kept", "answered", "max"),
    "ended": ("container", "ended", "min"),
    "out_of_ipvs": ("IPVS", "out", "min"),
    "down": ("node", "down", "min"),
}


def timeline(
    lab: Lab,
    client: Task,
    service: str,
    place: Place,
    change: str | Sequence[str],
    *,
    undo: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Run one command, and watch a service until it has come to rest: a row an event.

    A client asks for the service's name and sends it requests, on new connections and on one to each
    task that was opened before. On the client's node IPVS's table of its one network is read, and on
    the manager the states of tasks and nodes. The end of a process that was there at the start is told
    by its node's kernel; what else happened to containers, by each node's engine afterwards. (The
    engine tells of an end late: it takes the container off its networks first.) With `undo`, that
    command is run in the same place at the end, whatever has happened, and the nodes are waited for.

    time_s     float       seconds since the command was started; a request's is when it was sent
    source     category    node, task: as a manager tells it; container: as its node tells it;
                           DNS, IPVS: seen at the client; request: on a new connection; kept: on one
                           that is held
    task       str         whom it is about, SERVICE.SLOT, with the word `new` for one that was not
                           there at the start; of a request, who answered; absent: nobody did
    node       str         where that task is; the node itself for the source `node`
    address    str         IPv4, for DNS and IPVS
    what       str         DNS: in, out; IPVS: weight 1, weight 0, out; task and node: the state;
                           container: started, healthy, SIGTERM, SIGKILL, ended; request and kept:
                           answered, refused, time-out, unreachable, broken off, no address
    late_s     float       it may have happened so much earlier; absent: it was not found by looking
    took_s     float       a request, from its sending to its end
    """
    (network,) = client.addresses
    script = ["python3", "-c", Path(watcher.__file__).read_text()]
    old: dict[str, dict[str, int]] = {}  # node -> container -> process
    for task in lab.tasks(service):
        old.setdefault(task.node.name, {})[task.container[:12]] = task.pid
    watched = [
        (client.place, [*script, "client", service, str(TASK_PORT)]),
        (client.node.load_balancer(network), [*script, "ipvs"]),
        (lab.manager.place, [*script, "swarm", service]),
        *(
            (lab.node(name).place, [*script, "ends", *(f"{c}={pid}" for c, pid in there.items())])
            for name, there in old.items()
        ),
    ]
    with contextlib.ExitStack() as heal:
        with contextlib.ExitStack() as stack:
            watching = [
                stack.enter_context(where.watch(argv, ready="watching", linger_s=0.0))
                for where, argv in watched
            ]
            before = _standing(lab, service)
            if undo:
                heal.callback(_wait_for_rest, lab, service, {})
                heal.callback(lab.wait_for_nodes)
                heal.callback(lambda: place.run(undo).check())
            changed = place.run(change).check()
            _wait_for_rest(lab, service, before)
            lab.wait_for_answers(service)
        began = changed.started.timestamp()
        until = lab.manager.run(["true"]).started.timestamp()
        lines = [json.loads(line) for running in watching for line in running.result().lines]
        known = {container for there in old.values() for container in there}
        told = _container_events(lab, service, int(began), int(until) + 1)
        lines += (row for row in told if row["what"] != "ended" or row["container"] not in known)
    return table(service, lines, began=began)


def _standing(lab: Lab, service: str) -> dict[str, tuple[str, str]]:
    """State and wanted state of each task of a service that a manager knows."""
    rows = lab.manager.docker.api.tasks(filters={"service": service})
    return {row["ID"]: (row["Status"]["State"], row["DesiredState"]) for row in rows}


def _wait_for_rest(lab: Lab, service: str, before: dict[str, tuple[str, str]]) -> None:
    """Wait until something has changed and every task is where it is wanted.

    A task on a node that is down stays `running` for ever: nobody there can tell of its end.
    """
    api = lab.manager.docker.api

    def look() -> tuple[bool, str]:
        down = {row["ID"] for row in api.nodes() if row["Status"]["State"] != "ready"}
        rows = api.tasks(filters={"service": service})
        update = (api.inspect_service(service).get("UpdateStatus") or {}).get("State", "completed")
        moving = []
        for row in rows:
            state, wanted = row["Status"]["State"], row["DesiredState"]
            settled = state == "running" if wanted == "running" else state in _ENDED
            if not settled and (wanted == "running" or row.get("NodeID") not in down):
                moving.append(f"slot {row.get('Slot')} is {state}, wanted {wanted}")
        now = {row["ID"]: (row["Status"]["State"], row["DesiredState"]) for row in rows}
        told = "; ".join(moving) or ("nothing has changed" if now == before else f"update {update}")
        return now != before and not moving and update == "completed", told

    lab.wait_for(f"the tasks of {service} to come to rest", look, seconds=240)


def _container_events(lab: Lab, service: str, since: int, until: int) -> Iterator[dict[str, Any]]:
    """What each node's engine tells of the service's containers, between two whole seconds."""
    label = f"com.docker.swarm.service.name={service}"
    for node in lab.nodes.values():
        told = node.docker.api.events(
            since=since, until=until, filters={"type": "container", "label": label}, decode=True
        )
        for event in told:
            actor = event["Actor"]["Attributes"]
            what = {"start": "started", "die": "ended"}.get(event["Action"])
            if event["Action"] == "kill":
                what = _SIGNALS.get(actor["signal"])
            elif event["Action"] == "health_status: healthy":
                what = "healthy"
            if what:
                container, at = event["Actor"]["ID"][:12], event["timeNano"] / 1e9
                yield {"source": "container", "at": at, "what": what, "container": container}


def table(service: str, lines: Iterable[dict[str, Any]], *, began: float) -> pd.DataFrame:
    """Turn what the watchers printed and the engines told into the table of `timeline`."""
    import pandas as pd

    told = sorted(lines, key=lambda line: line["at"])
    tasks = _tasks(service, [line["shows"]["tasks"] for line in told if line["source"] == "swarm"])
    by_container = {str(task["container"])[:12]: task for task in tasks.values() if task["container"]}
    by_address = {address: task for task in tasks.values() for address in task["addresses"]}
    rows: list[dict[str, Any]] = []
    shown: dict[tuple[str, str], str] = {}

    def changes(line: dict[str, Any], source: str, now: dict[str, str], gone: str | None) -> None:
        """Add a row for each thing whose word is another than before."""
        known = {key: what for (where, key), what in shown.items() if where == source}
        for key in {**known, **now}:
            what = now.get(key, gone)
            if what and what != known.get(key):
                shown[source, key] = what
                who = _who(service, source, key, tasks, by_address)
                rows.append({"at": line["at"], "source": source, **who, "what": what} | _late(line))

    for line in told:
        source = line["source"]
        if source == "swarm":
            state = {key: task["state"] for key, task in line["shows"]["tasks"].items() if key in tasks}
            changes(line, "task", state, None)
            changes(line, "node", line["shows"]["nodes"], None)
        elif source == "DNS":
            changes(line, "DNS", {a: "in" for found in line["shows"].values() for a in found}, "out")
        elif source == "IPVS":
            mine = {a: f"weight {w}" for a, w in line["shows"].items() if a in by_address}
            changes(line, "IPVS", mine, "out")
        elif source == "container":
            if task := by_container.get(line["container"]):
                who = {"task": task["name"], "node": task["node"]}
                rows.append({"at": line["at"], "source": source, **who, "what": line["what"]})
        else:
            task = by_container.get(str(line["container"]))
            who = {"task": task["name"], "node": task["node"]} if task else {}
            rows.append({"at": line["at"], "source": source, **who, "what": line["what"]} | _late(line))
    found = pd.DataFrame(rows, columns=["at", *_COLUMNS])
    found["time_s"] = (found["at"] - began).round(3)
    found["source"] = pd.Categorical(found["source"], categories=SOURCES, ordered=True)
    found = found.sort_values(["time_s", "source"], kind="stable", ignore_index=True)
    return found[_COLUMNS].astype({"task": "str", "node": "str", "address": "str"})


def _tasks(service: str, looks: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name the tasks that were there at the start or came later; what was leaving then is left out."""
    tasks: dict[str, dict[str, Any]] = {}
    leaving = {key for key, task in looks[0].items() if task["wanted"] != "running"}
    for look in looks:
        for key, task in look.items():
            if key in leaving:
                continue
            kept = tasks.setdefault(key, {"name": "", **task})
            kept |= {name: value for name, value in task.items() if value}
    newer: dict[int, int] = {}
    for key, task in tasks.items():
        task["name"] = f"{service}.{task['slot']}"
        if key not in looks[0]:
            newer[task["slot"]] = newer.get(task["slot"], 0) + 1
            again = newer[task["slot"]]
            task["name"] += " new" if again == 1 else f" new {again}"
    return tasks


def _who(
    service: str,
    source: str,
    key: str,
    tasks: dict[str, dict[str, Any]],
    by_address: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The columns that say whom an event is about."""
    if source == "node":
        return {"node": key}
    if source == "task":
        return {"task": tasks[key]["name"], "node": tasks[key]["node"]}
    if key in by_address:
        return {"task": by_address[key]["name"], "node": by_address[key]["node"], "address": key}
    return {"task": f"virtual IP of {service}", "address": key}


def _late(line: dict[str, Any]) -> dict[str, float | None]:
    return {"late_s": line.get("late"), "took_s": line.get("took")}


def moments(df: pd.DataFrame) -> pd.DataFrame:
    """When each thing was first seen for each task of a time line: a row a task, or a lost node.

    All are seconds, as `time_s` of `timeline`; absent: it was not seen. What was there from the start
    has a time before 0.

    started, healthy                  the container's engine said so
    in_dns, in_ipvs                   it got into the name's addresses; it got weight 1
    first_answer, last_answer         sending of the first and last request on a new connection that it
                                      answered
    out_of_dns, weight_0, out_of_ipvs
    sigterm, sigkill, ended           its container got a signal; it ended
    last_kept_answer                  sending of the last request that it answered on a kept connection
    down                              of a node: the manager called it so
    """
    import pandas as pd

    whom = df["task"].where(df["source"] != "node", df["node"])
    columns = {}
    for name, (source, what, which) in _MOMENTS.items():
        found = df[(df["source"] == source) & (df["what"] == what)]
        columns[name] = found["time_s"].groupby(whom[found.index]).agg(which)
    return pd.DataFrame(columns).rename_axis("task").sort_index()
