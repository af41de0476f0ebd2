"""From a command to the parser that reads its output: `parse`, and the list of tools, `TOOLS`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from labkit.errors import CommandFailed, UsageError
from labkit.parsers.bridge_fdb import bridge_fdb
from labkit.parsers.conntrack import conntrack
from labkit.parsers.curl import curl
from labkit.parsers.dig import dig
from labkit.parsers.ip_addr import ip_addr
from labkit.parsers.ip_link import ip_link
from labkit.parsers.ip_neigh import ip_neigh
from labkit.parsers.ip_route import ip_route
from labkit.parsers.iptables import iptables_list, iptables_rules
from labkit.parsers.ipvsadm import ipvsadm, ipvsadm_connections, ipvsadm_stats
from labkit.parsers.nslookup import nslookup
from labkit.parsers.ping import ping
from labkit.parsers.ss import ss
from labkit.parsers.tcpdump import tcpdump

if TYPE_CHECKING:
    import pandas as pd

Parser = Callable[[str], "pd.DataFrame"]

# What runs another command: how many words of its own come before that command, and which of its
# options take the next word as their value.
_WRAPPERS: Mapping[tuple[str, ...], tuple[int, Collection[str]]] = {
    ("timeout",): (1, ("-k", "--kill-after", "-s", "--signal")),
    ("nsenter",): (0, ("-t", "--target", "-S", "--setuid", "-G", "--setgid")),
    ("docker", "exec"): (1, ("-e", "--env", "--env-file", "-u", "--user", "-w", "--workdir")),
    ("ip", "netns", "exec"): (1, ()),
    ("sudo",): (0, ("-u", "-g")),
    ("stdbuf",): (0, ("-i", "-o", "-e")),
}
_DIG_SECTIONS = ("comments", "answer", "authority", "additional")
_CAPTURED = re.compile(r"^[0-9]+ packets? captured", re.MULTILINE)
_IP_OPTIONS_WITH_VALUE = ("-n", "-netns", "-f", "-family")


def parse(
    argv: Sequence[str],
    stdout: str,
    stderr: str = "",
    *,
    code: int | None = None,
    place: str = "its place",
) -> pd.DataFrame:
    """Read what a command printed, with the parser that fits it.

    Sees through `timeout`, `nsenter`, `docker exec`, `ip netns exec`, `sudo` and `stdbuf`. A
    command that only complained (its exit ``code`` is not 0, and it printed nothing but to ``stderr``)
    measured nothing, so it has no table; of curl, a failure is a row. ``place`` is where it ran, for
    the message.

    Raises UsageError for a command that no parser fits, ParseError for a line that is not understood,
    CommandFailed for a command that only complained.
    """
    parser = parser_of(argv)
    if parser is None:
        raise UsageError(
            f"no parser for `{shlex.join(argv)}`; there are some for: {', '.join(TOOLS)}",
            hint="the raw text is in the capture's .text and .lines",
        )
    if parser is curl:
        return curl(stdout, stderr, code=code)
    # tcpdump tells there how many packets it took, also when it was ended before the first.
    if code and not stdout.strip() and stderr.strip() and not _CAPTURED.search(stderr):
        raise CommandFailed(place, argv, code, stderr)
    return parser(stdout)


def parser_of(argv: Sequence[str]) -> Parser | None:
    """Return the parser that fits a command, with what the command's own words tell it; None: none."""
    command = _unwrap(argv)
    # iptables-legacy and iptables-nft-save are iptables and iptables-save by another name.
    name = re.sub(r"^iptables-(legacy|nft)", "iptables", command[0]) if command else ""
    choose = next((choose for tool, choose in TOOLS.items() if tool.split()[0] == name), None)
    return choose(command) if choose else None


def _ip(argv: Sequence[str]) -> Parser | None:
    rest = _skip_options(list(argv[1:]), _IP_OPTIONS_WITH_VALUE)
    what = rest[0] if rest else " "
    dev = _value_of(rest, "dev")
    # ip takes any beginning of a word; this is its own order of preference.
    if "address".startswith(what):
        return ip_addr
    if "route".startswith(what):
        return partial(ip_route, interface=dev)
    if "neighbour".startswith(what) or "neighbor".startswith(what):
        return partial(ip_neigh, interface=dev)
    return ip_link if "link".startswith(what) else None


