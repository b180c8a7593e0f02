"""objectives/aggregate.py and factor.py: what a batch says of q(z), against numpy, enumeration and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

from tests.objectives.test_regularizers import BATCH_SIZE, KL, LATENT_DIM, LOC, LOG_SCALE, MODEL, apply, params
from vae import objectives
from vae.models.model import Batch, Model
from vae.models.normals import DiagonalNormal, standard_normal
from vae.objectives import ObjectiveError
from vae.objectives.aggregate import log_weights_of, mmd_squared, pairwise_log_q
from vae.objectives.factor import permute_dimensions
from vae.settings import Hyperparameters, Settings

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_mutual_information_total_correlation_and_dimension_wise_kl_add_up_to_the_kl(estimator, num_samples):
    """Chen et al. (2018), eq. 2: exactly, for any estimate of q(z)."""
    settings = {"aggregate_estimator": estimator}
    bound, metrics, _ = apply(
        "beta_tcvae", num_samples=num_samples, settings=settings, dataset_size=1000, tc_weight=1.0
    )
    from_log_weights, sampled, _ = apply("elbo_mc", num_samples=num_samples)
    parts = metrics["mutual_information"] + metrics["total_correlation"] + metrics["dimension_wise_kl"]
    np.testing.assert_allclose(parts, sampled["kl"], rtol=1e-10)
    np.testing.assert_allclose(bound, from_log_weights, rtol=1e-10)


def test_the_weights_of_the_three_terms_are_theirs():
    weights = {"mi_weight": 2.0, "tc_weight": 5.0, "dimension_weight": 0.5}
    bound, metrics, _ = apply("beta_tcvae", dataset_size=1000, **weights)
    expected = 2 * metrics["mutual_information"] + 5 * metrics["total_correlation"] + 0.5 * metrics["dimension_wise_kl"]
    np.testing.assert_allclose(bound, -expected, rtol=1e-12)


def test_total_correlation_equals_a_loop_over_the_batch_in_numpy():
    """And a log-weight that is added before the sum over dimensions would be counted D times: it is added once."""
    _, metrics, _ = apply("beta_tcvae", dataset_size=100)
    z = LOC + np.exp(LOG_SCALE) * np.asarray(jax.random.normal(jax.random.key(0), (1, BATCH_SIZE, LATENT_DIM)))[0]
    weights = np.full((BATCH_SIZE, BATCH_SIZE), 99 / (100 * (BATCH_SIZE - 1)))
    np.fill_diagonal(weights, 1 / 100)
    for i in range(BATCH_SIZE):
        densities = scipy.stats.norm(LOC, np.exp(LOG_SCALE)).pdf(z[i])  # [B, D]
        log_q_z = np.log((weights[i] * densities.prod(-1)).sum())
        log_product = np.log((weights[i][:, None] * densities).sum(0)).sum()
        assert metrics["total_correlation"][i] == pytest.approx(log_q_z - log_product, rel=1e-9)


def test_the_stratified_estimate_of_q_z_is_unbiased_over_all_minibatches():
    """Enumerates every minibatch that holds image 0; z is a draw of its posterior (Chen et al. 2018, app. C.2)."""
    num_images, batch_size, z = 7, 3, 0.4
    densities = scipy.stats.norm(np.linspace(-2, 2, num_images), 0.5).pdf(z)
    estimates = {"stratified": [], "weighted": []}
    for others in itertools.combinations(range(1, num_images), batch_size - 1):
        for name, found in estimates.items():
            weights = np.exp(np.asarray(log_weights_of(name, batch_size, num_images)))
            found.append((weights[0] * densities[[0, *others]]).sum())
    assert np.mean(estimates["stratified"]) == pytest.approx(densities.mean(), rel=1e-12)
    # Not for log q(z), and the weighted estimate not even for q(z).
    assert np.mean(np.log(estimates["stratified"])) < np.log(densities.mean()) - 1e-3
    assert np.mean(estimates["weighted"]) < 0.5 * densities.mean()


def test_fault_minibatch_stratified_sampling_has_1_over_n_in_column_0_instead_of_the_diagonal():
    weights = np.exp(np.asarray(log_weights_of("stratified", 4, 100)))
    np.testing.assert_allclose(np.diag(weights), 1 / 100, rtol=1e-12)
    np.testing.assert_allclose(weights[~np.eye(4, dtype=bool)], 99 / (100 * 3), rtol=1e-12)


def test_fault_a_log_weight_is_counted_once_for_each_dimension():
    """With equal posteriors, q(z) = q(z|x) and MI = 0, which D log-weights would miss by (D − 1)·log W."""

    def equal():
        return {"loc": np.tile(LOC[:1], (BATCH_SIZE, 1)), "log_scale": np.tile(LOG_SCALE[:1], (BATCH_SIZE, 1))}

    _, metrics, _ = apply("beta_tcvae", dataset_size=BATCH_SIZE, params=equal)
    np.testing.assert_allclose(metrics["mutual_information"], 0, atol=1e-12)
    np.testing.assert_allclose(metrics["total_correlation"], 0, atol=1e-12)


def test_pairwise_densities_have_the_sample_first_and_the_posterior_second():
    z = LOC + 0.3
    found = jax.jit(lambda params, z: pairwise_log_q(DiagonalNormal(**params), z))(params(), z)
    expected = scipy.stats.norm(LOC[None], np.exp(LOG_SCALE)[None]).logpdf(z[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["dip_i", "dip_ii"])
def test_dip_penalises_the_distance_of_the_covariance_over_the_batch_from_the_identity(name):
    """Kumar et al. (2018), eqs. 6 and 7; numpy's covariance, over the batch and not over the latents."""
    covariance = np.cov(LOC.T, bias=True) + (np.diag(np.exp(2 * LOG_SCALE).mean(0)) if name == "dip_ii" else 0)
    off_diagonal = (covariance[~np.eye(LATENT_DIM, dtype=bool)] ** 2).sum()
    diagonal = ((np.diag(covariance) - 1) ** 2).sum()
    bound, metrics, _ = apply(name, dip_off_diagonal=3.0, dip_diagonal=7.0)
    np.testing.assert_allclose(bound, -KL.sum(-1) - 3 * off_diagonal - 7 * diagonal, rtol=1e-10)
    np.testing.assert_allclose(metrics["covariance_off_diagonal"], off_diagonal, rtol=1e-10)


