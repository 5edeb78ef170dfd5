"""Scores by distance (ALiBi, T5, KERPLE, FIRE, CoPE) against transformers, x-transformers and plain loops."""

import math

import pytest
import torch
from transformers import BloomConfig, T5Config
from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from tokenspace.model import KeyValueCache, Prepared, attend
from tokenspace.positions import Layout, get

HEAD_COUNTS = [*range(1, 18), 20, 24, 32]
CAUSAL = torch.ones(9, 9, dtype=torch.bool).tril()
HIDDEN = torch.zeros(9, 9).masked_fill(~CAUSAL, -math.inf)  # as transformers adds it to the logits
NEAR, FAR = torch.tensor([0, 1, 2, 3, 5, 6, 7, 8, 9, 11]), torch.tensor([0, 3, 90, 299])


def drawn(*size, seed=0):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(ours, theirs, parameters, reference=None):
    """Values, and the gradients of our parameters and of the reference's (or of the same ones), in float64."""
    torch.testing.assert_close(ours, theirs)
    factors = drawn(*ours.shape, seed=9)
    gradients = [
        torch.autograd.grad(side, leaves, factors, materialize_grads=True)
        for side, leaves in ((ours, parameters), (theirs, reference or parameters))
    ]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


def softmax(logits):
    return (logits + HIDDEN).softmax(dim=-1)


@pytest.mark.parametrize("heads", HEAD_COUNTS)
def test_alibi_has_the_slopes_of_bloom_and_mpt(heads):
    bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0]  # slope times 0, slope times 1
    mpt = build_mpt_alibi_tensor(heads, 2).view(heads, 2)  # slope times -1, slope times 0
    slopes = torch.tensor(get("alibi", num_heads=heads).slopes)
    torch.testing.assert_close(slopes, bloom[:, 1], rtol=1e-6, atol=0)  # theirs are float32 powers
    torch.testing.assert_close(slopes, -mpt[:, 0], rtol=3e-7, atol=0)


@pytest.mark.parametrize("heads", HEAD_COUNTS)
def test_alibi_gives_the_probabilities_of_bloom_and_mpt(heads):
    """Both add one number a key, which softmax cannot tell from one a distance."""
    logits = drawn(heads, 9, 9).float()
    expected = softmax(logits + get("alibi", num_heads=heads).prepare(Layout.contiguous(9))[0])
    for theirs in (build_alibi_tensor(torch.ones(1, 9), heads, torch.float32), build_mpt_alibi_tensor(heads, 9)):
        torch.testing.assert_close(softmax(logits + theirs.view(heads, 1, 9)), expected, rtol=2e-6, atol=1e-7)


def test_alibi_with_another_bound_is_mpts():
    theirs = build_mpt_alibi_tensor(6, 9, alibi_bias_max=16).view(6, 1, 9)
    ours = get("alibi", num_heads=6, max_bias=16.0).prepare(Layout.contiguous(9))[0]
    torch.testing.assert_close(softmax(ours), softmax(theirs), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("where", [torch.arange(4), FAR])
def test_alibi_is_symmetric_unless_told_otherwise(where):
    bias, one_way = (
        get("alibi", num_heads=2, symmetric=symmetric).prepare(Layout.explicit(where))[0] for symmetric in (True, False)
    )
    for head, slope in enumerate((1 / 16, 1 / 256)):
        for i in range(4):
            for j in range(4):
                distance = int(where[i] - where[j])
                assert bias[head, i, j] == -slope * abs(distance)
                assert one_way[head, i, j] == -slope * distance


def test_attention_with_alibi_is_blooms():
    torch.manual_seed(0)
    theirs = BloomAttention(BloomConfig(hidden_size=48, n_head=6, hidden_dropout=0.0), layer_idx=0).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 9, 48)
    alibi = build_alibi_tensor(torch.ones(2, 9), 6, torch.float32)
    expected, _ = theirs(x, torch.zeros_like(x), alibi, HIDDEN)
    q, k, v = theirs.query_key_value(x).view(2, 9, 6, 3, 8).permute(3, 0, 2, 1, 4)
    ours = attend(q, k, v, Prepared.of(get("alibi", num_heads=6), Layout.contiguous(9)))
    torch.testing.assert_close(theirs.dense(ours.transpose(1, 2).flatten(2)), expected, rtol=1e-5, atol=5e-6)


