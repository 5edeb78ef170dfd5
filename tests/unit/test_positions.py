"""What every position scheme must do, run for each row of one table; a scheme without a row fails."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from tokenspace import positions
from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.errors import ShapeError
from tokenspace.model import KeyValueCache, LanguageModel
from tokenspace.positions import Layout

D, LIMIT = 16, 32  # length of a vector; positions of a learned table


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scheme in the suite.

    Attributes:
        settings: It is built from these.
        other: Other settings, which must give another encoding; None where it has no settings.
        enters_input: Whether positions enter the input embedding.
        checks: Whether it refuses positions that no sequence has.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] | None = None
    enters_input: bool = True
    checks: bool = True


CASES = {
    "none": Case(enters_input=False, checks=False),
    "learned": Case(
        settings={"num_positions": LIMIT, "d_model": D, "std": 1.0},
        other={"num_positions": LIMIT, "d_model": D, "std": 5.0},
    ),
    "sinusoidal": Case(settings={"d_model": D}, other={"d_model": D, "theta": 100.0}),
}

every_scheme = pytest.mark.parametrize("name", CASES)
entering_schemes = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.enters_input])
checking_schemes = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.checks])
schemes_with_settings = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.other])


def build(name, settings=None):
    torch.manual_seed(7)
    return positions.get(name, **(CASES[name].settings if settings is None else settings))


def vectors(batch=2, length=6, dtype=torch.float32):
    return torch.randn(batch, length, D, generator=torch.Generator().manual_seed(3)).to(dtype)


def embedded(scheme, x, where=None):
    return scheme.embed(x.clone(), where)


def language_model(name):
    """Everything drawn wide, so that a token or a key in a wrong place shows."""
    torch.manual_seed(11)
    sizes = {"vocab_size": 50, "d_model": D, "num_layers": 2, "num_heads": 2, "context_length": LIMIT}
    model = LanguageModel(**sizes, positions=name, init="torch", tie_head=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.3)
    return model.requires_grad_(False)


def ids(*shape):
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(5))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_every_scheme_has_a_row():
    assert sorted(CASES) == positions.available()


@every_scheme
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_embed_keeps_shape_dtype_and_device(name, dtype):
    x = vectors(dtype=dtype)
    y = embedded(build(name), x)
    assert (y.shape, y.dtype, y.device) == (x.shape, dtype, x.device)


@every_scheme
def test_embed_is_deterministic(name):
    scheme, x = build(name), vectors()
    assert torch.equal(embedded(scheme, x), embedded(scheme, x))


@every_scheme
def test_positions_enter_the_input_only_where_the_table_says(name):
    x = vectors()
    assert torch.equal(embedded(build(name), x), x) == (not CASES[name].enters_input)


@every_scheme
def test_none_given_means_counting_from_0(name):
    scheme, x = build(name), vectors(length=6)
    assert torch.equal(embedded(scheme, x), embedded(scheme, x, torch.arange(6)))


@every_scheme
def test_explicit_positions_with_gaps_gather_from_the_whole_sequence(name):
    scheme, where = build(name), torch.tensor([3, 0, 17, 17, 31])
    whole = embedded(scheme, torch.zeros(1, LIMIT, D))
    close(embedded(scheme, torch.zeros(1, 5, D), where), whole[:, where])


@every_scheme
def test_positions_of_each_row_equal_the_rows_one_by_one(name):
    scheme, x, where = build(name), vectors(2, 3), torch.tensor([[0, 4, 9], [31, 2, 2]])
    one_by_one = torch.cat([embedded(scheme, x[row : row + 1], where[row]) for row in range(2)])
    close(embedded(scheme, x, where), one_by_one)


@every_scheme
def test_packed_documents_give_the_logits_of_each_alone(name):
    model, lengths = language_model(name), [3, 5, 1]
    tokens = ids(2, sum(lengths))
    alone = torch.cat([model(document) for document in tokens.split(lengths, dim=1)], dim=1)
    close(model(tokens, Layout.packed(lengths)), alone)


@every_scheme
def test_packing_differs_from_one_document(name):
    model, tokens = language_model(name), ids(1, 8)
    assert not torch.allclose(model(tokens, Layout.packed([3, 5]))[:, 3:], model(tokens)[:, 3:], atol=0.1)


@every_scheme
def test_left_padding_changes_no_logit(name):
    model, lengths = language_model(name), [2, 7, 4]
    tokens = ids(3, 7)
    mask = torch.tensor([[False] * (7 - length) + [True] * length for length in lengths])
    padded = model(tokens, Layout.padded(mask))
    for row, length in enumerate(lengths):
        close(padded[row, 7 - length :], model(tokens[row : row + 1, 7 - length :])[0])


@every_scheme
@pytest.mark.parametrize("chunks", [[1] * 10, [4, 1, 5]])
def test_a_cache_gives_the_logits_of_the_whole_sequence(name, chunks):
    model, tokens, cache = language_model(name), ids(2, 10), KeyValueCache(10)
    close(torch.cat([model(part, cache=cache) for part in tokens.split(chunks, dim=1)], dim=1), model(tokens))


@every_scheme
def test_a_cache_goes_on_after_left_padding(name):
    model, tokens, cache = language_model(name), ids(2, 8), KeyValueCache(8)
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    model(tokens[:, :5], Layout.padded(mask), cache=cache)
    added = model(tokens[:, 5:], cache=cache)
    close(added[0], model(tokens[:1, 2:])[0, 3:])
    close(added[1], model(tokens[1:])[0, 5:])


@every_scheme
def test_a_cache_goes_on_with_the_last_packed_document(name):
    model, tokens, cache = language_model(name), ids(1, 8), KeyValueCache(8)
    model(tokens[:, :6], Layout.packed([4, 2]), cache=cache)
    close(model(tokens[:, 6:], cache=cache), model(tokens[:, 4:])[:, 2:])


@checking_schemes
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([0, -1], "`positions` must be at least 0, but is -1. Count positions from 0."),
        (
            [0.5, 1.0],
            "`positions` must be whole numbers of shape (length,) or (batch, length), but is 'torch.float32 of shape "
            "(2,)'. Use torch.arange.",
        ),
        (
            [[[0, 1]]],
            "`positions` must be whole numbers of shape (length,) or (batch, length), but is 'torch.int64 of shape "
            "(1, 1, 2)'. Use torch.arange.",
        ),
        (
            [True, False],
            "`positions` must be whole numbers of shape (length,) or (batch, length), but is 'torch.bool of shape "
            "(2,)'. Use torch.arange.",
        ),
    ],
)
def test_impossible_positions_are_refused(name, where, message):
    with pytest.raises(ShapeError) as caught:
        build(name).embed(vectors(1, 2), torch.tensor(where))
    assert str(caught.value) == message


@every_scheme
def test_only_positions_up_to_the_declared_limit_are_encoded(name):
    scheme = build(name)
    far = torch.tensor([100_000])
    if scheme.max_position is None:
        assert torch.isfinite(scheme.embed(vectors(1, 1), far)).all()
    else:
        with pytest.raises(ShapeError, match=f"at most {scheme.max_position}, but is 100000"):
            scheme.embed(vectors(1, 1), far)


@entering_schemes
def test_moving_the_module_to_bfloat16_rounds_learned_tables_and_harms_no_other(name):
    scheme = build(name)
    last = 100_000 if scheme.max_position is None else scheme.max_position
    where = torch.tensor([0, 1, last - 1, last])
    exact = embedded(scheme, torch.zeros(1, 4, D), where)
    expected = exact.bfloat16().float() if list(scheme.parameters()) else exact
    assert torch.equal(embedded(scheme.to(torch.bfloat16), torch.zeros(1, 4, D), where), expected)


@every_scheme
def test_compiles_without_a_graph_break(name):
    torch.manual_seed(2)
    embedding = InputEmbedding(TokenEmbedding(50, D), build(name))
    tokens = ids(2, 6)
    compiled = torch.compile(embedding, fullgraph=True, backend="aot_eager")
    close(compiled(tokens), embedding(tokens))


@every_scheme
def test_explicit_positions_compile_without_a_graph_break(name):
    torch.manual_seed(2)
    embedding = InputEmbedding(TokenEmbedding(50, D), build(name))
    tokens, where = ids(2, 3), torch.tensor([[0, 4, 9], [31, 2, 2]])
    compiled = torch.compile(embedding, fullgraph=True, backend="aot_eager")
    close(compiled(tokens, where), embedding(tokens, where))


@schemes_with_settings
def test_settings_change_the_encoding_and_leave_other_instances_alone(name):
    scheme, x = build(name), vectors()
    before = embedded(scheme, x)
    other = embedded(build(name, CASES[name].other), x)
    assert not torch.allclose(before, other)
    assert torch.equal(embedded(scheme, x), before)


@every_scheme
def test_a_saved_state_encodes_alike_when_loaded(name):
    scheme, x = build(name), vectors()
    torch.manual_seed(99)  # another first draw, which the loaded state replaces
    loaded = positions.get(name, **CASES[name].settings)
    loaded.load_state_dict(scheme.state_dict())
    assert torch.equal(embedded(loaded, x), embedded(scheme, x))


@every_scheme
def test_gradients_pass_to_the_token_vectors(name):
    x = vectors().requires_grad_()
    build(name).embed(x * 1.0).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@every_scheme
@pytest.mark.parametrize("where", [None, [[0, 2, 2], [5, 2, 0]]])
def test_gradients_of_parameters_are_those_of_finite_differences(name, where):
    scheme = build(name).double()
    where = None if where is None else torch.tensor(where)
    names, tensors = zip(*[("x", vectors(2, 3).double()), *scheme.named_parameters()], strict=True)

    def encode(x, *parameters):
        arguments = (x * 1.0, where)
        return torch.func.functional_call(
            Embeds(scheme), {f"scheme.{n}": p for n, p in zip(names[1:], parameters, strict=True)}, arguments
        )

    assert torch.autograd.gradcheck(encode, [tensor.detach().clone().requires_grad_() for tensor in tensors])


class Embeds(torch.nn.Module):
    """A scheme's `embed` as a forward pass."""

    def __init__(self, scheme):
        super().__init__()
        self.scheme = scheme

    def forward(self, x, where):
        return self.scheme.embed(x, where)


@every_scheme
def test_a_model_takes_the_scheme_by_name_and_learns(name):
    torch.manual_seed(0)
    model = LanguageModel(vocab_size=11, d_model=D, num_layers=1, num_heads=2, context_length=8, positions=name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens = torch.arange(9).repeat(4, 1)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
