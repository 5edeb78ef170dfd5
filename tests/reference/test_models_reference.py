"""Tables of models that transformers wrote: the input embedding equals the model's own, bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import model_cases
from model_cases import CASES, LENGTH, VOCAB, WIDTH, first_input, make, silence
from tokenspace import InputEmbedding, Run, export, positions
from tokenspace.checkpoint import open_tables
from vocabulary_cases import FAMILIES

pytest.importorskip("transformers")
IDS = torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
HEADLESS = [name for name in CASES if name.endswith(("-headless", "-encoder"))]
UNTIED = ["gpt2-untied", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe"]


@pytest.fixture(autouse=True)
def quiet(one_thread):
    with silence():
        yield


def saved(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


def edit_config(folder, drop=(), **fields):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in config.items() if name not in drop}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_input_embedding_equals_the_models_own(name, dtype, tmp_path):
    model = make(name, dtype)
    embedding = InputEmbedding.from_pretrained(saved(model, tmp_path / "m"))
    own = first_input(model, IDS)
    assert own.dtype == dtype
    with torch.no_grad():
        assert torch.equal(embedding(IDS), own)


@pytest.mark.parametrize("name", CASES)
def test_the_tie_is_what_transformers_makes_of_the_folder(name, tmp_path):
    model = make(name)
    tables = open_tables(saved(model, tmp_path / "m"))
    head = model.get_output_embeddings()
    assert (tables.tied is None) == (head is None) == (name in HEADLESS)
    if head is not None:
        assert tables.tied == (head.weight is model.get_input_embeddings().weight)
    assert tables.tied is not False or torch.equal(tables.head.tensor(), head.weight)
    assert (tables.head is None) == (name not in UNTIED)


@pytest.mark.parametrize("name", ["gpt2", "t5", "llama-tied", "gemma"])
@pytest.mark.parametrize("same", [True, False])
def test_a_head_stored_beside_the_flag_is_taken_as_transformers_takes_it(name, same, tmp_path):
    model = make(name)
    folder = saved(model, tmp_path / "m")
    head = model.get_input_embeddings().weight.detach() + (0 if same else 1)
    tensors = {key: tensor.clone() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**tensors, "lm_head.weight": head.clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    opened, tables = type(model).from_pretrained(folder), open_tables(folder)
    tied = opened.get_output_embeddings().weight is opened.get_input_embeddings().weight
    assert tables.tied == tied == same
    assert (tables.head is None) == same
    assert same or torch.equal(tables.head.tensor(), opened.get_output_embeddings().weight)


def test_a_t5_of_the_form_1_1_has_a_head_of_its_own(tmp_path):
    folder = saved(make("t5"), tmp_path / "m")
    tensors = {key: tensor.clone() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**tensors, "lm_head.weight": torch.ones(VOCAB, WIDTH)}, folder / "model.safetensors")
    edit_config(folder, tie_word_embeddings=False)
    tables = open_tables(folder)
    assert tables.tied is False and torch.equal(tables.head.tensor(), torch.ones(VOCAB, WIDTH))


@pytest.mark.parametrize("name", ["bert", "bert-pretraining", "roberta", "xlm-roberta"])
def test_the_heads_bias_is_found(name, tmp_path):
    model = make(name)
    assert torch.equal(open_tables(saved(model, tmp_path / "m")).head_bias.tensor(), model.get_output_embeddings().bias)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "bloom", "llama", "gemma"])
def test_shards_with_an_index_open_alike(name, tmp_path):
    model = make(name)
    folder = saved(model, tmp_path / "m", max_shard_size="3KB")
    assert not (folder / "model.safetensors").exists()
    with torch.no_grad():
        assert torch.equal(InputEmbedding.from_pretrained(folder)(IDS), first_input(model, IDS))


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "llama", "gemma"])
def test_pickled_tensors_open_alike(name, tmp_path):
    model = make(name)
    folder = saved(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    tables = open_tables(folder)
    with torch.no_grad():
        assert torch.equal(tables.embedding()(IDS), first_input(model, IDS))
    assert tables.tied == (name != "llama")  # such files hold the tied head once more


def test_shards_of_pickled_tensors_open_alike(tmp_path):
    model = make("llama")
    folder = saved(model, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    shards = {"a.bin": list(state)[:1], "b.bin": list(state)[1:]}
    for file, keys in shards.items():
        torch.save({key: state[key] for key in keys}, folder / file)
    weight_map = {key: file for file, keys in shards.items() for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert torch.equal(open_tables(folder).token.tensor(), model.model.embed_tokens.weight)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_token_types_are_those_given(name, tmp_path):
    model = make(name, type_vocab_size=2)
    kinds = (torch.arange(9) > 4).long().expand(2, 9)
    embedding = InputEmbedding.from_pretrained(saved(model, tmp_path / "m"))
    with torch.no_grad():
        own = first_input(model, IDS, token_type_ids=kinds)
        assert torch.equal(embedding(IDS, token_types=kinds), own)
        assert not torch.equal(embedding(IDS), own)


def test_robertas_padding_stands_one_place_before_its_first_token(tmp_path):
    model = make("roberta")
    ids = torch.cat([IDS, torch.full((2, 3), 1)], dim=1)
    places = torch.arange(12).where(torch.arange(12) < 9, -1).expand(2, 12)
    embedding = InputEmbedding.from_pretrained(saved(model, tmp_path / "m"))
    with torch.no_grad():
        assert torch.equal(embedding(ids, places), first_input(model, ids))


def test_robertas_table_is_two_positions_longer_than_its_texts(tmp_path):
    embedding = InputEmbedding.from_pretrained(saved(make("roberta"), tmp_path / "m"))
    assert embedding.position_offset == 2
    ids = torch.ones(1, LENGTH - 1, dtype=torch.long)
    with pytest.raises(ValueError, match="position"):
        embedding(ids)
    assert embedding(ids[:, 1:]).shape == (1, LENGTH - 2, WIDTH)


def test_gemmas_scale_is_rounded_to_the_tables_dtype(tmp_path):
    tables = open_tables(saved(make("gemma", torch.bfloat16, hidden_size=24), tmp_path / "m"))
    assert tables.scale == torch.tensor(24**0.5, dtype=torch.bfloat16).item() != 24**0.5


def test_what_is_read_is_mapped_and_never_written_back(tmp_path):
    folder = saved(make("llama"), tmp_path / "m")
    before = (folder / "model.safetensors").read_bytes()
    table = open_tables(folder).token
    table.tensor().zero_()
    assert (folder / "model.safetensors").read_bytes() == before
    assert table.tensor().any()


def test_rows_are_those_of_the_whole_table(tmp_path):
    table = open_tables(saved(make("llama"), tmp_path / "m")).token
    assert torch.equal(table.rows([3, 0, 39]), table.tensor()[[3, 0, 39]])


# schemes


SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8},
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [2.0, 2.5, 3.0, 4.0],
        "original_max_position_embeddings": 8,
    },
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
}


def angles(scheme, length):
    layout = positions.Layout.contiguous(length)
    return scheme.prepare(layout).queries


def own_angles(model, length, *kind):
    cos, sin = model.model.rotary_emb(torch.zeros(1, length, WIDTH), torch.arange(length).unsqueeze(0), *kind)
    return cos[0], sin[0]


def assert_same_angles(scheme, model, length, *kind):
    cos, sin = own_angles(model, length, *kind)
    ours = angles(scheme, length)
    half = cos.shape[-1] // 2
    torch.testing.assert_close(ours.cos.reshape(length, -1)[:, :half], cos[:, :half], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.sin.reshape(length, -1)[:, -half:].abs(), sin[:, :half].abs(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize("kind", [None, *SCALINGS])
@pytest.mark.parametrize("form", ["rope_parameters", "rope_scaling"])
def test_rotary_settings_are_those_of_the_config(form, kind, theta, tmp_path):
    scaling = {"rope_type": kind or "default", **SCALINGS.get(kind, {})}
    model = make("llama", rope_parameters={**scaling, "rope_theta": theta})
    folder = saved(model, tmp_path / "m")
    if form == "rope_scaling":  # as transformers before 5 wrote it
        old = None if kind is None else {"type" if kind == "linear" else "rope_type": kind, **SCALINGS[kind]}
        edit_config(folder, drop=["rope_parameters"], rope_theta=theta, rope_scaling=old)
    name, settings = open_tables(folder).scheme
    assert name == "rotary"
    assert_same_angles(positions.get(name, **settings), model, 24)


@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2"])
def test_a_config_that_is_silent_means_the_familys_theta(name, tmp_path):
    model = make(name)
    folder = saved(model, tmp_path / "m")
    edit_config(folder, drop=["rope_parameters", "rope_theta", "head_dim"] if name != "qwen3" else ["rope_parameters"])
    fields = {} if name not in ("gemma", "gemma2") else {"head_dim": 8}
    edit_config(folder, **fields)
    scheme = positions.get("rotary", **open_tables(folder).scheme[1])
    assert_same_angles(scheme, model, 24)


@pytest.mark.parametrize("form", ["new", "old"])
def test_gemma_3_turns_its_layers_by_two_speeds(form, tmp_path):
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    model = make("gemma3_text", rope_parameters=rope)
    folder = saved(model, tmp_path / "m")
    if form == "old":
        scaling = {"rope_type": "linear", "factor": 8.0}
        edit_config(folder, drop=["rope_parameters", "layer_types"], rope_theta=1e6, rope_local_base_freq=1e4)
        edit_config(folder, rope_scaling=scaling, sliding_window_pattern=6)
    name, settings = open_tables(folder).scheme
    scheme = positions.get(name, **settings)
    assert name == "compose" and scheme.layers == [[5], [0, 1, 2, 3, 4, 6]]
    assert_same_angles(scheme.members[0], model, 24, "full_attention")
    assert_same_angles(scheme.members[1], model, 24, "sliding_attention")


def test_t5s_bias_is_the_encoders(tmp_path):
    model = make("t5")
    scheme = open_tables(saved(model, tmp_path / "m")).position_scheme()
    own = model.encoder.block[0].layer[0].SelfAttention
    ours = scheme.by_distance(torch.arange(9) - torch.arange(9).unsqueeze(1))
    assert torch.equal(ours, own.compute_bias(9, 9)[0])


def test_alibis_slopes_are_blooms(tmp_path):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    name, settings = open_tables(saved(make("bloom"), tmp_path / "m")).scheme
    theirs = build_alibi_tensor(torch.ones(1, 2), 2, torch.float32)[:, 0, 1]
    assert positions.get(name, **settings).slopes == pytest.approx(theirs.tolist())


# a model with pictures


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_the_text_side_of_gemma_3_with_pictures(prefix, tmp_path):
    import transformers

    text = model_cases.CASES["gemma3_text"][2]
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    folder = saved(model, tmp_path / "m")
    file = folder / "model.safetensors"
    tensors = {k: t.clone() for k, t in load_file(file).items()}
    written = next(key for key in tensors if key.endswith("embed_tokens.weight")).removesuffix("embed_tokens.weight")
    save_file({k.replace(written, prefix): t for k, t in tensors.items()}, file)
    with torch.no_grad():
        own = model.get_input_embeddings()(IDS)
        assert torch.equal(InputEmbedding.from_pretrained(folder)(IDS), own)


# whole models


def test_a_gpt_2_folder_opens_as_a_model_too(tmp_path):
    model = make("gpt2")
    opened = Run.open(saved(model, tmp_path / "m"))
    with torch.no_grad():
        torch.testing.assert_close(opened.model()(IDS), model(IDS).logits)
    assert (opened.ledger, opened.step, opened.config["model_type"]) == (None, None, "gpt2")


def test_other_families_do_not_run_here(tmp_path):
    opened = Run.open(saved(make("llama"), tmp_path / "m"))
    with pytest.raises(ValueError, match="must be gpt2 to run here, but is 'llama'"):
        opened.model()


def test_other_families_are_refused_by_name_unless_the_table_is_named(tmp_path):
    import transformers

    torch.manual_seed(0)
    config = transformers.OPTConfig(vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2)
    model = transformers.OPTForCausalLM(config)
    folder = saved(model, tmp_path / "m")
    with pytest.raises(ValueError, match=r"must be of a known family: gpt2, .*, but is 'opt'. Name the token table's"):
        open_tables(folder)
    tables = open_tables(folder, table="model.decoder.embed_tokens.weight")
    assert torch.equal(tables.token.tensor(), model.get_input_embeddings().weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gpt2-untied", "bert", "roberta", "t5", "bloom", "gemma3_text", "qwen2"])
def test_an_input_side_in_parquet_or_safetensors_is_the_models_own(name, dtype, tmp_path):
    tokenizer = FAMILIES["byte_level"]()
    folder = saved(make(name, dtype, vocab_size=tokenizer.vocab_size + 2), tmp_path / "model")
    tokenizer.save(folder / "tokenizer.json")
    for format in ("safetensors", "parquet"):
        export(folder, tmp_path / f"a.{format}", format=format)
        tables, own = open_tables(tmp_path / f"a.{format}"), open_tables(folder)
        with torch.no_grad():
            assert torch.equal(tables.embedding()(IDS), own.embedding()(IDS))
        assert (tables.tied, tables.scheme, tables.token.dtype) == (own.tied, own.scheme, dtype)
        for found, expected in ((tables.head, own.head), (tables.head_bias, own.head_bias)):
            assert (found is None) == (expected is None)
            assert found is None or torch.equal(found.tensor(), expected.tensor())
