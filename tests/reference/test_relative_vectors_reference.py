"""Relative vectors (Shaw, BERT, NEZHA, Transformer-XL, DeBERTa) against golden vectors and transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import DebertaV2Config, Wav2Vec2BertConfig, XLNetConfig
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention, build_relative_position
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, get

GOLDEN = Path(__file__).parent / "golden"  # from transformers 4.57.6, which still had these models
H, K = 4, 8


def heads(x, weight, bias=None):
    return F.linear(x, weight, bias).unflatten(-1, (H, K)).transpose(1, 2)


def attended(scheme, q, k, v, layout, causal=False):
    prepared = Prepared.of(scheme, layout, causal)
    turned = scheme.rotate(q, k, layout, prepared.state)
    return attend(*turned, v, prepared, raw=(q, k)).transpose(1, 2).flatten(2)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


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


def test_shaw_is_the_papers_formula():
    """Equations 3 to 5, with a vector for every pair."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, H, 9, K, generator=generator) for _ in range(3))
    scheme = get("shaw", head_dim=K, max_distance=3)
    a, b = (torch.randn(7, K, generator=generator) for _ in range(2))
    scheme.key_table.data[0], scheme.value_table.data[0] = a, b
    place = (torch.arange(9) - torch.arange(9).unsqueeze(1)).clamp(-3, 3) + 3
    keys, values = k.unsqueeze(2) + a[place], v.unsqueeze(2) + b[place]
    probs = (torch.einsum("bhik,bhijk->bhij", q, keys) / K**0.5).softmax(dim=-1)
    expected = torch.einsum("bhij,bhijk->bhik", probs, values).transpose(1, 2).flatten(2)
    close(attended(scheme, q, k, v, Layout.contiguous(9)), expected)


def test_shaw_with_keys_only_is_wav2vec2_berts():
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=H * K, num_attention_heads=H, position_embeddings_type="relative_key", attention_dropout=0.0,
        left_max_position_embeddings=5, right_max_position_embeddings=2,
    )  # fmt: skip
    theirs = Wav2Vec2BertSelfAttention(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    scheme = get("shaw", head_dim=K, max_distance=5, max_ahead=2, values=False)
    scheme.key_table.data[0] = theirs.distance_embedding.weight
    x = torch.randn(2, 12, H * K)
    q, k, v = (heads(x, p.weight, p.bias) for p in (theirs.linear_q, theirs.linear_k, theirs.linear_v))
    close(theirs.linear_out(attended(scheme, q, k, v, Layout.contiguous(12))), theirs(x)[0])


@pytest.mark.parametrize("memory", [0, 4])
def test_transformer_xl_in_both_directions_is_xlnets(memory):
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=5, d_model=H * K, n_head=H, n_layer=1, d_inner=8, dropout=0.0, attn_type="bi")
    theirs = XLNetRelativeAttention(config).eval()
    for parameter in (
        theirs.q,
        theirs.k,
        theirs.v,
        theirs.o,
        theirs.r,
        theirs.r_w_bias,
        theirs.r_r_bias,
        theirs.r_s_bias,
    ):
        torch.nn.init.normal_(parameter, std=0.3)
    waves = XLNetModel(config).relative_positional_encoding(9, 9 + memory, bsz=2)
    x, past = torch.randn(2, 9, H * K), torch.randn(2, memory, H * K)
    expected = theirs(
        x.transpose(0, 1), None, attn_mask_h=None, attn_mask_g=None, r=waves, seg_mat=None,
        mems=past.transpose(0, 1) if memory else None,
    )[0].transpose(0, 1)  # fmt: skip

    scheme = get("transformer_xl", d_model=H * K, num_heads=H, head_dim=K, causal=False)
    scheme.matrix.data[0] = theirs.r.flatten(1).t()
    scheme.content_bias.data[0], scheme.distance_bias.data[0] = theirs.r_w_bias, theirs.r_r_bias
    both = torch.cat([past, x], dim=1)
    q, k, v = (heads(y, w.flatten(1).t()) for y, w in ((x, theirs.q), (both, theirs.k), (both, theirs.v)))
    y = attended(scheme, q, k, v, Layout.contiguous(9).with_memory(memory))
    close(theirs.layer_norm(F.linear(y, theirs.o.flatten(1)) + x), expected)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("layout", [Layout.contiguous(6), Layout.packed([2, 4]), Layout.contiguous(6).with_memory(3)])
