"""Bits flipped and ends cut off, at seeded positions of every file that is read: one line, or what was written."""

import json
import warnings

import numpy as np
import pytest

from tests.run_samples import EVALUATED, config
from vae.evaluation.summary import EvaluationSettings
from vae.judging import evaluations
from vae.runs.config import read_config, write_config
from vae.runs.files import RunError, RunWarning, read_json, write_arrays, write_json
from vae.runs.folder import CONFIG, EVALUATION, METRICS
from vae.runs.metrics import Metrics, read_evaluation, read_metrics, summary
from vae.sweeps import results
from vae.sweeps.sweep_file import ROUND, SWEEP, read_sweep
from vae.training.record import FAILURE, Record

PLANS = {"0": {"strategy": "map", "chunk_size": 2, "seconds": 0.1, "done": 0}}
ROUNDS = {"trials": [0], "names": ["000"], "plans": PLANS}
SWEEPS = {"sweep": ["seed=0:2"], "runs": {"000": {"seed": 0}}, "groups": PLANS, ROUND: ROUNDS, "flags": {"epochs": 3}}
LOG_LIKELIHOOD = np.linspace(-90, -80, 50)


@pytest.fixture
def folder(tmp_path):
    """A folder with one of each file."""
    write_config(tmp_path, config(), argv=["train", "--epochs=3"], flags={"epochs": 3}, devices=["cpu"])
    write_json(tmp_path / SWEEP, SWEEPS)
    write_json(tmp_path / EVALUATION, EVALUATED)
    write_arrays(tmp_path / "evaluation.npz", {"log_likelihood": LOG_LIKELIHOOD, "kl": LOG_LIKELIHOOD})
    write_json(tmp_path / FAILURE, {"step": 7, "epoch": 0.3, "what": "the bound", "recent_bound": [-90.5, None] * 10})
    metrics = Metrics(tmp_path, 0, watched=False)
    for step in range(1, 5):
        metrics.write(step, float(step), "train", {"elbo": -90.5 + step, "kl": 3.25})
    return tmp_path


def of_each_image(folder):
    """None: it is evaluated again."""
    found = evaluations._of_each_image(folder / "evaluation.npz", len(LOG_LIKELIHOOD))
    if found is not None:
        assert found.tobytes() == LOG_LIKELIHOOD.tobytes()


READ = {
    CONFIG: lambda folder: (read_config(folder), write_config(folder, config())),
    SWEEP: lambda folder: (read_sweep(folder), results.rows(folder)),
    EVALUATION: lambda folder: (read_evaluation(folder / EVALUATION), summary(folder)),
    METRICS: read_metrics,
    FAILURE: lambda folder: Record(config(), 1000, workdir=folder).failed_step(),
    "evaluation.npz": of_each_image,
}


@pytest.mark.parametrize("name", READ)
def test_a_flipped_bit_or_a_cut_is_one_line(folder, name):
    path, rng = folder / name, np.random.default_rng(0)
    content, refused = path.read_bytes(), []

    def read_with(damaged):
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", RunWarning)
            try:
                READ[name](folder)
            except RunError as error:
                refused.append(str(error))
        refused.extend(str(one.message) for one in told)

    for position in rng.integers(len(content), size=300):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        read_with(bytes(damaged))
    for length in rng.integers(len(content), size=20):
        read_with(content[:length])
    assert not [message for message in refused if "\n" in message or len(message) > 600]
    if name != "evaluation.npz":
        assert len(refused) > 50
    path.unlink()


def test_no_flipped_bit_of_a_json_file_changes_a_value(tmp_path):
    path, values = tmp_path / "a.json", {"seed": 1, "rate": 0.5, "crc": {"name": "x"}, "list": [1, 2]}
    write_json(path, values)
    content, refused = path.read_bytes(), 0
    for place in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_json(path)
        except RunError:
            refused += 1
        else:
            assert {name: found.get(name) for name in values} == values
    assert refused > 0.7 * 8 * len(content)


