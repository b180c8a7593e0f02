"""experiments.gradients: what it measures and writes, what it skips, and one line for a user's mistake."""

import json
import re

import jax
import numpy as np
import pytest

from tests.script_calls import everything
from tests.script_runs import scripts
from vae import objectives, untrusted
from vae.datasets import images, load
from vae.evaluation import gradient_statistics, gradients
from vae.models import model as models
from vae.models.model import Batch
from vae.runs.checkpoint import choose
from vae.runs.folder import CONFIG
from vae.settings import Hyperparameters, Settings
from vae.training import step as training

__all__ = ["scripts"]

SMALL = ("--dataset=digits", "--hidden_sizes=16", "--latent_dim=2")
QUICK = ("--num_samples=1,3", "--draws=20", "--reference_draws=30", "--batch_size=10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, scripts):
    """A folder with a run `trained` of one epoch and measurements `new` at its initialisation."""
    path = tmp_path_factory.mktemp("gradients")
    training = ("--epochs=1", "--objective=iwae", "--num_samples=2", "--workdir=trained")
    assert scripts.call(path, "train", *SMALL, *training).code == 0
    return path


@pytest.fixture(scope="module")
def measured(folder, scripts):
    """What the script printed of new parameters with every kind of pair, and the folder."""
    pairs = ("--objectives=iwae,vr_max,elbo", "--estimators=dreg,score", "--reference_draws=0")
    result = scripts.call(folder, "gradients", *SMALL, *QUICK, *pairs, "--workdir=new")
    assert result.code == 0, result.err
    return result


def results(path):
    rows = json.loads((path / "gradients.json").read_text())["results"]
    return {(row["objective"], row["estimator"], row["num_samples"]): row["groups"] for row in rows}


def test_a_line_for_each_pair_that_is_refused_and_results_for_all_others(folder, measured):
    skipped = [line for line in measured.out.splitlines() if line.startswith("skipped: ")]
    for asked in ("elbo with dreg, score", "vr_max with dreg"):
        objective, estimators = asked.split(" with ")
        (reason,) = {objectives.REFUSED[objective, estimator] for estimator in estimators.split(", ")}
        assert skipped.count(f"skipped: {asked}: {reason}") == 1
    alone = [line for line in skipped if "score, K = 1: the score estimator compares samples" in line]
    assert len(alone) == 2  # iwae and vr_max
    assert len(skipped) == 4
    expected = {("iwae", "dreg", 1), ("iwae", "dreg", 3), ("iwae", "score", 3), ("vr_max", "score", 3)}
    assert set(results(folder / "new")) == expected


def test_the_table_has_a_row_for_each_result_and_the_figure_is_named(folder, measured):
    lines = measured.out.splitlines()
    table = [line.split() for line in lines if line.startswith(("iwae ", "vr_max "))]
    assert [row[3] for row in table] == ["encoder", "decoder"] * 4
    for row in table:
        values = results(folder / "new")[row[0], row[1], int(row[2])][row[3]]
        assert float(row[6]) == pytest.approx(values["snr"], rel=0.01)
    assert "picture: new/figures/gradients_snr.png" in lines
    assert (folder / "new" / "figures" / "gradients_snr.png").stat().st_size > 10_000
    assert lines[-1] == "new/gradients.json"
    assert not (folder / "new" / CONFIG).exists()  # it is no run that could be resumed


def test_the_numbers_are_those_of_the_library_at_the_parameters_that_training_starts_from(folder, measured):
    data = load("digits")
    settings = Settings(
        (8, 8, 1), hidden_sizes=(16,), latent_dim=2, binarization="dynamic", objective="iwae", estimator="dreg",
        num_samples=3,
    )  # fmt: skip
    model, objective, root = models.build(settings), objectives.build(settings), jax.random.key(0)
    moments = images.moments(data.train.images)
    state = training.initialize(root, model, objective, settings, Hyperparameters(), moments)
    stored = images.stored(data, "train", "dynamic", training=False)
    index = np.sort(np.random.default_rng(0).permutation(len(stored.images))[:10])
    batch = Batch(images.to_unit_interval(jax.numpy.asarray(stored.images[index])))
    drawn = gradients.draw_blocks(
        root, state.params, batch, 20, model=model, objective=objective, num_samples=3,
        hyperparameters=Hyperparameters(),
    )  # fmt: skip
    blocks = list(drawn)
    for group, found in results(folder / "new")["iwae", "dreg", 3].items():
        for name, value in gradient_statistics.signal(gradients.of_group(blocks, group))._asdict().items():
            assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


def test_a_trained_run_is_measured_at_its_checkpoint_and_the_same_seed_gives_the_same_numbers(folder, scripts):
    def once(*flags):
        chosen = ("--workdir=trained", "--estimators=dreg", *QUICK, "--num_samples=3", *flags)
        code, out, err = scripts.call(folder, "gradients", *chosen)
        assert code == 0, err
        return out.splitlines(), results(folder / "trained")["iwae", "dreg", 3]

    lines, first = once()
    step = choose(folder / "trained")
    assert lines[0] == f"trained, step {step}; 10 train images, 20 draws"
    assert "picture: trained/figures/gradients_work.png" in lines
    # Without a reference the same numbers, but those of the test.
    for group, values in once("--reference_draws=0")[1].items():
        assert values == {name: first[group][name] for name in gradient_statistics.Signal._fields}
        assert first[group].keys() - values.keys() == set(gradient_statistics.Bias._fields)
    other = once("--seed=1")[1]
    assert all(other[group]["snr"] != first[group]["snr"] for group in first)


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (["--objectives=iwea"], ["unknown objective 'iwea'; did you mean 'iwae'? One of: elbo, "]),
        (["--estimators=stl,derg"], ["unknown estimator 'derg'; did you mean 'dreg'? One of: reparameterized, "]),
        (["--objectives="], ["must be names separated by commas, of: elbo, "]),
        (["--objectives=iwae:alpha=1"], ["'alpha=1' sets no option of iwae; it has none"]),
        (["--objectives=renyi:alpha=x"], ["alpha=x: must be a finite float32 number"]),
        (["--objectives=miwae:num_groups=2"], ["num_groups is the same for all that is measured; use --num_groups"]),
        (["--num_samples=0,2"], ["must be positive whole numbers separated by commas"]),
        (["--draws=19"], ["must be a whole number at least 20"]),
        (["--reference_draws=19"], ["--reference_draws=19 is too few: use 20 or more, or 0"]),
        (["--batch_size=5000"], ["--batch_size=5000, but --split=train has 1294 images"]),
        (["--channels=8"], ["--channels has no effect with --network=mlp"]),
        (["--checkpoint=best"], ["--checkpoint has no effect on new parameters"]),
        (["--workdir=trained"], ["--hidden_sizes has no effect: trained holds a run, which has fixed it"]),
        (["--estimators=dreg", "--objectives=elbo"], ["nothing is left to measure"]),
    ],
)
def test_a_mistake_is_answered_in_one_line_and_nothing_is_written(folder, scripts, flags, fragments):
    if flags[-1] == "--objectives=elbo":
        code, out, err = scripts.call(folder, "gradients", *SMALL, *QUICK, *flags)
        assert (code, out.count("skipped: ")) == (1, 1)
        lines = [err.strip()]
    else:
        lines = [scripts.refusal(folder, "gradients", *SMALL, *QUICK, *flags)]
    assert all(fragment in lines[0] for fragment in fragments), lines


def test_a_folder_without_a_run_is_not_taken_for_new_parameters(folder, scripts):
    before = everything(folder)
    assert "--workdir=nowhere holds no run (no config.json)" in scripts.refusal(
        folder, "gradients", "--workdir=nowhere"
    )
    assert everything(folder) == before


def test_a_draw_that_cannot_fit_is_refused_before_any_is_drawn(folder, scripts, monkeypatch):
    monkeypatch.setattr(untrusted, "physical_memory", lambda: 10**8)
    said = scripts.refusal(folder, "gradients", "--workdir=trained", *QUICK, "--num_samples=1,10000")
    assert re.search("a draw of the gradient takes about .* GB, .* --num_samples=10000 takes most of it", said)
    said = scripts.refusal(folder, "gradients", *SMALL, *QUICK, "--hidden_sizes=100000")
    assert "--hidden_sizes" in said
