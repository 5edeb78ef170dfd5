"""Each thing that can be wrong with a model, made wrong in one that is sound, is found with its name and place."""

import json
import shutil

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import models

from tokenspace import Tokenizer
from tokenspace.checkpoint import open_tables
from tokenspace.inspection import verify
from tokenspace.inspection.verification import row_statistics

GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 64,
    "n_embd": 8,
    "n_positions": 16,
    "n_head": 2,
    "n_layer": 1,
}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
TOKEN, POSITION = "transformer.wte.weight", "transformer.wpe.weight"
LINEAR = {"rope_type": "linear", "factor": 2.0}
LLAMA_TOKEN, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + shape[0]))


def words(number, special=("<s>",)):
    vocabulary = {chr(0x4E00 + n): n for n in range(number - len(special))}
    library = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    library.add_special_tokens(list(special))
    return library


@pytest.fixture
def gpt2(tmp_path):
    """A sound model with a tied head and learned positions."""
    return write(tmp_path / "gpt2", GPT2, {TOKEN: draw(64, 8), POSITION: draw(16, 8)}, words(64))


@pytest.fixture
def llama(tmp_path):
    """A sound model with a head of its own and rotary positions."""
    return write(tmp_path / "llama", LLAMA, {LLAMA_TOKEN: draw(64, 8), HEAD: draw(64, 8) + 1}, words(64))


def write(folder, config, tensors, library=None):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    if library is not None:
        library.save(str(folder / "tokenizer.json"))
    return folder


def spoil(folder, key, change):
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors[key])
    save_file(tensors, file)


def replace(folder, key, tensor):
    file = folder / "model.safetensors"
    save_file({**{name: tensor.clone() for name, tensor in load_file(file).items()}, key: tensor}, file)


def config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def settings(folder, **fields):
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def the(folder, name):
    """The finding of this name; there is one."""
    (found,) = [finding for finding in verify(folder).findings if finding.name == name]
    assert found.next_step and found.place and found.found
    return found


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_sound_model_has_no_findings(model, request):
    result = verify(request.getfixturevalue(model))
    assert result.findings == [] and result.is_sound
    assert (result.num_rows, result.vocab_size) == (64, 64)


def test_a_run_is_sound_but_for_what_its_ledger_says(trained):
    result = verify(trained.path)
    assert [finding.name for finding in result.findings] == ["special-tokens-untrained", "unreachable-tokens"]


# rows


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_rows_that_are_not_finite(gpt2, value):
    spoil(gpt2, TOKEN, lambda table: table[5, 3:4].fill_(value))
    spoil(gpt2, TOKEN, lambda table: table[9, :1].fill_(value))
    found = the(gpt2, "not-finite-rows")
    assert (found.level, found.place, found.ids) == ("error", TOKEN, [5, 9])
    assert "丅 (5)" in found.found


def test_zero_rows(gpt2):
    spoil(gpt2, TOKEN, lambda table: table[7].zero_())
    assert (the(gpt2, "zero-rows").level, the(gpt2, "zero-rows").ids) == ("warning", [7])


def test_the_row_of_the_padding_token_may_be_zero(gpt2):
    spoil(gpt2, TOKEN, lambda table: table[7].zero_())
    config(gpt2, pad_token_id=7)
    assert verify(gpt2).is_sound


def test_duplicate_rows(gpt2):
    for row, of in ((7, 3), (30, 3), (41, 40)):
        spoil(gpt2, TOKEN, lambda table, row=row, of=of: table[row].copy_(table[of]))
    found = the(gpt2, "duplicate-rows")
    assert found.ids == [3, 7, 30, 40, 41]
    assert found.found == "5 rows in 2 groups are equal bit for bit: 七 (3) = 万 (7) = 丞 (30); 丨 (40) = 丩 (41)"


@pytest.mark.parametrize("factor", [50.0, 0.02])
def test_norms_out_of_line(gpt2, factor):
    spoil(gpt2, TOKEN, lambda table: table[11].mul_(factor))
    assert the(gpt2, "norms").ids == [11]


def test_rows_of_the_head_and_of_positions_are_checked_too(llama, gpt2):
    spoil(llama, HEAD, lambda table: table[2].zero_())
    spoil(gpt2, POSITION, lambda table: table[2].zero_())
    assert (the(llama, "zero-rows").place, the(gpt2, "zero-rows").place) == (HEAD, POSITION)


def test_padding_may_be_zero_or_alike(tmp_path):
    table = draw(64, 8)
    table[50:] = 0
    folder = write(tmp_path / "m", GPT2, {TOKEN: table, POSITION: draw(16, 8)}, words(50))
    result = verify(folder)
    assert [(f.level, f.name) for f in result.findings] == [("note", "padding")] and result.is_sound
    assert result.findings[0].found == "64 rows for 50 tokens: 14 of padding, a multiple of 64"


def test_a_table_in_parts_gives_the_same_numbers(gpt2, monkeypatch):
    table = open_tables(gpt2).token
    whole = row_statistics(table)
    monkeypatch.setattr("tokenspace.checkpoint.models.tables._NUMBERS_AT_ONCE", 24)
    parts = row_statistics(table)
    assert torch.equal(whole.norms, parts.norms)
    torch.testing.assert_close(parts.mean, table.tensor().double().mean(dim=0))


