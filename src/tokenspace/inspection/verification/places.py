"""Positions: the table against the configured length, the settings of a rotary scaling against each other."""

from collections.abc import Iterator
from typing import Any

from tokenspace.checkpoint.models import Tables
from tokenspace.errors import TokenspaceError
from tokenspace.inspection.verification.files import tokenizer_settings
from tokenspace.inspection.verification.finding import Finding

_LENGTHS = ("n_positions", "max_position_embeddings")
_CONFIG = "config.json"


def position_findings(tables: Tables) -> Iterator[Finding]:
    """Lengths that disagree, settings that no scheme takes, scalings that contradict the config."""
    text = tables.config.get("text_config")
    config = text if isinstance(text, dict) else tables.config
    stated = next((config[name] for name in _LENGTHS if isinstance(config.get(name), int)), None)
    table = tables.position
    fits = True
    if table is not None and stated is not None and table.shape[0] != stated:
        fits = False
        found = f"{table.shape[0]:,} rows, but the config says {stated:,}"
        yield Finding("error", "position-length", table.key, found, f"Set the config to {table.shape[0]}")
    if fits:
        try:
            tables.position_scheme()
        except TokenspaceError as error:
            found = " ".join(str(error.args[2]).split())
            next_step = "Restore the config of the model"
            yield Finding("error", "position-settings", f"{tables.scheme[0]} positions", found, next_step)
    usable = None if table is None else table.shape[0] - tables.position_offset
    longest = usable if usable is not None else stated
    yield from _tokenizer_length(tables, longest)
    yield from _rotary_findings(config, stated)


def _tokenizer_length(tables: Tables, longest: int | None) -> Iterator[Finding]:
    length = tokenizer_settings(tables).get("model_max_length")
    if isinstance(length, int) and longest is not None and longest < length < 10**9:
        found = f"model_max_length is {length:,}, but the model has {longest:,} positions"
        next_step = f"Set it to {longest}: longer texts are not cut and then fail"
        yield Finding("warning", "position-length", "tokenizer_config.json", found, next_step)


def _rotary_findings(config: dict[str, Any], stated: int | None) -> Iterator[Finding]:
    given = (config.get("rope_parameters"), config.get("rope_scaling"))
    new, old = (scaling if isinstance(scaling, dict) else {} for scaling in given)
    nested = [scaling for scaling in new.values() if isinstance(scaling, dict)]
    if new and old and not nested and _plain(new) != _plain(old):
        found = f"rope_parameters {_plain(new)} against rope_scaling {_plain(old)}"
        yield Finding("warning", "rotary-settings", _CONFIG, found, "Keep one; tools differ in which they read")
    for scaling in nested or [new or old]:
        yield from _scaling_findings(config, scaling, stated)


def _scaling_findings(config: dict[str, Any], scaling: dict[str, Any], stated: int | None) -> Iterator[Finding]:
    theta, outer = scaling.get("rope_theta"), config.get("rope_theta")
    if theta is not None and outer is not None and theta != outer and "rope_local_base_freq" not in config:
        found = f"rope_theta is {outer} and, in the scaling, {theta}"
        yield Finding("warning", "rotary-theta", _CONFIG, found, "Keep one; tools differ in which they read")
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    numbers = all(isinstance(n, int | float) for n in (factor, original, stated))
    if not numbers or kind == "default":
        return
    if original > stated:
        found = f"the scaling begins at {original:,} positions, but the model has {stated:,}"
        next_step = "Correct original_max_position_embeddings or max_position_embeddings"
        yield Finding("warning", "rotary-length", _CONFIG, found, next_step)
    elif kind == "yarn" and abs(factor * original - stated) > 0.01 * stated:
        found = f"factor {factor:g} times {original:,} original positions is not the configured {stated:,}"
        next_step = f"Set factor to {stated / original:g}, or max_position_embeddings to {factor * original:.0f}"
        yield Finding("warning", "rotary-length", _CONFIG, found, next_step)


def _plain(scaling: dict[str, Any]) -> dict[str, Any]:
    kind = scaling.get("rope_type") or scaling.get("type")
    rest = {k: v for k, v in scaling.items() if k not in ("rope_type", "type", "rope_theta") and v is not None}
    return {"rope_type": kind, **rest}
