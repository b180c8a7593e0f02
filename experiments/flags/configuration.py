"""From flags to a run's Config: presets, the stored flags of a run that goes on, and what does not go together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.flags.options import FLAGS, ONLY_WITH, TRAINING_FLAGS
from experiments.flags.parsing import UsageError, flag_value
from experiments.flags.presets import PRESETS
from vae import settings as names

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config

# Fields of Hyperparameters that count steps, and the flags that give them in epochs.
IN_EPOCHS = {"warmup_steps": "warmup_epochs", "capacity_steps": "capacity_epochs"}


def resolve(workdir: Path | None) -> None:
    """Apply --preset, and where `workdir` holds a run, that run's flags.

    Raises UsageError for a flag that would have no effect.
    """
    stored = stored_flags(workdir)
    check(settle(stored))
    if stored and FLAGS.epochs != stored.get("epochs") and (schedule := ends_with_training()):
        raise UsageError(
            f"{schedule} of this run ends at epoch {stored.get('epochs')}, so --epochs={FLAGS.epochs} cannot "
            f"be reached by resuming it; start a new run with --init_from={workdir}"
        )


def ends_with_training() -> str | None:
    """What of the run depends on the number of its epochs; None if nothing does."""
    if FLAGS.schedule == "cosine":
        return "the cosine schedule"
    if FLAGS.objective == "warmup" and FLAGS.warmup_shape == "cyclical" and FLAGS.warmup_epochs is None:
        return "the cyclical warm-up"
    return None


def settle(stored: dict[str, Any]) -> set[str]:
    """Give each training flag its value: the command line's, --preset's, the `stored` one; the names of the first."""
    given = {name for name in TRAINING_FLAGS if FLAGS[name].present}
    make_paths_absolute()
    if FLAGS.preset is not None:
        chosen = {name: value for name, value in PRESETS[FLAGS.preset].items() if name not in given}
        for name, value in chosen.items():
            FLAGS[name].value = value
        shown = " ".join(
            f"--{name}={','.join(value) if isinstance(value, list) else value}" for name, value in chosen.items()
        )
        print(f"preset {FLAGS.preset}: {shown}")
    if stored:
        set_here = given | set(PRESETS.get(FLAGS.preset or "", {}))
        for name, value in (since_then() | stored).items():
            if name in TRAINING_FLAGS and name not in set_here:
                FLAGS[name].value = stored_value(name, value)
    return given


def since_then() -> dict[str, Any]:
    """The flags that came after the first run folders, each with what it stands for in a folder that lacks it."""
    return {name: value for added in names.ADDED.values() for name, value in added.items()}


def stored_value(name: str, value: Any) -> Any:
    """A flag's value as a file gave it, after the flag's own parser and validators; raises RunError."""
    from vae.runs.files import RunError

    if value is None and FLAGS[name].default is None:
        return None
    try:
        return flag_value(name, ",".join(map(str, value)) if isinstance(value, list) else str(value))
    except UsageError as error:
        raise RunError(
            f"the flag {name} that was stored is {str(value)[:60]!r}: {error}; use another --workdir"
        ) from error


def stored_own(path: Path, stored: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The values of a script's own flags as the file `path` gave them, checked as a command's; raises RunError."""
    from vae.runs.files import RunError

    found = {}
    for name in names:
        if name not in stored:
            raise RunError(f"{path} is damaged: it lacks {name!r}; put the file back, or choose another --workdir")
        value = stored[name]
        if not isinstance(FLAGS[name].value, list):
            found[name] = stored_value(name, value)
        elif isinstance(value, list) and all(isinstance(text, str) for text in value):
            found[name] = value
        else:
            raise RunError(
                f"{path} is damaged: its {name!r} is no list of texts; put the file back, or choose another --workdir"
            )
    return found


def make_paths_absolute() -> None:
    """So that a run can be resumed from any folder."""
    FLAGS.dataset = dataset_name()
    for name in ("data_dir", "manual_dir", "init_from"):
        if path := FLAGS[name].value:
            FLAGS[name].value = str(Path(path).expanduser().absolute())


