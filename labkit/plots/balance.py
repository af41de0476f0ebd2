"""Plots of who gets which request, and of kept connections (labs 07 and 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labkit.plots.canvas import (
    BLUE,
    GREEN,
    GREEN_INK,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    VERMILLION_INK,
    draws,
    figure_title,
    mark,
    new_axes,
    new_panels,
    note,
    whole_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

_TASKS = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (SKY, "v"), (VERMILLION, "P")]
_TASKS += [(GREY, "X"), ("black", "*")]
_CONNECTIONS = [(BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":")]


@draws("experiments.spread")
def spread(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.spread`: for each way who answered which request, and how often each did.

    The dashed line is what round robin gives every task.
    """
    ways = list(dict.fromkeys(zip(df["way"], df["keep_alive"], strict=True)))
    tables = [df[(df["way"] == way) & (df["keep_alive"] == kept)] for way, kept in ways]
    tasks = [_tasks_of(table) for table in tables]
    title = title or "Tasks that answered: " + ", ".join(
        f"{way} {table['task'].nunique()} of {len(names)}"
        for (way, _), table, names in zip(ways, tables, tasks, strict=True)
    )
    heights = [1.1 + 0.3 * len(names) for names in tasks]
    figure, panels = new_panels(
        len(ways), 2, 0.7 + sum(heights), width_ratios=[2, 1], height_ratios=heights, sharey="row"
    )
    counts = [int(count) for table in tables for count in table["task"].value_counts()]
    most = float(max(counts, default=1))
    for (who, how_often), (way, kept), table, names in zip(panels, ways, tables, tasks, strict=True):
        opened = int(table["connects"].sum())
        asked = f"{opened} {'kept' if kept else 'new'} connection{'' if opened == 1 else 's'}"
        if not table["reached"].all():
            asked = f"{len(table)} requests, {int(table['reached'].sum())} answered"
        who.set_title(f"{way}: {asked}", fontsize=10)
        _draw_answers(who, table, names)
        _draw_counts(how_often, table, names, most)
    panels[-1][0].set_xlabel("request number")
    panels[-1][1].set_xlabel("requests answered")
    figure_title(figure, title)
    first: Axes = panels[0][0]
    return first


