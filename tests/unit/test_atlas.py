"""What an atlas holds of a run, of a model from elsewhere, and of runs that lack something."""

import dataclasses
import json
import re
import shutil
from html import unescape

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import tokenspace
from tokenspace import Run, inspection
from tokenspace.atlas import Atlas, export_parquet, gather, losses, neighbours
from tokenspace.atlas.kinds import KINDS
from tokenspace.atlas.source import Source
from tokenspace.errors import CheckpointError, SettingError
from tokenspace.files import file_sha256, read_sealed_json, sealed_json
from tokenspace.ledger import STATES
from tokenspace.model.gpt2 import save_gpt2
from tokenspace.training.objective import HiddenTokens
from tokenspace.training.parts import open_corpus

STORY = (
    "The cat sat on the mat. The dog sat by the door. The cat saw the dog, and the dog saw the cat. "
    "In the evening the cat slept on the mat, and the dog slept by the door. "
) * 30
SETTINGS = {"d_model": 16, "context_length": 16, "num_layers": 2, "num_heads": 2, "steps": 30, "device": "cpu"}

pytestmark = pytest.mark.usefixtures("one_thread")


def train(out, **settings):
    return tokenspace.train(documents=[STORY], out=out, tokenizer="train:300", **{**SETTINGS, **settings})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("atlas") / "run", frames=6)


@pytest.fixture(scope="module")
def data(run):
    return gather(run)


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    return Run.open(tmp_path / "copy")


def set_rows(run, rows, value):
    """Change rows of the token table in the latest checkpoint, as if training had written them."""
    folder = run.checkpoints / f"{run.step:08d}"
    tensors = load_file(folder / "model.safetensors")
    tensors["embedding.token.weight"][rows] = value
    save_file(tensors, folder / "model.safetensors")
    state = read_sealed_json(folder / "state.json")
    state["files"]["model.safetensors"] = file_sha256(folder / "model.safetensors")
    (folder / "state.json").write_bytes(sealed_json(state))


def split(data, name):
    """The byte strings that stand end to end."""
    whole, offsets = bytes(data.arrays[f"{name}_bytes"]), data.arrays[f"{name}_offsets"]
    return [whole[offsets[i] : offsets[i + 1]] for i in range(len(offsets) - 1)]


# the contract

TYPES = {
    "label_bytes": "uint8", "label_offsets": "uint32", "token_bytes": "uint8", "token_offsets": "uint32",
    "count": "uint32", "norm": "float32", "kind": "uint8", "script": "uint8", "state": "uint8", "xy": "int16",
    "vectors": "float16", "position_vectors": "float16", "nonfinite_rows": "uint32", "far_rows": "uint32",
    "neighbour_rows": "uint32", "neighbours": "uint32", "cosines": "uint16", "first_rows": "uint32",
    "first_neighbours": "uint32", "position_similarity": "float32", "position_ticks": "uint32",
    "score_by_distance": "float32", "distances": "int32", "rotary_kernel": "float32", "rotary_distances": "int32",
    "spectrum": "float32", "duplicates": "uint32", "loss_by_position": "float32",
}  # fmt: skip


def test_arrays_have_the_types_and_shapes_that_the_page_reads(run, data):
    V, frames = run.config["model"]["vocab_size"], len(data.meta["frames"])
    assert {name: array.dtype.name for name, array in data.arrays.items()}.items() <= TYPES.items()
    M = len(data.arrays["first_rows"])
    expected = {
        "label_offsets": (V + 1,), "token_offsets": (V + 1,), "count": (V,), "norm": (V,), "kind": (V,),
        "script": (V,), "state": (V,), "xy": (frames, V, 2), "vectors": (V, 16), "position_vectors": (16, 16),
        "neighbour_rows": (V,), "neighbours": (V, 20), "cosines": (V, 20), "first_neighbours": (M, 10),
        "position_similarity": (16, 16), "position_ticks": (16,), "spectrum": (16,), "loss_by_position": (16,),
    }  # fmt: skip
    assert {name: data.arrays[name].shape for name in expected} == expected
    assert data.arrays["duplicates"].shape[1] == 2


