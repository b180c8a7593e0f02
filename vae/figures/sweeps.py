"""Charts of a sweep and of a search: a score against axes or trials, and the learning curves of many runs."""

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
    below_right,
    check_finite,
    check_length,
    in_own_style,
    legend_below,
    mean_and_error,
    new_axes,
    new_chart,
    new_figure,
    number,
    require,
    set_title,
)

Scores = Sequence[Sequence[float]]  # of each point, one for every seed; NaN if a run diverged


@in_own_style
def score_against_axis(
    values: Sequence, lines: Mapping[str, Scores], x_label: str, y_label: str, title: str, *, log: bool = False
) -> Figure:
    """Mean and standard error over seeds of a score at each of `values` (numbers, or names), a line for each of
    `lines`; small dots are single runs. A mean without any finite score is left out, and diverged runs are counted."""
    require(len(lines) > 0, "lines is empty; expected at least one")
    named = any(isinstance(value, str) for value in values)
    x = np.arange(len(values), dtype=float) if named else check_finite("values", values, "X")
    figure, axes = new_chart(title, x_label, y_label)
    runs = []
    for i, (name, scores) in enumerate(lines.items()):
        check_length(f"scores of {name!r}", scores, len(values), "values")
        color = PALETTE[i % len(PALETTE)]
        means, errors = (np.array(column) for column in zip(*map(mean_and_error, scores), strict=True))
        shown = np.isfinite(means)
        axes.errorbar(
            x[shown], means[shown], np.nan_to_num(errors[shown]), fmt="o-", color=color, label=name,
            markersize=4, linewidth=1.3, capsize=3, elinewidth=1,
        )  # fmt: skip
        for position, at_this in zip(x, scores, strict=True):
            axes.plot([position] * len(at_this), at_this, ".", color=color, alpha=0.35, markersize=3, zorder=1)
        runs.append(np.concatenate([np.asarray(at_this, float) for at_this in scores]))
    if log:
        axes.set_xscale("log")
        axes.minorticks_off()
    if named or len(values) <= 12:
        axes.set_xticks(x, [value if isinstance(value, str) else f"{value:g}" for value in values])
    _window_of(axes, np.concatenate(runs))
    if len(lines) > 1:
        legend_below(axes)
    return figure


