"""Would a packet pass? Walks the rules of iptables as the kernel does, for the first packet of a flow.

A rule that asks for something unknown here (a BPF program, a policy of IPsec, a mark) is taken for one
that does not match: what is told of a firewall is certain, and not everything is told.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass

_STOP = ("DROP", "REJECT")


@dataclass(frozen=True)
class Packet:
    """A packet as a firewall sees it; an `interface` that is empty is some other than lo."""

    protocol: str
    port: int | None = None
    length: int = 100
    source: str = ""
    destination: str = ""
    interface: str = ""

    def __str__(self) -> str:
        """As a person says it; a packet of 1,000 bytes and more is a full one."""
        told = f"{self.protocol} port {self.port}" if self.port else self.protocol
        return f"full packets of {told}" if self.length >= 1000 else told


class Rules:
    """The rules of one table of one network namespace, as `iptables-save` lists them."""

    def __init__(self, saved: str, table: str) -> None:
        """Take the output of `iptables-save`, and the table to be asked.

        Not the parser's rows: of a chain without rules they do not tell the policy.
        """
        self._chains: dict[str, list[tuple[str, list[str]]]] = {}
        self._policies: dict[str, str] = {}
        here = False
        for line in saved.splitlines():
            if line.startswith("*"):
                here = line[1:].strip() == table
            elif here and line.startswith(":"):
                chain, policy, *_ = line[1:].split()
                self._policies[chain] = policy
            elif here and line.startswith("-A"):
                _, chain, *words = shlex.split(line)
                self._chains.setdefault(chain, []).append((line, words))

    def stops(self, packet: Packet, chain: str) -> str | None:
        """Return the rule, or the policy, that stops a packet in a chain; None where it passes."""
        verdict = self._walk(packet, chain, ())
        if verdict:
            return verdict[1] if verdict[0] in _STOP else None
        policy = self._policies.get(chain, "ACCEPT")
        return f"-P {chain} {policy}" if policy in _STOP else None

    def _walk(self, packet: Packet, chain: str, passed: tuple[str, ...]) -> tuple[str, str] | None:
        """Return the verdict of a chain with its rule; None where it has none."""
        for rule, words in self._chains.get(chain, ()):
            target = _target(words)
            if target is None or not _matches(words, packet):
                continue
            if target in ("ACCEPT", *_STOP):
                return target, rule
            if target == "RETURN":
                return None
            if target in self._chains and target not in passed:
                verdict = self._walk(packet, target, (*passed, chain))
                if verdict or "-g" in words:
                    return verdict
        return None


def _target(words: list[str]) -> str | None:
    at = next((at for at, word in enumerate(words) if word in ("-j", "-g")), None)
    return None if at is None else words[at + 1]


_KNOWN_MATCHES = {"tcp", "udp", "comment", "conntrack", "state", "multiport", "length"}


def _matches(words: list[str], packet: Packet) -> bool:
    """Whether a rule is for a packet; never where it asks for something unknown."""
    options = iter(words)
    negated = False
    for option in options:
        if option in ("-j", "-g"):
            return True
        if option == "!":
            negated = True
            continue
        fits = _fits(option, next(options, ""), packet)
        if fits is None or fits == negated:
            return False
        negated = False
    return True


def _fits(option: str, value: str, packet: Packet) -> bool | None:
    """Whether a packet has what an option asks for; None where that is not known."""
    match option:
        case "-m" | "--match":
            return True if value in _KNOWN_MATCHES else None
        case "--comment":
            return True
        case "-p":
            return value in (packet.protocol, "all")
        case "-s":
            return _within(packet.source, value)
        case "-d":
            return _within(packet.destination, value)
        case "-i" | "-o":
            return _is_interface(packet.interface, value)
        case "--dport" | "--dports":
            return _in_ranges(packet.port, value)
        case "--ctstate" | "--state":
            return "NEW" in value.split(",")
        case "--length":
            return _in_ranges(packet.length, value)
    return None


def _within(address: str, network: str) -> bool | None:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network) if address else None


def _is_interface(name: str, wanted: str) -> bool | None:
    if not name:
        return False if wanted == "lo" else None
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _in_ranges(number: int | None, ranges: str) -> bool:
    if number is None:
        return False
    ends = (part.partition(":") for part in ranges.split(","))
    return any(
        int(low or 0) <= number <= int((high if dash else low) or 65535) for low, dash, high in ends
    )
