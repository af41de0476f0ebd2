"""What a name stands for, and whose address it is (labs 05 and 06)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from labkit.experiments.asking import place_of

if TYPE_CHECKING:
    import pandas as pd

    from labkit.swarm import Lab, Place, Task


def owners(lab: Lab) -> pd.DataFrame:
    """Who has which address in the swarm, as its managers and nodes tell it: a row an address.

    network    str    ingress, an overlay, docker_gwbridge
    address    str    IPv4
    owner      str    a task, `virtual IP of …`, `load balancer of …` a node, or the network's gateway
    """
    import pandas as pd

    api = lab.manager.docker.api
    rows: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for node in lab.nodes.values():
        for network in node.docker.api.networks():
            names[network["Id"]] = network["Name"]
            if network["Driver"] not in ("overlay", "bridge"):
                continue
            for config in (network["IPAM"] or {}).get("Config") or ():
                if config.get("Gateway"):
                    gateway = config["Gateway"].split("/")[0]
                    rows[network["Name"], gateway] = "the network's gateway"
            if network["Driver"] == "overlay":
                ends = node.docker.api.inspect_network(network["Id"])["Containers"] or {}
                for key, end in ends.items():
                    if key == "ingress-sbox" or key.startswith("lb-"):
                        address = end["IPv4Address"].split("/")[0]
                        rows[network["Name"], address] = f"load balancer of {node.name}"
    for service in api.services():
        name = service["Spec"]["Name"]
        for virtual in service.get("Endpoint", {}).get("VirtualIPs") or ():
            if virtual.get("Addr"):
                key = names.get(virtual["NetworkID"], "?"), virtual["Addr"].split("/")[0]
                rows[key] = f"virtual IP of {name}"
        for task in lab.tasks(name):
            for network_name, address in task.addresses.items():
                rows[network_name, address] = task.name
    table = [{"network": n, "address": a, "owner": owner} for (n, a), owner in sorted(rows.items())]
    return pd.DataFrame(table, columns=["network", "address", "owner"])


def lookups(
    lab: Lab,
    sources: Iterable[Task | Place],
    names: Sequence[str],
    *,
    trials: int = 1,
    timeout_s: int = 2,
) -> pd.DataFrame:
    """Ask the DNS for every name from every place, again and again: a row an address that was given.

    A question that got no address has one row. A place asks for one name after the other, once each in
    a trial; the places ask side by side.

    node             str
    place            str    where it was asked
    name             str    the name that was asked for
    trial            int    from 1
    status           str    NOERROR, NXDOMAIN, SERVFAIL, REFUSED, or TIMEOUT: nobody replied
    position         int    of the address in the reply, from 1; absent: no address
    answer           str    IPv4; absent: no address
    owner            str    as in `owners`
    ttl_s            int    seconds that the answer may be kept
    server           str    who replied
    query_time_ms    int
    """
    import pandas as pd

    places = [place_of(source) for source in sources]
    argv = ["dig", f"+time={timeout_s}", "+tries=1", "+nosearch", *names]
    captures = [
        (trial, capture)
        for trial in range(1, trials + 1)
        for capture in lab.run_all([(place, argv) for place in places], timeout=120)
    ]
    known = owners(lab)
    who = dict(zip(known["address"], known["owner"], strict=True))
    rows: list[dict[str, Any]] = []
    for trial, capture in captures:
        fixed = {"node": capture.node, "place": capture.place, "trial": trial}
        replies = _by_question(capture.table.to_dict("records"))
        for name, reply in zip(names, replies, strict=True):
            status = {"name": name, "status": reply[0]["status"]}
            given = [row for row in reply if row["type"] == "A"]
            for position, row in enumerate(given, 1):
                said = {key: row[key] for key in ("answer", "ttl_s", "server", "query_time_ms")}
                mine = {"position": position, "owner": who.get(str(row["answer"]))}
                rows.append({**fixed, **status, **mine, **said})
            if not given:
                rows.append({**fixed, **status})
    columns = ["node", "place", "name", "trial", "status", "position", "answer", "owner", "ttl_s"]
    found = pd.DataFrame(rows, columns=[*columns, "server", "query_time_ms"])
    return found.astype(dict.fromkeys(["position", "ttl_s", "query_time_ms"], "Int64"))


def _by_question(rows: Iterable[dict[Any, Any]]) -> list[list[dict[Any, Any]]]:
    """Put the rows of dig's replies together by question; one without a reply stands alone."""
    replies: list[list[dict[Any, Any]]] = []
    for row in rows:
        silent = row["status"] == "TIMEOUT"
        if silent or not replies or replies[-1][0]["question"] != row["question"]:
            replies.append([row])
        else:
            replies[-1].append(row)
    return replies
