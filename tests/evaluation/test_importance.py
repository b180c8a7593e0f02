"""importance.py against closed forms (science of the linear-Gaussian model), scipy, and itself in other chunks."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests.oracles.linear_gaussian import LinearGaussian
from vae.evaluation import importance as evaluation
from vae.evaluation.summary import bits_per_dimension, gains, summarize, upgrade
from vae.evaluation.weights import pareto_smoothed
from vae.models import model as models
from vae.models.distributions import Independent, Normal
from vae.settings import Settings
from vae.streams import Stream, stream

KEY_SEED = 0


def evaluate(model, images, num_samples, params=None, **options):
    return evaluation.evaluate(
        jax.random.key(KEY_SEED),
        {} if params is None else params,
        images,
        model=model,
        num_samples=num_samples,
        **options,
    )


@pytest.fixture(scope="module")
def mlp():
    """A small Bernoulli model and 23 binary images, too few to fill the last batch."""
    settings = Settings((4, 5, 1), hidden_sizes=(16,), latent_dim=3)
    model = models.build(settings)
    images = np.random.default_rng(0).integers(0, 2, (23, 4, 5, 1)).astype(np.uint8) * 255
    params = jax.jit(model.init)(jax.random.key(1), models.Batch(jnp.full((1, 4, 5, 1), 0.4)))
    return model, params, images


@pytest.mark.usefixtures("float64")
def test_exact_posterior_gives_the_exact_log_likelihood_from_one_sample():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=50)
    result = evaluate(oracle.model("exact"), x, num_samples=1)
    np.testing.assert_allclose(result.log_likelihood[1], oracle.log_p(x), atol=1e-10)
    np.testing.assert_allclose(result.elbo, oracle.log_p(x), atol=1e-10)


def test_exact_posterior_in_float32_is_right_to_1e_4():
    oracle = LinearGaussian.random(seed=0)
    x = oracle.sample(seed=1, num_examples=50).astype(np.float32)
    result = evaluate(oracle.model("exact"), x, num_samples=1)
    np.testing.assert_allclose(result.log_likelihood[1], oracle.log_p(x.astype(float)), atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_probabilistic_pca_at_maximum_likelihood_has_the_log_likelihood_of_tipping_and_bishop():
    """−½ [D log 2π + Σ_{j≤L} log λ_j + (D − L) log σ² + D], λ the eigenvalues of the data's covariance."""
    num_pixels, latent_dim = 6, 2
    x = LinearGaussian.random(seed=3, num_pixels=num_pixels, latent_dim=4).sample(seed=4, num_examples=30)
    flat = x.reshape(len(x), -1)
    eigenvalues, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    variance = eigenvalues[latent_dim:].mean()
    weights = vectors[:, :latent_dim] * np.sqrt(eigenvalues[:latent_dim] - variance)
    oracle = LinearGaussian(weights, flat.mean(0), variance**0.5)
    found = evaluation.evaluate(jax.random.key(0), {}, x, model=oracle.model("exact"), num_samples=1)
    expected = -0.5 * (
        num_pixels * np.log(2 * np.pi)
        + np.log(eigenvalues[:latent_dim]).sum()
        + (num_pixels - latent_dim) * np.log(variance)
        + num_pixels
    )
    assert found.log_likelihood[1].mean() == pytest.approx(expected, abs=1e-9)


def test_diagonal_posterior_converges_to_the_log_likelihood_with_k():
    oracle = LinearGaussian.random(seed=2, sigma=3.0)
    x = oracle.sample(seed=3, num_examples=100).astype(np.float32)
    result = evaluate(oracle.model("diagonal"), x, num_samples=5000)
    errors = {k: values - oracle.log_p(x.astype(float)) for k, values in result.log_likelihood.items()}
    assert errors[5000].mean() == pytest.approx(0, abs=5e-4)
    assert np.sqrt((errors[5000] ** 2).mean()) < 0.01
    assert errors[100].mean() < errors[1000].mean() < errors[5000].mean() + 1e-4


