"""What an inspection finds agrees with plain numpy, shows itself safely, and changes nothing."""

import json
import math

import numpy as np
import pytest
import tokenizers
import torch

import tokenspace
from tokenspace import inspection
from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.errors import SettingError, ShapeError
from tokenspace.positions import get
from tokenspace.tokenizer import Tokenizer

PAIRS = [("dog bites man", "man bites dog"), ("बिल्ली चटाई पर बैठी", "चटाई बिल्ली पर बैठी")]


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def small():
    """A vocabulary of 300 tokens, so that tables are small."""
    return Tokenizer.train(["the cat sat on the mat and the dog sat by the door. " * 20], 300)


@pytest.fixture
def embedding(small):
    return inspection.random_embedding(small.vocab_size, d_model=16, num_positions=32)


def table(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


# neighbours


def test_neighbours_are_those_of_numpy(small):
    table_VD = table(small.vocab_size, 8)
    found = inspection.neighbours(table_VD, 70, small, k=12)
    unit = table_VD.numpy().astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit[70]
    cosines[70] = -np.inf
    best = np.argsort(-cosines)[:12]
    assert [n.id for n in found.nearest] == best.tolist()
    assert [n.cosine for n in found.nearest] == pytest.approx(cosines[best].tolist(), abs=1e-6)
    assert [n.label for n in found.nearest] == [small.label(int(i)) for i in best]


def test_neighbours_of_a_small_table_are_all_other_tokens(small):
    found = inspection.neighbours(table(5, 4), 2, small, k=50)
    assert {n.id for n in found.nearest} == {0, 1, 3, 4}


def test_neighbours_are_looked_for_among_the_tokens_that_are_named(small):
    among = torch.zeros(small.vocab_size, dtype=torch.bool)
    among[[3, 9, 70]] = True
    found = inspection.neighbours(table(small.vocab_size, 8), 70, small, k=10, among=among)
    assert {n.id for n in found.nearest} == {3, 9}


def test_neighbours_of_a_bfloat16_table_are_computed_in_float32(small):
    table_VD = table(small.vocab_size, 8).bfloat16()
    low, full = (inspection.neighbours(t, 5, small) for t in (table_VD, table_VD.float()))
    assert low == full


def test_a_row_of_zeros_is_no_nearer_than_cosine_0(small):
    table_VD = table(20, 4)
    table_VD[7] = 0
    found = inspection.neighbours(table_VD, 2, small, k=19)
    assert next(n.cosine for n in found.nearest if n.id == 7) == 0


@pytest.mark.parametrize("token_id", [-1, 20])
def test_neighbours_of_a_token_outside_the_table(small, token_id):
    with pytest.raises(SettingError) as raised:
        inspection.neighbours(table(20, 4), token_id, small)
    assert str(raised.value) == f"`token` must have an id in [0, 20), but is {token_id}. Use an id of this vocabulary."


def test_no_neighbours_cannot_be_asked_for(small):
    with pytest.raises(SettingError, match="`k` must be a whole number of at least 1, but is 0"):
        inspection.neighbours(table(20, 4), 0, small, k=0)


# norms, spectrum, rank


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (7, 7)])
def test_summary_is_that_of_numpy(shape):
    table_RD = table(*shape) * 3
    found = inspection.summary(table_RD, "any")
    values = table_RD.numpy().astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    spectrum = np.linalg.svd(values, compute_uv=False)
    shares = spectrum / spectrum.sum()
    assert (found.name, found.shape) == ("any", shape)
    assert found.spectrum == pytest.approx(spectrum.tolist(), rel=1e-6)
    assert [found.norm_mean, found.norm_std, found.norm_min, found.norm_max] == pytest.approx(
        [norms.mean(), norms.std(), norms.min(), norms.max()], rel=1e-5
    )
    assert found.effective_rank == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