def test_transformer_xl_is_the_papers_formula(layout, shared):
    """Terms a to d for every pair, in float64, in the second of two layers."""
    torch.manual_seed(0)
    scheme = get(
        "transformer_xl", d_model=10, num_heads=2, head_dim=4, num_layers=2, share_matrix=shared, share_biases=shared
    ).double()  # fmt: skip
    for parameter in scheme.parameters():
        torch.nn.init.normal_(parameter)
    T, S = layout.query_length, layout.key_length
    q, k = torch.randn(1, 2, T, 4).double(), torch.randn(1, 2, S, 4).double()
    state, part = scheme.prepare(layout), 0 if shared else 1
    turned, _ = scheme.rotate(q, k, layout, state, layer=1)
    logits = turned @ k.transpose(-2, -1) / 2 + scheme.score(q, k, layout, state, layer=1)
    W, u, v = scheme.matrix[part].view(2, 4, 10), scheme.content_bias[part], scheme.distance_bias[part]
    frequencies = 10000.0 ** (-torch.arange(0, 10, 2).double() / 10)
    mask = layout.mask()
    for h in range(2):
        for t in range(T):
            for s in range(S):
                if (mask is not None and not mask.expand(T, S)[t, s]) or (mask is None and s > t):
                    continue
                distance = int(layout.query_positions[t] - layout.key_positions[s])
                r = torch.cat([(distance * frequencies).sin(), (distance * frequencies).cos()])
                terms = (q[0, h, t] + u[h]) @ k[0, h, s] + (q[0, h, t] + v[h]) @ (W[h] @ r)
                assert logits[0, h, t, s].item() == pytest.approx(terms.item() / 2, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("terms", [["c2p", "p2c"], ["c2p"], ["p2c"]])
@pytest.mark.parametrize("buckets", [8, 0])
@pytest.mark.parametrize("shared", [False, True])
def test_deberta_is_that_of_transformers(shared, buckets, terms):
    torch.manual_seed(0)
    config = DebertaV2Config(
        hidden_size=H * K, num_attention_heads=H, relative_attention=True, pos_att_type=terms, share_att_key=shared,
        position_buckets=buckets or -1, max_relative_positions=20, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    theirs = DisentangledSelfAttention(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scheme = get(
        "deberta",
        d_model=H * K,
        num_heads=H,
        head_dim=K,
        position_buckets=buckets,
        max_distance=20,
        terms=terms,
        norm=True,
    )
    torch.nn.init.normal_(scheme.table)
    if shared:
        scheme.bind(theirs.query_proj, theirs.key_proj)
    for role, term in (("key", "c2p"), ("query", "p2c")):
        if term in terms and not shared:
            proj = getattr(theirs, f"pos_{role}_proj")
            getattr(scheme, f"{role}_weight").data[0] = proj.weight
            getattr(scheme, f"{role}_bias").data[0] = proj.bias
    x = torch.randn(2, 25, H * K)
    everything = torch.ones(2, 1, 25, 25)
    expected = theirs(x, everything, rel_embeddings=scheme.norm(scheme.table))[0]
    q, k, v = (heads(x, p.weight, p.bias) for p in (theirs.query_proj, theirs.key_proj, theirs.value_proj))
    y = attended(scheme, q, k, v, Layout.contiguous(25))
    close(y, expected)
    factors = torch.randn(y.shape)
    close(*(torch.autograd.grad(side, scheme.table, factors, retain_graph=True)[0] for side in (y, expected)))


def test_deberta_buckets_are_those_of_transformers():
    keys = torch.zeros(1, 3000, 1)
    expected = build_relative_position(keys, keys, bucket_size=256, max_position=512)[0]
    scheme = get("deberta", d_model=2, num_heads=1, head_dim=2)
    distance = torch.arange(3000).unsqueeze(1) - torch.arange(3000)
    assert torch.equal(scheme.bucket(distance), expected)
