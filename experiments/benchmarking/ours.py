"""This project as a live process: it trains or evaluates as experiments.train and experiments.evaluate do.

    python -m experiments.benchmarking.ours --mode=steps --unit=100 --preset=mlp400

Beside the flags of experiments.train: what is timed, and how much of it a unit is. Answers as live.py says.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.command import script
from experiments.command.stopping import StopRequest
from experiments.flags import configuration, options
from experiments.flags.parsing import choice, number

NUM_SAMPLES = 5000
MODES = ("epochs", "steps", "evaluation", "limit_of_steps", "limit_of_evaluation")


def define_flags() -> None:
    options.define_all()
    choice("mode", "steps", MODES, "what is timed")
    number("unit", 0, "steps, or images that are evaluated; 0: an epoch", least=0, integer=True)


def main(_: StopRequest) -> int:
    flags = options.read()
    run = configuration.resolve(flags, None)
    from experiments.command import devices

    (device,) = devices.start(1, flags.values["data_dir"])
    dataset = flags.folders.load(run.values["dataset"], run.values["validation"], run.values["image_size"])
    config = run.config(dataset)
    mode, unit = flags.values["mode"], flags.values["unit"] or len(dataset.train.images) // config.settings.batch_size
    if mode == "epochs":
        train_epochs(config, dataset, device)
    elif mode.startswith("limit"):
        reach_limit(config, device, unit, mode)
    else:
        {"steps": take_steps, "evaluation": evaluate}[mode](config, dataset, device, unit)
    return 0


def train_epochs(config, dataset, device) -> None:
    """Whole epochs as experiments.train does them: held-out bounds, metrics, checkpoints."""
    from vae.training import fit

    began, held_out, ended = time.perf_counter(), None, False

    def report(progress) -> None:
        nonlocal began, held_out, ended
        if not progress.epoch_ended:
            return
        seconds, held_out = time.perf_counter() - began, progress.held_out_bound
        tell_ready(config) if progress.epoch == 1 else tell(seconds=seconds)
        ended = not sys.stdin.readline()
        began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        fit.fit(Path(folder), config, dataset, devices=[device], report=report, should_stop=lambda: ended)
    tell(held_out=held_out)


def take_steps(config, dataset, device, unit: int) -> None:
    """Training steps alone."""
    from vae.training import timing

    steps = timing.StepsOfRuns([config], dataset, [device])
    answer(config, lambda: steps.take(unit), lambda: steps.held_out_bound("test"))


def evaluate(config, dataset, device, unit: int) -> None:
    """The evaluation of `unit` test images, after an epoch of training."""
    import jax
    import numpy as np

    from vae.datasets import images
    from vae.evaluation import importance
    from vae.training import timing

    steps = timing.StepsOfRuns([config], dataset, [device])
    steps.take(steps.steps_per_epoch)
    params, model = steps.states[0].evaluated_params, steps.program.parts["model"]
    x = images.stored(dataset, "test", config.settings.binarization, training=False).images[:unit]
    weigh = {"model": model, "num_samples": NUM_SAMPLES, "devices": [device]}

    def log_likelihood() -> np.ndarray:
        return importance.evaluate(jax.random.key(0), params, x, **weigh).log_likelihood[NUM_SAMPLES]

    answer(config, log_likelihood, lambda: float(log_likelihood().mean()))


def reach_limit(config, device, unit: int, mode: str) -> None:
    """What no code on this machine can do without: the matrix products, and the bytes that Adam reads and writes."""
    from experiments.benchmarking import limits
    from vae.training import timing

    if mode == "limit_of_evaluation":
        parts = limits.of_evaluation(config.settings, unit, NUM_SAMPLES)
    else:
        parts = limits.of_steps(config.settings, unit, device.platform)
    answer(config, lambda: sum(timing.seconds(part.function) * part.times for part in parts), lambda: None)


def answer(config, run: Callable[[], Any], held_out: Callable[[], Any]) -> None:
    """Do a unit that does not count, then one for each line of standard input; then tell the held-out bound.

    A unit takes the seconds that `run` returns, if it returns a float.
    """
    run()
    tell_ready(config)
    for _ in sys.stdin:
        began = time.perf_counter()
        returned = run()
        tell(seconds=returned if isinstance(returned, float) else time.perf_counter() - began)
    tell(held_out=held_out())


def tell_ready(config) -> None:
    import jax

    threads, precision = len(os.sched_getaffinity(0)), config.settings.precision
    tell(ready=True, versions={"jax": jax.__version__}, threads=threads, precision=precision)


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    script.run(define_flags, main)
