"""log(1 + exp(m)) and log σ(x) keep their digits, in both precisions and in their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae.models.logistic import log_one_plus_exp, log_sigmoid

# Where rounding is decided: near zero, where exp(m) is as small as a rounding error, where it vanishes.
NEGATIVE = -np.concatenate([[0.0], np.logspace(-8, 2, 2000), np.linspace(0, 20, 2000)])


def relative_errors(found, wanted):
    normal = wanted > 1e-37
    return (abs(np.asarray(found, np.float64) - wanted) / wanted)[normal]


def test_float32_errs_by_less_than_two_roundings():
    m = NEGATIVE.astype(np.float32)
    found = jax.jit(log_one_plus_exp)(jnp.asarray(m))
    # Of exp(m) one is exp's own, which grows with |m|.
    wanted = np.log1p(np.exp(m.astype(np.float64)))
    assert relative_errors(found, wanted).max() < 4 * 2**-23
    assert float(log_one_plus_exp(jnp.float32(0))) == np.float32(np.log(2))


def test_float64_errs_by_less_than_two_roundings(float64):
    del float64
    found = jax.jit(log_one_plus_exp)(jnp.asarray(NEGATIVE))
    assert relative_errors(found, np.log1p(np.exp(NEGATIVE))).max() < 4 * 2**-52


@pytest.mark.parametrize("x", [-np.inf, -200.0, -1.0, 0.0, 1e-3, 1.0, 200.0, np.inf])
def test_log_sigmoid_and_its_derivative_are_those_of_the_logistic(x):
    value, slope = jax.value_and_grad(log_sigmoid)(jnp.float32(x))
    np.testing.assert_allclose(value, -np.logaddexp(0, -x), rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(slope, np.exp(-np.logaddexp(0, x)), rtol=1e-6, atol=1e-38)
