"""A parser answers anything with a value or with the project's own error; of FUZZ_EXAMPLES examples each, or 100."""

import contextlib
import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.command import comparison_plan
from experiments.flags import axes, configuration, laboratory, options, variants
from experiments.flags.options import AXES
from experiments.flags.parsing import UsageError
from tests import flag_samples, script_calls
from vae.configuration import ConfigurationError
from vae.objectives.table import OBJECTIVES
from vae.runs.files import RunError
from vae.sweeps.sweep_file import PLAN, SWEEP

examples = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(max_examples=examples)

# Pieces of what a user writes, and anything.
PIECES = st.sampled_from(
    [*AXES, "=", ":", ",", "/", " ", "log", "linear", "0", "1", "-1", "1e-3", "1e999", "nan", "inf", "elbo", "iwae",
     "beta", "5:", "9" * 30, "٣", "\ud800", "true", ""]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.builds("{}={}".format, st.sampled_from(AXES), st.lists(PIECES, max_size=6).map("".join)),
    st.text(max_size=20),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | PIECES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | PIECES, inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(autouse=True, scope="module")
def defined():
    flag_samples.define_once()


def changed(whole: dict[str, Any], inner: str) -> st.SearchStrategy[str]:
    """The text of `whole` with some of its values, and of those of its part `inner`, replaced by others or left out."""

    def one(changes, inner_changes, lost):
        values = {**whole, **changes}
        if isinstance(values.get(inner), dict):
            values[inner] = {**values[inner], **inner_changes}
        return json.dumps({name: value for name, value in values.items() if name not in lost})

    names = st.sampled_from(list(whole))
    parts = st.sampled_from([*whole[inner], "none"])
    return st.builds(
        one,
        st.dictionaries(names, JSON, max_size=2),
        st.dictionaries(parts, JSON, max_size=2),
        st.lists(names, max_size=1),
    )


@fuzz
@given(st.lists(TEXTS, max_size=3), st.booleans(), st.none() | st.integers(1, 100))
def test_axes_of_a_sweep(texts, zipped, subset):
    try:
        points = axes.points(axes.parse(texts), zipped=zipped, subset=subset)
    except UsageError:
        return
    assert all(point.keys() <= set(AXES) for point in points)


@fuzz
@given(st.lists(TEXTS, max_size=3))
def test_axes_of_a_search(texts):
    try:
        found = axes.parse_space(texts)
    except UsageError:
        return
    assert all(axis.name in AXES for axis in found)


@fuzz
@given(st.lists(st.one_of(TEXTS, st.builds("iwae:{}".format, TEXTS)), max_size=3))
def test_objectives_of_a_comparison(texts):
    try:
        found = variants.parse_objectives(texts)
    except UsageError:
        return
    assert all(one.given["objective"] for one in found)


@fuzz
@given(st.lists(TEXTS, max_size=3))
def test_what_a_comparison_tunes(texts):
    try:
        points = variants.parse_tune(texts)
    except UsageError:
        return
    assert all(point.keys() <= set(AXES) for point in points)


@fuzz
@given(
    st.lists(
        st.one_of(TEXTS, st.builds("renyi:alpha={}".format, TEXTS), st.builds("factor:{}".format, TEXTS)), max_size=2
    )
)
def test_objectives_of_the_laboratory(texts):
    try:
        found = laboratory.parse("objective", texts)
    except (UsageError, ConfigurationError):
        return
    assert all(one.name in OBJECTIVES for one in found)


FLAGS_STORED = {
    "dataset": "digits",
    "latent_dim": 2,
    "hidden_sizes": ["16"],
    "objective": "elbo",
    "scale": "1",
    "seed": 0,
}
ASKED_OF_PLAN = {"runs": [], "objectives": ["elbo", "iwae"], "seeds": 3, "tune": [], "budget": "steps"}
ASKED_OF_PLAN |= {"evaluation_samples": None, "evaluation_seed": None, "num_examples": None}
PLAN_WHOLE = {"asked": ASKED_OF_PLAN, "flags": FLAGS_STORED, "command": "x", "seconds_per_step": [0.1], "epochs": [1]}
PLANS = {"0": {"strategy": "vmap", "chunk_size": 2, "done": 0}}
SWEEP_WHOLE = {"sweep": ["seed=0:2"], "zip": False, "random": None, "strategy": "auto", "flags": FLAGS_STORED}
SWEEP_WHOLE |= {"runs": {"0": {"seed": 0}}, "groups": PLANS, "round": {"names": ["0"], "trials": [0], "plans": PLANS}}
SEARCH_WHOLE = SWEEP_WHOLE | {"search": "tpe", "trials": 3, "storage": None, "study": "s", "metric": "elbo"}


def test_plan_json(tmp_path):
    @fuzz
    @given(st.one_of(changed(PLAN_WHOLE, "asked"), changed(PLAN_WHOLE, "flags"), JSON.map(json.dumps)))
    def check(text):
        (tmp_path / PLAN).write_text(text)
        with contextlib.suppress(RunError, UsageError):
            stored = comparison_plan.read_plan(tmp_path / PLAN)
            configuration.settle(options.read(), stored["flags"])
            variants.parse_objectives(stored["asked"]["objectives"])
            variants.parse_tune(stored["asked"]["tune"])

    with script_calls.flags_of("compare"):
        check()


def test_sweep_json(tmp_path):
    @fuzz
    @given(st.one_of(changed(SWEEP_WHOLE, "round"), changed(SEARCH_WHOLE, "flags"), JSON.map(json.dumps)))
    def check(text):
        (tmp_path / SWEEP).write_text(text)
        with contextlib.suppress(RunError, UsageError):
            stored = sweep.stored_sweep(tmp_path)
            configuration.settle(options.read(), stored.get("flags", {}))
            names = sweep.search_asked.ASKED if stored.get("search") else sweep.ASKED
            asked = configuration.stored_own(tmp_path / SWEEP, stored, [name for name in names if name in stored])
            axes.parse_space(asked["sweep"])

    with script_calls.flags_of("sweep") as sweep:
        check()
