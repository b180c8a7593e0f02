"""What the TFDS builders share, and how one is run."""

import contextlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vae.datasets.dataset import Split
from vae.datasets.sources import fetch
from vae.datasets.table import FETCHED
from vae.options import load

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import tqdm_utils


def info(
    builder: tfds.core.DatasetBuilder,
    description: str,
    *,
    labelled: bool = True,
    shape: tuple[int, int, int] = (28, 28, 1),
) -> tfds.core.DatasetInfo:
    """Images of `shape` [H, W, C], with labels or without, kept in their published order."""
    features = {"image": tfds.features.Tensor(shape=shape, dtype=np.uint8)}
    if labelled:
        features["label"] = tfds.features.Tensor(shape=(), dtype=np.int32)
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
    )


def examples(split: Split) -> Iterator[tuple[int, dict]]:
    """Key and features of each example, as TFDS takes them."""
    for index, image in enumerate(split.images):
        yield index, {"image": image} if split.labels is None else {"image": image, "label": split.labels[index]}


def prepare(name: str, data_dir: Path, manual_dir: Path | None = None, progress: bool = False) -> Path:
    """The folder of a named data set under `data_dir`; if it does not exist, fetch it and write it as array_record."""
    with quiet(progress):
        builder = load(FETCHED[name])(data_dir=data_dir, file_format="array_record")
        if not builder.is_prepared():
            downloads = data_dir / "downloads" / name
            fetch(importlib.import_module(builder.__module__).DATA, downloads, manual_dir, progress)
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(download_dir=downloads, download_config=config)
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
