"""Data sets that a stranger made: no code of theirs runs, no program starts, and what a head claims is not believed."""

import io
import json
import os
import shutil
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tests.audit import audited, imported, programs
from tests.data_samples import pictures
from tests.datasets.test_datasets_prepared import own_tfds
from vae import untrusted
from vae.datasets import DataError, load, npz

EVIL = "cats.payload.X"
NAMED = {"pythonClassName": EVIL, "jsonFeature": {"json": "{}"}}


def nested(inner, key="pythonClassName"):
    """A FeaturesDict as TFDS writes it, with the feature `inner`."""
    known = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    return {key: known, "featuresDict": {"features": {"image": inner}}}


def legacy(inner):
    """As TFDS 4.0 wrote it."""
    return {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "content": {"image": inner}}


OF_PROTO = {"pythonClassName": EVIL, "tensor": {"dtype": "uint8"}}
SEQUENCE = "tensorflow_datasets.core.features.sequence_feature.Sequence"
FEATURES = {
    "as the top": {"pythonClassName": EVIL, "featuresDict": {"features": {}}},
    "as a feature": nested(NAMED),
    "under the name of the field": nested({"python_class_name": EVIL, "tensor": {}}, "python_class_name"),
    "in a sequence": nested({"pythonClassName": SEQUENCE, "sequence": {"feature": OF_PROTO, "length": "-1"}}),
    "in JSON in a text": {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "jsonFeature": {"json": json.dumps({"image": {"type": EVIL, "content": {}}})},
    },
    "as of old": legacy({"type": EVIL, "content": {}}),
    "as of old, in a text": legacy(
        {"type": SEQUENCE, "content": json.dumps({"feature": OF_PROTO}), "proto_cls": "tensorflow_datasets.Sequence"}
    ),
}  # fmt: skip


def cats(folder, features):
    """A folder that says it is a prepared data set; payload.py leaves a file EXECUTED beside it."""
    folder.mkdir()
    about = {"name": "cats", "version": "1.0.0", "fileFormat": "array_record", "moduleName": EVIL, "splits": []}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "__init__.py").touch()
    (folder / "payload.py").write_text(f"open({str(folder.parent / 'EXECUTED')!r}, 'w').close()\n")
    return folder


