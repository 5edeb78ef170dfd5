"""Every scheme in a language model: packing, padding, caches, memory, training; one row a scheme."""

import pytest
import torch

from scheme_cases import CASES, LIMIT, ORIGINAL, D, H, build, close
from tokenspace.errors import SettingError, ShapeError
from tokenspace.model import KeyValueCache, LanguageModel, SegmentMemory
from tokenspace.positions import Layout

# what a model's shape does not imply; small, so that clipping and bucketing take place
SETTINGS = {
    "compose": {"members": [{"name": "rotary", "layers": [0]}, {"name": "alibi"}]},
    "shaw": {"max_distance": 5},
    "nezha": {"max_distance": 5},
    "t5": {"num_buckets": 6, "max_distance": 8},
    "deberta": {"position_buckets": 6, "max_distance": 12},
    "cope": {"num_positions": 4},
}
NAMES = sorted({case.name for case in CASES.values()})
pytestmark = pytest.mark.usefixtures("one_thread")
every_scheme = pytest.mark.parametrize("name", NAMES)


def sizes(name):
    shape = {"vocab_size": 50, "d_model": D, "num_layers": 2, "num_heads": H, "context_length": LIMIT}
    return {**shape, "positions": name, "position_settings": SETTINGS.get(name, {})}


def language_model(name):
    """Everything drawn wide, so that a token or a key in a wrong place shows."""
    torch.manual_seed(11)
    model = LanguageModel(**sizes(name), init="torch", tie_head=False).eval()
    for parameter in [*model.blocks.parameters(), *model.embedding.position.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False)


def ids(*shape):
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(5))


def enters_input(name):
    return language_model(name).embedding.position.enters_input


recurrent_schemes = pytest.mark.parametrize("name", [name for name in NAMES if not enters_input(name)])


@every_scheme
def test_packed_documents_give_the_logits_of_each_alone(name):
    model, lengths = language_model(name), [3, 5, 1]
    tokens = ids(2, sum(lengths))
    alone = torch.cat([model(document) for document in tokens.split(lengths, dim=1)], dim=1)
    close(model(tokens, Layout.packed(lengths)), alone)


@every_scheme
def test_packing_differs_from_one_document(name):
    model, tokens = language_model(name), ids(1, 8)
    assert not torch.allclose(model(tokens, Layout.packed([3, 5]))[:, 3:], model(tokens)[:, 3:], atol=0.01)


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


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.name == "rotary"])
@pytest.mark.parametrize("length", [ORIGINAL, LIMIT])
def test_a_cache_gives_the_logits_of_the_whole_sequence_with_every_scaling_that_has_one_speed(case, length):
    """Length-dependent scalings have one speed up to their original length."""
    model = language_model("rotary")
    model.embedding.position = scheme = build(case)
    if scheme.length_dependent:
        length = ORIGINAL
    tokens, cache = ids(2, length), KeyValueCache(length)
    close(torch.cat([model(part, cache=cache) for part in tokens.split(1, dim=1)], dim=1), model(tokens))


@recurrent_schemes
@pytest.mark.parametrize("segments", [[5, 5], [3, 4, 3], [1] * 10])
def test_segments_with_memory_give_the_logits_of_the_whole_sequence(name, segments):
    model, tokens, memory = language_model(name), ids(2, 10), SegmentMemory(10)
    close(torch.cat([model(part, memory=memory) for part in tokens.split(segments, dim=1)], dim=1), model(tokens))


@recurrent_schemes
def test_a_memory_forgets_what_is_beyond_its_length(name):
    model, tokens = language_model(name), ids(2, 12)
    results = []
    for start in (0, 4):  # the first four tokens can be reached by neither layer
        memory = SegmentMemory(2)
        results.append([model(part, memory=memory) for part in tokens[:, start:].split(2, dim=1)][-1])
    close(*results)


@pytest.mark.parametrize("name", [name for name in NAMES if enters_input(name)])
def test_a_model_with_memory_refuses_positions_that_enter_its_input(name):
    with pytest.raises(SettingError) as caught:
        LanguageModel(**sizes(name), memory_length=8)
    assert str(caught.value) == (
        f"`memory_length` must be 0 with {name!r} positions, which memory would keep, but is 8. "
        "Use positions such as 'transformer_xl'."
    )
    model, memory = language_model(name), SegmentMemory(4)
    model(ids(1, 3), memory=memory)  # nothing to look back on yet
    with pytest.raises(ShapeError, match="`layout` must have no memory"):
        model(ids(1, 3), memory=memory)


@every_scheme
def test_a_model_takes_the_scheme_by_name_and_learns(name):
    torch.manual_seed(0)
    model = LanguageModel(**{**sizes(name), "vocab_size": 11, "num_layers": 1, "context_length": 8})
    before = {name: parameter.clone() for name, parameter in model.embedding.position.named_parameters()}
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
    for parameter_name, parameter in model.embedding.position.named_parameters():
        assert not torch.equal(parameter, before[parameter_name]), parameter_name


def test_the_matrices_of_a_scheme_keep_their_own_first_draw():
    torch.manual_seed(0)
    weight = LanguageModel(**sizes("fire")).embedding.position.hidden.weight
    assert weight.std() > 0.2  # the model's own matrices start at 0.02
