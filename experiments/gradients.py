"""Gradient estimators at fixed parameters: mean, bias, variance, signal-to-noise ratio and cost against K.

    python -m experiments.train --preset=digits --activation=tanh --epochs=5 --workdir=runs/digits
    python -m experiments.gradients --workdir=runs/digits --estimators=reparameterized,stl,dreg --draws=1000
    python -m experiments.gradients --dataset=mnist --objectives=elbo_mc,iwae   # at initialisation
    python -m experiments.gradients --workdir=runs/digits --objectives=all --num_samples=8
    python -m experiments.gradients --workdir=runs/digits --objectives=iwae,renyi:alpha=0.3 --estimators=dreg

The first two take two minutes of CPU time and show for K = 1 → 64 what Rainforth et al. and Tucker et al. (2018) found.
The signal-to-noise ratio of the encoder gradient falls from 0.61 to 0.06 for IWAE, as 1/√K, and grows from 2.4 to 4.3
for DReG. That of the decoder gradient grows from 1.6 to 14.5, as √K. The tests find a bias of STL at every K > 1, and
of DReG at none (p < .01). After long training, or with many latent dimensions, the posterior is far from q at these K,
and the ratio of IWAE falls less.

The parameters are those of the run in --workdir, or new ones of the model that --dataset and the other flags describe.
All draws use the same batch and differ in their noise only; the ratios grow with the size of the batch. The estimators
of an objective take turns, and the time of a draw is the median over ten turns: more --draws make it more precise.
Writes gradients.json, figures/gradients_snr.png and gradients_work.png in the folder, and prints a table;
vae/evaluation/gradient_statistics.py explains its columns.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments.command import gradient_table, notes, script
from experiments.command.stopping import StopRequest
from experiments.flags import configuration, laboratory, options
from experiments.flags.options import Flags
from experiments.flags.parsing import UsageError, choice, define, number, numbers, with_dashes
from vae.configuration import check_effects, complete, resolve
from vae.models.table import MODEL
from vae.options import flattened
from vae.places import expanded
from vae.settings import DATA, Settings

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.evaluation.gradient_grid import GradientSubject
    from vae.models.model import Batch
    from vae.runs.config import Config

LEAST_DRAWS = 20  # two in each block: see vae/evaluation/gradients.py
MODEL_FLAGS = sorted(flattened({**DATA, **MODEL}))  # those that a trained run has fixed


def define_flags() -> None:
    options.define_data()
    define(MODEL)
    flags.DEFINE_string(
        "workdir", None, "a run folder, or, with --dataset, the folder to write to (default: a new one in runs/)"
    )
    flags.DEFINE_string("checkpoint", None, f"of the run: {options.CHECKPOINT_HELP}")
    choice("split", "train", ("train", "validation", "test"), "the split that the batch is drawn from")
    laboratory.define("objective", ["iwae"], "to measure")
    laboratory.define("estimator", [laboratory.ALL], "of its gradient, to compare")
    numbers("num_samples", [str(2**i) for i in range(7)], "the K to compare", integer=True)
    number("num_groups", 1, "M, groups of K samples; above 1 only miwae and piwae are left", least=1, integer=True)
    number("draws", 200, "independent gradients of each estimator", least=LEAST_DRAWS, integer=True)
    number("reference_draws", 1000, "reparameterized gradients to test for a bias against; 0: no test", least=0,
           integer=True)  # fmt: skip
    number("batch_size", 100, "images in the one batch, chosen at random", least=1, integer=True)
    number("seed", 0, "of everything random", least=0, most=2**31 - 1, integer=True)


def main(_: StopRequest) -> int:
    flags = options.read()
    asked, workdir = flags.values, given_workdir(flags.values["workdir"])
    if 0 < asked["reference_draws"] < LEAST_DRAWS:
        raise UsageError(f"--reference_draws={asked['reference_draws']} is too few: use {LEAST_DRAWS} or more, or 0")
    trained = trained_run(workdir)
    if trained is None:
        check_new(workdir, flags)
    else:
        check_trained(trained, flags)
    from experiments.command import devices
    from experiments.pictures import run_pictures
    from vae import durable, figures
    from vae.runs.files import write_json

    devices.start(1, asked["data_dir"])
    if trained:
        workdir = trained = options.opened(trained)
    measured = trained_subject(trained, flags) if trained else new_subject(flags)
    subject = measured.subject
    print(f"{measured.name}; {len(subject.batch.x)} {asked['split']} images, {asked['draws']} draws")
    rows = measure(measured, asked)
    if not rows:
        raise UsageError("nothing is left to measure: every pair of objective and estimator was skipped")
    workdir = workdir or script.new_workdir(f"{asked['dataset'].split('/')[-1]}-gradients")
    durable.make_folder(workdir)
    summary = {
        "subject": measured.name,
        "split": asked["split"],
        "batch_size": len(subject.batch.x),
        **{name: asked[name] for name in ("num_groups", "draws", "reference_draws", "seed")},
        "settings": subject.settings.to_dict(),
        "hyperparameters": measured.config.hyperparameters._asdict(),
        "results": rows,
    }
    gradient_table.print_table(rows)
    write_json(workdir / "gradients.json", summary)
    title = gradient_table.title(rows)
    made = {}
    if panels := gradient_table.signal_to_noise(rows):
        floor = rows[0]["groups"][next(iter(panels))]["noise_floor"]
        made["gradients_snr"] = lambda: figures.signal_to_noise(panels, floor, title)
    if work := gradient_table.work(rows):
        made["gradients_work"] = lambda: figures.gradient_work(work, title)
    for path in run_pictures.save(workdir, run_pictures.drawn(made)):
        print(f"picture: {path}")
    print(workdir / "gradients.json")
    return 0


class MeasuredModel(NamedTuple):
    """What is measured, its name, and the run that it is of or would be of."""

    name: str
    subject: GradientSubject
    config: Config
    dataset: Dataset


def given_workdir(text: str | None) -> Path | None:
    """--workdir: a packed run, or a folder as `script.given_workdir` says."""
    from vae.runs.archive import is_packed

    return expanded(text) if text and is_packed(expanded(text)) else script.given_workdir(text)


def trained_run(workdir: Path | None) -> Path | None:
    """`workdir` if it holds a run, or is a packed one, which is then measured; None if new parameters are."""
    from vae.runs.archive import is_packed
    from vae.runs.folder import CONFIG

    there = workdir is not None and (is_packed(workdir) or (workdir / CONFIG).exists())
    return workdir if there else None


def check_trained(workdir: Path, flags: Flags) -> None:
    """Raises UsageError for a flag that the run in `workdir` has fixed."""
    if given := flags.given.intersection(MODEL_FLAGS) - {"dataset"}:
        raise UsageError(
            f"--{min(given)} has no effect: {workdir} holds a run, which has fixed it; leave it out, or choose "
            "another --workdir to measure new parameters"
        )


def check_new(workdir: Path | None, flags: Flags) -> None:
    """Raises UsageError or ConfigurationError for flags without effect on new parameters, or if one is missing."""
    from vae.runs.folder import CONFIG

    if workdir is not None and "dataset" not in flags.given:
        raise UsageError(
            f"--workdir={workdir} holds no run (no {CONFIG}); train one with experiments.train, or pass --dataset to "
            "measure new parameters and write there"
        )
    if "checkpoint" in flags.given:
        raise UsageError("--checkpoint has no effect on new parameters; leave it out, or pass the --workdir of a run")
    values = complete({name: flags.values[name] for name in flattened(MODEL)}, MODEL)
    check_effects(values, flags.given.intersection(MODEL_FLAGS), MODEL)


def trained_subject(workdir: Path, flags: Flags) -> MeasuredModel:
    """The run in `workdir` at its checkpoint's step."""
    import jax

    from vae.evaluation.gradient_grid import GradientSubject
    from vae.models import model as models
    from vae.training import start

    config, state = start.saved_state(workdir, flags.values["checkpoint"])
    notes.show_best(workdir, flags.values["checkpoint"])
    model, params, step = models.build(config.settings), jax.device_put(state.evaluated_params), int(state.step)
    place = flags.values["dataset"] if "dataset" in flags.given else None
    dataset = flags.folders.of_run(workdir, place)
    batch = fixed_batch(dataset, config.settings, flags.values)
    subject = GradientSubject(model, params, config.settings, step, batch, state.objective_state)
    return MeasuredModel(f"{workdir}, step {step}", subject, config, dataset)


