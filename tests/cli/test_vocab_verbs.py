"""`tokenspace vocab`: what the verbs make, say and refuse."""

import json

import numpy as np
import pytest
import torch

from tokenspace import Run, Tokenizer
from tokenspace.vocabulary import Receipt


def test_add_makes_a_run_with_the_tokens_and_says_so(command, trained, tmp_path):
    (tmp_path / "text.txt").write_text("The cat saw the dog.", encoding="utf-8")
    (tmp_path / "more.txt").write_text('<bot>\n"a\\nb"\n\n', encoding="utf-8")
    flags = ["--tokens-from", tmp_path / "more.txt", "--special", "--multiple", 8, "--text", tmp_path / "text.txt"]
    outcome = command("vocab", "add", trained.path, "<user>", "-o", tmp_path / "new", *flags)
    assert outcome.status == 0, outcome.err
    new = Run.open(tmp_path / "new")
    size = trained.tokenizer.vocab_size
    assert list(new.tokenizer.special_tokens)[-3:] == ["<user>", "<bot>", "a\nb"]
    assert new.model_config.vocab_size % 8 == 0 and new.tokenizer.vocab_size == size + 3
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert f"tokens (largest id + 1) {size} {size + 3}" in lines and "head tied tied" in lines
    assert "KL of the tokens that stayed, nats 0" in lines and "3 added, 0 removed" in lines
    assert "receipt.json" in outcome.err


def test_json_is_the_receipt(command, trained, tmp_path):
    outcome = command("vocab", "add", trained.path, "<user>", "-o", tmp_path / "new", "--json")
    fields = json.loads(outcome.out)
    receipt = Receipt.load(tmp_path / "new" / "receipt.json")
    assert fields["verb"] == "add" and fields["out"] == str(tmp_path / "new")
    assert fields["added"] == receipt.added and fields["after"]["vocab_size"] == receipt.after.vocab_size


def test_vectors_are_a_recipe_of_their_own(command, trained, tmp_path):
    row = " ".join(["0.5"] * trained.model_config.d_model)
    (tmp_path / "words.txt").write_text(f"1 {trained.model_config.d_model}\nsofa {row}\n", encoding="utf-8")
    outcome = command(
        "vocab", "add", trained.path, " sofa", "-o", tmp_path / "new", "--vectors", tmp_path / "words.txt"
    )
    assert outcome.status == 0, outcome.err
    table = Run.open(tmp_path / "new").embedding().token.weight
    assert (table[trained.tokenizer.vocab_size] == 0.5).all()


def test_remove_takes_text_and_ids(command, trained, tmp_path):
    word = trained.tokenizer.encode(" slept")
    assert len(word) == 1
    for name, which in (("a", [" slept"]), ("b", ["--id", word[0]])):
        outcome = command("vocab", "remove", trained.path, *which, "-o", tmp_path / name)
        assert outcome.status == 0, outcome.err
    a, b = (Run.open(tmp_path / name) for name in "ab")
    assert a.tokenizer.identity == b.tokenizer.identity
    assert a.tokenizer.vocab_size == trained.tokenizer.vocab_size - 1


