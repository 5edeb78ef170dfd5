"""LanguageModel against transformers' GPT2LMHeadModel: logits, gradients, generation, folders both ways."""

import json
import warnings

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Model

from tokenspace.model import LanguageModel
from tokenspace.model.gpt2 import load_gpt2, save_gpt2
from tokenspace.positions import Layout
from tokenspace.tokenizer import Tokenizer

VOCAB, CONTEXT = 61, 16


def gpt2(**fields):
    """A GPT-2 with weights wide enough for attention and activations to matter."""
    torch.manual_seed(1)
    sizes = {"vocab_size": VOCAB, "n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": CONTEXT}
    no_dropout = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**{**sizes, **no_dropout, **ends, "initializer_range": 0.3, **fields})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ".ln_" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def tokens(rows=2, length=CONTEXT):
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(2))


def opened_by_transformers(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, report = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def same_logits(ours, theirs):
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": False},
        {"layer_norm_epsilon": 0.1},
        {"n_inner": 96},
        {"n_head": 1, "n_layer": 1},
        {"use_cache": False},
    ],
    ids=str,
)
def test_a_folder_of_transformers_opens_with_the_same_logits(tmp_path, fields):
    theirs = gpt2(**fields)
    theirs.save_pretrained(tmp_path)
    same_logits(LanguageModel.from_pretrained(tmp_path), theirs)


def test_a_folder_given_as_text_opens_too(tmp_path):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path)
    same_logits(LanguageModel.from_pretrained(str(tmp_path)), theirs)


def test_shards_open_with_the_same_logits(tmp_path):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    same_logits(load_gpt2(tmp_path), theirs)


def test_an_old_bin_file_opens_with_the_same_logits(tmp_path):
    theirs = gpt2()
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    same_logits(load_gpt2(tmp_path), theirs)


def test_names_without_prefix_and_stored_masks_open_with_the_same_logits(tmp_path):
    theirs = gpt2()
    theirs.config.save_pretrained(tmp_path)
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in theirs.state_dict().items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, CONTEXT, CONTEXT)  # as in the files that OpenAI's weights came in
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    same_logits(load_gpt2(tmp_path), theirs)


def test_a_bare_gpt2_model_opens_with_its_table_as_head(tmp_path):
    theirs = gpt2()
    GPT2Model.save_pretrained(theirs.transformer, tmp_path)
    same_logits(load_gpt2(tmp_path), theirs)


def test_half_precision_files_are_read_in_float32(tmp_path):
    theirs = gpt2().to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    same_logits(ours, theirs.float())


