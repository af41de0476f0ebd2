"""Who gets which request, whom the server sees, and what becomes of a kept connection (lab 07)."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from labkit import parsers
from labkit.experiments.asking import TASK_PORT, TIMEOUT_S, curl, place_of
from labkit.experiments.names import owners

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from labkit.capture import Capture
    from labkit.swarm import Lab, Place, Running, Task

_LOOK_EVERY_S = 0.7  # at IPVS's table, which counts in seconds


def spread(
    lab: Lab,
    ways: Mapping[str, tuple[Task | Place, str]],
    *,
    requests: int,
    keep_alive: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> pd.DataFrame:
    """Ask for a URL of the app again and again, one way after the other: a row a request.

    A way is its name, who asks, and the URL, which ends in /whoami. Each request looks the name up and
    opens a connection of its own; with `keep_alive`, all requests of a way use one connection.

    node           str     the node that asks
    place          str     who asks there
    way            str     the way's name
    keep_alive     bool    the way keeps its connection
    trial          int     from 1
    argv           str     one request as one would type it
    code           int     curl's exit code
    timed_out      bool    labkit had to end it
    reached        bool    exit code 0
    seconds        float   how long the request took
    answer         str     what curl printed
    stderr         str     what curl said against it
    connects       int     connections opened for this request: 1, or 0 where one was used again
    remote_ip      str     whom curl was connected to
    task           str     who answered; absent: nobody
    server_node    str     the node that task is on
    client         str     the address that the server saw
    replicas       int     running tasks of the service that answered
    """
    import pandas as pd

    asked = []
    for way, (source, url) in ways.items():
        host = urlsplit(url)
        argv = curl(url, timeout_s)
        command = [*argv[:-1], "-w", parsers.CURL_FORMAT]
        if not keep_alive:
            # curl keeps what a name stood for as well; the minus sign makes it forget.
            command += ["-H", "Connection: close", "--resolve", f"-{host.hostname}:{host.port or 80}"]
        capture = place_of(source).run([*command, *[url] * requests])
        asked.append((way, shlex.join(argv), capture))
    who = _tasks(lab)
    running = pd.Series([task.rpartition(".")[0] for task in who.values()]).value_counts()
    rows: list[dict[str, Any]] = []
    for way, typed, capture in asked:
        found = capture.table.to_dict("records")
        if len(found) < requests:
            capture.check()
        for trial, row in enumerate(found, 1):
            task = who.get(str(row["container"]))
            rows.append(
                {
                    "node": capture.node,
                    "place": capture.place,
                    "way": way,
                    "keep_alive": keep_alive,
                    "trial": trial,
                    "argv": typed,
                    "code": row["exit_code"],
                    "timed_out": capture.timed_out,
                    "reached": row["exit_code"] == 0,
                    "seconds": row["time_total_s"],
                    "answer": row["body"],
                    "stderr": row["error"],
                    "connects": row["connects"],
                    "remote_ip": row["remote_ip"],
                    "task": task,
                    "server_node": row["server_node"],
                    "client": row["client"],
                    "replicas": running.get(task.rpartition(".")[0]) if task else None,
                }
            )
    return pd.DataFrame(rows).astype({"task": "str", "replicas": "Int64"})


def _tasks(lab: Lab) -> dict[str, str]:
    """Tell which running task has which container: SERVICE.SLOT by the beginning of the id."""
    api = lab.manager.docker.api
    services = {row["ID"]: row["Spec"]["Name"] for row in api.services()}
    names = {}
    for row in api.tasks(filters={"desired-state": "running"}):
        container = (row["Status"].get("ContainerStatus") or {}).get("ContainerID", "")
        if container and row["Status"]["State"] == "running":
            names[container[:12]] = f"{services[row['ServiceID']]}.{row.get('Slot', 0)}"
    return names


def callers(lab: Lab, df: pd.DataFrame) -> pd.DataFrame:
    """Whose address the server saw, from a table of `spread`: a row a way and address.

    way         str    as in `spread`
    place       str    who asked
    node        str    the node that asked
    client      str    the address that the server saw
    owner       str    whose it is, as in `owners`
    requests    int    how many requests were seen so
    """
    known = owners(lab).rename(columns={"address": "client"})[["client", "owner"]]
    seen = df[df["reached"]].groupby(["way", "place", "node", "client"], sort=False).size()
    found = seen.rename("requests").reset_index().merge(known, on="client", how="left")
    return found[["way", "place", "node", "client", "owner", "requests"]]


# Runs in a container of the lab: asks for argv[1] every argv[2] seconds until it is interrupted, over
# one connection where argv[3] is "keep". It prints one JSON line a request.
_ASK_ON = """
import http.client, json, signal, sys, time
from urllib.parse import urlsplit

