"""What may be ranked against what: one rule for a sweep's last lines, its live line, its pictures and a search."""

import csv
import dataclasses
import itertools
import json
import math

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from experiments import sweep
from experiments.pictures import search_pictures, sweep_pictures
from tests.run_samples import config
from vae import figures
from vae.configuration import ConfigurationError
from vae.runs.config import write_config
from vae.runs.files import write_json
from vae.runs.folder import CHECKPOINTS, METRICS
from vae.sweeps import planning, ranking, results, space
from vae.sweeps.space import Axis, Range
from vae.sweeps.sweep_file import SWEEP

GREY = {"binarization": "none"}


def ranked(*changes):
    return ranking.rankings({str(i): config(**one) for i, one in enumerate(changes)})


@pytest.mark.parametrize(
    ("changes", "changing"),
    [
        ([{}, {"objective": "beta"}], ["objective"]),
        ([{"objective": "iwae", "num_samples": k} for k in (2, 50)], ["num_samples"]),
        ([{"objective": "miwae", "num_samples": 2, "num_groups": m} for m in (1, 3)], ["num_groups"]),
        ([{"objective": "beta", "beta": b} for b in (1.0, 4.0)], ["beta"]),
        ([{"objective": "renyi", "num_samples": 2, "alpha": a} for a in (-2.0, 2.0)], ["alpha"]),
        ([{"objective": "info", "mmd_kernel": name} for name in ("imq", "rbf")], ["mmd_kernel"]),
        ([{"objective": "free_bits", "latent_dim": d} for d in (2, 4)], ["latent_dim"]),
        ([{"objective": "dip_i", "batch_size": b} for b in (20, 50)], ["batch_size"]),
    ],
)
def test_what_changes_the_meaning_of_the_bound_is_ranked_by_the_elbo(changes, changing):
    (one,) = ranked(*changes)
    assert (one.names, one.metric, one.changing, one.title) == (["0", "1"], "elbo", changing, "ELBO")


@pytest.mark.parametrize(
    "changes",
    [
        [{"learning_rate": 1e-3}, {"learning_rate": 1e-2}, {"seed": 4}],
        [{"latent_dim": 2, "batch_size": 20}, {"latent_dim": 9}, {"posterior": "full"}, {"prior": "vamp"}],
        [{"binarization": "dynamic"}, {"binarization": "fixed"}],
        [{"beta": 1.0}, {"beta": 4.0}],  # which the ELBO does not read
    ],
)
def test_runs_of_one_bound_are_ranked_by_it_whatever_else_differs(changes):
    (one,) = ranked(*changes)
    assert (one.metric, one.changing, one.title) == ("bound", [], "elbo")


def test_runs_whose_weight_is_a_state_report_the_elbo_and_are_ranked_by_it_whatever_they_hold():
    (one,) = ranked(*({"objective": "geco", "geco_reconstruction": kappa} for kappa in (-20.0, -30.0)))
    assert (one.metric, one.changing, one.title) == ("bound", [], "geco")


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ([GREY, {"likelihood": "normal", **GREY}], ["elbo (likelihood=bernoulli)", "elbo (likelihood=normal)"]),
        ([{}, {"binarization": "threshold"}], ["elbo (binarization=fixed)", "elbo (binarization=threshold)"]),
        ([{"validation": 50}, {"validation": 100}], ["elbo (validation=50)", "elbo (validation=100)"]),
        ([{}, {"num_classes": 10}], ["elbo (num_classes=0)", "elbo (num_classes=10)"]),
        (
            [{}, {"objective": "iwae"}, {"num_classes": 10}],
            ["ELBO (num_classes=0)", "elbo (num_classes=10)"],
        ),
    ],
)
def test_bounds_of_other_images_or_another_likelihood_are_not_ranked_against_each_other(changes, titles):
    assert [one.title for one in ranked(*changes)] == titles


@pytest.mark.parametrize(("name", "values"), [("dataset", ["digits", "mnist"]), ("image_size", [None, 4])])
def test_bounds_of_other_data_or_another_size_of_image_are_not_ranked_against_each_other(name, values):
    configs = {str(value): dataclasses.replace(config(), **{name: value}) for value in values}
    assert [one.title for one in ranking.rankings(configs)] == [f"elbo ({name}={value})" for value in values]


def test_the_elbo_of_a_row_is_reconstruction_minus_kl_and_null_is_no_number():
    row = {"iwae": -80.0, "reconstruction": -70.0, "kl": 15.0}
    assert ranking.value("bound", "iwae", row) == -80
    assert ranking.value("elbo", "iwae", row) == -85
    assert math.isnan(ranking.value("elbo", "iwae", row | {"kl": None}))
    assert math.isnan(ranking.value("bound", "iwae", row | {"iwae": None}))


def test_a_search_takes_the_elbo_for_what_a_sweep_ranks_by_it():
    """The same configs, as the ends of the axes of a search."""
    changing = space.changes_of_bound({str(k): config(objective="iwae", num_samples=k) for k in (2, 50)})
    assert space.metric_of(changing, None) == "elbo"
    assert ranking.reason(changing) == "num_samples changes what the bound means"
    with pytest.raises(ConfigurationError, match="num_samples changes what the bound means; use `metric=elbo`"):
        space.metric_of(changing, "bound")
    same = space.changes_of_bound({str(i): config(learning_rate=i) for i in (1e-3, 1e-2)})
    assert space.metric_of(same, None) == "bound"
    assert space.metric_of(same, "elbo") == "elbo"


