"""What a run writes about its training, whether it trains alone or among others: rows of metrics, and how it failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae import hosts
from vae.runs import checkpoint
from vae.runs.config import Config
from vae.runs.files import write_json
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.runs.metrics import Metrics, read_metrics
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


class Record(NamedTuple):
    """The folder of a run of `config` on `num_images` training images."""

    workdir: Path
    config: Config
    num_images: int

    @property
    def steps_per_epoch(self) -> int:
        return self.num_images // self.config.settings.batch_size

    @property
    def num_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def write(self, metrics: Metrics, step: int, split: str, values: dict[str, float]) -> None:
        """A row of `values`, with `bound` under its objective's name."""
        named = {self.config.settings.objective: values["bound"], **values}
        del named["bound"]
        metrics.write(step, step / self.steps_per_epoch, split, named)

    def last_row(self, split: str) -> dict[str, Any]:
        """The last row of `split`; empty if there is none."""
        rows = [row for row in read_metrics(self.workdir) if row["split"] == split]
        return rows[-1] if rows else {}

    def last_bound(self, split: str) -> float | None:
        """The last bound of `split` among the rows; None if there is none."""
        return self.last_row(split).get(self.config.settings.objective)

    def was_tested(self, step: int) -> bool:
        return any(row["split"] == "test" and row["step"] == step for row in read_metrics(self.workdir))

    def not_tested(self, bound: float) -> TrainingFailed:
        """The error of a run that was trained to its end, and gives the test images no finite bound."""
        return TrainingFailed(
            f"the test bound is {bound}, though training and validation were finite: the model gives some test image "
            f"no likelihood that float32 holds; {self.workdir} is trained and saved, with null for this bound in "
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
        batch_size, root = self.config.settings.batch_size, jax.random.key(self.config.seed)
        index = training.epoch_order(root, jnp.int32(epoch), self.num_images)[batch * batch_size :][:batch_size]
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
            f"{what} is not finite at step {step} (bound {recent.bound[-1]:.6g}, gradient norm "
            f"{recent.gradient_norm[-1]:.6g}, learning rate {recent.learning_rate[-1]:.6g}); what led to it is in "
            f"{self.workdir / FAILURE}; start a new run with a lower --learning_rate or --max_gradient_norm"
            + (f", from the last good checkpoint ({saved[-1]}) with --init_from={self.workdir}" if saved else "")
        )
