"""The tables: each row says of its function what is true, and flags, fields and defaults follow from the rows."""

import inspect
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.flags.options import FLAGS
from tests.flag_samples import define_once
from vae.models import model as models
from vae.models.table import ACTIVATIONS, LIKELIHOODS, MODEL, NETWORKS, POSTERIORS, PRIORS, TWO_LAYERS
from vae.objectives.objective import OF_SCHEDULE
from vae.objectives.regularizer_table import DIP
from vae.objectives.rows import Bound
from vae.objectives.table import BOUNDS, ESTIMATORS, OBJECTIVES, REFUSED, REGULARIZERS
from vae.options import Option, Row, choice, flattened, load, number, read, unread_because
from vae.rules import Numbers
from vae.runs import fingerprint
from vae.settings import ADDED, ARRAYS, FIELDS, FORMAT, OPTIONS, OWN, STATIC, Hyperparameters, Settings
from vae.training.table import SCHEDULES

FIXTURE = Path(__file__).parent / "fixtures" / "format_1.tar.gz"


def arguments(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_reads_what_its_row_declares_and_has_log_weights_of_its_shape(name):
    row = BOUNDS[name]
    first, *others = inspect.signature(row.function).parameters.values()
    needed = {one.name for one in others if one.default is one.empty}  # what has a default, an estimator may give
    assert (first.name, needed) == ("log_w", {*row.fields} - {"num_groups"})
    shape = first.annotation
    assert ("M K B" in str(shape)) == row.grouped


@pytest.mark.parametrize("name", REGULARIZERS)
def test_a_regulariser_reads_what_its_row_declares_and_takes_a_key_if_it_draws(name):
    row = REGULARIZERS[name]
    first, *others = arguments(row.function)
    assert first == "latents"
    assert ("key" in others) == row.draws
    of_discriminator = {field for field in row.fields if field.startswith("discriminator_")}  # read by its builder
    given = {"log_ratio"} if of_discriminator else set()
    assert {*others} - {"key"} == {*row.fields} - of_discriminator - {*OF_SCHEDULE} | given
    assert bool(row.scheduled) == ("weight_schedule" in row.fields)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_a_row_says_of_other_rows_and_of_fields_exists(name):
    row = OBJECTIVES[name]
    assert arguments(load(row.builder)) == ["settings"]
    assert {other for other, _ in row.same_as} <= {*OBJECTIVES}
    assert all({*values} <= {*FIELDS} for _, values in row.same_as)
    assert {*row.refuses} <= {*ESTIMATORS}


def test_what_an_estimator_is_made_for_exists_and_everything_else_is_refused():
    for estimator, how in ESTIMATORS.items():
        assert {*how.only} <= {*OBJECTIVES}
        if how.only:
            assert {name for name in OBJECTIVES if (name, estimator) not in REFUSED} == {*how.only}


class Reading(Settings):
    """Settings that know which of their fields were read."""

    seen: set = set()  # noqa: RUF012

    def __getattribute__(self, name):
        if name in STATIC:
            type(self).seen.add(name)
        return super().__getattribute__(name)


PARTS = {"network": NETWORKS, "posterior": POSTERIORS, "prior": PRIORS, "likelihood": LIKELIHOODS}


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, table in PARTS.items() for name in table])
def test_a_part_of_the_model_reads_what_its_row_declares(part, name):
    """The options of other rows are never looked at."""
    small = {"hidden_sizes": (4,), "latent_dim": 2, "channels": (2,), "flow_hidden_size": 3, "prior_components": 3}
    settings = Reading((4, 4, 1), **{part: name}, **small)
    Reading.seen.clear()

    def whole_model(key):
        # Not a model that was kept: finding it reads every field.
        model, batch = models.build.__wrapped__(settings), models.Batch(jnp.zeros((1, 4, 4, 1)))
        params = model.init(key, batch)
        q, p = model.posterior(params, batch), model.prior(params)
        z, _ = p.sample_and_log_prob(key, 1)
        return q.sample_and_log_prob(key, 1), p.log_prob(z), model.likelihood(params, z).log_prob(batch.x[None])

    with jax.debug_key_reuse(False):
        jax.eval_shape(whole_model, jax.random.key(0))
    of_rows = {field for table in (*PARTS.values(), {"": TWO_LAYERS}) for row in table.values() for field in row.fields}
    chosen = [table[name if kind == part else MODEL[kind].default] for kind, table in PARTS.items()]
    assert Reading.seen & of_rows == {field for row in chosen for field in row.fields}


@pytest.mark.parametrize("name", POSTERIORS)
def test_a_posterior_scores_a_given_z_if_its_row_says_so(name):
    model = models.build(Settings((2, 2, 1), hidden_sizes=(4,), latent_dim=2, posterior=name))
    batch = models.Batch(jnp.zeros((1, 2, 2, 1)))
    scores = []

    def posterior(key):
        scores.append(model.posterior(model.init(key, batch), batch).log_prob is not None)

    jax.eval_shape(posterior, jax.random.key(0))
    assert scores == [POSTERIORS[name].can_score]


