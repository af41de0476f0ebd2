"""Plots of who gets which request, and of kept connections (lab 07)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.plots.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, WIDTH, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TASKS = [(BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PURPLE, "D"), (SKY, "v"), (VERMILLION, "P")]
_TASKS += [(GREY, "X"), ("black", "*")]


def spread(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.spread`: for each way who answered which request, and how often each did.

    The dashed line is what round robin gives every task.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    ways = list(dict.fromkeys(zip(df["way"], df["keep_alive"], strict=True)))
    tables = [df[(df["way"] == way) & (df["keep_alive"] == kept)] for way, kept in ways]
    tasks = [_tasks_of(table) for table in tables]
    title = title or "Tasks that answered: " + ", ".join(
        f"{way} {table['task'].nunique()} of {len(names)}"
        for (way, _), table, names in zip(ways, tables, tasks, strict=True)
    )
    figure, panels = plt.subplots(
        len(ways),
        2,
        figsize=(WIDTH, 0.7 + sum(1.1 + 0.3 * len(names) for names in tasks)),
        width_ratios=[2, 1],
        height_ratios=[1.1 + 0.3 * len(names) for names in tasks],
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    most = max(float(table["task"].value_counts().max()) for table in tables)
    for (who, how_often), (way, kept), table, names in zip(panels, ways, tables, tasks, strict=True):
        expected = len(table) / max(len(names), 1)
        for y, name in enumerate(names):
            colour, marker = _TASKS[y % len(_TASKS)]
            mine = table[table["task"] == name]
            who.plot(mine["trial"], [y] * len(mine), marker, color=colour, markersize=6)
            how_often.barh(y, len(mine), 0.6, color=colour, edgecolor="white")
            how_often.text(len(mine), y, f" {len(mine)}", va="center", fontsize=10)
        lost = table[~table["reached"]]
        who.plot(lost["trial"], [-0.7] * len(lost), "x", color="black")
        how_often.axvline(expected, linestyle="--", color="black", linewidth=1.2)
        how_often.set_title(f"round robin: {expected:g} each", loc="left", fontsize=10)
        opened = int(table["connects"].sum())
        many = f"{opened} {'kept' if kept else 'new'} connection{'' if opened == 1 else 's'}"
        who.set_title(f"{way}: {many}", loc="left", fontsize=10, fontweight="bold")
        who.set_yticks(range(len(names)), names)
        who.set_ylim(len(names) - 0.4, -0.6 if lost.empty else -1.0)
        who.set_xlim(0, len(table) + 1)
        how_often.set_xlim(0, most * 1.18)
        for axes in (who, how_often):
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        who.grid(axis="y", alpha=0.3)
    panels[-1][0].set_xlabel("request number")
    panels[-1][1].set_xlabel("requests answered")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    left: Axes = panels[0][0]
    return left


def _tasks_of(df: pd.DataFrame) -> list[str]:
    """List the tasks that could have answered a way's requests, also those that did not."""
    answered = df[df["reached"]]
    services = list(dict.fromkeys(task.rpartition(".")[0] for task in answered["task"].dropna()))
    names = set(answered["task"].dropna())
    for service in services:
        mine = answered[answered["task"].str.startswith(f"{service}.", na=False)]
        names |= {f"{service}.{slot}" for slot in range(1, int(mine["replicas"].max()) + 1)}
    return sorted(names, key=lambda name: (name.rpartition(".")[0], int(name.rpartition(".")[2])))


