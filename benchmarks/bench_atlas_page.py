"""How long a page of the atlas takes to open, to search, to show neighbours and to draw, in headless Chromium.

python benchmarks/bench_atlas_page.py PAGE ...

Draws without a graphics card (SwiftShader), so what a card does in no time is counted in full here.
"""

import shutil
import statistics
import sys
import time
from pathlib import Path

from selenium import webdriver

from timing import machine, markdown_row

SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
TIMED = """
    const field = document.getElementById("query"), search = [], choose = [], draw = [];
    const ids = atlas.tokens.byCount, number = Math.min(1000, ids.length);
    const now = () => performance.now();
    const timed = (times, act) => { const begin = now(); act(); times.push(now() - begin); };
    for (const text of ["a", "th", "the", " c", "#12", "e0 a4", "का", "ing", "zzzz", "क", "42", ""]) {
        field.value = text;
        timed(search, () => field.dispatchEvent(new Event("input")));
    }
    for (let i = 0; i < number; i += 10) timed(choose, () => atlas.change({ token: ids[i] }));
    atlas.change({ token: null, unseen: true });
    for (let i = 0; i < 60; i++) {
        atlas.state.frame = ((i % 30) / 30) * (atlas.meta.frames.length - 1);
        timed(draw, () => atlas.map.draw());
    }
    return [search, choose, draw];
"""
DRAWN = """
    const done = arguments[0], times = [];
    atlas.change({ token: null, unseen: true });
    let last = performance.now();
    const next = (now) => {
        times.push(now - last);
        last = now;
        if (times.length > 60) return done(times.slice(1));
        atlas.change({ frame: ((times.length % 30) / 30) * (atlas.meta.frames.length - 1) });
        requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
"""


def measure(page: Path) -> list[float | str]:
    """A column of the table."""
    options = webdriver.ChromeOptions()
    for switch in SWITCHES:
        options.add_argument(switch)
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    try:
        driver.get(page.resolve().as_uri())
        while not driver.execute_script("return document.documentElement.dataset.ready"):
            time.sleep(0.05)
        first = driver.execute_script("return performance.getEntriesByName('first map')[0].startTime")
        search, choose, draw = driver.execute_script(TIMED)
        drawn = driver.execute_async_script(DRAWN)
    finally:
        driver.quit()
    times = [first, statistics.median(search), max(search), statistics.median(choose), max(choose)]
    return [page.stat().st_size / 1e6, *times, statistics.median(draw), statistics.median(drawn)]


def main() -> None:
    """Print a table, a column a page."""
    pages = [Path(name) for name in sys.argv[1:]]
    columns = [measure(page) for page in pages]
    names = [
        "size, MB",
        "first map, ms",
        "search, ms",
        "slowest search, ms",
        "choosing a token, with its neighbours, ms",
    ]
    names += ["slowest choice, ms"]
    names += ["a picture of all tokens in playback: the page's work, ms", "the same with SwiftShader's, ms"]
    print(f"{machine()}\n")
    print(markdown_row("page", *(page.stem for page in pages)))
    print(markdown_row(*["---"] * (len(pages) + 1)))
    for row in zip(names, *columns, strict=True):
        print(markdown_row(*row))


if __name__ == "__main__":
    main()
