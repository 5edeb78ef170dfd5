"""Position schemes beside the implementations people use: rotary, Transformer-XL, T5, ALiBi, new lengths.

    python benchmarks/bench_positions.py [--rounds N]

All in eager mode, float32, same numbers in and (checked first) same numbers out; functions take turns in
one process and the ratio is of medians. What is timed:

- rotary: cosines and sines made, q and k of (8, 12, 1024, 64) turned, and gradients brought back to both.
- Transformer-XL: the two terms with distances for T = S = 512, 12 heads of 64: relative vectors projected,
  multiplied and shifted, against `XLNetRelativeAttention`'s own lines; then the shift alone.
- bias: what is added to the logits of 12 heads for T = S = 2048. T5 makes the (T, S) bias; BLOOM makes one
  row a head and adds it in every layer, so for ALiBi an attention of 12 layers is timed as well.
- new length: `prepare` for one new token after S cached ones, as in generation.

It does not time whole models, nor any GPU.
"""

import argparse
from collections.abc import Callable

import torch
from rotary_embedding_torch import RotaryEmbedding
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, T5Config, XLNetConfig
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention
from x_transformers.x_transformers import RotaryEmbedding as XRotaryEmbedding
from x_transformers.x_transformers import apply_rotary_pos_emb as x_apply

from timing import machine, markdown_row, medians
from tokenspace.model import Prepared, attend
from tokenspace.positions import Layout, get
from tokenspace.positions._relative import skew

Functions = dict[str, Callable[[], object]]


def report(title: str, functions: Functions, rounds: int) -> None:
    """One row: every function's milliseconds and how many times as long as ours it takes."""
    seconds = medians(functions, rounds)
    ours = seconds.pop("ours")
    for name, theirs in seconds.items():
        print(markdown_row(title, name, 1e3 * theirs, 1e3 * ours, f"**{theirs / ours:.2f}**"), flush=True)


