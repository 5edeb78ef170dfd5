"""The page as bytes: what is packed comes back, nothing can break out, and only its own scripts may run."""

import base64
import hashlib
import itertools
import json
import re
import zlib
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tokenspace.atlas.data import AtlasData
from tokenspace.atlas.page import page_bytes, write_page
from tokenspace.atlas.page.packing import pack, pack_json
from tokenspace.atlas.page.writing import _SCRIPTS

FOLDER = resources.files("tokenspace.atlas.page")


class Scripts(HTMLParser):
    """All script elements of a page: their attributes and their text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.policy, self.inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.inside = tag == "script"
        if self.inside:
            self.found.append((named, ""))
        assert not [name for name in named if name.startswith("on")], "an inline handler"
        if named.get("http-equiv") == "Content-Security-Policy":
            self.policy = named["content"]

    def handle_data(self, data):
        if self.inside:
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)

    def handle_endtag(self, tag):
        self.inside = False


def page_of(**meta):
    """The scripts of a small page."""
    return Scripts(page_bytes(AtlasData({"title": "small", **meta}, {"norm": np.ones(3, np.float32)})).decode())


def unpacked(fields, text):
    """What `data.js` does, in other words."""
    kind = np.dtype(fields["dtype"]).newbyteorder("<")
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(kind.itemsize, -1)
    array = planes.T.copy().view(kind).reshape(fields["shape"])
    return np.cumsum(array, axis=0, dtype=array.dtype) if fields["differences"] else array


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    st.sampled_from([np.uint8, np.uint16, np.uint32, np.int32, np.float16, np.float32]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=7))
    )
)
def test_arrays_come_back(array):
    np.testing.assert_array_equal(unpacked(*pack("any", array)), array)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 5), st.integers(1, 9), st.just(2))))
def test_frames_come_back_though_differences_wrap_around(xy):
    np.testing.assert_array_equal(unpacked(*pack("xy", xy)), xy)


def test_an_empty_array_comes_back():
    assert unpacked(*pack("duplicates", np.zeros((0, 2), np.uint32))).shape == (0, 2)


@pytest.mark.parametrize(
    "text", ["</script>", "<!--", "<script>", "]]>", "\u2028\u2029", "&lt;", "\U0001f600", "बिल्ली", "$meta"]
)
def test_json_says_the_same_and_cannot_end_its_element(text):
    packed = pack_json({text: [text]})
    assert json.loads(packed) == {text: [text]}
    assert packed.isascii()
    assert not set("<>&") & set(packed)


def test_nan_is_refused_in_json():
    with pytest.raises(ValueError, match="Out of range"):
        pack_json(float("nan"))


def test_a_hostile_title_adds_no_script():
    plain = page_of()
    evil = page_of(title='</title><script>alert(1)</script>"><img src=x onerror=alert(2)>', notes=["</script><script>"])
    assert len(evil.found) == len(plain.found)
    assert evil.policy == plain.policy


def test_only_its_own_two_scripts_may_run():
    page = page_of()
    running = [text for attributes, text in page.found if attributes.get("type") == "module"]
    assert len(running) == 1
    carrier = next(text for attributes, text in page.found if attributes.get("id") == "plotly")
    plotly = zlib.decompress(base64.b64decode(carrier))
    hashes = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (running[0].encode(), plotly)]
    directives = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert directives["default-src"] == "'none'"  # also for connections: there is no connect-src
    assert directives["script-src"].split() == [f"'sha256-{one}'" for one in hashes]
    assert set(directives) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}


def test_plotly_keeps_its_licence():
    carrier = next(text for attributes, text in page_of().found if attributes.get("id") == "plotly")
    assert b"Licensed under the MIT license" in zlib.decompress(base64.b64decode(carrier))[:500]


def test_all_script_files_are_in_the_page():
    assert sorted(_SCRIPTS) == sorted(one.name for one in FOLDER.iterdir() if one.name.endswith(".js"))


@pytest.mark.parametrize("name", _SCRIPTS)
def test_scripts_neither_evaluate_text_nor_write_markup_nor_store(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|Storage|cookie|fetch\("
    assert not re.search(forbidden, text)
    assert len(text.splitlines()) < 300


def test_a_page_is_written_whole(tmp_path):
    data = AtlasData({"title": "small"}, {})
    write_page(data, tmp_path / "atlas.html")
    assert (tmp_path / "atlas.html").read_bytes() == page_bytes(data)
    assert [one.name for one in tmp_path.iterdir()] == ["atlas.html"]


# How colours are seen: linear light as Machado, Oliveira and Fernandes 2009 change it at full severity.
SIGHT = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}
TO_CONES = [[0.4122215, 0.5363325, 0.051446], [0.2119035, 0.6806995, 0.107397], [0.0883025, 0.2817188, 0.6299787]]
TO_LAB = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]


def linear(colour):
    """A colour as shares of light, 0 to 1."""
    share = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def oklab(light):
    """A place in a space where distances are those that one sees; Ottosson 2020."""
    return TO_LAB @ np.cbrt(TO_CONES @ np.clip(light, 0, 1))


def contrast(a, b):
    """That of the WCAG, 1 to 21."""
    dark, bright = sorted(linear(one) @ [0.2126, 0.7152, 0.0722] for one in (a, b))
    return (bright + 0.05) / (dark + 0.05)


def colours():
    """Palettes and style of both themes."""
    script = (FOLDER / "colours.js").read_text(encoding="utf-8")
    palettes = {name: re.findall(r"#\w{6}", line) for name, line in re.findall(r"(light|dark): \[(.*)\]", script)}
    blocks = re.findall(r"^:root.*?{(.*?)}", (FOLDER / "atlas.css").read_text(encoding="utf-8"), re.S | re.M)
    styles = [dict(re.findall(r"--([\w-]+): (#\w{6});", text)) for text in blocks]
    return palettes, dict(zip(("light", "dark"), styles, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_classes_stay_apart_for_the_colour_blind_and_stand_out(theme):
    palettes, styles = colours()
    assert len(palettes[theme]) == 8
    for matrix in SIGHT.values():
        seen = [oklab(np.array(matrix) @ linear(one)) for one in palettes[theme]]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 0.08
    assert min(contrast(one, styles[theme]["card"]) for one in palettes[theme]) >= 2.95


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme):
    style = colours()[1][theme]
    for ground in ("paper", "card"):
        for ink in ("ink", "quiet", "accent", "chosen"):
            assert contrast(style[ink], style[ground]) >= 4.5, (ink, ground)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_ramp_only_rises(theme):
    style = colours()[1][theme]
    steps = [contrast(style[name], style["card"]) for name in ("low", "middle", "high")]
    assert steps == sorted(steps)
    assert steps[0] > 2  # what is least often is a point too
