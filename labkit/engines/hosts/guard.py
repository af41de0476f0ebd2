"""Which commands are not run on a machine of one's own: they cut it off, or harm what is not labkit's.

A lab may do anything to a node that is a container. A machine that has lost its interface is not to be
reached again to bring it up, and whoever runs a swarm for others wants it as it was. What runs in a
task or in a network namespace of Swarm's is not looked at: it harms the lab alone. This keeps a lab's
own cells and clicks from doing harm; it is no sandbox, and a shell's text is not read.
"""

from __future__ import annotations

from collections.abc import Callable

from labkit.errors import EngineError
from labkit.transport.base import Command

_CUTS = ("down", "del", "delete", "flush", "change", "replace")
_ENDS = ("reboot", "poweroff", "shutdown", "halt", "init")
_OF_THE_SWARM = ("leave", "update", "init", "join", "ca", "unlock-key")
_OF_ITS_NODES = ("rm", "demote", "promote")


class NotOnHosts(EngineError):
    """A command that a lab may run on a node of its own, and not on a machine of somebody's."""

    def __init__(self, host: str, command: str, why: str) -> None:
        super().__init__(
            f"`{command}` is not run on {host}, a machine of your own: {why}",
            hint="this step needs nodes that may break: labkit up --lab other --engine auto",
        )


def of(host: str, shared: bool) -> Callable[[Command], None]:
    """Return what raises NotOnHosts for a command that is not run on a host.

    `shared` is a swarm that ran before, and is not labkit's to change.
    """

    def look(command: Command) -> None:
        if command.netns or command.container:
            return
        if why := refusal(command.argv, shared=shared):
            raise NotOnHosts(host, " ".join(command.argv), why)

    return look


def refusal(argv: tuple[str, ...], *, shared: bool) -> str:
    """Return why a command is not run in a machine's own namespaces; empty where it is."""
    program, words = argv[0].rpartition("/")[2], argv[1:]
    plain = [word for word in words if not word.startswith("-")]
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
        return _of_docker(plain, shared)
    return ""


def _of_docker(plain: list[str], shared: bool) -> str:
    if "prune" in plain:
        return "it removes what is not the lab's"
    if not shared:
        return ""
    group, word = (*plain, "", "")[:2]
    if (group == "swarm" and word in _OF_THE_SWARM) or (group == "node" and word in _OF_ITS_NODES):
        return "the swarm ran before labkit came, and stays as it is"
    return ""
