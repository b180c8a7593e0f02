"""What a run is made of: `Settings` shape the program, `Hyperparameters` are numbers that flow through it.

Each field's rule stands in `RULES`. Imports neither jax nor numpy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from vae.rules import Choice, Named, Nullable, Number, Numbers, Rule, Switch, Text

NETWORKS = ("mlp", "conv")
ACTIVATIONS = ("relu", "tanh")
LIKELIHOODS = (
    "bernoulli",
    "continuous_bernoulli",
    "normal",
    "discretized_logistic",
    "logistic_mixture",
    "categorical",
)
POSTERIORS = ("diagonal", "full", "planar", "iaf", "realnvp")
PRIORS = ("standard", "mixture", "vamp", "flow")
BINARIZATIONS = ("dynamic", "fixed", "threshold", "none")
PRECISIONS = ("float32", "bfloat16")
ESTIMATORS = ("reparameterized", "stl", "dreg", "score")
WARMUP_SHAPES = ("linear", "sigmoid", "cyclical")
AGGREGATE_ESTIMATORS = ("stratified", "weighted")
MMD_KERNELS = ("imq", "rbf")
SCHEDULES = ("constant", "cosine", "stages")
DISCRIMINATOR_OPTIMIZERS = ("own", "shared")

FORMAT = 2  # of config.json; a file that gives none is of format 1

# By format: the fields that came with it, and what a file of an older format means by not having them.
ADDED: dict[int, dict[str, Any]] = {
    2: {
        "discriminator_optimizer": "shared",
        "discriminator_learning_rate": 1e-4,  # not read with the shared optimiser
        "discriminator_b1": 0.5,
        "discriminator_b2": 0.9,
    },
}


class SettingsError(ValueError):
    """A value that a field cannot have; one line for the user."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Static: changing one of these changes shapes or the compiled program."""

    image_shape: tuple[int, int, int]  # H, W, C
    network: str = "mlp"
    hidden_sizes: tuple[int, ...] = (200, 200)  # the encoder's; the decoder mirrors them
    channels: tuple[int, ...] = ()  # conv only: each layer halves the resolution
    activation: str = "tanh"
    latent_dim: int = 50
    upper_latent_dim: int = 0  # of a second stochastic layer above; 0: none
    upper_hidden_sizes: tuple[int, ...] = (100, 100)  # from the lower layer to the upper; mirrored on the way down
    posterior: str = "diagonal"
    prior: str = "standard"
    num_flows: int = 4  # steps of a flow, in the posterior and in the prior
    flow_hidden_size: int = 128  # of the two layers of each step's network
    prior_components: int = 500  # of the mixture and vamp priors
    num_classes: int = 0  # encoder and decoder are given the label; 0: they are not
    likelihood: str = "bernoulli"
    scale: float | str | None = None  # normal only: a fixed standard deviation, or "optimal"; None learns one
    num_logistics: int = 5  # logistic_mixture only: components for each value
    binarization: str = "dynamic"
    objective: str = "elbo"
    estimator: str = "reparameterized"
    num_samples: int = 1  # K
    num_groups: int = 1  # M, of the multiply importance-weighted bounds
    warmup_shape: str = "linear"  # warmup
    free_bits_group_size: int = 1  # free_bits: dimensions that share one threshold; 0: a whole stochastic layer
    aggregate_estimator: str = "stratified"  # beta_tcvae: of q(z) from a batch
    mmd_kernel: str = "imq"  # info
    discriminator_sizes: tuple[int, ...] = (1000,) * 6  # factor
    discriminator_optimizer: str = "own"  # factor; shared: Adam of the model
    batch_size: int = 100  # B
    precision: str = "float32"
    schedule: str = "constant"
    clip_gradients: bool = False
    average_weights: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Hyperparameters(NamedTuple):
    """Arrays (or numbers): a sweep can vmap over every leaf, and changing one never recompiles."""

    learning_rate: Any = 1e-3
    alpha: Any = 0.5  # renyi
    ciwae_beta: Any = 0.5  # ciwae
    beta: Any = 4.0  # beta
    warmup_steps: Any = 0.0  # warmup: steps until the KL has its full weight
    warmup_cycles: Any = 4.0  # warmup, cyclical: how often the weight rises from 0 to 1 in them
    capacity_weight: Any = 100.0  # capacity: γ
    max_capacity: Any = 25.0  # capacity: C, in nats
    capacity_steps: Any = 0.0  # capacity: steps in which the target rises from 0 to C
    free_nats: Any = 0.25  # free_bits: λ, for each group
    mi_weight: Any = 1.0  # beta_tcvae
    tc_weight: Any = 6.0  # beta_tcvae
    dimension_weight: Any = 1.0  # beta_tcvae
    dip_off_diagonal: Any = 10.0  # dip_i, dip_ii
    dip_diagonal: Any = 100.0  # dip_i, dip_ii
    info_alpha: Any = 0.0  # info; 1: the Wasserstein autoencoder
    info_lambda: Any = 100.0  # info
    mmd_scale: Any = 1.0  # info: of the kernel, in standard deviations of the prior
    factor_gamma: Any = 10.0  # factor
    discriminator_learning_rate: Any = 1e-4  # factor, with an optimiser of its own
    discriminator_b1: Any = 0.5
    discriminator_b2: Any = 0.9
    adam_b1: Any = 0.9
    adam_b2: Any = 0.999
    adam_epsilon: Any = 1e-8
    max_gradient_norm: Any = 0.0  # read when settings.clip_gradients
    ema_decay: Any = 0.0  # read when settings.average_weights
    decay_steps: Any = 0.0  # cosine: the step at which the learning rate reaches zero
    stage_steps: Any = ()  # stages, [S]: the steps that each stage lasts
    stage_factors: Any = ()  # stages, [S]: each stage's learning rate as a fraction of `learning_rate`


