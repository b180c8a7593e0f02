"""A run knows which images it was trained on."""

import json
import re
import shutil

import numpy as np
import pytest

import vae
from tests.data_samples import pictures
from tests.run_samples import config, digits
from tests.script_runs import scripts
from vae.datasets import from_arrays
from vae.runs import fingerprint
from vae.runs.config import read_config, write_config
from vae.runs.files import RunError, read_json
from vae.runs.folder import CONFIG
from vae.settings import FORMAT
from vae.sweeps import storage, study

__all__ = ["scripts"]
TRAIN = ("--hidden_sizes=8", "--latent_dim=2", "--batch_size=10", "--likelihood=normal", "--nofigures")
LABELS = np.array(["x10", "x2", "x9"])[np.arange(60) % 3]


def save(path, images, labels=LABELS):
    np.savez(path, images=images, labels=labels[: len(images)])
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, scripts):
    """A conditional run of an epoch on images of three named classes."""
    folder = tmp_path_factory.mktemp("trained")
    save(folder / "own.npz", pictures(60, 6))
    code, out, err = scripts.call(
        folder, "train", "--dataset=own.npz", "--workdir=x", "--conditional", "--epochs=1", *TRAIN
    )
    assert code == 0, out + err
    return folder


@pytest.fixture
def moved(trained, tmp_path):
    """A copy of the run, whose data are to be put somewhere."""
    shutil.copytree(trained / "x", tmp_path / "x")
    values = read_json(tmp_path / "x" / CONFIG)
    place = str(tmp_path / "own.npz")
    values["dataset"] = values["flags"]["dataset"] = place
    (tmp_path / "x" / CONFIG).write_text(json.dumps(values))
    return tmp_path


def test_config_json_names_classes_and_counts_images(trained):
    values = read_json(trained / "x" / CONFIG)
    assert values["format"] == FORMAT >= fingerprint.SINCE
    assert values["dataset"] == str(trained / "own.npz")
    assert values["data"]["classes"] == ["x2", "x9", "x10"]
    assert {name: split["count"] for name, split in values["data"]["images"].items()} == {
        "train": 49,
        "validation": 5,
        "test": 6,
    }


OTHER = {
    "other images": (lambda path: save(path, pictures(60, 6, seed=1)), "other train images, other validation images"),
    "one pixel": (lambda path: save(path, np.where(np.arange(60)[:, None, None] == 7, 9, pictures(60, 6))), "other "),
    "fewer": (
        lambda path: save(path, pictures(50, 6)),
        "41 train images, not 49, 4 validation",
    ),
    "labels": (lambda path: save(path, pictures(60, 6), LABELS[::-1]), "other labels of the train images"),
    "names": (lambda path: save(path, pictures(60, 6), np.char.replace(LABELS, "x", "y")), "has other classes"),
}


