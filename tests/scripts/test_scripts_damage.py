"""Damage and failing disks, as a user of the scripts sees them: a line on stderr, and the work goes on or ends."""

import json
import resource

import pytest

from tests.run_samples import EVALUATED, assert_same_result, config
from tests.script_runs import scripts
from vae.runs import checkpoint
from vae.runs.config import write_config
from vae.runs.files import read_json, write_json
from vae.runs.folder import CHECKPOINTS, CONFIG, EVALUATION, METRICS
from vae.runs.manifest import MANIFEST

__all__ = ["scripts"]
FLAGS = ("--preset=digits", "--hidden_sizes=16", "--epochs=10", "--workdir=x")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, scripts):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, out, err = scripts.call(folder, "train", *FLAGS)
    assert (code, err) == (0, ""), out
    return folder / "x"


def test_a_disk_that_fails_ends_the_run_with_a_line_and_the_run_resumes_bit_identical(scripts, undisturbed, tmp_path):
    first = scripts.start(tmp_path, "train", *FLAGS)
    first.wait_for("epoch 2/")
    resource.prlimit(first._process.pid, resource.RLIMIT_FSIZE, (15_000, 15_000))  # less than the arrays take
    code, _, err = first.result()
    assert code == 1
    assert err.splitlines()[-1].startswith("error: checkpoint x/checkpoints/")
    assert "cannot be written (" in err
    assert err.count("\n") == 1
    code, _, err = scripts.call(tmp_path, "train", "--workdir=x")
    assert (code, err) == (0, "")
    assert_same_result(tmp_path / "x", undisturbed)
    assert len(read_json(tmp_path / "x" / CONFIG)["history"]) == 1


def test_a_damaged_newest_checkpoint_is_one_line_and_the_run_resumes_bit_identical(scripts, undisturbed, tmp_path):
    assert scripts.call(tmp_path, "train", *FLAGS, "--epochs=9").code == 0
    folder = tmp_path / "x" / CHECKPOINTS
    *_, other, newest = checkpoint.steps(folder)
    (folder / str(newest) / MANIFEST).write_text("")
    message = scripts.refusal(tmp_path, "evaluate", "--workdir=x")
    assert f"manifest.json is damaged; read another with --checkpoint={other}" in message
    assert f"one of [{', '.join(map(str, checkpoint.steps(folder)))}]" in scripts.refusal(
        tmp_path, "evaluate", "--workdir=x", "--checkpoint=7"
    )
    code, out, err = scripts.call(
        tmp_path, "evaluate", "--workdir=x", f"--checkpoint={other}", "--num_samples=5", "--num_examples=20"
    )
    assert (code, err) == (0, ""), out
    code, _, err = scripts.call(tmp_path, "train", "--workdir=x", "--epochs=10")
    assert code == 0
    assert err.startswith(
        f"warning: checkpoint x/checkpoints/{newest} cannot be trusted: its file manifest.json is dam"
    )
    assert err.count("\n") == 1
    path = tmp_path / "x" / METRICS
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if b'"test"' not in line or b": 10.0" in line]
    path.write_bytes(b"".join(lines))  # without the test row of 9 epochs
    assert_same_result(tmp_path / "x", undisturbed)


def test_runs_marks_a_log_likelihood_of_an_earlier_checkpoint(scripts, tmp_path):
    for name, step in (("now", 50), ("old", 25), ("none", None)):
        (tmp_path / name).mkdir()
        write_config(tmp_path / name, config())
        row = {"step": 50, "epoch": 2.0, "split": "validation", "elbo": -10.0}
        (tmp_path / name / METRICS).write_text(json.dumps(row) + "\n")
        if step is not None:
            write_json(tmp_path / name / EVALUATION, EVALUATED | {"log_likelihood": -9.5, "checkpoint": step})
    code, out, err = scripts.call(tmp_path, "runs", "--folder=.")
    assert code == 0
    ends = {line.split()[0]: line.split("  ")[-1].strip() for line in out.splitlines()[1:]}
    assert ends == {"now": "-9.50", "old": "-9.50 (step 25)", "none": "-"}
    assert err == "(step …): of an earlier checkpoint than would be evaluated now; evaluate again: old\n"
    found = [json.loads(line) for line in scripts.call(tmp_path, "runs", "--folder=.", "--json").out.splitlines()]
    assert [(row["log_likelihood_step"], row["step"]) for row in found] == [(None, 50), (50, 50), (25, 50)]
