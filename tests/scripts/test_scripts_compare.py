"""experiments.compare end to end on the digits: trains, judges, writes, resumes, refuses; and the files it reads."""

import csv
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from experiments.flags import comparisons, variants
from experiments.flags.parsing import UsageError
from experiments.pictures import comparison_pictures
from tests.run_samples import config
from tests.script_calls import everything
from tests.script_runs import scripts
from vae import figures, report
from vae.runs.config import read_config
from vae.runs.files import read_json, write_json
from vae.runs.folder import CHECKPOINTS, CONFIG
from vae.sweeps.comparing import epochs_within
from vae.sweeps.sweep_file import SWEEP
from vae.training import packing

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=16")
OBJECTIVES = "--objectives=elbo iwae:num_samples=3"
COMPARE = (*SMALL, OBJECTIVES, "--seeds=2", "--epochs=1", "--evaluation_samples=20", "--num_examples=60")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scripts):
    """A folder with the finished comparison `c`; tests copy it or only read."""
    folder = tmp_path_factory.mktemp("finished")
    code, out, err = scripts.call(folder, "compare", *COMPARE, "--tune=learning_rate=1e-3,3e-3", "--workdir=c")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "c"
    assert report.aligned(compared(folder / "c")) in out
    assert "epoch 1/1 of 4 runs: 4 of 8 finished" in out
    assert "\nfor a paper: c/comparison.tex, with pictures as PDF and SVG" in out
    return folder


def compared(folder):
    return read_json(folder / "comparison.json")


