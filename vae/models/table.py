"""What p and q can be: the tables of networks, activations, posteriors, priors and likelihoods.

To add a likelihood: a function of the settings in likelihoods.py, and a row in `LIKELIHOODS`. To add a network: its
encoder and decoder in networks.py, and a row in `NETWORKS`. An option of its own stands in its row:

    "student_t": LikelihoodRow("vae.models.likelihoods:student_t", of=DENSITY, degrees=number(5.0, "…", since=…)),

is `settings.degrees` (`static=True`: it changes the program) and the flag --degrees, an error with other likelihoods.
See vae/options.py for what an option says. Imports neither jax nor numpy.
"""

from __future__ import annotations

from vae.options import LARGEST, Opened, Option, Row, choice, number_or, sizes, switch, whole
from vae.rules import Choice, Nullable, Number

BINARIZATIONS = ("dynamic", "fixed", "threshold", "none")
DENSITY, MASSES = "density", "masses"  # what log p(x|z) is the logarithm of, if not a probability of 0 and 1


class NetworkRow(Row):
    """`path` is the encoder's class."""

    decoder: str = ""
    gated: bool = False  # a hidden layer is (W h + b) ⊙ σ(V h + c), without an activation


class PosteriorRow(Row):
    """`path` is a function of the settings; see posteriors.py."""

    can_score: bool = True  # q.log_prob(z) of a given z exists
    least_latent_dim: int = 1


class PriorRow(Row):
    """`path` is a function of the settings; see priors.py."""

    redraws: bool = False  # it has parameters with which a sample of it moves, by `redrawn`
    encodes: bool = False  # its components are q(z|u) of learned images u: q has to score z, and u has no class
    least_latent_dim: int = 1


class LikelihoodRow(Row):
    """`path` is a function of the settings; see likelihoods.py."""

    of: str = ""  # DENSITY on [0, 1], or MASSES of the 256 values k/255; the Bernoulli likelihood is of any of these
    any_values: bool = False  # also of values outside [0, 1]


NUM_FLOWS = whole(4, "steps of each flow", most=1000)
FLOW_HIDDEN_SIZE = whole(128, "iaf, realnvp, flow: units of the two layers in each step")
PRIOR_COMPONENTS = whole(500, "mixture, vamp: components of the prior")

ACTIVATIONS = {name: Row(f"flax.linen:{name}") for name in ("relu", "tanh", "gelu", "silu")}
ACTIVATION = choice("tanh", ACTIVATIONS, "mlp, conv: between layers")
CHANNELS = sizes((32, 64), "conv, gated_conv: channels of the layers, each of stride 2", unset=())
MLP = {"path": "vae.models.networks:MLPEncoder", "decoder": "vae.models.networks:MLPDecoder"}
CONV = {"path": "vae.models.networks:ConvEncoder", "decoder": "vae.models.networks:ConvDecoder"}
NETWORKS = {
    "mlp": NetworkRow(**MLP, activation=ACTIVATION),
    "conv": NetworkRow(**CONV, activation=ACTIVATION, channels=CHANNELS),
    "gated_mlp": NetworkRow(**MLP, gated=True),
    "gated_conv": NetworkRow(**CONV, gated=True, channels=CHANNELS),
}
POSTERIORS = {
    "diagonal": PosteriorRow("vae.models.posteriors:diagonal"),
    "full": PosteriorRow("vae.models.posteriors:full"),
    "planar": PosteriorRow("vae.models.posteriors:planar", can_score=False, num_flows=NUM_FLOWS),
    "iaf": PosteriorRow(
        "vae.models.posteriors:iaf", least_latent_dim=2, num_flows=NUM_FLOWS, flow_hidden_size=FLOW_HIDDEN_SIZE
    ),
    "realnvp": PosteriorRow(
        "vae.models.posteriors:realnvp", least_latent_dim=2, num_flows=NUM_FLOWS, flow_hidden_size=FLOW_HIDDEN_SIZE
    ),
}
PRIORS = {
    "standard": PriorRow("vae.models.priors:standard"),
    "mixture": PriorRow("vae.models.priors:mixture", prior_components=PRIOR_COMPONENTS),
    "vamp": PriorRow("vae.models.priors:vamp", encodes=True, prior_components=PRIOR_COMPONENTS),
    "flow": PriorRow(
        "vae.models.priors:flow",
        redraws=True,
        least_latent_dim=2,
        num_flows=NUM_FLOWS,
        flow_hidden_size=FLOW_HIDDEN_SIZE,
    ),
}
INITIAL_SCALE = choice(
    "spread", ("spread", "wide"), "normal, discretized_logistic, logistic_mixture: where a learned scale begins; "
    "spread: at that of the training images about their mean image; wide: as in runs before there was a choice, at 1, "
    "or of logistics at that of black and white pixels",
    since=3, before="wide",
)  # fmt: skip
LIKELIHOODS = {
    "bernoulli": LikelihoodRow("vae.models.likelihoods:bernoulli"),
    "continuous_bernoulli": LikelihoodRow("vae.models.likelihoods:continuous_bernoulli", of=DENSITY),
    "normal": LikelihoodRow(
        "vae.models.likelihoods:normal",
        of=DENSITY,
        any_values=True,
        scale=number_or(
            "learned", ("learned", "optimal"), "normal: the standard deviation, a number, 'learned' or 'optimal'",
            field_rule=Nullable((Number(above=0), Choice(("optimal",)))), unset=None,
            rows={"learned": Row(initial_scale=INITIAL_SCALE)},
        ),
    ),
    "discretized_logistic": LikelihoodRow(
        "vae.models.likelihoods:discretized_logistic", of=MASSES, initial_scale=INITIAL_SCALE
    ),
    "logistic_mixture": LikelihoodRow(
        "vae.models.likelihoods:logistic_mixture",
        of=MASSES,
        num_logistics=whole(5, "logistic_mixture: components for each value", most=100),
        initial_scale=INITIAL_SCALE,
    ),
    "categorical": LikelihoodRow("vae.models.likelihoods:categorical", of=MASSES),
}  # fmt: skip

# Two stochastic layers are not a posterior of their own: they replace both q and p if there is an upper layer.
TWO_LAYERS = Opened(
    otherwise="one stochastic layer", example=50,
    upper_hidden_sizes=sizes(
        (100, 100), "dense layers from the first stochastic layer to the second, mirrored on the way down; may be "
        "empty", may_be_empty=True,
    ),
)  # fmt: skip
MODEL: dict[str, Option] = {
    "network": choice("mlp", NETWORKS, "encoder and decoder"),
    "hidden_sizes": sizes(
        (200, 200), "the encoder's dense layers, mirrored by the decoder; may be empty", may_be_empty=True
    ),
    "latent_dim": whole(50, "dimensions of z"),
    "upper_latent_dim": whole(
        0, "dimensions of a second stochastic layer above; 0: none", least=0, above_zero=TWO_LAYERS
    ),
    "posterior": choice("diagonal", POSTERIORS, "q(z|x): a normal, or a flow of one"),
    "prior": choice("standard", PRIORS, "p(z)"),
    "conditional": switch(
        "encoder and decoder are given the label", field="num_classes", unset=0,
        field_rule=Number(integer=True, least=0, most=LARGEST),
    ),
    "likelihood": choice("bernoulli", LIKELIHOODS, "p(x|z) of a pixel"),
    "binarization": choice(
        None, BINARIZATIONS,
        "of grey pixels (default: dynamic for the Bernoulli likelihood on grey data, otherwise none)", unset="dynamic",
    ),
}  # fmt: skip
