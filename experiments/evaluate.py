"""Evaluate a run, or many: log-likelihood by importance sampling, ELBO, KL, active units.

    python -m experiments.evaluate --workdir=runs/x
    python -m experiments.evaluate --workdir=sweeps/x                     # all runs of a sweep, and a table per setting
    python -m experiments.evaluate --workdir='runs/a,runs/mnist-*'        # several runs
    python -m experiments.evaluate --workdir=x.pack                       # a packed run: into x.unpacked
    python -m experiments.evaluate --workdir=runs/x --num_examples=1000   # seconds instead of minutes
    python -m experiments.evaluate --workdir=runs/x --also=aggregate,amortization,sumo,ais,bdmc

Of several runs, each is evaluated that has no such evaluation yet: the same command resumes what was stopped. The table
per setting (all but the seed) is in evaluation_settings.csv of the sweep's folder, or of the one that holds the runs.

--also adds more numbers: `aggregate`, the KL as mutual information + total correlation + dimension-wise KL
(Hoffman & Johnson 2016; Chen et al. 2018); `sumo`, an unbiased estimate of log p(x) (Luo et al. 2020); `ais`, annealed
importance sampling (Wu et al. 2017), which does not depend on the encoder; `bdmc`, bounds from both sides on data that
the model simulates (Grosse et al. 2015), which say how far off `ais` is; `amortization`, what the encoder and the
family of q lose (Cremer et al. 2018); `probe`, how well the labels are found from E[z|x]. All but the first and the
last use --also_examples images.

Writes <workdir>/evaluation.json (a subset: evaluation_<split>_<number>.json), the values of each image beside it as
.npz, and prints a table. On MNIST with 784-200-200-50, 10,000 images with 5000 samples each take a few minutes on two
CPU cores.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.command import evaluation_table, many_runs, notes, script
from experiments.command.stopping import StopRequest
from experiments.flags import options
from experiments.flags.parsing import UsageError, choices, number

if TYPE_CHECKING:
    from vae.api import TrainedRun
    from vae.datasets import Dataset, Split

# A flag that only some of --also read.
READ_BY = {
    "also_examples": tuple(name for name in evaluation_table.ALSO if name not in ("aggregate", "probe")),
    "ais_temperatures": ("ais", "bdmc"),
    "ais_chains": ("ais", "bdmc"),
}


def define_flags() -> None:
    options.define_trained_run()
    number("num_samples", 5000, "k, samples of z per image", least=1, most=10**7, integer=True)
    number("num_examples", None, "evaluate a random subset of this many images", least=1, integer=True)
    number("seed", 0, "of the samples; runs compare if it is the same", least=0, most=2**31 - 1, integer=True)
    number("devices", None, "devices that share the images; 0: all there are (default: 1, of several runs all)",
           least=0, most=1024, integer=True)  # fmt: skip
    choices("also", tuple(evaluation_table.ALSO), "what to compute beside the evaluation")
    number("also_examples", 100, "of all but aggregate and probe: images, a random subset", least=1, integer=True)
    number("ais_temperatures", 1000, "ais, bdmc: from the prior to the posterior", least=1, integer=True)
    number("ais_chains", 16, "ais, bdmc: for each image", least=1, most=10_000, integer=True)


def main(stop: StopRequest) -> int:
    flags = options.read()
    asked = flags.values
    check_flags(flags)
    if folders := many_runs.run_folders(asked["workdir"]):
        if asked["also"]:
            raise UsageError("--also is for one run, not for several; leave it out, or evaluate the runs one by one")
        return many_runs.main(stop, flags, folders)
    workdir = flags.trained_workdir
    from tqdm import tqdm

    from experiments.command import devices
    from experiments.pictures import run_pictures
    from vae.api import load_run
    from vae.evaluation import annealing
    from vae.evaluation import summary as evaluation
    from vae.evaluation.diagnostics import Images
    from vae.judging import evaluations
    from vae.runs.files import write_json

    available = devices.start(1 if asked["devices"] is None else asked["devices"], asked["data_dir"])
    workdir = options.opened(workdir)
    loaded = load_run(workdir, asked["checkpoint"])
    notes.show_best(workdir, asked["checkpoint"])
    if set(READ_BY["ais_chains"]) & set(asked["also"]):
        annealing.check_memory(loaded.model, asked["ais_chains"], available[0])
    dataset = flags.folders.of_run(workdir, asked["dataset"])
    data, index = options.evaluated_split(workdir, dataset, asked["split"], asked["num_examples"])
    training = learned_from(loaded, dataset, asked["split"]) if "probe" in asked["also"] else None
    print(
        f"evaluating {len(data.images):,} images of the {asked['split']} split with {asked['num_samples']:,} samples "
        "each; fewer with --num_examples or --num_samples"
    )
    bar_of = partial(tqdm, leave=False, disable=not sys.stderr.isatty())
    with bar_of(total=len(data.images), unit="image") as bar:
        result, summary = evaluation.judge(
            loaded.params,
            data,
            index,
            evaluation.EvaluationSettings(*(asked[name] for name in evaluation.EvaluationSettings._fields)),
            model=loaded.model,
            settings=loaded.settings,
            checkpoint=loaded.step,
            devices=available,
            on_progress=lambda done: move(bar, done),
        )
    path = workdir / evaluations.file_name(asked["split"], asked["num_examples"], len(data.images))
    evaluations.write(path, result, summary)
    evaluation_table.print_table(summary)
    notes.show_bits(summary.get("bits_per_dimension"), loaded.settings)
    evaluation_table.warn(summary)
    if asked["also"]:
        images = Images(data.images, data.labels, index, result.log_likelihood[asked["num_samples"]])
        summary |= compute_also(asked, loaded, images, training, available, bar_of)
        write_json(path, summary)
    for picture in run_pictures.of_evaluation(workdir, summary):
        print(f"picture: {picture}")
    print(path)
    return 0


def check_flags(flags: options.Flags) -> None:
    """Raises UsageError for a flag that has no effect with this --also."""
    also = flags.values["also"]
    for name, readers in READ_BY.items():
        if name in flags.given and not set(readers) & set(also):
            asked = f"--also={','.join(also)}" if also else "no --also"
            raise UsageError(f"--{name} has no effect with {asked}; leave it out, or use --also={' or '.join(readers)}")


def learned_from(loaded: TrainedRun, dataset: Dataset, split: str) -> Split:
    """The images and labels that a probe learns from, to be tested on `split`; UsageError if there can be no probe."""
    from vae.datasets import images
    from vae.evaluation import probe

    labels = dataset.train.labels, getattr(dataset, split).labels
    if reason := probe.unavailable(loaded.settings, split, labels):
        raise UsageError(f"--also=probe: {reason}")
    return images.stored(dataset, "train", loaded.settings.binarization, training=False)


def compute_also(asked: dict[str, Any], loaded, images, training, available, bar_of) -> dict[str, Any]:
    """Compute and print the numbers of --also."""
    import jax

    from vae.evaluation import diagnostics

    with bar_of(total=100, bar_format="{desc}: {percentage:3.0f} %|{bar}| {elapsed} < {remaining}") as bar:

        def progress(name):
            bar.reset()
            bar.set_description(name)
            return lambda share: move(bar, 100 * share)

        found = diagnostics.compute(
            jax.random.key(asked["seed"]),
            asked["also"],
            loaded.params,
            images,
            model=loaded.model,
            settings=loaded.settings,
            num_examples=asked["also_examples"],
            num_temperatures=asked["ais_temperatures"],
            num_chains=asked["ais_chains"],
            devices=available,
            training=training,
            progress=progress,
        )
    for row in evaluation_table.diagnostic_rows(found):
        evaluation_table.print_line(*row)
    return found


def move(bar, done: float) -> None:
    bar.update(done - bar.n)


if __name__ == "__main__":
    script.run(define_flags, main)