def test_meta_is_json(data):
    assert json.loads(json.dumps(data.meta, allow_nan=False)) == data.meta


def test_meta_holds_what_its_contract_lists_and_nothing_else(data):
    listed = tokenspace.atlas.data.__doc__.split("Meta, all of it JSON:")[1]
    names = re.findall(r"^    ((?:\w+, )*\w+)(?:   |$)", listed, flags=re.MULTILINE)
    expected = {name for line in names for name in line.split(", ")} | {"bytes_per_token_weighted"}
    assert data.meta.keys() == expected


def test_meta_names_the_run(run, data):
    config = run.config["model"]
    expected = {
        "title": "run", "path": str(run.path), "step": 30, "d_model": 16, "vocab_size": config["vocab_size"],
        "num_layers": 2, "num_heads": 2, "tied": True, "scheme": "learned", "context_length": 16,
        "kinds": list(KINDS), "states": list(STATES), "seen_known": True, "counted_by": "ledger", "notes": [],
        "cosine_full_scale": 65_535, "frames": run.projections().steps,
        "order_example": {"first": "dog bites man", "second": "man bites dog"},
    }  # fmt: skip
    assert {name: data.meta[name] for name in expected} == expected
    assert data.meta["frames"] == [0, 1, 3, 8, 13, 21, 30]


def test_labels_and_bytes_of_every_token(run, data):
    tokenizer = run.tokenizer
    ids = range(tokenizer.vocab_size)
    assert [label.decode() for label in split(data, "label")] == [tokenizer.label(i) for i in ids]
    assert split(data, "token") == [tokenizer.token_bytes(i) for i in ids]


def test_counts_states_and_norms(run, data):
    ledger, table = run.ledger, run.embedding().token.weight.detach()
    np.testing.assert_array_equal(data.arrays["count"], np.maximum(ledger.input_count, ledger.target_count))
    np.testing.assert_array_equal(data.arrays["state"], ledger.states)
    np.testing.assert_allclose(data.arrays["norm"], table.norm(dim=1), rtol=1e-6)


def test_the_places_of_the_training_stream_are_counted_once(run, data):
    training = run.config["training"]
    places = training["steps"] * training["batch_size"] * run.config["model"]["context_length"]
    total = int(data.arrays["count"].sum())
    assert places <= total < 1.1 * places  # the ends of the windows differ: once an input or once a target more


def test_a_token_that_was_only_an_input_was_seen(run, data):
    ledger = run.ledger
    once = dataclasses.replace(ledger, target_count=np.zeros_like(ledger.target_count))
    source = dataclasses.replace(Source.open(run), ledger=once)
    np.testing.assert_array_equal(source.counts(), ledger.input_count)


def test_the_map_of_every_frame_is_its_projection(run, data):
    found = data.arrays["xy"].astype(np.float64) * data.meta["xy_range"] / 32767
    projections = run.projections()
    np.testing.assert_allclose(found, projections.points[..., :2].double(), atol=2e-3 * data.meta["xy_range"])
    assert np.abs(data.arrays["xy"]).max() == 32767
    assert np.abs(found[0] - found[-1]).max() > 0.1 * data.meta["xy_range"]


def test_vectors_and_positions_stand_on_the_same_axes(run, data):
    embedding, basis = run.embedding(), run.projections().basis
    ids = torch.tensor(run.tokenizer.encode("The cat sat"))
    with torch.no_grad():
        whole = embedding(ids.unsqueeze(0))[0]
    sums = data.arrays["vectors"][ids].astype(np.float64) + data.arrays["position_vectors"][: len(ids)]
    np.testing.assert_allclose(sums, basis.project(whole).double(), atol=5e-3)


def test_neighbours_of_every_token_are_those_of_inspection(run, data):
    table = run.embedding().token.weight.detach()
    for row, nearest, cosines in zip(
        *(data.arrays[n] for n in ("neighbour_rows", "neighbours", "cosines")), strict=True
    ):
        expected = inspection.neighbours(table, int(row), run.tokenizer, k=20).nearest
        assert nearest.tolist() == [near.id for near in expected]
        assert cosines / 32767.5 - 1 == pytest.approx([near.cosine for near in expected], abs=2e-5)


