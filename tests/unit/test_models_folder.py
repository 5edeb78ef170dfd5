"""Model folders that lie: headers, indices, links and pickles are refused in one line, before anything is read."""

import json
import os
import pickle
import resource
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenspace import LanguageModel, Run, inspection
from tokenspace.checkpoint import open_tables
from tokenspace.checkpoint.models.safetensors_file import read_header
from tokenspace.errors import CheckpointError
from tokenspace.model.gpt2 import save_gpt2

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
TOKEN = "model.embed_tokens.weight"


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, 8, generator=generator) for name in (TOKEN, "lm_head.weight")}


@pytest.fixture
def folder(tmp_path):
    """A good folder, for a test to spoil."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(LLAMA))
    save_file(tensors(), path / "model.safetensors")
    return path


def refusal(path, **options):
    before = time.perf_counter()
    with pytest.raises(CheckpointError) as caught:
        open_tables(path, **options)
    assert time.perf_counter() - before < 2  # far more than it takes, far less than reading on would
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(begin, end, shape=(2, 2), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_the_good_folder_opens(folder):
    tables = open_tables(folder)
    assert torch.equal(tables.token.tensor(), tensors()[TOKEN])
    assert torch.equal(tables.head.tensor(), tensors()["lm_head.weight"])
    assert (tables.family, tables.num_rows, tables.d_model, tables.vocab_size) == ("llama", 6, 8, None)


# headers


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"t": entry(0, 16)}, b"\0" * 15, "must have"),
        ({"t": entry(0, 16)}, b"\0" * 17, "must have"),
        ({"t": entry(0, 20)}, b"\0" * 20, "giving 't' 20 bytes for F32 of shape [2, 2]"),
        ({"a": entry(0, 16), "b": entry(8, 24)}, b"\0" * 24, "placing 'b' at 8 to 24, where 16 is next"),
        ({"a": entry(0, 16), "b": entry(0, 16)}, b"\0" * 16, "where 16 is next"),
        ({"a": entry(4, 20)}, b"\0" * 20, "where 0 is next"),
        ({"t": entry(16, 0)}, b"\0" * 16, "giving 't' -16 bytes"),
        ({"t": entry(-16, 0)}, b"", "without whole numbers"),
        ({"t": entry(0, 16, shape=(-2, -2))}, b"\0" * 16, "without whole numbers"),
        ({"t": entry(0, 16.0)}, b"\0" * 16, "without whole numbers"),
        ({"t": entry(0, True, shape=(1,))}, b"\0", "without whole numbers"),
        ({"t": entry(0, 2**80, shape=(2**78,))}, b"\0" * 16, "must have"),
        ({"t": entry(0, 16, shape=(2**40, 2**40))}, b"\0" * 16, "giving 't' 16 bytes"),
        ({"t": entry(0, 16, shape=10**6 * [1])}, b"\0" * 16, "giving 't' 16 bytes"),
        ({"t": {"dtype": "F32", "shape": [2, 2]}}, b"", "without dtype, shape and data_offsets of 't'"),
        ({"t": 3}, b"", "without dtype"),
        ([], b"", "is 'list'"),
        (b"{", b"", "no JSON"),
        (b"[" * 100_000, b"", "no JSON"),
        (b'{"a":1,"a":2}', b"", "a name stands twice"),
        (b"\xff\xfe", b"", "no JSON"),
        ({"__metadata__": {"a": 1}}, b"", "metadata that is no text"),
    ],
    ids=range(22),
)
def test_headers_that_contradict_themselves(tmp_path, header, data, says):
    write_header(tmp_path / "t.safetensors", header, data)
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path / "t.safetensors")
    assert says in str(caught.value)


@pytest.mark.parametrize("length", [0, 9, 2**31, 2**63, 2**64 - 1])
def test_an_absurd_length_of_the_header_is_refused_at_once(folder, length):
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" + b" " * 6)
    assert f"must be that of a safetensors file, but is '{length:,} bytes long in a file of 16'" in refusal(folder)


@pytest.mark.parametrize("size", [0, 7])
def test_a_file_shorter_than_its_first_number(folder, size):
    (folder / "model.safetensors").write_bytes(b"\1" * size)
    assert f"in a file of {size}" in refusal(folder)


def test_types_that_torch_lacks_are_left_alone(tmp_path):
    header = {"odd": entry(0, 3, shape=(6,), dtype="F4"), "t": entry(3, 19)}
    write_header(tmp_path / "t.safetensors", header, b"\0" * 19)
    assert set(read_header(tmp_path / "t.safetensors")) == {"t"}


def test_numbers_that_lie_off_their_grid_are_read_all_the_same(tmp_path):
    data = torch.arange(4.0).numpy().tobytes()
    header = {"byte": entry(0, 1, shape=(1,), dtype="U8"), "t": entry(1, 17)}
    write_header(tmp_path / "t.safetensors", header, b"\7" + data)
    assert read_header(tmp_path / "t.safetensors")["t"].tensor().tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_a_table_without_rows_is_refused(folder):
    save_file({TOKEN: torch.empty(0, 8)}, folder / "model.safetensors")
    assert "must be floats of shape (rows, columns), but is 'float32 of shape [0, 8]'" in refusal(folder)


def test_a_table_of_whole_numbers_is_refused(folder):
    save_file({TOKEN: torch.zeros(6, 8, dtype=torch.int8)}, folder / "model.safetensors")
    assert "must be floats of shape (rows, columns), but is 'int8 of shape [6, 8]'" in refusal(folder)


def test_a_head_of_another_width_is_refused(folder):
    save_file({TOKEN: torch.zeros(6, 8), "lm_head.weight": torch.zeros(6, 9)}, folder / "model.safetensors")
    assert "must be of shape (rows, 8), but is 'float32 of shape [6, 9]'" in refusal(folder)


# shards


def shard(folder, weight_map, files=None):
    (folder / "model.safetensors").unlink()
    for name, content in (files or {}).items():
        save_file(content, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_only_the_shards_of_wanted_tensors_are_opened(folder):
    shard(
        folder,
        {TOKEN: "a.safetensors", "lm_head.weight": "a.safetensors", "x": "b.safetensors"},
        {"a.safetensors": tensors()},
    )
    (folder / "b.safetensors").write_bytes(b"no header at all")
    assert torch.equal(open_tables(folder).token.tensor(), tensors()[TOKEN])


@pytest.mark.parametrize(
    "name", ["../a.safetensors", "/etc/a.safetensors", "b/a.safetensors", "..\\a.safetensors", "C:a.safetensors"]
)
def test_an_index_that_points_outside_is_refused(folder, name):
    save_file(tensors(), folder.parent / "a.safetensors")
    shard(folder, {TOKEN: name})
    assert f"must have a plain name, but is {name!r}" in refusal(folder)


@pytest.mark.parametrize("name", [3, None, ["a.safetensors"], "a.bin", "config.json"])
def test_an_index_that_names_no_such_file_is_refused(folder, name):
    shard(folder, {TOKEN: name})
    assert "must name .safetensors files of its folder" in refusal(folder)


@pytest.mark.parametrize("weight_map", [None, [], "a"])
def test_an_index_without_a_map_is_refused(folder, weight_map):
    shard(folder, weight_map)
    assert "must be an object" in refusal(folder)


def test_a_shard_that_lacks_what_the_index_says(folder):
    shard(folder, {TOKEN: "a.safetensors"}, {"a.safetensors": {"other": torch.zeros(1)}})
    assert f"must hold {TOKEN}, but is 'without, or of a type torch lacks'" in refusal(folder)


def test_a_missing_shard_is_named(folder):
    shard(folder, {TOKEN: "a.safetensors"})
    assert f"`{folder / 'a.safetensors'}` must be a file that can be read, but is 'No such file" in refusal(folder)


# links


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_links_out_of_the_folder_are_not_followed(folder, name):
    outside = folder.parent / name
    (folder / name).replace(outside)
    (folder / name).symlink_to(outside)
    assert f"must lie in its folder, but is 'a link to {outside}'" in refusal(folder)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_the_tokenizer_outside_is_not_followed(folder):
    outside = folder.parent / "tokenizer.json"
    outside.write_text("{}")
    (folder / "tokenizer.json").symlink_to(outside)
    with pytest.raises(CheckpointError, match="must lie in its folder"):
        _ = open_tables(folder).tokenizer


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_within_the_folder_are(folder):
    (folder / "model.safetensors").replace(folder / "weights")
    (folder / "model.safetensors").symlink_to(folder / "weights")
    assert open_tables(folder).num_rows == 6


# pickles


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def old_format(folder):
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "zip"])
def test_pickled_code_is_refused_and_not_run(folder, plain):
    file, trace = old_format(folder), folder / "trace"
    if plain:
        file.write_bytes(pickle.dumps({TOKEN: Evil(trace)}))
    else:
        torch.save({TOKEN: Evil(trace)}, file)
    assert "must be a whole file of plain tensors" in refusal(folder)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[torch.zeros(2, 2)], {TOKEN: "text"}, {3: torch.zeros(2, 2)}])
def test_a_pickle_that_is_no_state_dict_is_refused(folder, content):
    torch.save(content, old_format(folder))
    assert "must be a state dict" in refusal(folder)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_forms_of_pickled_tensors_open(folder, legacy):
    torch.save(tensors(), old_format(folder), _use_new_zipfile_serialization=not legacy)
    assert torch.equal(open_tables(folder).token.tensor(), tensors()[TOKEN])


def test_a_tensor_wider_than_its_bytes_is_not_taken(folder):
    torch.save({TOKEN: torch.zeros(1).expand(10**6, 10**6)}, old_format(folder))
    assert "must have one called embed_tokens.weight, but is 'no name like it'" in refusal(folder)


def test_a_cut_zip_is_refused(folder):
    file = old_format(folder)
    torch.save(tensors(), file)
    file.write_bytes(file.read_bytes()[:-50])
    assert "must be a whole file of plain tensors" in refusal(folder)


def test_a_zip_of_other_things_is_refused(folder):
    with zipfile.ZipFile(old_format(folder), "w") as file:
        file.writestr("a/data.pkl", "no pickle")
    assert "must be a whole file of plain tensors" in refusal(folder)


# configs


@pytest.mark.parametrize("text", ["{", "[]", "3", "", "[" * 100_000])
def test_a_config_that_is_no_object(folder, text):
    (folder / "config.json").write_text(text)
    assert str(folder / "config.json") in refusal(folder)


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads"])
def test_a_config_that_lacks_a_size_is_named(folder, name):
    (folder / "config.json").write_text(json.dumps({k: v for k, v in LLAMA.items() if k != name}))
    assert "must describe a llama, but is" in refusal(folder) and name in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_attention_heads", 0),
        ("num_attention_heads", "2"),
        ("rope_scaling", 3),
        ("rope_scaling", [1]),
        ("rope_theta", {}),
    ],
)
def test_a_config_of_odd_values_is_refused_when_opened(folder, field, value):
    (folder / "config.json").write_text(json.dumps({**LLAMA, field: value}))
    assert refusal(folder)


@pytest.mark.parametrize(
    "scaling", [{"rope_type": "nonsense"}, {"rope_type": "linear"}, {"rope_type": "linear", "factor": -1}]
)
def test_a_scaling_that_no_scheme_takes_is_refused_when_the_scheme_is_made(folder, scaling):
    (folder / "config.json").write_text(json.dumps({**LLAMA, "rope_scaling": scaling}))
    tables = open_tables(folder)
    with pytest.raises(CheckpointError, match="must have settings that fit"):
        tables.embedding()


def test_a_folder_without_tensors(folder):
    (folder / "model.safetensors").unlink()
    assert "must hold model.safetensors or pytorch_model.bin, or the index of its shards" in refusal(folder)


def test_a_folder_without_a_config(folder):
    (folder / "config.json").unlink()
    assert "must hold a config.json (a model's) or a config.toml (a run's)" in refusal(folder)


def test_a_wrong_name_for_the_table_shows_what_there_is(folder):
    assert f"must have one called wte, but is '{TOKEN}'" in refusal(folder, table="wte")


# a model of any size


SPARSE = """
import resource, sys, time, torch
from tokenspace import Run
from tokenspace.checkpoint import open_tables
begin = time.perf_counter()
tables = open_tables(sys.argv[1])
rows = tables.token.rows([0, 1000, tables.num_rows - 1])
seconds = time.perf_counter() - begin
assert rows.tolist()[1][:2] == [1.0, 2.0] and tables.num_rows == 152_064
unit = 1 if sys.platform == "darwin" else 1024
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


