"""What a run writes about its training, whether it trains alone or among others: rows of metrics, and how it failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae import hosts
from vae.runs import checkpoint, tensorboard
from vae.runs.config import Config
from vae.runs.ending import ranked
from vae.runs.files import RunError, is_count, read_json, write_json
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.runs.metrics import Metrics, Row, read_metrics, telling
from vae.training import step as training

FAILURE = "failure.json"


@hosts.shared
class TrainingFailed(RuntimeError):
    """The bound or its gradient is no longer a finite number; one line for the user."""


def epoch_means(state: training.TrainState, steps_per_epoch: int) -> dict[str, float]:
    """Means over the epoch so far of the bound (`bound`) and its metrics, and the learning rate of the last step."""
    last = int(state.step) - 1
    means = {name: float(total) / (last % steps_per_epoch + 1) for name, total in state.sums.items()}
    return means | {"learning_rate": float(state.recent.learning_rate[last % training.NUM_RECENT])}


@dataclasses.dataclass(frozen=True)
class MemoryRecord:
    """A run of `config` on `num_images` training images that writes nothing: its rows and states stay in memory."""

    config: Config
    num_images: int
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # as in metrics.jsonl
    saved: dict[int, tuple[float | None, training.TrainState]] = dataclasses.field(default_factory=dict)  # by step

    @property
    def name(self) -> str:
        return "in memory"

    @property
    def steps_per_epoch(self) -> int:
        return self.num_images // self.config.settings.batch_size

    @property
    def num_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    @property
    def wait(self) -> int:
        """The patience in steps; 0 if there is none."""
        return self.config.patience * self.steps_per_epoch

    @property
    def state(self) -> training.TrainState:
        """Of a run in memory: the state that is used, the best one of a run with patience, else the last one."""
        best = ranked({step: score for step, (score, _) in self.saved.items()})
        return self.saved[best[0] if best else max(self.saved)][1]

    def open_metrics(self, step: int, saved: Sequence[Row], *, watched: bool) -> Metrics | MemoryMetrics:
        """Where rows after `step` are written; `saved` are those of the checkpoint of that step.

        `watched`: someone may look at them while the run trains.
        """
        del step, saved, watched
        return MemoryMetrics(self.rows)

    def write(self, metrics: Metrics | MemoryMetrics, step: int, split: str, values: dict[str, float]) -> None:
        """A row of `values`, with `bound` under its objective's name."""
        named = {self.config.settings.objective: values["bound"], **values}
        del named["bound"]
        metrics.write(step, step / self.steps_per_epoch, split, named)

    def read_rows(self) -> list[dict[str, Any]]:
        return self.rows

    def telling_row(self, split: str | None) -> dict[str, Any]:
        """The row of `split` that says how good the run is, as vae.runs.metrics.telling; empty if there is none."""
        return telling(self.read_rows(), self.config).get(str(split), {})

    def last_bound(self, split: str | None) -> float | None:
        """The last bound of `split` among the rows; None if there is none."""
        rows = [row for row in self.read_rows() if row["split"] == split]
        return rows[-1].get(self.config.settings.objective) if rows else None

    def was_tested(self, step: int) -> bool:
        return any(row["split"] == "test" and row["step"] == step for row in self.read_rows())

    def seconds_before(self) -> float:
        """Seconds of training in the rows of a run that resumes; 0 if it has none."""
        return max((row["seconds"] for row in self.read_rows() if "seconds" in row), default=0.0)

    def save(self, step: int, state: training.TrainState, rows: Sequence[Row] = (), score: float | None = None) -> None:
        """A state that stays, with the `rows` since the checkpoint before; only the best one has a score."""
        del rows
        self.saved[step] = score, state

    def begins(self) -> None:
        """The run trains now: a failure of an earlier try is over."""

    def failed_step(self) -> int | None:
        """The step at which the run diverged; None if it did not."""

    def not_tested(self, bound: float) -> TrainingFailed:
        """The error of a run that was trained to its end, and gives the test images no finite bound."""
        return TrainingFailed(_not_tested(bound) + "; look for that image in the test data, or use other settings")

    def failure(self, what: str, state: training.TrainState) -> TrainingFailed:
        """The error of a run in whose last step `what` was not finite; `state` is the one after it."""
        return TrainingFailed(f"{_failed(what, state)}; use a lower `learning_rate` or `max_gradient_norm`")