def test_first_neighbours_are_those_before_training_of_what_it_saw(run, data):
    first, ledger = run.frame(0)["token.weight"], run.ledger
    seen = np.flatnonzero((ledger.input_count > 0) | (ledger.target_count > 0))
    assert 10 < len(seen) < len(first)
    np.testing.assert_array_equal(data.arrays["first_rows"], seen)
    for row, nearest in zip(data.arrays["first_rows"], data.arrays["first_neighbours"], strict=True):
        expected = inspection.neighbours(first, int(row), run.tokenizer, k=10).nearest
        assert nearest.tolist() == [near.id for near in expected]


def test_the_losses_are_the_records(run, data):
    records = run.metrics
    steps = [[r["step"], pytest.approx(r["loss"])] for r in records if r["kind"] == "step"]
    assert data.meta["loss"]["train"] == steps
    assert data.meta["loss"]["unigram"] == records[-1]["unigram_loss"]


def test_loss_by_position_is_the_mean_over_windows(run, data):
    corpus, model = open_corpus(run, "validation"), run.model()
    starts = np.arange(0, corpus.num_tokens - 16, 16)
    ids = torch.from_numpy(corpus.gather(starts, 17).astype(np.int64))
    with torch.no_grad():
        logits = model(ids[:, :-1])
    expected = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").mean(dim=0)
    np.testing.assert_allclose(data.arrays["loss_by_position"], expected, rtol=1e-4)


def test_losses_do_not_depend_on_how_many_logits_are_held(run, data, monkeypatch):
    monkeypatch.setattr(losses, "_MOST_LOGITS", 7 * run.config["model"]["vocab_size"])
    found = losses.loss_by_position(run.model(), open_corpus(run, "validation"))
    np.testing.assert_allclose(found, data.arrays["loss_by_position"], rtol=1e-5)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """The run of a model that sees both sides, so that it was asked for hidden tokens."""
    return train(tmp_path_factory.mktemp("masked") / "run", causal=False, positions="t5", steps=4)


def test_a_model_that_sees_both_sides_is_asked_for_hidden_tokens(masked):
    found = gather(masked)
    corpus, model = open_corpus(masked, "validation"), masked.model()
    starts = np.arange(0, corpus.num_tokens - 16, 16)
    ids = torch.from_numpy(corpus.gather(starts, 17).astype(np.int64))
    question = HiddenTokens(model.config.vocab_size - 1).of_windows(ids, starts)
    with torch.no_grad():
        each = F.cross_entropy(model(question.inputs).transpose(1, 2), ids[:, :-1], reduction="none")
    expected = [each[question.places[:, place], place].mean() for place in range(16)]
    np.testing.assert_allclose(found.arrays["loss_by_position"], expected, rtol=1e-4)
    assert found.meta["sees_ahead"]


def test_scores_of_a_model_that_sees_both_sides_are_of_both_sides(masked, data):
    found = gather(masked)
    assert found.arrays["distances"].tolist() == list(range(-15, 16))
    score = found.arrays["score_by_distance"]
    assert score.shape == (2, 2, 31)
    assert not np.allclose(score[..., :15], score[..., :15:-1])  # T5 has a table for each side
    assert not data.meta["sees_ahead"]


def test_distances_are_those_of_a_text_shorter_than_the_context(masked, monkeypatch):
    monkeypatch.setattr(Source, "probe", lambda self, length: torch.arange(5).unsqueeze(0))
    assert gather(masked).arrays["distances"].tolist() == list(range(-4, 5))


def test_bytes_per_token_are_weighted_by_counts(run, data):
    ledger, tokenizer = run.ledger, run.tokenizer
    counts = np.maximum(ledger.input_count, ledger.target_count)
    latin = [i for i in range(tokenizer.vocab_size) if any("a" <= c <= "z" for c in tokenizer.decode([i]).lower())]
    expected = sum(counts[i] * len(tokenizer.token_bytes(i)) for i in latin) / counts[latin].sum()
    assert data.meta["bytes_per_token_by_script"]["Latin"] == pytest.approx(expected)
    assert data.meta["bytes_per_token_weighted"]


