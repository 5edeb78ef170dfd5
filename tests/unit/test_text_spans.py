"""Parts of files: read on their own they give what the whole gives; what changed since is found."""

import gzip
import json
import lzma
import re

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from tokenspace.errors import SettingError, TextError
from tokenspace.text import plan_spans, read_documents, read_span, source_bytes
from tokenspace.text.pieces import join_pieces


def write(path, data):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def lines(number, start=0):
    return "".join(
        json.dumps({"text": f"text {n}", "id": n, "meta": {"url": f"u{n}"}}) + "\n" for n in range(start, number)
    )


def read_all(spans, **settings):
    """The documents of all spans, those cut between spans joined."""
    pieces = [piece for span in spans for piece in read_span(span, **settings)]
    return [(document.text, document.source, document.row, document.id) for document in join_pieces(pieces)]


def read_whole(sources, **settings):
    whole = join_pieces(read_documents(sources, **settings))
    return [(document.text, document.source, document.row, document.id) for document in whole]


# Cutting


def test_files_are_sorted_and_each_is_there_once(tmp_path):
    paths = [write(tmp_path / name, name) for name in ("b.txt", "a.txt")]
    files, spans = plan_spans([*paths, paths[0], tmp_path], 100, cuts_documents=True)
    assert [file.path for file in files] == [paths[1].as_posix(), paths[0].as_posix()]
    assert [file.size for file in files] == [5, 5]
    assert [span.path for span in spans] == [file.path for file in files]


def test_plain_text_is_cut_before_a_space_that_follows_a_letter(tmp_path):
    path = write(tmp_path / "a.txt", "one 2 three, four five")
    _, spans = plan_spans([path], 4, cuts_documents=True)
    cuts = [span.start for span in spans[1:]]
    assert cuts == [17]  # not after "2" or the comma; "one" ends before the first multiple
    assert [(span.continues, span.ends_document) for span in spans] == [(False, False), (True, True)]


def test_plain_text_is_whole_where_documents_may_not_be_cut(tmp_path):
    path = write(tmp_path / "a.txt", "one two three four five")
    _, spans = plan_spans([path], 4, cuts_documents=False)
    assert [(span.start, span.stop, span.continues, span.ends_document) for span in spans] == [(0, 23, False, True)]


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "shift_jis"])
def test_plain_text_in_another_encoding_is_whole(tmp_path, encoding):
    path = write(tmp_path / "a.txt", "one two three four five".encode(encoding))
    _, spans = plan_spans([path], 4, cuts_documents=True, encoding=encoding)
    assert len(spans) == 1


def test_text_without_spaces_is_whole(tmp_path):
    path = write(tmp_path / "a.txt", "猫坐在垫子上" * 50_000)
    _, spans = plan_spans([path], 1000, cuts_documents=True)
    assert len(spans) == 1


def test_cuts_do_not_depend_on_where_windows_of_reading_end(tmp_path):
    path = write(tmp_path / "a.txt", "कख " * 100_000)
    _, spans = plan_spans([path], 65_536 - 3, cuts_documents=True)
    text = path.read_bytes()
    for span in spans[1:]:
        least = span.start // 65_533 * 65_533
        assert span.start == least + next(i for i in range(100) if text[least + i : least + i + 1] == b" ")


def test_json_lines_are_cut_after_a_line_break_and_their_lines_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(9) + "\n" + lines(20, 9))
    _, spans = plan_spans([path], 200, cuts_documents=False)
    assert len(spans) > 3
    assert all(path.read_bytes()[span.start - 1 : span.start] == b"\n" for span in spans[1:])
    assert read_all(spans) == read_whole([path])


def test_parquet_is_cut_between_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": [f"text {n}" for n in range(100)]})
    pyarrow.parquet.write_table(table, path, row_group_size=10)
    _, spans = plan_spans([path], 300, cuts_documents=False)
    assert len(spans) > 2
    assert [span.first_row for span in spans] == [span.start * 10 for span in spans]
    assert read_all(spans) == read_whole([path])


