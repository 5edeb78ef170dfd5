"""`attend` with schemes that use each place in it, and the key-value cache."""

import math

import pytest
import torch
from torch import nn

from tokenspace import positions
from tokenspace.errors import ShapeError
from tokenspace.model import KeyValueCache, LanguageModel, Prepared, attend
from tokenspace.positions import Layout, Scheme

LAYOUTS = {
    "contiguous": Layout.contiguous(5),
    "packed": Layout.packed([2, 3]),
    "left padding": Layout.padded(torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])),
    "right padding": Layout.padded(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])),
    "memory": Layout.contiguous(3).with_memory(2),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


class Distances(Scheme):
    """One learned number for each head and distance, added to the logits."""

    name = "distances"

    def __init__(self, needs_probs=False, logit_scale=None):
        super().__init__()
        self.needs_probs, self.logit_scale = needs_probs, logit_scale
        generator = torch.Generator().manual_seed(1)
        self.table = nn.Parameter(torch.randn(2, 16, generator=generator))

    def score(self, q, k, layout, state, layer):
        distance = (layout.query_positions.unsqueeze(-1) - layout.key_positions.unsqueeze(-2)).abs()
        bias = self.table[:, distance]
        return bias.transpose(0, 1) if bias.dim() == 4 else bias.unsqueeze(0)


class Values(Scheme):
    """Adds the summed probabilities to the attended values."""

    name = "values"
    needs_probs = True

    def value(self, probs, layout, state, layer):
        return probs.sum(dim=-1, keepdim=True).expand(-1, -1, -1, 4)


class Turning(Scheme):
    """Turns the two halves of queries and keys by an angle that grows with the position."""

    name = "turning"

    def __init__(self, needs_raw_keys=False):
        super().__init__()
        self.needs_raw_keys = needs_raw_keys
        self.turned = []

    def rotate(self, q, k, layout, state, layer):
        self.turned += [q.shape[2], k.shape[2]]
        return turned(q, layout.query_positions), turned(k, layout.key_positions[..., layout.rotated :])


def turned(x, where):
    angle = (where * 0.7).unsqueeze(-1)
    angle = angle.unsqueeze(1) if where.dim() == 2 else angle
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * angle.cos() - second * angle.sin(), first * angle.sin() + second * angle.cos()], dim=-1)


class Recording(Scheme):
    """Keeps what `score` was given."""

    name = "recording"

    def score(self, q, k, layout, state, layer):
        self.given = q, k


