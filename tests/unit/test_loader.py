import gc
import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from tokenspace.corpus import Corpus, build_corpus
from tokenspace.errors import CorpusError, SettingError
from tokenspace.loader import EpochBatches, TokenArray, WindowLoader, create_dataloader
from tokenspace.loader.batches import WindowStarts
from tokenspace.text import Piece
from tokenspace.tokenizer import Tokenizer
from tokenspace.windows import Share, WindowOrder

TOKENS = TokenArray(np.arange(400, dtype=np.uint16))  # 99 windows of 4 tokens, 4 apart
one_core = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def make(tokens=TOKENS, batch_size=4, context_length=4, stride=4, **settings):
    return WindowLoader(tokens, batch_size, context_length, stride, **{"seed": 1, **settings})


def listed(batches):
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in batches]


def taken(loader, number):
    """So many batches of the next epoch, the rest of it left."""
    batches = iter(loader)
    first = listed(next(batches) for _ in range(number))
    batches.close()
    return first


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("windows")]


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, gpt2):
    out = tmp_path_factory.mktemp("loader") / "corpus"
    pieces = [
        Piece(f"The cat number {row} sat on the mat, and the dog did not. " * 3, True, "x", row) for row in range(60)
    ]
    build_corpus(pieces, gpt2, out, validation_fraction=0.3)
    return out


class Failing:
    """A stream that fails at its n-th gather."""

    num_tokens, max_id, identity = 1_000_000, 9, "failing"

    def __init__(self, at):
        self.left = at

    def gather(self, starts, length):
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk went away")
        return np.zeros((len(starts), length), np.uint16)


class Counting(TokenArray):
    """A stream that knows how many windows were gathered."""

    gathered = 0
    most_at_once = 0

    def gather(self, starts, length):
        self.gathered += len(starts)
        self.most_at_once = max(self.most_at_once, len(starts) * length)
        return super().gather(starts, length)


# what a batch is


def test_inputs_and_targets_of_the_first_batch():
    inputs, targets = next(iter(make(batch_size=2, shuffle=False)))
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert targets.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@one_core
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_is_a_pair_of_contiguous_int64_tensors(num_workers):
    batch = next(iter(make(num_workers=num_workers)))
    assert type(batch) is tuple
    for part in batch:
        assert (part.dtype, part.shape, part.device.type) == (torch.int64, (4, 4), "cpu")
        assert part.is_contiguous()


def test_batches_do_not_share_memory_with_the_stream_or_each_other():
    loader = make(shuffle=False)
    expected = listed(loader)
    batches = list(loader)
    for number, (inputs, targets) in enumerate(batches):
        assert (inputs.tolist(), targets.tolist()) == expected[number]
        inputs.fill_(-1)
        targets.fill_(-2)
    assert listed(loader) == expected


def test_windows_longer_than_a_chunk():
    ids = np.arange(700_000, dtype=np.uint32)
    inputs, targets = next(iter(WindowLoader(TokenArray(ids), 2, 300_000, 300_000, shuffle=False)))
    assert (inputs.shape, targets[1, -1].item()) == ((2, 300_000), 600_000)


# epochs and seeds


def test_the_same_seed_gives_the_same_batches():
    assert listed(make()) == listed(make())


def test_another_seed_gives_another_order():
    assert listed(make()) != listed(make(seed=2))


def test_each_epoch_has_an_order_of_its_own():
    loader = make(drop_last=False)
    first, second = listed(loader), listed(loader)
    assert first != second
    assert sorted(row for batch, _ in first for row in batch) == sorted(row for batch, _ in second for row in batch)


def test_an_epoch_that_was_left_is_followed_by_the_next():
    left, whole = make(), make()
    taken(left, 3)
    list(whole)
    assert listed(left) == listed(whole)


def test_without_a_seed_the_order_follows_torchs_generator():
    def order():
        torch.manual_seed(4)
        return listed(make(seed=None))

    assert order() == order()


def test_without_a_seed_each_epoch_draws_as_torchs_sampler_does():
    torch.manual_seed(4)
    expected = int(torch.empty((), dtype=torch.int64).random_())
    torch.manual_seed(4)
    loader = make(seed=None)
    taken(loader, 1)
    assert loader.state_dict()["seed"] == expected


