"""Files, folders, JSON Lines, Parquet and standard input."""

import io
import json
import os
import sys

import pyarrow
import pyarrow.parquet
import pytest

from tokenspace.errors import SettingError, TextError
from tokenspace.text import Piece, list_files, read_documents, source_bytes
from tokenspace.text.pieces import PIECE_CHARACTERS

FRENCH = (
    "La première fois que je vis la mer, j'avais sept ans. Nous étions arrivés la veille, tard dans la nuit, "
    "après un voyage interminable; mon père, épuisé, dormait encore. À l'aube, une lumière grise entra par la "
    "fenêtre. Où étions-nous? Je sortis pieds nus sur le sable mouillé, et le bruit m'enveloppa, énorme, régulier."
)


def texts_of(*sources, **settings):
    return [piece.text for piece in read_documents(sources, **settings)]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_a_text_file_is_one_document(tmp_path):
    path = write(tmp_path / "a.txt", "one\n\ntwo\n")
    assert list(read_documents([path])) == [Piece("one\n\ntwo\n", True, path.as_posix(), 0)]


def test_line_ends_stay_as_they_are(tmp_path):
    assert texts_of(write(tmp_path / "a.txt", "a\r\nb\rc\n\x85\u2028")) == ["a\r\nb\rc\n\x85\u2028"]


def test_a_byte_order_mark_is_dropped_at_the_beginning_only(tmp_path):
    assert texts_of(write(tmp_path / "a.txt", "\ufeffa\ufeff")) == ["a\ufeff"]


def test_an_empty_file_is_an_empty_document(tmp_path):
    assert texts_of(write(tmp_path / "a.txt", "")) == [""]


def test_an_unknown_ending_is_plain_text(tmp_path):
    assert texts_of(write(tmp_path / "a.py", "x = 1")) == ["x = 1"]


def test_characters_across_chunks_are_read_whole(tmp_path):
    text = "x" + "बिल्ली चटाई " * (PIECE_CHARACTERS // 6)
    assert "".join(texts_of(write(tmp_path / "a.txt", text))) == text


def test_a_long_file_comes_in_pieces(tmp_path):
    text = "word " * (PIECE_CHARACTERS // 2)
    pieces = list(read_documents([write(tmp_path / "a.txt", text)]))
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.ends_document for piece in pieces) == 1


def test_json_lines_give_a_document_a_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "one\\ntwo"}\r\n\n{"text": "", "id": 3}\n{"text": "ब\u2028"}')
    assert list(read_documents([path])) == [
        Piece("one\ntwo", True, path.as_posix(), 0),
        Piece("", True, path.as_posix(), 2),
        Piece("ब\u2028", True, path.as_posix(), 3),
    ]


def test_a_line_longer_than_many_chunks_is_read_whole(tmp_path):
    text = "word " * (PIECE_CHARACTERS // 2)
    path = write(tmp_path / "a.jsonl", json.dumps({"text": text}) + "\n" + json.dumps({"text": "end"}))
    pieces = list(read_documents([path]))
    assert "".join(piece.text for piece in pieces if piece.row == 0) == text
    assert pieces[-1].text == "end"


def test_another_field_can_hold_the_text(tmp_path):
    assert texts_of(write(tmp_path / "a.jsonl", '{"body": "one"}'), text_field="body") == ["one"]


def parquet(path, columns, **settings):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **settings)
    return path


def test_parquet_gives_a_document_a_row_over_row_groups(tmp_path):
    words = [f"word {n}" for n in range(5000)]
    path = parquet(tmp_path / "a.parquet", {"text": words, "n": range(5000)}, row_group_size=700)
    pieces = list(read_documents([path]))
    assert [piece.text for piece in pieces] == words
    assert [piece.row for piece in pieces] == list(range(5000))


def test_standard_input_is_one_document(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("hé\r\n".encode()), "ascii"))
    assert list(read_documents(["-"])) == [Piece("hé\r\n", True, "-", 0)]


def test_a_folder_gives_its_texts_sorted_and_no_hidden_ones(tmp_path):
    for name in ("b.txt", "a/z.md", "a/.hidden.txt", ".git/x.txt", "c.JSONL", "d.png", "e.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, '{"text": "j"}' if "JSON" in name else name)
    assert texts_of(tmp_path) == ["a/z.md", "b.txt", "j"]


def test_sources_keep_the_order_in_which_they_are_given(tmp_path):
    b, a = write(tmp_path / "b.txt", "b"), write(tmp_path / "a.txt", "a")
    assert texts_of(b, a) == ["b", "a"]


def test_a_file_called_minus_is_a_file_when_its_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "-", "a file")
    assert texts_of("./-") == ["a file"]


def test_source_bytes_adds_up_all_files(tmp_path):
    write(tmp_path / "a.txt", "12345")
    write(tmp_path / "b.md", "é")
    assert source_bytes([tmp_path, tmp_path / "a.txt"]) == 12


def test_source_bytes_is_unknown_for_standard_input():
    assert source_bytes(["-"]) is None


@pytest.mark.parametrize("kind", ["a.txt", "a.jsonl", "a.parquet"])
def test_progress_ends_at_the_size_of_the_sources(tmp_path, kind):
    if kind == "a.parquet":
        path = parquet(tmp_path / kind, {"text": ["x" * 50] * 1024})
    else:
        path = write(tmp_path / kind, '{"text": "one"}\n' * 1000)
    seen = []
    list(read_documents([path, path], progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == source_bytes([path, path])


def test_another_encoding_is_read_when_named(tmp_path):
    assert texts_of(write(tmp_path / "a.txt", FRENCH, "cp1252"), encoding="cp1252") == [FRENCH]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "shift_jis"])
