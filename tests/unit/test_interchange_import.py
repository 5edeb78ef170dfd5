"""Foreign token files: what is taken, where documents are found, and what is refused."""

import struct

import numpy as np
import pytest
import tokenizers

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.corpus.interchange import foreign, guess_format, import_megatron, import_nanogpt
from tokenspace.corpus.interchange import megatron as megatron_room
from tokenspace.corpus.origins import read_origins
from tokenspace.errors import CorpusError, SettingError
from tokenspace.text import read_strings
from tokenspace.tokenizer import Tokenizer

EOT = 50256
MEGATRON_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture
def small_blocks(monkeypatch):
    """Sizes at which a few ids already cross every border."""
    monkeypatch.setattr(foreign, "BLOCK_TOKENS", 3)
    monkeypatch.setattr(megatron_room, "_CHUNK", 2)


def raw(path, ids, dtype="<u2"):
    np.array(ids, dtype).tofile(path)
    return path


def headed(path, ids, magic=20240520, version=1, dtype="<u2", num_tokens=None):
    header = struct.pack("<3i", magic, version, len(ids) if num_tokens is None else num_tokens)
    path.write_bytes(header.ljust(1024, b"\0") + np.array(ids, dtype).tobytes())
    return path


def pair(prefix, documents, code=8):
    """Write documents, lists of sequences, as the layout says; gives what the index holds, for damaging it."""
    dtype = np.dtype(MEGATRON_DTYPES[code])
    sequences = [sequence for document in documents for sequence in document]
    prefix.with_name(prefix.name + ".bin").write_bytes(b"".join(np.array(s, dtype).tobytes() for s in sequences))
    lengths = [len(sequence) for sequence in sequences]
    pointers = [sum(lengths[:nth]) * dtype.itemsize for nth in range(len(lengths))]
    bounds = [sum(map(len, documents[:nth])) for nth in range(len(documents) + 1)]
    index(prefix, lengths, pointers, bounds, code=code)
    return lengths, pointers, bounds


def index(prefix, lengths, pointers, bounds, code=8, magic=b"MMIDIDX\0\0", version=1):
    data = struct.pack("<9sQBQQ", magic, version, code, len(lengths), len(bounds))
    data += struct.pack(f"<{len(lengths)}i", *lengths) + struct.pack(f"<{len(pointers)}q", *pointers)
    prefix.with_name(prefix.name + ".idx").write_bytes(data + struct.pack(f"<{len(bounds)}q", *bounds))


def documents_of(corpus):
    return [corpus.document(nth).tolist() for nth in range(corpus.num_documents)]


@pytest.mark.usefixtures("small_blocks")
def test_nanogpt_documents_end_with_end_of_text_and_val_is_for_validation(tmp_path, gpt2):
    raw(tmp_path / "train.bin", [1, 2, EOT, EOT, 3, 4, 5, 6, 7, EOT])
    raw(tmp_path / "val.bin", [8, EOT])
    train = import_nanogpt([tmp_path], tmp_path / "c", tokenizer=gpt2)
    assert documents_of(train) == [[1, 2, EOT], [EOT], [3, 4, 5, 6, 7, EOT]]
    assert documents_of(Corpus.open(tmp_path / "c", "validation")) == [[8, EOT]]
    assert train.manifest.end_of_text == "append"


def test_a_last_document_without_end_of_text_is_one_all_the_same(tmp_path, gpt2):
    corpus = import_nanogpt([raw(tmp_path / "a.bin", [1, EOT, 2])], tmp_path / "c", tokenizer=gpt2)
    assert documents_of(corpus) == [[1, EOT], [2]]
    assert corpus.manifest.end_of_text == "none"


def origins_of(corpus):
    """Of the first shard."""
    return read_origins((corpus.path / "train-00000.origins").read_bytes()).tolist()


@pytest.mark.usefixtures("small_blocks")
def test_documents_of_headed_files_begin_with_end_of_text_and_go_on_in_the_next_file(tmp_path, gpt2):
    headed(tmp_path / "fineweb_train_000001.bin", [EOT, 1, 2, EOT, 3])
    headed(tmp_path / "fineweb_train_000002.bin", [4, 5, EOT, 6])
    headed(tmp_path / "fineweb_val_000000.bin", [EOT, 7])
    corpus = import_nanogpt([tmp_path], tmp_path / "c", tokenizer=gpt2)
    assert documents_of(corpus) == [[EOT, 1, 2], [EOT, 3, 4, 5], [EOT, 6]]
    assert corpus.manifest.end_of_text == "none"
    assert [(source.rsplit("_")[-1], row) for source, row, _ in origins_of(corpus)] == [
        ("000001.bin", 0),
        ("000001.bin", 1),
        ("000002.bin", 0),
    ]
    assert corpus.manifest.num_sources == 3


