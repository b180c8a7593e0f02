"""Folders that the code before wrote still load, resume and evaluate (tests/fixtures/README.md)."""

import csv
import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.script_runs import scripts
from vae.api import load_run
from vae.datasets import images, load
from vae.evaluation import importance as evaluation
from vae.evaluation.summary import summarize
from vae.runs.config import Config, read_config
from vae.runs.files import read_json
from vae.runs.folder import CHECKPOINTS, CONFIG, METRICS, lock
from vae.runs.metrics import read_metrics
from vae.settings import ADDED, Hyperparameters, Settings
from vae.sweeps import folders, results
from vae.sweeps.sweep_file import read_sweep
from vae.training import fit

__all__ = ["scripts"]
FIXTURES = Path(__file__).parents[1] / "fixtures"
RUNS = [  # of each format, and the epochs that they were trained for
    *[(1, name, 1) for name in ("factor", "rws", "capacity", "warmup")],
    (2, "iwae", 2),
    (2, "factor", 1),
]
TOLERANCE = 1e-4  # relative: the order of sums in a product depends on XLA's flags


def extracted(folder: Path, name: str) -> Path:
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        archive.extractall(folder / name, filter="data")
    return folder / name


@pytest.fixture(scope="module")
def written_before(tmp_path_factory):
    return extracted(tmp_path_factory.mktemp("before"), "format_1")


@pytest.fixture(scope="module")
def format_2(tmp_path_factory):
    return extracted(tmp_path_factory.mktemp("before"), "format_2")


@pytest.fixture
def of_format(written_before, format_2):
    return {1: written_before, 2: format_2}


def assert_metrics(found: list[dict], expected: list[dict]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "split"}:
            np.testing.assert_allclose(one[name], other[name], TOLERANCE, err_msg=name)


def resumed_before(folder: Path, name: str) -> list[dict]:
    """The metrics of one epoch more, as the code before went on with the run."""
    return [json.loads(line) for line in (folder / "resumed" / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("number", "name", "epochs"),
    [pytest.param(*run, marks=pytest.mark.soak) if run[1] in ("capacity", "warmup") else run for run in RUNS],
)
def test_a_run_of_an_old_format_resumes_as_under_the_code_that_wrote_it(of_format, tmp_path, number, name, epochs):
    """Also one that is refused for new training, and one whose defaults are others today."""
    workdir = shutil.copytree(of_format[number] / "runs" / name, tmp_path / name)
    config = read_config(workdir)
    assert config.epochs == epochs
    with lock(workdir):
        assert fit.fit(workdir, dataclasses.replace(config, epochs=epochs + 1), load("digits", validation=200)).finished
    assert_metrics(read_metrics(workdir), resumed_before(of_format[number], name))


def test_a_factor_vae_of_format_1_resumes_by_its_flags_with_the_one_adam_it_began_with(
    written_before, tmp_path, scripts
):
    workdir = shutil.copytree(written_before / "runs" / "factor", tmp_path / "factor")
    code, out, err = scripts.call(tmp_path, "train", "--workdir=factor", "--epochs=2")
    assert code == 0, out + err
    assert_metrics(read_metrics(workdir), resumed_before(written_before, "factor"))
    values = read_json(workdir / CONFIG)
    assert (values["settings"]["discriminator_optimizer"], values["flags"]["discriminator_optimizer"]) == (
        "shared",
    ) * 2


def without_doubt(err):
    """Without the lines that say, under a newer jax than the fixtures', that bits may differ."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.endswith(": bits may differ\n"))


@pytest.mark.parametrize(("number", "name"), [(n, name) for n, name, _ in RUNS if (n, name) != (2, "factor")])
def test_a_run_of_an_old_format_evaluates_to_the_same_numbers(of_format, number, name):
    workdir = of_format[number] / "runs" / name
    loaded, config = load_run(workdir), read_config(workdir)
    test = images.stored(load("digits", validation=200), "test", config.settings.binarization, training=False)
    index = np.sort(np.random.default_rng(0).permutation(len(test.images))[:20])
    found = summarize(
        evaluation.evaluate(
            jax.random.key(0), loaded.params, test.images[index], None, index, model=loaded.model, num_samples=50
        )
    )
    expected = json.loads((of_format[number] / "resumed" / f"{name}.evaluation.json").read_text())
    assert found["num_examples"] == 20
    for key, value in expected.items():
        if isinstance(value, float) and key != "seconds":
            np.testing.assert_allclose(found[key], value, TOLERANCE, err_msg=key)


def test_a_run_from_before_fingerprints_says_so_in_one_line_and_keeps_its_labels(written_before, tmp_path, scripts):
    shutil.copytree(written_before / "runs" / "factor", tmp_path / "factor")
    note = "note: this run is from before runs knew their data: whether digits has the images"
    code, out, err = scripts.call(tmp_path, "evaluate", "--workdir=factor", "--num_samples=2", "--num_examples=5")
    assert (code, without_doubt(err), out.count(note)) == (0, "", 1)
    code, out, err = scripts.call(tmp_path, "train", "--workdir=factor", "--epochs=2")
    assert (code, without_doubt(err), out.count(note)) == (0, "", 1)
    code, out, err = scripts.call(tmp_path, "evaluate", "--workdir=factor", "--num_samples=2", "--num_examples=5")
    assert (code, without_doubt(err), out.count(note)) == (0, "", 0)
    kept = read_json(tmp_path / "factor" / CONFIG)["data"]
    assert (kept["classes"], kept["images"]["train"]["count"]) == (None, 1237)


def test_a_config_without_a_format_means_what_it_meant_before_each_newer_field(written_before):
    config = read_config(written_before / "runs" / "factor")
    for name, value in ADDED[2].items():
        assert getattr(config.settings, name, getattr(config.hyperparameters, name, None)) == value
    assert config.settings.discriminator_optimizer == "shared"
    assert Settings(image_shape=(8, 8, 1)).discriminator_optimizer == "own"


def test_newer_fields_are_fields_with_a_default():
    known = {field.name for field in (*dataclasses.fields(Settings), *dataclasses.fields(Config))}
    known |= set(Hyperparameters._fields)
    assert {name for added in ADDED.values() for name in added} <= known


def trained(folder: Path) -> dict[str, bytes]:
    """What training left in the runs of a comparison: their metrics and checkpoints."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.glob("runs/**/*"))
        if path.is_file() and (path.name == METRICS or CHECKPOINTS in path.parts)
    }


