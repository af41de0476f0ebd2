"""Experiments: many probes, one tidy table. Each takes what it looks at and returns a DataFrame.

A row is one probe or one count. Where a row is a probe it has `place`, `argv`, `code`, `timed_out` and
`stderr`, so that `checks.reached` and `checks.not_reached` can judge it by the tool's own word. A plot
of the same name in `labkit.plots` draws the table.
"""

from __future__ import annotations

from labkit.experiments.ingress import (
    addresses,
    drops,
    interfaces,
    plumbing,
    ports,
    reach,
    rule_counters,
)
from labkit.experiments.names import lookups, owners
from labkit.experiments.neighbours import frames, link_of, neighbour, neighbours, resolve
from labkit.experiments.path import balancers, clients, hops, translations
from labkit.experiments.swarms import members, membership, namespaces, networks, sockets, views

__all__ = [
    "addresses",
    "balancers",
    "clients",
    "drops",
    "frames",
    "hops",
    "interfaces",
    "link_of",
    "lookups",
    "members",
    "membership",
    "namespaces",
    "neighbour",
    "neighbours",
    "networks",
    "owners",
    "plumbing",
    "ports",
    "reach",
    "resolve",
    "rule_counters",
    "sockets",
    "translations",
    "views",
]