def test_without_a_seed_a_second_epoch_draws_another():
    torch.manual_seed(4)
    drawn = [int(torch.empty((), dtype=torch.int64).random_()) for _ in range(2)]
    torch.manual_seed(4)
    loader, seeds = make(seed=None), []
    for _ in range(2):
        taken(loader, 1)
        seeds.append(loader.state_dict()["seed"])
    assert seeds == drawn


@pytest.mark.parametrize("settings", [{"seed": 1}, {"seed": None, "shuffle": False}])
def test_nothing_is_drawn_where_the_order_is_fixed(settings):
    before = torch.get_rng_state()
    list(make(**settings))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_shuffle_all_epochs_are_the_stream():
    loader = make(shuffle=False, drop_last=False)
    assert listed(loader) == listed(loader)


def test_drop_last_leaves_out_the_batch_that_is_not_full():
    assert [len(make(drop_last=drop_last)) for drop_last in (True, False)] == [24, 25]
    assert [len(inputs) for inputs, _ in make(drop_last=False)][-1] == 3


def test_fewer_windows_than_a_batch_give_no_batch_as_in_torch():
    loader = make(batch_size=100)
    assert (len(loader), list(loader)) == (0, [])


def test_fewer_windows_than_a_batch_give_one_without_drop_last():
    assert [len(inputs) for inputs, _ in make(batch_size=100, drop_last=False)] == [99]


# the state


def test_a_state_counts_what_was_consumed_by_all_ranks_and_nothing_gathered_ahead():
    tokens = Counting(np.arange(40_000, dtype=np.uint16))
    loader = make(tokens, world_size=3)
    batches = iter(loader)
    next(batches), next(batches)
    assert tokens.gathered > 100
    assert loader.state_dict()["windows_consumed"] == 24
    batches.close()


def test_a_state_is_json():
    loader = make(batch_size=np.int64(4), context_length=np.int64(4), stride=np.int32(4), seed=np.int64(1))
    taken(loader, 2)
    state = loader.state_dict()
    assert json.loads(json.dumps(state)) == state


def test_the_size_of_a_state_does_not_depend_on_the_corpus():
    assert list(make().state_dict()) == [
        "tokens", "context_length", "stride", "num_windows", "shuffle", "streams", "block_windows", "seed",
        "epoch", "windows_consumed",
    ]  # fmt: skip


@pytest.mark.parametrize("number", [0, 1, 7, 23])
def test_a_state_goes_on_at_exactly_the_next_window(number):
    whole = listed(make())
    loader, again = make(), make()
    taken(loader, number)
    again.load_state_dict(loader.state_dict())
    assert listed(again) == whole[number:]


def test_a_state_at_the_end_of_an_epoch_goes_on_with_the_next():
    loader, again = make(), make()
    list(loader)
    again.load_state_dict(loader.state_dict())
    assert listed(again) == listed(loader)


def test_a_state_before_the_first_batch_is_the_beginning():
    again = make()
    again.load_state_dict(make().state_dict())
    assert listed(again) == listed(make())


def test_a_state_survives_being_restored_and_asked_for_again():
    loader, again = make(), make()
    taken(loader, 5)
    again.load_state_dict(loader.state_dict())
    assert again.state_dict() == loader.state_dict()


def test_after_a_restored_epoch_comes_the_next_of_the_same_seed():
    loader, again = make(), make()
    taken(loader, 5)
    again.load_state_dict(loader.state_dict())
    list(again)
    assert listed(again) == listed(loader)


def test_a_drawn_seed_is_kept_in_the_state():
    torch.manual_seed(9)
    whole = listed(make(seed=None))
    torch.manual_seed(9)
    loader, again = make(seed=None), make(seed=None)
    taken(loader, 5)
    again.load_state_dict(loader.state_dict())
    torch.manual_seed(10)
    assert listed(again) == whole[5:]


@one_core
def test_a_state_made_by_a_thread_goes_on_in_worker_processes():
    whole = listed(make())
    loader, again = make(), make(num_workers=2)
    taken(loader, 5)
    again.load_state_dict(loader.state_dict())
    assert listed(again) == whole[5:]


