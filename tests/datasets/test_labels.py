"""Labels of any kind become positions among classes, whose names are kept."""

import numpy as np
import pytest

from tests.data_samples import pictures
from vae.datasets import DataError, from_arrays, load
from vae.datasets.dataset import Split
from vae.datasets.labels import before_names, compact, natural

IMAGES = pictures(20, 4)
ORDER = np.random.default_rng(0).permutation(20)
THIRD = np.arange(20) % 3


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (THIRD, (0, 1, 2)),
        (THIRD[:, None].astype(np.uint8), (0, 1, 2)),
        (THIRD.astype(np.float32), (0, 1, 2)),
        (np.eye(3)[THIRD], (0, 1, 2)),
        (np.eye(3, dtype=bool)[THIRD], (0, 1, 2)),
        (np.array([3, 50, 900])[THIRD], (3, 50, 900)),
        (np.array([-5, 0, 7_000_003])[THIRD], (-5, 0, 7_000_003)),
        (np.array([0, 2**40, 2**63 + 1], np.uint64)[THIRD], (0, 2**40, 2**63 + 1)),
        (np.array(["x1", "x2", "x10"])[THIRD], ("x1", "x2", "x10")),
        (np.array([b"cat", b"dog", b"owl"])[THIRD], ("cat", "dog", "owl")),
        (np.array([[False], [True], [True]])[THIRD], (0, 1)),
    ],
    ids=str,
)
def test_labels_of_any_kind_are_compacted_and_their_names_kept(tmp_path, labels, classes):
    np.savez(tmp_path / "own.npz", images=IMAGES, labels=labels)
    expected = np.minimum(THIRD, len(classes) - 1)
    for own in (load(tmp_path / "own.npz", validation=2), from_arrays(IMAGES, labels, validation=2)):
        assert own.classes == classes
        assert own.train.labels.dtype == np.int32
        found = np.concatenate([split.labels for split in own[1:4]])
        assert np.array_equal(found, expected[ORDER])


def test_classes_are_those_of_all_splits():
    splits = {name: Split(IMAGES[:2], np.array(labels)) for name, labels in (("train", [7, 3]), ("test", [5, 3]))}
    found, classes = compact(splits, "own")
    assert classes == (3, 5, 7)
    assert [split.labels.tolist() for split in found.values()] == [[2, 0], [1, 0]]


def test_numbers_in_one_split_and_names_in_another_are_refused():
    splits = {"train": Split(IMAGES[:2], np.array([7, 3])), "test": Split(IMAGES[:2], np.array(["7", "3"]))}
    with pytest.raises(DataError, match="own has numbers as the labels of one split and names as those of another"):
        compact(splits, "own")


def test_natural_order_is_that_of_the_numbers_in_names():
    names = ["10", "9", "2b", "2", "x10y2", "x10y10", "x9", "x", "007", "7", "1" * 5000]
    expected = ["2", "2b", "007", "7", "9", "10", "1" * 5000, "x", "x9", "x10y2", "x10y10"]
    assert sorted(names, key=natural) == expected


def test_labels_from_before_names_are_numbers_as_given_and_folders_in_the_order_of_letters():
    labels = np.array([900, 3, 50, 3])
    splits, classes = compact({"train": Split(IMAGES[:4], labels)}, "own")
    own = from_arrays(IMAGES)._replace(train=splits["train"], classes=classes)
    assert before_names(own).train.labels.tolist() == labels.tolist()
    folders = np.array(["10", "2", "1", "2"])
    splits, classes = compact({"train": Split(IMAGES[:4], folders)}, "own")
    assert classes == ("1", "2", "10")
    assert before_names(own._replace(train=splits["train"], classes=classes)).train.labels.tolist() == [1, 2, 0, 2]


def test_medmnist_and_keras_keys_are_read_with_their_own_validation_split(tmp_path):
    medmnist, keras = ("{1}_{0}", ("images", "labels")), ("{0}_{1}", "xy")
    for form, of in (medmnist, keras):
        arrays = {}
        for split, count in (("train", 10), ("val", 4), ("test", 3)):
            arrays[form.format(of[0], split)] = pictures(count, 4, seed=count)
            arrays[form.format(of[1], split)] = np.arange(count)[:, None]
        np.savez(tmp_path / "own.npz", extra=np.zeros(3), **arrays)
        own = load(tmp_path / "own.npz")
        assert [len(split.images) for split in own[1:4]] == [10, 4, 3]
        assert np.array_equal(own.validation.images[..., 0], pictures(4, 4, seed=4))
        assert np.array_equal(own.test.labels, np.arange(3))
        assert own.account == f"17 images used, of the keys {', '.join(arrays)}; passed over: extra"


def test_a_table_is_of_images_of_one_row(tmp_path):
    table = np.random.default_rng(0).uniform(size=(20, 7))
    np.savez(tmp_path / "own.npz", X=table)
    own = load(tmp_path / "own.npz", validation=0)
    found = np.concatenate([own.train.images, own.test.images])
    assert np.array_equal(found, table[ORDER, None, :, None].astype(np.float32))
    assert own.account == "20 images used, of the keys X, each of 7 values as an image of 1×7; passed over: nothing"
