"""Evaluate a run with the one yardstick: log-likelihood by importance sampling, ELBO, KL, active units.

    python -m experiments.evaluate --workdir=runs/x
    python -m experiments.evaluate --workdir=runs/x --num_examples=1000   # seconds instead of minutes
    python -m experiments.evaluate --workdir=runs/x --also=aggregate,amortization,ais,bdmc

--also adds, under keys of their own: `aggregate`, the KL as mutual information + total correlation + dimension-wise KL
(Hoffman & Johnson 2016; Chen et al. 2018); `ais`, annealed importance sampling (Wu et al. 2017), which does not depend
on the encoder; `bdmc`, bounds from both sides on data that the model simulates (Grosse et al. 2015), which say how far
off `ais` is; `amortization`, what the encoder and the family of q lose (Cremer et al. 2018). The last three see
--also_examples images.

Writes <workdir>/evaluation.json (a subset: evaluation_<split>_<number>.json), the values of each image beside it as
.npz, and prints a table. On MNIST with 784-200-200-50, 10,000 images with 5000 samples each take a few minutes on two
CPU cores.
"""

from __future__ import annotations

import hashlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import notes, script
from experiments.flags import options
from experiments.flags.parsing import UsageError, choices, number

FLAGS = options.FLAGS

# A flag that only some of --also read.
READ_BY = {
    "also_examples": ("ais", "bdmc", "amortization"),
    "ais_temperatures": ("ais", "bdmc"),
    "ais_chains": ("ais", "bdmc"),
}


def define_flags() -> None:
    options.define_trained_run()
    number("num_samples", 5000, "k, samples of z per image", least=1, integer=True)
    number("num_examples", None, "evaluate a random subset of this many images", least=1, integer=True)
    number(
        "seed", 0, "of the samples; the same for every run, so that they compare", least=0, most=2**31 - 1, integer=True
    )
    number("devices", 1, "devices that share the images; 0: all there are", least=0, most=1024, integer=True)
    choices("also", ("aggregate", "ais", "bdmc", "amortization"), "what to compute beside the yardstick")
    number("also_examples", 100, "ais, bdmc, amortization: images, a random subset", least=1, integer=True)
    number("ais_temperatures", 1000, "ais, bdmc: from the prior to the posterior", least=1, integer=True)
    number("ais_chains", 16, "ais, bdmc: for each image", least=1, integer=True)


def main() -> int:
    check_flags()
    workdir = options.trained_workdir()
    from tqdm import tqdm

    from experiments.command import devices
    from experiments.pictures import run_pictures
    from vae.api import load_run
    from vae.runs.files import write_arrays, write_json

    available = devices.start(FLAGS.devices)
    loaded = load_run(workdir, FLAGS.checkpoint)
    data, index = options.evaluated_split(workdir, FLAGS.split, FLAGS.num_examples)
    bar_of = partial(tqdm, leave=False, disable=not sys.stderr.isatty())
    with bar_of(total=len(data.images), unit="image") as bar:
        result, summary = judge(
            workdir,
            loaded,
            data,
            index,
            split=FLAGS.split,
            checkpoint=FLAGS.checkpoint,
            num_samples=FLAGS.num_samples,
            seed=FLAGS.seed,
            devices=available,
            on_progress=lambda done: move(bar, done),
        )
    name = file_name(FLAGS.split, FLAGS.num_examples, len(data.images))
    write_arrays((workdir / name).with_suffix(".npz"), by_image(result))
    write_json(workdir / name, summary)
    print_table(summary)
    notes.show_bits(summary.get("bits_per_dimension"), loaded.settings)
    warn(summary)
    if FLAGS.also:
        summary |= compute_also(loaded, data, index, result, available, bar_of)
        write_json(workdir / name, summary)
    for path in run_pictures.of_evaluation(workdir, summary):
        print(f"picture: {path}")
    print(workdir / name)
    return 0


def check_flags() -> None:
    """Raises UsageError for a flag that nothing asked for would read."""
    for name, readers in READ_BY.items():
        if FLAGS[name].present and not set(readers) & set(FLAGS.also):
            asked = f"--also={','.join(FLAGS.also)}" if FLAGS.also else "no --also"
            raise UsageError(f"--{name} has no effect with {asked}; leave it out, or use --also={' or '.join(readers)}")


def judge(workdir, loaded, data, index, *, split, checkpoint, num_samples, seed, devices, on_progress):
    """The yardstick on the images of a split: an Evaluation, per image, and what evaluation.json says of it."""
    import jax

    from vae.evaluation import importance as evaluation
    from vae.runs.checkpoint import choose

    started = time.perf_counter()
    result = evaluation.evaluate(
        jax.random.key(seed),
        loaded.params,
        data.images,
        data.labels,
        index,
        model=loaded.model,
        num_samples=num_samples,
        devices=devices,
        on_progress=on_progress,
    )
    summary = {
        **evaluation.summarize(result),
        "latent_dim": loaded.settings.latent_dim,
        "latent_dims": [means.shape[-1] for means in result.posterior_means],
        "split": split,
        "checkpoint": choose(workdir, checkpoint),
        "binarization": "fixed" if loaded.settings.binarization == "dynamic" else loaded.settings.binarization,
        "seed": seed,
        "images_sha256": hashlib.sha256(data.images.tobytes()).hexdigest(),
        "seconds": time.perf_counter() - started,
    }
    if result.log_likelihood_of_masses is not None:
        log_likelihood = float(result.log_likelihood_of_masses.mean())
        summary["bits_per_dimension"] = evaluation.bits_per_dimension(log_likelihood, data.images[0].size)
    return result, summary


