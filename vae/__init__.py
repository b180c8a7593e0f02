"""Variational autoencoders in JAX, as pure functions.

run = vae.train("mnist", preset="tutorial")
vae.evaluate(run).log_likelihood
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.api import evaluate as evaluate
    from vae.api import load_run as load_run
    from vae.api import train as train

__all__ = ["evaluate", "load_run", "train"]


def __getattr__(name: str) -> Any:
    # Lazily: a script that only shows its help must not wait for jax.
    if name in __all__:
        return getattr(importlib.import_module("vae.api"), name)
    raise AttributeError(f"module 'vae' has no attribute {name!r}")
