"""Charts of speed: who does a work in what time, and how time and memory grow."""

import math
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
    number,
    require,
    style_chart,
)

COLORS = {"ours": PALETTE[0], "peer": PALETTE[4], "limit": "#c9c9c9"}


class Bar(NamedTuple):
    """The time of one who does a work: the median and the range over rounds; `whose` is a key of COLORS."""

    name: str
    median: float
    lowest: float
    highest: float
    whose: str


@in_own_style
def times_of_works(works: Mapping[str, tuple[str, Sequence[Bar]]]) -> Figure:
    """A panel for each work, title → (unit of the times, bars), the fastest on top; lines are lowest to highest."""
    require(len(works) > 0, "works is empty; expected at least one")
    row, gap, width, margin = 38, 170, 620, 400
    columns = min(2, len(works))
    heights = [row * len(bars) for _, bars in works.values()]
    tops, bottom = [], [0] * columns
    for height in heights:
        column = int(np.argmin(bottom))
        tops.append((column, bottom[column]))
        bottom[column] += height + gap
    figure = new_figure(columns * (width + margin), max(bottom))
    for (title, (unit, bars)), (column, top), height in zip(works.items(), tops, heights, strict=True):
        axes = new_axes(figure, column * (width + margin), top, width, height)
        style_chart(axes, title, unit, "")
        _draw_bars(axes, sorted(bars, key=lambda bar: bar.median))
    return figure


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    medians = check_finite("medians", [bar.median for bar in bars], "N")
    ranges = np.abs(np.array([[bar.lowest, bar.highest] for bar in bars]).T - medians)
    places = np.arange(len(bars))
    colors = [COLORS[bar.whose] for bar in bars]
    axes.barh(places, medians, 0.72, color=colors, xerr=ranges, error_kw={"elinewidth": 0.8, "ecolor": INK})
    axes.set_yticks(places, [bar.name for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.18 * max(bar.highest for bar in bars)))
    for place, bar in enumerate(bars):
        text = number(bar.median, 3) if bar.median < 1000 else f"{bar.median:.0f}"
        end = axes.annotate(text, (bar.highest, place), (3, 0), textcoords="offset points", va="center")
        end.set(fontsize=LABEL_SIZE, color=INK)


class Growth(NamedTuple):
    """What grows with an axis: seconds of a step and the limit below it, and bytes, each [V] at its values [V]."""

    values: Vector
    seconds: Mapping[str, Vector]  # by name, drawn in colour; "limit" as a broken line
    bytes: Mapping[str, Vector]


@in_own_style
def growth(axes_of_growth: Mapping[str, Growth], title: str) -> Figure:
    """Milliseconds of a step above, megabytes below, against each axis, name → Growth; scales are logarithmic."""
    require(len(axes_of_growth) > 0, "axes_of_growth is empty; expected at least one")
    side, gap, between = 460, 130, 150
    figure = new_figure(len(axes_of_growth) * (side + gap), 2 * side + between)
    rows = [(1e3, "ms a step", [one.seconds for one in axes_of_growth.values()]),
            (1e-6, "MB", [one.bytes for one in axes_of_growth.values()])]  # fmt: skip
    for row, (scale, label, columns) in enumerate(rows):
        every = scale * np.concatenate([check_finite(label, line, "V") for lines in columns for line in lines.values()])
        for column, ((name, one), lines) in enumerate(zip(axes_of_growth.items(), columns, strict=True)):
            axes = new_axes(figure, column * (side + gap), row * (side + between), side, side)
            style_chart(axes, title if row == column == 0 else "", name, "" if column else label)
            _draw_lines(axes, one.values, lines, scale)
            _scale(axes, every)
            if row == column == 0:
                axes.legend(frameon=False, fontsize=TEXT_SIZE, loc="upper left")
    return figure


def _draw_lines(axes: Axes, values: Vector, lines: Mapping[str, Vector], scale: float) -> None:
    x = check_finite("values", values, "V")
    for place, (name, line) in enumerate(lines.items()):
        check_length(name, line, len(x), "values")
        y = scale * np.asarray(line, np.float64)
        if name == "limit":
            axes.plot(x, y, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=name)
        else:
            axes.plot(x, y, "o-", color=PALETTE[place], markersize=3.5, linewidth=1.3, label=name)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(x, [f"{value:g}" for value in x])


def _scale(axes: Axes, every: np.ndarray) -> None:
    """A logarithmic y axis with room for `every` value of its row, and a few numbers on it."""
    low, high = every.min() / 1.3, every.max() * 1.3
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_ylim(low, high)
    steps = (1, 2, 5) if high < 100 * low else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
