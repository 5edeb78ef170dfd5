"""Atlas: what was gathered, as a page on disk or inside a notebook."""

import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Self

from tokenspace.atlas.data import AtlasData
from tokenspace.atlas.gather import gather
from tokenspace.atlas.page import write_page
from tokenspace.checkpoint import ForeignModel, Run
from tokenspace.files import check_absent

_HEIGHT = 800  # pixels in a notebook


class Atlas:
    """A vocabulary, its positions and its training, to look at.

    Attributes:
        data: What the page shows.
    """

    def __init__(self, data: AtlasData) -> None:
        self.data = data

    @classmethod
    def of(
        cls,
        source: str | Path | Run | ForeignModel,
        *,
        projection: str = "pca",
        progress: Callable[[str, int, int], None] = lambda task, done, total: None,
    ) -> Self:
        """The atlas of a run, or of any other model that `Run.open` opens; see `gather`.

        Raises:
            CheckpointError: it is none, is damaged, or has no tokenizer.
            SettingError: the projection is unknown or not installed.
        """
        return cls(gather(source, projection=projection, progress=progress))

    def save(self, out: str | Path) -> None:
        """Write one HTML file that needs neither server nor network; it appears whole or not at all.

        Raises:
            SettingError: something stands at `out` already.
            DiskError: the disk is full.
        """
        out = Path(out)
        check_absent(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_page(self.data, out)

    def _repr_html_(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "atlas.html"
            write_page(self.data, path)
            page = path.read_text(encoding="utf-8")
        return f'<iframe srcdoc="{escape(page)}" width="100%" height="{_HEIGHT}" style="border: 0"></iframe>'
