"""Paired statistics: against scipy, by coverage, and planted differences; scores are simulated with known truth."""

import numpy as np
import pytest
from scipy import stats

from vae.evaluation.comparison import LEVEL, common_seeds, compare, conclusion, incomparable, rows
from vae.evaluation.significance import holm

TABLES = 1500
# Nats. A hundred images with a tenth of the spread stand for the ten thousand of MNIST, whose log-likelihoods differ by
# 25 nats from image to image and by 3 from run to run; seeds differ by some tenths.
IMAGE, SEED, SEED_AND_IMAGE = 2.5, 0.3, 0.3


def tables(effects, num_seeds, num_images=100, noise=None, objective_and_image=0.0):
    """Scores [T, O, S, N]: an effect of each image and each seed that all objectives share; one of objective and seed
    (times `noise` of the objective), of the run and the image, and of objective and image."""
    rng = np.random.default_rng(0)
    effects = np.asarray(effects, float)
    noise = np.ones(len(effects)) if noise is None else np.asarray(noise, float)
    shape = (TABLES, len(effects), num_seeds, num_images)

    def draw(scale, *axes):
        size = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        return scale * rng.standard_normal(size, np.float32)  # twice as fast as in float64

    runs = draw(SEED, 0, 1, 2) * noise[None, :, None, None] + draw(SEED_AND_IMAGE, 0, 1, 2, 3)
    shared = draw(IMAGE, 0, 3) + draw(SEED, 0, 2) + draw(objective_and_image, 0, 1, 3)
    return effects[None, :, None, None] + shared + runs


def called_different(scores):
    """The share of tables in which any pair is."""
    return compare(scores).significant.any(-1).mean()


def at_most(level, share):
    """`share` of TABLES is no more than chance allows for a true rate of `level`."""
    return share <= level + 3 * np.sqrt(level * (1 - level) / TABLES)


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("num_objectives", [2, 4, 7])
def test_identical_objectives_are_called_different_in_at_most_5_percent(num_objectives, num_seeds):
    share = called_different(tables(np.zeros(num_objectives), num_seeds))
    assert at_most(LEVEL, share)
    assert share > 0.002  # not for want of daring


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("noise", [(2, 1, 1, 1), (3, 1, 1, 1, 1), (5, 1, 1, 1, 1), (5, 5, 1, 1, 1, 1, 1, 1)])
def test_objectives_of_equal_mean_but_unequal_noise_are_called_different_in_at_most_5_percent(noise, num_seeds):
    assert at_most(LEVEL, called_different(tables(np.zeros(len(noise)), num_seeds, noise=noise)))


@pytest.mark.parametrize(
    ("num_objectives", "num_seeds", "effect", "power"),
    [(2, 3, 1.5, 0.8), (2, 5, 0.8, 0.8), (7, 3, 2.0, 0.85), (7, 5, 1.0, 0.8)],
)
def test_a_real_difference_is_found(num_objectives, num_seeds, effect, power):
    """In nats, where seeds vary by 0.3: of two objectives, and against each of six others after Holm."""
    found = compare(tables([effect, *[0.0] * (num_objectives - 1)], num_seeds))
    against_best = found.pairs[:, 0] == 0
    assert (found.significant & (found.difference > 0))[:, against_best].mean() > power
    assert at_most(LEVEL, found.significant[:, ~against_best].any(-1).mean())


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(
    ("effects", "objective_and_image"),
    [((0.4, 0.0), 0.0), ((0.4, 0.0), 6.0), ((1, 0.5, 0.5, 0), 2.0), ((3, 2, 1, 0), 6.0)],
)
def test_the_intervals_hold_the_true_difference_in_95_percent(effects, objective_and_image, num_seeds):
    """Over seeds and over test sets: where objectives favour different images, another test set is another truth."""
    found = compare(tables(effects, num_seeds, objective_and_image=objective_and_image))
    truth = np.array([effects[a] - effects[b] for a, b in found.pairs])
    for held in ((found.low <= truth) & (truth <= found.high)).mean(0):
        assert at_most(LEVEL, 1 - held)
        # Of one pair, and in no more where either seeds or images decide; of both together, a little more.
        if len(effects) == 2:
            assert held < (0.98 if objective_and_image else 0.97)


