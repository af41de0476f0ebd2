"""Draws docs/architecture.svg from the imports of the code: `python docs/draw_architecture.py`.

A box is a module or package on the top level of labkit/. An arrow goes from who imports to what is
imported. Left out are arrows that follow from others (a to c, where a to b and b to c are there) and
those to the foundations, which import nothing of labkit and are open to all. With --check nothing is
written; the exit code is 1 where the drawing is not that of today's imports.

The layout is that of Sugiyama, Tagawa and Toda (1981): floors by the longest way down, order on a floor
by the mean of the neighbours, places by least squares.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
DRAWING = ROOT / "docs" / "architecture.svg"

Graph = Mapping[str, frozenset[str]]
"""The name of a module -> the modules that it imports."""

# What a notebook imports, or gets from what it imports.
FOR_NOTEBOOKS = {
    "capture",
    "checks",
    "diagnosis",
    "errors",
    "experiments",
    "faults",
    "outcomes",
    "panel",
    "parsers",
    "plots",
    "schema",
    "swarm",
    "tries",
    "variants",
}

BOX, HIGH, GAP, FLOOR, MARGIN = 104, 32, 16, 74, 24  # pixels
WAY = 12  # the width that an arrow takes where it passes a floor
SWEEPS = 24

# Okabe and Ito's colours, which colour-blind people tell apart; the line of the box differs too.
NOTEBOOK = {"fill": "#D6EAF5", "stroke": "#0072B2", "stroke-width": "2"}
TRADE = {"fill": "#FFFFFF", "stroke": "#6E6E6E", "stroke-width": "1"}
ARROW = "#6E6E6E"


def imports_of(package: Path) -> Graph:
    """Return which modules of a package import which, inside functions too, but not for types alone."""
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).with_suffix("").parts[0]
        if not module.startswith("__"):  # those only hand on what the others have
            graph.setdefault(module, set()).update(
                _imported(path.read_text(encoding="utf-8"), package.name)
            )
    return {module: frozenset(found & graph.keys() - {module}) for module, found in graph.items()}


def _imported(source: str, package: str) -> set[str]:
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {parts[1] for name in names if (parts := name.split("."))[0] == package and parts[1:]}
    return found


def foundations(graph: Graph) -> list[str]:
    """List the modules that import no other module and are imported by more than one."""
    return [
        module
        for module, imported in graph.items()
        if not imported and sum(module in others for others in graph.values()) > 1
    ]


def without_implied(graph: Graph) -> Graph:
    """Return the graph without the arrows that follow from others."""
    return {
        module: frozenset(
            other
            for other in imported
            if not any(other in _reached(graph, between) for between in imported - {other})
        )
        for module, imported in graph.items()
    }


def _reached(graph: Graph, module: str) -> set[str]:
    reached: set[str] = set()
    open_ = [module]
    while open_:
        for other in graph[open_.pop()] - reached:
            reached.add(other)
            open_.append(other)
    return reached


def floors_of(graph: Graph) -> dict[str, int]:
    """Return each module's floor: 0 for one without arrows, else one above the highest that it imports.

    Raises ValueError for modules that import each other in a cycle.
    """
    cycle = sorted(module for module in graph if module in _reached(graph, module))
    if cycle:
        raise ValueError(f"these import each other in a cycle: {', '.join(cycle)}")
    floors: dict[str, int] = {}

    def floor(module: str) -> int:
        if module not in floors:
            floors[module] = max((floor(other) + 1 for other in graph[module]), default=0)
        return floors[module]

    for module in sorted(graph):
        floor(module)
    return floors


@dataclass(frozen=True)
class Layout:
    """Where boxes are, by the name of their module, and each arrow as its points from top to bottom."""

    places: dict[str, tuple[float, int]]
    arrows: list[list[str]]
    """Names of places: a module, the points where the arrow passes a floor, a module."""
    width: float


def layout(graph: Graph) -> Layout:
    """Place the modules on floors, 0 the lowest, so that arrows are short and cross little."""
    floors = floors_of(graph)
    arrows: list[list[str]] = []
    for module, imported in sorted(graph.items()):
        for other in sorted(imported):
            between = [f"{module}>{other}@{n}" for n in range(floors[module] - 1, floors[other], -1)]
            floors |= {point: int(point.rpartition("@")[2]) for point in between}
            arrows.append([module, *between, other])
    rows = [
        sorted(n for n in floors if floors[n] == floor) for floor in range(max(floors.values()) + 1)
    ]
    neighbours: dict[str, list[str]] = {name: [] for name in floors}
    for arrow in arrows:
        for upper, lower in pairwise(arrow):
            neighbours[upper].append(lower)
            neighbours[lower].append(upper)

    x = {name: float(at * (BOX + GAP)) for row in rows for at, name in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 else reversed(rows):
            wanted = {
                name: sum(x[other] for other in neighbours[name]) / len(neighbours[name])
                if neighbours[name]
                else x[name]
                for name in row
            }
            row.sort(key=lambda name: (wanted[name], name))
            x |= dict(
                zip(row, _spread([wanted[n] for n in row], [_width(n) for n in row]), strict=True)
            )
    left = min(x[name] - _width(name) / 2 for name in x)
    width = max(x[name] + _width(name) / 2 for name in x) - left
    places = {name: (x[name] - left, floors[name]) for name in x}
    return Layout(places, arrows, width)


def _width(name: str) -> int:
    return WAY if "@" in name else BOX


def _spread(wanted: Sequence[float], widths: Sequence[int]) -> list[float]:
    """Return places in the given order and far enough apart, as near to the wanted ones as that allows.

    Near means least squares: an isotonic regression, by pooling what is out of order.
    """
    offsets = [0.0]
    for before, after in pairwise(widths):
        offsets.append(offsets[-1] + (before + after) / 2 + GAP)
    pools: list[list[float]] = []
    for value, offset in zip(wanted, offsets, strict=True):
        pools.append([value - offset])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    flat = [_mean(pool) for pool in pools for _ in pool]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def draw(graph: Graph) -> str:
    """Return the drawing as SVG; the same imports give the same text."""
    base = foundations(graph)
    above = without_implied({r: imported - set(base) for r, imported in graph.items() if r not in base})
    alone = [
        module for module in above if not above[module] and not any(module in i for i in above.values())
    ]
    plan = layout({module: imported for module, imported in above.items() if module not in alone})
    top = max(floor for _, floor in plan.places.values())
    bands = {"Open to all, importing none": sorted(base), "Importing only those": sorted(alone)}
    inner = max(plan.width, max(map(len, bands.values())) * (BOX + GAP) - GAP)
    shift = MARGIN + (inner - plan.width) / 2
    begin = 2 * MARGIN + HIGH
    bottom = begin + (top + 1) * FLOOR + HIGH / 2
    height, width = bottom + FLOOR + HIGH / 2 + MARGIN, inner + 2 * MARGIN

    def at(name: str) -> tuple[float, float]:
        x, floor = plan.places[name]
        return x + shift, begin + (top - floor) * FLOOR

    parts = [*_legend(), *(_path([at(name) for name in arrow]) for arrow in plan.arrows)]
    parts += [_box(module, *at(module)) for module in sorted(above) if module not in alone]
    for row, (label, modules) in enumerate(bands.items()):
        y = bottom + row * FLOOR
        parts.append(_text(f"{label}:", MARGIN, y - 28, anchor="start"))
        parts += [
            _box(module, MARGIN + BOX / 2 + n * (BOX + GAP), y) for n, module in enumerate(modules)
        ]
    arrows = sum(map(len, graph.values()))
    said = f"{len(graph)} modules and packages of labkit, {arrows} imports between them, no cycle"
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"'
        ' font-family="system-ui, sans-serif" font-size="13">\n'
        f"<title>{said}</title>\n"
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        f' orient="auto"><path d="M0 0 8 4 0 8z" fill="{ARROW}"/></marker></defs>\n'
        '<rect width="100%" height="100%" fill="#FFFFFF"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _legend() -> list[str]:
    """Return what the boxes and arrows mean, above the drawing."""
    y = MARGIN - 4
    marks = []
    for x, style, text in (
        (MARGIN, NOTEBOOK, "what a notebook uses"),
        (MARGIN + 200, TRADE, "a trade of its own"),
    ):
        marks.append(f'<rect x="{x}" y="{y - 8}" width="22" height="16" rx="4" {_attributes(style)}/>')
        marks.append(_text(text, x + 30, y, anchor="start"))
    x = MARGIN + 360
    marks.append(f'<path d="M{x} {y}h30" stroke="{ARROW}" marker-end="url(#head)"/>')
    return [
        *marks,
        _text("imports (what follows from other arrows is left out)", x + 38, y, anchor="start"),
    ]


def _box(module: str, x: float, y: float) -> str:
    style = NOTEBOOK if module in FOR_NOTEBOOKS else TRADE
    return (
        f'<rect x="{x - BOX / 2:.0f}" y="{y - HIGH / 2:.0f}" width="{BOX}" height="{HIGH}" rx="5"'
        f" {_attributes(style)}/>\n{_text(module, x, y)}"
    )


def _text(text: str, x: float, y: float, *, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" dominant-baseline="central">'
        f"{escape(text)}</text>"
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Return an arrow that leaves below its first box and ends above its last."""
    (x, y), *between, (end_x, end_y) = points
    way = [(x, y + HIGH / 2), *between, (end_x, end_y - HIGH / 2)]
    curve = f"M{way[0][0]:.0f} {way[0][1]:.0f}"
    for (x0, y0), (x1, y1) in pairwise(way):
        middle = (y0 + y1) / 2
        curve += f" C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}"
    return f'<path d="{curve}" fill="none" stroke="{ARROW}" marker-end="url(#head)"/>'


def _attributes(style: Mapping[str, str]) -> str:
    return " ".join(f'{name}="{value}"' for name, value in style.items())


def main() -> int:
    """Write the drawing, or compare it with the one that is there."""
    drawing = draw(imports_of(ROOT / "labkit"))
    if "--check" in sys.argv[1:]:
        return 0 if DRAWING.is_file() and DRAWING.read_text(encoding="utf-8") == drawing else 1
    DRAWING.write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
