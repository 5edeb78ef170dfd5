"""Position tables of another length: stretched by interpolation, or cut and extended.

Our learned positions, and the tables of GPT-2, BERT and RoBERTa in transformers. Schemes without a
table have no length of their own. Axis letters: P positions, D columns.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenspace.errors import SettingError, check_at_least
from tokenspace.model import LanguageModel
from tokenspace.positions.learned import Learned

LENGTH_SETTINGS = ("n_positions", "n_ctx", "max_position_embeddings")  # of transformers
_HELD = ("position_ids", "token_type_ids")  # buffers as long as the table


@torch.no_grad()
def resized_table(table_PD: Tensor, num_positions: int, interpolate: bool, offset: int = 0) -> Tensor:
    """A position table of another length.

    Args:
        table_PD: The table, its first `offset` rows not for positions (RoBERTa).
        num_positions: Positions of the new one.
        interpolate: Stretch or squeeze the whole table, its first and last row staying first and last. Else rows
            stay where they are, and new ones are drawn from a normal distribution with the table's standard
            deviation.
        offset: Rows that are kept as they are.

    Example:
        >>> resized_table(torch.tensor([[0.0], [1.0]]), 3, interpolate=True).flatten().tolist()
        [0.0, 0.5, 1.0]

    Source: interpolation as in Dosovitskiy et al. 2020 (arXiv:2010.11929), section 3.2.
    """
    check_at_least(1, num_positions=num_positions)
    rows = table_PD.detach()[offset:]
    if interpolate:
        new = F.interpolate(rows.t().unsqueeze(0).float(), size=num_positions, mode="linear", align_corners=True)[0].t()
    else:
        generator = torch.Generator().manual_seed(0)
        new = torch.randn(num_positions, rows.shape[1], generator=generator) * rows.float().std().item()
        kept = min(num_positions, len(rows))
        new = new.to(table_PD)
        new[:kept] = rows[:kept]
    return torch.cat([table_PD.detach()[:offset], new.to(table_PD)])


def resize_positions(model: nn.Module, num_positions: int, interpolate: bool) -> tuple[str, Tensor, nn.Parameter]:
    """Give a live model a position table of another length.

    Returns:
        Its name, the old weight, and the new one.

    Raises:
        SettingError: the model has no table of positions that is known here.
    """
    check_has_table(model)
    path, owner, table = _owner(model)
    old = table.weight
    if isinstance(model, LanguageModel):
        _resize_own(model, num_positions, interpolate)
    else:
        _resize_foreign(model, owner, table, num_positions, interpolate)
    return f"{path}.weight", old, table.weight


def resize_length_settings(fields: dict[str, Any], num_rows: int) -> None:
    """Write the length of a position table into settings, in place."""
    for name in LENGTH_SETTINGS:
        if name in fields:
            fields[name] = num_rows


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a learned scheme that leave its length to the model."""
    return {name: value for name, value in settings.items() if name != "num_positions"}


def check_has_table(model: nn.Module) -> None:
    """Refuse a model that has no table of positions.

    Raises:
        SettingError: names the scheme, where it is known.
    """
    if _owner(model) is None:
        scheme = model.embedding.position.name if isinstance(model, LanguageModel) else "not known here"
        rule = "be left out for positions without a table"
        raise SettingError("num_positions", rule, f"given, and the scheme is {scheme}", "Leave it out")


def _owner(model: nn.Module) -> tuple[str, nn.Module, nn.Module] | None:
    """The path of a position table, the module that has it, and the module that it is."""
    if isinstance(model, LanguageModel):
        scheme = model.embedding.position
        return ("embedding.position", model.embedding, scheme) if isinstance(scheme, Learned) else None
    for path, module in model.named_modules():
        for name in ("wpe", "position_embeddings"):
            table = module._modules.get(name)
            if isinstance(table, nn.Embedding):
                return f"{path}.{name}".lstrip("."), module, table
    return None


def _resize_own(model: LanguageModel, num_positions: int, interpolate: bool) -> None:
    scheme = model.embedding.position
    new = resized_table(scheme.weight, num_positions, interpolate)
    scheme.weight = nn.Parameter(new, requires_grad=scheme.weight.requires_grad)
    settings = own_settings(model.config.position_settings)
    model.config = replace(model.config, context_length=num_positions, position_settings=settings)


def _resize_foreign(
    model: nn.Module, owner: nn.Module, table: nn.Embedding, num_positions: int, interpolate: bool
) -> None:
    offset = 0 if table.padding_idx is None else table.padding_idx + 1
    old = table.weight
    new = resized_table(old, num_positions, interpolate, offset)
    table.weight = nn.Parameter(new, requires_grad=old.requires_grad)
    table.num_embeddings = len(new)
    for name in _HELD:
        held = owner._buffers.get(name)
        if held is not None:
            ids = torch.arange(len(new), device=held.device) if name == "position_ids" else held.new_zeros(len(new))
            owner._buffers[name] = ids.expand(1, -1).to(held.dtype)
    seen: set[int] = set()
    for module in model.modules():
        config = vars(module).get("config")
        if config is not None and id(config) not in seen:
            seen.add(id(config))
            resize_length_settings(vars(config), len(new))
