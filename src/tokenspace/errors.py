"""The errors a user can meet, and the one wording they share.

Every message names what is wrong, the rule, the value found and the next step:
``"`name` must <rule>, but is <value>. <next step>."``. All are kinds of ``ValueError``,
so callers need not import anything to catch them. What a user cannot cause is an
``assert`` where it stands, not an error of this file.
"""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_LONGEST_VALUE = 120


class TokenspaceError(ValueError):
    """A value breaks a rule of this package.

    Args:
        name: What is wrong: an argument, a file, a field.
        rule: What it must do or be, to follow the word "must".
        value: What it is instead; text is quoted and cut when long.
        next_step: One sentence that says what to do.

    Example:
        >>> print(TokenspaceError("stride", "be at least 1", 0, "Use 1 or more"))
        `stride` must be at least 1, but is 0. Use 1 or more.
    """

    def __init__(self, name: str, rule: str, value: object, next_step: str) -> None:
        super().__init__(name, rule, value, next_step)  # all four in args, so that the error can cross processes

    def __str__(self) -> str:
        name, rule, value, next_step = self.args
        # a tensor's text has several lines
        shown = repr(value) if isinstance(value, str) else " ".join(str(value).split())
        if len(shown) > _LONGEST_VALUE:
            shown = shown[:_LONGEST_VALUE] + "…"
        end = "" if next_step.endswith((".", "?")) else "."
        return f"`{name}` must {rule}, but is {shown}. {next_step}{end}"


class SettingError(TokenspaceError):
    """An argument, flag or configuration value breaks its rule."""


class TextError(TokenspaceError):
    """A source of text cannot be read as asked."""


class TokenizerError(TokenspaceError):
    """A tokenizer file is not what it must be, or a token has no such property."""


class CorpusError(TokenspaceError):
    """A corpus on disk is missing, damaged, or made with another tokenizer."""


class CheckpointError(TokenspaceError):
    """A run folder or a model folder is missing, damaged, or of another shape."""


class ShapeError(TokenspaceError):
    """A tensor has the wrong shape, or ids and positions outside their table."""


class DiskError(TokenspaceError):
    """A disk has no room for what has to be written."""


class ProcessError(TokenspaceError):
    """One of several processes that train together has failed or ended."""


def check_at_least(least: int, **values: int) -> None:
    """Refuse whole numbers below `least`; the keyword is the name the message shows.

    Raises:
        SettingError: a value is no whole number or is below `least`.

    Example:
        >>> check_at_least(1, stride=4, batch_size=8)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise SettingError(name, f"be a whole number of at least {least}", value, f"Give {least} or more")


def check_above_0(advice: str, **values: float) -> None:
    """Refuse settings that are no numbers above 0, by name.

    Raises:
        SettingError: with `advice` as the next step.

    Example:
        >>> check_above_0("Use 10000.0", theta=500)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not value > 0:
            raise SettingError(name, "be above 0", value, advice)


def check_not_negative(advice: str, **values: float) -> None:
    """Refuse settings that are no finite numbers of at least 0, by name.

    Raises:
        SettingError: with `advice` as the next step.

    Example:
        >>> check_not_negative("Use 0.02", std=0.0)
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < float("inf"):
            raise SettingError(name, "be a number of at least 0", value, advice)


def check_type(name: str, value: Any, annotation: Any, advice: str) -> None:
    """Refuse text where a number is wanted and the like; ranges are their owner's matter.

    Args:
        name: What the message names.
        value: What was given.
        annotation: Of the setting: a type, or a union of some. What a ``Literal`` takes is its owner's matter too.
        advice: The next step.

    Raises:
        SettingError: `value` is of another type.

    Example:
        >>> check_type("theta", 500, float, "Use 10000.0")
    """
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if not any(_fits(value, kind) for kind in kinds):
        words = [_WORDS.get(get_origin(kind) or kind, str(kind)) for kind in kinds if kind is not NoneType]
        raise SettingError(name, f"be {' or '.join(words)}", value, advice)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_WORDS |= {dict: "a table", Mapping: "a table", Sequence: "a list", tuple: "a list"}


def _fits(value: Any, kind: Any) -> bool:
    kind = get_origin(kind) or kind
    if kind is Literal or kind is Any:
        return True
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in (Sequence, tuple):
        return isinstance(value, Sequence) and not isinstance(value, str)
    return isinstance(value, kind)
