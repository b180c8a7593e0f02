"""experiments.data: what it says of data sets that are here, half here, or missing, and how it prepares one."""

import re

import pytest

from tests.named_samples import SAMPLES, described
from tests.script_calls import call, refusal
from vae.datasets import NAMES, cifar10, status, svhn_cropped
from vae.datasets.loading import named


def told(folder, *flags):
    """The lines of each data set, by name."""
    code, out, err = call(folder, "data", "--list", "--data_dir=data", *flags)
    assert (code, err) == (0, "")
    blocks = [block.splitlines() for block in re.split(r"\n(?! )", out.strip())]
    return {block[0].partition(":")[0]: block for block in blocks}


def test_every_data_set_is_listed_with_its_publisher_its_licence_and_what_it_takes(tmp_path):
    found = told(tmp_path)
    assert [*found] == [*NAMES]
    for name, (first, second, *rest) in found.items():
        about = named(name).ABOUT
        assert first == f"{name}: {about}"
        assert second == f"  publisher: {about.publisher}; licence: {about.licence}"
        assert " of memory" in rest[-1]
    assert found["cifar10"] == [
        "cifar10: 50,000 + 10,000 of 32×32, colour",
        "  publisher: A. Krizhevsky, University of Toronto; licence: not stated by the publisher",
        f"  missing: cifar-10-binary.tar.gz (170 MB), {cifar10.DATA.files[0].url}",
        "  to have it: --prepare=cifar10; takes 170 MB of download, up to 369 MB of disk, 184 MB of memory, "
        "369 MB at first",
    ]
    assert found["sprites"][-1] == "  here: it is made when it is used; takes 15 MB of memory"
    assert not any(tmp_path.iterdir())


def test_what_is_here_and_what_is_missing_is_told_file_by_file(tmp_path, monkeypatch):
    (tmp_path / "manual" / "svhn_cropped").mkdir(parents=True)
    (tmp_path / "manual" / "svhn_cropped" / "test_32x32.mat").touch()
    found = told(tmp_path, "--manual_dir=manual")["svhn_cropped"]
    assert found[2] == "  here: test_32x32.mat in manual/svhn_cropped, not checked yet"
    assert found[3] == f"  missing: train_32x32.mat (182 MB), {svhn_cropped.DATA.files[0].url}"
    assert "takes 182 MB of download, " in found[4]
    monkeypatch.setattr(status, "find_spec", lambda name: None)
    assert "  missing: h5py, which reads the files: pip install h5py" in told(tmp_path)["shapes3d"]


def test_a_data_set_is_prepared_once_and_listed_as_prepared(tmp_path, monkeypatch):
    (tmp_path / "manual").mkdir()
    SAMPLES["cifar10"].write(tmp_path / "manual")
    monkeypatch.setattr(cifar10, "DATA", described(cifar10.DATA, tmp_path / "manual"))
    flags = ("--prepare=cifar10", "--data_dir=data")
    code, out, err = call(tmp_path, "data", *flags, "--manual_dir=manual")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "cifar10: train 45, validation 5, test 10, of 32×32×3 uint8",
        f"  10 classes: {', '.join(cifar10.CLASSES)}",
    ]
    again = call(tmp_path, "data", *flags, "--list")
    assert again.out.startswith(out)
    assert "  here: prepared in data/prepared/cifar10-1; takes 184 MB of memory" in again.out


def test_factors_are_named_and_counted(tmp_path):
    out = call(tmp_path, "data", "--prepare=sprites").out
    assert "\n  factors: shape (3), size (4), angle (12), x (10), y (10)\n" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "error: nothing to do: pass --list, or --prepare=NAME"),
        (("--prepare=cifra10",), "did you mean 'cifar10'?"),
        (("--prepare=mnist", "--manual_dir=gone"), "gone is not a folder"),
        (("--list", "--manual_dir=gone"), "gone is not a folder"),
    ],
)
def test_bad_use_is_one_line(tmp_path, flags, words):
    assert words in refusal(tmp_path, "data", *flags)