def test_elbo_of_the_best_diagonal_posterior_misses_the_log_likelihood_by_its_kl_to_the_exact_one():
    oracle = LinearGaussian.random(seed=2)
    x = oracle.sample(seed=3, num_examples=200).astype(np.float32)
    gap = oracle.log_p(x.astype(float)) - evaluate(oracle.model("diagonal"), x, num_samples=1000).elbo
    assert oracle.diagonal_gap > 0.5
    assert gap.mean() == pytest.approx(oracle.diagonal_gap, abs=4 * gap.std() / np.sqrt(len(x)))


def test_log_likelihood_is_negative_for_an_image_and_not_a_loss(mlp):
    model, params, images = mlp
    result = evaluate(model, images, 100, params)
    assert (result.log_likelihood[100] < 0).all()
    assert (result.elbo < 0).all()


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 23}, {"batch_size": 1000}])
def test_result_does_not_depend_on_the_batch_size_by_a_single_bit(mlp, options):
    model, params, images = mlp
    expected = evaluate(model, images, 1250, params)
    result = evaluate(model, images, 1250, params, **options)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_result_does_not_depend_on_the_number_of_devices_by_a_single_bit(mlp):
    model, params, images = mlp
    expected = evaluate(model, images, 1250, params)
    result = evaluate(model, images, 1250, params, devices=jax.devices()[:4])
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_samples_do_not_depend_on_how_many_are_decoded_at_once(mlp, monkeypatch):
    model, params, images = mlp
    expected = evaluate(model, images[:3], 1000, params)
    monkeypatch.setattr(evaluation, "SAMPLES_PER_TILE", 200)
    monkeypatch.setattr(evaluation, "program", evaluation.program.__wrapped__)  # or it would be the same one
    result = evaluate(model, images[:3], 1000, params)
    np.testing.assert_allclose(result.log_likelihood[1000], expected.log_likelihood[1000], rtol=1e-6)
    np.testing.assert_allclose(result.elbo, expected.elbo, rtol=1e-6)


def test_a_subset_gets_the_values_it_has_in_the_whole(mlp):
    model, params, images = mlp
    whole = evaluate(model, images, 100, params)
    index = np.array([2, 3, 11, 17, 22])
    part = evaluate(model, images[index], 100, params, index=index)
    np.testing.assert_array_equal(part.log_likelihood[100], whole.log_likelihood[100][index])


def test_fault_only_the_first_batch_is_evaluated(mlp):
    model, params, images = mlp
    result = evaluate(model, images, 100, params, batch_size=5)
    assert len(result.elbo) == len(images)
    assert len(np.unique(result.elbo)) == len(images)


def test_fault_every_batch_of_an_evaluation_spends_the_same_key(mlp):
    model, params, images = mlp
    twice = np.concatenate([images[:1], images[:1]])
    result = evaluate(model, twice, 1250, params, batch_size=1)
    assert result.elbo[0] != result.elbo[1]


def test_fault_asked_for_n_samples_but_another_number_is_used():
    oracle = LinearGaussian.random(seed=2)
    model, images, drawn = oracle.model("diagonal"), oracle.sample(seed=3, num_examples=2).astype(np.float32), []

    def likelihood(params, z, y=None):
        drawn.append(z.shape[0])
        return model.likelihood(params, z, y)

    for num_samples in (1, 37, 1000):
        drawn.clear()
        result = evaluate(model._replace(likelihood=likelihood), images, num_samples)
        assert list(result.log_likelihood)[-1] == num_samples
        assert drawn == [num_samples]


def test_bounds_are_ordered_for_every_image(mlp):
    model, params, images = mlp
    result = evaluate(model, images, 5000, params)
    assert (result.elbo <= result.log_likelihood[100]).all()
    assert (result.log_likelihood[100] <= result.log_likelihood[1000]).all()
    assert (result.log_likelihood[1000] <= result.log_likelihood[5000]).all()