def test_special_tokens_are_no_text_in_bytes_per_token(run, tmp_path):
    tokenizer = run.tokenizer
    save_gpt2(run.model(), tmp_path / "hf", tokenizer)
    special = set(tokenizer.special_tokens.values())
    latin = [i for i in range(tokenizer.vocab_size) if re.search("[a-z]", tokenizer.decode([i]).lower())]
    assert special <= set(latin)
    expected = np.mean([len(tokenizer.token_bytes(i)) for i in latin if i not in special])
    assert gather(tmp_path / "hf").meta["bytes_per_token_by_script"]["Latin"] == pytest.approx(expected)


def test_a_vocabulary_without_bytes_has_none_per_token(word_pieces):
    assert gather(word_pieces("cat", "##s")).meta["bytes_per_token_by_script"] == {}


def test_tokens_without_bytes_have_those_of_their_spelling(word_pieces):
    assert split(gather(word_pieces("cat", "##s", "##", "बि")), "token")[1:-1] == [b"cat", b"s", b"##", "बि".encode()]


def test_a_model_of_the_hubs_cache_has_its_name_and_no_hash(run, tmp_path):
    snapshot = tmp_path / "models--some-people--small--model" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    save_gpt2(run.model(), snapshot, run.tokenizer)
    assert gather(snapshot).meta["title"] == "some-people/small--model"


def test_a_model_from_elsewhere_has_an_atlas_too(run, tmp_path):
    save_gpt2(run.model(), tmp_path / "hf", run.tokenizer)
    opened = Run.open(tmp_path / "hf")
    assert opened.atlas().data.meta == gather(opened).meta


def test_the_same_run_gives_the_same_atlas(run, data):
    again = gather(run.path)
    assert again.meta == data.meta
    assert again.arrays.keys() == data.arrays.keys()
    assert all(array.tobytes() == data.arrays[name].tobytes() for name, array in again.arrays.items())


def test_progress_names_each_task_and_comes_to_an_end(run):
    told = []
    gather(run, progress=lambda *record: told.append(record))
    tasks = list(dict.fromkeys(task for task, _, _ in told))
    assert tasks == [
        "opening", "projecting", "table's health", "neighbours", "neighbours before training", "positions", "losses",
    ]  # fmt: skip
    assert all(0 <= done <= total for _, done, total in told)


def test_looking_changes_nothing_in_the_run(copy):
    def files():
        return {path: path.read_bytes() for path in sorted(copy.path.rglob("*")) if path.is_file()}

    before, state = files(), torch.get_rng_state()
    gather(copy)
    assert files() == before
    assert torch.equal(torch.get_rng_state(), state)


# schemes


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("learned", {"position_vectors", "position_similarity", "position_ticks"}),
        ("alibi", {"score_by_distance", "distances"}),
        ("rotary", {"rotary_kernel", "rotary_distances"}),
        ("none", set()),
        ("transformer_xl", {"score_by_distance", "distances"}),
    ],
)
def test_each_scheme_has_the_panels_of_its_places(tmp_path, scheme, expected):
    memory = {"memory_length": 8} if scheme == "transformer_xl" else {}
    found = gather(train(tmp_path / "run", steps=2, positions=scheme, **memory))
    panels = {
        "position_vectors", "position_similarity", "position_ticks", "score_by_distance", "distances",
        "rotary_kernel", "rotary_distances",
    }  # fmt: skip
    assert panels & found.arrays.keys() == expected
    assert found.meta["scheme"] == scheme
    if "distances" in expected:
        assert found.arrays["score_by_distance"].shape == (2, 2, 16)
        assert found.arrays["distances"].tolist() == list(range(16))


def test_a_devanagari_text_brings_its_own_sentences(tmp_path):
    text = "बिल्ली चटाई पर बैठी थी और कुत्ता दरवाज़े के पास बैठा था। " * 80
    run = tokenspace.train(documents=[text], out=tmp_path / "run", tokenizer="train:320", **{**SETTINGS, "steps": 2})
    found = gather(run)
    assert found.meta["order_example"]["second"] == "चटाई बिल्ली पर बैठी"
    assert found.meta["bytes_per_token_by_script"]["Devanagari"] > 1


