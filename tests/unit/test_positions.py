"""What every position scheme must do, run for each row of one table; a scheme without a row fails."""

import copy
import shutil

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from scheme_cases import CASES, ORIGINAL, H, K, attended, attention, build, close, limit, vectors
from tokenspace import positions
from tokenspace.errors import SettingError, ShapeError
from tokenspace.model import Prepared
from tokenspace.positions import Layout
from tokenspace.positions._distance import DistanceScheme

pytestmark = pytest.mark.usefixtures("one_thread")
every_case = pytest.mark.parametrize("case", CASES)


def some(condition):
    return pytest.mark.parametrize("case", [case for case in CASES if condition(build(case), CASES[case])])


def arange(*bounds):
    return torch.arange(*bounds)


def test_every_scheme_has_a_row():
    assert sorted({case.name for case in CASES.values()}) == positions.available()


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_dtype_and_device_are_kept(case, dtype):
    out = attention(build(case), vectors(dtype=dtype))
    assert (out.shape, out.dtype, out.device.type) == ((2, H, 6, K), dtype, "cpu")


@every_case
def test_the_same_input_gives_the_same_output(case):
    scheme, x = build(case), vectors()
    assert torch.equal(attention(scheme, x), attention(scheme, x))


@some(lambda scheme, case: case.name != "none")
def test_order_enters(case):
    x = vectors()
    assert not torch.allclose(attention(build(case), x), attention(build("none"), x), atol=1e-3)


@some(lambda scheme, case: not scheme.enters_input)
def test_token_vectors_stay_where_the_scheme_says_so(case):
    x = vectors()
    assert build(case).embed(x) is x


@some(lambda scheme, case: scheme.enters_input)
def test_no_positions_for_the_input_means_counting_from_0(case):
    scheme, x = build(case), vectors()
    assert torch.equal(scheme.embed(x.clone()), scheme.embed(x.clone(), arange(6)))


@every_case
def test_explicit_positions_from_0_are_the_plain_ones(case):
    scheme, x = build(case), vectors()
    close(attention(scheme, x, Layout.explicit(arange(6))), attention(scheme, x))


@every_case
def test_positions_with_gaps_see_what_the_whole_sequence_would_with_the_gaps_masked_out(case):
    scheme, whole = build(case), vectors(1, 32)
    where = torch.tensor([0, 3, 4, 17, 31])
    valid = torch.zeros(1, 32, dtype=torch.bool).index_fill(1, where, True)
    masked = attention(scheme, whole, Layout.explicit(arange(32), valid=valid))
    close(attention(scheme, whole[:, where], Layout.explicit(where)), masked[:, :, where])


@every_case
def test_positions_of_each_row_give_what_the_rows_give_one_by_one(case):
    scheme, x, where = build(case), vectors(2, 3), torch.tensor([[0, 4, 9], [1, 2, 31]])
    rows = [attention(scheme, x[row : row + 1], Layout.explicit(where[row])) for row in range(2)]
    close(attention(scheme, x, Layout.explicit(where)), torch.cat(rows))


@every_case
def test_moving_a_text_changes_nothing_for_relative_schemes_only(case):
    scheme, x = build(case), vectors()
    moved = attention(scheme, x, Layout.explicit(arange(20, 26)))
    assert torch.allclose(moved, attention(scheme, x), atol=2e-5) == CASES[case].relative


@every_case
def test_packed_documents_give_what_each_gives_alone(case):
    scheme, lengths = build(case), [3, 14, 1]  # one is longer than the length scalings were made for
    x = vectors(2, sum(lengths))
    alone = [attention(scheme, document) for document in x.split(lengths, dim=1)]
    close(attention(scheme, x, Layout.packed(lengths)), torch.cat(alone, dim=2))


