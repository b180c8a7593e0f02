"""Images as numpy arrays: the named data sets, and a user's own files. `load` is the way in; JAX is not needed here."""

import importlib
from typing import TYPE_CHECKING, Any

from vae.datasets.dataset import DataError, Dataset, Split

if TYPE_CHECKING:
    from vae.datasets.loading import NAMES as NAMES
    from vae.datasets.loading import default_data_dir as default_data_dir
    from vae.datasets.loading import from_arrays as from_arrays
    from vae.datasets.loading import load as load

__all__ = ["NAMES", "DataError", "Dataset", "Split", "default_data_dir", "from_arrays", "load"]


def __getattr__(name: str) -> Any:
    # Lazily: who wants only the type of a data set need not wait for what downloads one.
    if name in __all__:
        return getattr(importlib.import_module("vae.datasets.loading"), name)
    raise AttributeError(f"module 'vae.datasets' has no attribute {name!r}")
