"""GPT-2 folders that cannot be opened or written: one clear line, and nothing left behind."""

import json

import pytest
import safetensors.torch
import torch

from tokenspace.errors import CheckpointError, SettingError
from tokenspace.model import LanguageModel, gpt2
from tokenspace.model.gpt2 import load_gpt2, save_gpt2

AGAIN = "Save the model again with save_pretrained."


@pytest.fixture
def folder(tmp_path):
    """A good folder, for a test to spoil."""
    torch.manual_seed(0)
    model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4)
    save_gpt2(model, tmp_path / "gpt2")
    return tmp_path / "gpt2"


def set_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def drop_config(folder, name):
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    del fields[name]
    path.write_text(json.dumps(fields))


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        load_gpt2(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("model_type", "llama", "be gpt2, but is 'llama'"),
        ("activation_function", "relu", "be gelu_new, but is 'relu'"),
        ("scale_attn_weights", False, "be True, but is False"),
        ("scale_attn_by_inverse_layer_idx", True, "be False, but is True"),
        ("reorder_and_upcast_attn", True, "be False, but is True"),
        ("add_cross_attention", True, "be False, but is True"),
        ("n_inner", 16, "be None or 32, but is 16"),
        ("attn_pdrop", 0.3, "be 0.0, but is 0.3"),
        ("resid_pdrop", 0.3, "be 0.0, but is 0.3"),
        ("tie_word_embeddings", "yes", "be True or False, but is 'yes'"),
    ],
)
def test_other_mathematics_are_refused_by_name(folder, name, value, rule):
    set_config(folder, **{name: value})
    path = folder / "config.json"
    with pytest.raises(CheckpointError) as caught:
        load_gpt2(folder)
    assert caught.value.args[0] == f"{name} in {path}"
    assert str(caught.value).endswith(f"must {rule}. Other forms of GPT-2 cannot be opened.")


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "none" / "config.json"
    message = refusal(tmp_path / "none")
    assert message.startswith(f"`{path}` must be a file that can be read, but is 'No such file")
    assert message.endswith("Give a folder that save_pretrained wrote.")


@pytest.mark.parametrize("text", ["", "{", '{"n_embd": ', "\xff"])
def test_a_damaged_config_is_named(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    message = refusal(folder)
    assert message.startswith(f"`{folder / 'config.json'}` must be whole JSON, but is ")
    assert "damaged (" in message


def test_a_config_of_another_kind_is_refused(folder):
    (folder / "config.json").write_text("[1, 2]")
    assert refusal(folder) == f"`{folder / 'config.json'}` must be a JSON object, but is 'list'. {AGAIN}"


@pytest.mark.parametrize("name", ["vocab_size", "n_embd", "n_layer", "n_head", "n_positions"])
def test_a_missing_size_is_named(folder, name):
    drop_config(folder, name)
    assert refusal(folder) == f"`{name} in {folder / 'config.json'}` must be given, but is 'absent'. {AGAIN}"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("n_head", 3, "divisible by num_heads = 3"),
        ("n_embd", 0, "`d_model` must be a whole number"),
        ("n_layer", "2", "`num_layers` must be a whole number"),
        ("vocab_size", 10**18, "overflow"),
        ("n_positions", 10**30, "verflow"),
        ("layer_norm_epsilon", "small", "could not convert"),
    ],
)
def test_a_setting_that_no_model_has_is_explained(folder, name, value, reason):
    set_config(folder, **{name: value})
    message = refusal(folder)
    assert reason in message
    assert "config.json" in message


def test_a_folder_without_tensors_says_what_it_should_hold(folder):
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == (
        f"`{folder}` must hold model.safetensors, its index or pytorch_model.bin, but is 'without'. {AGAIN}"
    )


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_cut_tensor_file_is_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(folder).startswith(f"`{path}` must be a whole safetensors file, but is 'damaged (")


def test_a_missing_tensor_is_named_with_its_shape(folder):
    change_tensors(folder, lambda tensors: tensors.pop("transformer.h.0.mlp.c_fc.weight"))
    assert refusal(folder) == (
        f"`h.0.mlp.c_fc.weight in {folder}` must be floats of shape [8, 32], but is 'absent'. {AGAIN}"
    )


@pytest.mark.parametrize("name", ["transformer.wte.weight", "transformer.wpe.weight"])
def test_a_missing_table_is_named(folder, name):
    change_tensors(folder, lambda tensors: tensors.pop(name))
    assert refusal(folder).startswith(f"`{name.removeprefix('transformer.')} in {folder}` must be floats of shape")


def test_a_tensor_of_another_shape_is_named(folder):
    change_tensors(folder, lambda tensors: tensors.update({"transformer.ln_f.bias": torch.zeros(7)}))
    assert refusal(folder) == (
        f"`ln_f.bias in {folder}` must be floats of shape [8], but is 'torch.float32 of shape [7]'. {AGAIN}"
    )


def test_a_matrix_that_is_not_transposed_is_refused(folder):
    name = "transformer.h.0.mlp.c_fc.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].t().contiguous()}))
    assert "must be floats of shape [8, 32], but is 'torch.float32 of shape [32, 8]'" in refusal(folder)


