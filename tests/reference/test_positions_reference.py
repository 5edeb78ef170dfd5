"""Position schemes against other implementations of the same formula."""

import math

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.positions.learned import Learned
from tokenspace.positions.sinusoidal import Sinusoidal


def vaswani(position, d_model, theta):
    """Section 3.5, one number at a time, in Python's floats."""
    vector = []
    for component in range(d_model):
        angle = position / theta ** (2 * (component // 2) / d_model)
        vector.append(math.sin(angle) if component % 2 == 0 else math.cos(angle))
    return vector


@pytest.mark.parametrize("theta", [10000.0, 500.0])
def test_sinusoidal_equals_the_papers_formula(theta):
    where = [0, 1, 2, 77, 511, 1023]
    expected = torch.tensor([vaswani(position, 32, theta) for position in where])
    actual = Sinusoidal(d_model=32, theta=theta).waves(torch.tensor(where))
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-4)  # float32 angles: 1023 ± 6e-5, twice rounded


def test_halves_equal_marian():
    marian = MarianSinusoidalPositionalEmbedding(512, 24)
    marian.weight = nn.Parameter(marian.create_weight(), requires_grad=False)
    expected = marian(torch.Size([1, 512])).view(512, 24)
    actual = Sinusoidal(d_model=24, order="halves").embed(torch.zeros(1, 512, 24))[0]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_learned_equals_an_embedding_of_positions():
    table = nn.Embedding(16, 8)
    scheme = Learned(num_positions=16, d_model=8)
    scheme.load_state_dict(table.state_dict())
    where = torch.tensor([[3, 3, 15], [0, 9, 1]])
    assert torch.equal(scheme.embed(torch.zeros(2, 3, 8), where), table(where))


def test_learned_equals_gpt2s_embedding_in_values_and_gradients():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    theirs = GPT2Model(config).eval()
    ours = InputEmbedding(TokenEmbedding(50, 8), Learned(num_positions=16, d_model=8))
    ours.token.load_state_dict(theirs.wte.state_dict())
    ours.position.load_state_dict(theirs.wpe.state_dict())
    tokens, factors = torch.randint(0, 50, (3, 16)), torch.randn(3, 16, 8)

    expected = theirs(tokens, output_hidden_states=True).hidden_states[0]
    actual = ours(tokens)
    (expected * factors).sum().backward()
    (actual * factors).sum().backward()

    assert torch.equal(actual, expected)
    torch.testing.assert_close(ours.position.weight.grad, theirs.wpe.weight.grad)
    torch.testing.assert_close(ours.token.weight.grad, theirs.wte.weight.grad)
