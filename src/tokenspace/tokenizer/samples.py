"""Texts on which two encoders have to agree before the faster one is trusted."""

import random
from collections.abc import Sequence

_ENGLISH = (
    "It's what they'd said: WE'LL see, won't we? I've 3 cats, 14 dogs and 1,234,567.89 stars — naïve café, Zoë's "
    "co-operation; “quotes”, e.g. 'em... and so on (etc.)!  Two spaces.   Three. www.example.org/a_b?c=d&e=%20 x@y.zz "
)
_DEVANAGARI = "बिल्ली चटाई पर बैठी। क्षत्रिय, श्रीमान् जी—१२३ रुपये; रहिमन धागा प्रेम का, मत तोड़ो चटकाय॥ क\u200dष क\u200cष ज़"
_CODE = (
    "def f(x: int) -> None:\n\tif x != 0x1F:\n        return {'a': [1, 2.5e-3], \"b\": None}  # why?\n\n\n"
    "for(int i=0;i<10;++i){printf(\"%d\\n\", arr[i]);}\r\n\r\n<div class='x'>&nbsp;</div>\n    \n  end  \n"
)
_SCRIPTS = (
    "Привет, мир! Ελληνικά Ἀθῆναι 你好，世界。これはテストです 한국어 العربيّة עִבְרִית தமிழ் ไทย Tiếng Việt İstanbul "
    "ǅ ﬁ ½ Ⅷ ² e\u0301 \u00e9 A\u030a \u212b \u0915\u093c \u0958 \u1112\u1161\u11ab"
)
_EMOJI = "😀👍🏽 👨‍👩‍👧‍👦 🇮🇳❤️ ©™ \ufeff\u00a0\u2003\u2028x\u3000\u0085\x00\x1c\x7f"
_SPACES = ("\n", " ", "  ", "\t", "\r\n", "\n\n ", "\u00a0", "")
_TAILS = ("'s", "'S", "'ll", "'t", "’re", "don't", "''d", "_", "1", "x", "é", "में", "!", "-")


def sample_texts(added_tokens: Sequence[str] = ()) -> list[str]:
    """Short texts of many kinds: scripts, code, white space, contractions, long runs, random Unicode, added tokens.

    Args:
        added_tokens: The tokens matched in the text itself; at most some hundred of them are tried.

    Example:
        >>> texts = sample_texts(["<|endoftext|>"])
        >>> len(texts) > 10, texts == sample_texts(["<|endoftext|>"])
        (True, True)
    """
    draw = random.Random(0)  # the same texts each time
    mixes = "".join(draw.choice(_TAILS) + draw.choice(_SPACES) for _ in range(600))
    code_points = [
        draw.randrange(2**16) if draw.random() < 0.8 else draw.randrange(2**16, 0x110000) for _ in range(600)
    ]
    anything = "".join(chr(point) for point in code_points if not 0xD800 <= point < 0xE000)
    runs = ["a" * 2000, " " * 2000 + "x", "\n" * 500, "ab" * 500, "9" * 500, "!?" * 300, "क" * 300, "की" * 300]
    every = added_tokens[:: len(added_tokens) // 100 + 1]
    added = ["".join(f"a {token}{token} b{token}c\n{token} \t{token}," for token in every)]
    prose = [_ENGLISH, _DEVANAGARI, _CODE, _SCRIPTS, _EMOJI]
    return ["", " ", "a", *prose, *(f" {text}" for text in prose), mixes, anything, *runs, *added]
