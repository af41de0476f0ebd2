"""The words of a command that somebody typed: which tool it runs, and what it says to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# What `ip` is also told for one of its objects (iproute2, ip.c).
_IP = {"a": "addr", "address": "addr", "l": "link", "r": "route", "ro": "route"}
_IP |= dict.fromkeys(("n", "neighbor", "neighbour"), "neigh")


@dataclass(frozen=True)
class Words:
    """A command as words; a tool has its name without a path, and an object of `ip` its usual one."""

    typed: tuple[str, ...]

    @classmethod
    def of(cls, argv: Sequence[str]) -> Words:
        """Return a command's words; those of a shell's program (`sh -c`) are looked into."""
        words = list(argv)
        if len(words) > 2 and words[1] == "-c" and os.path.basename(words[0]) in ("sh", "bash", "ash"):
            words = re.sub("[|;&]", " ", words[2]).split()
        program = os.path.basename(words[0]) if words else ""
        return cls((program, *(_IP.get(w, w) if program == "ip" else w for w in words[1:])))

    @property
    def tool(self) -> str:
        """What is run; of `docker exec CONTAINER COMMAND` it is the command in there."""
        inner = [word for word in self.typed[2:] if not word.startswith("-")]
        into = self.typed[:2] == ("docker", "exec") and len(inner) > 1
        return inner[1] if into else self.typed[0]

    def hold(self, in_order: Iterable[str], anywhere: Iterable[str] = ()) -> bool:
        """Whether words are there, some in this order and some at any place.

        At any place those of `--name=VALUE` and `ADDRESS:PORT` count as well.
        """
        left = iter(self.typed)
        parts = {*self.typed, *(part for word in self.typed for part in re.split("[=:]", word))}
        return all(word in left for word in in_order) and parts.issuperset(anywhere)
