"""Splits, a user's own arrays, and what is said where they are wrong."""

import errno
import os
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.data_samples import pictures
from vae import untrusted
from vae.datasets import DataError, default_data_dir, load, loading, npz, prepared
from vae.datasets.builder import tfds
from vae.datasets.dataset import Split
from vae.datasets.resize import area_weights, resize
from vae.datasets.splits import assemble


def save(folder, name="own.npz", **arrays):
    np.savez(folder / name, **arrays)
    return folder / name


def test_importing_and_loading_digits_import_nothing_heavy():
    script = (
        "import sys, vae.datasets; vae.datasets.load('digits', progress=False);"
        "print([m for m in ('jax', 'tensorflow_datasets', 'sklearn', 'PIL', 'absl', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    digits = load("digits", validation=0)
    expected = load_digits()
    images = np.concatenate([digits.train.images, digits.test.images])
    assert np.array_equal(images[..., 0], np.rint(expected.images * 255 / 16))
    assert np.array_equal(np.concatenate([digits.train.labels, digits.test.labels]), expected.target)
    assert digits.train.labels.dtype == np.int32
    assert len(digits.test.images) == 360
    assert not digits.binary


def test_validation_is_the_end_of_the_training_images():
    whole = load("digits", validation=0).train.images
    for given, expected in ((None, 143), (0, 0), (200, 200), (1436, 1436)):
        digits = load("digits", validation=given)
        assert len(digits.validation.images) == len(digits.validation.labels) == expected
        assert np.array_equal(np.concatenate([digits.train.images, digits.validation.images]), whole)


@pytest.mark.parametrize(("num_train", "expected"), [(60_000, 10_000), (50_000, 10_000), (49_999, 4_999), (9, 1)])
def test_validation_of_large_sets_is_ten_thousand_else_a_tenth(num_train, expected):
    split = Split(np.zeros((num_train, 1, 1, 1), np.uint8))
    dataset = assemble("own", split, None, split, None)
    assert (len(dataset.train.images), len(dataset.validation.images)) == (num_train - expected, expected)


def test_own_validation_split_is_used_whole_or_trained_on():
    train, own, test = (Split(pictures(n, seed=n)[..., None]) for n in (8, 4, 5))
    for given in (None, 4):
        assert assemble("own", train, own, test, given).validation.images is own.images
    merged = assemble("own", train, own, test, 0)
    assert np.array_equal(merged.train.images, np.concatenate([train.images, own.images]))
    assert len(merged.validation.images) == 0
    with pytest.raises(DataError, match=r"own validation set of 4 images: validation must be 4, or 0 .* got 3"):
        assemble("own", train, own, test, 3)


@pytest.mark.parametrize("validation", [1437, 5000])
def test_at_least_one_image_is_left_to_train_on(validation):
    with pytest.raises(DataError, match=r"has 1437 training images .* give 0 to 1436"):
        load("digits", validation=validation)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((9, 4, 4), np.uint8), None, r"training images of bars have shape \(9, 4, 4\); give \[N, H, W, C\]"),
        (np.zeros((9, 4, 0, 1), np.uint8), None, r"training images of bars have shape \(9, 4, 0, 1\)"),
        (np.zeros((9, 4, 4, 1), np.int64), None, "training images of bars are int64; give uint8"),
        (np.zeros((9, 4, 4, 1)), None, "training images of bars are float64; give uint8"),
        (np.full((9, 4, 4, 1), 255, np.float32), None, "training images of bars are floats outside"),
        (np.full((9, 4, 4, 1), np.nan, np.float32), None, "training images of bars are floats outside"),
        (np.eye(4, dtype=np.uint8)[None, :, :, None], None, "largest value of the images of bars is 1"),
        (pictures(9, 4)[..., None], np.zeros(8, np.int32), "bars train label has 8 labels for 9 images"),
        (pictures(9, 4)[..., None], np.full(9, 0.5), r"bars train label has shape \(9,\) and type float64"),
        (pictures(9, 4)[..., None], ["a"] * 8, "bars train label has 8 labels for 9 images"),
    ],
)
def test_splits_that_would_train_wrongly_are_refused(monkeypatch, images, labels, words):
    splits = Split(images, labels), Split(images, labels)
    monkeypatch.setattr(loading, "named", {"bars": SimpleNamespace(load=lambda image_size: splits)}.__getitem__)
    monkeypatch.setattr(loading, "NAMES", ("bars",))
    monkeypatch.setattr(loading, "COMPUTED", ("bars",))
    with pytest.raises(DataError, match=words):
        load("bars")


def test_test_images_of_another_size_are_refused():
    train, test = (Split(pictures(9, size)[..., None]) for size in (4, 5))
    with pytest.raises(DataError, match=r"the test images of own have shape \(9, 5, 5, 1\)"):
        assemble("own", train, None, test, None)


def test_negative_numbers_are_refused():
    with pytest.raises(DataError, match="validation=-1 is not possible"):
        load("digits", validation=-1)
    with pytest.raises(DataError, match="image_size=0 is not possible"):
        load("digits", image_size=0)


