"""Rotary positions against transformers and torch's ONNX operator, its scalings against transformers."""

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_rotate
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as gptj_rotate
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.roformer.modeling_roformer import RoFormerSelfAttention, RoFormerSinusoidalPositionalEmbedding

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


def llama(parameters, head_dim=K, length=64):
    """A config of a model trained on texts of this length; it changes the parameters it is given."""
    sizes = {"hidden_size": H * head_dim, "num_attention_heads": H, "head_dim": head_dim}
    return LlamaConfig(**sizes, max_position_embeddings=length, rope_parameters=dict(parameters))


@pytest.mark.parametrize("theta", [10000.0, 500.0])
@pytest.mark.parametrize("where", [torch.arange(T), torch.arange(T) + 777, WHERE], ids=["start", "later", "by row"])
def test_halves_are_llamas(where, theta):
    (q, k), gradients = leaves()
    rotary = LlamaRotaryEmbedding(llama({"rope_type": "default", "rope_theta": theta}))
    expected = apply_rotary_pos_emb(q, k, *rotary(q, where.expand(B, T)))
    assert_same(ours(get("rotary", head_dim=K, theta=theta), q, k, where), expected, (q, k), gradients)


def test_interleaved_are_roformers():
    (q, k), gradients = leaves()
    table = RoFormerSinusoidalPositionalEmbedding(1001, K)
    waves = table.create_weight()[WHERE].unsqueeze(1)
    expected = RoFormerSelfAttention.apply_rotary_position_embeddings(waves, q, k)
    turned = ours(get("rotary", head_dim=K, order="interleaved"), q, k)
    assert_same(turned, expected, (q, k), gradients, 2e-4)  # its angles are float64, ours float32: 1000 ± 6e-5


def test_interleaved_are_gpt_js():
    (q, k), gradients = leaves()
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


def test_interleaved_parts_of_the_head_turn_as_in_gpt_j():
    (q, k), gradients = leaves()
    sin, cos = create_sinusoidal_positions(1001, 4)[WHERE].chunk(2, dim=-1)

    def turned(x):
        x = x.transpose(1, 2)
        return torch.cat([gptj_rotate(x[..., :4], sin, cos), x[..., 4:]], dim=-1).transpose(1, 2)

    scheme = get("rotary", head_dim=K, rotary_dim=4, order="interleaved")
    assert_same(ours(scheme, q, k), [turned(q), turned(k)], (q, k), gradients, 2e-4)


SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn, untruncated": {"factor": 4.0, "original_max_position_embeddings": 64, "truncate": False, "beta_fast": 16},
    "yarn, ramp past both ends": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 500.0,
        "beta_slow": 1e-4,
    },
    "yarn, ramp of no width": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 2.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
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
    "proportional, odd count": {"partial_rotary_factor": 0.4},
    "proportional, slower": {"partial_rotary_factor": 0.75, "factor": 3.0},
    "dynamic, half of the head": {"factor": 4.0, "partial_rotary_factor": 0.5},
    "yarn, half of the head": {"factor": 4.0, "original_max_position_embeddings": 64, "partial_rotary_factor": 0.5},
}


def with_length(parameters):
    """Ours asks for the length that transformers takes from the config's `max_position_embeddings`."""
    return {"original_max_position_embeddings": 64, **parameters}


@pytest.mark.parametrize("length", [1, 50, 64, 65, 200])
@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_are_those_of_transformers(name, length):
    """All there is to an encoding: the turned queries and keys of a whole text, and their gradients."""
    parameters = {"rope_type": name.partition(",")[0], "rope_theta": 10000.0, **SCALINGS[name]}
    q, k = (torch.randn(1, H, length, K, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (0, 1))
    cos, sin = LlamaRotaryEmbedding(llama(parameters))(q, torch.arange(length).unsqueeze(0))
    expected = neox_rotate(q, k, cos, sin)  # Llama's, for any part of the head
    turned = ours(get("rotary", head_dim=K, scaling=with_length(parameters)), q, k, torch.arange(length))
    assert_same(turned, expected, (q, k), (torch.ones_like(q), torch.ones_like(k)))


LARGE = {  # sizes as in published models: head_dim, max_position_embeddings, rope_parameters
    "llama3": (128, 131072, {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}),
    "yarn": (128, 131072, {
        "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 32768}),
    "yarn, mscale": (64, 163840, {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707,
        "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096}),
    "yarn, untruncated": (64, 131072, {
        "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "truncate": False, "original_max_position_embeddings": 4096}),
    "longrope, part of the head": (128, 131072, {
        "rope_type": "longrope", "rope_theta": 10000.0, "factor": 32.0, "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 4096, "short_factor": [1 + pair / 50 for pair in range(48)],
        "long_factor": [1.0 + pair for pair in range(48)]}),
    "proportional": (512, 131072, {
        "rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25}),
    "linear": (64, 4096, {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}),
    "dynamic": (64, 4096, {
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 4096}),
}  # fmt: skip


@pytest.mark.parametrize("length", [100, 4096, 4097, 60_000])
@pytest.mark.parametrize("name", LARGE)
def test_speeds_and_attention_factor_are_those_of_transformers(name, length):
    head_dim, trained, parameters = LARGE[name]
    config = llama(parameters, head_dim, trained)
    speeds, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len=length)
    scheme = get("rotary", head_dim=head_dim, scaling=parameters)
    torch.testing.assert_close(scheme.scaling.speeds(scheme.theta, length), speeds, rtol=3e-7, atol=0)
    assert scheme.scaling.attention_factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_the_length_of_one_row_does_not_change_another(name):
    """In transformers it does: the longest row of a batch decides for all. So each row is compared alone."""
    (q, k), _ = leaves()
    parameters = {"rope_type": name, "rope_theta": 10000.0, **SCALINGS[name]}
    where = torch.stack([torch.arange(T), torch.arange(T) + 40, torch.arange(T) + 54, torch.arange(T) + 300])
    q, k = q[:1].expand(4, H, T, K), k[:1].expand(4, H, T, K)
    turned = ours(get("rotary", head_dim=K, scaling=with_length(parameters)), q, k, where)
    for row in range(4):
        alone = where[row : row + 1]
        cos, sin = LlamaRotaryEmbedding(llama(parameters))(q[:1], alone)
        for actual, wanted in zip(turned, apply_rotary_pos_emb(q[:1], k[:1], cos, sin), strict=True):
            torch.testing.assert_close(actual[row : row + 1], wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_the_length_of_one_packed_document_does_not_change_another(name):
    parameters = {"rope_type": name, "rope_theta": 10000.0, **SCALINGS[name]}
    x = torch.randn(1, H, 120, K, generator=torch.Generator().manual_seed(0))
    scheme, layout = get("rotary", head_dim=K, scaling=with_length(parameters)), Layout.packed([30, 90])
    packed, _ = scheme.rotate(x, x, layout, scheme.prepare(layout))
    for document in (slice(0, 30), slice(30, 120)):
        part = x[:, :, document]
        cos, sin = LlamaRotaryEmbedding(llama(parameters))(part, torch.arange(part.shape[2]).unsqueeze(0))
        expected, _ = apply_rotary_pos_emb(part, part, cos, sin)
        torch.testing.assert_close(packed[:, :, document], expected, rtol=2e-6, atol=2e-6)
