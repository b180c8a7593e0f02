"""Pickles of numeric arrays: read as pickle reads them, and whatever else is in one is neither run nor made."""

import os
import pickle
import pickletools
import resource

import numpy as np
import pytest
from hypothesis import given

from tests.datasets.test_fuzz import CHANGES, damaged, few, read_or_refused
from tests.named_samples import python2_pickle
from vae.datasets import DataError, pickled

ARRAYS = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.asfortranarray(np.eye(3)), np.arange(3, dtype=">i4")]


@pytest.fixture
def written(tmp_path):
    def write(content):
        (tmp_path / "x.pkl").write_bytes(content)
        return tmp_path / "x.pkl"

    return write


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_are_read_as_they_were_pickled(written, protocol):
    found = pickled.read(written(pickle.dumps(ARRAYS, protocol)))
    for array, expected in zip(found, ARRAYS, strict=True):
        assert array.dtype == expected.dtype.newbyteorder("=")
        assert np.array_equal(array, expected)


def test_what_python_2_wrote_is_read(written):
    (found,) = pickled.read(written(python2_pickle(ARRAYS[0])))
    assert np.array_equal(found, ARRAYS[0])


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "held", [Runs(os.mkdir, "made"), Runs(eval, "1"), Runs(getattr, "x", "y"), np.random.RandomState(0), {1: 2}, {1}]
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_run_and_nothing_else_is_made(written, held, protocol, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for content in (held, [held], [ARRAYS[0], held]):
        with pytest.raises(DataError, match="is damaged or no pickle of numeric arrays: ") as caught:
            pickled.read(written(pickle.dumps(content, protocol)))
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array([1j]), np.zeros(1, "u1,u1")])
def test_arrays_of_other_things_than_numbers_are_refused(written, array):
    with pytest.raises(DataError, match="no pickle of numeric arrays"):
        pickled.read(written(pickle.dumps([array], 2)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"I3\nI4\n", b"I3\nI5\n", r"claims the shape \(3, 5\) and holds 12 bytes"),
        (b"I3\nI4\n", b"I3000000000\nI4\n", r"claims the shape \(3000000000, 4\)"),
        (b"I3\nI4\n", b"I-3\nI-4\n", r"claims the shape \(-3, -4\)"),
        (b"u1", b"O8", "not of numbers"),
        (b"S'|'", b"S'?'", "not of numbers"),
        (b"numpy\nndarray", b"numpy\nmemmap", "it wants numpy.memmap, which is not run"),
        (b"_reconstruct", b"fromfile", "it wants numpy.core.multiarray.fromfile, which is not run"),
    ],
)
def test_what_an_array_claims_is_checked_before_it_is_made(written, old, new, words):
    content = python2_pickle(ARRAYS[0])
    assert content.count(old) == 1
    with pytest.raises(DataError, match=words):
        pickled.read(written(content.replace(old, new)))


@pytest.mark.parametrize(
    "content", [b"(lp900000000000\n.", b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", b"(" * 10**5]
)
def test_a_claimed_number_takes_no_memory(written, content):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="no pickle of numeric arrays"):
        pickled.read(written(content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


def test_only_opcodes_that_arrays_need_are_known():
    names = {op.name for op in pickletools.opcodes if ord(op.code) in pickled._Unpickler.dispatch}
    assert not names & {
        "INST",
        "OBJ",
        "NEWOBJ",
        "NEWOBJ_EX",
        "EXT1",
        "PERSID",
        "BINPERSID",
        "BYTEARRAY8",
        "DICT",
        "LONG",
    }
    used = {op.name for protocol in range(5) for op, _, _ in pickletools.genops(pickle.dumps(ARRAYS, protocol))}
    assert used <= names


@few
@given(changes=CHANGES)
@pytest.mark.parametrize("content", [python2_pickle(ARRAYS[0]), pickle.dumps(ARRAYS, 4)])
def test_damaged_pickles_are_arrays_of_numbers_or_one_line(tmp_path_factory, content, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(damaged(content, changes))
    found = read_or_refused(DataError, pickled.read, path)
    assert all(array.dtype.kind in "biuf" for array in found or [])
