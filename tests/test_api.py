"""vae.train, vae.evaluate and vae.load_run: what the scripts do, without a folder or with one."""

import json

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

import vae
from vae.configuration import ConfigurationError
from vae.datasets import DataError
from vae.datasets.digits import load as load_digits
from vae.models.checks import LikelihoodError
from vae.models.model import Batch, weigh
from vae.runs.folder import CONFIG
from vae.runs.metrics import read_metrics
from vae.training.record import TrainingFailed

SMALL = {"hidden_sizes": (16,), "latent_dim": 2, "batch_size": 100, "epochs": 2, "objective": "iwae", "num_samples": 5}


@pytest.fixture(scope="module")
def grey():
    return load_digits()[0].images[:400]


@pytest.fixture(scope="module")
def run(grey):
    return vae.train(grey, **SMALL)


def test_images_in_memory_are_trained_on_without_a_folder_and_without_a_word(grey, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen = []
    run = vae.train(grey, report=seen.append, **SMALL)
    assert not any(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")
    assert [(row["epoch"], row["split"]) for row in run.metrics] == [
        (epoch, split) for epoch in (1.0, 2.0) for split in ("train", "validation")
    ]
    assert [progress.epoch for progress in seen if progress.epoch_ended] == [1.0, 2.0]
    assert seen[-1].held_out_bound == run.metrics[-1]["iwae"]
    assert len(run.dataset.train.images) == 360
    assert len(run.dataset.validation.images) == 40
    assert run.step == 2 * 3
    assert run.config.settings.image_shape == (8, 8, 1)


def test_all_images_are_trained_on_with_no_validation(grey):
    run = vae.train(grey, validation=0, **SMALL)
    assert {row["split"] for row in run.metrics} == {"train"}
    assert run.step == 2 * 4


def test_a_run_in_a_folder_is_the_run_without_one_bit_for_bit_and_resumes(grey, tmp_path):
    path = tmp_path / "digits.npz"
    np.savez(path, x=grey, x_test=grey[:10])
    one = vae.train(path, workdir=tmp_path / "x", **SMALL | {"epochs": 1})
    assert json.loads((tmp_path / "x" / CONFIG).read_text())["flags"]["dataset"] == str(path)
    two = vae.train(path, workdir=tmp_path / "x", **SMALL)
    in_memory = vae.train(path, **SMALL)
    assert (one.step, two.step) == (3, 6)
    loaded = vae.load_run(tmp_path / "x")
    for other in (two, loaded):
        assert _equal(other.params, in_memory.params)
        assert other.config == in_memory.config
    written = [row for row in read_metrics(tmp_path / "x") if row["split"] != "test" or row["step"] == 6]
    assert list(map(_without_seconds, in_memory.metrics)) == list(map(_without_seconds, written))


def _without_seconds(row):
    return {name: value for name, value in row.items() if name != "seconds"}


def _equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_arrays_are_evaluated_as_the_split_that_holds_them(run):
    held = run.dataset.validation.images
    by_split = vae.evaluate(run, split="validation", num_samples=200)
    by_array = vae.evaluate(run, held, num_samples=200)
    assert by_split.log_likelihood == pytest.approx(by_split.by_image["log_likelihood"].mean(), rel=1e-12)
    assert by_split.summary["num_examples"] == len(held) == 40
    # Binarised by their position in the split: the test split has a binarisation of its own.
    assert by_array.log_likelihood == pytest.approx(by_split.log_likelihood, abs=2)
    assert by_array.elbo < by_array.log_likelihood


def test_the_log_likelihood_is_the_log_mean_of_the_weights(run):
    """Against weights drawn here, of the same model: both are estimates with k = 2000."""
    images = (run.dataset.validation.images[:5] > 127).astype(np.uint8) * 255
    found = vae.evaluate(run, images, num_samples=2000)
    batch = Batch(jax.numpy.asarray(images, np.float32) / 255)

    @jax.jit
    def weights(key):
        return weigh(key, run.params, run.model, run.model.posterior(run.params, batch), batch, 2000).log_w

    log_w = np.asarray(weights(jax.random.key(7)))
    np.testing.assert_allclose(found.by_image["log_likelihood"], logsumexp(log_w, axis=0) - np.log(2000), atol=0.5)


def test_a_preset_gives_several_options_and_own_ones_win(tmp_path):
    run = vae.train(preset="digits", epochs=1, hidden_sizes=(16,))
    assert (run.settings.hidden_sizes, run.settings.latent_dim, run.config.dataset) == ((16,), 2, "digits")
    assert {row["split"] for row in run.metrics} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "iwea"}, "unknown objective 'iwea'; did you mean 'iwae'?"),
        ({"objektive": "iwae"}, "unknown option 'objektive'; did you mean 'objective'?"),
        ({"alpha": 0.5}, "`alpha` has no effect with `objective=elbo`"),
        ({"preset": "tutorail"}, "unknown preset 'tutorail'; did you mean 'tutorial'?"),
        ({"learning_rate": float("nan")}, "`learning_rate=nan`: must be a finite float32 number above 0"),
        ({"workdir": "x"}, "save them as an .npz file"),
    ],
)
def test_a_mistake_is_one_line_that_speaks_of_keywords(grey, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        vae.train(grey, **options)
    assert message in str(caught.value)
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_images_that_are_none_are_refused():
    with pytest.raises(DataError, match=r"images in memory has shape \(3,\); images are \[N, H, W\]"):
        vae.train(np.zeros(3))


def test_what_cannot_be_evaluated_is_refused(run, grey):
    with pytest.raises(ConfigurationError, match="`split=test` of this run is empty"):
        vae.evaluate(run)
    with pytest.raises(ConfigurationError, match="unknown split 'trian'; did you mean 'train'"):
        vae.evaluate(run, split="trian")
    with pytest.raises(ConfigurationError, match="`num_samples=0`: must be a whole number at least 1"):
        vae.evaluate(run, split="validation", num_samples=0)
    with pytest.raises(LikelihoodError, match="the model is of images"):
        vae.evaluate(run, np.zeros((2, 4, 4), np.uint8))


def test_a_run_that_diverges_says_where_and_leaves_nothing(grey, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingFailed, match=r"is not finite at step \d+ .*; use a lower `learning_rate`"):
        vae.train(grey, learning_rate=1e30, **SMALL)
    assert not any(tmp_path.iterdir())


def test_asked_to_stop_it_returns_what_it_has(grey):
    run = vae.train(grey, should_stop=lambda: True, **SMALL)
    assert (run.step, run.metrics) == (0, [])
