"""Rainforth et al. (2018): five bounds with 64 samples on MNIST, by the log-likelihood (k = 5000).

The same table has IWAE-64 and its distance to the log-likelihood, which no evaluation here holds: k = 64.
"""

from __future__ import annotations

from typing import Any

from experiments.papers.paper import LOG_LIKELIHOOD, PrintedNumber, PublishedCell, PublishedTable


def _cell(value: float, error: float, **settings: Any) -> PublishedCell:
    return PublishedCell(PrintedNumber(value, error), "burda2016", settings, 59_600, 425_284)


TABLE = PublishedTable(
    paper="Rainforth et al. (2018), arXiv:1802.04537",
    title="Tighter Variational Bounds are Not Necessarily Better",
    place="the table of MNIST results, log p(x); four runs of each",
    quantity=LOG_LIKELIHOOD,
    cells={
        "mnist/iwae": _cell(-84.52, 0.02, objective="iwae", num_samples=64),
        "mnist/piwae": _cell(-84.46, 0.06, objective="piwae", num_samples=8, num_groups=8),
        "mnist/miwae": _cell(-84.97, 0.10, objective="miwae", num_samples=8, num_groups=8),
        "mnist/ciwae": _cell(-85.24, 0.08, objective="ciwae", num_samples=64, ciwae_beta=0.5),
        "mnist/vae": _cell(-86.21, 0.19, objective="elbo_mc", num_samples=64),
    },
    differs=(
        "the paper's optimiser was not read: network, data, stages and optimiser are those of Burda et al., whose "
        "3,280 epochs the paper trains, too",
        "that the VAE averages 64 samples is an assumption, after the equal budgets of the other bounds",
        "the test set is binarised once, with a seed of our own",
        "the initial weights and all noise are of our own seeds",
    ),
)