def test_encodings_of_many_bytes_are_read(tmp_path, encoding):
    assert texts_of(write(tmp_path / "a.txt", "x テスト" * 90_000, encoding), encoding=encoding) == [
        "x テスト" * 90_000
    ]


def test_invalid_utf8_names_the_file_the_offset_and_the_likely_encoding(tmp_path):
    path = write(tmp_path / "latin.txt", FRENCH, "latin-1")
    with pytest.raises(TextError) as error:
        texts_of(path)
    assert str(error.value) == (
        f"`{path.as_posix()}` must be utf-8 text, but is 'something else from byte 8 on (0xe8)'. "
        "It may be cp1252: read it with --encoding cp1252, or go on with --errors replace."
    )


def test_bytes_that_are_no_text_name_no_encoding(tmp_path):
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(TextError, match="It may be no text at all; give its --encoding"):
        texts_of(tmp_path / "a.txt")


@pytest.mark.parametrize("at", [0, 262_143, 262_144, 700_000])
def test_the_offset_is_right_wherever_the_byte_stands(tmp_path, at):
    text = ("é" * 400_000).encode()
    at -= at % 2
    (tmp_path / "a.txt").write_bytes(text[:at] + b"\xff" + text[at:])
    with pytest.raises(TextError, match=rf"from byte {at} on \(0xff\)"):
        texts_of(tmp_path / "a.txt")


def test_a_character_cut_at_the_end_of_the_file_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes("aé".encode()[:-1])
    with pytest.raises(TextError, match=r"from byte 1 on \(0xc3\)"):
        texts_of(tmp_path / "a.txt")


def test_errors_replace_goes_on(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\xffb")
    assert texts_of(tmp_path / "a.txt", errors="replace") == ["a\ufffdb"]


def test_errors_ignore_leaves_out(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\xffb")
    assert texts_of(tmp_path / "a.txt", errors="ignore") == ["ab"]


def test_half_a_surrogate_pair_in_json_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "ok"}\n{"text": "a\\ud83d b"}')
    with pytest.raises(TextError) as error:
        texts_of(path)
    assert str(error.value) == (
        f"`{path.as_posix()}, line 2` must be valid Unicode, but is 'half a surrogate pair at character 1'. "
        "Mend it, or go on with --errors replace."
    )


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_kept(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a\\ud83d b\\ud83d\\ude00"}')
    assert texts_of(path, errors="replace") == ["a\ufffd b😀"]


def test_a_damaged_line_names_its_number(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "ok"}\n{"text": "cu')
    with pytest.raises(TextError, match=r"a\.jsonl, line 2` must be a JSON object, but is 'damaged \(Unterminated"):
        texts_of(path)


def test_a_line_that_is_no_object_is_an_error(tmp_path):
    path = write(tmp_path / "a.json", '[{"text": "ok"}]')
    with pytest.raises(TextError, match="line 1` must be a JSON object, but is 'a JSON list'"):
        texts_of(path)


def test_a_missing_field_names_those_that_are_there(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "x", "id": 1}')
    with pytest.raises(TextError) as error:
        texts_of(path)
    assert str(error.value) == (
        f"`{path.as_posix()}, line 1` must have the field `text`, but is 'an object with body, id'. "
        "Name its field with --text-field."
    )


def test_a_field_without_text_is_an_error(tmp_path):
    with pytest.raises(TextError, match="line 1` must hold text in `text`, but is 'null'"):
        texts_of(write(tmp_path / "a.jsonl", '{"text": null}'))


def test_a_missing_column_names_those_that_are_there(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"body": ["x"], "id": [1]})
    with pytest.raises(TextError, match="must have the field `text`, but is 'a table with body, id'"):
        texts_of(path)


def test_a_null_row_is_an_error(tmp_path):
    with pytest.raises(TextError, match="row 2` must hold text in `text`, but is 'null'"):
        texts_of(parquet(tmp_path / "a.parquet", {"text": ["x", None]}))


def test_a_damaged_parquet_file_is_an_error(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(TextError, match="must be a whole Parquet file, but is 'damaged"):
        texts_of(tmp_path / "a.parquet")


def test_a_missing_source_is_said_before_anything_is_read(tmp_path):
    with pytest.raises(TextError) as error:
        read_documents([tmp_path / "no.txt"])
    assert str(error.value) == (
        f"`source` must be a file or a folder that exists, but is {str(tmp_path / 'no.txt')!r}. Check the path."
    )


def test_a_folder_without_texts_is_an_error(tmp_path):
    write(tmp_path / "a.png", "")
    with pytest.raises(TextError, match=r"must hold files that end in .* but is 'a folder without any'"):
        list_files([tmp_path])


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_an_unreadable_file_is_an_error(tmp_path):
    path = write(tmp_path / "a.txt", "x")
    path.chmod(0)
    with pytest.raises(TextError, match="must be readable, but is 'Permission denied'"):
        texts_of(path)


def test_an_input_output_error_names_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt", "x")

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(type(path), "open", fail)
    with pytest.raises(TextError, match=r"a\.txt` must be readable, but is 'Input/output error'"):
        texts_of(path)


@pytest.mark.parametrize("encoding", ["utf-9", "hex", ""])
def test_an_unknown_encoding_is_an_error(encoding):
    with pytest.raises(SettingError, match="`encoding` must be a text encoding that Python knows, but is"):
        read_documents(["-"], encoding=encoding)


def test_an_unknown_error_handler_is_an_error():
    with pytest.raises(SettingError, match="`errors` must be one of strict, replace, ignore, but is 'skip'"):
        read_documents(["-"], errors="skip")
