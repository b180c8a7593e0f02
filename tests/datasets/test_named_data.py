"""Each data set of published files: read from small files of its format, and one line if they are wrong."""

import hashlib
import io
import shutil
import sys

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.named_samples import DSPRITES, SAMPLES, described
from vae import untrusted
from vae.datasets import DataError, celeba, dsprites, frey_faces, hdf5, load, mat, shapes3d
from vae.datasets.loading import named
from vae.datasets.sources import mismatch
from vae.datasets.table import FETCHED


@pytest.fixture(params=FETCHED)
def sample(request, tmp_path, monkeypatch):
    """The name of a data set whose small files lie in tmp_path/manual, what is in them, and how they are described."""
    name = request.param
    if name == "shapes3d":
        pytest.importorskip("h5py")
    module, (write, _, _, patched) = named(name), SAMPLES[name]
    manual = tmp_path / "manual"
    manual.mkdir()
    for field, value in patched.items():
        monkeypatch.setattr(module, field, value)
    splits = write(manual)

    def describe():
        monkeypatch.setattr(module, "DATA", described(named_data, manual))

    named_data = module.DATA
    describe()
    return name, splits, describe


def prepare(tmp_path, name):
    return load(name, data_dir=tmp_path / "data", manual_dir=tmp_path / "manual", progress=False)


def refusal(tmp_path, name):
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / "prepared" / f"{name}-1").exists()
    return str(caught.value)


def jpeg(height, width):
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "jpeg")
    return file.getvalue()


def first(tmp_path, name):
    return tmp_path / "manual" / named(name).DATA.files[0].name


def test_the_splits_are_what_the_files_hold(tmp_path, sample):
    name, splits, _ = sample
    found = prepare(tmp_path, name)
    own = "validation" in splits
    held_out = 0 if own else len(found.validation.images)
    if held_out:
        splits["train"], splits["validation"] = (
            splits["train"].at(slice(-held_out)),
            splits["train"].at(slice(-held_out, None)),
        )
    assert found.factors == named(name).ABOUT.factors
    for split, expected in splits.items():
        got = getattr(found, split)
        assert got.images.dtype == expected.images.dtype
        assert np.array_equal(got.images, expected.images), split
        assert (got.labels is None, got.factors is None) == (expected.labels is None, expected.factors is None)
        if expected.labels is not None:
            assert [found.classes[label] for label in got.labels] == expected.labels.tolist()
        if expected.factors is not None:
            assert np.array_equal(got.factors, expected.factors)
            assert (got.factors < [len(values) for values in found.factors.values()]).all()


def test_a_missing_file_is_named_with_what_to_do(tmp_path, sample):
    name, _, _ = sample
    path = first(tmp_path, name)
    path.unlink()
    said = refusal(tmp_path, name)
    assert said.startswith(f"{name} needs {path.name}, and no source has them: not in {tmp_path / 'manual'}")
    assert "pass `manual_dir=FOLDER`" in said


