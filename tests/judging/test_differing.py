"""The settings in which compared runs differ, and those that they share."""

from tests.run_samples import config
from vae.judging.differing import idle, parted


def parted_of(*settings):
    return parted([config(**one).flat() for one in settings])


def test_a_setting_is_shared_or_differing_as_those_that_read_it_say():
    shared, differing = parted_of({}, {"objective": "renyi", "num_samples": 5, "alpha": 0.5})
    assert differing["objective"] == ["elbo", "renyi"]
    assert differing["alpha"] == ["—", "0.5"]  # the default of both, which one of them reads
    assert differing["num_samples"] == ["1", "5"]
    assert shared["latent_dim"] == "2"
    assert not shared.keys() & differing.keys()
    assert not {"seed", "decay_steps", "beta"} & (shared.keys() | differing.keys())


def test_lists_are_texts():
    shared, differing = parted_of({"hidden_sizes": (20, 10)}, {"hidden_sizes": (16,)}, {})
    assert differing == {"hidden_sizes": ["20-10", "16", "16"]}
    assert shared["objective"] == "elbo"


def test_without_an_alternative_a_setting_says_nothing():
    assert "estimator" in idle(config().flat())
    assert "estimator" not in idle(config(objective="iwae", num_samples=2).flat())
