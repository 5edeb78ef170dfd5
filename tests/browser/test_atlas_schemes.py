"""Each position scheme shows where it enters, and what it does to the order of words."""

import pytest

import tokenspace
from tokenspace.atlas.atlas import Atlas

TEXT = "The cat sat on the mat. The dog bites the man, and the cat saw the dog. " * 40


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
def test_each_scheme_shows_where_it_enters(open_page, tmp_path, scheme, drawn):
    settings = {"steps": 2, "d_model": 16, "num_heads": 2, "num_layers": 1, "context_length": 16, "positions": scheme}
    run = tokenspace.train(documents=[TEXT], out=tmp_path / "run", tokenizer="train:300", **settings)
    page = open_page(Atlas.of(run).data)
    page.view("positions")
    cards = "[...document.querySelectorAll('#positions .card:not(.wide):has(.main-svg) h2')]"
    assert page.js(f"{cards}.map((one) => one.textContent)") == ([drawn] if drawn else [])
    told = page.driver.find_element("id", "order-verdict").text
    assert "Bags: distance 0." in told
    assert ("distance 0:" in told) == (scheme == "none")  # without positions, one point stays one point
    assert page.errors() == []