def test_whole_numbers_are_no_weights(folder):
    change_tensors(folder, lambda tensors: tensors.update({"transformer.ln_f.bias": torch.zeros(8, dtype=torch.int8)}))
    assert "must be floats of shape [8], but is 'torch.int8 of shape [8]'" in refusal(folder)


def test_an_unknown_tensor_is_named(folder):
    change_tensors(folder, lambda tensors: tensors.update({"score.weight": torch.zeros(2, 8)}))
    assert refusal(folder) == f"`score.weight in {folder}` must be a tensor of GPT-2, but is 'unknown'. {AGAIN}"


def test_a_config_that_ties_another_head_is_refused(folder):
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(9, 8)}))
    assert refusal(folder) == (
        f"`lm_head.weight in {folder}` must equal the token table it is tied to, but is 'another'. "
        "Set tie_word_embeddings to false in config.json."
    )


def test_a_config_that_ties_the_same_head_is_fine(folder):
    change_tensors(
        folder, lambda tensors: tensors.update({"lm_head.weight": tensors["transformer.wte.weight"].clone()})
    )
    model = load_gpt2(folder)
    assert model.head.weight is model.embedding.token.weight


def test_an_untied_head_must_be_there(folder):
    set_config(folder, tie_word_embeddings=False)
    assert refusal(folder) == f"`lm_head.weight in {folder}` must be floats of shape [9, 8], but is 'absent'. {AGAIN}"


def shard(folder, weight_map):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "name",
    ["../part.safetensors", "/etc/part.safetensors", "a\\b.safetensors", "C:part.safetensors", "part.bin", 7, None],
)
def test_an_index_names_files_of_its_own_folder_only(folder, name):
    shard(folder, {"wte.weight": name})
    assert "must name files of its own folder, but is" in refusal(folder)


def test_an_index_without_a_map_is_refused(folder):
    shard(folder, None)
    assert "must name files of its own folder, but is None" in refusal(folder)


def test_a_missing_shard_is_named(folder):
    shard(folder, {"wte.weight": "other.safetensors"})
    assert refusal(folder).startswith(f"`{folder / 'other.safetensors'}` must be a whole safetensors file, but is")


@pytest.mark.parametrize(("value", "reason"), [(1.5, "`dropout` must lie in [0, 1)"), (None, "float()")])
def test_dropout_that_no_model_has_is_explained(folder, value, reason):
    set_config(folder, **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), value))
    assert reason in refusal(folder)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no archive", b"text", b"\x80\x02\xff", b"(]"])
def test_a_damaged_bin_file_is_named(folder, data):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(data)
    assert refusal(folder).startswith(f"`{folder / 'pytorch_model.bin'}` must be a whole file of plain tensors, but is")


class Code:
    """What a foreign file must never be able to bring along."""


def test_a_bin_file_with_more_than_tensors_is_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"wte.weight": Code()}, folder / "pytorch_model.bin")
    assert "must be a whole file of plain tensors, but is 'Weights only load failed" in refusal(folder)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"step": 3}])
def test_a_bin_file_that_is_no_state_dict_is_refused(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert "must be a state dict, but is" in refusal(folder)


def test_a_silent_config_means_gpt2s_own_settings(folder):
    for name in ("embd_pdrop", "attn_pdrop", "resid_pdrop", "layer_norm_epsilon", "tie_word_embeddings", "n_inner"):
        drop_config(folder, name)
    config = load_gpt2(folder).config
    assert (config.dropout, config.norm_eps, config.tie_head) == (0.1, 1e-5, True)


def test_an_opened_model_does_not_change_with_its_file(folder):
    model = load_gpt2(folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * (path.stat().st_size // 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_opening_draws_no_random_numbers(folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_gpt2(folder)
    assert torch.equal(torch.rand(1), expected)


def test_an_opened_model_is_ready_to_be_trained(folder):
    model = load_gpt2(folder)
    assert not model.training
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in model.parameters())


@pytest.mark.parametrize("scheme", ["none", "sinusoidal"])
def test_positions_without_a_table_cannot_be_exported(tmp_path, scheme):
    model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4, positions=scheme)
    with pytest.raises(SettingError) as caught:
        save_gpt2(model, tmp_path / "out")
    assert str(caught.value) == (
        f"`positions` must be 'learned' to fit into GPT-2's form, but is '{scheme}'. "
        "Export a model with learned positions."
    )
    assert not any(tmp_path.iterdir())


def test_an_existing_folder_is_not_written_to(folder):
    with pytest.raises(SettingError, match="`out` must not exist yet"):
        save_gpt2(load_gpt2(folder), folder)


def test_an_interrupted_export_leaves_nothing(folder, tmp_path, monkeypatch):
    def interrupted(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(gpt2, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_gpt2(load_gpt2(folder), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]


def test_scaled_tokens_do_not_fit_into_gpt2s_form(tmp_path):
    model = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4, token_scale=2.0)
    with pytest.raises(SettingError, match=r"`token_scale` must be 1 to fit into GPT-2's form, but is 2\.0"):
        save_gpt2(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
