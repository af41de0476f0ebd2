"""A learner's own names, ports, subnets and numbers, so that copied answers are wrong answers.

They follow from the learner's id alone: the same id gives the same swarm on every machine, and an
instructor who knows the id knows the right answers.
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


@dataclass(frozen=True)
class Variant:
    """What a learner's experiments are called and numbered."""

    learner: str
    service: str  # hello-amber
    network: str  # net-amber
    port: int  # published, 5100 to 5999
    subnet: str  # an overlay's, 10.100.0.0/24 to 10.199.255.0/24: Swarm's own begin at 10.0.0.0
    replicas: int  # 3 to 5
    requests: int  # 24 to 60, so many for each task that the share is a whole number

    @property
    def address_prefix(self) -> str:
        """What the addresses in the subnet begin with: 10.123.45."""
        return self.subnet.rpartition(".")[0] + "."


def of(learner: str | None = None) -> Variant:
    """Return a learner's variant; raises UsageError for an id that could not name a folder."""
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


def seen_in(argv: Sequence[str], you: Variant) -> Iterator[tuple[str, str, str]]:
    """Find what in a docker command is of another learner's variant: what, its value, the own one."""
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
