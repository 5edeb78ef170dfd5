"""The prose that every CPython carries, from a library made up for the test, and from the real one."""

import sysconfig

import pytest

from tokenspace import prose

LONG = "A sentence that is long enough to be more than a signature, which most short docstrings are. "


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A folder that stands for the standard library; returns a function that writes a file into it."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: {"stdlib": str(tmp_path)}[name])

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def found():
    return list(prose.documents())


def test_docstrings_of_modules_classes_and_functions(library):
    library(
        "a.py", f'"""One. {LONG}"""\nclass A:\n    """Two. {LONG}"""\n    def f(self):\n        """Three. {LONG}"""\n'
    )
    library("b.py", f'async def f():\n    """Four. {LONG}"""\n')
    assert [text.split(".")[0] for text in found()] == ["One", "Two", "Three", "Four"]


def test_other_strings_are_left_out(library):
    library("a.py", f'text = """{LONG}"""\n"""{LONG}"""\n')
    assert found() == []


def test_topics_come_first_by_name(library):
    library("a.py", f'"""Docstring. {LONG}"""')
    library("pydoc_data/topics.py", f"# made\ntopics = {{'b': 'Beta. {LONG}', 'a': 'Alpha. {LONG}'}}\n")
    assert [text.split(".")[0] for text in found()] == ["Alpha", "Beta", "Docstring"]


def test_a_library_without_topics(library):
    library("a.py", f'"""{LONG}"""')
    assert len(found()) == 1


def test_each_text_comes_once(library):
    library("a.py", f'"""{LONG}"""')
    library("b.py", f'"""{LONG}"""')
    assert found() == [LONG]


@pytest.mark.parametrize(("length", "kept"), [(79, False), (80, True)])
def test_short_docstrings_are_left_out(library, length, kept):
    library("a.py", f'"""{"x" * length}"""')
    assert bool(found()) is kept


def test_indentation_is_taken_away(library):
    library("a.py", f'class A:\n    """First.\n\n    {LONG}\n        deeper\n    """\n')
    assert found() == [f"First.\n\n{LONG}\n    deeper"]


@pytest.mark.parametrize("folder", ["test", "tests", "json/tests", "idlelib/idle_test", "site-packages/x", "lib2to3"])
def test_tests_and_other_peoples_packages_are_left_out(library, folder):
    library(f"{folder}/a.py", f'"""{LONG}"""')
    assert found() == []


def test_a_folder_whose_name_only_contains_test_is_read(library):
    library("unittest/a.py", f'"""{LONG}"""')
    assert len(found()) == 1


@pytest.mark.parametrize("data", [b"def (", b"\xff\xfe\x00", b"x = '\x00'", b"# coding: no-such\nx = 1"])
def test_files_that_are_no_python_are_passed_over(library, data):
    library("a.py", data)
    library("b.py", f'"""{LONG}"""')
    assert len(found()) == 1


def test_a_file_that_cannot_be_read_is_passed_over(library, tmp_path):
    (tmp_path / "a.py").symlink_to(tmp_path / "absent")
    library("b.py", f'"""{LONG}"""')
    assert len(found()) == 1


def test_files_are_parsed_and_never_run(library, tmp_path):
    library("a.py", f'"""{LONG}"""\nraise SystemExit\nopen(r"{tmp_path / "made"}", "w")\n')
    assert len(found()) == 1
    assert not (tmp_path / "made").exists()


def test_the_librarys_own_syntax_warnings_are_not_shown(library):
    library("a.py", f'"""{LONG}"""\nx = "\\d"\nx is "y"\n')
    assert len(found()) == 1  # warnings are errors here


def test_the_real_library_is_enough_to_learn_from():
    documents = prose.documents()
    texts = list(documents)
    assert sum(map(len, texts)) > 1_500_000
    assert len(texts) == len(set(texts)) > 3000
    assert all(isinstance(text, str) and len(text) >= 80 for text in texts)


def test_the_order_is_fixed():
    first = [text for _, text in zip(range(50), prose.documents(), strict=False)]
    assert first == [text for _, text in zip(range(50), prose.documents(), strict=False)]
