"""Bytes, labels and decoding in each family of tokenizer that the `tokenizers` library opens."""

import itertools
import json

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

from tokenspace.errors import TokenizerError
from tokenspace.tokenizer import Tokenizer

TEXT = [
    "The cat sat on the mat, and the dog sat on the cat.",
    "A sum of word vectors cannot tell the cat from the mat.",
    "बिल्ली चटाई पर बैठी और कुत्ता बिल्ली पर बैठा।",
]
TEXTS = [*TEXT, " leading and  double  spaces", "new\nline", "Zoë's naïve café 😀", "cat <s> mat </s>", ""]


def opened(library, tmp_path, name="tokenizer.json"):
    """What `from_file` makes of the library's own file."""
    path = tmp_path / name
    library.save(str(path))
    return Tokenizer.from_file(path)


def llama_like(prepend=True):
    """SentencePiece-style BPE as Llama 2 has it: prepended mark, bytes for what is unknown."""
    bytes_ = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    library = Library(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    trained = json.loads(library.to_str())["model"]
    pieces = [piece for piece in trained["vocab"] if not piece.startswith("<")]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **bytes_, **{piece: 259 + i for i, piece in enumerate(pieces)}}
    merges = [tuple(merge) for merge in trained["merges"]]
    library = Library(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if prepend else []
    library.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    library.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return library


def unigram():
    """Unigram as T5 and XLM-R have it."""
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>", "</s>"], show_progress=False
    )
    library.train_from_iterator(TEXT, trainer)
    return library


def wordpiece():
    """WordPiece with BERT's normaliser, pre-tokeniser and [CLS] … [SEP]."""
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    library.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    library.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return library


def clip_like():
    """Byte-level letters with `</w>` at the end of words, as CLIP has them."""
    library = Library(models.BPE(end_of_word_suffix="</w>"))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, end_of_word_suffix="</w>", show_progress=False)
    library.train_from_iterator(TEXT, trainer)
    return library