def test_a_comparison_of_format_1_finds_its_runs_under_their_old_names_and_trains_only_new_seeds(
    written_before, tmp_path, scripts
):
    """Names were not injective then: renyi-K-4-alpha-2 is of alpha = -2."""
    workdir = shutil.copytree(written_before / "comparisons" / "renyi", tmp_path / "c")
    before = trained(workdir)
    names = {f"{one}-seed-{seed}" for one in ("elbo", "renyi-K-4-alpha-2") for seed in (0, 1)}
    once = {one["label"].split()[0]: one for one in read_json(workdir / "comparison.json")["objectives"]}
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c", "--nofigures")
    assert (code, without_doubt(err)) == (0, "")
    assert " runs as " not in out
    assert trained(workdir) == before
    assert {path.name for path in (workdir / "runs").iterdir()} == names
    for one in read_json(workdir / "comparison.json")["objectives"]:
        assert one["log_likelihood_by_seed"] == once[one["label"].split()[0]]["log_likelihood_by_seed"]
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c", "--seeds=3", "--nofigures")
    assert (code, without_doubt(err)) == (0, "")
    assert "2 runs as 2 programs" in out
    after = trained(workdir)
    assert {path: content for path, content in after.items() if path in before} == before
    new = {path.name for path in (workdir / "runs").iterdir()} - names
    assert len(new) == 2
    assert sorted(read_config(workdir / "runs" / name).seed for name in new) == [2, 2]


def table(path):
    return list(csv.reader(path.read_text().splitlines()))


def test_a_run_of_a_sweep_of_format_2_is_listed_and_resumes(format_2, tmp_path):
    """A sweep of two programs."""
    workdir = shutil.copytree(format_2 / "sweeps" / "posteriors", tmp_path / "s")
    before, now = format_2 / "sweeps" / "posteriors" / "results.csv", results.write(workdir)
    assert [row[:1] + row[2:] for row in table(now)] == table(before)
    assert [row[1] for row in table(now)] == ["path", "runs/000", "runs/001"]
    (one,) = results.ranked(results.rows(workdir), folders.configs(workdir))
    assert list(one.scores) == ["000", "001"]
    folder = workdir / "runs" / "001"
    config = dataclasses.replace(read_config(folder), epochs=2)
    assert config.settings.posterior == "full"
    with lock(folder):
        assert fit.fit(folder, config, load("digits", validation=200)).finished
    assert_metrics(read_metrics(folder), resumed_before(format_2, "posteriors"))


def test_a_sweep_of_format_2_is_finished_under_its_flags(format_2, tmp_path, scripts):
    shutil.copytree(format_2 / "sweeps" / "posteriors", tmp_path / "s")
    before = trained(tmp_path / "s")
    code, out, err = scripts.call(tmp_path, "sweep", "--workdir=s", "--nofigures")
    assert (code, without_doubt(err)) == (0, "")
    assert "best setting by validation elbo: posterior=" in out
    assert trained(tmp_path / "s") == before


def test_a_search_of_format_2_asks_for_the_next_trial_that_its_code_asked_for(format_2, tmp_path, scripts):
    """TPE draws a trial from those before: the study is read, and the seed of a round is what it was."""
    workdir = shutil.copytree(format_2 / "searches" / "tpe", tmp_path / "s")
    before = trained(workdir)
    code, out, err = scripts.call(tmp_path, "sweep", "--workdir=s", "--trials=4", "--nofigures")
    assert (code, without_doubt(err)) == (0, "")
    assert "trials: 4 finished, 0 pruned, 0 diverged" in out
    after = trained(workdir)
    assert {path: content for path, content in after.items() if path in before} == before
    assert {path.split("/")[1] for path in after.keys() - before.keys()} == {"run-003"}
    found = {name.removeprefix("run-"): values for name, values in read_sweep(workdir)["runs"].items()}
    expected = json.loads((format_2 / "resumed" / "tpe.json").read_text())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-6)


def by_seed(workdir: Path) -> dict[str, list[float]]:
    compared = read_json(workdir / "comparison.json")["objectives"]
    return {one["label"]: one["log_likelihood_by_seed"] for one in compared}


def test_a_comparison_of_format_2_is_extended_by_a_seed(format_2, tmp_path, scripts):
    workdir = shutil.copytree(format_2 / "comparisons" / "renyi", tmp_path / "c")
    before = trained(workdir)
    once = {one["label"]: one["log_likelihood_by_seed"] for one in read_json(workdir / "comparison.json")["objectives"]}
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c", "--seeds=3", "--nofigures")
    assert (code, without_doubt(err)) == (0, "")
    assert "2 runs as 2 programs" in out
    after = trained(workdir)
    assert {path: content for path, content in after.items() if path in before} == before
    names = {f"{one}+seed={seed}" for one in ("elbo", "renyi+alpha=-2+num_samples=4") for seed in (0, 1, 2)}
    assert {path.name for path in (workdir / "runs").iterdir()} == names
    assert {label: values[:2] for label, values in by_seed(workdir).items()} == once
