"""Relative vectors (Shaw, BERT, NEZHA, Transformer-XL, DeBERTa) against golden vectors, transformers, plain loops."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import DebertaV2Config, Wav2Vec2BertConfig, XLNetConfig
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DisentangledSelfAttention,
    make_log_bucket_position,
)
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, get

GOLDEN = Path(__file__).parent / "golden"  # from transformers 4.57.6, which still had these models
H, K = 4, 8
LAYOUTS = {
    "contiguous": Layout.contiguous(9),
    "packed": Layout.packed([3, 6]),
    "gaps": Layout.explicit(torch.tensor([0, 1, 4, 9, 10, 30])),
    "rows": Layout.explicit(torch.tensor([[0, 1, 2, 3, 4, 5], [0, 2, 3, 7, 8, 40]])),
    "memory": Layout.contiguous(6).with_memory(3),
    "two queries": Layout.contiguous(2).with_memory(7),
}


def drawn(*size, seed=0):
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def widely(module, std=1.0):
    """Every parameter drawn anew, so that none of them may be left out."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module


def heads(x, weight, bias=None):
    return F.linear(x, weight, bias).unflatten(-1, (H, K)).transpose(1, 2)


def attended(scheme, q, k, v, layout, causal=False, layer=0):
    prepared = Prepared.of(scheme, layout, causal)
    turned = scheme.rotate(q, k, layout, prepared.state, layer)
    return attend(*turned, v, prepared, layer, raw=(q, k)).transpose(1, 2).flatten(2)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def assert_same(ours, theirs, parameters, reference=None, tolerance=1e-7):
    """Values, and the gradients of our parameters and of the reference's (or of the same ones)."""
    close(ours, theirs, tolerance)
    factors = drawn(*ours.shape, seed=9).to(ours.dtype)
    gradients = [
        torch.autograd.grad(side, leaves, factors, retain_graph=True)
        for side, leaves in ((ours, parameters), (theirs, reference or parameters))
    ]
    for actual, expected in zip(*gradients, strict=True):
        close(actual.view_as(expected), expected, 10 * tolerance)


@pytest.mark.parametrize("name", ["bert_relative_key", "bert_relative_key_query", "nezha"])
def test_encoder_attention_gives_the_golden_vectors(name):
    golden = load_file(GOLDEN / f"{name}.safetensors")
    q, k, v = (
        heads(golden["x"], golden[f"{part}.weight"], golden[f"{part}.bias"]) for part in ("query", "key", "value")
    )
    if name == "nezha":
        scheme = get("nezha", head_dim=K, max_distance=4)
    else:
        scheme = get("shaw", head_dim=K, max_distance=15, values=False, key_term=name.endswith("query"))
        scheme.key_table.data[0] = golden["distance_embedding.weight"].flip(0)  # BERT counts i - j
    close(attended(scheme, q, k, v, Layout.contiguous(9)), golden["context"])


@pytest.mark.parametrize("memory", [0, 5])
def test_transformer_xl_gives_the_golden_vectors(memory):
    golden = load_file(GOLDEN / f"transformer_xl_mem{memory}.safetensors")
    x = golden["x"].transpose(0, 1)
    both = torch.cat([golden["memory"].transpose(0, 1), x], dim=1) if memory else x
    to_q, to_k, to_v = golden["qkv_net.weight"].chunk(3)
    scheme = get("transformer_xl", d_model=H * K, num_heads=H, head_dim=K)
    scheme.matrix.data[0] = golden["r_net.weight"]
    scheme.content_bias.data[0], scheme.distance_bias.data[0] = golden["r_w_bias"], golden["r_r_bias"]
    layout = Layout.contiguous(9).with_memory(memory)
    y = attended(scheme, heads(x, to_q), heads(both, to_k), heads(both, to_v), layout, causal=True)
    out = F.layer_norm(
        x + F.linear(y, golden["o_net.weight"]), (H * K,), golden["layer_norm.weight"], golden["layer_norm.bias"]
    )
    close(out, golden["output"].transpose(0, 1))


