"""experiments.reproduce end to end on a table of the digits: trains, judges, writes, resumes, grows, refuses."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from experiments import papers
from experiments.command.stopping import StopRequest
from experiments.papers.paper import NLL, PrintedNumber, PublishedCell, PublishedTable
from tests import script_calls
from tests.script_calls import everything
from tests.script_runs import scripts
from vae.report import reproduction
from vae.runs.config import read_config
from vae.runs.files import read_json, write_json
from vae.training import timing

__all__ = ["scripts"]

SMALL = {"hidden_sizes": (16,), "epochs": 8, "schedule": "stages", "stage_epochs": (2, 6), "stage_factors": (1, 0.1)}


def cell(nll, **settings):
    return PublishedCell(nll and PrintedNumber(*nll), "digits", SMALL | settings, 1294, 2345)


TINY = PublishedTable(
    "Someone (2000)",
    "A table",
    "Table 7",
    NLL,
    {
        "one": cell((20.5,)),
        "two": cell((19.5, 0.25, "Another (2001)"), learning_rate=3e-3),
        "same": cell((21.0,))._replace(runs_of="one"),
        "absent": cell(None, dataset="no_such_data"),
    },
    num_samples=30,
    differs=("all of it",),
)
ASKED = ("--table=tiny", "--cells=two,one,same", "--fraction=1/4", "--seeds=2", "--num_examples=60", "--workdir=r")


@pytest.fixture(scope="module")
def table():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(papers.TABLES, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scripts, table):
    """A folder with the finished reproduction `r`, which was stopped and resumed; tests copy it or only read."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "requested", lambda stop: True)
        code, out, _ = scripts.call(folder, "reproduce", *ASKED)
    assert code == 75
    assert "the same command with --workdir=r resumes it" in out
    assert not (folder / "r" / "reproduction.md").exists()
    code, out, err = scripts.call(folder, "reproduce", "--workdir=r", "--num_examples=60")
    assert (code, err) == (0, "")
    assert "trained: 2 of 8 epochs of 40 steps, in stages of 0.5, 1.5 epochs; the last one lasts until the end" in out
    assert "4 runs as one program" in out
    assert out.splitlines()[-1] == "r"
    assert reproduction.aligned(read_json(folder / "r" / "reproduction.json")) in out
    return folder


def test_a_row_is_the_papers_number_beside_the_mean_over_seeds(finished):
    found = read_json(finished / "r" / "reproduction.json")
    one, two, same = found["cells"]
    assert [row["cell"] for row in found["cells"]] == ["one", "two", "same"]
    for row, folder in ((one, "one"), (two, "two"), (same, "one")):
        folders = [finished / "r" / "runs" / f"{folder}-seed{seed}" for seed in (0, 1)]
        values = [-read_json(path / "evaluation_test_60.json")["log_likelihood"] for path in folders]
        assert row["ours_by_seed"] == values
        assert row["ours"] == pytest.approx(np.mean(values))
        assert row["ours_error"] == pytest.approx(abs(values[0] - values[1]) / 2)
        assert row["difference"] == pytest.approx(np.mean(values) - row["paper"])
        assert row["steps"] == 80
        assert row["seconds"] == pytest.approx(80 * row["seconds_per_step"])
    assert (one["paper"], two["paper"], same["paper"]) == (20.5, 19.5, 21.0)
    assert two["difference_error"] == pytest.approx(np.hypot(two["ours_error"], 0.25))
    assert found["fraction"] == "1/4"


def test_runs_are_those_of_the_protocol_at_the_fraction(finished):
    config = read_config(finished / "r" / "runs" / "two-seed1")
    assert (config.seed, config.epochs, config.hyperparameters.stage_steps) == (1, 2, (20, 60))
    assert (config.hyperparameters.learning_rate, config.hyperparameters.stage_factors) == (3e-3, (1, 0.1))


def test_every_page_says_the_fraction_the_evaluation_and_what_differs(finished):
    found = read_json(finished / "r" / "reproduction.json")
    for suffix, page in (("md", reproduction.markdown), ("tex", reproduction.tex), ("html", reproduction.page)):
        text = (finished / "r" / f"reproduction.{suffix}").read_text()
        assert text == page(found)
        assert "Someone (2000)" in text
        assert "1/4 of the paper" in text
        assert "60 test images, a random subset" in text
    text = reproduction.markdown(found)
    for words in ("all of it", "Another (2001)", "19.50 ± 0.25 (second-hand)"):
        assert words in text
    assert "2 of 2 pairs" in text or "1 of 2 pairs" in text or "0 of 2 pairs" in text  # `same` is `one`


