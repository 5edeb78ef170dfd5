"""Edits of live models: rows, recipes, optimisers, ledgers, and what is refused."""

import copy

import pytest
import torch
from torch import nn

from tokenspace import LanguageModel, Ledger, RowwiseAdamW, TokenEmbedding, Tokenizer, export, train, vocabulary
from tokenspace.errors import SettingError, ShapeError, TokenizerError, TokenspaceError
from tokenspace.optim.link import TableLink
from tokenspace.vocabulary import NewRows, Receipt
from vocabulary_cases import FAMILIES, TEXTS

TEXT = "The cat sat by the door."
PADDING = 4
TOKENS = ["<a>", "<b>", "evening mat"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer():
    return FAMILIES["byte_level"](340)


def make(tokenizer, tie=True, **fields):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "context_length": 24, "tie_head": tie}
    return LanguageModel(vocab_size=tokenizer.vocab_size + PADDING, **{**sizes, **fields})


def ids_of(tokenizer, text=TEXT):
    return torch.tensor([tokenizer.encode(text)])


def step(model, optimizer, ids, ledger=None):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    if ledger is not None:
        ledger.step(ids[:, 1:])
    return loss


def table(model):
    return model.embedding.token.weight.detach()


@pytest.mark.parametrize("tie", [True, False])
def test_growing_leaves_the_rows_that_were_and_the_tie(tie, tokenizer):
    model = make(tokenizer, tie)
    before, head = table(model).clone(), model.head.weight.detach().clone()
    new, _ = vocabulary.grow(model, tokenizer, TOKENS, pad_to_multiple_of=64)
    assert torch.equal(table(model)[: tokenizer.vocab_size], before[: tokenizer.vocab_size])
    assert torch.equal(model.head.weight[: tokenizer.vocab_size], head[: tokenizer.vocab_size])
    assert (model.head.weight is model.embedding.token.weight) == tie == model.config.tie_head
    assert model.config.vocab_size == model.embedding.token.num_embeddings == model.head.out_features == 384
    assert new.vocab_size == tokenizer.vocab_size + 3


def test_nothing_to_do_leaves_the_very_parameters(tokenizer):
    model = make(tokenizer)
    weight, version = model.embedding.token.weight, model.embedding.token.weight._version
    new, receipt = vocabulary.grow(model, tokenizer, [])
    assert model.embedding.token.weight is weight and weight._version == version and new is tokenizer
    assert receipt.changed == [] and receipt.id_map.tolist() == list(range(tokenizer.vocab_size))


def test_mean_is_that_of_tokens_without_padding(tokenizer):
    model = make(tokenizer)
    with torch.no_grad():
        model.embedding.token.weight[tokenizer.vocab_size :] = 1e6
    expected = table(model)[: tokenizer.vocab_size].double().mean(dim=0).float()
    vocabulary.grow(model, tokenizer, ["<a>"], init="mean")
    assert torch.equal(table(model)[tokenizer.vocab_size], expected)


@pytest.mark.parametrize("tie", [True, False])
def test_subtokens_are_the_mean_of_the_pieces_in_table_and_head_alike(tie, tokenizer):
    model = make(tokenizer, tie)
    pieces = tokenizer.encode("evening mat")
    assert len(pieces) > 1
    expected = [t[pieces].double().mean(dim=0).float() for t in (table(model), model.head.weight.detach())]
    vocabulary.grow(model, tokenizer, ["evening mat"], init="subtokens")
    assert torch.equal(table(model)[tokenizer.vocab_size], expected[0])
    assert torch.equal(model.head.weight[tokenizer.vocab_size], expected[1])


def test_normal_rows_have_the_scale_of_the_table_and_follow_their_seed(tokenizer):
    tokens = [f"<{n}>" for n in range(400)]
    rows = []
    for seed in (1, 1, 2):
        model = make(tokenizer)
        scale = table(model)[: tokenizer.vocab_size].std(dim=0)
        _, receipt = vocabulary.grow(model, tokenizer, tokens, init=NewRows(recipe="normal", seed=seed))
        rows.append(table(model)[tokenizer.vocab_size :])
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    torch.testing.assert_close(rows[0].std(dim=0), scale, rtol=0.2, atol=0)
    told = float(receipt.recipe.split("(")[1].split()[0])
    assert told == pytest.approx(scale.square().mean().sqrt().item(), rel=0.01) and not receipt.near


