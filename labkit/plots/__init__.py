"""Plots of the experiments' tables: each takes a DataFrame and returns matplotlib Axes.

Only what was measured is drawn. A plot has the name of the experiment whose table it draws; `names` is
a second picture of `experiments.lookups`, and `examine` and `signatures` draw what `labkit.faults`
returns. Figures have the style of labkit.mplstyle, and a notebook's own settings stay as they are. Each
has an alternative text, for who cannot see it; `projector` makes later ones large enough for a class.
"""

from __future__ import annotations

from labkit.plots.balance import callers, idle_connections, scaling, spread
from labkit.plots.canvas import projector
from labkit.plots.faults import examine, signatures
from labkit.plots.ingress import drops, plumbing, ports, published, reach
from labkit.plots.membership import members
from labkit.plots.names import lookups, names
from labkit.plots.neighbours import frames, neighbour_tables, reach_by_entry
from labkit.plots.path import hops, translations
from labkit.plots.summary import ablation, techniques
from labkit.plots.swarms import leave_and_rejoin, namespace_views, namespaces, sockets
from labkit.plots.timeline import timeline
from labkit.plots.topology import packet, topology
from labkit.plots.underlay import crossings, overheard, speeds, wire_sizes

__all__ = [
    "ablation",
    "callers",
    "crossings",
    "drops",
    "examine",
    "frames",
    "hops",
    "idle_connections",
    "leave_and_rejoin",
    "lookups",
    "members",
    "names",
    "namespace_views",
    "namespaces",
    "neighbour_tables",
    "overheard",
    "packet",
    "plumbing",
    "ports",
    "projector",
    "published",
    "reach",
    "reach_by_entry",
    "scaling",
    "signatures",
    "sockets",
    "speeds",
    "spread",
    "techniques",
    "timeline",
    "topology",
    "translations",
    "wire_sizes",
]
