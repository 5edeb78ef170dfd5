"""What a ledger or, without one, the weights tell of the tokens."""

import json

import numpy as np
import pytest
import tokenizers
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tokenspace import LanguageModel, Ledger, Tokenizer, inspection
from tokenspace.errors import SettingError, ShapeError


@pytest.fixture(scope="module")
def small():
    return Tokenizer.train(["the cat sat on the mat and the dog sat by the door. " * 20], 300)


@pytest.fixture
def record(small):
    """Token 5 moved by 3 and was an input twice, token 7 by 4 and was a target; 9 moved unseen."""
    table = nn.Embedding(small.vocab_size, 2, _weight=torch.zeros(small.vocab_size, 2))
    ledger = Ledger(table)
    table(torch.tensor([5, 5])).sum().backward()
    with torch.no_grad():
        table.weight[5, 0], table.weight[7, 0], table.weight[9, 0] = 3.0, 4.0, 1.0
    ledger.step(torch.tensor([7]))
    return ledger.record()


# From the ledger


def test_untrained_tokens_are_those_that_were_neither_input_nor_target(record, small):
    found = inspection.untrained(record, small)
    assert [token.id for token in found.tokens] == [i for i in range(small.vocab_size) if i not in (5, 7)]
    assert found.states == {
        "seen as input": 1,
        "seen as target only": 1,
        "never seen, yet moved": 1,
        "never moved": small.vocab_size - 3,
    }


def test_the_tokens_that_moved_most_come_first(record, small):
    found = inspection.moved(record, small, k=3)
    assert [(t.id, t.displacement) for t in found.tokens] == [(7, 4.0), (5, 3.0), (9, 1.0)]
    assert [(t.input_count, t.target_count, t.last_step) for t in found.tokens] == [(0, 1, 1), (2, 0, 1), (0, 0, 0)]
    assert found.tokens[0].label == small.label(7)


def test_results_are_plain_data_and_tables(record, small):
    for found in (inspection.untrained(record, small), inspection.moved(record, small)):
        json.dumps(found.fields())
        assert all(len(row) == len(found.header()) for row in found.rows())


def test_rows_beyond_the_vocabulary_have_a_name(small):
    ledger = Ledger(nn.Embedding(small.vocab_size + 2, 2))
    assert inspection.untrained(ledger.record(), small).tokens[-1].label == f"\\id{{{small.vocab_size + 1}}}"


# Indicators


def test_unused_tokens_are_impossible_bytes_and_rows_without_a_token(small):
    ids = inspection.unused_tokens(small, small.vocab_size + 3)
    inside, beyond = ids[:13], ids[13:]
    assert {small.token_bytes(i) for i in inside} == {bytes([b]) for b in (0xC0, 0xC1, *range(0xF5, 0x100))}
    assert beyond == [small.vocab_size + i for i in range(3)]


def test_ids_without_a_token_are_unused():
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 4}, unk_token="a"))
    assert inspection.unused_tokens(Tokenizer.from_json(library.to_str()), 5) == [1, 2, 3]


def test_cosine_indicator_agrees_with_numpy():
    table = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) + 1
    unused = [3, 8]
    rows = table.double().numpy()
    component = np.linalg.svd(rows - rows.mean(0))[2][0]
    rows = rows - np.outer(rows @ component, component)
    mean = rows[unused].mean(0)
    expected = 1 - rows @ mean / np.linalg.norm(rows, axis=1) / np.linalg.norm(mean)
    np.testing.assert_allclose(inspection.cosine_indicator(table, unused), expected, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """How many bytes the largest of all tensors has that are made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                self.bytes = max(self.bytes, tensor.nbytes)
        return made


def test_indicators_read_a_table_a_part_at_a_time():
    """A mapped table need not fit into memory."""
    table = torch.randn(100_000, 24).half()
    with LargestTensor() as largest:
        inspection.cosine_indicator(table, range(50_000))
        inspection.norm_indicator(table)
    assert largest.bytes <= 100_000 * 8  # one number a row


def trained_without(planted, small, tie_head):
    """A model that never saw the planted tokens, and those that it never saw."""
    torch.manual_seed(0)
    ids = torch.arange(small.vocab_size)
    ids = ids[~torch.isin(ids, torch.tensor(planted))]
    model = LanguageModel(
        vocab_size=small.vocab_size, d_model=32, num_layers=1, num_heads=2, context_length=16, tie_head=tie_head
    )
    ledger = Ledger(model.embedding.token)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(60):
        batch = ids[torch.randint(len(ids), (16, 1)) + torch.arange(17) - 16]  # each token after the one before it
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ledger.step(batch[:, 1:])
    return model, {token.id for token in inspection.untrained(ledger.record(), small).tokens}


@pytest.mark.parametrize("tie_head", [True, False])
def test_indicators_find_planted_rows(small, tie_head):
    unused = inspection.unused_tokens(small, small.vocab_size)
    planted = [*unused, *range(40, 60)]
    model, never_seen = trained_without(planted, small, tie_head)
    assert never_seen == set(planted)
    head = None if tie_head else model.head.weight
    found = inspection.untrained_indicators(model.embedding.token.weight, small, output_VD=head, k=len(planted))
    assert len({token.id for token in found.tokens} & set(planted)) >= 0.9 * len(planted)
    assert {token.id for token in found.tokens if token.known_unused} <= set(unused)


def test_untied_tables_are_ranked_by_norm(small):
    table = torch.ones(small.vocab_size, 4)
    table[17] = 0.1
    found = inspection.untrained_indicators(table, small, output_VD=torch.ones(small.vocab_size, 4), k=1)
    assert found.name == "norm of the token table"
    assert found.tokens[0].id == 17
    assert found.tokens[0].norm == pytest.approx(0.2)


def test_indicators_are_plain_data_and_a_table(small):
    found = inspection.untrained_indicators(torch.randn(small.vocab_size, 4), small)
    json.dumps(found.fields())
    assert all(len(row) == len(found.header()) for row in found.rows())


def test_a_tied_table_without_a_token_known_to_be_unused():
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer = Tokenizer.from_json(library.to_str())
    with pytest.raises(SettingError, match="`unused` must name at least one token that is known to be unused"):
        inspection.untrained_indicators(torch.ones(2, 2), tokenizer)
    untied = inspection.untrained_indicators(torch.ones(2, 2), tokenizer, output_VD=torch.ones(2, 2))
    assert untied.tokens[0].cosine_distance is None


def test_unused_ids_outside_the_table(small):
    with pytest.raises(ShapeError, match="unused"):
        inspection.cosine_indicator(torch.ones(3, 2), [3])
