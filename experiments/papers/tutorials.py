"""The jobs of the tutorials that newcomers know, as presets of this project: our own numbers of before."""

from __future__ import annotations

from experiments.papers.paper import MINUS_ELBO, PrintedNumber, PublishedCell, PublishedTable

TABLE = PublishedTable(
    paper="This project, before",
    title="The presets tutorial and mlp400",
    place="Measured results of experiments/README.md, seeds 0, 1, 2",
    quantity=MINUS_ELBO,
    cells={
        "tutorial": PublishedCell(PrintedNumber(153.25, 0.16), "tutorial", {}, 60_000, 404_244),
        "mlp400": PublishedCell(PrintedNumber(105.37, 0.17), "mlp400", {}, 60_000, 652_824),
    },
    num_samples=100,
    differs=(
        "the numbers of before were judged by one draw of z for each image, these by the mean over k draws",
        "pixels are grey, so that minus the ELBO is a cross-entropy and minus the log of no density",
    ),
)
