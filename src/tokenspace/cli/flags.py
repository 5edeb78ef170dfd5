"""Arguments that several verbs take in the same way."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tokenspace.errors import SettingError

Sources = Annotated[str, Parameter(allow_leading_hyphen=True)]
Out = Annotated[Path, Parameter(name=["--out", "-o"])]
Place = Annotated[str, Parameter(name=["--out", "-o"])]  # a path or an address
Config = Annotated[tuple[str, ...], Parameter(name=["--config", "-c"], negative="")]
Json = Annotated[bool, Parameter(negative="")]


def check_sources(sources: tuple[str, ...]) -> None:
    """A lone hyphen is standard input; what only begins with one is a mistyped flag, not a file.

    Raises:
        SettingError: names the flag.
    """
    for source in sources:
        if source.startswith("-") and source != "-":
            raise SettingError("flag", "be one that --help lists", source, f"For a file of that name give ./{source}")
