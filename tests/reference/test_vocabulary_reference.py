"""Edited models, live and on disk, against transformers: the same logits on what stayed, ties and settings kept."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer as Library

import model_cases
from tokenspace import Tokenizer, vocabulary
from tokenspace.checkpoint import open_tables
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.vocabulary.duplicates import near_rows
from vocabulary_cases import FAMILIES, TEXTS

transformers = pytest.importorskip("transformers")

TEXT = "The cat sat by the door."
HEADED = [name for name in model_cases.CASES if "headless" not in name and "encoder" not in name]
PADDING = 5


@pytest.fixture(scope="module")
def tokenizer():
    return FAMILIES["byte_level"](340)


def make(name, tokenizer, **settings):
    return model_cases.make(name, vocab_size=tokenizer.vocab_size + PADDING, **settings)


def logits(model, ids):
    inputs = {"input_ids": torch.tensor([ids])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        output = model(**inputs)
    return (output.logits if "logits" in output else output.prediction_logits)[0]


def is_tied(model):
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def assert_consistent(model, num_rows):
    assert model.get_input_embeddings().weight.shape[0] == num_rows
    assert model.get_input_embeddings().num_embeddings == num_rows
    head = model.get_output_embeddings()
    assert head.out_features == len(head.weight) == num_rows
    assert head.bias is None or len(head.bias) == num_rows
    assert model.config.get_text_config().vocab_size == num_rows


def save(model, tokenizer, folder, **options):
    model.save_pretrained(folder, **options)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    return folder


def load(model, folder):
    with model_cases.silence():
        found, told = type(model).from_pretrained(folder, output_loading_info=True, dtype=model.dtype)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    return found.eval()


@pytest.mark.parametrize("name", HEADED)
def test_a_live_model_grows_and_gives_what_it_gave_on_the_tokens_that_were(name, tokenizer):
    model = make(name, tokenizer)
    ids, tied = tokenizer.encode(TEXT), is_tied(model)
    before = logits(model, ids)
    new, receipt = vocabulary.grow(model, tokenizer, [f"<{n}>" for n in range(9)], special=True, pad_to_multiple_of=8)
    rows = -(-(tokenizer.vocab_size + 9) // 8) * 8
    assert_consistent(model, rows)
    assert is_tied(model) == tied == receipt.tied
    stays = torch.arange(tokenizer.vocab_size)
    assert torch.equal(logits(model, new.encode(TEXT))[:, stays], before[:, stays])
    assert receipt.after.num_rows == rows and receipt.after.vocab_size == tokenizer.vocab_size + 9


@pytest.mark.parametrize("name", HEADED)
def test_a_live_model_is_trimmed_and_gives_what_it_gave_on_the_tokens_that_stay(name, tokenizer):
    model = make(name, tokenizer)
    tied, before = is_tied(model), logits(model, tokenizer.encode(TEXT))
    new, receipt = vocabulary.trim(model, tokenizer, [TEXT], pad_to_multiple_of=1)
    assert_consistent(model, new.vocab_size)
    assert is_tied(model) == tied
    to = torch.from_numpy(receipt.id_map)
    kept = (to >= 0).nonzero().flatten()
    assert 256 < len(kept) < tokenizer.vocab_size
    torch.testing.assert_close(logits(model, new.encode(TEXT))[:, to[kept]], before[:, kept])


@pytest.mark.parametrize("name", model_cases.CASES)
@pytest.mark.parametrize("change", ["add", "trim"])
def test_an_edited_folder_opens_in_transformers_with_the_same_logits(name, change, tokenizer, tmp_path):
    model = make(name, tokenizer)
    folder = save(model, tokenizer, tmp_path / "old")
    made = {
        "add": vocabulary.Add(["<user>", "<bot>"], special=True, pad_to_multiple_of=8),
        "trim": vocabulary.Trim([TEXT], pad_to_multiple_of=8),
    }[change]
    receipt = vocabulary.edit_model(folder, tmp_path / "new", made)
    found = load(model, tmp_path / "new")
    new = Tokenizer.from_file(tmp_path / "new" / "tokenizer.json")
    to = torch.from_numpy(receipt.id_map)
    kept = (to >= 0).nonzero().flatten()
    old_ids, new_ids = tokenizer.encode(TEXT), new.encode(TEXT)
    assert to[old_ids].tolist() == new_ids
    assert receipt.after.num_rows % 8 == 0 and len(found.get_input_embeddings().weight) == receipt.after.num_rows
    if name in HEADED:
        assert is_tied(found) == is_tied(model)
        torch.testing.assert_close(logits(found, new_ids)[:, to[kept]], logits(model, old_ids)[:, kept])
    else:
        own, first = found.get_input_embeddings().weight, model.get_input_embeddings().weight
        assert torch.equal(own[to[kept]], first[kept])


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "llama", "gemma"])
@pytest.mark.parametrize("form", ["sharded", "pickled", "pickled shards"])
def test_shards_and_pickled_files_are_written_as_safetensors(name, form, tokenizer, tmp_path):
    model = make(name, tokenizer)
    folder = save(model, tokenizer, tmp_path / "old", max_shard_size="20KB" if "shard" in form else "1GB")
    if "pickled" in form:
        _pickle(folder)
    receipt = vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Trim([TEXT]))
    assert not list((tmp_path / "new").glob("*.bin")) and not list((tmp_path / "new").glob("*.bin.index.json"))
    found = load(model, tmp_path / "new")
    new = Tokenizer.from_file(tmp_path / "new" / "tokenizer.json")
    to = torch.from_numpy(receipt.id_map)
    kept = (to >= 0).nonzero().flatten()
    expected = logits(model, tokenizer.encode(TEXT))[:, kept]
    torch.testing.assert_close(logits(found, new.encode(TEXT))[:, to[kept]], expected)


def _pickle(folder):
    """The same tensors in pytorch_model.bin, or in shards of that name."""
    from safetensors.torch import load_file

    for file in folder.glob("model*.safetensors"):
        torch.save(
            load_file(file), folder / file.name.replace("model", "pytorch_model", 1).replace("safetensors", "bin")
        )
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.exists():
        fields = json.loads(index.read_text())
        fields["weight_map"] = {
            key: name.replace("model", "pytorch_model", 1).replace("safetensors", "bin")
            for key, name in fields["weight_map"].items()
        }
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(fields))
        index.unlink()


def test_files_without_a_changed_tensor_are_copied_byte_for_byte(tokenizer, tmp_path):
    model = make("llama", tokenizer)
    folder = save(model, tokenizer, tmp_path / "old", max_shard_size="20KB")
    vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Add(["<user>"] * 1))
    same = [
        file.name
        for file in folder.glob("*.safetensors")
        if file.read_bytes() == (tmp_path / "new" / file.name).read_bytes()
    ]
    assert len(same) >= 1 and len(list(folder.glob("*.safetensors"))) - len(same) <= 2


def test_settings_follow_their_tokens(tokenizer, tmp_path):
    model = make("llama", tokenizer, eos_token_id=[tokenizer.eot_id, 300], pad_token_id=310, bos_token_id=301)
    model.generation_config.suppress_tokens = [302]
    folder = save(model, tokenizer, tmp_path / "old")
    receipt = vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Trim([TEXT]))
    to = receipt.id_map
    assert (to[[tokenizer.eot_id, 300, 301, 302, 310]] >= 0).all() and (to < 0).any()
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    generation = json.loads((tmp_path / "new" / "generation_config.json").read_text())
    assert config["eos_token_id"] == generation["eos_token_id"] == [to[tokenizer.eot_id], to[300]]
    assert config["pad_token_id"] == to[310] and generation["suppress_tokens"] == [to[302]]
    assert config["vocab_size"] == receipt.after.num_rows == receipt.before.num_rows - len(receipt.removed)
    live = make("llama", tokenizer, eos_token_id=[tokenizer.eot_id, 300], pad_token_id=310, bos_token_id=301)
    live.generation_config.suppress_tokens = [302]
    vocabulary.trim(live, tokenizer, [TEXT])
    for setting in ("eos_token_id", "pad_token_id", "bos_token_id", "vocab_size"):
        assert getattr(live.config, setting) == config[setting]
    assert live.generation_config.eos_token_id == generation["eos_token_id"]
    assert live.get_input_embeddings().padding_idx == live.config.pad_token_id


def test_a_flag_that_says_tied_does_not_lose_a_head_of_its_own(tokenizer, tmp_path):
    """transformers issue 45127: merged adapters leave the flag, and the trained rows are gone at the next load."""
    model = make("llama", tokenizer)
    folder = save(model, tokenizer, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    receipt = vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Add(["<user>"]))
    assert receipt.tied is False and any("tie_word_embeddings is now false" in remark for remark in receipt.remarks)
    found = load(model, tmp_path / "new")
    ids = tokenizer.encode(TEXT)
    V = tokenizer.vocab_size
    assert torch.equal(logits(found, ids)[:, :V], logits(model, ids)[:, :V])


def test_a_resized_head_of_its_own_is_not_drawn_anew(tokenizer):
    """transformers issue 45079: an untied head was overwritten when it was resized."""
    model = make("llama", tokenizer)
    head = model.lm_head.weight.detach().clone()
    vocabulary.grow(model, tokenizer, [f"<{n}>" for n in range(20)])
    assert torch.equal(model.lm_head.weight[: tokenizer.vocab_size], head[: tokenizer.vocab_size])


def test_the_bias_of_a_head_is_trimmed_with_it(tokenizer):
    """skeletoken issue 108: the bias kept its old rows."""
    model = make("bert", tokenizer)
    bias = model.cls.predictions.bias.detach().clone()
    _, receipt = vocabulary.trim(model, tokenizer, [TEXT])
    to = torch.from_numpy(receipt.id_map)
    kept = (to >= 0).nonzero().flatten()
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    assert torch.equal(model.cls.predictions.bias[to[kept]], bias[kept])


def test_a_grown_model_is_what_transformers_makes_of_it_where_rows_stay(tokenizer):
    ours, theirs = make("gpt2", tokenizer), make("gpt2", tokenizer)
    vocabulary.grow(ours, tokenizer, [f"<{n}>" for n in range(9)], init="mean")
    theirs.resize_token_embeddings(tokenizer.vocab_size + 9, mean_resizing=False)
    V = tokenizer.vocab_size
    assert torch.equal(ours.transformer.wte.weight[:V], theirs.transformer.wte.weight[:V])
    assert ours.config.vocab_size == theirs.config.vocab_size
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_rows_drawn_from_the_normal_distribution_are_not_near_duplicates_in_bfloat16(tokenizer):
    """transformers' own mean_resizing scales the covariance by 1e-9: its new rows all but coincide."""
    tokens = [f"<{n}>" for n in range(10)]
    model = make("llama", tokenizer, dtype=torch.bfloat16)
    init = vocabulary.NewRows(recipe="normal")
    new, receipt = vocabulary.grow(model, tokenizer, tokens, init=init)
    rows = model.model.embed_tokens.weight[tokenizer.vocab_size : new.vocab_size]
    assert len(rows.unique(dim=0)) == 10 and not receipt.near
    theirs = make("llama", tokenizer, dtype=torch.bfloat16)
    theirs.resize_token_embeddings(tokenizer.vocab_size + PADDING + 10, mean_resizing=True)
    table = theirs.model.embed_tokens.weight
    assert len(near_rows(table, range(len(table) - 10, len(table)), torch.arange(len(table)))) == 10


