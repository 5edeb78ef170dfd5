"""The page of an atlas in a real browser: its charts, pictures, sizes and themes, and what a model lacks."""

import time
from html import escape

import numpy as np
import pytest

from tokenspace.atlas.data import AtlasData


def test_light_and_dark_follow_the_system_and_the_switch(page):
    light = page.js("getComputedStyle(document.body).backgroundColor")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.wait("atlas.state.theme === 'dark'")
    dark = page.js("getComputedStyle(document.body).backgroundColor")
    page.driver.find_element("id", "theme").click()
    assert page.js("getComputedStyle(document.body).backgroundColor") == light != dark


def test_every_panel_is_saved_as_png(page):
    page.js("atlas.change({token: atlas.tokens.byCount[0]})")
    for view in ("space", "positions", "health"):
        page.view(view)
        buttons = [one for one in page.driver.find_elements("css selector", "button.save") if one.is_displayed()]
        cards = len(page.driver.find_elements("css selector", f"#{view} .card:not(:has(.missing))")) or 2
        assert len(buttons) == cards  # the map and the token count as two
        for button in buttons:
            known = set(page.driver.downloads.glob("*.png"))
            page.driver.execute_script("arguments[0].click()", button)
            new = _wait_for_file(page, known)
            data = new.read_bytes()
            assert data.startswith(b"\x89PNG") and len(data) > 1000, button.get_attribute("aria-label")
    assert page.errors() == []


def _wait_for_file(page, known):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if new := set(page.driver.downloads.glob("*.png")) - known:
            return new.pop()
        time.sleep(0.05)
    raise AssertionError(f"no picture was saved: {page.errors()}")


def test_sentences_can_be_typed_over(page):
    page.view("positions")
    for name, text in (("first", "The cat saw the dog"), ("second", "dog the saw cat The")):
        field = page.driver.find_element("id", f"order-{name}")
        field.clear()
        field.send_keys(text)
    verdict = page.driver.find_element("id", "order-verdict").text
    assert "Bags: distance 0." in verdict
    assert "With positions (learned): distance 0." in verdict and not verdict.endswith("distance 0.")


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080), (390, 844)])
def test_nothing_runs_over_the_edge(page, size):
    page.resize(*size)
    page.js("atlas.change({token: atlas.tokens.byCount[0]})")
    for view in ("space", "positions", "health"):
        page.view(view)
        page.settle()
        assert page.js("document.documentElement.scrollWidth") <= size[0], view


def test_works_inside_a_sandboxed_frame(page, run_page):
    text = escape(run_page.read_text(encoding="utf-8"))
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{text}" width=900 height=700></iframe>'
    outer = run_page.with_name("outer.html")
    outer.write_text(f"<!doctype html><meta charset=utf-8>{frame}", encoding="utf-8")
    page.driver.get(outer.as_uri())
    page.driver.switch_to.frame(0)
    try:
        page.wait("document.documentElement.dataset.ready === 'true'")
        page.view("health")
    finally:
        page.driver.switch_to.default_content()
    assert page.errors() == []


def test_what_a_model_lacks_is_said(open_page, atlas_of_run):
    bare = {"count", "state", "loss_by_position", "first_rows", "first_neighbours"}
    bare |= {"score_by_distance", "position_vectors", "position_similarity"}
    arrays = {name: array for name, array in atlas_of_run.data.arrays.items() if name not in bare}
    arrays["xy"] = arrays["xy"][-1:]
    loss = {"train": [], "evaluation": [], "unigram": None}
    notes = ["This run kept no frames on the way: train with --frames 24 to play the training back."]
    meta = atlas_of_run.data.meta | {
        "frames": [30],
        "loss": loss,
        "counted_by": None,
        "seen_known": False,
        "notes": notes,
    }
    page = open_page(AtlasData(meta, arrays))
    assert "--frames 24" in page.driver.find_element("id", "no-frames").text
    assert page.driver.find_elements("css selector", "#colour option")[0].text == "norm"
    page.view("health")
    assert len(page.driver.find_elements("css selector", "#health .missing")) == 4
    page.view("positions")
    assert len(page.driver.find_elements("css selector", "#positions .missing")) == 3
    assert page.errors() == []


def test_rows_with_nan_are_not_drawn(open_page, atlas_of_run):
    arrays = dict(atlas_of_run.data.arrays)
    rows = np.flatnonzero(arrays["state"] < 2)[:3].astype(np.uint32)
    arrays["nonfinite_rows"] = rows
    known = ~np.isin(arrays["neighbour_rows"], rows)
    arrays |= {name: arrays[name][known] for name in ("neighbour_rows", "neighbours", "cosines")}
    page = open_page(AtlasData(atlas_of_run.data.meta, arrays))
    seen = int((arrays["state"] < 2).sum()) - 3
    assert page.driver.find_element("id", "shown").text.startswith(f"{seen:,} of")
    page.js("atlas.change({token: a[0]})", int(rows[0]))
    assert "NaN" in page.driver.find_element("id", "token").text