def check(given: set[str]) -> None:
    """Raises UsageError for a flag of `given` that has no effect with the others, and for what does not go together."""
    check_choices(given)
    _check_hyperparameters(given)
    if FLAGS.validation == 0 and "keep_best" in given and FLAGS.keep_best:
        raise UsageError("--keep_best has no effect with --validation=0: only validation images choose a checkpoint")
    if FLAGS.schedule == "stages" and len(FLAGS.stage_epochs) != len(FLAGS.stage_factors):
        raise UsageError(
            f"--stage_epochs has {len(FLAGS.stage_epochs)} stages and --stage_factors {len(FLAGS.stage_factors)}; "
            "give one factor for each stage"
        )


def check_choices(given: set[str]) -> None:
    """Raises UsageError for a given flag that the choices made give no meaning."""
    for name, decider, values in ONLY_WITH:
        if name in given and FLAGS[decider].value not in values:
            raise UsageError(
                f"--{name} has no effect with --{decider}={FLAGS[decider].value}; "
                f"leave it out, or use --{decider}={' or '.join(values)}"
            )
    _check_model(given)


def _check_model(given: set[str]) -> None:
    """Raises UsageError for a size of something that the model does not have."""
    if "upper_hidden_sizes" in given and FLAGS.upper_latent_dim == 0:
        raise UsageError("--upper_hidden_sizes has no effect with one stochastic layer; use --upper_latent_dim=50")
    with_networks = FLAGS.posterior in ("iaf", "realnvp") or FLAGS.prior == "flow"
    for name, used in (
        ("num_flows", with_networks or FLAGS.posterior == "planar"),
        ("flow_hidden_size", with_networks),
    ):
        if name in given and not used:
            raise UsageError(
                f"--{name} has no effect with --posterior={FLAGS.posterior} and --prior={FLAGS.prior}; leave it out, "
                f"or use --posterior={'planar, ' if name == 'num_flows' else ''}iaf or realnvp, or --prior=flow"
            )


def _check_hyperparameters(given: set[str]) -> None:
    """Raises UsageError for a number that another objective reads."""
    from vae.objectives import OBJECTIVES, reads

    read = {objective: [IN_EPOCHS.get(name, name) for name in reads(objective)] for objective in OBJECTIVES}
    readers = {name: [objective for objective in OBJECTIVES if name in read[objective]] for name in given}
    for name, objectives in readers.items():
        if objectives and FLAGS.objective not in objectives:
            raise UsageError(
                f"--{name} has no effect with --objective={FLAGS.objective}; "
                f"leave it out, or use --objective={' or '.join(objectives)}"
            )


def stored_flags(workdir: Path | None) -> dict[str, Any]:
    """The flags that the run in `workdir` was started with; empty where there is none.

    Raises RunError where its config.json is damaged, UsageError where it was lost.
    """
    from vae.runs.config import read_config
    from vae.runs.files import read_json
    from vae.runs.folder import CHECKPOINTS, CONFIG
    from vae.sweeps.sweep_file import SWEEP

    if workdir is None:
        return {}
    if (workdir / SWEEP).exists():
        raise UsageError(f"{workdir} holds a sweep, which experiments.sweep trains; choose another --workdir")
    if not (workdir / CONFIG).exists():
        if (workdir / CHECKPOINTS).exists():
            raise UsageError(
                f"{workdir} holds checkpoints but no {CONFIG}, which says what they are of; put it back, or choose "
                "another --workdir"
            )
        return {}
    read_config(workdir)
    return read_json(workdir / CONFIG).get("flags", {})


def training_flags() -> dict[str, Any]:
    """The value of every training flag, as config.json keeps them."""
    return {name: FLAGS[name].value for name in TRAINING_FLAGS}


