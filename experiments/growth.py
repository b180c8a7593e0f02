"""As the work grows: time of a training step and memory against batch size, K, width and the number of runs.

    python -m experiments.growth
    python -m experiments.growth --num_samples=1,50,5000 --precision=bfloat16 --workdir=runs/growth

The model is 784-200-200-50 with IWAE, batches of 100, K = 1 and one run; along an axis one of these changes. Many runs
are trained as by a sweep, on all devices: in turn on each core of a CPU, side by side on an accelerator. `limit` is the
matrix products of the step alone and the bytes of Adam, at the speed measured on this machine. Memory is what the
compiled program needs on a device, data included. Prints tables, and writes growth.json and growth.png.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choice, number, numbers

NUM_IMAGES = 10_000
ROWS_OF_LIMIT = 20_000  # samples whose products are timed at once, about
BASE = {"batch_sizes": 100, "num_samples": 1, "widths": 200, "runs": 1}
TITLES = {"batch_sizes": "batch size", "num_samples": "K", "widths": "width", "runs": "runs"}


class MeasuredPoint(NamedTuple):
    """What is measured at a value of an axis: seconds of a step in each round, of its limit, and bytes on a device."""

    value: int
    seconds: list[float]
    limit: list[float]
    bytes: int


def define_flags() -> None:
    numbers("batch_sizes", ["25", "50", "100", "200", "400", "800"], "images in a step", integer=True)
    numbers("num_samples", ["1", "5", "20", "50", "200"], "K, samples of each image", integer=True)
    numbers("widths", ["50", "100", "200", "400", "800"], "of the two dense layers", integer=True)
    numbers("runs", ["1", "2", "4", "8", "16", "32"], "trained as one program", integer=True)
    number("rounds", 3, "of which medians are taken", least=1, most=1000, integer=True)
    choice("precision", "float32", ("float32", "bfloat16"), "of matrix products")
    flags.DEFINE_string("workdir", None, "where growth.json and the picture are written (default: new, in runs/)")


def main(_: StopRequest) -> int:
    asked = options.read().values
    axes = {name: list(map(int, asked[name])) for name in BASE}
    if (largest := max(axes["batch_sizes"])) > NUM_IMAGES:
        raise UsageError(f"--batch_sizes={largest} is more than the {NUM_IMAGES} images that are made; give less")
    workdir = script.given_workdir(asked["workdir"])
    if workdir is not None and workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"{workdir} is not empty; choose another --workdir")
    from experiments.command import devices
    from vae import durable, figures
    from vae.runs.config import provenance
    from vae.runs.files import write_json

    available = devices.start(0, data_dir=None, one_per_core=True)
    workdir = workdir or script.new_workdir("growth")
    durable.make_folder(workdir)
    found, data = {}, binary_images()
    for name, values in axes.items():
        found[name] = along(name, values, data, available, asked["precision"], asked["rounds"])
        print("\n".join(["", *table(name, found[name])]))
    about = {"argv": sys.argv, "device": str(available[0]), "devices": len(available), **provenance()}
    points = {name: [point._asdict() for point in points] for name, points in found.items()}
    write_json(workdir / "growth.json", about | {"base": BASE, "points": points})
    drawn = {TITLES[name]: figure_of(points) for name, points in found.items()}
    title = f"784-200-200-50, IWAE, {asked['precision']}"
    figures.save(figures.growth(drawn, title), workdir / "growth.png")
    print(f"\npicture: {workdir / 'growth.png'}")
    print(workdir)
    return 0


def binary_images() -> Any:
    """Images of 28×28 black and white pixels, for time and memory alone."""
    import numpy as np

    from vae import datasets

    pixels = np.random.default_rng(0).uniform(size=(NUM_IMAGES, 28, 28, 1)) < 0.2
    return datasets.from_arrays(pixels.astype(np.uint8) * 255, validation=0)


def along(
    name: str, values: list[int], dataset: Any, available: Any, precision: str, rounds: int
) -> list[MeasuredPoint]:
    """The points of an axis; they are timed in turn, round after round."""
    from experiments.benchmarking import limits
    from vae.configuration import resolve
    from vae.training import timing

    measured = []
    for value in values:
        at = BASE | {name: value}
        rows = at["batch_sizes"] * at["num_samples"]
        options = {
            "dataset": dataset.name, "validation": 0, "objective": "iwae", "num_samples": at["num_samples"],
            "batch_size": at["batch_sizes"], "hidden_sizes": (at["widths"],) * 2, "precision": precision,
        }  # fmt: skip
        configs = [resolve(options | {"seed": seed}, dataset) for seed in range(at["runs"])]
        used = available if at["runs"] > 1 else available[:1]
        steps = timing.StepsOfRuns(configs, dataset, used, "map" if used[0].platform == "cpu" else "vmap")
        repeated = max(1, min(50, ROWS_OF_LIMIT // rows))
        parts = limits.of_steps(configs[0].settings, repeated, used[0].platform)
        measured.append((value, steps, steps.seconds_per_step(), parts, at["runs"] / repeated))
    seconds, least = {value: [] for value in values}, {value: [] for value in values}
    for round_number in range(1 + rounds):
        for value, _, timed, parts, times in measured:
            taken = next(timed)
            products = times * sum(timing.seconds(part.function) * part.times for part in parts)
            if round_number:  # the first one holds compilation
                seconds[value].append(taken)
                least[value].append(products)
    return [
        MeasuredPoint(value, seconds[value], least[value], steps.bytes_on_a_device()) for value, steps, *_ in measured
    ]


def table(name: str, points: list[MeasuredPoint]) -> list[str]:
    """The lines of a table in Markdown."""
    rows = [(TITLES[name], "ms a step", "limit, ms", "step ÷ limit", "MB on a device")]
    for point in points:
        step, least = statistics.median(point.seconds), statistics.median(point.limit)
        rows.append((str(point.value), f"{1e3 * step:.3g}", f"{1e3 * least:.3g}", f"{step / least:.2f}",
                     f"{point.bytes / 1e6:.0f}"))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(map(str.rjust, row, widths)) + " |" for row in rows]
    return [lines[0], "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|", *lines[1:]]


def figure_of(points: list[MeasuredPoint]) -> Any:
    """The points of an axis as they are drawn."""
    from vae.figures import Growth

    seconds = {"step": [statistics.median(point.seconds) for point in points],
               "limit": [statistics.median(point.limit) for point in points]}  # fmt: skip
    return Growth([point.value for point in points], seconds, {"memory": [point.bytes for point in points]})


if __name__ == "__main__":
    script.run(define_flags, main)
