"""checkpoint.py: what comes back is bit for bit what was saved, or a CheckpointError; never something else."""

import contextlib
import json
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from tests.run_samples import assert_same_bits
from vae import durable
from vae.runs import checkpoint
from vae.runs import manifest as of_manifest
from vae.runs.files import RunError
from vae.runs.folder import CHECKPOINTS, lock
from vae.runs.manifest import MANIFEST, sha256, sha256_of_manifest


class Moments(NamedTuple):
    count: Any
    mean: Any
    average: Any


def tree(seed: int = 0) -> dict[str, Any]:
    """The kinds of leaves that a TrainState has: float32, integers, scalars, an absent average, an empty subtree."""
    values = np.random.default_rng(seed).normal(size=(7, 5)).astype(np.float32)
    values[0, :3] = np.nan, -np.inf, -0.0
    return {
        "params": {"kernel": jnp.asarray(values), "bias": jnp.arange(5.0), "prior": {}},
        "moments": Moments(jnp.int32(seed), {"kernel": jnp.asarray(values) * 2}, None),
        "index": jnp.arange(4, dtype=jnp.uint8),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints 3 and 7 (score 1.5); copied by the tests that damage it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoint.save(folder, 3, tree(3))
    checkpoint.save(folder, 7, tree(7), score=1.5)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_fake(folder, step, score=None):
    """A checkpoint without arrays, for what reads manifests only."""
    manifest = {"step": step, "score": score, "arrays": {}, "sha256": {}}
    manifest["sha256_of_this"] = sha256_of_manifest(manifest)
    (folder / str(step)).mkdir(parents=True)
    (folder / str(step) / MANIFEST).write_text(json.dumps(manifest))


def refusal(folder, step=7, like=None) -> str:
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.restore(folder, step, tree() if like is None else like)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_restored_tree_has_the_bits_dtypes_and_structure_of_the_saved_one(saved):
    assert checkpoint.steps(saved) == [3, 7]
    assert_same_bits(checkpoint.restore(saved, 7, tree()), tree(7))
    abstract = jax.eval_shape(tree)
    assert_same_bits(checkpoint.restore(saved, 3, abstract), tree(3))


class Longer(NamedTuple):
    """Moments of newer code."""

    OPTIONAL = ("sums",)

    count: Any
    mean: Any
    average: Any
    sums: Any = None


def test_an_optional_field_that_is_none_is_in_no_file_and_one_that_is_not_is_kept(tmp_path):
    """So older code and newer code read each other's checkpoints, unless the field is used."""
    before = Moments(np.float32(1), np.arange(3), None)
    checkpoint.save(tmp_path, 1, {"moments": before})
    assert_same_bits(checkpoint.restore(tmp_path, 1, {"moments": Longer(*before)}), {"moments": Longer(*before)})
    checkpoint.save(tmp_path, 2, {"moments": Longer(*before)})
    assert_same_bits(checkpoint.restore(tmp_path, 2, {"moments": before}), {"moments": before})
    longer = {"moments": Longer(*before, sums=np.full(1, 2, np.float32))}
    checkpoint.save(tmp_path, 3, longer)
    assert_same_bits(checkpoint.restore(tmp_path, 3, longer), longer)
    assert refusal(tmp_path, 3, {"moments": before}).endswith("['moments'].sums is float32[1], not absent")


def test_every_file_of_a_checkpoint_is_protected_from_a_flipped_bit(folder):
    protected = [path for path in files(folder / "7") if path.stat().st_size]
    assert len(protected) >= 5
    rng = np.random.default_rng(0)
    for path in protected:
        content = path.read_bytes()
        for position in (0, len(content) - 1, *rng.integers(len(content), size=6)):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            message = refusal(folder)
            assert f"{path.relative_to(folder / '7')} is damaged" in message
            assert "read another with `checkpoint=3` (there are 3), or train the run again, which sets this" in message
        path.write_bytes(content)
    assert_same_bits(checkpoint.restore(folder, 7, tree()), tree(7))


def test_a_changed_score_is_noticed_so_that_damage_cannot_choose_another_best_checkpoint(folder):
    path = folder / "7" / MANIFEST
    path.write_text(path.read_text().replace('"score": 1.5', '"score": 9.5'))
    with pytest.raises(checkpoint.CheckpointError, match=r"manifest\.json is damaged"):
        checkpoint.best_step(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"score": 1}', "\xff"])
def test_a_manifest_that_is_no_manifest_is_damaged(folder, content):
    (folder / "7" / MANIFEST).write_text(content, encoding="latin1")
    assert "manifest.json is damaged" in refusal(folder)


def test_every_file_of_a_checkpoint_is_missed_when_it_is_deleted_or_cut_short(folder):
    for path in files(folder / "7"):
        content = path.read_bytes()
        path.unlink()
        assert f"{path.relative_to(folder / '7')} is missing" in refusal(folder)
        if content:
            path.write_bytes(content[:-1])
            assert f"{path.relative_to(folder / '7')} is damaged" in refusal(folder)
        path.write_bytes(content)


def test_the_message_says_when_there_is_no_other_checkpoint(folder):
    shutil.rmtree(folder / "3")
    (folder / "7" / MANIFEST).unlink()
    assert "there is no other: train the run again, which sets this one aside" in refusal(folder)


def test_an_empty_folder_with_the_name_of_a_step_is_refused(folder):
    (folder / "9").mkdir()
    assert "manifest.json is missing" in refusal(folder, step=9)


@pytest.mark.parametrize(
    ("owner", "function", "names"),
    [
        ("ocp", "save", "state"),
        ("of_manifest", "sha256", "_METADATA"),
        ("durable", "write", "manifest.json"),
        ("os", "rename", ".partial-9"),
    ],
)
def test_a_save_that_is_interrupted_leaves_no_checkpoint_and_can_be_repeated(
    folder, monkeypatch, owner, function, names
):
    from orbax.checkpoint import v1 as ocp

    module = {"ocp": ocp, "of_manifest": of_manifest, "durable": durable, "os": checkpoint.os}[owner]
    original = getattr(module, function)

    def interrupted(path, *args, **kwargs):
        if checkpoint.Path(path).name != names:  # orbax renames and writes files of its own
            return original(path, *args, **kwargs)
        if function in ("save", "write"):
            original(path, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, function, interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, 9, tree(9), score=99.0)
    assert (folder / ".partial-9").is_dir()
    assert checkpoint.steps(folder) == [3, 7]
    assert checkpoint.best_step(folder) == 7
    checkpoint.save(folder, 9, tree(9))
    assert_same_bits(checkpoint.restore(folder, 9, tree()), tree(9))
    assert not (folder / ".partial-9").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("RESOURCE_EXHAUSTED:\n full")])
