"""PoPE and xPos against x-transformers and the formulas of their papers, one number at a time."""

import math

import pytest
import torch

from tokenspace.positions import Layout, get

B, H, T, K = 2, 3, 7, 8
WHERE = torch.tensor([0, 1, 2, 5, 40, 41, 300])


def drawn(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, T, K, generator=generator).to(dtype) for _ in range(2)]


def logits(scheme, q, k, where=WHERE):
    layout = Layout.explicit(where)
    q, k = scheme.rotate(q, k, layout, scheme.prepare(layout))
    return q @ k.transpose(-2, -1)


def pope():
    scheme = get("pope", num_heads=H, head_dim=K)
    torch.nn.init.uniform_(scheme.bias, -7.0, 1.0, generator=torch.Generator().manual_seed(1))  # some are clamped
    return scheme


def test_pope_is_the_papers_formula():
    (q, k), scheme = drawn(), pope()
    ours = logits(scheme, q, k)
    for h in range(H):
        for i in range(T):
            for j in range(T):
                total = 0.0
                for c in range(K):
                    bias = min(0.0, max(-2 * math.pi, scheme.bias[h, c].item()))
                    angle = (WHERE[i] - WHERE[j]).item() * 10000.0 ** (-c / K) - bias
                    q_length, k_length = (math.log1p(math.exp(x.item())) for x in (q[0, h, i, c], k[0, h, j, c]))
                    total += q_length * k_length * math.cos(angle)
                assert ours[0, h, i, j].item() == pytest.approx(total, rel=1e-3, abs=2e-4)


def test_pope_gives_the_logits_of_x_transformers():
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    (q, k), scheme = drawn(), pope()
    theirs = x_transformers.PolarEmbedding(K, H)
    theirs.learned_bias.data.copy_(scheme.bias.data.unsqueeze(1))
    frequencies, bias = theirs(WHERE)
    q_turned = x_transformers.apply_polar_pos_emb(q, frequencies)
    k_turned = x_transformers.apply_polar_pos_emb(k, frequencies + bias)
    expected = q_turned @ k_turned.transpose(-2, -1)
    torch.testing.assert_close(logits(scheme, q, k), expected, rtol=1e-4, atol=1e-4)
    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad(logits(scheme, q, k), scheme.bias, factors)[0]
    torch.testing.assert_close(
        ours, torch.autograd.grad(expected, theirs.learned_bias, factors)[0][:, 0], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("where", [WHERE, WHERE + 100_000])
def test_xpos_is_the_papers_formula(where):
    (q, k), scheme = drawn(torch.float64), get("xpos", head_dim=K, scale_base=16.0)
    ours = logits(scheme, q, k, where)
    for i in range(T):
        for j in range(i + 1):
            distance, total = (where[i] - where[j]).item(), 0.0
            for pair in range(K // 2):
                zeta = (2 * pair / K + 0.4) / 1.4
                angle = distance * 10000.0 ** (-2 * pair / K)
                (a, b), (c, d) = (x[0, 0, n, 2 * pair : 2 * pair + 2].tolist() for x, n in ((q, i), (k, j)))
                turned = (a * c + b * d) * math.cos(angle) + (b * c - a * d) * -math.sin(angle)
                total += turned * zeta ** (distance / 16.0)
            assert ours[0, 0, i, j].item() == pytest.approx(total, rel=1e-3, abs=1e-2 if where[0] else 1e-3)


def test_xpos_gives_the_logits_of_x_transformers():
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    q, k = drawn()
    theirs = x_transformers.RotaryEmbedding(K, use_xpos=True, scale_base=64)
    where = torch.arange(T)
    frequencies, scale = theirs(where)
    q_turned = x_transformers.apply_rotary_pos_emb(q, frequencies, scale)
    k_turned = x_transformers.apply_rotary_pos_emb(k, frequencies, scale**-1)
    expected = q_turned @ k_turned.transpose(-2, -1)
    ours = logits(get("xpos", head_dim=K, scale_base=64.0), q, k, where)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
