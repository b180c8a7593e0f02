"""What can be maximised: the tables of bounds on log-weights, of regularised ELBOs, and of gradient estimators.

To add a bound with a number: a function in bounds.py, and a row in `BOUNDS`.

    def tempered(log_w: Float[Array, "K B"], temperature: Scalar) -> Float[Array, "B"]: …

    "tempered": Bound("vae.objectives.bounds:tempered", temperature=number(2.0, "of the weights", above=0, since=…)),

That is the flag --temperature, with its help and its bounds; an error with every other objective; a field of
`Hyperparameters`, which the function is given under its name and a sweep can vary; and a field of config.json since a
new format, one more than that of today (`vae.settings.FORMAT`), so that older runs load. A test holds each row against
the signature of its function. Imports neither jax nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae.options import Option, Row, choice, number, sizes, switch, whole

DISTANT = ("stl", "dreg", "gdreg", "score", "ovis", "covariance")  # all estimators except reparameterized
NOT_SMOOTH = dict.fromkeys(
    ("dreg", "gdreg"),
    "it needs the second derivative of a maximum, which is a pulse at ties; use reparameterized, stl or score",
)
HELD_PRIOR = "the encoder's bound, for which the estimator is, holds the prior; use dreg"
NO_LOG_WEIGHTS = "its value is no function of log-weights; use the objective elbo_mc, or reparameterized"
OWN_GRADIENT = "reweighted wake-sleep is a gradient of its own; use reparameterized, or dreg for its wake phase of q"


class EstimatorRow(Row):
    """`path` is a function as those of estimators.py."""

    needs_density: bool = False  # of q at a given z
    redraws_prior: bool = False  # it moves samples with the prior's parameters
    least_samples: int = 1
    only: tuple[str, ...] = ()  # the bounds that it is made for; all if there are none
    more_samples: str = ""  # the option that says how many it draws besides those of the bound


class ObjectiveRow(Row):
    """What is true of an objective except its equation."""

    builder: str = ""  # the function of the settings that returns the Objective
    refuses: Mapping[str, str] = {}
    needs_density: bool = False  # of q at a given z, whatever the estimator
    needs_closed_form_kl: bool = False  # for its value to mean something; what cannot be computed says so itself
    of_batch: bool = False  # its bound of an example depends on the others in the batch: no gradient in slices
    least_batch: int = 1  # images that it compares with each other
    least_samples: int = 1
    leaves_out: int = 0  # samples that its terms leave out: it needs more than these
    of_sizes: bool = False  # its value depends on the sizes of the batch and of z, whose runs compare by the ELBO
    of_one_sample: bool = False  # of one sample, K·M = 1, it is log w
    same_as: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # the simpler objective that it is with these values
    holds: tuple[str, str, str] | None = (
        None  # a metric, the option with its wanted value, and the metric of the weight
    )

    @property
    def grouped(self) -> bool:
        """Whether its log-weights are [M, K, B]."""
        return "num_groups" in self.options


class Bound(ObjectiveRow):
    """A function `path(log_w, **options)` of bounds.py: [K, B] → [B], to be maximised."""

    builder = "vae.objectives.log_weights:from_log_weights"


class Regularizer(ObjectiveRow):
    """reconstruction − Σ weight · term, with the terms of a function `path(latents, **options)`."""

    builder = "vae.objectives.regularized:regularized"
    refuses = dict.fromkeys(DISTANT, NO_LOG_WEIGHTS)
    of_batch = True  # unless the row says that its terms are functions of one example
    draws: bool = False  # it takes a `key`
    scheduled: tuple[str, ...] = ()  # the terms whose weights `weight_schedule` multiplies, if it reads that


class Baseline(Row):
    """A control variate of the score-function estimator."""

    leaves_out: int = 0  # samples that the bound is without in it


BASELINES = {"none": Baseline(), "leave_one_out": Baseline(leaves_out=1), "vimco": Baseline()}
ESTIMATORS = {
    "reparameterized": EstimatorRow("vae.objectives.estimators:reparameterized"),
    "stl": EstimatorRow("vae.objectives.estimators:stl", needs_density=True),
    "dreg": EstimatorRow("vae.objectives.estimators:dreg", needs_density=True),
    "gdreg": EstimatorRow("vae.objectives.estimators:gdreg", needs_density=True, redraws_prior=True),
    "score": EstimatorRow(
        "vae.objectives.estimators:score",
        needs_density=True,
        least_samples=2,
        baseline=choice(
            "vimco", BASELINES, "score: what the bound is compared with for a sample: nothing, the bound of the "
            "others, or the bound with the mean of the others as its log w (Mnih & Rezende 2016)", since=5,
        ),
    ),
    "ovis": EstimatorRow(
        "vae.objectives.estimators:ovis",
        needs_density=True,
        more_samples="ovis_samples",
        ovis_samples=whole(1, "ovis: S, samples besides the K of the bound, for the control variate", since=5),
    ),
    "covariance": EstimatorRow(
        "vae.objectives.estimators:covariance", needs_density=True, least_samples=2, only=("tvo",)
    ),
}  # fmt: skip

TVO_SCHEDULES = {
    "log_uniform": Row(
        tvo_beta=number(
            0.03, "tvo, log_uniform: β₁; the code of Masrani et al. (2019) takes 0.01, 0.02 and 0.03 with 5, 10 and 50 "
            "samples", above=0, below=1, since=5,
        ),
    ),
    "linear": Row(),
    "moments": Row(),
}  # fmt: skip
NUM_GROUPS = whole(1, "M, groups of K samples: miwae, piwae")
BOUNDS: dict[str, Bound] = {
    "elbo_mc": Bound("vae.objectives.bounds:elbo_mc"),
    "iwae": Bound("vae.objectives.bounds:iwae", of_one_sample=True),
    "miwae": Bound(
        "vae.objectives.bounds:miwae",
        same_as=(("elbo_mc", {"num_samples": 1}), ("iwae", {"num_groups": 1})),
        num_groups=NUM_GROUPS,
    ),
    "piwae": Bound(
        "vae.objectives.bounds:piwae",
        builder="vae.objectives.log_weights:piwae",
        refuses={"gdreg": HELD_PRIOR},
        of_one_sample=True,
        same_as=(("iwae", {"num_groups": 1}),),
        num_groups=NUM_GROUPS,
    ),
    "ciwae": Bound(
        "vae.objectives.bounds:ciwae",
        of_one_sample=True,
        same_as=(("iwae", {"ciwae_beta": 0}), ("elbo_mc", {"ciwae_beta": 1})),
        ciwae_beta=number(
            0.5, "ciwae: the weight of the ELBO; Rainforth et al. (2018) report 0.5 and 0.05", least=0, most=1
        ),
    ),
    "renyi": Bound(
        "vae.objectives.bounds:renyi",
        of_one_sample=True,
        same_as=(("iwae", {"alpha": 0}), ("elbo_mc", {"alpha": 1})),
        alpha=number(
            0.5, "renyi: 0 is iwae, 1 the ELBO, and towards −∞ it is vr_max; Li & Turner (2016) train VAEs with 0, 0.5 "
            "and vr_max",
        ),
    ),
    "vr_max": Bound("vae.objectives.bounds:vr_max", refuses=NOT_SMOOTH, of_one_sample=True),
    "tvo": Bound(
        "vae.objectives.bounds:tvo",
        of_one_sample=True,
        same_as=(("elbo_mc", {"tvo_partitions": 1, "tvo_sum": "left"}),),
        tvo_partitions=whole(5, "tvo: intervals of β between 0 and 1 (5 in Masrani et al. 2019)", since=5),
        tvo_schedule=choice(
            "log_uniform", TVO_SCHEDULES, "tvo: the points β: log_uniform, 0 and equal ratios from β₁ to 1; linear, "
            "equal steps; moments, equal steps of E_β[log w] (Brekelmans et al. 2020)", since=5,
        ),
        tvo_sum=choice(
            "left", ("left", "right"), "tvo: left sums are at most the IWAE bound, right ones at least", since=5
        ),
    ),
    "jackknife_1": Bound("vae.objectives.bounds:jackknife_1", leaves_out=1),
    "jackknife_2": Bound("vae.objectives.bounds:jackknife_2", leaves_out=2),
}  # fmt: skip

WARMUP_SHAPES = {
    "linear": Row(),
    "sigmoid": Row(),
    "cyclical": Row(
        warmup_cycles=whole(
            4, "warmup, cyclical: rises within `warmup_epochs` (4 in Fu et al. 2019)", static=False
        ),
    ),
}  # fmt: skip
WEIGHT_EPOCHS = {
    "weight_epochs": number(
        10.0, "weight_schedule: until the weight is whole", least=0, in_epochs=True, since=5, unset=0.0
    ),
}
WEIGHT_SCHEDULES = {
    "constant": Row(),
    "linear": Row("", **WEIGHT_EPOCHS),
    "sigmoid": Row("", **WEIGHT_EPOCHS),
    "cyclical": Row(
        "",
        **WEIGHT_EPOCHS,
        weight_cycles=whole(
            4, "weight_schedule, cyclical: rises within `weight_epochs`", static=False, since=5, before=4
        ),
    ),
}
SCHEDULE = {
    "weight_schedule": choice(
        "constant", WEIGHT_SCHEDULES, "how the objective's own weight rises from 0: of the KL (beta, free_bits), of "
        "|KL − C| (capacity), of the total correlation (beta_tcvae, factor), of covariances (dip_i, dip_ii), of the "
        "MMD (info)", since=5,
    ),
}  # fmt: skip
DIP = {
    "dip_off_diagonal": number(10.0, "dip_i, dip_ii: the weight of squared covariances", least=0),
    "dip_diagonal": number(
        None, "dip_i, dip_ii: the weight of squared distances of variances from 1 (default: for dip_i 10 times "
        "`dip_off_diagonal` and for dip_ii once, as in Kumar et al. 2018)", least=0, unset=100.0,
    ),
}  # fmt: skip
DISCRIMINATOR_OPTIMIZERS = {
    "own": Row(
        discriminator_learning_rate=number(
            1e-4, "factor: of the discriminator's Adam (as in Kim & Mnih 2018)", above=0, since=2
        ),
        discriminator_b1=number(
            0.5, "factor: its decay of the first moment (as in Kim & Mnih 2018)", least=0, below=1, since=2
        ),
        discriminator_b2=number(
            0.9, "factor: its decay of the second moment (as in Kim & Mnih 2018)", least=0, below=1, since=2
        ),
    ),
    "shared": Row(),
}
REGULARIZERS: dict[str, Regularizer] = {
    "elbo": Regularizer("vae.objectives.regularized:elbo", of_batch=False),
    "beta": Regularizer(
        "vae.objectives.regularized:beta",
        of_batch=False,
        same_as=(("elbo", {"beta": 1}),),
        scheduled=("kl",),
        **SCHEDULE,
        beta=number(4.0, "beta: the weight of the KL; Higgins et al. (2017) take 4 on dSprites", least=0),
    ),
    "warmup": Regularizer(
        "vae.objectives.regularized:warmup",
        of_batch=False,
        same_as=(("elbo", {"warmup_steps": 0}),),
        warmup_shape=choice("linear", WARMUP_SHAPES, "warmup: how the weight of the KL rises to 1"),
        warmup_epochs=number(
            None, "warmup: until the KL has its full weight (default: 10; cyclical: `epochs`, as in Fu et al. 2019)",
            least=0, in_epochs=True,
        ),
        warmup_balance=switch(
            "warmup, of two stochastic layers: until then, weigh the KL of each by what it carries (Vahdat & Kautz "
            "2020)", since=5,
        ),
    ),
    "capacity": Regularizer(
        "vae.objectives.regularized:capacity",
        needs_closed_form_kl=True,  # |KL − C| of a KL from samples is too large by their noise
        scheduled=("capacity_gap",),
        **SCHEDULE,
        capacity_weight=number(1000.0, "capacity: γ; Burgess et al. (2018) take 1000 on dSprites", least=0),
        max_capacity=number(
            25.0, "capacity: C, the KL in nats that is reached; Burgess et al. take 25 on dSprites", least=0
        ),
        capacity_epochs=number(
            10.0, "capacity: in which the target rises from 0 to C, 0: it is C at once; Burgess et al. take 100,000 "
            "steps", least=0, in_epochs=True,
        ),
        capacity_of=choice(
            "example", ("example", "batch"), "capacity: whose KL is held at C, each image's (Burgess et al. 2018, "
            "eq. 8) or the batch's mean (most public code)", since=2,
        ),
    ),
    "free_bits": Regularizer(
        "vae.objectives.regularized:free_bits",
        of_sizes=True,
        same_as=(("elbo", {"free_nats": 0}),),
        scheduled=("free_bits_kl",),
        **SCHEDULE,
        free_nats=number(
            0.25, "free_bits: λ, nats of KL that each group has free; Kingma et al. (2016) try 0.125 to 2", least=0
        ),
        free_bits_group_size=whole(
            1, "free_bits: dimensions in a group; 0: a whole stochastic layer", least=0
        ),
    ),
    "beta_tcvae": Regularizer(
        "vae.objectives.aggregate:beta_tcvae",
        of_sizes=True,
        least_batch=2,  # of one image, q(z) is q(z|x): the total correlation is 0
        same_as=(("elbo_mc", {"mi_weight": 1, "tc_weight": 1, "dimension_weight": 1}),),
        scheduled=("total_correlation",),
        **SCHEDULE,
        mi_weight=number(1.0, "beta_tcvae: the weight of the mutual information", least=0),
        tc_weight=number(
            6.0, "beta_tcvae: the weight of the total correlation; Chen et al. (2018) take 6 on dSprites, and 1 for "
            "the other two", least=0,
        ),
        dimension_weight=number(1.0, "beta_tcvae: the weight of the dimension-wise KL", least=0),
        aggregate_estimator=choice(
            "stratified", ("stratified", "weighted"), "beta_tcvae: of q(z) from a batch; eq. 5 of Chen et al. is "
            "weighted, their appendix C.2 stratified, which is unbiased",
        ),
    ),
    "dip_i": Regularizer(
        "vae.objectives.aggregate:dip_i",
        of_sizes=True,
        least_batch=2,  # one image has no covariance
        same_as=(("elbo", {"dip_off_diagonal": 0, "dip_diagonal": 0}),),
        scheduled=("covariance_off_diagonal", "covariance_diagonal"),
        **SCHEDULE,
        **DIP,
    ),
    "dip_ii": Regularizer(
        "vae.objectives.aggregate:dip_ii",
        of_sizes=True,
        least_batch=2,  # the same: what would be pulled to 1 is each posterior's own variance
        same_as=(("elbo", {"dip_off_diagonal": 0, "dip_diagonal": 0}),),
        scheduled=("covariance_off_diagonal", "covariance_diagonal"),
        **SCHEDULE,
        **DIP,
    ),
    "info": Regularizer(
        "vae.objectives.aggregate:info",
        of_sizes=True,
        draws=True,
        least_batch=2,  # the MMD compares draws of different images
        same_as=(("elbo", {"info_alpha": 0, "info_lambda": 1}),),
        scheduled=("mmd",),
        **SCHEDULE,
        info_alpha=number(
            1.0, "info: how much mutual information of x and z is worth, as 1 − α weighs the KL; 0: as in the ELBO, "
            "1: no KL, the MMD-VAE of Zhao et al. (2019) and the Wasserstein autoencoder", most=1,
        ),
        info_lambda=number(
            1000.0, "info: α + λ − 1 weighs the MMD² between q(z) and p(z); their code takes 1 to 10 for each pixel, "
            "784 to 7840 on MNIST", least=0,
        ),
        mmd_kernel=choice(
            "imq", ("imq", "imq_sum", "rbf"), "info: inverse multiquadratic, or the sum over seven scales of the code "
            "of Tolstikhin et al. (2018), or Gaussian (Zhao et al. 2019)",
        ),
        mmd_scale=number(1.0, "info: of the kernel, in standard deviations of the prior", above=0),
    ),
    "factor": Regularizer(
        "vae.objectives.factor:factor",
        builder="vae.objectives.factor:with_discriminator",
        of_sizes=True,
        least_batch=2,  # one image cannot be permuted: there is nothing to tell apart
        same_as=(("elbo", {"factor_gamma": 0}),),
        scheduled=("total_correlation",),
        **SCHEDULE,
        factor_gamma=number(10.0, "factor: the weight of the total correlation", least=0),
        discriminator_sizes=sizes(
            (1000,) * 6, "factor: the discriminator's layers (as in Kim & Mnih 2018)"
        ),
        discriminator_optimizer=choice(
            "own", DISCRIMINATOR_OPTIMIZERS, "factor: the discriminator's Adam; shared: the model's, as in runs before "
            "there was a choice", since=2, before="shared",
        ),
    ),
}  # fmt: skip

CONTROLLED: dict[str, ObjectiveRow] = {
    "geco": ObjectiveRow(
        builder="vae.objectives.controlled:geco",
        refuses=dict.fromkeys(DISTANT, NO_LOG_WEIGHTS),
        holds=("reconstruction", "geco_reconstruction", "multiplier"),
        geco_reconstruction=number(
            -80.0, "geco: κ, nats of E log p(x|z) that are to be reached; about what a trained `elbo` has, which "
            "depends on the data", since=5,
        ),
        geco_decay=number(
            0.99, "geco: α, of the constraint's moving average (as in Rezende & Viola 2018)", least=0, below=1, since=5
        ),
        geco_rate=number(1e-3, "geco: ν, by which the multiplier grows for each nat that is missing", above=0, since=5),
        geco_min=number(0.01, "geco: the least multiplier", above=0, since=5),
        geco_max=number(100.0, "geco: the largest multiplier", above=0, since=5),
    ),
    "control": ObjectiveRow(
        builder="vae.objectives.controlled:control",
        refuses=dict.fromkeys(DISTANT, NO_LOG_WEIGHTS),
        holds=("kl", "control_kl", "beta"),
        control_kl=number(
            30.0, "control: the set point of the KL in nats; Shao et al. (2020) take 170 to 200 for faces, above that "
            "of the ELBO", least=0, since=5,
        ),
        control_kp=number(0.01, "control: K_p (as in Shao et al. 2020)", least=0, since=5),
        control_ki=number(
            1e-4, "control: K_i; Shao et al. (2020) take 0.0001, and 0.001 on dSprites", least=0, since=5
        ),
        control_min=number(
            0.0, "control: the least β; Shao et al. (2020) take 0, and 1 on dSprites", least=0, since=5
        ),
        control_max=number(
            1.0, "control: the largest β; Shao et al. (2020) take 1, and 100 on dSprites", above=0, since=5
        ),
    ),
}  # fmt: skip

OBJECTIVES: dict[str, ObjectiveRow] = {
    **REGULARIZERS,
    **CONTROLLED,
    **BOUNDS,
    "rws": ObjectiveRow(
        builder="vae.objectives.log_weights:rws",
        refuses={estimator: OWN_GRADIENT for estimator in DISTANT if estimator != "dreg"},
        needs_density=True,
        least_samples=2,
        rws_phase=choice(
            "wake_q", ("wake_q", "sleep_q", "both"), "rws: what q is trained on: samples of the posterior, by weights; "
            "what the model draws; or half of each", since=5,
        ),
    ),
}  # fmt: skip
# Pairs of objective and estimator that make no sense, and why.
REFUSED = {(name, estimator): why for name, row in OBJECTIVES.items() for estimator, why in row.refuses.items()}
for estimator, how in ESTIMATORS.items():
    for name in (name for name in OBJECTIVES if how.only and name not in how.only):
        REFUSED.setdefault((name, estimator), f"it is made for {' and '.join(how.only)}; use score")
OBJECTIVE: dict[str, Option] = {
    "objective": choice("elbo", OBJECTIVES, "the bound that is maximised"),
    "estimator": choice("reparameterized", ESTIMATORS, "of the bound's gradient"),
    "num_samples": whole(1, "K, samples of z per image"),
}
