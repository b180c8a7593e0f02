"""What the scripts say of a user's own images, and which they refuse."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.pictures import run_pictures
from tests.data_samples import pictures
from tests.run_samples import config, digits, train
from tests.script_runs import scripts
from vae import figures
from vae.api import load_run
from vae.datasets import load
from vae.runs import checkpoint, fingerprint, tensorboard
from vae.runs.config import write_config
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.training import fit

__all__ = ["scripts"]
SMALL = ("--epochs=1", "--hidden_sizes=8", "--latent_dim=2", "--batch_size=10")


def test_a_line_counts_the_images_and_a_warning_says_that_they_become_black_and_white(tmp_path, scripts, monkeypatch):
    for index, pixels in enumerate(pictures(30, 6)):
        (tmp_path / "cats").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "cats" / f"{index:02}.png")
    (tmp_path / "cats" / "notes.txt").touch()
    code, out, err = scripts.call(tmp_path, "train", "--dataset=cats", "--workdir=x", *SMALL)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "images: 30 pictures used; passed over: 1 .txt"
    warned = f"warning: the model sees {tmp_path / 'cats'} in black and white"
    assert out.count(warned) == 1
    # Said before training: the others are stopped as it begins.
    monkeypatch.setattr(fit, "fit", lambda *args, **kwargs: fit.Outcome(False, 0.0, {}))
    for flags in (["--likelihood=normal"], ["--binarization=dynamic"], ["--binarization=none"]):
        code, out, _ = scripts.call(tmp_path, "train", "--dataset=cats", f"--workdir={flags[0]}", *SMALL, *flags)
        assert code == 75
        assert "images: 30 pictures used" in out
        assert "warning" not in out
    code, out, _ = scripts.call(tmp_path, "train", "--dataset=digits", "--workdir=d", *SMALL)
    assert (code, "images:" in out, "warning" in out) == (75, False, False)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((20, 4, 4), 7, np.uint8), "every pixel of all training images of .* is 7: there is nothing to learn"),
        (np.repeat(pictures(1, 4), 20, 0), "all 17 training images of .* are the same: there is nothing to learn"),
    ],
)
def test_a_constant_data_set_is_refused(tmp_path, scripts, images, message):
    np.savez(tmp_path / "own.npz", images=images)
    assert re.search(message, scripts.refusal(tmp_path, "train", "--dataset=own.npz", "--batch_size=4"))


ODD = {
    "two channels and one test image": (
        {"images": pictures(30, 12).reshape(30, 6, 12, 2), "images_test": pictures(1, 12).reshape(1, 6, 12, 2)},
        (6, 12, 2),
    ),
    "nineteen of one row of 1000": ({"x": pictures(19, 100).reshape(19, 10_000)[:, :1000]}, (1, 1000, 1)),
    "ten of one pixel": ({"images": pictures(10, 1)}, (1, 1, 1)),
}


@pytest.mark.parametrize(("arrays", "shape"), ODD.values(), ids=ODD)
def test_any_data_that_load_are_trained_on_drawn_and_evaluated_by_default(tmp_path, scripts, arrays, shape):
    np.savez(tmp_path / "own.npz", **arrays)
    # The pictures are those that generate draws: of one test image too, which are fewer than are shown of others.
    drawn = ("--figures",) if "images_test" in arrays else ()
    code, out, err = scripts.call(
        tmp_path, "train", "--dataset=own.npz", "--workdir=x", "--epochs=1", "--hidden_sizes=8", *drawn
    )
    assert (code, err) == (0, ""), out + err
    assert "x".join(map(str, shape)) in out
    assert out.count("picture: ") == (6 if drawn else 0)
    assert "is not drawn" not in out
    code, out, err = scripts.call(tmp_path, "evaluate", "--workdir=x", "--num_samples=10")
    assert (code, err) == (0, ""), out + err
    code, out, err = scripts.call(tmp_path, "generate", "--workdir=x", "--num_images=4", "--num_steps=3")
    assert (code, err) == (0, ""), out + err
    assert "is not drawn" not in out


def test_a_comparison_on_one_test_image_is_refused_before_it_trains_or_evaluates(tmp_path, scripts):
    place = tmp_path / "own.npz"
    np.savez(place, images=pictures(30, 8), images_test=pictures(1, 8))
    flags = ("--dataset=own.npz", "--objectives=elbo,iwae", *SMALL)
    said = f"a comparison needs two test images or more, and {place} has 1"
    assert said in scripts.refusal(tmp_path, "compare", *flags)
    for name, rate in (("a", 1e-3), ("b", 1e-2)):
        (tmp_path / name).mkdir()
        one = dataclasses.replace(config(epochs=1, learning_rate=rate, validation=None), dataset=str(place))
        write_config(tmp_path / name, one, data=fingerprint.of(load(place)))
        (tmp_path / name / METRICS).write_text('{"step": 1, "epoch": 1.0, "split": "train"}\n')
        checkpoint.save(tmp_path / name / CHECKPOINTS, 1, {"a": np.zeros(1)})
    said = f"a comparison needs two test images or more, and {tmp_path / 'a'} has 1"
    assert said in scripts.refusal(tmp_path, "compare", "--runs=a,b")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of an epoch."""
    workdir = tmp_path_factory.mktemp("trained")
    train(workdir, config(epochs=1))
    return workdir


