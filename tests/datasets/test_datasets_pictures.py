"""Folders of pictures."""

import numpy as np
import pytest
from PIL import Image

from tests.data_samples import pictures
from vae.datasets import DataError, load
from vae.datasets.resize import resize


def save_picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_grey_pictures_in_sorted_order_with_folders_as_labels(tmp_path):
    images = pictures(20, 6)
    for index in reversed(range(20)):
        save_picture(tmp_path / "ab"[index // 10] / "deep" / f"{index:02}.PNG", images[index])
    (tmp_path / "a" / "notes.txt").write_text("passed over")
    (tmp_path / "a" / "._00.png").write_text("passed over")
    own = load(tmp_path, validation=0)
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(np.concatenate([own.train.images, own.test.images])[..., 0], images[order])
    assert np.array_equal(np.concatenate([own.train.labels, own.test.labels]), order // 10)
    assert own.test.images.shape == (2, 6, 6, 1)


def test_one_colour_picture_makes_all_have_three_channels(tmp_path):
    images = pictures(10, 6)
    colour = np.stack(list(images[:3]), -1)
    for index in range(10):
        save_picture(tmp_path / f"{index}.png", colour if index == 5 else images[index])
    own = load(tmp_path, validation=0)
    pixels = np.concatenate([own.train.images, own.test.images])
    position = list(np.random.default_rng(0).permutation(10)).index(5)
    assert own.train.labels is None
    assert np.array_equal(pixels[position], colour)
    grey = np.delete(pixels, position, 0)
    assert np.array_equal(grey, np.repeat(grey[..., :1], 3, -1))


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_folders_named_train_and_test_are_splits(tmp_path, validation):
    for split, count in (("train", 6), ("test", 3), (validation, 2)):
        for index in range(count):
            save_picture(tmp_path / split / f"class{index % 2}" / f"{index}.png", pictures(1, 5, seed=count)[0])
    own = load(tmp_path)
    assert [len(split.images) for split in own[1:4]] == [6, 2, 3]
    order = np.random.default_rng(0).permutation(6)
    assert own.train.labels.tolist() == (order // 3).tolist()
    assert own.test.labels.tolist() == [0, 0, 1]
    save_picture(tmp_path / "test" / "flat.png", pictures(1, 5)[0])
    own = load(tmp_path)
    assert own.test.labels is None
    assert own.train.labels.tolist() == (order // 3).tolist()
    save_picture(tmp_path / "stray.png", pictures(1, 5)[0])
    with pytest.raises(DataError, match=f"1 pictures outside its folders test, train, {validation}"):
        load(tmp_path)


def test_pictures_of_different_sizes_are_refused_or_resized(tmp_path):
    for index in range(10):
        save_picture(tmp_path / f"{index}.png", pictures(1, 8 if index else 12)[0])
    with pytest.raises(DataError, match=r"0.png is 12×12, .*1.png is 8×8; pass --image_size=N"):
        load(tmp_path)
    own = load(tmp_path, image_size=4, validation=0)
    expected = {resize(pictures(1, size)[..., None], 4).tobytes() for size in (8, 12)}
    assert {image.tobytes() for image in np.concatenate([own.train.images, own.test.images])} == expected


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no pictures; files that end in .png"):
        load(tmp_path)
    for index in range(9):
        save_picture(tmp_path / f"{index}.png", pictures(1, 40)[0])
    with pytest.raises(DataError, match="holds 9 images; at least 10"):
        load(tmp_path)
    whole = (tmp_path / "0.png").read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "x.png is damaged"),
        (b"no picture", "x.png is not a picture"),
    ):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(tmp_path)
    save_picture(tmp_path / "x.png", pictures(1, 40)[0].astype(np.uint16) * 256)
    with pytest.raises(DataError, match=r"x.png has more than 8 bits"):
        load(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    for index in range(10):
        save_picture(tmp_path / ("train", "car")[index % 2] / f"{index}.png", pictures(1, 5)[0])
    own = load(tmp_path, validation=0)
    assert sorted([*own.train.labels.tolist(), *own.test.labels.tolist()]) == [0] * 5 + [1] * 5