@pytest.mark.skipif(os.name == "nt", reason="no files with holes, no resource module")
def test_of_a_model_of_100_gb_the_wanted_rows_are_read_in_200_ms_and_300_mb(folder):
    (folder / "model.safetensors").unlink()
    V, D, layers = 152_064, 8192, {"F": (28_672, 8192)}
    shards = {
        "a": {TOKEN: (V, D)},
        "b": {f"layer.{n}": layers["F"] for n in range(200)},
        "c": {"lm_head.weight": (V, D)},
    }
    weight_map, total = {}, 0
    for name, own in shards.items():
        header, end = {}, 0
        for key, shape in own.items():
            begin, end = end, end + 2 * shape[0] * shape[1]
            header[key] = entry(begin, end, shape, "BF16")
            weight_map[key] = f"{name}.safetensors"
        text = json.dumps(header).encode()
        with (folder / f"{name}.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            if name == "a":
                file.seek(8 + len(text) + 2 * 1000 * D)
                file.write(torch.tensor([1.0, 2.0], dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes())
            file.truncate(8 + len(text) + end)
        total += end
    assert total > 97e9
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({**LLAMA, "hidden_size": D, "num_attention_heads": 64}))
    # by way of a small process: a new one is charged with the memory of the one that began it
    between = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    command = [sys.executable, "-c", between, sys.executable, "-c", SPARSE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    assert seconds < 0.2
    assert memory < 300e6


# as an object


def test_a_foreign_model_shows_itself(folder):
    opened = Run.open(folder)
    assert repr(opened) == f"ForeignModel({str(folder)!r}, family='llama')"
    assert "<th>d_model</th><td>8</td>" in opened._repr_html_() and "<script" not in opened._repr_html_()


def test_a_foreign_model_without_a_tokenizer_says_how_to_make_one(folder):
    with pytest.raises(CheckpointError, match=r"without'. Save its tokenizer there"):
        _ = Run.open(folder).tokenizer


def test_only_a_gpt_2_of_its_own_size_gets_its_own_tokenizer(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 1, "n_positions": 1}))
    save_file({"wte.weight": torch.ones(50_257, 1), "wpe.weight": torch.ones(1, 1)}, folder / "model.safetensors")
    assert Run.open(folder).tokenizer.vocab_size == 50_257
    save_file({"wte.weight": torch.ones(50_256, 1), "wpe.weight": torch.ones(1, 1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"must have a tokenizer.json"):
        _ = Run.open(folder).tokenizer


# what is not read here is named


@pytest.mark.parametrize(
    ("part", "dtype"),
    [
        ("model.embed_tokens.weight.absmax", torch.float32),
        ("model.embed_tokens.weight_scale_inv", torch.float32),
        ("model.embed_tokens.qweight", torch.int32),
        ("lm_head.qweight", torch.int32),
        ("lm_head.weight.quant_state.bitsandbytes__nf4", torch.uint8),
    ],
)
def test_quantised_tables_and_heads_are_refused_by_name(folder, part, dtype):
    save_file({**tensors(), part: torch.ones(2, 2).to(dtype)}, folder / "model.safetensors")
    message = refusal(folder)
    assert message.startswith(f"`token table and head of {folder}` must be whole tables of floats, but is ")
    assert f"'quantised: {part}'" in message
    if part.startswith("lm_head"):
        assert open_tables(folder, table=TOKEN).num_rows == 6
    else:
        assert "quantised" in refusal(folder, table=TOKEN)


def test_scales_of_other_layers_do_not_matter(folder):
    save_file(
        {**tensors(), "model.layers.0.self_attn.q_proj.weight_scale_inv": torch.ones(1)}, folder / "model.safetensors"
    )
    assert open_tables(folder).family == "llama"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.gguf", "'GGUF'. Give the folder of save_pretrained that it was made from."),
        ("spiece.model", "'a SentencePiece vocabulary'. Give the model's folder, with the tokenizer.json of save_pret"),
        ("a.npz", "'packed'. Unpack it first."),
        ("a.pt", "'pickled by torch'. Save its tensors as .safetensors."),
        ("tf_model.h5", "'weights of another framework'. Save the model with save_pretrained, as safetensors."),
        ("a.txt", "'GGUF'. Give the folder of save_pretrained that it was made from."),
    ],
)
def test_forms_that_are_not_read_are_named(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"GGUF\3" + bytes(99))
    assert f"must be .npy, .parquet, .safetensors, .bin or word2vec text, but is {says}" in refusal(tmp_path / name)


