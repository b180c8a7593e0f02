"""flows.py against the Jacobian that autodiff sees, and against one as the integral of every density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae.flows import Flow, ForwardFlow, Planar, autoregressive_steps, coupling_steps
from vae.posteriors import DiagonalNormal
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
    return jnp.asarray(np.random.default_rng(1).normal(size=(count, batch, latent_dim)))


def jacobians(step, z):
    """Of `step.forward` at each of z [K, 1, D]: [K, D, D]."""
    return jax.jit(jax.vmap(jax.jacfwd(lambda point: step.forward(point[None, None])[0][0, 0])))(z[:, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latent_dim", [2, 5])
def test_the_log_determinant_is_that_of_the_jacobian(kind, latent_dim):
    z = points(latent_dim)
    for step in steps(kind, latent_dim):
        _, log_determinant = step.forward(z)
        expected = np.linalg.slogdet(jacobians(step, z))[1]
        np.testing.assert_allclose(log_determinant[:, 0], expected, atol=1e-10)
        assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_inverse_finds_z_and_the_same_log_determinant(kind):
    z = points(batch=3)
    for step in steps(kind, batch=3):
        there, log_determinant = step.forward(z)
        back, same = step.inverse(there)
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(jnp.broadcast_to(same, (7, same.shape[1])), log_determinant, atol=1e-9)
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
    once, _ = first.forward(z)
    np.testing.assert_array_equal(once[..., ::-1][..., :2], z[..., :2])
    twice, _ = second.forward(once)
    assert (np.abs(twice - z).max((0, 1)) > 0.1).all()


@pytest.mark.parametrize("kind", ["planar", "autoregressive", "coupling"])
def test_every_example_has_a_flow_of_its_own(kind):
    z = points(batch=3)
    for step in steps(kind, batch=3):
        together, log_determinant = step.forward(z)
        network = {} if kind == "planar" else {"network": step.network}
        for b in range(3):
            per_example = {name: getattr(step, name)[b : b + 1] for name in step._fields if name != "network"}
            alone, change = type(step)(**network, **per_example).forward(z[:, b : b + 1])
            np.testing.assert_allclose(alone[:, 0], together[:, b], atol=1e-12)
            np.testing.assert_allclose(change[:, 0], log_determinant[:, b], atol=1e-12)


@pytest.mark.parametrize("alignment", [-30.0, -3.0, 0.0, 2.0])
def test_planar_is_the_papers_map_and_invertible_at_any_u(alignment):
    """eq. 10–12 of Rezende & Mohamed (2015) with û of their appendix, by numpy; u points against w at −30."""
    generator = np.random.default_rng(0)
    w, across = generator.normal(size=(2, 4))
    b, z = 0.3, np.asarray(points())
    u = alignment * w + (across - across @ w / (w @ w) * w)
    u_hat = u + (-1 + np.log1p(np.exp(w @ u)) - w @ u) * w / (w @ w)
    activation = np.tanh(z[:, 0] @ w + b)
    step = Planar(*(jnp.asarray(value)[None] for value in (u, w, b)))
    found, log_determinant = step.forward(jnp.asarray(z))
    np.testing.assert_allclose(found[:, 0], z[:, 0] + activation[:, None] * u_hat, atol=1e-9)
    psi = (1 - activation[:, None] ** 2) * w
    np.testing.assert_allclose(log_determinant[:, 0], np.log(np.abs(1 + psi @ u_hat)), atol=1e-6)
    assert w @ u_hat > -1 or alignment == -30
    assert (np.linalg.slogdet(jacobians(step, jnp.asarray(z)))[0] > 0).all()
    assert np.isfinite(log_determinant).all()


def base(latent_dim, batch=1):
    loc = jnp.asarray(np.random.default_rng(2).normal(size=(batch, latent_dim)))
    return DiagonalNormal(loc, jnp.full_like(loc, -0.5))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_flows_density_integrates_to_one_over_a_grid(kind):
    flow = Flow(base(2), steps(kind, latent_dim=2))
    z, _ = flow.sample_and_log_prob(jax.random.key(0), 10_000)
    low, high = np.asarray(z.min((0, 1))) - 2, np.asarray(z.max((0, 1))) + 2
    grid = [np.linspace(a, b, 300) for a, b in zip(low, high, strict=True)]
    nodes = jnp.asarray(np.stack(np.meshgrid(*grid, indexing="ij"), -1).reshape(-1, 1, 2))
    density = np.exp(jax.jit(flow.log_prob)(nodes)).reshape(300, 300)
    total = np.trapezoid(np.trapezoid(density, grid[1], axis=1), grid[0])
    assert total == pytest.approx(1, abs=1e-3)


def test_the_density_of_planar_flows_integrates_to_one():
    """In one dimension, over the image of a grid."""
    nodes = jnp.asarray(np.linspace(-12, 12, 20_001))[:, None, None]
    q = ForwardFlow(Grid(base(1), nodes), steps("planar", latent_dim=1, num_flows=3))
    z, log_q = q.sample_and_log_prob(jax.random.key(0), len(nodes))
    assert np.trapezoid(np.exp(log_q[:, 0]), z[:, 0, 0]) == pytest.approx(1, abs=1e-6)
    assert q.log_prob is None


class Grid:
    """A density whose samples are the nodes of a grid."""

    def __init__(self, density, nodes):
        self._density, self._nodes = density, nodes

    def sample_and_log_prob(self, key, num_samples):
        del key, num_samples
        return self._nodes, self._density.log_prob(self._nodes)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_samples_are_scored_as_a_given_z_is(kind):
    flow = Flow(base(4, batch=3), steps(kind, batch=3, num_flows=3))
    z, log_q = flow.sample_and_log_prob(jax.random.key(0), 6)
    assert (z.shape, log_q.shape) == ((6, 3, 4), (6, 3))
    np.testing.assert_allclose(flow.log_prob(z), log_q, atol=1e-8)
    assert flow.mean is None
    assert flow.covariance is None


def test_an_untrained_flow_is_nearly_the_identity():
    settings = Settings((1, 1, 1), latent_dim=4, num_flows=2, flow_hidden_size=16)
    z = points()
    family = coupling_steps(settings, with_context=False)
    for step in family.build(jax.jit(family.init)(jax.random.key(0)), None):
        np.testing.assert_allclose(step.forward(z)[0], z[..., ::-1], atol=0.3)
    family = autoregressive_steps(settings)
    for step in family.build(jax.jit(family.init)(jax.random.key(0)), jnp.zeros((1, 16))):
        gate = jax.nn.sigmoid(2.0)
        np.testing.assert_allclose(step.forward(z)[0], gate * z[..., ::-1], atol=0.2)