def test_an_empty_file_is_one_span_of_one_document(tmp_path):
    _, spans = plan_spans([write(tmp_path / "a.txt", "")], 4, cuts_documents=True)
    assert read_all(spans) == [("", (tmp_path / "a.txt").as_posix(), 0, None)]


def test_an_empty_parquet_file_has_no_document(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    _, spans = plan_spans([path], 4, cuts_documents=True)
    assert read_all(spans) == []


def test_a_byte_order_mark_is_dropped_from_the_first_span_alone(tmp_path):
    path = write(tmp_path / "a.txt", "\ufeffone two")
    _, spans = plan_spans([path], 4, cuts_documents=True)
    assert len(spans) == 2
    assert read_all(spans)[0][0] == "one two"


def test_progress_ends_at_the_size_of_the_span(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(20))
    for span in plan_spans([path], 200, cuts_documents=False)[1]:
        seen = []
        list(read_span(span, progress=seen.append))
        assert seen[-1] == span.stop - span.start


# Fields


def test_ids_are_read_as_text(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "a", "id": 7}\n{"text": "b", "id": "x"}\n{"text": "c"}\n{"text": "", "id": null}',
    )
    assert [piece.id for piece in read_documents([path], id_field="id")] == ["7", "x", None, None]


def test_an_id_of_more_than_64_bits_keeps_its_digits(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "a", "id": 123456789012345678901234567890, "score": NaN}\n'
        '{"text": "b", "id": 123456789012345678901234567890}\n{"text": "c", "id": [1.5, 36893488147419103232]}',
    )
    found = [piece.id for piece in read_documents([path], id_field="id")]
    assert found == ["123456789012345678901234567890"] * 2 + ["[1.5, 36893488147419103232]"]


def test_fields_inside_fields(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"d": {"text": "a", "m": {"id": 1}}}\n{"d.text": "b", "d": {"text": "c"}}')
    found = list(read_documents([path], text_field="d.text", id_field="d.m.id"))
    assert [(piece.text, piece.id) for piece in found] == [("a", "1"), ("b", None)]


def test_columns_inside_columns(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"d": [{"text": "a", "m": {"id": 1}}, {"text": "b", "m": None}]}), path)
    found = list(read_documents([path], text_field="d.text", id_field="d.m.id"))
    assert [(piece.text, piece.id) for piece in found] == [("a", "1"), ("b", None)]


def test_a_column_that_is_missing_inside_a_column(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"d": [{"text": "a"}]}), path)
    with pytest.raises(TextError, match=re.escape("must have the field `d.body`")):
        list(read_documents([path], text_field="d.body"))


# Compression


def zstandard(data):
    return pyarrow.compress(data, codec="zstd", asbytes=True)


COMPRESSIONS = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_files_are_read_and_never_cut(tmp_path, suffix):
    plain = lines(500)
    path = write(tmp_path / f"a.jsonl{suffix}", COMPRESSIONS[suffix](plain.encode()))
    _, spans = plan_spans([tmp_path], 100, cuts_documents=True)
    assert [(span.start, span.stop) for span in spans] == [(0, path.stat().st_size)]
    assert [text for text, *_ in read_all(spans)] == [f"text {n}" for n in range(500)]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_files_of_several_parts_are_read_to_their_end(tmp_path, suffix):
    compress = COMPRESSIONS[suffix]
    path = write(tmp_path / f"a.txt{suffix}", compress(b"one ") + compress(b"two"))
    assert [text for text, *_ in read_whole([path])] == ["one two"]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_file_that_is_cut(tmp_path, suffix):
    whole = COMPRESSIONS[suffix](lines(5000).encode())
    path = write(tmp_path / f"a.jsonl{suffix}", whole[: len(whole) // 2])
    with pytest.raises(TextError, match="must be a whole compressed file"):
        list(read_documents([path]))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_a_compressed_file_that_is_none(tmp_path, suffix):
    path = write(tmp_path / f"a.txt{suffix}", "just text, not compressed at all")
    with pytest.raises(TextError, match="must be a whole compressed file"):
        list(read_documents([path]))


def test_progress_of_a_compressed_file_counts_it_as_stored(tmp_path):
    path = write(tmp_path / "a.txt.gz", gzip.compress(b"word " * 1_000_000))
    seen = []
    list(read_documents([path], progress=seen.append))
    assert seen[-1] == source_bytes([path]) == path.stat().st_size


# Changed files


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet", "a.txt.gz"])
def test_a_file_that_changed_since_it_was_planned(tmp_path, name):
    path = tmp_path / name
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), path, compression="none")
    else:
        write(path, {"a.txt": b"one two", "a.jsonl": lines(3).encode()}.get(name) or gzip.compress(b"one two", mtime=0))
    _, (span,) = plan_spans([path], 1000, cuts_documents=True)
    data = bytearray(path.read_bytes())
    at = data.find(b"two") if b"two" in data else data.find(b"text 1") + 5 if b"text 1" in data else 4  # gzip: its date
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(TextError, match=r"must be as it was planned, crc32:\w{8} from 0 to .*Plan again"):
        list(read_span(span))


