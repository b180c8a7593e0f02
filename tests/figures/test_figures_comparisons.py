"""Charts of several objectives: they show the numbers they are given, each objective in the colour of its rank."""

import matplotlib.colors
import numpy as np
import pytest

from vae import figures


def lines(figure):
    return figure.axes[0].get_lines()


def colors_of(artists):
    return {matplotlib.colors.to_hex(artist.get_color()) for artist in artists}


def test_runs_are_dots_and_their_mean_has_its_standard_error():
    scores = {"a": [-99.0, -98.0, -97.5], "b": [-101.0, -100.0, -102.0]}
    figure = figures.log_likelihoods(scores, "title")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    bars = [bar.get_segments()[0] for container in axes.containers for bar in container[2]]
    for rank, (values, bar) in enumerate(zip(scores.values(), bars, strict=True)):
        dots = [line for line in lines(figure) if list(line.get_xdata()) == values]
        assert colors_of(dots) == {figures.color_of(rank)}
        error = np.std(values, ddof=1) / np.sqrt(3)
        np.testing.assert_allclose(bar[:, 0], [np.mean(values) - error, np.mean(values) + error])


def test_a_difference_that_is_not_significant_is_hollow_and_has_no_colour_of_its_own():
    figure = figures.differences({"b": (1.0, 0.5, 1.5, True), "c": (0.2, -0.5, 0.9, False)}, "a", "title")
    dots = [line for line in lines(figure) if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in dots] == [figures.color_of(1), "white"]
    assert figures.color_of(2) not in colors_of(lines(figure))
    intervals = [list(line.get_xdata()) for line in lines(figure) if line.get_marker() == "None"]
    assert [0.5, 1.5] in intervals
    assert [-0.5, 0.9] in intervals


def test_the_curve_of_an_objective_is_the_mean_of_its_runs():
    runs = [(np.array([1.0, 2.0, 3.0]), np.array([-9.0, -5.0, -4.0]) + shift) for shift in (-1.0, 0.0, 1.0)]
    figure = figures.curves_of_objectives({"a": runs, "b": []}, "step", "nats", "title")
    (mean,) = [line for line in lines(figure) if line.get_linewidth() == 1.5 and len(line.get_xdata())]
    np.testing.assert_allclose(mean.get_ydata(), [-9.0, -5.0, -4.0])
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["a  −4.00", "b  not recorded"]


def test_lines_of_equal_elbo_lose_in_distortion_what_they_gain_in_rate():
    figure = figures.rate_distortion({"a": ([20.0, 21.0], [80.0, 79.5]), "b": ([25.0, 26.0], [76.0, 75.0])}, "title")
    dashed = [line for line in lines(figure) if line.get_linestyle() == "--"]
    assert len(dashed) >= 3
    for line in dashed:
        assert np.ptp(line.get_xdata() + line.get_ydata()) < 1e-9
    head, *named = sorted(figure.axes[0].texts, key=lambda text: text.get_text() != "ELBO")
    assert head.get_text() == "ELBO"
    for text in named:
        assert float(text.get_text().replace("−", "-")) == pytest.approx(-sum(text.xy))


@pytest.mark.parametrize("points", [{"a": ([20.0, 21.0], [80.0, 79.5])}, {"a": ([0.0], [26.8]), "b": ([1.2], [24.3])}])
def test_every_line_of_equal_elbo_that_can_be_seen_is_named_and_some_pass_between_the_points(points):
    """Also those that leave the chart at its lower edge, which is where the best points are."""
    axes = figures.rate_distortion(points, "title").axes[0]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    totals = {round(float(line.get_xdata()[0] + line.get_ydata()[0]), 6)
              for line in axes.get_lines() if line.get_linestyle() == "--"}  # fmt: skip
    seen = {total for total in totals if left + bottom < total < right + top}
    named = [text for text in axes.texts if text.get_text() != "ELBO"]
    assert {-float(text.get_text().replace("−", "-")) for text in named} == seen
    assert all(left <= text.xy[0] <= right and bottom <= text.xy[1] <= top for text in named)
    of_points = [rate + distortion for pair in points.values() for rate, distortion in zip(*pair, strict=True)]
    if len(points) > 1:
        assert len([total for total in seen if min(of_points) < total < max(of_points)]) >= 2


