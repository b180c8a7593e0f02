"""Different values have different names, in a sentence and as a folder; a folder is known by what is in it."""

import dataclasses
import itertools
import os

import numpy as np
import pytest

from experiments.flags import points, variants
from experiments.flags.parsing import UsageError
from tests.run_samples import config, digits
from vae.runs import checkpoint, naming
from vae.runs.config import write_config
from vae.runs.files import RunError
from vae.runs.folder import CONFIG, METRICS
from vae.sweeps import comparing, folders, planning

NUMBERS = [
    -2.0,
    2.0,
    1e-05,
    1e05,
    1e5 + 1,
    0.1,
    0.1 + 1e-9,
    0.1000001,
    1 / 3,
    0.333333,
    1e30,
    -1e-30,
    0.0,
    1.0,
    12345678.0,
]
TEXTS = [
    "a b",
    "a_b",
    "a-b",
    "a+b",
    "a,b",
    "a/b",
    "A_b",
    "a%20b",
    "[x]",
    "é",
    "e\u0301",
    "..",
    "~",
    "a" * 300,
    "a" * 301,
    "",
]
LISTS = [[], ["20", "10"], ["2010"], ["200", "200"], ["1e-05", "0.5"], ["none1"]]


@pytest.mark.parametrize("values", [NUMBERS, TEXTS, LISTS], ids=["numbers", "texts", "lists"])
def test_different_values_have_different_texts_labels_and_folders(values):
    for make in (
        naming.text,
        lambda value: points.label({"init_from": value, "seed": 1}),
        lambda value: naming.folder_name("renyi", {"alpha": value, "seed": 1}).casefold(),
    ):
        assert len({make(value) for value in values}) == len(values)


def test_what_parts_the_words_of_a_folder_is_never_within_one():
    words = ["a", "b", "a+b=c", "a~b", "%2b", "b=1"]
    pairs = list(itertools.product(words, words))
    assert len({naming.folder_name("x", {one: other}) for one, other in pairs}) == len(pairs)
    assert naming.folder_name("renyi", {"alpha": -2.0, "seed": 0}) == "renyi+alpha=-2+seed=0"
    assert naming.folder_name("elbo", {"learning_rate": 1e-5}) == "elbo+learning_rate=1e-05"


@pytest.mark.parametrize("value", NUMBERS)
def test_the_text_of_a_number_is_that_number(value):
    assert float(naming.text(value)) == value


def test_a_folder_name_is_short_and_its_characters_survive_a_checkpoint(tmp_path):
    """tensorstore reads brackets as a pattern; all that a name may hold is written and read back."""
    name = "".join(sorted(naming.KEPT | {naming.BETWEEN, naming.ESCAPE, naming.CUT}))
    tree = {"a": np.arange(6.0).reshape(2, 3)}
    checkpoint.save(tmp_path / name, 1, tree)
    np.testing.assert_array_equal(checkpoint.restore(tmp_path / name, 1, tree)["a"], tree["a"])
    for value in TEXTS:
        made = naming.folder_name(value or "x", {"init_from": value, "seed": 2**31})
        assert len(os.fsencode(made)) <= 121
        assert set(made) <= set(name)
        assert made[0] not in ".-"


def plan(*settings):
    """A plan of one variant for each of `settings`, with nothing tuned."""
    configs = [config(**one) for one in settings]
    given = [{"objective": "elbo"} | one for one in settings]
    found = [comparing.Candidate(number, {}, one, {}) for number, one in enumerate(configs)]
    return comparing.ComparisonPlan(variants.labels(configs), given, found, [0.1] * len(found))


CLASHING = [  # one folder for both, in the code before
    [{"objective": "renyi", "alpha": -2.0}, {"objective": "renyi", "alpha": 2.0}],
    [{"learning_rate": 1e-05}, {"learning_rate": 1e05}],
    [{"learning_rate": 1e-3}, {"learning_rate": 1e-3 + 1e-10}],
    [{"hidden_sizes": (2, 0o10)}, {"hidden_sizes": (28,)}],
]


@pytest.mark.parametrize("settings", CLASHING, ids=str)
def test_every_run_of_a_comparison_has_a_folder_and_every_objective_a_label(settings, tmp_path):
    made = plan(*settings)
    places = comparing.place(made, tmp_path, digits(), 2, recorded=False)
    assert len({folder for by_seed in places for folder in by_seed.values()}) == 4
    assert len(set(made.labels)) == 2
    assert {one.config.seed for one in comparing.runs_of(made, places).values()} == {0, 1}
    assert len(comparing.runs_of(made, places)) == 4


def test_two_tuned_values_have_a_folder_each(tmp_path):
    one = plan({"objective": "renyi"}, {})
    tuned = [
        comparing.Candidate(0, {"alpha": alpha}, config(objective="renyi", alpha=alpha), {}) for alpha in (-2.0, 2.0)
    ]
    places = comparing.place(one._replace(candidates=tuned), tmp_path, digits(), 1, recorded=False)
    assert [folder.name for by_seed in places for folder in by_seed.values()] == [
        "renyi+alpha=-2+seed=0",
        "renyi+alpha=2+seed=0",
    ]


