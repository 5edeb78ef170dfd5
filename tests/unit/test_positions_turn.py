"""Turning pairs of components, however the tensor lies in memory, and back."""

import pytest
import torch

from tokenspace.positions._turn import Angles, turn

INPUTS = {
    "contiguous": lambda: torch.randn(2, 3, 5, 8),
    "a view of (B, T, H, K)": lambda: torch.randn(2, 5, 3, 8).transpose(1, 2),
    "at an odd place": lambda: torch.randn(2, 3, 5, 9)[..., 1:],
    "components far apart": lambda: torch.randn(2, 3, 8, 5).transpose(-1, -2),
    "float64": lambda: torch.randn(2, 3, 5, 8, dtype=torch.float64),
    "bfloat16": lambda: torch.randn(2, 3, 5, 8).bfloat16(),
}


def one_by_one(x, angles, order):
    out, pairs = x.double().clone(), angles.cos.shape[-1]
    for pair in range(pairs):
        first, second = (pair, pair + pairs) if order == "halves" else (2 * pair, 2 * pair + 1)
        a, b = x[..., first].double(), x[..., second].double()
        out[..., first] = a * angles.cos[:, pair] - b * angles.sin[:, pair]
        out[..., second] = b * angles.cos[:, pair] + a * angles.sin[:, pair]
    return out


@pytest.mark.parametrize("order", ["halves", "interleaved"])
@pytest.mark.parametrize("pairs", [4, 3, 1])
@pytest.mark.parametrize("name", INPUTS)
def test_every_pair_turns_by_its_angle_and_the_rest_stays(name, pairs, order):
    torch.manual_seed(0)
    x, angle = INPUTS[name](), torch.randn(5, pairs)
    angles = Angles(angle.cos(), angle.sin())
    turned = turn(x, angles, order)
    assert turned.dtype == x.dtype
    tolerance = 0.02 if x.dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(turned.double(), one_by_one(x, angles, order), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("order", ["halves", "interleaved"])
def test_first_and_second_derivatives_are_those_of_finite_differences(order):
    torch.manual_seed(0)
    angle, x = torch.randn(3, 2), torch.randn(1, 2, 3, 6, dtype=torch.float64, requires_grad=True)
    angles = Angles(angle.cos(), 2 * angle.sin())  # not only turns: xPos stretches, too

    def turned(x):
        return turn(x, angles, order)

    assert torch.autograd.gradcheck(turned, x)
    assert torch.autograd.gradgradcheck(turned, x)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap takes addcmul_ one by one
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, in forward mode
@pytest.mark.parametrize("order", ["halves", "interleaved"])
def test_vmap_and_forward_mode_give_what_a_loop_gives(order):
    angle, x = torch.randn(3, 2), torch.randn(4, 1, 2, 3, 4)
    angles = Angles(angle.cos(), angle.sin())
    looped = torch.stack([turn(one, angles, order) for one in x])
    torch.testing.assert_close(torch.func.vmap(lambda one: turn(one, angles, order))(x), looped)
    _, tangent = torch.func.jvp(lambda one: turn(one, angles, order), (x[0],), (x[1],))
    torch.testing.assert_close(tangent, looped[1])  # it is linear