@pytest.mark.parametrize("tie", [True, False])
def test_gradients_are_those_of_transformers(tmp_path, tie):
    theirs = gpt2(tie_word_embeddings=tie)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_gpt2(tmp_path / "theirs")
    ours.train()
    theirs.train()
    ours(tokens()).square().mean().backward()
    theirs(tokens()).logits.square().mean().backward()
    expected = {name.removeprefix("transformer."): p.grad for name, p in theirs.named_parameters()}
    torch.testing.assert_close(ours.embedding.token.weight.grad, expected["wte.weight"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.embedding.position.weight.grad, expected["wpe.weight"], rtol=1e-4, atol=1e-5)
    for ours_block, theirs_block in zip(ours.blocks, theirs.transformer.h, strict=True):
        for own, other in [
            (ours_block.attention.qkv, theirs_block.attn.c_attn),
            (ours_block.attention.out, theirs_block.attn.c_proj),
            (ours_block.mlp_in, theirs_block.mlp.c_fc),
            (ours_block.mlp_out, theirs_block.mlp.c_proj),
        ]:
            torch.testing.assert_close(own.weight.grad, other.weight.grad.t(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(own.bias.grad, other.bias.grad, rtol=1e-4, atol=1e-5)


def test_dropout_falls_where_it_does_in_transformers(tmp_path):
    theirs = gpt2(**dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.3)).train()
    theirs.save_pretrained(tmp_path)
    ours = load_gpt2(tmp_path).train()
    torch.manual_seed(4)
    expected = theirs(tokens()).logits
    torch.manual_seed(4)
    torch.testing.assert_close(ours(tokens()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 5])
def test_greedy_generation_is_that_of_transformers(tmp_path, length):
    theirs = gpt2(eos_token_id=None)
    theirs.save_pretrained(tmp_path)
    prompt = tokens(1, length)
    expected = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False, pad_token_id=0
    )
    assert list(load_gpt2(tmp_path).generate(prompt[0].tolist(), 10, temperature=0)) == expected[0, length:].tolist()


def test_left_padding_is_that_of_transformers(tmp_path):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    layout = Layout.padded(mask)
    with torch.no_grad():
        actual = load_gpt2(tmp_path)(tokens(2, 6), layout)
        expected = theirs(tokens(2, 6), attention_mask=mask, position_ids=layout.query_positions).logits
    torch.testing.assert_close(actual[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tie", [True, False])
def test_an_exported_folder_opens_in_transformers_with_the_same_logits(tmp_path, tie):
    torch.manual_seed(3)
    ours = LanguageModel(
        vocab_size=VOCAB,
        d_model=24,
        num_layers=2,
        num_heads=3,
        context_length=CONTEXT,
        init="torch",
        tie_head=tie,
        norm_eps=1e-3,
        dropout=0.25,
    ).eval()
    save_gpt2(ours, tmp_path / "out")
    theirs = opened_by_transformers(tmp_path / "out")
    same_logits(ours, theirs)
    assert (theirs.config.resid_pdrop, theirs.config.embd_pdrop, theirs.config.attn_pdrop) == (0.25, 0.25, 0.25)
    assert (theirs.lm_head.weight is theirs.transformer.wte.weight) == tie


@pytest.mark.parametrize("tie", [True, False])
def test_an_exported_folder_opens_again_bit_for_bit(tmp_path, tie):
    torch.manual_seed(3)
    ours = LanguageModel(
        vocab_size=VOCAB, d_model=24, num_heads=3, context_length=CONTEXT, dropout=0.5, norm_eps=1e-4, tie_head=tie
    )
    save_gpt2(ours, tmp_path / "out")
    again = load_gpt2(tmp_path / "out")
    assert again.config == ours.config
    assert (again.head.weight is again.embedding.token.weight) == tie
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in again.state_dict().items())


def test_a_folder_goes_through_both_libraries_unchanged(tmp_path):
    theirs = gpt2()
    theirs.save_pretrained(tmp_path / "first")
    save_gpt2(load_gpt2(tmp_path / "first"), tmp_path / "second")
    again = opened_by_transformers(tmp_path / "second")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in theirs.state_dict().items())


def test_a_longer_learned_table_is_exported_whole(tmp_path):
    ours = LanguageModel(
        vocab_size=VOCAB,
        d_model=24,
        num_layers=1,
        num_heads=3,
        context_length=8,
        position_settings={"num_positions": 16},
    ).eval()
    save_gpt2(ours, tmp_path / "out")
    same_logits(ours, opened_by_transformers(tmp_path / "out"))


def test_bfloat16_is_exported_as_such(tmp_path):
    ours = LanguageModel(vocab_size=9, d_model=8, num_layers=1, num_heads=2, context_length=4).to(torch.bfloat16)
    save_gpt2(ours, tmp_path / "out")
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_tokenizer_goes_along_and_splits_text_as_it_did(tmp_path):
    tokenizer = Tokenizer.train(["बिल्ली चटाई पर बैठी है। it's what's there"] * 20, 300)
    ours = LanguageModel(vocab_size=tokenizer.vocab_size, d_model=8, num_layers=1, num_heads=2, context_length=8)
    save_gpt2(ours, tmp_path / "out", tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "चटाई पर बैठी बिल्ली, it's there\n\n  twice"
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["bos_token_id"] == config["eos_token_id"] == tokenizer.eot_id == theirs.eos_token_id
