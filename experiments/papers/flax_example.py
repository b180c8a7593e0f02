"""The VAE among the examples of flax: 784-500-20 on grey MNIST, ten epochs."""

from __future__ import annotations

from experiments.papers.paper import MINUS_ELBO, PrintedNumber, PublishedCell, PublishedTable

SETTINGS = {
    "dataset": "mnist", "validation": 0, "binarization": "none", "network": "mlp", "hidden_sizes": (500,),
    "activation": "relu", "latent_dim": 20, "objective": "elbo", "batch_size": 128, "epochs": 10,
    "learning_rate": 1e-3,
}  # fmt: skip
QUOTED_BY = "noted of a run of the example; an early version of its README gives 107.05 ± 0.25 over five runs"

TABLE = PublishedTable(
    paper="The example vae of flax, github.com/google/flax",
    title="Basic VAE Example",
    place="test loss after ten epochs",
    quantity=MINUS_ELBO,
    cells={"mnist": PublishedCell(PrintedNumber(103.60, quoted_by=QUOTED_BY), None, SETTINGS, 60_000, 815_824)},
    num_samples=100,
    differs=(
        "ten epochs, as the example had for years; its newest version trains 30",
        "the example judges by one draw of z for each image, ours by the mean over k draws",
        "the initial weights: Glorot-uniform, with an output bias at the logit of the mean image; the example's are "
        "LeCun-normal, with biases of 0",
        "pixels are grey, so that the loss is a cross-entropy and minus the log of no density",
    ),
)