def callers(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.callers`: for each way whose address the server saw, and how often."""
    from matplotlib.ticker import MaxNLocator

    own = df["owner"] == df["place"]
    told = df[own]["way"].nunique()
    title = title or f"On {told} of {df['way'].nunique()} ways the server saw the one who asked"
    axes = new_axes(1.3 + 0.6 * len(df), title)
    for y, (_, row) in enumerate(df.iterrows()):
        mine = row["owner"] == row["place"]
        axes.barh(
            y,
            row["requests"],
            0.62,
            color=GREEN if mine else ORANGE,
            hatch="" if mine else "///",
            edgecolor="white",
        )
        whose = "the one who asked" if mine else row["owner"]
        axes.text(
            0.02,
            y,
            f"{'✓' if mine else '✗'} {row['client']}: {whose}, {row['requests']} times",
            va="center",
            fontsize=10,
            fontweight="bold",
            transform=axes.get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2},
        )
    heads = [f"{row.way}\nasked by {row.place} on {row.node}" for row in df.itertuples()]
    axes.set_yticks(range(len(df)), heads)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_xlabel("requests")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def scaling(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.scaling`: who answered when, for each of the two programs that asked."""
    import matplotlib.pyplot as plt

    askers = list(dict.fromkeys(df["asker"]))
    after = df[df["ready"] & df["reached"]]
    counted = [f"{asker} {after[after['asker'] == asker]['task'].nunique()}" for asker in askers]
    title = title or f"When every task is ready, so many of them answer: {', '.join(counted)}"
    names = sorted(set(df["task"].dropna()), key=lambda name: int(name.rpartition(".")[2]))
    figure, panels = plt.subplots(
        len(askers),
        1,
        figsize=(WIDTH, 1.2 + len(askers) * (0.8 + 0.28 * len(names))),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    old = set(df[df["old"]]["task"].dropna())
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
            axes.annotate(f" {word}", (at, -0.9), fontsize=9, va="center", annotation_clip=False)
        opened = int(mine["connection"].max())
        axes.set_title(
            f"{asker} ({opened} for {len(mine)} requests)",
            loc="left",
            fontsize=10,
            fontweight="bold",
            pad=14,
        )
        heads = [name if name in old else f"{name} (new)" for name in names]
        axes.set_yticks(range(len(names) + 1), [*heads, "no answer"])
        axes.set_ylim(len(names) + 0.5, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[-1][0].set_xlabel("seconds from `docker service scale` on")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    first: Axes = panels[0][0]
    return first


def idle_connections(df: pd.DataFrame, *, title: str = "") -> Axes:
    """Draw `experiments.idle_connections`: IPVS's timer of each connection, and what became of the next request."""
    ends = df.groupby("connection", sort=False)[["asked_s", "ended"]].first()
    counted = ends["ended"].value_counts()
    title = title or "The next request: " + ", ".join(f"{n} {word}" for word, n in counted.items())
    axes = new_axes(4.4, title)
    looks = [(BLUE, "o", "-"), (VERMILLION, "s", "--"), (GREEN, "^", "-."), (PURPLE, "D", ":")]
    top = float(df["expires_s"].max()) if df["expires_s"].notna().any() else 1.0
    for number, (name, mine) in enumerate(df.groupby("connection", sort=False)):
        colour, marker, dash = looks[number % len(looks)]
        known = mine[mine["expires_s"].notna()]
        label = f"{name}" if len(known) else f"{name} (no entry at all)"
        axes.plot(
            known["at_s"].astype(float),
            known["expires_s"].astype(float),
            color=colour,
            marker=marker,
            linestyle=dash,
            markersize=5,
            label=label,
        )
        at, ended = float(ends["asked_s"][name]), str(ends["ended"][name])
        height = -top * (0.08 + 0.1 * number)
        good = ended == "answered"
        axes.plot([0, at], [height, height], color=colour, linestyle=dash, linewidth=1.2)
        axes.plot(at, height, marker=marker, color=colour, markersize=8)
        axes.annotate(
            f"{'✓' if good else '✗'} {ended}: {name}",
            (at, height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=GREEN if good else VERMILLION,
            annotation_clip=False,
        )
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xlim(-0.5, float(df["asked_s"].max()) * 1.6)
    axes.set_ylim(-top * (0.1 + 0.1 * len(ends)), top * 1.1)
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top * 1.1])
    axes.set_xlabel("seconds since the connection was opened")
    axes.set_ylabel("seconds until IPVS forgets it")
    axes.legend(loc="upper right", frameon=False, fontsize=10)
    return axes