def test_zeros_are_zeros_and_said_to_be_equal(tokenizer):
    model = make(tokenizer)
    _, receipt = vocabulary.grow(model, tokenizer, ["<a>", "<b>"], init="zeros")
    assert not table(model)[tokenizer.vocab_size : tokenizer.vocab_size + 2].any()
    assert receipt.after.equal_rows == receipt.before.equal_rows + 1
    assert [(near["id"], near["cosine"]) for near in receipt.near] == [
        (tokenizer.vocab_size, 1.0),
        (tokenizer.vocab_size + 1, 1.0),
    ]


def test_equal_means_are_said_and_a_single_one_is_not(tokenizer):
    _, two = vocabulary.grow(make(tokenizer), tokenizer, ["<a>", "<b>"], init="mean")
    _, one = vocabulary.grow(make(tokenizer), tokenizer, ["<a>"], init="mean")
    assert len(two.near) == 2 and not one.near
    assert any("nearly equal another" in line for line in two.told())


def test_vectors_of_a_word2vec_file_are_found_by_text(tokenizer, tmp_path):
    file = tmp_path / "words.txt"
    rows = torch.randn(2, 16)
    lines = [
        f"{word} {' '.join(repr(x) for x in row.tolist())}\n" for word, row in zip(["sofa", "other"], rows, strict=True)
    ]
    file.write_text("2 16\n" + "".join(lines), encoding="utf-8")
    model = make(tokenizer, tie=False)
    mean = model.head.weight.detach()[: tokenizer.vocab_size].double().mean(dim=0).float()
    vocabulary.grow(model, tokenizer, [" sofa"], init=NewRows(recipe="vectors", vectors=file))
    torch.testing.assert_close(table(model)[tokenizer.vocab_size], rows[0])
    assert torch.equal(model.head.weight[tokenizer.vocab_size], mean)


@pytest.mark.parametrize("format", ["word2vec", "safetensors", "parquet"])
def test_vectors_of_an_exported_model_are_found_by_the_text_of_its_labels(format, tokenizer, tmp_path):
    run = train(documents=TEXTS, out=tmp_path / "run", tokenizer="train:340", steps=1, d_model=16, num_layers=1)
    export(run, tmp_path / f"a.{format}", format=format, lossy=True)
    small = Tokenizer.train(["x y z"], 257)
    model = make(small, tie=False)
    recipe = NewRows(recipe="vectors", vectors=tmp_path / f"a.{format}")
    vocabulary.grow(model, small, [" cat", "cat"], init=recipe)
    rows = run.embedding().token.weight[[run.tokenizer.encode(text)[0] for text in (" cat", "cat")]]
    assert torch.equal(table(model)[small.vocab_size :][:2], rows)


def test_of_a_word_that_stands_twice_the_first_vector_is_taken(tokenizer, tmp_path):
    (tmp_path / "a.vec").write_text("2 2\nsofa 1 2\nsofa 3 4\n")
    assert NewRows(recipe="vectors", vectors=tmp_path / "a.vec").given(["sofa"], 2).tolist() == [[1, 2]]


def test_given_vectors_are_refused_where_one_lacks_or_is_of_another_width(tokenizer):
    with pytest.raises(TokenizerError, match=r"^`token '<a>'` must have a vector among those given, but is 'without'"):
        vocabulary.grow(make(tokenizer), tokenizer, ["<a>"], init=NewRows(recipe="vectors", vectors={}))
    narrow = NewRows(recipe="vectors", vectors={"<a>": torch.zeros(8)})
    model = make(tokenizer)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ShapeError, match=r"^`vectors` must have the table's 16 columns, but is \(8,\)\."):
        vocabulary.grow(model, tokenizer, ["<a>"], init=narrow)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_new_padding_is_the_mean_so_that_it_wins_no_logit(tokenizer):
    model = make(tokenizer)
    expected = table(model)[: tokenizer.vocab_size].double().mean(dim=0).float()
    vocabulary.resize(model, tokenizer, 400)
    assert torch.equal(table(model)[-1], expected)


