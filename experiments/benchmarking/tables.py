"""What was timed as a table, as JSON, and as the bars of a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from experiments.benchmarking.measuring import LIMIT, PEER, Timed
from experiments.benchmarking.works import TimedWork
from vae.figures import Bar

HEAD = ("", "median", "lowest – highest", "fastest peer ÷ this", "this ÷ limit", "held-out bound", "precision",
        "threads", "versions")  # fmt: skip


def fastest_peer(times: Mapping[str, Timed], precision: str) -> float | None:
    """The median seconds of the fastest peer of this precision; None if there is none."""
    return _least(times, PEER, precision)


def limit(times: Mapping[str, Timed], precision: str) -> float | None:
    """The median seconds of the limit of this precision; None if there is none."""
    return _least(times, LIMIT, precision)


def _least(times: Mapping[str, Timed], whose: str, precision: str) -> float | None:
    medians = [
        statistics.median(one.seconds) for one in times.values() if one.whose == whose and one.precision == precision
    ]
    return min(medians, default=None)


def table(title: str, work: TimedWork, times: Mapping[str, Timed]) -> list[str]:
    """The lines of a table in Markdown, which is also easy to read as it is."""
    rows: list[tuple[str, ...]] = [(f"{title}: {work.quantity}", *HEAD[1:])]
    for name, one in times.items():
        median = statistics.median(one.seconds)
        peer, least = fastest_peer(times, one.precision), limit(times, one.precision)
        rows.append(
            (
                name,
                text(work.shown(median)),
                f"{text(work.shown(min(one.seconds)))} – {text(work.shown(max(one.seconds)))}",
                "" if peer is None or one.whose == LIMIT else f"{peer / median:.2f}",
                "" if least is None or one.whose == LIMIT else f"{median / least:.2f}",
                "" if one.held_out is None else f"{one.held_out:.2f}",
                one.precision,
                str(one.threads),
                ", ".join(f"{library} {version}" for library, version in one.versions.items()),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    rows.insert(1, tuple("-" * width for width in widths))
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]


def text(value: float) -> str:
    """A number with three digits or more."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def as_json(work: TimedWork, times: Mapping[str, Timed]) -> dict[str, Any]:
    """A work for benchmark.json; `unit` is in steps or images, 0 for an epoch or a whole command."""
    return {
        "quantity": work.quantity,
        "unit": work.unit,
        "seconds_of_a_unit": {
            name: one._asdict() | {"median": statistics.median(one.seconds)} for name, one in times.items()
        },
    }


def bars(work: TimedWork, times: Mapping[str, Timed]) -> list[Bar]:
    """The times of a work as they are drawn."""
    return [
        Bar(
            name,
            work.shown(statistics.median(one.seconds)),
            work.shown(min(one.seconds)),
            work.shown(max(one.seconds)),
            one.whose,
        )
        for name, one in times.items()
    ]
