"""Variational autoencoders in JAX, as pure functions. `vae.load_run("runs/x")` gives a trained model."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.api import load_run as load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    # Lazily: a script that only shows its help must not wait for jax.
    if name in __all__:
        return getattr(importlib.import_module("vae.api"), name)
    raise AttributeError(f"module 'vae' has no attribute {name!r}")
