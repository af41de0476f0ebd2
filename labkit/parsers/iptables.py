"""`iptables` and `iptables-save`: the rules of one network namespace, as a list or as commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from labkit.parsers._table import ParseError, classify, counter
from labkit.schema import Column, Row, table

# --- the listing: -L -----------------------------------------------------------------------------

_CHAIN = re.compile(
    r"Chain (?P<chain>\S+) \((policy (?P<policy>\S+)( \S+ packets, \S+ bytes)?|\d+ references)\)"
)
# The heads of the listing, and the columns that they become.
_HEADS = {
    "num": "num",
    "pkts": "packets",
    "bytes": "bytes",
    "target": "target",
    "prot": "protocol",
    "opt": "opt",
    "in": "in_interface",
    "out": "out_interface",
    "source": "source",
    "destination": "destination",
}
# What may stand in the column `opt`: whether a rule is for fragments.
_OPT = ("--", "-f", "!f")
# iptables 1.8.9 prints numbers with -n, 1.8.11 names again.
_PROTOCOLS = {
    "0": "all",
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "50": "esp",
    "58": "ipv6-icmp",
    "132": "sctp",
}


@table(
    Column("table", "str", "filter, nat, mangle, …"),
    Column("chain", "str", "INPUT, FORWARD, …, or the name of one's own"),
    Column("policy", "str", "ACCEPT or DROP; absent for chains of one's own"),
    Column("num", "int", "position in its chain, from 1"),
    Column("packets", "int", "that the rule matched (with -v)"),
    Column("bytes", "int", "of those packets (with -v)"),
    Column("target", "str", "absent: the rule only counts"),
    Column("protocol", "str", "by name: all, tcp, udp, icmp, sctp"),
    Column("in_interface", "str", "`*` is any (with -v)"),
    Column("out_interface", "str", "`*` is any (with -v)"),
    Column("source", "str", "`0.0.0.0/0` is any"),
    Column("destination", "str", "`0.0.0.0/0` is any"),
    Column("match_text", "str", "the rest, as printed: `tcp dpt:3000 ctstate NEW`"),
)
def iptables_list(text: str, *, table: str = "filter") -> Iterator[Row]:
    """Read `iptables -nL`, also with -v, -x or --line-numbers: one row per rule.

    ``table`` is what stood behind -t, since the listing does not say it. Shortened counters (12K)
    become numbers; -x prints them in full.

    Example::

        $ iptables -nL
        Chain INPUT (policy ACCEPT)
        target     prot opt source               destination
        ACCEPT     tcp  --  0.0.0.0/0            10.0.0.6             tcp dpt:3000 ctstate NEW,ESTABLISHED
        DROP       sctp --  0.0.0.0/0            10.0.0.6
    """  # noqa: E501 (it is what iptables prints)
    chain: Row = {}
    names: list[str] = []
    num = 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line or line.startswith("#"):
            continue
        if found := _CHAIN.fullmatch(line):
            chain, names, num = found.groupdict(), [], 0
        elif not chain:
            raise ParseError(number, line, "a line `Chain NAME (…)`")
        elif not names:
            heads = line.split()
            if not {"target", "prot", "opt"} <= set(heads) <= _HEADS.keys():
                raise ParseError(number, line, "the column heads of `iptables -L`")
            names = [_HEADS[head] for head in heads]
        else:
            num += 1
            rule = _listed_rule(line, names)
            if rule is None:
                raise ParseError(number, line, f"a rule under {' '.join(names)}")
            yield {"table": table} | chain | rule | {"num": num}


def _listed_rule(line: str, names: Sequence[str]) -> Row | None:
    """Read one rule under its column heads; None when it does not fit them."""
    opt = names.index("opt")
    words = line.split(maxsplit=len(names))
    if len(words) >= opt and words[opt - 1] in _OPT:
        # A rule without a target leaves that column blank.
        names = [name for name in names if name != "target"]
        words = line.split(maxsplit=len(names))
    row: Row = dict(zip(names, words, strict=False))
    if len(words) < len(names) or row.pop("opt") not in _OPT:
        return None
    for name in {"packets", "bytes"} & row.keys():
        row[name] = counter(row[name])
        if row[name] is None:
            return None
    protocol = row["protocol"].removeprefix("!")
    row["protocol"] = row["protocol"].replace(protocol, _PROTOCOLS.get(protocol, protocol))
    row["match_text"] = words[len(names)] if len(words) > len(names) else None
    return row


# --- the commands: -S and iptables-save ----------------------------------------------------------

_OPTIONS = {
    "-s": "source",
    "-d": "destination",
    "-p": "protocol",
    "-i": "in_interface",
    "-o": "out_interface",
}
_PORTS = {"--sport": "sport", "--dport": "dport"}
_RULE = {
    "table": re.compile(r"\*(?P<table>\S+)"),
    "chain": re.compile(r"(-P |:)(?P<chain>\S+) (?P<policy>\S+)( (-c \d+ \d+|\[\d+:\d+\]))?"),
    "rule": re.compile(r"(\[(?P<packets>\d+):(?P<bytes>\d+)\] )?(?P<rule>-A (?P<chain>\S+).*)"),
    "noise": re.compile(r"COMMIT|#.*|-N \S+"),
}
_EXPECTED = "a line of `iptables -S` or iptables-save"


@table(
    Column("table", "str", "filter, nat, mangle, …"),
    Column("chain", "str", "INPUT, FORWARD, …, or the name of one's own"),
    Column("policy", "str", "ACCEPT or DROP; absent for chains of one's own"),
    Column("num", "int", "position in its chain, from 1"),
    Column("packets", "int", "that the rule matched (with -v or -c)"),
    Column("bytes", "int", "of those packets (with -v or -c)"),
    Column("target", "str", "absent: the rule only counts"),
    Column("target_options", "str", "what follows it: `--to-destination 172.18.0.2:5000`"),
    Column("protocol", "str", "absent: any"),
    Column("in_interface", "str", "absent: any"),
    Column("out_interface", "str", "absent: any"),
    Column("source", "str", "absent: any; `!` in front: any but this; without /32"),
    Column("destination", "str", "absent: any; `!` in front: any but this; without /32"),
    Column("sport", "int", "source port; ranges are in `rule` only"),
    Column("dport", "int", "destination port; ranges are in `rule` only"),
    Column("rule", "str", "the whole rule as printed, without its counters"),
)
def iptables_rules(text: str, *, table: str = "filter") -> Iterator[Row]:
    """Read `iptables -S` (also -v) and `iptables-save` (also -c): one row per rule.

    ``table`` is what stood behind -t, for -S, which does not say it.

    Example::

        $ iptables -t mangle -S
        -P PREROUTING ACCEPT
        -P INPUT ACCEPT
        -P FORWARD ACCEPT
        -P OUTPUT ACCEPT
        -P POSTROUTING ACCEPT
        -A INPUT -d 10.0.1.2/32 -j MARK --set-xmark 0x101/0xffffffff
    """
    policies: dict[str, str] = {}
    nums: dict[str, int] = {}
    for kind, found, where in classify(text, _RULE, _EXPECTED):
        if kind == "table":
            table, policies, nums = found["table"], {}, {}
        elif kind == "chain" and found["policy"] != "-":
            policies[found["chain"]] = found["policy"]
        elif kind == "rule":
            chain = found["chain"]
            nums[chain] = nums.get(chain, 0) + 1
            # `-S -v` has the counters in the middle of the rule, iptables-save -c in front.
            if counted := re.search(r" -c (\d+) (\d+)", found["rule"]):
                found |= {"packets": counted[1], "bytes": counted[2]}
                found["rule"] = found["rule"].replace(counted[0], "")
            try:
                words = shlex.split(found["rule"])
            except ValueError as problem:
                raise ParseError(*where, f"{_EXPECTED} ({problem})") from problem
            yield (
                {"table": table, "policy": policies.get(chain), "num": nums[chain]}
                | found
                | _options(words)
            )


def _options(words: Sequence[str]) -> Row:
    """Pick the common options out of one `-A CHAIN …`."""
    row: Row = {}
    for at, word in enumerate(words[:-1]):
        value = words[at + 1]
        if word in ("-j", "-g"):
            row |= {"target": value, "target_options": shlex.join(words[at + 2 :]) or None}
            break
        if word in _PORTS and value.isdecimal():
            row[_PORTS[word]] = value
        elif word in _OPTIONS:
            negated = "!" if words[at - 1] == "!" else ""
            row[_OPTIONS[word]] = negated + value.removesuffix("/32")
    return row
