"""probe.py: against numpy and scipy, on codes that know the labels and on codes that do not, and what is refused."""

import importlib.util
from functools import partial

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from experiments.command import evaluation_table
from tests.oracles.linear_gaussian import FullNormal, LinearGaussian
from vae.datasets.dataset import Split
from vae.evaluation import diagnostics, probe
from vae.evaluation.diagnostics import Images
from vae.settings import Settings

ORACLE = LinearGaussian.random(seed=0, num_pixels=4, latent_dim=2)
MODEL = ORACLE.model()
DEVICES = jax.devices()[:1]
SETTINGS = Settings((4, 1, 1))


def clusters(seed, num_examples, distance):
    """Three clusters in the plane, in a triangle of this size, with noise 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_examples)
    centres = distance * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.866]])
    return centres[labels] + rng.normal(size=(num_examples, 2)), labels


def test_codes_that_know_the_label_are_right_and_codes_that_do_not_are_at_chance():
    far = probe.probe(clusters(0, 400, 30.0), clusters(1, 500, 30.0), [10, 100], 3)
    for found in far:
        assert {count: len(values) for count, values in found.items()} == {10: 3, 100: 3, 400: 1}
        assert all((values == 1).all() for values in found.values())
    for found in probe.probe(clusters(0, 400, 0.0), clusters(1, 500, 0.0), [100], 5):
        assert found[100].mean() == pytest.approx(1 / 3, abs=0.04)


def test_classifiers_are_the_nearest_image_and_logistic_regression():
    """The penalised likelihood, Σ log p(y|x) − |w|²/2 without the constants of each class, by scipy's own optimiser."""
    (x, y), (x_test, y_test) = clusters(0, 60, 2.0), clusters(1, 200, 2.0)
    found = probe.probe((x, y), (x_test, y_test), [], 1)
    nearest = y[((x_test[:, None] - x[None]) ** 2).sum(-1).argmin(1)]
    assert found.nearest_neighbour[60] == np.mean(nearest == y_test)

    def loss(flat):
        weights, constants = flat[:6].reshape(3, 2), flat[6:]
        log_p = scipy.special.log_softmax(x @ weights.T + constants, axis=1)
        return -log_p[np.arange(60), y].sum() + 0.5 * (weights**2).sum()

    best = scipy.optimize.minimize(loss, np.zeros(9)).x
    guessed = (x_test @ best[:6].reshape(3, 2).T + best[6:]).argmax(1)
    assert found.linear[60] == pytest.approx(np.mean(guessed == y_test), abs=0.006)


def test_labels_take_turns_among_the_labelled_images_and_draws_differ():
    labels = np.repeat([0, 1, 2], [100, 50, 4])
    rows = [probe.labelled(labels, 20, draw) for draw in range(5)]
    assert all(np.bincount(labels[one]).tolist() == [8, 8, 4] for one in rows)
    assert all(len(set(one)) == 20 for one in rows)
    assert len({tuple(sorted(one)) for one in rows}) == 5
    np.testing.assert_array_equal(probe.labelled(labels, 20, 3), rows[3])
    for draw in range(20):
        assert np.bincount(labels[probe.labelled(labels, 10, draw)]).tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])


class Sampled(FullNormal):
    """A posterior whose mean has no closed form."""

    @property
    def mean(self):
        return None


def test_images_are_represented_by_the_mean_of_q_or_by_that_of_samples():
    x = ORACLE.sample(seed=1, num_examples=5).astype(np.float32)

    def represent(model, index):
        return probe.represent(jax.random.key(0), {}, x, index, model=model, devices=DEVICES)

    exact = represent(MODEL, np.arange(5))
    np.testing.assert_allclose(exact, ORACLE.posterior_mean(x), rtol=1e-4, atol=1e-5)
    sampled = MODEL._replace(posterior=lambda params, batch: Sampled(*MODEL.posterior(params, batch)))
    error = represent(sampled, np.arange(5)) - exact
    deviation = np.sqrt(np.diag(ORACLE.posterior_covariance) / probe.SAMPLES)
    assert (np.abs(error) < 4 * deviation).all()
    assert (np.abs(error) > 0).all()
    assert (represent(sampled, np.arange(5) + 1) != represent(sampled, np.arange(5))).all()


def test_the_probe_learns_from_training_images_and_is_tested_on_the_evaluated_ones(monkeypatch):
    """Labels are the sign of a coordinate of E[z|x]; if those of training images are changed over, all are wrong."""
    monkeypatch.setattr(probe, "probe", partial(probe.probe, counts=[10], num_draws=3))
    train, test = (ORACLE.sample(seed, num).astype(np.float32) for seed, num in ((1, 300), (2, 100)))
    label_train, label_test = ((ORACLE.posterior_mean(x)[:, 0] > 0).astype(np.int32) for x in (train, test))
    images = Images(test, label_test, np.arange(100), np.zeros(100))

    def computed(training):
        return diagnostics.compute(
            jax.random.key(0), ["probe"], {}, images, model=MODEL,
            settings=SETTINGS, num_examples=5, num_temperatures=1, num_chains=1, devices=DEVICES, training=training,
            progress=lambda name: lambda share: None,
        )  # fmt: skip

    found = computed(Split(train, label_train))["probe"]
    assert (found["num_examples"], found["num_features"], found["num_classes"], found["num_draws"]) == (100, 2, 2, 3)
    assert found["by_labels"]["300"]["linear"] >= 0.9
    assert found["by_labels"]["300"]["linear_se"] is None
    assert found["by_labels"]["10"]["linear_se"] > 0
    assert found["most_frequent"] == np.mean(label_test == np.bincount(label_train).argmax())
    flipped = computed(Split(train, 1 - label_train))["probe"]
    assert flipped["by_labels"]["300"]["linear"] <= 0.1
    rows = list(evaluation_table.diagnostic_rows({"probe": found}))
    assert [row[0].strip() for row in rows] == [
        "linear probe, 10 labels", "nearest neighbour", "linear probe, 300 labels", "nearest neighbour"
    ]  # fmt: skip
    assert rows[2][1] == 100 * found["by_labels"]["300"]["linear"]
    none = computed(Split(np.full_like(train, np.nan), label_train))
    assert none == {"probe": None, "unavailable": {"probe": "E[z|x] of some image is not finite"}}


def test_what_has_no_probe_says_why(monkeypatch):
    labels = np.arange(4) % 2
    assert probe.unavailable(SETTINGS, "test", (labels, labels)) is None
    for of_splits in ((None, labels), (labels, None)):
        assert "the data set has none" in str(probe.unavailable(SETTINGS, "test", of_splits))
    assert "use another split" in str(probe.unavailable(SETTINGS, "train", (labels, labels)))
    assert "is given the label" in str(probe.unavailable(Settings((4, 1, 1), num_classes=2), "test", (labels, labels)))
    assert "one label only" in str(probe.unavailable(SETTINGS, "test", (np.zeros(4), labels)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install scikit-learn" in str(probe.unavailable(SETTINGS, "test", (labels, labels)))
