"""The public API: what the scripts do, as functions of values. It prints nothing; without `workdir` it writes nothing.

Keywords have the names of the scripts' flags and are checked by the same tables.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from vae import datasets, environment
from vae.configuration import ConfigurationError, absolute, check_patience, complete, resolve
from vae.datasets import images as stored_images
from vae.datasets.arrays import as_images
from vae.datasets.dataset import Dataset, Split
from vae.datasets.labels import as_labels, positions
from vae.datasets.loading import IN_MEMORY
from vae.evaluation import summary as summaries
from vae.models import model as models
from vae.models.model import Model
from vae.places import expanded
from vae.presets import PRESETS
from vae.rules import LARGEST, Number, unknown
from vae.runs import fingerprint
from vae.runs.config import Config, read_config, write_config
from vae.runs.folder import CONFIG, lock
from vae.runs.metrics import read_metrics
from vae.settings import Settings
from vae.training import fit, resuming, start
from vae.training.fit import Progress


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A trained model, and what it was trained with.

    `params` are the averaged ones if the run averages its weights. `metrics` are rows as in metrics.jsonl: step, epoch,
    split and values in nats per example. `step` is that of `params`. `dataset` is None for a run loaded from a folder.
    `data` is what its folder says of its images, if it has one (vae/runs/fingerprint.py).
    """

    model: Model
    params: Any
    config: Config
    metrics: list[dict[str, Any]]
    step: int
    dataset: Dataset | None = None
    data: fingerprint.Record | None = None

    @property
    def settings(self) -> Settings:
        return self.config.settings


class EvaluatedRun(NamedTuple):
    """Means over images, in nats per image; `_se` is a standard error over images.

    `by_image` has the arrays [N] of evaluation.npz: log_likelihood, log_likelihood_psis, elbo, kl. `summary` is what
    evaluation.json says.
    """

    log_likelihood: float
    log_likelihood_se: float
    elbo: float
    elbo_se: float
    reconstruction: float
    kl: float
    active_units: int | None  # None: the posterior has no mean in closed form and too few samples were drawn
    by_image: dict[str, Float[np.ndarray, "N"]]
    summary: dict[str, Any]


