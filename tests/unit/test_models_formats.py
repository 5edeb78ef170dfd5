"""Files of vectors: what is written by numpy, gensim's form, fastText's form and Parquet is read; the rest refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from tokenspace import InputEmbedding, Run
from tokenspace.checkpoint import open_tables
from tokenspace.errors import CheckpointError

VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
WORDS = ["the", "of", "a b", "été", "घर"]


def refusal(path, **options):
    with pytest.raises(CheckpointError) as caught:
        open_tables(path, **options)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def write_text(path, rows=None, first="5 3\n", end="\n"):
    rows = (
        [f"{w} {' '.join(map(str, v))}" for w, v in zip(WORDS, VALUES.tolist(), strict=True)] if rows is None else rows
    )
    path.write_bytes((first + "".join(row + end for row in rows)).encode("utf-8", "surrogateescape"))
    return path


# .npy


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_both_orders(tmp_path, dtype, order):
    np.save(tmp_path / "a.npy", np.array(VALUES, dtype, order=order))
    tables = open_tables(tmp_path / "a.npy")
    assert np.array_equal(tables.token.tensor().numpy(), VALUES.astype(dtype))
    assert np.array_equal(tables.token.rows([4, 0]).numpy(), VALUES.astype(dtype)[[4, 0]])
    assert (tables.family, tables.tied, tables.tokenizer, tables.words) == ("npy", None, None, None)


def test_npy_is_mapped(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    open_tables(tmp_path / "a.npy").token.tensor().zero_()
    assert np.array_equal(np.load(tmp_path / "a.npy"), VALUES)


def test_an_array_of_objects_is_refused_and_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}, 1.0]], dtype=object), allow_pickle=True)
    assert "must hold floats of shape (rows, columns), but is 'object of shape [1, 2]'" in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize("array", [VALUES[0], VALUES[None], VALUES.astype("i4"), VALUES.astype(">f4")])
def test_arrays_of_other_shapes_and_types_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert "must hold floats of shape (rows, columns)" in refusal(tmp_path / "a.npy")


def test_a_cut_npy_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-1])
    assert "must hold [5, 3] numbers of float32, but is '59 bytes of them'" in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "data", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00\x00\x00", b"nothing of the kind", b"\x93NUMPY\x01\x00\xff\xff{"]
)
def test_what_is_no_npy_is_refused(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    assert "must be a .npy file" in refusal(tmp_path / "a.npy")


# text


@pytest.mark.parametrize("name", ["a.vec", "a.txt", "a"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"], ids=["plain", "fasttext", "windows"])
def test_text_with_a_first_line(tmp_path, name, end):
    tables = open_tables(write_text(tmp_path / name, end=end))
    assert np.array_equal(tables.token.tensor().numpy(), VALUES)
    assert list(tables.words) == list(tables.texts) == WORDS
    assert tables.family == ("fasttext" if name == "a.vec" else "word2vec")


def test_a_last_line_without_an_end(tmp_path):
    path = write_text(tmp_path / "a.vec")
    path.write_bytes(path.read_bytes()[:-1])
    assert open_tables(path).num_rows == 5


def test_words_are_tokens(tmp_path):
    tokenizer = Run.open(write_text(tmp_path / "a.vec")).tokenizer
    assert tokenizer.encode("घर") == [4] and tokenizer.encode("a b") == [2] and tokenizer.vocab_size == 5


def test_words_without_spaces_make_sentences(tmp_path):
    path = write_text(tmp_path / "a.vec", ["the 1 2", "cat 3 4"], "2 2\n")
    assert Run.open(path).tokenizer.encode("the cat the") == [0, 1, 0]


def test_labels_of_tokens_are_read_back(tmp_path):
    rows = ["␣cat 1 2", r"\n 3 4", r"C:\dir 5 6", r"\\n 7 8", r"\xe0 9 0", "◌़ 1 1", r"a\id{7} 2 2"]
    tables = open_tables(write_text(tmp_path / "a.txt", rows, "7 2\n"))
    assert tables.texts == (" cat", "\n", r"C:\dir", r"\n", r"\xe0", "़", r"a\id{7}")
    assert tables.words == ("␣cat", r"\n", r"C:\dir", r"\\n", r"\xe0", "◌़", r"a\id{7}")


def test_bytes_that_are_no_text_are_shown(tmp_path):
    rows = ["caf\udce9 1 2", "a 3 4"]
    assert open_tables(write_text(tmp_path / "a.txt", rows, "2 2\n")).words == (r"caf\xe9", "a")


def test_a_word_that_stands_twice_is_found_at_its_first_row(tmp_path):
    path = write_text(tmp_path / "a.txt", ["a 1 2", "a 3 4", "b 5 6"], "3 2\n")
    assert Run.open(path).tokenizer.encode("a b") == [0, 2]


@pytest.mark.parametrize(
    ("first", "rows", "says"),
    [
        ("", ["the 1 2"], "must begin with its rows and columns"),
        ("3 2 1\n", ["the 1 2"], "must begin with its rows and columns"),
        ("0 2\n", [], "must have room for 0 rows of 2 numbers"),
        ("-1 2\n", [], "must have room for -1 rows"),
        ("999999999999 300\n", ["the 1 2"], "must have room for 999,999,999,999 rows of 300 numbers"),
        ("2 2\n", ["the 1 2"], "must hold 2 words, as its first line says, but is '1'"),
        ("1 2\n", ["the 1 2", "of 1 2"], "must hold 1 words, as its first line says, but is 'more'"),
        ("2 2\n", ["the 1 2", "of 1"], "must hold a word and 2 numbers in line 3, but is '1 numbers'"),
        ("1 2\n", ["the 1 x"], "must hold numbers after each word"),
        ("1 2\n", ["the 1  2"], "must hold numbers after each word"),
        ("1 2\n", ["the 1 0x1p3"], "must hold numbers after each word"),
        ("2 2\n", ['the 1 "2', 'of 3" 4'], "must hold numbers after each word"),
    ],
)
def test_text_that_does_not_hold_what_it_says(tmp_path, first, rows, says):
    assert says in refusal(write_text(tmp_path / "a.txt", rows, first))


def test_a_line_without_end_is_not_read_whole(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.write(b"1 2\n")
        file.truncate(10**10)  # a hole of zeros
    assert "numbers" in refusal(path)


# Parquet


def write_parquet(path, kind, words="token", vectors="vector", more=()):
    flat = pa.array(VALUES.ravel())
    lists = {
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(flat, 3),
        "list": lambda: pa.array(VALUES.tolist(), pa.list_(pa.float32())),
        "half": lambda: pa.array(VALUES.astype("f2").tolist(), pa.list_(pa.float16())),
        "double": lambda: pa.array(VALUES.tolist(), pa.list_(pa.float64())),
    }
    columns = {"id": list(range(5)), **({words: WORDS} if words else {}), vectors: lists[kind](), **dict(more)}
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize("kind", ["fixed", "list", "double"])
@pytest.mark.parametrize("words", ["token", "word", "text", None])
def test_parquet(tmp_path, kind, words):
    tables = open_tables(write_parquet(tmp_path / "a.parquet", kind, words))
    assert np.array_equal(tables.token.tensor().float().numpy(), VALUES)
    assert tables.token.dtype == (torch.float64 if kind == "double" else torch.float32)
    assert tables.words == (tuple(WORDS) if words else None)


def test_parquet_of_half_floats(tmp_path):
    tables = open_tables(write_parquet(tmp_path / "a.parquet", "half"))
    assert np.array_equal(tables.token.tensor().numpy(), VALUES.astype("f2"))


def test_the_column_may_be_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", "fixed", vectors="one", more={"two": pa.array([[1.0]] * 5)}.items())
    assert "must have a column of lists of numbers called vector or" in refusal(path)
    assert open_tables(path, table="two").d_model == 1


def test_vectors_of_different_lengths_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"vector": pa.array([[1.0, 2.0], [3.0]])}), path)
    with pytest.raises(
        CheckpointError, match=r"must hold 2 vectors of 2 numbers in 'vector', but is 'of other lengths'"
    ):
        open_tables(path).token.tensor()


@pytest.mark.parametrize("columns", [{"a": [1, 2]}, {"vector": [[1, 2]]}, {"vector": [["a"]]}])
def test_parquet_without_vectors_is_refused(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert "must have a column of lists of numbers" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "columns", [{"vector": pa.array([], pa.list_(pa.float32()))}, {"vector": pa.array([None], pa.list_(pa.float32()))}]
)
def test_parquet_without_a_vector_is_refused(tmp_path, columns):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert refusal(tmp_path / "a.parquet")


def test_parquet_with_fewer_words_than_rows_is_refused(tmp_path, monkeypatch):
    """As a file whose footer was altered may be read: pyarrow does not compare the columns."""
    path = write_parquet(tmp_path / "a.parquet", "fixed")
    read = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda self, *columns: read(self, *columns).slice(1))
    assert "must hold 5 words in 'token', but is '4'" in refusal(path)


def test_a_cut_parquet_is_refused(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", "fixed")
    path.write_bytes(path.read_bytes()[:-5])
    assert "must be a whole Parquet file" in refusal(path)


# files of tensors


def test_a_file_of_one_table_opens_by_itself(tmp_path):
    save_file({"t": torch.from_numpy(VALUES), "bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    assert np.array_equal(open_tables(tmp_path / "a.safetensors").token.tensor().numpy(), VALUES)


def test_of_several_tables_one_must_be_named(tmp_path):
    save_file({"a": torch.ones(2, 2), "b": torch.zeros(2, 3)}, tmp_path / "a.safetensors")
    message = refusal(tmp_path / "a.safetensors")
    assert "must hold one table of floats, but is 'a, b'. Name one with --table (table= in Python)." in message
    assert open_tables(tmp_path / "a.safetensors", table="b").d_model == 3
    assert "must hold c, but is 'a, b'" in refusal(tmp_path / "a.safetensors", table="c")


def test_pickled_tensors_open_by_name(tmp_path):
    torch.save({"a": torch.ones(2, 2), "b": torch.zeros(2, 3)}, tmp_path / "a.bin")
    assert open_tables(tmp_path / "a.bin", table="a").family == "pytorch"


def test_a_binary_of_word2vec_is_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"2 3\nthe " + VALUES.tobytes())
    assert "must be a whole file of plain tensors" in refusal(tmp_path / "a.bin")


# embeddings


def test_vectors_become_an_embedding_without_positions(tmp_path):
    embedding = InputEmbedding.from_pretrained(write_text(tmp_path / "a.vec"))
    assert np.array_equal(embedding(torch.tensor([[3, 1]]))[0].detach().numpy(), VALUES[[3, 1]])
    assert embedding.position.name == "none"


def test_damaged_metadata_of_an_export_is_refused(tmp_path):
    for fields in ("{", "[]", "{}", json.dumps({"scheme": 3}), json.dumps({"scheme": ["none", {}], "norm_eps": "x"})):
        save_file({"token": torch.ones(2, 2)}, tmp_path / "a.safetensors", metadata={"tokenspace": fields})
        assert "must be as it was written" in refusal(tmp_path / "a.safetensors")