def _draw_answers(axes: Axes, df: pd.DataFrame, names: Sequence[str]) -> None:
    """Draw one mark per request: the height is the task that answered, above all is no answer."""
    for y, name in enumerate(names):
        colour, marker = _TASKS[y % len(_TASKS)]
        mine = df[df["task"] == name]
        axes.plot(mine["trial"], [y] * len(mine), marker, color=colour, markersize=6)
    lost = df[~df["reached"]]
    axes.plot(lost["trial"], [-0.7] * len(lost), "x", color="black")
    rows = dict(enumerate(names)) | ({} if lost.empty else {-0.7: "no answer"})
    axes.set_yticks(list(rows), list(rows.values()))
    axes.set_ylim(len(names) - 0.4, -0.6 if lost.empty else -1.0)
    axes.set_xlim(0, len(df) + 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
    whole_numbers(axes.xaxis)
    if not names:
        note(axes, "nobody answered")


def _draw_counts(axes: Axes, df: pd.DataFrame, names: Sequence[str], most: float) -> None:
    """Draw one bar per task, as long as its count of answers, and the line of round robin."""
    beside: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # a line may pass
    for y, name in enumerate(names):
        count = int((df["task"] == name).sum())
        axes.barh(y, count, 0.6, color=_TASKS[y % len(_TASKS)][0])
        axes.annotate(
            f"{count}", (count, y), (6, 0), textcoords="offset points", va="center", bbox=beside
        )
    if names:
        expected = len(df) / len(names)
        axes.axvline(expected, linestyle="--", color="black", linewidth=1.2)
        axes.set_title(f"round robin: {expected:.3g} each", fontsize=10, fontweight="normal")
    axes.set_xlim(0, most * 1.18)
    axes.tick_params(axis="y", length=0)
    whole_numbers(axes.xaxis)


def _tasks_of(df: pd.DataFrame) -> list[str]:
    """List the tasks that could have answered a way's requests, also those that did not."""
    answered = df[df["reached"]]
    services = list(dict.fromkeys(task.rpartition(".")[0] for task in answered["task"].dropna()))
    names = set(answered["task"].dropna())
    for service in services:
        mine = answered[answered["task"].str.startswith(f"{service}.", na=False)]
        names |= {f"{service}.{slot}" for slot in range(1, int(mine["replicas"].max()) + 1)}
    return sorted(names, key=lambda name: (name.rpartition(".")[0], int(name.rpartition(".")[2])))


@draws("experiments.callers")
def callers(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.callers`: for each way whose address the server saw, and how often."""
    own = df["owner"] == df["place"]
    honest = df[own]["way"].nunique()
    title = title or f"On {honest} of {df['way'].nunique()} ways the server saw the one who asked"
    axes = new_axes(1.3 + 0.6 * len(df), title)
    for y, (_, row) in enumerate(df.iterrows()):
        mine = bool(row["owner"] == row["place"])
        axes.barh(
            y, row["requests"], 0.62, color=GREEN if mine else ORANGE, hatch="" if mine else "///"
        )
        whose = "the one who asked" if mine else row["owner"]
        axes.text(
            0.02,
            y,
            f"{mark(mine)} {row['client']}: {whose}, {row['requests']} times",
            va="center",
            fontweight="bold",
            transform=axes.get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2},
        )
    heads = [f"{row.way}\nasked by {row.place} on {row.node}" for row in df.itertuples()]
    axes.set_yticks(range(len(df)), heads)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("requests")
    whole_numbers(axes.xaxis)
    return axes


@draws("experiments.scaling")
def scaling(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.scaling`: who answered when, for each of the two programs that asked."""
    askers = list(dict.fromkeys(df["asker"]))
    after = df[df["ready"] & df["reached"]]
    counted = [f"{asker} {after[after['asker'] == asker]['task'].nunique()}" for asker in askers]
    title = title or f"When every task is ready, so many of them answer: {', '.join(counted)}"
    names = sorted(set(df["task"].dropna()), key=lambda name: int(name.rpartition(".")[2]))
    height = 1.2 + len(askers) * (0.8 + 0.28 * len(names))
    figure, panels = new_panels(len(askers), 1, height, sharex=True)
    old = set(df[df["old"]]["task"].dropna())
    heads = [name if name in old else f"{name} (new)" for name in names]
    ready = float(df[df["ready"]]["at_s"].min())
    for (axes,), asker in zip(panels, askers, strict=True):
        mine = df[df["asker"] == asker]
        for y, name in enumerate(names):
            colour, marker = _TASKS[y % len(_TASKS)]
            dots = mine[mine["task"] == name]
            axes.plot(dots["at_s"], [y] * len(dots), marker, color=colour, markersize=5)
        lost = mine[~mine["reached"]]
        axes.plot(lost["at_s"], [len(names)] * len(lost), "x", color=VERMILLION, markersize=7)
        for at, word in ((0.0, "scale"), (ready, "all tasks answer")):
            axes.axvline(at, color="black", linewidth=1.2, linestyle="--")
            axes.annotate(f" {word}", (at, -0.9), fontsize=SMALL, va="center", annotation_clip=False)
        opened = int(mine["connection"].max())
        axes.set_title(f"{asker} ({opened} for {len(mine)} requests)", fontsize=10, pad=14)
        axes.set_yticks(range(len(names) + 1), [*heads, "no answer"])
        axes.set_ylim(len(names) + 0.5, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y")
    panels[-1][0].set_xlabel("seconds from `docker service scale` on")
    figure_title(figure, title)
    first: Axes = panels[0][0]
    return first


@draws("experiments.idle_connections")
def idle_connections(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.idle_connections`: IPVS's timer of each, and how its next request ended."""
    ends = df.groupby("connection", sort=False)[["asked_s", "ended"]].first()
    counted = ends["ended"].value_counts()
    title = title or "The next request: " + ", ".join(f"{n} {word}" for word, n in counted.items())
    axes = new_axes(4.4, title)
    top = float(df["expires_s"].max()) if df["expires_s"].notna().any() else 1.0
    for number, (name, mine) in enumerate(df.groupby("connection", sort=False)):
        look = _CONNECTIONS[number % len(_CONNECTIONS)]
        _draw_timer(axes, str(name), mine, look)
        at, ended = float(ends["asked_s"][name]), str(ends["ended"][name])
        _draw_end(axes, str(name), at, -top * (0.08 + 0.1 * number), ended, look)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xlim(-0.5, float(df["asked_s"].max()) * 1.6)
    axes.set_ylim(-top * (0.1 + 0.1 * len(ends)), top * 1.1)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top * 1.1])
    axes.set_xlabel("seconds since the connection was opened")
    axes.set_ylabel("seconds until IPVS forgets it")
    axes.legend(loc="upper right")
    return axes


def _draw_timer(axes: Axes, name: str, df: pd.DataFrame, look: tuple[str, str, str]) -> None:
    """Draw how long IPVS still remembers a connection, at each reading."""
    colour, marker, dash = look
    known = df[df["expires_s"].notna()]
    axes.plot(
        known["at_s"].astype(float),
        known["expires_s"].astype(float),
        color=colour,
        marker=marker,
        linestyle=dash,
        markersize=5,
        label=name if len(known) else f"{name} (no entry here)",
    )


def _draw_end(
    axes: Axes, name: str, at: float, height: float, ended: str, look: tuple[str, str, str]
) -> None:
    """Draw until when a connection was idle, and the word for its next request."""
    colour, marker, dash = look
    axes.plot([0, at], [height, height], color=colour, linestyle=dash, linewidth=1.2)
    axes.plot(at, height, marker=marker, color=colour, markersize=8)
    good = ended == "answered"
    axes.annotate(
        f"{mark(good)} {ended}: {name}",
        (at, height),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold",
        color=GREEN_INK if good else VERMILLION_INK,
        annotation_clip=False,
    )
