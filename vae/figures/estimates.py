"""Charts of what changes with the number of samples or temperatures: estimates, brackets, signal to noise."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from vae.figures.canvas import (
    INK,
    LABEL_SIZE,
    MUTED,
    PALETTE,
    RULE,
    TEXT_SIZE,
    Vector,
    below_right,
    check_finite,
    check_length,
    check_range,
    in_own_style,
    new_axes,
    new_chart,
    new_figure,
    require,
    style_chart,
)
from vae.figures.charts import COLLAPSED, label_ends

LEAST_SPAN = 0.1  # nats: a gain that means nothing is flat


@in_own_style
def log_likelihood_by_num_samples(
    num_samples: Vector,
    log_likelihood: Vector,
    standard_error: float,
    gains: Sequence[tuple[float, float | None]],
    title: str,
    note: str = "",
) -> Figure:
    """Estimates of log p(x) in nats, [E], against the number k of importance samples of each, [E], in ascending order.

    `gains`, [E − 1], are the differences of neighbours on the same images with their standard errors, which say whether
    k is enough; `standard_error` is that of an estimate over images, and says it not. `note` stands below.
    """
    k = check_finite("num_samples", num_samples, "E")
    values = check_finite("log_likelihood", log_likelihood, "E")
    check_length("log_likelihood", values, len(k), "num_samples")
    check_length("gains", gains, len(k) - 1, "the steps between num_samples")
    require(np.all(k >= 1), f"num_samples has {k.min():g}; expected 1 or more")
    require(np.all(np.diff(k) > 0), "num_samples does not increase")
    require(standard_error >= 0, f"standard_error is {standard_error:g}; expected 0 or more")
    label = f"estimate of log p(x) (nats; ± {standard_error:.2f} over images)"
    figure, axes = new_chart(title, "importance samples k", label, height=600)
    axes.plot(k, values, "o-", color=PALETTE[0], markersize=4, linewidth=1.3)
    axes.set_xscale("log")
    axes.set_xticks(k, [f"{n:g}" for n in k])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.25)
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:
        axes.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
    for x, y in zip(k, values, strict=True):
        # Below and to the right, where the curve of a bound that grows with k does not pass.
        text = f"{y:.3f}".replace("-", "−")
        axes.annotate(text, (x, y), (5, -4), textcoords="offset points", va="top", fontsize=LABEL_SIZE, color=INK)
    for left, (gain, error) in enumerate(gains):
        middle = np.sqrt(k[left] * k[left + 1]), (values[left] + values[left + 1]) / 2
        text = f"{gain:+.3f}".replace("-", "−") + ("" if error is None else f" ± {error:.3f}")
        axes.annotate(
            text, middle, (-4, 7), textcoords="offset points", ha="right", fontsize=LABEL_SIZE, color=PALETTE[1]
        )
    if note:
        below_right(axes, note)
    return figure


@in_own_style
def signal_to_noise(
    panels: Mapping[str, Mapping[str, tuple[Vector, Vector, Vector]]], noise_floor: float, title: str
) -> Figure:
    """Signal-to-noise ratios of gradients: panel → name → (K [E], ratio [E], its standard error [E]), on log-log axes.

    The area below `noise_floor` is grey: such a ratio is that of noise alone. Each name keeps its colour in every
    panel, and is drawn a little to the side of the others, so that equal estimators do not hide each other.
    """
    require(len(panels) > 0 and all(map(len, panels.values())), "panels is empty; expected one curve or more in each")
    require(noise_floor > 0, f"noise_floor is {noise_floor:g}; expected more than 0")
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    lines = "-", "--", ":"
    most = len(PALETTE) * len(lines)
    require(len(names) <= most, f"{len(names)} curves are too many to be told apart; at most {most}")
    width, height, gap = 640, 620, 190 + 14 * max(map(len, names))
    figure = new_figure(len(panels) * (width + gap), height)
    for position, (panel, curves) in enumerate(panels.items()):
        axes = new_axes(figure, position * (width + gap), 0, width, height)
        style_chart(axes, f"{title}: {panel}", "samples K", "signal-to-noise ratio (± 1 standard error)")
        axes.set(xscale="log", yscale="log")
        ticks, ends = set(), []
        for name, columns in curves.items():
            k, values, errors = (check_finite(f"{panel} of {name!r}", column, "E") for column in columns)
            check_length(f"ratios of {name!r}", values, len(k), "K")
            check_length(f"standard errors of {name!r}", errors, len(k), "K")
            require(np.all(k >= 1) and np.all(values > 0), f"{panel} of {name!r}: expected K ≥ 1 and ratios above 0")
            i = names.index(name)
            color, line = PALETTE[i % len(PALETTE)], lines[i // len(PALETTE)]
            aside = k * 1.06 ** (i - (len(names) - 1) / 2)
            # A bar that reaches zero has no lower end on this axis.
            down = np.minimum(errors, 0.9 * values)
            style = {"linestyle": line, "marker": "o", "markersize": 3.5, "linewidth": 1.2, "elinewidth": 0.9}
            axes.errorbar(aside, values, (down, errors), color=color, capsize=2, **style)
            ticks |= set(k)
            ends.append((float(values[-1]), name, color))
        axes.axhspan(axes.get_ylim()[0] / 1e6, noise_floor, color=COLLAPSED, linewidth=0, zorder=0)
        axes.axhline(noise_floor, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        shown = [float(value) for curve in curves.values() for value in curve[1]]
        axes.set_ylim(min(*shown, noise_floor) / 1.5, max(*shown, noise_floor) * 1.35)
        axes.set_xticks(sorted(ticks), [f"{n:g}" for n in sorted(ticks)])
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.annotate(
            "noise floor", (0.01, noise_floor), (0, -3), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="top", fontsize=LABEL_SIZE, color=MUTED,
        )  # fmt: skip
        label_ends(axes, ends)
    return figure


@in_own_style
def gradient_work(panels: Mapping[str, Mapping[str, Sequence[tuple[int, float, bool]]]], title: str) -> Figure:
    """Variance × time of gradients, as multiples of that of the reparameterised one: panel → name → (K, multiple,
    whether its mean is wrong).

    A line for each name, the same in all panels, with a dot for each K, darker for larger ones and hollow if the mean
    is wrong. Left of the line at 1 an estimator is as precise in less time.
    """
    require(len(panels) > 0 and all(map(len, panels.values())), "panels is empty; expected one name or more in each")
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    counts = sorted({k for rows in panels.values() for dots in rows.values() for k, _, _ in dots})
    shades = dict(zip(counts, colormaps["viridis_r"](np.linspace(0.1, 1, len(counts))), strict=True))
    width, height, gap = 560, max(220, 60 + 44 * len(names)), 60
    figure = new_figure(len(panels) * (width + gap), height)
    axes = None
    for position, (panel, rows) in enumerate(panels.items()):
        axes = new_axes(figure, position * (width + gap), 0, width, height)
        style_chart(axes, f"{title}: {panel}" if position == 0 else panel, "variance × time (reparameterized = 1)", "")
        axes.set_xscale("log")
        axes.axvline(1, color=MUTED, linewidth=0.9, zorder=1)
        for name, dots in rows.items():
            _, values, _ = zip(*dots, strict=True)
            check_range(f"{panel} of {name!r}", np.asarray(values), np.finfo(float).tiny, np.inf, "all must be above 0")
            y = names.index(name)
            axes.plot(values, [y] * len(values), color=RULE, linewidth=2.5, zorder=2)
            for k, value, is_wrong in dots:
                face = "white" if is_wrong else shades[k]
                axes.plot(value, y, "o", color=shades[k], markerfacecolor=face, markersize=5.5, zorder=3)
        axes.set_yticks(range(len(names)), names if position == 0 else [""] * len(names), parse_math=False)
        axes.tick_params(axis="y", length=0, labelsize=TEXT_SIZE)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.margins(x=0.08)
        low, high = min(axes.get_xlim()[0], 0.5), max(axes.get_xlim()[1], 2)  # the times of equal programs differ too
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(LogLocator(10, (1, 2, 5) if high / low < 50 else (1,), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    assert axes is not None
    for k in counts:
        axes.plot([], [], "o", color=shades[k], markersize=5.5, label=f"K = {k}")
    if any(is_wrong for rows in panels.values() for dots in rows.values() for _, _, is_wrong in dots):
        axes.plot([], [], "o", color=MUTED, markerfacecolor="white", markersize=5.5, label="wrong mean")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.01), frameon=False, fontsize=LABEL_SIZE, handletextpad=0.3)
    return figure


@in_own_style
def log_likelihood_bracket(num_temperatures: Vector, lower: Vector, upper: Vector, title: str) -> Figure:
    """A lower and an upper bound of log p(x) in nats, [E], against the number of temperatures of annealing, [E]."""
    counts = check_finite("num_temperatures", num_temperatures, "E")
    bounds = {"upper": check_finite("upper", upper, "E"), "lower": check_finite("lower", lower, "E")}
    for name, values in bounds.items():
        check_length(name, values, len(counts), "num_temperatures")
    require(np.all(counts >= 1), f"num_temperatures has {counts.min():g}; expected 1 or more")
    order = np.argsort(counts)
    counts, bounds = counts[order], {name: values[order] for name, values in bounds.items()}
    figure, axes = new_chart(title, "temperatures", "bounds of log p(x) (nats)", height=600)
    axes.fill_between(counts, bounds["lower"], bounds["upper"], color=COLLAPSED, linewidth=0)
    for color, (name, values) in zip(PALETTE, bounds.items(), strict=False):
        axes.plot(counts, values, "o-", color=color, markersize=4, linewidth=1.3)
        # Away from the curves, which close from left to right.
        offset, place = ((0, 5), ("center", "bottom")) if name == "upper" else ((4, -4), ("left", "top"))
        for x, y in zip(counts, values, strict=True):
            text = f"{y:.2f}".replace("-", "−")
            style = {"ha": place[0], "va": place[1], "fontsize": LABEL_SIZE, "color": color}
            axes.annotate(text, (x, y), offset, textcoords="offset points", **style)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{n:g}" for n in counts])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.2)
    labels = zip(PALETTE, bounds.items(), strict=False)
    label_ends(axes, [(values[-1], f"{name} bound", color) for color, (name, values) in labels])
    return figure