def test_a_file_with_another_checksum_is_refused(tmp_path, sample):
    name, _, _ = sample
    path = first(tmp_path, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"{path} is damaged or another file: sha256 " in refusal(tmp_path, name)


def test_a_truncated_file_is_refused_by_its_reader_too(tmp_path, sample):
    name, _, describe = sample
    path = first(tmp_path, name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    described_whole = refusal(tmp_path, name)
    assert f"{path} is damaged or another file: sha256 " in described_whole
    if named(name).DATA.files[0].unpacked:
        return  # the checksum of what it holds cannot be computed
    describe()
    said = refusal(tmp_path, name)
    assert path.name in said
    assert "damaged" in said or "cut short" in said


def test_a_file_of_its_format_without_what_is_wanted_is_refused(tmp_path, sample):
    name, _, describe = sample
    SAMPLES[name].other(tmp_path / "manual")
    describe()
    said = refusal(tmp_path, name)
    assert first(tmp_path, name).name in said
    assert SAMPLES[name].words in said


def test_without_h5py_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.h5").touch()
    with pytest.raises(DataError, match=r"x.h5 is an HDF5 file, and h5py, .* is not installed: pip install h5py"):
        hdf5.read(tmp_path / "x.h5", "images")


def test_both_forms_of_dsprites_and_of_frey_faces_hold_the_same(tmp_path, monkeypatch):
    SAMPLES["frey_faces"].write(tmp_path)
    film = frey_faces.read_file(tmp_path / "freyfaces.pkl")
    scipy.io.savemat(tmp_path / "frey_rawface.mat", {"ff": film.reshape(-1, 560).T})
    (file,) = frey_faces.DATA.files
    assert np.array_equal(frey_faces.read_file(tmp_path / "frey_rawface.mat"), film)
    assert "frey_rawface.mat is damaged or another file: content " in mismatch(file, tmp_path / "frey_rawface.mat")
    pixels = f"content:{hashlib.sha256(film.tobytes()).hexdigest()}"
    assert mismatch(file._replace(forms={"frey_rawface.mat": pixels}), tmp_path / "frey_rawface.mat") is None
    h5py = pytest.importorskip("h5py")
    splits = SAMPLES["dsprites"].write(tmp_path)
    with np.load(tmp_path / f"{DSPRITES}.npz") as arrays, h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["imgs"], file["latents/classes"] = arrays["imgs"], arrays["latents_classes"]
    found = dsprites.read([tmp_path / "x.hdf5"])
    assert all(np.array_equal(found[name].images, split.images) for name, split in splits.items())


@pytest.mark.parametrize("place", ["", "celeba"])
def test_the_folder_of_celeba_stands_for_its_archive_and_stays_where_it_is(tmp_path, monkeypatch, place):
    manual = tmp_path / "manual" / place
    manual.mkdir(parents=True)
    splits = SAMPLES["celeba"].write(manual)
    archive = manual / "img_align_celeba.zip"
    partition = described(celeba.DATA, manual).files[1]
    monkeypatch.setattr(celeba, "DATA", celeba.DATA._replace(files=(celeba.DATA.files[0], partition)))
    shutil.unpack_archive(archive, manual)
    archive.unlink()
    found = prepare(tmp_path, "celeba")
    assert np.array_equal(found.test.images, splits["test"].images)
    assert len(list((manual / "img_align_celeba").iterdir())) == 12
    shutil.rmtree(tmp_path / "data")
    picture = manual / "img_align_celeba" / "000003.jpg"
    whole = picture.read_bytes()
    for content, words in (
        (whole[:100], "img_align_celeba: 000003.jpg is damaged"),
        (None, "img_align_celeba has no picture 000003.jpg"),
        (jpeg(20, 30), r"img_align_celeba: 000003.jpg is of 30×20, not 178×218"),
    ):
        picture.unlink() if content is None else picture.write_bytes(content)
        assert words in refusal(tmp_path, "celeba")


@pytest.mark.parametrize("line", ["000001.jpg 3", "000001.jpg", "../x.jpg 0", "a/b.jpg 1"])
def test_a_wrong_line_of_celebas_splits_is_named(tmp_path, line):
    (tmp_path / "list_eval_partition.txt").write_text(f"000000.jpg 0\n{line}\n")
    with pytest.raises(DataError, match=r"list_eval_partition.txt, line 2, is damaged"):
        celeba.read([tmp_path / "none.zip", tmp_path / "list_eval_partition.txt"])


def test_3d_shapes_without_all_values_of_a_factor_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    SAMPLES["shapes3d"].write(tmp_path)
    with h5py.File(tmp_path / "3dshapes.h5", "r+") as file:
        file["labels"][:, 4] = 0
    with pytest.raises(DataError, match="has 1 values of shape, not 4"):
        shapes3d.read([tmp_path / "3dshapes.h5"])


def test_an_object_in_a_mat_file_is_refused_by_its_class_and_a_large_matrix_by_its_size(tmp_path, monkeypatch):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"X": {"a": 1}, "Y": np.array([1, "a"], object), "Z": np.eye(20)})
    monkeypatch.setattr(scipy.io, "loadmat", None)  # nothing is decoded
    for name, kind in (("X", "struct"), ("Y", "cell")):
        with pytest.raises(DataError, match=f"{name} is of class {kind}, which is not read"):
            mat.read(path, name)
    with pytest.raises(DataError, match="Z is no list of names"):
        mat.read_names(path, "Z")
    monkeypatch.setattr(untrusted, "available_memory", lambda: 1000)
    with pytest.raises(DataError, match="Z of 20×20 takes"):
        mat.read(path, "Z")


def test_there_is_a_sample_of_each():
    assert SAMPLES.keys() == {*FETCHED}
