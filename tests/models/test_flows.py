"""flows.py against the Jacobian that autodiff sees, and against one as the integral of every density."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from vae.models.flows import Flow, ForwardFlow, Planar, autoregressive_steps, coupling_steps
from vae.models.normals import DiagonalNormal
from vae.settings import Settings

pytestmark = pytest.mark.usefixtures("float64")

KINDS = ("planar", "autoregressive", "coupling", "coupling without context")


def steps(kind, latent_dim=4, batch=1, num_flows=2, seed=0):
    """Steps with random parameters, far from the identity, for `batch` examples."""
    generator = np.random.default_rng(seed)

    def random(shape):
        return jnp.asarray(generator.normal(size=shape))

    if kind == "planar":
        shapes = (batch, latent_dim), (batch, latent_dim), (batch,)
        return tuple(Planar(*map(random, shapes)) for _ in range(num_flows))
    settings = Settings((1, 1, 1), latent_dim=latent_dim, num_flows=num_flows, flow_hidden_size=6)
    with_context = kind != "coupling without context"
    family = autoregressive_steps(settings) if kind == "autoregressive" else coupling_steps(settings, with_context)
    shapes = jax.eval_shape(family.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: random(leaf.shape), shapes)
    return family.build(params, random((batch, 6)) if with_context else None)


def points(latent_dim=4, count=7, batch=1):
    return np.random.default_rng(1).normal(size=(count, batch, latent_dim))


@jax.jit
def jacobians(step, z):
    """Of `step.forward` at each of z [K, 1, D]: [K, D, D]."""
    return jax.vmap(jax.jacfwd(lambda point: step.forward(point[None, None])[0][0, 0]))(z[:, 0])


forward, inverse = jax.jit(lambda step, z: step.forward(z)), jax.jit(lambda step, z: step.inverse(z))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent_dim", [2, 5])
def test_the_log_determinant_is_that_of_the_jacobian(kind, latent_dim):
    z = points(latent_dim)
    for step in steps(kind, latent_dim):
        _, log_determinant = forward(step, z)
        expected = np.linalg.slogdet(jacobians(step, z))[1]
        np.testing.assert_allclose(log_determinant[:, 0], expected, atol=1e-10)
        assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_inverse_finds_z_and_the_same_log_determinant(kind):
    z = points(batch=3)
    for step in steps(kind, batch=3):
        there, log_determinant = map(np.asarray, forward(step, z))
        back, same = map(np.asarray, inverse(step, there))
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(np.broadcast_to(same, (7, same.shape[1])), log_determinant, atol=1e-9)
        assert np.abs(there - z).max() > 0.1


def test_each_autoregressive_step_has_a_triangular_jacobian_in_which_nothing_is_missing():
    """Reversed order undone, dimension i depends on each of 0 … i and on no later one (Kingma et al. 2016)."""
    z = points(latent_dim=5)
    for step in steps("autoregressive", latent_dim=5):
        jacobian = np.asarray(jacobians(step, z))[:, ::-1]
        np.testing.assert_array_equal(np.triu(jacobian, 1), 0)
        diagonal = np.diagonal(jacobian, axis1=1, axis2=2)
        assert ((diagonal > 0) & (diagonal < 1)).all()
        assert (np.abs(jacobian).max(0)[np.tril_indices(5)] > 0).all()


def test_a_coupling_keeps_its_first_half_and_two_of_them_move_everything():
    z = points(latent_dim=5)
    first, second = steps("coupling", latent_dim=5)
    once, _ = map(np.asarray, forward(first, z))
    np.testing.assert_array_equal(once[..., ::-1][..., :2], z[..., :2])
    twice, _ = map(np.asarray, forward(second, once))
    assert (np.abs(twice - z).max((0, 1)) > 0.1).all()


@pytest.mark.parametrize("kind", ["planar", "autoregressive", "coupling"])
def test_every_example_has_a_flow_of_its_own(kind):
    z = points(batch=3)
    for step in steps(kind, batch=3):
        together, log_determinant = map(np.asarray, forward(step, z))
        network = {} if kind == "planar" else {"network": step.network}
        for b in range(3):
            per_example = {
                name: np.asarray(getattr(step, name))[b : b + 1] for name in step._fields if name != "network"
            }
            alone, change = forward(type(step)(**network, **per_example), z[:, b : b + 1])
            np.testing.assert_allclose(alone[:, 0], together[:, b], atol=1e-12)
            np.testing.assert_allclose(change[:, 0], log_determinant[:, b], atol=1e-12)


@pytest.mark.parametrize("alignment", [-30.0, -3.0, 0.0, 2.0])
def test_planar_is_the_papers_map_and_invertible_at_any_u(alignment):
    """eq. 10–12 of Rezende & Mohamed (2015) with û of their appendix, by numpy; u points against w at −30."""
    generator = np.random.default_rng(0)
    w, across = generator.normal(size=(2, 4))
    b, z = 0.3, points()
    u = alignment * w + (across - across @ w / (w @ w) * w)
    u_hat = u + (-1 + np.log1p(np.exp(w @ u)) - w @ u) * w / (w @ w)
    activation = np.tanh(z[:, 0] @ w + b)
    step = Planar(*(np.asarray(value)[None] for value in (u, w, b)))
    found, log_determinant = forward(step, z)
    np.testing.assert_allclose(found[:, 0], z[:, 0] + activation[:, None] * u_hat, atol=1e-9)
    psi = (1 - activation[:, None] ** 2) * w
    np.testing.assert_allclose(log_determinant[:, 0], np.log(np.abs(1 + psi @ u_hat)), atol=1e-6)
    assert w @ u_hat > -1 or alignment == -30
    assert (np.linalg.slogdet(jacobians(step, z))[0] > 0).all()
    assert np.isfinite(log_determinant).all()


NORMS = np.array([0.0, 1e-30, 1e-8, 1e-6, 1e-5, 1e-3, 1.0, 1e2, 1e4, 1e8])


def planar_of_norms(dtype):
    """A planar step for each |w| of `NORMS` and three u, and z [7, B, 3] at which wᵀz + b is 0.1 to 11 for large w."""
    generator = np.random.default_rng(0)
    w = np.repeat(NORMS, 3)[:, None] * [1.0, 0.0, 0.0]  # along an axis: float32 then has wᵀz + b to full precision
    u = generator.normal(size=w.shape) * np.tile([1.0, 0.1, 30.0], len(NORMS))[:, None]
    z = generator.normal(size=(7, *w.shape))
    b = generator.normal(size=len(w)) * (w[:, 0] < 10)
    z[..., 0] = np.where(w[:, 0] < 10, z[..., 0], np.linspace(0.1, 11, 7)[:, None] / np.maximum(w[:, 0], 1))
    w, u, b, z = (np.asarray(np.asarray(a, np.float32), dtype) for a in (w, u, b, z))
    return Planar(u, w, b), z


def test_planar_has_the_log_determinant_of_its_jacobian_at_every_w_in_float32():
    """Of autodiff in float64. |w| = 1e-6: û and the log-determinant once had different epsilons, −.33 for −.15."""
    step, z = planar_of_norms(np.float64)
    expected = [np.linalg.slogdet(jacobians(jax.tree.map(lambda a, i=i: a[i : i + 1], step), z[:, i : i + 1]))
                for i in range(len(step.w))]  # fmt: skip
    assert all((sign == 1).all() for sign, _ in expected)
    found = forward(*planar_of_norms(np.float32))[1]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.stack([log for _, log in expected], 1), atol=2e-6, rtol=1e-5)


def test_planar_has_finite_gradients_at_every_w_in_float32():
    step, z = planar_of_norms(np.float32)

    def total(step, z):
        moved, log_determinant = step.forward(z)
        return moved.sum() + log_determinant.sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(step, z)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_planar_is_the_shift_by_u_tanh_b_at_w_0():
    z, u, b = points(), np.asarray([[1.0, -2.0, 0.5, 3.0]]), np.asarray([0.7])
    moved, log_determinant = forward(Planar(u, np.zeros((1, 4)), b), z)
    np.testing.assert_allclose(moved, z + u[None] * np.tanh(0.7), rtol=1e-12)
    np.testing.assert_allclose(log_determinant, 0, atol=1e-12)


class Grid:
    """A density whose samples are the nodes of a grid."""

    def __init__(self, density, nodes):
        self._density, self._nodes = density, nodes

    def sample_and_log_prob(self, key, num_samples):
        del key, num_samples
        return self._nodes, self._density.log_prob(self._nodes)


@jax.jit
def moved_grid(density, nodes, planar):
    """The nodes after the steps, and the log density there: [K, 1, D] and [K, 1]."""
    return ForwardFlow(Grid(density, nodes), planar).sample_and_log_prob(jax.random.key(0), len(nodes))


@pytest.mark.parametrize("norm", [0.0, 1e-8, 1e-6, 1e-3, 1.0])
def test_the_mean_of_p_over_q_is_one_through_planar_steps_with_any_w(norm):
    """Four steps on one latent dimension, by the trapezoidal rule; at w = 0 it was .23."""
    standard = DiagonalNormal(np.zeros((1, 1)), np.zeros((1, 1)))
    nodes = np.linspace(-60, 60, 20_001)[:, None, None]
    planar = tuple(Planar(np.ones((1, 1)), np.full((1, 1), norm * w), np.zeros(1)) for w in (1.0, -1.0, 0.4, -0.6))
    z, log_q = map(np.asarray, moved_grid(standard, nodes, planar))
    log_density = scipy.stats.norm.logpdf
    log_mean = log_density(nodes[..., 0]) + log_density(z[..., 0]) - log_q
    assert np.trapezoid(np.exp(log_mean[:, 0]), nodes[:, 0, 0]) == pytest.approx(1, abs=1e-6)


def test_planar_is_invertible_however_u_points_against_w():
    """Where wᵀz + b = 0 the determinant is 1 + wᵀû = log(1 + exp(wᵀu)); in float32."""
    product, norm = map(np.ravel, np.meshgrid([-1e4, -200.0, -30.1, -29.9, -2.0, 0.0, 3.0, 1e4], [1e-2, 1.0, 1e4]))
    w, u = (np.asarray(a, np.float32)[:, None] for a in (norm, product / norm))

    @jax.jit
    def value_and_gradients(u, w, b):
        def log_determinants(u, w, b):
            return Planar(u, w, b).forward(jnp.zeros((1, 1, 1), jnp.float32))[1][0]

        value, pullback = jax.vjp(log_determinants, u, w, b)
        return value, pullback(jnp.ones_like(value))

    found, gradients = value_and_gradients(u, w, np.zeros(len(w), np.float32))
    expected = np.where(product < -30, product, np.log(np.logaddexp(0, np.maximum(product, -30))))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def base(latent_dim, batch=1):
    loc = np.random.default_rng(2).normal(size=(batch, latent_dim))
    return DiagonalNormal(loc, np.full_like(loc, -0.5))


log_prob = jax.jit(lambda flow, z: flow.log_prob(z))


@partial(jax.jit, static_argnums=1)
def samples(flow, count):
    return flow.sample_and_log_prob(jax.random.key(0), count)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_flows_density_integrates_to_one_over_a_grid(kind):
    flow = Flow(base(2), steps(kind, latent_dim=2))
    z, _ = map(np.asarray, samples(flow, 10_000))
    low, high = z.min((0, 1)) - 2, z.max((0, 1)) + 2
    grid = [np.linspace(a, b, 300) for a, b in zip(low, high, strict=True)]
    nodes = np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 1, 2)
    density = np.exp(log_prob(flow, nodes)).reshape(300, 300)
    total = np.trapezoid(np.trapezoid(density, grid[1], axis=1), grid[0])
    assert total == pytest.approx(1, abs=1e-3)


def test_the_density_of_planar_flows_integrates_to_one():
    """In one dimension, over the image of a grid."""
    nodes = np.linspace(-12, 12, 20_001)[:, None, None]
    planar = steps("planar", latent_dim=1, num_flows=3)
    z, log_q = map(np.asarray, moved_grid(base(1), nodes, planar))
    assert np.trapezoid(np.exp(log_q[:, 0]), z[:, 0, 0]) == pytest.approx(1, abs=1e-6)
    assert ForwardFlow(base(1), planar).log_prob is None


@pytest.mark.parametrize("kind", KINDS[1:])
def test_samples_are_scored_as_a_given_z_is(kind):
    flow = Flow(base(4, batch=3), steps(kind, batch=3, num_flows=3))
    z, log_q = samples(flow, 6)
    assert (z.shape, log_q.shape) == ((6, 3, 4), (6, 3))
    np.testing.assert_allclose(log_prob(flow, z), log_q, atol=1e-8)
    assert flow.mean is None
    assert flow.covariance is None


def test_an_untrained_flow_is_nearly_the_identity():
    settings = Settings((1, 1, 1), latent_dim=4, num_flows=2, flow_hidden_size=16)
    z = points()
    family = coupling_steps(settings, with_context=False)
    for step in family.build(jax.jit(family.init)(jax.random.key(0)), None):
        np.testing.assert_allclose(forward(step, z)[0], z[..., ::-1], atol=0.3)
    family = autoregressive_steps(settings)
    for step in family.build(jax.jit(family.init)(jax.random.key(0)), jnp.zeros((1, 16))):
        gate = scipy.special.expit(2.0)
        np.testing.assert_allclose(forward(step, z)[0], gate * z[..., ::-1], atol=0.2)