def byte_level(**pre_tokenizer):
    """GPT-2-like, trained on a few lines."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, **pre_tokenizer)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(TEXT, trainer)
    return library


ALL = [llama_like, unigram, wordpiece, clip_like, byte_level]


@pytest.mark.parametrize("make", ALL)
def test_ids_are_the_librarys_without_marks_at_the_ends(make, tmp_path):
    library = make()
    tokenizer = opened(library, tmp_path)
    library.encode_special_tokens = True
    for text in TEXTS:
        assert tokenizer.encode(text) == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("make", ALL)
def test_long_batches_have_the_ids_of_short_texts(make, tmp_path):
    tokenizer = opened(make(), tmp_path)
    expected = [tokenizer.encode(text) for text in TEXTS]
    ids, offsets = tokenizer.encode_batch(TEXTS * 500)  # long enough for the fast engine
    found = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
    assert found == expected * 500


@pytest.mark.parametrize("make", ALL)
def test_no_two_tokens_share_a_label(make, tmp_path):
    tokenizer = opened(make(), tmp_path)
    labels = [tokenizer.label(token_id) for token_id in range(tokenizer.vocab_size)]
    assert len(set(labels)) == tokenizer.vocab_size
    assert all(label and label.isprintable() and " " not in label for label in labels)


@pytest.mark.parametrize("make", [llama_like, unigram, byte_level])
def test_bytes_of_tokens_join_into_the_text(make, tmp_path):
    tokenizer = opened(make(), tmp_path)
    for text in TEXT:
        joined = b"".join(tokenizer.token_bytes(token_id) for token_id in tokenizer.encode(text))
        assert joined.removeprefix(b" ").decode() == text  # SentencePiece puts a space before


@pytest.mark.parametrize("make", [llama_like, unigram, byte_level])
def test_decode_returns_the_text(make, tmp_path):
    tokenizer = opened(make(), tmp_path)
    for text in TEXT:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_byte_tokens_of_sentencepiece_are_bytes_and_not_letters(tmp_path):
    library = llama_like()
    tokenizer = opened(library, tmp_path)
    byte, letter = library.token_to_id("<0x61>"), library.token_to_id("a")
    assert tokenizer.token_bytes(byte) == tokenizer.token_bytes(letter) == b"a"
    assert (tokenizer.label(byte), tokenizer.label(letter)) == (r"\x61", "a")


def test_unknown_characters_fall_back_to_bytes(tmp_path):
    tokenizer = opened(llama_like(), tmp_path)
    ids = tokenizer.encode("😀")
    assert tokenizer.decode(ids) == "😀"
    assert [tokenizer.label(token_id) for token_id in ids][-4:] == [r"\xf0", r"\x9f", r"\x98", r"\x80"]
    assert tokenizer.partial_utf8[ids[-1]] and not tokenizer.partial_utf8[tokenizer.encode("cat")].any()


def test_the_mark_for_the_unknown_has_no_bytes(tmp_path):
    tokenizer = opened(unigram(), tmp_path)
    unknown = tokenizer.encode("😀")[-1]
    assert tokenizer.label(unknown) == "<unk>"
    with pytest.raises(TokenizerError) as error:
        tokenizer.token_bytes(unknown)
    assert str(error.value) == (
        f"`token {unknown}` must be one that has bytes of its own in this kind of tokenizer, but is '<unk>'. "
        "Use label() or decode() for it."
    )


@pytest.mark.parametrize("make", [wordpiece, clip_like])
def test_no_bytes_where_white_space_is_dropped(make, tmp_path):
    tokenizer = opened(make(), tmp_path)
    for token_id in tokenizer.encode("the cat"):
        with pytest.raises(TokenizerError, match="must be one that has bytes of its own"):
            tokenizer.token_bytes(token_id)
    assert not tokenizer.partial_utf8.any()


def test_wordpiece_shows_its_own_spelling_and_decodes_by_the_library(tmp_path):
    tokenizer = opened(wordpiece(), tmp_path)
    ids = tokenizer.encode("The cat SAT")
    assert tokenizer.decode(ids) == "the cat sat"
    assert "##t" in [tokenizer.label(token_id) for token_id in range(tokenizer.vocab_size)]
    assert tokenizer.token_bytes(tokenizer.special_tokens["[SEP]"]) == b"[SEP]"


@pytest.mark.parametrize(
    ("make", "end"), [(llama_like, "</s>"), (unigram, "</s>"), (wordpiece, "[SEP]"), (byte_level, None)]
)
def test_the_end_of_text_of_each_family(make, end, tmp_path):
    tokenizer = opened(make(), tmp_path)
    assert tokenizer.eot_id == tokenizer.special_tokens.get(end)


def test_an_ordinary_token_is_no_end_of_text(tmp_path):
    library = byte_level()
    library.add_tokens([AddedToken("</s>", special=False)])
    assert opened(library, tmp_path).eot_id is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [(llama_like, False), (unigram, False), (wordpiece, False), (clip_like, False), (byte_level, True)],
)
def test_only_a_known_byte_level_pattern_splits_at_spaces(make, expected, tmp_path):
    assert opened(make(), tmp_path).splits_at_spaces is expected


@pytest.mark.parametrize(
    "change",
    [
        lambda library: library.add_tokens([AddedToken("cat sat")]),
        lambda library: library.add_tokens([AddedToken("mat", lstrip=True)]),
        lambda library: setattr(library, "normalizer", normalizers.Replace("t s", "ts")),
        lambda library: setattr(library, "pre_tokenizer", pre_tokenizers.ByteLevel(use_regex=False)),
    ],
)
def test_what_reaches_over_a_space_forbids_splitting(change, tmp_path):
    library = byte_level()
    change(library)
    assert not opened(library, tmp_path).splits_at_spaces


def test_added_tokens_are_matched_where_the_library_matches_them(tmp_path):
    library = byte_level()
    library.add_tokens([AddedToken("café", special=False)])
    library.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer = opened(library, tmp_path)
    cafe, mask = library.token_to_id("café"), library.token_to_id("<mask>")
    assert tokenizer.encode("a café").count(cafe) == 1  # added and not special: always parsed
    assert mask not in tokenizer.encode("a <mask> b")
    assert tokenizer.encode("a <mask> b", ["<mask>"]) == [*tokenizer.encode("a"), mask, *tokenizer.encode(" b")]
    assert tokenizer.token_bytes(cafe) == "café".encode()  # not the byte-level letter é
    assert tokenizer.decode(tokenizer.encode("a café 😀")) == "a café 😀"


def test_only_the_named_special_tokens_are_parsed(tmp_path):
    tokenizer = opened(llama_like(), tmp_path)
    bos, eos = tokenizer.special_tokens["<s>"], tokenizer.special_tokens["</s>"]
    assert not {bos, eos} & set(tokenizer.encode("cat <s> mat </s>"))
    assert {bos, eos} & set(tokenizer.encode("cat <s> mat </s>", ["</s>"])) == {eos}
    assert {bos, eos} <= set(tokenizer.encode("cat <s> mat </s>", "all"))


def test_gaps_between_ids_count_as_rows_and_have_labels():
    library = json.loads(byte_level().to_str())
    largest = max(library["model"]["vocab"].values())
    token = {"id": largest + 3, "content": "<pad>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocab = {**library["model"]["vocab"], "<pad>": largest + 3}
    library["added_tokens"] = [{**token, **flags}]
    library["model"]["vocab"] = vocab
    tokenizer = Tokenizer.from_json(json.dumps(library))
    assert tokenizer.vocab_size == largest + 4
    assert tokenizer.label(largest + 1) == rf"\id{{{largest + 1}}}"
    assert tokenizer.token_bytes(largest + 1) == b""
    assert tokenizer.decode([largest + 3, largest + 1, 0]) == "<pad>!"
    assert len(tokenizer.partial_utf8) == largest + 4


def test_a_unigram_piece_listed_twice_has_two_rows_and_two_labels():
    library = json.loads(unigram().to_str())
    library["model"]["vocab"].append(library["model"]["vocab"][-1])
    tokenizer = Tokenizer.from_json(json.dumps(library))
    assert tokenizer.vocab_size == len(library["model"]["vocab"])
    assert tokenizer.label(tokenizer.vocab_size - 1) != tokenizer.label(tokenizer.vocab_size - 2)


def test_truncation_and_padding_of_a_file_are_ignored(tmp_path):
    library = byte_level()
    library.enable_truncation(2)
    library.enable_padding(length=8)
    tokenizer = opened(library, tmp_path)
    assert tokenizer.decode(tokenizer.encode(TEXT[0])) == TEXT[0]


def test_a_byte_level_file_without_a_decoder_decodes_all_the_same(tmp_path):
    library = json.loads(byte_level().to_str())
    library["decoder"] = None
    tokenizer = Tokenizer.from_json(json.dumps(library))
    assert tokenizer.decode(tokenizer.encode(TEXT[2])) == TEXT[2]


def test_a_vocabulary_without_a_mark_for_the_unknown_says_so():
    library = Library(models.WordPiece({"a": 0}, unk_token="[UNK]"))
    with pytest.raises(TokenizerError, match=r"must have a token for any character, but is .*Missing \[UNK\]"):
        Tokenizer(library, "broken").encode("b")


def test_chance_in_encoding_is_refused():
    library = byte_level()
    library.model.dropout = 0.1
    with pytest.raises(TokenizerError) as error:
        Tokenizer(library, "noisy.json")
    assert str(error.value).startswith("`dropout of noisy.json` must be null, but is 0.1")