def importable(folder, monkeypatch):
    """As of a script that is started beside the data set."""
    monkeypatch.syspath_prepend(str(folder))
    for name in ("cats", "cats.payload"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
def test_no_module_that_a_data_set_names_is_imported(tmp_path, monkeypatch, features):
    importable(tmp_path, monkeypatch)
    folder = cats(tmp_path / "cats", features)
    with (
        audited() as found,
        pytest.raises(DataError, match=r"cats/features.json names the feature class 'cats.payload.X', whose") as caught,
    ):
        load(folder, progress=False)
    assert "\n" not in str(caught.value)
    assert not [name for name in imported(found) if name.startswith("cats")]
    assert not (tmp_path / "EXECUTED").exists()


def test_the_module_of_a_data_set_with_known_features_is_not_imported_either(tmp_path, monkeypatch):
    folder = own_tfds(tmp_path, monkeypatch, train={"image": pictures(12, 5)[..., None]})
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"moduleName": EVIL}))
    shutil.copytree(cats(tmp_path / "cats", {}), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.json"))
    importable(tmp_path, monkeypatch)
    with audited() as found:
        assert len(load(folder, validation=0, progress=False).train.images) == 11
    assert not [name for name in imported(found) if name.startswith("cats")]
    assert not (tmp_path / "EXECUTED").exists()


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", '{"type": NaN}', b"\xff\xfe{"])
def test_features_that_are_no_json_object_are_one_line(tmp_path, content):
    folder = cats(tmp_path / "cats", {})
    (folder / "features.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"features.json is damaged: .*prepare the data set again") as caught:
        load(folder, progress=False)
    assert "\n" not in str(caught.value)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"


@pytest.fixture
def ghostscript(tmp_path_factory, monkeypatch):
    """A program of its name, which Pillow finds."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "gs").write_text("#!/bin/sh\nexit 1\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)


@pytest.mark.usefixtures("ghostscript")
def test_postscript_starts_no_program(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02}.png").write_bytes(POSTSCRIPT)
    with audited() as found, pytest.raises(DataError, match=r"00.png is not a picture that can be read; PNG, JPEG"):
        load(tmp_path, progress=False)
    assert not programs(found)


@pytest.mark.usefixtures("ghostscript")
def test_postscript_in_a_prepared_data_set_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.datasets.test_datasets_prepared.png", lambda pixels: io.BytesIO(POSTSCRIPT))
    folder = own_tfds(tmp_path, monkeypatch, train={"image": pictures(12, 8)[..., None].repeat(3, -1)})
    with audited() as found, pytest.raises(DataError, match="train is damaged: a picture in it is neither PNG nor"):
        load(folder, progress=False)
    assert not programs(found)


def npy(shape, content=b"", descr="|u1"):
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = head.ljust(-(-(len(head) + 11) // 64) * 64 - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def write_npz(path, content, method=zipfile.ZIP_STORED, name="images.npy"):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)


def claiming(path, size):
    """Let both heads of the only member say that it is of `size` bytes."""
    content = bytearray(path.read_bytes())
    at, directory = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
    content[at + 22 : at + 26] = content[directory + 24 : directory + 28] = struct.pack("<I", size)
    path.write_bytes(content)


CLAIMS = "more than the file can hold"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write_npz(path, npy((600_000, 2240, 2240, 3))), r"claims uint8 of .* 9,031,680,000,000 bytes"),
        (lambda path: write_npz(path, npy((60, 8, 8), b"\0" * 100)), "3,840 bytes, and holds 100"),
        (lambda path: write_npz(path, npy((-60, -8, 8), b"\0" * 3840)), "claims uint8 of"),
        (lambda path: write_npz(path, npy((10**30, 8, 8))), "claims uint8 of"),
        (lambda path: write_npz(path, npy("((" * 3000)), "damaged"),
        (lambda path: write_npz(path, npy((20, 8, 8), b"", "|O")), "holds Python objects"),
        (lambda path: (write_npz(path, npy((3_000_000, 1000))), claiming(path, 3_000_000_128)), CLAIMS),
        (
            lambda path: (
                write_npz(path, npy((3_000_000, 1000), bytes(10**6)), zipfile.ZIP_DEFLATED),
                claiming(path, 3_000_000_128),
            ),
            CLAIMS,
        ),
    ],
)  # fmt: skip
def test_an_npz_whose_head_claims_what_is_not_there_is_one_line(tmp_path, make, message):
    """Before any of it is allocated: 9 TB would be a MemoryError, and 3 GB would be had and filled with nothing."""
    make(tmp_path / "own.npz")
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "own.npz")
    assert "\n" not in str(caught.value)


def test_an_encrypted_npz_is_one_line(tmp_path):
    np.savez(tmp_path / "own.npz", images=pictures(20, 8))
    content = bytearray((tmp_path / "own.npz").read_bytes())
    for head, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(head) + offset] |= 1
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"own.npz is damaged: images.npy is encrypted, and no password"):
        load(tmp_path / "own.npz")


def test_an_npz_larger_than_the_memory_is_refused_with_its_bytes(tmp_path, monkeypatch):
    np.savez(tmp_path / "own.npz", images=pictures(20, 100), other=np.zeros(10**6))
    monkeypatch.setattr(untrusted, "available_memory", lambda: 199_999)
    with pytest.raises(DataError, match=r"above all 'images', take 0.0002 GB, but there are 0.0002 GB of free memory"):
        load(tmp_path / "own.npz")
    monkeypatch.setattr(untrusted, "available_memory", lambda: 200_000)  # what is not read takes nothing
    assert len(load(tmp_path / "own.npz").test.images) == 2


def test_other_compressions_are_read_and_their_damage_is_one_line(tmp_path):
    images = pictures(20, 8)
    write_npz(tmp_path / "own.npz", npy((20, 8, 8), images.tobytes()), zipfile.ZIP_LZMA)
    assert np.array_equal(npz.read(tmp_path / "own.npz", {"images"})["images"], images)
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[200] ^= 255
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"own.npz is damaged: .*; save it again"):
        load(tmp_path / "own.npz")


def claimed_png(side, padding=0):
    """A grey PNG that claims to be of side × side and holds one line, and as many bytes that say nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = {b"IHDR": head, b"tEXt": b"x\0" + b"x" * padding, b"IDAT": zlib.compress(bytes(side + 1)), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in chunks.items())


def test_a_png_that_claims_more_than_its_bytes_can_hold_is_refused_by_its_head(tmp_path):
    """Pillow would fill it up, and 120 of 100 bytes each take 20 GB."""
    (tmp_path / "0.png").write_bytes(claimed_png(13_000))
    message = r"0.png claims 13000×13000 pixels, more than its \d+ bytes can hold; .*: replace or remove it"
    with pytest.raises(DataError, match=message):
        load(tmp_path, image_size=8, progress=False)


def test_a_blank_picture_is_not_taken_for_one(tmp_path):
    """The highest compression that there is: of one bit a pixel."""
    for i in range(12):
        Image.new("1", (3000, 3000)).save(tmp_path / f"{i}.png", compress_level=9)
    assert load(tmp_path, image_size=8, progress=False).train.images.max() == 0


def test_pictures_in_a_prepared_data_set_are_checked_before_any_is_decoded(tmp_path, monkeypatch):
    content = [claimed_png(13_000)]
    monkeypatch.setattr("tests.datasets.test_datasets_prepared.png", lambda pixels: io.BytesIO(content[-1]))
    folder = own_tfds(tmp_path, monkeypatch, train={"image": pictures(12, 8)[..., None]})
    with pytest.raises(DataError, match=r"train is damaged: claims 13000×13000 pixels, more than its \d+ bytes can"):
        load(folder, progress=False)
    shutil.rmtree(folder)
    content.append(claimed_png(13_000, 30_000))
    folder = own_tfds(tmp_path, monkeypatch, train={"image": pictures(12, 8)[..., None]})
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**9)
    message = r"train: 12 pictures, one of them of 13000×13000, take 4.225 GB, but there are 1 GB of free memory; pass"
    with pytest.raises(DataError, match=message):
        load(folder, progress=False)
    with pytest.raises(DataError, match=r"take 1.521 GB, .*; use a smaller `image_size`"):
        load(folder, image_size=8, progress=False)


def test_pictures_that_claim_more_than_the_memory_are_refused_before_any_is_decoded(tmp_path, monkeypatch, recwarn):
    for i in range(120):
        (tmp_path / f"{i:03}.png").write_bytes(claimed_png(13_000, 30_000))
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**10)
    message = r"120 pictures of 13000×13000 in .*, take 21.12 GB, but there are 10 GB of free memory; pass `image_"
    with pytest.raises(DataError, match=message):
        load(tmp_path, progress=False)
    monkeypatch.setattr(untrusted, "available_memory", lambda: 10**9)  # of one picture, copied and averaged: 2.2
    with pytest.raises(DataError, match=r"120 pictures of 28×28 in .* 13000×13000, take 2.197 GB, but there are 1 GB"):
        load(tmp_path, image_size=28, progress=False)
    (tmp_path / "000.png").write_bytes(claimed_png(20_000))
    with pytest.raises(DataError, match=r"000.png claims more pixels than Pillow decodes \(Image size \(400000000"):
        load(tmp_path, progress=False)
    assert not recwarn.list


def test_every_suffix_is_read_in_its_own_format(tmp_path):
    colour = pictures(12, 8)[..., None].repeat(3, -1)
    from vae.datasets.files import SUFFIXES

    for i, suffix in enumerate(SUFFIXES):
        image = Image.fromarray(colour[i] if suffix != ".pgm" else colour[i, ..., 0])
        image.save(tmp_path / f"{i:02}{suffix}")
    assert load(tmp_path, validation=0, progress=False).train.images.shape == (9, 8, 8, 3)