def test_resizing_never_cuts_tokens_off_and_takes_only_padding(tokenizer):
    model = make(tokenizer)
    before = table(model).clone()
    with pytest.raises(SettingError, match=r"^`num_rows` must be at least the tokenizer's 340 tokens"):
        vocabulary.resize(model, tokenizer, tokenizer.vocab_size - 1)
    assert torch.equal(table(model), before)
    vocabulary.resize(model, tokenizer, tokenizer.vocab_size)
    assert torch.equal(table(model), before[: tokenizer.vocab_size])


@pytest.mark.parametrize("kind", ["adamw", "rowwise", "sgd"])
def test_moments_go_with_their_rows_and_new_rows_have_none(kind, tokenizer):
    model = make(tokenizer, tie=kind != "rowwise")
    model.embedding.token.sparse = kind == "rowwise"
    make_one = {
        "adamw": torch.optim.AdamW,
        "rowwise": RowwiseAdamW,
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    }
    optimizer = make_one[kind](model.parameters())
    for _ in range(3):
        step(model, optimizer, ids_of(tokenizer))
    weight = model.embedding.token.weight
    if kind == "rowwise":
        optimizer.flush()
    names = [name for name, value in optimizer.state[weight].items() if torch.is_tensor(value) and value.dim()]
    before = {name: optimizer.state[weight][name].clone() for name in names}
    grown, receipt = vocabulary.grow(model, tokenizer, TOKENS, carry=[optimizer])
    _, receipt = vocabulary.trim(model, grown, [TEXT], keep=grown.encode(TOKENS[2]), carry=[optimizer])
    new = model.embedding.token.weight
    assert weight not in optimizer.state and sum(p is new for g in optimizer.param_groups for p in g["params"]) == 1
    to = torch.from_numpy(receipt.id_map)[: tokenizer.vocab_size]
    kept = (to >= 0).nonzero().flatten()
    for name in names:
        assert torch.equal(optimizer.state[new][name][to[kept]], before[name][kept])
        assert not optimizer.state[new][name][receipt.id_map[tokenizer.vocab_size + 2]].any()
    assert names
    step(model, optimizer, ids_of(tokenizer)[:, :2] * 0)


@pytest.mark.parametrize("kind", ["adamw", "rowwise"])
def test_training_goes_on_as_if_the_new_rows_had_always_been_there(kind, tokenizer):
    """A model that has the final rows from the first step, and never sees the new tokens, walks the same way."""
    ids = ids_of(tokenizer)
    make_one = torch.optim.AdamW if kind == "adamw" else RowwiseAdamW
    models = [make(tokenizer, tie=False) for _ in range(2)]
    for model in models:
        model.embedding.token.sparse = kind == "rowwise"
    optimizers = [make_one(model.parameters(), lr=1e-2) for model in models]
    for _ in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            step(model, optimizer, ids)
    order = [*reversed(range(tokenizer.vocab_size - 1)), tokenizer.vocab_size - 1]
    new, receipt = vocabulary.reorder(models[1], tokenizer, order, carry=[optimizers[1]])
    losses = []
    for _ in range(4):
        losses.append([step(m, o, i).item() for m, o, i in zip(models, optimizers, [ids, ids_of(new)], strict=True)])
    torch.testing.assert_close(*torch.tensor(losses).T)
    for optimizer in optimizers:
        optimizer.flush() if kind == "rowwise" else None
    to = torch.from_numpy(receipt.id_map)
    torch.testing.assert_close(table(models[1])[to], table(models[0])[: len(to)], atol=1e-6, rtol=1e-5)


def test_lagging_rows_are_refused_without_their_optimiser(tokenizer):
    model = make(tokenizer, tie=False)
    model.embedding.token.sparse = True
    optimizer = RowwiseAdamW(model.parameters())
    step(model, optimizer, ids_of(tokenizer))
    step(model, optimizer, ids_of(tokenizer, "the dog"))
    with pytest.raises(SettingError, match=r"^`token table` must have no rows that lag .* Give its optimiser in carry"):
        vocabulary.grow(model, tokenizer, TOKENS)
    vocabulary.grow(model, tokenizer, TOKENS, carry=[optimizer])