def test_every_path_leads_to_a_function_or_a_class():
    for table in (*PARTS.values(), ACTIVATIONS, ESTIMATORS, BOUNDS, REGULARIZERS):
        assert all(callable(row.function) for row in table.values())
    assert all(callable(load(row.decoder)) for row in NETWORKS.values())


def test_a_fact_that_its_kind_of_rows_does_not_have_is_an_error():
    with pytest.raises(TypeError, match="Bound has no fact 'groupd'"):
        Bound("vae.objectives.bounds:iwae", groupd=True)


def opening(options: dict[str, Option]) -> Option:
    """A choice of which one value reads `options`."""
    return choice("off", {"off": Row(), "on": Row(**options)}, "")


def test_an_option_of_two_rows_is_declared_once():
    assert flattened({"a": opening(DIP), "b": opening(DIP)}).keys() == {"a", "b", *DIP}
    other = {name: number(1.0, "another one") for name in DIP}
    with pytest.raises(TypeError, match="the option dip_off_diagonal is declared twice"):
        flattened({"a": opening(DIP), "b": opening(other)})


def test_an_option_has_an_effect_or_there_is_a_reason_why_not():
    defaults = {name: one.default for name, one in flattened(OPTIONS).items()}
    effective = read(OPTIONS, defaults)
    for name in flattened(OPTIONS):
        assert (unread_because(name, OPTIONS, defaults) == []) == (name in effective), name


def test_every_flag_has_the_default_of_its_option_which_its_bounds_allow():
    define_once()
    for name, one in flattened(OPTIONS).items():
        default = list(map(str, one.default)) if isinstance(one.rule, Numbers) else one.default
        assert FLAGS[name].default == default, name
        assert one.default is None or one.rule.fault(one.default) is None, name


def test_every_option_of_the_program_is_a_field_with_its_default():
    values = Settings((1, 1, 1)).to_dict() | Hyperparameters()._asdict()
    assert values.keys() - {"image_shape"} == STATIC.keys() | ARRAYS.keys() == FIELDS.keys()
    follow = {name for name, field in FIELDS.items() if field.option is None}
    assert follow == {"clip_gradients", "average_weights", "decay_steps"}
    others = {"binarization": "dynamic", "scale": None, "num_classes": 0, "channels": (), "dip_diagonal": 100.0}
    others |= {"warmup_steps": 0.0, "capacity_steps": 0.0, "weight_steps": 0.0, "stage_steps": (), "stage_factors": ()}
    options = flattened(OPTIONS)
    for name in FIELDS.keys() - follow:
        assert values[name] == others.get(name, options[str(FIELDS[name].option)].default), name


def test_fields_of_format_1_are_those_that_its_files_have_and_others_say_since_when():
    """A new option without `since` would make every run folder of before unreadable."""
    with tarfile.open(FIXTURE) as archive:
        member = next(one for one in archive.getnames() if one.endswith("runs/factor/config.json"))
        values = json.load(archive.extractfile(member))
    stored = {*values["settings"], *values["hyperparameters"], *(values.keys() & OWN.keys())} - {"image_shape"}
    fields = {**FIELDS, **OWN}
    assert {name for name, field in fields.items() if field.since == 1} == stored
    assert {name for added in ADDED.values() for name in added} == {*fields} - stored
    assert {*range(1, FORMAT + 1)} == {field.since for field in fields.values()} | {fingerprint.SINCE}


def test_what_was_before_a_newer_field_is_a_value_that_it_can_have():
    newer = {name: field for name, field in {**FIELDS, **OWN}.items() if field.since > 1}
    assert {name for name, field in newer.items() if field.rule.fault(field.before)} == set()
    # Steps and epochs are the same number only if it is 0.
    in_epochs = {one.field_name(name) for name, one in flattened(OPTIONS).items() if one.in_epochs}
    assert {name for name in newer.keys() & in_epochs if newer[name].before} == set()


def test_the_fields_of_a_choice_are_those_of_all_its_options():
    assert OBJECTIVES["warmup"].fields == ["warmup_shape", "warmup_cycles", "warmup_steps", "warmup_balance"]
    assert SCHEDULES["stages"].fields == ["stage_steps", "stage_factors"]


def test_tables_settings_and_configuration_need_neither_jax_nor_numpy_nor_absl():
    modules = "vae.settings, vae.configuration, vae.presets, vae.objectives, vae.models.table, vae.training.table"
    code = f"import sys, {modules}; assert not {{'jax', 'numpy', 'flax', 'absl'}} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