T5_SIZES = [(32, 128), (8, 20), (64, 40), (33, 500)]


def t5(bidirectional, buckets=32, furthest=128, **sizes):
    """Transformers' T5 attention and our scheme, with one table between them."""
    torch.manual_seed(0)
    config = T5Config(
        num_heads=4, relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest,
        is_decoder=not bidirectional, dropout_rate=0.0, **sizes,
    )  # fmt: skip
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    scheme = get("t5", num_heads=4, num_buckets=buckets, max_distance=furthest, bidirectional=bidirectional).double()
    scheme.weight.data.copy_(theirs.relative_attention_bias.weight.data)
    return theirs, scheme


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "furthest"), T5_SIZES)
@pytest.mark.parametrize("length", [1, 50, 300])
def test_t5_bias_and_its_gradient_are_those_of_transformers(bidirectional, buckets, furthest, length):
    theirs, scheme = t5(bidirectional, buckets, furthest)
    bias, expected = scheme.prepare(Layout.contiguous(length)), theirs.compute_bias(length, length)
    assert_same(bias, expected, [scheme.weight], [theirs.relative_attention_bias.weight])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("where", [NEAR, FAR], ids=["near", "far"])
def test_t5_bias_at_positions_with_gaps_is_that_part_of_the_whole(bidirectional, where):
    theirs, scheme = t5(bidirectional)
    bias, whole = scheme.prepare(Layout.explicit(where)), theirs.compute_bias(300, 300)
    expected = whole[:, :, where.unsqueeze(1), where]
    assert_same(bias, expected, [scheme.weight], [theirs.relative_attention_bias.weight])


def test_t5_bias_after_a_cache_is_that_of_transformers():
    theirs, scheme = t5(bidirectional=False)
    cache = KeyValueCache(capacity=60)
    cache.layout = Layout.contiguous(40)
    bias = scheme.prepare(Layout.contiguous(5).extend(cache))
    torch.testing.assert_close(bias, theirs.compute_bias(5, 45, past_seen_tokens=40))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "furthest"), T5_SIZES)