def test_training_goes_on_from_an_edited_model_though_the_last_loss_is_still_held(tokenizer):
    """A parameter that keeps its identity but not its shape fails in the next backward pass."""
    model = make("gpt2", tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    new, _ = vocabulary.grow(model, tokenizer, ["<user>"] + [f"<{n}>" for n in range(9)], carry=[optimizer])
    ids = torch.tensor([new.encode(TEXT + "<user>", allowed_special="all")])
    optimizer.zero_grad()
    later = model(input_ids=ids, labels=ids).loss
    later.backward()
    before = model.transformer.wte.weight.detach().clone()
    optimizer.step()
    assert loss.grad_fn is not None and (model.transformer.wte.weight != before).any(dim=1).all()


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta"])
@pytest.mark.parametrize("interpolate", [False, True])
def test_position_tables_of_folders_and_live_models_are_resized_alike(name, interpolate, tokenizer, tmp_path):
    model = make(name, tokenizer)
    folder = save(model, tokenizer, tmp_path / "old")
    change = vocabulary.Resize(num_positions=48, interpolate=interpolate)
    vocabulary.edit_model(folder, tmp_path / "new", change)
    found = load(model, tmp_path / "new")
    vocabulary.apply(change, model, tokenizer)
    assert found.config.max_position_embeddings == 48 + (2 if name == "roberta" else 0)
    for own, other in zip(model.parameters(), found.parameters(), strict=True):
        assert torch.equal(own, other)
    ids = tokenizer.encode(TEXT * 9)[:40]
    assert torch.equal(logits(model, ids), logits(found, ids))


@pytest.mark.parametrize("family", ["word_piece", "unigram", "bpe_with_fallback"])
def test_tokenizers_of_other_families_stay_those_of_their_model(family, tmp_path):
    tokenizer = FAMILIES[family]()
    name = {"word_piece": "bert", "unigram": "t5", "bpe_with_fallback": "llama"}[family]
    model = make(name, tokenizer)
    folder = save(model, tokenizer, tmp_path / "old")
    vocabulary.edit_model(folder, tmp_path / "trimmed", vocabulary.Trim([TEXT]))
    receipt = vocabulary.edit_model(tmp_path / "trimmed", tmp_path / "new", vocabulary.Add(["<user>"], special=True))
    assert receipt.after.vocab_size < tokenizer.vocab_size
    new = Library.from_file(str(tmp_path / "new" / "tokenizer.json"))
    old = Library.from_str(tokenizer.to_json())
    assert new.encode(TEXT).tokens == old.encode(TEXT).tokens  # with what the post-processor puts around it
    found = load(model, tmp_path / "new")
    ids = old.encode(TEXT).ids
    kept = receipt.before.vocab_size
    shared = [
        new.token_to_id(old.id_to_token(i)) for i in range(kept) if new.token_to_id(old.id_to_token(i)) is not None
    ]
    rows = [i for i in range(kept) if new.token_to_id(old.id_to_token(i)) is not None]
    expected = logits(model, ids)[:, rows]
    torch.testing.assert_close(logits(found, new.encode(TEXT).ids)[:, shared], expected)


def test_transformers_tokenizer_reads_an_edited_folder(tokenizer, tmp_path):
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Library.from_str(tokenizer.to_json()), eos_token="<|endoftext|>"
    )
    folder = save(make("gpt2", tokenizer), tokenizer, tmp_path / "old")
    fast.save_pretrained(folder)
    vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Trim(TEXTS[:1]))
    vocabulary.edit_model(tmp_path / "new", tmp_path / "newer", vocabulary.Add(["<user>"], special=True))
    new = Tokenizer.from_file(tmp_path / "newer" / "tokenizer.json")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "newer")
    assert found.eos_token_id == new.eot_id and found.convert_tokens_to_ids("<user>") == new.vocab_size - 1
    assert len(found) == new.vocab_size
    assert found(TEXT + "<user>")["input_ids"] == new.encode(TEXT + "<user>", allowed_special="all")
    config = json.loads((tmp_path / "newer" / "tokenizer_config.json").read_text())
    decoder = config.get("added_tokens_decoder", {})
    assert all(new.special_tokens[token["content"]] == int(token_id) for token_id, token in decoder.items())