@every_case
def test_left_padding_changes_nothing(case):
    scheme, x = build(case), vectors(2, 15)
    mask = arange(15).expand(2, -1) >= torch.tensor([[4], [0]])
    padded = attention(scheme, x, Layout.padded(mask))
    close(padded[:1, :, 4:], attention(scheme, x[:1, 4:]))
    close(padded[1:], attention(scheme, x[1:]))


@some(lambda scheme, case: not scheme.enters_input)
@pytest.mark.parametrize("length", [ORIGINAL, ORIGINAL + 9])
def test_the_last_query_alone_gives_the_last_row(case, length):
    """One attention call at a fixed length, over keys that the cache holds unrotated."""
    scheme, x, whole = build(case), vectors(2, length), Layout.contiguous(length)
    cache = type("Cache", (), {"layout": Layout.contiguous(length - 1)})()
    last = Layout.contiguous(1).extend(cache, raw_keys=True)
    close(attention(scheme, x, last, queries=1), attention(scheme, x, whole)[:, :, -1:])


@some(lambda scheme, case: not scheme.enters_input)
def test_memory_before_a_segment_equals_attention_over_both(case):
    scheme, x = build(case), vectors(2, 10)
    both = attention(scheme, x)[:, :, 4:]
    close(attention(scheme, x, Layout.contiguous(6).with_memory(4), queries=6), both)


@some(lambda scheme, case: scheme.enters_input)
def test_schemes_that_enter_the_input_refuse_memory(case):
    with pytest.raises(ShapeError, match=r"`layout` must have no memory with .* Use a relative scheme"):
        Prepared.of(build(case), Layout.contiguous(2).with_memory(2))


@every_case
def test_a_far_position_in_bfloat16_is_the_rounded_float32_result(case):
    scheme = build(case)
    far = limit(scheme, 100_000)
    layout = Layout.explicit(arange(far - 5, far + 1))
    x = vectors(1, 6, torch.bfloat16)
    q = vectors(1, 6, torch.bfloat16, seed=8).unflatten(-1, (H, K)).transpose(1, 2)
    state = scheme.prepare(layout)
    assert torch.equal(
        scheme.embed(x.clone(), layout.query_positions),
        scheme.embed(x.float(), layout.query_positions).bfloat16(),
    )
    if CASES[case].name != "transformer_xl":  # it adds a learned vector, not an angle
        for turned, exact in zip(
            scheme.rotate(q, q, layout, state), scheme.rotate(q.float(), q.float(), layout, state), strict=True
        ):
            assert torch.equal(turned, exact.bfloat16())
    score, exact = scheme.score(q, q, layout, state), scheme.score(q.float(), q.float(), layout, state)
    if score is not None:
        seen = torch.ones(6, 6, dtype=torch.bool).tril()
        torch.testing.assert_close(score[..., seen].float(), exact[..., seen], rtol=0.03, atol=0.03 * K)


@every_case
def test_moving_the_module_to_bfloat16_rounds_what_is_learned_and_nothing_else(case):
    scheme, x = build(case), vectors()
    far = limit(scheme, 100_000)
    layout = Layout.explicit(arange(far - 5, far + 1))
    rounded = copy.deepcopy(scheme)
    for parameter in rounded.parameters():
        parameter.copy_(parameter.bfloat16().float())
    moved = copy.deepcopy(scheme).to(torch.bfloat16)
    assert [dtype for dtype in {p.dtype for p in moved.parameters()}] in ([], [torch.bfloat16])
    torch.testing.assert_close(attention(moved, x, layout), attention(rounded, x, layout), rtol=0.02, atol=0.02)
    if not list(scheme.parameters()):
        assert torch.equal(attention(moved, x, layout), attention(scheme, x, layout))


