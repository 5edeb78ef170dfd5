"""Planned changes of a vocabulary: rows, ids, and what is refused in words."""

import json

import pytest
import tokenizers
import torch

from tokenspace import Tokenizer
from tokenspace.errors import SettingError, ShapeError, TokenizerError, TokenspaceError
from tokenspace.vocabulary import Add, NewRows, Remove, Reorder, Resize, Trim
from tokenspace.vocabulary.duplicates import near_rows
from vocabulary_cases import FAMILIES, TEXTS


@pytest.fixture(scope="module")
def tokenizer():
    return FAMILIES["byte_level"](340)


@pytest.fixture(scope="module")
def size(tokenizer):
    return tokenizer.vocab_size


def refused(change, tokenizer, rows=None, named=None):
    with pytest.raises((SettingError, TokenizerError, ShapeError)) as caught:
        change.plan(tokenizer, tokenizer.vocab_size if rows is None else rows, named)
    return str(caught.value)


def test_new_tokens_take_padding_first(tokenizer, size):
    edit = Add(["<a>", "<b>", "<c>"]).plan(tokenizer, size + 5)
    assert edit.new_num_rows == size + 5 and edit.added == [size, size + 1, size + 2]
    assert edit.source[size + 3 :].tolist() == [size + 3, size + 4]


def test_the_table_grows_for_what_padding_does_not_hold(tokenizer, size):
    edit = Add(["<a>", "<b>", "<c>"]).plan(tokenizer, size + 1)
    assert edit.new_num_rows == size + 3 and (edit.source >= 0).sum() == size


def test_rows_become_a_multiple_and_never_fewer(tokenizer, size):
    assert Add(["<a>"], pad_to_multiple_of=64).plan(tokenizer, size + 1).new_num_rows == 384
    assert Add(["<a>"], pad_to_multiple_of=2).plan(tokenizer, size + 40).new_num_rows == size + 40
    assert Resize(pad_to_multiple_of=64).plan(tokenizer, 400).new_num_rows == 448


def test_nothing_to_add_or_remove_changes_nothing(tokenizer, size):
    everything = range(size)
    for change in (Add([]), Remove([]), Trim(keep=everything), Reorder(everything), Resize()):
        assert change.plan(tokenizer, size + 3).changes_nothing


def test_those_behind_a_removed_token_move_up_and_padding_stays(tokenizer, size):
    last = Add(["<a>", "<b>"]).plan(tokenizer, size)
    edit = Remove(["<a>"]).plan(last.new, size + 4)
    assert edit.source.tolist() == [*range(size), size + 1, size + 2, size + 3]
    assert edit.new.encode("<b>") == [size] and edit.removed == [size]


def test_a_multiple_takes_padding_away_after_a_removal(tokenizer, size):
    last = Add(["<a>"]).plan(tokenizer, size)
    assert Remove(["<a>"], pad_to_multiple_of=1).plan(last.new, size + 9).new_num_rows == size


def test_a_token_may_be_named_by_its_text_or_its_id(tokenizer, size):
    word = tokenizer.encode(" slept")[0]
    assert Remove([" slept"]).plan(tokenizer, size).removed == Remove([word]).plan(tokenizer, size).removed == [word]


def test_plain_added_tokens_are_found_in_text_and_special_ones_only_where_allowed(tokenizer, size):
    plain = Add(["<a>"]).plan(tokenizer, size).new
    special = Add(["<a>"], special=True).plan(tokenizer, size).new
    assert plain.encode("x<a>") == [*tokenizer.encode("x"), size]
    assert special.encode("x<a>") == tokenizer.encode("x<a>")
    assert special.encode("x<a>", allowed_special=["<a>"]) == [*tokenizer.encode("x"), size]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("token", ["<user>", "Qqz", " qqz", "two words", "猫"])
def test_plain_added_tokens_are_found_inside_words_in_every_kind_of_tokenizer(family, token):
    old = FAMILIES[family]()
    edit = Add([token], init="mean").plan(old, old.vocab_size)
    for text, times in {f"cat{token}dog": 1, f"the cat{token} sat": 1, token * 3: 3}.items():
        assert edit.new.encode(text).count(old.vocab_size) == times


def test_plain_added_tokens_are_found_whatever_their_case_where_the_normaliser_lowers_it():
    old = FAMILIES["word_piece"]()
    assert old.vocab_size in Add(["Qqz"], init="mean").plan(old, old.vocab_size).new.encode("the QQZ sat")


