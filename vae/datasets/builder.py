"""Writes a named data set once, as a TFDS data set in array_record."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae.datasets.dataset import Split

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils


class SplitsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Splits in memory, in their order: features image [H, W, C], and label and factors [F] if they have them."""

    name = "splits"
    VERSION = tfds.core.Version("1.0.0")
    splits: Mapping[str, Split]

    def _info(self) -> tfds.core.DatasetInfo:
        images, labels, factors = self.splits["train"]
        features: dict[str, Any] = {"image": tfds.features.Tensor(shape=images.shape[1:], dtype=images.dtype)}
        if labels is not None:
            features["label"] = tfds.features.Text() if labels.dtype.kind == "U" else np.int32
        if factors is not None:
            features["factors"] = tfds.features.Tensor(shape=factors.shape[1:], dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.name} in its published order",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        return {name: self._generate_examples(split) for name, split in self.splits.items()}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict]]:
        columns = dict(zip(("image", "label", "factors"), split, strict=True))
        columns = {key: array for key, array in columns.items() if array is not None}
        for index in range(len(split.images)):
            yield index, {key: array[index] for key, array in columns.items()}


def write(name: str, splits: Mapping[str, Split], data_dir: Path, progress: bool = False) -> Path:
    """Writes `splits` as the data set `name`; returns its folder under `data_dir`."""
    metaclass: Any = type(SplitsBuilder)
    kind = metaclass(name, (SplitsBuilder,), {"name": name, "splits": splits}, skip_registration=True)
    with quiet(progress):
        builder = kind(data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    kind.splits = {}  # a class is kept until Python looks for cycles, and the splits may be most of the memory
    return Path(builder.data_dir)


@contextlib.contextmanager
def quiet(progress: bool) -> Iterator[None]:
    """Keeps TFDS from printing to stdout, from warning of missing folders, and from drawing bars off a terminal."""
    bars, logger = tqdm_utils._active, logging.getLogger("absl")
    level = logger.level
    tfds.display_progress_bar(progress and sys.stderr.isatty())
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
        tfds.display_progress_bar(bars)
