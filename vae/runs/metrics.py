"""metrics.jsonl: a row for each epoch and split; and one row about a whole run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vae import hosts, untrusted
from vae.runs import tensorboard
from vae.runs.config import read_config
from vae.runs.files import finite_or_null, read_json
from vae.runs.folder import EVALUATION, METRICS


class Metrics:
    """metrics.jsonl and TensorBoard: a row is {"step", "epoch", "split", …} with values in nats per example.

    Opening it at `step` forgets the rows after that step, so that a resumed run writes each row once. TensorBoard is
    written only where someone may be watching.
    """

    def __init__(self, workdir: Path, step: int, *, watched: bool = True):
        self._path = workdir / METRICS
        self._tensorboard = None
        if not hosts.is_first():
            return
        rows = [row for row in read_metrics(workdir) if row["step"] <= step]
        partial = self._path.with_name(f".{METRICS}.partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(partial, self._path)
        if watched:
            self._tensorboard = tensorboard.writer(workdir, purge_step=step + 1)

    def write(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        if not hosts.is_first():
            return
        row = {"step": step, "epoch": epoch, "split": split, **finite_or_null(values)}
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._tensorboard is not None:
            tensorboard.show(self._tensorboard, step, split, values)

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, up to a last line that a killed process may have left incomplete."""
    path = workdir / METRICS
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(untrusted.parse_object(line))
        except ValueError:
            break
    return rows


def summary(workdir: Path) -> dict[str, Any]:
    """One row of a list of runs: its settings, how far it is, its last held-out bounds and its log-likelihood."""
    config = read_config(workdir)
    values = config.to_dict()
    settings = {**values.pop("settings"), **values.pop("hyperparameters"), **values}
    rows = read_metrics(workdir)
    last = {row["split"]: row for row in rows}
    evaluation = read_json(workdir / EVALUATION) if (workdir / EVALUATION).exists() else {}
    return {
        "run": str(workdir),
        "settings": settings,
        "epoch": rows[-1]["epoch"] if rows else 0.0,
        **{split: last.get(split, {}).get(config.settings.objective) for split in ("validation", "test")},
        "log_likelihood": evaluation.get("log_likelihood"),
        "log_likelihood_se": evaluation.get("log_likelihood_se"),
    }
