"""Creates the overlay networks of a lab, and gets out of their way what an earlier lab left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from labkit.capture import Capture, words
from labkit.engines.base import MADE_BY
from labkit.errors import NotInEvidence, UsageError
from labkit.swarm import arguments

if TYPE_CHECKING:
    from labkit.swarm.lab import Lab


def create(lab: Lab, name: str, options: str | Sequence[str]) -> Capture:
    """Create an overlay network, as `Lab.network` promises."""
    arguments.name_of("network", name)
    argv = ["docker", "network", "create", "--driver", "overlay", *words("options", options)]
    made_by = " ".join([*argv, name])
    found = lab.manager.docker.api.networks(names=[name])
    row = next((r for r in found if r["Name"] == name), None)
    labels = (row and row["Labels"]) or {}
    foreign = row and MADE_BY not in labels
    if row and foreign and (options or row["Driver"] != "overlay" or row.get("Ingress")):
        raise _refused(row, made_by)
    if foreign or labels.get(MADE_BY) == made_by:
        return lab.manager.run(["docker", "network", "ls", "--filter", f"name=^{name}$"])
    if row:
        _remove(lab, row)
    _free(lab, name, argv)
    return _created(lab, name, [*argv, "--label", f"{MADE_BY}={made_by}", name])


def _created(lab: Lab, name: str, argv: Sequence[str]) -> Capture:
    """Create a network whose name may just have become free.

    Docker 20.10 removes a network while tasks on it are ending, and its engine has the name until the
    last one on the manager has ended: some seconds (seen).
    """
    tries: list[Capture] = []

    def look() -> tuple[bool, str]:
        tries.append(lab.manager.run(argv))
        said = tries[-1].stderr.strip()
        return "already exists" not in said, said

    lab.wait_for(f"the name {name} to be free for a network", look, seconds=60)
    return tries[-1].check()


def _free(lab: Lab, name: str, argv: Sequence[str]) -> None:
    """Remove the networks that labs left and whose subnets the new one asks for.

    Swarm takes two overlays with one subnet, and says nothing: the tasks on the second stay `new` for
    ever (seen on 26.1). Raises UsageError where such a network is somebody else's.
    """
    wanted = list(_subnets_of(argv))
    if not wanted:
        return
    try:
        rows = lab.manager.docker.api.networks(filters={"driver": "overlay"})
    except NotInEvidence:  # a recording of before this was asked: nothing was in the way
        return
    # In such a recording a later answer may be found, which has the new network itself.
    others = [row for row in rows if row["Name"] != name]
    in_the_way = [row for row in others if any(_overlap(subnet, row) for subnet in wanted)]
    for row in in_the_way:
        if MADE_BY not in (row["Labels"] or {}):
            raise _refused(row, " ".join(argv))
    for row in in_the_way:
        _remove(lab, row)


def _subnets_of(argv: Sequence[str]) -> Iterator[str]:
    """Yield what follows --subnet, in the two ways that docker takes it."""
    for at, word in enumerate(argv):
        if word == "--subnet":
            yield from argv[at + 1 : at + 2]
        elif word.startswith("--subnet="):
            yield word.partition("=")[2]


def _overlap(subnet: str, row: Mapping[str, Any]) -> bool:
    try:
        wanted = ip_network(subnet, strict=False)
        return any(
            wanted.version == taken.version and wanted.overlaps(taken)
            for taken in map(ip_network, _subnets(row))
        )
    except ValueError:  # docker will say what is wrong with it
        return False


def _subnets(row: Mapping[str, Any]) -> list[str]:
    configs = (row["IPAM"] or {}).get("Config") or ()
    return [config["Subnet"] for config in configs if config.get("Subnet")]


def _refused(row: Mapping[str, Any], wanted: str) -> UsageError:
    """Return the error for a network that somebody else made and that is in the way."""
    mesh = ", for the routing mesh" if row.get("Ingress") else ""
    name, driver, subnets = row["Name"], row["Driver"], ", ".join(_subnets(row)) or "none"
    return UsageError(
        f"there is a network {name!r} already that labkit did not make: driver {driver}, subnet "
        f"{subnets}{mesh}; wanted was `{wanted}`",
        hint=f"take another name or subnet, or remove it first: docker network rm {name}",
    )


def _remove(lab: Lab, row: Mapping[str, Any]) -> None:
    """Remove a network and the services on it, and wait until it is gone."""
    name = row["Name"]
    for service in lab.manager.docker.api.services():
        attached = service["Spec"]["TaskTemplate"].get("Networks") or ()
        if row["Id"] in {network["Target"] for network in attached}:
            lab.remove_service(service["Spec"]["Name"])

    def look() -> tuple[bool, str]:
        # The last task's address is given back a moment after its container is gone.
        removed = lab.manager.run(["docker", "network", "rm", name])
        said = removed.stderr.strip()
        return removed.ok or said.startswith("Error: No such network") or "not found" in said, said

    lab.wait_for(f"the network {name} to be removed", look, seconds=60)