def shaws_attention(q, k, v, a, b, place, mask, key_term=False):
    """Equations 3 to 5 of Shaw et al. 2018, a vector for every pair: place is (T, S) or (B, 1, T, S)."""
    keys, values = a[place], b[place]
    logits = (q.unsqueeze(-2) * (k.unsqueeze(-3) + keys)).sum(dim=-1)
    if key_term:
        logits = logits + (k.unsqueeze(-3) * keys).sum(dim=-1)
    logits = logits * K**-0.5
    probs = (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(dim=-1)
    return (probs.unsqueeze(-1) * (v.unsqueeze(-3) + values)).sum(dim=-2).transpose(1, 2).flatten(2)


def pairs(layout, behind, ahead):
    """Rows of the vectors for the clipped relative positions of a layout, by heads where they differ by row."""
    place = layout.relative_positions().clamp(-behind, ahead) + behind
    return place if place.dim() == 2 else place.unsqueeze(1)


def inputs(layout):
    return [drawn(2, H, n, K, seed=n).requires_grad_() for n in (layout.query_length, *2 * [layout.key_length])]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("behind", "ahead"), [(3, 3), (2, 5), (50, 0)])
@pytest.mark.parametrize("key_term", [False, True])
def test_shaw_is_the_papers_formula(layout, behind, ahead, key_term):
    """Values and all gradients, in the second of two layers, clipping on either side and nowhere."""
    layout = LAYOUTS[layout]
    q, k, v = inputs(layout)
    scheme = get("shaw", head_dim=K, max_distance=behind, max_ahead=ahead, num_layers=2, key_term=key_term)
    widely(scheme.double())
    mask, (a, b) = layout.mask(causal=False), (scheme.key_table[1], scheme.value_table[1])
    expected = shaws_attention(q, k, v, a, b, pairs(layout, behind, ahead), mask, key_term)
    assert_same(attended(scheme, q, k, v, layout, layer=1), expected, [q, k, v, *scheme.parameters()])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("furthest", [2, 50])
def test_nezha_is_shaw_with_waves(layout, furthest):
    layout = LAYOUTS[layout]
    q, k, v = inputs(layout)
    angles = torch.arange(2 * furthest + 1).unsqueeze(1) * 10000.0 ** (-torch.arange(0, K, 2).double() / K)
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    place, mask = pairs(layout, furthest, furthest), layout.mask(causal=False)
    ours = attended(get("nezha", head_dim=K, max_distance=furthest), q, k, v, layout)
    assert_same(ours, shaws_attention(q, k, v, waves, waves, place, mask), [q, k, v], tolerance=1e-5)  # float32 waves


@pytest.mark.parametrize(("behind", "ahead"), [(5, 2), (64, 8)])
def test_shaw_with_keys_only_is_wav2vec2_berts(behind, ahead):
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=H * K, num_attention_heads=H, position_embeddings_type="relative_key", attention_dropout=0.0,
        left_max_position_embeddings=behind, right_max_position_embeddings=ahead,
    )  # fmt: skip
    theirs = widely(Wav2Vec2BertSelfAttention(config).double().eval(), std=0.4)
    scheme = get("shaw", head_dim=K, max_distance=behind, max_ahead=ahead, values=False).double()
    scheme.key_table.data[0] = theirs.distance_embedding.weight
    x = drawn(2, 12, H * K)
    q, k, v = (heads(x, p.weight, p.bias) for p in (theirs.linear_q, theirs.linear_k, theirs.linear_v))
    ours = theirs.linear_out(attended(scheme, q, k, v, Layout.contiguous(12)))
    assert_same(ours, theirs(x)[0], [scheme.key_table], [theirs.distance_embedding.weight])


