"""What a comparison refuses, leaves out and says of the runs before it; in process, with evaluations made by hand."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments.flags import variants
from tests.run_samples import config, digits
from vae.judging import evaluations
from vae.judging import groups as judging
from vae.models.table import LIKELIHOODS, MASSES
from vae.runs.config import write_config
from vae.runs.files import RunError, write_json
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.training import timing
from vae.training.record import FAILURE


def groups(*configs):
    return [judging.RunGroup(str(i), one, {0: Path(f"run{i}")}) for i, one in enumerate(configs)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_classes": 10}, r"another conditioning on labels \(.*log p\(x\|y\)\): 0 and 10"),
        ({"likelihood": "continuous_bernoulli"}, "another likelihood: bernoulli and continuous_bernoulli"),
        ({"likelihood": "categorical"}, "another likelihood: bernoulli and masses of the 256 values"),
        ({"binarization": "none"}, "another binarization in evaluation: fixed and none"),
    ],
)
def test_two_log_likelihoods_of_different_quantities_are_refused(change, reason):
    with pytest.raises(judging.ComparisonError, match=f"run0 and run1 cannot be compared: {reason}"):
        judging.check_comparable(groups(config(), config(**change)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"dataset": "mnist"}, "data set"),
        ({"image_size": 16}, "image size"),
        ({"image_shape": (4, 16, 1)}, "image shape"),
    ],
)
def test_log_likelihoods_of_other_images_are_refused(change, name):
    other = config()
    if "image_shape" in change:
        other = dataclasses.replace(other, settings=dataclasses.replace(other.settings, **change))
    else:
        other = dataclasses.replace(other, **change)
    with pytest.raises(judging.ComparisonError, match=f"cannot be compared: another {name}: "):
        judging.check_comparable(groups(config(), other))


def test_what_leaves_the_log_likelihood_what_it_is_may_differ():
    """Another model of the same images is what a comparison is for; dynamic binarization is fixed in evaluation."""
    normal = [{"scale": 0.1}, {"scale": "optimal"}, {"precision": "bfloat16"}, {"prior": "vamp"}, {"latent_dim": 9}]
    judging.check_comparable(groups(*(config(likelihood="normal", binarization="none", **one) for one in normal)))
    judging.check_comparable(groups(config(), config(binarization="fixed"), config(validation=0)))


def test_masses_of_the_256_values_compare_with_each_other_and_with_nothing_else():
    """Each is a probability of the same image, and bits per dimension are that probability in other units."""
    names = [name for name, row in LIKELIHOODS.items() if row.of == MASSES]
    assert len(names) == 3
    masses = [config(likelihood=name, binarization="none") for name in names]
    judging.check_comparable(groups(*masses))
    for name in LIKELIHOODS.keys() - set(names):
        with pytest.raises(judging.ComparisonError, match=f"another likelihood: masses of the 256 values and {name}"):
            judging.check_comparable(groups(*masses, config(likelihood=name, binarization="none")))


def judged(*log_likelihood):
    values = np.array(log_likelihood)
    return evaluations.RunEvaluation({"split": "test", "log_likelihood": values.mean()}, values)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: judged(-1.0, -math.inf, math.nan), "the log-likelihood of run1-1 is not finite in 2 of 3 test images"),
        (lambda: judged(math.nan, math.nan), "the log-likelihood of run1-1 is not finite in 2 of 2 test images"),
        (lambda: (_ for _ in ()).throw(RunError("run1-1 holds no checkpoint")), "run1-1 holds no checkpoint"),
    ],
)
def test_an_objective_with_one_run_that_is_not_finite_is_out_whole_and_the_others_keep_all_their_seeds(bad, reason):
    folders = [{seed: Path(f"run{i}-{seed}") for seed in range(2)} for i in range(3)]
    given = [judging.RunGroup(f"g{i}", config(), by_seed) for i, by_seed in enumerate(folders)]
    kept, found, left_out = evaluations.evaluate_groups(
        given, [0, 1], lambda folder: bad() if folder.name == "run1-1" else judged(-2.0, -1.0)
    )
    assert [group.label for group in kept] == ["g0", "g2"]
    assert [group.folders for group in kept] == [folders[0], folders[2]]
    assert set(found) == {*folders[0].values(), *folders[2].values()}
    (line,) = left_out
    assert line.startswith(f"g1: {reason}; it is out with all its seeds, since a mean over those that went well would")


def test_of_runs_that_exist_an_objective_with_a_diverged_one_is_out_whole(tmp_path):
    iwae = {"objective": "iwae", "num_samples": 2}
    configs = {"a0": config(), "a1": config(seed=1), "b0": config(**iwae), "b1": config(**iwae, seed=1)}
    for name, one in (configs | {"c0": config(latent_dim=3)}).items():
        (tmp_path / name).mkdir()
        write_config(tmp_path / name, one)
        if name == "b1":
            write_json(tmp_path / name / FAILURE, {"step": 30})
        else:
            row = {"step": 75, "epoch": 3.0, "split": "test", one.settings.objective: -20.0}
            (tmp_path / name / METRICS).write_text(json.dumps(row) + "\n")
            (tmp_path / name / CHECKPOINTS / "75").mkdir(parents=True)
    groups, (line,) = judging.group(sorted(tmp_path.iterdir()), variants.labels)
    assert [sorted(path.name for path in group.folders.values()) for group in groups] == [["a0", "a1"], ["c0"]]
    assert line.startswith(f"iwae K=2 latent_dim=2 diverged ({tmp_path / 'b1'}); it is out with all its seeds")


def test_runs_of_one_program_have_one_pace_and_each_program_is_timed_once(monkeypatch):
    """A learning rate or a seed makes no step longer; the clock, which counts on, would say so."""
    timed = []

    def seconds(one, dataset):
        del dataset
        timed.append(one)
        while True:
            yield float(len(timed)) + timed.index(one)

    monkeypatch.setattr(timing, "seconds_per_step", seconds)
    rates = [config(learning_rate=rate) for rate in (1e-3, 3e-3, 1e-2)]
    runs = [*rates, config(objective="iwae", num_samples=9), config(seed=3)]
    found = timing.paces(runs, lambda one: digits())
    assert len(timed) == 2
    assert len({found[0], found[1], found[2], found[4]}) == 1
    assert found[3] != found[0]
