"""A packed run is the run: the same bits, deterministic bytes; a damaged or a stranger's file is one line."""

import hashlib
import io
import json
import shutil
import struct
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.audit import audited, programs
from tests.marks import soaked
from tests.run_samples import (
    EVALUATED,
    STEPS_PER_EPOCH,
    assert_same_bits,
    assert_same_result,
    config,
    rows,
    small_digits,
    train,
)
from vae.api import evaluate, load_run
from vae.runs import archive, packs
from vae.runs.checkpoint import CheckpointError
from vae.runs.files import RunError, RunWarning, read_json, write_arrays, write_json
from vae.runs.folder import CHECKPOINTS, CONFIG, EVALUATION, METRICS
from vae.runs.metrics import read_evaluation, read_metrics, summary
from vae.training import packing, start
from vae.training.record import FAILURE

SOAKED = ("conv", "gated_mlp", "gated_conv")  # of these only that they load is tested each time
KINDS = ("mlp", "planar", "two_layers", *SOAKED)
PACKS = Path(__file__).parents[1] / "fixtures" / "packs"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs with a checkpoint of each, and an evaluation of each."""
    workdir = tmp_path_factory.mktemp("packs") / "x"
    train(workdir, config(epochs=2))
    write_json(workdir / EVALUATION, EVALUATED | {"checkpoint": 2 * STEPS_PER_EPOCH})
    write_arrays(workdir / "evaluation.npz", {"log_likelihood": np.arange(3.0)})
    write_json(workdir / "evaluation_validation_20.json", EVALUATED | {"checkpoint": STEPS_PER_EPOCH})
    return workdir


@pytest.fixture(scope="module")
def packed(run):
    path = run.parent / "x.pack"
    packing.pack(run, path)
    return path


def test_a_packed_run_loads_as_its_folder_and_nothing_is_written(run, packed):
    before, there = packed.read_bytes(), sorted(packed.parent.iterdir())
    with audited() as found:
        one = load_run(packed)
    assert not [what for event, what in found if event == "pickle.find_class"]
    assert not programs(found)
    other = load_run(run)
    assert_same_bits(one.params, other.params)
    assert (one.config, one.metrics, one.step, one.data) == (other.config, other.metrics, other.step, other.data)
    assert_same_bits(start.saved_state(packed)[1], start.saved_state(run)[1])
    assert summary(packed) == summary(run) | {"run": str(packed)}
    assert read_evaluation(packed / EVALUATION) == read_evaluation(run / EVALUATION)
    for which in ("best", 2 * STEPS_PER_EPOCH):
        assert load_run(packed, which).step == 2 * STEPS_PER_EPOCH
    with pytest.raises(RunError, match=rf"has no checkpoint 7; use last, best or {2 * STEPS_PER_EPOCH}"):
        load_run(packed, 7)
    assert (packed.read_bytes(), sorted(packed.parent.iterdir())) == (before, there)


def test_equal_runs_have_equal_bytes_which_any_zip_program_reads(run, packed, tmp_path):
    packing.pack(run, tmp_path / "y.pack")
    assert (tmp_path / "y.pack").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as file:
        assert file.testzip() is None
        assert file.read(CONFIG) == (run / CONFIG).read_bytes()
        assert file.comment == hashlib.sha256(packed.read_bytes()[:-64]).hexdigest().encode()


def test_a_packed_run_has_all_rows_and_the_evaluations_of_its_checkpoint_alone(run, tmp_path):
    path = tmp_path / "x.pack"
    assert packing.pack(run, path, STEPS_PER_EPOCH)[1] == [CONFIG, "evaluation_validation_20.json", METRICS]
    assert load_run(path).step == STEPS_PER_EPOCH
    assert read_metrics(path) == read_metrics(run)
    assert summary(path)["log_likelihood"] is None


def test_that_a_run_diverged_is_in_its_packed_run(run, tmp_path):
    """A comparison must not take it for one that went well."""
    shutil.copytree(run, tmp_path / "x")
    write_json(tmp_path / "x" / FAILURE, {"step": 60})
    packing.pack(tmp_path / "x", tmp_path / "x.pack")
    assert read_json(packing.unpack(tmp_path / "x.pack") / FAILURE) == {"step": 60}


def test_a_run_that_was_unpacked_resumes_with_the_same_bits(run, tmp_path):
    packing.pack(run, tmp_path / "x.pack", STEPS_PER_EPOCH)
    folder = packing.unpack(tmp_path / "x.pack")
    assert folder == tmp_path / "x.unpacked"
    assert packing.unpack(tmp_path / "x.pack") == folder
    assert (folder / CONFIG).read_bytes() == (run / CONFIG).read_bytes()
    train(folder, config(epochs=2))
    assert_same_result(folder, run)
    with pytest.raises(
        RunError, match=r"x\.unpacked, which holds something else, or was trained since; use that folder"
    ):
        packing.unpack(tmp_path / "x.pack")
    assert packing.unpack(tmp_path / "x.pack", tmp_path / "y") == tmp_path / "y"


def test_an_unpacked_folder_of_another_packed_run_is_not_taken_for_this_one(run, packed, tmp_path):
    shutil.copy(packed, tmp_path / "x.pack")
    assert rows(packing.unpack(tmp_path / "x.pack")) == rows(run)
    (tmp_path / "x.pack").unlink()
    packing.pack(run, tmp_path / "x.pack", STEPS_PER_EPOCH)
    with pytest.raises(RunError, match="holds something else"):
        packing.unpack(tmp_path / "x.pack")


def test_what_cannot_be_packed_or_unpacked_is_one_line(run, packed, tmp_path):
    for words, call in (
        ("is a packed run already", lambda: packing.pack(packed, tmp_path / "y.pack")),
        ("its name must end in .pack", lambda: packing.pack(run, tmp_path / "y.zip")),
        ("exists; remove it", lambda: packing.pack(run, packed)),
        ("has no checkpoint 3", lambda: packing.pack(run, tmp_path / "y.pack", 3)),
        ("holds no run", lambda: packing.pack(tmp_path / "none", tmp_path / "y.pack")),
        ("holds something else", lambda: packing.unpack(packed, run)),
        (r"path with \[", lambda: packing.unpack(packed, tmp_path / "[y]")),
    ):
        with pytest.raises(RunError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def refusal(path, content):
    """The line with which a file of this content is refused; empty if the run in it is loaded."""
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RunWarning)
        try:
            load_run(path)
            return str(told[0].message) if told else ""
        except (RunError, CheckpointError) as error:
            line = str(error)
    assert "\n" not in line
    assert len(line) < 700
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return line


def sealed(content):
    """With the checksum of its content, which a stranger can make."""
    body = content[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def test_every_flipped_bit_and_every_cut_is_refused(packed, tmp_path):
    content, rng = packed.read_bytes(), np.random.default_rng(0)
    for position in (0, len(content) - 1, *rng.integers(len(content), size=100)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        assert "its end is not the checksum of its content" in refusal(tmp_path / "x.pack", bytes(damaged))
    for length in (0, 1, 64, len(content) - 1, *rng.integers(len(content), size=20)):
        assert "cannot be used as a packed run" in refusal(tmp_path / "x.pack", content[:length])
    assert "cannot be used" in refusal(tmp_path / "x.pack", content + b"\0")


def test_flipped_bits_under_a_new_checksum_change_no_value(packed, tmp_path):
    """Those of the zip archive's own heads: it is refused, or read as it was."""
    content, rng = packed.read_bytes(), np.random.default_rng(0)
    members, refused, told, path = archive.decoded(content), 0, set(), tmp_path / "x.pack"
    head = len(content) - 1200  # its directory is at the end
    for position in [*range(head, len(content) - 64, 7), *rng.integers(len(content) - 64, size=100)]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        try:
            found = archive.decoded(sealed(bytes(damaged)))
        except ValueError as error:
            refused += 1
            told.add("\n" in str(error))
        else:
            assert found == members, position
    assert refused > 200
    assert told == {False}
    assert refusal(path, content) == ""


