"""Readers of files that may be damaged or a stranger's: whatever is in them, only errors of the project come out."""

import gzip
import io
import json
import math
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from experiments.flags import configuration
from tests.data_samples import idx, pictures
from tests.flag_samples import parsed
from tests.run_samples import config
from vae.datasets import DataError, from_arrays
from vae.datasets.arrays import as_images, load_npz
from vae.datasets.binarized_mnist import read_file as read_binarized
from vae.datasets.dataset import Split
from vae.datasets.idx import read as read_idx
from vae.datasets.labels import as_labels, compact
from vae.datasets.pictures import load_folder
from vae.runs import fingerprint
from vae.runs.config import read_config, write_config
from vae.runs.files import RunError, RunWarning
from vae.runs.folder import METRICS
from vae.runs.metrics import Metrics, Row, read_metrics

examples = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzzed = settings(max_examples=examples)
few = settings(fuzzed, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")))  # of what takes long
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 10**4), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, 10**4), st.integers(1, 40)),
        st.tuples(st.just("add"), st.integers(0, 10**4), st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("end"), st.integers(0, 10**4), st.none()),
    ),
    min_size=1,
    max_size=6,
)


def damaged(content: bytes, changes) -> bytes:
    """`content` with bytes set, cut out, put in, or everything behind a place gone."""
    found = bytearray(content)
    for kind, place, value in changes:
        at = place % max(1, len(found))
        if kind == "set" and found:
            found[at] = value
        elif kind == "cut":
            del found[at : at + value]
        elif kind == "add":
            found[at:at] = value
        elif kind == "end":
            del found[at:]
    return bytes(found)


def read_or_refused(error: type[Exception], read, *arguments):
    """What `read` gives; None where it raises `error`, in one line. Any other error is a fault."""
    try:
        return read(*arguments)
    except error as caught:
        said = str(caught)
    assert "\n" not in said
    return None


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def npz(save=np.savez) -> bytes:
    buffer = io.BytesIO()
    save(buffer, images=pictures(12, 3), labels=np.arange(12))
    return buffer.getvalue()


@fuzzed
@given(content=st.sampled_from([npz(), npz(np.savez_compressed)]), changes=CHANGES)
def test_a_damaged_npz_is_an_error_of_data(folder, content, changes):
    path = folder / "own.npz"
    path.write_bytes(damaged(content, changes))
    read_or_refused(DataError, load_npz, path)


def picture(form: str) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = 6
    pixels = pictures(3, 5)
    image = Image.fromarray(pixels[0] if form == "PPM" else np.moveaxis(pixels, 0, -1))
    animated = {"save_all": True, "append_images": [image]} if form in ("GIF", "TIFF", "WEBP") else {}
    image.save(buffer, form, **animated, **({"exif": exif} if form in ("PNG", "JPEG", "TIFF", "WEBP") else {}))
    return buffer.getvalue()


@fuzzed
@given(form=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]), changes=CHANGES)
def test_a_damaged_picture_is_an_error_of_data(folder, form, changes):
    path = folder / "pictures" / "one.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damaged(picture(form), changes))
    read_or_refused(DataError, load_folder, path.parent, 4, False)


@fuzzed
@given(zipped=st.booleans(), changes=CHANGES)
def test_a_damaged_idx_is_an_error_of_data(folder, zipped, changes):
    content, path = idx(pictures(2, 3)), folder / "idx"
    path.write_bytes(damaged(gzip.compress(content, mtime=0) if zipped else content, changes))
    read_or_refused(DataError, read_idx, path)


def mat(**options) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"X": (pictures(2) > 127).astype(np.uint8).reshape(2, 784)}, **options)
    return buffer.getvalue()


MATS = [mat(), mat(do_compression=True), mat(format="4")]