@every_case
@pytest.mark.parametrize("layout", [None, Layout.explicit(torch.tensor([[0, 4, 9], [1, 2, 11]]))])
def test_compiles_without_a_graph_break(case, layout):
    scheme, x = build(case), vectors(2, 3)
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    close(compiled(scheme, x, layout), attention(scheme, x, layout))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("case", ["rotary", "t5", "transformer_xl", "shaw", "pope"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
def test_gradients_through_the_default_compiler_are_those_without(case):
    """In torch 2.13 it went wrong, without a word, for a bias laid out by overlapping windows."""
    scheme = build(case).requires_grad_()
    gradients = []
    for run in (torch.compile(attention), attention):
        torch._dynamo.reset()
        x = vectors(2, 7).requires_grad_()
        leaves = [x, *scheme.parameters()]
        out = run(scheme, x).square().sum()
        gradients.append(torch.autograd.grad(out, leaves, allow_unused=True, materialize_grads=True))
    for compiled, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3)


@some(lambda scheme, case: case.other is not None)
def test_settings_change_the_encoding_and_leave_other_instances_alone(case):
    scheme, x = build(case), vectors(2, 20)
    before = attention(scheme, x)
    other = attention(build(case, CASES[case].other), x)
    assert not torch.allclose(before, other, atol=1e-4)
    assert torch.equal(attention(scheme, x), before)


@every_case
def test_a_saved_state_encodes_alike_when_loaded(case):
    scheme, x = build(case), vectors()
    torch.manual_seed(99)  # another first draw, which the loaded state replaces
    loaded = positions.get(CASES[case].name, **CASES[case].settings).requires_grad_(False)
    loaded.load_state_dict(scheme.state_dict())
    assert torch.equal(attention(loaded, x), attention(scheme, x))


@every_case
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([0, -1], "`positions` must be at least 0, but is -1. Count positions from 0."),
        ([0.5, 1.0], "`positions` must be whole numbers of shape (length,) or (batch, length), but is 'torch.float32 "),
        ([[[0, 1]]], "`positions` must be whole numbers of shape (length,) or (batch, length), but is 'torch.int64 of"),
        ([True, False], "`positions` must be whole numbers of shape (length,) or (batch, length), but is 'torch.bool "),
    ],
)
def test_impossible_positions_are_refused(case, where, message):
    scheme = build(case)
    with pytest.raises(ShapeError) as caught:
        scheme.prepare(Layout.explicit(torch.tensor(where)))
    assert str(caught.value).startswith(message)
    if scheme.enters_input:
        with pytest.raises(ShapeError) as caught:
            scheme.embed(vectors(1, 2), torch.tensor(where))
        assert str(caught.value).startswith(message)


@every_case
def test_only_positions_up_to_the_declared_limit_are_encoded(case):
    scheme, far = build(case), Layout.explicit(torch.tensor([99_999, 100_000]))
    if scheme.max_position is None:
        assert torch.isfinite(attention(scheme, vectors(1, 2), far)).all()
    else:
        with pytest.raises(ShapeError, match=f"at most {scheme.max_position}, but is 100000"):
            attention(scheme, vectors(1, 2), far)


@every_case
@pytest.mark.parametrize("key_heads", [1, 2])
def test_fewer_key_heads_equal_each_repeated(case, key_heads):
    scheme, (q, k, v) = build(case), queries_keys_values(key_heads)
    repeated = [tensor.repeat_interleave(H // key_heads, dim=1) for tensor in (k, v)]
    close(attended(scheme, q, k, v), attended(scheme, q, *repeated))


@every_case
def test_local_heads_give_their_share_of_all_heads(case):
    scheme, (q, k, v) = build(case), queries_keys_values(H)
    shares = [(slice(0, 1), scheme.local_heads(0, 1)), (slice(1, 4), scheme.local_heads(1, 3))]
    parts = [attended(local, q[:, heads], k[:, heads], v[:, heads]) for heads, local in shares]
    close(torch.cat(parts, dim=1), attended(scheme, q, k, v))  # the whole scheme is as it was


def queries_keys_values(key_heads):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2, heads, 6, K, generator=generator) for heads in (H, key_heads, key_heads)]


