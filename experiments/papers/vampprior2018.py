"""Tomczak & Welling (2018): a standard prior and a VampPrior, on static MNIST and on Frey faces, one stochastic layer.

The settings are those of the authors' code, github.com/jmtomczak/vae_vampprior.
"""

from __future__ import annotations

from typing import Any

from experiments.papers.paper import NLL, PrintedNumber, PublishedCell, PublishedTable

GATED = {
    "validation": None, "network": "gated_mlp", "hidden_sizes": (300, 300), "latent_dim": 40, "objective": "warmup",
    "warmup_epochs": 100.0, "batch_size": 100, "learning_rate": 5e-4, "epochs": 2000, "patience": 50,
}  # fmt: skip
STATIC = GATED | {"dataset": "binarized_mnist", "binarization": "none"}
FREY = GATED | {"dataset": "frey_faces", "binarization": "none", "likelihood": "discretized_logistic"}
VAMP = {"prior": "vamp", "prior_components": 500}
QUOTED_BY = "the README of pythae, which obtained 85.79"
OWN_SPLIT = ("the frames are shuffled by a seed of our own; the authors' shuffle has none",)


def _cell(settings: dict[str, Any], num_train: int, num_parameters: int, **about: Any) -> PublishedCell:
    return PublishedCell(about.pop("published", None), None, settings, num_train, num_parameters, **about)


TABLE = PublishedTable(
    paper="Tomczak & Welling (2018), arXiv:1705.07120",
    title="VAE with a VampPrior",
    place="one stochastic layer",
    quantity=NLL,
    cells={
        "static_mnist/1/standard": _cell(STATIC, 50_000, 1_116_864),
        "static_mnist/1/vamp": _cell(
            STATIC | VAMP, 50_000, 1_508_864, published=PrintedNumber(85.57, quoted_by=QUOTED_BY)
        ),
        "frey_faces/1/standard": _cell(FREY, 1_565, 1_083_600, differs=OWN_SPLIT),
        "frey_faces/1/vamp": _cell(FREY | VAMP, 1_565, 1_363_600, differs=OWN_SPLIT),
    },
    differs=(
        "the log-variances of q are not clamped to [-6, 2], and those of pixels not to [-4.5, 0]",
        "the KL of the standard prior is the analytic one, where the authors' is of one sample",
        "the warm-up rises in each step, the authors' in each epoch, and their patience begins after it",
        "the initial weights: Glorot-uniform, with an output bias from the mean image; the authors' are He's",
    ),
)