def tensors(layout, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    lengths = (layout.query_length, layout.key_length, layout.key_length)
    return [torch.randn(batch, 2, n, 4, generator=generator).to(dtype).requires_grad_() for n in lengths]


def slow_attention(q, k, v, layout, scale, bias, causal=True):
    """One query at a time, over the keys it may see."""
    T, S = layout.query_length, layout.key_length
    mask = layout.mask(causal)
    mask = torch.ones(T, S, dtype=torch.bool).tril() if mask is None and causal else mask
    mask = torch.ones(T, S, dtype=torch.bool) if mask is None else mask
    mask = mask.expand(q.shape[0], 1, T, S)
    bias = torch.zeros(()) if bias is None else bias
    logits = (torch.einsum("bhtk,bhsk->bhts", q, k) * scale + bias).expand(q.shape[0], 2, T, S)
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for t in range(T):
            seen = mask[b, 0, t]
            if seen.any():
                out[b, :, t] = torch.einsum("hs,hsk->hk", logits[b, :, t, seen].softmax(-1), v[b][:, seen])
    return out


@every_layout
@pytest.mark.parametrize("causal", [True, False])
def test_plain_attention_equals_a_loop_over_queries(layout, causal):
    q, k, v = tensors(layout)
    actual = attend(q, k, v, Prepared.of(positions.get("none"), layout, causal))
    torch.testing.assert_close(actual, slow_attention(q, k, v, layout, 0.5, None, causal))


@every_layout
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("needs_probs", [True, False])
def test_a_score_is_added_to_the_scaled_logits(layout, causal, needs_probs):
    scheme, (q, k, v) = Distances(needs_probs), tensors(layout)
    expected = slow_attention(q, k, v, layout, 0.5, scheme.score(q, k, layout, None, 0), causal)
    torch.testing.assert_close(attend(q, k, v, Prepared.of(scheme, layout, causal)), expected)


@every_layout
def test_asking_for_probabilities_changes_neither_values_nor_gradients(layout):
    results = []
    for needs_probs in (False, True):
        scheme, inputs = Distances(needs_probs), tensors(layout)
        y = attend(*inputs, Prepared.of(scheme, layout))
        results.append([y, *torch.autograd.grad((y * y).sum(), [*inputs, scheme.table])])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("needs_probs", [True, False])
@pytest.mark.parametrize("scheme", [Distances, lambda needs_probs: Values() if needs_probs else positions.get("none")])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_query_without_keys_gives_0_and_no_nan_gradient(scheme, needs_probs, dropout):
    layout = LAYOUTS["left padding"]
    inputs = tensors(layout)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way either
        y = attend(*inputs, Prepared.of(scheme(needs_probs), layout), dropout=dropout)
        y.square().sum().backward()
    assert not y[0, :, :2].any()
    assert all(torch.isfinite(tensor.grad).all() for tensor in inputs)


@pytest.mark.parametrize("needs_probs", [True, False])
def test_a_scheme_can_set_the_scale_of_the_logits(needs_probs):
    layout, scheme = LAYOUTS["contiguous"], Distances(needs_probs, logit_scale=1.0)
    q, k, v = tensors(layout)
    expected = slow_attention(q, k, v, layout, 1.0, scheme.score(q, k, layout, None, 0))
    torch.testing.assert_close(attend(q, k, v, Prepared.of(scheme, layout)), expected)


def test_the_scale_is_honoured_without_a_score():
    layout = LAYOUTS["contiguous"]
    q, k, v = tensors(layout)
    scheme = Scheme()
    scheme.logit_scale = 0.1
    torch.testing.assert_close(attend(q, k, v, Prepared.of(scheme, layout)), slow_attention(q, k, v, layout, 0.1, None))


def test_value_is_added_to_the_attended_values():
    layout = LAYOUTS["contiguous"]
    q, k, v = tensors(layout)
    plain = attend(q, k, v, Prepared.of(positions.get("none"), layout))
    torch.testing.assert_close(attend(q, k, v, Prepared.of(Values(), layout)), plain + 1)  # probabilities sum to 1


def test_score_sees_queries_and_keys_before_rotation():
    layout, scheme = LAYOUTS["contiguous"], Recording()
    q, k, v = tensors(layout)
    attend(q * 2, k * 2, v, Prepared.of(scheme, layout), raw=(q, k))
    assert scheme.given[0] is q
    assert scheme.given[1] is k


@pytest.mark.parametrize("needs_probs", [True, False])
def test_bfloat16_goes_in_and_out(needs_probs):
    layout = LAYOUTS["left padding"]
    y = attend(*tensors(layout, dtype=torch.bfloat16), Prepared.of(Distances(needs_probs).bfloat16(), layout))
    assert y.dtype == torch.bfloat16


def test_dropout_scales_what_it_keeps():
    layout = Layout.contiguous(64)
    torch.manual_seed(0)
    q, v = torch.zeros(64, 2, 64, 4), torch.ones(64, 2, 64, 4)
    y = attend(q, q, v, Prepared.of(Values(), layout, causal=False), dropout=0.25) / 2  # attended, and as much again
    assert y.mean().item() == pytest.approx(1.0, abs=0.01)
    assert y.std().item() == pytest.approx(math.sqrt(0.25 / 0.75 / 64), rel=0.1)


class Longer(Scheme):
    """Makes queries and keys twice as long, which leaves their products as they are."""

    name = "longer"

    def __init__(self, needs_probs=False):
        super().__init__()
        self.needs_probs = needs_probs

    def rotate(self, q, k, layout, state, layer):
        return torch.nn.functional.pad(q, (0, 4)), torch.nn.functional.pad(k, (0, 4))


@every_layout
@pytest.mark.parametrize("needs_probs", [True, False])
def test_longer_queries_and_keys_give_values_of_the_old_length(layout, needs_probs):
    q, k, v = tensors(layout)
    scheme = Longer(needs_probs)
    longer = attend(*scheme.rotate(q, k, layout, None, 0), v, Prepared.of(scheme, layout), raw=(q, k))
    torch.testing.assert_close(longer, slow_attention(q, k, v, layout, 0.5, None))


@every_layout
@pytest.mark.parametrize("needs_probs", [True, False])
def test_one_key_head_serves_all_query_heads(layout, needs_probs):
    scheme, (q, k, v) = Distances(needs_probs), tensors(layout)
    k, v = k[:, :1], v[:, :1]
    score = scheme.score(q, k, layout, None, 0)
    expected = slow_attention(q, k.repeat(1, 2, 1, 1), v.repeat(1, 2, 1, 1), layout, 0.5, score)
    torch.testing.assert_close(attend(q, k, v, Prepared.of(scheme, layout)), expected)


class Shared(Distances):
    """`Distances`, made once for all layers."""

    shares_score = True

    def prepare(self, layout):
        return super().score(None, None, layout, None, 0)

    def score(self, q, k, layout, state, layer):
        return state


@every_layout
@pytest.mark.parametrize("causal", [True, False])
def test_a_score_that_all_layers_share_is_masked_once(layout, causal):
    q, k, v = tensors(layout)
    prepared = Prepared.of(Shared(), layout, causal)
    seen = prepared.seen()
    assert seen is None or prepared.state.masked_select(~seen).isneginf().all()
    torch.testing.assert_close(attend(q, k, v, prepared), attend(q, k, v, Prepared.of(Distances(), layout, causal)))


@pytest.mark.parametrize("length", [4, 16])
def test_values_may_have_another_length_than_queries(length):
    layout, (q, k, _) = LAYOUTS["contiguous"], tensors(LAYOUTS["contiguous"])
    v = torch.randn(2, 2, 5, length, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attend(q, k, v, Prepared.of(positions.get("none"), layout)), expected)


def turning_model(needs_raw_keys):
    torch.manual_seed(4)
    model = LanguageModel(vocab_size=20, d_model=8, num_layers=2, num_heads=2, context_length=16, positions="none")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.5)
    model.embedding.position = Turning(needs_raw_keys)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("needs_raw_keys", [True, False])
