"""The page of an atlas in a real browser: the map, the search, the chosen token, the playback."""

import numpy as np
import pytest

from browser_cases import DOWN, ENTER, HOME, LEFT, RIGHT, Page
from tokenspace import inspection
from tokenspace.atlas.data import AtlasData

PRESSED = {"button", "slider", "checkbox", "tab", "combobox", "searchbox", "textbox", "option", "image", "application"}


def test_opens_without_complaint_and_asks_no_network(page):
    for view in ("positions", "health", "space"):
        page.view(view)
    page.driver.find_element("id", "theme").click()
    page.settle()
    assert page.errors() == []
    assert page.requests() == []


def test_draws_points(page):
    assert page.pixels()[1] > 100


def test_finds_by_text_id_and_bytes(page, trained):
    (cat,) = trained.tokenizer.encode(" cat")
    assert page.search("cat")[0] == cat
    assert page.search(f"#{cat}") == [cat]
    assert page.search("20 63 61 74")[0] == cat
    assert page.search("\\x20\\x63\\x61\\x74")[0] == cat


def test_lists_nothing_for_what_is_not_there(page):
    assert page.search("#999999") == []
    assert page.search("qqqqzzzz") == []


def test_a_click_in_the_map_chooses_the_point(page, trained):
    (dog,) = trained.tokenizer.encode(" dog")
    page.js("atlas.change({hiddenClasses: new Set()})")
    left, top = page.js("atlas.map.screenOf(a[0])", dog)
    box = page.js("(({left, top}) => [left, top])(document.getElementById('map').getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        event = {"type": kind, "x": left + box[0], "y": top + box[1], "button": "left", "clickCount": 1}
        page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    assert page.wait("atlas.state.token !== null && atlas.state.token + 1") - 1 == dog
    assert "dog" in page.driver.find_element("css selector", "#token .name").text


def test_hovering_tells_bytes_id_count_and_norm(page, trained):
    (dog,) = trained.tokenizer.encode(" dog")
    left, top = page.js("atlas.map.screenOf(a[0])", dog)
    box = page.js("(({left, top}) => [left, top])(document.getElementById('map').getBoundingClientRect())")
    event = {"type": "mouseMoved", "x": left + box[0], "y": top + box[1]}
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    page.wait("!document.getElementById('hint').hidden")
    text = page.driver.find_element("id", "hint").text
    count = int(page.js("atlas.tokens.count[a[0]]", dog))
    for fact in (f"id {dog}", "20 64 6f 67", f"count {count:,}", "norm 0."):
        assert fact in text


def test_neighbours_are_those_of_inspection(page, trained):
    table = trained.embedding().token.weight.detach()
    for text in (" cat", " the", "."):
        (token,) = trained.tokenizer.encode(text)
        page.js("atlas.change({token: a[0]})", token)
        shown = page.js("[...document.querySelectorAll('#neighbours button')].map((one) => Number(one.dataset.id))")
        found = inspection.neighbours(table, token, trained.tokenizer, k=20).nearest
        assert shown == [one.id for one in found]
        cosines = page.js("[...document.querySelectorAll('#neighbours .number')].map((one) => Number(one.textContent))")
        np.testing.assert_allclose(cosines, [one.cosine for one in found], atol=1e-3)


def test_neighbours_can_be_walked_and_walked_back(page, trained):
    (cat,) = trained.tokenizer.encode(" cat")
    page.js("atlas.change({token: a[0]})", cat)
    first = page.driver.find_element("css selector", "#neighbours button")
    wanted = int(first.get_attribute("data-id"))
    first.click()
    assert page.js("atlas.state.token") == wanted
    page.driver.find_element("id", "back").click()
    assert page.js("atlas.state.token") == cat


def test_before_training_there_are_other_neighbours(page, trained, atlas_of_run):
    (cat,) = trained.tokenizer.encode(" cat")
    page.js("atlas.change({token: a[0]})", cat)
    page.driver.find_element("id", "before").click()
    shown = page.js("[...document.querySelectorAll('#neighbours button')].map((one) => Number(one.dataset.id))")
    arrays = atlas_of_run.data.arrays
    row = arrays["first_rows"].tolist().index(cat)
    assert shown == arrays["first_neighbours"][row].tolist()
    assert shown != arrays["neighbours"][cat][:10].tolist()


def test_the_slider_moves_the_points(page):
    now = page.pixels()
    slider = page.driver.find_element("id", "frame")
    page.driver.execute_script("arguments[0].value = 0; arguments[0].dispatchEvent(new Event('input'))", slider)
    first = page.pixels()
    page.js("atlas.change({frame: 0.5})")
    between = page.pixels()
    assert len({now, first, between}) == 3
    assert "step 0 of" in page.js("(atlas.change({frame: 0}), document.getElementById('step').textContent)")


def test_play_goes_through_all_frames_and_stops(page):
    page.js("(globalThis.shown = [], atlas.listen(['frame'], () => shown.push(atlas.state.frame)), 1)")
    page.driver.find_element("id", "play").click()
    page.wait("!atlas.state.playing")
    shown, last = page.js("shown"), page.js("atlas.meta.frames.length - 1")
    assert shown == sorted(shown) and (shown[0], shown[-1]) == (0, last)
    assert any(0 < frame < last for frame in shown)
    assert page.driver.find_element("id", "play").text == "Play"


def test_playback_does_not_go_back_where_a_picture_began_before_the_click(page):
    page.js(
        "(globalThis.shown = [], globalThis.plain = requestAnimationFrame,"
        " globalThis.requestAnimationFrame = (draw) => plain((now) => draw(now - 500)),"
        " atlas.listen(['frame'], () => shown.push(atlas.state.frame)), 1)"
    )
    page.driver.find_element("id", "play").click()
    page.wait("atlas.state.frame > 0")
    assert min(page.js("shown")) == 0


def test_reduced_motion_shows_frame_after_frame(page):
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.driver.refresh()
    page.wait("document.documentElement.dataset.ready === 'true'")
    page.js(
        "(globalThis.between = 0,"
        " atlas.listen(['frame'], () => (globalThis.between += !Number.isInteger(atlas.state.frame))), 1)"
    )
    page.driver.find_element("id", "play").click()
    page.wait("!atlas.state.playing")
    assert page.js("between") == 0


def test_never_seen_tokens_are_off_and_can_be_switched_on(page, atlas_of_run):
    seen = int((atlas_of_run.data.arrays["state"] < 2).sum())
    V = atlas_of_run.data.meta["vocab_size"]
    assert page.driver.find_element("id", "shown").text == f"{seen:,} of {V:,} tokens, only such as training saw"
    page.driver.find_element("id", "unseen").click()
    assert page.driver.find_element("id", "shown").text == f"{V:,} of {V:,} tokens"


@pytest.mark.parametrize("colour", ["frequency", "norm", "kind", "script", "state"])
def test_every_colouring_draws_and_has_a_legend(page, colour):
    page.js("atlas.change({colour: a[0]})", colour)
    assert page.pixels()[1] > 100
    assert page.js("document.getElementById('legend').textContent.trim().length") > 3


def test_a_class_of_the_legend_can_be_hidden(page):
    page.js("atlas.change({colour: 'kind'})")
    before = page.pixels()[1]
    page.driver.find_element("css selector", "#legend button").click()
    assert page.pixels()[1] < before


def test_arrow_keys_choose_in_the_list(page):
    ids = page.search("t")
    page.driver.find_element("id", "query").send_keys(DOWN, DOWN, ENTER)
    assert page.js("atlas.state.token") == ids[1]


def test_the_map_and_the_views_obey_keys(page):
    before = page.pixels()
    box = page.driver.find_element("id", "map")
    box.send_keys(LEFT, "+")
    moved = page.pixels()
    assert moved != before
    box.send_keys(HOME)
    assert page.pixels() == before
    page.driver.find_element("id", "tab-space").send_keys(RIGHT)
    assert page.js("atlas.state.view") == "positions"


def test_keys_of_the_browser_are_left_to_it(page):
    page.driver.find_element("id", "map").send_keys(LEFT)
    before = page.js("atlas.map.screenOf(7)")
    prevented = """[...['ctrlKey', 'metaKey', 'altKey']].map((held) => {
        const key = held === "altKey" ? "ArrowLeft" : "-";
        const event = new KeyboardEvent("keydown", { key, [held]: true, cancelable: true });
        document.getElementById("map").dispatchEvent(event);
        return event.defaultPrevented;
    })"""
    assert page.js(prevented) == [False, False, False]
    assert page.js("atlas.map.screenOf(7)") == before


def test_the_middle_is_marked_for_who_moves_by_keys(page):
    middle = """(() => {
        atlas.map.draw();
        const overlay = document.getElementById("overlay");
        const data = overlay.getContext("2d").getImageData(overlay.width / 2 + 6, overlay.height / 2 - 1, 4, 2).data;
        return data.filter((value, place) => place % 4 === 3 && value > 0).length;
    })()"""
    page.js("atlas.change({names: false})")
    assert page.js(middle) == 0
    page.driver.find_element("id", "map").send_keys(LEFT)
    assert page.js(middle) > 0


def _places_of_seen(page):
    seen = "[...atlas.tokens.byCount].filter((id) => atlas.tokens.state[id] < 2)"
    return page.js(f"{seen}.map((id) => atlas.map.screenOf(id))")


def _part_outside(page, width, height):
    return np.mean([not (0 <= left <= width and 0 <= top <= height) for left, top in _places_of_seen(page)])


def test_an_untouched_map_shows_the_whole_at_any_size(page):
    page.resize(390, 844)
    page.wait("document.getElementById('map').clientWidth < 400 && document.getElementById('overlay').width < 400")
    page.settle()
    width, height = page.js("[document.getElementById('map').clientWidth, document.getElementById('map').clientHeight]")
    assert _part_outside(page, width, height) < 0.1


def test_an_untouched_map_makes_room_for_tokens_never_seen(open_page, atlas_of_run):
    data = atlas_of_run.data
    xy = data.arrays["xy"].copy()
    xy[-1, data.arrays["state"] > 1] = 32_000  # far away from all others
    page = open_page(AtlasData(data.meta, data.arrays | {"xy": xy}))
    page.driver.find_element("id", "unseen").click()
    width, height = page.js("[document.getElementById('map').clientWidth, document.getElementById('map').clientHeight]")
    left, top = page.js("atlas.map.screenOf(atlas.tokens.state.findIndex((one) => one > 1))")
    assert 0 < left < width and 0 < top < height


def test_a_map_that_was_moved_stays_where_it_is(page):
    page.driver.find_element("id", "zoom-in").click()
    page.settle()
    wide = page.js("document.getElementById('map').clientWidth")
    (before, *_), (other, *_) = _places_of_seen(page)[0:1], _places_of_seen(page)[1:2]
    page.resize(1180, 800)
    page.wait("document.getElementById('overlay').width < a[0]", wide)
    page.settle()
    after, others = _places_of_seen(page)[:2]
    np.testing.assert_allclose(np.subtract(others, after), np.subtract(other, before), atol=1e-3)


def test_a_page_that_opens_unseen_shows_the_whole_when_it_is_seen(browser, run_page):
    outer = run_page.with_name("unseen.html")
    frame = f'<iframe src="{run_page.as_uri()}" width="900" height="700" style="display: none"></iframe>'
    outer.write_text(f"<!doctype html><meta charset=utf-8>{frame}", encoding="utf-8")
    browser.get(outer.as_uri())
    browser.switch_to.frame(0)
    page = Page.__new__(Page)
    page.driver = browser
    try:
        page.wait("document.documentElement.dataset.ready === 'true'")
        browser.switch_to.default_content()
        page.js("document.querySelector('iframe').style.display = 'block'")
        browser.switch_to.frame(0)
        page.wait("document.getElementById('overlay').width > 100")
        page.settle()
        width, height = page.js(
            "[document.getElementById('map').clientWidth, document.getElementById('map').clientHeight]"
        )
        assert _part_outside(page, width, height) < 0.1
        spread = np.ptp(_places_of_seen(page), axis=0)
        assert spread.max() > 100
    finally:
        browser.switch_to.default_content()


def test_the_slider_has_a_name_for_screen_readers(page):
    assert ("slider", "Training step") in page.spoken()


def test_everything_one_can_press_has_a_name_and_a_visible_focus(page):
    for view in ("space", "positions", "health"):
        page.view(view)
        pressed = [(role, name) for role, name in page.spoken() if role in PRESSED]
        assert len(pressed) > 6
        assert [role for role, name in pressed if not name.strip()] == []
    page.view("space")
    page.driver.find_element("id", "query").send_keys("")
    style = page.js("(document.getElementById('query').focus(), getComputedStyle(document.activeElement).outlineStyle)")
    assert style == "solid"


def test_a_choice_is_told_to_screen_readers(page, trained):
    (cat,) = trained.tokenizer.encode(" cat")
    page.js("atlas.change({token: a[0]})", cat)
    assert ("StaticText", f"Token {trained.tokenizer.label(cat)}, id {cat}") in page.spoken()


def test_points_stand_where_the_frames_say_and_between_them(page, atlas_of_run):
    xy = atlas_of_run.data.arrays["xy"] / 32_767
    for frame, wanted in ((0, xy[0, 7]), (1, xy[1, 7]), (1.5, xy[1:3, 7].mean(axis=0))):
        page.js("atlas.change({frame: a[0]})", frame)
        np.testing.assert_allclose(page.js("atlas.map.placeOf(7)"), wanted, atol=1e-6)


def test_search_and_choice_are_quick(page):
    script = """
        const field = document.getElementById("query"), search = [], choose = [];
        const now = () => performance.now();
        const timed = (times, act) => { const begin = now(); act(); times.push(now() - begin); };
        for (const text of ["a", "the", " c", "#12", "e0 a4", "zzz", ""]) {
            field.value = text;
            timed(search, () => field.dispatchEvent(new Event("input")));
        }
        for (let id = 0; id < 20; id++) timed(choose, () => atlas.change({ token: id }));
        const middle = (times) => times.sort((a, b) => a - b)[times.length >> 1];
        return [middle(search), middle(choose)];
    """
    search, choose = page.driver.execute_script(script)
    assert search < 50
    assert choose < 100
