"""PoPE and xPos against x-transformers and the formulas of their papers, one number at a time."""

import math

import pytest
import torch

from tokenspace.positions import Layout, get

B, H, T, K = 2, 3, 7, 8
WHERE = torch.tensor([0, 1, 2, 5, 40, 41, 300])


def drawn(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, H, T, K, generator=generator).to(dtype).requires_grad_() for _ in range(2)]


def logits(scheme, q, k, where=WHERE):
    layout = Layout.explicit(where)
    q, k = scheme.rotate(q, k, layout, scheme.prepare(layout))
    return q @ k.transpose(-2, -1)


def assert_same(ours, theirs, parameters, reference, tolerance):
    """Values, and the gradients of our parameters and of the reference's."""
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    factors = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)).to(ours.dtype)
    gradients = (torch.autograd.grad(*side, factors) for side in ((ours, parameters), (theirs, reference)))
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected.view_as(actual), rtol=10 * tolerance, atol=10 * tolerance)


def pope():
    scheme = get("pope", num_heads=H, head_dim=K)
    torch.nn.init.uniform_(scheme.bias, -8.0, 2.0, generator=torch.Generator().manual_seed(1))
    assert (scheme.bias > 0).any() and (scheme.bias < -2 * math.pi).any()  # both bounds are tried
    return scheme


def test_pope_is_the_papers_formula():
    (q, k), scheme = drawn(torch.float64), pope().double()
    expected = []
    for b, h, i, j in torch.ones(B, H, T, T).nonzero().tolist():
        best = scheme.bias[h].clamp(-2 * math.pi, 0)
        angle = (WHERE[i] - WHERE[j]) * 10000.0 ** (-torch.arange(K).double() / K) - best
        lengths = torch.log1p(q[b, h, i].exp()) * torch.log1p(k[b, h, j].exp())
        expected.append((lengths * angle.cos()).sum())
    parameters = [q, k, scheme.bias]
    theirs = torch.stack(expected).view(B, H, T, T)
    assert_same(logits(scheme, q, k), theirs, parameters, parameters, 5e-5)  # angles are float32: 300 ± 2e-5


def test_pope_gives_the_logits_of_x_transformers():
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    (q, k), scheme = drawn(), pope()
    theirs = x_transformers.PolarEmbedding(K, H)
    theirs.learned_bias.data.copy_(scheme.bias.data.unsqueeze(1))
    frequencies, bias = theirs(WHERE)
    q_turned = x_transformers.apply_polar_pos_emb(q, frequencies)
    k_turned = x_transformers.apply_polar_pos_emb(k, frequencies + bias)
    expected = q_turned @ k_turned.transpose(-2, -1)
    assert_same(logits(scheme, q, k), expected, [q, k, scheme.bias], [q, k, theirs.learned_bias], 2e-5)


@pytest.mark.parametrize("order", ["interleaved", "halves"])
def test_xpos_is_the_papers_formula(order):
    """Table 1 and algorithm 1: pair n of a logit is turned by its angle and fades by zeta ^ (distance / base)."""
    (q, k), scheme = drawn(torch.float64), get("xpos", head_dim=K, scale_base=16.0, theta=500.0, order=order)
    behind = torch.ones(T, T, dtype=torch.bool).tril()
    expected = []
    for b, h, i, j in behind.expand(B, H, T, T).nonzero().tolist():
        distance, total = (WHERE[i] - WHERE[j]).item(), 0.0
        for pair in range(K // 2):
            first, second = (2 * pair, 2 * pair + 1) if order == "interleaved" else (pair, pair + K // 2)
            zeta = (pair / (K / 2) + 0.4) / (1 + 0.4)
            angle = distance * 500.0 ** (-2 * pair / K)
            query, key = (torch.complex(x[first], x[second]) for x in (q[b, h, i], k[b, h, j]))
            turned = query * key.conj() * complex(math.cos(angle), math.sin(angle))
            total = total + turned.real * zeta ** (distance / 16.0)
        expected.append(total)
    assert_same(logits(scheme, q, k)[..., behind], torch.stack(expected).view(B, H, -1), [q, k], [q, k], 5e-5)


def test_xpos_at_far_positions_gives_the_logits_of_near_ones():
    q, k = drawn(torch.float64)
    scheme = get("xpos", head_dim=K, scale_base=16.0)
    near, far = (logits(scheme, q, k, where).tril() for where in (WHERE, WHERE + 100_000))
    torch.testing.assert_close(far, near, rtol=1e-2, atol=1e-2)  # angles are float32: 100000 ± 4e-3


def test_xpos_gives_the_logits_of_x_transformers():
    x_transformers = pytest.importorskip("x_transformers.x_transformers")
    q, k = drawn()
    theirs = x_transformers.RotaryEmbedding(K, use_xpos=True, scale_base=64)
    where = torch.tensor([0, 1, 2, 5, 40, 41, 90])
    frequencies, scale = theirs(where)
    q_turned = x_transformers.apply_rotary_pos_emb(q, frequencies, scale)
    k_turned = x_transformers.apply_rotary_pos_emb(k, frequencies, scale**-1)
    expected = (q_turned @ k_turned.transpose(-2, -1)).tril()  # ahead of a query they grow, and are never seen
    ours = logits(get("xpos", head_dim=K, scale_base=64.0), q, k, where).tril()
    assert_same(ours, expected, [q, k], [q, k], 2e-5)