def test_log_likelihood_equals_scipys_logsumexp_over_all_weights():
    log_w = np.random.default_rng(0).normal(-100, 5, (4, 1000)).astype(np.float32)
    result = evaluation.statistics(evaluation.Weights(log_w, log_w, -log_w, (), None))
    expected = scipy.special.logsumexp(log_w.astype(float), axis=1) - np.log(1000)
    np.testing.assert_allclose(result.log_likelihood[1000], expected, rtol=1e-12)
    groups = scipy.special.logsumexp(log_w.astype(float).reshape(4, 10, 100), axis=2) - np.log(100)
    np.testing.assert_allclose(result.log_likelihood[100], groups.mean(1), rtol=1e-12)


def test_active_units_are_those_whose_posterior_mean_varies():
    """Also where the mean of each image is known only up to the noise of samples, which has a variance of 1 here."""
    generator = np.random.default_rng(0)
    means = generator.normal(size=(50000, 1, 4)) * np.sqrt([1.0, 0.02, 0.005, 0.0])
    noise = generator.normal(size=(50000, 2, 4))
    log_w = generator.normal(size=(50000, 2))
    layers = np.repeat(means, 2, axis=1), np.concatenate([means + 0.1 * noise, means[..., :1] + noise[..., :1]], axis=2)
    summary = summarize(evaluation.statistics(evaluation.Weights(log_w, log_w, -log_w, layers, layers[0][:, 0])))
    assert (summary["active_units"], summary["active_units_per_layer"]) == (2, [2, 3])
    assert len(summary["kl_per_dimension"]) == 4
    assert summary["log_likelihood_se"] == pytest.approx(
        (np.logaddexp(*log_w.T) - np.log(2)).std(ddof=1) / np.sqrt(50000)
    )
    assert summary["elbo"] == pytest.approx(summary["reconstruction"] - summary["kl"])


class TwoLayers(NamedTuple):
    """N(loc_l, 1) in two independent layers of 2 and 1 dimensions; nothing else is known of it."""

    locs: tuple[jax.Array, jax.Array]
    mean = None

    def kl_per_dimension(self, prior):
        return None

    def sample_and_log_prob(self, key, num_samples):
        keys = jax.random.split(key)
        z = tuple(
            loc[None] + jax.random.normal(key, (num_samples, *loc.shape))
            for key, loc in zip(keys, self.locs, strict=True)
        )
        return z, self.log_prob(z)

    def log_prob(self, z):
        return tuple(Normal(loc[None], jnp.zeros(())).log_prob(z).sum(-1) for loc, z in zip(self.locs, z, strict=True))


@pytest.fixture(scope="module")
def layered():
    """KL of ½·(1² + 2²) in the first layer, ½·3² in the second."""

    def of(first, second):
        return TwoLayers((jnp.asarray([first]), jnp.asarray([second])))

    def likelihood(params, z, y=None):
        loc = jnp.broadcast_to(z[1][..., None, None], (*z[1].shape[:2], 2, 1, 1))
        return Independent(Normal(loc, jnp.zeros(())))

    return models.Model(
        init=lambda key, batch: {},
        posterior=lambda params, batch: of([1.0, -2.0], [3.0]),
        prior=lambda params, y=None: of([0.0, 0.0], [0.0]),
        likelihood=likelihood,
    )


def test_kl_per_layer_comes_from_the_samples_of_the_elbo_and_adds_up_to_the_kl(layered, mlp):
    result = evaluate(layered, np.ones((40, 2, 1, 1), np.float32), 500)
    summary = summarize(result)
    for layer, exact in enumerate((2.5, 4.5)):
        values = result.kl_per_layer[:, layer]
        assert values.mean() == pytest.approx(exact, abs=4 * values.std() / np.sqrt(40))
    assert sum(summary["kl_per_layer"]) == pytest.approx(summary["kl"])
    model, params, images = mlp
    one_layer = summarize(evaluate(model, images, 100, params))
    assert one_layer["kl_per_layer"] == pytest.approx([one_layer["kl"]], rel=1e-5)