class MemoryMetrics:
    """Rows of metrics in a list."""

    def __init__(self, rows: list[dict[str, Any]]):
        self._rows = rows

    def write(self, step: int, epoch: float, split: str, values: dict[str, float]) -> None:
        self._rows.append({"step": step, "epoch": epoch, "split": split, **values})

    def synced(self) -> list[Row]:
        """There is no file."""
        return []

    def close(self) -> None:
        """There is nothing to close."""


@dataclasses.dataclass(frozen=True)
class Record(MemoryRecord):
    """The same of a run with a folder, `workdir`: it writes everything there."""

    workdir: Path = dataclasses.field(kw_only=True)

    @property
    def name(self) -> str:
        return self.workdir.name

    def open_metrics(self, step: int, saved: Sequence[Row], *, watched: bool) -> Metrics:
        return Metrics(self.workdir, step, saved, watched=watched)

    def read_rows(self) -> list[dict[str, Any]]:
        return read_metrics(self.workdir)

    def save(self, step: int, state: training.TrainState, rows: Sequence[Row] = (), score: float | None = None) -> None:
        folder = self.workdir / CHECKPOINTS
        checkpoint.clean(folder)
        checkpoint.save(folder, step, state, score, [rows])

    def begins(self) -> None:
        if hosts.is_first():
            (self.workdir / FAILURE).unlink(missing_ok=True)

    def failed_step(self) -> int | None:
        path = self.workdir / FAILURE
        if not path.exists():
            return None
        if not is_count(step := read_json(path).get("step")):
            raise RunError(f"{path} is damaged: it does not say at which step the run diverged; remove it")
        return step

    def show_rows(self) -> None:
        """Write the rows for TensorBoard, of a run that nobody watched."""
        if hosts.is_first():
            tensorboard.write_rows(self.workdir, self.read_rows())

    def not_tested(self, bound: float) -> TrainingFailed:
        return TrainingFailed(
            f"{_not_tested(bound)}; {self.workdir} is trained and saved, with null for this bound in "
            f"{METRICS}; look for that image in its test data, or start a new run with other settings"
        )

    def failure(self, what: str, state: training.TrainState) -> TrainingFailed:
        """Write what led to `what` not being finite in the last step of `state`; the error that says where."""
        step = int(state.step) - 1
        steps = np.arange(max(0, step - training.NUM_RECENT + 1), step + 1)
        recent = jax.tree.map(lambda a: np.asarray(a)[steps % training.NUM_RECENT].tolist(), state.recent)
        leaves = jax.tree_util.tree_leaves_with_path(state.params)
        bad = [jax.tree_util.keystr(path) for path, leaf in leaves if not bool(jnp.isfinite(leaf).all())]
        epoch, batch = divmod(step, self.steps_per_epoch)
        settings, root = self.config.settings, jax.random.key(self.config.seed)
        order = training.epoch_order(root, jnp.int32(epoch), self.num_images, settings.shuffle)
        index = order[batch * settings.batch_size :][: settings.batch_size]
        report = {
            "step": step,
            "batch_index": np.asarray(index).tolist(),
            "params_not_finite_after_this_step": bad,
            "recent_steps": steps.tolist(),
            **{f"recent_{name}": values for name, values in recent._asdict().items()},
        }
        write_json(self.workdir / FAILURE, report)
        saved = checkpoint.steps(self.workdir / CHECKPOINTS)
        return TrainingFailed(
            f"{_failed(what, state)}; what led to it is in {self.workdir / FAILURE}; start a new run with a lower "
            "`learning_rate` or `max_gradient_norm`"
            + (f", from the last good checkpoint ({saved[-1]}) with `init_from={self.workdir}`" if saved else "")
        )


def _not_tested(bound: float) -> str:
    return (
        f"the test bound is {bound}, though training and validation were finite: the model gives some test image "
        "no likelihood that float32 holds"
    )


def _failed(what: str, state: training.TrainState) -> str:
    step = int(state.step) - 1
    bound, norm, rate = (float(np.asarray(values)[step % training.NUM_RECENT]) for values in state.recent)
    numbers = f"bound {bound:.6g}, gradient norm {norm:.6g}, learning rate {rate:.6g}"
    return f"{what} is not finite at step {step} ({numbers})"