def test_added_tokens_are_what_the_library_makes_of_them(tokenizer, size):
    library = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    library.add_tokens(["foo bar"])
    library.add_special_tokens(["<a>"])
    once = Add(["foo bar"]).plan(tokenizer, size).new
    assert (
        Add(["<a>"], special=True).plan(once, size + 1).new.identity == Tokenizer.from_json(library.to_str()).identity
    )


def test_trimming_keeps_what_tokens_are_made_of_and_nothing_else(tokenizer, size):
    new = Trim(["the"]).plan(tokenizer, size).new
    kept = json.loads(new.to_json())["model"]
    assert len(kept["vocab"]) == 256 + len(kept["merges"])
    assert {first + second for first, second in map(tuple, kept["merges"])} <= {"th", "he", "the"}


def test_trimming_to_ids_keeps_those_ids(tokenizer, size):
    edit = Trim(keep=[300]).plan(tokenizer, size)
    assert edit.new_id(300) is not None and edit.new.label(edit.new_id(300)) == tokenizer.label(300)


def test_trimming_keeps_special_tokens_and_those_that_settings_name(tokenizer, size):
    edit = Trim(["a"]).plan(tokenizer, size, {310: "pad_token_id"})
    assert edit.new.eot_id == edit.new_id(tokenizer.eot_id) and edit.new_id(310) is not None


def test_trimming_drops_padding_only_for_a_multiple(tokenizer, size):
    assert Trim(["the"]).plan(tokenizer, size + 7).new_num_rows - Trim(["the"]).plan(tokenizer, size).new_num_rows == 7
    edit = Trim(["the"], pad_to_multiple_of=1).plan(tokenizer, size + 7)
    assert edit.new_num_rows == edit.new.vocab_size


def test_the_most_frequent_tokens_come_first_and_added_ones_stay_last(tokenizer, size):
    counts = [0] * size
    counts[300], counts[20] = 9, 5
    edit = Reorder(counts, by_count=True).plan(tokenizer, size)
    assert edit.source[:3].tolist() == [300, 20, 0] and edit.source[-1] == tokenizer.eot_id


def test_merges_keep_their_ranks_when_ids_change(tokenizer, size):
    new = Reorder([*range(size - 2, -1, -1), size - 1]).plan(tokenizer, size).new
    before, after = (json.loads(t.to_json())["model"]["merges"] for t in (tokenizer, new))
    assert before == after


@pytest.mark.parametrize("family", ["word_piece", "unigram", "bpe_with_fallback"])
def test_what_the_post_processor_puts_around_a_text_is_renumbered(family):
    old = FAMILIES[family]()
    before = tokenizers.Tokenizer.from_str(old.to_json()).encode(TEXTS[0])
    edit = Trim(TEXTS[:1]).plan(old, old.vocab_size)
    after = tokenizers.Tokenizer.from_str(edit.new.to_json()).encode(TEXTS[0])
    assert after.tokens == before.tokens and after.ids == edit.to[torch.tensor(before.ids)].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Add(["he"]), "`token 'he'` must be new, but is 'token {he} already'. Leave it out."),
        (Add([" the"]), "`token ' the'` must be new, but is 'token {_the} already'. Leave it out."),
        (Add(["Ġthe"]), "`token 'Ġthe'` must be new, but is 'token {_the} already'. Leave it out."),
        (Add([""]), "`token` must have at least one character, but is ''. Leave it out."),
        (Add(["<a>", "<a>"]), "`tokens` must name each token once, but is '<a>'. Remove the second one."),
        (Add("<a>"), "`tokens` must be a list of texts, but is '<a>'. Put it into a list."),
        (
            Add(["\ud800"]),
            "`token` must be Unicode, without lone surrogates, but is '\\ud800'. Correct or remove it.",
        ),
        (
            Add(["<a>"], init="best"),
            "`init` must be one of mean, subtokens, normal, zeros, vectors, but is 'best'. Use 'subtokens'.",
        ),
        (Add(["<a>"], pad_to_multiple_of=0), "`pad_to_multiple_of` must be a whole number of at least 1, but is 0. "),
        (Remove(["nonesuch"]), "`token 'nonesuch'` must be one of the vocabulary, but is 'unknown'. "),
        (Remove([99_999]), "`token id` must be one of the vocabulary, but is 99999. Use an id that has a token."),
        (
            Remove(["a"]),
            "`token 'a'` must stay, but is 'needed for texts of any bytes or letters'. Leave it in.",
        ),
        (Trim([]), "`texts` must hold at least one token, but is 'nothing'. Give text, or ids to keep."),
        (Trim("text"), "`texts` must be a list of texts, but is 'text'. Put it into a list."),
        (Trim(keep=[-1]), "`keep` must lie in [0, {size}), but is -1. Use ids of this tokenizer."),
        (Reorder([0, 0]), "`order` must hold each id below {size} once, but is '2 ids, 1 different'. "),
        (Reorder([1, 2], by_count=True), "`order` must have a number for each of {size} ids, but is 2. "),
        (Resize(10), "`num_rows` must be at least the tokenizer's {size} tokens, but is 10. Remove or trim "),
        (Resize(num_positions=0), "`num_positions` must be a whole number of at least 1, but is 0. "),
    ],
)
def test_what_is_refused_is_told_in_words(change, message, tokenizer, size):
    (he,), (_the,) = tokenizer.encode("he"), tokenizer.encode(" the")
    assert refused(change, tokenizer).startswith(message.format(size=size, he=he, _the=_the))