def test_fault_the_dip_covariance_is_taken_over_latents_and_not_zero_at_the_identity():
    """Means ±1 in every combination have covariance I over the batch: no penalty. Over the latents it would be."""
    signs = np.asarray(list(itertools.product([-1.0, 1.0], repeat=LATENT_DIM)))

    def identity():
        return {"loc": signs, "log_scale": np.full(signs.shape, -30.0)}

    for name in ("dip_i", "dip_ii"):
        _, metrics, _ = apply(name, params=identity)
        np.testing.assert_allclose(metrics["covariance_off_diagonal"], 0, atol=1e-12)
        np.testing.assert_allclose(metrics["covariance_diagonal"], 0, atol=1e-12)


def test_fault_dip_ii_adds_the_exponential_of_twice_the_log_variance():
    """The covariance of q(z) of images with equal means is the posterior's, exp(log_scale)² and nothing else."""

    def same_mean():
        return {"loc": np.zeros((3, LATENT_DIM)), "log_scale": np.full((3, LATENT_DIM), 0.5 * np.log(3.0))}

    _, metrics, _ = apply("dip_ii", params=same_mean)
    np.testing.assert_allclose(metrics["covariance_diagonal"], LATENT_DIM * (3.0 - 1) ** 2, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["rbf", "imq", "imq_sum"])