def new_subject(flags: Flags) -> MeasuredModel:
    """The parameters that a run with these flags and this seed starts from."""
    import jax

    from vae import objectives
    from vae.datasets import images
    from vae.evaluation.gradient_grid import GradientSubject
    from vae.models import model as models
    from vae.training import start
    from vae.training import step as training

    values: dict[str, Any] = configuration.absolute({name: flags.values[name] for name in MODEL_FLAGS})
    values["objective"] = "elbo_mc"
    dataset = flags.folders.load(values["dataset"], values["validation"], values["image_size"])
    config = resolve(values, dataset, given=())
    settings = config.settings
    start.check_memory(settings, start.abstract_state(config), jax.local_devices()[0], 1)
    model = models.build(settings)
    state = training.initialize(
        jax.random.key(flags.values["seed"]),
        model,
        objectives.build(settings),
        settings,
        config.hyperparameters,
        images.moments(dataset.train.images),
    )
    batch = fixed_batch(dataset, settings, flags.values)
    subject = GradientSubject(model, state.params, settings, 0, batch)
    return MeasuredModel(f"{dataset.name}, new parameters", subject, config, dataset)


def fixed_batch(dataset: Dataset, settings: Settings, asked: dict[str, Any]) -> Batch:
    """--batch_size images of --split, as they are evaluated: binarised once."""
    from vae.datasets import images
    from vae.evaluation import gradient_grid

    split, size = asked["split"], asked["batch_size"]
    stored = images.stored(dataset, split, settings.binarization, training=False)
    if size > len(stored.images):
        raise UsageError(f"--batch_size={size}, but --split={split} has {len(stored.images)} images")
    return gradient_grid.fixed_batch(stored, size, asked["seed"])


def measure(measured: MeasuredModel, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each objective, K and estimator that can be measured; the others are printed, with the reason."""
    from tqdm import tqdm

    from vae.evaluation import gradient_grid

    counts = sorted({int(k) for k in asked["num_samples"]})
    chosen = {kind: laboratory.parse(kind, asked[f"{kind}s"]) for kind in laboratory.TABLES}
    estimators = laboratory.estimators(measured.config, measured.dataset, chosen)
    sizes = asked["num_groups"], asked["draws"], asked["reference_draws"]
    grid = gradient_grid.GradientGrid(estimators, counts, *sizes)
    skipped: set[str] = set()

    def on_skip(line: str) -> None:
        if line not in skipped:
            tqdm.write(f"skipped: {with_dashes(line)}")
        skipped.add(line)

    with tqdm(total=grid.total, unit="sample", leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_progress(words: str, samples: int) -> None:
            bar.set_description_str(words, refresh=False)
            bar.update(samples)

        return gradient_grid.measure(asked["seed"], measured.subject, grid, on_skip=on_skip, on_progress=on_progress)


if __name__ == "__main__":
    script.run(define_flags, main)