def by_image(result) -> dict[str, Any]:
    """The arrays of evaluation.npz, [N] in nats: what paired comparisons need of each image."""
    from vae.evaluation.importance import kl_of_samples

    headline = result.log_likelihood[max(result.log_likelihood)]
    return {"log_likelihood": headline, "elbo": result.elbo, "kl": kl_of_samples(result)}


def file_name(split: str, num_examples: int | None, num_evaluated: int) -> str:
    """evaluation.json is of the whole test split alone."""
    from vae.runs.folder import EVALUATION

    return EVALUATION if num_examples is None and split == "test" else f"evaluation_{split}_{num_evaluated}.json"


def compute_also(loaded, data, index, result, available, bar_of) -> dict:
    """The numbers of --also, printed."""
    import jax

    from experiments.command import diagnostics

    with bar_of(total=100, bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed} < {remaining}") as bar:

        def progress(name):
            bar.reset()
            bar.set_description(name)
            return lambda share: move(bar, 100 * share)

        log_likelihood = result.log_likelihood[FLAGS.num_samples]
        images = diagnostics.Images(data.images, data.labels, index, log_likelihood)
        found = diagnostics.compute(
            FLAGS.also,
            jax.random.key(FLAGS.seed),
            loaded,
            images,
            num_examples=FLAGS.also_examples,
            num_temperatures=FLAGS.ais_temperatures,
            num_chains=FLAGS.ais_chains,
            devices=available,
            progress=progress,
        )
    for row in diagnostics.rows({"num_samples": FLAGS.num_samples} | found):
        print_line(*row)
    return found


def move(bar, done: float) -> None:
    bar.update(done - bar.n)


def shown(value) -> str:
    """A number as the table has it; text as it is, a dash for what does not exist."""
    if value is None or isinstance(value, int | str):
        return "—" if value is None else str(value)
    return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"


def print_line(name: str, value, error=None, note: str = "") -> None:
    print(f"{name:<28}{shown(value):>12}{'' if error is None else f' ± {error:.2f}':<9} {note}".rstrip())


def print_table(summary: dict) -> None:
    """The yardstick, a line for each number."""
    nats = "nats per image"
    print(
        f"{summary['num_examples']} {summary['split']} images, checkpoint {summary['checkpoint']}, "
        f"binarization {summary['binarization']}, {summary['seconds']:.1f} s"
    )
    for k, (value, error) in summary["log_likelihood_by_num_samples"].items():
        print_line(f"log-likelihood, k = {k}", value, error, nats)
    print_line("ELBO", summary["elbo"], summary["elbo_se"], nats)
    print_line("reconstruction", summary["reconstruction"], None, nats)
    print_line("KL", summary["kl"], None, nats)
    layers = summary["kl_per_layer"]
    for i, kl in enumerate(layers if len(layers) > 1 else []):
        print_line(f"KL of layer {i + 1}", kl, None, nats)
    for i, (active, size) in enumerate(zip(summary["active_units_per_layer"], summary["latent_dims"], strict=True)):
        print_line("active units" + (f" of layer {i + 1}" if i else ""), active, None, f"of {size}: Var(E[z|x]) > 0.01")
    print_line("effective sample size", summary["effective_sample_size"], None, f"of {summary['num_samples']}")
    print_pareto_k(summary)
    bits = summary.get("bits_per_dimension")
    if bits is not None:
        print_line("bits per dimension", bits)


def print_pareto_k(summary: dict) -> None:
    threshold, share = summary["pareto_k_threshold"], summary["pareto_k_above_threshold"]
    if threshold is None:
        print_line("Pareto k̂", None, None, "it needs 21 samples or more")
        return
    print_line("Pareto k̂, median", summary["pareto_k"], None, f"the estimate is unreliable above {threshold:.2f}:")
    print_line(f"Pareto k̂ > {threshold:.2f}", f"{100 * share:.1f} %", None, "of the images")


WRONG_INVERSE = 0.01  # nats, the last digit that is printed
READ_BY_INVERSE = {
    "posterior": "log q(z|x), which training with stl, dreg, score or rws scores and this evaluation does not",
    "prior": "log p(z), and with it the log-likelihood, the ELBO and the KL",
}


def warn(summary: dict) -> None:
    """A line on stderr for each reason not to believe the numbers."""
    for name, error in summary["inverse_error"].items():
        if not error <= WRONG_INVERSE:
            print(
                f"warning: the {name}'s flow does not find its way z → ε → z: rounding in its inverse puts "
                f"{READ_BY_INVERSE[name]}, off by {error:.3g} nats on average; train again with a lower "
                "--learning_rate, --max_gradient_norm or fewer --num_flows",
                file=sys.stderr,
            )
    if count := summary["num_not_finite"]:
        print(
            f"warning: the log-likelihood or the ELBO of {count} of {summary['num_examples']} images is not finite, so "
            "that the means are not either; evaluation.json says null",
            file=sys.stderr,
        )


if __name__ == "__main__":
    define_flags()
    script.run(main)
