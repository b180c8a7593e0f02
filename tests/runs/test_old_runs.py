"""Folders that the code before wrote still load, resume and evaluate (tests/fixtures/README.md)."""

import dataclasses
import json
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.run_samples import compiled_once
from tests.script_runs import scripts
from vae.api import load_run
from vae.datasets import images, load
from vae.evaluation import importance as evaluation
from vae.runs.config import read_config
from vae.runs.files import read_json
from vae.runs.folder import CHECKPOINTS, CONFIG, METRICS, lock
from vae.runs.metrics import read_metrics
from vae.settings import ADDED, Hyperparameters, Settings
from vae.training import fit

__all__ = ["compiled_once", "scripts"]
pytestmark = pytest.mark.usefixtures("compiled_once")
FIXTURE = Path(__file__).parents[1] / "fixtures" / "format_1.tar.gz"
TOLERANCE = 1e-4  # relative: the order of sums in a product depends on XLA's flags


@pytest.fixture(scope="module")
def written_before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format_1")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def assert_metrics(found: list[dict], expected: list[dict]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "split"}:
            np.testing.assert_allclose(one[name], other[name], TOLERANCE, err_msg=name)


def resumed_before(folder: Path, name: str) -> list[dict]:
    """The metrics of epoch 2, as the code before went on with the run."""
    return [json.loads(line) for line in (folder / "resumed" / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["factor", "rws", "capacity", "warmup"])
def test_a_run_of_format_1_resumes_as_under_the_code_that_wrote_it(written_before, tmp_path, name):
    """Also one that is refused for new training, and one whose defaults are others today."""
    workdir = shutil.copytree(written_before / "runs" / name, tmp_path / name)
    config = dataclasses.replace(read_config(workdir), epochs=2)
    with lock(workdir):
        assert fit.fit(workdir, config, load("digits", validation=200)).finished
    assert_metrics(read_metrics(workdir), resumed_before(written_before, name))


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


@pytest.mark.parametrize("name", ["factor", "rws", "capacity", "warmup"])
def test_a_run_of_format_1_evaluates_to_the_same_numbers(written_before, name):
    workdir = written_before / "runs" / name
    loaded, config = load_run(workdir), read_config(workdir)
    test = images.stored(load("digits", validation=200), "test", config.settings.binarization, training=False)
    index = np.sort(np.random.default_rng(0).permutation(len(test.images))[:20])
    found = evaluation.summarize(
        evaluation.evaluate(
            jax.random.key(0), loaded.params, test.images[index], None, index, model=loaded.model, num_samples=50
        )
    )
    expected = json.loads((written_before / "resumed" / f"{name}.evaluation.json").read_text())
    assert found["num_examples"] == 20
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, TOLERANCE, err_msg=key)


def test_a_config_without_a_format_means_what_it_meant_before_each_newer_field(written_before):
    config = read_config(written_before / "runs" / "factor")
    for name, value in ADDED[2].items():
        assert getattr(config.settings, name, getattr(config.hyperparameters, name, None)) == value
    assert config.settings.discriminator_optimizer == "shared"
    assert Settings(image_shape=(8, 8, 1)).discriminator_optimizer == "own"


def test_newer_fields_are_fields_with_a_default():
    known = {field.name for field in dataclasses.fields(Settings)} | set(Hyperparameters._fields)
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
    assert (code, err) == (0, "")
    assert " runs as " not in out
    assert trained(workdir) == before
    assert {path.name for path in (workdir / "runs").iterdir()} == names
    for one in read_json(workdir / "comparison.json")["objectives"]:
        assert one["log_likelihood_by_seed"] == once[one["label"].split()[0]]["log_likelihood_by_seed"]
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c", "--seeds=3", "--nofigures")
    assert (code, err) == (0, "")
    assert "2 runs as 2 programs" in out
    after = trained(workdir)
    assert {path: content for path, content in after.items() if path in before} == before
    new = {path.name for path in (workdir / "runs").iterdir()} - names
    assert len(new) == 2
    assert sorted(read_config(workdir / "runs" / name).seed for name in new) == [2, 2]