def test_what_open_tables_tells_of_a_grown_folder(tokenizer, tmp_path):
    folder = save(make("llama", tokenizer), tokenizer, tmp_path / "old")
    vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Add(["<user>"], pad_to_multiple_of=64))
    tables = open_tables(tmp_path / "new")
    assert tables.vocab_size == tokenizer.vocab_size + 1 and tables.num_rows % 64 == 0


def roberta_tokenizer(tokenizer):
    """The same with RoBERTa's special tokens before the others: `<pad>` has id 1."""
    settings = json.loads(tokenizer.to_json())
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    own = settings["model"]["vocab"]
    settings["model"]["vocab"] = {name: n for n, name in enumerate(names)} | {t: n + 4 for t, n in own.items()}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    settings["added_tokens"] = [{"id": n, "content": name, **flags} for n, name in enumerate(names)]
    return Tokenizer.from_json(json.dumps(settings))


def test_robertas_padding_stays_where_its_positions_are_counted_from(tokenizer, tmp_path):
    tokenizer = roberta_tokenizer(tokenizer)
    model = make("roberta", tokenizer, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    folder = save(model, tokenizer, tmp_path / "model")
    counts = torch.arange(tokenizer.vocab_size).tolist()  # by which padding would move far back
    receipt = vocabulary.edit_model(folder, tmp_path / "sorted", vocabulary.Reorder(counts, by_count=True))
    assert receipt.id_map[1] == 1 and receipt.id_map[-1] == 0
    ids = tokenizer.encode(TEXT)
    after = logits(load(model, tmp_path / "sorted"), receipt.id_map[ids].tolist())
    torch.testing.assert_close(after[:, receipt.id_map], logits(model, ids)[:, : tokenizer.vocab_size])


@pytest.mark.parametrize("live", [True, False])
def test_an_order_that_moves_robertas_padding_is_refused(live, tokenizer, tmp_path):
    tokenizer = roberta_tokenizer(tokenizer)
    model = make("roberta", tokenizer, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    order = list(range(tokenizer.vocab_size))
    order[1], order[9] = 9, 1
    with pytest.raises(SettingError, match="must stay 1, from which positions are counted, but is 9"):
        if live:
            vocabulary.reorder(model, tokenizer, order)
        else:
            folder = save(model, tokenizer, tmp_path / "model")
            vocabulary.edit_model(folder, tmp_path / "out", vocabulary.Reorder(order))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stated", [[5000], [340, 345], [341, 340]])
def test_ids_of_added_tokens_that_the_library_gives_otherwise(stated, tokenizer, tmp_path):
    settings = json.loads(tokenizer.to_json())
    first = settings["added_tokens"][0]
    names = [first["content"], "<x>"]
    settings["added_tokens"] = [{**first, "id": n, "content": name} for n, name in zip(stated, names, strict=False)]
    tokenizer = Tokenizer.from_json(json.dumps(settings))
    folder = save(make("gpt2", tokenizer), tokenizer, tmp_path / "model")
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    receipt = vocabulary.edit_model(folder, tmp_path / "out", vocabulary.Trim(["the cat"]))
    written = Tokenizer.from_file(tmp_path / "out" / "tokenizer.json")
    assert written.identity == receipt.after.identity
    moved = {name: int(receipt.id_map[token_id]) for name, token_id in tokenizer.special_tokens.items()}
    assert written.special_tokens == moved


def test_a_head_that_is_stored_transposed_is_seen_and_edited(tokenizer, tmp_path):
    model = make("llama", tokenizer)
    folder = save(model, tokenizer, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    tensors = dict(model.state_dict())
    tensors["lm_head.weight"] = tensors["lm_head.weight"].t().contiguous().t()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert open_tables(folder).stored_head is not None
    vocabulary.edit_model(folder, tmp_path / "out", vocabulary.Trim([TEXT]))
    assert_consistent(found := load(model, tmp_path / "out"), found.config.vocab_size)


def test_links_out_of_the_folder_are_not_followed_where_nothing_changes(tokenizer, tmp_path):
    folder = save(make("gpt2", tokenizer), tokenizer, tmp_path / "model")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(CheckpointError, match="must lie in its folder"):
        vocabulary.edit_model(folder, tmp_path / "out", vocabulary.Add([]))
    assert not (tmp_path / "out").exists()


def test_a_link_to_nothing_is_refused(tokenizer, tmp_path):
    folder = save(make("gpt2", tokenizer), tokenizer, tmp_path / "model")
    (folder / "notes.txt").symlink_to(folder / "nowhere.txt")
    with pytest.raises(CheckpointError, match="must be a file"):
        vocabulary.edit_model(folder, tmp_path / "out", vocabulary.Add(["<new>"]))


def test_a_folder_inside_the_model_is_no_place_for_the_edited_one(tokenizer, tmp_path):
    folder = save(make("gpt2", tokenizer), tokenizer, tmp_path / "model")
    with pytest.raises(SettingError, match="`out` must lie outside of the model"):
        vocabulary.edit_model(folder, folder / "inner", vocabulary.Add([]))
    assert not (folder / "inner").exists()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint16])
def test_tensors_of_types_that_cannot_be_written_are_refused(dtype, tokenizer, tmp_path):
    model = make("gpt2", tokenizer)
    folder = save(model, tokenizer, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(dict(model.state_dict()) | {"extra": torch.zeros(2, dtype=dtype)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="must be of a type that safetensors files hold"):
        vocabulary.edit_model(folder, tmp_path / "out", vocabulary.Add(["<new>"]))


def test_a_second_table_by_token_is_refused(tokenizer):
    model = make("gpt2", tokenizer)
    model.transformer.embed_tokens_per_layer = torch.nn.Embedding(tokenizer.vocab_size + PADDING, 4)
    with pytest.raises(SettingError, match="must be no second table by token"):
        vocabulary.grow(model, tokenizer, ["<new>"])


@pytest.mark.parametrize("name", model_cases.CASES)
def test_bits_per_byte_and_divergence_of_folders_are_those_of_the_models_in_them(name, tokenizer, tmp_path):
    model = make(name, tokenizer)
    folder = save(model, tokenizer, tmp_path / "old")
    receipt = vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Trim([TEXT]), text=TEXT)
    if model.get_output_embeddings() is None and model.config.model_type != "gpt2":
        assert receipt.remarks == ["the model cannot be run here, it gives no logits: no bits per byte, no KL"]
        return
    assert receipt.divergence == 0.0
    if not type(model).__name__.endswith(("ForCausalLM", "LMHeadModel", "GPT2Model")):
        assert receipt.after.bits_per_byte is None
        assert receipt.remarks == ["the model predicts no next token from those before: no bits per byte"]
        return
    assert receipt.remarks == [] and receipt.after.bits_per_byte < receipt.before.bits_per_byte
    if name in HEADED:
        ids = [tokenizer.eot_id, *tokenizer.encode(TEXT)]
        lost = torch.nn.functional.cross_entropy(
            logits(model, ids[:-1])[:, : tokenizer.vocab_size], torch.tensor(ids[1:]), reduction="sum"
        )
        assert receipt.before.bits_per_byte == pytest.approx(lost.item() / math.log(2) / len(TEXT.encode()), rel=1e-5)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"architectures": ["NoSuchModel"]}, "as transformers has no 'NoSuchModel'"),
        ({"architectures": ["AutoTokenizer"]}, "as transformers has no 'AutoTokenizer'"),
        ({"architectures": None}, "as transformers has no None"),
        ({"num_hidden_layers": 1_000_000_000}, "as its config must name no more layers than its files hold"),
        ({"num_hidden_layers": 3}, "as its files lack model.layers.2."),
        ({"hidden_act": "no such"}, "KeyError: "),
    ],
)
def test_a_folder_that_transformers_cannot_make_a_model_of_is_edited_without_measures(config, why, tokenizer, tmp_path):
    folder = save(make("llama", tokenizer), tokenizer, tmp_path / "old")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, **config}))
    receipt = vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Trim([TEXT]), text=TEXT)
    assert len(receipt.remarks) == 1 and receipt.remarks[0].startswith(f"the model cannot be run here, {why}")
    assert receipt.before.tokens and receipt.before.bits_per_byte is None