def test_stamps_differ_where_files_differ(tmp_path):
    stamps = set()
    for text in ("one two three", "one two thref", "pne two three"):
        write(tmp_path / "a.txt", text)
        (file,), _ = plan_spans([tmp_path / "a.txt"], 4, cuts_documents=True)
        stamps.add(file.stamp)
    assert len(stamps) == 3


# Stores


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def test_files_and_folders_of_a_store(memory):
    memory.pipe({"/texts/a.jsonl": lines(20).encode(), "/texts/in/b.txt": b"one two three", "/texts/.c.txt": b"hidden"})
    files, spans = plan_spans(["memory://texts"], 200, cuts_documents=True)
    assert [file.path for file in files] == ["memory:///texts/a.jsonl", "memory:///texts/in/b.txt"]
    assert len(spans) > 3
    assert [text for text, *_ in read_all(spans)] == [f"text {n}" for n in range(20)] + ["one two three"]
    assert source_bytes(["memory://texts"]) == sum(file.size for file in files)


def test_a_url_of_this_machine_is_read_as_its_path(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(5))
    assert [row[0] for row in read_whole([f"file://{path}"])] == [row[0] for row in read_whole([path])]


def test_parquet_in_a_store(memory):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), sink, row_group_size=1)
    memory.pipe("/a.parquet", sink.getvalue().to_pybytes())
    _, spans = plan_spans(["memory://a.parquet"], 1, cuts_documents=True)
    assert [text for text, *_ in read_all(spans)] == ["one", "two"]


def test_a_file_of_a_store_that_changed_since_it_was_planned(memory):
    memory.pipe("/a.txt", b"one two")
    _, (span,) = plan_spans(["memory://a.txt"], 100, cuts_documents=True)
    memory.pipe("/a.txt", b"one twp")
    with pytest.raises(TextError, match="must be as it was planned"):
        list(read_span(span))


def test_what_is_not_in_a_store(memory):
    with pytest.raises(TextError, match="`source` must be a file or a folder that exists, but is 'memory://none'"):
        plan_spans(["memory://none"], 1, cuts_documents=True)


def test_a_protocol_that_nobody_knows():
    with pytest.raises(TextError, match="must begin with a protocol that fsspec knows"):
        list(read_documents(["nosuch://a.txt"]))


# Mistakes


def test_standard_input_cannot_be_planned():
    with pytest.raises(SettingError, match="`sources` must be files, which can be read twice, but is '-'"):
        plan_spans(["-"], 1, cuts_documents=True)


def test_a_damaged_line_names_its_number_in_the_file(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(20) + "{oops\n")
    _, spans = plan_spans([path], 200, cuts_documents=True)
    with pytest.raises(TextError, match="line 21` must be a JSON object"):
        list(read_span(spans[-1]))


def test_a_byte_that_is_no_text_names_its_place_in_the_file(tmp_path):
    path = write(tmp_path / "a.txt", b"one two \xff")
    _, spans = plan_spans([path], 4, cuts_documents=True)
    with pytest.raises(TextError, match="from byte 8 on"):
        list(read_span(spans[-1]))
