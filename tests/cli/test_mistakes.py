"""Each mistake gives one line (what, rule, value, next step), status 2, and leaves nothing behind."""

import errno
import re
import shutil

import pytest

import tokenspace
from tokenspace import Corpus, Tokenizer
from tokenspace.corpus import build_corpus
from tokenspace.text import read_strings

WORDING = re.compile(r"`[^`]+` must .+, but is .+\. [A-Z].*[.?]")


@pytest.fixture
def refused(command, tmp_path):
    """Calls the command line, and gives the one line of a refusal."""

    def call(*arguments):
        before = sorted(tmp_path.iterdir())
        result = command(*arguments)
        assert result.status == 2, result
        assert WORDING.fullmatch(result.error_line), result.error_line
        assert result.err == f"error: {result.error_line}\n"
        assert sorted(tmp_path.iterdir()) == before
        assert "Traceback" not in result.err
        return result.error_line

    return call


@pytest.fixture
def training(refused, tmp_path):
    def call(source, *arguments):
        return refused("train", source, "-o", tmp_path / "out", "--tokenizer", "train:300", *arguments)

    return call


def test_a_missing_file(training, tmp_path):
    assert str(tmp_path / "none.txt") in training(tmp_path / "none.txt")


def test_a_file_that_may_not_be_read(training, story, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert training(story) == (
        f"`{story}` must be readable, but is 'Permission denied'. Check the file and its rights."
    )


def test_an_empty_text(training, tmp_path):
    (tmp_path / "empty.txt").touch()
    assert "at least one token" in training(tmp_path / "empty.txt")


def test_a_text_shorter_than_a_window(training, story):
    assert "more than 5000 tokens" in training(story, "-c", "context_length=5000")


def test_bytes_that_are_no_utf8_name_their_place_and_the_likely_encoding(training, command, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(("Der Käse liegt über der Tür. Schöne Grüße aus Köln! " * 60).encode("latin-1"))
    line = training(path)
    assert "byte 5" in line and "--encoding" in line and "--errors replace" in line
    assert re.search(r"latin|cp125|iso|8859", line, re.IGNORECASE)
    for number, more in enumerate((("--encoding", "latin-1"), ("--errors", "replace"))):
        out = tmp_path / f"out{number}"
        sizes = ("-c", "steps=1", "-c", "d_model=16", "-c", "context_length=8")
        assert command("train", path, "-o", out, "--tokenizer", "train:300", *sizes, *more).status == 0


@pytest.mark.parametrize("setting", ["stride", "steps", "batch_size", "d_model", "num_layers", "context_length"])
@pytest.mark.parametrize("value", ["0", "-2", "1.5", "many"])
def test_sizes_that_are_no_counts(training, story, setting, value):
    assert training(story, "-c", f"{setting}={value}").startswith(f"`{setting}` must be a whole number")


def test_heads_that_do_not_divide_the_dimensions(training, story):
    line = training(story, "-c", "d_model=64", "-c", "num_heads=7")
    assert line.startswith("`d_model` must be divisible by num_heads = 7, but is 64.")


@pytest.mark.parametrize(
    ("setting", "name"),
    [("setting=1", "setting"), ("positions=rotory", "positions"), ("init=none", "init"), ("dropout=1.5", "dropout")],
)
def test_settings_that_nothing_knows(training, story, setting, name):
    assert training(story, "-c", setting).startswith(f"`{name}` must ")


def test_a_config_that_is_no_toml(training, story, tmp_path):
    (tmp_path / "broken.toml").write_text("steps = = 3", encoding="utf-8")
    assert "broken.toml" in training(story, "-c", tmp_path / "broken.toml")


@pytest.mark.parametrize("spec", ["gpt3", "train:many", "train:3", "no/such/tokenizer.json"])
def test_tokenizers_that_are_none(refused, story, tmp_path, spec):
    refused("train", story, "-o", tmp_path / "out", "--tokenizer", spec)


def test_a_tokenizer_beside_a_corpus_that_has_its_own(refused, tmp_path, trained):
    line = refused("train", trained.path / "corpus", "-o", tmp_path / "out", "--tokenizer", "train:300")
    assert line.startswith("`tokenizer` must not be given with a corpus")


def test_a_device_that_is_not_there(training, story):
    assert training(story, "--device", "warp").startswith("`device` must ")


def test_an_output_folder_that_exists(refused, story, tmp_path):
    (tmp_path / "out").mkdir()
    assert "not exist yet" in refused("train", story, "-o", tmp_path / "out", "--tokenizer", "train:300")
    assert "not exist yet" in refused("corpus", "build", story, "-o", tmp_path / "out")


def test_a_disk_that_is_full(training, story, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tokenspace.checkpoint.state.save_file", full)
    assert "room" in training(story, "-c", "steps=1")


def test_an_output_folder_below_a_file(refused, story):
    line = refused("corpus", "build", story, "-o", story / "corpus")
    assert line == f"`{story}` must be open to what was asked, but is 'File exists'. Check the path and its rights."


@pytest.mark.parametrize(
    "arguments", [("trian",), ("train",), ("train", "a", "--typo"), ("inspect",), ("corpus", "bild")]
)
def test_verbs_and_flags_that_are_none_end_with_status_2(command, arguments):
    result = command(*arguments)
    assert result.status == 2
    assert "Traceback" not in result.err and "error: " in result.err


@pytest.mark.parametrize("verb", [("inspect",), ("generate",), ("train", "--resume"), ("inspect", "tokens", "a")])
def test_a_folder_that_is_no_run(refused, tmp_path, verb):
    (tmp_path / "none").mkdir()
    assert "config.toml" in refused(*verb, tmp_path / "none")


def test_a_token_outside_the_vocabulary(refused, trained):
    assert "300000" in refused("inspect", trained.path, "--token", "300000")


def test_a_token_of_no_text(refused, trained):
    assert refused("inspect", trained.path, "--token", "").startswith("`token` must be an id or text")


def test_no_neighbours(refused, trained):
    line = refused("inspect", trained.path, "--neighbours", "0")
    assert line.startswith("`neighbours` must be a whole number of at least 1, but is 0.")


def flip_middle(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [flip_middle, cut_short])
@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.idx", "manifest.json", "tokenizer.json"])
def test_a_damaged_corpus(refused, tmp_path, story, name, damage):
    corpus = tmp_path / "corpus"
    build_corpus(read_strings([story.read_text(encoding="utf-8")]), Tokenizer.gpt2(), corpus)
    damage(corpus / name)
    assert name.partition(".")[0] in refused("corpus", "verify", corpus)
    assert name.partition(".")[0] in refused("train", corpus, "-o", tmp_path / "out")


@pytest.mark.parametrize("damage", [flip_middle, cut_short])
@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "state.json"])
def test_a_damaged_checkpoint(refused, tmp_path, trained, name, damage):
    shutil.copytree(trained.path, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "00000030" / name)
    assert name in refused("train", "--resume", tmp_path / "run")


def test_a_corpus_of_another_tokenizer(refused, tmp_path, trained, story):
    shutil.copytree(trained.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "corpus")
    build_corpus(read_strings([story.read_text(encoding="utf-8")]), Tokenizer.gpt2(), tmp_path / "run" / "corpus")
    assert "made with another" in refused("train", "--resume", tmp_path / "run")


def test_ids_outside_the_table_are_refused_before_the_model(trained):
    with pytest.raises(tokenspace.errors.ShapeError, match=r"`token_ids` must lie in \[0, \d+\), but is 5000"):
        next(trained.model().generate([5000], 1))


def test_an_altered_corpus_is_found_before_training_begins(tmp_path, story):
    build_corpus(read_strings([story.read_text(encoding="utf-8")]), Tokenizer.gpt2(), tmp_path / "c")
    flip_middle(tmp_path / "c" / "train-00000.bin")
    with pytest.raises(tokenspace.errors.CorpusError, match="checksum"):
        tokenspace.train(tmp_path / "c", out=tmp_path / "run", steps=1)
    assert Corpus.open(tmp_path / "c").num_tokens > 0  # opening alone reads no ids


def test_moved_cannot_be_told_without_a_ledger(refused, tmp_path, trained):
    shutil.copytree(trained.path, tmp_path / "run")
    (tmp_path / "run" / "ledger.safetensors").unlink()
    assert "must have a ledger for --moved" in refused("inspect", tmp_path / "run", "--moved")


def test_a_ledger_cut_short(refused, tmp_path, trained):
    shutil.copytree(trained.path, tmp_path / "run")
    cut_short(tmp_path / "run" / "ledger.safetensors")
    assert "must be a ledger that can be read" in refused("inspect", tmp_path / "run", "--untrained")


def test_one_question_at_a_time(refused, trained):
    assert "`token` must stand without" in refused("inspect", trained.path, "--untrained", "--token", "cat")


def test_a_limit_of_nothing(refused, trained):
    assert "`limit`" in refused("inspect", trained.path, "--moved", "--limit", 0)
