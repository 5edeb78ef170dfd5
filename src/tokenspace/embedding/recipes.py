"""Named recipes for the first draw of the two tables."""

from dataclasses import dataclass

from tokenspace.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class InitRecipe:
    """Standard deviations of the first draw of the two tables."""

    token_std: float
    position_std: float


def init_recipe(name: str, d_model: int) -> InitRecipe:
    """A named recipe for the first draw.

    ``torch``: N(0, 1), what ``nn.Embedding`` does. ``gpt2``: 0.02 for tokens, 0.01 for
    positions (Radford et al. 2019, released code). ``scaled``: ``d_model ** -0.5`` for both,
    as in fairseq.

    Raises:
        SettingError: the name is unknown.

    Example:
        >>> init_recipe("scaled", d_model=16)
        InitRecipe(token_std=0.25, position_std=0.25)
    """
    recipes = {
        "torch": InitRecipe(token_std=1.0, position_std=1.0),
        "gpt2": InitRecipe(token_std=0.02, position_std=0.01),
        "scaled": InitRecipe(token_std=d_model**-0.5, position_std=d_model**-0.5),
    }
    if name not in recipes:
        raise SettingError("init", f"be one of {', '.join(recipes)}", name, "Use 'gpt2' for a language model")
    return recipes[name]
