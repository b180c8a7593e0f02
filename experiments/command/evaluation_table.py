"""The table that experiments.evaluate prints: a line for each number, and warnings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

WRONG_INVERSE = 0.01  # nats, the last digit that is printed
READ_BY_INVERSE = {
    "posterior": "log q(z|x), which some estimators score in training and this evaluation does not",
    "prior": "log p(z), and with it the log-likelihood, the ELBO and the KL",
}
Row = tuple[str, Any, float | None, str]  # name, value, standard error, note


def shown(value) -> str:
    """A value as text for the table: text as it is, a dash for None."""
    if value is None or isinstance(value, int | str):
        return "—" if value is None else str(value)
    return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"


def print_line(name: str, value, error=None, note: str = "") -> None:
    print(f"{name:<28}{shown(value):>12}{'' if error is None else f' ± {error:.2f}':<9} {note}".rstrip())


def print_table(summary: dict) -> None:
    """Print the evaluation, a line for each number."""
    nats = "nats per image"
    print(
        f"{summary['num_examples']} {summary['split']} images, checkpoint {summary['checkpoint']}, "
        f"binarization {summary['binarization']}, {summary['seconds']:.1f} s"
    )
    for k, (value, error) in summary["log_likelihood_by_num_samples"].items():
        print_line(f"log-likelihood, k = {k}", value, error, nats)
    if (smoothed := summary["log_likelihood_psis"]) is not None:
        note = f"{nats}; k = {summary['num_samples']}, Pareto-smoothed weights: no bound"
        print_line("log-likelihood, PSIS", smoothed, summary["log_likelihood_psis_se"], note)
    print_line("ELBO", summary["elbo"], summary["elbo_se"], nats)
    print_line("reconstruction", summary["reconstruction"], None, nats)
    print_line("KL", summary["kl"], None, nats)
    layers = summary["kl_per_layer"]
    for i, kl in enumerate(layers if len(layers) > 1 else []):
        print_line(f"KL of layer {i + 1}", kl, None, nats)
    for i, (active, size) in enumerate(zip(summary["active_units_per_layer"], summary["latent_dims"], strict=True)):
        print_line("active units" + (f" of layer {i + 1}" if i else ""), active, None, f"of {size}: Var(E[z|x]) > 0.01")
    print_line("effective sample size", summary["effective_sample_size"], None, f"of {summary['num_samples']}")
    print_pareto_k(summary)
    bits = summary.get("bits_per_dimension")
    if bits is not None:
        print_line("bits per dimension", bits)


def print_pareto_k(summary: dict) -> None:
    threshold, share = summary["pareto_k_threshold"], summary["pareto_k_above_threshold"]
    if threshold is None:
        print_line("Pareto k̂", None, None, "it needs 21 samples or more")
        return
    print_line("Pareto k̂, median", summary["pareto_k"], None, f"the estimate is unreliable above {threshold:.2f}:")
    print_line(f"Pareto k̂ > {threshold:.2f}", f"{100 * share:.1f} %", None, "of the images")


def warn(summary: dict) -> None:
    """A line on stderr for each reason not to believe the numbers."""
    for name, error in summary["inverse_error"].items():
        if not error <= WRONG_INVERSE:
            print(
                f"warning: the {name}'s flow does not find its way z → ε → z: rounding in its inverse puts "
                f"{READ_BY_INVERSE[name]}, off by {error:.3g} nats on average; train again with a lower "
                "--learning_rate, --max_gradient_norm or fewer --num_flows",
                file=sys.stderr,
            )
    if count := summary["num_not_finite"]:
        print(
            f"warning: the log-likelihood or the ELBO of {count} of {summary['num_examples']} images is not finite, so "
            "that the means are not either; evaluation.json says null",
            file=sys.stderr,
        )


def diagnostic_rows(summary: dict[str, Any]) -> Iterator[Row]:
    """The lines for what --also found (vae/evaluation/diagnostics.py)."""
    for name, reason in summary.get("unavailable", {}).items():
        yield name, None, None, reason
    for name, rows in ALSO.items():
        if found := summary.get(name):
            yield from rows(found)


def _aggregate(parts: dict[str, Any]) -> Iterator[Row]:
    note = f"KL = the next three; {parts['num_samples']} samples of each of {parts['num_examples']} images"
    yield "KL, for the aggregate", parts["kl"], parts["kl_se"], note
    most = f"at most log {parts['num_examples']} = {parts['log_num_examples']:.2f}"
    yield "  mutual information", parts["mutual_information"], parts["mutual_information_se"], most
    yield "  total correlation", parts["total_correlation"], parts["total_correlation_se"], ""
    note = "" if parts["prior_factorises"] else "no sum of KLs, and may be negative: p(z) does not factorise"
    yield "  dimension-wise KL", parts["dimension_wise_kl"], parts["dimension_wise_kl_se"], note


def _sumo(sumo: dict[str, Any]) -> Iterator[Row]:
    note = f"{sumo['num_repetitions']} estimates of {sumo['mean_samples']:.1f} samples on average"
    note += f" and {sumo['most_samples']} at most, {sumo['num_examples']} images"
    yield "log-likelihood, SUMO", sumo["log_likelihood"], sumo["log_likelihood_se"], note
    yield "  importance sampling", sumo["importance_sampling"], sumo["importance_sampling_se"], "same images"
    yield "  SUMO minus that", sumo["difference"], sumo["difference_se"], "unbiased: a single value is no bound"
    note = f"of one estimate of an image, nats²; the mean is known to ± {shown(sumo['repetitions_se'])} by them"
    yield "  variance", sumo["variance"], None, note


def _ais(ais: dict[str, Any]) -> Iterator[Row]:
    note = f"{ais['num_temperatures']} temperatures, {ais['num_chains']} chains, {ais['num_examples']} images"
    yield "log-likelihood, AIS", ais["log_likelihood"], ais["log_likelihood_se"], note
    yield "  importance sampling", ais["importance_sampling"], ais["importance_sampling_se"], "same images"
    yield "  AIS minus that", ais["difference"], ais["difference_se"], "both are lower bounds in expectation"
    yield "  acceptance", ais["acceptance"], None, "of HMC"


def _bdmc(bdmc: dict[str, Any]) -> Iterator[Row]:
    for count, bounds in bdmc["by_num_temperatures"].items():
        note = f"log-likelihood of simulated data is in {bounds['lower']:.2f} … {bounds['upper']:.2f}"
        yield f"BDMC gap, {count} temperatures", bounds["gap"], bounds["gap_se"], note


def _amortization(gaps: dict[str, Any]) -> Iterator[Row]:
    note = f"{gaps['num_examples']} images, log p(x) by {gaps['log_likelihood_by']}"
    yield "inference gap", gaps["inference_gap"], gaps["inference_gap_se"], note
    yield "  amortisation", gaps["amortization_gap"], gaps["amortization_gap_se"], "a q(z) for each image"
    note = f"log p(x) minus the best q(z) of the family {gaps['family']}"
    yield "  approximation", gaps["approximation_gap"], gaps["approximation_gap_se"], note


def _probe(probe: dict[str, Any]) -> Iterator[Row]:
    chance = f"{100 * probe['most_frequent']:.1f} % have the most frequent label"
    note = f"% of {probe['num_examples']} images from E[z|x]; {chance}"
    for count, found in probe["by_labels"].items():
        for name, words in (("linear", f"linear probe, {count} labels"), ("nearest_neighbour", "  nearest neighbour")):
            error = found[f"{name}_se"]
            yield words, 100 * found[name], None if error is None else 100 * error, note
            note = ""


# What --also can ask for, and the lines of each: the names of vae/evaluation/diagnostics.py, which needs jax.
ALSO: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "aggregate": _aggregate,
    "sumo": _sumo,
    "ais": _ais,
    "bdmc": _bdmc,
    "amortization": _amortization,
    "probe": _probe,
}
