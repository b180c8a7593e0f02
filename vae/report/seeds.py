"""comparison.csv: the numbers of each run, for a spreadsheet or another test."""

from __future__ import annotations

import csv
import io

from vae.report.words import NOT_READ, Comparison

BY_SEED = "_by_seed"


def by_seed(comparison: Comparison) -> str:
    """A row for each objective and seed: its numbers, its run folder, and the settings in which objectives differ."""
    rows = []
    for position, one in enumerate(comparison["objectives"]):
        numbers = {name.removesuffix(BY_SEED): values for name, values in one.items() if name.endswith(BY_SEED)}
        of_this = {name: texts[position] for name, texts in comparison["differing"].items()}
        settings = {name: "" if text == NOT_READ else text for name, text in of_this.items()}
        for number, seed in enumerate(comparison["seeds"]):
            found = {"label": one["label"], "seed": seed} | {name: values[number] for name, values in numbers.items()}
            rows.append(settings | found | {"run": one["runs"][number]})
    # Of the same order in each row: first what the run is, then its numbers.
    names = ["label", "seed", *(name for name in rows[0] if name not in ("label", "seed"))]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
