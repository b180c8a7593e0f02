"""The flags, each defined once.

Imports neither jax nor vae's heavy modules: `--helpshort` answers at once.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments.flags.parsing import UsageError, choice, number, numbers, unknown
from experiments.flags.presets import PRESETS
from vae import settings as names
from vae.rules import as_float32

if TYPE_CHECKING:
    from vae.datasets import Dataset, Split

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # as in parsing.py

# A flag that only some choice gives a meaning: (flag, the flag that decides, the values it is read with).
ONLY_WITH = (
    ("channels", "network", ("conv",)),
    ("scale", "likelihood", ("normal",)),
    ("num_logistics", "likelihood", ("logistic_mixture",)),
    ("prior_components", "prior", ("mixture", "vamp")),
    ("stage_epochs", "schedule", ("stages",)),
    ("stage_factors", "schedule", ("stages",)),
    ("warmup_cycles", "warmup_shape", ("cyclical",)),
    ("discriminator_learning_rate", "discriminator_optimizer", ("own",)),
    ("discriminator_b1", "discriminator_optimizer", ("own",)),
    ("discriminator_b2", "discriminator_optimizer", ("own",)),
)

TRAINING_FLAGS: list[str] = []  # what config.json keeps, so that a run goes on
AXES: list[str] = []  # those of them that make a run what it is


def define_data() -> None:
    flags.DEFINE_string(
        "dataset", "mnist",
        "mnist, fashion_mnist, binarized_mnist, omniglot, digits, a path to an .npz file or to a folder of pictures, "
        "or a prepared TFDS data set",
    )  # fmt: skip
    number("validation", None, "training images held out (default: the data set's own rule)", least=0, integer=True)
    number("image_size", None, "side to which your own pictures are cropped and resized", least=1, integer=True)
    flags.DEFINE_string("data_dir", None, "where prepared data are kept (default: $VAE_DATA_DIR or ~/.cache/vae)")
    flags.DEFINE_string("manual_dir", None, "a folder that holds the original files of a data set")


def define_model() -> None:
    choice("network", "mlp", names.NETWORKS, "encoder and decoder")
    numbers("hidden_sizes", ["200", "200"], "the encoder's dense layers, mirrored by the decoder; may be empty",
            integer=True, may_be_empty=True)  # fmt: skip
    numbers("channels", ["32", "64"], "conv: channels of the layers, each of stride 2", integer=True)
    choice("activation", "tanh", names.ACTIVATIONS, "between layers")
    number("latent_dim", 50, "dimensions of z", least=1, integer=True)
    number("upper_latent_dim", 0, "dimensions of a second stochastic layer above; 0: none", least=0, integer=True)
    numbers("upper_hidden_sizes", ["100", "100"], "dense layers from the first stochastic layer to the second, "
            "mirrored on the way down; may be empty", integer=True, may_be_empty=True)  # fmt: skip
    choice("posterior", "diagonal", names.POSTERIORS, "q(z|x): a normal, or a flow of one")
    choice("prior", "standard", names.PRIORS, "p(z)")
    number("num_flows", 4, "steps of each flow", least=1, most=1000, integer=True)
    number("flow_hidden_size", 128, "iaf, realnvp, flow: units of the two layers in each step", least=1, integer=True)
    number("prior_components", 500, "mixture, vamp: components of the prior", least=1, integer=True)
    flags.DEFINE_bool("conditional", False, "encoder and decoder are given the label")
    choice("likelihood", "bernoulli", names.LIKELIHOODS, "p(x|z) of a pixel")
    flags.DEFINE_string("scale", "learned", "normal: the standard deviation, a number, 'learned' (from the spread "
                        "of the training images about their mean) or 'optimal'")  # fmt: skip
    flags.register_validator("scale", _check_scale)
    number("num_logistics", 5, "logistic_mixture: components for each value", least=1, most=100, integer=True)
    choice(
        "binarization", None, names.BINARIZATIONS,
        "of grey pixels (default: dynamic for the Bernoulli likelihood on grey data, otherwise none)",
    )  # fmt: skip


def define_training() -> None:
    choice("preset", None, list(PRESETS), "set several flags at once; those on the command line win")
    flags.DEFINE_string("objective", "elbo", "the bound that is maximised: a name in vae.objectives.OBJECTIVES")
    flags.register_validator("objective", _check_objective)
    choice("estimator", "reparameterized", names.ESTIMATORS, "of the bound's gradient")
    number("num_samples", 1, "K, samples of z per image", least=1, integer=True)
    number("num_groups", 1, "M, groups of K samples: miwae, piwae", least=1, integer=True)
    number("alpha", 0.5, "renyi: 0 is iwae, 1 the ELBO, and towards −∞ it is vr_max; Li & Turner (2016) train VAEs "
           "with 0, 0.5 and vr_max")  # fmt: skip
    number("ciwae_beta", 0.5, "ciwae: the weight of the ELBO; Rainforth et al. (2018) report 0.5 and 0.05", least=0,
           most=1)  # fmt: skip
    define_regularizers()
    number("epochs", 20, "passes over the training set", least=1, most=10**6, integer=True)
    number("batch_size", 100, "images in a step", least=1, integer=True)
    number("learning_rate", 1e-3, "Adam's step size", above=0)
    number("adam_b1", 0.9, "Adam's decay of the first moment", least=0, below=1)
    number("adam_b2", 0.999, "Adam's decay of the second moment", least=0, below=1)
    number("adam_epsilon", 1e-8, "Adam's epsilon", above=0)
    choice("schedule", "constant", names.SCHEDULES, "of the learning rate; cosine falls to 0 at --epochs")
    numbers("stage_epochs", ["1", "3", "9", "27"], "stages: how many epochs each lasts", integer=True)
    numbers("stage_factors", ["1", "0.72", "0.52", "0.37"], "stages: each one's fraction of --learning_rate")
    number("max_gradient_norm", 0.0, "clip the gradient to this norm; 0: no clipping", least=0)
    number("ema_decay", 0.0, "evaluate an exponential moving average of the weights; 0: off", least=0, below=1)
    choice("precision", "float32", names.PRECISIONS, "operands of matrix products")
    number("seed", 0, "of everything random", least=0, most=2**31 - 1, integer=True)
    flags.DEFINE_string("init_from", None, "start a new run from the parameters of this run folder")


def define_regularizers() -> None:
    """The numbers of single objectives; each is an error with the others."""
    number("beta", 4.0, "beta: the weight of the KL; Higgins et al. (2017) take 4 on dSprites", least=0)
    choice("warmup_shape", "linear", names.WARMUP_SHAPES, "warmup: how the weight of the KL rises to 1")
    number("warmup_epochs", None, "warmup: until the KL has its full weight (default: 10; cyclical: --epochs, as in Fu "
           "et al. 2019)", least=0)  # fmt: skip
    number("warmup_cycles", 4, "warmup, cyclical: rises within --warmup_epochs (4 in Fu et al. 2019)", least=1,
           integer=True)  # fmt: skip
    number("capacity_weight", 1000.0, "capacity: γ; Burgess et al. (2018) take 1000 on dSprites", least=0)
    number("max_capacity", 25.0, "capacity: C, the KL in nats that is reached; Burgess et al. take 25 on dSprites",
           least=0)  # fmt: skip
    number("capacity_epochs", 10.0, "capacity: in which the target rises from 0 to C, 0: it is C at once; Burgess et "
           "al. take 100,000 steps", least=0)  # fmt: skip
    choice("capacity_of", "example", names.CAPACITY_OF, "capacity: whose KL is held at C, each image's (Burgess et al. "
           "2018, eq. 8) or the batch's mean (most public code)")  # fmt: skip
    number("free_nats", 0.25, "free_bits: λ, nats of KL that each group has free; Kingma et al. (2016) try 0.125 to 2",
           least=0)  # fmt: skip
    number("free_bits_group_size", 1, "free_bits: dimensions in a group; 0: a whole stochastic layer", least=0,
           integer=True)  # fmt: skip
    number("mi_weight", 1.0, "beta_tcvae: the weight of the mutual information", least=0)
    number("tc_weight", 6.0, "beta_tcvae: the weight of the total correlation; Chen et al. (2018) take 6 on dSprites, "
           "and 1 for the other two", least=0)  # fmt: skip
    number("dimension_weight", 1.0, "beta_tcvae: the weight of the dimension-wise KL", least=0)
    choice("aggregate_estimator", "stratified", names.AGGREGATE_ESTIMATORS, "beta_tcvae: of q(z) from a batch; eq. 5 "
           "of Chen et al. is weighted, their appendix C.2 stratified, which is unbiased")  # fmt: skip
    number("dip_off_diagonal", 10.0, "dip_i, dip_ii: the weight of squared covariances", least=0)
    number("dip_diagonal", None, "dip_i, dip_ii: the weight of squared distances of variances from 1 (default: for "
           "dip_i 10 times --dip_off_diagonal and for dip_ii once, as in Kumar et al. 2018)", least=0)  # fmt: skip
    number("info_alpha", 1.0, "info: how much mutual information of x and z is worth, as 1 − α weighs the KL; 0: as "
           "in the ELBO, 1: no KL, the MMD-VAE of Zhao et al. (2019) and the Wasserstein autoencoder",
           most=1)  # fmt: skip
    number("info_lambda", 1000.0, "info: α + λ − 1 weighs the MMD² between q(z) and p(z); their code takes "
           "1 to 10 for each pixel, 784 to 7840 on MNIST", least=0)  # fmt: skip
    choice("mmd_kernel", "imq", names.MMD_KERNELS, "info: inverse multiquadratic (Tolstikhin et al. 2018) or Gaussian "
           "(Zhao et al. 2019)")  # fmt: skip
    number("mmd_scale", 1.0, "info: of the kernel, in standard deviations of the prior", above=0)
    number("factor_gamma", 10.0, "factor: the weight of the total correlation", least=0)
    numbers("discriminator_sizes", ["1000"] * 6, "factor: the discriminator's layers (as in Kim & Mnih 2018)",
            integer=True)  # fmt: skip
    choice("discriminator_optimizer", "own", names.DISCRIMINATOR_OPTIMIZERS, "factor: the discriminator's Adam; "
           "shared: the model's, as in runs before there was a choice")  # fmt: skip
    number("discriminator_learning_rate", 1e-4, "factor: of the discriminator's Adam (as in Kim & Mnih 2018)", above=0)
    number("discriminator_b1", 0.5, "factor: its decay of the first moment (as in Kim & Mnih 2018)", least=0, below=1)
    number("discriminator_b2", 0.9, "factor: its decay of the second moment (as in Kim & Mnih 2018)", least=0, below=1)


def define_distributed() -> None:
    flags.DEFINE_bool("distributed", False, "join the processes of a cluster; --devices is then of each of them")


def define_run() -> None:
    flags.DEFINE_string("workdir", None, "the run folder; a run in it is resumed (default: a new folder in runs/)")
    number("devices", 1, "devices that share each batch; 0: all there are", least=0, most=1024, integer=True)
    flags.DEFINE_bool("figures", True, "draw what the model makes of the test set once training is done")
    number("keep_last", 2, "newest checkpoints kept", least=1, integer=True)
    number("keep_best", 1, "checkpoints with the best validation bound kept", least=0, integer=True)


def define_trained_run() -> None:
    """The flags of a script that reads a finished run."""
    flags.DEFINE_string("workdir", None, "the run folder (required)")
    flags.DEFINE_string("checkpoint", "last", "last, best (highest validation bound) or a step")
    choice("split", "test", ("train", "validation", "test"), "the images to use")
    flags.DEFINE_string("data_dir", None, "where prepared data are kept (default: $VAE_DATA_DIR or ~/.cache/vae)")
    flags.DEFINE_string("manual_dir", None, "a folder that holds the original files of a data set")


def check_indices(name: str, num_images: int, split: str) -> None:
    """Raises UsageError where a position lies beyond the split."""
    if beyond := [value for value in FLAGS[name].value or [] if int(value) >= num_images]:
        raise UsageError(f"--{name}: there is no {split} image {beyond[0]}; the {num_images} images count from 0")


def trained_workdir() -> Path:
    """--workdir; raises UsageError where it holds no run, or where nothing can be written."""
    from vae.runs.folder import CONFIG

    if not FLAGS.workdir:
        raise UsageError("which run? Pass --workdir=FOLDER, the last line that experiments.train printed")
    workdir = Path(FLAGS.workdir).expanduser()
    if not (workdir / CONFIG).exists():
        raise UsageError(f"--workdir={workdir} holds no run (no {CONFIG}); train one with experiments.train")
    if not os.access(workdir, os.W_OK):
        raise UsageError(
            f"--workdir={workdir} cannot be written to; make it writable, or copy it to where you may write"
        )
    return workdir


def load_dataset(name: str, validation: int | None, image_size: int | None) -> Dataset:
    """A data set, from where --data_dir and --manual_dir say."""
    from vae import datasets

    return datasets.load(
        name, data_dir=FLAGS.data_dir, manual_dir=FLAGS.manual_dir, validation=validation, image_size=image_size
    )


def evaluated_split(workdir: Path, split: str, num_examples: int | None = None) -> tuple[Split, Any]:
    """The images of a run's split as they are evaluated, and their positions [N]; all, or a fixed random subset."""
    from vae.datasets import images
    from vae.runs.config import read_config

    config = read_config(workdir)
    dataset = load_dataset(config.dataset, config.validation, config.image_size)
    if not len(getattr(dataset, split).images):
        raise UsageError(f"--split={split} of this run is empty; use another split")
    return images.subset(images.stored(dataset, split, config.settings.binarization, training=False), num_examples)


def define_config() -> None:
    """Every flag that makes a run what it is."""
    before = set(FLAGS)
    define_data()
    define_model()
    define_training()
    TRAINING_FLAGS.extend(sorted(set(FLAGS) - before - {"preset"}))
    AXES.extend(sorted(set(TRAINING_FLAGS) - {"data_dir", "manual_dir"}))


def define_all() -> None:
    """Every flag of experiments.train."""
    define_config()
    before = set(FLAGS)
    define_run()
    TRAINING_FLAGS.extend(sorted(set(FLAGS) - before - {"workdir"}))
    define_distributed()  # how a run is started, not what it is


def _check_scale(value: str) -> bool:
    if value in ("learned", "optimal"):
        return True
    try:
        if 0 < as_float32(float(value)) < math.inf:
            return True
    except ValueError:
        pass
    raise flags.ValidationError("must be 'learned', 'optimal' or a positive number")


def _check_objective(name: str) -> bool:
    if name == "elbo":
        return True
    from vae.objectives import OBJECTIVES

    if name in OBJECTIVES:
        return True
    raise flags.ValidationError(unknown("objective", name, list(OBJECTIVES)))
