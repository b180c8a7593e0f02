"""What a run is made of: `Settings` shape the program, `Hyperparameters` are numbers that flow through it.

Their fields are those of the options in the tables (models/table.py, objectives/table.py, training/table.py), with the
same names and defaults, and the few in `DERIVED`. `FIELDS` holds all of them. Imports neither jax nor numpy.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from vae.datasets.table import NAMES
from vae.models.table import MODEL
from vae.objectives.table import OBJECTIVE
from vae.options import Field, Option, field_of, flattened, text, whole
from vae.rules import LARGEST, Named, Nullable, Number, Numbers, Rule, Switch, Text
from vae.training.table import TRAINING

COUNT, SIZE = (Number(integer=True, least=least, most=LARGEST) for least in (1, 0))
# The options that are fields of a run's Config themselves.
DATA: dict[str, Option] = {
    "dataset": text(
        "mnist", f"{', '.join(NAMES)}, a path to an .npz file or to a folder of pictures, or a prepared TFDS data set"
    ),
    "validation": whole(None, "training images held out (default: the data set's own rule)", least=0),
    "image_size": whole(None, "side to which your own pictures are cropped and resized"),
}  # fmt: skip
RUN: dict[str, Option] = {
    "epochs": whole(20, "passes over the training set", most=10**6),
    "patience": whole(0, "end after this many epochs without a better validation bound, and evaluate the best "
                      "checkpoint; 0: never", least=0, most=10**6, since=5),
    "seed": whole(0, "of everything random", least=0, most=2**31 - 1),
    "init_from": text(None, "start a new run from the parameters of this run folder"),
}  # fmt: skip
PROGRAM: dict[str, Option] = {**MODEL, **OBJECTIVE, **TRAINING}  # those that become Settings and Hyperparameters
OPTIONS: dict[str, Option] = {**DATA, **PROGRAM, **RUN}  # all that makes a run what it is

# Fields that follow from the data or from several options (configuration.py).
DERIVED = {
    "clip_gradients": Field(False, Switch()),
    "average_weights": Field(False, Switch()),
    "decay_steps": Field(0.0, Number(least=0), static=False),  # cosine: at which the learning rate reaches zero
}
FIELDS: dict[str, Field] = {
    **{option.field_name(name): field_of(name, option) for name, option in flattened(PROGRAM).items()},
    **DERIVED,
}
OWN: dict[str, Field] = {name: field_of(name, option) for name, option in {**DATA, **RUN}.items()}  # of a Config itself
STATIC = {name: field for name, field in FIELDS.items() if field.static}
ARRAYS = {name: field for name, field in FIELDS.items() if not field.static}

# Of config.json; a file that gives none is of format 1. With 4 came `data`, which images the run was trained on.
FORMAT = max(4, *(field.since for field in {**FIELDS, **OWN}.values()))
# By format: the fields that came with it, and what a file of an older format means by not having them.
ADDED: dict[int, dict[str, Any]] = {
    number: {name: field.before for name, field in {**FIELDS, **OWN}.items() if field.since == number}
    for number in range(2, FORMAT + 1)
}
# What each field of `Settings`, of `Hyperparameters` and of a run's Config may be.
RULES: dict[str, Rule] = {
    "image_shape": Numbers(COUNT, length=3),
    **{name: field.rule for name, field in FIELDS.items()},
    "objective": Text(),  # a run of one that this code lacks can still be listed
    "settings": Named(),
    "hyperparameters": Named(),
    "dataset": Text(),
    "epochs": COUNT,
    "patience": SIZE,
    "seed": RUN["seed"].rule,
    "validation": Nullable((SIZE,)),
    "image_size": Nullable((COUNT,)),
    "init_from": Nullable((Text(),)),
}


class SettingsError(ValueError):
    """A value that a field cannot have; one line for the user."""


if TYPE_CHECKING:  # for a type checker, which cannot read the tables

    class _Static:
        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

        def __init__(self, image_shape: tuple[int, int, int], **values: Any): ...
        def __getattr__(self, name: str) -> Any: ...

    class _Arrays(tuple[Any, ...]):
        _fields: ClassVar[tuple[str, ...]]

        def __new__(cls, *args: Any, **values: Any) -> Hyperparameters: ...
        def __getattr__(self, name: str) -> Any: ...
        def _asdict(self) -> dict[str, Any]: ...
        def _replace(self, **values: Any) -> Hyperparameters: ...
        @classmethod
        def _make(cls, values: Any) -> Hyperparameters: ...
else:
    _fields = [(name, Any, dataclasses.field(default=field.default)) for name, field in STATIC.items()]
    _Static = dataclasses.make_dataclass("_Static", [("image_shape", tuple), *_fields], frozen=True)
    _Arrays = collections.namedtuple("_Arrays", ARRAYS, defaults=[field.default for field in ARRAYS.values()])


class Settings(_Static):
    """Static: changing one of these changes shapes or the compiled program.

    `image_shape` is H, W, C. What the others are, the help of their options says.
    """

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Hyperparameters(_Arrays):
    """Arrays (or numbers): a sweep can vmap over every leaf, and changing one never recompiles.

    `stage_steps` and `stage_factors` are [S] for S stages; the others are scalars.
    """

    __slots__ = ()


def read(values: dict[str, Any], names: Sequence[str], file_format: int) -> dict[str, Any]:
    """The fields `names`, as the JSON object `values` of a file of `file_format` has them; lists become tuples.

    A field that is newer than the file takes the value that `ADDED` declares. Raises SettingsError for a field that is
    missing, that is none of `names`, or that breaks its rule.
    """
    newer = {name: value for number, added in ADDED.items() if number > file_format for name, value in added.items()}
    known = [name for name in names if name not in newer]
    if unknown := [name for name in values if name not in known]:
        raise SettingsError(f"it has an unknown field {unknown[0]!r}")
    if missing := [name for name in known if name not in values]:
        raise SettingsError(f"it lacks {missing[0]!r}{_whose(missing[0], file_format)}")
    for name, value in values.items():
        if reason := RULES[name].fault(value):
            raise SettingsError(f"its {name} is {str(value)[:60]!r}, but {reason}")
    return {name: _as_field(name, newer[name] if name in newer else values[name]) for name in names}


def _whose(name: str, file_format: int) -> str:
    """Of a field that a file lacks, what to do for who has just written its option."""
    if name not in FIELDS or FIELDS[name].option is None:
        return ""
    return f", which files of format {file_format} have; if this option is new, give its row since={FORMAT + 1}"


def _as_field(name: str, value: Any) -> Any:
    """JSON has no tuples, and writes 4.0 as 4."""
    if isinstance(value, list):
        return tuple(value)
    rule = RULES[name]
    return float(value) if isinstance(rule, Number) and not rule.integer else value
