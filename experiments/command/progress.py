"""Progress of a script: a live line on a terminal, and lines that stay, on a terminal or in a file."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

SILENCE = 30.0  # seconds without a line that stays, at most, for who sees no live line


class LiveLine:
    """A live line; not shown if standard error is no terminal, or in any process except the first."""

    def __init__(self):
        self._bar: Any = None
        self._printed = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def show(self, line: str, stays: str | None = None, step: int = 0, **bar: Any) -> None:
        """Show `line` in place of the line before, and print `stays` for good; `bar` are arguments of tqdm.

        If there is no terminal, `line` is printed after SILENCE.
        """
        from tqdm import tqdm

        from vae import hosts

        if self._bar is None:
            disable = not (sys.stderr.isatty() and hosts.is_first())
            arguments: dict[str, Any] = {"bar_format": "{desc}"} | bar
            self._bar = tqdm(initial=step, leave=False, disable=disable, **arguments)
        self._bar.set_description_str(line, refresh=False)
        self._bar.update(step - self._bar.n)
        self._bar.refresh()
        if stays is None and self._bar.disable and time.monotonic() - self._printed > SILENCE:
            stays = line
        if stays is not None:
            tqdm.write(stays)
            self._printed = time.monotonic()


class ImageBar:
    """How many images of an evaluation are done, one evaluation after another."""

    def __init__(self):
        self._bar: Any = None

    def update(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, unit="image", leave=False, disable=not sys.stderr.isatty())
        self._bar.update(done - self._bar.n)
        if done == total:
            self._bar.close()
            self._bar = None


def pace(progress) -> str:
    """Steps per second and time left, as text; empty if they are not known yet."""
    from tqdm import tqdm

    if not math.isfinite(progress.seconds_left):
        return ""
    return f", {progress.steps_per_second:.0f} steps/s, {tqdm.format_interval(progress.seconds_left)} left"