def test_mmd_equals_the_double_sums_of_numpy(kernel):
    """imq_sum: the seven scales of the code of Tolstikhin et al. (2018), each times C."""
    a, b = np.random.default_rng(1).normal(size=(2, 6, 3)) + 0.5
    c = 2 * 3 * 0.7**2
    scales = (0.1, 0.2, 0.5, 1, 2, 5, 10) if kernel == "imq_sum" else (1,)

    def k(d):
        return np.exp(-d / c) if kernel == "rbf" else sum(s * c / (s * c + d) for s in scales)

    def mean(a, b, pairs):
        return np.mean([k(((a[i] - b[j]) ** 2).sum()) for i, j in pairs])

    different = [(i, j) for i in range(6) for j in range(6) if i != j]
    expected = mean(a, a, different) + mean(b, b, different) - 2 * mean(a, b, list(np.ndindex(6, 6)))
    found = jax.jit(mmd_squared, static_argnums=2)(a, b, kernel, 0.7)
    assert found == pytest.approx(expected, rel=1e-9)


def test_mmd_of_two_normals_is_the_closed_form_and_zero_for_equal_ones():
    """E k(a, b) = (C/(C + 2(s² + t²)))^(D/2) exp(−|m|²/(C + 2(s² + t²))) for the Gaussian kernel."""
    latent_dim, shift, scale = 2, 0.8, 1.5
    c = 2.0 * latent_dim

    def expected_kernel(variances, squared_distance):
        width = c + 2 * variances
        return (c / width) ** (latent_dim / 2) * np.exp(-squared_distance / width)

    expected = (
        expected_kernel(2, 0)
        + expected_kernel(2 * scale**2, 0)
        - 2 * expected_kernel(1 + scale**2, latent_dim * shift**2)
    )

    @jax.jit
    def estimates(keys):
        def one(key):
            key_a, key_b, key_c = jax.random.split(key, 3)
            a, b = (jax.random.normal(k, (50, latent_dim)) for k in (key_a, key_b))
            other = shift + scale * jax.random.normal(key_c, (50, latent_dim))
            return mmd_squared(a, other, "rbf", 1.0), mmd_squared(a, b, "rbf", 1.0)

        return jax.lax.map(one, keys, batch_size=100)

    different, equal = map(np.asarray, estimates(jax.random.split(jax.random.key(0), 2000)))
    assert different.mean() == pytest.approx(expected, abs=4 * different.std() / 2000**0.5)
    assert equal.mean() == pytest.approx(0, abs=4 * equal.std() / 2000**0.5)
    assert expected > 0.05


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_mmd_of_info_equals_a_double_loop_over_pairs_of_different_images(kernel):
    """With K = 3 samples of each of B = 5 images: B·(B − 1)·K² pairs of q(z), all pairs of different draws of p(z)."""
    num_samples, scale = 3, 0.7
    settings, numbers = {"mmd_kernel": kernel}, {"mmd_scale": scale, "info_alpha": 0.5, "info_lambda": 20.0}
    bound, metrics, _ = apply("info", num_samples=num_samples, settings=settings, **numbers)

    @jax.jit
    def draws_of(key):
        key_z, key_prior = jax.random.split(key)
        z, _ = DiagonalNormal(**params()).sample_and_log_prob(key_z, num_samples)
        return z, MODEL.prior({}).sample_and_log_prob(key_prior, num_samples * BATCH_SIZE)[0]

    z, of_prior = map(np.asarray, draws_of(jax.random.key(0)))
    of_prior = of_prior.reshape(-1, LATENT_DIM)

    def k(a, b):
        d, c = ((a - b) ** 2).sum(), 2 * LATENT_DIM * scale**2
        return np.exp(-d / c) if kernel == "rbf" else c / (c + d)

    draws = [(i, b) for i in range(num_samples) for b in range(BATCH_SIZE)]
    of_q = [k(z[i, b], z[j, c]) for i, b in draws for j, c in draws if b != c]
    of_p = [k(a, b) for i, a in enumerate(of_prior) for j, b in enumerate(of_prior) if i != j]
    between = [k(z[i, b], a) for i, b in draws for a in of_prior]
    assert len(of_q) == BATCH_SIZE * (BATCH_SIZE - 1) * num_samples**2
    expected = np.mean(of_q) + np.mean(of_p) - 2 * np.mean(between)
    np.testing.assert_allclose(metrics["mmd"], expected, rtol=1e-9)
    np.testing.assert_allclose(bound, -0.5 * KL.sum(-1) - 19.5 * expected, rtol=1e-9)