def test_a_full_disk_is_one_line_and_no_checkpoint(folder, monkeypatch, error):
    from orbax.checkpoint import v1 as ocp

    def full(*args):
        raise error

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(checkpoint.CheckpointError, match=r"9 cannot be written \(.*\); make room") as caught:
        checkpoint.save(folder, 9, tree())
    assert "\n" not in str(caught.value)
    assert checkpoint.steps(folder) == [3, 7]


def test_remains_of_interrupted_work_are_not_listed_and_are_cleaned_away(folder):
    for name in (".partial-9", ".deleted-1", "notes", "7.old"):
        (folder / name).mkdir()
    assert checkpoint.steps(folder) == [3, 7]
    checkpoint.clean(folder)
    assert {path.name for path in folder.iterdir()} == {"3", "7", "notes", "7.old"}
    checkpoint.clean(folder / "nowhere")


def test_saving_a_step_that_exists_changes_nothing(folder):
    before = {path: path.read_bytes() for path in files(folder)}
    checkpoint.save(folder, 7, tree(1), score=100.0)
    assert {path: path.read_bytes() for path in files(folder)} == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t["params"].update(bias=jnp.zeros(6)), "['params']['bias'] is float32[5], not float32[6]"),
        (lambda t: t["params"].update(bias=jnp.zeros(5, jnp.int32)), "['params']['bias'] is float32[5], not int32[5]"),
        (lambda t: t["params"].pop("bias"), "['params']['bias'] is float32[5], not absent"),
        (lambda t: t.update(more=jnp.zeros(2)), "['more'] is absent, not float32[2]"),
        (
            lambda t: t.update(moments=t["moments"]._replace(average=jnp.zeros(()))),
            "['moments'].average is absent, not float32[]",
        ),
    ],
)
def test_a_tree_of_other_names_shapes_or_dtypes_is_refused_by_the_name_of_the_array(saved, change, expected):
    like = tree()
    change(like)
    assert expected in refusal(saved, like=like)


@pytest.mark.parametrize(
    ("keep_last", "keep_best", "kept"),
    [(1, 0, {60}), (2, 1, {20, 50, 60}), (1, 2, {20, 40, 60}), (1, 9, {10, 20, 40, 50, 60}), (9, 0, range(10, 70, 10))],
)
def test_prune_keeps_the_newest_and_the_best(tmp_path, keep_last, keep_best, kept):
    scores = {10: -3.0, 20: 5.0, 30: None, 40: 4.0, 50: -9.0, 60: -8.0}
    for step, score in scores.items():
        write_fake(tmp_path, step, score)
    checkpoint.prune(tmp_path, keep_last, keep_best)
    assert set(checkpoint.steps(tmp_path)) == set(kept)
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, kept))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_score_that_is_not_finite_is_none_and_never_evicts_the_best(tmp_path, value):
    write_fake(tmp_path, 10, -5.0)
    checkpoint.save(tmp_path, 20, {"x": np.zeros(2)}, score=value)
    write_fake(tmp_path, 30)
    assert checkpoint.score(tmp_path, 20) is None
    assert checkpoint.best_step(tmp_path) == 10
    checkpoint.prune(tmp_path, keep_last=1, keep_best=1)
    assert checkpoint.steps(tmp_path) == [10, 30]


