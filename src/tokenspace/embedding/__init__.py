"""The token table, and the input embedding that joins it with positions."""

from tokenspace.embedding.input import InputEmbedding
from tokenspace.embedding.recipes import InitRecipe, init_recipe
from tokenspace.embedding.token import TokenEmbedding, check_token_ids

__all__ = ["InitRecipe", "InputEmbedding", "TokenEmbedding", "check_token_ids", "init_recipe"]
