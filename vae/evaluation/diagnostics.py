"""What is computed of a model beside its evaluation: the parts of the KL, SUMO, AIS, BDMC, amortisation, labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.datasets.dataset import Split
from vae.evaluation import amortization, annealing, decomposition, probe, sumo
from vae.models.model import Model
from vae.settings import Settings
from vae.streams import Stream, stream


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


class Work(NamedTuple):
    """What each of DIAGNOSTICS computes with."""

    root: jax.Array
    params: Any
    every: Images
    some: Images  # a random subset, for what takes long
    model: Model
    settings: Settings
    num_temperatures: int
    num_chains: int
    devices: Sequence[Any]
    training: Split | None  # the images that a probe learns from, with labels
    estimates: dict[str, np.ndarray]  # of log p(x) of `some`, by name; each is a lower bound in expectation

    @property
    def given(self) -> dict[str, Any]:
        return {"model": self.model, "devices": self.devices}

    def arguments(self, images: Images) -> tuple[Any, ...]:
        """What the functions of a model and of `images` take by position."""
        return self.root, self.params, images.images, images.labels, images.index


class Unavailable(Exception):
    """The model has no such number; the reason in words."""


def compute(
    root: jax.Array,
    names: Sequence[str],
    params: Any,
    images: Images,
    *,
    model: Model,
    settings: Settings,
    num_examples: int,
    num_temperatures: int,
    num_chains: int,
    devices: Sequence[Any],
    training: Split | None,
    progress: Callable[[str], Callable[[float], None]],
) -> dict[str, Any]:
    """The numbers of each of `names` under its name; None if the model has none, with `unavailable` to say why.

    `progress(name)` gives the function that gets the share of it that is done. All but `aggregate` and `probe` see a
    random subset of `num_examples` images. A probe learns from `training`.
    """
    some = images.subset(num_examples)
    estimates = {"importance sampling": some.log_likelihood}
    numbers = num_temperatures, num_chains
    work = Work(root, params, images, some, model, settings, *numbers, devices, training, estimates)
    found: dict[str, Any] = {}
    unavailable = {}
    for name in (name for name in DIAGNOSTICS if name in names):
        try:
            found[name] = DIAGNOSTICS[name](work, progress(name))
        except Unavailable as reason:
            found[name], unavailable[name] = None, str(reason)
    return found | ({"unavailable": unavailable} if unavailable else {})


def aggregate(work: Work, report: Callable[[float], None]) -> dict[str, Any]:
    """The parts of the KL, of all images."""
    _, params, images, labels, _ = work.arguments(work.every)
    if reason := decomposition.unavailable(work.model, params, images, labels):
        raise Unavailable(reason)
    count = share_of(len(images), report)
    parts = decomposition.decompose(*work.arguments(work.every), **work.given, on_progress=count)
    return decomposition.summarize(parts) | {"prior_factorises": work.settings.prior == "standard"}


def unbiased(work: Work, report: Callable[[float], None]) -> dict[str, Any]:
    """The log-likelihood without bias, which is no lower bound."""
    images = work.some
    found = sumo.estimate(*work.arguments(images), **work.given, on_progress=share_of(len(images.images), report))
    return sumo.summarize(found, images.log_likelihood)


def ais(work: Work, report: Callable[[float], None]) -> dict[str, Any]:
    """The log-likelihood by annealed importance sampling, which is one more estimate for those that come later."""
    annealed = annealing.ais(
        *work.arguments(work.some),
        **work.given,
        num_chains=work.num_chains,
        num_temperatures=work.num_temperatures,
        on_progress=report,
    )
    work.estimates["ais"] = annealed.log_likelihood
    return {"num_temperatures": work.num_temperatures, **annealing.summarize(annealed, work.some.log_likelihood)}


def amortization_gaps(work: Work, report: Callable[[float], None]) -> dict[str, Any]:
    """The gaps to the highest of the estimates of log p(x)."""
    fitted = amortization.fit(
        *work.arguments(work.some), **work.given, on_progress=share_of(len(work.some.images), report)
    )
    best = max(work.estimates, key=lambda name: work.estimates[name].mean())
    gaps = amortization.summarize(fitted, work.estimates[best])
    return {"family": family(work.settings), "log_likelihood_by": best, **gaps}


def family(settings: Settings) -> str:
    """Of q(z|x), among which a q(z) of its own is fitted to each image."""
    return "two layers" if settings.upper_latent_dim else settings.posterior


def share_of(total: int, report: Callable[[float], None]) -> Callable[[int], None]:
    return lambda count: report(count / total)


def bracket(work: Work, report: Callable[[float], None]) -> dict[str, Any]:
    """The bracket at a hundredth, a tenth and all of the temperatures, which shows how it closes."""
    most, num_examples = work.num_temperatures, len(work.some.images)
    counts = sorted({max(1, most // 100), max(1, most // 10), most})
    summaries, before = {}, 0
    for count in counts:

        def on_progress(share, before=before, count=count):
            report((before + share * count) / sum(counts))

        bounds = annealing.bdmc(
            work.root,
            work.params,
            num_examples,
            work.some.labels,
            **work.given,
            num_chains=work.num_chains,
            num_temperatures=count,
            on_progress=on_progress,
        )
        summaries[str(count)] = annealing.summarize_bracket(bounds)
        before += count
    return {"num_examples": num_examples, "num_chains": work.num_chains, "by_num_temperatures": summaries}


def labels(work: Work, report: Callable[[float], None]) -> dict[str, Any]:
    """The accuracy of a probe of all images, which must have labels: see `probe.unavailable`."""
    images, tested, index, _ = work.every
    assert work.training is not None
    training, learned = work.training.images, work.training.labels
    assert learned is not None
    assert tested is not None
    root_training, root_test = (stream(work.root, Stream.PROBE, part) for part in (0, 1))
    positions = np.arange(len(training))
    x = probe.represent(root_training, work.params, training, positions, **work.given)
    x_test = probe.represent(root_test, work.params, images, index, **work.given)
    if not (np.isfinite(x).all() and np.isfinite(x_test).all()):
        raise Unavailable("E[z|x] of some image is not finite")
    found = probe.probe((x, learned), (x_test, tested), on_progress=report)
    return probe.summarize(found, learned, tested, x.shape[1])


# What `compute` can be asked for, in the order in which it is computed.
DIAGNOSTICS: dict[str, Callable[[Work, Callable[[float], None]], dict[str, Any]]] = {
    "aggregate": aggregate,
    "sumo": unbiased,
    "ais": ais,
    "bdmc": bracket,
    "amortization": amortization_gaps,
    "probe": labels,
}
