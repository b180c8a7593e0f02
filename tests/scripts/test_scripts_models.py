"""Every kind of model is trained, evaluated and drawn by the scripts, and what does not go together is refused."""

import numpy as np
import pytest

from tests.marks import soaked
from tests.script_runs import scripts
from vae.runs.files import read_json

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=16", "--epochs=1", "--workdir=x")
MODELS = {
    "full": ["--posterior=full"],
    "planar": ["--posterior=planar", "--num_flows=2", "--objective=elbo_mc"],
    "iaf": ["--posterior=iaf", "--num_flows=1", "--flow_hidden_size=8", "--objective=iwae", "--estimator=dreg"],
    "realnvp": ["--posterior=realnvp", "--num_flows=2", "--flow_hidden_size=8", "--objective=elbo_mc"],
    "mixture": ["--prior=mixture", "--prior_components=10", "--objective=elbo_mc"],
    "vamp": ["--prior=vamp", "--prior_components=10", "--objective=elbo_mc"],
    "flow": ["--prior=flow", "--num_flows=2", "--flow_hidden_size=8", "--objective=elbo_mc"],
    "two layers": ["--upper_latent_dim=3", "--upper_hidden_sizes=8", "--objective=iwae", "--estimator=stl"],
    "conditional": ["--conditional"],
}
DESCRIBED = {
    "full": "model: mlp 64-16-2-16-64, relu, posterior full, prior standard, likelihood bernoulli; objective elbo",
    "two layers": "model: mlp 64-16-2-8-3-8-2-16-64, relu, posterior diagonal, prior standard, likelihood bernoulli; ",
    "conditional": "likelihood bernoulli, given 10 classes; objective elbo",
}


# The library trains all of them; the flags of these are like those of the others, and other files call the scripts
# for a class-conditional model.
@pytest.mark.parametrize("name", soaked(MODELS, "full", "planar", "realnvp", "mixture", "flow", "conditional"))
def test_each_model_is_trained_and_some_are_evaluated_and_drawn(scripts, tmp_path, name):
    """Those that differ in what there is to print and to draw."""
    code, out, err = scripts.call(tmp_path, "train", *SMALL, *MODELS[name])
    assert (code, err) == (0, "")
    assert DESCRIBED.get(name, "") in out
    if name in ("full", "planar", "vamp", "two layers"):
        check_evaluated(scripts, tmp_path, name)
    if name in ("iaf", "vamp", "two layers", "conditional"):
        check_drawn(scripts, tmp_path, name)


def check_evaluated(scripts, folder, name):
    code, _, err = scripts.call(folder, "evaluate", "--workdir=x", "--num_samples=10", "--num_examples=10")
    assert (code, err) == (0, "")
    values = read_json(folder / "x" / "evaluation_test_10.json")
    assert values["elbo"] == pytest.approx(values["reconstruction"] - values["kl"])
    assert -100 < values["elbo"] < 0
    assert (values["kl_per_dimension"] is None) == (name != "full")
    assert 0 <= values["active_units"] <= values["latent_dims"][0]


def check_drawn(scripts, folder, name):
    code, out, err = scripts.call(folder, "generate", "--workdir=x", "--num_images=10", "--embeddings=test")
    assert (code, err) == (0, "")
    written = {(folder / line).name for line in out.splitlines()}
    expected = {"samples.png", "reconstructions.png", "traversals.png", "latent_space.png", "morph_0_1.gif"}
    assert expected <= written
    assert ("manifold.png" in written) == (name in ("iaf", "conditional"))  # in steps of a standard normal's quantiles
    with np.load(folder / "x" / "embeddings_test.npz") as arrays:
        assert arrays["mean"].shape == (360, 2)
        assert ("log_scale" in arrays) == (name != "iaf")


def test_a_run_goes_on_with_the_model_it_was_started_with(scripts, tmp_path):
    code, _, err = scripts.call(tmp_path, "train", *SMALL, *MODELS["two layers"])
    assert code == 0, err
    code, out, err = scripts.call(tmp_path, "train", "--workdir=x", "--epochs=2")
    assert (code, err) == (0, "")
    assert "epoch 2/2: " in out
    message = scripts.refusal(tmp_path, "train", "--workdir=x", "--epochs=2", "--upper_latent_dim=4")
    assert "upper_latent_dim is 3, not 4" in message


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (
            ["--posterior=realnpv"],
            "unknown posterior 'realnpv'; did you mean 'realnvp'? One of: diagonal, full, planar",
        ),
        (["--prior=vmap"], "unknown prior 'vmap'; did you mean 'vamp'? One of: standard, mixture, vamp, flow"),
        (["--upper_latent_dim=-1"], "must be a whole number at least 0"),
        (["--num_flows=0"], "must be a whole number at least 1 and at most 1000"),
        (["--prior_components=3"], "--prior_components has no effect with --prior=standard"),
        (["--upper_hidden_sizes=3"], "--upper_hidden_sizes has no effect with one stochastic layer"),
        (["--num_flows=3"], "--num_flows has no effect with --posterior=diagonal and --prior=standard"),
        (["--posterior=planar", "--flow_hidden_size=3"], "use --posterior=iaf or realnvp, or --prior=flow"),
        (
            ["--posterior=iaf"],
            "have no KL(q ‖ p) in closed form, which the objective needs; use elbo_mc",
        ),
        (["--upper_latent_dim=2", "--prior=vamp"], "prior vamp goes with upper_latent_dim 0 only"),
        (["--posterior=planar", "--prior=vamp"], "a VampPrior scores z under q(z|u), which posterior planar cannot"),
        (["--conditional", "--prior=vamp"], "the pseudo-inputs of a VampPrior have no class"),
        (["--latent_dim=1", "--posterior=realnvp"], "it needs a latent_dim of 2 or more"),
    ],
)
def test_what_has_no_effect_or_makes_no_sense_is_refused(scripts, tmp_path, flags, fragment):
    assert fragment in scripts.refusal(tmp_path, "train", *SMALL, *flags)


def test_a_conditional_model_needs_labels_that_training_has_seen(scripts, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 3
    np.savez(tmp_path / "bare.npz", images=images)
    np.savez(tmp_path / "new.npz", images=images, labels=labels, images_test=images, labels_test=labels + 1)
    flags = (*SMALL, "--conditional", "--batch_size=10")
    message = scripts.refusal(tmp_path, "train", *flags, "--dataset=bare.npz")
    assert "--conditional needs a label for every image" in message
    message = scripts.refusal(tmp_path, "train", *flags, "--dataset=new.npz")
    assert "--conditional cannot use the class 3 of" in message
