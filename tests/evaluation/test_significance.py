"""The test of a difference: its error, coverage and p over a grid of simulated noise; the test before fails there."""

import itertools

import numpy as np
import pytest
from scipy import stats

from tests.evaluation.test_comparison import tables
from vae.evaluation import significance, simulation
from vae.evaluation.comparison import compare
from vae.evaluation.significance import LEVEL
from vae.evaluation.simulation import Cell
from vae.evaluation.validity import FAULTS, grid

TABLES = 20_000
FEW = 4_000  # of 16 objectives


def limit(rate, num_tables, side):
    """The true rate is above the "lower", or below the "upper", limit with 99 % certainty (Clopper & Pearson 1934)."""
    count = round(rate * num_tables)
    found = stats.binomtest(count, num_tables).proportion_ci(0.98)
    return found.low if side == "lower" else found.high


def check_valid(cell, num_tables=TABLES):
    found = simulation.simulate(cell, num_tables, 0)
    assert limit(found.error, num_tables, "lower") <= LEVEL, found
    assert limit(1 - found.coverage, num_tables, "lower") <= LEVEL, found


@pytest.mark.parametrize("name", FAULTS)
def test_where_the_test_before_erred_most_this_one_errs_in_at_most_5_percent(name):
    cell = FAULTS[name]
    num_tables = FEW if cell.num_objectives == 16 else TABLES
    check_valid(cell, num_tables)
    before = simulation.simulate_before(cell, num_tables, 0)
    assert limit(before.error, num_tables, "lower") > LEVEL
    if cell.num_objectives == 2:
        assert limit(1 - before.coverage, num_tables, "lower") > LEVEL


@pytest.mark.parametrize("num_seeds", [3, 4, 5])
@pytest.mark.parametrize("objective_image", [0.0, 1.0, 2.0, 4.0])
def test_few_seeds_and_objectives_that_favour_other_images(objective_image, num_seeds):
    check_valid(Cell(2, num_seeds, 1000, 0.3, objective_image, 0.3))


@pytest.mark.parametrize("num_seeds", [2, 3, 4, 5])
def test_fault_satterthwaite_on_estimated_components_errs_too_often(num_seeds):
    """At some of the standard deviations of objective and image from 0 to 4, with every number of seeds up to 5."""
    errors = [
        simulation.simulate_before(Cell(2, num_seeds, 1000, 0.3, sd, 0.3), TABLES, 0).error
        for sd in (0.0, 1.0, 2.0, 4.0)
    ]
    assert limit(max(errors), TABLES, "lower") > LEVEL


# Of each number of objectives; of two the error is exactly 5 % where seeds alone, or images alone, tell them apart.
WORST = [
    Cell(2, 3, 1000, 3.0, 0.95, 3.0, "one noisier in seeds"),
    Cell(2, 10, 1000, 0.3, 0.0, 3.0, "one noisier in seeds"),
    Cell(4, 3, 1000, 3.0, 0.0, 0.3, "one noisier"),
    Cell(4, 5, 100, 3.0, 0.0, 0.95, "one of three noisier, the others far"),
    Cell(7, 5, 1000, 3.0, 0.95, 0.95, "one of three noisier, the others far"),
    Cell(16, 10, 1000, 3.0, 0.95, 0.95, "three noisier, the others far"),
]


@pytest.mark.parametrize("cell", WORST, ids=str)
def test_the_worst_cells_of_the_grid(cell):
    check_valid(cell, FEW if cell.num_objectives == 16 else TABLES)


@pytest.mark.parametrize("noise", ["equal", "one noisier", "one noisier in seeds"])
def test_p_of_a_pair_alone_is_below_a_level_in_no_more_tables_than_the_level_says(noise):
    cell = Cell(4, 3, 100, 0.3, 0.5, 0.5, noise)
    drawn = simulation.draw_statistics(cell.effects, 3, 100, FEW, np.random.default_rng(0))
    difference = simulation.difference_of(drawn)
    p, p_holm = significance.p_values(difference, significance.variances(drawn))
    assert (p <= p_holm).all()
    for level in (0.2, 0.05, 0.01):
        for share in (p < level).mean(0):
            assert limit(share, FEW, "lower") <= level


@pytest.mark.parametrize("level", [0.2, 0.05, 0.001])
@pytest.mark.parametrize("freedoms", [(2, 99), (4, 999), (9, 29)])
def test_the_interval_of_a_pair_holds_at_every_ratio_of_the_variances(freedoms, level):
    """By integration over both variance estimates, without a simulation: exact at either end, and more between."""
    seeds, images = (
        stats.chi2.isf((np.arange(size) + 0.5) / size, freedom) / freedom
        for size, freedom in zip((1000, 50), freedoms, strict=True)
    )
    t_seeds, t_images = (stats.t.isf(level / 2, freedom) for freedom in freedoms)
    seeds, images = seeds[:, None], images[None, :]
    coverage = []
    for share in (0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1):
        variance = significance.Variances(
            share * seeds, share * seeds, (1 - share) * images, freedoms[0], np.array(freedoms[0]), freedoms[1]
        )
        half = significance._half_width(variance, freedoms[0], level)
        np.testing.assert_allclose(half**2, share * t_seeds**2 * seeds + (1 - share) * t_images**2 * images)
        coverage.append(stats.chi2.cdf(half**2, 1).mean())
    missed = (1 - np.array(coverage)) / level
    assert missed.max() < 1.0005
    assert missed[[0, -1]].min() > 0.95  # a thousand points do not reach the tails of level 0.001