@pytest.mark.parametrize(("spectrum", "rank"), [([2, 2, 2, 0], 3), ([5, 0, 0, 0], 1), ([1, 1, 1, 1], 4)])
def test_effective_rank_of_equal_singular_values_is_their_number(spectrum, rank):
    rotation, _ = torch.linalg.qr(table(9, 4).double())
    values = rotation @ torch.diag(torch.tensor(spectrum, dtype=torch.float64))
    assert inspection.summary(values, "known").effective_rank == pytest.approx(rank, abs=1e-5)


# positions


def test_position_vectors_of_a_learned_scheme_are_its_table(embedding):
    assert torch.equal(inspection.position_vectors(embedding, 9), embedding.position.weight[:9])


def test_position_vectors_begin_at_the_offset():
    scheme = get("learned", num_positions=12, d_model=4)
    embedding = InputEmbedding(TokenEmbedding(10, 4), scheme, position_offset=2)
    assert torch.equal(inspection.position_vectors(embedding, 10), scheme.weight[2:])


def test_position_vectors_are_zeros_where_no_positions_enter():
    embedding = InputEmbedding(TokenEmbedding(10, 4), get("none"))
    assert not inspection.position_vectors(embedding, 5).any()


def test_position_similarity_is_the_cosine_of_every_pair(embedding):
    vectors = embedding.position.weight.detach().double().numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = inspection.position_similarity(embedding, 32)
    assert found.shape == (32, 32)
    np.testing.assert_allclose(found.numpy(), unit @ unit.T, atol=1e-6)


# the tokens of a text


def test_tokens_of_a_text(small, embedding):
    found = inspection.tokens("the cat दे", small, embedding, components=5)
    ids = small.encode("the cat दे")
    assert [row.id for row in found.tokens] == ids
    assert [row.position for row in found.tokens] == list(range(len(ids)))
    assert b"".join(bytes.fromhex(row.bytes) for row in found.tokens).decode() == "the cat दे"
    assert [row.label for row in found.tokens] == [small.label(token_id) for token_id in ids]
    assert found.d_model == 16
    for row in found.tokens:
        assert row.token == embedding.token.weight[row.id, :5].tolist()
        assert row.position_vector == embedding.position.weight[row.position, :5].tolist()
        assert row.sum == pytest.approx([a + b for a, b in zip(row.token, row.position_vector, strict=True)])


def test_tokens_add_up_with_a_scale_and_an_offset(small):
    scheme = get("learned", num_positions=12, d_model=4)
    embedding = InputEmbedding(TokenEmbedding(small.vocab_size, 4), scheme, scale=2.0, position_offset=2)
    for row in inspection.tokens("the cat", small, embedding, components=4).tokens:
        assert row.token == (2 * embedding.token.weight[row.id]).tolist()
        assert row.sum == pytest.approx([a + b for a, b in zip(row.token, row.position_vector, strict=True)])


def test_tokens_of_a_family_without_bytes_say_so():
    library = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0, "cat": 1, "##s": 2}, unk_token="[UNK]"))
    wordpiece = Tokenizer.from_json(library.to_str())
    found = inspection.tokens("cats", wordpiece, inspection.random_embedding(3, d_model=4))
    assert [row.bytes for row in found.tokens] == ["–", "–"]


def test_tokens_of_no_text(small, embedding):
    with pytest.raises(SettingError, match="`text` must have at least one token, but is ''"):
        inspection.tokens("", small, embedding)


def test_more_tokens_than_positions(small, embedding):
    with pytest.raises(ShapeError, match="must be at most 32 for 'learned' positions, but is 33"):
        inspection.tokens("!" * 33, small, embedding)


def test_a_table_of_another_vocabulary(gpt2, embedding):
    with pytest.raises(ShapeError, match=r"`token_ids` must lie in \[0, \d+\)"):
        inspection.tokens("The cat sat", gpt2, embedding)


# word order


@pytest.mark.parametrize("pair", PAIRS)
def test_the_same_words_in_another_order(gpt2, pair):
    found = inspection.order(*pair, gpt2, inspection.random_embedding(gpt2.vocab_size, d_model=32))
    assert found.same_tokens
    assert found.bag_distance == 0
    assert found.set_distance > 0
    assert [word.word for word in found.words] == pair[0].split()