def test_optimisers_whose_state_has_no_rows_are_refused_before_anything_changes(tokenizer):
    model = make(tokenizer)
    optimizer = torch.optim.Adafactor(model.parameters())
    step(model, optimizer, ids_of(tokenizer))
    before = model.embedding.token.weight
    with pytest.raises(SettingError, match=r"^`state of Adafactor` must have a row a token"):
        vocabulary.grow(model, tokenizer, TOKENS, carry=[optimizer])
    assert model.embedding.token.weight is before
    with pytest.raises(SettingError, match=r"^`carry` must hold optimisers and ledgers, but is 'int'"):
        vocabulary.grow(model, tokenizer, TOKENS, carry=[3])


def test_frozen_rows_stay_frozen_by_their_tokens(tokenizer):
    model = make(tokenizer, tie=False)
    word, other = tokenizer.encode(" cat")[0], tokenizer.encode(" dog")[0]
    model.embedding.token.freeze([word])
    new, receipt = vocabulary.trim(model, tokenizer, [TEXT + " dog"])
    factors = TableLink.of(model.embedding.token.weight).factors
    assert (
        factors[receipt.id_map[word]] == 0 and factors[receipt.id_map[other]] == 1 and len(factors) == len(table(model))
    )
    optimizer = RowwiseAdamW(model.parameters())
    before = table(model).clone()
    step(model, optimizer, ids_of(new, "The cat, the dog."))
    assert torch.equal(table(model)[receipt.id_map[word]], before[receipt.id_map[word]])
    assert not torch.equal(table(model)[receipt.id_map[other]], before[receipt.id_map[other]])


def test_a_ledger_goes_along_and_new_rows_begin_untrained(tokenizer):
    model = make(tokenizer)
    optimizer, ledger = torch.optim.AdamW(model.parameters()), Ledger(model.embedding.token)
    for _ in range(2):
        step(model, optimizer, ids_of(tokenizer), ledger)
    before = ledger.record()
    grown, receipt = vocabulary.grow(model, tokenizer, TOKENS, carry=[optimizer, ledger])
    assert receipt.basis == "ledger" and receipt.after.untrained == receipt.before.untrained + 3
    new, receipt = vocabulary.trim(model, grown, [TEXT], keep=[tokenizer.vocab_size], carry=[optimizer, ledger])
    after = ledger.record()
    word = tokenizer.encode(" cat")[0]
    assert after.input_count[receipt.id_map[word]] == before.input_count[word] == 2
    assert after.displacement[receipt.id_map[word]] == pytest.approx(before.displacement[word])
    added = receipt.id_map[tokenizer.vocab_size]
    assert after.input_count[added] == after.path[added] == after.displacement[added] == 0
    assert after.norm_start[added] == after.norm_now[added] > 0
    step(model, optimizer, ids_of(new), ledger)
    assert ledger.record().input_count[receipt.id_map[word]] == 3 and ledger.steps == 3


def test_a_ledger_that_went_along_goes_on_from_its_state(tokenizer):
    model = make(tokenizer)
    optimizer, ledger = torch.optim.AdamW(model.parameters()), Ledger(model.embedding.token)
    start = table(model).clone()
    step(model, optimizer, ids_of(tokenizer), ledger)
    vocabulary.grow(model, tokenizer, [f"<{n}>" for n in range(9)], carry=[optimizer, ledger])
    now = torch.cat([start[: tokenizer.vocab_size], table(model)[tokenizer.vocab_size :]])
    other = Ledger(model.embedding.token, start=now)
    other.load_state_dict(ledger.state_dict())
    assert (other.record().displacement == ledger.record().displacement).all()


def test_a_padding_row_of_the_module_follows_its_token(tokenizer):
    module = TokenEmbedding(tokenizer.vocab_size, 8, padding_idx=tokenizer.eot_id)
    _, receipt = vocabulary.trim(module, tokenizer, [TEXT])
    assert module.padding_idx == receipt.id_map[tokenizer.eot_id]
    assert not module.weight[module.padding_idx].any()


def test_any_module_with_one_largest_table_is_edited(tokenizer):
    V = tokenizer.vocab_size
    model = nn.ModuleDict({"words": nn.Embedding(V, 8), "places": nn.Embedding(16, 8), "out": nn.Linear(8, V)})
    model["out"].weight = model["words"].weight
    bias = model["out"].bias.detach().clone()
    _, receipt = vocabulary.grow(model, tokenizer, ["<a>"])
    assert model["out"].weight is model["words"].weight and len(model["out"].bias) == V + 1 == len(
        model["words"].weight
    )
    assert torch.equal(model["out"].bias[:V], bias) and receipt.tied
    assert [changed.name for changed in receipt.changed] == ["words.weight", "out.bias"]


