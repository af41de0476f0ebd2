"""Who gets which request, whom the server sees, and what becomes of a kept connection (labs 07, 14)."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from labkit import parsers, programs
from labkit.experiments.asking import (
    PROBE,
    TASK_PORT,
    TIMEOUT_S,
    address_of,
    curl,
    place_of,
    tasks_by_container,
)
from labkit.experiments.names import owners
from labkit.schema import Column, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from labkit.capture import Capture
    from labkit.schema import Row
    from labkit.swarm import Lab, Place, Running, Task

_LOOK_EVERY_S = 0.7  # at IPVS's table, whose timers count in whole seconds


@table(
    Column("node", "str", "the node that asks"),
    Column("place", "str", "who asks there"),
    Column("way", "str", "the way's name"),
    Column("keep_alive", "bool", "all requests of the way use one connection"),
    Column("trial", "int", "number of the request on this way, from 1"),
    *PROBE,
    Column("connects", "int", "connections opened for this request: 1, or 0 where one was used again"),
    Column("remote_ip", "str", "IPv4 that curl was connected to; absent: it was not connected"),
    Column("task", "str", "who answered; absent: nobody"),
    Column("server_node", "str", "the node of that task; absent: nobody answered"),
    Column("client", "str", "IPv4 that the server saw; absent: nobody answered"),
    Column("replicas", "int", "running tasks of the service that answered; absent: nobody answered"),
)
def spread(
    lab: Lab,
    ways: Mapping[str, tuple[Task | Place, str]],
    *,
    requests: int,
    keep_alive: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> list[Row]:
    """Ask for a URL of the app again and again, one way after the other: one row per request.

    A way is its name, who asks, and the URL, which ends in /whoami. Each request looks the name up and
    opens a connection of its own; with `keep_alive`, all requests of a way use one connection.

    Raises:
        CommandFailed: curl ended before it had made all requests of a way.
        SwarmError: a node could not be asked.
    """
    asked = [
        (way, _ask_again(place_of(source), url, requests, keep_alive, timeout_s), curl(url, timeout_s))
        for way, (source, url) in ways.items()
    ]
    tasks = tasks_by_container(lab)
    rows: list[Row] = []
    for way, capture, argv in asked:
        transfers = capture.table.to_dict("records")
        if len(transfers) < requests:
            capture.check()
        fixed: Row = {"node": capture.node, "place": capture.place, "way": way}
        fixed |= {"keep_alive": keep_alive, "argv": shlex.join(argv), "timed_out": capture.timed_out}
        rows += [
            {**fixed, "trial": trial, **_answer(transfer, tasks)}
            for trial, transfer in enumerate(transfers, 1)
        ]
    return rows


def _answer(transfer: Mapping[Any, Any], tasks: Mapping[str, str]) -> Row:
    """Return what one request of `spread` came to, and who answered it."""
    task = tasks.get(str(transfer["container"]))
    service = task.rpartition(".")[0] if task else None
    replicas = sum(name.rpartition(".")[0] == service for name in tasks.values())
    return {
        "code": transfer["exit_code"],
        "reached": transfer["exit_code"] == 0,
        "seconds": transfer["time_total_s"],
        "answer": transfer["body"],
        "stderr": transfer["error"],
        "task": task,
        "replicas": replicas if task else None,
        **{key: transfer[key] for key in ("connects", "remote_ip", "server_node", "client")},
    }


def _ask_again(place: Place, url: str, requests: int, keep_alive: bool, timeout_s: float) -> Capture:
    """Run one curl that makes several requests, one after the other."""
    command = [*curl(url, timeout_s)[:-1], "-w", parsers.CURL_FORMAT]
    if not keep_alive:
        host = urlsplit(url)
        # curl also keeps the address that it found for a name; the minus sign makes it forget that.
        command += ["-H", "Connection: close", "--resolve", f"-{host.hostname}:{host.port or 80}"]
    return place.run([*command, *[url] * requests])


@table(
    Column("way", "str", "as in `spread`"),
    Column("place", "str", "who asked"),
    Column("node", "str", "the node that asked"),
    Column("client", "str", "IPv4 that the server saw"),
    Column("owner", "str", "whose address it is, as in `owners`; absent: nobody's in the swarm"),
    Column("requests", "int", "how many requests the server saw from that address"),
)
def callers(lab: Lab, df: pd.DataFrame) -> pd.DataFrame:
    """Find whose address the server saw, in a table of `spread`: one row per way and address.

    Raises:
        SwarmError: a node could not be asked.
    """
    known = owners(lab).rename(columns={"address": "client"})[["client", "owner"]]
    seen = df[df["reached"]].groupby(["way", "place", "node", "client"], sort=False).size()
    found = seen.rename("requests").reset_index().merge(known, on="client", how="left")
    return found[["way", "place", "node", "client", "owner", "requests"]]


@table(
    Column("node", "str", "the node that asks"),
    Column("place", "str", "who asks there"),
    Column("asker", "str", "new connections, or one connection"),
    Column("trial", "int", "number of the request, from 1 for each asker"),
    Column("at_s", "float", "when the request was sent, in seconds since `docker service scale`"),
    Column("connection", "int", "number of the connection, from 1 for each asker"),
    Column("reached", "bool", "it was answered"),
    Column("error", "str", "Python's name of what went wrong; absent: it was answered"),
    Column("task", "str", "who answered; absent: nobody"),
    Column("old", "bool", "that task was there before the scaling"),
    Column("ready", "bool", "it was sent after every new task had been found to answer"),
    Column("replicas", "int", "how many tasks the service was to have at that moment"),
)
def scaling(
    lab: Lab,
    source: Task,
    url: str,
    service: str,
    replicas: int,
    *,
    network: str,
    every_s: float = 0.3,
    watch_s: float = 6.0,
) -> list[Row]:
    """Scale a service while two programs ask for a URL that ends in /whoami: one row per request.

    One opens a new connection for each request, the other keeps its first one. They ask for `watch_s`
    seconds before the scaling, and for as long after every new task was found to answer on `network`
    and to be among the destinations of IPVS on the source's node.

    Raises:
        CommandFailed: `docker service scale` failed.
        WaitTimeout: the new tasks did not get ready.
        SwarmError: a node could not be asked.
    """
    before = tasks_by_container(lab)
    place = place_of(source)
    askers = {"new connections": "close", "one connection": "keep"}
    with contextlib.ExitStack() as stack:
        running = {
            asker: stack.enter_context(
                place.watch(programs.argv("keep_asking", url, f"{every_s:g}", how), ready="asking")
            )
            for asker, how in askers.items()
        }
        lab.pause(watch_s)
        argv = ["docker", "service", "scale", "--detach", f"{service}={replicas}"]
        scaled_at = lab.manager.run(argv).check().started.timestamp()
        lab.wait_for_tasks(service, replicas)
        _wait_for_new(lab, source.node.load_balancer(network), network, service, before)
        ready_at = place.run(["true"]).check().started.timestamp()
        lab.pause(watch_s)
    tasks = before | tasks_by_container(lab)
    old = sum(task.rpartition(".")[0] == service for task in before.values())
    rows: list[Row] = []
    for asker, asking in running.items():
        for trial, request in enumerate(map(json.loads, asking.result().lines), 1):
            row: Row = {"node": place.node.name, "place": place.label, "asker": asker, "trial": trial}
            row |= _asked(request, tasks, scaled_at)
            row |= {"old": request.get("container") in before, "ready": request["at"] > ready_at}
            row["replicas"] = replicas if request["at"] > scaled_at else old
            rows.append(row)
    return rows


def _asked(request: Mapping[str, Any], tasks: Mapping[str, str], scaled_at: float) -> Row:
    """Return what one request of `scaling` came to, from the line that its program printed."""
    return {
        "at_s": round(request["at"] - scaled_at, 3),
        "connection": request["connection"],
        "reached": "error" not in request,
        "error": request.get("error"),
        "task": tasks.get(str(request.get("container"))),
    }


def _wait_for_new(
    lab: Lab, balancer: Place, network: str, service: str, before: Mapping[str, str]
) -> None:
    """Wait until a load balancer reaches every task that was not there before, and may choose it."""

    def look() -> tuple[bool, str]:
        new = [task for task in lab.tasks(service) if task.container[:12] not in before]
        addresses = [address_of(task, network) for task in new]
        chosen = set(balancer.run(["ipvsadm", "-l", "-n"]).check().table["destination"])
        urls = [f"http://{address}:{TASK_PORT}" for address in addresses]
        asked = lab.run_all([(balancer, curl(url, TIMEOUT_S)) for url in urls])
        silent = [f"{capture.command}: {capture.stderr.strip()}" for capture in asked if not capture.ok]
        missing = [f"{address} is no destination" for address in addresses if address not in chosen]
        return not silent and not missing, "; ".join([*silent, *missing])

    lab.wait_for(f"the new tasks of {service} to be balanced", look, seconds=120)


class Pause(NamedTuple):
    """A connection that is opened, asked, left alone for a while, and asked again."""

    url: str
    idle_s: float
    probe_s: int | None = None  # TCP keep-alive: idle seconds until the system sends a probe


@table(
    Column("node", "str", "the source's node"),
    Column("place", "str", "the source"),
    Column("connection", "str", "the pause's name"),
    Column("idle_s", "float", "seconds without a request"),
    Column("probe_s", "int", "idle seconds until TCP sends a probe; absent: it sends none"),
    Column("at_s", "float", "when IPVS's table was read, in seconds since the connection was opened"),
    Column("state", "str", "of the connection's entry in that table; absent: there is no entry"),
    Column("expires_s", "int", "seconds until that entry goes if no packet comes; absent: no entry"),
    Column("asked_s", "float", "when the second request was sent, in seconds since the opening"),
    Column("ended", "str", "how it ended: answered, reset, time-out, another task, or Python's word"),
    Column("waited_s", "float", "seconds until that was known"),
)
def idle_connections(
    source: Task,
    balancer: Place,
    pauses: Mapping[str, Pause],
    *,
    timeout_s: float = TIMEOUT_S,
) -> list[Row]:
    """Keep connections open and idle, ask again, and read IPVS's timers meanwhile: one row per reading.

    The connections exist side by side, each in a program of its own at the source.

    Raises:
        CommandFailed: IPVS's table could not be read, or a program failed before its second request.
        SwarmError: a node could not be asked.
    """
    running = {name: _pause(source, pause, timeout_s) for name, pause in pauses.items()}
    looks: list[Capture] = []
    while not all(one.done() for one in running.values()):
        looks.append(balancer.run(["ipvsadm", "-l", "-n", "-c"]).check())
        source.node.link.pause(_LOOK_EVERY_S)
    rows: list[Row] = []
    for name, one in running.items():
        result = json.loads(one.result().check().text)
        pause = pauses[name]
        fixed: Row = {"node": source.node.name, "place": source.name}
        fixed |= {"connection": name, "idle_s": pause.idle_s, "probe_s": pause.probe_s}
        ending = {
            "asked_s": round(result["asked"] - result["opened"], 3),
            "ended": result["ended"],
            "waited_s": round(result["waited"], 3),
        }
        for look in looks:
            at_s = round(look.started.timestamp() - result["opened"], 3)
            if 0 <= at_s <= ending["asked_s"]:
                rows.append({**fixed, "at_s": at_s, **_entry(look, result["port"]), **ending})
    return rows


def _pause(source: Task, pause: Pause, timeout_s: float) -> Running:
    """Start the program that opens one connection, asks, pauses and asks again."""
    words: Sequence[float] = (pause.idle_s, pause.probe_s or 0, timeout_s)
    argv = programs.argv("ask_after_pause", pause.url, *(f"{word:g}" for word in words))
    return source.place.start(argv)


def _entry(look: Capture, port: int) -> dict[str, Any]:
    """Find a connection in IPVS's table by the port that it comes from."""
    table = look.table
    mine = table[table["source_port"] == port]
    if mine.empty:
        return {"state": None, "expires_s": None}
    return {"state": mine["state"].iloc[0], "expires_s": mine["expires_s"].iloc[0]}