def test_an_iterator_left_behind_does_not_move_the_count():
    loader = make()
    state = loader.state_dict()
    old = iter(loader)
    next(old)
    loader.load_state_dict(state)
    new = iter(loader)
    next(new)
    next(old)
    assert loader.state_dict()["windows_consumed"] == 4
    old.close(), new.close()


def test_an_iterator_left_behind_does_not_move_a_count_that_was_restored():
    loader = make()
    state = loader.state_dict()
    old = iter(loader)
    next(old)
    loader.load_state_dict(state)
    next(old)
    assert loader.state_dict() == state
    old.close()


def test_a_rank_without_windows_waits_in_the_epoch_that_the_others_finish():
    loader = make(batch_size=98, drop_last=False)  # one of 99 windows is left
    taken(loader, 1)
    ranks = [make(batch_size=1, drop_last=False, rank=rank, world_size=2) for rank in (0, 1)]
    for rank in ranks:
        rank.load_state_dict(loader.state_dict())
    assert [len(list(rank)) for rank in ranks] == [1, 0]
    assert [rank.state_dict()["epoch"] for rank in ranks] == [0, 0]


def test_a_state_of_other_tokens():
    loader = make(TokenArray(np.arange(1, 401, dtype=np.uint16)))
    with pytest.raises(SettingError) as error:
        loader.load_state_dict(make().state_dict())
    assert str(error.value) == (
        f"`loader state 'tokens'` must be '{loader.tokens.identity}', but is '{TOKENS.identity}'. "
        "Restore it into a loader of the same tokens, windows and seed."
    )


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("context_length", {"context_length": 5}),
        ("stride", {"stride": 2}),
        ("shuffle", {"shuffle": False}),
        ("seed", {"seed": 2}),
    ],
)
def test_a_state_of_other_settings_that_fix_the_order(name, settings):
    loader = make(**settings)
    taken(loader, 1)
    with pytest.raises(SettingError, match=rf"^`loader state '{name}'` must be "):
        make().load_state_dict(loader.state_dict())


def test_a_refused_state_changes_nothing():
    other, loader = make(stride=2), make()
    taken(loader, 3)
    before = loader.state_dict()
    with pytest.raises(SettingError):
        loader.load_state_dict(other.state_dict())
    assert loader.state_dict() == before


def test_a_state_of_the_training_part_is_refused_by_the_validation_part(folder):
    state = make(Corpus.open(folder)).state_dict()
    with pytest.raises(SettingError, match=r"^`loader state 'num_windows'` must be "):
        make(Corpus.open(folder, "validation")).load_state_dict(state)


def test_a_state_that_is_none():
    with pytest.raises(SettingError, match=r"^`loader state 'tokens'` must be .*, but is None\. "):
        make().load_state_dict({})


# the thread


@pytest.mark.parametrize("end", ["exhausted", "closed", "dropped", "failed"])
def test_no_thread_outlives_its_iterator(end):
    batches = iter(make())
    next(batches)
    assert prefetching()
    if end == "exhausted":
        list(batches)
    elif end == "closed":
        batches.close()
    elif end == "dropped":
        del batches
        gc.collect()
    else:
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert not prefetching()


def test_no_thread_begins_before_the_first_batch_is_asked_for():
    batches = iter(make())
    assert not prefetching()
    batches.close()


def test_a_failure_in_the_thread_reaches_the_consumer():
    with pytest.raises(OSError, match="the disk went away"):
        next(iter(make(Failing(at=0))))
    assert not prefetching()


def test_batches_gathered_before_a_failure_are_delivered_and_counted():
    loader = make(Failing(at=1), context_length=1024, stride=1024)
    seen = 0
    with pytest.raises(OSError, match="the disk went away"):
        for _ in loader:
            seen += 1
    assert seen > 0
    assert loader.state_dict()["windows_consumed"] == seen * 4


def test_the_thread_runs_one_chunk_ahead_and_no_more():
    tokens = Counting(np.zeros(4_000_000, dtype=np.uint16))
    batches = iter(make(tokens, context_length=256, stride=16))
    next(batches)
    time.sleep(0.1)  # what would run on unasked shows in this time
    assert tokens.gathered * 257 < 3 * (1 << 18)
    batches.close()


