"""What a run is made of: `Settings` shape the program, `Hyperparameters` are numbers that flow through it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

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
CAPACITY_OF = ("example", "batch")
SCHEDULES = ("constant", "cosine", "stages")

# By the format of config.json that brought them: fields that older files lack, and what those runs did.
ADDED: dict[int, dict[str, Any]] = {2: {"capacity_of": "example"}}


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
    capacity_of: str = "example"  # capacity: whose KL is held at C, each example's or the batch's mean
    free_bits_group_size: int = 1  # free_bits: dimensions that share one threshold; 0: a whole stochastic layer
    aggregate_estimator: str = "stratified"  # beta_tcvae: of q(z) from a batch
    mmd_kernel: str = "imq"  # info
    discriminator_sizes: tuple[int, ...] = (1000, 1000, 1000)  # factor
    batch_size: int = 100  # B
    precision: str = "float32"
    schedule: str = "constant"
    clip_gradients: bool = False
    average_weights: bool = False

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """The inverse of `to_dict`, also after a round trip through JSON, which turns tuples into lists."""
        known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**known)


class Hyperparameters(NamedTuple):
    """Arrays (or numbers): a sweep can vmap over every leaf, and changing one never recompiles."""

    learning_rate: Any = 1e-3
    alpha: Any = 0.5  # renyi
    ciwae_beta: Any = 0.5  # ciwae
    beta: Any = 4.0  # beta
    warmup_steps: Any = 0.0  # warmup: steps until the KL has its full weight
    warmup_cycles: Any = 1.0  # warmup, cyclical: how often the weight rises from 0 to 1 in them
    capacity_weight: Any = 1000.0  # capacity: γ
    max_capacity: Any = 25.0  # capacity: C, in nats
    capacity_steps: Any = 0.0  # capacity: steps in which the target rises from 0 to C
    free_nats: Any = 0.25  # free_bits: λ, for each group
    mi_weight: Any = 1.0  # beta_tcvae
    tc_weight: Any = 6.0  # beta_tcvae
    dimension_weight: Any = 1.0  # beta_tcvae
    dip_off_diagonal: Any = 10.0  # dip_i, dip_ii
    dip_diagonal: Any = 10.0  # dip_i, dip_ii
    info_alpha: Any = 1.0  # info; 1: MMD-VAE, the Wasserstein autoencoder
    info_lambda: Any = 1000.0  # info
    mmd_scale: Any = 1.0  # info: of the kernel, in standard deviations of the prior
    factor_gamma: Any = 10.0  # factor
    adam_b1: Any = 0.9
    adam_b2: Any = 0.999
    adam_epsilon: Any = 1e-8
    max_gradient_norm: Any = 0.0  # read when settings.clip_gradients
    ema_decay: Any = 0.0  # read when settings.average_weights
    decay_steps: Any = 0.0  # cosine: the step at which the learning rate reaches zero
    stage_steps: Any = ()  # stages, [S]: the steps that each stage lasts
    stage_factors: Any = ()  # stages, [S]: each stage's learning rate as a fraction of `learning_rate`