@pytest.mark.parametrize("effects", [(0.0, 0.0), (1.0, 0.5, 0.5, 0.0), (2.0, 0.0, 0.0, 0.0, 0.0)])
def test_an_interval_leaves_out_zero_exactly_where_the_difference_is_significant(effects):
    found = compare(tables(effects, 3))
    assert 0.01 < found.significant.mean() < 0.99
    np.testing.assert_array_equal((found.low > 0) | (found.high < 0), found.significant)


def test_fault_the_percentile_bootstrap_over_three_seeds_covers_far_less_than_it_says():
    scores = tables((0.4, 0.0), 3)[:400]
    differences = scores[:, 0] - scores[:, 1]  # [T, S, N]
    rng = np.random.default_rng(1)
    means = []
    for _ in range(200):
        resampled = differences[:, rng.integers(0, 3, 3)][:, :, rng.integers(0, 100, 100)]
        means.append(resampled.mean((1, 2)))
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    assert ((low <= 0.4) & (high >= 0.4)).mean() < 0.8


def test_two_objectives_that_only_seeds_tell_apart_are_the_paired_t_test_of_scipy_over_seeds():
    by_seed = np.random.default_rng(0).normal(size=(50, 2, 3, 1))
    check_against_scipy(compare(by_seed + np.zeros(40)), stats.ttest_rel(by_seed[:, 0, :, 0], by_seed[:, 1, :, 0], -1))


def test_two_objectives_that_only_images_tell_apart_are_the_paired_t_test_of_scipy_over_images():
    by_image = np.random.default_rng(0).normal(size=(50, 2, 1, 40))
    scores = by_image + np.zeros((3, 1))
    check_against_scipy(compare(scores), stats.ttest_rel(by_image[:, 0, 0], by_image[:, 1, 0], -1))


def check_against_scipy(found, expected):
    np.testing.assert_allclose(found.p[:, 0], expected.pvalue, rtol=1e-7)
    np.testing.assert_allclose(found.p_holm, found.p, rtol=1e-7)
    interval = expected.confidence_interval(1 - LEVEL)
    np.testing.assert_allclose(found.low[:, 0], interval.low, rtol=1e-7)
    np.testing.assert_allclose(found.high[:, 0], interval.high, rtol=1e-7)


def test_the_variance_of_seeds_and_images_is_that_of_the_analysis_of_variance():
    """Mean squares of the crossed layout by their definition: E MS_seed = Nσ_u² + σ_e², E MS_image = Sσ_v² + σ_e²."""
    scores = tables((0.0, 0.0), 4, 30, objective_and_image=8.0)[0]
    found = compare(scores)
    d = scores[0] - scores[1]
    grand = d.mean()
    ms_seed = sum(30 * (d[s].mean() - grand) ** 2 for s in range(4)) / 3
    ms_image = sum(4 * (d[:, i].mean() - grand) ** 2 for i in range(30)) / 29
    np.testing.assert_allclose(found.difference_error[0] ** 2, (ms_seed + ms_image) / (4 * 30), rtol=1e-10)


def test_holm_by_its_definition():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])
    rng = np.random.default_rng(0)
    for p in rng.uniform(size=(200, 5)) ** 3:
        rejected = 0
        for step, smallest in enumerate(np.sort(p)):
            if smallest * (5 - step) >= LEVEL:
                break
            rejected += 1
        assert (holm(p) < LEVEL).sum() == rejected


