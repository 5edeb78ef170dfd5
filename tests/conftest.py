"""What several tests share: one short trained run, and a way to call the command line."""

from dataclasses import dataclass

import pytest
import tokenizers
import torch

import tokenspace
from tokenspace.cli import main
from tokenspace.model import LanguageModel
from tokenspace.model.gpt2 import save_gpt2
from tokenspace.tokenizer import Tokenizer

STORY = (
    "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. "
    "In the evening the cat slept on the mat, and the dog slept by the door. "
) * 30


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line came to."""

    status: int
    out: str
    err: str

    @property
    def error_line(self):
        """The one line that says what was wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def command(capsys, monkeypatch):
    """Calls `tokenspace` with these arguments in this process."""
    monkeypatch.setenv("COLUMNS", "300")  # errors are one line at any width; tables should not fold

    def call(*arguments):
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def story(tmp_path):
    """A text file."""
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small run with learned positions."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return tokenspace.train(
        documents=[STORY], out=out, tokenizer="train:300", d_model=16, context_length=16, num_layers=1, steps=30
    )


@pytest.fixture
def word_pieces(tmp_path):
    """A model of a WordPiece vocabulary: `[UNK]`, these, `[SEP]`."""

    def make(*pieces):
        vocabulary = {piece: i for i, piece in enumerate(["[UNK]", *pieces, "[SEP]"])}
        library = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
        library.add_special_tokens(["[UNK]", "[SEP]"])
        model = LanguageModel(vocab_size=len(vocabulary), d_model=8, context_length=8, num_layers=1, num_heads=2)
        save_gpt2(model, tmp_path / "pieces", Tokenizer.from_json(library.to_str()))
        return tmp_path / "pieces"

    return make


@pytest.fixture(scope="module")
def one_thread():
    """Small models are quicker so, and give the same numbers here and in a process of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
