"""Experiments: many probes, one tidy table. Each takes what it looks at and returns a DataFrame.

One row is one probe or one count. A probe's row has the columns `argv`, `code`, `timed_out` and
`stderr`, so that `checks.reached` and `checks.not_reached` can judge it by the tool's own word. A plot
of the same name in `labkit.plots` draws the table.

Each experiment declares its columns (`labkit.schema`), and raises SchemaError where it would return
another table. In a replay each one raises NotInEvidence where it asks what was not recorded.
"""

from __future__ import annotations

from labkit.experiments.balance import Pause, callers, idle_connections, scaling, spread
from labkit.experiments.ingress import (
    addresses,
    drops,
    interfaces,
    plumbing,
    ports,
    reach,
    rule_counters,
)
from labkit.experiments.membership import members
from labkit.experiments.names import lookups, owners
from labkit.experiments.neighbours import frames, link_of, neighbour_tables, reach_by_entry, resolve
from labkit.experiments.path import balancers, clients, hops, packet, translations
from labkit.experiments.publishing import published
from labkit.experiments.summary import ablation, stations, technique_counters, techniques
from labkit.experiments.swarms import (
    leave_and_rejoin,
    namespace_views,
    namespaces,
    networks,
    nodes,
    sockets,
)
from labkit.experiments.timeline import moments, timeline
from labkit.experiments.topology import topology
from labkit.experiments.underlay import crossings, encryption, overheard, speeds, wire_sizes

__all__ = [
    "Pause",
    "ablation",
    "addresses",
    "balancers",
    "callers",
    "clients",
    "crossings",
    "drops",
    "encryption",
    "frames",
    "hops",
    "idle_connections",
    "interfaces",
    "leave_and_rejoin",
    "link_of",
    "lookups",
    "members",
    "moments",
    "namespace_views",
    "namespaces",
    "neighbour_tables",
    "networks",
    "nodes",
    "overheard",
    "owners",
    "packet",
    "plumbing",
    "ports",
    "published",
    "reach",
    "reach_by_entry",
    "resolve",
    "rule_counters",
    "scaling",
    "sockets",
    "speeds",
    "spread",
    "stations",
    "technique_counters",
    "techniques",
    "timeline",
    "topology",
    "translations",
    "wire_sizes",
]