COUNT, SIZE = (Number(integer=True, least=least, most=10**12) for least in (1, 0))
WEIGHT, DECAY = Number(least=0), Number(least=0, below=1)
# What each field of `Settings`, of `Hyperparameters` and of a run's Config may be.
RULES: dict[str, Rule] = {
    "image_shape": Numbers(COUNT, length=3),
    "network": Choice(NETWORKS),
    "hidden_sizes": Numbers(COUNT, may_be_empty=True),
    "channels": Numbers(COUNT, may_be_empty=True),
    "activation": Choice(ACTIVATIONS),
    "latent_dim": COUNT,
    "upper_latent_dim": SIZE,
    "upper_hidden_sizes": Numbers(COUNT, may_be_empty=True),
    "posterior": Choice(POSTERIORS),
    "prior": Choice(PRIORS),
    "num_flows": Number(integer=True, least=1, most=1000),
    "flow_hidden_size": COUNT,
    "prior_components": COUNT,
    "num_classes": SIZE,
    "likelihood": Choice(LIKELIHOODS),
    "scale": Nullable((Number(above=0), Choice(("optimal",)))),
    "num_logistics": Number(integer=True, least=1, most=100),
    "binarization": Choice(BINARIZATIONS),
    "objective": Text(),  # a name in vae.objectives.OBJECTIVES, which is not imported here
    "estimator": Choice(ESTIMATORS),
    "num_samples": COUNT,
    "num_groups": COUNT,
    "warmup_shape": Choice(WARMUP_SHAPES),
    "free_bits_group_size": SIZE,
    "aggregate_estimator": Choice(AGGREGATE_ESTIMATORS),
    "mmd_kernel": Choice(MMD_KERNELS),
    "discriminator_sizes": Numbers(COUNT),
    "discriminator_optimizer": Choice(DISCRIMINATOR_OPTIMIZERS),
    "batch_size": COUNT,
    "precision": Choice(PRECISIONS),
    "schedule": Choice(SCHEDULES),
    "clip_gradients": Switch(),
    "average_weights": Switch(),
    "learning_rate": Number(above=0),
    "alpha": Number(),
    "ciwae_beta": Number(least=0, most=1),
    "beta": WEIGHT,
    "warmup_steps": WEIGHT,
    "warmup_cycles": Number(least=1),
    "capacity_weight": WEIGHT,
    "max_capacity": WEIGHT,
    "capacity_steps": WEIGHT,
    "free_nats": WEIGHT,
    "mi_weight": WEIGHT,
    "tc_weight": WEIGHT,
    "dimension_weight": WEIGHT,
    "dip_off_diagonal": WEIGHT,
    "dip_diagonal": WEIGHT,
    "info_alpha": Number(most=1),
    "info_lambda": WEIGHT,
    "mmd_scale": Number(above=0),
    "factor_gamma": WEIGHT,
    "discriminator_learning_rate": Number(above=0),
    "discriminator_b1": DECAY,
    "discriminator_b2": DECAY,
    "adam_b1": DECAY,
    "adam_b2": DECAY,
    "adam_epsilon": Number(above=0),
    "max_gradient_norm": WEIGHT,
    "ema_decay": DECAY,
    "decay_steps": WEIGHT,
    "stage_steps": Numbers(COUNT, may_be_empty=True),
    "stage_factors": Numbers(Number(above=0), may_be_empty=True),
    "settings": Named(),
    "hyperparameters": Named(),
    "dataset": Text(),
    "epochs": COUNT,
    "seed": Number(integer=True, least=0, most=2**31 - 1),
    "validation": Nullable((SIZE,)),
    "image_size": Nullable((COUNT,)),
    "init_from": Nullable((Text(),)),
}


def read(values: dict[str, Any], names: Sequence[str], file_format: int) -> dict[str, Any]:
    """The fields `names`, as the JSON object `values` of a file of `file_format` has them; lists become tuples.

    A field that is newer than the file takes the value that `ADDED` declares. Raises SettingsError for a field that is
    missing, that is none of `names`, or that breaks its rule.
    """
    newer = {name: value for number, added in ADDED.items() if number > file_format for name, value in added.items()}
    known = [name for name in names if name not in newer]
    if unknown := [name for name in values if name not in known]:
        raise SettingsError(f"it has an unknown field {unknown[0]!r}")
    if missing := [name for name in known if name not in values]:
        raise SettingsError(f"it lacks {missing[0]!r}")
    for name, value in values.items():
        if reason := RULES[name].fault(value):
            raise SettingsError(f"its {name} is {str(value)[:60]!r}, but {reason}")
    return {name: _as_field(name, newer[name] if name in newer else values[name]) for name in names}


def _as_field(name: str, value: Any) -> Any:
    """JSON has no tuples, and writes 4.0 as 4."""
    if isinstance(value, list):
        return tuple(value)
    rule = RULES[name]
    return float(value) if isinstance(rule, Number) and not rule.integer else value
