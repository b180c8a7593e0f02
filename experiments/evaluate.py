"""Evaluate a run with the one yardstick: log-likelihood by importance sampling, ELBO, KL, active units.

    python -m experiments.evaluate --workdir=runs/x
    python -m experiments.evaluate --workdir=runs/x --num_examples=1000   # seconds instead of minutes

Writes <workdir>/evaluation.json (a subset: evaluation_<split>_<number>.json) and prints a table. On MNIST with
784-200-200-50, 10,000 images with 5000 samples each take a few minutes on two CPU cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments import options
from experiments.parsing import number

FLAGS = options.FLAGS


def define_flags() -> None:
    options.define_trained_run()
    number("num_samples", 5000, "k, samples of z per image", least=1, integer=True)
    number("num_examples", None, "evaluate a random subset of this many images", least=1, integer=True)
    number(
        "seed", 0, "of the samples; the same for every run, so that they compare", least=0, most=2**31 - 1, integer=True
    )
    number("devices", 1, "devices that share the images; 0: all there are", least=0, most=1024, integer=True)


def main() -> int:
    workdir = options.trained_workdir()
    import jax
    from tqdm import tqdm

    from experiments import devices, pictures
    from vae import evaluation, likelihoods, run

    available = devices.start(FLAGS.devices, FLAGS.data_dir)
    loaded = run.load_run(workdir, FLAGS.checkpoint)
    data, index = options.evaluated_split(workdir, FLAGS.split, FLAGS.num_examples)
    started = time.perf_counter()
    with tqdm(total=len(data.images), unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_progress(done: int) -> None:
            bar.update(done - bar.n)

        result = evaluation.evaluate(
            jax.random.key(FLAGS.seed),
            loaded.params,
            data.images,
            data.labels,
            index,
            model=loaded.model,
            num_samples=FLAGS.num_samples,
            devices=available,
            on_progress=on_progress,
        )
    seconds = time.perf_counter() - started
    summary = {
        **evaluation.summarize(result),
        "split": FLAGS.split,
        "checkpoint": run.choose_checkpoint(workdir, FLAGS.checkpoint),
        "binarization": "fixed" if loaded.settings.binarization == "dynamic" else loaded.settings.binarization,
        "seed": FLAGS.seed,
        "seconds": seconds,
    }
    if width := likelihoods.cell_width(loaded.settings.likelihood, data.images.dtype):
        num_values = data.images[0].size
        summary["bits_per_dimension"] = evaluation.bits_per_dimension(summary["log_likelihood"], num_values, width)
    name = (
        run.EVALUATION
        if FLAGS.num_examples is None and FLAGS.split == "test"
        else (f"evaluation_{FLAGS.split}_{len(data.images)}.json")
    )
    run.write_json(workdir / name, summary)
    print_table(summary)
    for path in pictures.of_evaluation(workdir, summary):
        print(f"picture: {path}")
    print(workdir / name)
    return 0


def print_table(summary: dict) -> None:
    """The yardstick, a line for each number."""
    nats = "nats per image"

    def line(name: str, value, error=None, note: str = ""):
        shown = (
            "—" if value is None else f"{value:.4g}" if isinstance(value, float) and abs(value) < 1 else f"{value:,.2f}"
        )
        shown = str(value) if isinstance(value, int) else shown
        print(f"{name:<28}{shown:>12}{'' if error is None else f' ± {error:.2f}':<9} {note}")

    print(
        f"{summary['num_examples']} {summary['split']} images, checkpoint {summary['checkpoint']}, "
        f"binarization {summary['binarization']}, {summary['seconds']:.1f} s"
    )
    for k, (value, error) in summary["log_likelihood_by_num_samples"].items():
        line(f"log-likelihood, k = {k}", value, error, nats)
    line("ELBO", summary["elbo"], summary["elbo_se"], nats)
    line("reconstruction", summary["reconstruction"], None, nats)
    line("KL", summary["kl"], None, nats)
    line("active units", summary["active_units"], None, f"of {len(summary['kl_per_dimension'] or [])}")
    line("effective sample size", summary["effective_sample_size"], None, f"of {summary['num_samples']}")
    line("Pareto k̂, median", summary["pareto_k"], None, "the estimate is unreliable where it exceeds 0.7:")
    line("Pareto k̂ > 0.7", 100 * summary["pareto_k_above_0.7"], None, "% of the images")
    if "bits_per_dimension" in summary:
        line("bits per dimension", summary["bits_per_dimension"])


if __name__ == "__main__":
    define_flags()
    options.main(main)
