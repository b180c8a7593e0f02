"""What the scripts answer: exit code 1 and one line that helps for a user's mistake, and nothing written; else results.

How they are stopped, killed and resumed is in test_scripts_stopped.py.
"""

import json
import math
import re
import shutil

import numpy as np
import pytest

from experiments.command import evaluation_table
from experiments.runs import SCORES
from tests import script_calls
from tests.marks import soaked
from tests.run_samples import config, rows, state
from tests.script_calls import everything
from tests.script_runs import scripts
from vae.evaluation import diagnostics
from vae.runs.config import read_config, write_config
from vae.runs.files import read_json
from vae.runs.folder import CONFIG, METRICS
from vae.runs.metrics import read_metrics
from vae.training import fit

__all__ = ["scripts"]

SMALL = ("--preset=digits", "--hidden_sizes=16")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scripts):
    """A folder with the finished run `x y` of two epochs; tests that change it copy it or only refuse."""
    folder = tmp_path_factory.mktemp("finished")
    code, out, err = scripts.call(folder, "train", *SMALL, "--epochs=2", "--workdir=x y")
    assert code == 0, err
    assert out.splitlines()[-1] == "x y"
    return folder


@pytest.mark.parametrize(
    ("flag", "values", "rule"),
    [
        (
            "learning_rate",
            ["nan", "inf", "-inf", "-1", "0", "1e300", "1e-60", "x", ""],
            "must be a finite float32 number above 0",
        ),
        ("adam_b1", ["nan", "1", "-0.1"], "must be a finite float32 number at least 0 and below 1"),
        ("ema_decay", ["nan", "1", "0.99999999999"], "must be a finite float32 number at least 0 and below 1"),
        ("max_gradient_norm", ["nan", "inf", "-1"], "must be a finite float32 number at least 0"),
        (
            "epochs",
            ["0", "-1", "1" + "0" * 400, "x", "1.5", "nan", ""],
            "must be a whole number at least 1 and at most 1000000",
        ),
        ("batch_size", ["0", "-5"], "must be a whole number at least 1"),
        ("num_samples", ["0"], "must be a whole number at least 1"),
        ("latent_dim", ["0"], "must be a whole number at least 1"),
        ("seed", ["-1", "2147483648"], "must be a whole number at least 0 and at most 2147483647"),
        ("validation", ["-1"], "must be a whole number at least 0"),
        (
            "hidden_sizes",
            ["0", "3,-1", "a", "1.5", "nan", "3,,4"],
            "must be positive whole numbers separated by commas",
        ),
        ("channels", ["", "0"], "must be positive whole numbers separated by commas"),
        ("stage_factors", ["nan", "inf", "0", "1,x", ""], "must be positive numbers separated by commas"),
        ("scale", ["nan", "inf", "0", "-1", "x", "1e-60"], "must be 'learned', 'optimal' or a positive number"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(scripts, tmp_path, flag, values, rule):
    for value in values:
        message = scripts.refusal(tmp_path, "train", *SMALL, f"--{flag}={value}")
        assert f"flag --{flag}=" in message
        assert rule in message


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (["--objective=elbow"], ["unknown objective 'elbow'; did you mean 'elbo'? One of: elbo, "]),
        (["--preset=digts"], ["unknown preset 'digts'; did you mean 'digits'? One of: tutorial, "]),
        (["--network=cnv"], ["unknown network 'cnv'; did you mean 'conv'? One of: mlp, conv"]),
        (["--binarization=treshold"], ["did you mean 'threshold'? One of: dynamic, "]),
        (
            ["--dataset=fashion-mnist"],
            ["unknown data set 'fashion-mnist'; did you mean 'fashion_mnist'? One of: mnist,"],
        ),
        (["--dataset=./nowhere.npz"], ["nowhere.npz does not exist"]),
        (["--learning_rat=1"], ["Unknown command line flag 'learning_rat'. Did you mean: learning_rate"]),
        (["digits"], ["unexpected argument 'digits'; flags are written --name=value"]),
    ],
)
def test_a_misspelt_name_is_answered_with_the_closest_and_with_all(scripts, tmp_path, flags, fragments):
    message = scripts.refusal(tmp_path, "train", *flags)
    assert all(fragment in message for fragment in fragments), message


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        (["--channels=8"], "--channels has no effect with --network=mlp; leave it out, or use --network=conv"),
        (
            ["--scale=0.1"],
            "--scale has no effect with --likelihood=bernoulli; leave it out, or use --likelihood=normal",
        ),
        (["--stage_epochs=1"], "--stage_epochs has no effect with --schedule=constant"),
        (["--beta=2"], "--beta has no effect with --objective=elbo; leave it out, or use --objective=beta"),
        (["--objective=beta", "--warmup_epochs=2"], "--warmup_epochs has no effect with --objective=beta"),
        (["--objective=info", "--tc_weight=2"], "--tc_weight has no effect with --objective=info"),
        (["--mmd_kernel=rbf"], "--mmd_kernel has no effect with --objective=elbo"),
        (["--objective=dip_i", "--estimator=dreg"], "the estimator dreg is not possible for the objective dip_i: "),
        (["--objective=free_bits", "--free_bits_group_size=3"], "does not divide the 2 latent dimensions"),
        (["--objective=info", "--info_alpha=1.5"], "must be a finite float32 number at most 1"),
        (["--stage_factors=1"], "--stage_factors has no effect with --schedule=constant"),
        (["--validation=0", "--keep_best=2"], "--keep_best has no effect with --validation=0"),
        (["--schedule=stages", "--stage_epochs=1,2"], "give one factor for each stage"),
        (["--batch_size=1295"], "cannot be filled from 1294 training images; use --batch_size=1294 or less"),
        (["--validation=1437"], "give 0 to 1436"),
        (["--latent_dim=1000000000000"], "GB of memory; use smaller --hidden_sizes, --channels or --latent_dim"),
        (["--init_from=nowhere"], "nowhere holds no run"),
        (["--manual_dir=nowhere"], "nowhere is not a folder"),
    ],
)
def test_flags_that_cannot_go_together_leave_no_run_folder(scripts, tmp_path, flags, fragment):
    assert fragment in scripts.refusal(tmp_path, "train", *SMALL, *flags)
    assert fragment in scripts.refusal(tmp_path, "train", *SMALL, *flags, "--workdir=new")


