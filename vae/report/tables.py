"""The tables of a comparison: heads and rows of texts, the same in every page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vae.report.words import Comparison, estimate, nats, probability

Table = tuple[list[str], list[list[str]]]
Entry = Mapping[str, Any]  # of comparison["objectives"]
ON_TERMINAL = ("objective", "log-likelihood", "ELBO", "KL", "active units", "k̂", "ms / step")


def ranking_table(comparison: Comparison) -> Table:
    """The best first."""
    cells = columns(comparison)
    return list(cells), [[cell(one) for cell in cells.values()] for one in comparison["objectives"]]


def columns(comparison: Comparison) -> dict[str, Callable[[Entry], str]]:
    """What stands in a column of the ranking, by its head."""
    return {
        "objective": lambda one: one["label"],
        "log-likelihood": _with_error("log_likelihood"),
        "PSIS": _with_error("log_likelihood_psis"),
        "ELBO": _with_error("elbo"),
        **({"bits / dim": _bits} if has_bits(comparison) else {}),
        "gap": lambda one: nats(None if one["elbo"] is None else one["log_likelihood"] - one["elbo"]),
        **{head: _with_error(name) for head, name in (("KL", "kl"), ("reconstruction", "reconstruction"))},
        "active units": _active_units,
        "ESS": lambda one: _counted(one["effective_sample_size"]),
        pareto_head(comparison): lambda one: _percent(one["pareto_k_above_threshold"]),
        "epochs": lambda one: f"{'≤ ' if one['settings'].get('patience') else ''}{one['epochs']}",
        "ms / step": lambda one: "—" if one["seconds_per_step"] is None else f"{1000 * one['seconds_per_step']:.3g}",
    }


def has_bits(comparison: Comparison) -> bool:
    """Not of values that are none of 256, nor if p(x|z) is of black and white pixels."""
    return all(one["bits_per_dimension"] is not None for one in comparison["objectives"])


def table_note(comparison: Comparison) -> str:
    error = "; ± is the standard error over seeds" if len(comparison["seeds"]) > 1 else ""
    bits = "Bits per dimension are the code length under the masses of the 256 values. "
    return (
        f"Nats per test image{error}. {bits if has_bits(comparison) else ''}PSIS is the log-likelihood by "
        "Pareto-smoothed weights, which is no bound. The gap is log-likelihood − ELBO: what the posterior q(z|x) "
        "loses. ESS is the effective sample size of the k importance weights of an image. Importance sampling cannot "
        "be trusted for images whose Pareto k̂ exceeds the limit: their share is given. ms / step are of a run alone on "
        "this machine; runs of one program have one time."
    )


def pareto_head(comparison: Comparison) -> str:
    """k̂ needs 21 samples or more."""
    limit = comparison["evaluation"]["pareto_k_threshold"]
    return "k̂" if limit is None else f"k̂ > {limit:.2f}"


def _with_error(name: str) -> Callable[[Entry], str]:
    return lambda one: estimate(one[name], one[f"{name}_se"])


def _bits(one: Entry) -> str:
    return estimate(one["bits_per_dimension"], one["bits_per_dimension_se"], digits=3)


def _active_units(one: Entry) -> str:
    return "—" if one["active_units"] is None else f"{one['active_units']:.3g} of {one['latent_dim']}"


def _counted(value: float | None) -> str:
    return "—" if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.1f} %"


def aligned(comparison: Comparison) -> str:
    """The ranking for a terminal, without the columns that it has no room for."""
    heads, rows = ranking_table(comparison)
    shown = [position for position, head in enumerate(heads) if head.split(" > ")[0] in ON_TERMINAL]
    return in_columns([[line[position] for position in shown] for line in (heads, *rows)])


def in_columns(table: Sequence[Sequence[str]]) -> str:
    """Lines of a terminal: the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in table)


def pair_table(comparison: Comparison) -> Table:
    heads = ["higher", "lower", "difference", "interval, 95 % or more", "p", "p (Holm)", ""]
    rows = [
        [
            pair["higher"],
            pair["lower"],
            estimate(pair["difference"], pair["standard_error"]),
            "—" if pair["p"] is None else f"{nats(pair['low'])} to {nats(pair['high'])}",
            probability(pair["p"]),
            probability(pair["p_holm"]),
            "significant" if pair["significant"] else "",
        ]
        for pair in comparison["pairs"]
    ]
    return heads, rows


def tuning_table(comparison: Comparison) -> Table:
    heads = ["objective", "tried", "validation log-likelihood", ""]
    rows = [
        [
            one["label"],
            ", ".join(f"{name} = {value}" for name, value in one["point"].items()),
            "not finite"
            if one["log_likelihood"] is None
            else estimate(one["log_likelihood"], one["log_likelihood_se"]),
            "chosen" if one["chosen"] else "",
        ]
        for one in comparison["tuning"]
    ]
    return heads, rows


def settings_table(comparison: Comparison) -> Table:
    """The settings in which the objectives differ; a dash for what an objective does not read."""
    differing = comparison["differing"]
    rows = [
        [one["label"], *(texts[position] for texts in differing.values())]
        for position, one in enumerate(comparison["objectives"])
    ]
    return ["objective", *differing], rows