def without_seconds(value):
    """A comparison without what the clock says."""
    if isinstance(value, dict):
        return {n: without_seconds(v) for n, v in value.items() if n != "seconds_per_step"}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def test_everything_is_written_and_agrees(finished):
    found = compared(finished / "c")
    labels = [one["label"] for one in found["objectives"]]
    assert sorted(labels) == ["elbo K=1", "iwae K=3"]
    scores = [one["log_likelihood"] for one in found["objectives"]]
    assert scores == sorted(scores, reverse=True)
    for one in found["objectives"]:
        by_seed = []
        for seed, folder in enumerate(one["runs"]):
            config = read_config(finished / folder)
            assert (config.seed, config.epochs) == (seed, 1)
            summary = read_json(finished / folder / "evaluation_test_60.json")
            arrays = np.load(finished / folder / "evaluation_test_60.npz")
            assert (summary["num_samples"], summary["num_examples"]) == (20, 60)
            for name in ("log_likelihood", "elbo", "kl"):
                assert arrays[name].shape == (60,)
                np.testing.assert_allclose(arrays[name].mean(), summary[name], rtol=1e-12)
            by_seed.append(summary["log_likelihood"])
        assert by_seed == one["log_likelihood_by_seed"]
        np.testing.assert_allclose(np.mean(by_seed), one["log_likelihood"], rtol=1e-12)
        assert one["seconds_per_step"] > 0
        assert comparison_pictures.held_out_split(finished / one["runs"][0]) == "validation"
    (pair,) = found["pairs"]
    np.testing.assert_allclose(pair["difference"], scores[0] - scores[1], rtol=1e-9)
    page = (finished / "c" / "report.html").read_text()
    assert all(sentence in page for sentence in found["conclusion"])
    pictures = {path.stem for path in (finished / "c" / "figures").glob("*.png")}
    for suffix in ("pdf", "svg"):
        assert {path.stem for path in (finished / "c" / "figures").glob(f"*.{suffix}")} == pictures
    assert (pair["p"], pair["low"], pair["significant"]) == (None, None, False)  # two seeds describe, no more
    assert pictures == {"log_likelihoods", "elbo_by_step", "elbo_by_second", "rate_distortion",
                        "kl_spectra", "reconstructions", "samples"}  # fmt: skip
    assert page.count("<img ") == len(pictures)
    assert (finished / "c" / "comparison.md").read_text() == report.markdown(found, sorted(pictures))
    assert (finished / "c" / "comparison.tex").read_text() == report.tex(found)
    with (finished / "c" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("log_likelihood", "elbo", "kl", "reconstruction", "effective_sample_size"):
        by_seed = [value for one in found["objectives"] for value in one[f"{name}_by_seed"]]
        assert [float(row[name]) for row in rows] == by_seed
        np.testing.assert_allclose(
            [np.mean(by_seed[:2]), np.mean(by_seed[2:])], [one[name] for one in found["objectives"]]
        )
        error = abs(by_seed[0] - by_seed[1]) / 2
        assert found["objectives"][0][f"{name}_se"] == pytest.approx(error, abs=1e-12)
    assert [row["run"] for row in rows] == [folder for one in found["objectives"] for folder in one["runs"]]
    assert found["differing"].keys() >= {"objective", "num_samples", "estimator"}
    assert found["settings"]["hidden_sizes"] == "16"


def test_the_learning_rate_is_chosen_on_validation_images_for_each_objective(finished):
    found = compared(finished / "c")
    assert len(found["tuning"]) == 4
    for label in ("elbo K=1", "iwae K=3"):
        tried = [one for one in found["tuning"] if one["label"] == label]
        (chosen,) = [one for one in tried if one["chosen"]]
        assert chosen["log_likelihood"] == max(one["log_likelihood"] for one in tried)
        (objective,) = [one for one in found["objectives"] if one["label"] == label]
        assert objective["settings"]["learning_rate"] == pytest.approx(chosen["point"]["learning_rate"])
    # 143 validation images, and no test image was looked at for a run that was not chosen.
    runs = finished / "c" / "runs"
    assert len(list(runs.glob("*/evaluation_validation_*.json"))) == 8
    assert len(list(runs.glob("*/evaluation_test_60.json"))) == 4


def test_started_again_it_does_nothing_twice(scripts, finished, tmp_path):
    shutil.copytree(finished / "c", tmp_path / "c")
    (tmp_path / "c" / "report.html").unlink()
    before = {p: b for p, b in everything(tmp_path / "c" / "runs").items() if p.name not in (".lock",)}
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c", "--nofigures")
    assert (code, err) == (0, "")
    assert "epoch 1" not in out
    assert "runs as" not in out
    assert {p: b for p, b in everything(tmp_path / "c" / "runs").items() if p.name not in (".lock",)} == before
    again, once = compared(tmp_path / "c"), compared(finished / "c")
    assert again | {"objectives": None} == once | {"objectives": None}
    assert (tmp_path / "c" / "report.html").exists()


def test_pictures_that_cannot_be_drawn_or_written_are_lines_and_the_comparison_is_done(
    scripts, finished, tmp_path, monkeypatch
):
    shutil.copytree(finished / "c", tmp_path / "c")
    (tmp_path / "c" / "comparison.json").unlink()
    (tmp_path / "c" / "report.html").unlink()

    def failing(*args, **kwargs):
        raise MemoryError("no room")

    for name in ("rate_distortion", "side_by_side", "curves_of_objectives"):
        monkeypatch.setattr(figures, name, failing)
    shutil.rmtree(tmp_path / "c" / "figures")
    (tmp_path / "c" / "figures").write_text("no folder")
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c")
    assert (code, err) == (0, "")
    lost = [line.split()[3] for line in out.splitlines() if line.startswith("warning: the picture ")]
    assert lost[:5] == ["elbo_by_step", "elbo_by_second", "rate_distortion", "reconstructions", "samples"]
    assert lost[5:] == ["log_likelihoods", "kl_spectra"]  # these are drawn, and are in the report
    assert compared(tmp_path / "c") == compared(finished / "c")
    assert (tmp_path / "c" / "report.html").read_text().count("data:image/png") == 2


def test_of_more_seeds_only_the_new_ones_are_trained(scripts, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "files", lambda figure: {"png": figures.png(figure)})  # a PDF takes longer
    shutil.copytree(finished / "c", tmp_path / "c")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c" / "runs").glob("*/metrics.jsonl")}
    code, out, err = scripts.call(tmp_path, "compare", "--workdir=c", "--seeds=4")  # as many runs of a program
    assert (code, err) == (0, "")
    assert "8 runs as 2 programs" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found = compared(tmp_path / "c")
    assert found["seeds"] == [0, 1, 2, 3]
    (pair,) = found["pairs"]
    assert pair["p"] == pytest.approx(pair["p_holm"])  # of one pair
    assert 0 < pair["p"] <= 1
    assert (pair["low"] > 0) == pair["significant"]
    assert (tmp_path / "c" / "figures" / "differences.png").exists()
    for one, other in zip(found["objectives"], compared(finished / "c")["objectives"], strict=True):
        assert one["log_likelihood_by_seed"][:2] == other["log_likelihood_by_seed"]


@pytest.mark.soak
def test_killed_twice_and_started_again_it_reaches_the_same_comparison(scripts, finished, tmp_path):
    first = (*COMPARE, "--tune=learning_rate=1e-3,3e-3", "--workdir=c")
    for flags, when in ((first, "epoch 1/1 of"), (("--workdir=c",), "evaluating: ")):
        script = scripts.start(tmp_path, "compare", *flags)
        script.wait_for(when)
        script.send(signal.SIGKILL)
        assert script.result().code == -signal.SIGKILL
        assert not (tmp_path / "c" / "comparison.json").exists()
    code, _, err = scripts.call(tmp_path, "compare", "--workdir=c", "--nofigures")
    assert (code, err) == (0, "")
    assert without_seconds(compared(tmp_path / "c")) == without_seconds(compared(finished / "c"))


def test_runs_that_exist_are_grouped_by_what_differs_and_judged_alike(scripts, finished, tmp_path):
    once = compared(finished / "c")
    for one in once["objectives"]:
        for folder in one["runs"]:
            shutil.copytree(finished / folder, tmp_path / folder, ignore=shutil.ignore_patterns("evaluation_*.npz"))
    # Evaluations of before the values of each image were kept: k is theirs, not the usual 5000.
    flags = ("--num_examples=60", "--workdir=d", "--nofigures")
    code, _, err = scripts.call(tmp_path, "compare", "--runs=c/runs", *flags)
    assert (code, err) == (0, "")
    found = compared(tmp_path / "d")
    for one, other in zip(once["objectives"], found["objectives"], strict=True):
        assert other["label"].startswith(one["label"])
        assert [tmp_path / folder for folder in one["runs"]] == [Path(folder) for folder in other["runs"]]
        assert other["log_likelihood_by_seed"] == one["log_likelihood_by_seed"]
    for name in ("difference", "standard_error"):
        assert found["pairs"][0][name] == once["pairs"][0][name] is not None


def test_packed_runs_are_compared_as_their_folders_with_the_evaluations_that_are_in_them(scripts, finished, tmp_path):
    once = compared(finished / "c")
    for one in once["objectives"]:
        for folder in one["runs"]:
            packing.pack(finished / folder, tmp_path / f"{Path(folder).name.split('+lr')[0]}.pack")
    before = sorted(tmp_path.iterdir())
    packing.unpack(before[0])
    flags = ("--num_examples=60", "--workdir=d", "--nofigures")
    code, out, err = scripts.call(tmp_path, "compare", "--runs=*.pack,*.unpacked,*.pack", *flags)
    assert (code, err) == (0, "")
    found = compared(tmp_path / "d")
    for one, other in zip(once["objectives"], found["objectives"], strict=True):
        assert other["log_likelihood_by_seed"] == one["log_likelihood_by_seed"]
        assert all(f"{Path(folder).with_suffix('.pack')} is unpacked: {folder}" in out for folder in other["runs"])
    unpacked = [path.with_suffix(".unpacked") for path in before]
    assert sorted(tmp_path.iterdir()) == sorted([*before, *unpacked, tmp_path / "d"])


def test_a_run_that_diverges_is_left_out_and_said_so(scripts, tmp_path):
    objectives = "--objectives=elbo elbo:learning_rate=2e-3 elbo:learning_rate=3e-3 elbo:learning_rate=1e30"
    flags = ("--seeds=1", "--epochs=1", "--evaluation_samples=20", "--num_examples=60", "--nofigures", "--workdir=c")
    code, out, err = scripts.call(tmp_path, "compare", *SMALL, objectives, *flags)
    assert (code, err) == (0, "")
    assert "left out: elbo lr=1e+30 diverged (seed 0)" in out
    found = compared(tmp_path / "c")
    assert len(found["objectives"]) == 3
    assert any("diverged (seed 0)" in text for text in found["left_out"])
    assert "nothing tells a difference from chance" in out


@pytest.mark.parametrize(
    ("budget", "epochs"), [("steps", [10, 20, 10]), ("decoder_samples", [40, 41, 10]), ("seconds", [75, 31, 10])]
)
def test_a_budget_is_equal_for_all(budget, epochs):
    """25, 12 and 25 steps an epoch, at 0.1, 0.5 and 0.75 s; the dearest has the 10 epochs, no other a higher cost."""
    settings = [{"num_samples": 1}, {"num_samples": 1, "batch_size": 100}, {"num_samples": 2, "num_groups": 2}]
    configs = [config(epochs=10, **({"batch_size": 50} | one)) for one in settings]
    assert epochs_within(budget, configs, 1294, (0.1, 0.5, 0.75)) == epochs


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{}, {"objective": "iwae", "num_samples": 50}], ["elbo K=1", "iwae K=50"]),
        (
            [{"objective": "iwae", "num_samples": 5}, {"objective": "iwae", "num_samples": 50}],
            ["iwae K=5", "iwae K=50"],
        ),
        (
            [{"objective": "miwae", "num_samples": 8, "num_groups": 4}, {"objective": "iwae", "estimator": "dreg"}],
            ["miwae M=4 K=8 reparameterized", "iwae K=1 dreg"],
        ),
        ([{"learning_rate": 1e-3}, {"learning_rate": 3e-4}], ["elbo lr=0.001", "elbo lr=0.0003"]),
        ([{"objective": "renyi", "alpha": -2.0}, {}], ["renyi alpha=-2", "elbo"]),
        ([{"alpha": 1.0}, {"alpha": 2.0}], ["elbo alpha=1", "elbo alpha=2"]),
        ([{"learning_rate": 0.1}, {"learning_rate": 0.1 + 1e-9}], ["elbo lr=0.1", "elbo lr=0.100000001"]),
        ([{"hidden_sizes": (20, 10)}, {"hidden_sizes": (16,)}], ["elbo hidden_sizes=20-10", "elbo hidden_sizes=16"]),
        ([{"seed": 1}, {"seed": 2, "objective": "iwae"}], ["elbo", "iwae"]),
        (
            [{"likelihood": "normal", "scale": scale} for scale in (None, "optimal", 0.5)],
            ["elbo scale=learned", "elbo scale=optimal", "elbo scale=0.5"],
        ),
    ],
)
def test_a_label_names_every_value_that_differs_anywhere_and_means_something(settings, expected):
    assert variants.labels([config(**one) for one in settings]) == expected


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        ([], ["nothing to compare; write --objectives=elbo,iwae"]),
        (["--objectives=elbo"], ["elbo is one objective alone; a comparison needs two"]),
        (["--objectives=elbo iwea"], ["unknown objective 'iwea'; did you mean 'iwae'?"]),
        (["--objectives=elbo iwae:num_sample=5"], ["unknown training flag 'num_sample'; did you mean 'num_samples'?"]),
        (["--objectives=elbo iwae:num_samples=0"], ["iwae:num_samples=0: num_samples=0: must be a whole number at"]),
        (["--objectives=elbo iwae:5"], ["'5' is no setting; write iwae:name=value"]),
        (["--objectives=elbo elbo"], ["elbo is the same as elbo"]),
        (["--objectives=elbo iwae:alpha=0.1"], ["objective iwae:alpha=0.1: --alpha has no effect with"]),
        (["--objectives=elbo iwae:seed=1"], ["seed is the same for all that is compared; use --seeds"]),
        (["--objectives=elbo elbo:estimator=dreg"], ["the estimator dreg is not possible for the objective elbo"]),
        (["--objectives=elbo elbo:likelihood=normal:binarization=none"], ["elbo:likelihood=normal", "another"]),
        (["--objectives=elbo elbo:conditional=true"], ["elbo:conditional=true", "another conditioning on labels"]),
        (["--objectives=elbo,iwae", "--objective=elbo"], ["--objective has no effect here; use --objectives"]),
        (["--objectives=elbo,iwae", "--seed=1"], ["--seed has no effect here; use --seeds"]),
        (["--objectives=elbo,iwae", "--tune=learning_rate=-1"], ["learning_rate=-1: must be a finite float32"]),
        (["--objectives=elbo,iwae", "--tune=learning_rate"], ["write --tune=name=values"]),
        (["--objectives=elbo,iwae", "--tune=learning_rate=1e-3,3e-3", "--validation=0"], ["--tune chooses on valid"]),
        (["--objectives=elbo,iwae", "--budget=money"], ["unknown budget 'money'"]),
        (["--runs=nowhere"], ["--runs=nowhere holds no run"]),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(scripts, tmp_path, flags, fragments):
    message = scripts.refusal(tmp_path, "compare", *(SMALL if any("obj" in flag for flag in flags) else ()), *flags)
    assert all(fragment in message for fragment in fragments), message


