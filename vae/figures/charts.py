"""Charts: the latent space, learning curves, KL per dimension, and what changes with the number K of samples."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from vae.figures.canvas import (
    INK,
    LABEL_SIZE,
    MUTED,
    PALETTE,
    TEXT_SIZE,
    Vector,
    check_finite,
    check_length,
    latent,
    new_axes,
    new_chart,
    new_figure,
    number,
    require,
    style_chart,
)

COLLAPSED = "#efefef"


def latent_scatter(
    z: np.ndarray,
    labels: Vector | None,
    title: str,
    dimensions: tuple[int, int] = (0, 1),
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Points z, [N, D], in the plane of two latent dimensions, coloured by class (`labels`, [N] integers from 0, named
    by `class_names`); by a colour bar for real labels or more than ten classes. Circles: 1σ and 2σ of N(0, I)."""
    z = check_finite("z", z, "N D")
    fits = all(0 <= d < z.shape[1] for d in dimensions)
    require(fits, f"dimensions is {dimensions}; expected two from 0 to {z.shape[1] - 1}, the dimensions of z")
    z = z[:, list(dimensions)]
    figure, axes = new_chart(title, latent(dimensions[0]), latent(dimensions[1]), 900, 900)
    axes.grid(False)
    _scatter(figure, axes, z, labels, class_names)
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=INK, linewidth=0.7, linestyle=(0, (4, 3))))
        text = axes.annotate(f"{radius}σ", (0, radius), (0, 3), textcoords="offset points", ha="center")
        text.set(fontsize=LABEL_SIZE, color=INK, path_effects=[withStroke(linewidth=2, foreground="white")])
    _square_window(axes, z)
    return figure


def _scatter(
    figure: Figure, axes: Axes, z: np.ndarray, labels: Vector | None, class_names: Sequence[str] | None
) -> None:
    # Mixed, so that the last class does not lie on top of the others.
    order = np.random.default_rng(0).permutation(len(z))
    x, y = z[order].T
    crowd = len(z) / 1e4
    style = {"s": float(np.clip(4 / crowd, 3, 25)), "alpha": float(np.clip(0.65 / crowd, 0.2, 0.65)), "linewidths": 0}
    if labels is None:
        axes.scatter(x, y, color=PALETTE[0], **style)
        return
    check_length("labels", labels, len(z), "the points of z")
    values = check_finite("labels", labels, "N")[order]
    classes, position = np.unique(values, return_inverse=True)
    if len(classes) <= len(PALETTE) and np.all(classes == np.rint(classes)):
        axes.scatter(x, y, c=np.array(PALETTE)[position], **style)
        _legend(axes, classes.astype(int), class_names)
    else:
        points = axes.scatter(x, y, c=values, cmap="viridis", **style)
        opaque = ScalarMappable(points.norm, points.cmap)
        bar = figure.colorbar(opaque, cax=axes.inset_axes((1.04, 0, 0.03, 1)))
        bar.set_label("label", fontsize=TEXT_SIZE, color=INK)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=LABEL_SIZE, length=0)


def _legend(axes: Axes, classes: np.ndarray, class_names: Sequence[str] | None) -> None:
    if class_names is not None:
        fits = classes[0] >= 0 and classes[-1] < len(class_names)
        require(fits, f"labels run from {classes[0]} to {classes[-1]}; class_names has {len(class_names)} entries")
    for color, label in zip(PALETTE, classes, strict=False):
        axes.scatter([], [], s=22, color=color, linewidths=0, label=class_names[label] if class_names else str(label))
    where = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.01)}
    for text in axes.legend(**where, frameon=False, fontsize=TEXT_SIZE, handletextpad=0.3).get_texts():
        text.set_parse_math(False)