def test_two_runs_that_would_share_a_folder_are_refused(tmp_path):
    twice = plan({"learning_rate": 1e-3}, {"learning_rate": 1e-2})
    with pytest.raises(RunError, match=r"two runs would share the folder elbo\+seed=0: learning_rate is 0.001"):
        comparing.place(twice._replace(given=[{"objective": "elbo"}] * 2), tmp_path, digits(), 1, recorded=False)


def write(workdir, name, configuration):
    folder = workdir / planning.RUNS / name
    folder.mkdir(parents=True)
    write_config(folder, configuration)
    (folder / METRICS).touch()
    return folder


def test_a_comparison_of_before_finds_its_folders_by_what_is_in_them(tmp_path):
    """Its names were computed otherwise, and two runs may have been given one: the second one wrote it."""
    settings = CLASHING[0]
    old = write(tmp_path, "renyi-alpha-2-seed-0", config(**settings[1]))
    first, second = comparing.place(plan(*settings), tmp_path, digits(), 1, recorded=True)
    assert second == {0: old}
    assert first == {0: tmp_path / planning.RUNS / "renyi+alpha=-2+seed=0"}


def test_a_folder_is_not_taken_for_a_run_by_its_name(tmp_path):
    settings = CLASHING[0]
    write(tmp_path, "renyi+alpha=2+seed=0", config(objective="renyi", alpha=3.0))
    with pytest.raises(RunError, match=r"alpha=2\+seed=0 holds another run: alpha is 3.0, not 2.0; choose another"):
        comparing.place(plan(*settings), tmp_path, digits(), 1, recorded=True)


def load(config):
    return digits()


def test_runs_of_a_sweep_keep_their_names_while_it_grows_whatever_gave_them(monkeypatch):
    """Earlier code named the runs by numbers alone; an axis that is new is the value that they had without it."""

    def configured(values, base, load):
        return points.Asked(values, config(**values), {})

    monkeypatch.setattr(points, "configured", configured)
    stored = {"runs": {"000": {"seed": 0}, "run-002": {"seed": 1}}, "sweep": ["seed=0:2"]}
    asked = [{"latent_dim": 2, "seed": 0}, {"latent_dim": 2, "seed": 2}, {"latent_dim": 2, "seed": 1}]
    found = points.grown(points.configure(asked, None, None), stored, None, None)
    assert {name: one.values["seed"] for name, one in found.runs.items()} == {"000": 0, "run-002": 1, "run-003": 2}
    assert {one.values["latent_dim"] for one in found.runs.values()} == {2}
    assert [list(part) for part in found.of_parts()] == [["000", "run-002"], ["run-003"]]
    further = {"runs": {name: one.values for name, one in found.runs.items()}, "parts": found.parts, "sweep": []}
    again = points.grown(points.configure([*asked, {"latent_dim": 3, "seed": 0}], None, None), further, None, None)
    assert [list(part) for part in again.of_parts()] == [["000", "run-002"], ["run-003"], ["run-004"]]
    with pytest.raises(
        UsageError, match="has the run seed=1, which this command leaves out, and a sweep can only grow"
    ):
        points.grown(points.configure(asked[:2], None, None), stored, None, None)


WANTED = {"000": config(), "001": config(learning_rate=1e-2)}


def test_folders_that_are_what_is_asked_for_are_gone_on_with(tmp_path):
    folders.check(tmp_path, WANTED, load, recorded=False)
    for name, one in WANTED.items():
        write(tmp_path, name, one)
    folders.check(tmp_path, WANTED, load, recorded=False)
    (tmp_path / planning.RUNS / "other").mkdir()
    folders.check(tmp_path, WANTED, load, recorded=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"learning_rate": 1e-4},
            r"001 holds another run: learning_rate is 0.0001, not 0.01; choose another `workdir`",
        ),
        ({"epochs": 9}, r"001 holds another run: epochs is 9, not 3"),
        ({"seed": 4}, r"001 holds another run: .*seed is 4, not 0"),
    ],
)
def test_a_folder_of_another_sweep_is_refused_if_sweep_json_is_lost(tmp_path, change, message):
    write(tmp_path, "001", config(**{"learning_rate": 1e-2} | change))
    with pytest.raises(RunError, match=message):
        folders.check(tmp_path, WANTED, load, recorded=False)


def test_a_run_that_nobody_asks_for_or_that_lost_its_config_is_refused(tmp_path):
    folder = write(tmp_path, "002", config())
    folders.check(tmp_path, WANTED, load, recorded=True)
    with pytest.raises(RunError, match="002 holds a run that is not asked for here"):
        folders.check(tmp_path, WANTED, load, recorded=False)
    folder.rename(folder.with_name("001"))
    (folder.with_name("001") / CONFIG).unlink()
    with pytest.raises(RunError, match=r"001 holds a trained run but no config\.json"):
        folders.check(tmp_path, WANTED, load, recorded=True)


def test_a_run_of_a_sweep_may_have_been_trained_for_longer_since(tmp_path):
    write(tmp_path, "000", dataclasses.replace(WANTED["000"], epochs=9))
    folders.check(tmp_path, WANTED, load, recorded=True, may_be_longer=True)