@pytest.mark.parametrize("memory", [0, 4])
def test_transformer_xl_in_both_directions_is_xlnets(memory):
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=5, d_model=H * K, n_head=H, n_layer=1, d_inner=8, dropout=0.0, attn_type="bi")
    theirs = widely(XLNetRelativeAttention(config).double().eval(), std=0.3)
    waves = XLNetModel(config).relative_positional_encoding(9, 9 + memory, bsz=2).double()
    x, past = drawn(2, 9, H * K), drawn(2, memory, H * K, seed=1)
    expected = theirs(
        x.transpose(0, 1), None, attn_mask_h=None, attn_mask_g=None, r=waves, seg_mat=None,
        mems=past.transpose(0, 1) if memory else None,
    )[0].transpose(0, 1)  # fmt: skip

    scheme = get("transformer_xl", d_model=H * K, num_heads=H, head_dim=K, causal=False).double()
    scheme.matrix.data[0] = theirs.r.flatten(1).t()
    scheme.content_bias.data[0], scheme.distance_bias.data[0] = theirs.r_w_bias, theirs.r_r_bias
    both = torch.cat([past, x], dim=1)
    q, k, v = (heads(y, w.flatten(1).t()) for y, w in ((x, theirs.q), (both, theirs.k), (both, theirs.v)))
    y = attended(scheme, q, k, v, Layout.contiguous(9).with_memory(memory))
    ours = theirs.layer_norm(F.linear(y, theirs.o.flatten(1)) + x)
    biases = [scheme.content_bias, scheme.distance_bias]
    assert_same(ours, expected, biases, [theirs.r_w_bias, theirs.r_r_bias], tolerance=2e-6)  # both waves are float32
    factors = drawn(*ours.shape)
    matrix, r = (torch.autograd.grad(*side, factors)[0] for side in ((ours, scheme.matrix), (expected, theirs.r)))
    close(matrix[0], r.flatten(1).t(), 2e-5)


@pytest.mark.parametrize("shared", [(), ("share_matrix",), ("share_biases",), ("share_matrix", "share_biases")])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformer_xl_is_the_papers_formula(layout, shared):
    """Terms a to d for every pair that may be seen, and all gradients, in the second of two layers."""
    layout, sizes = LAYOUTS[layout], {"d_model": 10, "num_heads": H, "head_dim": K, "num_layers": 2}
    scheme = widely(get("transformer_xl", **sizes, **dict.fromkeys(shared, True)).double())
    q, k, _ = inputs(layout)
    T, S = layout.query_length, layout.key_length
    state, seen = scheme.prepare(layout), layout.mask()
    seen = (torch.ones(T, S, dtype=torch.bool).tril() if seen is None else seen).expand(2, H, T, S)
    turned, _ = scheme.rotate(q, k, layout, state, layer=1)
    ours = (turned @ k.transpose(-2, -1) * K**-0.5 + scheme.score(q, k, layout, state, layer=1))[seen]

    W = scheme.matrix[0 if "share_matrix" in shared else 1].view(H, K, 10)
    u, v = (bias[0 if "share_biases" in shared else 1] for bias in (scheme.content_bias, scheme.distance_bias))
    frequencies = 10000.0 ** (-torch.arange(0, 10, 2).double() / 10)
    distance = -layout.relative_positions().expand(2, T, S)
    expected = []
    for b, h, t, s in seen.nonzero().tolist():
        angles = distance[b, t, s] * frequencies
        r = torch.cat([angles.sin(), angles.cos()])
        expected.append(((q[b, h, t] + u[h]) @ k[b, h, s] + (q[b, h, t] + v[h]) @ (W[h] @ r)) / K**0.5)
    assert_same(ours, torch.stack(expected), [q, k, *scheme.parameters()], tolerance=1e-5)  # float32 waves


