"""Plots of the experiments' tables: each takes a DataFrame and returns matplotlib Axes.

Only what was measured is drawn. A plot has the name of the experiment whose table it draws.
"""

from __future__ import annotations

from labkit.plots.balance import callers, idle, scaling, spread
from labkit.plots.faults import examine, signatures
from labkit.plots.ingress import drops, plumbing, ports, reach
from labkit.plots.names import lookups, names
from labkit.plots.neighbours import frames, neighbour, neighbours
from labkit.plots.path import hops, translations
from labkit.plots.summary import techniques, without
from labkit.plots.swarms import membership, namespaces, sockets, views
from labkit.plots.timeline import timeline
from labkit.plots.underlay import crossings, overheard, speeds, wire_sizes

__all__ = [
    "callers",
    "crossings",
    "drops",
    "examine",
    "frames",
    "hops",
    "idle",
    "lookups",
    "membership",
    "names",
    "namespaces",
    "neighbour",
    "neighbours",
    "overheard",
    "plumbing",
    "ports",
    "reach",
    "scaling",
    "signatures",
    "sockets",
    "speeds",
    "spread",
    "techniques",
    "timeline",
    "translations",
    "views",
    "wire_sizes",
    "without",
]
