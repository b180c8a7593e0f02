"""experiments.soak: it runs, and what goes wrong is said to be wrong."""

import json
import random

import pytest

from experiments.soaking import damage, kills
from experiments.soaking.processes import Ended, Processes
from experiments.soaking.results import NotRight
from experiments.soaking.trials import TRAIN, Trials
from tests.script_runs import scripts
from vae.runs.folder import METRICS

__all__ = ["scripts"]


@pytest.mark.soak
def test_a_few_kills_and_flips_are_tried_and_told_in_a_table(scripts, tmp_path):
    code, out, err = scripts.start(tmp_path, "soak", "--minutes=0", "--kinds=train,flips", "--workdir=s").result(120)
    assert (code, err) == (0, "")
    told = json.loads((tmp_path / "s" / "soak.json").read_text())
    assert [kind["name"] for kind in told["kinds"]] == ["train", "flips"]
    for kind in told["kinds"]:
        assert kind["tried"] == kind["right"] >= 1
        assert any(line.startswith(f"| {kind['what']} ") and f"| {kind['tried']} " in line for line in out.splitlines())
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["soak.json"]


SHORT = TRAIN._replace(flags=(*TRAIN.flags, "--epochs=2"))


class Forgetful(Processes):
    """A resume that loses a row of metrics."""

    def run(self, cwd, command, **environment):
        ended = super().run(cwd, command, **environment)
        if cwd.name.isdecimal():  # the folder of a trial
            path = cwd / "x" / METRICS
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        return ended


@pytest.mark.soak
def test_a_row_that_a_resume_loses_is_not_right_and_its_folder_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "KILLS", 1)
    with Forgetful(tmp_path / "home") as processes:
        trials = Trials("train", tmp_path / "train", processes, random.Random(0), seconds=0)
        kills.killed(SHORT)(trials)
    assert trials.right == 0 < trials.tried
    (fault,) = trials.wrong
    assert fault.startswith(f"{tmp_path}/train/1: ")
    assert "values differ" in fault
    assert "row 24 test is absent" in fault
    assert (tmp_path / "train" / "1" / "x" / METRICS).exists()


def test_the_tables_of_a_sweep_are_results_and_what_is_printed_before_them_is_not(tmp_path):
    class Printing(Processes):
        def __init__(self, out):
            self._out = out

        def run(self, cwd, command, **environment):
            return Ended(0, self._out, "")

    def finished(name, seconds, score):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / "settings.csv").write_text(f"setting,elbo\na,{score}\n")
        processes = Printing(f"epoch 1/2, {seconds} s\n\nsetting  elbo\na  {score}\n")
        trials = Trials("grow", tmp_path, processes, random.Random(0), seconds=0)
        return trials.finished(kills.GROWN._replace(name=name), tmp_path)

    expected = finished("sweep", 1, -5.0)
    assert finished("sweep", 2, -5.0) == expected
    assert {name for name, value in finished("sweep", 1, -6.0).items() if value != expected[name]} == {
        "settings.csv",
        "table",
    }
    assert "table" not in finished("train", 1, -5.0)


LINES = {f"line {number}": line for number, line in enumerate(("a", "b"))}
RIGHT = [Ended(0, "a\nb", ""), Ended(1, "", "error: x is damaged\n"), Ended(0, "a", "warning: b is damaged\n")]
WRONG = [
    Ended(0, "a\nc", ""),
    Ended(1, "", "Traceback (most recent call last)\n"),
    Ended(1, "", "error: x is damaged\nand more\n"),
    Ended(1, "", ""),
    Ended(2, "", "error: x is damaged\n"),
    Ended(-11, "", ""),
]


@pytest.mark.parametrize("ended", RIGHT)
def test_one_line_or_the_same_values_are_right_after_damage(tmp_path, ended):
    damage.check(damage.LIST, tmp_path, ended, LINES)


@pytest.mark.parametrize("ended", WRONG)
def test_anything_else_is_wrong_after_damage(tmp_path, ended):
    with pytest.raises(NotRight):
        damage.check(damage.LIST, tmp_path, ended, LINES)
