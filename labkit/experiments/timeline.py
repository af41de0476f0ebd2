"""One change, and the order of what follows from it (lab 08)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from labkit import programs
from labkit.experiments.asking import TASK_PORT
from labkit.schema import Column, Schema, table

if TYPE_CHECKING:
    import pandas as pd

    from labkit.schema import Row
    from labkit.swarm import Lab, Place, Task

SOURCES = ["node", "task", "container", "DNS", "IPVS", "request", "kept"]

_ENDED = {"complete", "shutdown", "failed", "rejected", "remove", "orphaned"}
_AT_REST = ("completed", "rollback_completed")  # states of an update that changes nothing more
_SIGNALS = {"9": "SIGKILL", "15": "SIGTERM"}
# Column of `moments` -> source and word of an event, which of several counts, what the column means.
_MOMENTS = {
    "started": ("container", "started", "min", "the container's engine started it"),
    "healthy": ("container", "healthy", "min", "the container's engine found it healthy"),
    "in_dns": ("DNS", "in", "min", "its address came into the name's answer"),
    "in_ipvs": ("IPVS", "weight 1", "min", "IPVS may choose it for new connections"),
    "first_answer": ("request", "answered", "min", "sending of the first request that it answered"),
    "out_of_dns": ("DNS", "out", "min", "its address went out of the name's answer"),
    "weight_0": ("IPVS", "weight 0", "min", "IPVS no longer chooses it for new connections"),
    "last_answer": ("request", "answered", "max", "sending of the last request that it answered"),
    "sigterm": ("container", "SIGTERM", "min", "its container got the signal"),
    "sigkill": ("container", "SIGKILL", "min", "its container got the signal"),
    "last_kept_answer": ("kept", "answered", "max", "the same as last_answer, on a kept connection"),
    "ended": ("container", "ended", "min", "its container ended"),
    "out_of_ipvs": ("IPVS", "out", "min", "IPVS forgot it"),
    "down": ("node", "down", "min", "of a node: the manager took it for lost"),
}
_SCHEMA = Schema(
    (
        Column("time_s", "float", "seconds since the command started; of a request, when it was sent"),
        Column(
            "source",
            "category",
            "node, task: a manager said so; container: its node's engine or kernel; DNS, IPVS:"
            " seen at the client; request: on a new connection; kept: on a connection that is kept",
        ),
        Column(
            "task",
            "str",
            "whom it is about, as SERVICE.SLOT, with the word `new` for a task that was not there at"
            " the start; of a request, who answered; absent: nobody did",
        ),
        Column("node", "str", "the node of that task; of the source `node`, the node itself"),
        Column("address", "str", "IPv4; absent: the source is neither DNS nor IPVS"),
        Column(
            "what",
            "str",
            "DNS: in, out; IPVS: weight 1, weight 0, out; task and node: the state; container: started,"
            " healthy, SIGTERM, SIGKILL, ended; request and kept: answered, refused, time-out,"
            " unreachable, broken off, no address",
        ),
        Column("late_s", "float", "it may have happened so much earlier; absent: its time is exact"),
        Column("took_s", "float", "a request, from its sending to its end; absent: no request"),
    )
)


@table(*_SCHEMA.columns)
def timeline(
    lab: Lab,
    client: Task,
    service: str,
    place: Place,
    change: str | Sequence[str],
    *,
    undo: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Run one command, and watch a service until it has come to rest: one row per event.

    A client asks for the service's name and sends it requests, on new connections and on one to each
    task that was opened before. On the client's node IPVS's table of its one network is read, and on
    the manager the states of tasks and nodes. The end of a process that was there at the start comes
    from its node's kernel; what else happened to containers, from each node's engine afterwards. (The
    engine reports an end late: it takes the container off its networks first.) With `undo`, that
    command is run in the same place at the end, whatever has happened, and the nodes are waited for.

    Raises:
        CommandFailed: the command, or the one that undoes it, failed.
        WaitTimeout: the service did not come to rest.
        SwarmError: a node could not be asked.
    """
    processes: dict[str, dict[str, int]] = {}  # node -> container -> process
    for task in lab.tasks(service):
        processes.setdefault(task.node.name, {})[task.container[:12]] = task.pid
    with contextlib.ExitStack() as heal:
        with contextlib.ExitStack() as stack:
            watching = [
                stack.enter_context(where.watch(argv, ready="watching", linger_s=0.0))
                for where, argv in _watchers(lab, client, service, processes)
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
        printed = (json.loads(line) for running in watching for line in running.result().lines)
        lines = [_as_the_lab_calls_it(lab, line) for line in printed]
        known = {container for there in processes.values() for container in there}
        events = _container_events(lab, service, int(began), int(until) + 1)
        lines += (row for row in events if row["what"] != "ended" or row["container"] not in known)
    return events_table(service, lines, began=began)


def _watchers(
    lab: Lab, client: Task, service: str, processes: dict[str, dict[str, int]]
) -> list[tuple[Place, list[str]]]:
    """Return the programs that watch, each with its place."""
    (network,) = client.addresses
    return [
        (client.place, programs.argv("watcher", "client", service, str(TASK_PORT))),
        (client.node.load_balancer(network), programs.argv("watcher", "ipvs")),
        (lab.manager.place, programs.argv("watcher", "swarm", service)),
        *(
            (
                lab.node(name).place,
                programs.argv("watcher", "ends", *(f"{c}={pid}" for c, pid in there.items())),
            )
            for name, there in processes.items()
        ),
    ]


def _as_the_lab_calls_it(lab: Lab, line: dict[str, Any]) -> dict[str, Any]:
    """Return a line with the lab's names for nodes; what watches a manager has Docker's."""
    if line["source"] != "swarm":
        return line
    nodes = {lab.called(name): state for name, state in line["shows"]["nodes"].items()}
    tasks = {
        key: {**task, "node": task["node"] and lab.called(task["node"])}
        for key, task in line["shows"]["tasks"].items()
    }
    return {**line, "shows": {"nodes": nodes, "tasks": tasks}}


def _standing(lab: Lab, service: str) -> dict[str, tuple[str, str]]:
    """Return state and desired state of each task of a service that a manager knows."""
    rows = lab.manager.docker.api.tasks(filters={"service": service})
    return {row["ID"]: (row["Status"]["State"], row["DesiredState"]) for row in rows}


def _wait_for_rest(lab: Lab, service: str, before: dict[str, tuple[str, str]]) -> None:
    """Wait until something has changed and every task is in its desired state.

    A task on a node that is down stays `running` for ever: no engine there reports its end.
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
        seen = "; ".join(moving) or ("nothing has changed" if now == before else f"update {update}")
        return now != before and not moving and update in _AT_REST, seen

    lab.wait_for(f"the tasks of {service} to come to rest", look, seconds=240)


def _container_events(lab: Lab, service: str, since: int, until: int) -> Iterator[dict[str, Any]]:
    """Yield what each node's engine reports of the service's containers, between two whole seconds."""
    label = f"com.docker.swarm.service.name={service}"
    for node in lab.nodes.values():
        events = node.docker.api.events(
            since=since, until=until, filters={"type": "container", "label": label}, decode=True
        )
        for event in events:
            actor = event["Actor"]["Attributes"]
            what = {"start": "started", "die": "ended"}.get(event["Action"])
            if event["Action"] == "kill":
                what = _SIGNALS.get(actor["signal"])
            elif event["Action"] == "health_status: healthy":
                what = "healthy"
            if what:
                container, at = event["Actor"]["ID"][:12], event["timeNano"] / 1e9
                yield {"source": "container", "at": at, "what": what, "container": container}


def events_table(service: str, lines: Iterable[Row], *, began: float) -> pd.DataFrame:
    """Turn what the watchers printed and the engines reported into the table of `timeline`."""
    import pandas as pd

    timeline_of = _Events(service, sorted(lines, key=lambda line: line["at"]))
    found = pd.DataFrame(timeline_of.rows(), columns=["at", *_SCHEMA.dtypes])
    found["time_s"] = (found.pop("at") - began).round(3)
    found["source"] = pd.Categorical(found["source"], categories=SOURCES, ordered=True)
    found = found.sort_values(["time_s", "source"], kind="stable", ignore_index=True)
    return _SCHEMA.check(found)


class _Events:
    """The events in what was printed: a line of JSON shows a state, an event is a change of it."""

    def __init__(self, service: str, lines: Sequence[Row]) -> None:
        self._service = service
        self._lines = lines
        looks = [line["shows"]["tasks"] for line in lines if line["source"] == "swarm"]
        self._tasks = tasks = _tasks(service, looks)
        self._by_container = {
            str(task["container"])[:12]: task for task in tasks.values() if task["container"]
        }
        self._by_address = {address: task for task in tasks.values() for address in task["addresses"]}
        self._shown: dict[tuple[str, str], str] = {}  # (source, key) -> its last word

    def rows(self) -> list[Row]:
        """Return one row per event, in the order of the lines."""
        return [row for line in self._lines for row in self._rows_of(line)]

    def _rows_of(self, line: Row) -> Iterator[Row]:
        source, shows = line["source"], line.get("shows", {})
        if source == "swarm":
            states = {k: task["state"] for k, task in shows["tasks"].items() if k in self._tasks}
            yield from self._changes(line, "task", states, None)
            yield from self._changes(line, "node", shows["nodes"], None)
        elif source == "DNS":
            addresses = {a: "in" for found in shows.values() for a in found}
            yield from self._changes(line, "DNS", addresses, "out")
        elif source == "IPVS":
            mine = {a: f"weight {w}" for a, w in shows.items() if a in self._by_address}
            yield from self._changes(line, "IPVS", mine, "out")
        else:  # container, request, kept: the line is the event
            task = self._by_container.get(str(line["container"]))
            if task or source != "container":
                whom = {"task": task["name"], "node": task["node"]} if task else {}
                late = _late(line) if source != "container" else {}
                yield {"at": line["at"], "source": source, **whom, "what": line["what"], **late}

    def _changes(self, line: Row, source: str, now: dict[str, str], gone: str | None) -> Iterator[Row]:
        """Yield a row for each thing whose word is another than before; what is missing is `gone`."""
        known = {key: what for (where, key), what in self._shown.items() if where == source}
        for key in {**known, **now}:
            what = now.get(key, gone)
            if what and what != known.get(key):
                self._shown[source, key] = what
                yield {
                    "at": line["at"],
                    "source": source,
                    **self._whom(source, key),
                    "what": what,
                    **_late(line),
                }

    def _whom(self, source: str, key: str) -> Row:
        """Return the columns that say whom an event is about."""
        if source == "node":
            return {"node": key}
        if source == "task":
            return {"task": self._tasks[key]["name"], "node": self._tasks[key]["node"]}
        if task := self._by_address.get(key):
            return {"task": task["name"], "node": task["node"], "address": key}
        return {"task": f"virtual IP of {self._service}", "address": key}


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


def _late(line: Row) -> Row:
    """Return how late an event may have been seen, and how long a request took."""
    return {"late_s": line.get("late"), "took_s": line.get("took")}


@table(*(Column(name, "float", meaning) for name, (_, _, _, meaning) in _MOMENTS.items()))
def moments(df: pd.DataFrame) -> pd.DataFrame:
    """Find when each thing was first seen for each task of a timeline: one row per task or lost node.

    The index, `task`, has the tasks and nodes. All columns are seconds, as `time_s` of `timeline`;
    absent: it was not seen. What was there from the start has a time before 0.

    Raises nothing: it asks nobody.
    """
    import pandas as pd

    whom = df["task"].where(df["source"] != "node", df["node"])
    columns = {}
    for name, (source, what, which, _) in _MOMENTS.items():
        found = df[(df["source"] == source) & (df["what"] == what)]
        columns[name] = found["time_s"].groupby(whom[found.index]).agg(which)
    return pd.DataFrame(columns).rename_axis("task").sort_index()