@pytest.mark.parametrize("with_config", [False, True])
def test_folders_of_other_forms_are_named(folder, with_config):
    (folder / "model.safetensors").unlink()
    if not with_config:
        (folder / "config.json").unlink()
    (folder / "a-q4.gguf").write_bytes(b"GGUF")
    assert "but is 'a-q4.gguf, GGUF'. Give the folder of save_pretrained that it was made from." in refusal(folder)


def test_an_adapter_alone_is_named(folder):
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert "but is 'an adapter alone'. Merge it into its model: " in refusal(folder)


def test_links_out_of_the_folder_are_not_followed_when_the_whole_model_is_read(tmp_path):
    model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4)
    save_gpt2(model, tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    tables = {key for key in stored if "wte" in key or "wpe" in key}
    save_file({key: stored[key] for key in tables}, tmp_path / "model" / "a.safetensors")
    save_file({key: stored[key] for key in stored.keys() - tables}, tmp_path / "secret.safetensors")
    shard(tmp_path / "model", {key: f"{'a' if key in tables else 'b'}.safetensors" for key in stored}, files={})
    link = tmp_path / "model" / "b.safetensors"
    link.symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(CheckpointError, match="must lie in its folder, but is 'a link to "):
        Run.open(tmp_path / "model").model()
    link.unlink()
    (tmp_path / "secret.safetensors").rename(link)
    assert Run.open(tmp_path / "model").model().config.d_model == 8


def test_a_link_to_the_tokenizers_settings_outside_is_not_followed(folder):
    secret = folder.parent / "secret.json"
    secret.write_text(json.dumps({"model_max_length": 99_999, "eos_token": "secret"}))
    (folder / "tokenizer_config.json").symlink_to(secret)
    found = {finding.name: finding for finding in inspection.verify(folder).findings}
    assert found["file"].place == "tokenizer_config.json" and "position-length" not in found
    assert "99,999" not in str(found)


@pytest.mark.parametrize("sizes", [{"n_positions": 10**9}, {"n_positions": 10**30}, {"n_embd": 10**30}])
def test_absurd_sizes_of_a_position_table_take_no_memory(tmp_path, sizes):
    model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4)
    save_gpt2(model, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **sizes}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError):
        open_tables(tmp_path / "model").embedding()
    assert any(finding.level == "error" for finding in inspection.verify(tmp_path / "model").findings)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_a_config_with_more_layers_than_tensors_is_refused_before_they_are_built(tmp_path):
    save_gpt2(LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "n_layer": 10**9}))
    with pytest.raises(
        CheckpointError, match="must name no more layers than its files hold, which have 16 tensors, but"
    ):
        Run.open(tmp_path / "model").model()
