"""What of a live model has a row a token: its table, head, bias, and every place that shares them.

Sharing is told by identity: a tensor that two modules hold is one part with two places, so that
what was tied is tied after an edit. Nothing is changed here but by `Part.put`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from tokenspace.embedding import InputEmbedding, TokenEmbedding
from tokenspace.errors import SettingError

_NEXT_STEP = "Give the module that has it, or edit the folder it was loaded from"
_LOGIT_BIAS = "final_logits_bias"  # of BART and its kin: (1, rows)


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor with a row a token.

    Attributes:
        kind: "table", "head" or "bias".
        tensor: (rows, ...); of `final_logits_bias`, (1, rows).
        places: The modules that hold it, and their names for it.
        name: The first of these, within the model.
    """

    kind: str
    tensor: Tensor
    places: tuple[tuple[nn.Module, str], ...]
    name: str

    @property
    def by_columns(self) -> bool:
        """Whether tokens go along the second axis."""
        return self.places[0][1] == _LOGIT_BIAS

    def put(self, tensor: Tensor) -> Tensor:
        """Have all places hold another tensor instead; returns what they hold."""
        if isinstance(self.tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=self.tensor.requires_grad)
        for module, name in self.places:
            if isinstance(module, TokenEmbedding) and name == "weight":
                module.replace_weight(tensor)
            elif isinstance(self.tensor, nn.Parameter):
                module._parameters[name] = tensor
            else:
                module._buffers[name] = tensor
            for size in ("num_embeddings", "out_features"):
                if name == "weight" and hasattr(module, size):
                    setattr(module, size, len(tensor))
        return tensor


@dataclass(frozen=True, eq=False)
class Parts:
    """All of a model's parts.

    Attributes:
        table: The module that looks tokens up.
        head: The module that gives logits; None where there is none.
        parts: The table first.
    """

    table: nn.Embedding
    head: nn.Linear | None
    parts: tuple[Part, ...]

    @property
    def num_rows(self) -> int:
        """Rows of the table, padding included."""
        return len(self.table.weight)

    @property
    def tied(self) -> bool | None:
        """Whether the head is the table; None where there is no head."""
        return None if self.head is None else self.head.weight is self.table.weight

    @classmethod
    def of(cls, model: nn.Module) -> "Parts":
        """Find them.

        Raises:
            SettingError: the table is not to be told, or not in one piece, or the head has other rows.
        """
        if not isinstance(model, nn.Module):
            next_step = "Give the model; edit_model takes paths"
            raise SettingError("model", "be an nn.Module", f"of type {type(model).__name__}", next_step)
        table, head = _table(model), _head(model)
        _check_tensor(table.weight)
        if head is not None:
            _check_tensor(head.weight)
            if len(head.weight) != len(table.weight):
                rule = f"have the table's {len(table.weight):,} rows"
                raise SettingError("head of the model", rule, f"{len(head.weight):,}", "Make the two equal first")
        tensors = {id(tensor): (kind, tensor) for kind, tensor in reversed(list(_tensors(model, table, head)))}
        parts = [_part(model, *found) for found in reversed(tensors.values())]
        return cls(table, head, tuple(parts))


def _tensors(model: nn.Module, table: nn.Embedding, head: nn.Linear | None) -> Iterator[tuple[str, Tensor]]:
    """All tensors with a row a token, some of them more than once."""
    yield "table", table.weight
    for side in ("get_encoder", "get_decoder"):
        coder = getattr(model, side, lambda: None)()
        try:
            other = coder.get_input_embeddings() if hasattr(coder, "get_input_embeddings") else None
        except NotImplementedError:  # what a coder of sound says that has none
            other = None
        if isinstance(other, nn.Embedding) and len(other.weight) == len(table.weight):
            yield "table", other.weight
    for path, module in model.named_modules():
        has_rows = isinstance(module, nn.Embedding) and len(module.weight) == len(table.weight)
        if has_rows and path.rpartition(".")[2].startswith("embed_tokens_"):  # Gemma 3n's, by layer
            raise SettingError(f"{path} of the model", "be no second table by token", "one", _NEXT_STEP)
    if head is None:
        return
    yield "head", head.weight
    if head.bias is not None:
        yield "bias", head.bias
    for module in model.modules():
        bias = module._parameters.get("bias")
        if head in module.children() and bias is not None and bias.shape == (len(head.weight),):
            yield "bias", bias
        logit_bias = module._buffers.get(_LOGIT_BIAS)
        if logit_bias is not None and logit_bias.shape == (1, len(head.weight)):
            yield "bias", logit_bias


def _part(model: nn.Module, kind: str, tensor: Tensor) -> Part:
    places, names = [], []
    for path, module in model.named_modules():
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            if own is tensor:
                places.append((module, name))
                names.append(f"{path}.{name}" if path else name)
    return Part(kind, tensor, tuple(places), names[0])


def _table(model: nn.Module) -> nn.Embedding:
    if isinstance(model, nn.Embedding):
        return model
    if isinstance(model, InputEmbedding):
        return model.token
    if isinstance(getattr(model, "embedding", None), InputEmbedding):
        return model.embedding.token
    if hasattr(model, "get_input_embeddings"):
        found = model.get_input_embeddings()
        if isinstance(found, nn.Embedding):
            return found
        rule = "be an nn.Embedding"
        raise SettingError("input embeddings of the model", rule, type(found).__name__, "Merge or unwrap it first")
    tables = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Embedding)}
    widest = sorted(tables.values(), key=lambda module: -len(module.weight))
    if not widest or (len(widest) > 1 and len(widest[0].weight) == len(widest[1].weight)):
        raise SettingError("model", "have one largest nn.Embedding", f"with {len(widest)}", _NEXT_STEP)
    return widest[0]


def _head(model: nn.Module) -> nn.Linear | None:
    if isinstance(model, nn.Embedding | InputEmbedding):
        return None
    if hasattr(model, "get_output_embeddings"):
        found = model.get_output_embeddings()
        if found is None or isinstance(found, nn.Linear):
            return found
        raise SettingError("head of the model", "be an nn.Linear", type(found).__name__, "Merge or unwrap it first")
    shape = _table(model).weight.shape
    heads = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Linear) and m.weight.shape == shape}
    if len(heads) > 1:
        raise SettingError("model", f"have one nn.Linear of shape {tuple(shape)}", f"with {len(heads)}", _NEXT_STEP)
    return next(iter(heads.values()), None)


def _check_tensor(tensor: Tensor) -> None:
    if tensor.is_meta or hasattr(tensor, "full_tensor") or not tensor.is_floating_point():
        found = "on the device 'meta'" if tensor.is_meta else "sharded or quantised"
        raise SettingError("token table", "be whole and of floats", found, "Edit the model before it is sharded")
