"""Objectives that weigh terms besides the reconstruction: the tables of regularised and of controlled ELBOs.

Their equations stand in regularized.py, aggregate.py, factor.py and controlled.py. Imports neither jax nor numpy.
"""

from __future__ import annotations

from vae.objectives.rows import DISTANT, NO_LOG_WEIGHTS, ObjectiveRow, Regularizer
from vae.options import Row, choice, number, sizes, switch, whole

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
