"""The builders, the cache of prepared arrays, and TFDS data sets that others prepared."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_samples import pictures, write_binarized, write_mnist, write_omniglot_zip
from vae import untrusted
from vae.datasets import DataError, binarized_mnist, builder, cache, idx, load, loading, mnist, omniglot, prepared
from vae.datasets.builder import tfds
from vae.datasets.dataset import Split
from vae.datasets.resize import resize
from vae.datasets.table import FETCHED, NAMES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_module_of_a_name_says_what_is_known_of_it(name):
    module = loading.named(name)
    assert all([module.ABOUT.images, module.ABOUT.publisher, module.ABOUT.licence])
    assert name not in FETCHED or module.DATA.name == name


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """An MNIST of 30 + 10 images in tmp_path/manual; gives its four arrays."""
    data, arrays = write_mnist(tmp_path / "manual")
    monkeypatch.setattr(mnist, "DATA", data)
    return arrays


def prepare(tmp_path, **options):
    return load("mnist", data_dir=tmp_path / "data", manual_dir=tmp_path / "manual", progress=False, **options)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "png")
    file.seek(0)
    return file


class OwnBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A user's data set: `arrays` maps splits to features, of which the first dimension counts examples."""

    name = "own"
    VERSION = tfds.core.Version("1.2.0")
    arrays: dict

    def _info(self):
        features = {
            key: tfds.features.Image(shape=value.shape[1:], encoding_format="png") if value.ndim == 4 else np.int64
            for key, value in next(iter(self.arrays.values())).items()
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.arrays}

    def _generate_examples(self, split):
        columns = self.arrays[split]
        for index in range(len(next(iter(columns.values())))):
            yield index, {key: png(value[index]) if value.ndim == 4 else value[index] for key, value in columns.items()}


def own_tfds(tmp_path, monkeypatch, file_format="array_record", **splits):
    monkeypatch.setattr(OwnBuilder, "arrays", splits, raising=False)
    builder = OwnBuilder(data_dir=tmp_path / "tfds", file_format=file_format)
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_mnist_is_what_its_files_hold_and_is_read_from_the_cache_after(tmp_path, small_mnist, capfd):
    first = prepare(tmp_path, validation=5)
    (tmp_path / "manual").rename(tmp_path / "gone")
    again = load("mnist", data_dir=tmp_path / "data", validation=5)
    train_images, train_labels, test_images, test_labels = small_mnist
    for dataset in (first, again):
        assert np.array_equal(dataset.train.images[..., 0], train_images[:25])
        assert np.array_equal(dataset.validation.images[..., 0], train_images[25:])
        assert np.array_equal(dataset.test.images[..., 0], test_images)
        assert np.array_equal(dataset.validation.labels, train_labels[25:])
        assert np.array_equal(dataset.test.labels, test_labels)
        assert (dataset.train.images.dtype, dataset.train.labels.dtype) == (np.uint8, np.int32)
    assert capfd.readouterr() == ("", "")


def test_the_records_are_a_tfds_data_set_of_that_name(tmp_path, small_mnist):
    prepare(tmp_path)
    builder = tfds.builder_from_directory(tmp_path / "data" / "mnist" / "1.0.0")
    examples = builder.as_data_source("train").__getitems__(range(30))
    assert np.array_equal(np.stack([example["image"] for example in examples])[..., 0], small_mnist[0])
    assert (builder.info.name, [example["label"] for example in examples]) == ("mnist", small_mnist[1].tolist())


@pytest.mark.parametrize("changes", [{}, {"labels": np.array(["a", "b", "a"])}, {"factors": np.eye(3, 2, dtype="i4")}])
@pytest.mark.parametrize("images", [np.zeros((3, 4, 5, 3), np.uint8), np.full((3, 4, 5, 1), 0.3, np.float32)])
def test_splits_come_back_from_records_and_from_the_cache_as_they_were(tmp_path, images, changes):
    split = Split(images)._replace(**changes)
    folder = builder.write("own", {"train": split}, tmp_path)
    cache.publish(tmp_path / "cache", loaded := prepared.load_prepared(folder, None, False).splits)
    for found in (loaded["train"], cache.read(tmp_path / "cache")["train"]):
        for array, expected in zip(found, split, strict=True):
            assert (array is None) == (expected is None)
            assert array is None or (array.dtype == expected.dtype and np.array_equal(array, expected))