def test_modules_in_which_the_table_is_not_to_be_told_are_refused(tokenizer):
    two = nn.ModuleList([nn.Embedding(400, 8), nn.Embedding(400, 8)])
    with pytest.raises(SettingError, match=r"^`model` must have one largest nn\.Embedding"):
        vocabulary.grow(two, tokenizer, ["<a>"])
    with pytest.raises(SettingError, match=r"^`token table` must be whole and of floats"):
        vocabulary.grow(nn.Embedding(400, 8, device="meta"), tokenizer, ["<a>"])
    with pytest.raises(SettingError, match=r"^`tokenizer` must be a tokenspace\.Tokenizer, but is 'str'"):
        vocabulary.grow(nn.Embedding(400, 8), "gpt2", ["<a>"])
    with pytest.raises(ShapeError, match=r"^`token table` must have a row for each of the tokenizer's 340 tokens"):
        vocabulary.grow(nn.Embedding(300, 8), tokenizer, ["<a>"])


def test_a_copy_does_not_change_with_the_model(tokenizer):
    model = make(tokenizer)
    twin = copy.deepcopy(model)
    before = table(twin).clone()
    vocabulary.trim(model, tokenizer, [TEXT])
    assert torch.equal(table(twin), before) and twin(ids_of(tokenizer)).shape[-1] == tokenizer.vocab_size + PADDING


@pytest.mark.parametrize("interpolate", [False, True])
def test_positions_of_a_live_model_are_resized_with_their_moments(interpolate, tokenizer):
    model = make(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer, ids_of(tokenizer))
    old = model.embedding.position.weight.detach().clone()
    moments = optimizer.state[model.embedding.position.weight]["exp_avg"].clone()
    _, receipt = vocabulary.resize(
        model, tokenizer, num_positions=48, interpolate=interpolate, carry=[optimizer], text=TEXT
    )
    new = model.embedding.position.weight
    assert new.shape == (48, 16) and model.config.context_length == 48
    if interpolate:
        assert torch.equal(new[[0, -1]], old[[0, -1]]) and new not in optimizer.state and receipt.divergence > 0
    else:
        assert torch.equal(new[:24], old) and torch.equal(optimizer.state[new]["exp_avg"][:24], moments)
        assert new[24:].std().item() == pytest.approx(old.std().item(), rel=0.2) and receipt.divergence == 0
    step(model, optimizer, ids_of(tokenizer, TEXT * 9)[:, :49])


def test_positions_without_a_table_are_refused(tokenizer):
    model = make(tokenizer, positions="rotary")
    with pytest.raises(SettingError, match=r"^`num_positions` must be left out for positions without a table"):
        vocabulary.resize(model, tokenizer, 400, num_positions=48)
    assert len(table(model)) == tokenizer.vocab_size + PADDING


