"""What experiments.gradients measures: objectives and estimators of the tables, each with options of its own.

--objectives=iwae,renyi:alpha=0.3 --estimators=all    a name, then options of its row; a list is parted by /
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from experiments.flags.parsing import UsageError
from vae.configuration import NAMES, ConfigurationError, as_value, resolve
from vae.objectives.table import ESTIMATORS, OBJECTIVES
from vae.options import Row, flattened
from vae.rules import Number, NumberOr, Numbers, Switch, unknown

if TYPE_CHECKING:
    from vae.datasets import Dataset
    from vae.evaluation.gradient_grid import GradientEstimator
    from vae.runs.config import Config

flags.disclaim_key_flags()  # as in parsing.py
ALL = "all"
TABLES: dict[str, Mapping[str, Row]] = {"objective": OBJECTIVES, "estimator": ESTIMATORS}
OWN_FLAGS = ("num_groups",)  # options of rows that the laboratory has a flag for


class Chosen(NamedTuple):
    """A row of a table as it was written, with the values of its options that are given."""

    text: str
    name: str
    given: dict[str, Any]


def define(kind: str, default: list[str], help: str) -> None:
    """A comma-separated list of rows of the table of `kind`."""
    flags.DEFINE_list(f"{kind}s", default, f"{help}, each with options of its own as name:option=value; {ALL}: every")

    def check(texts):
        try:
            return bool(parse(kind, texts))
        except ValueError as error:
            raise flags.ValidationError(_plain(error)) from error

    flags.register_validator(f"{kind}s", check)


def parse(kind: str, texts: Sequence[str]) -> list[Chosen]:
    """The rows that `texts` choose; raises UsageError or ConfigurationError for a mistake."""
    rows = TABLES[kind]
    if not texts:
        raise UsageError(f"must be names separated by commas, of: {', '.join(rows)}")
    every = [one for text in texts for one in (rows if text == ALL else (text,))]
    return [_parse(kind, text, rows) for text in dict.fromkeys(every)]


def _parse(kind: str, text: str, rows: Mapping[str, Row]) -> Chosen:
    name, *settings = text.split(":")
    if name not in rows:
        raise UsageError(unknown(kind, name, [*rows, ALL]))
    options = [option for option in flattened(rows[name].options) if option not in OWN_FLAGS]
    given = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        if option in OWN_FLAGS:
            raise UsageError(f"{text}: {option} is the same for all that is measured; use --{option}")
        if not equals or option not in options:
            known = f"it has {', '.join(options)}" if options else "it has none"
            raise UsageError(f"{text}: {setting!r} sets no option of {name}; {known}")
        given[option] = as_value(option, _as_written(option, value))
    return Chosen(text, name, given)


def _as_written(option: str, text: str) -> Any:
    rule = NAMES[option].rule
    if isinstance(rule, Numbers):
        return text.split("/")
    if isinstance(rule, Switch):
        return {"true": True, "false": False}.get(text, text)
    for kind in (int, float) if isinstance(rule, Number | NumberOr) else ():
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _plain(error: Exception) -> str:
    """The error without what marks the names of flags: here options have none."""
    return str(error).replace("`", "")


def estimators(config: Config, dataset: Dataset, chosen: Mapping[str, Sequence[Chosen]]) -> list[GradientEstimator]:
    """Every chosen objective with every chosen estimator, of the model of `config`.

    The options of its objective and of its estimator are those of `config`; others have the default that a new run on
    `dataset` has. Raises UsageError for options that have no effect.
    """
    from vae.evaluation.gradient_grid import GradientEstimator

    found = []
    for objective in chosen["objective"]:
        for estimator in chosen["estimator"]:
            pair = {"objective": objective, "estimator": estimator}
            try:
                settings, hyperparameters = _of_pair(config, dataset, pair)
            except ConfigurationError as error:
                raise UsageError(f"{objective.text} with {estimator.text}: {_plain(error)}") from error
            found.append(GradientEstimator(objective.text, estimator.text, settings, hyperparameters))
    return found


def _of_pair(config: Config, dataset: Dataset, pair: Mapping[str, Chosen]) -> tuple[Any, Any]:
    """Settings and hyperparameters of `config`, with another objective and another estimator."""
    given = {name: value for one in pair.values() for name, value in one.given.items()}
    about = {"dataset": config.dataset, "epochs": config.epochs, "batch_size": config.settings.batch_size}
    chosen = {kind: one.name for kind, one in pair.items()}
    new = resolve({**about, **chosen, **given}, dataset, given)
    fields = list(pair)
    for kind, one in pair.items():
        is_own = one.name == getattr(config.settings, kind)
        options = one.given if is_own else flattened(TABLES[kind][one.name].options)
        fields += [NAMES[option].field_name(option) for option in options]
    arrays = {name: getattr(new.hyperparameters, name) for name in fields if name in new.hyperparameters._fields}
    static = {name: getattr(new.settings, name) for name in fields if name not in arrays}
    return dataclasses.replace(config.settings, **static), config.hyperparameters._replace(**arrays)
