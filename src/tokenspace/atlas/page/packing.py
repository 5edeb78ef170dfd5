"""Arrays as text that a page can carry: small, and nothing in it can end a script element.

An array becomes little-endian bytes, the first bytes of all its numbers, then the second ones and
so on (planes; high bytes are much alike), deflated, in base64. Frames are stored as differences to the frame before.
`data.js` reads it back.
"""

import base64
import json
import zlib
from typing import Any

import numpy as np

_LEVEL = 6  # of zlib; 9 takes four times as long for a hundredth


def pack(name: str, array: np.ndarray) -> tuple[dict[str, Any], str]:
    """What `data.js` has to know of an array, and its text.

    Example:
        >>> fields, text = pack("norm", np.array([1.0, 2.0], dtype=np.float32))
        >>> fields
        {'name': 'norm', 'dtype': 'float32', 'shape': [2], 'differences': False}
    """
    differences = name == "xy"
    if differences:  # wraps around, and back again in the page
        array = np.concatenate([array[:1], np.diff(array, axis=0)])
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    planes = little.reshape(-1).view(np.uint8).reshape(-1, little.dtype.itemsize).T
    fields = {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "differences": differences}
    return fields, pack_bytes(planes.tobytes())


def pack_bytes(data: bytes) -> str:
    """Bytes, deflated, in base64."""
    return base64.b64encode(zlib.compress(data, _LEVEL)).decode("ascii")


def pack_json(value: Any) -> str:
    r"""JSON that can stand in a script element: without ``<``, ``>``, ``&`` and the two line ends JavaScript has more.

    Example:
        >>> print(pack_json("</script>"))
        "\u003c/script\u003e"
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
