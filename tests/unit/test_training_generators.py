"""A training's random state beside the caller's."""

import pytest
import torch

from tokenspace.training.generators import Generators

CPU = torch.device("cpu")


def draw(generators, number=3, device=CPU):
    with generators.active():
        return torch.rand(number, device=device).tolist()


def test_a_new_state_is_that_of_the_seed():
    expected = torch.rand(3, generator=torch.Generator().manual_seed(7)).tolist()
    assert draw(Generators({}, CPU, seed=7)) == expected


def test_a_state_goes_on_where_it_stopped():
    generators = Generators({}, CPU, seed=7)
    draw(generators)
    again = Generators(dict(generators.state), CPU, seed=8)
    assert draw(again) == draw(generators)


def test_the_caller_draws_as_if_there_were_no_training():
    torch.manual_seed(1)
    expected = torch.rand(4).tolist()
    torch.manual_seed(1)
    found = torch.rand(2).tolist()
    draw(Generators({}, CPU, seed=7))
    assert found + torch.rand(2).tolist() == expected


def test_after_a_failure_inside_the_callers_state_is_back_and_what_was_drawn_counts():
    generators, before = Generators({}, CPU, seed=7), torch.get_rng_state()
    whole = draw(Generators({}, CPU, seed=7), 4)
    with pytest.raises(RuntimeError, match="the lamp"), generators.active():
        torch.rand(2)
        raise RuntimeError("the lamp fell over")
    assert torch.equal(torch.get_rng_state(), before)
    assert draw(generators, 2) == whole[2:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU")
def test_a_run_that_was_begun_on_the_cpu_draws_on_the_gpu_by_its_seed():
    begun, gpu = Generators({}, CPU, seed=7).state, torch.device("cuda")
    found = []
    for callers in (1, 2):
        torch.manual_seed(callers)
        found.append(draw(Generators(dict(begun), gpu, seed=7), device=gpu))
    assert found[0] == found[1]
