"""Notes on runs, printed before they are trained: what is true of their objectives and easily missed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.flags.parsing import with_dashes

if TYPE_CHECKING:
    from vae.runs.config import Config
    from vae.settings import Settings
    from vae.training.fit import Outcome

UNIFORM_BITS = 8.0  # of a value that is any of 256, all alike


def show(configs: Iterable[Config], binarization: str | None) -> None:
    """Print the remarks on the objectives of `configs`, each once, and that images are binarised unasked.

    `binarization` is what was asked for.
    """
    from vae import objectives

    configs = list(configs)
    found = [line for config in configs for line in objectives.remarks(config.settings, config.hyperparameters)]
    for line in dict.fromkeys(found):
        print(f"note: {with_dashes(line)}")
    show_binarized(configs, binarization)


def show_binarized(configs: Sequence[Config], asked: str | None) -> None:
    """Print a warning for each data set of one's own whose grey values become black and white by default."""
    from vae.datasets import NAMES

    if asked is None:
        binarized = (one.dataset for one in configs if one.settings.binarization == "dynamic")
        for dataset in dict.fromkeys(name for name in binarized if name not in NAMES):
            print(
                f"warning: the model sees {dataset} in black and white: a grey value is the chance of a white pixel, "
                "as --likelihood=bernoulli needs; for photographs use --likelihood=normal or discretized_logistic, or "
                "pass --binarization=dynamic if this is meant"
            )


def show_end(config: Config, outcome: Outcome) -> None:
    """Print of a run with patience why it has ended, and which of its parameters are tested."""
    if outcome.best_epoch is None:
        return
    if outcome.epoch < config.epochs:
        print(
            f"finished after epoch {outcome.epoch:g} of {config.epochs}: the validation bound was no better for "
            f"{config.patience} epochs (--patience)"
        )
    print(f"tested is the best checkpoint by validation, of epoch {outcome.best_epoch:g} (--patience)")


def show_best(workdir: Path, checkpoint: str | None = None) -> None:
    """Print that a run with patience is used at its best checkpoint, unless `checkpoint` names one."""
    from vae.runs.checkpoint import choose
    from vae.runs.config import read_config

    if checkpoint is None and read_config(workdir).patience:
        print(f"{workdir} has --patience: used is its best checkpoint by validation, step {choose(workdir)}")


def show_best_of(configs: Iterable[Config], checkpoint: str | None = None) -> None:
    """The same of several runs."""
    if checkpoint is None and any(config.patience for config in configs):
        print("runs with --patience are evaluated at their best checkpoint by validation")


def show_runs(words: str, names: Sequence[str], count: int) -> None:
    """Print which of `count` runs, if any, are what `words` say."""
    if names:
        print(f"{words}: {len(names)} of {count} runs ({', '.join(names[:20])})")


def show_bits(bits: float | None, settings: Settings) -> None:
    """Print whether `bits` per dimension are more than those of a uniform distribution of 256 values."""
    if bits is not None and bits > UNIFORM_BITS:
        print(
            f"note: {bits:.2f} bits per dimension is worse than {UNIFORM_BITS:.2f}, a uniform distribution of the 256 "
            f"values; {_better(settings)}"
        )


def show_elbo(elbo: float, settings: Settings) -> None:
    """Print whether an ELBO of images of the 256 values, in nats per image, is below that of a uniform distribution."""
    from vae.models.table import DENSITY, LIKELIHOODS

    row = LIKELIHOODS[settings.likelihood]
    uniform = 0.0 if row.of == DENSITY else -math.prod(settings.image_shape) * math.log(256)
    if row.of and elbo < uniform:
        print(
            f"note: an ELBO of {elbo:.2f} nats is below {uniform:.2f}, that of a uniform distribution; "
            f"{_better(settings)}"
        )


def _better(settings: Settings) -> str:
    optimal = settings.likelihood == "normal" and settings.scale != "optimal"
    return f"train for more --epochs{', or use --scale=optimal' if optimal else ''}"


def describe(num_runs: int, num_programs: int, devices: Sequence[Any]) -> None:
    """Print what is about to be trained, in a line."""
    programs = "one program" if num_programs == 1 else f"{num_programs} programs"
    print(f"{num_runs} runs as {programs}; {len(devices)} {devices[0].platform} device(s)")


def show_same(labels: Sequence[str], configs: Sequence[Config]) -> None:
    """Print which of the compared objectives are the same objective with their settings."""
    alike: dict[Config, list[str]] = {}
    for label, config in zip(labels, configs, strict=True):
        alike.setdefault(simplest(config), []).append(label)
    for same in alike.values():
        if len(same) > 1:
            print(f"note: {' and '.join(same)} are the same objective here: they can differ by chance alone")


def simplest(config: Config) -> Config:
    """`config` with the simplest objective that equals its own, without the numbers that this one does not read."""
    from vae import objectives
    from vae.objectives.table import OBJECTIVES
    from vae.settings import FIELDS

    settings = objectives.simplest(config.settings, config.hyperparameters)
    idle = {name for row in OBJECTIVES.values() for name in row.fields} - set(OBJECTIVES[settings.objective].fields)
    return dataclasses.replace(
        config,
        settings=dataclasses.replace(settings, **{name: FIELDS[name].default for name in idle if FIELDS[name].static}),
        hyperparameters=config.hyperparameters._replace(
            **{name: FIELDS[name].default for name in idle if not FIELDS[name].static}
        ),
    )
