"""Segment recurrence: what a model keeps of the segments before, and what that is worth on real text."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import tokenspace
from tokenspace import prose
from tokenspace.corpus import Corpus
from tokenspace.errors import SettingError, ShapeError
from tokenspace.model import KeyValueCache, LanguageModel, SegmentMemory
from tokenspace.positions import Layout
from tokenspace.training.evaluation import evaluation_batches


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 8, "num_layers": 2, "num_heads": 2, "context_length": 4}
    return LanguageModel(**sizes, positions="transformer_xl", memory_length=6)


def test_a_memory_keeps_the_last_vectors():
    memory = SegmentMemory(3)
    memory.keep([torch.tensor([[[1.0], [2.0]]])])
    memory.keep([torch.tensor([[[3.0], [4.0]]])])
    assert memory.read(0).flatten().tolist() == [2.0, 3.0, 4.0]
    assert memory.length == 3


def test_a_segment_longer_than_the_memory_leaves_its_end():
    memory = SegmentMemory(2)
    memory.keep([torch.arange(5.0).view(1, 5, 1)])
    assert memory.read(0).flatten().tolist() == [3.0, 4.0]


def test_a_new_memory_has_nothing_and_a_cleared_one_too(model):
    memory = model.new_memory()
    assert (memory.length, memory.read(0)) == (0, None)
    model(torch.zeros(1, 4, dtype=torch.long), memory=memory)
    assert memory.length == 4
    memory.clear()
    assert (memory.length, memory.read(0)) == (0, None)


def test_a_model_without_memory_has_none():
    assert LanguageModel(vocab_size=5, d_model=4, num_heads=1, num_layers=1).new_memory() is None


def test_no_gradient_flows_into_the_segment_before(model):
    memory, tokens = model.new_memory(), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    model(tokens[:1], memory=memory)
    model.features(tokens[1:], memory=memory).square().cumsum(dim=-1).sum().backward()
    touched = model.embedding.token.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == [5, 6, 7, 8]


def test_a_saved_memory_goes_on_alike(model):
    first, second, tokens = model.new_memory(), model.new_memory(), torch.arange(12).view(1, 12)
    model(tokens[:, :4], memory=first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(model(tokens[:, 4:], memory=first), model(tokens[:, 4:], memory=second))


def test_a_memory_too_long_for_its_capacity_is_refused(model):
    long = SegmentMemory(9)
    model(torch.zeros(1, 9, dtype=torch.long), memory=long)
    with pytest.raises(SettingError, match="`memory` must hold at most 6 vectors, but is 9"):
        model.new_memory().load_state_dict(long.state_dict())


def test_a_batch_of_other_rows_is_refused(model):
    memory = model.new_memory()
    model(torch.zeros(2, 4, dtype=torch.long), memory=memory)
    with pytest.raises(ShapeError, match="`token_ids` must have the 2 rows of the memory, but is 3"):
        model(torch.zeros(3, 4, dtype=torch.long), memory=memory)


def test_memory_and_cache_exclude_each_other(model):
    with pytest.raises(SettingError, match="`memory` must not be given with a cache"):
        model(torch.zeros(1, 2, dtype=torch.long), cache=KeyValueCache(4), memory=model.new_memory())


def test_padding_is_not_remembered(model):
    memory, mask = model.new_memory(), torch.tensor([[False, True, True]])
    with pytest.raises(ShapeError, match="`layout` must have no padding with memory, which would keep it"):
        model(torch.zeros(1, 3, dtype=torch.long), Layout.padded(mask), memory=memory)


def test_blocks_that_are_run_again_for_their_gradients_see_the_same_memory(model):
    """Activation checkpointing: each block runs twice, and memory moves on once."""
    gradients = []
    for again in (False, True):
        model.zero_grad()
        memory, block = model.new_memory(), type(model.blocks[0])
        plain = block.forward

        def twice(self, *arguments, plain=plain):
            return checkpoint(plain, self, *arguments, use_reentrant=False)

        with pytest.MonkeyPatch.context() as patch:
            if again:
                patch.setattr(block, "forward", twice)
            for segment in torch.arange(12).view(3, 1, 4):
                model(segment, memory=memory).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plainly, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plainly)


@pytest.mark.parametrize(("name", "rows"), [("transformer_xl", 3), ("alibi", 1)])
def test_a_compiled_model_needs_no_new_graph_as_its_memory_grows(name, rows):
    """One for no memory, one for the first length, one for all others; and it learns what it would without."""
    torch._dynamo.reset()
    sizes = {"vocab_size": 20, "d_model": 8, "num_layers": 2, "num_heads": 2, "context_length": 4}
    plain = LanguageModel(**sizes, positions=name, memory_length=12)
    trained, counting = copy.deepcopy(plain), CompileCounterWithBackend("aot_eager")
    results = []
    for model, run in ((plain, plain), (trained, torch.compile(trained, fullgraph=True, backend=counting))):
        memory, optimizer, losses = model.new_memory(), torch.optim.SGD(model.parameters(), lr=0.1), []
        for segment in torch.arange(7 * rows * 4).remainder(19).view(7, rows, 4):
            loss = run(segment, memory=memory).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        results.append([torch.stack(losses), memory.read(1), *model.parameters()])
    for compiled, eager in zip(*reversed(results), strict=True):
        torch.testing.assert_close(compiled, eager)
    assert counting.frame_count <= 3


def test_generation_looks_back_on_context_and_memory(model):
    model.eval()
    prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # context 4, memory 6
    (first,) = model.generate(prompt, 1, temperature=0)
    assert first == model(torch.tensor([prompt]))[0, -1].argmax()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_evaluation_with_memory_beats_evaluation_without_on_real_text(tmp_path):
    """Windows of 16 tokens of Python's own documentation: most of what helps stands before them."""
    texts = list(itertools.islice(prose.documents(), 120))
    run = tokenspace.train(
        documents=texts, out=tmp_path / "run", tokenizer="train:512", positions="transformer_xl", memory_length=48,
        d_model=48, num_layers=2, num_heads=4, context_length=16, batch_size=16, steps=600, learning_rate=3e-3,
    )  # fmt: skip
    model, corpus = run.model().eval(), Corpus.open(run.path / "corpus", split="validation")

    @torch.no_grad()
    def loss(memory):
        total = 0.0
        runs = evaluation_batches(corpus.num_tokens, 16, 8, None, has_memory=True)
        for batches in runs:
            if memory is not None:
                memory.clear()
            for starts in batches:
                ids = torch.from_numpy(corpus.gather(starts, 17).astype(np.int64))
                logits = model(ids[:, :-1], memory=memory).flatten(0, 1)
                total += torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum").item()
        return total / sum(batches.size * 16 for batches in runs)

    with_memory = loss(model.new_memory())
    assert with_memory < loss(None) - 0.03  # 0.07 when this was written
    assert with_memory == pytest.approx(run.metrics[-1]["loss"], abs=0.01)  # what training reports