def test_what_a_posterior_does_not_offer_is_none_and_printed_as_a_dash(layered, capsys):
    from experiments.command.evaluation_table import print_table

    summary = summarize(evaluate(layered, np.ones((2, 2, 1, 1), np.float32), 1))
    assert [summary[name] for name in ("kl_per_dimension", "active_units", "pareto_k")] == [None] * 3
    about = {"split": "test", "checkpoint": 1, "binarization": "none", "latent_dims": [2, 1], "seconds": 1.0}
    print_table({**summary, **about})
    lines = {line[:28].strip(): line[28:].split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert lines["active units"][:3] == ["—", "of", "2:"]
    assert lines["active units of layer 2"][:3] == ["—", "of", "1:"]
    assert lines["KL of layer 2"][0] == f"{summary['kl_per_layer'][1]:.2f}"


def test_the_share_of_images_of_high_pareto_k_is_printed_in_percent(capsys):
    from experiments.command.evaluation_table import print_pareto_k

    print_pareto_k({"pareto_k": 1.21, "pareto_k_threshold": 0.7, "pareto_k_above_threshold": 0.8333})
    line = capsys.readouterr().out.splitlines()[1]
    assert " ".join(line.split()) == "Pareto k̂ > 0.70 83.3 % of the images"


@pytest.mark.parametrize("bits", [None, 7.99, 8.0, 8.07])
def test_bits_per_dimension_worse_than_a_uniform_distribution_are_said_to_be(capsys, bits):
    from experiments.command import notes

    for scale, remedy in ((None, ", or use --scale=optimal\n"), ("optimal", "--epochs\n")):
        notes.show_bits(bits, Settings((4, 5, 1), likelihood="normal", scale=scale))
        said = capsys.readouterr().out
        assert said.startswith("note: 8.07 bits per dimension is worse than 8.00") == (bits == 8.07)
        assert said.endswith(remedy) == (bits == 8.07)


@pytest.mark.parametrize(
    ("likelihood", "uniform"),
    [("normal", 0.0), ("continuous_bernoulli", 0.0), ("categorical", -20 * np.log(256)), ("bernoulli", None)],
)
def test_an_elbo_below_that_of_a_uniform_distribution_is_said_to_be(capsys, likelihood, uniform):
    """The density 1 on [0, 1], or 256 equal masses; a cross-entropy has none to compare with."""
    from experiments.command import notes

    settings = Settings((4, 5, 1), likelihood=likelihood)
    for difference, said in ((-0.1, uniform is not None), (0.1, False)):
        notes.show_elbo((uniform or 0.0) + difference, settings)
        assert ("below" in capsys.readouterr().out) == said


def summary_of(log_w):
    return summarize(evaluation.statistics(evaluation.Weights(log_w, log_w, -log_w, (), None)))


def test_k_hat_is_no_all_clear_where_there_are_too_few_samples_for_it(capsys):
    from experiments.command.evaluation_table import print_pareto_k

    log_w = np.random.default_rng(0).normal(0, 10, (30, 100))
    few, enough = summary_of(log_w[:, :20]), summary_of(log_w)
    assert [few[name] for name in ("pareto_k", "pareto_k_threshold", "pareto_k_above_threshold")] == [None] * 3
    assert (enough["pareto_k_threshold"], enough["pareto_k_above_threshold"]) == (0.5, 1.0)
    print_pareto_k(few)
    print_pareto_k({**enough, "pareto_k_above_threshold": 1 / 120})
    first, _, share = capsys.readouterr().out.splitlines()
    assert first.split() == ["Pareto", "k̂", "—", "it", "needs", "21", "samples", "or", "more"]
    assert share.split() == ["Pareto", "k̂", ">", "0.50", "0.8", "%", "of", "the", "images"]


def test_the_log_likelihood_of_smoothed_weights_is_a_mean_over_images_with_its_error_if_k_hat_exists():
    log_w = np.random.default_rng(0).normal(0, 2, (30, 900))
    of_each = pareto_smoothed(log_w).log_likelihood
    summary = summary_of(log_w)
    assert summary["log_likelihood_psis"] == pytest.approx(of_each.mean(), rel=1e-12)
    assert summary["log_likelihood_psis_se"] == pytest.approx(of_each.std(ddof=1) / 30**0.5, rel=1e-12)
    few = summary_of(log_w[:, :20])
    assert (few["log_likelihood_psis"], few["log_likelihood_psis_se"]) == (None, None)


def test_an_image_without_k_hat_among_others_counts_as_unreliable():
    log_w = np.zeros((4, 100))
    log_w[0] = -np.inf
    summary = summary_of(log_w)
    assert summary["pareto_k_above_threshold"] == 0.25


def test_an_image_that_is_impossible_makes_the_means_infinite_and_is_counted(capsys):
    from experiments.command.evaluation_table import warn
    from vae.runs.files import finite_or_null

    log_w = np.zeros((4, 100))
    log_w[0], log_w[1, :50] = -np.inf, -np.inf  # the second one is possible by half of its samples
    result = evaluation.statistics(evaluation.Weights(log_w, log_w, -log_w, (), None))
    np.testing.assert_allclose(result.log_likelihood[100], [-np.inf, np.log(0.5), 0, 0])
    np.testing.assert_allclose(result.effective_sample_size, [np.nan, 50, 100, 100])
    summary = summarize(result)
    assert (summary["log_likelihood"], summary["elbo"], summary["num_not_finite"]) == (-np.inf, -np.inf, 2)
    assert finite_or_null(summary)["log_likelihood"] is None
    assert summary["log_likelihood_se"] is None
    warn(summary)
    assert "of 2 of 4 images is not finite" in capsys.readouterr().err


def test_the_gain_of_more_samples_is_that_on_the_same_images():
    """Images differ by 100 nats, and each gains a half or one and a half: the error is of the gain alone."""
    level = np.arange(10.0) * 100
    estimates = {5000: level + np.tile([0.5, 1.5], 5), 1000: level, 100: level - 2}
    found = gains(estimates)
    assert list(found) == ["1000", "5000"]
    assert found["1000"] == (2.0, 0.0)
    assert found["5000"] == pytest.approx((1.0, np.std([0.5, 1.5] * 5, ddof=1) / np.sqrt(10)))


def test_an_evaluation_that_an_earlier_version_stored_is_read_with_the_names_of_today():
    stored = {"num_samples": 5000, "elbo": -1.0, "pareto_k": 0.8, "pareto_k_above_0.7": 0.9}
    upgraded = upgrade(stored)
    assert upgraded == {
        "num_samples": 5000, "elbo": -1.0, "pareto_k": 0.8, "pareto_k_threshold": 0.7, "pareto_k_above_threshold": 0.9
    }  # fmt: skip
    false_all_clear = {"num_samples": 10, "pareto_k": None, "pareto_k_above_0.7": 0.0}
    assert upgrade(false_all_clear)["pareto_k_above_threshold"] is None
    assert upgrade(upgraded) == upgraded


def test_bits_per_dimension_of_equal_masses_of_256_values_are_8():
    assert bits_per_dimension(-10 * np.log(256), num_values=10) == pytest.approx(8)


@pytest.fixture(scope="module")
def grey():
    """A density whose σ, of half a cell, makes p(x) large and its masses small; a posterior far from the exact one."""
    settings = Settings((4, 5, 1), hidden_sizes=(16,), latent_dim=3, likelihood="normal", scale=0.5 / 255)
    model = models.build(settings)
    params = jax.jit(model.init)(jax.random.key(1), models.Batch(jnp.full((1, 4, 5, 1), 0.4)))
    return model, params, np.random.default_rng(0).integers(0, 256, (3, 4, 5, 1)).astype(np.uint8)


def test_log_likelihood_of_masses_is_that_of_the_model_of_256_values_weighted_by_it(grey):
    """log 1/K Σ_k P(x|z_k) p(z_k)/q(z_k|x) with scipy's masses: neither p(x) times a cell nor the weights of p(x|z)."""
    model, params, images = grey
    result = evaluate(model, images, 50, params)

    @jax.jit
    def sampled(params, x, n):
        batch = models.Batch(x[None], index=n[None])
        q = model.posterior(params, batch)
        weighted = models.weigh(stream(jax.random.key(KEY_SEED), Stream.EVALUATE, n, 0), params, model, q, batch, 50)
        return weighted, model.likelihood(params, weighted.z).mean

    for n, image in enumerate(images):
        weighted, mean = sampled(params, np.float32(image / 255), np.int32(n))
        mean = np.asarray(mean, float)[:, 0]
        upper, lower = ((255 * mean - image + side) / 0.5 for side in (0.5, -0.5))
        upper, lower = np.where(image == 0, np.inf, upper), np.where(image == 255, -np.inf, lower)
        # From the side on which the two terms are small.
        small, large = np.where(upper + lower > 0, -upper, lower), np.where(upper + lower > 0, -lower, upper)
        log_cdf = scipy.stats.norm.logcdf
        log_mass = log_cdf(large) + np.log(-np.expm1(log_cdf(small) - log_cdf(large)))
        log_w = log_mass.sum((1, 2, 3)) + np.asarray(weighted.log_p_z - weighted.log_q_z_given_x, float)[:, 0]
        expected = scipy.special.logsumexp(log_w) - np.log(50)
        assert result.log_likelihood_of_masses[n] == pytest.approx(expected, rel=1e-5)
        assert abs(result.log_likelihood[50][n] - 20 * np.log(255) - expected) > 1


def test_there_is_no_likelihood_of_masses_for_values_between_the_256_nor_for_a_cross_entropy(grey, mlp):
    model, params, images = grey
    assert evaluate(model, (images / 255).astype(np.float32), 2, params).log_likelihood_of_masses is None
    model, params, images = mlp
    assert evaluate(model, images, 100, params).log_likelihood_of_masses is None


def test_an_empty_split_is_refused(mlp):
    model, params, images = mlp
    with pytest.raises(ValueError, match="no example to evaluate"):
        evaluate(model, images[:0], 10, params)


def test_one_compiled_program_serves_every_batch(mlp):
    model, params, images = mlp
    traces = []

    def posterior(params, batch):
        traces.append(1)
        return model.posterior(params, batch)

    evaluate(model._replace(posterior=posterior), images, 100, params, batch_size=4)
    assert len(traces) == 1


# Inverses of flows


@partial(jax.jit, static_argnums=0)
def densities(model, params, x):
    """log q(z|x) of 30 samples: by the inverse, and as they were drawn."""
    q = model.posterior(params, models.Batch(x))
    z, log_q = q.sample_and_log_prob(jax.random.key(2), 30)
    return q.log_prob(z), log_q


@cache
def untrained_flow(settings):
    model = models.build(settings)
    return model, jax.jit(model.init)(jax.random.key(1), models.Batch(jnp.full((1, 4, 5, 1), 0.4)))


def flow_model(part, factor):
    """A flow as posterior or prior, or as both by a VampPrior, whose networks' weights are `factor` times as large."""
    kind = {
        "posterior": {"posterior": "iaf"},
        "prior": {"prior": "flow"},
        "vamp": {"posterior": "iaf", "prior": "vamp"},
    }
    settings = Settings(
        (4, 5, 1), hidden_sizes=(16,), latent_dim=6, num_flows=2, flow_hidden_size=32, prior_components=3, **kind[part]
    )
    model, params = untrained_flow(settings)

    def larger(tree):
        return {
            name: jax.tree.map(lambda leaf: np.float32(factor) * np.asarray(leaf), leaf)
            if name.startswith("flow")
            else leaf
            for name, leaf in tree.items()
        }

    return model, {name: tree if name == "decoder" else larger(tree) for name, tree in params.items()}


@pytest.mark.parametrize(
    ("part", "factor", "wrong"),
    [
        ("posterior", 1, []),
        ("posterior", 100, ["posterior"]),
        ("prior", 1, []),
        ("prior", 100, ["prior"]),
        ("vamp", 100, ["posterior", "prior"]),
    ],
)
def test_an_inverse_that_rounding_makes_wrong_is_measured_and_said(mlp, capsys, part, factor, wrong):
    """Large weights: log q(z|x) of a sample, by the inverse, is off by many nats, and finite."""
    from experiments.command.evaluation_table import warn

    model, params = flow_model(part, factor)
    images = mlp[2]
    result = evaluate(model, images, 30, params)
    summary = summarize(result)
    assert {name for name, error in summary["inverse_error"].items() if not error < 0.01} == set(wrong)
    warn(summary)
    said = capsys.readouterr().err
    for name in ("posterior", "prior"):
        assert (f"the {name}'s flow does not find its way" in said) == (name in wrong)
    if part == "posterior":  # its samples know the right density
        by_inverse, log_q = map(np.asarray, densities(model, params, np.float32(images / 255)))
        assert (np.abs(by_inverse - log_q).mean() > 0.01) == bool(wrong)


def test_what_has_no_inverse_has_no_error_of_it(mlp):
    model, params, images = mlp
    assert summarize(evaluate(model, images, 100, params))["inverse_error"] == {}


# Images that p(x|z) cannot score


def of_grey(**changes):
    return models.build(Settings((4, 5, 1), hidden_sizes=(4,), latent_dim=2, **changes))


@cache
def params_of_grey(likelihood="bernoulli"):
    init = of_grey(binarization="none", likelihood=likelihood).init
    return jax.jit(init)(jax.random.key(1), models.Batch(jnp.full((1, 4, 5, 1), 0.4)))


BLACK_AND_WHITE = np.random.default_rng(0).integers(0, 2, (3, 4, 5, 1)).astype(np.uint8) * 255
GREY = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 1)).astype(np.uint8)
BETWEEN = np.random.default_rng(0).uniform(size=(3, 4, 5, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "images", "reason"),
    [
        ({"binarization": "dynamic"}, GREY, "the model is of binarised images"),
        ({"binarization": "fixed"}, BETWEEN, "the model is of binarised images"),
        ({"binarization": "threshold"}, GREY, "the model is of binarised images"),
        ({"binarization": "none"}, 255 * BETWEEN, r"is of values in \[0, 1\]"),
        ({"binarization": "none"}, GREY.astype(np.int32), "these are int32"),
        ({"binarization": "none"}, GREY[:, :, :4], r"of images \(4, 5, 1\), and these are \(4, 4, 1\)"),
        ({"binarization": "none", "likelihood": "categorical"}, BETWEEN, "of the 256 values k/255"),
        ({"binarization": "none", "likelihood": "normal"}, BETWEEN * np.float32(np.nan), "that are finite"),
    ],
)
def test_images_that_the_likelihood_cannot_score_are_refused_by_all_that_scores_images(changes, images, reason):
    from vae import objectives
    from vae.evaluation import amortization, annealing, decomposition, gradients
    from vae.models.checks import LikelihoodError
    from vae.settings import Hyperparameters

    model, params = of_grey(**changes), params_of_grey(changes.get("likelihood", "bernoulli"))
    with pytest.raises(LikelihoodError, match=reason):
        evaluate(model, images, 2, params)
    for score in (decomposition.decompose, amortization.fit, annealing.ais):
        with pytest.raises(LikelihoodError, match=reason):
            score(jax.random.key(0), params, images, model=model)
    if images.dtype == np.float32:
        drawn = gradients.draw_blocks(
            jax.random.key(0), params, models.Batch(jnp.asarray(images)), 20, model=model, num_samples=1,
            objective=objectives.build(Settings((4, 5, 1))), hyperparameters=Hyperparameters(),
        )  # fmt: skip
        with pytest.raises(LikelihoodError, match=reason):
            next(drawn)


def test_images_that_the_likelihood_can_score_are_not_refused():
    for binarization in ("dynamic", "fixed", "threshold"):
        check = of_grey(binarization=binarization).check_images
        check(BLACK_AND_WHITE)
        check(BLACK_AND_WHITE.astype(np.float32) / 255)
    for likelihood in ("bernoulli", "continuous_bernoulli", "normal", "categorical", "logistic_mixture"):
        check = of_grey(binarization="none", likelihood=likelihood).check_images
        check(GREY)
        check(GREY.astype(np.float32) / 255)
    of_grey(binarization="none").check_images(BETWEEN)
    of_grey(binarization="none", likelihood="normal").check_images(10 * BETWEEN - 5)
