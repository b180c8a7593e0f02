"""Li & Turner (2016): IWAE, VR-max and a Rényi bound on MNIST, with one stochastic layer and with two."""

from __future__ import annotations

from typing import Any

from experiments.papers.paper import LOG_LIKELIHOOD, PrintedNumber, PublishedCell, PublishedTable

PRESETS = {1: ("burda2016", 425_284), 2: ("burda2016_l2", 521_084)}


def _cell(value: float, depth: int, num_samples: int, **settings: Any) -> PublishedCell:
    preset, num_parameters = PRESETS[depth]
    return PublishedCell(PrintedNumber(value), preset, settings | {"num_samples": num_samples}, 59_600, num_parameters)


TABLE = PublishedTable(
    paper="Li & Turner (2016), arXiv:1602.02311",
    title="Rényi Divergence Variational Inference",
    place="the table of test log-likelihoods, MNIST",
    quantity=LOG_LIKELIHOOD,
    cells={
        "mnist/1/iwae/5": _cell(-85.41, 1, 5, objective="iwae"),
        "mnist/1/vr_max/5": _cell(-85.42, 1, 5, objective="vr_max"),
        "mnist/1/renyi/5": _cell(-85.50, 1, 5, objective="renyi", alpha=0.5),
        "mnist/1/iwae/50": _cell(-84.80, 1, 50, objective="iwae"),
        "mnist/1/vr_max/50": _cell(-84.81, 1, 50, objective="vr_max"),
        "mnist/2/iwae/5": _cell(-83.92, 2, 5, objective="iwae"),
        "mnist/2/vr_max/5": _cell(-84.04, 2, 5, objective="vr_max"),
        "mnist/2/iwae/50": _cell(-83.05, 2, 50, objective="iwae"),
        "mnist/2/vr_max/50": _cell(-83.44, 2, 50, objective="vr_max"),
    },
    differs=(
        "the paper's optimiser and length of training were not read: both are those of the code of Burda et al., whose "
        "table the paper compares with",
        "the test set is binarised once, with a seed of our own",
        "the initial weights and all noise are of our own seeds",
    ),
)