@pytest.mark.parametrize(("replace", "differs"), OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("script", ["train", "evaluate", "generate", "gradients"])
def test_other_data_are_refused_in_a_line_that_says_what_differs(moved, scripts, script, replace, differs):
    replace(moved / "own.npz")
    flags = {"train": ["--epochs=2"], "evaluate": ["--num_samples=2"]}.get(script, [])
    said = scripts.refusal(moved, script, "--workdir=x", *flags)
    assert f"{moved / 'own.npz'} is not what " in said
    assert differs in said
    assert "say with --dataset where they are now" in said


def test_data_that_were_moved_are_found_where_dataset_says(moved, scripts):
    (moved / "elsewhere").mkdir()
    save(moved / "elsewhere" / "data.npz", pictures(60, 6))
    flag = "--dataset=elsewhere/data.npz"
    said = scripts.refusal(moved, "evaluate", "--workdir=x")
    assert f"{moved / 'own.npz'} does not exist" in said
    assert "say with --dataset where it is" in said
    for script, *flags in (
        ("evaluate", "--num_samples=2"),
        ("generate", "--num_images=4"),
        ("gradients", "--draws=20", "--reference_draws=0", "--num_samples=1", "--batch_size=10"),
        ("train", "--epochs=2"),
    ):
        code, out, err = scripts.call(moved, script, "--workdir=x", flag, *flags)
        assert code == 0, out + err
    assert read_config(moved / "x").dataset == str(moved / "elsewhere" / "data.npz")
    code, out, err = scripts.call(moved, "train", "--workdir=x", "--epochs=3")
    assert code == 0, out + err


def test_labels_may_change_under_a_run_that_does_not_read_them():
    own = from_arrays(pictures(60, 6), np.arange(60) % 3)
    other = from_arrays(pictures(60, 6), np.arange(60) % 4)
    record = json.loads(json.dumps(fingerprint.of(own)))
    assert fingerprint.check(record, other, "x", conditional=False) is other
    with pytest.raises(RunError, match="other labels of the train images, other labels of"):
        fingerprint.check(record, other, "x", conditional=True)


@pytest.mark.parametrize(
    "damage",
    [None, {}, [], {"images": {}, "classes": None}, {"images": {"train": 3}, "classes": None}, "x" * 64],
)
def test_a_fingerprint_that_is_none_is_damage_and_never_an_old_run(tmp_path, damage):
    """Without it, labels would be read as before they had names."""
    write_config(tmp_path, config(), data=fingerprint.of(digits()))
    assert fingerprint.read(tmp_path) == json.loads(json.dumps(fingerprint.of(digits())))
    values = read_json(tmp_path / CONFIG) | {"data": damage}
    (tmp_path / CONFIG).write_text(json.dumps(values))
    with pytest.raises(RunError, match="is damaged: its 'data' does not say which images"):
        fingerprint.read(tmp_path)


def test_the_api_checks_the_data_of_a_run_and_finds_them_elsewhere(moved):
    save(moved / "own.npz", pictures(60, 6, seed=1))
    run = vae.load_run(moved / "x")
    with pytest.raises(RunError, match="is not what this run was trained on: it has other train images"):
        vae.evaluate(run, num_samples=2)
    with pytest.raises(RunError, match="x was trained on"):
        vae.train(moved / "own.npz", workdir=moved / "x", conditional=True)
    place = save(moved / "data.npz", pictures(60, 6))
    found = vae.evaluate(run, num_samples=2, dataset=place)
    images, labels = pictures(60, 6)[:6], LABELS[:6]
    assert found.by_image["elbo"].shape == vae.evaluate(run, images, labels, num_samples=2).by_image["elbo"].shape
    with pytest.raises(vae.configuration.ConfigurationError, match="the run has no class 'x3'; its classes are"):
        vae.evaluate(run, images, np.repeat("x3", 6), num_samples=2)


SMALL = ("--dataset=own.npz", "--epochs=1", "--validation=5", *TRAIN)
OF_MANY = {
    "sweep": ("sweep", "--sweep=seed=0:2", "--strategy=loop", "--devices=1", *SMALL),
    "search": ("sweep", "--search=random", "--sweep=learning_rate=1e-3,1e-2", "--trials=2", "--strategy=loop", *SMALL),
    "compare": ("compare", "--objectives=elbo elbo:learning_rate=0.01", "--seeds=1", "--evaluation_samples=2", *SMALL),
}


@pytest.mark.parametrize(("script", "flags"), [(one, flags) for one, *flags in OF_MANY.values()], ids=OF_MANY)
def test_sweeps_searches_and_comparisons_refuse_other_data_and_find_moved_ones(tmp_path, scripts, script, flags):
    save(tmp_path / "own.npz", pictures(60, 6))
    code, out, err = scripts.call(tmp_path, script, "--workdir=s", *flags)
    assert code == 0, out + err
    save(tmp_path / "own.npz", pictures(60, 6, seed=1))
    assert re.search(
        r"runs/\S+ was trained on: it has other train images", scripts.refusal(tmp_path, script, "--workdir=s")
    )
    (tmp_path / "own.npz").unlink()
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "elsewhere" / "data.npz"
    save(place, pictures(60, 6, seed=1))
    there = ("--workdir=s", "--dataset=elsewhere/data.npz")
    assert "other train images" in scripts.refusal(tmp_path, script, *there)
    save(place, pictures(60, 6))
    assert "is 5, not 6" in scripts.refusal(tmp_path, script, *there, "--validation=6")
    for again in (there, ("--workdir=s",)):
        code, out, err = scripts.call(tmp_path, script, *again, "--nofigures")
        assert code == 0, out + err
    for folder in (tmp_path / "s" / "runs").iterdir():
        values = read_json(folder / CONFIG)
        assert values["dataset"] == values["flags"]["dataset"] == str(place)


def test_a_comparison_of_runs_refuses_other_data_and_finds_moved_ones(moved, scripts):
    other = read_json(moved / "x" / CONFIG)
    shutil.copytree(moved / "x", moved / "y")
    other["hyperparameters"]["learning_rate"] = other["flags"]["learning_rate"] = 0.01
    (moved / "y" / CONFIG).write_text(json.dumps(other))
    compare = ("compare", "--runs=x,y", "--workdir=c", "--evaluation_samples=2", "--nofigures")
    place = save(moved / "data.npz", pictures(60, 6, seed=1))
    for flags in ((), (f"--dataset={place}",)):
        shutil.copy(place, moved / "own.npz")
        assert "x was trained on: it has other train images" in scripts.refusal(moved, *compare, *flags)
    (moved / "own.npz").unlink()
    save(place, pictures(60, 6))
    for again in (compare, ("compare", "--workdir=c", "--nofigures")):
        code, out, err = scripts.call(moved, *again, f"--dataset={place}")
        assert code == 0, out + err


def test_workers_of_a_search_have_the_same_images_wherever_they_are(tmp_path):
    own = from_arrays(pictures(60, 6), np.arange(60) % 3)
    labelled = from_arrays(pictures(60, 6), np.arange(60) % 4)
    other = from_arrays(pictures(60, 6, seed=1), np.arange(60) % 3)

    def asked(dataset, place, **changes):
        images = json.loads(json.dumps(fingerprint.of(dataset)["images"]))
        return {"--search": "tpe", "--dataset": place, "images": images, **changes}

    opened = storage.open_storage(str(tmp_path / "study.journal"))
    study.join(opened, "s", asked(own, "a.npz"))
    study.join(opened, "s", asked(labelled, "b.npz"))
    study.join(opened, "s", {"--search": "tpe", "--dataset": "a.npz"})  # of before the images were kept
    for wrong in (asked(other, "a.npz"), asked(labelled, "a.npz", **{"--conditional": True})):
        with pytest.raises(RunError, match=r"the study s is for something else: .*a\.npz has other .*train images"):
            study.join(opened, "s", wrong)
    study.join(opened, "old", {"--search": "tpe", "--dataset": "a.npz"})
    study.join(opened, "old", asked(own, "a.npz"))
    with pytest.raises(RunError, match=r"--dataset is a\.npz, not b\.npz"):
        study.join(opened, "old", asked(own, "b.npz"))
    opened.set_study_user_attr(opened.get_study_id_from_name("s"), "asked", asked(own, "a.npz", images={"train": 3}))
    with pytest.raises(RunError, match="the study s is damaged: its images are none"):
        study.join(opened, "s", asked(own, "a.npz"))