def test_no_run_is_cut_off_above_and_values_far_below_are_counted():
    times = np.arange(1.0, 41)
    best = np.linspace(-30, -20, 40)
    worst = np.where(times < 2, -5000.0, best - 2)
    figure = figures.curves_of_objectives({"a": [(times, best), (times, worst)]}, "step", "nats", "title")
    low, high = figure.axes[0].get_ylim()
    assert low > -100
    assert high > -20
    below = np.count_nonzero(np.concatenate([best, worst]) < low)
    assert [text.get_text() for text in figure.axes[0].texts] == [f"values below: {below} of 80, down to −5000"]
    rising = -20 - 2 * np.exp(-times / 8)
    runs = [(times, rising + shift) for shift in (0, 5)]
    whole = figures.curves_of_objectives({"a": runs}, "step", "nats", "title").axes[0]
    low, high = whole.get_ylim()
    assert (low < rising.min(), rising.max() + 5 < high) == (True, True)
    assert len(whole.texts) == 0


def test_forty_objectives_have_a_style_of_their_own():
    curves = {str(rank): [(np.array([1.0, 2.0]), np.array([-2.0, -1.0]))] for rank in range(40)}
    means = [line for line in lines(figures.curves_of_objectives(curves, "", "", "")) if line.get_linewidth() == 1.5]
    assert len({(line.get_color(), line.get_linestyle()) for line in means}) == 40
    dots = lines(figures.rate_distortion({name: ([1.0], [2.0]) for name in curves}, ""))
    assert len({(line.get_color(), line.get_marker()) for line in dots if line.get_markersize() == 7}) == 40


def test_a_spectrum_is_sorted_within_each_run():
    figure = figures.kl_spectra({"a": np.array([[0.1, 2.0], [1.0, 0.3]])}, "title")
    (curve,) = [line for line in lines(figure) if line.get_marker() == "."]
    np.testing.assert_allclose(curve.get_ydata(), [1.5, 0.2])


def test_rows_are_named_and_of_one_shape():
    figure = figures.side_by_side({"original": np.zeros((3, 8, 8, 1)), "$a$": np.ones((3, 8, 8, 1))}, "title")
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["original", "$a$"]
    assert not any(label.get_parse_math() for label in labels)
    with pytest.raises(ValueError, match="all of one shape"):
        figures.side_by_side({"a": np.zeros((3, 8, 8, 1)), "b": np.zeros((2, 8, 8, 1))}, "title")


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="expected at least one run"):
        figures.curves_of_objectives({"a": []}, "step", "nats", "title")
    with pytest.raises(ValueError, match="expected at least one objective"):
        figures.log_likelihoods({}, "title")


def test_the_cell_furthest_from_its_limit_is_ringed_and_named():
    cells = figures.Cells([0.0, 0.5, 1.0], {"error": [0.04, 0.06, 0.01], "cover": [0.96, 0.97, 0.93]}, "aab", "xyz")
    figure = figures.rates_of_cells({"3 seeds": cells}, {"error": (0.05, True), "cover": (0.95, False)}, "share")
    for axes, (x, y, name) in zip(figure.axes, ((0.5, 6, "y: 6.00 %"), (1.0, 93, "z: 93.00 %")), strict=True):
        (ring,) = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert (*ring.get_xdata(), *ring.get_ydata()) == (x, y)
        assert [text.get_text() for text in axes.texts] == [name]
    with pytest.raises(ValueError, match="expected 3"):
        figures.rates_of_cells({"a": cells._replace(names="xy")}, {"error": (0.05, True)}, "share")


def test_power_has_a_colour_for_each_group_and_a_line_for_each_test():
    found = {"now": {"2": [0.1, 0.9], "4": [0.0, 0.5]}, "before": {"2": [0.2, 0.9], "4": [0.1, 0.6]}}
    figure = figures.power_of_tests({"3 seeds": found}, [0.5, 1.0], "nats")
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert [line.get_linestyle() for line in lines.values()] == ["-", "-", ":", ":"]
    assert lines["2, now"].get_color() == lines["2, before"].get_color() != lines["4, now"].get_color()
    assert list(lines["4, before"].get_ydata()) == [10, 60]
