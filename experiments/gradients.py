"""What a gradient estimator does at fixed parameters: mean, bias, variance and signal-to-noise ratio against K.

    python -m experiments.train --preset=digits --activation=tanh --epochs=5 --workdir=runs/digits
    python -m experiments.gradients --workdir=runs/digits --estimators=reparameterized,stl,dreg --draws=1000
    python -m experiments.gradients --dataset=mnist --objectives=elbo_mc,iwae   # at initialisation

The first two take two minutes of CPU time and show for K = 1 → 64 what Rainforth et al. and Tucker et al. (2018)
found: the signal-to-noise ratio of IWAE's encoder gradient falls from 0.61 to 0.06, as 1/√K, where DReG's grows from
2.4 to 4.3; the decoder's grows from 1.6 to 14.5, as √K. STL is found biased at every K > 1, DReG at none (p < .01).
After long training, or with many latent dimensions, the posterior is far from q at these K, and IWAE's falls less.

The parameters are those of the run in --workdir, or new ones of the model that --dataset and the other flags describe.
Draws are of the noise alone, on one batch; the ratios grow with its size. Writes gradients.json and
figures/gradients_snr.png in the folder, and prints a table; vae/gradients.py says what its columns are.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from absl import flags

from experiments import configuration, options
from experiments.parsing import UsageError, choice, number, numbers, unknown
from vae import settings as names

if TYPE_CHECKING:
    from vae.model import Batch, Model

FLAGS = options.FLAGS
LEAST_DRAWS = 20  # two in each block: see vae/gradients.py
MODEL_FLAGS: list[str] = []  # those that a trained run has settled


def define_flags() -> None:
    before = set(FLAGS)
    options.define_data()
    options.define_model()
    MODEL_FLAGS.extend(sorted(set(FLAGS) - before - {"data_dir", "manual_dir"}))
    flags.DEFINE_string(
        "workdir", None, "a run folder, or, with --dataset, the folder to write to (default: a new one in runs/)"
    )
    flags.DEFINE_string("checkpoint", "last", "of the run: last, best (highest validation bound) or a step")
    choice("split", "train", ("train", "validation", "test"), "where the batch is from")
    _several("objectives", ["iwae"], _objectives, "bounds: names in vae.objectives.OBJECTIVES")
    _several("estimators", ["reparameterized", "stl", "dreg", "score"], lambda: list(names.ESTIMATORS), "to compare")
    numbers("num_samples", [str(2**i) for i in range(7)], "the K to compare", integer=True)
    number("num_groups", 1, "M, groups of K samples; above 1 only miwae and piwae are left", least=1, integer=True)
    number("draws", 200, "independent gradients of each estimator", least=LEAST_DRAWS, integer=True)
    number("reference_draws", 1000, "reparameterized gradients to test for a bias against; 0: no test", least=0,
           integer=True)  # fmt: skip
    number("batch_size", 100, "images in the one batch, chosen at random", least=1, integer=True)
    number("seed", 0, "of everything random", least=0, most=2**31 - 1, integer=True)


def _objectives() -> list[str]:
    from vae.objectives import OBJECTIVES

    return list(OBJECTIVES)


def _several(name: str, default: list[str], known, help: str) -> None:
    """A comma-separated list of names among those that `known` returns."""
    flags.DEFINE_list(name, default, help)

    def check(values):
        if values == default:
            return True
        if not values:
            raise flags.ValidationError(f"must be names separated by commas, of: {', '.join(known())}")
        for value in values:
            if value not in known():
                raise flags.ValidationError(unknown(name.removesuffix("s"), value, known()))
        return True

    flags.register_validator(name, check)


class Subject(NamedTuple):
    """What is measured: a model at some parameters, on one batch."""

    name: str
    model: Model
    params: Any
    settings: names.Settings
    hyperparameters: names.Hyperparameters
    step: int
    batch: Batch


def main() -> int:
    if 0 < FLAGS.reference_draws < LEAST_DRAWS:
        raise UsageError(f"--reference_draws={FLAGS.reference_draws} is too few: use {LEAST_DRAWS} or more, or 0")
    workdir = Path(FLAGS.workdir).expanduser() if FLAGS.workdir else None
    trained = is_run(workdir)
    from experiments import devices, pictures, train
    from vae import figures, run

    devices.start(1, FLAGS.data_dir)
    subject = trained_subject(workdir) if trained else new_subject()
    print(f"{subject.name}; {len(subject.batch.x)} {FLAGS.split} images, {FLAGS.draws} draws")
    rows = measure(subject)
    if not rows:
        raise UsageError("nothing is left to measure: every pair of objective and estimator was skipped")
    workdir = workdir or train.new_workdir(f"{FLAGS.dataset.split('/')[-1]}-gradients")
    workdir.mkdir(parents=True, exist_ok=True)
    summary = {
        "subject": subject.name,
        "split": FLAGS.split,
        "batch_size": len(subject.batch.x),
        "num_groups": FLAGS.num_groups,
        "draws": FLAGS.draws,
        "reference_draws": FLAGS.reference_draws,
        "seed": FLAGS.seed,
        "settings": subject.settings.to_dict(),
        "hyperparameters": subject.hyperparameters._asdict(),
        "results": rows,
    }
    print_table(rows)
    panels = curves(rows)
    made = {}
    if panels:
        floor = rows[0]["groups"][next(iter(panels))]["noise_floor"]
        title = f"Gradient of {', '.join(dict.fromkeys(row['objective'] for row in rows))}"
        made["gradients_snr"] = figures.signal_to_noise(panels, floor, title)
    for path in pictures.save(workdir, made):
        print(f"picture: {path}")
    run.write_json(workdir / "gradients.json", summary)
    print(workdir / "gradients.json")
    return 0


def is_run(workdir: Path | None) -> bool:
    """Whether the parameters are a trained run's; raises UsageError for flags that then have no effect, or too few."""
    from vae.run import CONFIG

    given = {name for name in MODEL_FLAGS if FLAGS[name].present}
    if workdir is not None and (workdir / CONFIG).exists():
        if given:
            raise UsageError(
                f"--{min(given)} has no effect: {workdir} holds a run, which has settled it; leave it out, or choose "
                "another --workdir to measure new parameters"
            )
        return True
    if workdir is not None and "dataset" not in given:
        raise UsageError(
            f"--workdir={workdir} holds no run (no {CONFIG}); train one with experiments.train, or pass --dataset to "
            "measure new parameters and write there"
        )
    if FLAGS["checkpoint"].present:
        raise UsageError("--checkpoint has no effect on new parameters; leave it out, or pass the --workdir of a run")
    configuration.check_choices(given)
    return False


