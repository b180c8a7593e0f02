"""Progress on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def bar(description: str, total: int | None, unit: str, progress: bool):
    """A tqdm bar on stderr, silent where `progress` is False; `unit="B"` counts bytes."""
    from tqdm import tqdm

    interval = _interval()
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        mininterval=interval,
        maxinterval=interval,
        delay=interval,
        disable=not progress,
        leave=False,
        file=sys.stderr,
    )


@contextmanager
def stopwatch(description: str, progress: bool) -> Iterator:
    """A line on stderr with the seconds spent so far, for work of unknown length; yields a function to call often."""
    from tqdm import tqdm

    interval = _interval()
    shown = time.monotonic()
    with tqdm(
        desc=description,
        bar_format="{desc} [{elapsed}]",
        delay=interval,
        disable=not progress,
        leave=False,
        file=sys.stderr,
    ) as line:

        def tick() -> None:
            nonlocal shown
            if time.monotonic() - shown > interval:
                shown = time.monotonic()
                line.refresh()

        yield tick


def _interval() -> float:
    return 0.5 if sys.stderr.isatty() else 10.0  # a log file wants few lines
