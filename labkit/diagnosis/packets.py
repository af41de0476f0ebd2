"""Would a packet pass? Walks the rules of iptables as the kernel does, for the first packet of a flow.

What is told of a firewall is certain, and not everything is told. A rule may ask for what is not known
here: a set of addresses, a policy of IPsec, where the packet is from. One of those that stops is passed
over, and behind one of those that may let the packet through nothing is certain any more.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_STOP = ("DROP", "REJECT")
_QUEUES = ("QUEUE", "NFQUEUE")  # a program decides
_UNCERTAIN = ("", "")


@dataclass(frozen=True)
class Packet:
    """A packet as a firewall sees it; where an interface is empty, it is some other than lo."""

    protocol: str
    port: int | None = None
    length: int = 100
    source: str = ""
    destination: str = ""
    comes_by: str = ""
    leaves_by: str = ""

    def __str__(self) -> str:
        """As a person says it; a packet of 1,000 bytes and more is a full one."""
        told = f"{self.protocol} port {self.port}" if self.port else self.protocol
        return f"full packets of {told}" if self.length >= 1000 else told


@dataclass(frozen=True)
class _Rule:
    saved: str
    asks: Sequence[tuple[bool, str, str]]
    """What it asks for: whether that is negated, the option, its values."""
    target: str
    goto: bool
    """Whether it goes to another chain for good."""


class Rules:
    """The rules of one table of one network namespace, as `iptables-save` lists them."""

    def __init__(self, saved: str, table: str) -> None:
        """Take the output of `iptables-save`, and the table to be asked.

        Not the parser's rows: of a chain without rules they do not tell the policy.
        """
        self._chains: dict[str, list[_Rule]] = {}
        self._policies: dict[str, str] = {}
        here = False
        for line in saved.splitlines():
            if line.startswith("*"):
                here = line[1:].strip() == table
            elif here and line.startswith(":"):
                chain, policy, *_ = line[1:].split()
                self._chains[chain], self._policies[chain] = [], policy
            elif here and line.startswith("-A"):
                _, chain, *words = shlex.split(line)
                self._chains.setdefault(chain, []).append(_rule(line, words))

    def stops(self, packet: Packet, chain: str) -> str | None:
        """Return the rule, or the policy, that surely stops a packet in a chain."""
        policy = self._policies.get(chain, "ACCEPT")
        verdict, rule = self._walk(packet, chain, ()) or (policy, f"-P {chain} {policy}")
        return rule if verdict in _STOP else None

    def _walk(self, packet: Packet, chain: str, passed: tuple[str, ...]) -> tuple[str, str] | None:
        """Return the verdict of a chain with its rule; None where it has none."""
        for rule in self._chains.get(chain, ()):
            matches = _matches(rule, packet)
            if matches is False:
                continue
            if rule.target in _STOP:
                if matches:
                    return rule.target, rule.saved
            elif rule.target in ("ACCEPT", "RETURN", *_QUEUES, *self._chains):
                if matches is None or rule.target in _QUEUES:
                    return _UNCERTAIN
                if rule.target == "ACCEPT":
                    return rule.target, rule.saved
                if rule.target == "RETURN":
                    return None
                if rule.target not in passed:
                    verdict = self._walk(packet, rule.target, (*passed, chain))
                    if verdict or rule.goto:
                        return verdict
        return None


def _rule(saved: str, words: list[str]) -> _Rule:
    """Read the words of a rule behind its chain."""
    asks: list[tuple[bool, str, str]] = []
    left, negated = list(words), False
    while left and left[0] not in ("-j", "-g"):
        option = left.pop(0)
        if option == "!":
            negated = True
            continue
        values = [left.pop(0)] if option == "--comment" else []  # which may begin with a dash
        while left and left[0] != "!" and not left[0].startswith("-"):
            values.append(left.pop(0))
        asks.append((negated, option, " ".join(values)))
        negated = False
    return _Rule(saved, asks, target=left[1] if left else "", goto=left[:1] == ["-g"])


def _matches(rule: _Rule, packet: Packet) -> bool | None:
    """Whether a rule is for a packet; None where that hangs on what is not known here."""
    found = [_fits(negated, option, value, packet) for negated, option, value in rule.asks]
    return False if False in found else None if None in found else True


_KNOWN_MATCHES = {"tcp", "udp", "comment", "conntrack", "state", "multiport", "length"}


def _fits(negated: bool, option: str, value: str, packet: Packet) -> bool | None:
    """Whether a packet has what an option asks for; None where that is not known."""
    try:
        found = _has(option, value, packet)
    except ValueError:  # a network with a mask of holes, say
        return None
    return None if found is None else found != negated


def _has(option: str, value: str, packet: Packet) -> bool | None:
    match option:
        case "-m":
            return True if value in _KNOWN_MATCHES else None
        case "--comment":
            return True
        case "-p":
            return value in (packet.protocol, "all")
        case "-s":
            return _within(packet.source, value)
        case "-d":
            return _within(packet.destination, value)
        case "-i":
            return _is_interface(packet.comes_by, value)
        case "-o":
            return _is_interface(packet.leaves_by, value)
        case "--dport" | "--dports":
            return _in_ranges(packet.port, value)
        case "--ctstate" | "--state":
            return _begins(value.split(","))
        case "--length":
            return _in_ranges(packet.length, value)
    return None


def _within(address: str, network: str) -> bool | None:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network) if address else None


def _is_interface(name: str, wanted: str) -> bool | None:
    if not name:
        return False if wanted == "lo" else None
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _begins(states: Sequence[str]) -> bool | None:
    """Whether the first packet of a flow is in one of these states; it may be translated, untracked."""
    if "NEW" in states:
        return True
    return None if {"DNAT", "SNAT", "UNTRACKED"} & {*states} else False


def _in_ranges(number: int | None, ranges: str) -> bool:
    if number is None:
        return False
    ends = (part.partition(":") for part in ranges.split(","))
    return any(
        int(low or 0) <= number <= int((high if dash else low) or 65535) for low, dash, high in ends
    )
