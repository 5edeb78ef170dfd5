"""What the tests of the page share: an opened page, and tokens that mean harm."""

import json
import time

import numpy as np

from tokenspace.atlas.data import AtlasData, end_to_end

DOWN, LEFT, RIGHT, HOME, ENTER = "\ue015", "\ue012", "\ue014", "\ue011", "\ue007"  # as WebDriver writes keys
_PIXELS = """
    const from = document.getElementById("points"), to = document.createElement("canvas"), pen = to.getContext("2d");
    atlas.map.draw();
    [to.width, to.height] = [from.width, from.height];
    pen.drawImage(from, 0, 0);
    const data = pen.getImageData(0, 0, to.width, to.height).data;
    let sum = 0, drawn = 0;
    for (let i = 0; i < data.length; i += 4) if (data[i + 3]) { drawn++; sum = (sum * 31 + i + data[i]) % 1000000007; }
    return [sum, drawn];
"""
HOSTILE = [
    b"<script>alert(1)</script>",
    b"</script><script>alert(2)</script>",
    b'"><img src=x onerror=alert(3)>',
    b"<!--",
    b"]]>",
    b"\xed\xa0\x80",  # half a surrogate pair
    b"\xe0\xa4",  # a torn character
    "\u2028".encode(),
    "\u200b\u200d".encode(),
    "\u202emirror\u202c".encode(),
    " بيت".encode(),
    " बिल्ली".encode(),
    b"$meta ${style}",
    b"<b>bold</b><a href='https://example.org'>away</a>",
    b"\x00\x1b[31m",
]


class Page:
    """An opened atlas, and what one does with it."""

    def __init__(self, driver, path):
        self.driver = driver
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self.resize(1280, 800)
        driver.get("about:blank")
        driver.get_log("browser"), driver.get_log("performance")  # what others left
        driver.get(path.as_uri())
        self.wait("document.documentElement.dataset.ready === 'true'")

    def js(self, script, *arguments):
        """The value of an expression; `a` are the arguments."""
        return self.driver.execute_script(f"const a = arguments; return ({script});", *arguments)

    def wait(self, script, *arguments, seconds=60):
        """Wait until an expression is true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.js(script, *arguments)):
            assert time.monotonic() < end, f"in {seconds} s never true: {script}\n{self.driver.get_log('browser')}"
            time.sleep(0.02)
        return found

    def resize(self, width, height):
        """Set the size of the view."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def spoken(self):
        """What a screen reader is given: role and name of all that the accessibility tree holds."""
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        shown = [node for node in nodes if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]

    def settle(self):
        """Wait for two pictures to be drawn."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def view(self, name):
        """Open a view and wait until its charts are there."""
        self.driver.find_element("id", f"tab-{name}").click()
        self.wait(
            "a[0] === 'space' || (document.querySelector(`#${a[0]} .card`) && "
            "[...document.querySelectorAll(`#${a[0]} .chart`)].every((one) => one.querySelector('.main-svg')))",
            name,
        )

    def search(self, text):
        """Type a search, and return the ids listed."""
        field = self.driver.find_element("id", "query")
        field.clear()
        field.send_keys(text)
        return self.js("[...document.querySelectorAll('#results li')].map((row) => Number(row.dataset.id))")

    def pixels(self):
        """A checksum and the number of drawn pixels of the map's points."""
        self.settle()
        return tuple(self.driver.execute_script(_PIXELS))

    def errors(self):
        """What the console complained of since the page was opened."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """Addresses that were asked for since the page was opened, but for the file itself and data in it."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("data:", "blob:", "about:", "file:"))]


def hostile(data: AtlasData) -> AtlasData:
    """The same atlas, its first tokens replaced by hostile ones, raw, and so all texts of its meta data."""
    V = data.meta["vocab_size"]
    pieces = (HOSTILE * (V // len(HOSTILE) + 1))[:V]
    labels, offsets = end_to_end(pieces)
    arrays = data.arrays | {
        "label_bytes": labels,
        "label_offsets": offsets,
        "token_bytes": labels,
        "token_offsets": offsets,
    }
    arrays["state"] = np.zeros(V, dtype=np.uint8)
    evil = HOSTILE[1].decode()
    script = dict.fromkeys([HOSTILE[0].decode(), HOSTILE[2].decode()], 2.0)
    meta = data.meta | {"title": evil, "scheme": evil, "notes": [evil, HOSTILE[2].decode()], "path": evil}
    meta |= {
        "scripts": [HOSTILE[2].decode()] * len(meta["scripts"]),
        "kinds": [HOSTILE[0].decode()] * len(meta["kinds"]),
    }
    meta |= {"order_example": {"first": evil, "second": "<!--"}, "bytes_per_token_by_script": script}
    return AtlasData(meta, arrays)
