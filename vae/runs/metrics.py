"""metrics.jsonl, with a row for each epoch and split, and the summary of a run as one row."""

from __future__ import annotations

import json
import re
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae import durable, hosts, untrusted
from vae.runs import archive, tensorboard
from vae.runs.config import Config, read_config
from vae.runs.ending import ranked
from vae.runs.files import RunError, RunWarning, finite_or_null, is_count, packed, read_bytes, read_json
from vae.runs.folder import EVALUATION, METRICS

DAMAGED = "metrics.damaged.jsonl"  # lines of METRICS that were found damaged
SPLITS = ("train", "validation", "test")  # in the order in which rows of a step are written
CHECKSUM = re.compile(rb', "crc32": "([0-9a-f]{8})"}$')  # of the line without it; lines of older code have none

Row = dict[str, Any]


class Metrics:
    """metrics.jsonl and TensorBoard: a row is {"step", "epoch", "split", …} with values in nats per example.

    Opening it at `step` drops the rows after that step, so that a resumed run writes each row once; puts back those
    of `saved` (from a checkpoint) that the file lacks; and moves damaged lines to metrics.damaged.jsonl, with a
    RunWarning. Rows are on the disk after `synced`. TensorBoard is written only if someone may be watching.
    """

    def __init__(self, workdir: Path, step: int, saved: Sequence[Row] = (), *, watched: bool = True):
        self._path = workdir / METRICS
        self._tensorboard = None
        self._unsaved: list[Row] = []
        if not hosts.is_first():
            return
        _mend(workdir, step, saved)
        if watched:
            self._tensorboard = tensorboard.writer(workdir, purge_step=step + 1)

    def write(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        if not hosts.is_first():
            return
        row = {"step": step, "epoch": epoch, "split": split, **finite_or_null(values)}
        try:
            durable.add(self._path, _line(row))
        except OSError as error:
            raise RunError(
                f"{self._path} cannot be written ({error.strerror}); make room, give permission or put the folder "
                "back, and start again: the run resumes from its last checkpoint"
            ) from error
        self._unsaved.append(row)
        if self._tensorboard is not None:
            tensorboard.show(self._tensorboard, step, split, values)

    def synced(self) -> list[Row]:
        """The rows since the last call, for the checkpoint that is saved next; the file is on the disk then."""
        if self._unsaved:
            durable.sync(self._path)
        rows, self._unsaved = self._unsaved, []
        return rows

    def close(self) -> None:
        if self._tensorboard is not None:
            try:
                self._tensorboard.close()
            except OSError as error:
                warnings.warn(f"TensorBoard lacks the last rows ({error.strerror})", RunWarning, 2)


def read_metrics(workdir: Path) -> list[Row]:
    """The rows of metrics.jsonl. Damaged lines are left out, with a RunWarning."""
    lines = _lines(workdir / METRICS)
    rows = [row for line in lines if (row := _row(line)) is not None]
    if len(rows) < len(lines):
        _warn(workdir / METRICS, lines, "left out")
    return rows


def epochs(rows: Sequence[Row]) -> float:
    """How many were trained; the test row of a run with patience is of an earlier one."""
    return max((row["epoch"] for row in rows), default=0.0)


def validation_bounds(rows: Sequence[Row], config: Config) -> dict[int, float]:
    """The validation bound by step."""
    name = config.settings.objective
    bounds = {row["step"]: row.get(name) for row in rows if row["split"] == "validation"}
    return {step: bound for step, bound in bounds.items() if bound is not None}


def telling(rows: Sequence[Row], config: Config) -> dict[str, Row]:
    """The row of each split that says how good a run is: the last one, or that of its best epoch if it has patience."""
    best = ranked(validation_bounds(rows, config))[:1] if config.patience else []
    found: dict[str, Row] = {}
    for row in rows:
        if row["split"] == "test" or not best or row["step"] == best[0]:
            found[row["split"]] = row
    return found


def _mend(workdir: Path, step: int, saved: Sequence[Row]) -> None:
    """What opening metrics.jsonl does to it."""
    path = workdir / METRICS
    lines, kept = _lines(path), {}
    for line in lines:
        if (row := _row(line)) is not None and row["step"] <= step:
            kept.setdefault((row["step"], row["split"]), line)
    lost = {place: _line(row) for row in saved if (place := (row["step"], row["split"])) not in kept}
    if damaged := [line for line in lines if _row(line) is None]:
        durable.append(workdir / DAMAGED, b"".join(line + b"\n" for line in damaged))
        _warn(path, lines, f"kept in {workdir / DAMAGED}" + (f"; {len(lost)} came back from a checkpoint" * bool(lost)))
    elif step and not lines and (lost or not path.exists()):  # in the first epoch it is there, and empty
        warnings.warn(f"{path} is gone; {len(lost)} of its rows came back from a checkpoint", RunWarning, 3)
    whole = path.exists() and path.read_bytes()[-1:] in (b"", b"\n")  # else the next row would join the last
    if not whole or path.is_symlink() or len(kept) < len(lines) or lost:
        both = kept | lost
        ordered = sorted(both, key=lambda place: (place[0], SPLITS.index(place[1]))) if lost else both
        durable.write(path, b"".join(both[place].removesuffix(b"\n") + b"\n" for place in ordered))


def _lines(path: Path) -> list[bytes]:
    there = archive.is_packed(path.parent) or path.exists()
    content = read_bytes(path) if there else b""
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _warn(path: Path, lines: Sequence[bytes], what: str) -> None:
    damaged = [str(number) for number, line in enumerate(lines, 1) if _row(line) is None]
    shown = ", ".join(damaged[:5]) + (", …" if len(damaged) > 5 else "")
    warnings.warn(f"{path} is damaged in {len(damaged)} of {len(lines)} lines ({shown}): {what}", RunWarning, 3)


def lines(rows: Sequence[Row]) -> bytes:
    """The content of metrics.jsonl."""
    return b"".join(map(_line, rows))


def _line(row: Row) -> bytes:
    """A row as JSON, which ends with the checksum of the line without it."""
    content = json.dumps(row).encode()
    return content[:-1] + b', "crc32": "%08x"}\n' % zlib.crc32(content)


def _row(line: bytes) -> Row | None:
    """The inverse of `_line`; None if the line is damaged."""
    if found := CHECKSUM.search(line):
        line = line[: found.start()] + b"}"
        if zlib.crc32(line) != int(found[1], 16):
            return None
    try:
        row = untrusted.parse_object(line)
    except ValueError:
        return None
    return row if is_row(row) else None


def is_row(row: Any) -> bool:
    """Whether it has a step, an epoch and a split, and numbers beside them."""
    if not isinstance(row, dict):
        return False
    numbers = [value for name, value in row.items() if name not in ("step", "epoch", "split")]
    return (
        is_count(row.get("step"))
        and type(row.get("epoch")) in (int, float)
        and row.get("split") in SPLITS
        and all(type(number) in (int, float, type(None)) for number in numbers)
    )


def _elbo(row: dict[str, Any]) -> float | None:
    """The ELBO of a row of metrics; None if it has none."""
    reconstruction, kl = row.get("reconstruction"), row.get("kl")
    return None if reconstruction is None or kl is None else reconstruction - kl


def read_evaluation(path: Path) -> dict[str, Any]:
    """evaluation.json, or one like it; RunError as read_json, and if a number in it is none."""
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
    """One row of a list of runs: settings, how far it is, its held-out bounds and ELBOs, the log-likelihood.

    The bounds are those of `telling`, whose `step` is the last one of a run without patience.
    """
    config = read_config(workdir)
    values = config.to_dict()
    settings = {**values.pop("settings"), **values.pop("hyperparameters"), **values}
    rows = read_metrics(workdir)
    last = telling(rows, config)
    there = EVALUATION in packed(workdir) if archive.is_packed(workdir) else (workdir / EVALUATION).exists()
    evaluation = read_evaluation(workdir / EVALUATION) if there else {}
    held_out = {split: last.get(split, {}) for split in ("validation", "test")}
    return {
        "run": str(workdir),
        "settings": settings,
        "epoch": epochs(rows),
        "step": max((row["step"] for row in last.values()), default=0),
        **{split: row.get(config.settings.objective) for split, row in held_out.items()},
        **{f"{split}_elbo": _elbo(row) for split, row in held_out.items()},
        "log_likelihood": evaluation.get("log_likelihood"),
        "log_likelihood_se": evaluation.get("log_likelihood_se"),
        "log_likelihood_step": evaluation.get("checkpoint"),
    }
