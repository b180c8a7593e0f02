"""figures/sweeps.py: what is drawn are means and standard errors over seeds, and nothing is hidden in silence."""

import numpy as np
import pytest

import vae.figures as figures
from tests.figures.test_figures import texts


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_mean_and_standard_error_are_those_of_the_finite_scores():
    mean, error = figures.mean_and_error([1.0, 2.0, 6.0, np.nan])
    assert mean == 3
    assert error == pytest.approx(np.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2 / 3))
    assert np.isnan(figures.mean_and_error([5.0])[1])
    assert np.isnan(figures.mean_and_error([])[0])


def test_a_score_is_drawn_at_its_value_of_the_axis_with_its_seeds_as_error_bar():
    scores = {"a": [[-3.0, -1.0], [-7.0, -5.0], [np.nan, np.nan]], "b": [[-4.0], [-4.0], [-4.0]]}
    figure = figures.score_against_axis([1e-3, 1e-2, 1e-1], scores, "rate", "elbo", "title", log=True)
    (axes,) = figure.axes
    lines = {container.get_label(): container for container in axes.containers}
    np.testing.assert_allclose(lines["a"].lines[0].get_xydata(), [[1e-3, -2], [1e-2, -6]])
    (bars,) = lines["a"].lines[2]
    np.testing.assert_allclose([segment[:, 1] for segment in bars.get_segments()], [[-3, -1], [-7, -5]])
    assert axes.get_xscale() == "log"
    assert legend(axes) == ["a", "b"]
    assert "not finite: 2 of 9" in texts(figure)


def test_names_are_drawn_at_equal_distances_in_their_order():
    figure = figures.score_against_axis(["mlp", "conv"], {"": [[1.0], [2.0]]}, "network", "elbo", "title")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["mlp", "conv"]
    assert figure.axes[0].get_legend() is None


def test_a_terrible_run_does_not_flatten_the_others_and_is_counted():
    scores = [[-20.0 - i] for i in range(10)] + [[-1e6]]
    figure = figures.score_against_axis(list(range(11)), {"a": scores}, "x", "elbo", "title")
    assert figure.axes[0].get_ylim()[0] > -40
    assert "values below: 1, down to −1e+06" in texts(figure)


def test_each_cell_of_a_heat_map_says_its_score_and_an_empty_one_that_it_has_none():
    scores = np.array([[-1.25, -2.0, np.nan], [-3.0, -4.0, -5.0]])
    figure = figures.score_heat_map([1, 2, 3], ["a", "b"], scores, "x", "y", "title")
    axes = figure.axes[0]
    written = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "−1.25", (1, 0): "−2.00", (2, 0): "—", (0, 1): "−3.00", (1, 1): "−4.00", (2, 1): "−5.00"}
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), scores)
    assert axes.images[0].origin == "lower"


def test_the_best_learning_curves_are_named_and_the_others_counted():
    steps = np.arange(1, 5)
    curves = {f"run {i}": (steps, np.stack([-steps[::-1] - i, -steps[::-1] - i - 2.0])) for i in range(6)}
    figure = figures.learning_curves_of_sweep(curves, "epoch", "elbo", "title", num_named=2)
    axes = figure.axes[0]
    assert legend(axes) == ["run 0  −2.00", "run 1  −3.00", "4 others", "± standard error over seeds"]
    np.testing.assert_allclose(axes.lines[4].get_ydata(), [-5, -4, -3, -2])
    band = axes.collections[0].get_paths()[0].vertices
    assert {-1.0, -3.0} <= set(np.round(band[band[:, 0] == 4, 1], 6))


@pytest.mark.parametrize("num_named", [2, 12])
def test_a_legend_takes_no_width_from_the_axes_however_long_it_is(num_named):
    names = [f"run {i}, " + "a_long_name=0.123, " * 3 * (i % 2) for i in range(num_named)]
    curves = {name: (np.arange(3), np.array([[-3.0, -2.0, np.nan]])) for name in names}
    figure = figures.learning_curves_of_sweep(curves, "epoch", "elbo", "title", num_named=num_named)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    note = next(text for text in axes.texts if text.get_text().startswith("not finite"))
    box, below = axes.get_legend().get_window_extent(), note.get_window_extent()
    assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
    assert box.y1 < below.y0


