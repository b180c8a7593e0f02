"""How a model is trained: optimisers, schedules of the learning rate, and what all runs are asked for.

Their equations stand in optimizers.py. Imports neither jax nor numpy.
"""

from __future__ import annotations

from vae.options import Option, Row, choice, number, numbers, whole
from vae.rules import LARGEST, Number, Numbers

SCHEDULES = {
    "constant": Row(),
    "cosine": Row(),
    "stages": Row(
        stage_epochs=numbers(
            (1, 3, 9, 27), "stages: how many epochs each lasts; 0.05 is a twentieth of an epoch, in whole steps",
            static=False, in_epochs=True, unset=(), field_rule=Numbers(Number(integer=True, least=1, most=LARGEST)),
        ),
        stage_factors=numbers(
            (1, 0.72, 0.52, 0.37), "stages: each one's fraction of `learning_rate`", static=False, unset=()
        ),
    ),
}  # fmt: skip
OPTIMIZERS = {
    "adam": Row(),
    "adam_burda": Row(),
}
TRAINING: dict[str, Option] = {
    "batch_size": whole(100, "images in a step"),
    "shuffle": choice(
        "epoch", ("epoch", "never"), "a new order of the training images in each epoch, or always their own", since=5
    ),
    "optimizer": choice(
        "adam", OPTIMIZERS, "Adam (Kingma & Ba 2015), or Adam as the code of Burda et al. (2016) has it", since=5
    ),
    "learning_rate": number(1e-3, "Adam's step size", above=0),
    "adam_b1": number(0.9, "Adam's decay of the first moment", least=0, below=1),
    "adam_b2": number(0.999, "Adam's decay of the second moment", least=0, below=1),
    "adam_epsilon": number(1e-8, "Adam's epsilon", above=0),
    "schedule": choice("constant", SCHEDULES, "of the learning rate; cosine falls to 0 at `epochs`"),
    "max_gradient_norm": number(0.0, "clip the gradient to this norm; 0: no clipping", least=0),
    "ema_decay": number(0.0, "evaluate an exponential moving average of the weights; 0: off", least=0, below=1),
    "precision": choice(
        "float32",
        ("float32", "bfloat16"),
        "operands of matrix products; float32 is not rounded to TF32 by a GPU or to bfloat16 by a TPU",
    ),
}
