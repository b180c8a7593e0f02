"""Images as numpy arrays: the named data sets, and a user's own files. `load` is the way in; JAX is not needed here."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae.datasets.dataset import DataError as DataError
    from vae.datasets.dataset import Dataset as Dataset
    from vae.datasets.dataset import Split as Split
    from vae.datasets.loading import default_data_dir as default_data_dir
    from vae.datasets.loading import from_arrays as from_arrays
    from vae.datasets.loading import load as load
    from vae.datasets.table import NAMES as NAMES

__all__ = ["NAMES", "DataError", "Dataset", "Split", "default_data_dir", "from_arrays", "load"]

HOMES = {
    "NAMES": "table",
    **dict.fromkeys(("DataError", "Dataset", "Split"), "dataset"),
    **dict.fromkeys(("default_data_dir", "from_arrays", "load"), "loading"),
}


def __getattr__(name: str) -> Any:
    # Lazily: who wants only the type of a data set, or its name, need not wait for what downloads one.
    if name in HOMES:
        return getattr(importlib.import_module(f"vae.datasets.{HOMES[name]}"), name)
    raise AttributeError(f"module 'vae.datasets' has no attribute {name!r}")