def test_a_curve_that_diverged_ends_where_it_did():
    curves = {
        "a": (np.arange(3), np.array([[-3.0, np.nan, np.nan]])),
        "b": (np.arange(3), np.array([[-5.0, -4.0, -3.0]])),
    }
    figure = figures.learning_curves_of_sweep(curves, "epoch", "elbo", "title")
    assert "not finite: 2 of 6" in texts(figure)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.score_against_axis([1, 2], {}, "x", "y", "t"), "lines is empty"),
        (lambda: figures.score_against_axis([1, 2], {"a": [[1.0]]}, "x", "y", "t"), "scores of 'a' has 1 entries"),
        (lambda: figures.score_heat_map([1, 2], [1], np.zeros((2, 1)), "x", "y", "t"), r"expected \(1, 2\)"),
        (lambda: figures.learning_curves_of_sweep({}, "x", "y", "t"), "curves is empty"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


TRIALS = [0, 1, 2, 3, 5]  # 4 failed
SCORES = [-9.0, -5.0, -6.0, np.nan, -4.5]
FINISHED = [True, True, False, False, True]


def dots(axes, label):
    (found,) = [points for points in axes.collections if points.get_label() == label]
    return found.get_offsets().tolist()


def test_the_best_so_far_of_a_search_is_that_of_the_trials_that_finished():
    scores = [-9.0, -7.0, -5.0, np.nan, -8.0]
    (axes,) = figures.score_by_trial(TRIALS, scores, [True, True, False, False, True], "elbo", "title").axes
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), [[0, -9], [1, -7], [2, -7], [3, -7], [5, -7]])
    assert dots(axes, "finished") == [[0, -9], [1, -7], [5, -8]]
    assert dots(axes, "pruned") == [[2, -5]]
    assert "not finite: 1 of 5" in texts(axes.figure)


def test_each_trial_is_drawn_at_its_value_of_the_parameter_and_the_best_is_ringed():
    rates = [1e-4, 1e-3, 1e-2, 1e1, 2e-3]
    figure = figures.score_against_parameter(rates, TRIALS, SCORES, FINISHED, "rate", "elbo", "title", log=True)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert dots(axes, "finished") == [[1e-4, -9], [1e-3, -5], [2e-3, -4.5]]
    assert dots(axes, "pruned") == [[1e-2, -6]]
    assert dots(axes, "best: −4.5") == [[2e-3, -4.5]]


def test_equal_names_of_a_parameter_do_not_hide_each_other():
    names = ["relu", "tanh", "relu", "tanh", "relu"]
    figure = figures.score_against_parameter(names, TRIALS, SCORES, FINISHED, "activation", "elbo", "title")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["relu", "tanh"]
    x = [position for position, _ in dots(axes, "finished") + dots(axes, "pruned")]
    assert [round(position) for position in x] == [0, 1, 0, 0]
    assert len(set(x)) == 4


def test_terrible_trials_do_not_flatten_those_that_finished_and_are_counted():
    scores = [-20.0 - 0.1 * i for i in range(10)] + [-500.0, -1e6]
    (axes,) = figures.score_by_trial(range(12), scores, [True] * 10 + [False] * 2, "elbo", "title").axes
    assert axes.get_ylim()[0] > -25
    assert "values below: 2, down to −1e+06" in texts(axes.figure)


def test_a_pruned_trial_near_the_lower_edge_is_drawn_whole():
    """Finished from −20 to −21, so that the window would end at −21.59, through the middle of a dot."""
    scores = [*np.linspace(-20, -21, 10), -21.58]
    (axes,) = figures.score_by_trial(range(11), scores, [True] * 10 + [False], "elbo", "title").axes
    low, high = axes.get_ylim()
    assert -21.58 - low > 0.03 * (high - low)
