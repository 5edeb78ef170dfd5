"""The page of an atlas in a real browser: its charts, pictures, sizes and themes, and what a model lacks."""

import itertools
import time
from html import escape

import numpy as np
import pytest

import tokenspace
from tokenspace.atlas import Atlas, gather
from tokenspace.atlas.data import AtlasData


def test_light_and_dark_follow_the_system_and_the_switch(page):
    light = page.js("getComputedStyle(document.body).backgroundColor")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.wait("atlas.state.theme === 'dark'")
    dark = page.js("getComputedStyle(document.body).backgroundColor")
    page.driver.find_element("id", "theme").click()
    assert page.js("getComputedStyle(document.body).backgroundColor") == light != dark


def test_who_used_the_switch_no_longer_follows_the_system(page):
    light = page.js("getComputedStyle(document.body).backgroundColor")
    for _ in range(2):
        page.driver.find_element("id", "theme").click()
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.wait("matchMedia('(prefers-color-scheme: dark)').matches")
    page.settle()
    assert page.js("getComputedStyle(document.body).backgroundColor") == light


def test_the_loss_beside_the_slider_survives_a_switch_of_colours_in_another_view(page):
    page.view("health")
    page.driver.find_element("id", "theme").click()
    page.view("space")
    page.settle()
    drawn = "document.getElementById('curve').getContext('2d').getImageData(0, 0, 260, 48).data.some((one) => one)"
    assert page.js("document.getElementById('curve').width") == 260
    assert page.js(drawn)


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


def test_the_picture_of_a_chart_has_its_title(page):
    page.view("health")
    page.driver.execute_script(
        "const draw = Plotly.toImage;"
        "Plotly.toImage = (what, how) => (window.saved = what.layout.title.text, draw(what, how))"
    )
    page.driver.execute_script("document.querySelector('[aria-label=\"Save Singular spectrum as PNG\"]').click()")
    assert page.wait("window.saved") == "Singular spectrum"


def _wait_for_file(page, known):
    end = time.monotonic() + 60
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


def _text(page, selector):
    return page.js("document.querySelector(a[0]).textContent", selector)


@pytest.fixture(scope="module")
def without_frames(tmp_path_factory):
    """The atlas of a run that kept no frames on the way."""
    run = tokenspace.train(
        documents=["The cat sat on the mat. " * 90], out=tmp_path_factory.mktemp("bare") / "run", frames=0,
        tokenizer="train:300", d_model=8, context_length=16, num_layers=1, steps=3,
    )  # fmt: skip
    return Atlas.of(run).data


def test_a_run_without_frames_says_so_beside_the_slider(open_page, without_frames):
    page = open_page(without_frames)
    assert page.driver.find_element("id", "frame").is_displayed()  # its first and its last table are there
    assert "--frames 24" in page.driver.find_element("id", "no-frames").text


def test_a_run_with_frames_has_no_note_beside_the_slider(page):
    assert not page.driver.find_element("id", "no-frames").is_displayed()


def test_other_notes_are_not_taken_for_that_of_the_frames(open_page, atlas_of_run):
    data = atlas_of_run.data
    path, frames = "The run's corpus is not at hand: `frames-test/corpus`.", "tsne shows the table as it is now."
    meta = data.meta | {"frames": [30], "frames_note": frames, "notes": [path, frames]}
    page = open_page(AtlasData(meta, data.arrays | {"xy": data.arrays["xy"][-1:]}))
    assert page.driver.find_element("id", "no-frames").text == frames


def test_a_model_from_elsewhere_says_that_there_is_no_training(open_page, words):
    page = open_page(words("ice 1 0", "snow 0.9 0.1", "fire 0 1"))
    assert page.driver.find_element("id", "no-frames").text == "There are no frames: this is no run of training."
    assert [role for role, name in page.spoken() if name == "Training step"] == []


@pytest.fixture
def words(tmp_path):
    """An atlas of vectors, a line each."""

    def make(*lines):
        path = tmp_path / "words.vec"
        path.write_text(f"{len(lines)} 2\n" + "".join(f"{line}\n" for line in lines), encoding="utf-8")
        return Atlas.of(path).data

    return make


def test_a_bare_number_is_an_id_too_and_stands_before_all_that_only_hold_it(open_page, words):
    page = open_page(words("12 1 0", "x1 0.9 0.1", "3001 0 1", "1 0.5 0.5"))
    assert page.search("1") == [3, 1, 0, 2]  # itself, the id, what begins with it, what holds it
    assert page.search("2")[0] == 2


