"""metrics.jsonl, with a row for each epoch and split, and the summary of a run as one row."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vae import hosts, untrusted
from vae.runs import tensorboard
from vae.runs.config import read_config
from vae.runs.files import RunError, finite_or_null, is_count, partial_of, read_json
from vae.runs.folder import EVALUATION, METRICS


class Metrics:
    """metrics.jsonl and TensorBoard: a row is {"step", "epoch", "split", …} with values in nats per example.

    Opening it at `step` drops the rows after that step, so that a resumed run writes each row once. TensorBoard is
    written only if someone may be watching.
    """

    def __init__(self, workdir: Path, step: int, *, watched: bool = True):
        self._path = workdir / METRICS
        self._tensorboard = None
        if not hosts.is_first():
            return
        rows = [row for row in read_metrics(workdir) if row["step"] <= step]
        partial = partial_of(self._path)
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
    """The rows of metrics.jsonl, up to a last line that a killed process may have left incomplete.

    Raises RunError where a line is JSON and no row of metrics.
    """
    path = workdir / METRICS
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        try:
            row = untrusted.parse_object(line)
        except ValueError:
            break
        if not _is_row(row):
            raise RunError(f"{path} is damaged: its line {number} is no row of metrics; put the file back")
        rows.append(row)
    return rows


def _is_row(row: dict[str, Any]) -> bool:
    """Whether it has a step, an epoch and a split, and numbers beside them."""
    numbers = [value for name, value in row.items() if name not in ("step", "epoch", "split")]
    return (
        is_count(row.get("step"))
        and type(row.get("epoch")) in (int, float)
        and isinstance(row.get("split"), str)
        and all(type(number) in (int, float, type(None)) for number in numbers)
    )


def _elbo(row: dict[str, Any]) -> float | None:
    """The ELBO of a row of metrics; None where it has none."""
    reconstruction, kl = row.get("reconstruction"), row.get("kl")
    return None if reconstruction is None or kl is None else reconstruction - kl


def read_evaluation(path: Path) -> dict[str, Any]:
    """evaluation.json, or one like it; RunError as read_json, and where a number in it is none."""
    values = read_json(path)
    whole = all(is_count(values.get(name)) for name in ("num_examples", "num_samples", "seed", "checkpoint"))
    means = ("log_likelihood", "log_likelihood_se", "elbo", "reconstruction", "kl", "active_units")
    spectrum = values.get("kl_per_dimension")
    numbers = [values.get(name, "absent") for name in means] + (spectrum if isinstance(spectrum, list) else [])
    known = all(type(number) in (int, float, type(None)) for number in numbers)
    if not whole or not known or not isinstance(spectrum, list | None):
        raise RunError(f"{path} is damaged: it is no evaluation; remove it, and evaluate the run again")
    return values


def summary(workdir: Path) -> dict[str, Any]:
    """One row of a list of runs: settings, how far it is, the last held-out bounds and ELBOs, the log-likelihood."""
    config = read_config(workdir)
    values = config.to_dict()
    settings = {**values.pop("settings"), **values.pop("hyperparameters"), **values}
    rows = read_metrics(workdir)
    last = {row["split"]: row for row in rows}
    evaluation = read_evaluation(workdir / EVALUATION) if (workdir / EVALUATION).exists() else {}
    held_out = {split: last.get(split, {}) for split in ("validation", "test")}
    return {
        "run": str(workdir),
        "settings": settings,
        "epoch": rows[-1]["epoch"] if rows else 0.0,
        **{split: row.get(config.settings.objective) for split, row in held_out.items()},
        **{f"{split}_elbo": _elbo(row) for split, row in held_out.items()},
        "log_likelihood": evaluation.get("log_likelihood"),
        "log_likelihood_se": evaluation.get("log_likelihood_se"),
    }
