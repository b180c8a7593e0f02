"""Charts of speed: bars are times, in their order, with their range; what grows is drawn at its values."""

import numpy as np
import pytest

import vae.figures as figures
from vae.figures.benchmarks import COLORS, Bar, Growth

BARS = [Bar("torch", 4.0, 3.5, 5.0, "peer"), Bar("ours", 2.0, 1.5, 2.25, "ours"), Bar("limit", 1.0, 1.0, 1.0, "limit")]


def test_a_bar_is_a_median_with_its_range_and_the_fastest_is_on_top():
    figure = figures.times_of_works({"an epoch": ("s", BARS), "a step": ("ms", BARS[:1])})
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["limit", "ours", "torch"]
    assert first.yaxis_inverted()
    bars, *_ = first.containers[::-1]
    assert [bar.get_width() for bar in bars] == [1.0, 2.0, 4.0]
    (ranges,) = bars.errorbar.lines[2]
    np.testing.assert_allclose([segment[:, 0] for segment in ranges.get_segments()], [[1, 1], [1.5, 2.25], [3.5, 5]])
    assert [text.get_text() for text in first.texts] == ["1", "2", "4"]
    assert first.get_title(loc="left") == "an epoch"
    assert second.get_xlabel() == "ms"
    assert len(set(COLORS.values())) == 3
    assert figures.png(figure)


def test_growth_is_drawn_at_its_values_above_its_memory():
    batch = Growth([1, 2, 4], {"step": [0.001, 0.002, 0.2], "limit": [0.001] * 3}, {"memory": [1e6, 2e6, 3e6]})
    figure = figures.growth({"batch size": batch, "K": batch}, "title")
    time, other, memory, _ = figure.axes
    assert (time.get_ylabel(), memory.get_ylabel(), other.get_xlabel()) == ("ms a step", "MB", "K")
    lines = {line.get_label(): line for line in time.lines}
    np.testing.assert_allclose(lines["step"].get_xydata(), [[1, 1], [2, 2], [4, 200]])
    np.testing.assert_allclose(memory.lines[0].get_ydata(), [1, 2, 3])
    assert [label.get_text() for label in time.get_xticklabels()] == ["1", "2", "4"]
    assert [label.get_text() for label in time.get_yticklabels()] == ["1", "10", "100"]
    assert time.get_ylim() == other.get_ylim()
    assert figures.png(figure)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="works is empty"):
        figures.times_of_works({})
    with pytest.raises(ValueError, match="step has 1 entries; expected 2"):
        figures.growth({"K": Growth([1, 2], {"step": [1.0]}, {"memory": [1.0, 1.0]})}, "title")