def deberta(terms, buckets, shared, norm):
    """Transformers' attention, the relative vectors of its encoder, and our scheme, which has all their numbers."""
    torch.manual_seed(0)
    config = DebertaV2Config(
        hidden_size=H * K, num_attention_heads=H, relative_attention=True, pos_att_type=terms, share_att_key=shared,
        position_buckets=buckets or -1, max_relative_positions=20, hidden_dropout_prob=0.0, num_hidden_layers=0,
        attention_probs_dropout_prob=0.0, norm_rel_ebd="layer_norm" if norm else "none", layer_norm_eps=1e-7,
    )  # fmt: skip
    theirs = widely(DisentangledSelfAttention(config).double().eval(), std=0.3)
    encoder = widely(DebertaV2Encoder(config).double())
    sizes = {"d_model": H * K, "num_heads": H, "head_dim": K, "position_buckets": buckets, "max_distance": 20}
    scheme = get("deberta", **sizes, terms=terms, norm=norm).double()
    same = {scheme.table: encoder.rel_embeddings.weight}
    if norm:
        same |= dict(zip(scheme.norm.parameters(), encoder.LayerNorm.parameters(), strict=True))
    if shared:
        scheme.bind(theirs.query_proj, theirs.key_proj)
        same |= {
            parameter: parameter
            for proj in ("query_proj", "key_proj")
            for parameter in getattr(theirs, proj).parameters()
        }
    for role, term in (("key", "c2p"), ("query", "p2c")):
        if term in terms and not shared:
            proj = getattr(theirs, f"pos_{role}_proj")
            same |= {getattr(scheme, f"{role}_weight"): proj.weight, getattr(scheme, f"{role}_bias"): proj.bias}
    for ours, reference in same.items():
        ours.data.copy_(reference.data.view_as(ours))
    return theirs, encoder.get_rel_embedding, scheme, same


@pytest.mark.parametrize("terms", [["c2p", "p2c"], ["c2p"], ["p2c"]])
@pytest.mark.parametrize("buckets", [8, 0])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_deberta_is_that_of_transformers(shared, buckets, terms, norm):
    """Attention over a text longer than the farthest distance, and all gradients."""
    theirs, rel_embeddings, scheme, same = deberta(terms, buckets, shared, norm)
    x = drawn(2, 25, H * K)
    expected = theirs(x, torch.ones(2, 1, 25, 25), rel_embeddings=rel_embeddings())[0]
    q, k, v = (heads(x, p.weight, p.bias) for p in (theirs.query_proj, theirs.key_proj, theirs.value_proj))
    ours = attended(scheme, q, k, v, Layout.contiguous(25))
    assert_same(ours, expected, list(same), list(same.values()))


@pytest.mark.parametrize("layout", ["packed", "gaps"])
def test_deberta_at_any_positions_is_that_of_transformers(layout):
    layout = LAYOUTS[layout]
    theirs, rel_embeddings, scheme, same = deberta(["c2p", "p2c"], buckets=8, shared=False, norm=False)
    T = layout.query_length
    x, mask = drawn(2, T, H * K), layout.mask(causal=False)
    seen = torch.ones(2, 1, T, T) if mask is None else mask.expand(2, 1, T, T)
    bucket = make_log_bucket_position(-layout.relative_positions(), 8, 20).long()
    expected = theirs(x, seen, relative_pos=bucket, rel_embeddings=rel_embeddings())[0]
    q, k, v = (heads(x, p.weight, p.bias) for p in (theirs.query_proj, theirs.key_proj, theirs.value_proj))
    assert_same(attended(scheme, q, k, v, layout), expected, list(same), list(same.values()))


@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (8, 20), (32, 128), (6, 100), (2, 500)])
def test_deberta_buckets_are_those_of_transformers(buckets, furthest):
    distance = torch.arange(-5000, 5001)
    expected = make_log_bucket_position(distance, buckets, furthest).long()
    scheme = get("deberta", d_model=2, num_heads=1, head_dim=2, position_buckets=buckets, max_distance=furthest)
    assert torch.equal(scheme.bucket(distance), expected)
