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

from vae.objectives.regularizer_table import CONTROLLED, REGULARIZERS
from vae.objectives.rows import (
    DISTANT,
    HELD_PRIOR,
    NOT_SMOOTH,
    OWN_GRADIENT,
    Baseline,
    Bound,
    EstimatorRow,
    ObjectiveRow,
)
from vae.options import Option, Row, choice, number, whole

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
