"""The parts of an atlas at their edges: kinds and scripts, neighbours, projection, health, losses, panels."""

import sys
import types

import numpy as np
import pytest
import tokenizers
import torch

from tokenspace.atlas import kinds, losses, panels, projection
from tokenspace.atlas.data import end_to_end, plain
from tokenspace.atlas.health import equal_rows, health, mean_cosine
from tokenspace.atlas.kinds import KINDS, Vocabulary, script_of
from tokenspace.atlas.neighbours import most_frequent, rows_to_ask
from tokenspace.checkpoint.components import principal_components
from tokenspace.errors import SettingError
from tokenspace.inspection import nearest as search
from tokenspace.inspection import nearest_rows
from tokenspace.model import LanguageModel, ModelConfig
from tokenspace.positions import get
from tokenspace.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


def table(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def refused(work):
    with pytest.raises(SettingError) as caught:
        work()
    return str(caught.value)


# what the page gets


def test_byte_strings_stand_end_to_end():
    data, offsets = end_to_end(["é".encode(), b"", b"ab"])
    assert data.tolist() == [0xC3, 0xA9, 0x61, 0x62] and data.dtype == np.uint8
    assert offsets.tolist() == [0, 2, 2, 4] and offsets.dtype == np.uint32


def test_values_that_json_cannot_hold_become_ones_that_it_can():
    found = plain({"a": [float("inf"), -float("inf"), 1.5], "b\ud800": ("\udfff", 3, None, True)})
    assert found == {"a": [None, None, 1.5], "b\\ud800": ["\\udfff", 3, None, True]}


# kinds and scripts


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def vocabulary(gpt2):
    return Vocabulary.of(gpt2, gpt2.vocab_size)


@pytest.mark.parametrize(
    ("text", "kind", "script"),
    [
        (" point", "word start", "Latin"), ("ing", "continuation", "Latin"), (" 2016", "digits", "Common"),
        ("42", "digits", "Common"), (" ...", "punctuation", "Common"), ("\n\n", "whitespace", "Common"),
        (" ", "whitespace", "Common"), ("и", "continuation", "Cyrillic"), ("の", "continuation", "Hiragana"),
        ("$", "punctuation", "Common"), (" +", "punctuation", "Common"), ("é", "continuation", "Latin"),
        ("λ", "continuation", "Greek"), ("ا", "continuation", "Arabic"), ("'t", "continuation", "Latin"),
    ],
)  # fmt: skip
def test_kinds_and_scripts_of_gpt2(gpt2, vocabulary, text, kind, script):
    (token_id,) = gpt2.encode(text)
    assert (KINDS[vocabulary.kinds[token_id]], vocabulary.scripts[vocabulary.script[token_id]]) == (kind, script)


def test_the_one_special_token_of_gpt2(gpt2, vocabulary):
    assert np.flatnonzero(vocabulary.kinds == KINDS.index("special")).tolist() == [gpt2.eot_id]


def test_tokens_that_are_no_text_are_bytes(gpt2, vocabulary):
    torn = [i for i in range(gpt2.vocab_size) if not _is_utf8(gpt2.token_bytes(i))]
    assert len(torn) > 100
    assert {KINDS[vocabulary.kinds[i]] for i in torn} == {"bytes"}


def _is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_labels_and_bytes_are_the_tokenizers(gpt2, vocabulary):
    for token_id in (0, 220, 966, 50_256):
        assert vocabulary.labels[token_id] == gpt2.label(token_id)
        assert vocabulary.bytes[token_id] == gpt2.token_bytes(token_id)


def test_scripts_are_ordered_by_their_tokens_after_common(vocabulary):
    assert vocabulary.scripts[:2] == ["Common", "Latin"]
    sizes = np.bincount(vocabulary.script)[1:]
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)


def test_every_kind_of_gpt2_is_there_but_that_of_no_token(vocabulary):
    assert {KINDS[kind] for kind in vocabulary.kinds} == set(KINDS) - {"no token"}


def test_rows_beyond_the_tokenizer_are_no_tokens():
    tokenizer = Tokenizer.train(["the cat sat on the mat"], 260)
    size = tokenizer.vocab_size
    found = Vocabulary.of(tokenizer, size + 3)
    assert found.labels[size:] == [f"\\id{{{size + more}}}" for more in range(3)]
    assert [KINDS[kind] for kind in found.kinds[size:]] == ["no token"] * 3
    assert found.bytes[size:] == [b""] * 3