def config(dataset: Dataset) -> Config:
    """The run's Config from the flags and the data they name; raises UsageError where they do not go together."""
    from vae.runs.config import Config

    steps_per_epoch = max(1, len(dataset.train.images) // FLAGS.batch_size)
    stages = FLAGS.schedule == "stages"
    settings: dict[str, Any] = {
        **model_settings(dataset),
        "discriminator_sizes": tuple(map(int, FLAGS.discriminator_sizes)),
        "clip_gradients": FLAGS.max_gradient_norm > 0,
        "average_weights": FLAGS.ema_decay > 0,
    }
    hyperparameters: dict[str, Any] = {
        **_values_of(names.Hyperparameters._fields),
        "warmup_cycles": float(FLAGS.warmup_cycles),
        "warmup_steps": warmup_epochs() * steps_per_epoch,
        "capacity_steps": FLAGS.capacity_epochs * steps_per_epoch,
        "dip_diagonal": dip_diagonal(),
        "decay_steps": float(FLAGS.epochs * steps_per_epoch) if FLAGS.schedule == "cosine" else 0.0,
        "stage_steps": tuple(int(n) * steps_per_epoch for n in FLAGS.stage_epochs) if stages else (),
        "stage_factors": tuple(map(float, FLAGS.stage_factors)) if stages else (),
    }
    return Config(
        dataset=dataset_name(),
        settings=names.Settings(**settings),
        hyperparameters=names.Hyperparameters(**hyperparameters),
        epochs=FLAGS.epochs,
        seed=FLAGS.seed,
        validation=FLAGS.validation,
        image_size=FLAGS.image_size,
        init_from=FLAGS.init_from,
    )


def warmup_epochs() -> float:
    """Cyclical warm-up lasts as long as training unless --warmup_epochs says otherwise (Fu et al. 2019)."""
    if FLAGS.warmup_epochs is None:
        return float(FLAGS.epochs) if FLAGS.warmup_shape == "cyclical" else 10.0
    return FLAGS.warmup_epochs


def dip_diagonal() -> float:
    """λ_d is 10 λ_od in DIP-VAE-I and λ_od in DIP-VAE-II unless --dip_diagonal says otherwise (Kumar et al. 2018)."""
    if FLAGS.dip_diagonal is None:
        return FLAGS.dip_off_diagonal * (1 if FLAGS.objective == "dip_ii" else 10)
    return FLAGS.dip_diagonal


def model_settings(dataset: Dataset) -> dict[str, Any]:
    """The fields of Settings that flags and the data set give, but for those of training alone."""
    return {
        **_values_of(field.name for field in dataclasses.fields(names.Settings)),
        "image_shape": tuple(dataset.train.images.shape[1:]),
        "hidden_sizes": tuple(map(int, FLAGS.hidden_sizes)),
        "channels": tuple(map(int, FLAGS.channels)) if FLAGS.network == "conv" else (),
        "upper_hidden_sizes": tuple(map(int, FLAGS.upper_hidden_sizes)),
        "num_classes": _num_classes(dataset) if FLAGS.conditional else 0,
        "scale": _scale(),
        "binarization": _binarization(dataset),
    }


def _values_of(fields: Iterable[str]) -> dict[str, Any]:
    """The fields that are flags of the same name."""
    return {name: FLAGS[name].value for name in fields if name in FLAGS}


def dataset_name() -> str:
    """--dataset, a path made absolute so that the run finds it from anywhere."""
    path = Path(FLAGS.dataset).expanduser()
    return str(path.resolve()) if path.exists() and (path.is_file() or len(path.parts) > 1) else FLAGS.dataset


def _scale() -> float | str | None:
    if FLAGS.likelihood != "normal" or FLAGS.scale == "learned":
        return None
    return FLAGS.scale if FLAGS.scale == "optimal" else float(FLAGS.scale)


def _num_classes(dataset: Dataset) -> int:
    """Of the training set; raises UsageError where a split has no labels, or one that the training set lacks."""
    used = [split.labels for split in (dataset.train, dataset.validation, dataset.test) if len(split.images)]
    labels = [set() if values is None else set(values.tolist()) for values in used]
    if not all(labels):
        raise UsageError(f"--conditional needs a label for every image; {dataset.name} has none for some")
    unknown = sorted(set().union(*labels) - labels[0]) + [label for label in labels[0] if label < 0]
    if unknown:
        raise UsageError(
            f"--conditional cannot use the label {unknown[0]} of {dataset.name}: labels count from 0, and each must be "
            "that of a training image"
        )
    return max(labels[0]) + 1


def _binarization(dataset: Dataset) -> str:
    if FLAGS.binarization is None:
        return "none" if dataset.binary or FLAGS.likelihood != "bernoulli" else "dynamic"
    if dataset.binary and FLAGS.binarization != "none":
        raise UsageError(f"--binarization has no effect: every pixel of {dataset.name} is black or white already")
    return FLAGS.binarization
