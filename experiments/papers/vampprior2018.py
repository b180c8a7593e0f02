"""Tomczak & Welling (2018): a standard prior and a VampPrior on static MNIST, one stochastic layer."""

from __future__ import annotations

from typing import Any

from experiments.papers.paper import NLL, PrintedNumber, PublishedCell, PublishedTable

STATIC = {
    "dataset": "binarized_mnist", "validation": None, "binarization": "none", "network": "mlp",
    "hidden_sizes": (300, 300), "latent_dim": 40, "objective": "warmup", "warmup_epochs": 100.0, "batch_size": 100,
    "learning_rate": 5e-4, "epochs": 2000,
}  # fmt: skip
NEEDS = "gated layers and a patience of 50 epochs"
# A gated layer has the parameters of two linear ones: 784-300-300-(40+40) and 40-300-300-784; 500 images more.
STANDARD, VAMP = 1_116_864, 1_508_864


def _cell(published: PrintedNumber | None, num_parameters: int, **settings: Any) -> PublishedCell:
    return PublishedCell(published, None, STATIC | settings, 50_000, num_parameters, needs=NEEDS)


TABLE = PublishedTable(
    paper="Tomczak & Welling (2018), arXiv:1705.07120",
    title="VAE with a VampPrior",
    place="static MNIST, one stochastic layer",
    quantity=NLL,
    cells={
        "static_mnist/1/standard": _cell(None, STANDARD),
        "static_mnist/1/vamp": _cell(
            PrintedNumber(85.57, quoted_by="the README of pythae, beside its own 85.79"),
            VAMP,
            prior="vamp",
            prior_components=500,
        ),
    },
    differs=(
        "the log-variances of q are not clamped to [-6, 2]",
        "the initial weights: Glorot-uniform, with an output bias at the logit of the mean image; the paper's are He's",
    ),
)