def test_a_vocabulary_of_pieces_without_bytes(tmp_path):
    words = ["[UNK]", "cat", "##s", "बिल्ली", "##ड़", "7", "!"]
    library = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    library.add_special_tokens(["[UNK]"])
    library.save(str(tmp_path / "tokenizer.json"))
    found = Vocabulary.of(Tokenizer.from_file(tmp_path / "tokenizer.json"), len(words))
    assert [KINDS[kind] for kind in found.kinds] == [
        "special", "word start", "continuation", "word start", "continuation", "digits", "punctuation",
    ]  # fmt: skip
    assert [found.scripts[script] for script in found.script][1:5] == ["Latin", "Latin", "Devanagari", "Devanagari"]


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (" ", "whitespace"), ("\t", "whitespace"), ("\u200b", "punctuation"), ("##", "punctuation"),
        ("##7", "digits"), ("a\u200bb", "word start"), ("##a\tb", "continuation"),
    ],
)  # fmt: skip
def test_a_word_without_bytes_is_judged_by_its_spelling(word, kind):
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, word: 1}, unk_token="<unk>"))
    found = Vocabulary.of(Tokenizer.from_json(library.to_str()), 2)
    assert KINDS[found.kinds[1]] == kind


def test_the_script_of_an_invisible_character_is_not_that_of_its_label():
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "\u200d": 1}, unk_token="<unk>"))
    found = Vocabulary.of(Tokenizer.from_json(library.to_str()), 2)
    assert found.scripts[found.script[1]] == "Common"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", "Common"), ("\u200d", "Common"), ("ＡＢＣ", "Latin"), ("ｶﾞ", "Katakana"), ("ʰ", "Common"),
        ("東京", "Han"), ("한국", "Hangul"), ("ᐃᓄᒃ", "Canadian syllabics"), ("𐤀", kinds.OTHER),
        ("é", "Latin"), ("ें", "Devanagari"), ("א", "Hebrew"), ("cat кот", "Latin"), ("𝐀", "Common"),
    ],
)  # fmt: skip
def test_scripts_of_texts(text, script):
    assert script_of(text) == script


# neighbours


def test_rows_that_are_not_finite_are_nobodys_neighbours():
    points = table(30, 6)
    points[[4, 9]] = torch.nan
    points[17, 2] = torch.inf
    found = nearest_rows(points, 30)
    rows = [row for row in range(30) if row not in (4, 9, 17)]
    assert found.rows.tolist() == rows
    assert found.nearest.shape == (27, 26)
    assert set(found.nearest.flatten().tolist()) == set(rows)


def test_rows_asked_for_that_are_not_finite_are_left_out():
    points = table(10, 3)
    points[2] = torch.nan
    assert nearest_rows(points, 2, torch.tensor([1, 2, 7])).rows.tolist() == [1, 7]


def test_no_row_is_its_own_neighbour_not_even_among_equals():
    found = nearest_rows(torch.ones(50, 4), 20)
    assert (found.nearest != found.rows.unsqueeze(1)).all()
    assert (found.nearest.sort(dim=1).values.diff(dim=1) > 0).all()
    torch.testing.assert_close(found.cosines, torch.ones(50, 20))


def test_a_row_of_zeros_has_cosine_0_with_all():
    points = table(10, 3)
    points[5] = 0
    found = nearest_rows(points, 9)
    assert (found.cosines[5] == 0).all()


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tables_with_hardly_a_row(rows):
    found = nearest_rows(table(rows, 3), 20)
    assert found.nearest.shape == found.cosines.shape == (rows, max(0, rows - 1))


def test_a_bfloat16_table_is_measured_in_float32():
    points = table(40, 8).bfloat16()
    low, full = nearest_rows(points, 5), nearest_rows(points.float(), 5)
    assert torch.equal(low.nearest, full.nearest) and torch.equal(low.cosines, full.cosines)


def test_no_neighbours_cannot_be_asked_for():
    assert refused(lambda: nearest_rows(table(4, 2), 0)).startswith(
        "`k` must be a whole number of at least 1, but is 0"
    )


