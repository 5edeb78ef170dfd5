"""What a study measures: losses on the same tokens, order probes with exact answers, best schemes."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tokenspace.corpus import Corpus, TextSource, build_from_source
from tokenspace.errors import ShapeError
from tokenspace.model import LanguageModel
from tokenspace.study import Measure
from tokenspace.study.footprint import step_bytes
from tokenspace.study.lengths import final_targets, loss_at_lengths, loss_by_position
from tokenspace.study.pairs import choose_originals, sentence_losses, sentence_pairs
from tokenspace.study.probing import task_accuracies, train_on_tasks
from tokenspace.study.tasks import MOST_COUNT, NUM_IDS, NUM_LETTERS, TASKS, draw_examples
from tokenspace.training.objective import HiddenTokens, NextToken, objective_of

FIRST, SECOND, BEFORE, MARK, HOW_LONG = range(NUM_IDS - 5, NUM_IDS)
WORDS = [
    "the",
    "a",
    "one",
    "cat",
    "dog",
    "bird",
    "sat",
    "ran",
    "saw",
    "on",
    "by",
    "under",
    "mat",
    "door",
    "tree",
    "and",
    "then",
]


class Stub(nn.Module):
    """A model that says `logits(ids)`."""

    def __init__(self, logits):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.logits = logits

    def forward(self, token_ids, layout=None):
        return self.logits(token_ids)


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    generator = np.random.default_rng(0)
    text = " ".join(generator.choice(WORDS, 6000))
    folder = tmp_path_factory.mktemp("study") / "corpus"
    build_from_source(TextSource.documents([text]), "train:300", folder)
    return Corpus.open(folder, "validation")


def plain(V, ids):
    """Logits that depend on nothing but the token they are for."""
    return torch.sin(torch.arange(V) * 1.7).expand(*ids.shape, V)


@pytest.mark.parametrize("objective", [NextToken(), HiddenTokens(300)])
def test_the_same_tokens_are_scored_at_every_length(validation, objective):
    V = 301
    model = Stub(lambda ids: plain(V, ids))
    means, number = loss_at_lengths(model, validation, objective, [8, 16, 24, 32], 200, V)
    assert number > 20
    assert means == pytest.approx([means[0]] * 4, abs=1e-9)  # of other tokens the mean would differ


def test_each_token_is_scored_at_most_once_and_never_before_the_longest_window():
    ends = final_targets(1000, longest=64, scored=8, most_targets=400)
    assert ends.min() >= 64 and ends.max() < 1000
    assert np.diff(ends).min() >= 8 and len(ends) == 50


def test_loss_by_position_knows_positions(validation):
    V = 301

    def logits(ids):  # the farther in, the surer of token 0
        made = torch.zeros(*ids.shape, V)
        made[..., 0] = torch.arange(ids.shape[1])
        return made

    mean, by_position = loss_by_position(Stub(logits), validation, NextToken(), 16, V)
    windows = validation.gather(np.arange(0, validation.num_tokens - 16, 16), 17)[:, 1:]
    expected = [(np.log(V - 1 + math.exp(i)) - i * (windows[:, i] == 0)).mean() for i in range(16)]
    assert by_position == pytest.approx(expected, abs=1e-5)
    assert mean == pytest.approx(np.mean(expected), abs=1e-5)


def test_where_the_model_has_no_positions_there_is_no_loss(validation):
    def logits(ids):
        if ids.shape[1] > 16:
            raise ShapeError("positions", "be at most 15", 16, "Shorten")
        return plain(301, ids)

    means, _ = loss_at_lengths(Stub(logits), validation, NextToken(), [8, 16, 24], 100, 301)
    assert [mean is None for mean in means] == [False, False, True]


def test_learned_tables_are_lengthened_for_reading_and_the_model_stays(validation):
    torch.manual_seed(0)
    model = LanguageModel(vocab_size=301, d_model=8, num_layers=1, num_heads=1, context_length=8).eval()
    means, _ = loss_at_lengths(model, validation, NextToken(), [8, 16], 100, 301)
    assert all(mean is not None for mean in means)
    assert model.embedding.position.max_position == 7


def solved(ids, task):
    """The answers, worked out anew from what stands before them: place in `ids` to answer."""
    answers = {}
    for place in range(1, len(ids)):
        if task == "copy" and SECOND in ids[:place]:
            middle = ids.index(SECOND)
            answers[place] = ids[ids.index(FIRST) + place - middle]
        if task == "previous" and ids[place - 1] == BEFORE:
            answers[place] = ids[place - 2]
        if task == "count" and ids[place - 1] == HOW_LONG:
            marked = max(i for i in range(place) if ids[i] == MARK)
            answers[place] = NUM_LETTERS + place - 1 - marked
    return answers


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [8, 32, 65])
def test_answers_are_exact(task, length):
    examples = draw_examples(task, 50, length, np.random.default_rng(length))
    found = 0
    for row, answers in zip(examples.ids.tolist(), examples.answers.tolist(), strict=True):
        assert {place + 1: row[place + 1] for place in range(length) if answers[place]} == solved(row, task)
        found += sum(answers)
    assert found > 20 and int(examples.ids.max()) < NUM_IDS


def test_counts_and_letters_come_evenly():
    counts = draw_examples("count", 2000, 64, np.random.default_rng(0))
    asked = counts.ids[:, 1:][counts.answers] - NUM_LETTERS
    assert asked.min() == 1 and asked.max() == MOST_COUNT
    copies = draw_examples("copy", 2000, 32, np.random.default_rng(0))
    letters = torch.bincount(copies.ids[:, 1:][copies.answers], minlength=NUM_LETTERS)
    assert letters.max() / letters.min() < 1.15


def test_shuffled_sentences_have_the_same_words_in_another_order(validation):
    originals, shuffled = sentence_pairs(validation, validation.tokenizer())
    assert len(originals) > 20 and originals.shape == (len(originals), 17)
    assert torch.equal(originals[:, 1:].sort(1).values, shuffled[:, 1:].sort(1).values)
    assert torch.equal(originals[:, 0], shuffled[:, 0])
    assert (originals != shuffled).any(1).all()


def test_words_stay_whole(validation):
    tokenizer = validation.tokenizer()

    def words(ids):  # beginnings and ends of the window may cut one
        return sorted("".join(tokenizer.decode([i]) for i in ids[1:]).replace(" ", "| ").split("|")[1:])

    pairs = sentence_pairs(validation, tokenizer)
    assert all(words(before) == words(after) for before, after in zip(*(side.tolist() for side in pairs), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_without_positions_a_model_of_hidden_tokens_is_at_chance_and_ties(validation, seed):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 301, "d_model": 16, "num_layers": 2, "num_heads": 2, "context_length": 17}
    model = LanguageModel(**sizes, positions="none", causal=False, init="torch").eval()
    pairs = sentence_pairs(validation, validation.tokenizer())
    chosen = choose_originals(model, HiddenTokens(300), *pairs, 301)
    assert (chosen.accuracy, chosen.ties) == (0.5, 1.0)


def test_with_positions_the_same_model_does_not_tie(validation):
    torch.manual_seed(0)
    sizes = {"vocab_size": 301, "d_model": 16, "num_layers": 2, "num_heads": 2, "context_length": 17}
    model = LanguageModel(**sizes, positions="sinusoidal", causal=False, init="torch").eval()
    pairs = sentence_pairs(validation, validation.tokenizer())
    assert choose_originals(model, HiddenTokens(300), *pairs, 301).ties < 0.1


def test_a_model_that_knows_which_token_follows_finds_every_original(validation):
    ids = torch.from_numpy(validation.tokens(0, validation.num_tokens).astype(np.int64))
    seen = torch.zeros(301, 301)
    seen[ids[:-1], ids[1:]] = 8.0
    model = Stub(lambda token_ids: seen[token_ids])
    originals, shuffled = sentence_pairs(validation, validation.tokenizer())
    better = (seen[shuffled[:, :-1], shuffled[:, 1:]] == 0).any(1)  # else the shuffled one is as likely
    chosen = choose_originals(model, NextToken(), originals[better], shuffled[better], 301)
    assert chosen.accuracy > 0.95 and chosen.pairs == int(better.sum()) > 10


def test_a_hidden_token_is_asked_for_while_all_others_are_read():
    sentences = torch.tensor([[9, 1, 2, 3]])
    read = []

    def logits(token_ids):
        read.extend(token_ids.tolist())
        return torch.zeros(*token_ids.shape, 11)

    losses = sentence_losses(Stub(logits), HiddenTokens(10), sentences, 11)
    assert read == [[10, 2, 3], [1, 10, 3], [1, 2, 10]]
    assert losses.tolist() == pytest.approx([math.log(11)])


def test_a_small_model_learns_the_letter_before_a_marker(one_thread):
    torch.manual_seed(0)
    sizes = {"vocab_size": NUM_IDS + 1, "d_model": 32, "num_layers": 2, "num_heads": 2, "context_length": 16}
    model = LanguageModel(**sizes, positions="rotary")
    before = task_accuracies(model.eval(), NextToken(), 16, [1], NUM_IDS + 1)
    train_on_tasks(model, objective_of(model.config), 16, 250, seed=1)
    after = task_accuracies(model, NextToken(), 16, [1, 2], NUM_IDS + 1)
    assert before["previous"][0] < 0.2 and after["previous"][0] > 0.5
    assert len(after["copy"]) == 2


@pytest.mark.parametrize("objective", [NextToken(), HiddenTokens(NUM_IDS)])
def test_a_large_vocabulary_is_asked_a_few_rows_at_a_time(objective):
    V, sizes = 50257, []

    def logits(ids):
        sizes.append(ids.numel() * V * 4)
        return torch.zeros(1).expand(*ids.shape, V)

    found = task_accuracies(Stub(logits), objective, 16, [2], V)
    assert max(sizes) <= 64 << 20 and sum(sizes) >= 3 * 256 * 32 * V * 4
    assert found["copy"][0] < 0.2


def test_answers_are_counted_alike_whatever_fits_at_once():
    def last(ids):  # says the letter before the marker, as far as that is the answer
        return torch.nn.functional.one_hot(ids.roll(1, 1), NUM_IDS).float()

    found = [task_accuracies(Stub(last), NextToken(), 16, [1, 2], V) for V in (NUM_IDS, 50257)]
    assert found[0] == found[1] and found[0]["previous"] == [1.0, 1.0]


def corpus_of(text, folder):
    build_from_source(TextSource.documents([text]), "train:300", folder)
    return Corpus.open(folder, "validation")


def test_in_a_text_without_blanks_each_token_is_a_word(tmp_path):
    letters = np.random.default_rng(0).integers(0x4E00, 0x4E00 + 90, 9000)
    text = "".join(map(chr, letters))
    corpus = corpus_of(" ".join(text[i : i + 600] for i in range(0, 9000, 600)), tmp_path / "c")
    originals, shuffled = sentence_pairs(corpus, corpus.tokenizer())
    assert len(originals) > 20 and (originals != shuffled).any(1).all()
    assert torch.equal(originals.sort(1).values, shuffled.sort(1).values)


def test_a_text_of_one_word_has_no_pairs(tmp_path):
    corpus = corpus_of("a " * 9000, tmp_path / "c")
    pairs = sentence_pairs(corpus, corpus.tokenizer())
    assert [side.shape for side in pairs] == [(0, 17), (0, 17)]
    chosen = choose_originals(Stub(lambda ids: plain(301, ids)), NextToken(), *pairs, 301)
    assert (chosen.accuracy, chosen.ties, chosen.pairs) == (None, None, 0)


def test_step_bytes_are_what_torch_held_at_most():
    def step():
        first, second = torch.zeros(1 << 20), torch.zeros(1 << 20)
        del first
        return second, torch.zeros(1 << 19)

    assert step_bytes(step, torch.device("cpu")) == 8 << 20


def test_memory_is_measured_quietly_where_garbage_waits():
    """torch tells on stderr, once in a process, of tensors from before that are freed meanwhile."""
    code = """
