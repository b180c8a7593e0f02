"""--patience: what the scripts say of a run that ends early, and what they refuse."""

import re

import pytest

from tests.script_runs import scripts
from vae.runs import checkpoint
from vae.runs.files import read_json
from vae.runs.folder import CHECKPOINTS, EVALUATION

__all__ = ["scripts"]
SMALL = ("--dataset=digits", "--hidden_sizes=16", "--latent_dim=2", "--learning_rate=0.03", "--epochs=60")
EVALUATE = ("evaluate", "--workdir=x", "--num_samples=2")


@pytest.fixture(scope="module")
def ended(tmp_path_factory, scripts):
    """A run that ended early, and what was printed at its end."""
    folder = tmp_path_factory.mktemp("ended")
    code, out, err = scripts.call(folder, "train", *SMALL, "--patience=1", "--workdir=x")
    assert (code, err) == (0, "")
    return folder, out


def test_a_run_that_ends_early_says_so_and_is_evaluated_at_its_best(ended, scripts):
    folder, out = ended
    found = re.search(r"^finished after epoch (\d+) of 60: the validation bound was no better for 1 epochs", out, re.M)
    assert found is not None
    best = int(found[1]) - 1
    assert f"tested is the best checkpoint by validation, of epoch {best} (--patience)\n" in out
    code, again, err = scripts.call(folder, "train", "--workdir=x")
    assert (code, err) == (0, "")
    assert found[0] in again
    assert "epoch 1/" not in again
    last = checkpoint.steps(folder / "x" / CHECKPOINTS)[-1]
    for flags, step in (((), last * best // int(found[1])), (("--checkpoint=last",), last)):
        code, out, err = scripts.call(folder, *EVALUATE, *flags)
        assert (code, err) == (0, "")
        assert (f"x has --patience: used is its best checkpoint by validation, step {step}\n" in out) == (not flags)
        assert read_json(folder / "x" / EVALUATION)["checkpoint"] == step


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--patience=2", "--keep_best=0"], "--patience=2 needs the best checkpoint, and --keep_best=0 keeps none"),
        (["--patience=2", "--validation=0"], "--patience=2 waits for a better bound of validation images"),
    ],
)
def test_a_patience_that_cannot_be_is_refused_before_data_are_loaded(scripts, tmp_path, flags, fragment):
    assert fragment in scripts.refusal(tmp_path, "train", "--dataset=nowhere.npz", *flags)


def test_a_run_that_ended_early_has_no_step_left_to_profile(scripts, ended):
    folder, _ = ended
    assert "is finished; raise --patience" in scripts.refusal(folder, "train", "--workdir=x", "--profile")


def test_a_sweep_keeps_its_patience(scripts, tmp_path):
    flags = (*SMALL[:-1], "--epochs=1", "--strategy=map", "--nofigures", "--sweep=seed=0:2", "--workdir=s")
    code, out, err = scripts.call(tmp_path, "sweep", *flags, "--patience=2")
    assert (code, err) == (0, "")
    assert "at the best epoch of each run (--patience)" in out
    message = scripts.refusal(tmp_path, "sweep", *flags, "--patience=3")
    assert "s holds another sweep: --patience is 2, not 3; choose another --workdir" in message
