"""Folders of pictures."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.data_samples import pictures
from vae.configuration import absolute
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
    with pytest.raises(DataError, match=r"0.png is 12×12, .*1.png is 8×8; pass `image_size=N`"):
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


def save_pictures(folder, count, size=5, seed=0):
    for index, pixels in enumerate(pictures(count, size, seed)):
        save_picture(folder / f"{index:02}.png", pixels)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("Training", "TESTING"), [18, 2, 4]),
        (("trn", "dev", "test"), [20, 4, 4]),
        (("Train", "Val", "Test"), [20, 4, 4]),
    ],
)
def test_splits_are_known_by_their_names_in_any_case(tmp_path, names, sizes):
    for number, name in enumerate(names):
        for label in "ab":
            save_pictures(tmp_path / name / label, 2 if number else 10)
    own = load(tmp_path)
    assert [len(split.images) for split in own[1:4]] == sizes
    assert own.classes == ("a", "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "car"), r"has train beside car: splits or classes\? Rename"),
        (("Test", "car", "dog"), "has Test beside car, dog: splits or classes"),
        (("test", "val"), "has the splits test, val, and none to train on"),
        (("train", "Training"), "has two folders for one split among Training, train"),
        (("data/train", "data/test"), "has folders named test, train below others, as in .*data/.*; splits come first"),
    ],
)
def test_folders_that_may_be_splits_or_classes_are_refused(tmp_path, names, message):
    for name in names:
        save_pictures(tmp_path / name / "a", 10)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_class_folders_count_in_natural_order_and_keep_their_names(tmp_path):
    for name in ("10", "2", "1"):
        save_pictures(tmp_path / name, 5)
    own = load(tmp_path, validation=0)
    assert own.classes == ("1", "2", "10")
    order = np.random.default_rng(0).permutation(15)
    by_path = np.array([0] * 5 + [2] * 5 + [1] * 5)  # paths stay in the order of letters: 1, 10, 2
    assert np.array_equal(np.concatenate([own.train.labels, own.test.labels]), by_path[order])


def test_links_are_followed_once_and_never_in_a_loop(tmp_path):
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    save_pictures(data / "owl", 10)
    save_pictures(elsewhere / "cat", 4, seed=1)
    save_picture(elsewhere / "one.png", pictures(1, 5, seed=2)[0])
    (data / "cat").symlink_to(elsewhere / "cat")
    (data / "dog").mkdir()
    (data / "dog" / "linked.png").symlink_to(elsewhere / "one.png")
    (data / "again").symlink_to(data / "owl")
    (data / "up").symlink_to(tmp_path)
    (elsewhere / "cat" / "self").symlink_to(elsewhere / "cat")
    (data / "gone.png").symlink_to(tmp_path / "nowhere.png")
    own = load(data, validation=0)
    assert own.classes == ("cat", "dog", "owl")
    assert np.bincount(np.concatenate([own.train.labels, own.test.labels])).tolist() == [4, 1, 10]
    assert own.account == (
        "15 pictures used, 2 links followed; passed over: 3 link to what was read already, 1 broken link"
    )


def with_alpha(folder, ink):
    """Twelve pictures of which alpha alone tells where the ink is, and how much: half in the last row."""
    for index in range(12):
        pixels = np.full((6, 6, 4), ink, np.uint8)
        pixels[..., 3] = 0
        pixels[1 + index % 3, :, 3] = 255
        pixels[5, :, 3] = 128
        save_picture(folder / f"{index:02}.png", pixels)


@pytest.mark.parametrize(("ink", "paper", "half"), [(0, "white", 127), (255, "black", 128)])
def test_transparent_pictures_are_composed_on_what_their_ink_stands_out_from(tmp_path, ink, paper, half):
    with_alpha(tmp_path, ink)
    own = load(tmp_path, validation=0)
    assert own.account == f"12 pictures used, 12 with transparency, on {paper}; passed over: nothing"
    ground = 255 - ink
    for image in own.train.images[..., 0]:
        assert sorted(image.min(1)) == sorted([min(ink, ground), half, *[ground] * 4]) if ink == 0 else True
        assert np.bincount(image.reshape(-1), minlength=256)[[ink, ground, half]].tolist() == [6, 24, 6]


def test_alpha_that_hides_nothing_changes_nothing(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (10, 6, 6, 4), dtype=np.uint8)
    colour[..., 3] = 255
    for index, pixels in enumerate(colour):
        save_picture(tmp_path / f"{index}.png", pixels)
    own = load(tmp_path, validation=0)
    order = np.random.default_rng(0).permutation(10)
    assert np.array_equal(np.concatenate([own.train.images, own.test.images]), colour[order, ..., :3])
    assert own.account == "10 pictures used; passed over: nothing"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(tmp_path, orientation, suffix):
    """Seen: light above, half light at the lower left. Stored by undoing each orientation of the EXIF standard."""
    seen = np.zeros((16, 24), np.uint8)
    seen[:8], seen[8:, :8] = 255, 128
    undone = {
        1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.T, 6: np.rot90(seen, 1),
        7: seen[::-1, ::-1].T, 8: np.rot90(seen, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x112] = orientation
    for index in range(10):
        options = {".webp": {"lossless": True}, ".jpg": {"quality": 100}}.get(suffix, {})
        Image.fromarray(np.ascontiguousarray(undone)).save(tmp_path / f"{index}{suffix}", exif=exif, **options)
    own = load(tmp_path, validation=0)
    assert own.train.images.shape[1:3] == (16, 24)
    assert np.abs(own.train.images[0, ..., 0].astype(int) - seen).max() <= 3
    assert ("10 turned as their EXIF says" in own.account) == (orientation > 1 and suffix != ".tif")


def test_further_frames_and_pages_are_counted(tmp_path):
    frames = [Image.fromarray(pixels) for pixels in pictures(5, 6)]
    for index in range(10):
        suffix = ".gif" if index % 2 else ".tif"
        frames[0].save(tmp_path / f"{index}{suffix}", save_all=True, append_images=frames[1 : 1 + index % 5])
    assert load(tmp_path).account == ("10 pictures used, the first frame each of 8; passed over: 20 further frames")


def test_what_is_passed_over_is_counted_by_kind(tmp_path):
    save_pictures(tmp_path, 10)
    for name in ("a.HEIC", "b.heic", "c.nef", "notes.txt", ".hidden.png", "README", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    assert load(tmp_path).account == (
        "10 pictures used; passed over: 2 .heic, 2 hidden, 1 .db, 1 .nef, 1 .txt, 1 no plain file, 1 without a suffix "
        "(no reader for .heic, .nef: save as .png or .jpg)"
    )


def test_a_folder_of_pictures_without_a_reader_says_so(tmp_path):
    (tmp_path / "a.heic").touch()
    with pytest.raises(DataError, match=r"holds no pictures; .*; passed over: 1 .heic \(no reader for .heic: save as"):
        load(tmp_path)


def test_a_folder_named_like_a_data_set_is_not_mistaken_for_it(tmp_path, monkeypatch):
    """data_dir holds what was prepared of MNIST, under the same name."""
    save_pictures(tmp_path / "mnist", 20)
    (tmp_path / "digits").mkdir()
    prepared = tmp_path / "data" / "mnist" / "3.0.1"
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for name in ("./mnist", str(tmp_path / "mnist")):
        assert load(name, data_dir=tmp_path / "data").test.images.shape == (2, 5, 5, 1)
        assert absolute(name, tmp_path / "data") == str(tmp_path / "mnist")
    assert absolute("digits") == "digits"
    assert (
        load("digits").account == "digits is the data set of that name, not the one in this folder, which is ./digits"
    )


def test_a_relative_path_is_stored_absolute(tmp_path, monkeypatch):
    save_pictures(tmp_path / "cats", 10)
    np.savez(tmp_path / "cats.npz", images=pictures(20, 5))
    monkeypatch.chdir(tmp_path)
    for name in ("cats", "./cats", "cats/", "cats.npz"):
        assert absolute(name, tmp_path) == str((tmp_path / name).resolve())
