"""Scores by distance (ALiBi, T5, KERPLE, FIRE, CoPE) against transformers, x-transformers and plain loops."""

import math

import pytest
import torch
from transformers import MptConfig, T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, get

CAUSAL = torch.ones(9, 9, dtype=torch.bool).tril()


def softmax(logits):
    return logits.masked_fill(~CAUSAL, -math.inf).softmax(dim=-1)


@pytest.mark.parametrize("heads", [*range(1, 18), 20, 24, 32])
def test_alibi_gives_the_probabilities_of_bloom_and_mpt(heads):
    """Both add one number a key, which softmax cannot tell from one a distance."""
    layout, logits = Layout.contiguous(9), torch.randn(heads, 9, 9, generator=torch.Generator().manual_seed(0))
    expected = softmax(logits + get("alibi", num_heads=heads).prepare(layout)[0])
    bloom = build_alibi_tensor(torch.ones(1, 9), heads, torch.float32)
    mpt = build_mpt_alibi_tensor(heads, 9)
    for theirs in (bloom, mpt[0] if mpt.dim() == 4 else mpt):
        torch.testing.assert_close(softmax(logits + theirs), expected, rtol=1e-5, atol=1e-6)


def test_alibi_with_another_bound_is_mpts():
    bias = build_mpt_alibi_tensor(6, 9, alibi_bias_max=MptConfig().attn_config.alibi_bias_max * 2)
    logits = torch.zeros(6, 9, 9)
    ours = get("alibi", num_heads=6, max_bias=16.0).prepare(Layout.contiguous(9))[0]
    torch.testing.assert_close(softmax(logits + ours), softmax(logits + bias.view(6, 1, 9)), rtol=1e-5, atol=1e-6)


def test_alibi_is_symmetric_unless_told_otherwise():
    bias = get("alibi", num_heads=2).prepare(Layout.contiguous(4))[0]
    one_way = get("alibi", num_heads=2, symmetric=False).prepare(Layout.contiguous(4))[0]
    for head, slope in enumerate((1 / 16, 1 / 256)):
        for i in range(4):
            for j in range(4):
                assert bias[head, i, j] == -slope * abs(i - j)
                assert one_way[head, i, j] == slope * (j - i)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "furthest", "length"), [(32, 128, 300), (8, 20, 50), (64, 40, 33)])