def test_what_other_tokens_are_made_of_is_refused_with_their_number(tokenizer):
    message = refused(Remove([tokenizer.encode("he")[0]]), tokenizer)
    assert message.startswith("`token 'he'` must be no part of tokens that stay, but is ")


def test_a_token_that_a_setting_names_is_refused(tokenizer):
    word = tokenizer.encode(" slept")[0]
    message = refused(Remove([word]), tokenizer, named={word: "eos_token_id"})
    assert message == "`eos_token_id` must name a token that stays, but is '␣slept'. Change it first."


def test_what_the_post_processor_names_is_refused():
    old = FAMILIES["word_piece"]()
    assert "post-processor" in refused(Remove(["[SEP]"]), old)
    assert "needed for texts" in refused(Remove(["[UNK]"]), old)


def test_a_table_with_fewer_rows_than_tokens_is_refused(tokenizer, size):
    message = refused(Add(["<a>"]), tokenizer, rows=size - 1)
    assert message.startswith(f"`token table` must have a row for each of the tokenizer's {size} tokens")


def test_a_vocabulary_with_gaps_is_not_grown_over_them(tokenizer):
    settings = json.loads(tokenizer.to_json())
    settings["model"]["vocab"] = {token: i + 2 * (i > 300) for token, i in settings["model"]["vocab"].items()}
    settings["added_tokens"] = []
    old = Tokenizer.from_json(json.dumps(settings))
    assert "the library fills them" in refused(Add(["<a>"]), old)
    trimmed = Trim(TEXTS).plan(old, old.vocab_size)
    assert Add(["<a>"]).plan(trimmed.new, trimmed.new_num_rows).added == [trimmed.new.vocab_size]


def test_added_tokens_cannot_go_before_the_models_own(tokenizer, size):
    message = refused(Reorder([size - 1, *range(size - 1)]), tokenizer)
    assert "behind the model's own tokens" in message
    own = FAMILIES["unigram"]()
    grown = Add(["<a>"], special=True).plan(own, own.vocab_size).new
    last_first = Reorder([grown.vocab_size - 1, *range(grown.vocab_size - 1)])
    assert "before all added tokens" in refused(last_first, grown)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_hides_no_near_duplicate(bad):
    rows = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    rows[40], rows[20] = rows[3], bad
    assert [(near.id, near.other) for near in near_rows(rows, [40], torch.arange(50))] == [(40, 3)]


def test_given_vectors_that_are_not_finite_are_refused(tokenizer):
    recipe = NewRows(recipe="vectors", vectors={"<a>": torch.tensor([1.0, torch.nan])})
    with pytest.raises(TokenizerError, match="`vector of '<a>'` must hold finite numbers"):
        recipe.given(["<a>"], 2)


@pytest.mark.parametrize("tokens", [[3.7], "the", [None]])
def test_what_is_neither_a_text_nor_an_id_is_not_removed(tokens, tokenizer):
    with pytest.raises(TokenspaceError, match="must be"):
        Remove(tokens).plan(tokenizer, tokenizer.vocab_size)


def test_an_id_to_keep_is_a_whole_number(tokenizer):
    with pytest.raises(SettingError, match="`keep` must hold ids"):
        Trim(keep=[30.9]).plan(tokenizer, tokenizer.vocab_size)