@pytest.mark.filterwarnings("ignore")
@fuzzed
@given(content=st.sampled_from(MATS), changes=CHANGES)
def test_a_damaged_mat_is_an_error_of_data(folder, content, changes):
    path = folder / "X.mat"
    path.write_bytes(damaged(content, changes))
    found = read_or_refused(DataError, read_binarized, path)
    assert found is None or found.shape[1:] == (28, 28, 1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def of_train():
    """The flags of a command that gives none."""
    with parsed() as flags:
        yield flags


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> str:
    """The config.json of a run."""
    folder = tmp_path_factory.mktemp("stored")
    data = fingerprint.of(from_arrays(pictures(20, 3), np.arange(20)))
    write_config(folder, config(), data=data, flags={"epochs": 3, "hidden_sizes": ["16"]})
    return (folder / "config.json").read_text()


def replaced(value, path: list[int], new):
    """`value` with what `path` leads to replaced by `new`: each number chooses a child."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = replaced(value[key], path[1:], new)
    return changed


def reads_or_refuses(folder: Path, of_train) -> None:
    def settled(folder):
        return configuration.settle(of_train, configuration.stored_flags(folder))

    for read in (read_config, fingerprint.read, settled):
        read_or_refused(RunError, read, folder)


@fuzzed
@given(changes=CHANGES)
def test_a_damaged_config_is_an_error_of_the_run(folder, stored, of_train, changes):
    (folder / "config.json").write_bytes(damaged(stored.encode(), changes))
    reads_or_refuses(folder, of_train)


@fuzzed
@given(path=st.lists(st.integers(0, 100), min_size=1, max_size=4), new=VALUES)
def test_any_value_anywhere_in_a_config_is_read_or_refused(folder, stored, of_train, path, new):
    values = json.loads(stored)
    (folder / "config.json").write_text(json.dumps(replaced(values, path, new)))
    reads_or_refuses(folder, of_train)


@pytest.mark.parametrize("flags", [[1], "x", 3, True, [["epochs", 3]]], ids=str)
def test_flags_of_a_config_that_are_no_object_are_one_line(folder, stored, flags):
    (folder / "config.json").write_text(json.dumps(json.loads(stored) | {"flags": flags}))
    with pytest.raises(RunError, match="is damaged: its 'flags' are no object"):
        configuration.stored_flags(folder)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("metrics")
    writer = Metrics(folder, 0, watched=False)
    for step in (3, 6):
        for split in ("train", "test"):
            writer.write(step, step / 3, split, {"elbo": -90.5 + step, "kl": math.nan})
    writer.close()
    return (folder / METRICS).read_bytes()


def mended(folder: Path, content: bytes) -> list[Row]:
    """The rows that are read of `content`, which opening it keeps, those up to step 3, and leaves without a fault."""
    (folder / METRICS).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        found = read_metrics(folder)
        Metrics(folder, 3, watched=False).close()
    kept = {(row["step"], row["split"]) for row in found if row["step"] <= 3}
    assert {(row["step"], row["split"]) for row in read_metrics(folder)} == kept
    return found


@few
@given(changes=CHANGES)
def test_damaged_metrics_are_left_out(folder, metrics, changes):
    mended(folder, damaged(metrics, changes))


@few
@given(path=st.lists(st.integers(0, 100), max_size=3), new=VALUES)
def test_any_value_anywhere_in_metrics_is_read_or_left_out(folder, metrics, path, new):
    rows = [json.loads(line) for line in metrics.splitlines()]
    for row in rows:
        del row["crc32"]
    lines = replaced(rows, path, new)
    assume(isinstance(lines, list))
    mended(folder, "".join(json.dumps(line) + "\n" for line in lines).encode())


ANY_ARRAY = arrays.arrays(
    dtype=st.one_of(arrays.scalar_dtypes(), arrays.unicode_string_dtypes(), arrays.byte_string_dtypes()),
    shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@pytest.mark.filterwarnings("ignore")
@fuzzed
@given(labels=ANY_ARRAY)
def test_any_array_of_labels_is_read_or_refused(labels):
    count = labels.shape[0] if labels.ndim else 1
    checked = read_or_refused(DataError, as_labels, labels, count, "labels")
    if checked is not None:
        splits, classes = compact({"train": Split(np.zeros((count, 1, 1, 1), np.uint8), checked)}, "own")
        found = splits["train"].labels
        assert classes is not None
        assert found is not None
        assert [classes[label] for label in found] == checked.tolist()


@pytest.mark.filterwarnings("ignore")
@fuzzed
@given(images=ANY_ARRAY)
def test_any_array_of_images_is_read_or_refused(images):
    for checked in read_or_refused(DataError, as_images, {"images": images}) or ():
        assert checked.ndim == 4
        assert checked.dtype in (np.uint8, np.float32)
