"""Which of several objectives is better, and is the difference real? Paired statistics of evaluated runs.

Scores are log-likelihoods of one yardstick, nats per image, float64. Shapes: O objectives, S seeds, N test images,
P = O(O − 1)/2 pairs; leading axes are independent tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.05  # of the whole family of pairs

# What two evaluations must agree in before their numbers may stand in one column, and how a reader calls it. Not among
# it: the scale of a normal likelihood (any two densities of the same data compare), and how many images were held out.
YARDSTICK = {
    "dataset": "data set",
    "image_size": "image size",
    "image_shape": "image shape",
    "split": "split",
    "binarization": "binarization in evaluation",
    "likelihood": "likelihood",  # a mass function and a density, or densities on other scales, do not compare
    "num_classes": "conditioning on labels (classes given to the model; with any, log p(x|y))",
    "num_examples": "number of evaluated images",
    "num_samples": "samples per image (k)",
    "seed": "evaluation seed",
    "images_sha256": "content of the evaluated images (sha256)",
}


class Comparison(NamedTuple):
    """Means of each objective and differences of each pair, nats; what one seed cannot tell is NaN.

    `difference` of the pair (a, b) is a − b. `p_holm` controls the chance of any false "a differs from b" among all
    pairs (Holm 1979). `low` to `high` holds the true difference with probability 1 − LEVEL or more; its level is the
    one at which Holm's test decided on the pair, so that it leaves out 0 exactly where the difference is significant.
    """

    mean: np.ndarray  # [..., O] over seeds and images
    standard_error: np.ndarray  # [..., O] over seeds
    pairs: np.ndarray  # [P, 2]
    difference: np.ndarray  # [..., P]
    difference_error: np.ndarray  # [..., P] over seeds and images
    degrees_of_freedom: np.ndarray  # [..., P]
    low: np.ndarray  # [..., P]
    high: np.ndarray  # [..., P]
    p: np.ndarray  # [..., P]
    p_holm: np.ndarray  # [..., P]

    @property
    def significant(self) -> np.ndarray:
        return self.p_holm < LEVEL


def compare(scores: np.ndarray) -> Comparison:
    """Compare O objectives by their scores [..., O, S, N] on the same S seeds and the same N test images.

    The differences of a pair, d_si = δ + u_s + v_i + e_si, are random in two ways: other seeds train other models, and
    another test set holds other images. The variance of their mean is that of two crossed random effects
    (Cornfield & Tukey 1956): seeds enter through the S means over images, images through the N means over seeds, less
    what both have in common. Seeds are 3 to 5, so they decide, and t is what knows how little they know: the percentile
    bootstrap over seeds and images, which takes three values for all there are, holds the truth in three of four cases
    where it says 95 % (simulated in tests/evaluation/test_comparison.py).

    With three seeds a pair alone leaves 2 degrees of freedom, and no correction for 21 pairs survives them. So the
    variance between seeds is the larger of the pair's own and the mean over all pairs, which all objectives estimate;
    its degrees of freedom are Satterthwaite's (1946) for objectives of unequal variance, as many as (O − 1)(S − 1)
    where all agree, as few as S − 1 where one is responsible. The larger, since a pair of noisy objectives must not
    borrow the calm of the others.

    Raises ValueError for fewer than two objectives or two images.
    """
    scores = np.asarray(scores, np.float64)
    num_objectives, num_seeds, num_images = scores.shape[-3:]
    if num_objectives < 2 or num_images < 2:
        raise ValueError(f"scores have shape {scores.shape}; expected [..., O, S, N] with O and N of 2 or more")
    pairs = np.array([(a, b) for a in range(num_objectives) for b in range(a + 1, num_objectives)])
    a, b = pairs.T
    by_seed = scores.mean(-1)  # [..., O, S]
    difference = by_seed.mean(-1)[..., a] - by_seed.mean(-1)[..., b]
    unknown = np.full_like(difference, np.nan)
    if num_seeds == 1:
        error = np.full(by_seed.shape[:-1], np.nan)
        return Comparison(by_seed[..., 0], error, pairs, difference, *(unknown,) * 6)
    seeds, degrees_of_freedom = variance_of_seeds(by_seed, pairs)
    images = np.stack([variance_of_images(scores[..., i, :, :] - scores[..., j, :, :]) for i, j in pairs], -1)
    variance = seeds + images
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees_of_freedom = variance**2 / (seeds**2 / degrees_of_freedom + images**2 / (num_images - 1))
        t = np.where(difference == 0, 0, np.abs(difference) / np.sqrt(variance))
    # Runs that agree in every number differ in nothing, and leave no variance to divide by.
    degrees_of_freedom = np.where(variance > 0, degrees_of_freedom, num_seeds - 1)
    p = 2 * stats.t.sf(t, degrees_of_freedom)
    half = stats.t.isf(levels(p) / 2, degrees_of_freedom) * np.sqrt(variance)
    return Comparison(
        mean=by_seed.mean(-1),
        standard_error=by_seed.std(-1, ddof=1) / np.sqrt(num_seeds),
        pairs=pairs,
        difference=difference,
        difference_error=np.sqrt(variance),
        degrees_of_freedom=degrees_of_freedom,
        low=difference - half,
        high=difference + half,
        p=p,
        p_holm=holm(p),
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
    if num_seeds == 1:
        return [
            f"{best} has the highest log-likelihood, {leads[names[1]]['difference']:.2f} nats above {names[1]}.",
            "With one seed for each objective nothing tells a difference from chance; train three or more.",
        ]
    won = [f"{name} by {_margin(leads[name])}" for name in names[1:] if leads[name]["significant"]]
    tied = [f"{name} ({leads[name]['difference']:.2f})" for name in names[1:] if not leads[name]["significant"]]
    sentences = [f"{best} beats {listed(won)} nats."] if won else []
    if tied:
        lead = "Its lead over" if won else f"{best} has the highest log-likelihood, but its lead over"
        sentences.append(f"{lead} {listed(tied)} is not significant.")
    real = [pair for pair in others if pair["significant"]]
    if len(real) > 2:
        share = "All" if len(real) == len(others) else f"{len(real)} of the"
        sentences.append(f"{share} {len(others)} other differences are significant.")
    elif real:
        sentences.append(listed([f"{p['higher']} beats {p['lower']} by {_margin(p)}" for p in real]) + " nats.")
    if len(real) <= 2 and len(real) < len(others):
        sentences.append("No other difference is significant.")
    return sentences


def _margin(pair: Mapping[str, Any]) -> str:
    return f"{pair['difference']:.2f} ± {pair['standard_error']:.2f}"


def listed(words: Sequence[str]) -> str:
    """A, B and C."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def variance_of_seeds(by_seed: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of seeds in the variance of each pair's mean difference, and its degrees of freedom: [..., P] both.

    `by_seed` [..., O, S] are means over images.
    """
    num_objectives, num_seeds = by_seed.shape[-2:]
    a, b = pairs.T
    own = (by_seed[..., a, :] - by_seed[..., b, :]).var(-1, ddof=1)
    pooled = own.mean(-1, keepdims=True)
    # The residuals of objectives × seeds; each objective's share of their squares is its share of the variance.
    residuals = by_seed - by_seed.mean(-1, keepdims=True)
    residuals = residuals - residuals.mean(-2, keepdims=True)
    shares = (residuals**2).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        equally_variable = shares.sum(-1) ** 2 / (shares**2).sum(-1)  # 1 to O objectives
    equally_variable = np.nan_to_num(equally_variable, nan=1.0)
    full = (num_objectives - 1) * (num_seeds - 1)
    degrees_of_freedom = np.clip(full * equally_variable / num_objectives, num_seeds - 1, full)
    variance = np.maximum(own, pooled) / num_seeds
    return variance, np.broadcast_to(degrees_of_freedom[..., None], variance.shape)


def variance_of_images(differences: np.ndarray) -> np.ndarray:
    """The part of images in the variance of the mean of d_si [..., S, N], beyond what the seeds' part holds."""
    num_seeds, num_images = differences.shape[-2:]
    by_image = differences.mean(-2)
    residuals = differences - by_image[..., None, :]
    residuals = residuals - residuals.mean(-1, keepdims=True)
    interaction = (residuals**2).sum((-2, -1)) / ((num_seeds - 1) * (num_images - 1))
    return np.asarray(np.maximum(by_image.var(-1, ddof=1) - interaction / num_seeds, 0) / num_images)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's (1979) adjusted p-values of [..., P]: any false rejection among those below α has chance α or less."""
    order = np.argsort(p, -1, kind="stable")
    num_tests = p.shape[-1]
    stepped = np.take_along_axis(p, order, -1) * np.arange(num_tests, 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(stepped, -1), 1), -1)
    return adjusted


def levels(p: np.ndarray) -> np.ndarray:
    """The level at which Holm's test decides on each of [..., P]: LEVEL over the pairs that are left at its step."""
    num_tests = p.shape[-1]
    step = np.minimum(np.argsort(np.argsort(p, -1, kind="stable"), -1), (holm(p) < LEVEL).sum(-1, keepdims=True))
    return LEVEL / np.maximum(num_tests - step, 1)


def incomparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """How two evaluations differ in what makes their numbers comparable, in words; None where they agree.

    A field of YARDSTICK that one of them lacks is not compared.
    """
    for name, words in YARDSTICK.items():
        if name in one and name in other and one[name] != other[name]:
            return f"another {words}: {one[name]} and {other[name]}"
    return None


def common_seeds(seeds: Sequence[Sequence[int]]) -> list[int]:
    """The seeds that every objective was trained with, in order."""
    return sorted(set.intersection(*map(set, seeds)))