def test_reading_the_cache_imports_no_tfds(tmp_path, small_mnist):
    prepare(tmp_path)
    script = (
        f"import sys; from vae.datasets import load; load('mnist', data_dir={str(tmp_path / 'data')!r});"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "no manifest"])
def test_a_damaged_cache_is_named_and_the_way_out_works(tmp_path, small_mnist, damage):
    prepare(tmp_path)
    folder = tmp_path / "data" / "prepared" / "mnist-1"
    path = folder / ("manifest.json" if "manifest" in damage else "train_images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage in ("remove", "no manifest"):
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-7])
    with pytest.raises(DataError, match=rf"{path} is (damaged|missing).*; delete the folder {folder} ") as caught:
        prepare(tmp_path)
    assert "\n" not in str(caught.value)
    for remains in folder.iterdir():
        remains.unlink()
    folder.rmdir()
    assert np.array_equal(prepare(tmp_path, validation=0).train.images[..., 0], small_mnist[0])


def test_damaged_records_are_named(tmp_path, small_mnist):
    prepare(tmp_path)
    cached = tmp_path / "data" / "prepared" / "mnist-1"
    cached.rename(tmp_path / "gone")
    (record,) = (tmp_path / "data" / "mnist" / "1.0.0").glob("*train.array_record*")
    record.write_bytes(record.read_bytes()[: record.stat().st_size // 2])
    with pytest.raises(DataError, match=r"mnist/1.0.0 train is damaged: .*; delete the folder and prepare it again"):
        prepare(tmp_path)
    assert not cached.exists()


def test_what_a_killed_process_left_is_neither_believed_nor_kept(tmp_path, small_mnist):
    remains = [
        tmp_path / "data" / place
        for place in ("prepared/.mnist-1.0123", "downloads/mnist/.part-0123", "mnist/incomplete.0123_1.0.0")
    ]
    for folder in remains:
        folder.mkdir(parents=True)
        (folder / "train_images.npy").write_bytes(b"half")
    assert np.array_equal(prepare(tmp_path, validation=0).train.images[..., 0], small_mnist[0])
    assert not any(folder.exists() for folder in remains)


def test_a_failed_preparation_leaves_nothing_that_is_believed(tmp_path, small_mnist, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"No space left on device; .* are kept in .*/data: set VAE_DATA_DIR"):
        prepare(tmp_path)
    assert [path.name for path in (tmp_path / "data" / "prepared").iterdir()] == ["mnist.lock"]
    monkeypatch.undo()
    monkeypatch.setattr(mnist, "DATA", write_mnist(tmp_path / "manual")[0])
    assert np.array_equal(prepare(tmp_path, validation=0).train.images[..., 0], small_mnist[0])


def test_two_processes_that_prepare_at_once_agree(tmp_path):
    script = (
        "import sys; from pathlib import Path; from tests.data_samples import write_mnist\n"
        "from vae.datasets import load, mnist\n"
        "folder = Path(sys.argv[1]); mnist.DATA, arrays = write_mnist(folder / sys.argv[2])\n"
        "own = load('mnist', data_dir=folder / 'data', manual_dir=folder / sys.argv[2], validation=0)\n"
        "assert (own.train.images[..., 0] == arrays[0]).all()\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, tmp_path, who], cwd=ROOT) for who in ("one", "two")]
    assert [process.wait() for process in started] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "data" / "prepared").iterdir()) == ["mnist-1", "mnist.lock"]


def test_a_cache_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    cache.publish(tmp_path / "own-1", {"train": Split(np.zeros((2000, 28, 28, 1), np.uint8))})
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**6)
    monkeypatch.setattr(np, "fromfile", None)
    with pytest.raises(DataError, match=r"own-1 take 0.001568 GB, but there are 0.001 GB of free memory"):
        cache.read(tmp_path / "own-1")