def test_resuming_with_other_settings_names_each_of_them_and_changes_nothing(scripts, finished):
    message = scripts.refusal(finished, "train", "--workdir=x y", "--learning_rate=0.01", "--seed=3")
    assert "x y holds a run with other settings: " in message
    assert "learning_rate is 0.001, not 0.01; seed is 0, not 3; choose another --workdir" in message


def test_resuming_with_fewer_epochs_than_were_trained_is_refused(scripts, finished):
    message = scripts.refusal(finished, "train", "--workdir=x y", "--epochs=1")
    assert "was trained for 2 epochs already, more than --epochs=1" in message


def test_a_finished_run_started_without_flags_takes_the_stored_ones_from_any_folder(scripts, finished, tmp_path):
    before = everything(finished / "x y" / "checkpoints"), rows(finished / "x y")
    code, out, err = scripts.call(tmp_path, "train", f"--workdir={finished / 'x y'}")
    assert (code, err) == (0, "")
    assert "epoch 1/" not in out
    assert f"resumes {finished / 'x y'} at epoch 2.00 of 2\n" in out
    assert (everything(finished / "x y" / "checkpoints"), rows(finished / "x y")) == before


def test_more_epochs_prolong_a_finished_run(scripts, tmp_path):
    for epochs in (1, 2):
        code, out, err = scripts.call(tmp_path, "train", *SMALL, f"--epochs={epochs}", "--workdir=x")
        assert code == 0, err
        assert f"epoch {epochs}/{epochs}: " in out
        assert read_config(tmp_path / "x").epochs == epochs
        assert int(state(tmp_path / "x").step) == 40 * epochs


def test_a_relative_init_from_and_data_file_are_found_when_the_run_is_resumed_elsewhere(scripts, finished, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images)
    flags = (*SMALL, "--dataset=own.npz", "--batch_size=10", "--epochs=1", f"--workdir={tmp_path / 'x'}")
    (tmp_path / "link").symlink_to(finished / "x y")
    code, _, err = scripts.call(tmp_path, "train", *flags, "--init_from=link")
    assert code == 0, err
    code, _, err = scripts.call(finished, "train", f"--workdir={tmp_path / 'x'}", "--epochs=2")
    assert code == 0, err


