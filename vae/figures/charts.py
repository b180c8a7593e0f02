"""Charts of a run: the latent space, learning curves, KL per dimension."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from vae.figures.canvas import (
    INK,
    LABEL_SIZE,
    MUTED,
    PALETTE,
    TEXT_SIZE,
    Vector,
    below_right,
    check_finite,
    check_length,
    in_own_style,
    latent,
    new_axes,
    new_chart,
    new_figure,
    number,
    require,
    style_chart,
)

COLLAPSED = "#efefef"


@in_own_style
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
    """One scale on both axes, around both circles and all points, except those far outside, which are counted."""
    low, high = np.quantile(z, [0.001, 0.999], axis=0)
    reach = 0.5 * (high - low)
    near = np.where((z >= low - reach) & (z <= high + reach), z, 0)
    low, high = np.minimum(near.min(axis=0), -2.2), np.maximum(near.max(axis=0), 2.2)
    center, half = (low + high) / 2, 1.04 * np.max(high - low) / 2
    axes.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half), aspect="equal")
    outside = np.count_nonzero(np.any(np.abs(z - center) > half, axis=1))
    if outside:
        below_right(axes, f"points outside: {outside} of {len(z)}")


@in_own_style
def learning_curves(
    curves: Mapping[str, tuple[Vector, Vector]], x_label: str, y_label: str, title: str, best: float | None = None
) -> Figure:
    """Curves name → (steps [S], values [S]), with the last value of each. NaN breaks a curve. Up to 5 % of a
    curve are cut off at either side, so that a terrible first epoch does not flatten the rest; the picture says so.
    A line marks the `best` step."""
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
    if best is not None:
        axes.axvline(best, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        left, right = axes.get_xlim()
        aside, side = (-3, "right") if 2 * best > left + right else (3, "left")
        axes.annotate(f"best: {best:g}", (best, 0), (aside, 3), ("data", "axes fraction"), "offset points",
                      ha=side, fontsize=LABEL_SIZE, color=MUTED)  # fmt: skip
    label_ends(axes, ends)
    return figure


@in_own_style
def controlled(
    paths: Mapping[str, tuple[Vector, Vector, Vector]], wanted: Vector, labels: tuple[str, str], title: str
) -> Figure:
    """Run name → (epochs [S], what is held [S], its weight [S]), in two charts above each other, and the `wanted`
    values as broken lines. `labels` are of the two. NaN breaks a line."""
    require(len(paths) > 0, "paths is empty; expected at least one")
    width, height, gap = 1100, 380, 130  # in which a note may stand
    figure = new_figure(width, 2 * height + gap)
    charts = [new_axes(figure, 0, top, width, height) for top in (0, height + gap)]
    for axes, label, heading, x_label in zip(charts, labels, (title, ""), ("", "epoch"), strict=True):
        style_chart(axes, heading, x_label, label)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    for value in sorted({float(value) for value in wanted}):
        charts[0].axhline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    for position, axes in enumerate(charts):
        ends, shown = [], []
        for i, (name, (epochs, *columns)) in enumerate(paths.items()):
            values = np.asarray(columns[position], dtype=np.float64)
            check_length(name, values, len(epochs), "its epochs")
            values, color = np.where(np.isfinite(values), values, np.nan), PALETTE[i % len(PALETTE)]
            axes.plot(epochs, values, color=color, linewidth=1.1)
            known = values[~np.isnan(values)]
            shown += [known] if len(known) else []
            last = known[-1] if len(known) else math.nan
            ends.append((last, f"{name}  {number(float(last))}" if len(known) else f"{name}  no finite value", color))
        _limit(axes, shown)
        label_ends(axes, ends)
    return figure


def window(values: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest of `values`, without those in the outer 5 % that are far from the bulk."""
    outer_low, low, high, outer_high = np.quantile(values, [0.05, 0.25, 0.75, 0.95])
    reach = 3 * (high - low)
    return max(values.min(), min(outer_low, low - reach)), min(values.max(), max(outer_high, high + reach))


def _limit(axes: Axes, curves: Sequence[np.ndarray]) -> None:
    if len(curves) == 0:
        axes.set(xticks=[], yticks=[])
        return
    values = np.concatenate(curves)
    lows, highs = zip(*map(window, curves), strict=True)
    low, high = min(lows), max(highs)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)
    below, above = values[values < low - margin], values[values > high + margin]
    notes = [f"{len(below)} below, down to {number(below.min())}"] if len(below) else []
    notes += [f"{len(above)} above, up to {number(above.max())}"] if len(above) else []
    if notes:
        below_right(axes, "values outside: " + "; ".join(notes))


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """The text of each (height, text, colour) at the right edge, at its height or as near as the others let it."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(axes.get_ylim())
    values = scale.transform([end[0] for end in ends])
    heights = np.where(np.isnan(values), 0, np.clip((values - low) / (high - low), 0, 1))
    order, line = np.argsort(heights), 35 / axes.bbox.height  # in pixels
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


@in_own_style
def kl_per_dimension(kl: Vector, title: str, active_threshold: float = 0.01) -> Figure:
    """KL(q(z_i|x) ‖ p(z_i)) of each latent dimension, [D] in nats, in decreasing order. Those not above
    `active_threshold` are drawn on grey and do not count as active."""
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
