"""From values by name to a run's Config: what is not given takes its default, and what has no effect is an error.

The names are those of the options (vae.settings.OPTIONS), and of the scripts' flags. Imports neither jax nor absl.
Error messages write names as `num_samples` or `objective=iwae`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vae import hosts
from vae.options import SAME, Option, flattened, read, unread_because
from vae.places import expanded
from vae.rules import Choice, Number, NumberOr, Numbers, unknown
from vae.settings import OPTIONS, OWN, PROGRAM, Hyperparameters, Settings

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config

NAMES = flattened(OPTIONS)  # every option, and what it is


@hosts.shared
class ConfigurationError(ValueError):
    """Values that a run cannot have, or that do not go together; one line for the user."""


def resolve(values: Mapping[str, Any], dataset: Dataset, given: Collection[str] | None = None) -> Config:
    """The Config of the run with these values on `dataset`; what is missing takes its default.

    `given` names those that were asked for by themselves, None: all of `values`. Several values under one name are
    merged before: `PRESETS["digits"] | values`, with given=values. Raises ConfigurationError for a name that is no
    option, for a value that its option cannot have, for one of `given` that has no effect with the others, and for
    values that do not go together.
    """
    from vae.runs.config import Config

    given = values.keys() if given is None else given
    values = complete(values)
    check(values, given)
    values |= _following(values)
    if "batch_size" not in given:
        values["batch_size"] = min(values["batch_size"], len(dataset.train.images))
    own = _derived(values, dataset)
    steps_per_epoch = max(1, len(dataset.train.images) // values["batch_size"])
    effective = read(PROGRAM, values)
    for name, option in flattened(PROGRAM).items():
        unread = option.unset is not SAME and option.default is not None and name not in effective
        value = option.unset if unread else _as_field(option, values[name], steps_per_epoch)
        own.setdefault(option.field_name(name), value)
    own["decay_steps"] = float(values["epochs"] * steps_per_epoch) if values["schedule"] == "cosine" else 0.0
    arrays = {name: own.pop(name) for name in Hyperparameters._fields}
    about = {name: values[name] for name in OWN}
    return Config(settings=Settings(**own), hyperparameters=Hyperparameters(**arrays), **about)


def complete(values: Mapping[str, Any], options: Mapping[str, Option] = OPTIONS) -> dict[str, Any]:
    """`values` and the defaults of all other options, lists as tuples of numbers; raises ConfigurationError."""
    names = NAMES if options is OPTIONS else flattened(options)
    for name in values:
        if name not in names:
            raise ConfigurationError(unknown("option", name, list(names)))
    return {name: as_value(name, values.get(name, option.default)) for name, option in names.items()}


def as_value(name: str, value: Any) -> Any:
    """`value` as the option `name` has it: lists as tuples of numbers; raises ConfigurationError if it cannot be."""
    option = NAMES[name]
    if value is None and option.default is None:
        return None
    used = value
    if isinstance(option.rule, Numbers) and isinstance(value, list | tuple):
        kind = int if option.rule.of.integer else float
        with contextlib.suppress(ValueError):  # the rule refuses a text
            used = tuple(kind(one) if isinstance(one, str) else one for one in value)
    if reason := option.rule.fault(used):
        if isinstance(option.rule, Choice) and isinstance(value, str):
            raise ConfigurationError(unknown(name, value, list(option.rule.names)))
        shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        raise ConfigurationError(f"`{name}={shown}`: {reason}")
    return used


def check(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Raises ConfigurationError for one of `given` without effect with `values`, and for what does not go together."""
    check_effects(values, given)
    check_patience(values)
    if values["schedule"] == "stages" and len(values["stage_epochs"]) != len(values["stage_factors"]):
        raise ConfigurationError(
            f"`stage_epochs` has {len(values['stage_epochs'])} stages and `stage_factors` "
            f"{len(values['stage_factors'])}; give one factor for each stage"
        )
    if values["warmup_balance"] and not values["upper_latent_dim"]:
        raise ConfigurationError(
            "`warmup_balance` has no effect on one stochastic layer; leave it out, or use two: `upper_latent_dim=16`"
        )
    for name in ("geco", "control"):
        least, most = values[f"{name}_min"], values[f"{name}_max"]
        if least > most:
            raise ConfigurationError(f"`{name}_min={least:g}` is above `{name}_max={most:g}`; give them in this order")