def test_a_json_file_that_was_edited_is_read_or_the_message_says_how(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"seed": 1, "rate": 0.5})
    text = path.read_text().replace("0.5", "0.25")
    path.write_text(text)
    with pytest.raises(RunError, match=r"damaged: it has another checksum .* delete its line crc32 if you have"):
        read_json(path)
    for edited in (
        json.dumps(json.loads(text)),
        "".join(line for line in text.splitlines(keepends=True) if "crc32" not in line),
    ):
        path.write_text(edited)
        assert read_json(path) == {"seed": 1, "rate": 0.25}


@pytest.mark.parametrize("failure", [{}, {"stap": 7}, {"step": "7"}, {"step": 7.0}, {"step": -1}, {"step": True}])
def test_a_failure_without_its_step_is_one_line(tmp_path, failure):
    write_json(tmp_path / FAILURE, failure)
    with pytest.raises(RunError, match=r"failure.json is damaged: it does not say at which step"):
        Record(config(), 1000, workdir=tmp_path).failed_step()


@pytest.mark.parametrize("lost", [None, "images_sha256", "kl_per_dimension"])
def test_an_evaluation_that_lacks_what_a_comparison_reads_is_computed_again(tmp_path, monkeypatch, lost):
    whole = EVALUATED | {"images_sha256": "a3", "num_examples": 50, "log_likelihood": float(LOG_LIKELIHOOD.mean())}
    write_json(tmp_path / EVALUATION, {key: value for key, value in whole.items() if key != lost})
    write_arrays(tmp_path / "evaluation.npz", {"log_likelihood": LOG_LIKELIHOOD})
    again = []
    monkeypatch.setattr(evaluations, "choose", lambda folder, which: whole["checkpoint"])
    monkeypatch.setattr(evaluations, "load_run", lambda folder, which: again.append(folder) or 1 / 0)
    chosen = EvaluationSettings("test", whole["num_samples"], whole["seed"], None)

    def evaluated():
        return evaluations.evaluation_of(tmp_path, chosen, lambda folder: 1 / 0, [], lambda *counts: None)

    if lost is None:
        assert evaluated().summary == whole
    else:
        with pytest.raises(ZeroDivisionError):
            evaluated()
    assert len(again) == (lost is not None)


@pytest.mark.parametrize("other", [None, "checkpoint", "num_samples", "seed"])
def test_an_evaluation_of_another_checkpoint_or_of_other_samples_is_not_taken_for_this_one(
    tmp_path, monkeypatch, other
):
    whole = EVALUATED | {"images_sha256": "a3", "num_examples": 50, "log_likelihood": float(LOG_LIKELIHOOD.mean())}
    write_json(tmp_path / EVALUATION, whole)
    write_arrays(tmp_path / "evaluation.npz", {"log_likelihood": LOG_LIKELIHOOD})
    wanted = whole | ({} if other is None else {other: whole[other] + 1})
    monkeypatch.setattr(evaluations, "choose", lambda folder, which: wanted["checkpoint"])
    found = evaluations.stored(tmp_path, EvaluationSettings("test", wanted["num_samples"], wanted["seed"], None))
    assert (found is None) == (other is not None)


WRONG = [np.zeros((2, 3)), np.zeros(0), np.array(["a"]), np.zeros(3, complex), np.zeros(3, bool), np.zeros(4)]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_an_evaluation_of_each_image_that_is_no_row_of_numbers_is_computed_again(tmp_path, wrong):
    write_arrays(tmp_path / "x.npz", {"log_likelihood": wrong})
    assert evaluations._of_each_image(tmp_path / "x.npz", 3) is None
    write_arrays(tmp_path / "x.npz", {"log_likelihood": np.zeros(3, np.float32)})
    assert evaluations._of_each_image(tmp_path / "x.npz", 3) is not None
