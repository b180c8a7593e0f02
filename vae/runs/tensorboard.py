"""A run in TensorBoard: <workdir>/tensorboard, the scalars of metrics.jsonl and pictures."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


def writer(workdir: Path, purge_step: int | None = None) -> SummaryWriter:
    """A writer that appends; rows from `purge_step` on, written before, are no longer shown."""
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / "tensorboard"), purge_step=purge_step)


def show(to: SummaryWriter, step: int, split: str, values: Mapping[str, float]) -> None:
    """A row of metrics."""
    for name, value in values.items():
        to.add_scalar(f"{split}/{name}", value, step)


def write_rows(workdir: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace what is shown by the rows of metrics.jsonl, for a run that did not write to TensorBoard as it trained."""
    shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
    with writer(workdir) as to:
        for row in rows:
            values = {name: value for name, value in row.items() if name not in ("step", "epoch", "split")}
            show(to, row["step"], row["split"], {n: math.nan if v is None else v for n, v in values.items()})


def write_pictures(workdir: Path, step: int, pictures: Mapping[str, bytes]) -> None:
    """Add PNG files."""
    import numpy as np
    from PIL import Image

    with writer(workdir) as to:
        for name, content in pictures.items():
            pixels = np.asarray(Image.open(io.BytesIO(content), formats=["PNG"]).convert("RGB"))
            to.add_image(name, pixels, step, dataformats="HWC")