def test_a_word_that_stays_where_it_was_keeps_its_vector(gpt2):
    found = inspection.order(*PAIRS[0], gpt2, inspection.random_embedding(gpt2.vocab_size, d_model=32))
    assert [(w.positions, w.distance == 0) for w in found.words] == [((0, 2), False), ((1, 1), True), ((2, 0), False)]


def test_set_distance_is_the_root_mean_square_over_tokens(gpt2):
    embedding = inspection.random_embedding(gpt2.vocab_size, d_model=32)
    found = inspection.order(*PAIRS[0], gpt2, embedding)
    moved = (embedding.position.weight[0] - embedding.position.weight[2]).norm().item()
    assert found.set_distance == pytest.approx(math.sqrt(2 * moved**2 / 3), rel=1e-5)


def test_the_distance_of_a_word_is_the_root_mean_square_over_its_tokens(gpt2):
    embedding = inspection.random_embedding(gpt2.vocab_size, d_model=32)
    word = inspection.order(*PAIRS[1], gpt2, embedding).words[0]
    length = len(gpt2.encode(f" {word.word}"))
    here, there = (embedding.position.weight[start : start + length] for start in word.positions)
    assert length > 1
    assert word.distance == pytest.approx((here - there).square().sum(dim=1).mean().sqrt().item(), rel=1e-5)


def test_the_same_tokens_in_other_words_are_matched_token_by_token(small, embedding):
    found = inspection.order("xq z", "x qz", small, embedding)
    assert found.bag_distance == 0
    assert [word.positions for word in found.words] == [(0, 0), (1, 1), (2, 3), (3, 2), (4, 4)]


def test_the_same_text_twice_is_the_same_point(gpt2):
    found = inspection.order("a cat a cat", "a cat a cat", gpt2, inspection.random_embedding(gpt2.vocab_size))
    assert (found.bag_distance, found.set_distance) == (0, 0)
    assert [word.positions for word in found.words] == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_without_positions_two_orders_are_the_same(gpt2):
    embedding = inspection.random_embedding(gpt2.vocab_size, scheme="none")
    assert inspection.order(*PAIRS[0], gpt2, embedding).set_distance == 0


def test_other_words_are_other_bags(gpt2):
    found = inspection.order("a cat", "a dog", gpt2, inspection.random_embedding(gpt2.vocab_size))
    assert not found.same_tokens
    assert found.bag_distance > 0
    assert (found.set_distance, found.words) == (None, [])


@pytest.mark.parametrize("texts", [("", "a cat"), ("a cat", " \n")])
def test_order_of_no_words(gpt2, texts):
    with pytest.raises(SettingError, match="`text` must have at least one word"):
        inspection.order(*texts, gpt2, inspection.random_embedding(gpt2.vocab_size, d_model=4))


# looking changes nothing


def test_looking_leaves_weights_mode_and_random_state_as_they_were(small):
    embedding = InputEmbedding(
        TokenEmbedding(small.vocab_size, 16), get("learned", num_positions=32, d_model=16), dropout=0.5
    ).train()
    before = {name: value.clone() for name, value in embedding.state_dict().items()}
    state = torch.get_rng_state()
    first, second = (inspection.tokens("the cat", small, embedding) for _ in range(2))
    inspection.order("the cat", "cat the", small, embedding)
    inspection.neighbours(embedding.token.weight, 5, small)
    inspection.summary(embedding.token.weight, "table")
    inspection.position_similarity(embedding, 8)
    inspection.random_embedding(10)
    assert first == second  # no dropout
    assert embedding.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in embedding.state_dict().items())


@pytest.mark.parametrize("part", ["token", "position"])
def test_a_random_embedding_has_token_and_position_vectors_of_one_size(part):
    embedding = inspection.random_embedding(1000, d_model=64, num_positions=1000)
    assert getattr(embedding, part).weight.std().item() == pytest.approx(1, rel=0.02)


