"""List the runs under a folder: what distinguishes their settings, how far they are, and their scores.

    python -m experiments.runs            # those under runs/
    python -m experiments.runs --folder=/data/sweep --sort=log_likelihood

Scores are nats per image: the last validation bound, and evaluation.json's log-likelihood where there is one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.flags import options
from experiments.flags.parsing import UsageError, choice

FLAGS = options.FLAGS
SCORES = ("epoch", "validation", "test", "log_likelihood")


def define_flags() -> None:
    flags.DEFINE_string("folder", "runs", "where to look, with all its subfolders")
    choice("sort", "run", ("run", *SCORES), "column to sort by; scores from high to low")
    flags.DEFINE_bool("json", False, "print one JSON object per line, with every setting, instead of a table")


def main() -> int:
    from vae.runs.files import RunError
    from vae.runs.folder import CONFIG
    from vae.runs.metrics import summary

    folder = Path(FLAGS.folder).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--folder={folder} is not a folder; give one that holds run folders")
    found = []
    for path in sorted(folder.rglob(CONFIG)):
        try:
            found.append(summary(path.parent))
        except RunError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not found:
        print(f"no runs under {folder}", file=sys.stderr)
        return 0
    if FLAGS.sort != "run":
        found.sort(key=lambda row: -float("inf") if row[FLAGS.sort] is None else row[FLAGS.sort], reverse=True)
    if FLAGS.json:
        for row in found:
            print(json.dumps(row))
        return 0
    flat = []
    for row in found:
        settings = dict(row["settings"])
        settings["num_validation"] = settings.pop("validation")  # beside the score of that name
        flat.append({"run": row["run"], **settings, **{name: row[name] for name in SCORES}})
    names = list(dict.fromkeys(name for row in flat for name in row))
    # Only what distinguishes the runs: a column in which all agree says nothing of them.
    always = {"run", "dataset", "objective", *SCORES}
    shown = [name for name in names if name in always or len({str(row.get(name)) for row in flat}) > 1]
    cells = [shown] + [[_cell(row.get(name)) for name in shown] for row in flat]
    widths = [max(len(row[column]) for row in cells) for column in range(len(shown))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _cell(value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    define_flags()
    script.run(main)