def _bridge(argv: Sequence[str]) -> Parser | None:
    rest = _skip_options(list(argv[1:]), ("-n", "-netns"))
    if not rest or not "fdb".startswith(rest[0]):
        return None
    return partial(bridge_fdb, interface=_value_of(rest, "dev"))


def _iptables(argv: Sequence[str]) -> Parser | None:
    letters = _letters(argv, "ACDRIEPopsdjitmcgwW")
    table = letters.get("t") or _long_value(argv, "--table") or "filter"
    if "S" in letters or "--list-rules" in argv:
        return partial(iptables_rules, table=table)
    if "L" in letters or "--list" in argv:
        return partial(iptables_list, table=table)
    return None


def _ipvsadm(argv: Sequence[str]) -> Parser | None:
    if {"--timeout", "--daemon"} & {*argv}:
        return None
    if "--stats" in argv:
        return ipvsadm_stats
    letters = _letters(argv, "tufsrwpMxyoT")
    return ipvsadm_connections if "c" in letters or "--connection" in argv else ipvsadm


def _dig(argv: Sequence[str]) -> Parser:
    """Find out what records are that stand below no heading: which sections dig was told to print."""
    printed = dict.fromkeys(_DIG_SECTIONS, True)
    for word in argv:
        name = word.removeprefix("+").removeprefix("no")
        on = not word.startswith("+no")
        if word in ("+all", "+noall"):
            printed = dict.fromkeys(_DIG_SECTIONS, on)
        elif word.startswith("+") and name in printed:
            printed[name] = on
    sections = [name for name in _DIG_SECTIONS[1:] if printed[name]]
    if printed["comments"] or not sections:
        return dig
    return partial(dig, section=sections[0].upper() if len(sections) == 1 else None)


def _ss(argv: Sequence[str]) -> Parser:
    letters = _letters(argv, "fADFNK")
    kinds = [name for name in ("tcp", "udp") if name[0] in letters or f"--{name}" in argv]
    return partial(ss, netid=kinds[0] if len(kinds) == 1 else None)


def _conntrack(argv: Sequence[str]) -> Parser | None:
    return conntrack if "L" in _letters(argv, "psdqrmgjnuzt") or "--dump" in argv else None


TOOLS: Mapping[str, Callable[[Sequence[str]], Parser | None]] = {
    "bridge fdb": _bridge,
    "conntrack -L": _conntrack,
    "curl": lambda _: curl,
    "dig": _dig,
    "ip addr|link|neigh|route": _ip,
    "iptables -L|-S": _iptables,
    "iptables-save": lambda _: iptables_rules,
    "ipvsadm -l": _ipvsadm,
    "nslookup": lambda _: nslookup,
    "ping": lambda _: ping,
    "ss": _ss,
    "tcpdump": lambda _: tcpdump,
}
"""The tools that have a parser, as a message names them, and what picks the parser for their words."""


def _unwrap(argv: Sequence[str]) -> list[str]:
    """Take `timeout 3`, `nsenter … --`, `docker exec C` and their like off the front."""
    words = list(argv)
    while words:
        name = PurePosixPath(words[0]).name
        for wrapper, (own, with_value) in _WRAPPERS.items():
            if (name, *words[1 : len(wrapper)]) == wrapper:
                words = _skip_options(words[len(wrapper) :], with_value)[own:]
                break
        else:
            return [name, *words[1:]]
    return words


def _skip_options(words: list[str], with_value: Collection[str]) -> list[str]:
    """Drop the options in front, up to the first word that is none."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            return words[at + 1 :]
        at += 2 if words[at] in with_value else 1
    return words[at:]


def _letters(argv: Sequence[str], with_value: str) -> dict[str, str | None]:
    """Return the short options and their values, also of those written together: -nvt nat, -tnat."""
    found: dict[str, str | None] = {}
    words = iter(argv[1:])
    for word in words:
        if not re.fullmatch(r"-[A-Za-z0-9]\S*", word):
            continue
        for at, letter in enumerate(word[1:], start=2):
            found[letter] = None
            if letter in with_value:
                found[letter] = word[at:] or next(words, None)
                break
    return found


def _long_value(argv: Sequence[str], option: str) -> str | None:
    """Return the value of a long option, behind a blank or behind `=`."""
    glued = (word.partition("=")[2] for word in argv if word.startswith(f"{option}="))
    return next(glued, None) or _value_of(argv, option)


def _value_of(argv: Sequence[str], name: str) -> str | None:
    """Return the word behind a name."""
    return next((after for word, after in pairwise(argv) if word == name), None)
