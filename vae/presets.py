"""Several values under one name; one that is asked for by itself wins over its preset."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # The job of the tutorials this project grew out of, with the bound written right.
    "tutorial": {
        "dataset": "mnist", "validation": 0, "binarization": "none", "network": "mlp", "hidden_sizes": (256,),
        "activation": "relu", "latent_dim": 2, "batch_size": 32, "epochs": 10, "learning_rate": 1e-3,
    },
    # The network of most first examples: 784-400-20 on grey MNIST.
    "mlp400": {
        "dataset": "mnist", "validation": 0, "binarization": "none", "network": "mlp", "hidden_sizes": (400,),
        "activation": "relu", "latent_dim": 20, "batch_size": 128, "epochs": 10, "learning_rate": 1e-3,
    },
    # One stochastic layer of Burda et al. (2016), on a fixed binarisation.
    "burda2016_fixed": {
        "dataset": "mnist", "binarization": "fixed", "network": "mlp", "hidden_sizes": (200, 200),
        "activation": "tanh", "latent_dim": 50, "batch_size": 100, "learning_rate": 1e-3,
    },
    # Its two stochastic layers.
    "burda2016_fixed_l2": {
        "dataset": "mnist", "binarization": "fixed", "network": "mlp", "hidden_sizes": (200, 200),
        "activation": "tanh", "latent_dim": 100, "upper_latent_dim": 50, "upper_hidden_sizes": (100, 100),
        "objective": "elbo_mc", "batch_size": 100, "learning_rate": 1e-3,
    },
    # Small enough for a laptop's battery: 8x8 digits, needs no download.
    "digits": {
        "dataset": "digits", "binarization": "none", "network": "mlp", "hidden_sizes": (128,), "activation": "relu",
        "latent_dim": 2, "batch_size": 32, "epochs": 20, "learning_rate": 1e-3,
    },
}  # fmt: skip
