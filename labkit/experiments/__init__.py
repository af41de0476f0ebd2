"""Experiments: many probes, one tidy table. Each takes what it looks at and returns a DataFrame.

A row is one probe or one count. Where a row is a probe it has `place`, `argv`, `code`, `timed_out` and
`stderr`, so that `checks.reached` and `checks.not_reached` can judge it by the tool's own word. A plot
of the same name in `labkit.plots` draws the table.
"""

from __future__ import annotations

from labkit.experiments.balance import Pause, callers, idle, scaling, spread
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
from labkit.experiments.summary import evidence, stations, techniques, without
from labkit.experiments.swarms import members, membership, namespaces, networks, sockets, views
from labkit.experiments.timeline import moments, timeline
from labkit.experiments.underlay import crossings, encryption, overheard, speeds, wire_sizes

__all__ = [
    "Pause",
    "addresses",
    "balancers",
    "callers",
    "clients",
    "crossings",
    "drops",
    "encryption",
    "evidence",
    "frames",
    "hops",
    "idle",
    "interfaces",
    "link_of",
    "lookups",
    "members",
    "membership",
    "moments",
    "namespaces",
    "neighbour",
    "neighbours",
    "networks",
    "overheard",
    "owners",
    "plumbing",
    "ports",
    "reach",
    "resolve",
    "rule_counters",
    "scaling",
    "sockets",
    "speeds",
    "spread",
    "stations",
    "techniques",
    "timeline",
    "translations",
    "views",
    "wire_sizes",
    "without",
]
