"""Which runs may be compared, and by which number: one rule for sweeps, their pictures and searches.

A held-out bound says which run is better only if it is the same bound for all runs. Runs on other images, or with
another p(x|z), cannot be compared. Runs that maximise different bounds on the same log p(x) are compared by the ELBO,
which is below log p(x) whatever was maximised. Nats per example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vae.objectives.table import OBJECTIVES
from vae.settings import FIELDS

if TYPE_CHECKING:
    from vae.runs.config import Config

# Fields of a Config and its Settings that say which images a held-out bound is of, and the likelihood of what.
IMAGES = ("dataset", "image_size", "image_shape", "validation", "binarization", "likelihood", "num_classes")
SIZES = ("batch_size", "latent_dim", "upper_latent_dim")


def of_bound(objective: str) -> list[str]:
    """The fields that change what the bound of `objective` means."""
    row = OBJECTIVES[objective]
    if row.holds:  # it reports the ELBO
        return ["objective", "num_samples"]
    return ["objective", "num_samples", *row.fields, *(SIZES if row.of_sizes else ())]


def as_held_out(name: str, value: Any) -> Any:
    """The value of a field of IMAGES for held-out images: those of dynamic binarization are binarised once."""
    return "fixed" if (name, value) == ("binarization", "dynamic") else value


class Ranking(NamedTuple):
    """Runs that compare, by `metric`: "bound", their objective's own, or "elbo" if their bounds cannot be compared."""

    names: list[str]
    metric: str
    objective: str | None  # None: several
    changing: list[str]  # what changes the meaning of the bound among them
    images: dict[str, Any]  # how their images and likelihood differ from those of the other rankings

    @property
    def title(self) -> str:
        """The title that is shown: elbo, or ELBO for several bounds, and how it differs from the other rankings."""
        about = ", ".join(f"{name}={value}" for name, value in self.images.items())
        return (self.objective or "ELBO" if self.metric == "bound" else "ELBO") + (f" ({about})" if about else "")


def rankings(configs: Mapping[str, Config]) -> list[Ranking]:
    """Groups of runs that may be compared, in the order of their first run; each run is in one group."""
    flat = {name: _flat(config) for name, config in configs.items()}
    by_images: dict[Any, list[str]] = {}
    for name, fields in flat.items():
        by_images.setdefault(tuple(as_held_out(field, fields[field]) for field in IMAGES), []).append(name)
    differing = [i for i in range(len(IMAGES)) if len({key[i] for key in by_images}) > 1]
    differing = [i for i in differing if IMAGES[i] != "image_shape"] or differing  # it follows from the others
    found = []
    for key, names in by_images.items():
        objectives = list(dict.fromkeys(flat[name]["objective"] for name in names))
        fields = list(dict.fromkeys(field for objective in objectives for field in of_bound(objective)))
        changing = [field for field in fields if len({flat[name][field] for name in names}) > 1]
        about = {IMAGES[i]: key[i] for i in differing}
        one = objectives[0] if len(objectives) == 1 else None
        found.append(Ranking(names, "elbo" if changing else "bound", one, changing, about))
    return found


def reason(changing: Sequence[str]) -> str:
    """Why bounds cannot be compared, in words: the options of the fields that change what a bound means."""
    names = [FIELDS[field].option or field for field in changing]
    return f"{' and '.join(names)} {'changes' if len(changing) == 1 else 'change'} what the bound means"


def value(metric: str, objective: str, row: Mapping[str, Any]) -> float:
    """The value of a run by a row of held-out metrics, which has the bound under `objective`; NaN if it is null."""

    def number(name: str) -> float:
        found = row.get(name)
        return math.nan if found is None else float(found)

    return number(objective) if metric == "bound" else number("reconstruction") - number("kl")


def _flat(config: Config) -> dict[str, Any]:
    fields = {**config.settings.to_dict(), **config.hyperparameters._asdict()}
    return fields | {name: getattr(config, name) for name in ("dataset", "image_size", "validation")}