def test_a_random_embedding_is_decided_by_its_seed():
    one, same, other = (inspection.random_embedding(10, d_model=4, seed=seed).token.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# frequent words


def test_frequent_words_are_whole_words_each_once(small, gpt2):
    ids = {word: gpt2.encode(word)[0] for word in (" water", " Water", "water", " cat", " the", " river", " 2024")}
    counts = torch.zeros(gpt2.vocab_size, dtype=torch.long)
    for number, word in enumerate(reversed(ids), start=1):
        counts[ids[word]] = number
    assert inspection.frequent_words(counts, gpt2, 5) == [ids[" water"], ids[" river"]]


def test_frequent_words_are_as_many_as_asked_for(gpt2):
    counts = np.ones(gpt2.vocab_size, dtype=np.int64)
    assert len(inspection.frequent_words(counts, gpt2, 4)) == 4


def test_what_ends_another_word_is_no_word(gpt2):
    counts = torch.zeros(gpt2.vocab_size)
    counts[gpt2.encode("river")[0]] = 9
    assert inspection.frequent_words(counts, gpt2, 5) == []


def test_words_that_never_occur_are_not_frequent(gpt2):
    assert inspection.frequent_words(torch.zeros(gpt2.vocab_size), gpt2, 4) == []


# results


def results(small, embedding):
    return {
        "tokens": inspection.tokens("the <b>cat</b>", small, embedding),
        "neighbours": inspection.neighbours(embedding.token.weight, small.encode("<")[0], small, k=300),
        "summary": inspection.summary(embedding.token.weight, "<script>"),
        "order": inspection.order("<script> cat", "cat <script>", small, embedding),
    }


@pytest.mark.parametrize("kind", ["tokens", "neighbours", "summary", "order"])
def test_results_escape_what_they_show_in_notebooks(small, embedding, kind):
    html = results(small, embedding)[kind]._repr_html_()
    assert html.startswith("<table>")
    assert "&lt;" in html
    assert not any(tag in html for tag in ("<script>", "<b>", "<td><<"))


@pytest.mark.parametrize("kind", ["tokens", "neighbours", "summary", "order"])
def test_results_are_plain_data_and_every_row_has_a_cell_for_each_column(small, embedding, kind):
    result = results(small, embedding)[kind]
    assert json.loads(json.dumps(result.fields()))
    assert result.rows()
    assert all(len(row) == len(result.header()) for row in result.rows())


@pytest.mark.parametrize("shape", [(50, 7), (7, 50)])
def test_a_summary_in_parts_is_that_of_the_whole(monkeypatch, shape):
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("tokenspace.checkpoint.models.tables._NUMBERS_AT_ONCE", 60)
    found = inspection.summary(table, "table")
    assert found.spectrum == pytest.approx(torch.linalg.svdvals(table.double()).tolist(), rel=1e-6)
    assert found.norm_max == pytest.approx(table.norm(dim=1).max().item())


def test_a_summary_without_a_spectrum():
    found = inspection.summary(torch.eye(4), "table", spectrum=False)
    assert (found.effective_rank, found.spectrum, found.norm_mean) == (None, [], 1.0)
    assert [row[0] for row in found.rows()] == ["shape", "row norm, mean ± std", "row norm, least … most"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_neighbours_in_parts_are_those_of_the_whole(monkeypatch, dtype):
    table = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    monkeypatch.setattr("tokenspace.inspection.tables._NUMBERS_AT_ONCE", 30)
    found = inspection.neighbours(table, 3, None, k=39)
    cosines = torch.nn.functional.cosine_similarity(table.float(), table[3].float(), dim=1)
    cosines[3] = -2
    assert [n.id for n in found.nearest] == cosines.argsort(descending=True)[:39].tolist()
    assert [n.cosine for n in found.nearest] == pytest.approx(
        cosines.sort(descending=True).values[:39].tolist(), abs=1e-6
    )


def test_neighbours_of_padded_rows_have_names():
    table = torch.eye(4)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}))
    found = inspection.neighbours(table, 3, tokenspace.Tokenizer(tokenizer, "words"), k=3)
    assert found.label == r"\id{3}" and {n.label for n in found.nearest} == {"a", "b", r"\id{2}"}
