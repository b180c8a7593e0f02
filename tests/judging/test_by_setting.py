"""The table per setting: means over seeds, and a mark only where the lead is more than chance."""

from pathlib import Path

import numpy as np
import pytest

from tests.run_samples import config
from vae.judging import by_setting
from vae.judging.groups import RunGroup

SEEDS = (-0.1, 0.0, 0.1)


def groups(*means, seeds=SEEDS):
    """Settings of these means, and the headline of each run: the seeds are equally good in all of them."""
    made = [RunGroup(f"x={i}", config(), {s: Path(f"{i}-{s}") for s in range(len(seeds))}) for i in range(len(means))]
    noise = iter(np.random.default_rng(0).normal(0, 0.02, 100))
    scores = {
        folder: mean + seed + next(noise)
        for group, mean in zip(made, means, strict=True)
        for folder, seed in zip(group.folders.values(), seeds, strict=True)
    }
    return made, scores


def test_a_lead_that_all_seeds_agree_on_is_marked_and_a_smaller_one_is_not():
    made, scores = groups(-12.0, -10.0, -14.0)
    found = by_setting.table(made, {"elbo": scores})
    assert [row.group.label for row in found.rows] == ["x=1", "x=0", "x=2"]
    assert [row.best for row in found.rows] == [True, False, False]
    assert found.verdict == (
        "it is marked (*): its lead over each of the other 2 is more than chance (p < 0.05 by Holm's method)"
    )
    mean, error = found.rows[0].numbers["elbo"]
    of_best = [scores[folder] for folder in made[1].folders.values()]
    assert (mean, error) == (pytest.approx(np.mean(of_best)), pytest.approx(np.std(of_best, ddof=1) / 3**0.5))
    made, scores = groups(-10.01, -10.0, -14.0)
    found = by_setting.table(made, {"elbo": scores})
    assert not any(row.best for row in found.rows)
    assert "no setting is marked: its lead over x=" in str(found.verdict)
    assert str(found.verdict).endswith(") may be chance")


def test_the_images_count_as_drawn_if_the_values_of_each_are_given():
    """A lead that every seed agrees on, and that ten images of very different difficulty cannot tell from chance."""
    made, scores = groups(-10.0, -11.0)
    assert by_setting.table(made, {"elbo": scores}).rows[0].best
    spread = np.linspace(-9, 9, 10)
    by_image = {folder: score + spread * (folder.name[0] == "0") for folder, score in scores.items()}
    assert not by_setting.table(made, {"elbo": scores}, by_image).rows[0].best


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [
        ((0.0,), "with one seed nothing tells a difference from chance; train 3 or more, as in --sweep=seed=0:3"),
        ((0.0, 0.01), "with two seeds nothing tells a difference from chance; train 3 or more, as in --sweep=seed=0:3"),
    ],
)
def test_with_fewer_seeds_than_three_nothing_is_marked(seeds, reason):
    found = by_setting.table(*(lambda made, scores: (made, {"elbo": scores}))(*groups(-10.0, -90.0, seeds=seeds)))
    assert found.verdict == f"no setting is marked: {reason}"
    assert not any(row.best for row in found.rows)
    assert (found.rows[0].numbers["elbo"][1] is None) == (len(seeds) == 1)


def test_settings_of_other_seeds_are_not_paired():
    made, scores = groups(-10.0, -90.0)
    del made[1].folders[2]
    found = by_setting.table(made, {"elbo": scores})
    assert "they were not trained with the same seeds" in str(found.verdict)
    assert len(found.rows[1].group.folders) == 2


@pytest.mark.parametrize("bad", [np.nan, -np.inf, None])
def test_a_setting_with_a_seed_that_is_not_finite_is_last_and_has_no_mean(bad):
    """A mean over the seeds that went well would flatter it."""
    made, scores = groups(-10.0, -12.0, -14.0)
    scores[made[0].folders[1]] = bad
    found = by_setting.table(made, {"elbo": scores})
    assert [row.group.label for row in found.rows] == ["x=1", "x=2", "x=0"]
    assert found.rows[0].best
    last = by_setting.columns(found, {"x=0": {"x": 0, "seed": 5}})[-1]
    assert last == {
        "setting": "x=0",
        "x": 0,
        "seeds": 3,
        "runs": "0-0 0-1 0-2",
        "elbo": None,
        "elbo_se": None,
        "best": "",
    }


def test_one_setting_alone_is_described():
    made, scores = groups(-10.0)
    found = by_setting.table(made, {"elbo": scores})
    assert (found.verdict, found.rows[0].best) == (None, False)
