"""Which commands are not run on a machine of one's own: they cut it off, or harm what is not labkit's.

A lab may do anything to a node that is a container. A machine that has lost its interface is not to be
reached again to bring it up, and whoever runs a swarm for others wants it as it was. What runs in a
task or in a network namespace of Swarm's is not looked at: it harms the lab alone. This keeps a lab's
own cells and clicks from doing harm; it is no sandbox, and a shell's text is not read.

A swarm that ran before labkit came is not the lab's: its nodes and its settings stay as they are. Of
what is in it the lab may change what has labkit's label, and services that are younger than labkit's
container: a learner types `docker service create` and `docker stack deploy` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from labkit.engines.base import MADE_BY
from labkit.engines.hosts import facts, tools
from labkit.errors import EngineError
from labkit.transport.base import Command, DaemonError, Refuse

if TYPE_CHECKING:
    from docker import DockerClient

_CUTS = ("down", "del", "delete", "flush", "change", "replace")
_ENDS = ("reboot", "poweroff", "shutdown", "halt", "init")
_OF_THE_SWARM = ("leave", "update", "init", "join", "ca", "unlock-key")
_OF_ITS_NODES = ("rm", "remove", "update", "demote", "promote")
_OF_SERVICES = ("rm", "remove", "update", "scale", "rollback")
_OF_NETWORKS = ("rm", "remove", "connect", "disconnect")
_OF_STACKS = ("rm", "remove", "down", "deploy", "up")
_STACK = "com.docker.stack.namespace"
_NO_MANAGER = 503
_LEAST_OF_ID = 4  # characters of an id that are taken for it: a word as "1" begins many


class NotOnHosts(EngineError):
    """A command that a lab may run on a node of its own, and not on a machine of somebody's."""

    def __init__(self, host: str, command: str, why: str) -> None:
        super().__init__(
            f"`{command}` is not run on {host}, a machine of your own: {why}",
            hint="this step needs nodes that may break: labkit up --lab other --engine auto",
        )


def of(host: str, shared: bool) -> Refuse:
    """Return what raises NotOnHosts for a command that is not run on a host.

    `shared` is a swarm that ran before, and is not labkit's to change.
    """

    def look(command: Command, docker: Callable[[], DockerClient]) -> None:
        if command.netns or command.container:
            return
        why = refusal(command.argv, shared=shared)
        if not why and shared and (foreign := theirs(command.argv, docker)):
            why = f"labkit did not make {', '.join(foreign)}, and the swarm ran before this lab"
        if why:
            raise NotOnHosts(host, " ".join(command.argv), why)

    return look


def refusal(argv: tuple[str, ...], *, shared: bool) -> str:
    """Return why a command is not run in a machine's own namespaces; empty where it is."""
    program, words, plain = _read(argv)
    if program == "ip" and plain[:1] and plain[0][:1] in "lar" and set(_CUTS) & set(plain[1:]):
        return "it may cut the machine off, and nobody could reach it to undo that"
    if program == "tc" and plain[:1] == ["qdisc"] and "show" not in plain:
        return "it may cut the machine off, and nobody could reach it to undo that"
    if program in ("iptables", "ip6tables") and any(
        w in ("-F", "--flush", "-P", "--policy") for w in words
    ):
        return "it takes away rules that are not the lab's"
    if program in _ENDS or (program == "systemctl" and {"docker", "docker.service"} & set(plain)):
        return "it ends what others may need there"
    if program in ("pkill", "killall"):
        return "it may end what is not the lab's"
    if program == "docker":
        return _of_docker(words, plain, shared)
    return ""


def _read(argv: tuple[str, ...]) -> tuple[str, tuple[str, ...], list[str]]:
    """Return the program, its words, and those of them that are no options."""
    words = argv[1:]
    return argv[0].rpartition("/")[2], words, [word for word in words if not word.startswith("-")]


def _of_docker(words: tuple[str, ...], plain: list[str], shared: bool) -> str:
    if "prune" in plain:
        return "it removes what is not the lab's"
    if not shared:
        return ""
    group, word = (*plain, "", "")[:2]
    if (
        (group == "swarm" and (word in _OF_THE_SWARM or "--rotate" in words))
        or (group == "node" and word in _OF_ITS_NODES)
        or (group == "network" and word == "create" and "--ingress" in words)
    ):
        return "the swarm ran before labkit came, and stays as it is"
    return ""


def theirs(argv: tuple[str, ...], docker: Callable[[], DockerClient]) -> list[str]:
    """Return what a command would change of a swarm's, and is not the lab's, by name.

    Which of its words are names is not known without all of docker's options: each is taken for one.
    """
    program, _, plain = _read(argv)
    group, word, *rest = (*plain, "", "")
    if program != "docker":
        return []
    named = {name.partition("=")[0] for name in rest} - {""}  # of a scale: NAME=N
    if group == "service" and word in _OF_SERVICES:
        rows = [row for row in _services(docker) if _is_called(named, row["ID"], row["Spec"]["Name"])]
    elif group == "stack" and word in _OF_STACKS:
        rows = [row for row in _services(docker) if _labels(row).get(_STACK) in named]
    elif group == "network" and word in _OF_NETWORKS:
        networks = [row for row in docker().api.networks() if _is_called(named, row["Id"], row["Name"])]
        return sorted(row["Name"] for row in networks if MADE_BY not in (row["Labels"] or {}))
    else:
        return []
    return sorted(row["Spec"]["Name"] for row in rows if not _is_the_labs(row, docker))


def _services(docker: Callable[[], DockerClient]) -> list[dict[str, Any]]:
    try:
        return list(docker().api.services())
    except DaemonError as problem:
        if problem.status != _NO_MANAGER:
            raise
        return []  # a worker: docker refuses there by itself


def _labels(row: Mapping[str, Any]) -> Mapping[str, str]:
    return row["Spec"].get("Labels") or {}


def _is_called(named: set[str], identity: str, name: str) -> bool:
    return name in named or any(
        len(word) >= _LEAST_OF_ID and identity.startswith(word) for word in named
    )


def _is_the_labs(row: Mapping[str, Any], docker: Callable[[], DockerClient]) -> bool:
    """Whether a service has labkit's label, or came after labkit.

    A network's age is not known: a node tells when it had it first.
    """
    if MADE_BY in _labels(row):
        return True
    boxes = docker().api.containers(filters={"label": tools.LABEL})
    return any(facts.seconds(row["CreatedAt"]) > box["Created"] for box in boxes)
