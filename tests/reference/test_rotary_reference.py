"""Rotary positions against transformers, torch's ONNX operator, and its scalings against theirs."""

import pytest
import torch
from transformers import GPTJConfig, GPTNeoXConfig, LlamaConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_rotate
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj_rotate
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from tokenspace.positions import Layout, get

B, H, T, K = 2, 3, 11, 16
WHERE = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [5, 7, 7, 30, 31, 100, 101, 102, 500, 900, 1000]])


def leaves():
    generator = torch.Generator().manual_seed(0)
    q, k, q_gradient, k_gradient = (torch.randn(B, H, T, K, generator=generator) for _ in range(4))
    return (q.requires_grad_(), k.requires_grad_()), (q_gradient, k_gradient)


def ours(scheme, q, k, where=WHERE):
    layout = Layout.explicit(where)
    return scheme.rotate(q, k, layout, scheme.prepare(layout))


def assert_same(turned, expected, both, gradients, tolerance=2e-6):
    """Values and gradients."""
    for actual, wanted in zip(turned, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance)
    for actual, wanted in zip(
        *(torch.autograd.grad(side, both, gradients) for side in (turned, expected)), strict=True
    ):
        torch.testing.assert_close(actual, wanted, rtol=tolerance, atol=tolerance)


def llama(**parameters):
    sizes = {"hidden_size": H * K, "num_attention_heads": H, "head_dim": K, "max_position_embeddings": 4096}
    return LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters={"rope_theta": 10000.0, **parameters}))


def test_halves_are_llamas():
    (q, k), gradients = leaves()
    cos, sin = llama(rope_type="default")(q, WHERE)
    expected = apply_rotary_pos_emb(q, k, cos, sin)
    assert_same(ours(get("rotary", head_dim=K), q, k), expected, (q, k), gradients)


def test_interleaved_are_gpt_js():
    (q, k), gradients = leaves()
    GPTJConfig()  # its own modeling file, without a model
    sin, cos = create_sinusoidal_positions(1001, K)[WHERE].chunk(2, dim=-1)
    expected = [gptj_rotate(x.transpose(1, 2), sin, cos).transpose(1, 2) for x in (q, k)]
    assert_same(ours(get("rotary", head_dim=K, order="interleaved"), q, k), expected, (q, k), gradients, 2e-4)


@pytest.mark.parametrize("order", ["halves", "interleaved"])
def test_both_orders_are_those_of_onnx(order):
    (q, k), _ = leaves()
    scheme = get("rotary", head_dim=K, order=order)
    angles = scheme.prepare(Layout.contiguous(1001)).queries
    expected = [
        torch.onnx.ops.rotary_embedding(x, angles.cos, angles.sin, WHERE, interleaved=order == "interleaved")
        for x in (q, k)
    ]
    for actual, wanted in zip(ours(scheme, q, k), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_part_of_the_head_turns_as_in_gpt_neox():
    (q, k), gradients = leaves()
    config = GPTNeoXConfig(
        hidden_size=H * K, num_attention_heads=H, rope_parameters={"rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    )
    cos, sin = GPTNeoXRotaryEmbedding(config)(q, WHERE)
    expected = neox_rotate(q, k, cos, sin)
    assert_same(ours(get("rotary", head_dim=K, rotary_dim=4), q, k), expected, (q, k), gradients)


SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn, untruncated": {"factor": 4.0, "original_max_position_embeddings": 64, "truncate": False, "beta_fast": 16},
    "yarn, mscale": {"factor": 8.0, "original_max_position_embeddings": 64, "mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn, factor": {"factor": 8.0, "original_max_position_embeddings": 64, "attention_factor": 0.6},
    "longrope": {
        "factor": 4.0,
        "short_factor": [1.0 + pair / 10 for pair in range(8)],
        "long_factor": [2.0 + pair for pair in range(8)],
        "original_max_position_embeddings": 64,
    },
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "proportional": {"partial_rotary_factor": 0.5},
    "proportional, slower": {"partial_rotary_factor": 0.75, "factor": 3.0},
}


@pytest.mark.parametrize("length", [1, 50, 64, 65, 200])
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.filterwarnings("ignore")
def test_scalings_are_those_of_transformers(name, length):
    kind = name.partition(",")[0]
    sizes = {"hidden_size": H * K, "num_attention_heads": H, "head_dim": K, "max_position_embeddings": 64}
    parameters = {"rope_type": kind, "rope_theta": 10000.0, **SCALINGS[name]}
    theirs = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=dict(parameters)))
    cos, sin = theirs(torch.zeros(1, 1, length, K), torch.arange(length).unsqueeze(0))
    if kind == "dynamic":
        parameters["original_max_position_embeddings"] = 64
    angles = get("rotary", head_dim=K, scaling=parameters).prepare(Layout.contiguous(length)).queries
    torch.testing.assert_close(angles.cos, cos[0, :, : K // 2], rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(angles.sin, sin[0, :, : K // 2], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_the_length_of_one_text_does_not_change_another(name):
    """In transformers it does: the longest row of a batch decides for all."""
    table = {"rope_type": name, "original_max_position_embeddings": 64, **SCALINGS[name]}
    scheme = get("rotary", head_dim=K, scaling=table)
    short, long = torch.arange(40), torch.arange(60, 100)
    together = scheme.prepare(Layout.explicit(torch.stack([short, long]))).queries
    for row, where in enumerate((short, long)):
        alone = scheme.prepare(Layout.explicit(where)).queries.cos
        torch.testing.assert_close(together.cos[row, 0], alone, rtol=0, atol=2e-5)
    packed = scheme.prepare(Layout.packed([30, 90])).queries.cos
    for document, length in ((packed[:30], 30), (packed[30:], 90)):
        alone = scheme.prepare(Layout.contiguous(length)).queries.cos
        torch.testing.assert_close(document, alone, rtol=0, atol=2e-5)
    assert not torch.allclose(packed[:30], packed[30:60], atol=0.1)