def _square_window(axes: Axes, z: np.ndarray) -> None:
    """One scale on both axes, around both circles and all points but those far outside, which are counted."""
    low, high = np.quantile(z, [0.001, 0.999], axis=0)
    reach = 0.5 * (high - low)
    near = np.where((z >= low - reach) & (z <= high + reach), z, 0)
    low, high = np.minimum(near.min(axis=0), -2.2), np.maximum(near.max(axis=0), 2.2)
    center, half = (low + high) / 2, 1.04 * np.max(high - low) / 2
    axes.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half), aspect="equal")
    outside = np.count_nonzero(np.any(np.abs(z - center) > half, axis=1))
    if outside:
        _note(axes, f"points outside: {outside} of {len(z)}")


def learning_curves(curves: Mapping[str, tuple[Vector, Vector]], x_label: str, y_label: str, title: str) -> Figure:
    """Curves name → (steps [S], values [S]), with the last value of each. NaN breaks a curve. A terrible first epoch
    does not flatten the rest: up to 5 % of a curve are cut off at either side, and the picture says so."""
    require(len(curves) > 0, "curves is empty; expected at least one")
    figure, axes = new_chart(title, x_label, y_label)
    ends, shown = [], []
    for i, (name, (steps, values)) in enumerate(curves.items()):
        steps = check_finite(f"steps of {name!r}", steps, "S")
        values = np.asarray(values, dtype=np.float64)
        require(values.shape == steps.shape, f"{name!r} has {values.size} values; expected {steps.size}, one per step")
        values = np.where(np.isfinite(values), values, np.nan)
        known = np.flatnonzero(~np.isnan(values))
        color, line = PALETTE[i % len(PALETTE)], ("-", "--", ":")[i // len(PALETTE) % 3]
        if len(known) == 0:
            ends.append((math.nan, f"{name}  no finite value", color))
            continue
        last = known[-1]
        axes.plot(steps, values, line, color=color, linewidth=1.3)
        gap = np.isnan(np.pad(values, 1, constant_values=np.nan))
        # A value between two gaps has no line.
        dots = known if len(steps) <= 30 else np.flatnonzero(gap[:-2] & ~gap[1:-1] & gap[2:])
        axes.plot(steps[dots], values[dots], ".", color=color, markersize=5)
        axes.plot(steps[last], values[last], "o", color=color, markersize=4)
        then = "" if last == len(values) - 1 else ", then NaN"
        ends.append((values[last], f"{name}  {number(float(values[last]))}{then}", color))
        shown.append(values[known])
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    _limit(axes, shown)
    _label_ends(axes, ends)
    return figure


def _window(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest of `values`, without those in the outer 5 % that are far from the bulk."""
    outer_low, low, high, outer_high = np.quantile(values, [0.05, 0.25, 0.75, 0.95])
    reach = 3 * (high - low)
    return max(values.min(), min(outer_low, low - reach)), min(values.max(), max(outer_high, high + reach))


def _limit(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    if len(curves) == 0:
        axes.set(xticks=[], yticks=[])
        return
    values = np.concatenate(curves)
    lows, highs = zip(*map(_window, curves), strict=True)
    low, high = min(lows), max(highs)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    below, above = values[values < low - margin], values[values > high + margin]
    notes = [f"{len(below)} below, down to {number(below.min())}"] if len(below) else []
    notes += [f"{len(above)} above, up to {number(above.max())}"] if len(above) else []
    if notes:
        _note(axes, "values outside: " + "; ".join(notes))


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """The text of each (height, text, colour) at the right edge, at its height or as near as the others let it."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    values = scale.transform([end[0] for end in ends])
    heights = np.where(np.isnan(values), 0, np.clip((values - low) / (high - low), 0, 1))
    order, line = np.argsort(heights), 0.05
    for below, above in pairwise(order):
        heights[above] = max(heights[above], heights[below] + line)
    heights[order[-1]] = min(heights[order[-1]], 1)
    for above, below in pairwise(order[::-1]):
        heights[below] = min(heights[below], heights[above] - line)
    for height, (_, text, color) in zip(heights, ends, strict=True):
        axes.annotate(
            text,
            (1.02, height),
            xycoords="axes fraction",
            va="center",
            fontsize=TEXT_SIZE,
            color=color,
            parse_math=False,
            annotation_clip=False,
        )


def kl_per_dimension(kl: Vector, title: str, active_threshold: float = 0.01) -> Figure:
    """KL(q(z_i|x) ‖ p(z_i)) of each latent dimension, [D] in nats, in decreasing order; those not above
    `active_threshold` lie on grey and do not count as active."""
    kl = check_finite("kl", kl, "D")
    order = np.argsort(-kl, kind="stable")
    active = int(np.count_nonzero(kl > active_threshold))
    figure, axes = new_chart(title, "latent dimension, sorted", "KL (nats)", height=600)
    ranks = np.arange(1, len(kl) + 1)
    axes.axvspan(active + 0.5, len(kl) + 0.5, color=COLLAPSED, linewidth=0)
    axes.bar(ranks, kl[order], width=min(0.8, 0.1 + 0.1 * len(kl)) if len(kl) <= 100 else 1, color=PALETTE[0])
    axes.grid(False, axis="x")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(0.5, len(kl) + 0.5)
    axes.margins(y=0.12)
    if len(kl) <= 24:
        axes.set_xticks(ranks, [latent(int(d)) for d in order])
    text = f"{active} of {len(kl)} active (KL > {active_threshold:g} nats), {number(kl.sum(), 4)} nats in total"
    axes.annotate(text, (0.99, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=TEXT_SIZE, color=INK)
    return figure


def log_likelihood_by_num_samples(
    num_samples: Vector,
    log_likelihood: Vector,
    standard_error: Vector,
    title: str,
) -> Figure:
    """Estimates of log p(x) in nats, [E], against the number k of importance samples of each, [E], ± standard error."""
    k = check_finite("num_samples", num_samples, "E")
    values = check_finite("log_likelihood", log_likelihood, "E")
    errors = check_finite("standard_error", standard_error, "E")
    check_length("log_likelihood", values, len(k), "num_samples")
    check_length("standard_error", errors, len(k), "num_samples")
    require(np.all(k >= 1), f"num_samples has {k.min():g}; expected 1 or more")
    require(np.all(errors >= 0), f"standard_error has {errors.min():g}; expected 0 or more")
    order = np.argsort(k)
    k, values, errors = k[order], values[order], errors[order]
    figure, axes = new_chart(
        title, "importance samples k", "estimate of log p(x) (nats, ± 1 standard error)", height=600
    )
    axes.errorbar(k, values, errors, fmt="o-", color=PALETTE[0], markersize=4, linewidth=1.3, capsize=3, elinewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(k, [f"{n:g}" for n in k])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.15)
    for x, y in zip(k, values, strict=True):
        # Below and to the right, where the curve of a bound that grows with k does not pass.
        text = f"{y:.2f}".replace("-", "−")
        axes.annotate(text, (x, y), (5, -4), textcoords="offset points", va="top", fontsize=LABEL_SIZE, color=INK)
    return figure


def signal_to_noise(
    panels: Mapping[str, Mapping[str, tuple[Vector, Vector, Vector]]], noise_floor: float, title: str
) -> Figure:
    """Signal-to-noise ratios of gradients: panel → name → (K [E], ratio [E], its standard error [E]), on log-log axes.

    Below `noise_floor`, on grey, a ratio is that of noise alone. Each name keeps its colour in every panel, and stands
    a little to the side of the others: equal estimators do not hide each other.
    """
    require(len(panels) > 0 and all(map(len, panels.values())), "panels is empty; expected one curve or more in each")
    require(noise_floor > 0, f"noise_floor is {noise_floor:g}; expected more than 0")
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
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
            color, line = PALETTE[i % len(PALETTE)], ("-", "--", ":")[i // len(PALETTE) % 3]
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
        _label_ends(axes, ends)
    return figure


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
    _label_ends(axes, [(values[-1], f"{name} bound", color) for color, (name, values) in labels])
    return figure


def _note(axes: Axes, text: str) -> None:
    """Small print below the right end of the axes."""
    axes.annotate(
        text,
        (1, 0),
        (0, -32),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=LABEL_SIZE,
        color=MUTED,
    )