def test_trim_takes_text_or_a_corpus_or_the_runs_own(command, trained, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The cat saw the dog.", encoding="utf-8")
    built = command("corpus", "build", text, "-o", tmp_path / "corpus", "--tokenizer", trained.path / "tokenizer.json")
    assert built.status == 0, built.err
    for name, sources in (("by_text", [text]), ("by_corpus", [tmp_path / "corpus"]), ("by_own", [])):
        outcome = command("vocab", "trim", trained.path, *sources, "-o", tmp_path / name)
        assert outcome.status == 0, outcome.err
    a, b, c = (Run.open(tmp_path / name).tokenizer for name in ("by_text", "by_corpus", "by_own"))
    assert a.identity == b.identity and a.vocab_size < c.vocab_size <= trained.tokenizer.vocab_size
    assert len(a.encode("The cat saw the dog.")) == len(trained.tokenizer.encode("The cat saw the dog."))


def test_reorder_puts_the_most_frequent_first_or_takes_an_order(command, trained, tmp_path, story):
    assert command("vocab", "reorder", trained.path, "-o", tmp_path / "own").status == 0
    assert command("vocab", "reorder", trained.path, story, "-o", tmp_path / "story").status == 0
    size = trained.tokenizer.vocab_size
    (tmp_path / "order.json").write_text(json.dumps([*range(size - 2, -1, -1), size - 1]))
    assert (
        command("vocab", "reorder", trained.path, "-o", tmp_path / "new", "--order", tmp_path / "order.json").status
        == 0
    )
    counts = np.bincount(trained.tokenizer.encode(story.read_text()), minlength=size)
    assert Tokenizer.from_file(tmp_path / "story" / "tokenizer.json").label(0) == trained.tokenizer.label(
        counts.argmax()
    )
    own = Run.open(tmp_path / "own").embedding().token.weight
    map_ = torch.from_numpy(Receipt.load(tmp_path / "own" / "receipt.json").id_map)
    assert torch.equal(own[map_], trained.embedding().token.weight)
    assert Tokenizer.from_file(tmp_path / "new" / "tokenizer.json").label(0) == trained.tokenizer.label(size - 2)


def test_resize_changes_rows_and_positions(command, trained, tmp_path):
    flags = ["--multiple", 64, "--positions", 24, "--interpolate"]
    outcome = command("vocab", "resize", trained.path, "-o", tmp_path / "new", *flags)
    assert outcome.status == 0, outcome.err
    config = Run.open(tmp_path / "new").model_config
    assert config.vocab_size % 64 == 0 and config.context_length == 24


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["add", "{run}", " the"], "`token ' the'` must be new, but is 'token {the} already'. Leave it out."),
        (["add", "{run}", ""], "`token` must have at least one character, but is ''. Leave it out."),
        (
            ["add", "{run}", "-x"],
            "`flag` must be one that --help lists, but is '-x'. For a file of that name give ./-x.",
        ),
        (["add", "{run}", "<a>", "--init", "vectors"], "`vectors` must be given with init 'vectors', and only then, "),
        (["add", "{run}", "<a>", "--seed", "-1"], "`seed` must be a whole number of at least 0, but is -1. "),
        (["remove", "{run}", "nonesuch"], "`token 'nonesuch'` must be one of the vocabulary, but is 'unknown'. "),
        (["remove", "{run}", "a"], "`token 'a'` must stay, but is 'needed for texts of any bytes or letters'. "),
        (["resize", "{run}"], "`rows` must be given, or --multiple or --positions, but is 'none of them'. "),
        (["resize", "{run}", "--rows", "5"], "`num_rows` must be at least the tokenizer's "),
        (["trim", "{run}", "{tmp}/none.txt"], "`source` must be "),
        (["trim", "no/such/model"], "`model` must be "),
        (["reorder", "{run}", "--order", "{tmp}/bad.json"], "`{tmp}/bad.json` must hold a JSON list of ids, but is "),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(arguments, line, command, trained, tmp_path):
    (tmp_path / "bad.json").write_text("[1, x]")
    names = {"run": trained.path, "tmp": tmp_path, "the": trained.tokenizer.encode(" the")[0]}
    outcome = command("vocab", *[a.format(**names) for a in arguments], "-o", tmp_path / "new")
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.error_line.startswith(line.format(**names))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.json"]


def test_an_output_that_exists_is_refused(command, trained, tmp_path):
    outcome = command("vocab", "add", trained.path, "<a>", "-o", tmp_path)
    assert outcome.status == 2 and outcome.error_line.startswith("`out` must not exist yet")


def test_no_verb_has_more_than_ten_flags():
    import inspect

    from tokenspace.cli import vocab

    for verb in (vocab.add, vocab.remove, vocab.trim, vocab.reorder, vocab.resize):
        flags = [p for p in inspect.signature(verb).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert 2 <= len(flags) <= 10


def test_tokens_of_a_file_end_where_lines_end_and_nowhere_else(command, trained, tmp_path):
    (tmp_path / "more.txt").write_bytes("\ufefffirst\r\none\u2028two\r\n".encode())
    outcome = command("vocab", "add", trained.path, "-o", tmp_path / "new", "--tokens-from", tmp_path / "more.txt")
    assert outcome.status == 0, outcome.err
    assert [added["token"] for added in Receipt.load(tmp_path / "new" / "receipt.json").added] == [
        "first",
        "one\u2028two",
    ]
