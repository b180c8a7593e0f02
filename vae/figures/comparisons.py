"""Charts of several objectives side by side: each has the same colour in all of them, given by its rank.

Shapes: S seeds, T times, D latent dimensions. A mapping is name → values, the best objective first.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae.figures.canvas import (
    INK,
    LABEL_SIZE,
    MUTED,
    PALETTE,
    RULE,
    TEXT_SIZE,
    Vector,
    check_finite,
    in_own_style,
    new_chart,
    number,
    require,
)

Runs = Sequence[tuple[Vector, Vector]]  # of each seed, (times [T], values [T])


WIDTH, HEIGHT = 760, 520  # pixels of the axes: two charts stand side by side on a page, and their text stays legible


def color_of(rank: int) -> str:
    return PALETTE[rank % len(PALETTE)]


@in_own_style
def log_likelihoods(scores: Mapping[str, Vector], title: str) -> Figure:
    """Log-likelihoods of single runs, [S] for each objective, as dots; mean ± standard error over seeds as bars."""
    figure, axes = _rows(list(scores), "log-likelihood (nats per image)", title)
    for rank, values in enumerate(scores.values()):
        values = check_finite("scores", values, "S")
        axes.plot(values, [rank] * len(values), "o", color=color_of(rank), alpha=0.4, markersize=5, markeredgewidth=0)
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        axes.errorbar(
            values.mean(), rank, xerr=error, fmt="|", color=color_of(rank), markersize=13, markeredgewidth=2,
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

    Values are cut off if they lie further below the last values than the middle half of all means.
    """
    require(any(len(runs) for runs in curves.values()), "curves is empty; expected at least one run")
    figure, axes = new_chart(title, x_label, y_label, WIDTH, HEIGHT)
    means = []
    for rank, (name, runs) in enumerate(curves.items()):
        color = color_of(rank)
        if not runs:
            axes.plot([], [], color=color, label=f"{name}  not recorded")
            continue
        for times, values in runs:
            axes.plot(times, values, color=color, linewidth=0.6, alpha=0.35)
        shortest = min(len(times) for times, _ in runs)
        mean = np.mean([np.asarray(values, float)[:shortest] for _, values in runs], axis=0)
        last = f"{mean[-1]:.2f}".replace("-", "−")
        axes.plot(np.asarray(runs[0][0])[:shortest], mean, color=color, linewidth=1.5, label=f"{name}  {last}")
        means.append(mean)
    every, last = np.concatenate(means), np.array([mean[-1] for mean in means])
    low = max(every.min(), min(np.quantile(every, 0.2), last.min() - 1.5 * np.ptp(np.quantile(every, [0.25, 0.75]))))
    margin = 0.06 * (every.max() - low) or 1.0
    axes.set_ylim(low - margin, every.max() + margin)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    _legend(axes)
    return figure


@in_own_style
def rate_distortion(points: Mapping[str, tuple[Vector, Vector]], title: str) -> Figure:
    """Rate KL(q(z|x) ‖ p(z)) against distortion −E log p(x|z), [S] each in nats (Alemi et al. 2018).

    Dashed lines join equal ELBO = −(rate + distortion), which stands at their right ends.
    """
    figure, axes = new_chart(title, "rate: KL (nats)", "distortion: −reconstruction (nats)", WIDTH, HEIGHT)
    for rank, (name, (rate, distortion)) in enumerate(points.items()):
        rate, distortion = check_finite("rate", rate, "S"), check_finite("distortion", distortion, "S")
        axes.plot(rate, distortion, "o", color=color_of(rank), alpha=0.4, markersize=4, markeredgewidth=0)
        axes.plot(rate.mean(), distortion.mean(), "o", color=color_of(rank), markersize=7, label=name)
    axes.margins(0.12)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in MaxNLocator(nbins=8).tick_values(left + bottom, right + top):
        axes.plot([left, right], [total - left, total - right], "--", color=RULE, linewidth=0.8, zorder=0)
        if bottom <= total - right < top:
            where = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(number(-total, 4), (right, total - right), **where, fontsize=LABEL_SIZE, color=MUTED)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.grid(False)
    _legend(axes)
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
        axes.plot(ranks, mean, ".-", color=color_of(rank), linewidth=1.3, markersize=4, label=name)
        ends.append(len(mean))
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.axhline(active_threshold, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        f"{active_threshold:g} nats", (1, active_threshold), (0, 3), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=LABEL_SIZE, color=MUTED,
    )  # fmt: skip
    axes.set_xlim(0.5, max(ends) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return figure


def _legend(axes: Axes) -> None:
    """Below the chart, in two columns."""
    where = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.17), "ncols": 2, "borderaxespad": 0}
    for text in axes.legend(**where, frameon=False, fontsize=TEXT_SIZE, columnspacing=1.4).get_texts():
        text.set(parse_math=False, color=INK)
