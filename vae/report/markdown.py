"""comparison.md."""

from __future__ import annotations

from collections.abc import Sequence

from vae.report.tables import pair_table, ranking_table, settings_table, table_note, tuning_table
from vae.report.words import PICTURES, Comparison, how_it_was_judged, method, pairs_note, tuning_note


def markdown(comparison: Comparison, pictures: Sequence[str]) -> str:
    """comparison.md: the same words and numbers; `pictures` are names of files in figures/."""
    lines = [f"# {comparison['title']}", " ".join(comparison["conclusion"]), how_it_was_judged(comparison)]
    heads, rows = ranking_table(comparison)
    lines += ["## Ranking", pipes(heads, rows), table_note(comparison)]
    heads, rows = pair_table(comparison)
    lines += ["## Every pair", pipes(heads, rows), pairs_note(comparison)]
    for name in (name for name in PICTURES if name in pictures):
        heading, caption, _ = PICTURES[name]
        lines += [f"## {heading}", f"![{heading}](figures/{name}.png)", caption]
    if comparison["tuning"]:
        lines += ["## Tuning", pipes(*tuning_table(comparison)), tuning_note(comparison)]
    lines += ["## How it was done", pipes(*settings_table(comparison))]
    lines += ["\n".join(f"- {name}: {value}" for name, value in method(comparison))]
    return "\n\n".join(lines) + "\n"


def pipes(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
