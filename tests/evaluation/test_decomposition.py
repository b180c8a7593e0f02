"""aggregate.py against numpy's brute force and the closed forms of the linear-Gaussian model."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.oracles.linear_gaussian import LinearGaussian
from vae.evaluation import decomposition
from vae.models.normals import DiagonalNormal


def orthogonal(num_pixels: int = 5, scales=(2.0, 1.0, 0.3), sigma: float = 0.7) -> LinearGaussian:
    """W with orthogonal columns: the exact posterior is diagonal."""
    generator = np.random.default_rng(0)
    columns = np.linalg.qr(generator.normal(size=(num_pixels, len(scales))))[0]
    return LinearGaussian(columns * np.array(scales), generator.normal(size=num_pixels), sigma)


def decompose(oracle, x, num_samples=4, posterior="diagonal", **options):
    return decomposition.decompose(
        jax.random.key(0), {}, x, model=oracle.model(posterior), num_samples=num_samples, **options
    )


@pytest.fixture(scope="module")
def sampled():
    """600 images that the model drew, whose posteriors are exact, decomposed."""
    oracle = orthogonal()
    x = oracle.sample(seed=1, num_examples=600).astype(np.float32)
    return oracle, x, decompose(oracle, x)


@pytest.mark.usefixtures("float64")
def test_every_part_equals_numpys_brute_force_over_all_components(monkeypatch):
    monkeypatch.setattr(decomposition, "IMAGES_PER_CALL", 3)
    oracle, drawn = LinearGaussian.random(seed=3, num_pixels=4, latent_dim=2), []
    x = oracle.sample(seed=1, num_examples=7)
    model = oracle.model("diagonal")
    q = jax.device_get(jax.jit(lambda x: model.posterior({}, decomposition.Batch(x)))(x))

    @jax.jit
    def draw(row, n):
        key = decomposition.stream(jax.random.key(0), decomposition.Stream.AGGREGATE, n)
        return row.sample_and_log_prob(key, 5)[0]

    for n in range(7):
        row = DiagonalNormal(*(a[n : n + 1] for a in q))
        drawn.append(np.asarray(draw(row, np.int32(n)))[:, 0])
    z = np.stack(drawn)  # [N, S, D]
    log_q = scipy.stats.norm(q.loc, np.exp(q.log_scale)).logpdf(z[:, :, None])  # [N, S, M, D]
    given_x = np.stack([log_q[n, :, n].sum(-1) for n in range(7)])
    joint = scipy.special.logsumexp(log_q.sum(-1), axis=2) - np.log(7)
    factorial = (scipy.special.logsumexp(log_q, axis=2) - np.log(7)).sum(-1)
    log_p = scipy.stats.norm.logpdf(z).sum(-1)
    result = decompose(oracle, x, num_samples=5)
    np.testing.assert_allclose(result.kl, given_x - log_p, atol=1e-12)
    np.testing.assert_allclose(result.mutual_information, given_x - joint, atol=1e-12)
    np.testing.assert_allclose(result.total_correlation, joint - factorial, atol=1e-12)
    np.testing.assert_allclose(result.dimension_wise_kl, factorial - log_p, atol=1e-12)


def test_parts_add_up_to_the_kl_exactly_and_the_mutual_information_is_at_most_log_n(sampled):
    _, x, result = sampled
    parts = result.mutual_information + result.total_correlation + result.dimension_wise_kl
    np.testing.assert_allclose(parts, result.kl, atol=1e-9)
    assert (result.mutual_information <= np.log(len(x)) + 1e-4).all()
    few = decompose(orthogonal(sigma=0.01), x[:8])
    assert few.mutual_information.mean() == pytest.approx(np.log(8), abs=1e-4)


def test_kl_equals_its_closed_form_within_the_stated_error(sampled):
    oracle, x, result = sampled
    model = oracle.model("diagonal")
    kl = jax.jit(lambda x: model.posterior({}, decomposition.Batch(x)).kl_per_dimension(model.prior({})))
    exact = np.asarray(kl(x)).sum(1).mean()
    summary = decomposition.summarize(result)
    assert summary["kl"] == pytest.approx(exact, abs=4 * summary["kl_se"])
    assert 0 < summary["kl_se"] < 0.05


def test_stated_error_is_the_spread_of_the_estimate_under_other_noise():
    oracle = orthogonal()
    x = oracle.sample(seed=1, num_examples=20).astype(np.float32)
    options = {"model": oracle.model("diagonal"), "num_samples": 400}
    many = decomposition.decompose(jax.random.key(1), {}, x, **options)
    groups = [decomposition.Decomposition(*(a[:, i : i + 4] for a in many)) for i in range(0, 400, 4)]
    for name in ("kl", "mutual_information", "total_correlation", "dimension_wise_kl"):
        summaries = [decomposition.summarize(group) for group in groups]
        spread = np.std([summary[name] for summary in summaries])
        assert spread == pytest.approx(np.sqrt(np.mean([s[f"{name}_se"] ** 2 for s in summaries])), rel=0.25)


def test_aggregate_of_exact_posteriors_tends_to_the_prior_and_the_information_to_its_closed_form(sampled):
    # I(x; z) = ½ log det(I + WᵀW/σ²)
    oracle, x, many = sampled
    gram = oracle.weights.T @ oracle.weights / oracle.sigma**2
    information = 0.5 * np.linalg.slogdet(np.eye(3) + gram)[1]
    few = decompose(oracle, x[:40])
    far, near = (part.total_correlation.mean() + part.dimension_wise_kl.mean() for part in (few, many))
    assert 0 < near < 0.35 * far
    assert near < 0.1
    assert abs(many.mutual_information.mean() - information) < abs(few.mutual_information.mean() - information)
    assert many.mutual_information.mean() == pytest.approx(information, abs=0.12)


def test_noise_depends_on_the_position_of_an_image_alone_and_not_on_devices(sampled):
    oracle, x, _ = sampled
    expected = decompose(oracle, x[:40])
    jax.tree.map(np.testing.assert_array_equal, decompose(oracle, x[:40], devices=jax.devices()[:4]), expected)
    order = np.random.default_rng(0).permutation(40)
    shuffled = decompose(oracle, x[order], index=order)
    np.testing.assert_allclose(shuffled.mutual_information, expected.mutual_information[order], atol=1e-5)


def test_fault_aggregate_posterior_of_the_batch_instead_of_all_images(monkeypatch, sampled):
    oracle, x, _ = sampled
    expected = decompose(oracle, x[:40])
    monkeypatch.setattr(decomposition, "IMAGES_PER_CALL", 8)
    result = decompose(oracle, x[:40])
    np.testing.assert_allclose(result.total_correlation, expected.total_correlation, atol=1e-5)


def test_a_posterior_without_a_density_of_each_dimension_is_refused():
    oracle = orthogonal()
    with pytest.raises(ValueError, match=r"q\(z\|x\) has no density of each dimension"):
        decompose(oracle, oracle.sample(seed=1, num_examples=3), posterior="exact")


def test_a_prior_that_depends_on_the_label_is_refused():
    oracle = orthogonal()
    model = oracle.model("diagonal")

    def prior(params, y):
        return DiagonalNormal(*(jax.numpy.zeros((len(y), 3)) + y[:, None] for _ in range(2)))

    x = oracle.sample(seed=1, num_examples=3).astype(np.float32)
    reason = decomposition.unavailable(model._replace(prior=prior), {}, x, np.arange(3))
    assert reason == "p(z) depends on the label"


def test_one_sample_has_no_stated_error():
    values = np.ones((3, 1))
    summary = decomposition.summarize(decomposition.Decomposition(values, values, values, values))
    assert summary["total_correlation_se"] is None
    assert summary["log_num_examples"] == pytest.approx(np.log(3))


@pytest.mark.parametrize("factorises", [True, False])
def test_a_dimension_wise_kl_that_is_no_sum_of_kls_is_said_to_be_none(factorises):
    from experiments.command import evaluation_table

    parts = decomposition.summarize(decomposition.Decomposition(*np.ones((4, 3, 2))))
    *_, (name, _, _, note) = evaluation_table.diagnostic_rows({"aggregate": {**parts, "prior_factorises": factorises}})
    assert (name.strip(), "no sum of KLs" in note) == ("dimension-wise KL", not factorises)
