"""What experiments.evaluate computes with --also, beside the yardstick: the numbers, and their rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.api import LoadedRun
from vae.evaluation import amortization, annealing, decomposition
from vae.settings import Settings

Row = tuple[str, Any, float | None, str]  # name, value, standard error, note


class Images(NamedTuple):
    """Images as the functions of vae/ take them, and log p̂(x) of each by importance sampling."""

    images: np.ndarray
    labels: np.ndarray | None
    index: np.ndarray
    log_likelihood: np.ndarray

    def subset(self, number: int) -> Images:
        """`number` of them, fixed at random; all where there are not more."""
        rows = np.sort(np.random.default_rng(1).permutation(len(self.images))[:number])
        return jax.tree.map(lambda a: a[rows], self)


def compute(
    names: list[str],
    root: jax.Array,
    loaded: LoadedRun,
    all_images: Images,
    *,
    num_examples: int,
    num_temperatures: int,
    num_chains: int,
    devices: list[Any],
    progress: Callable[[str], Callable[[float], None]],
) -> dict[str, Any]:
    """The numbers of each of `names` under its name; None where the model has none, with `unavailable` to say why.

    `progress(name)` gives the function that gets the share of it that is done. All but `aggregate` see a random subset
    of `num_examples` images.
    """
    some = all_images.subset(num_examples)
    given: dict[str, Any] = {"model": loaded.model, "devices": devices}
    chains: dict[str, Any] = given | {"num_chains": num_chains}
    found: dict[str, Any] = {}
    unavailable = {}
    if "aggregate" in names:
        images, labels, index, _ = all_images
        if reason := decomposition.unavailable(loaded.model, loaded.params, images, labels):
            unavailable["aggregate"] = reason
        else:
            count = share_of(len(images), progress("aggregate"))
            parts = decomposition.decompose(root, loaded.params, images, labels, index, **given, on_progress=count)
            factorises = loaded.settings.prior == "standard"
            found["aggregate"] = {**decomposition.summarize(parts), "prior_factorises": factorises}
    images, labels, index, log_likelihood = some
    annealed = None
    if "ais" in names:
        report = progress("ais")
        annealed = annealing.ais(
            root, loaded.params, images, labels, index, **chains, num_temperatures=num_temperatures, on_progress=report
        )
        found["ais"] = {"num_temperatures": num_temperatures, **annealing.summarize(annealed, log_likelihood)}
    if "bdmc" in names:
        found["bdmc"] = bracket(root, loaded.params, labels, len(images), num_temperatures, chains, progress("bdmc"))
    if "amortization" in names:
        count = share_of(len(images), progress("amortization"))
        fitted = amortization.fit(root, loaded.params, images, labels, index, **given, on_progress=count)
        estimates = {"importance sampling": log_likelihood}
        if annealed is not None:
            estimates["ais"] = annealed.log_likelihood
        # Each is a lower bound in expectation, so the higher one is nearer.
        best = max(estimates, key=lambda name: estimates[name].mean())
        gaps = amortization.summarize(fitted, estimates[best])
        found["amortization"] = {"log_likelihood_by": best, "family": family(loaded.settings), **gaps}
    return found | dict.fromkeys(unavailable) | ({"unavailable": unavailable} if unavailable else {})


def family(settings: Settings) -> str:
    """Of q(z|x), among which a q(z) of its own is fitted to each image."""
    return "two layers" if settings.upper_latent_dim else settings.posterior


def share_of(total: int, report: Callable[[float], None]) -> Callable[[int], None]:
    return lambda count: report(count / total)


def bracket(root, params, labels, num_examples: int, most: int, chains: dict[str, Any], report) -> dict[str, Any]:
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


def rows(summary: dict[str, Any]) -> Iterator[Row]:
    """The lines of the table for what `compute` found."""
    for name, reason in summary.get("unavailable", {}).items():
        yield name, None, None, reason
    if parts := summary.get("aggregate"):
        note = f"KL = the next three; {parts['num_samples']} samples of each of {parts['num_examples']} images"
        yield "KL, for the aggregate", parts["kl"], parts["kl_se"], note
        most = f"at most log {parts['num_examples']} = {parts['log_num_examples']:.2f}"
        yield "  mutual information", parts["mutual_information"], parts["mutual_information_se"], most
        yield "  total correlation", parts["total_correlation"], parts["total_correlation_se"], ""
        note = "" if parts["prior_factorises"] else "no sum of KLs, and may be negative: p(z) does not factorise"
        yield "  dimension-wise KL", parts["dimension_wise_kl"], parts["dimension_wise_kl_se"], note
    if ais := summary.get("ais"):
        note = f"{ais['num_temperatures']} temperatures, {ais['num_chains']} chains, {ais['num_examples']} images"
        yield "log-likelihood, AIS", ais["log_likelihood"], ais["log_likelihood_se"], note
        yield (
            f"  k = {summary['num_samples']}",
            ais["importance_sampling"],
            ais["importance_sampling_se"],
            "same images",
        )
        yield "  AIS minus that", ais["difference"], ais["difference_se"], "both are lower bounds in expectation"
        yield "  acceptance", ais["acceptance"], None, "of HMC"
    if bdmc := summary.get("bdmc"):
        for count, bounds in bdmc["by_num_temperatures"].items():
            note = f"log-likelihood of simulated data is in {bounds['lower']:.2f} … {bounds['upper']:.2f}"
            yield f"BDMC gap, {count} temperatures", bounds["gap"], bounds["gap_se"], note
    if gaps := summary.get("amortization"):
        note = f"{gaps['num_examples']} images, log p(x) by {gaps['log_likelihood_by']}"
        yield "inference gap", gaps["inference_gap"], gaps["inference_gap_se"], note
        yield "  amortisation", gaps["amortization_gap"], gaps["amortization_gap_se"], "a q(z) for each image"
        yield (
            "  approximation",
            gaps["approximation_gap"],
            gaps["approximation_gap_se"],
            f"log p(x) minus the best q(z) of the family {gaps['family']}",
        )