def test_every_picture_of_a_model_says_of_which_step_it_is(monkeypatch, trained):
    """It may stand beside a later epoch."""
    titles = {}

    def shown(name):
        return lambda *args, **kwargs: titles.update({name: " ".join(one for one in args if isinstance(one, str))})

    for name in ("samples", "reconstructions", "traversals", "manifold", "latent_scatter", "morph", "morph_gif",
                 "log_likelihood_by_num_samples", "kl_per_dimension", "log_likelihood_bracket"):  # fmt: skip
        monkeypatch.setattr(figures, name, shown(name))
    monkeypatch.setattr(run_pictures, "save", lambda workdir, made: [])
    run, test = load_run(trained), digits().test
    run_pictures.of_model(jax.random.key(0), run, test, "test", None, indices=[0, 1], num_images=4)
    run_pictures.morph(trained, run, test, 0, 1, 3, "linear")
    bdmc = {"by_num_temperatures": {"1": {"lower": -2.0, "upper": -1.0}}, "num_examples": 3}
    summary = {"log_likelihood_by_num_samples": {"1": [-3.0, 0.1], "5": [-2.0, 0.1]}, "bdmc": bdmc}
    summary |= {"pareto_k_threshold": 0.7, "pareto_k_above_threshold": 0.0}
    run_pictures.of_evaluation(trained, summary | {"kl_per_dimension": [1.0], "checkpoint": run.step})
    assert run.step == 25
    assert titles.pop("morph_gif") == ""
    assert {name: "step 25" in title for name, title in titles.items()} == dict.fromkeys(titles, True)
    assert len(titles) == 9


@pytest.mark.parametrize(("gain", "share", "answer"), [(0.04, 0.05, "Yes"), (0.06, 0.05, "No"), (0.04, 0.06, "No")])
@pytest.mark.parametrize("is_old", [False, True])
def test_whether_k_is_enough_is_said_by_the_gain_on_the_same_images_and_by_pareto_k(gain, share, answer, is_old):
    """The error over images, of 9 nats, has no part in it."""
    by_k = {100: (-90.5, 9.0), 1000: (-90.0, 9.0), 5000: (-90.0 + gain, 9.0)}
    summary = {"pareto_k_threshold": 0.7, "pareto_k_above_threshold": share, "checkpoint": 7}
    if not is_old:
        summary["log_likelihood_gain"] = {"1000": [0.5, 0.01], "5000": [gain, 0.002]}
    (axes,) = run_pictures.is_k_enough(summary, by_k).axes
    assert axes.get_title(loc="left") == f"Is k = 5000 enough? {answer} (step 7)"
    texts = [text.get_text() for text in axes.texts]
    assert texts[3:5] == (["+0.500", f"+{gain:.3f}"] if is_old else ["+0.500 ± 0.010", f"+{gain:.3f} ± 0.002"])
    assert f"\nk̂ > 0.70 for {100 * share:.1f} % of the images." in texts[5]


def test_a_picture_that_cannot_be_drawn_is_a_line_and_the_run_is_done(monkeypatch, tmp_path, trained, capsys):
    """A finished run is never failed by what is drawn of it."""

    def no_memory(*args, **kwargs):
        raise MemoryError("Unable to allocate 24.0 GiB")

    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(figures, "samples", no_memory)
    monkeypatch.setattr(tensorboard, "write_pictures", no_memory)
    nan = np.full((1, 2, 2, 1), np.nan)
    monkeypatch.setattr(figures, "manifold", lambda *args: figures.side_by_side({"": nan}, ""))
    paths = run_pictures.after_training(tmp_path, digits())
    assert [path.stem for path in paths] == ["learning_curves", "reconstructions", "traversals", "latent_space"]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "warning: the picture samples is not drawn: Unable to allocate 24.0 GiB"
    assert said[1].startswith("warning: the picture manifold is not drawn: ")
    assert said[2] == "warning: the picture in TensorBoard is not drawn: Unable to allocate 24.0 GiB"
    assert len(said) == 3


def test_names_of_classes_are_shown_and_stored_with_embeddings(tmp_path, scripts, monkeypatch):
    names = np.array(["owl", "cat", "a dog of a very long name"])[np.arange(30) % 3]
    np.savez(tmp_path / "own.npz", images=pictures(30, 6), labels=names)
    flags = ("--dataset=own.npz", "--workdir=x", "--epochs=1", "--hidden_sizes=8", "--conditional")
    code, out, err = scripts.call(tmp_path, "train", *flags)
    assert (code, err) == (0, "")
    assert "likelihood bernoulli, given 3 classes; objective elbo" in out
    code, out, err = scripts.call(tmp_path, "generate", "--workdir=x", "--embeddings=train", "--num_images=4")
    assert (code, err) == (0, ""), out + err
    with np.load(tmp_path / "x" / "embeddings_train.npz") as stored:
        assert stored["classes"].tolist() == ["a dog of a very long name", "cat", "owl"]
        dataset = load(tmp_path / "own.npz")
        assert np.array_equal(stored["labels"], dataset.train.labels)
    shown = {}
    monkeypatch.setattr(figures, "reconstructions", lambda *args: shown.update(heads=args[-2], original=args[-1]))
    monkeypatch.setattr(figures, "latent_scatter", lambda *args: shown.update(names=args[-1]))
    monkeypatch.setattr(figures, "samples", lambda images, title: shown.update(title=title))
    run = load_run(tmp_path / "x")
    key = jax.random.key(0)
    run_pictures.of_model(key, run, dataset.test, "test", dataset.classes, indices=[0, 1, 2], num_images=3)
    long = "a dog of a very lon…"
    assert shown["original"] == "original,\nbinarised"
    assert shown["heads"] == [[long, "cat", "owl"][label] for label in dataset.test.labels[:3]]
    assert shown["names"] == [long, "cat", "owl"]
    assert shown["title"].endswith(f"class after class: {long}, cat, owl")
