"""The atlas in a real browser: Chromium, driven by selenium. Skipped where there is none."""

import dataclasses
import http.server
import itertools
import shutil
import threading
import time

import numpy as np
import pytest

import tokenspace
from tokenspace import Run, inspection
from tokenspace.atlas import Atlas
from tokenspace.atlas.data import AtlasData, end_to_end
from tokenspace.atlas.page import write_page

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium leaves sockets to the collector
]

TEXT = "The cat sat on the mat. The dog sat by the door, and the cat saw the dog. बिल्ली चटाई पर बैठी। " * 60
HOSTILE = (
    "<script>window.harmed = 1</script>",
    "</script><script>window.harmed = 2</script>",
    '"><img src=x onerror="window.harmed = 3">',
    "<!--<script>",
    "${window.harmed = 4}",
    "\u2028\u2029\\u{200b}\u202e\u0000",
    "<b>bold</b>&lt;",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {"steps": 12, "d_model": 16, "num_heads": 2, "num_layers": 1, "context_length": 16, "frames": 6}
    return tokenspace.train(documents=[TEXT], out=out, tokenizer="train:400", **settings)


@pytest.fixture(scope="module")
def made(run):
    return Atlas.of(run)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader", "--window-size=1280,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    browser.downloads = tmp_path_factory.mktemp("downloads")
    allowed = {"behavior": "allow", "downloadPath": str(browser.downloads)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    yield browser
    browser.quit()


def opened(browser, path, *, width=1280, height=800):
    """The page at `path`, ready, in a window of that size; whatever was logged before is forgotten."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.as_uri())
    wait_for(browser, "return document.documentElement.dataset.ready")
    return browser


@pytest.fixture
def page(browser, made, tmp_path):
    made.save(tmp_path / "atlas.html")
    return opened(browser, tmp_path / "atlas.html")


def wait_for(browser, script, *arguments):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := browser.execute_script(script, *arguments):
            return found
        time.sleep(0.02)
    raise AssertionError((script, browser.get_log("browser")))


def by_id(browser, name):
    return browser.find_element("id", name)


def type_query(browser, text):
    browser.execute_script(
        "const f = document.getElementById('query'); f.value = arguments[0]; f.dispatchEvent(new Event('input'))", text
    )
    return [int(row.get_attribute("data-id")) for row in browser.find_elements("css selector", "#results li")]


def choose(browser, token_id):
    browser.execute_script("atlas.change({token: arguments[0]})", token_id)


def settled(browser):
    """After the next picture."""
    browser.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))")


def pixels(browser):
    """The map as drawn just now."""
    return browser.execute_script("atlas.map.draw(); return document.getElementById('points').toDataURL()")


def open_view(browser, view):
    browser.execute_script("atlas.change({view: arguments[0]})", view)
    browser.execute_async_script("const done = arguments[1]; atlas.opened[arguments[0]].then(() => done())", view)


def only_warnings_of_the_driver(logged):
    """Console messages but those on software rendering and on reading pixels back, which only tests do."""
    return [one for one in logged if "GPU stall" not in one["message"] and "swiftshader" not in one["message"].lower()]


def test_it_opens_without_a_message_on_the_console(page):
    for view in ("positions", "health", "space"):
        page.execute_script("atlas.change({view: arguments[0]})", view)
    open_view(page, "health")
    assert only_warnings_of_the_driver(page.get_log("browser")) == []


def test_it_asks_no_network_for_anything(page):
    for view in ("positions", "health"):
        open_view(page, view)
    asked = page.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert [name for name in asked if not name.startswith(("data:", "blob:"))] == []
    sent = [one["message"] for one in page.get_log("performance") if "Network.requestWillBeSent" in one["message"]]
    assert not [message for message in sent if '"url":"http' in message]


def test_scripts_that_are_not_its_own_do_not_run(page):
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.harmed = 5'; document.body.append(s)"
    )
    assert page.execute_script("return window.harmed") is None
    page.execute_script(
        "const made = document.createElement('b'); made.setAttribute('onclick', 'window.harmed = 6');"
        "made.dispatchEvent(new Event('click'))"
    )
    assert page.execute_script("return window.harmed") is None


@pytest.mark.parametrize("query", [" cat", "CAT", "#{id}", "20 63 61 74", "0x20636174"])
def test_search_finds_a_token_by_text_id_and_bytes(page, run, query):
    (cat,) = run.tokenizer.encode(" cat")
    assert type_query(page, query.replace("{id}", str(cat)))[0] == cat


def test_search_finds_devanagari(page, run):
    token_id = run.tokenizer.encode(" बिल्ली")[0]
    text = run.tokenizer.decode([token_id]).strip()
    assert token_id in type_query(page, text)


def test_search_says_that_nothing_was_found(page):
    assert type_query(page, "no such token anywhere") == []
    assert by_id(page, "found").text == "0 tokens"


def test_search_answers_within_50_ms(page):
    script = """
        const field = document.getElementById('query'), times = [];
        for (const text of ['a', 'the', ' c', '#12', 'e0 a4', 'zzz', '']) {
            field.value = text;
            const begin = performance.now();
            field.dispatchEvent(new Event('input'));
            times.push(performance.now() - begin);
        }
        return times.sort((a, b) => a - b)[3];
    """
    page.execute_script(script)  # labels are made lower case once
    assert page.execute_script(script) < 50


def test_enter_in_the_search_chooses_the_first_and_arrows_another(page):
    first, second = type_query(page, "at")[:2]
    by_id(page, "query").send_keys("\ue007")  # Enter
    assert page.execute_script("return atlas.state.token") == first
    by_id(page, "query").send_keys("\ue015\ue015\ue007")  # down, down, Enter
    assert page.execute_script("return atlas.state.token") == second


def test_a_click_on_a_point_chooses_its_token(page, run):
    (cat,) = run.tokenizer.encode(" cat")
    left, top = page.execute_script("return atlas.map.screenOf(arguments[0])", cat)
    area = by_id(page, "map")
    size = area.size
    offset = (round(left - size["width"] / 2), round(top - size["height"] / 2))
    webdriver.ActionChains(page).move_to_element_with_offset(area, *offset).click().perform()
    assert page.execute_script("return atlas.state.token") == cat
    assert "63 61 74" in by_id(page, "token").text


def test_hovering_tells_the_token_under_the_pointer(page, run):
    (cat,) = run.tokenizer.encode(" cat")
    left, top = page.execute_script("return atlas.map.screenOf(arguments[0])", cat)
    area = by_id(page, "map")
    offset = (round(left - area.size["width"] / 2), round(top - area.size["height"] / 2))
    webdriver.ActionChains(page).move_to_element_with_offset(area, *offset).perform()
    hint = by_id(page, "hint").text
    assert f"id {cat}" in hint and "bytes 20 63 61 74" in hint and run.tokenizer.label(cat) in hint


def test_neighbours_are_those_of_inspection(page, run):
    table = run.embedding().token.weight.detach()
    for token_id in run.tokenizer.encode(" cat sat."):
        choose(page, token_id)
        shown = [int(row.get_attribute("data-id")) for row in page.find_elements("css selector", "#neighbours button")]
        found = inspection.neighbours(table, token_id, run.tokenizer, k=20)
        assert shown == [token.id for token in found.nearest]


def test_neighbours_before_training_are_those_of_the_first_frame(page, run):
    (cat,) = run.tokenizer.encode(" cat")
    choose(page, cat)
    page.find_element("xpath", "//button[text()='before']").click()
    shown = [int(row.get_attribute("data-id")) for row in page.find_elements("css selector", "#neighbours button")]
    found = inspection.neighbours(run.frame(0)["token.weight"], cat, run.tokenizer, k=10)
    assert shown == [token.id for token in found.nearest]


def test_neighbours_can_be_walked_and_walked_back(page, run):
    (cat,) = run.tokenizer.encode(" cat")
    choose(page, cat)
    neighbour = page.find_element("css selector", "#neighbours button")
    wanted = int(neighbour.get_attribute("data-id"))
    neighbour.click()
    assert page.execute_script("return atlas.state.token") == wanted
    page.find_element("css selector", "#token > button").click()
    assert page.execute_script("return atlas.state.token") == cat


def test_choosing_takes_less_than_100_ms(page):
    script = """
        const times = [];
        for (let id = 0; id < 20; id++) {
            const begin = performance.now();
            atlas.change({token: id});
            times.push(performance.now() - begin);
        }
        return times.sort((a, b) => a - b)[10];
    """
    assert page.execute_script(script) < 100


def test_the_slider_moves_the_points_and_names_the_step(page, made):
    now = pixels(page)
    page.execute_script("const s = document.getElementById('frame'); s.value = 0; s.dispatchEvent(new Event('input'))")
    assert by_id(page, "step").text == "step 0 of 12"
    assert pixels(page) != now
    places = page.execute_script("return [0, 5, 9].map(atlas.map.placeOf)")
    np.testing.assert_allclose(places, made.data.arrays["xy"][0][[0, 5, 9]] / 32_767, atol=1e-6)


def test_between_frames_points_are_between(page, made):
    page.execute_script("atlas.change({frame: 1.5})")
    place = page.execute_script("return atlas.map.placeOf(7)")
    np.testing.assert_allclose(place, made.data.arrays["xy"][1:3, 7].mean(axis=0) / 32_767, atol=1e-6)


def test_play_goes_from_the_first_frame_to_the_last(page):
    by_id(page, "play").click()
    early = wait_for(page, "return atlas.state.frame > 0 && atlas.state.frame < 3 && String(atlas.state.frame)")
    assert float(early) < 3 and by_id(page, "play").text == "Pause"
    page.execute_script("atlas.change({frame: 0})")
    wait_for(page, "return atlas.state.frame === atlas.meta.frames.length - 1")
    wait_for(page, "return !atlas.state.playing")
    assert by_id(page, "play").text == "Play"


@pytest.mark.parametrize("colour", ["norm", "kind", "script", "state"])
def test_each_colouring_paints_the_map_anew(page, colour):
    before = pixels(page)
    page.execute_script(
        "const c = document.getElementById('colour'); c.value = arguments[0]; c.dispatchEvent(new Event('change'))",
        colour,
    )
    if colour in ("norm", "kind"):  # a text in two scripts, all of it seen: those may paint alike
        assert pixels(page) != before
    assert by_id(page, "legend").text


def test_the_legend_switches_classes_off(page):
    page.execute_script("atlas.change({colour: 'kind'})")
    for place in range(len(page.find_elements("css selector", "#legend button"))):
        page.find_elements("css selector", "#legend button")[place].click()
    assert by_id(page, "shown").text.startswith("0 of")
    page.find_element("xpath", "//div[@id='legend']/button[contains(., 'word start')]").click()
    assert not by_id(page, "shown").text.startswith("0 of")


def test_rows_that_training_never_saw_come_when_asked_for(page, run):
    seen = int((run.ledger.states < 2).sum())
    total = run.tokenizer.vocab_size
    assert by_id(page, "shown").text == f"{seen} of {total} tokens that training saw"
    by_id(page, "unseen").click()
    assert by_id(page, "shown").text == f"{total} of {total} tokens"


def test_light_and_dark(page):
    paper = "return getComputedStyle(document.body).backgroundColor"
    before, picture = page.execute_script(paper), pixels(page)
    by_id(page, "theme").click()
    assert page.execute_script(paper) != before
    assert pixels(page) != picture


def test_keys_move_the_map_and_walk_the_views(page):
    before = page.execute_script("return atlas.map.screenOf(0)")
    by_id(page, "map").send_keys("\ue014\ue014+")  # right, right
    assert page.execute_script("return atlas.map.screenOf(0)") != before
    by_id(page, "map").send_keys("\ue011")  # Home
    assert page.execute_script("return atlas.map.screenOf(0)") == pytest.approx(before)
    by_id(page, "tab-space").send_keys("\ue014")
    assert by_id(page, "tab-positions").get_attribute("aria-selected") == "true"
    assert by_id(page, "positions").is_displayed() and not by_id(page, "space").is_displayed()


def test_pictures_are_saved_as_png(page, made):
    by_id(page, "save-map").click()
    open_view(page, "health")
    page.find_element("css selector", "[aria-label='Save Singular spectrum as PNG']").click()
    names = {f"{made.data.meta['title']}-{name}.png" for name in ("map", "singular-spectrum")}
    deadline = time.monotonic() + 30
    while not names <= {path.name for path in page.downloads.iterdir()} and time.monotonic() < deadline:
        time.sleep(0.05)
    for name in names:
        data = (page.downloads / name).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 5_000


def test_every_panel_of_a_run_is_drawn(page):
    open_view(page, "health")
    titles = [head.text for head in page.find_elements("css selector", "#health h2")]
    assert titles == [
        "The table in numbers", "Norm against frequency", "Singular spectrum", "Loss over training", "Loss by position",
        "Bytes per token by script", "Tokens that training never saw", "Rows that are exactly alike",
    ]  # fmt: skip
    assert len(page.find_elements("css selector", "#health .chart svg.main-svg")) >= 5
    assert not page.find_elements("css selector", "#health .missing")


def test_two_orders_are_one_bag_and_two_points(page):
    open_view(page, "positions")
    verdict = by_id(page, "order-verdict").text
    assert "Bags: distance 0." in verdict
    assert "With positions (learned): distance 0:" not in verdict
    field = by_id(page, "order-first")
    field.clear()
    field.send_keys("a dog")
    assert "write the same words in another order" in by_id(page, "order-verdict").text


@pytest.mark.parametrize(
    ("scheme", "drawn"),
    [
        ("learned", "Positions beside each other"),
        ("alibi", "Logits by distance"),
        ("t5", "Logits by distance"),
        ("rotary", "Turning by distance"),
        ("none", None),
    ],
)
def test_each_scheme_shows_where_it_enters(browser, tmp_path, scheme, drawn):
    settings = {"steps": 2, "d_model": 16, "num_heads": 2, "num_layers": 1, "context_length": 16, "positions": scheme}
    run = tokenspace.train(documents=[TEXT], out=tmp_path / "run", tokenizer="train:300", **settings)
    Atlas.of(run).save(tmp_path / "atlas.html")
    page = opened(browser, tmp_path / "atlas.html")
    open_view(page, "positions")
    cards = page.find_elements("css selector", "#positions .card:not(.wide)")
    with_chart = [
        card.find_element("css selector", "h2").text
        for card in cards
        if card.find_elements("css selector", ".main-svg")
    ]
    assert with_chart == ([drawn] if drawn else [])
    assert ("distance 0:" in by_id(page, "order-verdict").text) == (scheme == "none")
    assert only_warnings_of_the_driver(page.get_log("browser")) == []


def hostile(data):
    """The same atlas with names that want to be markup, and one half of a surrogate pair as bytes."""
    offsets = data.arrays["label_offsets"]
    labels = [bytes(data.arrays["label_bytes"][a:b]) for a, b in itertools.pairwise(offsets)]
    most = np.argsort(-data.arrays["count"].astype(np.int64), kind="stable")[: len(HOSTILE)]
    for place, text in zip(most, HOSTILE, strict=True):
        labels[place] = text.encode()
    labels[int(most[-1])] += b"\xed\xa0\x80"
    names = dict(zip(("label_bytes", "label_offsets"), end_to_end(labels), strict=True))
    meta = data.meta | {
        "title": HOSTILE[1],
        "notes": list(HOSTILE),
        "order_example": {"first": HOSTILE[0], "second": HOSTILE[2]},
    }
    return AtlasData(meta, data.arrays | names), [int(place) for place in most]


def test_hostile_tokens_are_text(browser, made, tmp_path):
    data, ids = hostile(made.data)
    write_page(data, tmp_path / "atlas.html")
    page = opened(browser, tmp_path / "atlas.html")
    for token_id, text in zip(ids, HOSTILE[:5], strict=False):
        choose(page, token_id)
        settled(page)
        assert page.execute_script("return document.querySelector('#token .name').textContent") == text
        type_query(page, text)
    for view in ("positions", "health"):
        open_view(page, view)
    assert page.execute_script("return window.harmed") is None
    assert page.find_elements("css selector", "img, b > b, iframe") == []
    assert page.execute_script("return document.title") == f"{HOSTILE[1]} – atlas"
    assert only_warnings_of_the_driver(page.get_log("browser")) == []


def test_without_frames_ledger_and_losses_the_page_says_so(browser, made, tmp_path):
    wanted = {
        name: array for name, array in made.data.arrays.items() if name not in ("state", "count", "loss_by_position")
    }
    wanted = {name: array for name, array in wanted.items() if not name.startswith("first_")}
    note = "This run kept no frames on the way: train with --frames 24 to play the training back."
    nothing = {"train": [], "evaluation": [], "unigram": None}
    meta = made.data.meta | {"frames": [12], "notes": [note], "loss": nothing, "step": None, "counted_by": None}
    write_page(
        dataclasses.replace(made.data, meta=meta, arrays=wanted | {"xy": wanted["xy"][-1:]}), tmp_path / "a.html"
    )
    page = opened(browser, tmp_path / "a.html")
    assert by_id(page, "no-frames").text == note
    assert not by_id(page, "play").is_displayed() and not by_id(page, "curve").is_displayed()
    open_view(page, "health")
    assert (
        len(page.find_elements("css selector", "#health .missing")) == 4
    )  # norm by count, loss, its places, untrained
    assert only_warnings_of_the_driver(page.get_log("browser")) == []


def test_rows_of_nan_are_named_and_have_no_neighbours(browser, run, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "run")
    broken = Run.open(folder)
    model = broken.model()
    (cat,) = run.tokenizer.encode(" cat")
    data = Atlas.of(broken).data
    arrays = data.arrays | {"nonfinite_rows": np.array([cat], dtype=np.uint32), "norm": data.arrays["norm"].copy()}
    arrays["norm"][cat] = np.nan
    kept = arrays["neighbour_rows"] != cat
    arrays |= {name: arrays[name][kept] for name in ("neighbour_rows", "neighbours", "cosines")}
    write_page(AtlasData(data.meta, arrays), tmp_path / "a.html")
    page = opened(browser, tmp_path / "a.html")
    choose(page, cat)
    assert "NaN or infinity" in by_id(page, "token").text
    assert model.config.d_model == 16
    assert only_warnings_of_the_driver(page.get_log("browser")) == []


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_sticks_out_sideways(browser, made, tmp_path, width):
    made.save(tmp_path / "atlas.html")
    page = opened(browser, tmp_path / "atlas.html", width=width, height=900)
    for view in ("space", "positions", "health"):
        page.execute_script("atlas.change({view: arguments[0]})", view)
        if view != "space":
            open_view(page, view)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_in_a_notebook_the_page_shows_inline(browser, made, tmp_path):
    """A notebook is a page of a server, which holds the atlas in an iframe."""
    (tmp_path / "index.html").write_text(f"<!doctype html><meta charset=utf-8>{made._repr_html_()}", encoding="utf-8")
    handler = lambda *arguments: QuietHandler(*arguments, directory=str(tmp_path))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f"http://127.0.0.1:{server.server_port}/index.html")
        browser.switch_to.frame(0)
        wait_for(browser, "return document.documentElement.dataset.ready")
        browser.switch_to.default_content()
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_the_first_map_is_there_within_three_seconds(page):
    assert page.execute_script("return performance.getEntriesByName('first map')[0].startTime") < 3_000
