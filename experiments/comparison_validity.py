"""Is the test of experiments.compare valid, and what does it find? Simulated comparisons whose truth is known.

    python -m experiments.comparison_validity --processes=2

On 3,996 cells (2 to 16 objectives, 3 to 10 seeds, 100 and 1,000 images, standard deviations of objective and seed,
objective and image, run and image from 0 to 3, equal and unequal noise) of 20,000 tables the error is 4.9 % or less
with 4 objectives or more. With two it is 5 % where seeds alone, or images alone, decide: 5.40 % in the worst cell,
4.93 % there with another seed; two cells are above 5 % at 99 % confidence, as chance has it, and neither is again.
The test before called equal objectives different in 7.8 % of tables (3 seeds), 12.8 % (2 seeds) and 7.4 % (16
objectives, one noisier), where this one does in 3.9, 3.8 and 3.5 %. With 3 seeds it finds a lead of 2 nats over one
objective, 3, 6 and 15 in 96, 94, 91 and 83 % of cases, the test before in 96, 93, 94 and 96 %.

Writes validity.json, figures/comparison_validity.png and figures/comparison_power.png.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import number


def define_flags() -> None:
    number("tables", 20_000, "simulated tables in each cell of the grid", least=100, integer=True)
    number("seed", 0, "of the grid; the repetition has the next one", least=0, most=2**31 - 2, integer=True)
    number("processes", 1, "that share the work; the result is the same", least=1, most=256, integer=True)
    flags.DEFINE_string("workdir", None, "where to write (default: a new folder in runs/)")


def main(_: StopRequest) -> int:
    from vae import durable, figures
    from vae.evaluation import validity
    from vae.runs.files import write_json

    asked = options.read()
    workdir = script.given_workdir(asked.values["workdir"]) or script.new_workdir("comparison-validity")
    durable.make_folder(workdir)
    num_tables, seed, processes = (asked.values[name] for name in ("tables", "seed", "processes"))
    run = map if processes == 1 else partial(ProcessPoolExecutor(processes).map, chunksize=8)
    cells = validity.grid()
    grid = list(counted(validity.in_cells(cells, num_tables, seed, run), len(cells)))
    worst = [index for num_seeds in (3, 5, 10) for index in validity.most_wrong(grid, num_seeds)]
    again = validity.in_cells([cells[index] for index in worst], num_tables, seed + 1, run)
    for index, one in zip(worst, again, strict=True):
        grid[index] |= {"again": {name: one[name] for name in ("error", "coverage", "valid")}}
    faults = {name: validity.both_tests(cell, num_tables, seed) for name, cell in validity.FAULTS.items()}
    power = [validity.both_tests(cell, num_tables, seed) for cell in validity.power_cells()]
    others = validity.beyond_normal(num_tables, seed)
    found = {"tables": num_tables, "seed": seed, "grid": grid, "faults": faults, "power": power}
    write_json(workdir / "validity.json", found | {"other_distributions": others})
    report(grid, worst, faults, power, others)
    for name, figure in pictures(cells, grid, power).items():
        figures.save(figure, workdir / "figures" / f"{name}.png")
    print(workdir)
    return 0


def counted(rows: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """`rows`, with a line printed after every 200 of them."""
    for count, row in enumerate(rows, start=1):
        yield row
        if count % 200 == 0:
            print(f"{count} of {total} cells")


def report(
    grid: list[dict[str, Any]], worst: list[int], faults: dict[str, Any], power: list[Any], others: list
) -> None:
    from vae.evaluation.validity import CONFIDENCE

    print("\nworst cells: error and coverage in %, the second time with another seed")
    for index in worst:
        one, again = grid[index], grid[index]["again"]
        rates = (one["error"], again["error"], one["coverage"], again["coverage"])
        print(f"{name_of(one):60s}" + "".join(f"{100 * rate:8.2f}" for rate in rates))
    # Of thousands of cells at 5 % some are above it by chance; another seed tells.
    first = [one for one in grid if not one["valid"]]
    both = [one for one in first if not one["again"]["valid"]]
    print(f"of {len(grid)} cells {len(first)} have an error above 5 % or a coverage below 95 % at {CONFIDENCE:.0%}")
    print(f"confidence, {len(both)} of these with another seed too")
    print("\nwhere the test before failed: error, coverage; of the test before")
    for name, one in faults.items():
        rates = (one["error"], one["coverage"], one["before"]["error"], one["before"]["coverage"])
        print(f"{name:60s}" + "".join(f"{100 * rate:8.2f}" for rate in rates))
    print("\npower in %: of the test; of the test before")
    for one in power:
        name = f"O = {one['num_objectives']}, S = {one['num_seeds']}, {one['lead']:g} nats"
        print(f"{name:60s}{100 * one['power']:8.2f}{100 * one['before']['power']:8.2f}")
    print("\neffects that are not normal: error, coverage")
    for one in others:
        print(f"{one['distribution'] + ', ' + name_of(one):80s}{100 * one['error']:8.2f}{100 * one['coverage']:8.2f}")


def name_of(one: dict[str, Any]) -> str:
    deviations = "/".join(f"{one[name]:g}" for name in ("objective_seed", "objective_image", "residual"))
    return f"O = {one['num_objectives']}, S = {one['num_seeds']}, N = {one['num_images']}, {deviations}, {one['noise']}"


def pictures(cells: list[Any], grid: list[dict[str, Any]], power: list[dict[str, Any]]) -> dict[str, Any]:
    from vae import figures
    from vae.evaluation.significance import LEVEL
    from vae.evaluation.validity import LEADS

    panels = {}
    for seeds in dict.fromkeys(cell.num_seeds for cell in cells):
        chosen = [index for index, cell in enumerate(cells) if cell.num_seeds == seeds]
        panels[f"{seeds} seeds"] = figures.Cells(
            [cells[index].share_of_seeds for index in chosen],
            {rate: [grid[index][rate] for index in chosen] for rate in ("error", "coverage")},
            [
                f"noise {cells[index].noise}" if cells[index].noise == "equal" else cells[index].noise
                for index in chosen
            ],
            [f"{cells[index].num_objectives} objectives, {cells[index].num_images} images" for index in chosen],
        )
    limits = {"error": (LEVEL, True), "coverage": (1 - LEVEL, False)}
    made = {"comparison_validity": figures.rates_of_cells(panels, limits, "share of seeds in the variance")}
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for one in power:
        tests = found.setdefault(f"{one['num_seeds']} seeds", {})
        for test, value in (("now", one["power"]), ("before", one["before"]["power"])):
            tests.setdefault(test, {}).setdefault(f"{one['num_objectives']} objectives", []).append(value)
    made["comparison_power"] = figures.power_of_tests(found, LEADS, "true difference (nats)")
    return made


if __name__ == "__main__":
    script.run(define_flags, main)
