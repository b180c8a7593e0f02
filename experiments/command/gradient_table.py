"""The table that experiments.gradients prints, and the curves of its pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

GradientRow = Mapping[str, Any]  # of vae/evaluation/gradient_grid.measure
MOST_BY_CHANCE = 0.01  # p of the whole gradient, below which an estimator is drawn as biased


def print_table(rows: Sequence[GradientRow]) -> None:
    """A line for each row and group of parameters."""
    tested = "p_norm" in next(iter(rows[0]["groups"].values()))
    header = ["objective", "estimator", "K", "group", "|mean|", "variance", "SNR", "±", "SNR of norms"]
    header += ["ms / draw", "variance × time"]
    header += ["bias", "p", "max |t|", "p of it", "p < .05"] if tested else []
    cells = [header]
    for row in rows:
        for group, s in row["groups"].items():
            values = [s["mean_norm"], s["variance"], s["snr"], s["snr_error"], s["snr_of_norms"]]
            values += [1000 * row["seconds_per_draw"], row["work"][group]]
            cell = [row["objective"], row["estimator"], str(row["num_samples"]), group, *map(_cell, values)]
            if tested:
                cell += [_cell(s["relative_bias"]), f"{s['p_norm']:.3f}", f"{s['max_t']:.1f}", f"{s['p_max_t']:.3f}"]
                cell += [f"{s['share_below_5_percent']:.1%}"]
            cells.append(cell)
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        "variance × time is a multiple of that of the reparameterized gradient of the same objective and K: how much "
        "longer one must compute for a mean of the same precision"
    )
    first = rows[0]["groups"]
    print(f"SNR of noise alone: {next(iter(first.values()))['noise_floor']:.3g}")
    for group, s in first.items():
        print(
            f"{group}: {s['num_parameters']} parameters; left out of the SNR: {s['num_zero']} with gradient zero, "
            f"{s['num_constant']} without noise ({rows[0]['estimator']}, K = {rows[0]['num_samples']})"
        )


def _cell(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}"


def signal_to_noise(rows: Sequence[GradientRow]) -> dict[str, dict[str, tuple[list, list, list]]]:
    """group → name → K, SNR and its standard error, if they are known."""
    panels: dict[str, dict[str, tuple[list, list, list]]] = {}
    for row, name in zip(rows, names(rows), strict=True):
        for group, s in row["groups"].items():
            if math.isfinite(s["snr"]) and s["snr"] > 0:
                columns = panels.setdefault(group, {}).setdefault(name, ([], [], []))
                for column, value in zip(columns, (row["num_samples"], s["snr"], s["snr_error"]), strict=True):
                    column.append(value)
    return panels


def work(rows: Sequence[GradientRow]) -> dict[str, dict[str, list[tuple[int, float, bool]]]]:
    """group → name → K, variance × time relative to the reparameterised gradient, and whether a bias was found.

    Of all other estimators; where it is known and not 0, as that of a gradient without noise.
    """
    panels: dict[str, dict[str, list[tuple[int, float, bool]]]] = {}
    for row, name in zip(rows, names(rows), strict=True):
        for group, s in row["groups"].items():
            if row["work"][group] and row["estimator"] != "reparameterized":
                is_biased = s.get("p_norm", 1.0) < MOST_BY_CHANCE
                panels.setdefault(group, {}).setdefault(name, []).append(
                    (row["num_samples"], row["work"][group], is_biased)
                )
    return panels


def title(rows: Sequence[GradientRow]) -> str:
    """Of a picture."""
    objectives = list(dict.fromkeys(row["objective"] for row in rows))
    most = 3  # that a title has room for
    return f"Gradient of {', '.join(objectives)}" if len(objectives) <= most else f"{len(objectives)} objectives"


def names(rows: Sequence[GradientRow]) -> list[str]:
    """The name of each row in a picture: its estimator, and its objective if there are several."""
    several = len({row["objective"] for row in rows}) > 1
    return [f"{row['objective']} {row['estimator']}" if several else row["estimator"] for row in rows]
