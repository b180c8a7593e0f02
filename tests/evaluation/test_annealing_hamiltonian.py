"""hamiltonian.py: what the leapfrog integrator keeps (Neal 2011), and what a transition leaves invariant."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae.evaluation.annealing import hamiltonian
from vae.evaluation.annealing.hamiltonian import Target, leapfrog, point_at, transition

pytestmark = pytest.mark.usefixtures("float64")

# log p(z) + β log p(x|z) of two layers of 1 and 2 dimensions: a coupled Gaussian with this precision at β = ½.
PRIOR = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
LIKELIHOOD = np.array([[4.0, 1.5, 0.0], [1.5, 3.0, -2.0], [0.0, -2.0, 8.0]])
BETA = 0.5


def gaussian(precision):
    def log_density(z):
        flat = jnp.concatenate([z["one"], z["two"]], axis=1)
        return -0.5 * jnp.einsum("ci,ij,cj->c", flat, precision, flat)

    return log_density


TARGET = Target(gaussian(PRIOR), gaussian(LIKELIHOOD))
COVARIANCE = np.linalg.inv(PRIOR + BETA * LIKELIHOOD)


def layers(flat):
    return {"one": flat[:, :1], "two": flat[:, 1:]}


def flat(z):
    return np.concatenate([z["one"], z["two"]], axis=1)


def exact_samples(num_chains):
    return np.random.default_rng(0).multivariate_normal(np.zeros(3), COVARIANCE, num_chains)


point_of = jax.jit(partial(point_at, TARGET))


@partial(jax.jit, static_argnums=3)
def integrate(z, momentum, step_size, num_steps):
    return leapfrog(TARGET, point_at(TARGET, z), momentum, BETA, step_size, num_steps)


@partial(jax.jit, static_argnums=3)
def move(key, point, step_size, num_steps):
    return transition(key, TARGET, point, BETA, step_size, num_steps)


def phase_point(num_chains):
    generator = np.random.default_rng(1)
    return layers(generator.normal(size=(num_chains, 3))), layers(generator.normal(size=(num_chains, 3)))


def test_leapfrog_taken_back_with_the_momentum_reversed_returns_to_where_it_started():
    z, momentum = phase_point(4)
    there, end = integrate(z, momentum, 0.3, 12)
    back, start = integrate(there.z, jax.tree.map(np.negative, end), 0.3, 12)
    assert np.abs(flat(there.z) - flat(z)).max() > 0.1
    np.testing.assert_allclose(flat(back.z), flat(z), atol=1e-12)
    np.testing.assert_allclose(flat(start), -flat(momentum), atol=1e-12)


def test_leapfrog_keeps_volume():
    def map_of(state):
        z, momentum = layers(state[None, :3]), layers(state[None, 3:])
        point, end = leapfrog(TARGET, point_at(TARGET, z), momentum, BETA, 0.4, 3)
        return jnp.concatenate([point.z["one"], point.z["two"], end["one"], end["two"]], axis=1)[0]

    jacobian = np.asarray(jax.jit(jax.jacfwd(map_of))(np.arange(6.0) / 6))
    assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-12)
    assert np.abs(jacobian - np.eye(6)).max() > 0.5


def test_energy_error_of_leapfrog_falls_with_the_square_of_the_step_size():
    z, momentum = phase_point(200)
    energy = jax.jit(lambda point, momentum: hamiltonian.kinetic(momentum) - point.log_density(BETA))
    errors = []
    for step_size, num_steps in ((0.1, 5), (0.05, 10)):
        after = energy(*integrate(z, momentum, step_size, num_steps))
        errors.append(np.abs(np.asarray(after) - np.asarray(energy(point_of(z), momentum))).mean())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_point_holds_the_densities_and_their_gradients():
    z, _ = phase_point(3)

    @jax.jit
    def density_and_gradient(z):
        point = point_at(TARGET, z)
        return point.log_density(BETA), point.gradient(BETA)

    log_density, gradient = density_and_gradient(z)
    rows = flat(z)
    np.testing.assert_allclose(log_density, -0.5 * np.einsum("ci,ij,cj->c", rows, PRIOR + BETA * LIKELIHOOD, rows))
    np.testing.assert_allclose(flat(gradient), -rows @ (PRIOR + BETA * LIKELIHOOD), atol=1e-12)


def test_transitions_leave_their_target_invariant_at_a_step_size_that_rejects_often():
    num_chains = 40_000
    point = point_of(layers(exact_samples(num_chains)))
    for t in range(4):
        point, probability = move(jax.random.key(t), point, 0.65, 3)
    assert 0.3 < probability.mean() < 0.9
    z = flat(point.z)
    assert np.abs(z.mean(0) / np.sqrt(np.diag(COVARIANCE) / num_chains)).max() < 4
    products = np.einsum("ci,cj->cij", z, z)
    error = products.std(0) / np.sqrt(num_chains)
    assert (np.abs(products.mean(0) - COVARIANCE) < 4 * error).all()


def test_transitions_reach_the_target_though_their_trajectories_take_half_a_period():
    point = point_of(layers(np.full((5000, 3), 1.5)))
    for t in range(15):
        point, _ = move(jax.random.key(t), point, 0.3, 4)
    np.testing.assert_allclose(np.cov(flat(point.z).T), COVARIANCE, atol=0.03)


def test_what_is_rejected_stays_with_its_densities_and_gradients():
    point = point_of(layers(exact_samples(500)))
    after, probability = jax.device_get(move(jax.random.key(0), point, 1.0, 3))
    point = jax.device_get(point)
    moved = np.abs(flat(after.z) - flat(point.z)).max(1) > 0
    assert 0 < moved.mean() < 1
    assert (probability[moved] > 0).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), after, point_of(after.z))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[~moved], b[~moved]), after, point)


def test_a_proposal_where_the_density_is_not_a_number_is_never_taken():
    broken = Target(lambda z: jnp.where(z[:, 0] > 0, jnp.nan, 0.0), lambda z: 0 * z[:, 0])

    @jax.jit
    def moved(z):
        return transition(jax.random.key(0), broken, point_at(broken, z), 1.0, 1.0, 1)

    after, probability = jax.device_get(moved(np.full((1000, 1), -0.1)))
    assert (after.z <= 0).all()
    assert 0.4 < (probability == 0).mean() < 0.6
