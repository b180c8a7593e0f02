"""Evaluate a run: log-likelihood by importance sampling, ELBO, KL, active units.

    python -m experiments.evaluate --workdir=runs/x
    python -m experiments.evaluate --workdir=runs/x --num_examples=1000   # seconds instead of minutes
    python -m experiments.evaluate --workdir=runs/x --also=aggregate,amortization,ais,bdmc

--also adds more numbers: `aggregate`, the KL as mutual information + total correlation + dimension-wise KL
(Hoffman & Johnson 2016; Chen et al. 2018); `ais`, annealed importance sampling (Wu et al. 2017), which does not depend
on the encoder; `bdmc`, bounds from both sides on data that the model simulates (Grosse et al. 2015), which say how far
off `ais` is; `amortization`, what the encoder and the family of q lose (Cremer et al. 2018). The last three use
--also_examples images.

Writes <workdir>/evaluation.json (a subset: evaluation_<split>_<number>.json), the values of each image beside it as
.npz, and prints a table. On MNIST with 784-200-200-50, 10,000 images with 5000 samples each take a few minutes on two
CPU cores.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import evaluation_table, notes, script
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
    number("seed", 0, "of the samples; runs compare if it is the same", least=0, most=2**31 - 1, integer=True)
    number("devices", 1, "devices that share the images; 0: all there are", least=0, most=1024, integer=True)
    choices("also", ("aggregate", "ais", "bdmc", "amortization"), "what to compute beside the evaluation")
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
    from vae.evaluation import summary as evaluation
    from vae.judging import evaluations
    from vae.runs.checkpoint import choose
    from vae.runs.files import write_json

    available = devices.start(FLAGS.devices)
    loaded, step = load_run(workdir, FLAGS.checkpoint), choose(workdir, FLAGS.checkpoint)
    data, index = options.evaluated_split(workdir, FLAGS.split, FLAGS.num_examples)
    bar_of = partial(tqdm, leave=False, disable=not sys.stderr.isatty())
    with bar_of(total=len(data.images), unit="image") as bar:
        result, summary = evaluation.judge(
            loaded.params,
            data,
            index,
            evaluation.EvaluationSettings(FLAGS.split, FLAGS.num_samples, FLAGS.seed, FLAGS.num_examples),
            model=loaded.model,
            settings=loaded.settings,
            checkpoint=step,
            devices=available,
            on_progress=lambda done: move(bar, done),
        )
    path = workdir / evaluations.file_name(FLAGS.split, FLAGS.num_examples, len(data.images))
    evaluations.write(path, result, summary)
    evaluation_table.print_table(summary)
    notes.show_bits(summary.get("bits_per_dimension"), loaded.settings)
    evaluation_table.warn(summary)
    if FLAGS.also:
        summary |= compute_also(loaded, data, index, result, available, bar_of)
        write_json(path, summary)
    for picture in run_pictures.of_evaluation(workdir, summary):
        print(f"picture: {picture}")
    print(path)
    return 0


def check_flags() -> None:
    """Raises UsageError for a flag that has no effect with this --also."""
    for name, readers in READ_BY.items():
        if FLAGS[name].present and not set(readers) & set(FLAGS.also):
            asked = f"--also={','.join(FLAGS.also)}" if FLAGS.also else "no --also"
            raise UsageError(f"--{name} has no effect with {asked}; leave it out, or use --also={' or '.join(readers)}")


def compute_also(loaded, data, index, result, available, bar_of) -> dict:
    """Compute and print the numbers of --also."""
    import jax

    from vae.evaluation import diagnostics

    with bar_of(total=100, bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed} < {remaining}") as bar:

        def progress(name):
            bar.reset()
            bar.set_description(name)
            return lambda share: move(bar, 100 * share)

        log_likelihood = result.log_likelihood[FLAGS.num_samples]
        images = diagnostics.Images(data.images, data.labels, index, log_likelihood)
        found = diagnostics.compute(
            jax.random.key(FLAGS.seed),
            FLAGS.also,
            loaded.params,
            images,
            model=loaded.model,
            settings=loaded.settings,
            num_examples=FLAGS.also_examples,
            num_temperatures=FLAGS.ais_temperatures,
            num_chains=FLAGS.ais_chains,
            devices=available,
            progress=progress,
        )
    for row in evaluation_table.diagnostic_rows({"num_samples": FLAGS.num_samples} | found):
        evaluation_table.print_line(*row)
    return found


def move(bar, done: float) -> None:
    bar.update(done - bar.n)


if __name__ == "__main__":
    define_flags()
    script.run(main)