def test_the_receipt_measures_before_and_after(tokenizer):
    model = make(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        step(model, optimizer, ids_of(tokenizer))
    _, receipt = vocabulary.grow(model, tokenizer, ["by the door"], init="subtokens", text=TEXT)
    ids = [tokenizer.eot_id, *tokenizer.encode(TEXT)]
    logits = make(tokenizer)  # the model as it was, by its own route
    logits.load_state_dict({n: t[: tokenizer.vocab_size + PADDING] for n, t in model.state_dict().items()})
    loss = nn.functional.cross_entropy(
        logits(torch.tensor([ids[:-1]]))[0, :, : tokenizer.vocab_size], torch.tensor(ids[1:]), reduction="sum"
    )
    assert receipt.before.bits_per_byte == pytest.approx(loss.item() / 0.6931471805599453 / len(TEXT), rel=1e-5)
    assert receipt.after.bits_per_byte > receipt.before.bits_per_byte  # a phrase it never saw as one token
    assert receipt.after.tokens < receipt.before.tokens and receipt.text_bytes == len(TEXT)
    assert receipt.divergence == 0


def test_a_receipt_is_read_back_and_notices_changes(tokenizer, tmp_path):
    _, receipt = vocabulary.trim(make(tokenizer), tokenizer, [TEXT], text=TEXT)
    receipt.save(tmp_path / "receipt.json")
    assert Receipt.load(tmp_path / "receipt.json") == receipt
    text = (tmp_path / "receipt.json").read_text(encoding="utf-8")
    (tmp_path / "receipt.json").write_text(text.replace('"verb": "trim"', '"verb": "grow"'), encoding="utf-8")
    with pytest.raises(TokenspaceError, match="altered"):
        Receipt.load(tmp_path / "receipt.json")


def test_the_id_map_leads_every_token_to_its_own_label(tokenizer):
    new, receipt = vocabulary.trim(make(tokenizer), tokenizer, TEXTS[:1])
    for old_id, new_id in enumerate(receipt.id_map.tolist()):
        assert new_id < 0 or new.label(new_id) == tokenizer.label(old_id)
    assert sorted(receipt.removed) == [i for i, new_id in enumerate(receipt.id_map.tolist()) if new_id < 0]


def test_a_model_that_sees_both_sides_has_no_bits_per_byte(tokenizer):
    _, receipt = vocabulary.grow(make(tokenizer, causal=False), tokenizer, ["<a>"], text=TEXT)
    assert receipt.before.bits_per_byte is receipt.after.bits_per_byte is None and receipt.divergence is not None
    assert receipt.remarks == ["the model predicts no next token from those before: no bits per byte"]


ODD = [3.7, "x", b"x", None, object(), torch.zeros(2, 2), torch.tensor(1), ["a", 1], [None], {"a": 1}, int, "\ud800"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: " ".join(repr(odd).split())[:20])
@pytest.mark.parametrize("verb", ["grow", "remove", "trim", "reorder", "resize"])
def test_arguments_of_any_kind_are_taken_or_refused_by_name(verb, odd, tokenizer):
    good = {
        "grow": {"tokens": ["<a>"], "init": "mean", "special": False, "pad_to_multiple_of": 8},
        "remove": {"tokens": [" slept"], "pad_to_multiple_of": 8},
        "trim": {"texts": [TEXT], "keep": [1], "pad_to_multiple_of": 8},
        "reorder": {"order": list(range(tokenizer.vocab_size)), "by_count": False},
        "resize": {"num_rows": 400, "pad_to_multiple_of": 8, "num_positions": 24, "interpolate": False},
    }[verb] | {"carry": [], "text": TEXT}
    call = getattr(vocabulary, verb)
    for name in good:
        try:
            call(make(tokenizer), tokenizer, **{**good, name: odd})
        except TokenspaceError as error:
            assert "\n" not in str(error)
    with pytest.raises(SettingError, match=r"^`model` must be an nn\.Module, but is "):
        call(odd, tokenizer, **good)
    with pytest.raises(SettingError, match=r"^`tokenizer` must be a tokenspace\.Tokenizer, but is "):
        call(make(tokenizer), odd, **good)
    with pytest.raises(SettingError, match=r"^`change` must be an Add, Remove, Trim, Reorder or Resize, but is "):
        vocabulary.apply(odd, make(tokenizer), tokenizer)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: " ".join(repr(odd).split())[:20])
def test_settings_of_new_rows_are_taken_or_refused_by_name(odd, tokenizer):
    for fields in ({"recipe": odd}, {"seed": odd}, {"recipe": "vectors", "vectors": odd}):
        with pytest.raises(TokenspaceError) as caught:
            vocabulary.grow(make(tokenizer), tokenizer, ["<a>"], init=NewRows(**fields))
        assert "\n" not in str(caught.value)
    with pytest.raises(TokenspaceError, match=r"^`(vector|token)"):
        vocabulary.grow(make(tokenizer), tokenizer, ["<a>"], init=NewRows(recipe="vectors", vectors={"<a>": odd}))


@pytest.mark.parametrize("verb", ["pad_to_multiple_of", "num_rows", "num_positions"])
def test_absurd_numbers_of_rows_are_refused(verb, tokenizer):
    with pytest.raises(SettingError, match=f"^`{verb}` must be at most 2,147,483,647, but is 1000000"):
        vocabulary.resize(make(tokenizer), tokenizer, **{verb: 10**30})