def test_default_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("VAE_DATA_DIR")
    assert str(default_data_dir()) == "/cache/vae"


def test_unknown_names_get_a_suggestion(tmp_path):
    with pytest.raises(
        DataError, match=r"unknown data set 'mnits'; did you mean 'mnist'\? One of: mnist, fashion_mnist"
    ):
        load("mnits", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"nowhere.npz does not exist"):
        load(tmp_path / "nowhere.npz", data_dir=tmp_path)
    for name in ("./nowhere", ""):
        with pytest.raises(DataError, match=r"does not exist|unknown data set ''"):
            load(name, data_dir=tmp_path)


@pytest.mark.parametrize("source", [3, 5, 28, 105])
@pytest.mark.parametrize("target", [1, 4, 28])
def test_area_weights_are_the_overlaps_of_intervals(source, target):
    weights = area_weights(source, target)
    fine = np.repeat(np.arange(source), target)  # `target` sub-pixels a pixel make `source` a cell
    counted = [np.bincount(cell, minlength=source) for cell in fine.reshape(target, source)]
    assert np.array_equal(weights, counted)


def test_resize_crops_the_centre_and_averages_exactly():
    images = pictures(3, 105)[..., None]
    wide = np.concatenate([images[:, :, :10] * 0, images, images[:, :, :11] * 0], axis=2)
    fine = np.repeat(np.repeat(images[..., 0].astype(np.int64), 4, 1), 4, 2)  # 420 = 28 × 15
    exact = fine.reshape(3, 28, 15, 28, 15).sum((2, 4))
    expected = (2 * exact + 225) // 450  # rounded; 225 is odd, so that there are no ties
    assert np.array_equal(resize(wide, 28)[..., 0], expected)
    floats = resize(images.astype(np.float32) / 255, 28)
    np.testing.assert_allclose(floats[..., 0], exact / 225 / 255, rtol=1e-6)


def test_an_image_size_that_exceeds_the_memory_is_refused_before_it_is_made(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", images=np.zeros((20, 4, 4), np.uint8))
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**9)
    monkeypatch.setattr(loading, "resize", None)
    for name in ("digits", str(tmp_path / "own.npz")):
        with pytest.raises(
            DataError, match=rf"the images of {name} at `image_size=9000` take .* GB, but there are 1 GB"
        ):
            load(name, image_size=9000)


def test_image_size_resizes_any_data_set():
    assert load("digits", image_size=4).train.images.shape == (1294, 4, 4, 1)


def test_npz_without_test_is_permuted_and_its_last_tenth_is_test(tmp_path):
    images = pictures(50, 4)
    first, again = (load(save(tmp_path, x=images, labels=np.arange(50))) for _ in range(2))
    assert [len(split.images) for split in first[1:4]] == [41, 4, 5]
    labels = np.concatenate([split.labels for split in first[1:4]])
    assert sorted(labels) == list(range(50))
    assert not np.array_equal(labels, np.arange(50))
    for split, repeated in zip(first[1:4], again[1:4], strict=True):
        assert np.array_equal(split.images[..., 0], images[split.labels])
        assert np.array_equal(split.images, repeated.images)


