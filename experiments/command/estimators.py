"""What experiments.gradients measures: a model at some parameters on one batch, by each objective, K and estimator."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.flags import configuration, options
from experiments.flags.parsing import UsageError
from vae import objectives
from vae import settings as names
from vae.api import load_run
from vae.datasets import Dataset, images
from vae.evaluation import gradients
from vae.models import model as models
from vae.models.model import Batch, Model
from vae.runs.checkpoint import choose
from vae.runs.config import read_config
from vae.training import step as training

FLAGS = options.FLAGS


class Subject(NamedTuple):
    """What is measured: a model at some parameters, on one batch."""

    name: str
    model: Model
    params: Any
    settings: names.Settings
    hyperparameters: names.Hyperparameters
    step: int
    batch: Batch


def trained_subject(workdir: Path) -> Subject:
    """The run in `workdir`, at its checkpoint's step."""
    config = read_config(workdir)
    step = choose(workdir, FLAGS.checkpoint)
    model, params, settings = load_run(workdir, step)
    dataset = options.load_dataset(config.dataset, config.validation, config.image_size)
    name = f"{workdir}, step {step}"
    return Subject(name, model, params, settings, config.hyperparameters, step, fixed_batch(dataset, settings))


def new_subject() -> Subject:
    """The parameters that a run with these flags and this seed starts from."""
    dataset = options.load_dataset(configuration.dataset_name(), FLAGS.validation, FLAGS.image_size)
    settings = names.Settings(**(configuration.model_settings(dataset) | {"objective": "elbo_mc", "num_samples": 1}))
    model, hyperparameters = models.build(settings), names.Hyperparameters()
    state = training.initialize(
        jax.random.key(FLAGS.seed),
        model,
        objectives.build(settings),
        settings,
        hyperparameters,
        images.moments(dataset.train.images),
    )
    name = f"{dataset.name}, new parameters"
    return Subject(name, model, state.params, settings, hyperparameters, 0, fixed_batch(dataset, settings))


def fixed_batch(dataset: Dataset, settings: names.Settings) -> Batch:
    """--batch_size images of --split, as they are evaluated: binarised once."""
    stored = images.stored(dataset, FLAGS.split, settings.binarization, training=False)
    if FLAGS.batch_size > len(stored.images):
        raise UsageError(f"--batch_size={FLAGS.batch_size}, but --split={FLAGS.split} has {len(stored.images)} images")
    index = np.sort(np.random.default_rng(FLAGS.seed).permutation(len(stored.images))[: FLAGS.batch_size])
    labels = None if stored.labels is None else jnp.asarray(stored.labels[index])
    x = images.to_unit_interval(jnp.asarray(stored.images[index]))
    return Batch(x, labels, jnp.asarray(index), len(stored.images))


def measure(subject: Subject) -> list[dict[str, Any]]:
    """A row for each objective, K and estimator that can be measured; the others are printed, with the reason."""
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
            objectives.check(settings)
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
    params = {group: subtree for group, subtree in subject.params.items() if group != "objective"}
    extra = objective.init(jax.random.key(FLAGS.seed), subject.model)
    if not extra:
        return params
    own = subject.params.get("objective") if name == subject.settings.objective else None
    return {**params, "objective": extra if own is None else own}
