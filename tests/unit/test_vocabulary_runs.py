"""Runs edited on disk: whole, consistent, and the training goes on from them."""

import json
import shutil
import tomllib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tokenspace
from tokenspace import Corpus, Run, Tokenizer, vocabulary
from tokenspace.corpus import build_corpus
from tokenspace.corpus.reencoding import reencode
from tokenspace.errors import CheckpointError, CorpusError, SettingError, TokenspaceError
from tokenspace.text import read_strings
from tokenspace.vocabulary import Add, Receipt, Remove, Reorder, Resize, Trim

STORY = (
    "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. "
    "In the evening the cat slept on the mat, and the dog slept by the door. "
) * 30
SENTENCE = "The dog saw the cat."

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["tied", "untied"])
def run(request, tmp_path_factory):
    """A run that stopped half-way; untied, its rows lag behind a row-wise optimiser."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    sizes = {"d_model": 16, "context_length": 16, "num_layers": 1, "steps": 12, "tie_head": request.param == "tied"}
    tokenspace.train(documents=[STORY, STORY[:50], ""], out=out, tokenizer="train:340", **sizes)
    return Run.open(out)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lengthened(run, steps=16):
    """The run with more steps to go."""
    file = run.path / "config.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("\nsteps = 12", f"\nsteps = {steps}"), encoding="utf-8")
    return Run.open(run.path)


@pytest.mark.parametrize("change", [Add([]), Remove([]), Resize(), Trim([STORY, STORY[:50]])], ids=lambda c: c.verb)
def test_nothing_to_do_gives_the_same_bytes_and_a_receipt(change, run, tmp_path):
    receipt = vocabulary.edit_model(run.path, tmp_path / "new", change)
    new = files(tmp_path / "new")
    if receipt.changed:  # the story does not use every token that it taught
        assert receipt.verb == "trim"
        return
    assert Receipt.load(tmp_path / "new" / "receipt.json") == receipt
    del new["receipt.json"]
    assert new == files(run.path)


CHANGES = {
    "add": Add(["<user>", "evening the"], init="normal", pad_to_multiple_of=8),
    "remove": Remove([" slept"]),
    "trim": Trim([STORY[:200]]),
    "resize": Resize(pad_to_multiple_of=128),
    "positions": Resize(num_positions=24),
    "stretched": Resize(num_positions=12, interpolate=True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_training_goes_on_from_an_edited_run(name, run, tmp_path):
    before = files(run.path)
    receipt = vocabulary.edit_model(run.path, tmp_path / "new", CHANGES[name], text=SENTENCE)
    assert files(run.path) == before
    new = Run.open(tmp_path / "new")
    assert new.tokenizer and new.frame(0) and new.ledger  # each checks itself against the config
    assert new.model_config.vocab_size == receipt.after.num_rows == new.ledger.vocab_size
    assert new.step == 12 and new.frames == run.frames
    after = tokenspace.resume(lengthened(new))
    assert after.step == 16
    assert abs(after.metrics[-1]["loss"] - run.metrics[-1]["loss"]) < 0.5
    assert after.ledger.step == 16


def test_the_model_gives_what_it_gave_on_the_tokens_that_stay(run, tmp_path):
    receipt = vocabulary.edit_model(run.path, tmp_path / "new", Trim([SENTENCE]), text=SENTENCE)
    old, new = run.model(), Run.open(tmp_path / "new")
    ids, to = run.tokenizer.encode(SENTENCE), torch.from_numpy(receipt.id_map)
    assert receipt.removed and new.tokenizer.encode(SENTENCE) == to[ids].tolist()
    kept = (to >= 0).nonzero().flatten()
    with torch.no_grad():
        before, after = old(torch.tensor([ids])), new.model()(to[torch.tensor([ids])])
    torch.testing.assert_close(after[0][:, to[kept]], before[0][:, kept])
    assert receipt.divergence == pytest.approx(0, abs=1e-9)
    assert (new.model().head.weight is new.embedding().token.weight) is False  # two calls, two models
    assert new.model_config.tie_head == receipt.tied == run.model_config.tie_head


def test_ledger_and_frames_follow_their_tokens(run, tmp_path):
    receipt = vocabulary.edit_model(run.path, tmp_path / "new", Trim([SENTENCE]))
    grown = vocabulary.edit_model(tmp_path / "new", tmp_path / "newer", Add(["<user>"], special=True))
    new, to = Run.open(tmp_path / "newer"), receipt.id_map
    kept = np.flatnonzero(to >= 0)
    for vector in ("input_count", "target_count", "last_input", "norm_start"):
        assert (getattr(new.ledger, vector)[to[kept]] == getattr(run.ledger, vector)[kept]).all()
    for step in run.frames:
        assert torch.equal(new.frame(step)["token.weight"][to[kept]], run.frame(step)["token.weight"][kept])
    added = grown.added[0]["id"]
    assert new.ledger.input_count[added] == 0 == new.ledger.displacement[added]
    assert grown.after.untrained == grown.before.untrained + 1 and grown.basis == "ledger"


def test_the_optimisers_state_follows_its_rows(run, tmp_path):
    if not run.model_config.tie_head:
        pytest.skip("rows that lag are caught up first; the next test compares where they lead")
    receipt = vocabulary.edit_model(run.path, tmp_path / "new", Trim([SENTENCE]))
    tensors = [load_file(r / "checkpoints" / "00000012" / "training.safetensors") for r in (run.path, tmp_path / "new")]
    to = torch.from_numpy(receipt.id_map)
    kept = (to >= 0).nonzero().flatten()
    names = [
        name for name, t in tensors[0].items() if name.startswith("optimizer.") and len(t.shape) and len(t) == len(to)
    ]
    assert len(names) == 2
    for name in names:
        assert torch.equal(tensors[1][name][to[kept]], tensors[0][name][kept])
        assert len(tensors[1][name]) == receipt.after.num_rows


def test_a_reordered_run_trains_on_as_the_run_itself_would(run, tmp_path):
    """One batch an epoch, so that the order of windows does not matter: the same loss, but for rounding."""
    sizes = {"d_model": 16, "context_length": 16, "num_layers": 1, "steps": 3, "tie_head": run.model_config.tie_head}
    sizes |= {"batch_size": 27, "stride": 16, "dropout": 0.0, "learning_rate": 1e-2}
    first = tokenspace.train(documents=[STORY[:1800]], out=tmp_path / "old", tokenizer="train:300", **sizes)
    assert (Corpus.open(tmp_path / "old" / "corpus").num_tokens - 1) // 16 < 54
    order = [*reversed(range(first.tokenizer.vocab_size - 1)), first.tokenizer.vocab_size - 1]
    to = vocabulary.edit_model(tmp_path / "old", tmp_path / "new", Reorder(order)).id_map
    for split in ("train", "validation"):
        old, new = (Corpus.open(tmp_path / name / "corpus", split) for name in ("old", "new"))
        assert (to[old.tokens(0, old.num_tokens)] == new.tokens(0, new.num_tokens)).all()
    losses = []
    for name in ("old", "new"):
        file = tmp_path / name / "config.toml"
        file.write_text(file.read_text(encoding="utf-8").replace("\nsteps = 3", "\nsteps = 5"), encoding="utf-8")
        metrics = tokenspace.resume(tmp_path / name).metrics
        losses.append([record["loss"] for record in metrics if record["kind"] == "step"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0][-1] < losses[0][2]


def test_the_loader_goes_on_where_it_was_when_only_padding_changes(run, tmp_path):
    vocabulary.edit_model(run.path, tmp_path / "new", Resize(pad_to_multiple_of=128))
    states = [
        json.loads((folder / "checkpoints" / "00000012" / "state.json").read_text())["loader"]
        for folder in (run.path, tmp_path / "new")
    ]
    assert states[0] == states[1]


def test_what_is_not_padding_trains_on_as_before_when_only_padding_changes(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "old")
    vocabulary.edit_model(run.path, tmp_path / "new", Resize(pad_to_multiple_of=1024))
    losses = [
        [r["loss"] for r in tokenspace.resume(lengthened(Run.open(tmp_path / name))).metrics if r["kind"] == "step"]
        for name in ("old", "new")
    ]
    assert losses[0][:12] == losses[1][:12] and len(losses[0]) == 16
    more = torch.tensor(losses[1][12:]) - torch.tensor(losses[0][12:])
    assert (more > 0).all() and (more < 1.5).all()  # padding takes its share of the softmax: 684 rows beside 340


def test_a_stopped_edit_leaves_nothing(run, tmp_path):
    with pytest.raises(TokenspaceError, match="nonesuch"):
        vocabulary.edit_model(run.path, tmp_path / "new", Remove(["nonesuch"]))
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_is_refused(run, tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(SettingError, match=r"^`out` must not exist yet"):
        vocabulary.edit_model(run.path, tmp_path / "new", Add(["<user>"]))


def test_a_corpus_that_becomes_too_short_is_refused(run, tmp_path):
    with pytest.raises(CorpusError, match=r"must have more than 5000 tokens in its train part"):
        vocabulary.edit_model(run.path, tmp_path / "new", Resize(num_positions=5000))
    assert not list(tmp_path.iterdir())


def test_files_of_vectors_are_refused(tmp_path):
    np.save(tmp_path / "table.npy", np.zeros((4, 2), np.float32))
    with pytest.raises(CheckpointError, match="must be a model with a tokenizer"):
        vocabulary.edit_model(tmp_path / "table.npy", tmp_path / "new", Add(["<user>"]))


def test_the_config_tells_of_the_new_vocabulary(run, tmp_path):
    vocabulary.edit_model(run.path, tmp_path / "new", Add(["<user>"]))
    config = tomllib.loads((tmp_path / "new" / "config.toml").read_text(encoding="utf-8"))
    new = Tokenizer.from_file(tmp_path / "new" / "tokenizer.json")
    assert config["tokenizer"]["identity"] == new.identity and config["tokenizer"]["vocab_size"] == new.vocab_size
    assert config["corpus"]["path"] == "corpus"
    assert config["corpus"]["identity"] == Corpus.open(tmp_path / "new" / "corpus", tokenizer=new).identity
    Corpus.open(tmp_path / "new" / "corpus").verify()


def whole_text(folder, tokenizer):
    """All text of a corpus, documents in order, those that both parts share put together."""
    texts = []
    for split in ("train", "validation"):
        corpus = Corpus.open(folder, split)
        texts.append(tokenizer.decode_bytes(corpus.tokens(0, corpus.num_tokens)))
    return b"".join(texts)


@pytest.mark.parametrize(
    "documents", [["one two", "", "three\n\nfour", "बिल्ली 😀", STORY], [STORY], ["बिल्ली चटाई पर " * 40]]
)
def test_a_reencoded_corpus_has_the_same_documents_in_the_same_parts(documents, tmp_path):
    old = Tokenizer.train([STORY], 340)
    build_corpus(read_strings(documents), old, tmp_path / "old", validation_fraction=0.23)
    new = Trim(["cat"]).plan(old, old.vocab_size).new
    manifest = reencode(tmp_path / "old", new, tmp_path / "new")
    for split in ("train", "validation"):
        before, after = (Corpus.open(tmp_path / name, split) for name in ("old", "new"))
        numbers = np.arange(before.num_documents)
        assert before.num_documents == after.num_documents and before.origins(numbers) == after.origins(numbers)
        after.verify()
    assert whole_text(tmp_path / "old", old) == whole_text(tmp_path / "new", new)
    assert manifest.text_bytes == Corpus.open(tmp_path / "old").manifest.text_bytes
    assert manifest.statistics.tokens == sum(s.num_tokens for s in manifest.splits.values()) - len(documents)


def test_a_corpus_encoded_anew_by_its_own_tokenizer_has_the_same_ids(tmp_path):
    old = Tokenizer.train([STORY], 340)
    build_corpus(read_strings([STORY, "बिल्ली चटाई पर " * 40]), old, tmp_path / "old", validation_fraction=0.07)
    reencode(tmp_path / "old", old, tmp_path / "new")
    for split in ("train", "validation"):
        before, after = (Corpus.open(tmp_path / name, split) for name in ("old", "new"))
        assert (before.tokens(0, before.num_tokens) == after.tokens(0, after.num_tokens)).all()


def test_a_corpus_with_special_tokens_inside_its_documents_is_refused(tmp_path):
    from tokenspace.corpus.interchange import import_nanogpt

    old = Tokenizer.train([STORY], 340)
    ids = [*old.encode("the cat"), old.eot_id, *old.encode("the dog"), old.eot_id]
    grown = Add(["<user>"], special=True).plan(old, old.vocab_size).new
    (tmp_path / "ids").mkdir()
    np.array([ids[0], old.vocab_size, *ids[1:]], "<u2").tofile(tmp_path / "ids" / "train.bin")
    import_nanogpt([tmp_path / "ids"], tmp_path / "old", tokenizer=grown)
    with pytest.raises(CorpusError, match=r"^`document 0 of .*` must encode to the ids that it has"):
        reencode(tmp_path / "old", old, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_whose_config_lacks_a_setting_of_the_loader_is_refused(tmp_path):
    sizes = {"tokenizer": "train:300", "steps": 1, "d_model": 8, "num_layers": 1}
    tokenspace.train(documents=["The cat sat on the mat. "] * 99, out=tmp_path / "run", **sizes)
    config = tmp_path / "run" / "config.toml"
    config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("batch_size")))
    with pytest.raises(CheckpointError, match=r"^`\[training\] of config.toml` must have 'batch_size', but is "):
        vocabulary.edit_model(tmp_path / "run", tmp_path / "new", Add(["<a>"]))
    assert not (tmp_path / "new").exists()