# ties


def test_a_tie_flag_that_the_tensors_contradict(gpt2):
    replace(gpt2, HEAD, draw(64, 8) + 1)
    found = the(gpt2, "tie-flag")
    assert found.level == "error"
    assert "tie_word_embeddings is true, but lm_head.weight differs from transformer.wte.weight in " in found.found
    assert open_tables(gpt2).tied is False


def test_a_tied_head_that_is_stored_once_more_is_sound(gpt2):
    table = load_file(gpt2 / "model.safetensors")[TOKEN].clone()
    replace(gpt2, HEAD, table)
    assert verify(gpt2).findings == [] and open_tables(gpt2).tied is True


def test_equal_tables_without_the_flag(llama):
    table = load_file(llama / "model.safetensors")[LLAMA_TOKEN].clone()
    replace(llama, HEAD, table)
    assert (the(llama, "tie-flag").level, the(llama, "tie-flag").place) == ("warning", HEAD)


def test_a_missing_head(llama):
    table = load_file(llama / "model.safetensors")[LLAMA_TOKEN].clone()
    save_file({LLAMA_TOKEN: table}, llama / "model.safetensors")
    assert the(llama, "head-missing").level == "error"
    config(llama, architectures=["LlamaModel"])
    assert verify(llama).is_sound


def test_a_head_of_another_size(llama):
    replace(llama, HEAD, draw(60, 8))
    assert the(llama, "head-rows").found == "60 rows, where the token table has 64"


def test_a_config_of_another_size(gpt2):
    config(gpt2, vocab_size=60)
    assert the(gpt2, "vocab-size").found == f"vocab_size is 60, but {TOKEN} has 64 rows"


def test_t5s_second_copy_of_the_table(tmp_path):
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    tensors = {"shared.weight": draw(64, 8), "decoder.embed_tokens.weight": draw(64, 8).neg(), bias: draw(32, 2)}
    folder = write(tmp_path / "t5", {"model_type": "t5", "num_heads": 2, "vocab_size": 64}, tensors, words(64))
    assert the(folder, "copies").place == "decoder.embed_tokens.weight"


# tokenizer


def test_a_tokenizer_of_more_tokens_than_rows(gpt2):
    words(70).save(str(gpt2 / "tokenizer.json"))
    found = the(gpt2, "rows-missing")
    assert (found.level, found.ids) == ("error", list(range(64, 70)))


def test_a_model_without_a_tokenizer(gpt2):
    (gpt2 / "tokenizer.json").unlink()
    assert the(gpt2, "no-tokenizer").level == "warning"


def test_a_damaged_tokenizer(gpt2):
    (gpt2 / "tokenizer.json").write_text("{")
    assert (the(gpt2, "tokenizer").level, verify(gpt2).vocab_size) == ("error", None)


def test_ids_without_a_token(tmp_path):
    ids = {chr(0x4E00 + n): n for n in range(64) if n not in (5, 6)}
    library = tokenizers.Tokenizer(models.WordLevel(ids))
    folder = write(tmp_path / "m", GPT2, {TOKEN: draw(64, 8), POSITION: draw(16, 8)}, library)
    assert the(folder, "ids-without-token").ids == [5, 6]


def test_tokens_that_no_text_gives(tmp_path):
    library = words(64)
    fields = json.loads(library.to_str())
    fields["model"]["vocab"]["一丁"] = fields["model"]["vocab"].pop("丟")
    folder = write(tmp_path / "m", GPT2, {TOKEN: draw(64, 8), POSITION: draw(16, 8)})
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    found = the(folder, "unreachable-tokens")
    assert (found.level, found.ids) == ("note", [31]) and "一丁: its text becomes 一 + 丁" in found.found
    assert "tokenspace vocab remove" in found.next_step


def test_bytes_that_no_text_has_are_not_to_be_removed(tmp_path):
    folder = write(tmp_path / "m", {**GPT2, "vocab_size": 257}, {TOKEN: draw(257, 8), POSITION: draw(16, 8)})
    Tokenizer.train(["a b"], 257).save(folder / "tokenizer.json")
    found = the(folder, "unreachable-tokens")
    assert len(found.ids) == 13 and found.next_step == "Nothing: a byte-level vocabulary has all bytes"


def test_bytes_that_have_no_token(tmp_path):
    fields = json.loads(Tokenizer.gpt2().to_json())
    fields["model"]["vocab"] = {t: i for t, i in fields["model"]["vocab"].items() if i < 256 and t != "A"}
    fields["model"]["merges"], fields["added_tokens"] = [], []
    folder = write(tmp_path / "m", {**GPT2, "vocab_size": 256}, {TOKEN: draw(256, 8), POSITION: draw(16, 8)})
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    assert (the(folder, "bytes-missing").level, the(folder, "bytes-missing").ids) == ("error", [0x41])


@pytest.mark.parametrize("stated", [64, -2, [1, 99]])
def test_special_ids_outside_the_table(gpt2, stated):
    config(gpt2, eos_token_id=stated)
    found = the(gpt2, "special-id")
    assert (found.level, found.place) == ("error", "eos_token_id of config.json")


