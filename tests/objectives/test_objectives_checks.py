"""checks.py and special_cases.py: what a new run is refused, what an old one is not, and what is said of one."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.command import notes
from tests.marks import soaked
from tests.objectives.test_objectives import objectives_params, settings_for, small_model
from tests.run_samples import config, digits, state, train
from vae import objectives
from vae.api import load_run
from vae.datasets import Split
from vae.models import model as models
from vae.objectives import BOUNDS, OBJECTIVES, ObjectiveError
from vae.runs.files import read_json, write_json
from vae.runs.folder import CONFIG
from vae.settings import Hyperparameters, Settings
from vae.training import fit, start

SMALL = Settings((3, 3, 1), hidden_sizes=(8,), latent_dim=4, batch_size=10)


def refusal(splits=None, **changes) -> str:
    with pytest.raises(ObjectiveError) as caught:
        objectives.check(dataclasses.replace(SMALL, **changes), splits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


OF_A_BATCH = [name for name, row in OBJECTIVES.items() if row.least_batch > 1]


@pytest.mark.parametrize("name", OF_A_BATCH)
def test_a_batch_or_a_validated_split_of_one_image_is_refused_where_images_are_compared(name):
    assert "batch_size is 1; it needs a batch_size of 2 or more" in refusal(objective=name, batch_size=1)
    assert "the validation split has 1 image; it needs 2 or more" in refusal({"validation": 1}, objective=name)
    assert "the test split has 1 image; " in refusal({"validation": 9, "test": 1}, objective=name)
    objectives.check(dataclasses.replace(SMALL, objective=name, batch_size=2), {"validation": 2, "test": 2})


# A bound of log-weights compares no images: test_bounds.py has each of them.
@pytest.mark.parametrize("name", soaked(OBJECTIVES, *(BOUNDS.keys() - {"iwae"})))
def test_the_least_batch_is_the_first_in_which_an_objective_differs_from_its_terms_of_single_images(name):
    """Batches of one image: where one is allowed, the bound of a batch is the mean of the bounds of its images."""
    if name in OF_A_BATCH or name == "free_bits":  # max(λ, mean KL) compares with one number; of one image it is that
        return
    model, batch, params = small_model()
    settings = settings_for(name, num_samples=4, image_shape=(3, 3, 1))
    objective = objectives.build(settings)
    params = objectives_params(objective, model, params)

    @jax.jit
    def finite(params):
        one = batch._replace(x=batch.x[:1])

        def surrogate(params):
            value, bound, _ = objective.apply(jax.random.key(0), params, model, one, Hyperparameters(), 0)
            return value, bound

        gradient, bound = jax.grad(surrogate, has_aux=True)(params)
        return bound, gradient["encoder"]

    bound, encoder = finite(params)
    assert np.isfinite(bound).all()
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(encoder))


@pytest.mark.parametrize("num_groups", [1])
def test_wake_sleep_with_one_sample_is_refused(num_groups):
    assert "it needs num_samples of 2 or more" in refusal(objective="rws", num_groups=num_groups)
    assert "it needs num_samples of 2 or more" in refusal(objective="rws", rws_phase="both")
    for allowed in ({"num_samples": 2}, {"rws_phase": "sleep_q"}):
        objectives.check(dataclasses.replace(SMALL, objective="rws", **allowed))


@pytest.mark.parametrize(
    "changes",
    [{"posterior": "iaf"}, {"prior": "mixture"}, {"prior": "vamp"}, {"upper_latent_dim": 2}],
    ids=str,
)
@pytest.mark.parametrize("capacity_of", ["example", "batch"])
def test_a_capacity_without_a_closed_form_of_the_kl_is_refused(changes, capacity_of):
    settings = {"objective": "capacity", "capacity_of": capacity_of, "prior_components": 3, **changes}
    assert "capacity needs KL(q ‖ p) in closed form" in refusal(**settings)
    for posterior in ("diagonal", "full"):
        objectives.check(dataclasses.replace(SMALL, objective="capacity", posterior=posterior))


OF_OLD_RUNS = [
    {"objective": "rws", "binarization": "dynamic"},
    {"objective": "capacity", "prior": "mixture", "prior_components": 3, "capacity_weight": 0.1},
    {"objective": "dip_i", "batch_size": 1},
]


@pytest.mark.parametrize("changes", OF_OLD_RUNS, ids=lambda changes: changes["objective"])
def test_what_a_new_run_is_refused_the_step_of_an_old_one_is_not(changes):
    settings = config(**changes).settings
    with pytest.raises(ObjectiveError):
        objectives.check(settings)
    model, objective = models.build(settings), objectives.build(settings)

    def bound(key):
        batch = models.Batch(jnp.zeros((settings.batch_size, *settings.image_shape)))
        params = model.init(jax.random.key(0), batch)
        return objective.apply(key, params, model, batch, Hyperparameters(), 0)[1]

    assert jax.eval_shape(bound, jax.random.key(1)).shape == (settings.batch_size,)


@pytest.mark.parametrize(
    "changes",
    # Only an objective's own checks differ, which the test above has.
    [OF_OLD_RUNS[0], *(pytest.param(changes, marks=pytest.mark.soak) for changes in OF_OLD_RUNS[1:])],
    ids=lambda changes: changes["objective"],
)
def test_what_a_new_run_is_refused_an_old_one_still_loads_and_goes_on_with(tmp_path, monkeypatch, changes):
    """The old run is made without the checks, as the code before them did."""
    data = digits()
    few = data._replace(train=Split(data.train.images[:50], data.train.labels[:50]))
    monkeypatch.setattr("tests.run_samples.digits", lambda validation=None: few)
    with pytest.raises(ObjectiveError):
        train(tmp_path / "new", config(epochs=1, **changes))
    with monkeypatch.context() as before:
        before.setattr(objectives, "check", lambda *args: None)
        train(tmp_path / "old", config(epochs=1, **changes))
    first = int(state(tmp_path / "old").step)
    assert len(load_run(tmp_path / "old").params) == 3
    train(tmp_path / "old", config(epochs=2, **changes))
    assert int(state(tmp_path / "old").step) == 2 * first
    # Nor are the runs of a sweep or a comparison that has begun.
    start.check(None, config(**changes), few, jax.devices()[:1], begun=True)


def test_an_objective_that_a_file_names_and_nobody_knows_is_refused_with_those_that_are_known(tmp_path):
    settings = dataclasses.replace(SMALL, objective="elbow")
    with pytest.raises(ObjectiveError) as caught:
        objectives.build(settings)
    assert str(caught.value) == f"there is no objective 'elbow'; the objectives are {', '.join(OBJECTIVES)}"
    assert objectives.remarks(settings, Hyperparameters()) == []
    train(tmp_path, config(), should_stop=lambda: True)
    path = tmp_path / CONFIG
    stored = read_json(path)
    write_json(path, stored | {"settings": stored["settings"] | {"objective": "elbow"}})
    with pytest.raises(ObjectiveError, match="there is no objective 'elbow'"):
        load_run(tmp_path)


def test_a_held_out_split_of_one_image_is_refused_before_anything_is_written(tmp_path):
    one = digits()._replace(test=Split(digits().test.images[:1], digits().test.labels[:1]))
    with pytest.raises(ObjectiveError, match="the test split has 1 image"):
        fit.fit(tmp_path / "new", config(objective="info"), one)
    assert not (tmp_path / "new").exists()


# Remarks


@cache
def value_and_gradient(settings):
    """As a function of the hyperparameters."""
    model, batch, params = small_model()
    objective = objectives.build(settings)
    params = objectives_params(objective, model, params)

    @jax.jit
    def found(params, numbers):
        def surrogate(params):
            value, bound, _ = objective.apply(jax.random.key(0), params, model, batch, numbers, 3)
            return value, bound

        gradient, bound = jax.grad(surrogate, has_aux=True)(params)
        return bound, {name: gradient[name] for name in ("encoder", "decoder")}

    return partial(found, params)


@pytest.mark.parametrize(
    ("settings", "numbers", "simple", "line"),
    [
        ({"objective": "iwae"}, {}, "elbo_mc", "iwae with num_samples=1 is the ELBO; a tighter bound takes more"),
        ({"objective": "vr_max"}, {}, "elbo_mc", "vr_max with num_samples=1 is the ELBO"),
        ({"objective": "renyi"}, {"alpha": 0.5}, "elbo_mc", "renyi with num_samples=1 is the ELBO"),
        ({"objective": "ciwae"}, {}, "elbo_mc", "ciwae with num_samples=1 is the ELBO"),
        ({"objective": "piwae"}, {}, "elbo_mc", "piwae with num_samples=1 is the ELBO"),
        ({"objective": "miwae", "num_groups": 3}, {}, "elbo_mc", "miwae with num_samples=1 is the ELBO"),
        ({"objective": "miwae", "num_samples": 3}, {}, "iwae", "miwae with num_groups=1 is the IWAE bound"),
        ({"objective": "piwae", "num_samples": 3}, {}, "iwae", "piwae with num_groups=1 is the IWAE bound"),
        ({"objective": "ciwae", "num_samples": 3}, {"ciwae_beta": 1.0}, "elbo_mc", "ciwae with ciwae_beta=1 is the"),
        ({"objective": "ciwae", "num_samples": 3}, {"ciwae_beta": 0.0}, "iwae", "ciwae with ciwae_beta=0 is the IWAE"),
        ({"objective": "renyi", "num_samples": 3}, {"alpha": 0.0}, "iwae", "renyi with alpha=0 is the IWAE bound"),
        ({"objective": "renyi", "num_samples": 3}, {"alpha": 1.0}, "elbo_mc", "renyi with alpha=1 is the ELBO"),
        ({"objective": "tvo", "num_samples": 3, "tvo_partitions": 1}, {}, "elbo_mc", "tvo_sum=left is the ELBO"),
        ({"objective": "beta"}, {"beta": 1.0}, "elbo", "beta with beta=1 is the ELBO"),
        ({"objective": "warmup", "warmup_shape": "sigmoid"}, {}, "elbo", "warmup with warmup_steps=0 is the ELBO"),
        ({"objective": "beta_tcvae"}, {"tc_weight": 1.0}, "elbo_mc", "mi_weight=1, tc_weight=1, dimension_weight=1 is"),
        ({"objective": "dip_ii"}, {"dip_off_diagonal": 0.0, "dip_diagonal": 0.0}, "elbo", "dip_diagonal=0 is the ELBO"),
    ],
    ids=str,
)
def test_a_remark_that_an_objective_is_a_simpler_one_is_true_of_value_and_gradient(settings, numbers, simple, line):
    settings = dataclasses.replace(SMALL, **settings)
    numbers = Hyperparameters(**numbers)
    assert line in objectives.remarks(settings, numbers)[0]
    simplest = objectives.simplest(settings, numbers)
    assert (simplest.objective, simplest.num_groups) == (simple, 1)
    assert objectives.remarks(simplest, numbers) == []
    found, wanted = value_and_gradient(settings)(numbers), value_and_gradient(simplest)(numbers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted)


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({"objective": "elbo"}, {}),
        ({"objective": "iwae", "num_samples": 2}, {}),
        ({"objective": "piwae", "num_groups": 2}, {}),  # the decoder climbs IWAE with two samples
        ({"objective": "info"}, {}),
        ({"objective": "beta_tcvae"}, {}),
        ({"objective": "beta", "weight_schedule": "linear"}, {"beta": 1.0}),  # warmup
    ],
    ids=str,
)
def test_nothing_is_said_of_an_objective_that_is_what_its_name_says(settings, numbers):
    settings = dataclasses.replace(SMALL, **settings)
    assert objectives.remarks(settings, Hyperparameters(**numbers)) == []
    assert objectives.simplest(settings, Hyperparameters(**numbers)) == settings


def test_what_info_and_the_dimension_wise_kl_are_not_is_said():
    settings = dataclasses.replace(SMALL, objective="info")
    assert "mutual information no more than the ELBO" in objectives.remarks(settings, Hyperparameters(info_alpha=0))[0]
    settings = dataclasses.replace(SMALL, objective="beta_tcvae", prior="vamp")
    assert "dimension_wise_kl is no sum of KLs" in objectives.remarks(settings, Hyperparameters())[0]


def test_notes_are_printed_once_and_name_the_objectives_that_are_the_same(capsys):
    runs = [config(objective=name, seed=seed) for name in ("elbo_mc", "iwae", "elbo") for seed in (0, 1)]
    notes.show(runs, "dynamic")
    assert capsys.readouterr().out.splitlines() == [
        "note: iwae with num_samples=1 is the ELBO; a tighter bound takes more samples, as --num_samples=50"
    ]
    compared = [config(objective="ciwae", ciwae_beta=0.2), *runs[::2], config(objective="iwae", num_samples=3)]
    notes.show_same(["a", "b", "c", "d", "e"], compared)
    assert (
        capsys.readouterr().out == "note: a and b and c are the same objective here: they can differ by chance alone\n"
    )
    notes.show_same(["a", "b"], [config(objective="elbo_mc"), config(objective="iwae", learning_rate=1e-2)])
    assert capsys.readouterr().out == ""