def test_the_mmd_of_several_samples_of_each_image_is_zero_on_average_where_q_z_is_the_prior():
    """q(z|x) = N(m, ½) with m ~ N(0, ½) for each image, so that q(z) = N(0, I); B = 10, K = 8, D = 2."""
    batch_size, num_samples, latent_dim, repeats = 10, 8, 2, 2000
    settings = Settings((1, 1, 1), objective="info", num_samples=num_samples, latent_dim=latent_dim)
    model = MODEL._replace(prior=lambda params, y=None: standard_normal(latent_dim))
    objective, batch = objectives.build(settings), Batch(jnp.zeros((batch_size, 1, 1, 1)))

    @jax.jit
    def estimates(keys):
        def one(key):
            key_m, key_apply = jax.random.split(key)
            m = 0.5**0.5 * jax.random.normal(key_m, (batch_size, latent_dim))
            at = {"loc": m, "log_scale": jnp.full_like(m, 0.5 * np.log(0.5))}
            return objective.apply(key_apply, at, model, batch, Hyperparameters(), 0)[2]["mmd"][0]

        return jax.lax.map(one, keys, batch_size=100)

    found = np.asarray(estimates(jax.random.split(jax.random.key(0), repeats)))
    error = found.std() / repeats**0.5
    assert error < 0.002
    assert found.mean() == pytest.approx(0, abs=4 * error)


def test_info_is_the_elbo_at_alpha_0_and_lambda_1_and_has_no_kl_at_alpha_1():
    """Zhao et al. (2019), eq. 6; α = 1 is the Wasserstein autoencoder with weight λ (Tolstikhin et al. 2018)."""
    bound, _, _ = apply("info", info_alpha=0.0, info_lambda=1.0)
    np.testing.assert_allclose(bound, -KL.sum(-1), rtol=1e-12)
    bound, metrics, _ = apply("info", info_alpha=1.0, info_lambda=20.0)
    np.testing.assert_allclose(bound, -20 * metrics["mmd"], rtol=1e-12)
    bound, metrics, _ = apply("info", info_alpha=0.3, info_lambda=20.0)
    np.testing.assert_allclose(bound, -0.7 * KL.sum(-1) - 19.3 * metrics["mmd"], rtol=1e-12)


def test_the_dimension_wise_kl_is_a_sum_of_kls_under_a_prior_that_factorises_and_not_under_a_mixture():
    """All posteriors are q = N((3, 3), I). Under N(0, I) the term is 2·3²/2, the sum of the two KLs.

    Under ½N((−3, −3), I) + ½N((3, 3), I), q is one half: the term is log 2, as is the KL to each marginal.
    """
    num_samples, latent_dim = 4000, 2
    at = {"loc": jnp.full((2, latent_dim), 3.0), "log_scale": jnp.zeros((2, latent_dim))}
    settings = Settings((1, 1, 1), objective="beta_tcvae", num_samples=num_samples, latent_dim=latent_dim)
    objective, batch = objectives.build(settings), Batch(jnp.zeros((2, 1, 1, 1)), dataset_size=2)

    def dimension_wise_kl(prior):
        model = MODEL._replace(prior=lambda params, y=None: prior)
        call = jax.jit(lambda: objective.apply(jax.random.key(0), at, model, batch, Hyperparameters(), 0))
        return float(call()[2]["dimension_wise_kl"].mean())

    assert dimension_wise_kl(standard_normal(latent_dim)) == pytest.approx(9, abs=0.2)

    class Mixture:
        def log_prob(self, z):
            each = jnp.stack([dist.Normal(m, 1.0).log_prob(z).sum(-1) for m in (-3.0, 3.0)])
            return jax.scipy.special.logsumexp(each, axis=0) - np.log(2)

        def sample_and_log_prob(self, key, num_samples):
            raise AssertionError("not needed")

    assert dimension_wise_kl(Mixture()) == pytest.approx(np.log(2), abs=0.02)


