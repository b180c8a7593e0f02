"""Progress of a sweep or a search: a live line on a terminal, and a line for every epoch. Bounds in nats per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.command.progress import LiveLine, pace
from experiments.flags.points import label


class SweepBoard(LiveLine):
    """Progress of a sweep; `labels` are the names of its runs."""

    def __init__(self, labels: Mapping[str, str]):
        super().__init__()
        self._labels = labels

    def update(self, progress) -> None:
        """Show what `vae.sweeps.sweep` reports."""
        rest = f"/{progress.num_epochs}{_of_runs(progress)}: {progress.finished} of {progress.num_runs} finished"
        if progress.diverged:
            rest += f", {progress.diverged} diverged"
        for title, (name, value) in progress.best.items():
            rest += f", best {title} so far {value:.2f} ({self._labels[name]})"
        rest += pace(progress)
        self.show(
            f"epoch {progress.epoch:.2f}{rest}", f"epoch {progress.epoch:.0f}{rest}" if progress.epoch_ended else None
        )


class SearchBoard(LiveLine):
    """Also what the study of `worker` has reached, over all workers.

    Of a round of several populations, which train one after the other, only the last epoch of each has a line.
    """

    def __init__(self, worker):
        super().__init__()
        self._worker, self._counted, self._best = worker, "", ""

    def update(self, progress) -> None:
        """Show what `vae.sweeps.search` reports."""
        if progress.epoch_ended:
            self._counted, self._best = self._standing()
        rest = f"/{progress.num_epochs}{_of_runs(progress)}{self._best}"
        if left := pace(progress):
            rest += f"{left} of the round"
        is_last = progress.epoch >= progress.num_epochs or not progress.training
        stays = progress.epoch_ended and (is_last or progress.population == progress.num_runs)
        self.show(
            f"{self._counted}epoch {progress.epoch:.2f}{rest}",
            f"{self._counted}epoch {progress.epoch:.0f}{rest}" if stays else None,
        )

    def _standing(self) -> tuple[str, str]:
        """The number of trials with a result, and the best of them."""
        from optuna.trial import TrialState

        trials = self._worker.trials()
        told = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        finished = [trial for trial in told if trial.state == TrialState.COMPLETE]
        best = max(finished, key=lambda trial: trial.value, default=None)
        return (
            f"{len(told)} of {self._worker.num_trials} trials, ",
            "" if best is None else f", best {best.value:.2f} ({label(rounded(best.params))})",
        )


def _of_runs(progress) -> str:
    """How many runs of the population in training have not ended."""
    if not progress.training:
        return ", all ended early"
    return " of 1 run" if progress.training == 1 else f" of {progress.training} runs"


def rounded(params: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in params.items()}