@pytest.fixture
def two_runs(finished, tmp_path):
    """Copies of two runs of different objectives, `a` and `b`, not evaluated on the whole test split."""
    first, second = (one["runs"][0] for one in compared(finished / "c")["objectives"])
    for name, folder in (("a", first), ("b", second)):
        shutil.copytree(finished / folder, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "mnist"}, "another data set: digits and mnist"),
        ({"settings": {"likelihood": "normal"}}, "another likelihood: bernoulli and normal"),
        ({"settings": {"binarization": "threshold"}}, "another binarization in evaluation: none and threshold"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_both_names_and_the_reason(scripts, two_runs, change, reason):
    config = read_json(two_runs / "b" / CONFIG)
    for name, value in change.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    write_json(two_runs / "b" / CONFIG, config)
    message = scripts.refusal(two_runs, "compare", "--runs=a,b")
    assert message.endswith(f"{two_runs / 'a'} and {two_runs / 'b'} cannot be compared: {reason}"), message


@pytest.mark.parametrize(
    ("change", "flags", "reason"),
    [
        ({"num_samples": 7}, [], "cannot be compared: another samples per image (k): 20 and 7"),
        ({"seed": 3}, [], "cannot be compared: another evaluation seed: 0 and 3"),
        ({}, ["--evaluation_samples=30"], "was evaluated with num_samples 20, not --evaluation_samples=30"),
    ],
)
def test_evaluations_of_another_kind_are_refused(scripts, two_runs, change, flags, reason):
    path = two_runs / "b" / "evaluation_test_60.json"
    write_json(path, read_json(path) | change)
    message = scripts.refusal(two_runs, "compare", "--runs=a,b", "--num_examples=60", *flags)
    assert reason in message


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_an_evaluation_that_is_not_finite_leaves_its_objective_out_and_the_others_are_compared(
    scripts, two_runs, value
):
    """Of an objective of which one image has the likelihood 0 the mean is −inf, and null in the file."""
    shutil.copytree(two_runs / "a", two_runs / "bad")
    stored = read_json(two_runs / "bad" / CONFIG)
    stored["hyperparameters"]["learning_rate"] = 0.5
    write_json(two_runs / "bad" / CONFIG, stored)
    arrays = dict(np.load(two_runs / "bad" / "evaluation_test_60.npz"))
    arrays["log_likelihood"][7] = value
    np.savez(two_runs / "bad" / "evaluation_test_60.npz", **arrays)
    path = two_runs / "bad" / "evaluation_test_60.json"
    write_json(path, read_json(path) | {"log_likelihood": None, "elbo": None})
    flags = ("--num_examples=60", "--nofigures", "--workdir=c")
    code, out, err = scripts.call(two_runs, "compare", "--runs=a,b,bad", *flags)
    assert (code, err) == (0, "")
    assert f"lr=0.5: the log-likelihood of {two_runs / 'bad'} is not finite in 1 of 60 test images; it is out" in out
    assert "left out: " in out
    found = compared(two_runs / "c")
    assert [one["runs"] for one in found["objectives"]] in (
        [[str(two_runs / n)] for n in "ab"],
        [[str(two_runs / n)] for n in "ba"],
    )
    assert len(found["left_out"]) == 1
    code, out, err = scripts.call(two_runs, "compare", "--runs=a,bad", "--num_examples=60", "--workdir=d")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is only one objective (" in err
    assert "is not finite in 1 of 60 test images" in err


def test_the_runs_of_a_sweep_are_found_below_its_folder_and_by_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [tmp_path / "x" / "runs" / name for name in ("000", "001", "010")]
    for folder in (*runs, tmp_path / "y", tmp_path / "[z]"):
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text("{}")
    for text, found in (("x", runs), ("x/runs", runs), ("x/runs/00?", runs[:2]), ("x/runs/*", runs),
                        ("*", [tmp_path / "[z]", *runs, tmp_path / "y"]), ("[z]", [tmp_path / "[z]"])):  # fmt: skip
        assert comparisons.run_folders(Path(text), "runs") == found, text
    with pytest.raises(UsageError, match=r"--runs=w\* holds no run"):
        comparisons.run_folders(Path("w*"), "runs")


def test_runs_that_are_no_comparison_are_refused(scripts, two_runs):
    shutil.copytree(two_runs / "a", two_runs / "c")
    assert "are the same run" in scripts.refusal(two_runs, "compare", "--runs=a,b,c")
    assert "there is only one objective (" in scripts.refusal(two_runs, "compare", "--runs=a")
    shutil.copytree(two_runs / "b", two_runs / "d")
    write_json(two_runs / "d" / CONFIG, read_json(two_runs / "b" / CONFIG) | {"seed": 5})
    assert "no seed in common" in scripts.refusal(two_runs, "compare", "--runs=a,d")
    shutil.rmtree(two_runs / "b" / CHECKPOINTS)  # as of a run that was killed in its first epoch
    unfinished = "is not finished: it is at epoch 0 of 1; resume it with experiments.train --workdir="
    assert unfinished in scripts.refusal(two_runs, "compare", "--runs=a,b")
    assert "--epochs has no effect with --runs" in scripts.refusal(two_runs, "compare", "--runs=a,b", "--epochs=2")


def test_another_comparison_in_the_folder_is_refused(scripts, finished):
    message = scripts.refusal(finished, "compare", "--workdir=c", "--budget=seconds")
    assert "c holds another comparison: --budget is steps, not seconds" in message
    message = scripts.refusal(finished, "compare", "--workdir=c", "--epochs=2")
    assert "c holds another comparison: --epochs is 1, not 2" in message


def test_a_sweep_and_a_comparison_keep_out_of_each_others_folders(scripts, finished, tmp_path):
    message = scripts.refusal(finished, "sweep", "--workdir=c", "--sweep=seed=0:2")
    assert "c holds a comparison, which experiments.compare resumes" in message
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / SWEEP).write_text("{}")
    message = scripts.refusal(tmp_path, "compare", "--workdir=s", "--objectives=elbo,iwae")
    assert "s holds a sweep; compare its runs with --runs=s" in message
