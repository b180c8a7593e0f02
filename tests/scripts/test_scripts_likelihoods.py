"""Each likelihood through the scripts: a run, its evaluation and its pictures; and what it refuses in one line."""

import math

import numpy as np
import pytest

from tests.marks import soaked
from tests.script_runs import scripts
from vae.models.table import LIKELIHOODS, MASSES
from vae.runs.config import read_config
from vae.runs.files import read_json

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=8", "--epochs=1", "--batch_size=200")
FLAGS = {
    **{name: [f"--likelihood={name}"] for name in LIKELIHOODS if name != "bernoulli"},
    "logistic_mixture": ["--likelihood=logistic_mixture", "--num_logistics=2"],
    "optimal": ["--likelihood=normal", "--scale=optimal"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the runs are; one .npz off the 1/255 grid and one of black and white pixels."""
    folder = tmp_path_factory.mktemp("runs")
    generator = np.random.default_rng(0)
    np.savez(folder / "between.npz", images=generator.uniform(size=(40, 4, 4)).astype(np.float32))
    np.savez(folder / "binary.npz", images=generator.integers(0, 2, (40, 4, 4)).astype(np.uint8))
    return folder


@pytest.mark.parametrize("name", soaked(FLAGS, "normal", "continuous_bernoulli", "categorical", "discretized_logistic"))
def test_a_run_with_each_likelihood_trains_and_evaluates_on_grey_values(scripts, folder, name):
    code, out, err = scripts.call(folder, "train", *SMALL, *FLAGS[name], f"--workdir={name}")
    assert (code, err) == (0, "")
    settings = read_config(folder / name).settings
    assert settings.binarization == "none"
    assert settings.scale == ("optimal" if name == "optimal" else None)
    assert settings.num_logistics == (2 if name == "logistic_mixture" else 5)
    assert f"likelihood {settings.likelihood}; objective elbo" in out
    code, out, err = scripts.call(folder, "evaluate", f"--workdir={name}", "--num_samples=5", "--num_examples=10")
    assert (code, err) == (0, "")
    values = read_json(folder / name / "evaluation_test_10.json")
    bits = values["bits_per_dimension"]
    if LIKELIHOODS[settings.likelihood].of == MASSES:
        assert bits == pytest.approx(-values["log_likelihood"] / 64 / math.log(2))
    # Many of these pixels are black: their cell is open for a normal, and half as wide for the continuous Bernoulli.
    of_whole_cells = -values["log_likelihood"] / 64 / math.log(2) + math.log2(255)
    if settings.likelihood == "normal":
        assert bits < of_whole_cells - 0.5
    if settings.likelihood == "continuous_bernoulli":
        assert bits > of_whole_cells + 0.1
    assert 0 < bits < 12
    line = next(line for line in out.splitlines() if line.startswith("bits per dimension"))
    assert float(line.split()[-1]) == pytest.approx(bits, abs=0.006)


def test_training_says_where_a_model_is_worse_than_uniform(scripts, folder):
    """σ = 1 is more than any spread of values in [0, 1]; a continuous Bernoulli begins at their mean."""
    flags = ("--likelihood=normal", "--scale=1", "--workdir=wide")
    _, out, _ = scripts.call(folder, "train", *SMALL, *flags)
    assert " nats is below 0.00, that of a uniform distribution; train for more --epochs, or use --scale=opt" in out
    _, out, _ = scripts.call(folder, "train", *SMALL, "--likelihood=continuous_bernoulli", "--workdir=mean_image")
    assert "uniform" not in out


def test_bits_per_dimension_are_not_given_for_a_cross_entropy(scripts, folder):
    assert scripts.call(folder, "train", *SMALL, "--workdir=bernoulli").code == 0
    assert scripts.call(folder, "evaluate", "--workdir=bernoulli", "--num_samples=5", "--num_examples=10").code == 0
    assert "bits_per_dimension" not in read_json(folder / "bernoulli" / "evaluation_test_10.json")


@pytest.mark.parametrize(
    "name",
    # One with a density, and one with masses.
    soaked(
        ["continuous_bernoulli", "logistic_mixture", "optimal", "categorical"], "continuous_bernoulli", "categorical"
    ),
)
def test_pictures_are_drawn_of_each_likelihood(scripts, folder, name):
    if not (folder / name).exists():
        scripts.call(folder, "train", *SMALL, *FLAGS[name], f"--workdir={name}")
    code, out, err = scripts.call(folder, "generate", f"--workdir={name}", "--num_images=4")
    assert (code, err) == (0, "")
    written = [folder / line for line in out.splitlines()]
    assert {"samples.png", "reconstructions.png", "manifold.png"} <= {path.name for path in written}
    assert all(path.stat().st_size for path in written)


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (
            ["--likelihood=normal", "--binarization=dynamic"],
            "the likelihood normal is a density, whose value at black and white pixels has no upper bound; "
            "use --likelihood=bernoulli, or --binarization=none",
        ),
        (["--likelihood=continuous_bernoulli", "--dataset=binary.npz"], "no upper bound; use --likelihood=bernoulli"),
        (["--likelihood=categorical", "--binarization=threshold"], "is of 256 grey values, and these pixels are black"),
        (["--likelihood=logistic_mixture", "--dataset=binary.npz"], "is of 256 grey values, and these pixels are bla"),
        (
            ["--likelihood=discretized_logistic", "--dataset=between.npz"],
            "between.npz has values between them; use --likelihood=continuous_bernoulli or normal, or save the images",
        ),
        (["--likelihood=categorial"], "unknown likelihood 'categorial'; did you mean 'categorical'? One of: bernoulli"),
        (["--num_logistics=3"], "--num_logistics has no effect with --likelihood=bernoulli; leave it out, or use"),
        (["--scale=optimal"], "--scale has no effect with --likelihood=bernoulli; leave it out, or use"),
        (["--likelihood=normal", "--scale=optimum"], "must be 'learned', 'optimal' or a positive number"),
        (["--likelihood=logistic_mixture", "--num_logistics=0"], "must be a whole number at least 1 and at most 100"),
    ],
)
def test_a_likelihood_that_does_not_fit_is_refused_in_one_line(scripts, folder, flags, fragment):
    # The preset chooses a binarisation of grey digits.
    preset = ["--latent_dim=2", "--batch_size=4"] if any("npz" in flag for flag in flags) else SMALL
    assert fragment in scripts.refusal(folder, "train", *preset, *flags, "--workdir=new")


def test_a_density_of_values_between_the_grid_has_no_bits(scripts, folder):
    flags = ("--dataset=between.npz", "--likelihood=normal", "--scale=0.2", "--batch_size=8", "--epochs=1")
    code, _, err = scripts.call(folder, "train", *flags, "--workdir=between")
    assert (code, err) == (0, "")
    assert read_config(folder / "between").settings.scale == 0.2
    assert scripts.call(folder, "evaluate", "--workdir=between", "--num_samples=5", "--num_examples=4").code == 0
    assert "bits_per_dimension" not in read_json(folder / "between" / "evaluation_test_4.json")