@in_own_style
def score_heat_map(
    x_values: Sequence, y_values: Sequence, scores: np.ndarray, x_label: str, y_label: str, title: str
) -> Figure:
    """Scores [Y, X] in nats, written in their cells; a cell without a finite score is empty."""
    scores = np.asarray(scores, dtype=np.float64)
    shape = len(y_values), len(x_values)
    require(scores.shape == shape, f"scores has shape {scores.shape}; expected {shape}, y_values by x_values")
    figure = new_figure(1100, 900)
    height = shape[0] * max(60, min(150, 900 // shape[0]))
    width = shape[1] * max(90, min(300, 900 // shape[1]))  # wide enough for a score, and for the title
    axes = new_axes(figure, 0, 0, width, height)
    # A few terrible cells would leave one colour for all others.
    low, high, _ = _bulk(scores)
    picture = axes.imshow(scores, cmap="viridis", aspect="auto", origin="lower", vmin=low, vmax=high)
    for (row, column), score in np.ndenumerate(scores):
        text = f"{score:.2f}".replace("-", "−") if np.isfinite(score) else "—"
        color = MUTED if not np.isfinite(score) else "white" if score < (low + high) / 2 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=LABEL_SIZE, color=color)
    for set_ticks, values in ((axes.set_xticks, x_values), (axes.set_yticks, y_values)):
        set_ticks(range(len(values)), [value if isinstance(value, str) else f"{value:g}" for value in values])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(x_label, fontsize=TEXT_SIZE, color=INK)
    axes.set_ylabel(y_label, fontsize=TEXT_SIZE, color=INK)
    set_title(axes, title)
    bar = figure.colorbar(picture, cax=axes.inset_axes((1.04, 0, 0.03, 1)))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=LABEL_SIZE, length=0)
    return figure


@in_own_style
def learning_curves_of_sweep(
    curves: Mapping[str, tuple[Vector, np.ndarray]], x_label: str, y_label: str, title: str, *, num_named: int = 8
) -> Figure:
    """Curves name → (steps [T], values [S, T] of S seeds, NaN after a divergence): mean and ± standard error. Those
    with the best last means are in colour and named, the others grey."""
    require(len(curves) > 0, "curves is empty; expected at least one")
    figure, axes = new_chart(title, x_label, y_label)
    summaries = {}
    for name, (steps, values) in curves.items():
        values = np.asarray(values, dtype=np.float64)
        require(values.ndim == 2 and values.shape[1] == len(steps), f"{name!r} has values of shape {values.shape}")
        summaries[name] = np.array([mean_and_error(column) for column in values.T]).T
    last = {name: means[np.isfinite(means)][-1:] for name, (means, _) in summaries.items()}
    ranked = sorted(summaries, key=lambda name: last[name][0] if len(last[name]) else -np.inf, reverse=True)
    for name in ranked[num_named:]:
        axes.plot(curves[name][0], summaries[name][0], color=RULE, linewidth=0.8, zorder=1)
    has_band = False
    for i, name in enumerate(ranked[:num_named]):
        steps, (means, errors) = np.asarray(curves[name][0]), summaries[name]
        color = PALETTE[i % len(PALETTE)]
        end = f"  {last[name][0]:.2f}".replace("-", "−") if len(last[name]) else "  diverged"
        axes.plot(steps, means, color=color, linewidth=1.3, label=name + end)
        axes.fill_between(steps, means - errors, means + errors, color=color, alpha=0.15, linewidth=0)
        has_band |= bool(np.isfinite(errors).any())
    if len(ranked) > num_named:
        axes.plot([], [], color=RULE, label=f"{len(ranked) - num_named} others")
    if has_band:
        axes.fill_between([], [], [], color=MUTED, alpha=0.3, linewidth=0, label="± standard error over seeds")
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    means, errors = np.concatenate(list(summaries.values()), axis=1)
    _window_of(axes, means, errors)
    legend_below(axes)
    return figure


@in_own_style
def score_by_trial(trials: Vector, scores: Vector, finished: Vector, y_label: str, title: str) -> Figure:
    """Scores of the trials that finished and of those that ended early (hollow; NaN if diverged), and the best
    finished one so far."""
    trials, scores, finished = _checked_trials(trials, scores, finished)
    figure, axes = new_chart(title, "trial", y_label)
    _scatter(axes, trials, scores, finished, {"color": PALETTE[0]})
    best = np.fmax.accumulate(np.where(finished, scores, np.nan))
    axes.step(trials, best, where="post", color=PALETTE[1], linewidth=1.3, label="best so far", zorder=1)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    _window_of(axes, scores, seen=scores[finished])
    legend_below(axes)
    return figure


@in_own_style
def score_against_parameter(
    values: Sequence, trials: Vector, scores: Vector, finished: Vector, x_label: str, y_label: str, title: str,
    *, log: bool = False,
) -> Figure:  # fmt: skip
    """As `score_by_trial`, at each trial's value of a parameter (a number, or a name); later trials are brighter."""
    trials, scores, finished = _checked_trials(trials, scores, finished)
    check_length("values", values, len(trials), "trials")
    named = any(isinstance(value, str) for value in values)
    names = list(dict.fromkeys(values))
    x = np.array([names.index(value) for value in values], float) if named else check_finite("values", values, "T")
    if named:
        # Side by side in the order of the trials, or equal values would hide each other.
        x += 0.3 * (trials - trials.min()) / max(np.ptp(trials), 1) - 0.15
    figure, axes = new_chart(title, x_label, y_label)
    shown = _scatter(axes, x, scores, finished, {"c": trials[finished], "cmap": "viridis"})
    if np.isfinite(scores[finished]).any():
        best = np.nanargmax(np.where(finished, scores, np.nan))
        ring = {"facecolors": "none", "edgecolors": PALETTE[1], "linewidths": 1.3}
        axes.scatter(x[best], scores[best], s=90, label=f"best: {number(float(scores[best]))}", zorder=4, **ring)
        bar = figure.colorbar(shown, cax=axes.inset_axes((1.04, 0, 0.025, 0.6)))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=LABEL_SIZE, length=0)
        bar.ax.set_title("trial", fontsize=LABEL_SIZE, color=INK, loc="left")
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if log:
        axes.set_xscale("log")
        axes.minorticks_off()
    if named:
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    _window_of(axes, scores, seen=scores[finished])
    legend_below(axes)
    return figure


def _checked_trials(trials: Vector, scores: Vector, finished: Vector) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers = check_finite("trials", trials, "T")
    check_length("scores", scores, len(numbers), "trials")
    check_length("finished", finished, len(numbers), "trials")
    return numbers, np.asarray(scores, dtype=np.float64), np.asarray(finished, dtype=bool)


def _scatter(axes: Axes, x: np.ndarray, scores: np.ndarray, finished: np.ndarray, style: Mapping):
    """Dots of the finished trials, and hollow ones of those that ended early."""
    early = ~finished & np.isfinite(scores)
    if early.any():
        hollow = {"facecolors": "none", "edgecolors": MUTED, "linewidths": 0.7}
        axes.scatter(x[early], scores[early], s=12, label="pruned", zorder=2, **hollow)
    return axes.scatter(x[finished], scores[finished], s=16, label="finished", zorder=3, linewidths=0, **style)


def _bulk(values: np.ndarray) -> tuple[float, float, int]:
    """From the lowest to the highest of the finite values, without those far below the bulk; how many those are."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return 0.0, 1.0, 0
    low, high = np.quantile(finite, [0.25, 0.75])
    near = finite[finite >= low - 6 * (high - low)]
    return float(near.min()), float(near.max()), len(finite) - len(near)


def _window_of(
    axes: Axes, values: np.ndarray, errors: np.ndarray | None = None, seen: np.ndarray | None = None
) -> None:
    """Show all values and their errors, or those of `seen` if there are any. Values that are far below the bulk,
    outside or not finite are counted."""
    low, high, below = _bulk(values)
    if errors is not None:
        low, high = _bulk(np.concatenate([values - errors, values + errors, values]))[:2]
    if seen is not None and np.isfinite(seen).any():
        low, high = _bulk(seen)[:2]
        low -= 0.5 * (high - low)
    margin = 0.06 * (high - low) or 0.05 * abs(low) or 1.0
    axes.set_ylim(low - margin, high + margin)
    if seen is not None:
        # A dot at the lower edge is whole, or not there.
        least = np.min(values, where=values >= low - margin, initial=low)
        axes.set_ylim(least - margin, high + margin)
        below = np.count_nonzero(values < low - margin)
    diverged = np.count_nonzero(~np.isfinite(values))
    notes = [f"values below: {below}, down to {number(float(np.nanmin(values)))}"] if below else []
    notes += [f"not finite: {diverged} of {values.size}"] if diverged else []
    if notes:
        below_right(axes, "; ".join(notes))
