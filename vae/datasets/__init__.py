"""Images as numpy arrays: the named data sets, and a user's own files. `load` is the way in; JAX is not needed here."""

from vae.datasets.dataset import DataError, Dataset, Split
from vae.datasets.loading import NAMES, default_data_dir, load

__all__ = ["NAMES", "DataError", "Dataset", "Split", "default_data_dir", "load"]
