"""Every verb does what its help says: data on stdout, remarks on stderr, status 0."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch

import tokenspace
from tokenspace import Corpus, Run, Tokenizer, positions
from tokenspace.cli import app

TINY = ("-c", "steps=4", "-c", "d_model=16", "-c", "context_length=16", "-c", "num_layers=1")


def test_train_says_the_sizes_it_chose_and_what_to_type_next(command, story, tmp_path):
    result = command("train", story, "-o", tmp_path / "run", "--tokenizer", "train:300", "-c", "steps=4")
    assert result.status == 0
    assert "chosen to suit the text" in result.err and "d_model 64" in result.err
    assert "tokens a word" in result.err and "encoded by fastokens" in result.err
    assert "smoothed unigram model" in result.out and "untrained" in result.out
    assert f"tokenspace inspect {tmp_path / 'run'}" in result.out
    assert Run.open(tmp_path / "run").step == 4


def test_train_takes_toml_pairs_and_flags_the_later_over_the_earlier(command, story, tmp_path):
    (tmp_path / "sizes.toml").write_text('steps = 9\n[model]\nd_model = 16\npositions = "none"\n', encoding="utf-8")
    settings = ("-c", tmp_path / "sizes.toml", "-c", "steps=3", "--positions", "sinusoidal")
    assert command("train", story, "-o", tmp_path / "run", "--tokenizer", "train:300", *settings).status == 0
    config = Run.open(tmp_path / "run").config
    assert (config["training"]["steps"], config["model"]["d_model"]) == (3, 16)
    assert config["model"]["positions"] == "sinusoidal"


def test_train_without_out_takes_the_first_free_name(command, story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert command("train", story, "--tokenizer", "train:300", *TINY).status == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"story", "story-2"}


def test_train_reads_standard_input_twice_for_a_vocabulary(story, tmp_path):
    arguments = [sys.executable, "-m", "tokenspace", "train", "-", "--tokenizer", "train:300", "-o", "run", *TINY]
    done = subprocess.run(arguments, input=story.read_bytes(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    direct = tokenspace.train(story, out=tmp_path / "direct", tokenizer="train:300", steps=1, d_model=16)
    assert Run.open(tmp_path / "run").tokenizer.identity == direct.tokenizer.identity


def test_resume_of_a_finished_run_shows_its_end_again(command, trained):
    result = command("train", "--resume", trained.path)
    assert result.status == 0
    assert "smoothed unigram model" in result.out


def test_a_corpus_is_built_verified_and_trained_on(command, story, tmp_path):
    corpus = tmp_path / "corpus"
    built = command("corpus", "build", story, "-o", corpus, "--tokenizer", "train:300", "--json")
    assert built.status == 0
    counts = json.loads(built.out)["splits"]
    assert counts["train"]["tokens"] == Corpus.open(corpus).num_tokens
    assert command("corpus", "verify", corpus, "--json").out == built.out
    assert command("train", corpus, "-o", tmp_path / "run", *TINY).status == 0
    assert Run.open(tmp_path / "run").config["corpus"]["path"] == corpus.as_posix()


def test_a_vocabulary_that_tears_the_script_apart_is_named_with_its_remedy(command, tmp_path):
    (tmp_path / "hi.txt").write_text("बिल्ली चटाई पर बैठी है और कुत्ता देख रहा है। " * 20, encoding="utf-8")
    result = command("corpus", "build", tmp_path / "hi.txt", "-o", tmp_path / "c")
    assert "train:8000" in result.err


def test_generate_is_the_same_for_the_same_seed(command, trained):
    first, second = (
        command("generate", trained.path, "--prompt", "The cat", "--tokens", 12, "--seed", 5) for _ in range(2)
    )
    assert first.status == 0
    assert first.out == second.out
    assert first.out.startswith("The cat")


def test_generate_json_holds_the_text_that_is_printed_without_it(command, trained):
    arguments = ("generate", trained.path, "--prompt", "The", "--tokens", 8, "--seed", 3)
    fields = json.loads(command(*arguments, "--json").out)
    assert command(*arguments).out == fields["prompt"] + fields["text"] + "\n"
    assert len(fields["token_ids"]) <= 8


def test_generate_shows_a_character_that_never_got_its_last_bytes(command, trained, monkeypatch):
    begun = trained.tokenizer.encode("द")[:1]
    monkeypatch.setattr("tokenspace.model.LanguageModel.generate", lambda *arguments, **options: iter(begun))
    assert command("generate", trained.path, "--prompt", "The").out == "The\N{REPLACEMENT CHARACTER}\n"


def test_export_opens_in_transformers_with_the_same_logits(command, trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert command("export", trained.path, "-o", tmp_path / "hf").status == 0
    ids = torch.tensor([trained.tokenizer.encode("The cat sat on the mat")])
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        torch.testing.assert_close(trained.model()(ids), theirs(ids).logits, atol=1e-5, rtol=0)


def test_inspect_tokens_adds_up(command, trained):
    fields = json.loads(command("inspect", "tokens", "The cat sat", trained.path, "--json").out)
    assert [row["id"] for row in fields["tokens"]] == trained.tokenizer.encode("The cat sat")
    assert [row["position"] for row in fields["tokens"]] == list(range(len(fields["tokens"])))
    for row in fields["tokens"]:
        added = [token + position for token, position in zip(row["token"], row["position_vector"], strict=True)]
        assert row["sum"] == pytest.approx(added, abs=1e-6)


def test_inspect_tokens_without_a_run_is_the_same_every_time_and_says_that_it_is_random(command):
    first, second = (command("inspect", "tokens", "The cat") for _ in range(2))
    assert first.out == second.out
    assert "random" in first.err and "␣cat" in first.out


PAIRS = [("बिल्ली चटाई पर बैठी", "चटाई बिल्ली पर बैठी"), ("dog bites man", "man bites dog")]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("vocabulary", ["gpt2", "trained"])
def test_order_is_lost_in_a_bag_and_kept_with_positions(command, tmp_path, pair, vocabulary):
    if vocabulary == "trained":
        vocabulary = tmp_path / "tokenizer.json"
        Tokenizer.train([" ".join(PAIRS[0] + PAIRS[1]) * 20], 330).save(vocabulary)
    fields = json.loads(command("inspect", "order", *pair, "--tokenizer", vocabulary, "--json").out)
    assert fields["same_tokens"] and fields["bag_distance"] == 0
    assert fields["set_distance"] > 1
    assert [word["word"] for word in fields["words"]] == pair[0].split()
    shown = command("inspect", "order", *pair, "--tokenizer", vocabulary).out
    assert "one space before it" in shown and "order is lost" in shown


def test_without_positions_the_two_orders_stay_the_same(command):
    fields = json.loads(command("inspect", "order", *PAIRS[1], "--positions", "none", "--json").out)
    assert fields["set_distance"] == 0


def test_other_words_are_said_to_differ(command):
    assert "do not have the same tokens" in command("inspect", "order", "a cat", "a dog").out


def test_inspect_a_run(command, trained):
    result = command("inspect", trained.path, "--token", " cat", "--neighbours", 3)
    assert result.status == 0
    assert "token table" in result.out and "learned positions" in result.out and "█" in result.out
    fields = json.loads(command("inspect", trained.path, "--token", " cat", "--neighbours", 3, "--json").out)
    assert fields["tables"][0]["shape"] == [trained.tokenizer.vocab_size, 16]
    assert len(fields["neighbours"]["nearest"]) == 3


def test_digits_are_ids_only_in_ascii(command, trained):
    as_id, as_text = (command("inspect", trained.path, "--token", token) for token in ("5", "५"))
    assert f"nearest to {trained.tokenizer.label(5)} " in as_id.out
    assert f"nearest to {trained.tokenizer.label(trained.tokenizer.encode('५')[0])} " in as_text.out
    assert "is 3 tokens" in as_text.err


def test_output_is_utf8_where_a_pipe_has_another_encoding(tmp_path):
    arguments = [sys.executable, "-m", "tokenspace", "inspect", "tokens", "The बिल्ली", "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(arguments, capture_output=True, env=environment, cwd=tmp_path, check=True)
    rows = json.loads(done.stdout.decode("utf-8"))["tokens"]
    assert rows[1]["label"].startswith("␣")
    assert b"".join(bytes.fromhex(row["bytes"]) for row in rows).decode() == "The बिल्ली"


def test_no_bar_is_drawn_where_there_is_no_terminal(command, story, tmp_path):
    result = command("train", story, "-o", tmp_path / "run", "--tokenizer", "train:300", *TINY)
    assert not re.search("[━╸╺\x1b\r]", result.err)
    assert result.err.endswith("nats per token\n")


def test_help_is_there_at_once():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tokenspace", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0  # some 0.2 s on an idle machine; benchmarks/ has the figure


def test_help_lists_the_verbs_and_loads_no_heavy_library():
    program = (
        "import sys, tokenspace.cli\n"
        "try: tokenspace.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'tokenizers', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for verb in ("demo", "train", "generate", "inspect", "export", "corpus"):
        assert verb in done.stdout


def test_every_public_name_is_there():
    for name in tokenspace.__all__:
        assert getattr(tokenspace, name) is not None


def verbs(command_app):
    for name in command_app:
        if not name.startswith("-"):
            below = command_app[name]
            yield below
            yield from verbs(below)


def test_no_verb_has_more_than_ten_flags_but_train_with_twelve_and_compare_with_eleven():
    counted = 0
    for verb in verbs(app):
        if verb.default_command is None:
            continue
        flags = [argument for argument in verb.assemble_argument_collection() if argument.name.startswith("--")]
        counted += len(flags) > 0
        more = {("train",): 2, ("compare",): 1}
        assert len(flags) <= 10 + more.get(verb.name, 0), verb.name
    assert counted >= 8


@pytest.mark.parametrize("name", positions.available())
def test_train_takes_every_scheme_by_name(name, command, story, tmp_path):
    out = tmp_path / "run"
    members = "position_settings.members=[{name='rotary', layers=[0]}, {name='alibi'}]"
    more = ["-c", members] if name == "compose" else []
    sizes = [f"{size}" for size in ("steps=3", "d_model=16", "num_layers=2", "context_length=16")]
    settings = [word for size in sizes for word in ("-c", size)]
    trained = command("train", story, "--positions", name, "--tokenizer", "train:300", "-o", out, *settings, *more)
    assert trained.status == 0, trained.err
    assert Run.open(out).config["model"]["positions"] == name
    assert command("generate", out, "--prompt", "The", "--tokens", 20).status == 0  # beyond the context


def test_settings_of_a_scheme_are_added_up(command, story, tmp_path):
    settings = ["position_settings.theta=500.0", "position_settings.order='interleaved'", "steps=1"]
    arguments = [word for setting in settings for word in ("-c", setting)]
    out = tmp_path / "run"
    assert (
        command("train", story, "--positions", "rotary", "--tokenizer", "train:300", "-o", out, *arguments).status == 0
    )
    assert Run.open(out).config["model"]["position_settings"] == {"theta": 500.0, "order": "interleaved"}


def test_train_takes_an_optimizer_by_name(command, story, tmp_path):
    small = ("-c", "steps=2", "-c", "d_model=8", "--tokenizer", "train:300", "-o", tmp_path / "run")
    assert command("train", story, "--optimizer", "rowwise", *small).status == 0
    assert 'optimizer = "rowwise"' in (tmp_path / "run" / "config.toml").read_text()


# what training did to the tokens


def test_inspect_untrained_names_the_tokens_that_training_never_saw(command, trained):
    never = [i for i, count in enumerate(trained.ledger.input_count + trained.ledger.target_count) if not count]
    found = json.loads(command("inspect", trained.path, "--untrained", "--json").out)["untrained"]
    assert [token["id"] for token in found["tokens"]] == never
    shown = command("inspect", trained.path, "--untrained", "--limit", 2).out
    assert f"{len(never)} tokens never seen, yet moved (the softmax of a tied head moves all)" in shown
    assert f"and {len(never) - 2:,} more" in shown


def test_inspect_moved_names_the_tokens_that_moved_most(command, trained):
    found = json.loads(command("inspect", trained.path, "--moved", "--limit", 3, "--json").out)["moved"]["tokens"]
    assert [token["id"] for token in found] == (-trained.ledger.displacement).argsort(kind="stable")[:3].tolist()
    assert found[0]["label"] in command("inspect", trained.path, "--moved").out


def test_a_saved_gpt2_without_a_ledger_gives_indicators_and_says_so(command, trained, tmp_path):
    command("export", trained.path, "-o", tmp_path / "hf")
    shown = command("inspect", tmp_path / "hf", "--untrained").out
    assert "no ledger" in shown and "not counts" in shown and "cosine distance" in shown
    found = json.loads(command("inspect", tmp_path / "hf", "--untrained", "--json").out)["indicators"]
    assert len(found["unused"]) == 13 and len(found["tokens"]) == 20


def test_a_run_that_kept_no_ledger_gives_indicators(command, trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    (tmp_path / "run" / "ledger.safetensors").unlink()
    assert "no ledger" in command("inspect", tmp_path / "run", "--untrained").out
