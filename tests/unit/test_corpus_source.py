"""Text that is read twice: what is learned from it, what is encoded, and what is left behind."""

import io
import types
from pathlib import Path

import pytest

from tokenspace.corpus import Corpus, TextSource, build_from_source, readable_twice
from tokenspace.errors import SettingError, TextError
from tokenspace.text import STDIN, join_documents
from tokenspace.tokenizer import Tokenizer

DOCUMENTS = [f"the cat number {n} sat on the mat and the dog sat by the door. " * 4 for n in range(40)]


def read(source):
    return list(join_documents(source.read(lambda done: None)))


@pytest.fixture
def standard_input(monkeypatch):
    def give(data):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))

    return give


def test_documents_are_read_from_the_beginning_each_time():
    source = TextSource.documents(DOCUMENTS)
    assert read(source) == read(source) == DOCUMENTS


def test_files_are_read_from_the_beginning_each_time(tmp_path):
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    (tmp_path / "b.txt").write_text("दो", encoding="utf-8")
    source = TextSource.files([tmp_path])
    assert read(source) == read(source) == ["one", "दो"]
    assert source.num_bytes == len("one") + len("दो".encode())


def test_progress_of_documents_ends_at_the_whole():
    source, done = TextSource.documents(DOCUMENTS), []
    list(source.read(done.append))
    assert done == sorted(done)
    assert done[-1] == source.num_bytes == sum(map(len, DOCUMENTS))


def test_no_source_at_all():
    with pytest.raises(SettingError, match="`sources` must name at least one text, but is 'none'"):
        TextSource.files([])


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(TextError, match=r"none\.txt"):
        TextSource.files([tmp_path / "none.txt"])


@pytest.mark.parametrize(
    ("num_bytes", "fraction"),
    [(None, 0.05), (0, 0.05), (1_000, 0.1), (4_000_000, 0.1), (8_000_000, 0.05), (10**12, 0.0005)],
)
def test_validation_takes_a_tenth_and_less_where_that_is_more_than_is_of_use(num_bytes, fraction):
    assert TextSource(lambda progress: iter(()), num_bytes).validation_fraction == pytest.approx(fraction)


def test_standard_input_is_copied_for_a_vocabulary_and_the_copy_removed(standard_input):
    standard_input("बिल्ली".encode())
    with readable_twice(["a.txt", STDIN], "train:300") as sources:
        assert sources[0] == "a.txt"
        copy = Path(sources[1])
        assert copy.read_bytes() == "बिल्ली".encode()
    assert not copy.exists()


def test_the_copy_of_standard_input_is_removed_after_a_mistake_too(standard_input):
    standard_input(b"cat")
    with pytest.raises(KeyError), readable_twice([STDIN], "train:300") as sources:
        raise KeyError
    assert not Path(sources[0]).exists()


@pytest.mark.parametrize(("sources", "spec"), [([STDIN], "gpt2"), (["a.txt"], "train:300")])
def test_nothing_is_copied_where_one_reading_is_enough(standard_input, sources, spec):
    standard_input(b"cat")
    with readable_twice(sources, spec) as readable:
        assert readable == sources


def test_a_trained_vocabulary_is_that_of_the_same_documents(tmp_path):
    corpus = build_from_source(TextSource.documents(DOCUMENTS), "train:300", tmp_path / "c")
    assert corpus.tokenizer().identity == Tokenizer.train(DOCUMENTS, 300).identity


def test_the_fraction_that_is_given_wins(tmp_path):
    corpus = build_from_source(TextSource.documents(DOCUMENTS), "gpt2", tmp_path / "c", 0)
    assert list(corpus.manifest.splits) == ["train"]
    assert Corpus.open(tmp_path / "c").num_documents == len(DOCUMENTS)


def test_both_readings_are_watched_to_their_end(tmp_path):
    source, seen = TextSource.documents(DOCUMENTS), []
    build_from_source(source, "train:300", tmp_path / "c", watch=lambda *done: seen.append(done))
    whole = source.num_bytes
    assert ("learning the vocabulary", whole, whole) in seen
    assert seen[-1] == ("encoding", whole, whole)


def test_a_mistake_in_the_second_document_leaves_nothing(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_bytes(b"good text")
    (tmp_path / "text" / "b.txt").write_bytes(b"bad \xff\xfe text")
    with pytest.raises(TextError, match="byte 4"):
        build_from_source(TextSource.files([tmp_path / "text"]), "gpt2", tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["text"]
