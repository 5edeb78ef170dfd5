"""Megatron's `.bin` and `.idx`, byte by byte."""

import struct

import numpy as np
import pytest

from tokenspace.corpus import format as corpus_format
from tokenspace.corpus.format import document_bounds, gather_windows, index_bytes, smallest_dtype
from tokenspace.errors import CorpusError

UINT16, INT32 = np.dtype("<u2"), np.dtype("<i4")


def test_the_index_of_three_documents_has_the_bytes_of_the_layout():
    assert index_bytes(np.array([5, 0, 2]), UINT16) == (
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, 8, 3, 4)
        + struct.pack("<3i", 5, 0, 2)
        + struct.pack("<3q", 0, 10, 10)
        + struct.pack("<4q", 0, 1, 2, 3)
    )


def test_pointers_count_bytes_of_the_dtype():
    assert struct.unpack("<2q", index_bytes(np.array([5, 2]), INT32)[42:58]) == (0, 20)


def test_a_document_longer_than_a_length_can_say_is_several_sequences(monkeypatch):
    monkeypatch.setattr(corpus_format, "LONGEST_SEQUENCE", 4)
    data = index_bytes(np.array([3, 9, 0, 4]), UINT16)
    assert struct.unpack_from("<QQ", data, 18) == (6, 5)
    assert struct.unpack_from("<6i", data, 34) == (3, 4, 4, 1, 0, 4)
    assert struct.unpack_from("<6q", data, 58) == (0, 6, 14, 22, 24, 24)
    assert struct.unpack_from("<5q", data, 106) == (0, 1, 4, 5, 6)


def test_a_document_of_several_sequences_is_read_as_one(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus_format, "LONGEST_SEQUENCE", 4)
    (tmp_path / "a.idx").write_bytes(index_bytes(np.array([3, 9, 0, 4]), UINT16))
    assert document_bounds((tmp_path / "a.idx").read_bytes(), "a").tolist() == [0, 3, 12, 12, 16]


def test_bounds_beyond_int32_do_not_overflow(tmp_path):
    (tmp_path / "a.idx").write_bytes(index_bytes(np.array([2**31 - 1, 2**33, 1]), INT32))
    assert document_bounds((tmp_path / "a.idx").read_bytes(), "a").tolist() == [
        0,
        2**31 - 1,
        2**31 - 1 + 2**33,
        2**31 + 2**33,
    ]


@pytest.mark.parametrize(
    ("largest_id", "dtype"), [(0, UINT16), (50_256, UINT16), (65_535, UINT16), (65_536, INT32), (2**31 - 1, INT32)]
)
def test_the_smallest_dtype_follows_the_largest_id(largest_id, dtype):
    assert smallest_dtype(largest_id) == dtype


def test_an_id_beyond_every_dtype_is_an_error():
    with pytest.raises(CorpusError, match="`largest token id` must be at most 2147483647, but is 2147483648"):
        smallest_dtype(2**31)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "must begin as a Megatron index does"),
        (lambda data: b"X" + data[1:], "must begin as a Megatron index does"),
        (lambda data: data[:-1], "must have 90 bytes, but is '89 bytes long'"),
        (lambda data: data + b"x", "must have 90 bytes, but is '91 bytes long'"),
        (lambda data: data[:9] + b"\2" + data[10:], "but is 'version 2 with dtype code 8'"),
        (lambda data: data[:17] + b"\6" + data[18:], "but is 'version 1 with dtype code 6'"),
    ],
)
def test_a_damaged_index_is_an_error_that_names_the_file(tmp_path, damage, message):
    path = tmp_path / "a.idx"
    data = index_bytes(np.array([3, 4]), UINT16)
    path.write_bytes(damage(data))
    with pytest.raises(CorpusError, match=r"`a\.idx` must") as error:
        document_bounds(path.read_bytes(), path.name)
    assert message.replace("90", str(len(data))).replace("89", str(len(data) - 1)).replace(
        "91", str(len(data) + 1)
    ) in str(error.value)


@pytest.mark.parametrize("dtype", [UINT16, INT32])
@pytest.mark.parametrize("length", [1, 3, 10])
def test_windows_are_the_slices(dtype, length):
    tokens = np.arange(100, 110).astype(dtype)
    starts = np.array([10 - length, 0, 10 - length, (10 - length) // 2])
    windows = gather_windows(tokens, starts, length)
    assert windows.dtype == dtype
    assert windows.tolist() == [tokens[start : start + length].tolist() for start in starts]


def test_windows_are_a_copy():
    tokens = np.arange(10, dtype=UINT16)
    gather_windows(tokens, np.array([0]), 4)[:] = 99
    assert tokens.tolist() == list(range(10))
