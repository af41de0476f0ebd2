"""Plots of the experiments' tables: each takes a DataFrame and returns matplotlib Axes.

Only what was measured is drawn. A plot has the name of the experiment whose table it draws.
"""

from __future__ import annotations

from labkit.plots.ingress import drops, plumbing, ports, reach
from labkit.plots.names import lookups, names
from labkit.plots.neighbours import frames, neighbour, neighbours
from labkit.plots.path import hops, translations
from labkit.plots.swarms import membership, namespaces, sockets, views

__all__ = [
    "drops",
    "frames",
    "hops",
    "lookups",
    "membership",
    "names",
    "namespaces",
    "neighbour",
    "neighbours",
    "plumbing",
    "ports",
    "reach",
    "sockets",
    "translations",
    "views",
]