def test_the_batch_terms_reach_the_encoder():
    for name, numbers in {"info": {"info_alpha": 1.0}, "dip_i": {}, "beta_tcvae": {"dataset_size": 50}}.items():
        _, _, gradient = apply(name, **numbers)
        assert (np.asarray(gradient["loc"]) != 0).any(), name


@pytest.mark.parametrize("name", ["beta_tcvae", "dip_i", "info", "factor"])
def test_several_stochastic_layers_are_refused_with_the_reason(name):
    two = DiagonalNormal(jnp.asarray(LOC), jnp.asarray(LOG_SCALE))

    class Layered:
        mean = None

        def sample_and_log_prob(self, key, num_samples):
            first, second = jax.random.split(key)
            (z_1, log_1), (z_2, log_2) = (two.sample_and_log_prob(k, num_samples) for k in (first, second))
            return (z_1, z_2), (log_1, log_2)

        def log_prob(self, z):
            return two.log_prob(z[0]), two.log_prob(z[1])

        def kl_per_dimension(self, prior):
            return None

    model = Model(
        lambda key, batch: {}, lambda params, batch: Layered(), lambda params, y=None: Layered(),
        lambda params, z, y=None: MODEL.likelihood(params, z[0]),
    )  # fmt: skip
    objective = objectives.build(Settings((1, 1, 1), objective=name, latent_dim=LATENT_DIM, discriminator_sizes=(3,)))

    def apply(key, batch):
        params = {"objective": objective.init(jax.random.key(1), model)}
        return objective.apply(key, params, model, batch, Hyperparameters(), 0)

    with pytest.raises(ObjectiveError, match="one stochastic layer"):
        jax.eval_shape(apply, jax.random.key(0), Batch(jnp.zeros((BATCH_SIZE, 1, 1, 1))))


FACTOR = Settings((1, 1, 1), objective="factor", latent_dim=LATENT_DIM, discriminator_sizes=(7,))


def with_discriminator():
    init = objectives.build(FACTOR).init
    return {**params(), "objective": jax.jit(lambda key: init(key, MODEL))(jax.random.key(3))}


def test_factor_subtracts_gamma_times_the_logit_and_trains_each_side_on_its_own_loss():
    """Kim & Mnih (2018), algorithm 2: the discriminator's gradient is that of its log loss, whatever γ is.

    A quarter of a linear schedule is over: γ is a quarter of `factor_gamma`.
    """
    gradients, settings = {}, {"discriminator_sizes": (7,), "weight_schedule": "linear"}
    for gamma in (0.0, 5.0):
        bound, metrics, gradients[gamma] = apply(
            "factor", 2, params=with_discriminator, settings=settings, factor_gamma=4 * gamma, weight_steps=8.0
        )
        expected = -metrics["kl"] - gamma * metrics["total_correlation"]
        np.testing.assert_allclose(bound, expected, rtol=1e-10)
    jax.tree.map(np.testing.assert_array_equal, gradients[0.0]["objective"], gradients[5.0]["objective"])
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(gradients[0.0]["objective"]))
    # Without γ the encoder does not feel the discriminator: its gradient is the ELBO's.
    elbo_gradient = apply("elbo")[2]
    np.testing.assert_allclose(gradients[0.0]["loc"], elbo_gradient["loc"], rtol=1e-10)
    assert (np.asarray(gradients[5.0]["loc"]) != np.asarray(elbo_gradient["loc"])).any()