def check_effects(values: Mapping[str, Any], given: Collection[str], options: Mapping[str, Option] = OPTIONS) -> None:
    """Raises ConfigurationError for one of `given` that none of the chosen rows reads."""
    effective = read(options, values)
    for name in flattened(options):
        if name in given and name not in effective:
            because = unread_because(name, options, values)
            raise ConfigurationError(
                f"`{name}` has no effect with {' and '.join(one.chosen for one in because)}; leave it out, or use "
                f"{', or '.join(one.instead for one in because)}"
            )


def check_patience(values: Mapping[str, Any], keep_best: int = 1) -> None:
    """Raises ConfigurationError for a patience without validation images, or without a best checkpoint."""
    given = f"`patience={values['patience']}`"
    if values["patience"] and values["validation"] == 0:
        raise ConfigurationError(
            f"{given} waits for a better bound of validation images, and `validation=0` holds none out; leave one of "
            "them out"
        )
    if values["patience"] and not keep_best:
        raise ConfigurationError(f"{given} needs the best checkpoint, and `keep_best=0` keeps none; leave one out")


def absolute(dataset: str, data_dir: str | os.PathLike | None = None) -> str:
    """A path made absolute, so that a run finds its data from any folder; the name of a data set as it is."""
    path = expanded(dataset)
    if not dataset or not path.exists():
        return dataset
    from vae.datasets.loading import is_name

    return dataset if is_name(dataset, data_dir) else str(path.resolve())


def ends_with_training(values: Mapping[str, Any]) -> str | None:
    """What of the run depends on the number of its epochs; None if nothing does."""
    if values["schedule"] == "cosine":
        return "the cosine schedule"
    cyclical = values["objective"] == "warmup" and values["warmup_shape"] == "cyclical"
    return "the cyclical warm-up" if cyclical and values["warmup_epochs"] is None else None


def _as_field(option: Option, value: Any, steps_per_epoch: int) -> Any:
    """The value of an option's field; a name that is an option's default has no value there."""
    if option.in_epochs:
        if isinstance(value, tuple):  # of stages, in whole steps
            return tuple(max(1, round(n * steps_per_epoch)) for n in value)
        return value * steps_per_epoch
    if isinstance(option.rule, NumberOr):
        return option.unset if value == option.default else value if value in option.rule.names else float(value)
    return float(value) if isinstance(option.rule, Number) and not option.static else value


def _following(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options without a default of their own, if they are not given."""
    found: dict[str, Any] = {}
    if values["warmup_epochs"] is None:  # cyclical: as long as training (Fu et al. 2019)
        found["warmup_epochs"] = float(values["epochs"]) if values["warmup_shape"] == "cyclical" else 10.0
    if values["dip_diagonal"] is None:  # λ_d is 10 λ_od in DIP-VAE-I and λ_od in DIP-VAE-II (Kumar et al. 2018)
        found["dip_diagonal"] = values["dip_off_diagonal"] * (1 if values["objective"] == "dip_ii" else 10)
    return found


def _derived(values: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The fields that follow from the data or from several options."""
    return {
        "image_shape": tuple(dataset.train.images.shape[1:]),
        "num_classes": _num_classes(dataset) if values["conditional"] else 0,
        "binarization": _binarization(values, dataset),
        "clip_gradients": values["max_gradient_norm"] > 0,
        "average_weights": values["ema_decay"] > 0,
    }


def _num_classes(dataset: Dataset) -> int:
    """Of the training set; raises ConfigurationError if a split has no labels, or one that the training set lacks."""
    used = [split.labels for split in (dataset.train, dataset.validation, dataset.test) if len(split.images)]
    labels = [set() if values is None else set(values.tolist()) for values in used]
    if not all(labels):
        raise ConfigurationError(f"`conditional` needs a label for every image; {dataset.name} has none for some")
    unknown = sorted(set().union(*labels) - labels[0]) + [label for label in labels[0] if label < 0]
    if unknown:
        name = unknown[0] if dataset.classes is None else dataset.classes[unknown[0]]
        raise ConfigurationError(
            f"`conditional` cannot use the class {name} of {dataset.name}: no training image has it"
        )
    return max(labels[0]) + 1


def _binarization(values: Mapping[str, Any], dataset: Dataset) -> str:
    """Raises ConfigurationError if there is nothing to binarise."""
    if values["binarization"] is None:
        return "none" if dataset.binary or values["likelihood"] != "bernoulli" else "dynamic"
    if dataset.binary and values["binarization"] != "none":
        raise ConfigurationError(
            f"`binarization` has no effect: every pixel of {dataset.name} is black or white already"
        )
    return values["binarization"]
