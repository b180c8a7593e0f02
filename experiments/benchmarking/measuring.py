"""Times works: who does them is asked in turn, A B C A B C …, after all have compiled."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarking import whole
from experiments.benchmarking.live import Live, NoAnswer
from experiments.benchmarking.works import IMAGES, PEERS, PRECISIONS, SWEEP_EPOCHS, WORKS, TimedWork, of_ours, of_peer
from experiments.flags.parsing import UsageError

OURS, PEER, LIMIT = "ours", "peer", "limit"  # whose a time is
SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # of processes that are there at once: the memory of a GPU


class Timed(NamedTuple):
    """The times of one who does a work: seconds of a unit in each round, and what it says of itself."""

    whose: str
    seconds: list[float]
    precision: str
    threads: int
    versions: dict[str, str]
    held_out: float | None = None  # the bound on held-out images at the end, in nats per image


class GivenData(NamedTuple):
    """The images of a benchmark: the flags that name them here, and the files that the peers read."""

    flags: tuple[str, ...]
    folder: Path
    steps_per_epoch: Callable[[int], int]

    def of_ours(self, work: str) -> tuple[str, ...]:
        """The flags of ours for a work; the last one of a name counts."""
        made = WORKS[work].data == IMAGES
        return (*self.flags, f"--dataset={self.folder / IMAGES}") if made else self.flags

    def of_peer(self, work: str) -> Path:
        name = "sweep.npz" if work == "sweep" else WORKS[work].data
        return self.folder / (name if name.endswith(".npz") else f"{name}.npz")


def write_data(folder: Path, dataset: Any, digits: Any) -> None:
    """The files that the peers read: train and test, uint8 [N, H, W, C], and of a sweep validation too."""
    from vae.datasets import images

    def held_out(of, split):
        return images.stored(of, split, "dynamic", training=False).images

    train, test = dataset.train.images, dataset.test.images
    np.savez(folder / "grey.npz", train=train, test=test)
    np.savez(folder / "binarized.npz", train=train, test=held_out(dataset, "test"))
    validation = held_out(digits, "validation")
    np.savez(folder / "sweep.npz", train=digits.train.images, validation=validation, test=held_out(digits, "test"))
    coarse = np.random.default_rng(0).integers(0, 256, (2500, 4, 4, 3), np.uint8)
    made = coarse.repeat(8, axis=1).repeat(8, axis=2)
    np.savez(folder / IMAGES, train=made[:2000], test=made[2000:], x_train=made[:2000], x_test=made[2000:])


class Benchmark:
    """Times works, by name, in `rounds` rounds; `left_out` says which peers could not do them, and why."""

    def __init__(self, data: GivenData, works: Mapping[str, TimedWork], peers: Sequence[str], python: str, rounds: int):
        self._data, self._works, self._peers, self._python, self._rounds = data, works, list(peers), python, rounds
        self.left_out: dict[str, str] = {}

    def time(self, work: str) -> dict[str, dict[str, Timed]]:
        """By title: the times of a work by who does it; of a whole command cold and warm. Raises UsageError."""
        title = self._works[work].title
        if not self._works[work].whole:
            return {title: self._live(work)}
        times = self._whole(work)
        return {
            f"{title}, {state}": {name: by_state[state] for name, by_state in times.items()} for state in whole.STATES
        }

    def _live(self, work: str) -> dict[str, Timed]:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            found: dict[str, tuple[Live, str, dict[str, Any]]] = {}
            for name, whose, command in self._commands(work):
                with self._leaving_out(name, whose):
                    process = stack.enter_context(Live(command, folder / name, os.environ | SHARING))
                    found[name] = process, whose, process.ready()
            seconds: dict[str, list[float]] = {name: [] for name in found}
            for _ in range(self._rounds):
                for name, (process, *_) in found.items():
                    seconds[name].append(process.unit())
            return {
                name: timed(whose, seconds[name], about, process.held_out())
                for name, (process, whose, about) in found.items()
            }

    def _commands(self, work: str) -> Iterator[tuple[str, str, list[str]]]:
        """Who does a live work, whose it is, and the command."""
        given, flags = self._works[work], self._data.of_ours(work)
        modes = ["evaluation"] if given.evaluates else ["steps"] if given.unit else ["epochs", "steps"]
        for precision in PRECISIONS:
            suffix = "" if precision == PRECISIONS[0] else "_bf16"
            for mode in modes:
                name = "ours_steps" if mode != modes[0] else "ours"
                yield name + suffix, OURS, of_ours(mode, given, precision, flags)
            limit = "limit_of_evaluation" if given.evaluates else "limit_of_steps"
            yield "limit" + suffix, LIMIT, of_ours(limit, given, precision, flags)
        for name in self._of(work):
            yield name, PEER, self._command(name, work)

    def _command(self, name: str, work: str) -> list[str]:
        given = self._works[work].unit
        unit = SWEEP_EPOCHS if work == "sweep" else given or self._data.steps_per_epoch(batch_size(work))
        return of_peer(name, work, self._data.of_peer(work), unit, self._python)

    def _of(self, work: str) -> list[str]:
        """The peers that do a work."""
        return [name for name in self._peers if work in PEERS[name].works]

    def _whole(self, work: str) -> dict[str, dict[str, Timed]]:
        doers: dict[str, Callable[[str], tuple[float, dict[str, Any]]]] = {"ours": self._of_ours(work)}
        for name in self._of(work):
            doers[name] = self._of_peer(name, work)
        about, seconds = {}, {name: {state: [] for state in whole.STATES} for name in doers}
        for _ in range(self._rounds):
            for name, do in list(doers.items()):
                with self._leaving_out(name, OURS if name == "ours" else PEER), tempfile.TemporaryDirectory() as empty:
                    for state in whole.STATES:
                        taken, about[name] = do(empty)
                        seconds[name][state].append(taken)
                if name in self.left_out:
                    del doers[name]
        return {
            name: {state: timed(OURS if name == "ours" else PEER, values, about[name]) for state, values in by.items()}
            for name, by in seconds.items()
            if name in doers
        }

    def _of_ours(self, work: str) -> Callable[[str], tuple[float, dict[str, Any]]]:
        flags, about = self._data.of_ours(work), {"versions": {"jax": importlib.metadata.version("jax")}}
        if work == "sweep":
            of_data = [flag for flag in flags if not flag.startswith("--dataset=")]

            def sweep(compiled):
                seconds, held_out = whole.sweep_of_ours(of_data, compiled)
                return seconds, about | {"held_out": held_out}

            return sweep
        flags = [*self._works[work].flags, *flags, "--nofigures"]
        return lambda compiled: (whole.start_of_ours(flags, compiled), about)

    def _of_peer(self, name: str, work: str) -> Callable[[str], tuple[float, dict[str, Any]]]:
        command = self._command(name, work)
        if work == "sweep":
            return lambda compiled: whole.sweep_of_peer(command, compiled)
        return lambda compiled: whole.start_of_peer(command, compiled)

    @contextlib.contextmanager
    def _leaving_out(self, name: str, whose: str) -> Iterator[None]:
        """A peer that cannot do a work is left out, of this and of the works to come; ours must."""
        try:
            yield
        except NoAnswer as ended:
            if whose != PEER:
                raise UsageError(f"{name} cannot be timed: {str(ended).removeprefix('error: ')}") from ended
            self.left_out[name] = str(ended)
            self._peers.remove(name)


def batch_size(work: str) -> int:
    """Of a work whose unit is an epoch."""
    from vae.presets import PRESETS

    (preset,) = (flag.removeprefix("--preset=") for flag in WORKS[work].flags if flag.startswith("--preset="))
    return PRESETS[preset]["batch_size"]


def timed(whose: str, seconds: list[float], about: dict[str, Any], held_out: float | None = None) -> Timed:
    """The times of one who says `about` of itself what Timed has; a whole command says less."""
    known = {"precision": "float32", "threads": len(os.sched_getaffinity(0)), "versions": {}, "held_out": held_out}
    return Timed(whose, seconds, **{name: about.get(name, default) for name, default in known.items()})


def unused(peers: Collection[str], works: Collection[str]) -> list[str]:
    """The peers that do none of the works."""
    return [name for name in peers if not set(works) & set(PEERS[name].works)]
