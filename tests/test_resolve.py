"""configuration.py: from values by name to a run's Config, without flags."""

import jax
import numpy as np
import pytest

from experiments.flags import configuration as flag_configuration
from experiments.flags.parsing import with_dashes
from tests.flag_samples import parsed
from tests.run_samples import digits
from vae.configuration import ConfigurationError, resolve
from vae.datasets.dataset import Dataset, Split
from vae.models import model as models
from vae.models.model import Batch
from vae.presets import PRESETS
from vae.settings import Hyperparameters, Settings

STEPS_PER_EPOCH = 1294 // 100


def refusal(**values) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve(values, digits())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_given_takes_its_default():
    config = resolve({"dataset": "digits"}, digits())
    assert config.settings == Settings((8, 8, 1))
    in_steps = {"warmup_steps": 10.0 * STEPS_PER_EPOCH, "capacity_steps": 10.0 * STEPS_PER_EPOCH}
    assert config.hyperparameters == Hyperparameters(**in_steps)
    assert (config.dataset, config.epochs, config.seed, config.validation) == ("digits", 20, 0, None)


@pytest.mark.parametrize(
    ("values", "flags"),
    [
        ({"objective": "renyi", "alpha": -2, "num_samples": 5}, "--objective=renyi --alpha=-2 --num_samples=5"),
        ({"network": "conv", "channels": (8, 4), "hidden_sizes": []}, "--network=conv --channels=8,4 --hidden_sizes="),
        ({"likelihood": "normal", "scale": 0.1}, "--likelihood=normal --scale=0.1"),
        ({"likelihood": "normal", "scale": "optimal"}, "--likelihood=normal --scale=optimal"),
        ({"likelihood": "normal"}, "--likelihood=normal"),
        (
            {"schedule": "stages", "stage_epochs": ["1", "2"], "stage_factors": [1, 0.5]},
            "--schedule=stages --stage_epochs=1,2 --stage_factors=1,0.5",
        ),
        ({"objective": "warmup", "warmup_shape": "cyclical"}, "--objective=warmup --warmup_shape=cyclical"),
        ({"objective": "dip_ii", "conditional": True}, "--objective=dip_ii --conditional"),
        (PRESETS["digits"], "--preset=digits"),
        ({"schedule": "cosine", "ema_decay": 0.9, "max_gradient_norm": 1}, "--schedule=cosine --ema_decay=.9 "
         "--max_gradient_norm=1"),
    ],
    ids=str,
)  # fmt: skip
def test_values_give_the_config_that_the_same_flags_give(values, flags):
    with parsed("--dataset=digits", *flags.split()) as given:
        of_flags = flag_configuration.settle(given, {}).config(digits())
    assert resolve({"dataset": "digits"} | values, digits()) == of_flags


def test_a_value_that_is_asked_for_wins_over_its_preset_which_may_have_no_effect():
    asked = {"upper_latent_dim": 0, "latent_dim": 3}
    config = resolve(PRESETS["burda2016_fixed_l2"] | asked, digits(), given=asked)
    assert (config.settings.latent_dim, config.settings.objective) == (3, "elbo_mc")
    assert "`upper_hidden_sizes` has no effect" in refusal(**PRESETS["burda2016_fixed_l2"] | asked)


def test_burda2016_is_the_protocol_of_the_authors_code():
    """yburda/iwae: experiments.py, train.py, optimizers.py, datasets.py; its numbers are typed in."""
    images = np.broadcast_to(np.uint8(0), (59_600, 28, 28, 1))
    config = resolve(
        PRESETS["burda2016"], Dataset("mnist", Split(images), Split(images[:400]), Split(images[:1]), False)
    )
    numbers, settings = config.hyperparameters, config.settings
    assert numbers.stage_steps == (2980, 8940, 26820, 80460, 241380, 724140, 2172420, 6517260)
    assert np.cumsum(numbers.stage_steps).tolist() == [2980 * n for n in (1, 4, 13, 40, 121, 364, 1093, 3280)]
    assert config.epochs * (59_600 // settings.batch_size) == 9_774_400
    rates = [numbers.learning_rate * factor for factor in numbers.stage_factors]
    assert rates == pytest.approx([10e-4, 7.2e-4, 5.2e-4, 3.7e-4, 2.7e-4, 1.9e-4, 1.4e-4, 1e-4])
    assert (config.validation, settings.binarization, settings.shuffle) == (400, "dynamic", "never")
    assert (settings.optimizer, numbers.adam_b1, numbers.adam_b2, numbers.adam_epsilon) == (
        "adam_burda",
        0.99,
        0.999,
        1e-4,
    )
    mean = jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32)
    init = lambda key, x: models.build(settings).init(key, Batch(x), 0.3)  # noqa: E731
    params = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)), mean)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 425_284