@some(lambda scheme, case: scheme.num_heads is not None)
def test_heads_that_the_scheme_was_not_built_for_are_refused(case):
    q = torch.zeros(1, H + 1, 3, K)
    with pytest.raises(
        ShapeError, match=f"`q` must have the {H} heads that .* positions were built for, but is {H + 1}"
    ):
        attended(build(case), q, q, q)
    with pytest.raises(SettingError, match=f"must be at most the {H} heads of the scheme, but is {H + 1}"):
        build(case).local_heads(1, H)


@every_case
@pytest.mark.parametrize("where", [None, [[0, 2, 3], [5, 2, 0]]])
def test_gradients_are_those_of_finite_differences(case, where):
    scheme = build(case).double()
    layout = None if where is None else Layout.explicit(torch.tensor(where))
    names = [name for name, _ in scheme.named_parameters()]

    def attend_with(x, *parameters):
        changed = {f"scheme.{name}": p for name, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Attends(scheme), changed, (x, layout))

    tensors = [vectors(2, 3, torch.float64), *scheme.parameters()]
    assert torch.autograd.gradcheck(attend_with, [tensor.detach().clone().requires_grad_() for tensor in tensors])


class Attends(torch.nn.Module):
    """A scheme's attention as a forward pass, in both layers."""

    def __init__(self, scheme):
        super().__init__()
        self.scheme = scheme

    def forward(self, x, layout):
        return attention(self.scheme, x, layout) + attention(self.scheme, x, layout, layer=1)


LAYOUTS = {
    "contiguous": Layout.contiguous(7),
    "memory": Layout.contiguous(4).with_memory(3),
    "packed": Layout.packed([3, 4]),
    "gaps": Layout.explicit(torch.tensor([0, 5, 6, 40, 90, 91, 92])),
    "rows": Layout.explicit(torch.tensor([[0, 1, 2, 3, 4, 5, 6], [9, 10, 12, 13, 20, 22, 30]])),
}


@some(lambda scheme, case: isinstance(scheme, DistanceScheme))
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_score_mod_gives_flex_attention_the_score(case, layout):
    scheme = build(case)
    generator = torch.Generator().manual_seed(2)
    q, k, v = (
        torch.randn(2, H, length, 16, generator=generator)
        for length in (layout.query_length, layout.key_length, layout.key_length)
    )
    T, S, mod = layout.query_length, layout.key_length, scheme.score_mod(layout)
    seen = torch.ones(T, S, dtype=torch.bool) if layout.query_documents is None else layout.mask(causal=False)

    def masked(score, b, h, t, s):
        return torch.where(seen[t, s], mod(score, b, h, t, s), -torch.inf)

    score = scheme.score(q, k, layout, scheme.prepare(layout)).masked_fill(~seen, -torch.inf)
    scale = scheme.logit_scale
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, score, scale=scale)
    close(flex_attention(q, k, v, score_mod=masked, scale=scale), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has no backward pass on the CPU")
@some(lambda scheme, case: isinstance(scheme, DistanceScheme))
def test_the_score_mod_brings_gradients_to_the_scheme_on_a_gpu(case):
    layout, scheme = Layout.contiguous(128, "cuda"), build(case).cuda().requires_grad_()
    generator = torch.Generator("cuda").manual_seed(2)
    q, k, v = (torch.randn(2, H, 128, 16, generator=generator, device="cuda") for _ in range(3))
    gradients = []
    for flex in (True, False):
        if flex:
            attend_by = torch.compile(flex_attention)
            out = attend_by(q, k, v, score_mod=scheme.score_mod(layout), scale=scheme.logit_scale)
        else:
            score = scheme.score(q, k, layout, scheme.prepare(layout))
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, score, scale=scheme.logit_scale)
        parameters = list(scheme.parameters())
        gradients.append(torch.autograd.grad(out.square().sum(), parameters) if parameters else [out])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
