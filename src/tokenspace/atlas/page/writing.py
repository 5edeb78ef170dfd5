"""Puts the page together: template, style, scripts, plotly and the packed data in one file.

The scripts of this folder are one module script, in the order of `_SCRIPTS`; they share its scope, so
that nothing has to be bundled. plotly lies in the page deflated and starts when the first chart
is drawn. The content security policy lets nothing run but these two, by their hashes.
"""

import base64
import hashlib
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from tokenspace.atlas.data import AtlasData
from tokenspace.atlas.page.packing import pack, pack_bytes, pack_json
from tokenspace.files import write_file

_SCRIPTS = (
    "data.js",
    "state.js",
    "colours.js",
    "camera.js",
    "renderer.js",
    "overlay.js",
    "map.js",
    "search.js",
    "invisible.js",
    "token.js",
    "playback.js",
    "picture.js",
    "charts.js",
    "order.js",
    "positions.js",
    "health.js",
    "main.js",
)


def write_page(data: AtlasData, out: Path) -> None:
    """Write the page of an atlas, whole or not at all.

    Raises:
        DiskError: the disk is full.
    """
    write_file(out, page_bytes(data))


def page_bytes(data: AtlasData) -> bytes:
    """The page of an atlas, as UTF-8."""
    folder = resources.files(__package__)
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    plotly = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    packed = [pack(name, array) for name, array in data.arrays.items()]
    policy = (
        f"default-src 'none'; script-src {_source(script)} {_source(plotly)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    template = Template((folder / "template.html").read_text(encoding="utf-8"))
    page = template.substitute(
        policy=policy,
        title=escape(data.meta["title"]),
        style=(folder / "atlas.css").read_text(encoding="utf-8"),
        meta=pack_json(data.meta),
        index=pack_json([fields for fields, _ in packed]),
        arrays="\n".join(_carrier(f"array-{fields['name']}", text) for fields, text in packed),
        plotly=_carrier("plotly", pack_bytes(plotly.encode())),
        script=script,
    )
    return page.encode()


def _carrier(name: str, text: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{text}</script>'


def _source(script: str) -> str:
    """A script by its hash, as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
