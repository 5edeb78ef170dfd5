"""Of vocabulary edits, whatever the text: what was encoded still is, to the ids that were."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenspace import Tokenizer
from tokenspace.errors import TokenspaceError
from tokenspace.vocabulary import Add, Remove, Reorder, Trim
from vocabulary_cases import FAMILIES, TEXTS

WORDS = sorted({word for text in TEXTS for word in text.split()})
texts = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
whole = settings(derandomize=True, deadline=None, max_examples=60)


@functools.cache
def tokenizer(family):
    return FAMILIES[family]()


def encoded(tokenizer, text):
    assume(not any("\ud800" <= character <= "\udfff" for character in text))
    return tokenizer.encode(text)


@pytest.mark.parametrize("family", FAMILIES)
@whole
@given(text=texts)
def test_a_text_is_encoded_by_the_vocabulary_trimmed_to_it_as_before(family, text):
    old = tokenizer(family)
    before = encoded(old, text)
    assume(before)
    edit = Trim([text]).plan(old, old.vocab_size + 3)
    assert edit.new.encode(text) == edit.to[torch.tensor(before)].tolist()
    assert edit.new.decode(edit.new.encode(text)) == old.decode(before)


@pytest.mark.parametrize("family", FAMILIES)
@whole
@given(kept=texts, text=texts)
def test_every_text_still_encodes_after_a_trim_and_decodes_to_what_it_did(family, kept, text):
    old = tokenizer(family)
    before = encoded(old, text)
    assume(encoded(old, kept))
    new = Trim([kept]).plan(old, old.vocab_size).new
    assert new.decode(new.encode(text)) == old.decode(before)


@pytest.mark.parametrize("family", ["byte_level", "ignoring_merges", "bpe_with_fallback"])
@whole
@given(kept=texts, text=texts)
def test_where_bytes_are_a_last_resort_every_text_decodes_to_itself_after_a_trim(family, kept, text):
    old = tokenizer(family)
    assume(encoded(old, kept))
    assume(not (family == "bpe_with_fallback" and ("▁" in text or text.startswith(" "))))
    assume(not any(f"<0x{byte:02X}>" in text for byte in range(256)))
    encoded(old, text)
    new = Trim([kept]).plan(old, old.vocab_size).new
    assert new.decode(new.encode(text)) == text


@whole
@given(kept=texts)
def test_every_merge_that_stays_has_its_parts_and_its_result(kept):
    old = tokenizer("byte_level")
    assume(encoded(old, kept))
    import json

    model = json.loads(Trim([kept]).plan(old, old.vocab_size).new.to_json())["model"]
    for first, second in model["merges"]:
        assert first in model["vocab"] and second in model["vocab"] and first + second in model["vocab"]
    made = {first + second for first, second in model["merges"]}
    assert all(len(token) == 1 or token in made or token.startswith("<|") for token in model["vocab"])


@pytest.mark.parametrize("family", FAMILIES)
@whole
@given(text=texts, seed=st.integers(0, 9))
def test_a_reordered_vocabulary_gives_the_same_tokens_by_other_ids(family, text, seed):
    old = tokenizer(family)
    before = encoded(old, text)
    counts = np.random.default_rng(seed).integers(0, 5, old.vocab_size)
    edit = Reorder(counts.tolist(), by_count=True).plan(old, old.vocab_size)
    assert edit.new.encode(text) == edit.to[torch.tensor(before, dtype=torch.int64)].tolist()
    assert edit.new.decode(edit.new.encode(text)) == old.decode(before)


@pytest.mark.parametrize("family", FAMILIES)
@whole
@given(token=st.text(min_size=1, max_size=8), text=texts)
def test_added_special_tokens_leave_every_text_as_it_was(family, token, text):
    old = tokenizer(family)
    before = encoded(old, text)
    try:
        edit = Add([token], special=True, init="mean").plan(old, old.vocab_size)
    except TokenspaceError:  # it exists, or is no Unicode
        assume(False)
    assert edit.new.encode(text) == before
    assert edit.new.encode(token, allowed_special=[token]).count(old.vocab_size) >= 1 or not token.strip()


@whole
@given(data=st.data(), text=texts)
def test_what_is_added_and_removed_again_leaves_the_vocabulary_it_was(data, text):
    old = tokenizer("byte_level")
    before = encoded(old, text)
    tokens = data.draw(st.lists(st.sampled_from(["<a>", "<b>", "qqq", "zz z"]), unique=True))
    grown = Add(tokens, special=data.draw(st.booleans())).plan(old, old.vocab_size)
    back = Remove(tokens).plan(grown.new, grown.new_num_rows)
    assert back.new.identity == old.identity
    assert back.new.encode(text) == before


@whole
@given(text=texts, kept=texts)
def test_a_trimmed_tokenizer_is_the_same_after_it_was_saved(text, kept):
    old = tokenizer("byte_level")
    encoded(old, text)
    assume(encoded(old, kept))
    new = Trim([kept]).plan(old, old.vocab_size).new
    assert Tokenizer.from_json(new.to_json()).encode(text) == new.encode(text)