def train(
    data: Any = None,
    labels: Any = None,
    *,
    preset: str | None = None,
    workdir: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    devices: Sequence[Any] | None = None,
    keep_last: int = 2,
    keep_best: int = 1,
    save_every: float = 1.0,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> TrainedRun:
    """Train a VAE, or resume the run in `workdir`.

    data: images in memory, [N, H, W] or [N, H, W, C], integers in 0..255 or floats in [0, 1], of which a tenth is held
        out (`validation=0`: none); or what `--dataset` takes: a name, an .npz file, a folder. None: the preset's.
    labels: [N] integers, of images in memory.
    preset: several options under one name; those in `options` win.
    workdir: the run folder, as experiments.train makes it; None: nothing is written. Images in memory have none.
    keep_last, keep_best, save_every: of the checkpoints in `workdir`, as `fit.fit` says.
    report: called about once a second and at every epoch's end.
    should_stop: asks for an earlier end.
    options: the flags of a run by name, as `objective="iwae", num_samples=50, epochs=20`. With `patience` the
        parameters are those of the best epoch by validation.

    Raises ConfigurationError, DataError, LikelihoodError, ModelError, ObjectiveError, RunError or CheckpointError
    before anything is written, and TrainingFailed if the bound is not finite.
    """
    _check_environment()
    if preset is not None and preset not in PRESETS:
        raise ConfigurationError(unknown("preset", preset, list(PRESETS)))
    values = PRESETS.get(preset or "", {}) | options
    in_memory = data is not None and not isinstance(data, str | os.PathLike)
    if in_memory and workdir is not None:
        raise ConfigurationError(
            "`workdir` is a folder that can be resumed and evaluated later, and images in memory would be gone; save "
            "them as an .npz file and pass its path, or leave `workdir` out"
        )
    if labels is not None and not in_memory:
        raise ConfigurationError("`labels` are of images in memory; a data set has its own")
    if in_memory:
        values |= {"dataset": IN_MEMORY}
    elif data is not None:
        values |= {"dataset": os.fspath(data)}
    about = complete(values)
    check_patience(about, keep_best)
    if in_memory:
        dataset = datasets.from_arrays(np.asarray(data), labels, about["validation"])
    else:
        values["dataset"] = about["dataset"] = absolute(about["dataset"], data_dir)
        dataset = _load(about, data_dir, manual_dir)
    if workdir is not None and (expanded(workdir) / CONFIG).exists():
        dataset = _checked(expanded(workdir), dataset)
    config = resolve(values, dataset, options.keys())
    if workdir is None:
        record = fit.fit_in_memory(config, dataset, devices=devices, report=report, should_stop=should_stop)
        state, rows = record.state, record.rows
    else:
        folder = expanded(workdir)
        start.check(folder, config, dataset, list(devices or jax.devices()[:1]))
        with lock(folder):
            resuming.check(folder, config, dataset)
            flags = {name: list(map(str, v)) if isinstance(v, tuple) else v for name, v in about.items()}
            flags |= {"data_dir": _text(data_dir), "manual_dir": _text(manual_dir)}
            own = {"data": fingerprint.of(dataset), "flags": flags}
            write_config(folder, config, **own, argv=["vae.train"], devices=[str(d) for d in devices or []])
            fit.fit(
                folder,
                config,
                dataset,
                devices=devices,
                keep_last=keep_last,
                keep_best=keep_best,
                save_every=save_every,
                report=report,
                should_stop=should_stop,
            )
        config, state = start.saved_state(folder)
        rows = read_metrics(folder)
    model, params = models.build(config.settings), jax.device_put(state.evaluated_params)
    return TrainedRun(model, params, config, rows, int(state.step), dataset)


def load_run(workdir: str | os.PathLike, checkpoint: str | int | None = None) -> TrainedRun:
    """Load the run in `workdir` at its "last" or "best" checkpoint, or at a step; raises RunError or CheckpointError.

    `workdir` is a run folder or a packed run, of which nothing is unpacked.
    The best one has the highest validation bound. None: it of a run with patience, the last one of any other.
    """
    folder = expanded(workdir)
    config, state = start.saved_state(folder, checkpoint)
    model, params = models.build(config.settings), jax.device_put(state.evaluated_params)
    data = fingerprint.read(folder)
    return TrainedRun(model, params, config, read_metrics(folder), int(state.step), None, data)


def evaluate(
    run: TrainedRun,
    images: Any = None,
    labels: Any = None,
    *,
    split: str = "test",
    num_samples: int = 5000,
    num_examples: int | None = None,
    seed: int = 0,
    dataset: str | os.PathLike | None = None,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    devices: Sequence[Any] | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> EvaluatedRun:
    """Evaluate a run as experiments.evaluate does: importance-weighted log-likelihood, ELBO, KL, active units.

    images, labels: as in `train`; grey ones are binarised as the run's images were. None: the `split` of its data set
        ("train", "validation" or "test"), of which `num_examples` takes a fixed random subset.
    num_samples: k of the log-likelihood (Burda et al. 2016, eq. 8).
    dataset: where the run's images are now, if they were moved.
    report: called with the number of images that are done.

    Raises RunError if the run's data set has other images than it was trained on, ConfigurationError for a split that
    is empty or none and for numbers that cannot be, DataError, and LikelihoodError for images that p(x|z) cannot score.
    """
    _check_environment()
    if split not in ("train", "validation", "test"):
        raise ConfigurationError(unknown("split", split, ["train", "validation", "test"]))
    for name, value, least in (("num_samples", num_samples, 1), ("num_examples", num_examples, 1), ("seed", seed, 0)):
        if value is not None and (reason := Number(integer=True, least=least, most=LARGEST).fault(value)):
            raise ConfigurationError(f"`{name}={value}`: {reason}")
    if images is not None:
        (checked,) = as_images({"images": np.asarray(images)})
        given = None if labels is None else _positions(run, as_labels(np.asarray(labels), len(checked), "labels"))
        none = Split(checked[:0])
        chosen_data, split = Dataset("images", none, none, Split(checked, given), False), "test"
    elif run.dataset is not None and dataset is None:
        chosen_data = run.dataset
    else:
        place = {} if dataset is None else {"dataset": os.fspath(dataset)}
        chosen_data = fingerprint.check(
            fingerprint.of(run.dataset) if run.dataset else run.data,
            _load(vars(run.config) | place, data_dir, manual_dir),
            "this run",
            conditional=run.settings.num_classes > 0,
        )
    if not len(getattr(chosen_data, split).images):
        raise ConfigurationError(f"`split={split}` of this run is empty; use another split, or pass images to evaluate")
    stored = stored_images.stored(chosen_data, split, run.settings.binarization, training=False)
    data, index = stored_images.subset(stored, num_examples)
    chosen = summaries.EvaluationSettings(split, num_samples, seed, num_examples)
    result, summary = summaries.judge(
        run.params,
        data,
        index,
        chosen,
        model=run.model,
        settings=run.settings,
        checkpoint=run.step,
        devices=devices or jax.devices()[:1],
        on_progress=report,
    )
    means = {name: summary[name] for name in EvaluatedRun._fields if name in summary}
    return EvaluatedRun(**means, by_image=summaries.by_image(result), summary=summary)


def _checked(folder: Path, dataset: Dataset) -> Dataset:
    """`dataset` as the run in `folder` was trained on it; raises RunError if it has other images."""
    conditional = read_config(folder).settings.num_classes > 0
    return fingerprint.check(fingerprint.read(folder), dataset, str(folder), conditional=conditional)


def _positions(run: TrainedRun, labels: np.ndarray) -> np.ndarray:
    """The positions of labels among the classes of the run; ConfigurationError where a model would read another."""
    record: Any = run.data if run.dataset is None else {"classes": run.dataset.classes}
    classes = record and record["classes"]
    if classes is None:
        return labels.astype(np.int32)
    found = positions(labels, classes)
    if run.settings.num_classes and (found < 0).any():
        raise ConfigurationError(
            f"the run has no class {labels[found < 0].tolist()[0]!r}; its classes are {list(classes)[:20]}"
        )
    return found


def _check_environment() -> None:
    """Raises ConfigurationError for a mode of jax under which numbers differ."""
    if reason := environment.fault():
        raise ConfigurationError(reason)


def _load(about: Mapping[str, Any], data_dir: Any, manual_dir: Any) -> Dataset:
    """The data set of a run, without a progress line."""
    chosen = {name: about[name] for name in ("validation", "image_size")}
    return datasets.load(about["dataset"], data_dir=data_dir, manual_dir=manual_dir, progress=False, **chosen)


def _text(path: Any) -> str | None:
    return None if path is None else str(expanded(path).absolute())