def trained_subject(workdir) -> Subject:
    """The run in `workdir`, at its checkpoint's step."""
    from vae import run

    config = run.read_config(workdir)
    step = run.choose_checkpoint(workdir, FLAGS.checkpoint)
    model, params, settings = run.load_run(workdir, step)
    dataset = options.load_dataset(config.dataset, config.validation, config.image_size)
    name = f"{workdir}, step {step}"
    return Subject(name, model, params, settings, config.hyperparameters, step, fixed_batch(dataset, settings))


def new_subject() -> Subject:
    """The parameters that a run with these flags and this seed starts from."""
    import jax
    import jax.numpy as jnp

    from vae import images, objectives, training
    from vae import model as models

    dataset = options.load_dataset(configuration.dataset_name(), FLAGS.validation, FLAGS.image_size)
    settings = names.Settings(**(configuration.model_settings(dataset) | {"objective": "elbo_mc", "num_samples": 1}))
    model, hyperparameters = models.build(settings), names.Hyperparameters()
    state = training.initialize(
        jax.random.key(FLAGS.seed),
        model,
        objectives.build(settings),
        settings,
        hyperparameters,
        jnp.asarray(images.mean_image(dataset.train.images)),
    )
    name = f"{dataset.name}, new parameters"
    return Subject(name, model, state.params, settings, hyperparameters, 0, fixed_batch(dataset, settings))


def fixed_batch(dataset, settings) -> Batch:
    """--batch_size images of --split, as they are evaluated: binarised once."""
    import jax.numpy as jnp
    import numpy as np

    from vae import images
    from vae.model import Batch

    stored = images.stored(dataset, FLAGS.split, settings.binarization, training=False)
    if FLAGS.batch_size > len(stored.images):
        raise UsageError(f"--batch_size={FLAGS.batch_size}, but --split={FLAGS.split} has {len(stored.images)} images")
    index = np.sort(np.random.default_rng(FLAGS.seed).permutation(len(stored.images))[: FLAGS.batch_size])
    labels = None if stored.labels is None else jnp.asarray(stored.labels[index])
    x = images.to_unit_interval(jnp.asarray(stored.images[index]))
    return Batch(x, labels, jnp.asarray(index), len(stored.images))