def zipped(members, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for name, text in members:
            file.writestr(name, text)
        file.comment = b"0" * 64
    return sealed(content.getvalue())


def claiming(content, size):
    """The archive whose directory claims that its first member has so many bytes."""
    at = content.rindex(b"PK\x05\x06")
    (directory,) = struct.unpack("<I", content[at + 16 : at + 20])
    changed = bytearray(content)
    changed[directory + 20 : directory + 28] = struct.pack("<II", size, size)
    return sealed(bytes(changed))


def test_what_a_stranger_packs_is_checked_before_it_is_used(packed, tmp_path):
    content = packed.read_bytes()
    members = archive.decoded(content)
    head, values = json.loads(members[packs.HEAD]), json.loads(members[CONFIG])
    names = list(head["arrays"])

    def with_head(**changes):
        return archive.encoded(members | {packs.HEAD: json.dumps(head | changes).encode()})

    def with_config(**settings):
        changed = {name: value for name, value in values.items() if name != "crc32"}
        changed |= {"settings": values["settings"] | settings}
        return archive.encoded(members | {CONFIG: json.dumps(changed).encode()})

    def without(name):
        return archive.encoded({key: value for key, value in members.items() if key != name})

    zeros = bytes(10**7)
    arrays = head["arrays"]
    wrong = {
        "is no packed run": b"",
        "which is no part of a run": zipped([*members.items(), ("../../victim", b"x")]),
        "holds '/etc/victim'": zipped([*members.items(), ("/etc/victim", b"x")]),
        "holds 'checkpoints/1/manifest.json'": zipped([*members.items(), ("checkpoints/1/manifest.json", b"{}")]),
        "holds 'evaluation.pkl'": zipped([*members.items(), ("evaluation.pkl", b"x")]),
        "holds a file twice": zipped([*members.items(), (CONFIG, b"{}")]),
        "it is compressed": zipped([*members.items(), ("failure.json", zeros)], zipfile.ZIP_DEFLATED),
        "claim more bytes than it has": claiming(content, 2**31),
        "lacks arrays.bin": without(packs.ARRAYS),
        "lacks config.json": without(CONFIG),
        "lacks metrics.jsonl": without(METRICS),
        "lacks pack.json": without(packs.HEAD),
        "not a zip file": sealed(b"no" * 100),
        "its format is 2, and this code reads 1": with_head(format=2),
        "its step or its score is no number": with_head(step=-1),
        "its step or its score is": with_head(score="1"),
        "its arrays are no object": with_head(arrays=[]),
        "its arrays are": with_head(arrays={"a": 3}),
        "is absent, not": with_head(arrays={name: arrays[name] for name in names[1:]}),
        f"{names[0]} is int32[2], not": with_head(arrays=arrays | {names[0]: "int32[2]"}),
        f"{names[-1]} is float32[9000000000000], not": with_head(arrays=arrays | {names[-1]: "float32[9000000000000]"}),
        "other is float32[1], not absent": with_head(arrays=arrays | {"other": "float32[1]"}),
        "pack.json: it is nested too deeply": archive.encoded(members | {packs.HEAD: b"[" * 100_000}),
        "NaN is not JSON": archive.encoded(members | {packs.HEAD: b'{"score": NaN}'}),
        "the key 'a' is there twice": archive.encoded(members | {packs.HEAD: b'{"a": 1, "a": 2}'}),
        "its arrays take": archive.encoded(members | {packs.ARRAYS: members[packs.ARRAYS][:-1]}),
        "and arrays.bin has": archive.encoded(members | {packs.ARRAYS: members[packs.ARRAYS] + zeros}),
        "does not fit this model": with_config(latent_dim=3),
        "config.json is not the config of a run": with_config(posterior="os.system"),
        "config.json is damaged": archive.encoded(members | {CONFIG: b"{}}"}),
        "metrics.jsonl is damaged in 1 of 1 lines": archive.encoded(members | {METRICS: b'{"step": "x"}'}),
    }
    for reason, bytes_of_it in wrong.items():
        line = refusal(tmp_path / "x.pack", bytes_of_it)
        assert reason in line, (reason, line)


def test_arrays_lie_in_the_order_that_the_head_says(packed, tmp_path):
    """Later code may hold its state in another order."""
    members = archive.decoded(packed.read_bytes())
    head = json.loads(members[packs.HEAD])
    like = start.abstract_state(start.saved_state(packed)[0])
    leaves = {jax.tree_util.keystr(name): leaf for name, leaf in jax.tree_util.tree_leaves_with_path(like)}
    parts, at = {}, 0
    for name in head["arrays"]:
        size = leaves[name].size * leaves[name].dtype.itemsize
        parts[name], at = members[packs.ARRAYS][at : at + size], at + size
    turned = {name: head["arrays"][name] for name in reversed(head["arrays"])}
    (tmp_path / "x.pack").write_bytes(
        archive.encoded(
            members
            | {
                packs.HEAD: json.dumps(head | {"arrays": turned}).encode(),
                packs.ARRAYS: b"".join(parts[name] for name in turned),
            }
        )
    )
    assert_same_bits(start.saved_state(tmp_path / "x.pack")[1], start.saved_state(packed)[1])


def test_a_packed_run_is_what_a_run_starts_from(packed, tmp_path):
    one = start.initial_params(str(packed), start.saved_state(packed)[1].params)
    assert_same_bits(one, start.saved_state(packed)[1].params)
    assert read_json(packed / CONFIG)["dataset"] == "digits"
    assert not (packed / CHECKPOINTS).exists()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return small_digits(tmp_path_factory.mktemp("images") / "digits.npz")


def test_a_packed_run_of_each_kind_that_was_made_before_loads():
    """tests/fixtures/make_packs.py made them."""
    for name in SOAKED:
        run = load_run(PACKS / f"{name}.pack")
        assert (run.settings.network, run.step) == (name, 9)


@pytest.mark.parametrize("name", soaked(KINDS, *SOAKED))
def test_a_packed_run_of_each_kind_that_was_made_before_evaluates_to_the_number_in_it(images, name):
    path = PACKS / f"{name}.pack"
    run, stored = load_run(path), read_evaluation(path / EVALUATION)
    found = evaluate(run, dataset=images, num_samples=stored["num_samples"]).summary
    for name in ("log_likelihood", "elbo", "reconstruction", "kl", "bits_per_dimension"):
        if stored.get(name) is not None:
            np.testing.assert_allclose(found[name], stored[name], rtol=1e-4, err_msg=name)
    assert (found["checkpoint"], found["num_examples"]) == (stored["checkpoint"], 20)
