"""Two dimensions to draw a table in: its principal components, or UMAP or t-SNE of its rows."""

import importlib
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tokenspace.checkpoint.components import finite_rows, principal_components
from tokenspace.errors import SettingError

Projection = Literal["pca", "umap", "tsne"]
_EXTRAS = {"umap": ("umap", "umap-learn"), "tsne": ("openTSNE", "openTSNE")}  # module, package
_COMPONENTS = 50  # what UMAP and t-SNE start from: distances hardly change, the time does
_SEED = 0


def check_projection(name: str) -> None:
    """Refuse a projection that is unknown or not installed, before the work.

    Raises:
        SettingError: says what to install.
    """
    if name != "pca":
        _module(name)


def flatten(table_VD: Tensor, name: str) -> Tensor:
    """The rows of a table in the plane, by UMAP or t-SNE of their directions; the same each time.

    Args:
        table_VD: Any float dtype, on the CPU.
        name: "umap" or "tsne".

    Returns:
        float32, (V, 2); NaN for rows with NaN or infinity.

    Raises:
        SettingError: the projection is unknown, not installed, or the table has fewer than 4 finite rows.
    """
    module = _module(name)
    rows = finite_rows(table_VD)
    if len(rows) < 4:
        raise SettingError("table", f"have 4 rows or more for {name}", len(rows), "Use pca")
    unit = torch.nn.functional.normalize(table_VD[rows].float())
    reduced = principal_components(unit, _COMPONENTS).project(unit).numpy()
    fewer = len(rows) - 1
    if name == "umap":
        model = module.UMAP(n_neighbors=min(15, fewer), random_state=_SEED, n_jobs=1)
        found = model.fit_transform(reduced)
    else:
        model = module.TSNE(perplexity=min(30, fewer / 3), initialization="pca", random_state=_SEED, n_jobs=1)
        found = np.asarray(model.fit(reduced))
    flat = torch.full((len(table_VD), 2), torch.nan)
    flat[rows] = torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))
    return flat


def whole_numbers(points: Tensor, scale: float) -> np.ndarray:
    """Points as int16, `scale` being 32,767; those that are nowhere (NaN) are put at 0."""
    return (points.nan_to_num(0.0, 0.0, 0.0) * (32767 / scale)).round().clamp(-32767, 32767).short().numpy()


def full_scale(points: Tensor) -> float:
    """The largest coordinate that is finite, or 1 where all are 0."""
    return float(points.nan_to_num(0.0, 0.0, 0.0).abs().amax()) or 1.0


def _module(name: str) -> ModuleType:
    if name not in _EXTRAS:
        raise SettingError("projection", "be pca, umap or tsne", name, "Use pca, which needs nothing more")
    module, package = _EXTRAS[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        next_step = f"Run `pip install 'tokenspace[{name}]'`, or use pca"
        raise SettingError("projection", f"be one that is installed ({package})", name, next_step) from error
