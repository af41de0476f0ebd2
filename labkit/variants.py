"""A learner's own names, ports, subnets and numbers, so that copied answers are wrong answers.

They are computed from the learner's id alone: the same id gives the same names and numbers on every
machine, and an instructor who knows the id can compute them too.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labkit.errors import UsageError

_WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "jade", "kelp",
    "larch", "maple", "north", "olive", "pearl", "quartz", "river", "slate", "tulip", "umber", "violet",
    "willow", "zephyr",
)  # fmt: skip
_NAMED = re.compile(rf"(hello|net)-(?:{'|'.join(_WORDS)})")
_PORT = re.compile(r"(5[1-9]\d\d):\d+")
_SUBNET = re.compile(r"10\.1\d\d\.\d{1,3}\.0/24")
_LEARNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# Logins of images, courses and containers, which many people share.
_SHARED_LOGINS = (
    "admin", "codespace", "debian", "docker", "fedora", "guest", "jovyan", "lab", "labs", "learner",
    "pi", "root", "student", "students", "test", "training", "ubuntu", "user", "vagrant", "vscode",
    "workshop",
)  # fmt: skip
SHARED = (
    "labkit: {login!r} is a login that many people share, and no learner's id is set. Everybody with "
    "it has the same names, ports and numbers. Set your own: export LABKIT_LEARNER=ada, before "
    "JupyterLab starts"
)


@dataclass(frozen=True)
class Variant:
    """One learner's names and numbers for the services and networks of the labs."""

    learner: str
    service: str  # hello-amber
    network: str  # net-amber
    port: int  # the published port, 5100 to 5999
    subnet: str  # of an overlay, 10.100.0.0/24 to 10.199.255.0/24: Swarm's own begin at 10.0.0.0
    replicas: int  # 3 to 5
    requests: int  # 24 to 60, a multiple of the replicas

    @property
    def address_prefix(self) -> str:
        """The text that every address in the subnet begins with, such as `10.123.45.`."""
        return self.subnet.rpartition(".")[0] + "."


def of(learner: str | None = None) -> Variant:
    """Return a learner's variant.

    Without an id it is the one in LABKIT_LEARNER, else the login name. Raises UsageError for an id that
    could not name a folder.
    """
    who = learner or os.environ.get("LABKIT_LEARNER") or getpass.getuser()
    if not _LEARNER.fullmatch(who):
        raise UsageError(
            f"{who!r} cannot be a learner's id: letters, digits and . _ @ -, 64 at most",
            hint="export LABKIT_LEARNER=ada",
        )
    seed = hashlib.sha256(f"labkit {who}".encode()).digest()
    word = _WORDS[seed[0] % len(_WORDS)]
    replicas = 3 + seed[1] % 3
    return Variant(
        learner=who,
        service=f"hello-{word}",
        network=f"net-{word}",
        port=5100 + int.from_bytes(seed[2:4]) % 900,
        subnet=f"10.{100 + seed[4] % 100}.{seed[5]}.0/24",
        replicas=replicas,
        requests=replicas * (8 + seed[6] % 5),
    )


def is_shared(you: Variant) -> bool:
    """Whether a variant follows from a login that many share, and from no learner's id."""
    return not os.environ.get("LABKIT_LEARNER") and you.learner.casefold() in _SHARED_LOGINS


def seen_in(argv: Sequence[str], you: Variant) -> Iterator[tuple[str, str, str]]:
    """Yield what in a docker command belongs to another variant than the learner's own.

    Each item is the kind (name, port or subnet), the value found, and the learner's own value. Only
    words that have the form of a variant's values are compared.
    """
    if argv[:1] != ["docker"]:
        return
    for word in argv:
        if (named := _NAMED.fullmatch(word)) and word not in (you.service, you.network):
            own = you.service if named[1] == "hello" else you.network
            yield "name", word, own
        elif (port := _PORT.fullmatch(word)) and int(port[1]) != you.port:
            yield "port", port[1], str(you.port)
        elif _SUBNET.fullmatch(word) and word != you.subnet:
            yield "subnet", word, you.subnet
