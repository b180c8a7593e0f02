"""Caltech 101 silhouettes as they are in the file of their publisher: see `caltech101_silhouettes`."""

from collections.abc import Sequence
from pathlib import Path

from vae.datasets import caltech101_silhouettes
from vae.datasets.dataset import Split

ABOUT = caltech101_silhouettes.ABOUT._replace(images="black and white; as in the file, whose columns are the rows here")
DATA = caltech101_silhouettes.DATA._replace(name="caltech101_silhouettes_published")


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """The published splits."""
    return caltech101_silhouettes.read_file(paths[0])
