"""Caltech 101 silhouettes as they are in the file of their publisher: see `caltech101_silhouettes`."""

from collections.abc import Sequence
from pathlib import Path

from vae.datasets import caltech101_silhouettes
from vae.datasets.dataset import Split

ABOUT = caltech101_silhouettes.ABOUT._replace(
    images="4,100 + 2,264 + 2,307 of 28×28, black and white; as in the file: its columns are the rows here"
)
DATA = caltech101_silhouettes.DATA._replace(name="caltech101_silhouettes_published")


def read(paths: Sequence[Path]) -> dict[str, Split]:
    """The published splits."""
    return caltech101_silhouettes.read_file(paths[0])