def measure(subject: Subject) -> list[dict[str, Any]]:
    """A row for each objective, K and estimator that can be measured; the others are printed, with the reason."""
    import jax
    from tqdm import tqdm

    from vae import gradients, objectives

    root, rows, skipped = jax.random.key(FLAGS.seed), [], set()
    build = functools.cache(objectives.build)  # an objective's program is compiled once, for draws and reference
    counts = sorted({int(k) for k in FLAGS.num_samples})
    asked = [(o, k, e) for o in FLAGS.objectives for k in counts for e in FLAGS.estimators]
    total = sum(k * FLAGS.draws for _, k, _ in asked) + len(FLAGS.objectives) * sum(counts) * FLAGS.reference_draws
    with tqdm(total=total, unit="sample", leave=False, disable=not sys.stderr.isatty()) as bar:

        def skip(line: str) -> None:
            if line not in skipped:
                tqdm.write(f"skipped: {line}")
            skipped.add(line)

        def advance(samples: int) -> None:
            bar.update(samples)

        def draw(name, estimator, num_samples, num_draws, reference):
            settings = dataclasses.replace(
                subject.settings,
                objective=name,
                estimator=estimator,
                num_samples=num_samples,
                num_groups=FLAGS.num_groups,
                batch_size=len(subject.batch.x),
            )
            objective = build(settings)
            bar.set_description_str(f"{name} {estimator} K = {num_samples}", refresh=False)
            return gradients.measure(
                root,
                parameters(subject, name, objective),
                subject.batch,
                num_draws,
                model=subject.model,
                objective=objective,
                num_samples=num_samples,
                hyperparameters=subject.hyperparameters,
                step=subject.step,
                reference=reference,
                on_progress=lambda draws: advance(draws * num_samples),
            )

        for name in FLAGS.objectives:
            for num_samples in counts:
                reference = None
                for estimator in FLAGS.estimators:
                    if reason := objectives.REFUSED.get((name, estimator)):
                        skip(f"{name} with {estimator}: {reason}")
                        continue
                    try:
                        blocks = draw(name, estimator, num_samples, FLAGS.draws, False)
                        if FLAGS.reference_draws and reference is None:
                            reference = draw(name, "reparameterized", num_samples, FLAGS.reference_draws, True)
                    except (objectives.ObjectiveError, FloatingPointError) as error:
                        skip(f"{name} with {estimator}, K = {num_samples}: {error}")
                        continue
                    groups = {}
                    for group, parts in blocks.items():
                        groups[group] = gradients.signal(parts)._asdict()
                        if reference is not None:
                            groups[group] |= gradients.bias(parts, reference[group])._asdict()
                    rows.append(
                        {"objective": name, "estimator": estimator, "num_samples": num_samples, "groups": groups}
                    )
    return rows


def parameters(subject: Subject, name: str, objective) -> Any:
    """The model's parameters, with the objective's own where it has some: the run's if it was trained with it."""
    import jax

    params = {group: subtree for group, subtree in subject.params.items() if group != "objective"}
    extra = objective.init(jax.random.key(FLAGS.seed), subject.model)
    if not extra:
        return params
    own = subject.params.get("objective") if name == subject.settings.objective else None
    return {**params, "objective": extra if own is None else own}


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line for each row and group of parameters."""
    tested = "p_norm" in next(iter(rows[0]["groups"].values()))
    header = ["objective", "estimator", "K", "group", "|mean|", "variance", "SNR", "±", "SNR of norms"]
    header += ["bias", "p", "max |t|", "p of it", "p < .05"] if tested else []
    cells = [header]
    for row in rows:
        for group, s in row["groups"].items():
            values = [s["mean_norm"], s["variance"], s["snr"], s["snr_error"], s["snr_of_norms"]]
            cell = [row["objective"], row["estimator"], str(row["num_samples"]), group, *map(_cell, values)]
            if tested:
                cell += [_cell(s["relative_bias"]), f"{s['p_norm']:.3f}", f"{s['max_t']:.1f}", f"{s['p_max_t']:.3f}"]
                cell += [f"{s['share_below_5_percent']:.1%}"]
            cells.append(cell)
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    first = rows[0]["groups"]
    print(f"SNR of noise alone: {next(iter(first.values()))['noise_floor']:.3g}")
    for group, s in first.items():
        print(
            f"{group}: {s['num_parameters']} parameters; left out of the SNR: {s['num_zero']} with gradient zero, "
            f"{s['num_constant']} without noise ({rows[0]['estimator']}, K = {rows[0]['num_samples']})"
        )


def _cell(value: float) -> str:
    return f"{value:.3g}"


def curves(rows: list[dict[str, Any]]) -> dict[str, dict[str, tuple[list, list, list]]]:
    """group → "objective estimator" → K, SNR and its standard error, where they are known."""
    panels: dict[str, dict[str, tuple[list, list, list]]] = {}
    several = len({row["objective"] for row in rows}) > 1
    for row in rows:
        name = f"{row['objective']} {row['estimator']}" if several else row["estimator"]
        for group, s in row["groups"].items():
            if math.isfinite(s["snr"]) and s["snr"] > 0:
                columns = panels.setdefault(group, {}).setdefault(name, ([], [], []))
                for column, value in zip(columns, (row["num_samples"], s["snr"], s["snr_error"]), strict=True):
                    column.append(value)
    return panels


if __name__ == "__main__":
    define_flags()
    options.main(main)