@pytest.mark.parametrize(
    "keys", [("images", "labels", "images_test", "labels_test"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_npz_with_a_test_set_keeps_it_and_permutes_the_rest(tmp_path, keys):
    train, test = pictures(20, 4), pictures(6, 4, seed=1)
    arrays = dict(zip(keys, (train, np.arange(20), test, np.arange(6)), strict=True))
    own = load(save(tmp_path, **arrays), validation=0)
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(own.train.images[..., 0], train[order])
    assert np.array_equal(own.train.labels, order)
    assert np.array_equal(own.test.images[..., 0], test)
    assert np.array_equal(own.test.labels, np.arange(6))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_npz_on_the_grid_becomes_the_same_bytes(tmp_path, dtype):
    images = pictures(20, 4)
    given = images.astype(dtype) if dtype == np.int64 else (images / 255).astype(dtype)
    own = load(save(tmp_path, images=given, images_test=given))
    assert own.test.images.dtype == np.uint8
    assert np.array_equal(own.test.images[..., 0], images)


def test_npz_off_the_grid_stays_float(tmp_path):
    images = np.random.default_rng(0).uniform(size=(20, 4, 4, 3))
    own = load(save(tmp_path, images=images, images_test=images))
    assert own.test.images.dtype == np.float32
    assert np.array_equal(own.test.images, images.astype(np.float32))
    assert not own.binary


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
@pytest.mark.parametrize("ones", [1, 255])
def test_binary_images_are_0_and_255(tmp_path, dtype, ones):
    images = pictures(20, 4) > 127
    given = images.astype(dtype) * (ones if dtype == np.uint8 else 1)
    own = load(save(tmp_path, images=given.astype(dtype), images_test=given.astype(dtype)))
    assert own.binary
    assert np.array_equal(own.test.images[..., 0], images * 255)


def test_one_grey_pixel_anywhere_is_not_binary(tmp_path):
    images = np.zeros((20, 4, 4), np.uint8)
    images[0, 0, 0] = 255
    test = images.copy()
    test[-1, -1, -1] = 7
    assert load(save(tmp_path, images=images, images_test=images)).binary
    assert not load(save(tmp_path, images=images, images_test=test)).binary


X = pictures(20, 4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X - 1.5}, r"own.npz: images \(float64\) ranges from -1.5 to .*; floats must lie in \[0, 1\]"),
        ({"x": X / 255.0 + np.inf}, "ranges from inf to inf"),
        ({"x": np.where(X > 127, np.nan, 0.5)}, "own.npz: x has NaN pixels"),
        ({"x": X.astype(int) - 1}, r"ranges from -1 to \d+; integers must lie in 0..255"),
        ({"x": X.astype(int) + 256}, "integers must lie in 0..255"),
        ({"x": X[0, 0]}, r"has shape \(4,\); images are \[N, H, W\] or \[N, H, W, C\], or a table \[N, D\]"),
        ({"x": X.reshape(2, 10, 2, 2, 4)}, r"images are \[N, H, W\] or \[N, H, W, C\]"),
        ({"x": pictures(20, 8).reshape(20, 1, 8, 8)}, "channels come last and are 4 at most"),
        ({"x": X[:0]}, "there is no pixel in it"),
        ({"x": X.astype(complex)}, "is of type complex128"),
        ({"x": X.astype(str)}, "is of type <U"),
        ({"x": X.astype(object)}, "holds Python objects"),
        ({"data": X, "other": X}, "has no key 'images' or 'x'; its keys are: data, other"),
        ({}, "has no key 'images' or 'x'; its keys are: none"),
        ({"x": X, "labels": np.arange(19)}, "labels has 19 labels for 20 images"),
        (
            {"x": X, "labels": 1 - np.eye(20)},
            r"labels has shape \(20, 20\) and type float64; labels are \[N\] int",
        ),
        ({"x": X, "labels": np.full(20, 0.5)}, r"labels has shape \(20,\) and type float64; labels are \[N\] integers"),
        ({"x": X, "labels_test": np.arange(20)}, "has the key 'labels_test' but no 'images_test' or 'x_test'"),
        ({"x": X, "x_test": pictures(20, 5)}, "images differ in shape"),
        ({"x": X, "x_test": X / 255}, "images differ in type"),
        ({"x": X[:9]}, "holds 9 images; at least 10 are needed"),
    ],
)
def test_bad_npz_is_refused_in_one_line(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message) as caught:
        load(save(tmp_path, **arrays))
    assert "\n" not in str(caught.value)


def test_damaged_npz_is_refused(tmp_path):
    whole = save(tmp_path, x=pictures(50, 8)).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content, message in (
        (whole[: len(whole) // 2], "is not an .npz file .* or it is cut short"),
        (b"", "is not an .npz file"),
        (bytes(flipped), "is damaged"),
    ):
        (tmp_path / "own.npz").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(tmp_path / "own.npz")
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x.npy", b"not an array")
    with pytest.raises(DataError, match=r"own.npz is damaged: x.npy is no array"):
        load(tmp_path / "own.npz")
    (tmp_path / "own.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"own.txt is not an .npz file"):
        load(tmp_path / "own.txt")


def fails(number):
    """As the system does, and as libraries pass it on."""
    text = f"{os.strerror(number)}; reading x"

    def raises(*args, **kwargs):
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            if number == errno.EACCES:
                raise ValueError("File is not a zip file") from error
            raise

    def tells(*args, **kwargs):
        raise RuntimeError(text)

    return raises, tells


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_what_the_system_refuses_is_not_called_damage(tmp_path, monkeypatch, number):
    """Nobody is told to delete or to replace what is whole."""
    raises, tells = fails(number)
    place = save(tmp_path, images=pictures(20, 4))
    (tmp_path / "folder").mkdir()
    Image.fromarray(pictures(1, 4)[0]).save(tmp_path / "folder" / "0.png")
    said = rf"cannot load \S+: \[Errno {number}\] {os.strerror(number)}: '{tmp_path}/"
    with monkeypatch.context() as patch:
        patch.setattr(npz.zipfile, "ZipFile", raises)
        with pytest.raises(DataError, match=said + "own.npz'"):
            load(place)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", raises)
        with pytest.raises(DataError, match=said + "folder/0.png'"):
            load(tmp_path / "folder", progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", raises)
        with pytest.raises(DataError, match=said + "folder/0.png'"):
            load(tmp_path / "folder", progress=False)
    monkeypatch.setattr(prepared, "check_classes", lambda folder: None)
    monkeypatch.setattr(tfds, "builder_from_directory", tells)
    with pytest.raises(OSError, match=f"Errno {number}"):
        prepared._open(tmp_path)
    builder = SimpleNamespace(as_data_source=tells, data_dir=tmp_path)
    with pytest.raises(OSError, match=f"Errno {number}"):
        list(prepared._blocks(builder, "train", "own train", None, False))
