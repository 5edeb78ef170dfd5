"""The code in the documents runs, their commands exist, and what they say of the tree is true."""

import re
import shlex
from pathlib import Path

import pytest

from tokenspace import positions

ROOT = Path(__file__).parents[2]
SCHEME_PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs" / "positions").glob("*.md"))
PAGES = (
    "README.md",
    "README.hi.md",
    "docs/tutorial.md",
    "docs/rowwise.md",
    "docs/ledger.md",
    "docs/atlas.md",
    "docs/interchange.md",
    "docs/loading.md",
    "docs/many-processes.md",
    "docs/corpora.md",
    "docs/vocabulary.md",
    "docs/models.md",
    "docs/study.md",
    *SCHEME_PAGES,
)


def blocks(page, language):
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page):
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("tokenspace ")]


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run_in_order_in_one_session(page, capsys):
    namespace = {}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{page}, block {number}", "exec"), namespace)
    assert namespace


@pytest.mark.parametrize("arguments", [c for page in PAGES for c in commands(page)], ids=" ".join)
def test_commands_are_ones_the_command_line_takes(arguments):
    from tokenspace.cli import app

    app.parse_args(arguments, exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    "arguments",
    [c for page in PAGES for c in commands(page) if c[:2] in (["inspect", "tokens"], ["inspect", "order"])],
    ids=" ".join,
)
def test_what_needs_no_run_runs(arguments, command):
    assert command(*arguments).status == 0


def test_what_the_hindi_page_shows_of_word_order_is_what_comes_out(command):
    shown = next(block for block in blocks("README.hi.md", "text") if "As bags" in block)
    arguments = next(c for c in commands("README.hi.md") if c[:2] == ["inspect", "order"])
    lines = [re.sub(" +", " ", line).rstrip() for line in command(*arguments).out.splitlines()]
    for line in shown.splitlines():
        assert re.sub(" +", " ", line).rstrip() in lines


def test_the_two_commands_stand_in_the_first_15_lines():
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:15]
    assert any("make demo" in line for line in first) and any("make test" in line for line in first)
    assert any("pip install ." in line and "tokenspace demo" in line for line in first)


def test_the_tree_names_every_file_and_no_other():
    tree = next(block for block in blocks("README.md", "text") if block.startswith("src/tokenspace/"))
    folder, named = "", set()
    for line in tree.splitlines()[1:]:
        match = re.match(r"^( +)(\S+)  +\S", line)
        if not match:
            break
        indent, name = len(match[1]), match[2]
        if name.endswith("/"):
            folder = name
        else:
            named.add((folder if indent > 2 else "") + name)
    source = ROOT / "src" / "tokenspace"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert named == {name for name in files if not name.endswith("/__init__.py")}


@pytest.mark.parametrize("page", [*PAGES, "docs/glossary.md", "docs/log.md", "CHANGELOG.md"])
def test_links_between_documents_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert all(((ROOT / page).parent / target).exists() for target in targets)


def test_every_scheme_has_a_page_with_a_picture_and_a_place_in_the_list():
    listed = (ROOT / "docs/positions/README.md").read_text(encoding="utf-8")
    for name in positions.available():
        page = (ROOT / f"docs/positions/{name}.md").read_text(encoding="utf-8")
        assert f"](pictures/{name}.svg)" in page
        assert "**Enters:**" in page and "arXiv" in page and "## Beyond the trained length" in page
        assert f"[{name}]({name}.md)" in listed
    assert len(SCHEME_PAGES) == len(positions.available()) + 1