signal.signal(signal.SIGINT, signal.SIG_DFL)
url, every, keep = urlsplit(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "keep"
link, number = None, 0
print("asking", file=sys.stderr, flush=True)
while True:
    row = {"at": time.time()}
    try:
        if link is None:
            link, number = http.client.HTTPConnection(url.hostname, url.port, timeout=5), number + 1
        link.request("GET", url.path)
        row |= json.loads(link.getresponse().read())
    except (OSError, http.client.HTTPException) as problem:
        row["error"] = type(problem).__name__
    if link and ("error" in row or not keep):
        link.close()
        link = None
    print(json.dumps(row | {"connection": number}), flush=True)
    time.sleep(max(0.0, row["at"] + every - time.time()))
"""


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
) -> pd.DataFrame:
    """Scale a service while two programs ask for a URL that ends in /whoami: a row a request.

    One opens a new connection for each request, the other keeps its first one. They ask for `watch_s`
    seconds before the scaling, and for as long after every new task was found to answer on `network`
    and to be among the destinations of IPVS on the source's node.

    node          str      the node that asks
    place         str      who asks there
    asker         str      new connections, or one connection
    trial         int      from 1, for each asker
    at_s          float    when it was asked, in seconds from `docker service scale` on
    connection    int      which connection of this asker it was, from 1
    reached       bool     it was answered
    error         str      why not; absent: it was answered
    task          str      who answered; absent: nobody
    old           bool     that task was there before the scaling
    ready         bool     it was asked when every new task was found to answer
    replicas      int      the tasks that the service was to have at that moment
    """
    import pandas as pd

    before = _tasks(lab)
    place = place_of(source)
    askers = {"new connections": "close", "one connection": "keep"}
    with contextlib.ExitStack() as stack:
        running = {
            asker: stack.enter_context(
                place.watch(["python3", "-c", _ASK_ON, url, f"{every_s:g}", how], ready="asking")
            )
            for asker, how in askers.items()
        }
        lab.pause(watch_s)
        argv = ["docker", "service", "scale", "--detach", f"{service}={replicas}"]
        scale = lab.manager.run(argv).check()
        lab.wait_for_tasks(service, replicas)
        _wait_for_new(lab, source.node.load_balancer(network), network, service, before)
        ready = place.run(["true"]).check().started.timestamp()
        lab.pause(watch_s)
    who = before | _tasks(lab)
    old = sum(task.rpartition(".")[0] == service for task in before.values())
    began = scale.started.timestamp()
    rows: list[dict[str, Any]] = []
    for asker, ended in running.items():
        for trial, line in enumerate(ended.result().lines, 1):
            said = json.loads(line)
            container = said.get("container")
            rows.append(
                {
                    "node": place.node.name,
                    "place": place.label,
                    "asker": asker,
                    "trial": trial,
                    "at_s": round(said["at"] - began, 3),
                    "connection": said["connection"],
                    "reached": "error" not in said,
                    "error": said.get("error"),
                    "task": who.get(str(container)),
                    "old": container in before,
                    "ready": said["at"] > ready,
                    "replicas": replicas if said["at"] > began else old,
                }
            )
    return pd.DataFrame(rows).astype({"error": "str", "task": "str"})


def _wait_for_new(
    lab: Lab, balancer: Place, network: str, service: str, before: Mapping[str, str]
) -> None:
    """Wait until a load balancer reaches every task that was not there before, and may choose it."""

    def look() -> tuple[bool, str]:
        new = [task for task in lab.tasks(service) if task.container[:12] not in before]
        addresses = [task.addresses[network] for task in new]
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
    probe_s: int | None = None  # TCP keep-alive: the system sends a probe after so many idle seconds


# Runs in a container of the lab, with a Pause as arguments. It prints one JSON line at its end.
_PAUSE = """
import http.client, json, socket, sys, time
from urllib.parse import urlsplit

url, idle, probe = urlsplit(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
link = http.client.HTTPConnection(url.hostname, url.port, timeout=float(sys.argv[4]))
link.connect()
link.auto_open = 0  # never a second connection
row = {"opened": time.time(), "port": link.sock.getsockname()[1]}
if probe:
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe)
    link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe)