def test_the_whole_holds_what_is_near_the_middle_99_hundredths(open_page, words):
    many = [f"w{number} {number % 20 - 9.5} {number // 20 - 9.5}" for number in range(400)]
    page = open_page(words(*many, "near 13 0", "far 0 60"))
    inside = "(([x, y]) => x >= 0 && y >= 0 && x <= a[1] && y <= a[2])(atlas.map.screenOf(a[0]))"
    width, height = page.js("[document.getElementById('map').clientWidth, document.getElementById('map').clientHeight]")
    assert page.js(inside, 400, width, height)
    assert not page.js(inside, 401, width, height)


def test_a_row_drawn_nearer_than_it_is_says_so(open_page, words):
    near = [f"w{number} {number % 7 - 3} {number % 5 - 2}" for number in range(60)]
    page = open_page(words(*near, "far 500 0"))
    assert "1 drawn nearer" in _text(page, "#shown")
    page.js("atlas.change({token: 60})")
    assert "drawn nearer" in _text(page, "#token dl")
    page.js("atlas.change({token: 0})")
    assert "drawn nearer" not in _text(page, "#token dl")
    page.view("health")
    assert "1 row stands far outside all others: far (60)." in _text(page, "#health ul")


@pytest.mark.parametrize("long", ["abcdefghijklmnopqrstuvwxyz12", "x" * 5000])
def test_a_long_name_leaves_the_panel_as_wide_as_it_was(open_page, word_pieces, long):
    page = open_page(gather(word_pieces(long, "dog")))
    page.js("atlas.change({token: 1})")
    page.js("atlas.change({token: 2})")
    assert page.js("(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.getElementById('token'))") == 0
    assert page.driver.find_element("id", "back").text.startswith(f"← {long[:20]}")


def test_a_very_long_name_leaves_room_for_the_id(open_page, word_pieces):
    page = open_page(gather(word_pieces("x" * 5000, "dog")))
    page.js("atlas.change({token: 1})")
    assert page.js("document.querySelector('#token dl').getBoundingClientRect().top") < 400


def test_one_token_found_is_said_in_the_singular(page):
    page.search("#7")
    assert page.driver.find_element("id", "found").text == "1 token"


def test_words_without_bytes_are_told_apart_by_their_order(open_page, words):
    page = open_page(words("dog 1 0", "bites 0.9 0.1", "man 0 1"))
    page.view("positions")
    assert _text(page, "#order-verdict").startswith("The same 3 tokens.")


def test_pieces_of_words_are_told_from_words_that_are_spelled_alike(open_page, word_pieces):
    page = open_page(gather(word_pieces("s", "cat", "##s", "##cat")))
    page.view("positions")
    page.driver.find_element("id", "order-first").clear()
    page.driver.find_element("id", "order-first").send_keys("cats s")
    page.settle()
    assert page.js("document.querySelector('#positions .chart').data[0].text") == ["cat", "##s", "s"]


@pytest.mark.parametrize("word", ["cat", "##cat"])
def test_the_bytes_of_a_piece_are_those_of_its_spelling(open_page, word_pieces, word):
    page = open_page(gather(word_pieces(word, "dog")))
    page.js("atlas.change({token: 1})")
    assert _text(page, "#token dd.bytes") == "63 61 74"


def test_an_invisible_character_of_a_word_is_named(open_page, word_pieces):
    page = open_page(gather(word_pieces("a\u200bb", "dog")))
    page.js("atlas.change({token: 1})")
    assert "ZERO WIDTH SPACE" in _text(page, "#token dd.holds")


def test_a_vocabulary_that_drops_white_space_has_no_bytes_per_token(open_page, word_pieces):
    page = open_page(gather(word_pieces("cat", "dog")))
    page.view("health")
    assert "drops white space" in _text(page, "[aria-label='Bytes per token by script'] .missing")


def test_the_variance_is_that_of_the_map_only_where_the_map_shows_it(open_page, atlas_of_run):
    data = atlas_of_run.data
    page = open_page(AtlasData(data.meta | {"projection": data.meta["projection"] | {"name": "umap"}}, data.arrays))
    page.view("health")
    text = _text(page, "[aria-label='Singular spectrum']")
    assert "The first two carry" in text and "of the map" not in text