# what is missing


def test_a_run_without_frames_says_how_to_get_them(tmp_path):
    found = gather(train(tmp_path / "run", frames=0, steps=4))
    assert found.meta["frames"] == [0, 4]
    note = "This run kept no frames on the way: train with --frames 24 to play the training back."
    assert found.meta["frames_note"] == note
    assert found.meta["notes"] == [note]


def test_a_run_whose_first_frame_was_removed(copy):
    (copy.path / "frames" / "00000000.safetensors").unlink()
    found = gather(copy)
    assert found.meta["notes"] == [
        "The run's first frame is missing: where its tokens stood before training is not known."
    ]
    assert "first_neighbours" not in found.arrays and found.meta["frames"][0] == 0  # its projection is there


def test_a_run_that_is_not_finished(tmp_path):
    run = train(tmp_path / "run", frames=6, watch=None, steps=30)
    shutil.rmtree(run.checkpoints / "00000030")
    (run.checkpoints / "latest").write_text(sorted(p.name for p in run.checkpoints.iterdir() if p.is_dir())[-1])
    (run.path / "frames" / "projections.safetensors").unlink()
    found, step = gather(run), run.step
    assert found.meta["step"] == step < 30
    assert found.meta["frames"][-1] == step
    assert max(number for number, _ in found.meta["loss"]["train"]) == step


def test_a_run_without_a_ledger_counts_in_its_corpus(copy):
    copy.ledger_path.unlink()
    found = gather(copy)
    assert found.meta["notes"] == ["This run kept no ledger: which tokens training saw is not known."]
    assert not {"state", "first_rows", "first_neighbours"} & found.arrays.keys()
    assert found.meta["counted_by"] == "corpus" and not found.meta["seen_known"]
    np.testing.assert_array_equal(found.arrays["count"], open_corpus(copy, "train").counts())


def test_a_run_without_its_corpus(copy):
    shutil.rmtree(copy.path / "corpus")
    found = gather(copy)
    (note,) = found.meta["notes"]
    assert note.startswith("The run's corpus is not at hand, so nothing is measured on its text: `")
    assert "loss_by_position" not in found.arrays
    assert found.meta["loss_by_position_note"] == "The run's corpus is not at hand."
    assert found.meta["loss"]["train"]


def test_a_run_without_ledger_and_corpus_knows_no_counts(copy):
    shutil.rmtree(copy.path / "corpus")
    copy.ledger_path.unlink()
    found = gather(copy)
    assert "count" not in found.arrays and found.meta["counted_by"] is None
    assert not found.meta["bytes_per_token_weighted"]


def test_a_validation_part_shorter_than_a_window_has_no_loss_by_position(run):
    class Short:
        num_tokens = 16

    assert losses.loss_by_position(run.model(), Short()) is None


def test_a_short_validation_part_is_given_as_the_reason(run, monkeypatch):
    monkeypatch.setattr(losses, "loss_by_position", lambda *given: None)
    found = gather(run)
    assert "loss_by_position" not in found.arrays
    assert found.meta["loss_by_position_note"] == "The validation part is shorter than a window."


def test_losses_that_are_all_nan_are_no_curve(copy):
    set_rows(copy, [70], float("nan"))  # the head is tied: every logit row holds one NaN
    found = gather(copy)
    assert "loss_by_position" not in found.arrays
    assert found.meta["loss_by_position_note"].startswith("All losses are NaN or infinity: ")


def test_a_gpt2_from_elsewhere(run, tmp_path):
    save_gpt2(run.model(), tmp_path / "hf", run.tokenizer)
    found = gather(tmp_path / "hf")
    assert found.meta["step"] is None and found.meta["frames"] == [0]
    assert found.meta["notes"] == ["A model from elsewhere: no ledger, no frames, no losses and no text to measure on."]
    assert not {"count", "state", "first_rows", "loss_by_position"} & found.arrays.keys()
    assert found.meta["loss_by_position_note"] == "A model from elsewhere brings no text to measure on."
    assert found.meta["frames_note"] is None
    assert found.arrays["position_similarity"].shape == (16, 16)
    assert found.arrays["xy"].shape[0] == 1


