"""Imported, it makes flax remember the shape of an initializer's parameter.

When a model is applied, flax traces each initializer anew, to compare its shape with that of the parameter: half of the
time that it takes to trace a network.
"""

import functools

import jax
from flax.core.scope import Scope

PARAM = Scope.param


@functools.cache
def _shape(init_fn, *arguments) -> tuple[int, ...]:
    return jax.eval_shape(lambda: init_fn(jax.random.key(0), *arguments)).shape


def _param(self: Scope, name: str, init_fn, *arguments, **keywords):
    if self.has_variable("params", name):
        value = self.get_variable("params", name)
        if getattr(value, "shape", None) == _shape(init_fn, *arguments):
            self.reserve(name, "params")
            return value
    return PARAM(self, name, init_fn, *arguments, **keywords)


Scope.param = _param