def test_t5_bias_and_its_gradient_are_those_of_transformers(bidirectional, buckets, furthest, length):
    config = T5Config(
        num_heads=4, relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest,
        is_decoder=not bidirectional,
    )  # fmt: skip
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    table = theirs.relative_attention_bias.weight
    torch.nn.init.normal_(table)
    ours = get("t5", num_heads=4, num_buckets=buckets, max_distance=furthest, bidirectional=bidirectional)
    ours.weight.data.copy_(table.data)
    bias, expected = ours.prepare(Layout.contiguous(length)), theirs.compute_bias(length, length)
    assert torch.equal(bias, expected)
    factors = torch.randn(bias.shape, generator=torch.Generator().manual_seed(0))
    gradients = [
        torch.autograd.grad(side, weight, factors)[0] for side, weight in ((bias, ours.weight), (expected, table))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_t5_buckets_are_those_of_transformers_far_beyond_the_last(bidirectional):
    relative = torch.arange(-5000, 5001)
    expected = T5Attention._relative_position_bucket(relative, bidirectional=bidirectional)
    assert torch.equal(get("t5", num_heads=1, bidirectional=bidirectional).bucket(relative), expected)


def test_attention_with_t5_positions_is_t5s():
    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, num_heads=4, dropout_rate=0.0)
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scheme, x = get("t5", num_heads=4, bidirectional=True), torch.randn(2, 9, 32)
    scheme.weight.data.copy_(theirs.relative_attention_bias.weight.data)
    q, k, v = (proj(x).unflatten(-1, (4, 8)).transpose(1, 2) for proj in (theirs.q, theirs.k, theirs.v))
    ours = attend(q, k, v, Prepared.of(scheme, Layout.contiguous(9), causal=False))
    torch.testing.assert_close(theirs.o(ours.transpose(1, 2).flatten(2)), theirs(x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_kerple_is_the_papers_formula(kernel):
    scheme = get("kerple", num_heads=2, kernel=kernel)
    r1, r2 = [0.5, 1.7], [0.3, 1.1]
    scheme.r1.data, scheme.r2.data = torch.tensor(r1), torch.tensor(r2)
    bias = scheme.prepare(Layout.contiguous(7))[0]
    for head in range(2):
        for i in range(7):
            for j in range(7):
                d = abs(i - j)
                value = math.log(1 + r2[head] * d) if kernel == "log" else d ** r2[head]
                assert bias[head, i, j].item() == pytest.approx(-r1[head] * value, rel=1e-5, abs=1e-6)


def test_kerple_keeps_its_parameters_where_the_kernel_is_positive():
    scheme = get("kerple", num_heads=1, kernel="power")
    scheme.r1.data, scheme.r2.data = torch.tensor([-3.0]), torch.tensor([5.0])
    assert scheme.prepare(Layout.contiguous(3))[0, 0, 2].tolist() == pytest.approx([-0.04, -0.01, 0.0])


@pytest.mark.parametrize("first", [0, 90])
def test_fire_is_the_papers_formula(first):
    torch.manual_seed(0)
    scheme = get("fire", num_heads=2, width=5, c=0.25, threshold=8.0).double()
    scheme.threshold_factor.data.fill_(1.5)
    bias = scheme.prepare(Layout.explicit(torch.arange(first, first + 20)))[0]
    weight, shift = scheme.hidden.weight[:, 0].tolist(), scheme.hidden.bias.tolist()
    for i in range(20):
        for j in range(20):
            share = math.log(0.25 * abs(i - j) + 1) / (math.log(0.25 * max(first + i, 12.0) + 1) + 1e-6)
            hidden = [max(0.0, w * share + b) for w, b in zip(weight, shift, strict=True)]
            for head in range(2):
                out = scheme.out_weight[head].tolist()
                expected = sum(w * h for w, h in zip(out, hidden, strict=True)) + scheme.out_bias[head].item()
                assert bias[head, i, j].item() == pytest.approx(expected, rel=1e-9)


def cope_inputs():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 9, 8, generator=generator) for _ in range(2))
    scheme = get("cope", head_dim=8, num_positions=4)
    scheme.table.data = torch.randn(1, 4, 8, generator=generator)
    layout = Layout.contiguous(9)
    return q, k, scheme, scheme.score(q, k, layout, scheme.prepare(layout))


def test_cope_is_the_papers_formula():
    q, k, scheme, score = cope_inputs()
    table = scheme.table[0]
    for i in range(9):
        for j in range(i + 1):
            gates = [torch.sigmoid(q[0, 0, i] @ k[0, 0, l] / 8**0.5).item() for l in range(j, i + 1)]  # noqa: E741
            position = min(sum(gates), 3.0)
            low, part = int(position), position - int(position)
            vector = table[low] * (1 - part) + (table[min(low + 1, 3)] * part)
            assert score[0, 0, i, j].item() == pytest.approx((q[0, 0, i] @ vector).item(), rel=1e-4, abs=1e-5)


def test_cope_is_that_of_x_transformers():
    CoPE = pytest.importorskip("x_transformers.x_transformers").CoPE
    q, k, scheme, score = cope_inputs()
    theirs = CoPE(dim=8, heads=3, max_pos=4)
    theirs.pos_emb.data.copy_(scheme.table[0])
    logits = (q @ k.transpose(-2, -1) / 8**0.5).masked_fill(~CAUSAL, -math.inf)
    expected = theirs(q, logits)
    torch.testing.assert_close(score[..., CAUSAL], expected[..., CAUSAL], rtol=1e-4, atol=1e-5)
