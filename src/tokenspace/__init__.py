"""tokenspace: text in, trained token and position vectors out.

The whole public surface, by name. A name is imported when it is first touched, so that
``import tokenspace`` costs nothing and loads neither torch nor the tokenizers.

Example:
    >>> from tokenspace import Tokenizer
    >>> Tokenizer.gpt2().encode("Text in, vectors out.")
    [8206, 287, 11, 30104, 503, 13]
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {  # name: the module that has it; a module has itself
    "Corpus": "tokenspace.corpus",
    "InputEmbedding": "tokenspace.embedding",
    "LanguageModel": "tokenspace.model",
    "Layout": "tokenspace.positions",
    "Ledger": "tokenspace.ledger",
    "RowwiseAdamW": "tokenspace.optim",
    "Run": "tokenspace.checkpoint",
    "TokenEmbedding": "tokenspace.embedding",
    "Tokenizer": "tokenspace.tokenizer",
    "WindowLoader": "tokenspace.loader",
    "create_dataloader": "tokenspace.loader",
    "export": "tokenspace.checkpoint.exporting",
    "inspection": "tokenspace.inspection",
    "open_tables": "tokenspace.checkpoint",
    "positions": "tokenspace.positions",
    "resume": "tokenspace.training",
    "train": "tokenspace.training",
    "vocabulary": "tokenspace.vocabulary",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