SMALL = {
    "vocab_size": 320,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
}
FAMILIES = {
    "Bert": (SMALL | {"max_position_embeddings": 24}, {"position_similarity": (24, 24)}),
    "Bloom": ({"vocab_size": 320, "hidden_size": 16, "n_head": 2, "n_layer": 1}, {"score_by_distance": (1, 2, 512)}),
    "Llama": (SMALL | {"max_position_embeddings": 64}, {"rotary_kernel": (4, 64)}),
    "T5": (
        {"vocab_size": 320, "d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 16},
        {"score_by_distance": (1, 2, 1023)},  # of the encoder, which sees both sides
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_show_what_their_scheme_does(run, tmp_path, family):
    import transformers

    settings, shapes = FAMILIES[family]
    config = getattr(transformers, f"{family}Config")(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}Model")(config)
    model.save_pretrained(tmp_path / "hf")
    run.tokenizer.save(tmp_path / "hf" / "tokenizer.json")
    found = gather(tmp_path / "hf")
    for name in ("position_similarity", "score_by_distance", "rotary_kernel"):
        assert (found.arrays[name].shape if name in found.arrays else None) == shapes.get(name)
    assert found.meta["num_layers"] is None and found.meta["vocab_size"] == 320
    np.testing.assert_allclose(
        found.arrays["norm"], model.get_input_embeddings().weight.detach().norm(dim=1), rtol=1e-6
    )


def test_blooms_score_falls_by_its_slopes(run, tmp_path):
    import transformers

    config = transformers.BloomConfig(vocab_size=320, hidden_size=16, n_head=2, n_layer=1)
    transformers.BloomModel(config).save_pretrained(tmp_path / "hf")
    run.tokenizer.save(tmp_path / "hf" / "tokenizer.json")
    score = gather(tmp_path / "hf").arrays["score_by_distance"][0]
    np.testing.assert_allclose(score[:, :4], -np.array([[2**-4], [2**-8]]) * np.arange(4), atol=1e-7)


def test_what_scores_are_measured_on_is_told(run, copy, tmp_path):
    shutil.rmtree(copy.path / "corpus")
    (tmp_path / "words.vec").write_text("3 2\nice 1 0\nsnow 0.9 0.1\nfire 0 1\n")
    found = [Source.open(one).score_of for one in (run, copy, tmp_path / "words.vec")]
    assert found == ["text", "drawn", "scheme"]


def test_a_file_without_words_says_what_would_have_them(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    with pytest.raises(CheckpointError, match=r"Give a folder that has one, or a file that names its words: word2vec"):
        gather(tmp_path / "a.npy")


def test_a_file_of_vectors_has_points_and_neighbours(tmp_path):
    (tmp_path / "words.vec").write_text("3 2\nice 1 0\nsnow 0.9 0.1\nfire 0 1\n")
    found = gather(tmp_path / "words.vec")
    assert found.arrays["neighbours"][0].tolist()[0] == 1
    assert found.meta["tied"] is None and found.meta["context_length"] is None


# NaN


def test_rows_with_nan_are_named_and_left_out(copy):
    set_rows(copy, [70, 71], float("nan"))
    set_rows(copy, [99], float("inf"))
    (copy.path / "frames" / "projections.safetensors").unlink()
    found = gather(copy)
    label = copy.tokenizer.label
    assert found.meta["notes"] == [
        f"3 rows hold NaN or infinity: {label(70)} (70), {label(71)} (71), {label(99)} (99). "
        "They have no place in the map and no neighbours."
    ]
    assert found.arrays["nonfinite_rows"].tolist() == [70, 71, 99]
    assert not found.arrays["xy"][-1, [70, 71, 99]].any()
    assert not {70, 71, 99} & set(found.arrays["neighbours"].flatten().tolist())
    assert not {70, 71, 99} & set(found.arrays["neighbour_rows"].tolist())
    assert found.meta["health"]["finite_rows"] == found.meta["health"]["rows"] - 3
    json.dumps(found.meta, allow_nan=False)


def test_one_row_with_nan_is_said_in_the_singular(copy):
    set_rows(copy, [70], float("nan"))
    (note,) = gather(copy).meta["notes"]
    label = copy.tokenizer.label(70)
    assert note == f"1 row holds NaN or infinity: {label} (70). It has no place in the map and no neighbours."


def test_of_many_rows_with_nan_ten_are_named(copy):
    set_rows(copy, slice(100, 200), float("nan"))
    (note,) = gather(copy).meta["notes"]
    assert note.startswith("100 rows hold NaN or infinity: ") and " and 90 more. " in note


def test_a_row_far_outside_all_others_is_named_and_drawn_nearer(copy, data):
    set_rows(copy, [70], 100.0)
    (copy.path / "frames" / "projections.safetensors").unlink()
    found = gather(copy)
    label = copy.tokenizer.label(70)
    assert found.meta["notes"] == [
        f"1 row stands far outside all others: {label} (70). It is drawn nearer, at the map's edge."
    ]
    assert found.arrays["far_rows"].tolist() == [70]
    assert np.abs(found.arrays["xy"][-1, 70].astype(int)).max() == 32767
    assert found.meta["xy_range"] < 100
    assert "far_rows" not in data.arrays


def test_a_table_of_nothing_but_nan(copy):
    set_rows(copy, slice(None), float("nan"))
    with pytest.raises(SettingError) as caught:
        gather(copy)
    assert str(caught.value) == (
        "`table` must have a row without NaN, but is 'without'. "
        "Take an earlier checkpoint of a run, or another copy of a model."
    )


# damage


@pytest.mark.parametrize(
    "name", ["config.toml", "tokenizer.json", "ledger.safetensors", "metrics.jsonl", "frames/projections.safetensors",
             "frames/00000000.safetensors", "checkpoints/00000030/model.safetensors"],
)  # fmt: skip
def test_a_damaged_file_of_the_run_is_named(copy, name):
    path = copy.path / name
    path.write_bytes(path.read_bytes()[:-7] + b"\n")
    with pytest.raises(tokenspace.errors.TokenspaceError) as caught:
        gather(copy.path)
    assert "`" in str(caught.value) and " must " in str(caught.value)


def test_a_frame_of_another_table(copy):
    path = copy.path / "frames" / "00000000.safetensors"
    save_file({"token.weight": torch.zeros(3, 16)}, path)
    with pytest.raises(CheckpointError) as caught:
        gather(copy)
    V = copy.config["model"]["vocab_size"]
    assert str(caught.value) == (f"`{path}` must hold a token.weight of shape [{V}, 16], but is [3, 16]. Restore it.")


# large vocabularies


def test_a_very_large_vocabulary_has_neighbours_of_its_most_frequent_tokens(run, monkeypatch):
    monkeypatch.setattr(neighbours, "_ALL", 100)
    monkeypatch.setattr(neighbours, "_SOME", 25)
    found = gather(run)
    V = run.config["model"]["vocab_size"]
    counts = found.arrays["count"].astype(np.int64)
    rows = found.arrays["neighbour_rows"]
    assert len(rows) == 25
    assert counts[rows].min() >= np.delete(counts, rows).max()
    assert found.meta["notes"] == [
        f"Neighbours are known of 25 tokens, the most frequent; they are sought among all {V:,}."
    ]


def test_frames_are_thinned_to_what_a_page_can_hold(run, monkeypatch):
    import sys

    V = run.config["model"]["vocab_size"]
    monkeypatch.setattr(sys.modules["tokenspace.atlas.gather"], "_MOST_POINTS", 3 * V)
    assert gather(run).meta["frames"] == [0, 8, 30]


# projections


def test_tsne_shows_now_and_says_so(run, monkeypatch):
    import sys

    module = sys.modules["tokenspace.atlas.gather"]
    monkeypatch.setattr(module, "check_projection", lambda name: None)
    monkeypatch.setattr(module, "flatten", lambda table, name: table[:, :2] * 3)
    found = gather(run, projection="tsne")
    assert found.meta["frames"] == [30] and found.arrays["xy"].shape[0] == 1
    assert found.meta["projection"]["name"] == "tsne"
    assert found.meta["notes"] == ["tsne shows the table as it is now; the frames need the projection pca."]
    assert found.meta["frames_note"] == found.meta["notes"][0]


def test_an_unknown_projection_is_refused_before_the_work():
    with pytest.raises(SettingError, match="`projection` must be pca, umap or tsne"):
        gather("no/such/run", projection="lda")


# the page


def test_an_atlas_is_saved_once(run, data, tmp_path):
    out = tmp_path / "atlas.html"
    Atlas(data).save(out)
    assert "run" in out.read_text(encoding="utf-8")
    with pytest.raises(SettingError) as caught:
        Atlas(data).save(out)
    assert str(caught.value).startswith("`out` must ")


def test_in_a_notebook_it_is_the_same_page(run, tmp_path):
    atlas = run.atlas()
    atlas.save(tmp_path / "atlas.html")
    shown = atlas._repr_html_()
    assert shown.startswith('<iframe srcdoc="') and shown.count('"') % 2 == 0
    inner = shown.removeprefix('<iframe srcdoc="').split('"', 1)[0]
    assert unescape(inner) == (tmp_path / "atlas.html").read_text(encoding="utf-8")


def test_run_atlas_takes_a_projection(run):
    with pytest.raises(SettingError, match="must be pca, umap or tsne, but is 'lda'"):
        run.atlas(projection="lda")


# Parquet


@pytest.fixture(scope="module")
def rows(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("parquet") / "tokens.parquet"
    export_parquet(run, out)
    return pq.read_table(out)


def test_parquet_holds_a_row_for_each_token(run, rows):
    tokenizer, ids = run.tokenizer, range(run.tokenizer.vocab_size)
    assert rows["id"].to_pylist() == list(ids)
    assert rows["token"].to_pylist() == [tokenizer.label(i) for i in ids]
    assert rows["bytes"].to_pylist() == [tokenizer.token_bytes(i) for i in ids]
    assert rows["text"][70].as_py() == tokenizer.token_bytes(70).decode(errors="replace")


def test_parquet_holds_vectors_and_their_map(run, rows):
    table = run.embedding().token.weight.detach()
    assert torch.equal(torch.tensor(rows["vector"].to_pylist()), table)
    xy = torch.stack([torch.tensor(rows[name].to_pylist()) for name in "xy"], dim=1)
    torch.testing.assert_close(xy, run.projections().basis.project(table)[:, :2], rtol=1e-4, atol=1e-5)


def test_parquet_holds_the_ledger(run, rows):
    ledger = run.ledger
    assert rows["state"].to_pylist() == [STATES[state] for state in ledger.states]
    for name in ("input_count", "target_count", "last_input", "last_target", "path", "displacement", "norm_start"):
        assert rows[name].to_pylist() == getattr(ledger, name).tolist()


def test_parquet_holds_neighbours_as_embedding_atlas_reads_them(run, rows):
    table = run.embedding().token.weight.detach()
    for row in (0, 70, 150):
        expected = inspection.neighbours(table, row, run.tokenizer, k=20).nearest
        found = rows["neighbors"][row].as_py()
        assert found["ids"] == [near.id for near in expected]
        assert found["distances"] == pytest.approx([1 - near.cosine for near in expected], abs=1e-6)


def test_parquet_without_a_ledger_and_with_nan(copy, tmp_path):
    set_rows(copy, [70], float("nan"))
    copy.ledger_path.unlink()
    export_parquet(copy.path, tmp_path / "tokens.parquet")
    found = pq.read_table(tmp_path / "tokens.parquet")
    assert "state" not in found.column_names
    assert found["neighbors"][70].as_py() is None
    assert np.isnan(found["x"][70].as_py())


def test_parquet_is_written_once(run, tmp_path):
    (tmp_path / "tokens.parquet").touch()
    with pytest.raises(SettingError, match="`out` must "):
        export_parquet(run, tmp_path / "tokens.parquet")