def test_the_programs_that_a_space_spans_are_counted():
    """By what the runs at its corners compile: an axis of numbers alone compiles nothing more."""
    axes = [
        Axis("activation", ["relu", "tanh"], ["relu", "tanh"]),
        Range("learning_rate", 1e-4, 1e-2, log=True),
        Range("latent_dim", 2, 50, step=4),
        Axis("adam_b1", ["0.8", "0.9"], [0.8, 0.9]),
    ]
    at_corners = [planning.program_of(config(**point)) for point in space.corners(axes)]
    assert space.programs(axes, at_corners) == {"activation": 2, "latent_dim": 13}


def test_the_reason_speaks_of_options_not_of_fields():
    assert ranking.reason(["warmup_steps", "beta"]) == "warmup_epochs and beta change what the bound means"


@pytest.fixture
def written(tmp_path):
    """A finished sweep of objective × seed, made by hand: the IWAE bounds are higher, the ELBOs lower."""
    runs, values = {}, {}
    for i, (objective, seed) in enumerate(itertools.product(("elbo", "iwae"), (0, 1))):
        name = f"{i:03}"
        runs[name] = config(objective=objective, num_samples=5, seed=seed)
        values[name] = {"objective": objective, "seed": seed}
        folder = tmp_path / planning.RUNS / name
        (folder / CHECKPOINTS / "75").mkdir(parents=True)
        write_config(folder, runs[name])
        elbo = -20.0 - 5 * (objective == "iwae") - seed
        bound = elbo + 9 * (objective == "iwae")
        rows = [
            {"step": 25 * e, "epoch": float(e), "split": split, objective: bound, "reconstruction": elbo + 3, "kl": 3.0}
            for e in (1, 2, 3)
            for split in ("train", "validation", "test")
        ]
        rows[-1] |= {objective: None if (objective, seed) == ("elbo", 1) else bound}
        (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(tmp_path / SWEEP, {"runs": values, "sweep": ["objective=elbo,iwae", "seed=0:2"]})
    return tmp_path, runs


def test_a_run_whose_only_checkpoint_was_cut_by_a_kill_is_not_finished(written):
    workdir, _ = written
    folder = workdir / planning.RUNS / "002" / CHECKPOINTS
    (folder / "75").rename(folder / ".partial-75")
    assert [row["status"] for row in results.rows(workdir)] == ["finished", "finished", "waiting", "finished"]


def test_the_best_setting_of_a_sweep_over_objectives_is_the_one_with_the_highest_mean_elbo(written, capsys):
    workdir, runs = written
    assert sweep.summarize(workdir, results.rows(workdir), runs) == workdir / planning.RUNS / "000"
    assert capsys.readouterr().out.splitlines() == [
        "objective changes what the bound means: runs are compared by the ELBO",
        "",
        "validation ELBO in nats per image, mean ± standard error over seeds:",
        "setting         validation ELBO  seeds",
        "objective=elbo  -20.50 ± 0.50    2",
        "objective=iwae  -25.50 ± 0.50    2",
        "best setting by validation ELBO: objective=elbo (-20.50 ± 0.50, 2 seeds)",
        "no setting is marked: with two seeds nothing tells a difference from chance; train 3 or more, as in "
        "--sweep=seed=0:3",
        "",
        f"settings: {workdir / 'settings.csv'}",
    ]
    with (workdir / "settings.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first.pop("validation_elbo"), float(first.pop("validation_elbo_se"))) == ("-20.5", pytest.approx(0.5))
    assert first == {"setting": "objective=elbo", "objective": "elbo", "seeds": "2", "runs": "000 001", "best": ""}
    assert results.not_tested(workdir, results.rows(workdir), runs) == ["001"]


def test_pictures_of_a_sweep_over_objectives_are_one_set_by_the_elbo_with_the_objective_as_an_axis(written):
    paths = sweep_pictures.draw(written[0])
    assert sorted(path.name for path in paths) == ["learning_curves.png", "validation_against_objective.png"]
    (one,) = results.ranked(results.rows(written[0]), written[1])
    assert one.scores == {"000": -20.0, "001": -21.0, "002": -25.0, "003": -26.0}


def test_a_picture_of_a_sweep_or_a_search_that_cannot_be_drawn_is_a_line(written, monkeypatch, capsys):
    def no_memory(*args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr(figures, "score_against_axis", no_memory)
    assert [path.stem for path in sweep_pictures.draw(written[0])] == ["learning_curves"]
    monkeypatch.setattr(figures, "score_by_trial", no_memory)
    rate = FloatDistribution(0, 1)
    trials = [create_trial(params={"beta": v}, distributions={"beta": rate}, value=v) for v in (0.25, 0.5)]
    paths = search_pictures.draw(written[0], trials, [Range("beta", 0.0, 1.0)], "validation ELBO")
    assert [path.stem for path in paths] == ["search_against_beta"]
    assert capsys.readouterr().out.splitlines() == [
        "warning: the picture validation_against_objective is not drawn: no room",
        "warning: the picture search is not drawn: no room",
    ]


def test_a_test_bound_that_is_null_is_an_empty_cell(written):
    with results.write(written[0]).open() as file:
        cells = [row["test_elbo"] for row in csv.DictReader(file)]
    assert cells == ["-20.0", "", "", ""]


def test_a_lost_row_of_metrics_changes_neither_the_order_of_columns_nor_the_last_values(written):
    workdir, _ = written
    path = workdir / planning.RUNS / "000" / METRICS
    whole, lines = results.write(workdir).read_bytes(), path.read_text().splitlines(keepends=True)
    for lost in range(len(lines) - 1):
        path.write_text("".join(lines[:lost] + lines[lost + 1 :]))
        assert results.write(workdir).read_bytes() == whole
