"""Arguments that several verbs take in the same way."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import Parameter, Token, convert

from tokenspace.errors import SettingError

Sources = Annotated[str, Parameter(allow_leading_hyphen=True)]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Place = Annotated[str, Parameter(name=["--out", "-o"])]  # a path or an address
Config = Annotated[tuple[str, ...], Parameter(name=["--config", "-c"], negative="", show_default=False)]
Json = Annotated[bool, Parameter(negative="")]


def check_sources(sources: tuple[str, ...]) -> None:
    """A lone hyphen is standard input; what only begins with one is a mistyped flag, not a file.

    Raises:
        SettingError: names the flag.
    """
    for source in sources:
        if source.startswith("-") and source != "-":
            raise SettingError("flag", "be one that --help lists", source, f"For a file of that name give ./{source}")


def unrounded(kind: Any, tokens: Sequence[Token]) -> Any:
    """What the words of a flag mean. cyclopts alone takes 1.5 for 2 where a whole number is asked for.

    Raises:
        ValueError: a number is not whole.
    """
    if int in (kind, *get_args(kind)) and any("." in token.value for token in tokens):
        raise ValueError
    return convert(kind, tokens)
