"""A text as the first layer of a model reads it, and what the order of its words changes there.

Axis letters: T length, D d_model.
"""

import itertools

import torch
from torch import Tensor

from tokenspace import positions
from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.errors import SettingError, check_at_least
from tokenspace.inspection.results import OrderComparison, OrderWord, TokenRow, TokenRows
from tokenspace.inspection.tables import position_vectors
from tokenspace.tokenizer import Tokenizer


def random_embedding(
    vocab_size: int, d_model: int = 64, num_positions: int = 1024, scheme: str = "learned", seed: int = 123
) -> InputEmbedding:
    """An untrained input embedding, the same for the same seed: something to look at before there is a run.

    Example:
        >>> random_embedding(10, d_model=4).token.weight.shape
        torch.Size([10, 4])
    """
    shape = positions.ModelShape(
        d_model=d_model, num_heads=1, head_dim=d_model, num_layers=1, context_length=num_positions
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        token = TokenEmbedding(vocab_size, d_model)
        position = positions.for_model(scheme, shape)
        position.reset_tables(1.0)
    return InputEmbedding(token, position).eval()


@torch.no_grad()
def tokens(text: str, tokenizer: Tokenizer, embedding: InputEmbedding, components: int = 3) -> TokenRows:
    """A text as the first layer of a model reads it, one row a token.

    Args:
        text: Any text of at least one token.
        tokenizer: The one that the table belongs to.
        embedding: The tables.
        components: How many components of each vector are given.

    Raises:
        SettingError: the text has no token.
        ShapeError: it has more tokens than positions, or tokens that the table lacks.
    """
    check_at_least(1, components=components)
    ids = tokenizer.encode(text)
    if not ids:
        raise SettingError("text", "have at least one token", text, "Give a word")
    token_TD, position_TD, sum_TD = _vectors(ids, embedding)
    rows = [
        TokenRow(
            position=place,
            id=token_id,
            label=tokenizer.label(token_id),
            bytes=_shown_bytes(tokenizer, token_id),
            token=token_TD[place, :components].tolist(),
            position_vector=position_TD[place, :components].tolist(),
            sum=sum_TD[place, :components].tolist(),
        )
        for place, token_id in enumerate(ids)
    ]
    return TokenRows(rows, sum_TD.shape[1])


@torch.no_grad()
def order(first: str, second: str, tokenizer: Tokenizer, embedding: InputEmbedding) -> OrderComparison:
    """Compare two texts as bags of token vectors and with positions.

    Every word, the first one too, is encoded with one space before it: otherwise byte-level
    vocabularies give a word another token where it opens the text. Note that adding positions
    leaves the *sum* over a text as it was; what differs is each vector, which is what
    attention reads.

    Raises:
        SettingError: a text has no word.
        ShapeError: a text has more tokens than there are positions.
    """
    words = [_words(text, tokenizer) for text in (first, second)]
    ids = [[token_id for word in text for token_id in word] for text in words]
    token, _, with_positions = zip(*(_vectors(some, embedding) for some in ids), strict=True)
    # summed in the order of the ids, in float64, so that the same tokens give the same bits
    bags = [t[torch.tensor(some).argsort(stable=True)].double().sum(dim=0) for t, some in zip(token, ids, strict=True)]
    same = sorted(ids[0]) == sorted(ids[1])
    if same and sorted(words[0]) != sorted(words[1]):  # the same tokens in other words
        words = [[(token_id,) for token_id in text] for text in ids]
    found, squares = [], 0.0
    for word, here, there in _matched(*words) if same else ():
        apart = with_positions[0][here : here + len(word)] - with_positions[1][there : there + len(word)]
        square = apart.square().sum().item()
        shown = tokenizer.decode(list(word)).strip() or tokenizer.label(word[0])
        found.append(OrderWord(shown, (here, there), (square / len(word)) ** 0.5))
        squares += square
    return OrderComparison(
        same_tokens=same,
        bag_distance=(bags[0] - bags[1]).norm().item(),
        set_distance=(squares / len(ids[0])) ** 0.5 if same else None,
        words=found,
        scheme=embedding.position.name,
    )


def _vectors(ids: list[int], embedding: InputEmbedding) -> tuple[Tensor, Tensor, Tensor]:
    """Token vectors as they enter the sum, position vectors, and what the model reads, each (T, D)."""
    batch = torch.tensor([ids], device=embedding.token.weight.device)
    training = embedding.training
    embedding.eval()  # no dropout
    try:
        token_TD = embedding.token(batch)[0] * embedding.scale
        return token_TD, position_vectors(embedding, len(ids)), embedding(batch)[0]
    finally:
        embedding.train(training)


def _words(text: str, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    words = [tuple(tokenizer.encode(f" {word}")) for word in text.split()]
    if not any(words):
        raise SettingError("text", "have at least one word", text, "Give a sentence")
    return words


def _matched(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], int, int]]:
    """Each word with the positions of its first token in both texts, the k-th of a word with its k-th."""
    places: dict[tuple[int, ...], list[int]] = {}
    for word, place in zip(second, _starts(second), strict=True):
        places.setdefault(word, []).append(place)
    return [(word, place, places[word].pop(0)) for word, place in zip(first, _starts(first), strict=True)]


def _starts(words: list[tuple[int, ...]]) -> list[int]:
    return [0, *itertools.accumulate(map(len, words))][:-1]


def _shown_bytes(tokenizer: Tokenizer, token_id: int) -> str:
    try:
        return tokenizer.token_bytes(token_id).hex(" ")
    except ValueError:  # a family whose tokens are no bytes
        return "–"
