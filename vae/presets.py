"""Several values under one name; one that is asked for by itself wins over its preset."""

from typing import Any

BURDA = {
    "dataset": "mnist", "validation": 400, "binarization": "dynamic", "network": "mlp", "hidden_sizes": (200, 200),
    "activation": "tanh", "objective": "elbo_mc", "batch_size": 20, "shuffle": "never", "optimizer": "adam_burda",
    "learning_rate": 1e-3, "adam_b1": 0.99, "adam_b2": 0.999, "adam_epsilon": 1e-4, "epochs": 3280,
    "schedule": "stages", "stage_epochs": (1, 3, 9, 27, 81, 243, 729, 2187),
    "stage_factors": (1.0, 0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.1),
}  # fmt: skip
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
    # Burda et al. (2016) as their code has it, with one stochastic layer and with two: 3,280 epochs.
    "burda2016": BURDA | {"latent_dim": 50},
    "burda2016_l2": BURDA | {"latent_dim": 100, "upper_latent_dim": 50, "upper_hidden_sizes": (100, 100)},
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
