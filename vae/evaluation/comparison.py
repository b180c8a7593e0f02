"""Which of several objectives is better, and is the difference real? Paired statistics of evaluated runs.

Scores are log-likelihoods from the same evaluation, nats per image, float64. Shapes: O objectives, S seeds, N test
images, P = O(O − 1)/2 pairs; leading axes are independent tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vae.evaluation import significance
from vae.evaluation.significance import LEAST_SEEDS, LEVEL

# Fields in which two evaluations must agree before their numbers may be compared, and their names for a reader. Not
# in it: the scale of a normal likelihood (any two densities of the same data compare), the number of held-out images.
YARDSTICK = {
    "dataset": "data set",
    "image_size": "image size",
    "image_shape": "image shape",
    "split": "split",
    "binarization": "binarization in evaluation",
    "likelihood": "likelihood",  # a density and masses, or densities on other scales, do not compare
    "num_classes": "conditioning on labels (classes given to the model; with any, log p(x|y))",
    "num_examples": "number of evaluated images",
    "num_samples": "samples per image (k)",
    "seed": "evaluation seed",
    "images_sha256": "content of the evaluated images (sha256)",
}


MOST_NAMED = 4  # objectives in a sentence
# What cannot be said, and why, if there are fewer than LEAST_SEEDS.
TOO_FEW_SEEDS = {
    1: "With one seed for each objective nothing tells a difference from chance; train three or more.",
    2: "With two seeds for each objective a difference is described, not tested: one degree of freedom cannot tell it "
    "from chance; train three or more.",
}


class Comparison(NamedTuple):
    """Means of each objective and differences of each pair, nats. What too few seeds cannot tell is NaN.

    `difference` of the pair (a, b) is a − b. `p` is of the pair alone; `p_holm` controls the chance of any false
    "a differs from b" among all pairs. `low` to `high` holds the true difference with probability 1 − LEVEL or more,
    and leaves out 0 exactly if the difference is significant.
    """

    mean: np.ndarray  # [..., O] over seeds and images
    standard_error: np.ndarray  # [..., O] over seeds
    pairs: np.ndarray  # [P, 2]
    difference: np.ndarray  # [..., P]
    difference_error: np.ndarray  # [..., P] over seeds and images, of the pair alone
    degrees_of_freedom: np.ndarray  # [..., P] of the variance between seeds, in the test with Holm's correction
    low: np.ndarray  # [..., P]
    high: np.ndarray  # [..., P]
    p: np.ndarray  # [..., P]
    p_holm: np.ndarray  # [..., P]

    @property
    def significant(self) -> np.ndarray:
        return self.p_holm < LEVEL


def compare(scores: np.ndarray) -> Comparison:
    """Compare O objectives by their scores [..., O, S, N] on the same S seeds and the same N test images.

    vae/evaluation/significance.py says how. One seed has no standard error, and fewer than LEAST_SEEDS have no
    interval and no p. Raises ValueError for fewer than two objectives or two images.
    """
    found = significance.summarize(scores)
    num_seeds = found.by_seed.shape[-1]
    pairs = significance.pairs_of(found.by_seed.shape[-2])
    a, b = pairs.T
    mean = found.by_seed.mean(-1)
    difference = mean[..., a] - mean[..., b]
    if num_seeds == 1:
        error = np.full_like(mean, np.nan)
        return Comparison(mean, error, pairs, difference, *(np.full_like(difference, np.nan),) * 6)
    error = found.by_seed.std(-1, ddof=1) / np.sqrt(num_seeds)
    variance = significance.variances(found)
    difference_error = np.sqrt(variance.own + variance.images)
    if num_seeds < LEAST_SEEDS:
        unknown = (np.full_like(difference, np.nan),) * 5
        return Comparison(mean, error, pairs, difference, difference_error, *unknown)
    half = significance.half_widths(difference, variance)
    p, p_holm = significance.p_values(difference, variance)
    freedom = np.broadcast_to(variance.pooled_freedom, difference.shape)
    return Comparison(
        mean, error, pairs, difference, difference_error, freedom, difference - half, difference + half, p, p_holm
    )


def rows(found: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each pair by name, the one with the higher mean first, so that no difference is negative."""
    result = []
    for position, (a, b) in enumerate(found.pairs):
        difference, low, high = (float(v[position]) for v in (found.difference, found.low, found.high))
        if difference < 0:
            a, b, difference, low, high = b, a, -difference, -high, -low
        result.append(
            {
                "higher": names[a],
                "lower": names[b],
                "difference": difference,
                "standard_error": float(found.difference_error[position]),
                "low": low,
                "high": high,
                "degrees_of_freedom": float(found.degrees_of_freedom[position]),
                "p": float(found.p[position]),
                "p_holm": float(found.p_holm[position]),
                "significant": bool(found.significant[position]),
            }
        )
    return result


