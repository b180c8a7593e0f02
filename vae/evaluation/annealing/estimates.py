"""Estimates of log p(x): from the prior to the posterior, and from both sides.

Shapes: N examples, C chains for each, T temperatures. The device computes log-weights, the host adds them in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vae.datasets.images import to_unit_interval
from vae.evaluation.annealing import chains
from vae.evaluation.importance import batches, shardings
from vae.evaluation.summary import means_and_errors
from vae.evaluation.weights import effective_sample_size, log_mean_exp
from vae.models import memory
from vae.models.model import Batch, Model

CHAINS_AT_ONCE = 1024  # of all examples together; fewer if they are large
TEMPERATURES_PER_CALL = 20
PILOT_TEMPERATURES = 200
INITIAL_STEP_SIZE = 0.1


class Annealed(NamedTuple):
    """Per example; float64 on the host."""

    log_w: np.ndarray  # [N, C], nats
    acceptance: np.ndarray  # [N], over temperatures and chains

    @property
    def log_likelihood(self) -> np.ndarray:
        """log 1/C Σ_c w_c, [N]: the mean is unbiased for p(x), so its log is a lower bound in expectation."""
        return log_mean_exp(self.log_w)


class Bracket(NamedTuple):
    """Bounds, in expectation, of log p(x) of the N examples that the model drew; nats, float64 on the host."""

    lower: np.ndarray  # [N]
    upper: np.ndarray  # [N]
    acceptance: np.ndarray  # [N], of both directions


def sigmoidal_schedule(num_temperatures: int, steepness: float = 4.0) -> np.ndarray:
    """0 = β_0 < … < β_T = 1, a sigmoid from −`steepness` to `steepness`, rescaled (Wu et al. 2017). [T + 1]."""
    values = 1 / (1 + np.exp(-np.linspace(-steepness, steepness, num_temperatures + 1)))
    return (values - values[0]) / (values[-1] - values[0])


def ais(
    root: jax.Array,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    index: np.ndarray | None = None,
    *,
    model: Model,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    devices: Sequence[Any] | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Annealed:
    """Anneal from the prior to the posterior of each of `images` [N, H, W, C] (Neal 2001; Wu et al. 2017).

    log w = Σ_t (β_t − β_{t−1}) log p(x|z_{t−1}) with z_0 ~ p(z) and z_t from one transition of HMC on p(z) p(x|z)^β_t.
    T = 1 is importance sampling from the prior. The step sizes come from a pilot run with noise of its own and then
    stay fixed: adapted on the same chains, they would bias the weights. All noise is a function of (root, position of
    the example). `on_progress` gets the share of the work that is done. Raises LikelihoodError if p(x|z) cannot
    score them.
    """
    model.check_images(images)
    index = np.arange(len(images)) if index is None else np.asarray(index)

    def anneal_batch(run, images, labels, index):
        examples = Batch(to_unit_interval(images), labels, index)
        return _forward(run, examples, _step_sizes(run, examples))

    total = PILOT_TEMPERATURES + num_temperatures
    run = _Run(root, params, model, sigmoidal_schedule(num_temperatures), num_chains, num_leapfrog)
    return _over_batches(anneal_batch, run, (images, labels, index), devices, total, on_progress)


def bdmc(
    root: jax.Array,
    params: Any,
    num_examples: int,
    labels: np.ndarray | None = None,
    *,
    model: Model,
    num_temperatures: int = 1000,
    num_chains: int = 16,
    num_leapfrog: int = 10,
    devices: Sequence[Any] | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Bracket:
    """Bidirectional Monte Carlo (Grosse et al. 2015): log p(x) from both sides, for (z, x) that the model draws.

    `ais` bounds it from below. z is an exact sample of the posterior, and from there the same path taken backwards has
    weights with mean 1/p(x): an upper bound. Their distance bounds the error of `ais` on such data. `labels` [N] if
    the model is conditional.
    """

    def bracket_batch(run, labels, index):
        z, x = chains.simulate(run.root, run.params, labels, index, run.model)
        examples = Batch(x, labels, index)
        step_sizes = _step_sizes(run, examples)
        lower, upper = _forward(run, examples, step_sizes), _reverse(run, examples, z, step_sizes)
        acceptance = (lower.acceptance + upper.acceptance) / 2
        return Bracket(lower.log_likelihood, -upper.log_likelihood, acceptance)

    total = PILOT_TEMPERATURES + 2 * num_temperatures
    run = _Run(root, params, model, sigmoidal_schedule(num_temperatures), num_chains, num_leapfrog)
    return _over_batches(bracket_batch, run, (labels, np.arange(num_examples)), devices, total, on_progress)


class _Run(NamedTuple):
    """The arguments that the annealing of all batches shares."""

    root: jax.Array
    params: Any
    model: Model
    betas: np.ndarray  # [T + 1]
    num_chains: int
    num_leapfrog: int
    report: Callable[[int], None] = lambda count: None  # gets the number of temperatures since its last call


def _over_batches(function, run: _Run, arrays, devices, num_temperatures: int, on_progress):
    """`function(run, *batch)` of every batch of `arrays`, end to end; each reports `num_temperatures` in all."""
    devices = list(devices or jax.devices()[:1])
    check_memory(run.model, run.num_chains, devices[0])
    root, params = jax.device_put((run.root, run.params), shardings(devices)[1])
    at_once = min(CHAINS_AT_ONCE, memory.samples_at_once(memory.with_gradient(run.model.sample_bytes)))
    batch_size = max(1, at_once // run.num_chains)
    total, done = -(-len(arrays[-1]) // batch_size) * num_temperatures, 0

    def report(count):
        nonlocal done
        done += count
        on_progress(done / total)

    run = run._replace(root=root, params=params, report=report)
    results = [
        jax.tree.map(lambda a: a[:count], function(run, *batch))  # noqa: B023
        for batch, count in batches(arrays, batch_size, devices)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def check_memory(model: Model, num_chains: int, device: Any) -> None:
    """Raises TooLarge if not even the chains of one example fit into memory: they move together."""
    needed = num_chains * memory.with_gradient(model.sample_bytes)
    what = f"the annealing of an image with `ais_chains={num_chains}`"
    memory.check(needed, memory.of_device(device), what, "use fewer")


def _step_sizes(run: _Run, examples: Batch) -> np.ndarray:
    """Of HMC at each temperature, [N, T + 1], from a pilot run."""
    betas = sigmoidal_schedule(PILOT_TEMPERATURES)
    points = chains.start(run.root, run.params, examples, chains.PILOT, run.model, run.num_chains)
    latest = np.full(len(examples.x), math.log(INITIAL_STEP_SIZE), examples.x.dtype)
    logs = [latest[:, None]]
    for rows, first, count in _calls(betas):
        stretch = chains.Stretch(betas[rows], first, count, chains.PILOT)
        points, found = chains.tune(
            run.root, run.params, examples, points, latest, stretch, model=run.model, num_leapfrog=run.num_leapfrog
        )
        logs.append(np.asarray(found)[:, :count])
        latest = logs[-1][:, -1]
        run.report(count)
    return np.exp([np.interp(run.betas, betas, row) for row in np.concatenate(logs, 1)]).astype(latest.dtype)


def _forward(run: _Run, examples: Batch, step_sizes) -> Annealed:
    """From samples of the prior to the posterior."""
    points = chains.start(run.root, run.params, examples, chains.FORWARD, run.model, run.num_chains)
    return _through(run, examples, points, run.betas, step_sizes, chains.FORWARD)


def _reverse(run: _Run, examples: Batch, z, step_sizes) -> Annealed:
    """From one exact sample z of each posterior, in every chain, to the prior."""
    points = chains.start_at(run.params, examples, z, run.model, run.num_chains)
    return _through(run, examples, points, run.betas[::-1], step_sizes[:, ::-1], chains.REVERSE)


def _through(run: _Run, examples: Batch, points, betas, step_sizes, direction: int) -> Annealed:
    log_w, acceptance = np.zeros((len(examples.x), run.num_chains)), np.zeros(len(examples.x))
    increments = np.diff(betas, prepend=betas[0])
    for rows, first, count in _calls(betas):
        stretch = chains.Stretch(betas[rows], first, count, direction, increments[rows])
        points, gained, accepted = chains.anneal(
            run.root,
            run.params,
            examples,
            points,
            step_sizes[:, rows],
            stretch,
            model=run.model,
            num_leapfrog=run.num_leapfrog,
        )
        log_w += np.asarray(gained, np.float64)
        acceptance += np.asarray(accepted, np.float64)
        run.report(count)
    return Annealed(log_w, acceptance / (len(betas) - 1))


def _calls(betas: np.ndarray) -> list[tuple[np.ndarray, int, int]]:
    """Temperatures 1 … T in calls of one program: `TEMPERATURES_PER_CALL` rows, the first one, how many are meant."""
    last = len(betas) - 1
    firsts = range(1, last + 1, TEMPERATURES_PER_CALL)
    steps = np.arange(TEMPERATURES_PER_CALL)
    return [(np.minimum(first + steps, last), first, min(len(steps), last + 1 - first)) for first in firsts]


def summarize(annealed: Annealed, importance_sampling: np.ndarray) -> dict[str, Any]:
    """Means as evaluation.json holds them; `importance_sampling` [N] is log p̂ of the same images by the evaluation.

    `difference` is AIS minus importance sampling, image by image. Both are lower bounds in expectation. So if it is
    positive, the estimate of the evaluation is too low by at least as much. Nats per image, standard errors over
    images.
    """
    values = {
        "log_likelihood": annealed.log_likelihood,
        "importance_sampling": importance_sampling,
        "difference": annealed.log_likelihood - importance_sampling,
    }
    return {
        "num_examples": len(annealed.log_w),
        "num_chains": annealed.log_w.shape[1],
        **means_and_errors(values),
        "effective_sample_size": float(effective_sample_size(annealed.log_w).mean()),
        "acceptance": float(annealed.acceptance.mean()),
    }


def summarize_bracket(bracket: Bracket) -> dict[str, Any]:
    """Means as evaluation.json holds them; `gap` is upper − lower. Nats per image, standard errors over images."""
    values = {"lower": bracket.lower, "upper": bracket.upper, "gap": bracket.upper - bracket.lower}
    return means_and_errors(values) | {"acceptance": float(bracket.acceptance.mean())}