def test_the_discriminators_gradient_is_that_of_logistic_regression():
    """One linear layer: Σ (label − probability)·z over both halves, by numpy."""
    settings = {"discriminator_sizes": ()}
    weights = np.random.default_rng(2).normal(size=(LATENT_DIM, 1))

    def linear():
        return {**params(), "objective": {"Dense_0": {"kernel": jnp.asarray(weights), "bias": jnp.zeros(1)}}}

    _, _, gradient = apply("factor", params=linear, settings=settings)
    key_z, key_permute = jax.random.split(jax.random.key(0))
    z = jax.jit(lambda params: DiagonalNormal(**params).sample_and_log_prob(key_z, 1)[0])(params())
    permuted = np.asarray(jax.jit(permute_dimensions)(key_permute, z))[0]
    z = np.asarray(z)[0]
    residual_joint = 1 - scipy.special.expit(z @ weights)
    residual_product = -scipy.special.expit(permuted @ weights)
    expected = 0.5 * ((residual_joint * z).mean(0) + (residual_product * permuted).mean(0))
    np.testing.assert_allclose(gradient["objective"]["Dense_0"]["kernel"][:, 0], expected, rtol=1e-8)


def test_permuted_dimensions_keep_each_column_and_break_their_ties():
    z = jnp.asarray(np.arange(40.0).reshape(1, 20, 2))
    permuted = np.asarray(permute_dimensions(jax.random.key(0), z))
    np.testing.assert_array_equal(np.sort(permuted, axis=1), np.asarray(z))
    assert (permuted[0, :, 0] + 1 != permuted[0, :, 1]).mean() > 0.7


def test_a_trained_discriminator_finds_the_total_correlation_of_a_normal():
    """q(z) = N(0, [[1, r], [r, 1]]) has TC = −½ log(1 − r²): the logit's mean comes close to it."""
    r = 0.8
    covariance = np.asarray([[1.0, r], [r, 1.0]])
    truth = -0.5 * np.log(1 - r**2)
    settings = Settings((1, 1, 1), objective="factor", latent_dim=2, discriminator_sizes=(32, 32))
    objective = objectives.build(settings)
    import optax

    class Given:
        """A posterior whose samples are those it was made of."""

        mean = None

        def __init__(self, z):
            self.z = z

        def sample_and_log_prob(self, key, num_samples):
            del key, num_samples
            return self.z[None], jnp.zeros((1, len(self.z)))

        def kl_per_dimension(self, prior):
            return jnp.zeros(self.z.shape)

    model = Model(
        lambda key, batch: {}, lambda params, batch: Given(batch.x[:, :, 0, 0]), MODEL.prior, MODEL.likelihood
    )._replace(prior=lambda params, y=None: DiagonalNormal(jnp.zeros((1, 2)), jnp.zeros((1, 2))))
    cholesky = jnp.asarray(np.linalg.cholesky(covariance))
    optimizer = optax.adam(6e-3)

    def draw(key, count):
        return (jax.random.normal(key, (count, 2)) @ cholesky.T)[:, :, None, None]

    def ascend(carry, key):
        weights, state = carry
        key_x, key_apply = jax.random.split(key)

        def loss(weights):
            params = {"objective": weights}
            return -objective.apply(key_apply, params, model, Batch(draw(key_x, 500)), Hyperparameters(), 0)[0]

        updates, state = optimizer.update(jax.grad(loss)(weights), state)
        return (optax.apply_updates(weights, updates), state), None

    @jax.jit
    def trained():
        weights = objective.init(jax.random.key(0), model)
        keys = jax.random.split(jax.random.key(1), 700)
        (weights, _), _ = jax.lax.scan(ascend, (weights, optimizer.init(weights)), keys)
        batch = Batch(draw(jax.random.key(2), 20_000))
        return objective.apply(jax.random.key(3), {"objective": weights}, model, batch, Hyperparameters(), 0)

    _, _, metrics = trained()
    assert metrics["total_correlation"].mean() == pytest.approx(truth, abs=0.08)
    entropy = scipy.stats.multivariate_normal(cov=covariance).entropy()
    assert entropy == pytest.approx(2 * scipy.stats.norm.entropy() - truth)


def test_a_posterior_without_densities_per_dimension_is_refused_with_the_reason():
    class Whole(DiagonalNormal):
        def log_prob_per_dimension(self, z):
            return None

    with pytest.raises(ObjectiveError, match="density of each dimension"):
        jax.eval_shape(lambda params: pairwise_log_q(Whole(**params), params["loc"]), params())