import gc, torch
from tokenspace.study.footprint import step_bytes
gc.disable()
ring = [torch.zeros(100)]
ring.append(ring)
del ring
print(step_bytes(lambda: (torch.zeros(1 << 20), gc.collect()), torch.device("cpu")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert (done.stdout, done.stderr) == (f"{4 << 20}\n", "")


def measure(**values):
    return Measure("loss", "loss", {name: dict(enumerate(found)) for name, found in values.items()})


def test_the_best_is_named_where_every_paired_interval_allows_it():
    clear = measure(a=[1.0, 2.0, 3.0], b=[1.5, 2.51, 3.49], c=[2.0, 3.02, 4.0])
    assert clear.ranked() == ["a", "b", "c"] and clear.best() == "a"


def test_no_best_where_one_other_is_too_close():
    assert measure(a=[1.0, 2.0, 3.0], b=[1.3, 2.0, 3.1], c=[2.0, 3.02, 4.0]).best() is None


def test_no_best_of_one_seed_or_one_scheme():
    assert measure(a=[1.0], b=[2.0]).best() is None
    assert measure(a=[1.0, 1.1]).best() is None


def test_many_comparisons_share_the_level():
    near = {"a": [1.0, 1.0, 1.0], "b": [1.1, 1.13, 1.14]}  # t = 10.2: enough for one comparison, not for eight
    assert measure(**near).best() == "a"
    others = {f"other{i}": [2.0, 2.01, 2.0] for i in range(7)}
    assert measure(**near, **others).best() is None


def test_higher_is_better_of_probes():
    found = Measure("copy", "copy", {"a": {1: 0.2, 2: 0.21}, "b": {1: 0.9, 2: 0.92}}, lower_is_better=False)
    assert found.ranked() == ["b", "a"] and found.best() == "b"
