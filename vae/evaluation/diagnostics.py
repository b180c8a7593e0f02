"""What is computed of a model beside its evaluation: the parts of the KL, AIS, BDMC, amortisation gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.evaluation import amortization, annealing, decomposition
from vae.models.model import Model
from vae.settings import Settings


class Images(NamedTuple):
    """Images as the functions of vae/ take them, and log p̂(x) of each by importance sampling."""

    images: np.ndarray
    labels: np.ndarray | None
    index: np.ndarray
    log_likelihood: np.ndarray

    def subset(self, number: int) -> Images:
        """`number` of them, fixed at random; all if there are no more."""
        rows = np.sort(np.random.default_rng(1).permutation(len(self.images))[:number])
        return jax.tree.map(lambda a: a[rows], self)


def compute(
    root: jax.Array,
    names: Sequence[str],
    params: Any,
    all_images: Images,
    *,
    model: Model,
    settings: Settings,
    num_examples: int,
    num_temperatures: int,
    num_chains: int,
    devices: Sequence[Any],
    progress: Callable[[str], Callable[[float], None]],
) -> dict[str, Any]:
    """The numbers of each of `names` under its name; None if the model has none, with `unavailable` to say why.

    `progress(name)` gives the function that gets the share of it that is done. All but `aggregate` see a random subset
    of `num_examples` images.
    """
    some = all_images.subset(num_examples)
    given: dict[str, Any] = {"model": model, "devices": devices}
    chains: dict[str, Any] = given | {"num_chains": num_chains}
    found: dict[str, Any] = {}
    unavailable = {}
    if "aggregate" in names:
        images, labels, index, _ = all_images
        if reason := decomposition.unavailable(model, params, images, labels):
            unavailable["aggregate"] = reason
        else:
            count = share_of(len(images), progress("aggregate"))
            parts = decomposition.decompose(root, params, images, labels, index, **given, on_progress=count)
            factorises = {"prior_factorises": settings.prior == "standard"}
            found["aggregate"] = decomposition.summarize(parts) | factorises
    images, labels, index, log_likelihood = some
    annealed = None
    if "ais" in names:
        report = progress("ais")
        annealed = annealing.ais(
            root, params, images, labels, index, **chains, num_temperatures=num_temperatures, on_progress=report
        )
        found["ais"] = {"num_temperatures": num_temperatures, **annealing.summarize(annealed, log_likelihood)}
    if "bdmc" in names:
        found["bdmc"] = bracket(root, params, labels, len(images), num_temperatures, chains, progress("bdmc"))
    if "amortization" in names:
        count = share_of(len(images), progress("amortization"))
        fitted = amortization.fit(root, params, images, labels, index, **given, on_progress=count)
        by = {"importance sampling": log_likelihood} | ({} if annealed is None else {"ais": annealed.log_likelihood})
        found["amortization"] = {"family": family(settings), **amortization_gaps(fitted, by)}
    return found | dict.fromkeys(unavailable) | ({"unavailable": unavailable} if unavailable else {})


def amortization_gaps(fitted: amortization.Fitted, estimates: dict[str, np.ndarray]) -> dict[str, Any]:
    """The gaps to the highest of the estimates of log p(x): each is a lower bound in expectation."""
    best = max(estimates, key=lambda name: estimates[name].mean())
    return {"log_likelihood_by": best, **amortization.summarize(fitted, estimates[best])}


def family(settings: Settings) -> str:
    """Of q(z|x), among which a q(z) of its own is fitted to each image."""
    return "two layers" if settings.upper_latent_dim else settings.posterior


def share_of(total: int, report: Callable[[float], None]) -> Callable[[int], None]:
    return lambda count: report(count / total)


def bracket(
    root: jax.Array,
    params: Any,
    labels: np.ndarray | None,
    num_examples: int,
    most: int,
    chains: dict[str, Any],
    report: Callable[[float], None],
) -> dict[str, Any]:
    """The bracket at a hundredth, a tenth and all of `most` temperatures, which shows how it closes."""
    counts = sorted({max(1, most // 100), max(1, most // 10), most})
    summaries, before = {}, 0
    for count in counts:

        def on_progress(share, before=before, count=count):
            report((before + share * count) / sum(counts))

        bounds = annealing.bdmc(
            root, params, num_examples, labels, **chains, num_temperatures=count, on_progress=on_progress
        )
        summaries[str(count)] = annealing.summarize_bracket(bounds)
        before += count
    return {"num_examples": num_examples, "num_chains": chains["num_chains"], "by_num_temperatures": summaries}
