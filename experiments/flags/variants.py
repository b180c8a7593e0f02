"""What is compared: objectives with settings of their own, tried at several values of what is tuned, within one budget.

--objectives="elbo iwae:num_samples=50 iwae:num_samples=50:estimator=dreg"   a name, then flags of experiments.train
--tune=learning_rate=3e-4,1e-3,3e-3                                          values of a flag; of a list, parted by /
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.flags.axes import as_used
from experiments.flags.configuration import RunFlags
from experiments.flags.options import AXES
from experiments.flags.parsing import UsageError, flag_value
from experiments.flags.points import as_trained
from vae.configuration import NAMES, ConfigurationError
from vae.judging.differing import asked, idle
from vae.rules import Numbers, unknown
from vae.runs import naming

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.runs.config import Config
    from vae.sweeps.comparing import Candidate

# A label's words for a setting; others are written name=value.
ORDER = ("objective", "num_groups", "num_samples", "estimator")  # of the words; others follow
SYMBOLS = {"num_samples": "K=", "num_groups": "M=", "learning_rate": "lr=", "estimator": "", "objective": ""}
# What all objectives of a comparison have in common, and the flag that says it.
SHARED = {"seed": "seeds", "epochs": "budget", "dataset": "dataset", "validation": "dataset", "image_size": "dataset"}


class Variant(NamedTuple):
    """An objective as it was written, and the flags that it sets."""

    text: str
    given: dict[str, Any]


def parse_objectives(texts: Sequence[str]) -> list[Variant]:
    """The variants of --objectives; raises UsageError with one line for a mistake."""
    variants = []
    for text in " ".join(texts).split():
        objective, *settings = text.split(":")
        given = {"objective": checked("objective", objective, f"--objectives: {text}")}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals:
                raise UsageError(
                    f"--objectives: {text}: {setting!r} is no setting; write {objective}:name=value, "
                    "as in iwae:num_samples=50"
                )
            if name in given:
                raise UsageError(f"--objectives: {text} sets {name} twice")
            given[name] = checked(name, value, f"--objectives: {text}")
        variants.append(Variant(text, given))
    return variants


def parse_tune(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Every point of the grid of --tune; one empty point if nothing is tuned."""
    axes = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--tune={text}: write --tune=name=values, as in --tune=learning_rate=3e-4,1e-3,3e-3")
        if name in axes:
            raise UsageError(f"--tune={name} is given twice; list all values in one")
        is_list = name in NAMES and isinstance(NAMES[name].rule, Numbers)
        axes[name] = [checked(name, value, f"--tune={text}") for value in values.split("/" if is_list else ",")]
        used = list(map(as_used, axes[name]))
        for value, shown in zip(used, axes[name], strict=True):
            if used.count(value) > 1:
                raise UsageError(f"--tune={text} has the value {shown} twice")
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def checked(name: str, value: str, where: str) -> Any:
    """The value of a training flag, after its own parser and validators."""
    if name in SHARED:
        raise UsageError(f"{where}: {name} is the same for all that is compared; use --{SHARED[name]}")
    if name not in AXES:
        raise UsageError(f"{where}: {unknown('training flag', name, AXES)}")
    if isinstance(NAMES[name].rule, Numbers):
        value = value.replace("/", ",")
    try:
        return flag_value(name, value)
    except UsageError as error:
        raise UsageError(f"{where}: {name}={value}: {error}") from error


def candidates(
    variants: Sequence[Variant],
    points: Sequence[dict[str, Any]],
    base: RunFlags,
    dataset: Dataset,
    epochs: Sequence[int] | None = None,
) -> list[Candidate]:
    """Each variant at each point, as experiments.train would make it of the same flags, with `epochs` of its own.

    Raises UsageError for what experiments.train would refuse, and for two that are the same run.
    """
    from vae.sweeps.comparing import Candidate

    found: list[Candidate] = []
    seen: dict[Config, str] = {}
    for position, (number, point) in enumerate(itertools.product(range(len(variants)), points)):
        variant = variants[number]
        if both := variant.given.keys() & point.keys():
            raise UsageError(f"objective {variant.text}: --tune gives {min(both)} too; leave one of them out")
        run = base.at(variant.given | point)
        if epochs is not None:
            run.values["epochs"] = epochs[position]
        try:
            run.check()
            config = run.config(dataset)
        except (ConfigurationError, UsageError) as error:
            raise UsageError(f"objective {variant.text}: {error}") from error
        name = " ".join([variant.text, *(f"{n}={naming.text(v)}" for n, v in point.items())])
        trained = as_trained(config)
        if trained in seen:
            raise UsageError(f"{name} is the same as {seen[trained]}; leave one of them out")
        seen[trained] = name
        found.append(Candidate(number, point, config, run.values))
    return found


def labels(configs: Sequence[Config]) -> list[str]:
    """A name for each Config: its objective, and every value that is not the same in all; no two share one.

    What an objective does not read, or could not have otherwise, is left out, unless only that tells two of them apart.
    """
    values = [{name: value for name, value in config.flat().items() if name != "seed"} for config in configs]
    differing = [name for name in values[0] if len({naming.text(one[name]) for one in values}) > 1]
    order = [*ORDER, *(name for name in SYMBOLS if name not in ORDER)]
    order += [name for name in differing if name not in order]
    differing = [name for name in order if name in differing or name == "objective"]

    def label(one, left_out):
        return " ".join(SYMBOLS.get(n, f"{n}=") + naming.text(asked(n, one[n])) for n in differing if n not in left_out)

    full = [label(one, ()) for one in values]
    short = [label(one, idle(one)) for one in values]
    named = [long if short.count(name) > 1 else name for long, name in zip(full, short, strict=True)]
    return named if len(set(named)) == len(set(full)) else full