def test_rotated_keys_agree_between_cache_and_whole_sequence(needs_raw_keys):
    model, cache = turning_model(needs_raw_keys), KeyValueCache(7)
    tokens = torch.randint(0, 20, (2, 7))
    parts = [model(part, cache=cache) for part in tokens.split([3, 1, 1, 2], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=1e-5, atol=1e-5)


def test_raw_and_rotated_keys_in_the_cache_give_the_same_logits():
    torch.manual_seed(6)
    tokens = torch.randint(0, 20, (2, 5))
    logits = []
    for needs_raw_keys in (True, False):
        model, cache = turning_model(needs_raw_keys), KeyValueCache(5)
        logits.append(torch.cat([model(part, cache=cache) for part in tokens.split(1, dim=1)], dim=1))
    torch.testing.assert_close(*logits)


def test_raw_keys_are_rotated_by_their_own_positions():
    tokens, layout = torch.tensor([[1, 2, 3]]), Layout.explicit(torch.tensor([3, 4, 9]))
    torch.testing.assert_close(turning_model(True)(tokens, layout), turning_model(False)(tokens, layout))


def test_a_model_gives_score_the_queries_and_keys_before_rotation():
    class TurningRecording(Turning):
        def rotate(self, q, k, layout, state, layer):
            self.raw = [*getattr(self, "raw", []), q, k]
            return super().rotate(q, k, layout, state, layer)

        def score(self, q, k, layout, state, layer):
            self.scored = [*getattr(self, "scored", []), q, k]

    model, cache = turning_model(needs_raw_keys=True), KeyValueCache(5)
    scheme = model.embedding.position = TurningRecording(needs_raw_keys=True)
    for part in torch.tensor([[1, 2, 3, 4, 5]]).split([4, 1], dim=1):
        model(part, cache=cache)
    assert all(torch.equal(scored, raw) for scored, raw in zip(scheme.scored, scheme.raw, strict=True))


def test_cached_keys_are_not_rotated_again():
    model, cache = turning_model(needs_raw_keys=False), KeyValueCache(5)
    for part in torch.zeros(1, 5, dtype=torch.long).split([4, 1], dim=1):
        model(part, cache=cache)
    assert model.embedding.position.turned == [4] * 4 + [1] * 4  # queries and keys, in each of two layers


def test_raw_keys_are_rotated_anew():
    model, cache = turning_model(needs_raw_keys=True), KeyValueCache(5)
    for part in torch.zeros(1, 5, dtype=torch.long).split([4, 1], dim=1):
        model(part, cache=cache)
    assert model.embedding.position.turned == [4, 4] * 2 + [1, 5] * 2


def test_a_full_cache_says_so():
    model = turning_model(needs_raw_keys=False)
    with pytest.raises(ShapeError) as caught:
        model(torch.zeros(1, 4, dtype=torch.long), cache=KeyValueCache(3))
    assert str(caught.value) == "`cache` must hold at most 3 tokens, but is 4. Make the cache larger, or start anew."


def test_a_cache_counts_its_tokens():
    model, cache = turning_model(needs_raw_keys=False), KeyValueCache(9)
    model(torch.zeros(2, 4, dtype=torch.long), cache=cache)
    model(torch.zeros(2, 1, dtype=torch.long), cache=cache)
    assert cache.length == 5