def test_the_same_runs_under_two_names_do_not_differ():
    scores = tables((0.0, 0.0), 3)[0]
    found = compare(np.stack([scores[0], scores[0], scores[1]]))
    assert found.difference[0] == 0
    assert found.p[0] == 1
    found = compare(np.stack([scores[0], scores[0]]))
    assert (found.difference_error, found.p, found.low, found.high) == (0, 1, 0, 0)


def test_one_seed_tells_a_difference_but_not_whether_it_is_real():
    found = compare(tables((1.0, 0.0, 0.0), 1)[0])
    assert np.isfinite(found.difference).all()
    assert np.isnan([*found.p, *found.p_holm, *found.low, *found.standard_error]).all()
    assert not found.significant.any()


def test_two_seeds_are_described_and_not_tested():
    scores = tables((9.0, 0.0, 0.0), 2)[0]
    found = compare(scores)
    d = scores[0] - scores[1]
    expected = d.mean(1).var(ddof=1) / 2 + d.mean(0).var(ddof=1) / 100
    np.testing.assert_allclose([found.difference[0], found.difference_error[0] ** 2], [d.mean(), expected])
    assert np.isfinite([*found.standard_error, *found.difference_error]).all()
    assert np.isnan([*found.p, *found.p_holm, *found.low, *found.high, *found.degrees_of_freedom]).all()
    assert not found.significant.any()
    pairs = rows(found, ["a", "b", "c"])
    first, second = conclusion(["a", "b", "c"], pairs, 2)
    assert first == f"a has the highest log-likelihood, {found.difference[0]:.2f} nats above b."
    assert "described, not tested" in second


@pytest.mark.parametrize("shape", [(1, 3, 10), (2, 3, 1)])
def test_a_table_with_nothing_to_compare_is_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        compare(np.zeros(shape))


def test_seeds_that_all_have_are_compared():
    assert common_seeds([[2, 0, 1], [1, 2, 3], [2, 1]]) == [1, 2]
    assert common_seeds([[0], [1]]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "digits"}, "another data set: mnist and digits"),
        ({"split": "validation"}, "another split: test and validation"),
        ({"binarization": "none"}, "another binarization in evaluation: fixed and none"),
        ({"likelihood": "normal"}, "another likelihood: bernoulli and normal"),
        ({"num_samples": 100}, "another samples per image (k): 5000 and 100"),
        ({"seed": 1}, "another evaluation seed: 0 and 1"),
        ({"images_sha256": "b7"}, "another content of the evaluated images (sha256): a3 and b7"),
        ({"image_size": 32}, "another image size: 28 and 32"),
    ],
)
def test_evaluations_of_another_kind_are_told_apart(change, words):
    one = {"dataset": "mnist", "split": "test", "binarization": "fixed", "likelihood": "bernoulli"}
    one |= {"num_samples": 5000, "seed": 0, "images_sha256": "a3", "image_size": 28, "log_likelihood": -90.0}
    assert incomparable(one, one | {"log_likelihood": -80.0}) is None
    assert incomparable(one, one | change) == words


@pytest.mark.parametrize(("num_won", "num_tied"), [(4, 0), (0, 4), (5, 5)])
def test_many_objectives_are_counted_in_a_sentence_and_a_few_named(num_won, num_tied):
    names = [f"o{rank}" for rank in range(1 + num_won + num_tied)]
    pairs = [
        {"higher": "o0", "lower": name, "difference": 2.0 - 0.1 * rank, "standard_error": 0.05, "significant": real}
        for rank, (name, real) in enumerate(zip(names[1:], [False] * num_tied + [True] * num_won, strict=True))
    ]
    text = " ".join(conclusion(names, pairs, 3))
    assert [name in text for name in names[1:]] == [len(names) == 5] * (len(names) - 1)
    if len(names) > 5:
        assert (
            "o0 beats 5 others by 1.10 to 1.50 nats. Its lead over 5 others (1.60 to 2.00) is not significant." in text
        )
