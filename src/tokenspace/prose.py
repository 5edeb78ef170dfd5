"""English prose that every CPython carries: its reference topics and its library's docstrings.

Some two million characters about one subject, present without a download. The files are
read and parsed, never imported or run. The text differs a little between versions of
Python and is the same for one version.
"""

import ast
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

_SHORTEST = 80  # characters; shorter docstrings are mostly signatures


def documents() -> Iterator[str]:
    """The documents, in a fixed order, each once.

    Example:
        >>> "assert" in next(documents())
        True
    """
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    for path in [library / "pydoc_data" / "topics.py", *sorted(library.rglob("*.py"))]:
        parts = path.relative_to(library).parts
        if {"test", "tests", "idle_test", "site-packages", "lib2to3"} & set(parts):
            continue
        texts = _topics(path) if parts == ("pydoc_data", "topics.py") else _docstrings(path)
        for text in texts:
            if len(text) >= _SHORTEST and text not in seen:
                seen.add(text)
                yield text


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own strings; their kind depends on the version
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # templates that are no Python; files a distribution left out
        return None


def _topics(path: Path) -> Iterator[str]:
    """The values of the one dictionary in pydoc_data/topics.py, by name."""
    tree = _parse(path)
    if tree is None:
        return
    for statement in tree.body:
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Dict):
            yield from (text for _, text in sorted(ast.literal_eval(value).items()))


def _docstrings(path: Path) -> Iterator[str]:
    tree = _parse(path)
    if tree is None:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield textwrap.dedent(text)