@pytest.mark.parametrize(
    ("score_of", "said"),
    [("text", "a text of the validation part"), ("drawn", "tokens drawn at random"), ("scheme", "the scheme alone")],
)
def test_what_scores_are_the_mean_over_is_said(open_page, atlas_of_run, score_of, said):
    data = atlas_of_run.data
    score = {"score_by_distance": np.zeros((1, 2, 4), np.float32), "distances": np.arange(4, dtype=np.int32)}
    page = open_page(AtlasData(data.meta | {"score_of": score_of}, data.arrays | score))
    page.view("positions")
    assert said in _text(page, "[aria-label='Logits by distance'] p")
    assert "2 heads in 1 layer." in page.js(
        "document.querySelector('[aria-label=\"Logits by distance\"] .chart').ariaLabel"
    )


def _drawn(page, title):
    return page.js("document.querySelector(`[aria-label='${a[0]}'] .chart`).data", title)


def test_heads_that_see_both_sides_have_an_axis_that_says_so(open_page, atlas_of_run):
    data = atlas_of_run.data
    score = {"score_by_distance": np.zeros((1, 2, 5), np.float32), "distances": np.arange(-2, 3, dtype=np.int32)}
    page = open_page(AtlasData(data.meta, data.arrays | score))
    page.view("positions")
    assert _drawn(page, "Logits by distance")[0]["x"] == [-2, -1, 0, 1, 2]
    assert "ahead" in _text(page, "[aria-label='Logits by distance'] .xtitle")
    assert page.js("document.querySelectorAll('[aria-label=\"Logits by distance\"] select').length") == 0  # one layer


def test_the_last_place_reads_by_scores_of_what_stands_behind_it(open_page, atlas_of_run):
    data, told = atlas_of_run.data, []
    arrays = {name: array for name, array in data.arrays.items() if name != "position_vectors"}
    back = -np.arange(8, dtype=np.float32)
    for distances, score in ((np.arange(8), back), (np.arange(-7, 8), np.r_[np.full(7, 9, np.float32), back])):
        score = {"score_by_distance": score[None, None], "distances": distances.astype(np.int32)}
        page = open_page(AtlasData(data.meta, arrays | score))
        page.view("positions")
        told.append(_text(page, "#order-verdict"))
    assert told[0] == told[1] and "nothing here tells" not in told[0]


def test_each_band_turns_in_a_strip_of_its_own(open_page, atlas_of_run):
    data = atlas_of_run.data
    kernel = np.cos(np.arange(16) * np.array([[1.0], [0.1], [0.01]])).astype(np.float32)
    turning = {"rotary_kernel": kernel, "rotary_distances": np.arange(16, dtype=np.int32)}
    page = open_page(AtlasData(data.meta, data.arrays | turning))
    page.view("positions")
    strips = _drawn(page, "Turning by distance")
    for above, below in itertools.pairwise(strips):
        assert min(above["y"]) > max(below["y"])
    np.testing.assert_allclose([strip["customdata"] for strip in strips], kernel, atol=1e-6)
    labels = "[...document.querySelectorAll('[aria-label=\"Turning by distance\"] .ytick text')]"
    assert sorted(page.js(f"{labels}.map((one) => one.textContent)")) == ["band 2", "fastest", "slowest"]


@pytest.mark.parametrize(("most", "least"), [(62, 47), (1, 0.05), (62, 1.5), (1, 1e-30), (1, 0)])
def test_the_spectrum_has_ticks_that_can_be_read(open_page, atlas_of_run, most, least):
    data = atlas_of_run.data
    spectrum = np.append(np.geomspace(most, least or 0.5, 15), least).astype(np.float32)
    page = open_page(AtlasData(data.meta, data.arrays | {"spectrum": spectrum}))
    page.view("health")
    ticks = "[...document.querySelectorAll('[aria-label=\"Singular spectrum\"] .ytick text')]"
    tops = sorted(page.js(f"{ticks}.map((one) => one.getBoundingClientRect().top)"))
    assert len(tops) > 1
    assert np.diff(tops).min() > 11  # as high as their letters


def test_losses_that_are_no_numbers_leave_the_page_whole(open_page, atlas_of_run):
    data = atlas_of_run.data
    page = open_page(
        AtlasData(data.meta | {"loss": {"train": [[1, None]], "evaluation": [], "unigram": None}}, data.arrays)
    )
    assert not page.driver.find_element("id", "curve").is_displayed()
    page.view("health")
    assert "No loss of this run is a number." in _text(page, "[aria-label='Loss over training'] .missing")
    some = {"train": [[1, 6.5], [2, None]], "evaluation": [[0, 7.0], [2, None]], "unigram": None}
    page = open_page(AtlasData(data.meta | {"loss": some}, data.arrays))
    assert "7.00 nats" in page.driver.find_element("id", "curve").get_attribute("aria-label")
    page.view("health")
    assert [trace["y"] for trace in _drawn(page, "Loss over training")] == [[6.5], [7.0]]
    assert page.errors() == []