def rotary(rounds: int) -> None:
    """Forward and backward of rotary positions."""
    B, H, T, K = 8, 12, 1024, 64
    torch.manual_seed(0)
    q, k, q_gradient, k_gradient = (torch.randn(B, H, T, K) for _ in range(4))
    leaves = (q.requires_grad_(), k.requires_grad_())
    gradients = (q_gradient, k_gradient)
    llama = LlamaRotaryEmbedding(LlamaConfig(hidden_size=H * K, num_attention_heads=H, max_position_embeddings=T))
    alone, x = RotaryEmbedding(K, cache_if_possible=False), XRotaryEmbedding(K)
    halves, interleaved = get("rotary", head_dim=K), get("rotary", head_dim=K, order="interleaved")
    where = torch.arange(T).unsqueeze(0)

    def ours(scheme: torch.nn.Module) -> tuple[Tensor, Tensor]:
        layout = Layout.contiguous(T)
        return scheme.rotate(q, k, layout, scheme.prepare(layout))

    def transformers() -> tuple[Tensor, Tensor]:
        return apply_rotary_pos_emb(q, k, *llama(q, where))

    def rotary_embedding_torch() -> tuple[Tensor, Tensor]:
        return alone.rotate_queries_or_keys(q), alone.rotate_queries_or_keys(k)

    def x_transformers() -> tuple[Tensor, Tensor]:
        frequencies, scale = x.forward_from_seq_len(T)
        return x_apply(q, frequencies, scale), x_apply(k, frequencies, scale)

    def both_ways(turn: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(turn(), leaves, gradients)

    pairs = {
        "halves": (lambda: ours(halves), {"transformers": transformers}),
        "interleaved": (
            lambda: ours(interleaved),
            {"rotary-embedding-torch": rotary_embedding_torch, "x-transformers": x_transformers},
        ),
    }
    for order, (turn, others) in pairs.items():
        for other in others.values():
            torch.testing.assert_close(turn(), other(), rtol=1e-3, atol=1e-3)  # angles of 1,000 radians
        functions = {name: both_ways(other) for name, other in others.items()}
        report(f"rotary, {order}, forward and backward", {"ours": both_ways(turn), **functions}, rounds)


def transformer_xl(rounds: int) -> None:
    """The terms with distances, and the shift alone."""
    B, H, T, K = 4, 12, 512, 64
    torch.manual_seed(0)
    xlnet = XLNetRelativeAttention(XLNetConfig(d_model=H * K, n_head=H, dropout=0.0))
    for parameter in (xlnet.r, xlnet.r_r_bias):
        torch.nn.init.normal_(parameter, std=0.1)
    scheme = get("transformer_xl", d_model=H * K, num_heads=H, head_dim=K, causal=False)
    one_way = get("transformer_xl", d_model=H * K, num_heads=H, head_dim=K)
    for ours in (scheme, one_way):
        ours.matrix.data[0] = xlnet.r.data.flatten(1).t()
        ours.distance_bias.data[0] = xlnet.r_r_bias.data
    q, layout = torch.randn(B, H, T, K, requires_grad=True), Layout.contiguous(T)
    state, causal_state = scheme.prepare(layout), one_way.prepare(layout)
    waves, q_IBHK = state.waves.unsqueeze(1), q.permute(2, 0, 1, 3)  # XLNet counts from the farthest behind too
    gradient = torch.randn(B, H, T, T)

    def theirs() -> Tensor:
        keys = torch.einsum("ibh,hnd->ibnd", waves.expand(-1, B, -1), xlnet.r)
        by_relative = torch.einsum("ibnd,jbnd->bnij", q_IBHK + xlnet.r_r_bias, keys)
        return xlnet.rel_shift_bnij(by_relative, klen=T) * xlnet.scale

    def ours(scheme: torch.nn.Module, state: object) -> Tensor:
        return scheme.score(q, q, layout, state)

    def both_ways(score: Callable[[], Tensor], own: list[Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(score(), [q, *own], gradient)

    torch.testing.assert_close(ours(scheme, state), theirs(), rtol=1e-4, atol=1e-4)
    their_own, our_own = [xlnet.r, xlnet.r_r_bias], [scheme.matrix, scheme.distance_bias]
    causal_own = [one_way.matrix, one_way.distance_bias]
    for name, mine, own in (
        ("both directions", lambda: ours(scheme, state), our_own),
        ("causal", lambda: ours(one_way, causal_state), causal_own),
    ):
        with torch.no_grad():
            report(f"Transformer-XL score, {name}, forward", {"ours": mine, "transformers (XLNet)": theirs}, rounds)
        functions = {"ours": both_ways(mine, own), "transformers (XLNet)": both_ways(theirs, their_own)}
        report(f"Transformer-XL score, {name}, forward and backward", functions, rounds)
    columns = torch.randn(B, H, T, 2 * T)
    shifts = {
        "ours": lambda: skew(columns, T).add(1.0),  # a view costs nothing until it is read
        "transformers (XLNet)": lambda: xlnet.rel_shift_bnij(columns, klen=T).add(1.0),
    }
    report("its shift, read once", shifts, rounds)


def bias(rounds: int) -> None:
    """What is added to the logits."""
    H, T, K, layers = 12, 2048, 64, 12
    torch.manual_seed(0)
    attention = T5Attention(T5Config(num_heads=H, is_decoder=True), has_relative_attention_bias=True)
    t5, alibi, layout = get("t5", num_heads=H), get("alibi", num_heads=H), Layout.contiguous(T)
    t5.weight.data.copy_(attention.relative_attention_bias.weight.data)
    torch.testing.assert_close(t5.prepare(layout), attention.compute_bias(T, T))
    functions = {"ours": lambda: t5.prepare(layout), "transformers": lambda: attention.compute_bias(T, T)}
    with torch.no_grad():
        report("T5 bias, T = S = 2048", functions, rounds)
    gradient = torch.randn(1, H, T, T)
    theirs = attention.relative_attention_bias.weight
    both_ways = {
        "ours": lambda: torch.autograd.grad(t5.prepare(layout), t5.weight, gradient),
        "transformers": lambda: torch.autograd.grad(attention.compute_bias(T, T), theirs, gradient),
    }
    report("T5 bias, forward and backward", both_ways, max(3, rounds // 2))

    q, k, v = (torch.randn(1, H, T, K) for _ in range(3))
    ones = torch.ones(1, T)
    future = torch.full((T, T), torch.finfo(torch.float32).min).triu(1)

    def bloom_layers() -> Tensor:
        row = build_alibi_tensor(ones, H, torch.float32)
        for _ in range(layers):  # the lines of BloomAttention between its projections
            scores = row.baddbmm(q[0], k[0].transpose(1, 2), beta=1.0, alpha=K**-0.5).view(1, H, T, T)
            probs = F.softmax(scores + future, dim=-1, dtype=torch.float32)
            out = probs @ v
        return out

    def our_layers() -> Tensor:
        prepared = Prepared.of(alibi, layout)
        for layer in range(layers):
            out = attend(q, k, v, prepared, layer)
        return out

    torch.testing.assert_close(our_layers(), bloom_layers(), rtol=1e-3, atol=1e-3)
    functions = {"ours": lambda: alibi.prepare(layout), "transformers (BLOOM's row)": lambda: build_alibi_tensor(
        ones, H, torch.float32)}  # fmt: skip
    report("ALiBi bias, T = S = 2048", functions, rounds)
    functions = {"ours": our_layers, "transformers (BLOOM)": bloom_layers}
    report("ALiBi, attention of 12 layers, T = S = 2048", functions, max(3, rounds // 5))


def new_length(rounds: int) -> None:
    """`prepare` for one token after many, and transformers' T5 for the same."""
    attention = T5Attention(T5Config(num_heads=12, is_decoder=True), has_relative_attention_bias=True)
    schemes = {
        "rotary": get("rotary", head_dim=64),
        "rotary, dynamic": get(
            "rotary",
            head_dim=64,
            scaling={"rope_type": "dynamic", "factor": 4.0, "original_max_position_embeddings": 512},
        ),
        "alibi": get("alibi", num_heads=12),
        "t5": get("t5", num_heads=12),
        "shaw": get("shaw", head_dim=64, max_distance=64),
        "transformer_xl": get("transformer_xl", d_model=768, num_heads=12, head_dim=64),
        "pope": get("pope", num_heads=12, head_dim=64),
    }
    lengths = (1024, 8192, 65536)
    print("\nMilliseconds of `prepare` for one new token after so many. Between calls transformer_xl keeps the")
    print("waves of at most twice the farthest distance; the others keep nothing.\n")
    print(markdown_row("scheme", *(f"{length:,}" for length in lengths)))
    print(markdown_row(*["---"] * (1 + len(lengths))))
    for name, scheme in schemes.items():
        cells = []
        for length in lengths:
            cache = type("Cache", (), {"layout": Layout.contiguous(length)})()
            layout = Layout.contiguous(1).extend(cache, scheme.needs_raw_keys)
            with torch.no_grad():
                cells.append(1e3 * medians({"ours": lambda s=scheme, at=layout: s.prepare(at)}, 5 * rounds)["ours"])
        print(markdown_row(name, *cells), flush=True)
    with torch.no_grad():
        took = {
            length: medians({"t5": lambda n=length: attention.compute_bias(n, n)[:, :, -1:]}, 3)["t5"]
            for length in lengths[:1]
        }
    print(markdown_row("transformers' T5, all (S, S) made anew", 1e3 * took[1024], "–", "–"))


def main(rounds: int) -> None:
    """Print the machine and the tables."""
    print(f"{machine()}\n")
    print(markdown_row("what", "beside", "theirs, ms", "ours, ms", "theirs / ours"))
    print(markdown_row(*["---"] * 5))
    rotary(rounds)
    transformer_xl(rounds)
    bias(rounds)
    new_length(rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args().rounds)