@pytest.mark.parametrize(
    ("content", "fragment"), [("", "is damaged: it is not valid JSON"), ("{}", "it lacks 'dataset'")]
)
@pytest.mark.parametrize("script", ["train", "evaluate", "generate"])
def test_a_damaged_config_is_refused(scripts, tmp_path, script, content, fragment):
    (tmp_path / CONFIG).write_text(content)
    assert fragment in scripts.refusal(tmp_path, script, "--workdir=.")


def test_checkpoints_whose_config_was_lost_are_not_trained_on(scripts, tmp_path):
    (tmp_path / "x" / "checkpoints" / "5").mkdir(parents=True)
    message = scripts.refusal(tmp_path, "train", *SMALL, "--workdir=x")
    assert "x holds checkpoints but no config.json" in message


@pytest.mark.parametrize("script", ["evaluate", "generate"])
def test_a_damaged_checkpoint_is_refused_by_the_name_of_its_file(scripts, finished, tmp_path, script):
    shutil.copytree(finished / "x y", tmp_path / "x")
    data = max((tmp_path / "x" / "checkpoints" / "80").rglob("*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    (tmp_path / "x" / ".lock").touch()
    code, _, err = scripts.call(tmp_path, script, "--workdir=x")
    assert code == 1
    assert err.count("\n") == 1
    assert f"{data.name} is damaged; read another with --checkpoint=40 (there are 40), or train the run again" in err


def test_a_file_is_no_run_folder(scripts, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file cannot be a run folder" in scripts.refusal(tmp_path, "train", *SMALL, "--workdir=file")
    assert "file holds no run" in scripts.refusal(tmp_path, "evaluate", "--workdir=file")


@pytest.mark.parametrize("script", ["evaluate", "generate"])
def test_a_folder_without_a_run_cannot_be_evaluated(scripts, tmp_path, script):
    message = scripts.refusal(tmp_path, script, "--workdir=nowhere")
    assert "--workdir=nowhere holds no run (no config.json); train one with experiments.train" in message
    assert "which run? Pass --workdir=FOLDER" in scripts.refusal(tmp_path, script)


@pytest.mark.parametrize(
    ("script", "flags", "fragment"),
    [
        ("evaluate", ["--checkpoint=bst"], "has no checkpoint 'bst'; use last, best or one of [40, 80]"),
        ("evaluate", ["--num_examples=0"], "must be a whole number at least 1"),
        ("evaluate", ["--num_samples=0"], "must be a whole number at least 1"),
        ("evaluate", ["--seed=99999999999999999999"], "at most 2147483647"),
        ("evaluate", ["--also=ais,bdcm"], "unknown also 'bdcm'; did you mean 'bdmc'? One of: aggregate, sumo, ais, "),
        (
            "evaluate",
            ["--ais_chains=4"],
            "--ais_chains has no effect with no --also; leave it out, or use --also=",
        ),
        ("evaluate", ["--also=aggregate", "--also_examples=4"], "--also_examples has no effect with --also=aggregate"),
        (
            "evaluate",
            ["--also=amortization", "--ais_temperatures=4"],
            "--ais_temperatures has no effect with",
        ),
        ("evaluate", ["--also=probe", "--split=train"], "--also=probe: it learns from training images and must be"),
        ("evaluate", ["--also=ais", "--ais_temperatures=0"], "must be a whole number at least 1"),
        ("evaluate", ["--split=tset"], "unknown split 'tset'; did you mean 'test'?"),
        ("generate", ["--indices=0,360"], "--indices: there is no test image 360; the 360 images count from 0"),
        ("generate", ["--indices="], "must be whole numbers from 0, separated by commas"),
        ("generate", ["--indices=-1"], "must be whole numbers from 0, separated by commas"),
        ("generate", ["--morph=1"], "must be 2 whole numbers from 0, separated by commas"),
        ("generate", ["--morph=1,400"], "--morph: there is no test image 400"),
        ("generate", ["--path=sferical"], "unknown path 'sferical'; did you mean 'spherical'?"),
        ("generate", ["--num_steps=1"], "must be a whole number at least 2 and at most 200"),
    ],
)
def test_a_trained_run_is_not_misused(scripts, finished, script, flags, fragment):
    assert fragment in scripts.refusal(finished, script, "--workdir=x y", *flags)


def test_evaluate_writes_what_it_prints(scripts, finished):
    code, out, err = scripts.call(finished, "evaluate", "--workdir=x y", "--num_samples=10", "--num_examples=20")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "x y/evaluation_test_20.json"
    assert out.startswith("evaluating 20 images of the test split with 10 samples each; fewer with --num_examples or ")
    values = read_json(finished / "x y" / "evaluation_test_20.json")
    assert (values["num_examples"], values["num_samples"], values["checkpoint"]) == (20, 10, 80)
    assert f"{values['elbo']:,.2f}" in out
    assert len(values["kl_per_dimension"]) == 2
    assert values["elbo"] == pytest.approx(values["reconstruction"] - values["kl"])


def test_evaluate_adds_and_prints_what_also_asks_for(scripts, finished):
    flags = ("--num_samples=10", "--num_examples=30", "--also_examples=5", "--ais_temperatures=20", "--ais_chains=3")
    code, out, err = scripts.call(
        finished, "evaluate", "--workdir=x y", "--also=aggregate,ais,bdmc,amortization", *flags
    )
    assert (code, err) == (0, "")
    values = read_json(finished / "x y" / "evaluation_test_30.json")
    parts, gaps = values["aggregate"], values["amortization"]
    assert (parts["num_examples"], gaps["num_examples"], values["ais"]["num_examples"]) == (30, 5, 5)
    total = parts["mutual_information"] + parts["total_correlation"] + parts["dimension_wise_kl"]
    assert total == pytest.approx(parts["kl"])
    assert parts["mutual_information"] <= parts["log_num_examples"] + 1e-4
    assert gaps["inference_gap"] == pytest.approx(gaps["amortization_gap"] + gaps["approximation_gap"])
    assert gaps["family"] == "diagonal"
    assert list(values["bdmc"]["by_num_temperatures"]) == ["1", "2", "20"]
    assert (finished / "x y" / "figures" / "bdmc.png").stat().st_size
    for number in (parts["total_correlation"], values["ais"]["log_likelihood"], gaps["amortization_gap"]):
        assert (f"{number:,.2f}" if abs(number) >= 1 else f"{number:.4g}") in out


def test_what_also_can_ask_for_is_what_the_library_computes():
    assert list(evaluation_table.ALSO) == list(diagnostics.DIAGNOSTICS)


def test_more_examples_than_there_are_means_all(scripts, finished):
    code, _, err = scripts.call(finished, "evaluate", "--workdir=x y", "--num_samples=1", "--num_examples=9999")
    assert (code, err) == (0, "")
    assert read_json(finished / "x y" / "evaluation_test_360.json")["num_examples"] == 360


def test_generate_names_each_picture_that_it_wrote(scripts, finished):
    code, out, err = scripts.call(finished, "generate", "--workdir=x y", "--num_images=4", "--embeddings=test")
    assert (code, err) == (0, "")
    written = [finished / line for line in out.splitlines()]
    assert all(path.stat().st_size for path in written)
    assert {"samples.png", "reconstructions.png", "morph_0_1.gif", "embeddings_test.npz"} <= {p.name for p in written}
    before = (finished / "x y" / "figures" / "reconstructions.png").read_bytes()
    code, out, err = script_calls.call(finished, "generate", "--workdir=x y", "--num_images=4", "--indices=3,5")
    assert (code, err) == (0, "")
    assert {"x y/figures/reconstructions_3_5.png", "x y/figures/traversals_3_5.png"} <= set(out.splitlines())
    assert (finished / "x y" / "figures" / "reconstructions.png").read_bytes() == before
    with np.load(finished / "x y" / "embeddings_test.npz") as arrays:
        assert arrays["mean"].shape == arrays["log_scale"].shape == (360, 2)


def test_a_packed_run_is_evaluated_beside_itself_and_listed_and_never_changed(scripts, finished, tmp_path):
    code, out, err = scripts.call(finished, "runs", "--pack=x y", f"--output={tmp_path / 'a.pack'}")
    assert (code, err) == (0, "")
    content = (tmp_path / "a.pack").read_bytes()
    size = (
        f"packed: checkpoint, config.json, .*metrics.jsonl; {len(content):,} bytes, sha256 {content[-64:].decode()}\n"
    )
    assert re.match(size, out)
    asked = ("--num_samples=10", "--num_examples=20")
    code, out, err = scripts.call(tmp_path, "evaluate", "--workdir=a.pack", *asked)
    assert (code, err) == (0, "")
    assert out.startswith("a.pack is unpacked: a.unpacked\n")
    assert out.endswith("a.unpacked/evaluation_test_20.json\n")
    scripts.call(finished, "evaluate", "--workdir=x y", *asked)
    written = [read_json(folder / "evaluation_test_20.json") for folder in (finished / "x y", tmp_path / "a.unpacked")]
    assert written[0]["log_likelihood"] == written[1]["log_likelihood"]
    _, one, _ = scripts.call(tmp_path, "runs", "--folder=a.pack", "--json")
    _, other, _ = scripts.call(tmp_path, "runs", "--folder=.", "--json")
    assert json.loads(one) | {"run": "a.unpacked"} == json.loads(other)
    assert scripts.call(tmp_path, "runs", "--unpack=a.pack", "--output=b") == (0, "b\n", "")
    assert (tmp_path / "a.pack").read_bytes() == content
    for command, fragment in (
        (("train", "--workdir=a.pack"), "a.pack cannot be a run folder: it is a packed run, which is only read"),
        (("runs", "--unpack=b"), "--unpack=b is no packed run (a file NAME.pack); make one with --pack=RUN"),
        (("runs", "--unpack=a.pack", "--output=."), "into ., which holds something else, or was trained since"),
        (("runs", "--pack=b", "--unpack=a.pack"), "--pack and --unpack are two commands"),
        (("runs", "--pack=b", "--sort=epoch"), "--sort has no effect with --pack; leave it out"),
        (("runs", "--checkpoint=best"), "--checkpoint has no effect without --pack; leave it out"),
        (("runs", "--unpack=a.pack", "--checkpoint=7"), "--checkpoint has no effect with --unpack; leave it out"),
    ):
        assert fragment in scripts.refusal(tmp_path, *command)
    (tmp_path / "a.pack").write_bytes(content[:-1])
    for script in ("evaluate", "generate", "gradients"):
        assert "a.pack cannot be used as a packed run: it was cut or changed" in scripts.refusal(
            tmp_path, script, "--workdir=a.pack"
        )


def test_training_ends_with_pictures_in_files_and_in_tensorboard(scripts, tmp_path):
    code, out, err = scripts.call(tmp_path, "train", *SMALL, "--epochs=1", "--workdir=x", "--figures")
    assert (code, err) == (0, "")
    drawn = [tmp_path / line.removeprefix("picture: ") for line in out.splitlines() if line.startswith("picture: ")]
    assert {"learning_curves", "samples", "reconstructions", "manifold", "latent_space"} <= {p.stem for p in drawn}
    assert all(path.stat().st_size for path in drawn)
    events = b"".join(path.read_bytes() for path in (tmp_path / "x" / "tensorboard").iterdir())
    assert b"reconstructions" in events


TERMS = {  # the flags of an objective, and what it writes beside the bound
    "warmup": (["--warmup_epochs=0.5", "--warmup_shape=cyclical"], []),
    "capacity": (["--capacity_epochs=1"], ["capacity_gap"]),
    "beta_tcvae": (["--tc_weight=2"], ["mutual_information", "total_correlation", "dimension_wise_kl"]),
    "factor": (["--discriminator_sizes=8"], ["total_correlation"]),
}


# The library trains all of them, and writes what they say.
@pytest.mark.parametrize("name", soaked(TERMS, "warmup", "capacity", "beta_tcvae"))
def test_a_regularised_objective_trains_and_writes_its_terms(scripts, tmp_path, name):
    flags, terms = TERMS[name]
    code, _, err = scripts.call(tmp_path, "train", *SMALL, f"--objective={name}", *flags, "--epochs=1", "--workdir=x")
    assert (code, err) == (0, "")
    rows = read_metrics(tmp_path / "x")
    assert [row["split"] for row in rows] == ["train", "validation", "test"]
    assert all(math.isfinite(row[value]) for row in rows for value in (name, "reconstruction", "kl", *terms))


@pytest.mark.parametrize(
    ("name", "field", "steps"), [("warmup", "warmup_steps", 20), ("capacity", "capacity_steps", 40)]
)
def test_epochs_of_a_schedule_are_stored_as_steps(scripts, tmp_path, monkeypatch, name, field, steps):
    monkeypatch.setattr(fit, "fit", lambda *args, **kwargs: fit.Outcome(False, 0.0, {}))
    flags = (f"--objective={name}", *TERMS[name][0], "--workdir=x")
    assert scripts.call(tmp_path, "train", *SMALL, *flags).code == 75
    assert getattr(read_config(tmp_path / "x").hyperparameters, field) == steps


def test_runs_of_an_empty_folder_are_none(scripts, tmp_path):
    assert scripts.call(tmp_path, "runs", "--folder=.") == (0, "", "no runs under .\n")
    assert scripts.call(tmp_path, "runs", "--folder=.", "--json") == (0, "", "no runs under .\n")
    assert "--folder=nowhere is not a folder" in scripts.refusal(tmp_path, "runs", "--folder=nowhere")


@pytest.fixture
def three_runs(tmp_path):
    for name, value, learning_rate in (("a", -30.0, 1e-3), ("b", -10.0, 1e-2), ("c/d", None, 1e-3)):
        workdir = tmp_path / name
        workdir.mkdir(parents=True)
        write_config(workdir, config(learning_rate=learning_rate))
        if value is not None:
            row = {"step": 25, "epoch": 1.0, "split": "validation", "elbo": value}
            (workdir / METRICS).write_text(json.dumps(row) + "\n")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / CONFIG).write_text("{")
    return tmp_path


def test_runs_lists_what_distinguishes_them_and_leaves_out_what_is_damaged(scripts, three_runs):
    code, out, err = scripts.call(three_runs, "runs", "--folder=.")
    assert code == 0
    table = [line.split() for line in out.splitlines()]
    assert table[0] == ["run", "objective", "learning_rate", "dataset", *SCORES]
    assert [line[0] for line in table[1:]] == ["a", "b", "c/d"]
    assert table[2][1:] == ["elbo", "0.01", "digits", "1.00", "-10.00", "-", "-"]
    assert err.startswith("left out: bad/config.json is damaged: ")
    assert err.count("\n") == 1


def test_runs_shows_how_many_validation_images_were_asked_for_beside_the_score(scripts, tmp_path):
    for name, number in (("a", 0), ("b", 50)):
        (tmp_path / name).mkdir()
        write_config(tmp_path / name, config(validation=number))
    _, out, _ = scripts.call(tmp_path, "runs", "--folder=.")
    table = [line.split() for line in out.splitlines()]
    column = table[0].index("num_validation")
    assert [line[column] for line in table[1:]] == ["0", "50"]


def test_runs_are_sorted_by_a_score_from_high_to_low_with_unknown_ones_last(scripts, three_runs):
    code, out, _ = scripts.call(three_runs, "runs", "--folder=.", "--sort=validation", "--json")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["run"] for row in found] == ["b", "a", "c/d"]
    assert [row["validation"] for row in found] == [-10.0, -30.0, None]
    assert found[0]["settings"]["learning_rate"] == 0.01


def test_runs_of_several_bounds_are_sorted_by_the_elbo_and_those_of_other_images_apart(scripts, tmp_path):
    """By vae/sweeps/ranking.py: the bound of b is the highest, its ELBO is not; d is a density of grey images."""
    for name, changes, bound, kl in (
        ("a", {}, -30.0, 5.0),
        ("b", {"objective": "iwae", "num_samples": 5}, -10.0, 50.0),
        ("c", {"learning_rate": 1.0000001e-3}, -20.0, 5.0),
        ("d", {"likelihood": "normal", "binarization": "none"}, 40.0, 5.0),
    ):
        (tmp_path / name).mkdir()
        write_config(tmp_path / name, config(**changes))
        row = {"step": 25, "epoch": 1.0, "split": "validation", changes.get("objective", "elbo"): bound}
        row |= {"kl": kl, "reconstruction": -25.0 if name == "b" else bound + kl}
        (tmp_path / name / METRICS).write_text(json.dumps(row) + "\n")
    code, out, err = scripts.call(tmp_path, "runs", "--folder=.", "--sort=validation")
    assert code == 0
    table = [line.split() for line in out.splitlines()]
    assert [line[0] for line in table[1:]] == ["c", "a", "b", "d"]
    column = table[0].index("learning_rate")
    assert [line[column] for line in table[1:]] == ["0.0010000001", "0.001", "0.001", "0.001"]
    assert [line[table[0].index("validation_elbo")] for line in table[1:]] == ["-20.00", "-30.00", "-75.00", "40.00"]
    assert err.splitlines() == [
        "runs of 2 kinds do not compare (ELBO (binarization=fixed, likelihood=bernoulli); "
        "elbo (binarization=none, likelihood=normal))",
        "objective and num_samples change what the bound means: sorted by the ELBO",
    ]