def test_losses_of_hidden_tokens_are_not_those_of_more_context(open_page, atlas_of_run):
    data = atlas_of_run.data
    page = open_page(AtlasData(data.meta | {"sees_ahead": True}, data.arrays))
    page.view("health")
    assert "hidden" in _text(page, "[aria-label='Loss by position'] p")
    assert _text(page, "[aria-label='Loss by position'] .xtitle") == "place in the window"


def test_a_mean_cosine_that_rounds_to_0_is_0(open_page, atlas_of_run):
    data = atlas_of_run.data
    page = open_page(AtlasData(data.meta | {"health": data.meta["health"] | {"mean_cosine": -7.02e-5}}, data.arrays))
    page.view("health")
    assert "0.000mean cosine" in _text(page, ".tiles")
    assert "-0.000" not in _text(page, ".tiles")


def test_words_that_no_token_has_are_named(open_page, words):
    page = open_page(words("dog 1 0", "ice 0.9 0.1", "man 0 1"))
    page.view("positions")
    assert _text(page, "#order-verdict").endswith("Left out, as no token has it: bites.")


def test_names_of_words_stay_inside_the_chart_of_orders(page):
    page.view("positions")
    inside = """(() => {
        const chart = document.querySelector("#positions .chart");
        const { top, left } = chart.getBoundingClientRect();
        const [x, y] = ["xaxis", "yaxis"].map((name) => chart._fullLayout[name]);
        const within = (from, to, start, axis) =>
            from >= start + axis._offset - 1 && to <= start + axis._offset + axis._length + 1;
        return [...chart.querySelectorAll(".textpoint")]
            .map((one) => one.getBoundingClientRect())
            .every((one) => within(one.top, one.bottom, top, y) && within(one.left, one.right, left, x));
    })()"""
    assert page.js("document.querySelectorAll('#positions .chart .textpoint').length") > 4
    assert page.js(inside)


def test_what_has_nothing_to_show_stands_behind_the_rest(open_page, words):
    page = open_page(words("ice 1 0", "snow 0.9 0.1", "fire 0 1"))
    for view in ("positions", "health"):
        page.view(view)
        empty = page.js(
            "[...document.querySelectorAll(`#${a[0]} .card`)].map((one) => !!one.querySelector('.missing'))", view
        )
        assert True in empty and empty == sorted(empty)


def test_right_to_left_names_stand_where_all_names_stand(open_page, words):
    page = open_page(words("ice 1 0", "שלום 0.9 0.1"))
    lefts = page.js(
        "[...document.querySelectorAll('#results .label')].map((one) => {"
        " const range = document.createRange(); range.selectNodeContents(one);"
        " return range.getBoundingClientRect().left; })"
    )
    assert lefts[0] == pytest.approx(lefts[1], abs=3)


def test_losses_that_are_nan_in_places_do_not_end_the_sentence(open_page, atlas_of_run):
    data = atlas_of_run.data
    losses = np.array([5.25, 4.5, np.nan], np.float32)
    page = open_page(AtlasData(data.meta, data.arrays | {"loss_by_position": losses}))
    page.view("health")
    label = page.js("document.querySelector('[aria-label=\"Loss by position\"] .chart').ariaLabel")
    assert label.endswith("From 5.25 to 4.50 nats.")


def test_what_a_model_lacks_is_said(open_page, atlas_of_run):
    bare = {"count", "state", "loss_by_position", "first_rows", "first_neighbours"}
    bare |= {"score_by_distance", "position_vectors", "position_similarity"}
    arrays = {name: array for name, array in atlas_of_run.data.arrays.items() if name not in bare}
    arrays["xy"] = arrays["xy"][-1:]
    loss = {"train": [], "evaluation": [], "unigram": None}
    meta = atlas_of_run.data.meta | {
        "frames": [30],
        "loss": loss,
        "counted_by": None,
        "seen_known": False,
        "loss_by_position_note": "The validation part is shorter than a window.",
    }
    page = open_page(AtlasData(meta, arrays))
    assert page.driver.find_elements("css selector", "#colour option")[0].text == "norm"
    page.view("health")
    assert len(page.driver.find_elements("css selector", "#health .missing")) == 4
    assert "The validation part is shorter than a window." in page.driver.find_element("id", "health").text
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