def test_the_order_counts_pairs_of_different_runs():
    def row(of, paper, ours):
        return {"of": of, "paper": paper, "ours": ours}

    cells = [row("a", 3.0, 30.0), row("a", 3.5, 30.0), row("b", 2.0, 20.0), row("c", 1.0, 25.0), row("d", None, 1.0)]
    assert reproduction.order({"cells": cells}) == "4 of 5 pairs of cells are in the paper's order."
    assert reproduction.order({"cells": cells[:2]}) is None


def test_started_again_it_trains_and_judges_nothing_twice(finished, scripts, tmp_path):
    shutil.copytree(finished / "r", tmp_path / "r")
    before = everything(tmp_path / "r" / "runs")
    code, _, err = scripts.call(tmp_path, "reproduce", "--workdir=r", "--num_examples=60")
    assert (code, err) == (0, "")
    assert everything(tmp_path / "r" / "runs") == before


def test_more_seeds_leave_the_numbers_of_the_others_as_they_are(finished, scripts, tmp_path):
    shutil.copytree(finished / "r", tmp_path / "r")
    assert scripts.call(tmp_path, "reproduce", "--workdir=r", "--num_examples=60", "--seeds=3").code == 0
    before, grown = (read_json(folder / "r" / "reproduction.json") for folder in (finished, tmp_path))
    assert [row["ours_by_seed"][:2] for row in grown["cells"]] == [row["ours_by_seed"] for row in before["cells"]]
    assert [len(row["runs"]) for row in grown["cells"]] == [3, 3, 3]
    assert grown["command"] == before["command"]


def test_seeds_and_cells_may_grow_and_nothing_else_may_change(finished, table, tmp_path):
    shutil.copytree(finished / "r", tmp_path / "r")
    for flags, words in (
        (("--fraction=1/8",), "r holds another reproduction: --fraction is 1/4, not 1/8; choose another --workdir"),
        (("--table=burda2016", "--cells=mnist/1/vae/1"), "--table is tiny, not burda2016"),
        (("--seeds=1",), "--seeds is 2, not 1, and can only grow"),
    ):
        assert words in script_calls.refusal(tmp_path, "reproduce", "--workdir=r", *flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "which table? Write --table=NAME; --list shows them"),
        (("--table=burda2017",), "did you mean 'burda2016'?"),
        (("--table=tiny", "--cells=too"), "--cells: unknown cell 'too'; did you mean 'two'?"),
        (("--table=tiny",), "the cell absent cannot be trained: it needs the data set no_such_data"),
        *((("--table=tiny", f"--fraction={f}"), "must be a fraction above 0 and at most 1") for f in
          ("0", "2", "x", "1/0", "-1/2", "nan", "1e-3", "3/2", "1/20/3")),
        (("--list", "--seeds=3"), "--seeds has no effect with --list"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(table, tmp_path, flags, words):
    assert words in script_calls.refusal(tmp_path, "reproduce", *flags)


def test_a_folder_of_something_else_is_refused(table, tmp_path):
    (tmp_path / "s").mkdir()
    write_json(tmp_path / "s" / "sweep.json", {"runs": {}})
    assert "s holds no reproduction (sweep.json, but no reproduction.json)" in script_calls.refusal(
        tmp_path, "reproduce", "--table=tiny", "--cells=one", "--workdir=s"
    )
    write_json(tmp_path / "s" / "reproduction.json", {"asked": {"table": "tiny", "cells": ["one"], "seeds": 1}})
    assert "is damaged" in script_calls.refusal(tmp_path, "reproduce", "--workdir=s")


def test_list_shows_every_cell_at_once_and_measures_those_of_one_table(scripts, table, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "SECONDS_OF_ROUND", 0.01)
    code, out, _ = scripts.call(tmp_path, "reproduce", "--list")
    assert code == 0
    assert "  mnist/1/iwae/50: 84.78; mnist, 425,284 parameters, 9,774,400 steps\n" in out
    assert "  two: 19.50 ± 0.25 (second-hand); digits, 2,345 parameters, 320 steps\n" in out
    code, out, _ = scripts.call(tmp_path, "reproduce", "--list", "--table=tiny")
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.startswith("  two:")]
    assert "ms a step" in line
    assert "of evaluation" in line
    assert not list(Path(tmp_path).iterdir())


def test_a_fraction_scales_every_stage_and_rounds_epochs_up():
    values = TINY.cells["one"].values(Fraction(1, 3))
    assert values["stage_epochs"] == pytest.approx((2 / 3, 2))
    assert values["epochs"] == 3
    assert TINY.cells["one"].values()["stage_epochs"] == (2, 6)