@pytest.mark.parametrize("rows", [None, torch.tensor([0, 5, 30])])
def test_progress_counts_every_product(monkeypatch, rows):
    monkeypatch.setattr(search, "_BLOCK", 8)
    told = []
    nearest_rows(table(40, 3), 4, rows, lambda done, total: told.append((done, total)))
    total = 15 if rows is None else 5
    assert told == [(done, total) for done in range(1, total + 1)]


def test_rows_outside_the_table_are_refused():
    assert refused(lambda: nearest_rows(table(4, 2), 1, torch.tensor([0, 4]))) == (
        "`rows` must lie in [0, 4), but is 4. Use ids of this vocabulary."
    )


def test_very_large_vocabularies_ask_for_the_most_frequent():
    counts = np.arange(262_144)[::-1]
    assert rows_to_ask(50_257, counts) is None
    assert torch.equal(rows_to_ask(262_144, counts), torch.arange(50_000))
    assert torch.equal(rows_to_ask(262_144, counts[::-1]), torch.arange(262_144 - 50_000, 262_144))
    assert torch.equal(rows_to_ask(262_144, None), torch.arange(50_000))


def test_of_equally_frequent_tokens_the_first_are_taken():
    assert most_frequent(np.arange(6), np.array([1, 2, 2, 2, 1, 2]), 3).tolist() == [1, 2, 3]


# projection


def test_axes_point_to_where_their_largest_entry_is_positive():
    components = principal_components(table(50, 9)).components
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    assert torch.equal(components, principal_components(table(50, 9)).components)


def test_rows_that_are_not_finite_do_not_move_the_axes():
    points = table(50, 9)
    marred = torch.cat([points, torch.full((3, 9), torch.nan)])
    torch.testing.assert_close(principal_components(marred).components, principal_components(points).components)
    assert principal_components(marred).project(marred)[50:].isnan().all()


def test_a_table_without_a_finite_row():
    assert refused(lambda: principal_components(torch.full((3, 2), torch.nan))) == (
        "`table` must have a row without NaN, but is 'without'. "
        "Take an earlier checkpoint of a run, or another copy of a model."
    )


def test_a_table_whose_rows_are_all_equal_has_no_direction():
    basis = principal_components(torch.ones(5, 3))
    assert basis.explained.tolist() == [0, 0, 0]
    assert not basis.project(torch.ones(5, 3)).any()


def test_an_unknown_projection():
    assert refused(lambda: projection.check_projection("lda")) == (
        "`projection` must be pca, umap or tsne, but is 'lda'. Use pca, which needs nothing more."
    )


@pytest.mark.parametrize(
    ("name", "module", "package"), [("umap", "umap", "umap-learn"), ("tsne", "openTSNE", "openTSNE")]
)
def test_a_projection_that_is_not_installed_says_what_to_install(monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    assert refused(lambda: projection.check_projection(name)) == (
        f"`projection` must be one that is installed ({package}), but is '{name}'. "
        f"Run `pip install 'tokenspace[{name}]'`, or use pca."
    )


@pytest.fixture
def recorded(monkeypatch):
    """Both libraries in one, which puts each row where its first two numbers say."""
    asked = []

    class Library:
        def __init__(self, **settings):
            asked.append(settings)

        def fit(self, rows):
            asked.append(rows)
            return rows[:, :2].astype(np.float64)

        fit_transform = fit

    for module, name in (("umap", "UMAP"), ("openTSNE", "TSNE")):
        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: Library}))
    return asked