def test_the_best_is_the_first_of_equals_and_absent_without_scores(tmp_path):
    assert checkpoint.steps(tmp_path / "nowhere") == []
    write_fake(tmp_path, 10)
    assert checkpoint.best_step(tmp_path) is None
    write_fake(tmp_path, 20, -5.0)
    write_fake(tmp_path, 30, -5.0)
    write_fake(tmp_path, 40)
    assert checkpoint.best_step(tmp_path) == 20
    checkpoint.prune(tmp_path, keep_last=1, keep_best=1)
    assert checkpoint.steps(tmp_path) == [20, 40]


def sign(path, **changes):
    """Make the manifest fit what is there, as a stranger can, with other values in it."""
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["sha256_of_this"]
    there = [file for file in files(path) if file.name != MANIFEST]
    manifest["sha256"] = {str(file.relative_to(path)): sha256(file) for file in there}
    manifest |= changes
    manifest["sha256_of_this"] = sha256_of_manifest(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": 3},
        {"sha256": {"../3/manifest.json": ""}},
        {"sha256": {"/dev/zero": ""}},
        {"sha256": {"state": None}},
        {"arrays": ["x"]},
        {"arrays": {"x": {}}},
        {"score": "best"},
        {"score": True},
    ],
    ids=str,
)
def test_a_signed_manifest_of_other_kinds_or_with_names_elsewhere_is_damaged(folder, changes):
    sign(folder / "7", **changes)
    assert "manifest.json is damaged" in refusal(folder)
    with pytest.raises(checkpoint.CheckpointError, match="is damaged"):
        checkpoint.best_step(folder)


@pytest.mark.parametrize("content", ["[" * 100_000, "{}", "null", ""])
def test_what_orbax_cannot_read_is_one_line_though_its_checksums_agree(folder, content):
    for path in (folder / "7" / checkpoint.STATE).rglob("_METADATA"):
        path.write_text(content)
    sign(folder / "7")
    assert "7 cannot be read, though its checksums agree: " in refusal(folder)


@pytest.mark.parametrize(
    ("shape", "parts", "message"),
    [
        ([200_000, 300_000], [1000, 1000], r"its array index is uint8[200000, 300000], not uint8[4]"),
        ([4], [10**13], "its array index is stored in parts larger than itself"),
    ],
)
def test_an_array_whose_head_claims_more_than_the_manifest_says_is_not_read(folder, shape, parts, message):
    """240 GB would end the process, with no line of ours."""
    import tensorstore

    array = {"driver": "file", "path": f"{folder}/7/state/state/"}
    spec = {"driver": "zarr3", "kvstore": {"driver": "ocdbt", "base": array, "path": "index/"}}
    grid = {"name": "regular", "configuration": {"chunk_shape": parts}}
    spec["metadata"] = {"chunk_grid": grid, "codecs": [{"name": "bytes"}]}
    tensorstore.open(spec, create=True, delete_existing=True, dtype="uint8", shape=shape).result()
    sign(folder / "7")
    assert message in refusal(folder)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_folder_that_is_moved_during_a_save_is_not_made_again_under_its_old_name(tmp_path, monkeypatch, moment):
    run, aside, original = tmp_path / "x", tmp_path / "aside", ocp.save

    def moved_meanwhile(*args):
        if moment == "after":
            original(*args)
        run.rename(aside)
        if moment == "before":
            original(*args)

    with contextlib.suppress(RunError), lock(run):
        checkpoint.save(run / CHECKPOINTS, 3, tree(3))
        monkeypatch.setattr(ocp, "save", moved_meanwhile)
        with pytest.raises(RunError, match="x was deleted or moved while it was in use"):
            checkpoint.save(run / CHECKPOINTS, 7, tree(7))
    assert not run.exists()
    assert_same_bits(checkpoint.restore(aside / CHECKPOINTS, 3, tree()), jax.tree.map(np.asarray, tree(3)))
    aside.rename(run)
    monkeypatch.setattr(ocp, "save", original)
    with lock(run):
        checkpoint.clean(run / CHECKPOINTS)
        checkpoint.save(run / CHECKPOINTS, 7, tree(7))
    assert checkpoint.steps(run / CHECKPOINTS) == [3, 7]