@pytest.mark.parametrize(("end_of_text", "expected"), [("append", [[1, EOT], [2]]), ("prepend", [[1], [EOT, 2]])])
@pytest.mark.parametrize("write", [raw, headed])
def test_where_end_of_text_stands_can_be_said(tmp_path, gpt2, write, end_of_text, expected):
    path = write(tmp_path / "a.bin", [1, EOT, 2])
    corpus = import_nanogpt([path], tmp_path / "c", tokenizer=gpt2, end_of_text=end_of_text)
    assert documents_of(corpus) == expected


def test_four_byte_ids_come_by_header_or_by_dtype(tmp_path, gpt2):
    llama = headed(tmp_path / "a.bin", [EOT, 1], 20240801, 7, "<u4")
    assert documents_of(import_nanogpt([llama], tmp_path / "c1", tokenizer=gpt2)) == [[EOT, 1]]
    plain = raw(tmp_path / "b.bin", [1, EOT], "<u4")
    corpus = import_nanogpt([plain], tmp_path / "c2", tokenizer=gpt2, dtype="uint32")
    assert documents_of(corpus) == [[1, EOT]]
    assert corpus.dtype == np.uint16  # the smallest that holds every id of the vocabulary


def test_without_an_end_of_text_token_all_is_one_document(tmp_path):
    model = tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a")
    plain = Tokenizer.from_json(tokenizers.Tokenizer(model).to_str(), "plain")
    corpus = import_nanogpt([raw(tmp_path / "a.bin", [0, 1, 1])], tmp_path / "c", tokenizer=plain)
    assert documents_of(corpus) == [[0, 1, 1]]
    assert corpus.manifest.end_of_text == "none"


def test_progress_counts_bytes_up_to_all(tmp_path, gpt2, small_blocks):
    calls = []
    raw(tmp_path / "a.bin", [1, 2, 3, 4, EOT])
    import_nanogpt([tmp_path], tmp_path / "c", tokenizer=gpt2, progress=lambda *call: calls.append(call))
    assert calls == [(6, 10), (10, 10)]


@pytest.mark.parametrize("code", MEGATRON_DTYPES)
def test_megatron_ids_of_every_whole_number_dtype(tmp_path, gpt2, code):
    pair(tmp_path / "a", [[[1, 2]], [[127]]], code)
    assert documents_of(import_megatron([tmp_path / "a"], tmp_path / "c", tokenizer=gpt2)) == [[1, 2], [127]]


@pytest.mark.usefixtures("small_blocks")
def test_megatron_documents_of_no_one_and_several_sequences(tmp_path, gpt2):
    documents = [[], [[]], [[1, 2], [], [3, 4, 5, 6, 7]], [], [[8]], [[9, 10, 11]], []]
    pair(tmp_path / "a", documents)
    corpus = import_megatron([tmp_path / "a"], tmp_path / "c", tokenizer=gpt2)
    assert documents_of(corpus) == [sum(document, []) for document in documents]  # noqa: RUF017
    corpus.verify()


def test_megatron_pairs_are_named_by_prefix_file_or_folder_and_taken_once(tmp_path, gpt2):
    pair(tmp_path / "a.text_document", [[[1]]])
    pair(tmp_path / "b-validation", [[[2]]])
    for nth, names in enumerate((["a.text_document"], ["a.text_document.bin", "a.text_document.idx"], ["."])):
        corpus = import_megatron([tmp_path / name for name in names], tmp_path / f"c{nth}", tokenizer=gpt2)
        assert documents_of(corpus) == [[1]]
    assert documents_of(Corpus.open(tmp_path / "c2", "validation")) == [[2]]


def test_megatron_end_of_text_is_what_the_documents_have(tmp_path, gpt2):
    for name, documents, expected in (
        ("a", [[[1], [EOT]], [[EOT]]], "append"),
        ("b", [[[1, EOT]], [[]]], "none"),
        ("c", [[[1, EOT]], [[2]]], "none"),
    ):
        pair(tmp_path / name, documents)
        assert (
            import_megatron([tmp_path / name], tmp_path / f"c{name}", tokenizer=gpt2).manifest.end_of_text == expected
        )