@pytest.mark.parametrize("num_tokens", [1_000_000, 4_000_000])
def test_what_is_gathered_at_once_does_not_grow_with_the_stream(num_tokens):
    tokens = Counting(np.zeros(num_tokens, dtype=np.uint16))
    taken(make(tokens, context_length=64, stride=32), 3000)
    assert tokens.most_at_once < 300_000


def test_two_iterators_of_two_loaders_side_by_side():
    expected = listed(make()), listed(make(seed=2))
    pairs = list(zip(make(), make(seed=2), strict=True))
    assert (listed(one for one, _ in pairs), listed(two for _, two in pairs)) == expected


def test_a_process_ends_at_once_with_an_epoch_half_consumed():
    code = (
        "import numpy as np\nfrom tokenspace.loader import *\n"
        "batches = iter(WindowLoader(TokenArray(np.arange(100_000)), 4, 16, 1, seed=1))\nnext(batches)\nprint('out')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "")


# worker processes


@one_core
@pytest.mark.parametrize("settings", [{}, {"drop_last": False}, {"rank": 1, "world_size": 2}, {"shuffle": False}])
def test_worker_processes_give_the_same_batches_in_the_same_order(settings):
    with_thread, with_workers = make(**settings), make(num_workers=2, **settings)
    for _ in range(2):
        assert listed(with_workers) == listed(with_thread)


@one_core
def test_a_state_counts_what_was_consumed_from_workers():
    loader = make(num_workers=1)
    taken(loader, 3)
    assert loader.state_dict()["windows_consumed"] == 12


@one_core
def test_no_worker_process_outlives_its_iterator():
    taken(make(num_workers=1), 1)
    assert not multiprocessing.active_children()


def test_the_batches_of_a_corpus_can_be_sent_to_another_process(folder):
    corpus = Corpus.open(folder, "validation")
    order = WindowOrder(num_windows=50, shuffle=True, seed=1, epoch=0)
    batches = EpochBatches(corpus, WindowStarts(order, stride=4), Share(start=3, stop=50, batch_size=4), 4)
    again = pickle.loads(pickle.dumps(batches))
    assert listed(again[number] for number in range(len(again))) == listed(batches[number] for number in range(11))


# create_dataloader


def test_a_corpus_may_be_given_open_or_as_its_folder(folder):
    settings = {"batch_size": 2, "max_length": 8, "stride": 8, "seed": 3}
    assert listed(create_dataloader(folder, **settings)) == listed(create_dataloader(Corpus.open(folder), **settings))


def test_an_open_validation_part_stays_one_when_its_tokenizer_is_checked(folder, gpt2):
    loader = create_dataloader(Corpus.open(folder, "validation"), 2, 8, 8, tokenizer=gpt2)
    assert loader.tokens.split == "validation"


@pytest.mark.parametrize("opened", [True, False])
def test_a_corpus_made_with_another_tokenizer(folder, opened):
    other = Tokenizer.train(["some words of another text, and more of them " * 20], 280)
    with pytest.raises(CorpusError, match=r"must be made with the tokenizer in use, .*made with another, gpt2"):
        create_dataloader(Corpus.open(folder) if opened else folder, 2, 8, 8, tokenizer=other)


def test_end_of_text_in_a_text_is_text(gpt2):
    text = "one day<|endoftext|>another day"
    inputs, _ = next(iter(create_dataloader(text, 1, 8, 1, shuffle=False)))
    assert inputs[0].tolist() == gpt2.encode(text)[:8]
    assert 50256 not in gpt2.encode(text)


def test_no_end_of_text_is_appended(gpt2):
    loader = create_dataloader("every effort moves you", 1, 1, 1, shuffle=False)
    assert [targets.item() for _, targets in loader] == gpt2.encode("every effort moves you")[1:]


def test_another_tokenizer_is_used():
    tokenizer = Tokenizer.train(["some words of another text, and more of them " * 20], 280)
    inputs, _ = next(iter(create_dataloader("some words of a text", 1, 4, 1, shuffle=False, tokenizer=tokenizer)))
    assert inputs[0].tolist() == tokenizer.encode("some words of a text")[:4]


# errors


def test_a_text_shorter_than_one_window():
    with pytest.raises(SettingError) as error:
        create_dataloader("hi there")
    assert str(error.value) == (
        "`text` must have more than 256 tokens, but is 2. Give a longer text, or windows below 2 tokens."
    )


@pytest.mark.parametrize(("text", "found"), [("", 0), ("hi", 1)])
def test_a_text_too_short_for_any_window(text, found):
    with pytest.raises(SettingError) as error:
        create_dataloader(text)
    assert str(error.value) == f"`text` must have more than 256 tokens, but is {found}. Give a longer text."


@pytest.mark.parametrize("name", ["batch_size", "context_length", "stride", "world_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_sizes_below_1_or_not_whole(name, value):
    with pytest.raises(SettingError, match=rf"^`{name}` must be a whole number of at least 1, but is {value}\. Give"):
        make(**{name: value})


@pytest.mark.parametrize("name", ["rank", "num_workers"])
def test_numbers_below_0(name):
    with pytest.raises(SettingError, match=rf"^`{name}` must be a whole number of at least 0, but is -1\. "):
        make(**{name: -1})


def test_a_rank_that_does_not_exist():
    with pytest.raises(SettingError) as error:
        make(rank=2, world_size=2)
    assert str(error.value) == "`rank` must be below world_size = 2, but is 2. Count ranks from 0."


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (np.arange(20) / 2, "1-dimensional float64"),
        (np.arange(20).reshape(10, 2), "2-dimensional int64"),
        (np.zeros(20, dtype=bool), "1-dimensional bool"),
        ([], "1-dimensional float64"),
    ],
)
def test_ids_that_are_no_row_of_whole_numbers(ids, found):
    with pytest.raises(SettingError) as error:
        TokenArray(ids)
    assert str(error.value) == (
        f"`token_ids` must be one row of whole numbers, but is '{found}'. Give what encode returns."
    )


# tokens in memory


def test_the_identity_of_ids_does_not_depend_on_how_they_are_stored():
    ids = np.arange(100)
    assert TokenArray(ids.astype(">u2")).identity == TokenArray(ids).identity
    assert TokenArray(ids[::-1]).identity != TokenArray(ids).identity


def test_ids_in_memory_tell_their_largest():
    assert TokenArray(np.array([3, 9, 4])).max_id == 9


def test_ids_that_are_not_contiguous():
    loader = WindowLoader(TokenArray(np.arange(40)[::2]), 2, 3, 3, shuffle=False)
    assert next(iter(loader))[0].tolist() == [[0, 2, 4], [6, 8, 10]]


def test_contiguous_rows_go_on_where_they_ended():
    first, second = listed(make(batch_size=2, shuffle=False, contiguous=True))[:2]  # 49 windows a row
    assert first[0] == [[0, 1, 2, 3], [196, 197, 198, 199]]
    assert second[0] == [[4, 5, 6, 7], [200, 201, 202, 203]]


def test_a_contiguous_state_goes_on_at_exactly_the_next_window():
    whole = listed(make(shuffle=False, contiguous=True))
    loader, again = make(shuffle=False, contiguous=True), make(shuffle=False, contiguous=True)
    taken(loader, 5)
    again.load_state_dict(loader.state_dict())
    assert listed(again) == whole[5:]


def test_a_contiguous_state_is_not_taken_by_other_rows():
    with pytest.raises(SettingError, match="`loader state 'streams'` must be 2, but is 4"):
        make(batch_size=2, shuffle=False, contiguous=True).load_state_dict(
            make(shuffle=False, contiguous=True).state_dict()
        )


@pytest.mark.parametrize("other", [{"shuffle": True}, {"stride": 2}, {"drop_last": False}])
def test_contiguous_is_refused_with_another_order(other):
    with pytest.raises(SettingError, match="`contiguous` must be with shuffle = False, drop_last = True and"):
        make(**{"shuffle": False, "contiguous": True, **other})


def test_a_state_of_version_0_1_0_is_taken():
    loader = make()
    state = loader.state_dict()
    del state["streams"]
    make().load_state_dict(state)