@pytest.mark.parametrize("form", ["<s>", {"content": "<s>"}])
def test_special_ids_that_disagree(gpt2, form):
    config(gpt2, bos_token_id=3)
    settings(gpt2, bos_token=form)
    assert the(gpt2, "special-id").found == "3, but bos_token '<s>' has id 63"
    config(gpt2, bos_token_id=[3, 63])
    assert verify(gpt2).is_sound


def test_a_special_token_that_does_not_exist(gpt2):
    settings(gpt2, pad_token="<pad>")
    assert the(gpt2, "special-token").found == "'<pad>' is pad_token, and no token of tokenizer.json"


def test_special_tokens_that_look_like_unused_rows(tmp_path):
    table = draw(256, 8) + 3
    table[200:] = -5 + 0.1 * draw(56, 8)  # padding, never trained
    fields = {**GPT2, "vocab_size": 256}
    folder = write(tmp_path / "m", fields, {TOKEN: table, POSITION: draw(16, 8)}, words(200, ("<a>", "<b>")))
    spoil(folder, TOKEN, lambda table: table[198].copy_(table[200:].mean(dim=0)))
    found = the(folder, "special-tokens-untrained")
    assert (found.level, found.ids) == ("note", [198]) and "<a>" in found.found


def test_words_that_stand_twice(tmp_path):
    (tmp_path / "a.txt").write_text("3 2\na 1 2\na 3 4\nb 5 7\n")
    assert the(tmp_path / "a.txt", "repeated-words").level == "warning"


# positions


def test_a_position_table_of_another_length(gpt2):
    config(gpt2, n_positions=32)
    found = the(gpt2, "position-length")
    assert (found.level, found.place, found.found) == ("error", POSITION, "16 rows, but the config says 32")


def test_a_tokenizer_that_lets_longer_texts_through(gpt2):
    settings(gpt2, model_max_length=1024)
    found = the(gpt2, "position-length")
    assert (found.level, found.place) == ("warning", "tokenizer_config.json")
    settings(gpt2, model_max_length=10**30)
    assert verify(gpt2).is_sound


@pytest.mark.parametrize(
    ("fields", "name", "level"),
    [
        ({"rope_scaling": {"rope_type": "linear"}}, "position-settings", "error"),
        ({"rope_scaling": {"rope_type": "odd", "factor": 2.0}}, "position-settings", "error"),
        ({"rope_theta": 5e5, "rope_parameters": {**LINEAR, "rope_theta": 1e4}}, "rotary-theta", "warning"),
        (
            {"rope_parameters": LINEAR, "rope_scaling": {"type": "linear", "factor": 4.0}},
            "rotary-settings",
            "warning",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
            "rotary-length",
            "warning",
        ),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
            "rotary-length",
            "warning",
        ),
    ],
)
def test_rotary_settings_that_contradict_each_other(llama, fields, name, level):
    config(llama, **fields)
    assert the(llama, name).level == level


def test_rotary_settings_that_agree(llama):
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    config(llama, rope_scaling=scaling, rope_parameters={**scaling, "rope_theta": 1e4}, rope_theta=1e4)
    assert verify(llama).findings == []


def test_llama_3s_own_settings_are_sound(llama):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config(llama, max_position_embeddings=131_072, rope_scaling={**scaling, "original_max_position_embeddings": 8192})
    assert verify(llama).findings == []


# files


def test_shards_that_are_missing_or_hold_something_else(gpt2):
    tensors = load_file(gpt2 / "model.safetensors")
    (gpt2 / "model.safetensors").unlink()
    save_file({**tensors, "extra": torch.zeros(1)}, gpt2 / "a.safetensors")
    save_file({"other": torch.zeros(1)}, gpt2 / "b.safetensors")
    weight_map = {**dict.fromkeys(tensors, "a.safetensors"), "x": "b.safetensors", "y": "c.safetensors"}
    (gpt2 / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found = [(f.level, f.name, f.place.rpartition("/")[2]) for f in verify(gpt2).findings]
    assert sorted(found) == [
        ("error", "file", "c.safetensors"),
        ("error", "shard-index", "b.safetensors"),
        ("warning", "shard-index", "a.safetensors"),
        ("warning", "shard-index", "b.safetensors"),
    ]


def test_an_altered_checkpoint_of_a_run(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    file = next((tmp_path / "run" / "checkpoints").glob("*/model.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert [f.name for f in verify(tmp_path / "run").findings if f.level == "error"] == ["file"]


def test_errors_come_first(gpt2):
    spoil(gpt2, TOKEN, lambda table: table[7].zero_())
    config(gpt2, eos_token_id=99, vocab_size=60)
    levels = [finding.level for finding in verify(gpt2).findings]
    assert levels == ["error", "error", "warning"]


def test_progress_tells_of_every_table(llama):
    seen = []
    verify(llama, progress=lambda task, done, total: seen.append((task, done, total)))
    assert seen == [(LLAMA_TOKEN, 64, 64), (HEAD, 64, 64)]