TEXTS = ["The cat sat.", "", " on\nthe  mat ", "बिल्ली चटाई पर बैठी", "a\tb\x01c", "🙂 x"]


@pytest.mark.parametrize("end_of_text", [True, False])
def test_the_manifest_counts_text_as_a_build_does(tmp_path, gpt2, end_of_text, small_blocks):
    built = build_corpus(read_strings(TEXTS), gpt2, tmp_path / "b", validation_fraction=0, end_of_text=end_of_text)
    imported = import_megatron([tmp_path / "b"], tmp_path / "c", tokenizer=gpt2)
    assert imported.manifest.statistics == built.manifest.statistics
    assert origins_of(imported) == [(str(tmp_path / "b" / "train-00000.bin"), row, None) for row in range(len(TEXTS))]
    assert imported.manifest.text_bytes == built.manifest.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert imported.manifest.end_of_text == built.manifest.end_of_text


def test_an_import_is_a_corpus_like_any_other(tmp_path, gpt2):
    corpus = import_nanogpt([raw(tmp_path / "a.bin", [1, EOT])], tmp_path / "c", tokenizer=gpt2)
    corpus.verify()
    assert corpus.tokenizer().identity == gpt2.identity
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == [
        "manifest.json",
        "tokenizer.json",
        "train-00000.bin",
        "train-00000.idx",
        "train-00000.origins",
    ]


def refused(tmp_path, error, call, *arguments, **settings):
    """The message, after a look that nothing is left behind."""
    before = set(tmp_path.iterdir())
    with pytest.raises(error) as raised:
        call(*arguments, **settings)
    assert set(tmp_path.iterdir()) == before
    return str(raised.value).replace(str(tmp_path), "…")


@pytest.mark.usefixtures("small_blocks")
def test_an_id_beyond_the_vocabulary_is_named_with_its_place(tmp_path, gpt2):
    path = raw(tmp_path / "a.bin", [1, 2, 3, 4, 50257])
    message = refused(tmp_path, CorpusError, import_nanogpt, [path], tmp_path / "c", tokenizer=gpt2)
    assert message == (
        "`…/a.bin, token 4` must be an id of gpt2, from 0 to 50256, but is 50257. "
        "Give the tokenizer that made the file; of a .bin without a header, check the dtype too."
    )


def test_a_negative_id_is_named_too(tmp_path, gpt2):
    pair(tmp_path / "a", [[[5, -1]]], code=5)
    message = refused(tmp_path, CorpusError, import_megatron, [tmp_path / "a"], tmp_path / "c", tokenizer=gpt2)
    assert message.startswith("`…/a.bin, token 1` must be an id of gpt2, from 0 to 50256, but is -1.")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"abc"), "must have a multiple of 2 bytes, for ids of uint16, but is '3 bytes"),
        (lambda path: headed(path, [1], num_tokens=2), "must have 1028 bytes, for the 2 tokens in its header, but is "),
        (lambda path: headed(path, [1], version=2), "must be version 1, but is 'version 2'"),
        (lambda path: path.write_bytes(b""), "must hold at least one token for training, but is 'without any'"),
    ],
)
def test_damaged_nanogpt_files_are_refused(tmp_path, gpt2, write, message):
    write(tmp_path / "a.bin")
    assert message in refused(tmp_path, CorpusError, import_nanogpt, [tmp_path], tmp_path / "c", tokenizer=gpt2)


def test_files_for_validation_alone_are_refused(tmp_path, gpt2):
    raw(tmp_path / "val.bin", [1, EOT])
    message = refused(tmp_path, CorpusError, import_nanogpt, [tmp_path], tmp_path / "c", tokenizer=gpt2)
    assert message.startswith("`files` must hold at least one token for training")


def test_files_for_tests_are_refused(tmp_path, gpt2):
    raw(tmp_path / "train.bin", [1]), raw(tmp_path / "test.bin", [1])
    message = refused(tmp_path, SettingError, import_nanogpt, [tmp_path], tmp_path / "c", tokenizer=gpt2)
    assert message.startswith("`files` must be for training or validation, but is '…/test.bin'. Leave it out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float32"}, "`dtype` must be one of uint16, uint32, int32, but is 'float32'"),
        ({"end_of_text": "both"}, "`end_of_text` must be 'append' or 'prepend', but is 'both'"),
    ],
)
def test_settings_are_checked(tmp_path, gpt2, settings, message):
    raw(tmp_path / "a.bin", [1])
    arguments = ([tmp_path], tmp_path / "c")
    assert message in refused(tmp_path, SettingError, import_nanogpt, *arguments, tokenizer=gpt2, **settings)