def test_p_is_the_level_at_which_the_interval_ends_at_zero():
    drawn = significance.summarize(tables((0.5, 0.0, 0.0), 3, objective_and_image=2.0)[:200])
    difference, variance = simulation.difference_of(drawn), significance.variances(drawn)
    for freedom in (variance.own_freedom, variance.pooled_freedom):
        p = significance._p_value(difference, variance, freedom)
        np.testing.assert_allclose(significance._half_width(variance, freedom, p), np.abs(difference), rtol=1e-8)


@pytest.mark.parametrize("difference", [0.0, 1e-9, 1e3, 1e9])
def test_p_of_any_difference_is_a_probability(difference):
    variance = significance.Variances(*np.full((3, 1), 0.01), 9, np.array([[120.0]]), 9999)
    p = significance._p_value(np.array([difference]), variance, variance.pooled_freedom[0])
    assert p == 1 if difference == 0 else 0 <= p < 1
    nothing = variance._replace(seeds=np.zeros(1), images=np.zeros(1))
    assert significance._p_value(np.array([difference]), nothing, 2) == (difference == 0)


def test_degrees_of_freedom_are_those_of_all_objectives_if_they_are_equally_noisy_and_of_one_if_it_has_all_the_noise():
    rng = np.random.default_rng(0)
    by_seed = rng.normal(size=(2000, 7, 5)) + 10 * rng.normal(size=(2000, 1, 5))
    equal = significance.pooled_freedom(by_seed)
    assert equal.max() == 24
    assert 18 < equal.mean() < 24
    by_seed[:, 0] *= 100
    np.testing.assert_allclose(significance.pooled_freedom(by_seed).mean(), 24 * (1.5 * (1 / 7)), rtol=0.5)
    assert significance.pooled_freedom(by_seed).mean() < 10
    np.testing.assert_array_equal(significance.pooled_freedom(by_seed[:, :2]), 4)


def test_scores_enter_by_their_statistics_alone():
    """What all objectives share, and what has no mean in any seed or image, changes nothing."""
    scores = tables((0.5, 0.0, 0.0), 3)[:20]
    rng = np.random.default_rng(1)
    rest = rng.normal(size=scores.shape)
    rest = rest - rest.mean(-1, keepdims=True)
    rest = rest - rest.mean(-2, keepdims=True)
    shared = 30 * rng.normal(size=(20, 1, 3, 100))
    found, expected = compare(scores + rest + shared), compare(scores)
    for name in ("difference", "difference_error", "low", "high", "p", "p_holm"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-7, atol=1e-12, err_msg=name)
    drawn = significance.summarize(scores)
    half = significance.half_widths(simulation.difference_of(drawn), significance.variances(drawn))
    np.testing.assert_array_equal(
        expected.high - expected.difference, (expected.difference + half) - expected.difference
    )


def test_statistics_drawn_directly_are_distributed_as_those_of_scores():
    effects = simulation.Effects(*np.array([[0.5, 0.0, -1.0], [0.3, 1.0, 2.0], [0.5, 4.0, 3.0], [1.0, 2.0, 0.5]]))
    size = 3, 12, FEW
    whole = significance.summarize(simulation.draw_scores(effects, *size, np.random.default_rng(0)))
    direct = simulation.draw_statistics(effects, *size, np.random.default_rng(1))

    def aspects(drawn):
        by_seed, images = drawn.by_seed, drawn.images
        own = (by_seed[:, 0] - by_seed[:, 1]).var(-1, ddof=1)
        yield from by_seed.reshape(FEW, -1).T[::4]
        yield from simulation.difference_of(drawn).T
        yield from images.T
        # And how they go together.
        yield images[:, 0] + images[:, 1] - images[:, 2]
        yield own / images[:, 0]
        yield simulation.difference_of(drawn)[:, 2] / np.sqrt(own * images[:, 2])
        yield by_seed[:, 1, 0] * by_seed[:, 1, 1]

    for one, other in zip(aspects(whole), aspects(direct), strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


def test_the_grid_is_whole():
    cells = grid()
    assert len(set(cells)) == len(cells)
    assert {(c.num_objectives, c.num_seeds, c.num_images) for c in cells} == set(
        itertools.product((2, 4, 7, 16), (3, 5, 10), (100, 1000))
    )
    assert {(c.objective_seed, c.objective_image, c.residual) for c in cells} == {
        one for one in itertools.product((0, 0.3, 0.95, 3), repeat=3) if max(one) == 3
    }
