"""experiments/flags/laboratory.py: rows of the tables with options of their own, as fields of a run's settings."""

import pytest

from experiments.flags import laboratory
from experiments.flags.parsing import UsageError
from vae.configuration import resolve
from vae.datasets import load
from vae.objectives.table import ESTIMATORS, OBJECTIVES

DATASET = load("digits")


def pairs(objectives, estimators=("reparameterized",), **values):
    config = resolve({"dataset": "digits", "objective": "elbo_mc", **values}, DATASET)
    texts = {"objective": objectives, "estimator": estimators}
    chosen = {kind: laboratory.parse(kind, texts[kind]) for kind in laboratory.TABLES}
    return config, laboratory.estimators(config, DATASET, chosen)


def test_all_is_every_row_of_both_tables_whatever_they_are():
    _, found = pairs(["all"], ["all"])
    assert [(one.objective, one.estimator) for one in found] == [(a, b) for a in OBJECTIVES for b in ESTIMATORS]
    assert all((one.settings.objective, one.settings.estimator) == one[:2] for one in found)


def test_an_option_of_an_objective_is_its_field_and_nothing_else_of_the_run_changes():
    config, (one, plain) = pairs(["renyi:alpha=0.3", "renyi"], latent_dim=3)
    assert (one.objective, one.settings.objective) == ("renyi:alpha=0.3", "renyi")
    assert one.hyperparameters == config.hyperparameters._replace(alpha=0.3)
    assert plain.hyperparameters == config.hyperparameters
    assert one.settings == plain.settings
    assert one.settings.to_dict() == {**config.settings.to_dict(), "objective": "renyi"}


def test_the_objective_of_the_run_keeps_its_options_and_others_have_the_defaults_of_a_new_run():
    """dip_ii weighs the diagonal as the rest and dip_i ten times (Kumar et al. 2018); epochs become steps."""
    config, found = pairs(["renyi", "renyi:alpha=2", "dip_i", "dip_ii", "warmup"], objective="renyi", alpha=0.3)
    alphas = [one.hyperparameters.alpha for one in found]
    assert alphas == pytest.approx([0.3, 2, 0.3, 0.3, 0.3])
    assert [one.hyperparameters.dip_diagonal for one in found[2:4]] == [100, 10]
    assert found[4].hyperparameters.warmup_steps == 10 * (len(DATASET.train.images) // config.settings.batch_size)


def test_lists_choices_and_switches_are_written_as_on_a_command_line():
    (text,) = laboratory.parse("objective", ["factor:discriminator_sizes=10/20:discriminator_optimizer=shared"])
    assert text.given == {"discriminator_sizes": (10, 20), "discriminator_optimizer": "shared"}
    assert [one.text for one in laboratory.parse("estimator", ["stl", "stl", "dreg"])] == ["stl", "dreg"]


def test_an_option_that_another_one_makes_idle_is_refused_with_the_pair_that_it_is_of():
    with pytest.raises(UsageError, match=r"^warmup:warmup_cycles=2 with reparameterized: warmup_cycles has no eff"):
        pairs(["warmup:warmup_cycles=2"])