DAMAGED = {
    "magic": (lambda p: index(p, [2, 1], [0, 4], [0, 1, 2], magic=b"TNTIDX\0\0\0"), "begin with b'MMIDIDX"),
    "version": (lambda p: index(p, [2, 1], [0, 4], [0, 1, 2], version=2), "be version 1, but is 'version 2'"),
    "floats": (
        lambda p: index(p, [2, 1], [0, 4], [0, 1, 2], code=7),
        "dtype code of whole numbers, 1, 2, 3, 4, 5, 8, ",
    ),
    "cut": (lambda p: index(p, [2, 1], [0], [0, 1, 2]), "have 82 bytes, for 2 sequences and 2 documents, but is '74"),
    "negative length": (lambda p: index(p, [4, -1], [0, 8], [0, 1, 2]), "length of sequence 1` must be at least 0, "),
    "falling pointers": (
        lambda p: index(p, [1, 1, 1], [0, 4, 2], [0, 1, 3]),
        "pointer of sequence 1` must be 2, where the sequence before it ends, but is 4",
    ),
    "overflown pointer": (
        lambda p: index(p, [1, 1, 1], [0, 2, -(2**31) + 4], [0, 1, 3]),
        "pointer of sequence 2` must be 4, where the sequence before it ends, but is -2147483644",
    ),
    "lengths": (lambda p: index(p, [2, 2], [0, 4], [0, 1, 2]), "a.bin` must have 8 bytes, which the lengths in a.idx"),
    "documents begin": (lambda p: index(p, [2, 1], [0, 4], [1, 2]), "document 0` must begin at sequence 0, but is 1"),
    "documents fall": (
        lambda p: index(p, [1, 1, 1], [0, 2, 4], [0, 1, 2, 1, 3]),
        "document 2` must not end before the one before it, at sequence 2, but is '1'",
    ),
    "documents end": (
        lambda p: index(p, [2, 1], [0, 4], [0, 1]),
        "documents` must end with sequence 2, the last, but is 'ended with sequence 1'",
    ),
    "no documents": (lambda p: index(p, [2, 1], [0, 4], []), "documents` must end with sequence 2, the last"),
    "missing": (lambda p: p.with_suffix(".idx").unlink(), "have an index beside each .bin, but is '…/a.idx missing'"),
}


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_megatron_indices_are_refused(tmp_path, gpt2, damage, small, request):
    if small:
        request.getfixturevalue("small_blocks")
    pair(tmp_path / "a", [[[1, 2]], [[3]]])
    write, message = DAMAGED[damage]
    write(tmp_path / "a")
    error = SettingError if damage == "missing" else CorpusError
    assert message in refused(tmp_path, error, import_megatron, [tmp_path], tmp_path / "c", tokenizer=gpt2)


def test_the_format_is_guessed_by_the_index(tmp_path):
    raw(tmp_path / "a.bin", [1])
    assert guess_format([tmp_path / "a.bin"]) == "nanogpt"
    pair(tmp_path / "b", [[[1]]])
    assert guess_format([tmp_path / "b"]) == guess_format([tmp_path / "b.idx"]) == "megatron"
    with pytest.raises(SettingError, match=r"`files` must all have an index, NAME.idx, or none, but is '.*a\.bin'"):
        guess_format([tmp_path])


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"`files` must be token files that exist, but is '.*x\.bin'"):
        guess_format([tmp_path / "x"])
    with pytest.raises(SettingError, match=r"`files` must hold token files, NAME\.bin, but is "):
        guess_format([tmp_path])
    with pytest.raises(SettingError, match="`files` must name at least one token file, but is 'none'"):
        guess_format([])


def test_a_file_that_shrinks_meanwhile_is_refused(tmp_path, gpt2):
    path = raw(tmp_path / "a.bin", [1, 2, 3])
    file = foreign.TokenFile(path, np.dtype("<u2"), 5)
    with pytest.raises(CorpusError, match=r"a\.bin` must have 5 tokens, but is 'cut after 3'"):
        file.read(1, 5, gpt2)


def test_words_of_names_decide_the_split():
    names = {"val": "validation", "fineweb_val_000000": "validation", "x-Validation-00001": "validation"}
    names |= {"train": "train", "interval": "train", "valley": "train", "a_text_document": "train"}
    for name, split in names.items():
        assert foreign.TokenFile(foreign.Path(f"{name}.bin"), np.dtype("<u2"), 0).split == split
