"""Position schemes, one file each, behind one contract.

The schemes are the modules of this folder without a leading underscore; a file's name
is its scheme's name. Adding one is adding a file (and its row in the tests).

Example:
    >>> from tokenspace import positions
    >>> positions.get("sinusoidal", d_model=8)
    Sinusoidal(d_model=8, theta=10000.0, order='interleaved')
"""

import difflib
import importlib
import inspect
import pkgutil
from typing import Any, get_type_hints

from tokenspace.errors import SettingError, check_type
from tokenspace.positions._heads import repeat_heads
from tokenspace.positions._layout import Layout
from tokenspace.positions._scheme import ModelShape, Scheme

__all__ = ["Layout", "ModelShape", "Scheme", "available", "for_model", "get", "repeat_heads", "token_scale"]


def available() -> list[str]:
    """The names of all schemes, sorted.

    Example:
        >>> "learned" in available()
        True
    """
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def token_scale(name: str, d_model: int) -> float:
    """The factor that a scheme wants on token vectors.

    Raises:
        SettingError: no scheme has this name.

    Example:
        >>> token_scale("sinusoidal", 64), token_scale("rotary", 64)
        (8.0, 1.0)
    """
    return _scheme_class(name).token_scale(d_model)


def get(name: str, **settings: Any) -> Scheme:
    """The scheme called `name`, built from its own settings.

    Raises:
        SettingError: no scheme has this name, it has no such setting, or one is missing or of a wrong type.

    Example:
        >>> get("learned", num_positions=8, d_model=4).max_position
        7
    """
    scheme = _scheme_class(name)
    known = _check_settings(scheme, settings)
    needed = [name for name, setting in known.items() if setting.default is setting.empty]
    missing = [name for name in needed if name not in settings]
    if missing:
        given = ", ".join(settings) or "none"
        raise SettingError(f"settings of {name!r} positions", f"have {', '.join(needed)}", given, f"Add {missing[0]}")
    return scheme(**settings)


def for_model(name: str, shape: ModelShape, **settings: Any) -> Scheme:
    """The scheme called `name` for a model of this shape; `settings` override what the shape implies.

    Raises:
        SettingError: as of `get`; or the scheme would have fewer layers than the model.
    """
    scheme = _scheme_class(name)
    _check_settings(scheme, settings)
    num_layers = settings.get("num_layers", shape.num_layers)
    if num_layers < shape.num_layers:
        rule = f"be at least the model's {shape.num_layers}"
        raise SettingError(f"num_layers of {name!r} positions", rule, num_layers, "Leave it out")
    return scheme.for_model(shape, **settings)


def _check_settings(scheme: type[Scheme], settings: dict[str, Any]) -> dict[str, inspect.Parameter]:
    """Refuse settings that the scheme does not have, and values of a wrong type; returns what it has."""
    known = dict(inspect.signature(scheme).parameters) if "__init__" in vars(scheme) else {}
    types = get_type_hints(scheme.__init__) if known else {}
    for name, value in settings.items():
        if name not in known:
            takes = f"be one of {', '.join(known)}" if known else "not be given"
            raise SettingError(f"setting of {scheme.name!r} positions", takes, name, "Correct or remove it")
        check_type(name, value, types[name], f"Correct it for {scheme.name!r} positions, or leave it out")
    return known


def _scheme_class(name: str) -> type[Scheme]:
    names = available()
    if name not in names:
        nearest = sorted(names, key=lambda known: -difflib.SequenceMatcher(None, str(name), known).ratio())
        raise SettingError("positions", f"be one of {', '.join(nearest)}", name, f"Did you mean {nearest[0]!r}?")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        found
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, Scheme) and found.__module__ == module.__name__
    )


def __dir__() -> list[str]:
    return sorted([*__all__, *(_scheme_class(name).__name__ for name in available())])


def __getattr__(attribute: str) -> type[Scheme]:
    """`positions.Learned` and its like, imported when first touched."""
    if attribute[:1].isupper():
        for name in available():
            scheme = _scheme_class(name)
            if scheme.__name__ == attribute:
                return scheme
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
