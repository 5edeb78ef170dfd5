"""Stands in for the page until it is there."""

from pathlib import Path

from tokenspace.atlas.data import AtlasData


def write_page(data: AtlasData, out: Path) -> None:
    """Write the title alone."""
    out.write_text("<p>" + data.meta["title"], encoding="utf-8")