def test_a_stage_lasts_a_whole_number_of_steps_and_at_least_one():
    values = {
        "dataset": "digits",
        "schedule": "stages",
        "stage_epochs": (1e-9, 0.05, 2),
        "stage_factors": (1, 0.5, 0.1),
    }
    steps = resolve(values, digits()).hyperparameters.stage_steps
    assert steps == (1, round(0.05 * STEPS_PER_EPOCH), 2 * STEPS_PER_EPOCH)


def test_a_stored_value_that_no_choice_reads_stays_as_it_is_except_where_the_field_is_then_empty():
    """Runs of before keep it in their config.json, and are resumed only with the same one."""
    stored = {"dip_diagonal": 10.0, "alpha": 0.3, "warmup_epochs": 2.0, "channels": (8,), "scale": "0.1"}
    config = resolve(stored, digits(), given=())
    numbers = config.hyperparameters
    assert (numbers.dip_diagonal, numbers.alpha, numbers.warmup_steps) == (10.0, 0.3, 2.0 * STEPS_PER_EPOCH)
    assert (config.settings.channels, config.settings.scale) == ((), None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lerning_rate": 1e-3}, "unknown option 'lerning_rate'; did you mean 'learning_rate'?"),
        ({"objective": "elbow"}, "unknown objective 'elbow'; did you mean 'elbo'? One of: elbo, beta, "),
        ({"latent_dim": 2.5}, "`latent_dim=2.5`: must be a whole number at least 1"),
        ({"learning_rate": float("nan")}, "`learning_rate=nan`: must be a finite float32 number above 0"),
        ({"hidden_sizes": 200}, "`hidden_sizes=200`: must be a list of numbers"),
        ({"hidden_sizes": ["8", "x"]}, "`hidden_sizes=8,x`: must be a whole number at least 1"),
        ({"likelihood": "normal", "scale": -1}, "`scale=-1`: must be 'learned', 'optimal' or a positive number"),
        ({"latent_dim": None}, "`latent_dim=None`: must be a whole number at least 1"),
        ({"alpha": 0.5}, "`alpha` has no effect with `objective=elbo`; leave it out, or use `objective=renyi`"),
        (
            {"objective": "beta", "weight_epochs": 5},
            "`weight_epochs` has no effect with `weight_schedule=constant`; leave it out, or use "
            "`weight_schedule=linear, sigmoid or cyclical`",
        ),
        ({"objective": "elbo", "weight_schedule": "linear"}, "`weight_schedule` has no effect with `objective=elbo`"),
        (
            {"objective": "warmup", "warmup_balance": True},
            "`warmup_balance` has no effect on one stochastic layer",
        ),
        ({"objective": "geco", "geco_min": 200}, "`geco_min=200` is above `geco_max=100`; give them in this order"),
        ({"schedule": "stages", "stage_epochs": (1, 2)}, "`stage_epochs` has 2 stages and `stage_factors` 4; give one"),
        ({"likelihood": "categorical", "binarization": None, "num_logistics": 3}, "`num_logistics` has no effect with"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_that_speaks_of_names(values, words):
    assert refusal(**values).startswith(words)


def test_names_are_shown_to_a_user_of_flags_as_flags_and_nothing_else_is():
    shown = with_dashes("`alpha` has no effect; use `objective=miwae or piwae`; `runs/A b` and 'seed' stay")
    assert shown == "--alpha has no effect; use --objective=miwae or piwae; `runs/A b` and 'seed' stay"
