"""Tokens and names are untrusted: none of them may become markup, run, or load anything."""

import pytest

from browser_cases import HOSTILE, hostile


@pytest.fixture
def page(open_page, atlas_of_run):
    """An atlas whose tokens, names and notes are all hostile."""
    return open_page(hostile(atlas_of_run.data))


def _harmless(page):
    assert (
        page.js(
            "document.querySelectorAll('main img, main a:not([download]), main b b, #token script, main script').length"
        )
        == 0
    )
    assert page.errors() == []
    assert page.requests() == []


def test_nothing_runs_in_any_view(page):
    for view in ("positions", "health", "space"):
        page.view(view)
    for colour in ("kind", "script"):
        page.js("atlas.change({colour: a[0], unseen: true})", colour)
    page.settle()
    _harmless(page)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_each_token_is_shown_as_text(page, number):
    page.js("atlas.change({token: a[0]})", number)
    page.settle()
    shown = page.js("document.querySelector('#token .name').textContent")
    assert shown == HOSTILE[number].decode("utf-8", errors="replace")
    assert " ".join(f"{byte:02x}" for byte in HOSTILE[number]) in page.driver.find_element("id", "token").text
    _harmless(page)


def test_hovering_a_hostile_token_shows_text(page):
    page.js("atlas.change({token: 0, unseen: true})")
    left, top = page.js("atlas.map.screenOf(0)")
    box = page.js("(({left, top}) => [left, top])(document.getElementById('map').getBoundingClientRect())")
    event = {"type": "mouseMoved", "x": left + box[0], "y": top + box[1]}
    page.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    page.wait("!document.getElementById('hint').hidden")
    _harmless(page)


def test_hostile_tokens_can_be_searched_and_typed(page):
    assert 0 in page.search("<script>alert(1)")
    assert 11 in page.search("बिल्ली")
    assert 8 in page.search("e2 80 8b")
    page.view("positions")
    page.driver.find_element("id", "order-first").send_keys(' "><img src=x onerror=alert(3)>')
    page.settle()
    _harmless(page)


def test_invisible_characters_are_named(page):
    page.js("atlas.change({token: 8})")
    text = page.driver.find_element("id", "token").text
    assert "ZERO WIDTH SPACE" in text
    assert "ZERO WIDTH JOINER" in text


def test_right_to_left_text_stays_in_its_place(page):
    page.js("atlas.change({token: 9})")
    assert page.js("document.querySelector('#token .name bdi') !== null")
    assert page.js("[...document.querySelectorAll('#results .label')].every((one) => one.tagName === 'BDI')")


def test_scripts_that_are_not_its_own_do_not_run(page):
    page.driver.execute_script(
        "const made = document.createElement('script'); made.textContent = 'window.harmed = 1';"
        "document.body.append(made);"
        "const button = document.createElement('b'); button.setAttribute('onclick', 'window.harmed = 2');"
        "document.body.append(button); button.dispatchEvent(new Event('click'))"
    )
    assert page.js("window.harmed") is None
    assert sum("Content Security Policy" in message for message in page.errors()) == 2
