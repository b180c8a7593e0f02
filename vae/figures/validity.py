"""Charts of a test on simulated data whose truth is known: how often it errs, and what it finds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae.figures.canvas import (
    INK,
    LABEL_SIZE,
    MUTED,
    PALETTE,
    TEXT_SIZE,
    Vector,
    check_finite,
    check_length,
    in_own_style,
    new_axes,
    new_figure,
    require,
    style_chart,
)

WIDTH, HEIGHT, GAP = 500, 430, 130  # pixels of the axes


class Cells(NamedTuple):
    """Of C simulated cases: x, shares in 0…1, and what each is called."""

    x: Vector
    rates: Mapping[str, Vector]
    groups: Sequence[str]
    names: Sequence[str]


@in_own_style
def rates_of_cells(panels: Mapping[str, Cells], limits: Mapping[str, tuple[float, bool]], x_label: str) -> Figure:
    """Rates in %: a column for each panel, a row for each of `limits`, a dot for each cell, a colour for each group.

    A limit is (value, whether it is the most allowed). Its line is drawn; the cell that comes closest to the forbidden
    side, or is furthest on it, has a ring and its name.
    """
    require(len(panels) > 0 and len(limits) > 0, "panels or limits is empty; expected at least one of each")
    figure = new_figure(len(panels) * (WIDTH + GAP), len(limits) * (HEIGHT + GAP))
    groups = list(dict.fromkeys(group for cells in panels.values() for group in cells.groups))
    top: Axes | None = None
    for row, (rate, (limit, is_most)) in enumerate(limits.items()):
        above = None
        for column, (panel, cells) in enumerate(panels.items()):
            x = check_finite(f"x of {panel!r}", cells.x, "C")
            values = 100 * check_finite(f"{rate} of {panel!r}", cells.rates[rate], "C")
            for what, entries in ((rate, values), ("groups", cells.groups), ("names", cells.names)):
                check_length(f"{what} of {panel!r}", entries, len(x), "x")
            axes = new_axes(figure, column * (WIDTH + GAP), row * (HEIGHT + GAP), WIDTH, HEIGHT)
            label = x_label if row == len(limits) - 1 else ""
            style_chart(axes, panel if row == 0 else "", label, "" if column else f"{rate} (%)")
            for color, group in zip(PALETTE, groups, strict=False):
                chosen = [index for index, one in enumerate(cells.groups) if one == group]
                axes.plot(x[chosen], values[chosen], ".", color=color, markersize=3.5, alpha=0.65, label=group)
            axes.axhline(100 * limit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            worst = int(values.argmax() if is_most else values.argmin())
            axes.plot(x[worst], values[worst], "o", color=INK, markerfacecolor="none", markersize=8)
            _name(axes, x, values, worst, cells.names[worst], above=is_most)
            axes.margins(x=0.05)
            if above is not None:
                axes.sharey(above)
            above = axes
        top = top or above
    _legend(top)
    return figure


def _name(axes: Axes, x: np.ndarray, values: np.ndarray, index: int, name: str, above: bool) -> None:
    """Beside the ring, on the side with more room, away from the other dots."""
    left = x[index] > (x.min() + x.max()) / 2
    axes.annotate(
        f"{name}: {values[index]:.2f} %", (x[index], values[index]), (0, 9 if above else -9),
        textcoords="offset points", ha="right" if left else "left", va="bottom" if above else "top",
        fontsize=LABEL_SIZE, color=INK,
    )  # fmt: skip
    axes.margins(y=0.16)


@in_own_style
def power_of_tests(
    panels: Mapping[str, Mapping[str, Mapping[str, Vector]]], differences: Vector, x_label: str
) -> Figure:
    """Shares of true differences that are found: panel → test → group → [D] in 0…1, at `differences` [D].

    Each test has its kind of line, the first a full one; each group its colour.
    """
    require(len(panels) > 0, "panels is empty; expected at least one")
    x = check_finite("differences", differences, "D")
    figure = new_figure(len(panels) * (WIDTH + GAP), HEIGHT)
    axes = None
    for column, (panel, tests) in enumerate(panels.items()):
        axes = new_axes(figure, column * (WIDTH + GAP), 0, WIDTH, HEIGHT)
        style_chart(axes, panel, x_label, "" if column else "differences found (%)")
        for line, (test, groups) in zip(("-", ":", "--"), tests.items(), strict=False):
            for color, (group, values) in zip(PALETTE, groups.items(), strict=False):
                values = 100 * check_finite(f"{test} of {group!r}", values, "D")
                check_length(f"{test} of {group!r}", values, len(x), "differences")
                axes.plot(x, values, line, marker=".", color=color, linewidth=1.3, label=f"{group}, {test}")
        axes.set_ylim(-4, 104)
        axes.set_xticks(x, [f"{value:g}" for value in x])
    _legend(axes)
    return figure


def _legend(axes: Axes | None) -> None:
    """To the right of the last chart."""
    assert axes is not None
    where = {"loc": "upper left", "bbox_to_anchor": (1.04, 1.02), "borderaxespad": 0}
    for text in axes.legend(**where, frameon=False, fontsize=TEXT_SIZE, markerscale=2).get_texts():
        text.set(parse_math=False, color=MUTED)
