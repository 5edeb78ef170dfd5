"""Every reader of models against mutated files: the design's error or the right numbers, never anything else."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tokenspace import inspection, open_tables
from tokenspace.checkpoint.models.words import label_bytes, text_of
from tokenspace.errors import TokenspaceError
from tokenspace.tokenizer.labels import show

VALUES = np.arange(12, dtype="f4").reshape(4, 3)
WORDS = ["the", "cat", "sat", "on"]
CONFIG = {"model_type": "gpt2", "n_embd": 3, "n_positions": 5, "vocab_size": 4, "architectures": ["GPT2LMHeadModel"]}
TENSORS = {"wte.weight": torch.from_numpy(VALUES), "wpe.weight": torch.ones(5, 3)}


def write_npy(path):
    np.save(path, VALUES)


def write_text(path):
    path.write_text("4 3\n" + "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in zip(WORDS, VALUES, strict=True)))


def write_parquet(path):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VALUES.ravel()), 3)
    pq.write_table(pa.table({"token": WORDS, "vector": vectors}), path)


def write_safetensors(path):
    save_file({"t": torch.from_numpy(VALUES)}, path)


def write_pickled(path):
    torch.save({"t": torch.from_numpy(VALUES)}, path)


FORMS = {
    "npy": write_npy,
    "vec": write_text,
    "parquet": write_parquet,
    "safetensors": write_safetensors,
    "bin": write_pickled,
}


@st.composite
def mutations(draw):
    """Some changes of bytes: overwritten, removed, repeated, cut."""
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "drop", "repeat", "cut", "insert"]),
                st.floats(0, 1, exclude_max=True),
                st.binary(min_size=1, max_size=8),
            ),
            min_size=1,
            max_size=4,
        )
    )


def mutated(data, changes):
    data = bytearray(data)
    for kind, place, bytes_ in changes:
        at = int(place * len(data))
        if kind == "set":
            data[at : at + len(bytes_)] = bytes_
        elif kind == "drop":
            del data[at : at + len(bytes_)]
        elif kind == "repeat":
            data[at:at] = data[at : at + 64]
        elif kind == "cut":
            del data[at:]
        else:
            data[at:at] = bytes_
    return bytes(data)


def read_all(path, **options):
    """Everything that reading can come to."""
    tables = open_tables(path, **options)
    table = tables.token.tensor()
    assert table.shape == (tables.num_rows, tables.d_model) and table.dtype == tables.token.dtype
    assert table.numel() < 10_000  # no file of some hundred bytes holds more
    if tables.words is not None:
        assert len(tables.words) == tables.num_rows
    return tables


@pytest.mark.parametrize("form", FORMS)
@settings(derandomize=True, deadline=None, max_examples=100)
@given(changes=mutations())
def test_mutated_files_of_vectors(form, changes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{form}"
    FORMS[form](path)
    data = mutated(path.read_bytes(), changes)
    path.write_bytes(data)
    try:
        read_all(path)
    except TokenspaceError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("form", FORMS)
def test_the_files_are_read_as_long_as_nobody_changes_them(form, tmp_path):
    FORMS[form](tmp_path / f"a.{form}")
    assert np.array_equal(read_all(tmp_path / f"a.{form}").token.tensor().numpy(), VALUES)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"])
@settings(derandomize=True, deadline=None, max_examples=100)
@given(changes=mutations())
def test_mutated_folders(file, changes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(TOKENIZER)
    if file == "model.safetensors":
        save_file(TENSORS, folder / file)
    else:
        save_file(TENSORS, folder / "a.safetensors")
        index = {"weight_map": dict.fromkeys(TENSORS, "a.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / file).write_bytes(mutated((folder / file).read_bytes(), changes))
    try:
        tables = read_all(folder)
        tables.embedding()
        inspection.verify(folder)
        _ = tables.tokenizer
    except TokenspaceError as error:
        assert "\n" not in str(error)


TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": [["a", "b"]]},
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
FIELDS = ("model_type", "n_embd", "n_positions", "vocab_size", "architectures", "tie_word_embeddings", "pad_token_id")
ROTARY = ("hidden_size", "num_attention_heads", "head_dim", "rope_parameters", "rope_scaling", "rope_theta")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1, max_size=3))
def test_configs_of_any_values(fields, tmp_path_factory):
    check_config({**CONFIG, **fields}, TENSORS, tmp_path_factory)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(fields=st.dictionaries(st.sampled_from(ROTARY), JSON, min_size=1, max_size=3), old=JSON)
def test_rotary_configs_of_any_values(fields, old, tmp_path_factory):
    config = {"model_type": "llama", "hidden_size": 4, "num_attention_heads": 2, "max_position_embeddings": 8}
    tensors = {"model.embed_tokens.weight": torch.ones(4, 4)}
    check_config(
        {**config, "rope_scaling": {"rope_type": "linear", "factor": old}, **fields}, tensors, tmp_path_factory
    )


def check_config(config, tensors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    for read in (lambda: open_tables(folder).embedding(), lambda: inspection.verify(folder)):
        try:
            read()
        except TokenspaceError as error:
            assert "\n" not in str(error)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_labels_of_text_are_read_back(text):
    label = show(text)
    assert not any(character.isspace() for character in label)
    assert label_bytes(label).decode() == text
    assert text_of(label) == text


@settings(derandomize=True, deadline=None, max_examples=300)
@given(data=st.binary(max_size=12))
def test_labels_of_bytes_are_read_back(data):
    assert label_bytes(show(data.decode("utf-8", "surrogateescape"))) == data


@settings(derandomize=True, deadline=None, max_examples=300)
@given(word=st.text(max_size=12))
def test_any_word_stands_for_something(word):
    assert isinstance(text_of(word), str)
