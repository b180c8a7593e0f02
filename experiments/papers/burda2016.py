"""Burda et al. (2016): MNIST with one stochastic layer and with two, and a fixed binarisation of MNIST."""

from __future__ import annotations

from typing import Any

from experiments.papers.paper import NLL, PrintedNumber, PublishedCell, PublishedTable

FIXED = {"dataset": "binarized_mnist", "validation": None, "binarization": "none"}
ONE_BOUND = ("of one sample, VAE and IWAE are the same bound",)
OWN_SPLIT = ("the data set's own 10,000 validation images, from which no run learns, are the held-out ones",)


def _cell(nll: float, preset: str, num_parameters: int, **settings: Any) -> PublishedCell:
    return PublishedCell(PrintedNumber(nll), preset, settings, 59_600, num_parameters)


def _depth(depth: int, preset: str, num_parameters: int, vae: dict[int, float], iwae: dict[int, float]):
    cells = {
        f"mnist/{depth}/{name}/{k}": _cell(nll, preset, num_parameters, objective=objective, num_samples=k)
        for name, objective, of_k in (("vae", "elbo_mc", vae), ("iwae", "iwae", iwae))
        for k, nll in of_k.items()
    }
    same = f"mnist/{depth}/iwae/1"
    cells[same] = cells[same]._replace(runs_of=f"mnist/{depth}/vae/1", differs=ONE_BOUND)
    return cells


TABLE = PublishedTable(
    paper="Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519",
    title="Importance Weighted Autoencoders",
    place="Table 1; fixed binarisation: appendix D",
    quantity=NLL,
    cells={
        **_depth(1, "burda2016", 425_284, {1: 86.76, 5: 86.47, 50: 86.35}, {1: 86.76, 5: 85.54, 50: 84.78}),
        **_depth(2, "burda2016_l2", 521_084, {1: 85.33, 5: 85.01, 50: 84.78}, {1: 85.33, 5: 83.89, 50: 82.90}),
        **{
            f"fixed/1/iwae/{k}": PublishedCell(
                PrintedNumber(nll),
                "burda2016",
                FIXED | {"objective": "iwae", "num_samples": k},
                50_000,
                425_284,
                differs=OWN_SPLIT,
            )
            for k, nll in {1: 88.71, 5: 87.63, 50: 87.10}.items()
        },
    },
    differs=(
        "the test set of grey MNIST is binarised once, with a seed of our own",
        "the initial weights and all noise are of our own seeds",
    ),
)
