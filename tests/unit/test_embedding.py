"""The token table and the input embedding: figures, sizes, places, hooks, memory, refusals."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tokenspace import positions
from tokenspace.embedding import InputEmbedding, TokenEmbedding, check_token_ids, init_recipe
from tokenspace.errors import SettingError, ShapeError


def learned(num_positions=8, d_model=4):
    return positions.get("learned", num_positions=num_positions, d_model=d_model, std=1.0)


def embedding(**options):
    torch.manual_seed(0)
    return InputEmbedding(TokenEmbedding(10, 4), learned(), **options)


TOKENS = torch.tensor([[1, 2, 9], [2, 0, 1]])


def test_the_first_draw_is_that_of_nn_embedding():
    torch.manual_seed(123)
    weight = TokenEmbedding(6, 3).weight
    torch.testing.assert_close(weight[0].tolist(), [0.3374, -0.1778, -0.1690], rtol=0, atol=5e-5)
    torch.testing.assert_close(weight[5].tolist(), [-2.8400, -0.7849, -1.4096], rtol=0, atol=5e-5)
    torch.manual_seed(123)
    assert torch.equal(weight, nn.Embedding(6, 3).weight)


def test_index_3_gives_row_3():
    torch.manual_seed(123)
    vector = TokenEmbedding(6, 3)(torch.tensor(3))
    torch.testing.assert_close(vector.tolist(), [-0.4015, 0.9666, -1.1481], rtol=0, atol=5e-5)


def test_token_and_position_vectors_are_added():
    token = TokenEmbedding.from_pretrained(torch.tensor([[0.5, -0.2, 0.1]]))
    position = learned(1, 3)
    position.weight.data = torch.tensor([[0.1, 0.3, -0.1]])
    actual = InputEmbedding(token, position)(torch.tensor([[0]]))
    torch.testing.assert_close(actual, torch.tensor([[[0.6, 0.1, 0.0]]]))


def test_8_windows_of_4_tokens_at_256_dimensions():
    assert InputEmbedding(TokenEmbedding(50257, 256), learned(4, 256))(torch.zeros(8, 4, dtype=torch.long)).shape == (
        8,
        4,
        256,
    )


@pytest.mark.parametrize(
    ("recipe", "token_std", "position_std"), [("torch", 1.0, 1.0), ("gpt2", 0.02, 0.01), ("scaled", 0.125, 0.125)]
)
def test_a_recipe_fixes_the_spread_of_both_tables(recipe, token_std, position_std):
    torch.manual_seed(0)
    table = TokenEmbedding(2000, 64, init=recipe)
    assert table.init_std == token_std
    assert table.weight.std().item() == pytest.approx(token_std, rel=0.02)
    assert init_recipe(recipe, 64).position_std == position_std


def test_an_unknown_recipe_is_refused():
    with pytest.raises(SettingError) as caught:
        TokenEmbedding(4, 2, init="xavier")
    assert str(caught.value) == (
        "`init` must be one of torch, gpt2, scaled, but is 'xavier'. Use 'gpt2' for a language model."
    )


@pytest.mark.parametrize(("sizes", "name"), [((0, 4), "num_embeddings"), ((4, 0), "embedding_dim")])
def test_an_empty_table_is_refused(sizes, name):
    with pytest.raises(SettingError) as caught:
        TokenEmbedding(*sizes)
    assert str(caught.value) == f"`{name}` must be a whole number of at least 1, but is 0. Give 1 or more."


def test_the_table_is_an_nn_embedding_with_its_state_dict():
    table = TokenEmbedding(5, 3)
    assert isinstance(table, nn.Embedding)
    assert list(table.state_dict()) == ["weight"]
    plain = nn.Embedding(5, 3)
    plain.load_state_dict(table.state_dict())
    assert torch.equal(plain.weight, table.weight)


def test_from_pretrained_keeps_the_rows_and_freezes_them():
    rows = torch.randn(5, 3)
    table = TokenEmbedding.from_pretrained(rows)
    assert isinstance(table, TokenEmbedding)
    assert torch.equal(table.weight, rows)
    assert not table.weight.requires_grad
    assert TokenEmbedding.from_pretrained(rows, freeze=False).weight.requires_grad


def test_the_padding_row_is_zero_and_gets_no_gradient():
    table = TokenEmbedding(5, 3, 2, init="gpt2")
    table(torch.tensor([2, 1])).sum().backward()
    assert not table.weight[2].any()
    assert table.weight.grad[:, 0].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_a_sparse_table_gives_a_sparse_gradient_through_the_input_embedding():
    model = InputEmbedding(TokenEmbedding(10, 4, sparse=True), learned())
    model(TOKENS).sum().backward()
    grad = model.token.weight.grad
    assert grad.is_sparse
    assert grad.to_dense()[:, 0].tolist() == [1.0, 2.0, 2.0, 0, 0, 0, 0, 0, 0, 1.0]


@pytest.mark.parametrize("bad", [10, -1, 50_000])
def test_an_id_outside_the_table_is_refused(bad):
    with pytest.raises(ShapeError) as caught:
        embedding()(torch.tensor([[0, bad]]))
    assert str(caught.value) == (
        f"`token_ids` must lie in [0, 10), but is {bad}. Use the tokenizer that the table was made for."
    )


@pytest.mark.parametrize(
    ("dtype", "use"), [(torch.float32, "token_ids.long()"), (torch.bool, "token_ids.nonzero() where it is a mask")]
)
def test_ids_that_are_no_whole_numbers_are_refused(dtype, use):
    with pytest.raises(ShapeError) as caught:
        TokenEmbedding(4, 2)(torch.zeros(1, 2, dtype=dtype))
    assert str(caught.value) == f"`token_ids` must be whole numbers, but is {dtype}. Use {use}."


def test_no_ids_are_in_every_range():
    check_token_ids(torch.zeros(0, dtype=torch.long), vocab_size=1)
    assert TokenEmbedding(4, 2)(torch.zeros(3, 0, dtype=torch.long)).shape == (3, 0, 2)


def test_ids_need_a_batch_axis():
    with pytest.raises(ShapeError) as caught:
        embedding()(torch.tensor([1, 2]))
    assert str(caught.value) == "`token_ids` must have shape (batch, length), but is (2,). Add the missing axis."


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 3), (3, 2)])
def test_positions_need_the_shape_of_the_ids(shape):
    with pytest.raises(ShapeError) as caught:
        embedding()(TOKENS, torch.zeros(shape, dtype=torch.long))
    assert str(caught.value) == (
        f"`positions` must have shape (3,) or (2, 3), but is {shape}. Give each token its position."
    )


def test_state_dict_names_both_tables():
    assert list(embedding().state_dict()) == ["token.weight", "position.weight"]


def test_explicit_positions_choose_the_rows():
    model, where = embedding(), torch.tensor([[0, 0, 7], [3, 2, 1]])
    assert torch.equal(model(TOKENS, where), model.token.weight[TOKENS] + model.position.weight[where])


def test_scale_multiplies_the_token_vectors_alone():
    model = embedding(scale=3.0)
    torch.testing.assert_close(model(TOKENS), 3 * model.token.weight[TOKENS] + model.position.weight[:3])


@pytest.mark.parametrize("where", [None, torch.tensor([0, 1, 2])])
def test_an_offset_moves_every_position(where):
    model = embedding(position_offset=2)
    assert torch.equal(model(TOKENS, where), model.token.weight[TOKENS] + model.position.weight[2:5])


def test_an_offset_leaves_the_callers_positions_alone():
    where = torch.tensor([0, 1, 2])
    embedding(position_offset=2)(TOKENS, where)
    assert where.tolist() == [0, 1, 2]


def test_an_offset_counts_towards_the_end_of_the_table():
    with pytest.raises(ShapeError, match="`positions` must be at most 7, but is 8"):
        embedding(position_offset=6)(TOKENS)


def test_a_module_after_the_sum_comes_before_dropout():
    model = embedding(after=nn.LayerNorm(4), dropout=0.5)
    normed = model.after(model.token.weight[TOKENS] + model.position.weight[:3])
    torch.manual_seed(1)
    expected = nn.functional.dropout(normed, 0.5)
    torch.manual_seed(1)
    assert torch.equal(model(TOKENS), expected)


def test_dropout_rests_in_evaluation():
    model = embedding(dropout=0.9).eval()
    assert torch.equal(model(TOKENS), embedding()(TOKENS))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_outside_its_range_is_refused(dropout):
    with pytest.raises(SettingError) as caught:
        embedding(dropout=dropout)
    assert str(caught.value) == f"`dropout` must lie in [0, 1), but is {dropout}. Use 0.0 for none."


def test_a_position_that_is_no_scheme_is_refused():
    with pytest.raises(SettingError) as caught:
        InputEmbedding(TokenEmbedding(4, 2), nn.Embedding(4, 2))
    assert str(caught.value) == "`position` must be a Scheme, but is 'Embedding'. Use positions.get(name, …)."


def test_a_forward_hook_keeps_the_token_vectors_as_they_were():
    model, kept = embedding(scale=2.0), []
    model.token.register_forward_hook(lambda module, given, output: kept.append(output))
    model(TOKENS)
    assert torch.equal(kept[0], model.token.weight[TOKENS])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # ids need no gradient
@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_on_the_table_sees_its_gradient(register):
    model, kept = embedding(), []
    getattr(model.token, register)(lambda module, *gradients: kept.append(gradients[-1][0].clone()))
    model(TOKENS).sum().backward()
    assert torch.equal(kept[0], torch.ones(2, 3, 4))


def test_the_tables_are_not_written_to():
    model = embedding(scale=2.0, position_offset=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(TOKENS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_gradients_are_those_of_the_plain_sum():
    model, factors = embedding(scale=2.0), torch.randn(2, 3, 4)
    actual = torch.autograd.grad((model(TOKENS) * factors).sum(), list(model.parameters()))
    plain = nn.functional.embedding(TOKENS, model.token.weight) * 2.0 + model.position.weight[:3]
    torch.testing.assert_close(actual, torch.autograd.grad((plain * factors).sum(), list(model.parameters())))


class LargeTensors(TorchDispatchMode):
    """Collects the memory of every tensor of at least so many bytes that operators give back."""

    def __init__(self, least_bytes):
        super().__init__()
        self.least_bytes, self.storages = least_bytes, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() >= self.least_bytes:
                self.storages[tensor.untyped_storage().data_ptr()] = tensor  # kept, so that no address comes twice
        return output


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal", "none"])
@pytest.mark.parametrize("with_grad", [True, False])
def test_the_output_is_the_only_tensor_of_its_size(scheme, with_grad):
    shape = positions.ModelShape(d_model=16, num_heads=1, head_dim=16, num_layers=1, context_length=32)
    model = InputEmbedding(TokenEmbedding(8, 16), positions.for_model(scheme, shape), scale=4.0)
    tokens = torch.zeros(16, 32, dtype=torch.long)
    with torch.set_grad_enabled(with_grad), LargeTensors(16 * 32 * 16 * 4) as large:
        output = model(tokens)
    assert list(large.storages) == [output.untyped_storage().data_ptr()]


def test_bfloat16_tables_give_bfloat16():
    assert embedding().bfloat16()(TOKENS).dtype == torch.bfloat16


# token types


def with_types():
    torch.manual_seed(0)
    shape = positions.ModelShape(d_model=16, num_heads=1, head_dim=16, num_layers=1, context_length=32)
    scheme = positions.for_model("learned", shape)
    return InputEmbedding(TokenEmbedding(8, 16), scheme, token_types=torch.nn.Embedding(2, 16))


def test_token_types_are_added_before_positions():
    model, tokens = with_types(), torch.tensor([[3, 1, 4]])
    kinds = torch.tensor([[0, 1, 1]])
    expected = model.token(tokens) + model.token_types(kinds) + model.position.weight[:3]
    assert torch.equal(model(tokens, token_types=kinds), expected)


def test_without_token_types_all_are_of_type_0():
    model, tokens = with_types(), torch.tensor([[3, 1, 4]])
    assert torch.equal(model(tokens), model(tokens, token_types=torch.zeros(1, 3, dtype=torch.long)))


def test_the_table_of_types_is_trained():
    model = with_types()
    model(torch.tensor([[3, 1, 4]])).sum().backward()
    assert model.token_types.weight.grad.tolist() == [[3.0] * 16, [0.0] * 16]


def test_token_types_without_a_table_are_refused():
    with pytest.raises(SettingError, match="`token_types` must be None without a table of them, but is 'given'"):
        embedding()(TOKENS, token_types=torch.zeros_like(TOKENS))
