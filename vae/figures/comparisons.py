"""Charts of several objectives side by side: each has the same colour in all of them, given by its rank.

Shapes: S seeds, T times, D latent dimensions. A mapping is name → values, the best objective first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from vae.figures.canvas import (
    LABEL_SIZE,
    MUTED,
    PALETTE,
    RULE,
    TEXT_SIZE,
    Vector,
    below_right,
    check_finite,
    in_own_style,
    legend_below,
    mean_and_error,
    new_chart,
    number,
    require,
)
from vae.figures.charts import window

Runs = Sequence[tuple[Vector, Vector]]  # of each seed, (times [T], values [T])


MOST_LINES = 14  # of equal ELBO
WIDTH, HEIGHT = 760, 520  # pixels of the axes: two charts stand side by side on a page, and their text stays legible


LINES, MARKERS = ("-", "--", ":", "-."), "osD^"  # of the first ten objectives, of the next ten, …


def color_of(rank: int) -> str:
    return PALETTE[rank % len(PALETTE)]


def style_of(rank: int, line: bool = False) -> dict[str, Any]:
    """A colour, and a marker or a kind of line: no two of forty objectives have both in common."""
    kind = {"linestyle": LINES[_lap(rank)]} if line else {"linestyle": "none", "marker": MARKERS[_lap(rank)]}
    return {"color": color_of(rank), **kind}


def _lap(rank: int) -> int:
    return rank // len(PALETTE) % len(LINES)


@in_own_style
def log_likelihoods(scores: Mapping[str, Vector], title: str) -> Figure:
    """Log-likelihoods of single runs, [S] for each objective, as dots; mean ± standard error over seeds as bars."""
    figure, axes = _rows(list(scores), "log-likelihood (nats per image)", title)
    for rank, values in enumerate(scores.values()):
        values = check_finite("scores", values, "S")
        axes.plot(values, [rank] * len(values), **style_of(rank), alpha=0.4, markersize=5, markeredgewidth=0)
        mean, error = mean_and_error(values)
        axes.errorbar(
            mean, rank, xerr=np.nan_to_num(error), fmt="|", color=color_of(rank), markersize=13, markeredgewidth=2,
            capsize=4, elinewidth=1.6,
        )  # fmt: skip
    return figure


@in_own_style
def differences(rows: Mapping[str, tuple[float, float, float, bool]], best: str, title: str) -> Figure:
    """(difference, low, high, significant) of each objective from the `best` one, which keeps the first colour.

    An interval that is not significant is hollow and grey.
    """
    figure, axes = _rows(list(rows), f"nats per image below {best}", title)
    axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
    for row, (difference, low, high, significant) in enumerate(rows.values()):
        color = color_of(row + 1) if significant else MUTED
        face = color if significant else "white"
        axes.plot([low, high], [row, row], color=color, linewidth=1.6)
        axes.plot(difference, row, "o", color=color, markerfacecolor=face, markersize=6)
    axes.xaxis.label.set_parse_math(False)
    return figure


def _rows(names: Sequence[str], x_label: str, title: str) -> tuple[Figure, Axes]:
    """A chart with a line for each name, the first at the top."""
    require(len(names) > 0, "there is nothing to draw; expected at least one objective")
    figure, axes = new_chart(title, x_label, "", WIDTH, max(HEIGHT - 150, 60 + 60 * len(names)))
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.margins(x=0.08)
    return figure, axes


@in_own_style
def curves_of_objectives(curves: Mapping[str, Runs], x_label: str, y_label: str, title: str) -> Figure:
    """A thin line for each run and a thick one for their mean at equal times, with its last value.

    Values are cut off below, and counted, as those of `charts.learning_curves`.
    """
    require(any(len(runs) for runs in curves.values()), "curves is empty; expected at least one run")
    figure, axes = new_chart(title, x_label, y_label, WIDTH, HEIGHT)
    every = []
    for rank, (name, runs) in enumerate(curves.items()):
        style = style_of(rank, line=True)
        if not runs:
            axes.plot([], [], **style, label=f"{name}  not recorded")
            continue
        for times, values in runs:
            axes.plot(times, values, **style, linewidth=0.6, alpha=0.35)
            every.append(np.asarray(values, float))
        shortest = min(len(times) for times, _ in runs)
        mean = np.mean([np.asarray(values, float)[:shortest] for _, values in runs], axis=0)
        last = f"{mean[-1]:.2f}".replace("-", "−")
        axes.plot(np.asarray(runs[0][0])[:shortest], mean, **style, linewidth=1.5, label=f"{name}  {last}")
    of_runs, low = np.concatenate(every), min(window(values)[0] for values in every)
    margin = 0.06 * (of_runs.max() - low) or 1.0
    axes.set_ylim(low - margin, of_runs.max() + margin)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    below = of_runs[of_runs < low - margin]
    if len(below):
        below_right(axes, f"values below: {len(below)} of {len(of_runs)}, down to {number(below.min(), 4)}")
    legend_below(axes)
    return figure


@in_own_style
def rate_distortion(points: Mapping[str, tuple[Vector, Vector]], title: str) -> Figure:
    """Rate KL(q(z|x) ‖ p(z)) against distortion −E log p(x|z), [S] each in nats (Alemi et al. 2018).

    Dashed lines join equal ELBO = −(rate + distortion), which stands where they leave the chart.
    """
    figure, axes = new_chart(title, "rate: KL (nats)", "distortion: −reconstruction (nats)", WIDTH, HEIGHT)
    for rank, (name, (rate, distortion)) in enumerate(points.items()):
        rate, distortion = check_finite("rate", rate, "S"), check_finite("distortion", distortion, "S")
        axes.plot(rate, distortion, **style_of(rank), alpha=0.4, markersize=4, markeredgewidth=0)
        axes.plot(rate.mean(), distortion.mean(), **style_of(rank), markersize=7, label=name)
    axes.margins(0.12)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    totals = [np.add(*map(np.asarray, point)) for point in points.values()]
    least, most = min(total.min() for total in totals), max(total.max() for total in totals)
    # As many lines between the points as show which of two is better, and as many again to the corners.
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(least, max(most, least + 1e-3 * abs(least)))
    step = ticks[1] - ticks[0]
    first, last = math.ceil((left + bottom) / step), math.floor((right + top) / step)
    stride = math.ceil((last - first + 1) / MOST_LINES)
    for total in (step * count for count in range(first, last + 1) if count % stride == 0):
        axes.plot([left, right], [total - left, total - right], "--", color=RULE, linewidth=0.8, zorder=0)
        leaves_right = total - right >= bottom
        at = (right, total - right) if leaves_right else (total - bottom, bottom)
        style: dict[str, Any] = {"fontsize": LABEL_SIZE, "color": MUTED, "textcoords": "offset points", "va": "center"}
        halo = [withStroke(linewidth=2, foreground="white")]
        if leaves_right:
            axes.annotate(number(-total, 10), at, (3, 0), **style)
        elif left < at[0]:
            axes.annotate(number(-total, 10), at, (2, 6), **style, path_effects=halo, zorder=1)
    head = axes.annotate("ELBO", (1, 1), (3, 7), "axes fraction", "offset points", fontsize=LABEL_SIZE, color=MUTED)
    head.set_fontweight("bold")
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.grid(False)
    legend_below(axes)
    return figure


@in_own_style
def kl_spectra(kl: Mapping[str, np.ndarray], title: str, active_threshold: float = 0.01) -> Figure:
    """KL of each latent dimension in decreasing order, [S, D] in nats: the mean over seeds, on a logarithmic scale."""
    figure, axes = new_chart(title, "latent dimension, sorted", "KL (nats)", WIDTH, HEIGHT)
    ends = []
    for rank, (name, values) in enumerate(kl.items()):
        ordered = -np.sort(-check_finite("kl", values, "S D"), axis=1)
        mean = np.maximum(ordered.mean(0), 1e-6)
        ranks = np.arange(1, len(mean) + 1)
        axes.plot(ranks, mean, **style_of(rank, line=True), marker=".", linewidth=1.3, markersize=4, label=name)
        ends.append(len(mean))
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high / low < 200:  # one power of ten or two alone would say little
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.axhline(active_threshold, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{active_threshold:g} nats", (1, active_threshold), (0, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=LABEL_SIZE, color=MUTED,
    )  # fmt: skip
    axes.set_xlim(0.5, max(ends) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)
    return figure