def test_publishing_twice_keeps_the_first(tmp_path):
    first, second = (Split(pictures(3, seed=seed)[..., None]) for seed in (0, 1))
    cache.publish(tmp_path / "own-1", {"train": first})
    cache.publish(tmp_path / "own-1", {"train": second})
    assert np.array_equal(cache.read(tmp_path / "own-1")["train"].images, first.images)
    assert [path.name for path in tmp_path.iterdir()] == ["own-1"]


def test_binarized_mnist_has_its_own_validation_split_and_no_labels(tmp_path, monkeypatch):
    data, pixels = write_binarized(tmp_path / "manual")
    monkeypatch.setattr(binarized_mnist, "DATA", data)
    own = load("binarized_mnist", data_dir=tmp_path / "data", manual_dir=tmp_path / "manual", progress=False)
    for split, block in zip(own[1:4], pixels, strict=True):
        assert np.array_equal(split.images.reshape(12, 784), block * 255)
        assert split.labels is None
    assert own.binary
    import scipy.io

    scipy.io.savemat(tmp_path / "x.mat", {"X": pixels[0]})
    assert np.array_equal(binarized_mnist.read_file(tmp_path / "x.mat"), own.train.images)


def test_omniglot_is_inverted_averaged_and_labelled_by_character(tmp_path):
    paper = np.random.default_rng(0).uniform(size=(4, 3, 105, 105)) > 0.2
    write_omniglot_zip(tmp_path / "images_background.zip", paper)
    np.savez_compressed(tmp_path / "images.npz", images=paper, labels=np.arange(4)[:, None].repeat(3, 1))
    expected = resize(np.where(paper, 0, 255).astype(np.uint8).reshape(12, 105, 105, 1), 28)
    for name in ("images_background.zip", "images.npz"):
        images, labels, _ = omniglot.read_file(tmp_path / name)
        assert np.array_equal(images, expected)
        assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_idx_with_another_type_or_length_is_refused(tmp_path):
    for content in (b"", b"\0\0\x09\x01\0\0\0\x01\0", b"\0\0\x08\x01\0\0\0\x02\0", b"\0\0\x08\x03\0\0"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(DataError, match="not an idx file of uint8 values"):
            idx.read(tmp_path / "file")


def test_a_prepared_tfds_data_set_is_read_by_folder_and_by_name(tmp_path, monkeypatch):
    images = pictures(12, 5)[..., None]
    columns = {"image": images, "label": np.arange(12)}
    folder = own_tfds(tmp_path, monkeypatch, train=columns, test=columns)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    for name in (folder, folder.parent, "own", "own:1.2.0"):
        own = load(name, data_dir=tmp_path / "data", validation=0, progress=False)
        assert np.array_equal(own.train.images, images[own.train.labels])
        assert np.array_equal(own.test.images, images)
        assert np.array_equal(own.test.labels, np.arange(12))
    with pytest.raises(DataError, match="unknown data set 'owm'; did you mean 'own'"):
        load("owm", data_dir=tmp_path / "data")


def test_tfds_data_sets_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    images = pictures(12, 5)[..., None]
    for splits, message in (
        ({"train": {"picture": images}}, "has no feature 'image'; its features are: picture"),
        ({"test": {"image": images}}, "has no split 'train'; its splits are: test"),
    ):
        folder = own_tfds(tmp_path / message[:12], monkeypatch, **splits)
        with pytest.raises(DataError, match=message):
            load(folder, progress=False)
    folder = own_tfds(tmp_path, monkeypatch, train={"image": images}, extra={"image": images})
    own = load(folder, progress=False)
    assert [len(split.images) for split in own[1:4]] == [10, 1, 1]
    assert own.account == f"12 images used, of the splits train of {folder}; passed over: extra"
    facts = json.loads((folder / "dataset_info.json").read_text())
    for number in ("11", "13"):
        facts["splits"][0]["shardLengths"] = [number]
        (folder / "dataset_info.json").write_text(json.dumps(facts))
        with pytest.raises(DataError, match=f"train is damaged: dataset_info.json says {number} images.* hold 12"):
            load(folder, progress=False)
    (folder / "dataset_info.json").write_text(json.dumps(facts | {"fileFormat": "tfrecord"}))
    with pytest.raises(DataError, match="is prepared as tfrecord; prepare it with file_format='array_record'"):
        load(folder, progress=False)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read by TFDS"):
        load(folder, progress=False)
