"""The charts of the estimator laboratory: signal to noise, and variance × time."""

import numpy as np
import pytest

from experiments.command import gradient_table
from vae import figures


def test_the_chart_has_a_panel_for_each_group_with_the_ratios_and_the_noise_floor():
    panels = {
        "encoder": {"dreg": ([1, 4, 16], [1.0, 1.5, 2.0], [0.1, 0.1, 2.5]), "score": ([4, 16], [0.2, 0.1], [0, 0])},
        "decoder": {"dreg": ([1, 4, 16], [1.0, 2.0, 4.0], [0.1, 0.1, 0.1])},
    }
    figure = figures.signal_to_noise(panels, 0.3, "title")
    encoder, decoder = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["title: encoder", "title: decoder"]
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        low, high = axes.get_ylim()
        assert low < 0.3 < high
        # On the floor's height, and every ratio above it or marked as noise.
        assert 0.3 in [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1]
    lines = [container.lines[0] for container in encoder.containers]
    np.testing.assert_array_equal(lines[0].get_ydata(), [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(lines[1].get_ydata(), [0.2, 0.1])
    # Beside their K, not on each other.
    for line, k in zip(lines, ([1, 4, 16], [4, 16]), strict=True):
        np.testing.assert_allclose(line.get_xdata(), k, rtol=0.04)
    assert lines[0].get_xdata()[1] != lines[1].get_xdata()[0]
    assert lines[0].get_color() == decoder.containers[0].lines[0].get_color() != lines[1].get_color()
    bars = encoder.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bars[0][:, 1], [0.9, 1.1])
    np.testing.assert_allclose(bars[2][:, 1], [0.2, 4.5])
    figures.png(figure)


@pytest.mark.parametrize(
    ("panels", "floor", "message"),
    [
        ({}, 0.1, "panels is empty"),
        ({"encoder": {}}, 0.1, "panels is empty"),
        ({"encoder": {"dreg": ([1], [1], [0])}}, 0.0, "noise_floor is 0; expected more than 0"),
        ({"encoder": {"dreg": ([1, 2], [1], [0])}}, 0.1, "ratios of 'dreg' has 1 entries; expected 2"),
        ({"encoder": {str(i): ([1], [1], [0]) for i in range(31)}}, 0.1, "31 curves are too many to be told apart"),
        ({"encoder": {"dreg": ([1], [0], [0])}}, 0.1, "expected K ≥ 1 and ratios above 0"),
        ({"encoder": {"dreg": ([1], [np.nan], [0])}}, 0.1, "1 NaN or infinite values"),
    ],
)
def test_a_chart_of_ratios_that_cannot_be_drawn_is_refused_in_one_line(panels, floor, message):
    with pytest.raises(ValueError, match=message):
        figures.signal_to_noise(panels, floor, "")


def test_the_chart_of_work_has_a_line_for_each_estimator_and_hollow_dots_for_wrong_means():
    panels = {
        "encoder": {"reparameterized": [(1, 1.0, False), (4, 1.0, False)], "stl": [(1, 0.2, False), (4, 0.05, True)]},
        "decoder": {"stl": [(1, 1.5, False), (4, 2.0, False)]},
    }
    figure = figures.gradient_work(panels, "title")
    encoder, decoder = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["title: encoder", "decoder"]
    assert [label.get_text() for label in encoder.get_yticklabels()] == ["reparameterized", "stl"]
    dots = [line for line in encoder.lines if line.get_marker() == "o"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [(1, 0), (1, 0), (0.2, 1), (0.05, 1)]
    assert [str(line.get_markerfacecolor()) == "white" for line in dots] == [False, False, False, True]
    # On the height of its name in the other panel, in the same colour for the same K.
    other = [line for line in decoder.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in other] == [(1.5, 1), (2.0, 1)]
    assert [line.get_color() for line in other] == [line.get_color() for line in dots[2:]]
    assert [text.get_text() for text in decoder.get_legend().get_texts()] == ["K = 1", "K = 4", "wrong mean"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    figures.png(figure)


def test_what_is_drawn_of_the_work_is_what_is_known_of_it():
    def row(objective, work, **found):
        return {"objective": objective, "estimator": "stl", "num_samples": 4, "groups": {"prior": found},
                "work": {"prior": work}}  # fmt: skip

    biased, unbiased, untested = row("iwae", 0.5, p_norm=0.002), row("iwae", 0.7, p_norm=0.2), row("iwae", 2.0)
    assert gradient_table.work([biased]) == {"prior": {"stl": [(4, 0.5, True)]}}
    assert gradient_table.work([unbiased, untested]) == {"prior": {"stl": [(4, 0.7, False), (4, 2.0, False)]}}
    assert gradient_table.work([row("iwae", None), row("iwae", 0.0)]) == {}
    assert list(gradient_table.work([biased, row("vr_max", 1.0)])["prior"]) == ["iwae stl", "vr_max stl"]
    # It is 1 by its definition.
    assert gradient_table.work([row("iwae", 1.0) | {"estimator": "reparameterized"}]) == {}


def test_a_title_names_as_many_objectives_as_it_has_room_for():
    rows = [{"objective": name} for name in ("iwae", "iwae", "elbo", "rws", "tvo")]
    assert gradient_table.title(rows[:4]) == "Gradient of iwae, elbo, rws"
    assert gradient_table.title(rows) == "4 objectives"
