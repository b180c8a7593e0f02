"""Whether a run folder holds the run that is asked for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vae.datasets.dataset import Dataset
from vae.runs import checkpoint, fingerprint
from vae.runs.config import Config, changed_settings, doubt_bits, read_config
from vae.runs.ending import first_end
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS, CONFIG
from vae.runs.metrics import read_metrics, validation_bounds


def check(workdir: Path, config: Config, dataset: Dataset) -> None:
    """Raises RunError if `workdir` holds another run, or the same one trained for longer than `config` says.

    The data set may have another place, if it has the images that the run was trained on.
    """
    if not (workdir / CONFIG).exists():
        return
    if differences := changed_settings(at_place(workdir, read_config(workdir), config, dataset), config):
        raise RunError(
            f"{workdir} holds a run with other settings: {'; '.join(differences)}; choose another `workdir` "
            f"(with `init_from={workdir}` it starts from this run's parameters)"
        )
    doubt_bits(workdir / CONFIG)
    steps_per_epoch = len(dataset.train.images) // config.settings.batch_size
    saved = checkpoint.steps(workdir / CHECKPOINTS)
    if saved and saved[-1] > config.epochs * steps_per_epoch:
        raise RunError(
            f"{workdir} was trained for {saved[-1] / steps_per_epoch:g} epochs already, more than "
            f"`epochs={config.epochs}`; ask for more, or choose another `workdir`"
        )
    rows = read_metrics(workdir) if saved and config.patience else []
    end = first_end(validation_bounds(rows, config), config.patience * steps_per_epoch)
    if end is not None and saved[-1] > end:
        raise RunError(
            f"{workdir} was trained for {saved[-1] / steps_per_epoch:g} epochs already, and with `patience="
            f"{config.patience}` it ends after {end / steps_per_epoch:g}; ask for more, or choose another `workdir`"
        )


def at_place(workdir: Path, stored: Config, config: Config, dataset: Dataset) -> Config:
    """The `stored` Config of the run in `workdir`, with its images where those of `config` are: `dataset`.

    Raises RunError unless these are its images. Of a run from before format 4 nothing is known, and nothing changes.
    """
    record = fingerprint.read(workdir)
    fingerprint.check(record, dataset, str(workdir), conditional=stored.settings.num_classes > 0)
    return stored if record is None else dataclasses.replace(stored, dataset=config.dataset)
