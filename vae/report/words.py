"""The words of a comparison's pages: notes and captions, the same in all; tables.py has the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Comparison = Mapping[str, Any]
NOT_READ = "—"  # instead of a setting, which an objective does not read

# Heading, what to look at, and whether it takes the whole width.
PICTURES: dict[str, tuple[str, str, bool]] = {
    "log_likelihoods": (
        "Log-likelihood of each run",
        "A dot is one seed; the bar is their mean ± its standard error. Do the dots of two objectives mix?",
        False,
    ),
    "differences": (
        "How far below the best",
        "Paired differences with intervals of 95 % or more, which exclude 0 exactly if a difference is "
        "significant after Holm's correction. Significant ones are filled, the others hollow and grey.",
        False,
    ),
    "elbo_by_step": (
        "Learning curves by step",
        "The ELBO (reconstruction − KL) of validation images: every objective logs it in the same way. Most objectives "
        "maximise something else, so a lower curve need not mean worse training. Thin lines are seeds.",
        False,
    ),
    "elbo_by_second": (
        "Learning curves by time",
        "The same against the seconds of a run alone on this machine: its steps times the measured seconds of a step. "
        "Which objective is ahead for the time you have?",
        False,
    ),
    "rate_distortion": (
        "Rate and distortion",
        "The cost of the code z (KL) against what it loses (−reconstruction), on the test images. All points of a "
        "dashed line have the same ELBO, written at its end; further right, the code takes a larger part of it.",
        False,
    ),
    "kl_spectra": (
        "KL of each latent dimension",
        "Sorted, mean over seeds. Dimensions after the point at which a curve falls off carry nothing.",
        False,
    ),
    "reconstructions": (
        "Reconstructions of the same test images",
        "The mean of p(x|z) at the mean of q(z|x), one objective a row under the originals; first seed.",
        True,
    ),
    "samples": (
        "Samples from the same z",
        "The mean of p(x|z) at draws from the prior, each column one draw if the priors agree; first seed.",
        True,
    ),
}


def how_it_was_judged(comparison: Comparison) -> str:
    y = comparison["evaluation"]
    seeds = len(comparison["seeds"])
    return (
        f"Log-likelihood of {y['num_examples']:,} {y['split']} images by importance sampling, "
        f"k = {y['num_samples']:,}; "
        f"{counted([one['settings']['objective'] for one in comparison['objectives']])}, "
        f"{seeds} seed{'s' if seeds > 1 else ''} each."
    )


def counted(objectives: Sequence[str]) -> str:
    """The number of objectives, and the number of settings if several are of the same objective."""
    different = len(set(objectives))
    if different == len(objectives):
        return f"{different} objectives"
    return f"{different} objective{'s' if different > 1 else ''} in {len(objectives)} settings"


def pairs_note(comparison: Comparison) -> str:
    count, level = len(comparison["pairs"]), comparison["level"]
    error = "Differences on the same images and seeds; ± is the standard error over seeds and images."
    if len(comparison["seeds"]) == 1:
        return "Differences on the same images, of one seed."
    if not is_tested(comparison):
        return f"{error} With {len(comparison['seeds'])} seeds no difference is tested; train three or more."
    pairs = f"{count} pair{'s' if count > 1 else ''}"
    return (
        f"{error} Significant: below {level:g} by the pair alone (p) and after Holm's correction for {pairs}, so that "
        f"the chance of any false “beats” on this page is at most {100 * level:g} %. An interval holds the true "
        f"difference with probability {100 - 100 * level:g} % or more, and leaves out 0 exactly if the difference "
        "is significant."
    )


def is_tested(comparison: Comparison) -> bool:
    """Whether there are seeds enough for p and intervals."""
    return comparison["pairs"][0]["p"] is not None


def tuning_note(comparison: Comparison) -> str:
    return (
        f"Chosen by the log-likelihood of validation images, k = {comparison['tuning_samples']}, mean over seeds. "
        "The ranking uses the same evaluation, so bounds of different objectives are never compared. Nothing was "
        "chosen by test images."
    )


def method(comparison: Comparison) -> list[tuple[str, str]]:
    """What is needed to repeat the comparison."""
    y = comparison["evaluation"]
    entries = [
        ("data", f"{y['dataset']}, {y['num_examples']} {y['split']} images, binarization {y['binarization']}"),
        ("evaluation", f"p(x|z): {y['likelihood']}; k = {y['num_samples']}, evaluation seed {y['seed']}"),
        ("seeds", ", ".join(map(str, comparison["seeds"]))),
        ("budget", comparison["budget"]),
        (
            "statistics",
            "differences are random over seeds and over images (two crossed random effects); t-tests with separate "
            "quantiles for the two variances (Banerjee 1960), of the pair alone and, with the seeds of all objectives, "
            "after Holm's correction; significant if both agree"
            if is_tested(comparison)
            else "means and standard errors; too few seeds to test a difference",
        ),
        ("the same in all", ", ".join(f"{name} {value}" for name, value in comparison["settings"].items())),
        ("command", comparison["command"]),
        ("versions", ", ".join(f"{n} {v}" for n, v in comparison["versions"].items())),
        ("code", comparison["git"] or "not from a git checkout"),
    ]
    entries += [("left out", text) for text in comparison["left_out"]]
    return entries


def nats(value: float | None, digits: int = 2) -> str:
    return "—" if value is None else f"{value:.{digits}f}".replace("-", "−")


def estimate(value: float | None, error: float | None, digits: int = 2) -> str:
    return nats(value, digits) + ("" if error is None else f" ± {error:.{digits}f}")


def probability(p: float | None) -> str:
    if p is None:
        return "—"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.095 else f"{p:.2f}"