link.request("GET", url.path)
first = json.loads(link.getresponse().read())
time.sleep(idle)
row["asked"] = time.time()
try:
    link.request("GET", url.path)
    second = json.loads(link.getresponse().read())
    row["ended"] = "answered" if second["container"] == first["container"] else "another task"
except TimeoutError:
    row["ended"] = "time-out"
except ConnectionResetError:
    row["ended"] = "reset"
except (OSError, http.client.HTTPException) as problem:
    row["ended"] = type(problem).__name__
print(json.dumps(row | {"waited": time.time() - row["asked"]}), flush=True)
"""


def idle(
    source: Task,
    balancer: Place,
    pauses: Mapping[str, Pause],
    *,
    timeout_s: float = TIMEOUT_S,
) -> pd.DataFrame:
    """Keep connections open and idle, ask again, and read IPVS's timers meanwhile: a row a look.

    The connections go side by side, each in a program of its own at the source.

    node          str      the source's node
    place         str      the source
    connection    str      the pause's name
    idle_s        float    seconds without a request
    probe_s       int      seconds after which TCP sends a probe; absent: it sends none
    at_s          float    when it was looked, in seconds from the opening on
    state         str      of the connection's entry in IPVS's table; absent: there is none
    expires_s     int      seconds until the entry goes, if nothing more comes; absent: there is none
    asked_s       float    when the second request was sent, in seconds from the opening on
    ended         str      what became of it: answered, reset, time-out, another task, or Python's word
    waited_s      float    seconds until that was known
    """
    import pandas as pd

    running = {name: _pause(source, pause, timeout_s) for name, pause in pauses.items()}
    looks: list[Capture] = []
    while not all(one.done() for one in running.values()):
        looks.append(balancer.run(["ipvsadm", "-l", "-n", "-c"]).check())
        source.node.link.pause(_LOOK_EVERY_S)
    rows: list[dict[str, Any]] = []
    for name, one in running.items():
        told = json.loads(one.result().check().text)
        pause = pauses[name]
        fixed: dict[str, Any] = {"node": source.node.name, "place": source.name}
        fixed |= {"connection": name, "idle_s": pause.idle_s, "probe_s": pause.probe_s}
        ending = {
            "asked_s": round(told["asked"] - told["opened"], 3),
            "ended": told["ended"],
            "waited_s": round(told["waited"], 3),
        }
        for look in looks:
            at_s = round(look.started.timestamp() - told["opened"], 3)
            if 0 <= at_s <= ending["asked_s"]:
                rows.append({**fixed, "at_s": at_s, **_entry(look, told["port"]), **ending})
    return pd.DataFrame(rows).astype({"probe_s": "Int64", "expires_s": "Int64", "state": "str"})


def _pause(source: Task, pause: Pause, timeout_s: float) -> Running:
    words: Sequence[float] = (pause.idle_s, pause.probe_s or 0, timeout_s)
    argv = ["python3", "-c", _PAUSE, pause.url, *(f"{word:g}" for word in words)]
    return source.place.start(argv)


def _entry(look: Capture, port: int) -> dict[str, Any]:
    """Find a connection in IPVS's table by the port that it comes from."""
    table = look.table
    mine = table[table["source_port"] == port]
    if mine.empty:
        return {"state": None, "expires_s": None}
    return {"state": mine["state"].iloc[0], "expires_s": mine["expires_s"].iloc[0]}