def test_t5_buckets_are_those_of_transformers_far_beyond_the_last(bidirectional, buckets, furthest):
    relative = torch.arange(-5000, 5001)
    expected = T5Attention._relative_position_bucket(relative, bidirectional, buckets, furthest)
    scheme = get("t5", num_heads=1, num_buckets=buckets, max_distance=furthest, bidirectional=bidirectional)
    assert torch.equal(scheme.bucket(relative), expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_attention_with_t5_positions_is_t5s(bidirectional):
    theirs, scheme = t5(bidirectional, d_model=32, d_kv=8)
    x = drawn(2, 9, 32)
    q, k, v = (proj(x).unflatten(-1, (4, 8)).transpose(1, 2) for proj in (theirs.q, theirs.k, theirs.v))
    ours = attend(q, k, v, Prepared.of(scheme, Layout.contiguous(9), causal=not bidirectional))
    expected = theirs(x, mask=None if bidirectional else HIDDEN.double())[0]
    reference = [theirs.relative_attention_bias.weight]
    assert_same(theirs.o(ours.transpose(1, 2).flatten(2)), expected, [scheme.weight], reference)


@pytest.mark.parametrize("kernel", ["log", "power"])
def test_kerple_is_the_papers_formula(kernel):
    scheme = get("kerple", num_heads=3, kernel=kernel).double()
    largest = 2.9 if kernel == "log" else 1.9
    scheme.r1.data, scheme.r2.data = (torch.tensor(r).double() for r in ([0.5, 1.7, 0.02], [0.3, 1.1, largest]))
    where = [0, 1, 2, 5, 60]
    bias = scheme.prepare(Layout.explicit(torch.tensor(where)))[0]
    expected = [
        -r1 * (torch.log(1 + r2 * abs(i - j)) if kernel == "log" else abs(i - j) ** r2)
        for r1, r2 in zip(scheme.r1, scheme.r2, strict=True)
        for i in where
        for j in where
    ]
    assert_same(bias, torch.stack(expected).view(3, 5, 5), [scheme.r1, scheme.r2])


def test_kerple_keeps_its_parameters_where_the_kernel_is_positive():
    scheme = get("kerple", num_heads=1, kernel="power")
    scheme.r1.data, scheme.r2.data = torch.tensor([-3.0]), torch.tensor([5.0])
    assert scheme.prepare(Layout.contiguous(3))[0, 0, 2].tolist() == pytest.approx([-0.04, -0.01, 0.0])


@pytest.mark.parametrize("first", [0, 90])
def test_fire_is_the_papers_formula(first):
    """Equation 5 with psi(x) = log(c x + 1), and a network of one hidden layer."""
    torch.manual_seed(0)
    scheme = get("fire", num_heads=2, width=5, c=0.25, threshold=8.0).double()
    for parameter in (scheme.hidden.weight, scheme.hidden.bias, scheme.out_weight, scheme.out_bias):
        torch.nn.init.normal_(parameter)
    scheme.threshold_factor.data.fill_(1.55)
    bias = scheme.prepare(Layout.explicit(torch.arange(first, first + 16)))[0]
    expected = []
    for out_weight, out_bias in zip(scheme.out_weight, scheme.out_bias, strict=True):
        for i in range(first, first + 16):
            for j in range(first, first + 16):
                farthest = i if i > 12.4 else 8.0 * scheme.threshold_factor
                share = torch.log(scheme.c * abs(i - j) + 1) / (torch.log(scheme.c * farthest + 1) + 1e-6)
                hidden = (scheme.hidden.weight[:, 0] * share + scheme.hidden.bias).relu()
                expected.append(out_weight @ hidden + out_bias)
    assert_same(bias, torch.stack(expected).view(2, 16, 16), list(scheme.parameters()))


def cope_inputs():
    """The second of two layers, with queries that count fewer keys than the table has rows, and more."""
    q, k = (drawn(2, 3, 9, 8, seed=seed).requires_grad_() for seed in (0, 1))
    scheme = get("cope", head_dim=8, num_positions=4, num_layers=2).double()
    scheme.table.data = drawn(2, 4, 8, seed=2)
    layout = Layout.contiguous(9)
    return q, k, scheme, scheme.score(q, k, layout, scheme.prepare(layout), layer=1)[..., CAUSAL]


def test_cope_is_the_papers_formula():
    q, k, scheme, score = cope_inputs()
    expected = []
    for q_TK, k_TK in zip(q.flatten(0, 1), k.flatten(0, 1), strict=True):
        for i in range(9):
            gates = [torch.sigmoid(q_TK[i] @ k_TK[j] / 8**0.5) for j in range(i + 1)]
            for j in range(i + 1):
                counted = min(sum(gates[j:]), torch.tensor(3.0, dtype=torch.float64))
                low = int(counted)
                part = counted - low
                mixed = (1 - part) * scheme.table[1, low] + part * scheme.table[1, min(low + 1, 3)]
                expected.append(q_TK[i] @ mixed)
    assert_same(score, torch.stack(expected).view(2, 3, -1), [q, k, scheme.table])


def test_cope_is_that_of_x_transformers():
    CoPE = pytest.importorskip("x_transformers.x_transformers").CoPE
    q, k, scheme, score = cope_inputs()
    theirs = CoPE(dim=8, heads=3, max_pos=4).double()
    del theirs.pos_emb
    theirs.pos_emb = scheme.table[1]  # so that gradients reach our table
    expected = theirs(q, q @ k.transpose(-2, -1) / 8**0.5 + HIDDEN)[..., CAUSAL]
    assert_same(score, expected, [q, k, scheme.table])