def conclusion(names: Sequence[str], pairs: Sequence[Mapping[str, Any]], num_seeds: int) -> list[str]:
    """Sentences that say who beats whom, and no more than the statistics do.

    `names` are in descending order of the means, `pairs` those of `rows`.
    """
    best = names[0]
    leads = {pair["lower"]: pair for pair in pairs if pair["higher"] == best}
    others = [pair for pair in pairs if pair["higher"] != best]
    if num_seeds < LEAST_SEEDS:
        return [
            f"{best} has the highest log-likelihood, {leads[names[1]]['difference']:.2f} nats above {names[1]}.",
            TOO_FEW_SEEDS[num_seeds],
        ]
    won = [leads[name] for name in names[1:] if leads[name]["significant"]]
    tied = [leads[name] for name in names[1:] if not leads[name]["significant"]]
    sentences = [f"{best} beats {_each(won, 'by {}', _margin)} nats."] if won else []
    if tied:
        lead = "Its lead over" if won else f"{best} has the highest log-likelihood, but its lead over"
        sentences.append(f"{lead} {_each(tied, '({})', _difference)} is not significant.")
    real = [pair for pair in others if pair["significant"]]
    if len(real) > 2:
        share = "All" if len(real) == len(others) else f"{len(real)} of the"
        sentences.append(f"{share} {len(others)} other differences are significant.")
    elif real:
        sentences.append(listed([f"{p['higher']} beats {p['lower']} by {_margin(p)}" for p in real]) + " nats.")
    if len(real) <= 2 and len(real) < len(others):
        sentences.append("No other difference is significant.")
    return sentences


def _each(pairs: Sequence[Mapping[str, Any]], template: str, written: Callable[[Mapping[str, Any]], str]) -> str:
    """The lower of each pair with its difference; of many their number, and from which difference to which."""
    if len(pairs) <= MOST_NAMED:
        return listed([f"{pair['lower']} {template.format(written(pair))}" for pair in pairs])
    least, most = min(pair["difference"] for pair in pairs), max(pair["difference"] for pair in pairs)
    return f"{len(pairs)} others {template.format(f'{least:.2f} to {most:.2f}')}"


def _difference(pair: Mapping[str, Any]) -> str:
    return f"{pair['difference']:.2f}"


def _margin(pair: Mapping[str, Any]) -> str:
    return f"{pair['difference']:.2f} ± {pair['standard_error']:.2f}"


def listed(words: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def incomparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How two evaluations differ in a way that makes their numbers incomparable, in words; None if they do not.

    A field of YARDSTICK that one of them lacks is not compared.
    """
    for name, words in YARDSTICK.items():
        if name in one and name in other and one[name] != other[name]:
            return f"another {words}: {one[name]} and {other[name]}"
    return None


def common_seeds(seeds: Sequence[Sequence[int]]) -> list[int]:
    """The seeds that every objective was trained with, in order."""
    return sorted(set.intersection(*map(set, seeds)))