@pytest.mark.parametrize("name", ["umap", "tsne"])
def test_directions_of_finite_rows_are_flattened(recorded, name):
    points = table(40, 60)
    points[3] = torch.nan
    scaled = points * torch.rand(40, 1).add(0.5)
    found = projection.flatten(points, name)
    assert found.shape == (40, 2) and found.dtype == torch.float32
    assert found.isnan().all(dim=1).nonzero().flatten().tolist() == [3]
    settings, rows = recorded
    assert rows.shape == (39, 50) and settings["random_state"] == 0
    torch.testing.assert_close(projection.flatten(scaled, name), found, rtol=1e-3, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", ["umap", "tsne"])
def test_too_few_rows_to_flatten(recorded, name):
    assert refused(lambda: projection.flatten(table(3, 5), name)) == (
        f"`table` must have 4 rows or more for {name}, but is 3. Use pca."
    )


def test_small_tables_ask_for_fewer_neighbours(recorded):
    projection.flatten(table(6, 5), "umap")
    projection.flatten(table(6, 5), "tsne")
    assert recorded[0]["n_neighbors"] == 5 and recorded[2]["perplexity"] == pytest.approx(5 / 3)


def test_umap_keeps_two_clusters_apart():
    pytest.importorskip("umap")
    _assert_apart(projection.flatten(_clusters(), "umap"))


def test_tsne_keeps_two_clusters_apart():
    pytest.importorskip("openTSNE")
    _assert_apart(projection.flatten(_clusters(), "tsne"))


def _clusters():
    points = table(60, 8) * 0.2
    points[:30, 0] += 3
    points[30:, 1] += 3
    return points


def _assert_apart(found):
    first, second = found[:30], found[30:]
    spread = max((part - part.mean(dim=0)).norm(dim=1).mean() for part in (first, second))
    assert (first.mean(dim=0) - second.mean(dim=0)).norm() > 2 * spread


def test_points_are_whole_numbers_of_the_full_scale():
    points = torch.tensor([[[0.0, -2.0], [1.0, torch.nan], [torch.inf, 0.5]]])
    assert projection.full_scale(points) == 2.0
    assert projection.whole_numbers(points, 2.0).tolist() == [[[0, -32767], [16384, 0], [0, 8192]]]
    assert projection.full_scale(torch.zeros(1, 3, 2)) == 1.0
    assert projection.full_scale(torch.full((1, 3, 2), torch.nan)) == 1.0


def test_a_far_row_does_not_squeeze_the_others_and_keeps_its_direction():
    torch.manual_seed(0)
    points = torch.randn(2, 200, 2)
    points[1, 7] = torch.tensor([4000.0, -1000.0])
    scale = projection.full_scale(points)
    assert 8 < scale < 40
    shown = projection.whole_numbers(points, scale)
    assert shown[1, 7].tolist() == [32767, -8192]
    others = np.delete(shown, 7, axis=1).astype(float) * scale / 32767
    np.testing.assert_allclose(others, np.delete(points.numpy(), 7, axis=1), atol=scale / 32767)
    assert projection.rows_beyond(points, scale).tolist() == [7]


@pytest.mark.parametrize("far", [3, 200])  # of 1,000: a few in a table of zeros, and a class of its own
def test_far_rows_count_where_they_are_the_map(far):
    torch.manual_seed(0)
    points = torch.zeros(1, 1000, 2) if far == 3 else torch.rand(1, 1000, 2)
    points[0, :far, 1] = 1000.0
    assert projection.full_scale(points) == 1000.0
    assert len(projection.rows_beyond(points, 1000.0)) == 0


# health


def test_numbers_of_a_table_leave_out_rows_that_are_not_finite():
    points = torch.tensor([[3.0, 4.0], [0.0, 1.0], [torch.nan, 0.0], [3.0, 4.0]])
    found, spectrum = health(points, equal_rows(points))
    assert (found["rows"], found["finite_rows"], found["duplicates"]) == (4, 3, 1)
    assert (found["norm_min"], found["norm_max"]) == (1.0, 5.0)
    assert found["norm_mean"] == pytest.approx(11 / 3)
    assert len(spectrum) == 2 and spectrum.dtype == np.float32


def test_rows_in_one_direction_are_not_isotropic():
    one_way = torch.tensor([[5.0, 0.0]]).repeat(10, 1)
    assert mean_cosine(one_way) == pytest.approx(1)
    assert health(one_way, equal_rows(one_way))[0]["isotropy"] < 1e-2


def test_of_many_equal_rows_all_are_counted():
    zeros = torch.zeros(12_000, 2)
    assert health(zeros, equal_rows(zeros))[0]["duplicates"] == 11_999


def test_rows_that_differ_in_the_last_bit_are_not_equal():
    points = torch.tensor([[1.0], [np.nextafter(np.float32(1), np.float32(2))], [1.0]])
    assert equal_rows(points).tolist() == [[0, 2]]
    assert equal_rows(table(9, 2)).shape == (0, 2)


def test_a_table_of_one_row():
    found, _ = health(torch.tensor([[3.0, 4.0]]), equal_rows(torch.tensor([[3.0, 4.0]])))
    assert found["mean_cosine"] == 0 and found["effective_rank"] == pytest.approx(1)


# losses


def step(number, loss):
    return {"kind": "step", "step": number, "loss": loss}


def test_curves_of_a_short_training_are_its_records():
    metrics = [
        {"kind": "evaluation", "step": 0, "loss": 9.0, "unigram_loss": None},
        step(1, 5.0), step(2, 4.0),
        {"kind": "evaluation", "step": 2, "loss": 3.5, "unigram_loss": 6.0},
    ]  # fmt: skip
    assert losses.loss_curves(metrics) == {
        "train": [[1, 5.0], [2, 4.0]], "evaluation": [[0, 9.0], [2, 3.5]], "unigram": 6.0,
    }  # fmt: skip


def test_a_long_training_is_averaged_in_500_runs():
    found = losses.loss_curves([step(number, float(number)) for number in range(1, 5001)])["train"]
    assert len(found) == 500
    assert found[0] == [10, 5.5] and found[-1] == [5000, 4995.5]


def test_a_model_from_elsewhere_has_no_curves():
    assert losses.loss_curves([]) == {"train": [], "evaluation": [], "unigram": None}


# panels


def model(scheme, **settings):
    sizes = {"vocab_size": 60, "d_model": 16, "num_heads": 2, "num_layers": 2, "context_length": 12}
    return LanguageModel(ModelConfig(**{**sizes, **settings}, positions=scheme)).eval()


@pytest.mark.parametrize("scheme", ["none", "learned", "sinusoidal", "rotary", "pope"])
def test_schemes_without_a_score_have_none(scheme):
    assert panels.score_by_distance(model(scheme), torch.arange(12).unsqueeze(0)) is None


@pytest.mark.parametrize("scheme", ["none", "alibi", "t5", "rotary", "shaw"])
def test_schemes_that_do_not_enter_at_the_input_add_nothing_there(scheme):
    assert panels.input_positions(model(scheme).embedding, 12) is None


@pytest.mark.parametrize("scheme", ["none", "learned", "alibi", "transformer_xl"])
def test_schemes_that_turn_nothing_have_no_kernel(scheme):
    assert panels.rotary_kernel(model(scheme).embedding.position, 12) is None


def test_listening_leaves_the_scheme_as_it_was():
    made = model("alibi")
    scheme = made.embedding.position
    before = scheme.score
    panels.score_by_distance(made, torch.arange(12).unsqueeze(0))
    assert scheme.score == before and "score" not in vars(scheme)


def test_listening_ends_when_the_model_fails():
    made = model("alibi")
    with pytest.raises(Exception, match="token_ids"):
        panels.score_by_distance(made, torch.full((1, 12), 99))
    assert "score" not in vars(made.embedding.position)


def test_many_positions_are_shown_at_128_of_them():
    similar, ticks = panels.similarity(table(1000, 4))
    assert similar.shape == (128, 128)
    assert ticks[0] == 0 and ticks[-1] == 999 and ticks.diff().min() >= 7


def test_composed_schemes_show_each_of_their_panels():
    members = [{"name": "learned"}, {"name": "rotary"}, {"name": "alibi"}]
    made = model("compose", position_settings={"members": members})
    assert panels.input_positions(made.embedding, 12).shape == (12, 16)
    assert panels.score_by_distance(made, torch.arange(12).unsqueeze(0)).shape == (2, 2, 12)
    torch.testing.assert_close(
        panels.rotary_kernel(made.embedding.position, 12), panels.rotary_kernel(get("rotary", head_dim=8), 12)
    )


def test_the_kernel_of_pope_is_1_at_the_same_place():
    found = panels.rotary_kernel(model("pope").embedding.position, 12)
    torch.testing.assert_close(found[:, 0], torch.ones(len(found)))
    assert (found[0, 1:] < 1).all()


def test_a_kernel_reaches_over_no_more_than_512_distances():
    assert panels.rotary_kernel(get("rotary", head_dim=4), 100_000).shape == (2, 512)
