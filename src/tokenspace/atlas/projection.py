"""Two dimensions to draw a table in: its principal components, or UMAP or t-SNE of its rows."""

import importlib
import math
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
_FAR, _MOST_FAR = 8, 16  # so many times as far out as the next, and so many rows of a frame at most


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
    """Points as int16, `scale` being 32,767; those farther out at the edge, in their direction, NaN at 0."""
    inside = (scale / _farness(points)).clamp(max=1).unsqueeze(-1)
    return (points.nan_to_num(0.0, 0.0, 0.0) * inside * (32767 / scale)).round().short().numpy()


def full_scale(points_FVC: Tensor) -> float:
    """The largest coordinate that is finite, but that a few far rows of a frame do not squeeze all others; or 1.

    Rows farther out than eight times the next one do not count: 16 of them, or a fiftieth of a small table.

    Example:
        >>> full_scale(torch.tensor([[[1.0, 0.5]] * 49 + [[1000.0, 0.0]]]))
        8.0
    """
    far_FV = _farness(points_FVC)
    V = far_FV.shape[1]
    following = float(far_FV.kthvalue(V - min(_MOST_FAR, V // 50), dim=1).values.amax())
    return min(float(far_FV.amax()), _FAR * following or math.inf) or 1.0


def rows_beyond(points_FVC: Tensor, scale: float) -> np.ndarray:
    """Rows that stand farther out than `scale` in some frame, uint32, in order."""
    return np.flatnonzero((_farness(points_FVC) > scale).any(dim=0).numpy()).astype(np.uint32)


def _farness(points: Tensor) -> Tensor:
    """The larger coordinate of each point, without its sign; 0 for those that are nowhere."""
    return points.nan_to_num(0.0, 0.0, 0.0).abs().amax(dim=-1)


def _module(name: str) -> ModuleType:
    if name not in _EXTRAS:
        raise SettingError("projection", "be pca, umap or tsne", name, "Use pca, which needs nothing more")
    module, package = _EXTRAS[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        next_step = f"Run `pip install 'tokenspace[{name}]'`, or use pca"
        raise SettingError("projection", f"be one that is installed ({package})", name, next_step) from error