def test_measuring_needs_no_transformers_and_says_so(tokenizer, tmp_path, monkeypatch):
    folder = save(make("llama", tokenizer), tokenizer, tmp_path / "old")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    receipt = vocabulary.edit_model(folder, tmp_path / "new", vocabulary.Trim([TEXT]), text=TEXT)
    why = "as transformers is not installed"
    assert receipt.remarks == [f"the model cannot be run here, {why}: no bits per byte, no KL"]


WIDE = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "d_model": 16}
WIDE |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
SPEECH = {**WIDE, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
SPEECH |= {"suppress_tokens": None, "begin_suppress_tokens": None, "num_mel_bins": 8}
NO_NEXT = "the model predicts no next token from those before: no bits per byte"


@pytest.mark.parametrize(
    ("kind", "config", "fields", "remark"),
    [
        ("XLNetLMHeadModel", "XLNetConfig", {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}, NO_NEXT),
        ("XLMWithLMHeadModel", "XLMConfig", {"emb_dim": 16, "n_layers": 1, "n_heads": 2}, NO_NEXT),
        ("WhisperForConditionalGeneration", "WhisperConfig", SPEECH, "the model cannot be run here, not on token ids"),
        ("Speech2TextForConditionalGeneration", "Speech2TextConfig", WIDE, "the model cannot be run here, not on tok"),
        ("BartForConditionalGeneration", "BartConfig", WIDE, NO_NEXT),
    ],
)
def test_live_models_of_other_kinds_are_measured_or_the_receipt_says_why_not(kind, config, fields, remark, tokenizer):
    torch.manual_seed(0)
    with model_cases.silence():
        settings = getattr(transformers, config)(vocab_size=tokenizer.vocab_size + PADDING, **fields)
        model = getattr(transformers, kind)(settings).eval()
    _, receipt = vocabulary.grow(model, tokenizer, ["<user>"], special=True, text=TEXT)
    assert len(receipt.remarks) == 1 and receipt.remarks[0].startswith(remark)
    assert receipt.before.bits_per_byte is None and receipt.divergence == (0.0 if remark == NO_NEXT else None)
    assert receipt.after.vocab_size == tokenizer.vocab_size + 1
