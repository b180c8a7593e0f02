"""The run folder: what is in it comes back as it was written, and one process at a time writes it."""

import json
import math
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.run_samples import (
    EPOCHS,
    EVALUATED,
    STEPS_PER_EPOCH,
    assert_same_bits,
    config,
    digits,
    rows,
    state,
    train,
)
from vae import objectives
from vae.api import load_run
from vae.datasets import images
from vae.rules import Choice
from vae.runs import checkpoint, fingerprint
from vae.runs.checkpoint import choose
from vae.runs.config import ENDS, PACKAGES, Config, changed_settings, read_config, write_config
from vae.runs.files import RunError, RunWarning, read_json, write_json
from vae.runs.folder import CHECKPOINTS, CONFIG, EVALUATION, METRICS, lock
from vae.runs.metrics import Metrics
from vae.runs.metrics import summary as summary_of
from vae.settings import FORMAT, RULES
from vae.streams import Stream, stream
from vae.training import resuming
from vae.training import step as training


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a checkpoint for each of its three epochs."""
    workdir = tmp_path_factory.mktemp("finished")
    train(workdir, keep_last=EPOCHS)
    return workdir


def test_a_config_survives_json():
    stages = {"schedule": "stages", "stage_steps": (10, 30), "stage_factors": (1.0, 0.5)}
    for written in (config(), config(hidden_sizes=(30, 20), scale=0.5, init_from="runs/x", validation=7, **stages)):
        assert Config.from_dict(json.loads(json.dumps(written.to_dict()))) == written


def test_a_config_survives_its_file_beside_what_else_is_noted_there(tmp_path):
    write_config(tmp_path, config(), argv=["train"], flags={"seed": 0})
    assert read_config(tmp_path) == config()
    values = read_json(tmp_path / CONFIG)
    assert values["argv"] == ["train"]
    assert set(PACKAGES) == set(values["versions"])


def test_differences_name_each_setting_but_not_the_number_of_epochs():
    stored, asked = config(), config(epochs=9, seed=3, learning_rate=0.01, hidden_sizes=(8,), init_from="runs/x")
    assert sorted(changed_settings(stored, asked)) == [
        "hidden_sizes is (16,), not (8,)",
        "init_from is None, not runs/x",
        "learning_rate is 0.001, not 0.01",
        "seed is 0, not 3",
    ]
    assert changed_settings(stored, config(epochs=99, patience=9)) == []


def test_every_field_of_a_config_makes_a_difference():
    def other(name, value):
        if isinstance(rule := RULES[name], Choice):
            return next(choice for choice in rule.names if choice != value)
        if value is None:
            return {"scale": 0.5, "init_from": "runs/x"}.get(name, 7)
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float) and rule.fault(value + 1):
            return value / 2 or 0.5
        return (9, 9, 9) if isinstance(value, tuple) else value + type(value)(1)

    stored = config().to_dict()
    for group in (stored, stored["settings"], stored["hyperparameters"]):
        for name in group.keys() - {*ENDS, "settings", "hyperparameters"}:
            before, group[name] = group[name], other(name, group[name])
            assert len(changed_settings(config(), Config.from_dict(stored))) == 1, name
            group[name] = before


def test_json_is_replaced_in_one_step_and_has_null_for_what_is_not_finite(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": math.nan, "b": [1.5, math.inf, (-math.inf,)], "c": {"d": 2}})
    assert read_json(path) == {"a": None, "b": [1.5, None, [None]], "c": {"d": 2}}
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 1})
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run"),
        ("", "is damaged: it is not valid JSON"),
        ('{"dataset": "digits"', "is damaged: it is not valid JSON"),
        ("{}", "is not the config of a run: it lacks 'dataset'"),
        ('{"dataset": "digits", "settings": {"colour": 1}}', "it lacks 'hyperparameters'"),
    ],
)
def test_a_config_that_is_absent_or_damaged_is_one_line_with_its_path(tmp_path, content, message):
    if content is not None:
        (tmp_path / CONFIG).write_text(content)
    with pytest.raises(RunError, match=message) as caught:
        load_run(tmp_path)
    assert str(tmp_path / CONFIG) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_that_this_version_does_not_know_is_named(tmp_path):
    values = config().to_dict() | {"format": FORMAT}
    values["settings"]["colour"] = 1
    write_json(tmp_path / CONFIG, values)
    with pytest.raises(RunError, match="colour"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("settings", "latent_dim", "2", "its latent_dim is '2', but must be a whole number at least 1"),
        ("settings", "latent_dim", True, "its latent_dim is 'True'"),
        ("settings", "latent_dim", 10**30, "its latent_dim is '1000"),
        ("settings", "activation", "elu", "its activation is 'elu', but must be one of: relu, tanh, gelu, silu"),
        ("settings", "likelihood", ["bernoulli"], "its likelihood is"),
        ("settings", "precision", "x", "its precision is 'x', but must be one of: float32, bfloat16"),
        ("settings", "hidden_sizes", [8, -1], "its hidden_sizes is '[8, -1]'"),
        ("settings", "image_shape", [8, 8], "must be 3 numbers"),
        ("settings", "scale", "learned", "must be null or be a finite float32 number above 0 or be one of: optimal"),
        ("settings", "schedule", "stages", "its stage_steps and stage_factors are not one of each for every stage"),
        ("hyperparameters", "learning_rate", None, "its learning_rate is 'None'"),
        ("hyperparameters", "learning_rate", 1e300, "must be a finite float32 number above 0"),
        ("hyperparameters", "alpha", 10**400, "must be a finite float32 number"),
        (None, "settings", 3, "must be named values in braces"),
        (None, "epochs", 1.5, "its epochs is '1.5'"),
        (None, "validation", -1, "must be null or be a whole number at least 0"),
        (None, "format", FORMAT + 1, "this code reads 1 to"),
        (None, "format", [1], "this code reads 1 to"),
        (None, "colour", 1, "it has an unknown field 'colour'"),
    ],
)
def test_a_config_with_a_value_that_its_field_cannot_have_is_refused_in_one_line(tmp_path, part, name, value, words):
    values = config().to_dict() | {"format": FORMAT}
    (values if part is None else values[part])[name] = value
    (tmp_path / CONFIG).write_text(json.dumps(values))
    with pytest.raises(RunError) as caught:
        read_config(tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("field", ["likelihood", "learning_rate", "discriminator_optimizer"])
def test_a_field_that_was_deleted_from_a_config_is_missed_and_not_given_its_default(tmp_path, field):
    values = config().to_dict() | {"format": FORMAT}
    values["settings" if field in values["settings"] else "hyperparameters"].pop(field)
    (tmp_path / CONFIG).write_text(json.dumps(values))
    hint = f"which files of format {FORMAT} have; if this option is new, give its row since={FORMAT + 1}"
    with pytest.raises(RunError, match=f"it lacks '{field}', {hint}"):
        read_config(tmp_path)


def test_every_field_has_a_rule_that_its_default_keeps():
    stored = config().to_dict()
    values = stored | stored["settings"] | stored["hyperparameters"]
    assert set(values) == set(RULES)
    assert {name: RULES[name].fault(value) for name, value in values.items() if RULES[name].fault(value)} == {}


def test_a_locked_folder_is_refused_at_once_by_the_name_of_its_owner(tmp_path):
    with lock(tmp_path), pytest.raises(RunError, match=rf"in use by process {os.getpid()} on ") as caught:
        lock(tmp_path).__enter__()
    assert str(tmp_path) in str(caught.value)
    with lock(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    holder = (
        "import pathlib, sys, time\n"
        "from vae.runs import folder as run\n"
        "with run.lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {process.pid} on "):
            lock(tmp_path).__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with lock(tmp_path):
            assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()


def test_a_file_cannot_be_a_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=f"{path} cannot be a run folder: .*; choose another `workdir`"):
            lock(path).__enter__()


def write_metrics(workdir, *written):
    metrics = Metrics(workdir, 0)
    for step in written:
        metrics.write(step, step / 10, "train", {"elbo": -float(step), "kl": math.nan})
    metrics.close()


def test_metrics_opened_at_a_step_forget_what_came_after_it(tmp_path):
    write_metrics(tmp_path, 10, 20, 30)
    assert rows(tmp_path)[-1] == {"step": 30, "epoch": 3.0, "split": "train", "elbo": -30.0, "kl": None}
    Metrics(tmp_path, 20).close()
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]


@pytest.mark.parametrize("length", [1, 20, 54])
def test_metrics_with_a_half_written_last_line_are_read_and_continued_without_it(tmp_path, length):
    write_metrics(tmp_path, 10, 20)
    path = tmp_path / METRICS
    first = path.read_text().splitlines()[0]
    assert length < len(first)
    with path.open("a") as file:
        file.write(first.replace("10", "15", 1)[:length])
    with pytest.warns(RunWarning, match=r"is damaged in 1 of 3 lines \(3\): left out"):
        assert [row["step"] for row in rows(tmp_path)] == [10, 20]
    with pytest.warns(RunWarning, match=r"is damaged in 1 of 3 lines \(3\): kept in .*metrics\.damaged\.jsonl"):
        metrics = Metrics(tmp_path, 20)
    metrics.write(30, 3.0, "train", {"elbo": 1.0})
    metrics.close()
    assert [row["step"] for row in rows(tmp_path)] == [10, 20, 30]


def test_a_loaded_run_reproduces_its_validation_bounds(finished):
    stored = read_config(finished)
    written = [row for row in rows(finished) if row["split"] == "validation"]
    assert len(written) == EPOCHS
    for row in written:
        run = load_run(str(finished), row["step"])
        model, params, settings = run.model, run.params, run.settings
        assert settings == stored.settings
        split = images.stored(digits(stored.validation), "validation", settings.binarization, training=False)
        values = training.validate(
            stream(jax.random.key(stored.seed), Stream.EVALUATE),
            params,
            jax.device_put(split),
            stored.hyperparameters,
            model=model,
            objective=objectives.build(settings),
            settings=settings,
        )
        assert float(values["bound"]) == pytest.approx(row["elbo"], rel=1e-6)


def test_last_best_and_a_step_name_checkpoints(finished):
    bounds = {row["step"]: row["elbo"] for row in rows(finished) if row["split"] == "validation"}
    assert choose(finished) == EPOCHS * STEPS_PER_EPOCH
    assert choose(finished, "best") == max(bounds, key=lambda step: bounds[step])
    for step in bounds:
        assert choose(finished, step) == choose(finished, str(step)) == step
        assert_same_bits(load_run(finished, step).params, state(finished, step).params)


@pytest.mark.parametrize("name", ["lst", "-1", "26", "", 26])
def test_an_unknown_checkpoint_is_refused_with_those_that_exist(finished, name):
    with pytest.raises(RunError, match=r"has no checkpoint .*; use last, best or one of \[25, 50, 75\]"):
        load_run(finished, name)


def test_a_run_without_a_checkpoint_or_without_a_score_says_so(tmp_path):
    write_config(tmp_path, config())
    with pytest.raises(RunError, match="holds no checkpoint yet: train it first"):
        load_run(tmp_path)
    checkpoint.save(tmp_path / CHECKPOINTS, 5, {"x": np.zeros(1)})
    with pytest.raises(RunError, match=r"no checkpoint of .* has a validation score; use the last one"):
        load_run(tmp_path, "best")


def test_a_summary_holds_the_settings_the_last_bounds_and_the_evaluation(finished):
    summary = summary_of(finished)
    assert summary["epoch"] == EPOCHS
    assert summary["settings"]["hidden_sizes"] == (16,)
    assert summary["settings"]["learning_rate"] == 1e-3
    last = {row["split"]: row["elbo"] for row in rows(finished)}
    assert (summary["validation"], summary["test"]) == (last["validation"], last["test"])
    assert summary["log_likelihood"] is None
    assert summary["validation_elbo"] == pytest.approx(last["validation"], abs=1.0)
    write_json(finished / EVALUATION, EVALUATED | {"log_likelihood": -5.0, "log_likelihood_se": 0.5})
    summary = summary_of(finished)
    assert (summary["log_likelihood"], summary["log_likelihood_se"]) == (-5.0, 0.5)
    assert (summary["step"], summary["log_likelihood_step"]) == (EPOCHS * STEPS_PER_EPOCH, 1)


def test_a_resume_keeps_who_began_the_run_and_comes_to_its_history(tmp_path, monkeypatch):
    write_config(tmp_path, config(), argv=["first"], flags={"epochs": 3})
    write_config(tmp_path, config(), argv=["first"], flags={"epochs": 3})
    began = read_json(tmp_path / CONFIG)
    assert "history" not in began
    versions = began["versions"] | {"jaxlib": "9.9"}
    monkeypatch.setattr("vae.runs.config.provenance", lambda: {"versions": versions, "git": "abc"})
    for argv in (["second"], ["second"], ["third"]):
        write_config(tmp_path, config(epochs=5), argv=argv, flags={"epochs": 5})
    stored = read_json(tmp_path / CONFIG)
    assert {name: stored[name] for name in ("argv", "versions", "git")} == {
        name: began[name] for name in ("argv", "versions", "git")
    }
    assert stored["history"] == [
        {"argv": ["second"], "versions": versions, "git": "abc"},
        {"argv": ["third"], "versions": versions, "git": "abc"},
    ]
    assert (stored["flags"], read_config(tmp_path)) == ({"epochs": 5}, config(epochs=5))


@pytest.mark.parametrize("history", [None, 3, [3], [{}], [{"versions": 3}], [{"versions": {"jax": 3}}]])
def test_a_resume_under_another_jax_says_that_bits_may_differ(tmp_path, history):
    about = {"data": fingerprint.of(digits())}
    write_config(tmp_path, config(), argv=["first"], **about)
    resuming.check(tmp_path, config(), digits())
    values = read_json(tmp_path / CONFIG)
    values["versions"] |= {"jaxlib": "0.0.1"}
    write_json(tmp_path / CONFIG, values if history is None else values | {"history": history})
    if history in (None, 3, [3]):
        with pytest.warns(RunWarning, match=r"was trained under jaxlib 0\.0\.1, and resumes under jaxlib .*: bits may"):
            resuming.check(tmp_path, config(), digits())
    elif history == [{"versions": {"jax": 3}}]:
        with pytest.warns(RunWarning, match="was trained under jax 3"):
            resuming.check(tmp_path, config(), digits())
    else:
        resuming.check(tmp_path, config(), digits())
    write_config(tmp_path, config(), argv=["second"], **about)
    resuming.check(tmp_path, config(), digits())
