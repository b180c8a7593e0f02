"""configuration.py: what a run is by its flags; defaults as in the papers, and stored flags that are checked."""

import pytest

from experiments.flags import configuration
from experiments.flags.parsing import UsageError, with_dashes
from tests.flag_samples import parsed
from tests.run_samples import digits
from vae.configuration import ConfigurationError
from vae.runs.config import Config, write_config
from vae.runs.files import RunError

STEPS_PER_EPOCH = 1294 // 100


def configured(*arguments: str) -> Config:
    with parsed("--dataset=digits", *arguments) as flags:
        run = configuration.settle(flags, {})
    run.check()
    return run.config(digits())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--objective=dip_i"], 100.0),
        (["--objective=dip_ii"], 10.0),
        (["--objective=dip_i", "--dip_off_diagonal=5"], 50.0),
        (["--objective=dip_ii", "--dip_off_diagonal=5"], 5.0),
        (["--objective=dip_i", "--dip_diagonal=3"], 3.0),
    ],
)
def test_lambda_d_is_10_lambda_od_for_dip_i_and_equal_to_it_for_dip_ii(arguments, expected):
    """As Kumar et al. (2018) choose them in their experiments."""
    assert configured(*arguments).hyperparameters.dip_diagonal == expected


@pytest.mark.parametrize(
    ("arguments", "epochs"),
    [
        (["--warmup_shape=linear"], 10),
        (["--warmup_shape=sigmoid", "--epochs=7"], 10),
        (["--warmup_shape=cyclical", "--epochs=40"], 40),
        (["--warmup_shape=cyclical", "--epochs=40", "--warmup_epochs=8"], 8),
    ],
)
def test_cyclical_warmup_lasts_as_long_as_training(arguments, epochs):
    """Fu et al. (2019): four cycles over all iterations."""
    numbers = configured("--objective=warmup", *arguments).hyperparameters
    assert numbers.warmup_steps == epochs * STEPS_PER_EPOCH
    assert numbers.warmup_cycles == 4


def test_factor_vae_has_the_discriminator_of_the_paper():
    """Kim & Mnih (2018), appendix A: six layers of 1000, Adam with 1e-4, .5 and .9."""
    config = configured("--objective=factor")
    assert config.settings.discriminator_sizes == (1000,) * 6
    assert config.settings.discriminator_optimizer == "own"
    numbers = config.hyperparameters
    assert (numbers.discriminator_learning_rate, numbers.discriminator_b1, numbers.discriminator_b2) == (1e-4, 0.5, 0.9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--objective=warmup", "--warmup_cycles=8"],
            "--warmup_cycles has no effect with --warmup_shape=linear; leave it out, or use --warmup_shape=cyclical",
        ),
        (
            ["--warmup_cycles=4"],
            "--warmup_cycles has no effect with --objective=elbo; leave it out, or use --objective=",
        ),
        (
            ["--objective=iwae", "--num_groups=1"],
            "--num_groups has no effect with --objective=iwae; leave it out, or use --objective=miwae or piwae",
        ),
        (
            ["--num_flows=3"],
            "--num_flows has no effect with --posterior=diagonal and --prior=standard; leave it out, or use "
            "--posterior=planar, iaf or realnvp, or --prior=flow",
        ),
        (
            ["--posterior=planar", "--flow_hidden_size=3"],
            "--flow_hidden_size has no effect with --posterior=planar and --prior=standard; leave it out, or use "
            "--posterior=iaf or realnvp, or --prior=flow",
        ),
        (
            ["--objective=factor", "--discriminator_optimizer=shared", "--discriminator_b1=0.1"],
            "--discriminator_b1 has no effect with --discriminator_optimizer=shared",
        ),
        (["--discriminator_b1=0.1"], "--discriminator_b1 has no effect with --objective=elbo"),
    ],
)
def test_a_flag_without_effect_is_refused(arguments, words):
    with pytest.raises(ConfigurationError) as caught:
        configured(*arguments)
    assert with_dashes(str(caught.value)).startswith(words)


def test_stored_flags_of_an_older_folder_mean_what_they_meant():
    def settled(stored):
        with parsed("--dataset=digits") as flags:
            values = configuration.settle(flags, stored).values
        return values["discriminator_optimizer"], values["dip_diagonal"]

    assert settled({"objective": "factor", "dip_diagonal": 10.0, "warmup_epochs": 10.0}) == ("shared", 10.0)
    assert settled({}) == ("own", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", "two"),
        ("latent_dim", None),
        ("activation", "elu"),
        ("hidden_sizes", ["8", "-1"]),
        ("beta", "nan"),
    ],
)
def test_a_stored_flag_that_its_flag_would_refuse_is_one_line(name, value):
    wanted = pytest.raises(RunError, match=f"the flag {name} that was stored is")
    with parsed("--dataset=digits") as flags, wanted as caught:
        configuration.settle(flags, {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flags", [["--schedule=cosine"], ["--objective=warmup", "--warmup_shape=cyclical"]])
def test_what_ends_with_training_cannot_be_resumed_for_longer(tmp_path, flags):
    with parsed("--dataset=digits", *flags) as given:
        run = configuration.settle(given, {})
    write_config(tmp_path, run.config(digits()), flags=run.values)
    refused = pytest.raises(UsageError, match="ends at epoch 20, so --epochs=30 cannot be reached")
    with parsed("--epochs=30") as given, refused:
        configuration.resolve(given, tmp_path)
