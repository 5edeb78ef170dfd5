"""How long an atlas takes and how large its page is: a run with 50,257 × 768, and one with 262,144 × 256.

python benchmarks/bench_atlas.py [FOLDER]

The runs are trained for 24 steps, so their tables are nearly random: the hardest to compress. FOLDER keeps them.
"""

import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import tokenizers

import tokenspace
from timing import machine, markdown_row
from tokenspace.atlas import Atlas
from tokenspace.prose import documents

STEPS = 24
SYLLABLES = {
    "Latin": "ba ke li mo nu ra si to ve wa",
    "Cyrillic": "ба ке ли мо ну ра си то ве за",
    "Devanagari": "का कि मे लो ना रु सी तो वे या",
}


def large_vocabulary(number: int, path: Path) -> Path:
    """A tokenizer file of words drawn from syllables of three scripts."""
    draw, words = random.Random(0), {}
    while len(words) < number - 1:
        syllables = SYLLABLES[draw.choice(sorted(SYLLABLES))].split()
        word = "".join(draw.choice(syllables) for _ in range(draw.randint(2, 6)))
        words[draw.choice(["▁", ""]) + word] = -draw.uniform(5, 15)
    model = tokenizers.models.Unigram([("<unk>", 0.0), *words.items()], unk_id=0)
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.decoder = tokenizers.decoders.Metaspace()
    library.save(str(path))
    return path


def words_of(path: Path, number: int) -> str:
    """A text of the vocabulary's own words."""
    draw = random.Random(1)
    known = sorted(word for word in tokenizers.Tokenizer.from_file(str(path)).get_vocab() if word.startswith("▁"))
    return " ".join(draw.choice(known[:50_000])[1:] for _ in range(number))


def make_run(path: Path, vocab_size: int, d_model: int) -> Path:
    """Train for a few steps, unless the run is there already."""
    if path.exists():
        return path
    settings = {"d_model": d_model, "num_layers": 1, "num_heads": 4, "context_length": 128, "steps": STEPS}
    if vocab_size == 50_257:
        texts, tokenizer = list(documents()), "gpt2"
    else:
        tokenizer = large_vocabulary(vocab_size, path.parent / "vocabulary.json")
        texts = [words_of(tokenizer, 200_000)]
    tokenspace.train(documents=texts, out=path, tokenizer=tokenizer, batch_size=8, evaluate_every=STEPS, **settings)
    return path


def measure(path: Path) -> tuple[dict[str, float], float, float, float]:
    """Seconds of each part, of all, those that the cores worked in all, and megabytes of the page."""
    begun, worked = [("", time.perf_counter())], time.process_time()

    def watch(task: str, done: int, total: int) -> None:
        if task != begun[-1][0]:
            begun.append((task, time.perf_counter()))

    with tempfile.TemporaryDirectory() as folder:
        made, out = Atlas.of(path, progress=watch), Path(folder) / "atlas.html"
        watch("page", 0, 1)
        made.save(out)
        watch("", 0, 1)
        size = out.stat().st_size / 1e6
    parts = {task: end - start for (task, start), (_, end) in pairwise(begun) if task}
    return parts, begun[-1][1] - begun[0][1], time.process_time() - worked, size


def main() -> None:
    """Print the table."""
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = {}
        for vocab_size, d_model in ((50_257, 768), (262_144, 256)):
            name = f"{vocab_size:,} × {d_model}"
            rows[name] = measure(make_run(folder / f"run-{vocab_size}", vocab_size, d_model))
    print(markdown_row("table", *rows))
    print(markdown_row(*["---"] * (1 + len(rows))))
    for part in next(iter(rows.values()))[0]:
        print(markdown_row(f"{part}, s", *(f"{parts[part]:.1f}" for parts, *_ in rows.values())))
    for number, name in ((1, "all of it, s"), (2, "of the cores' time, s"), (3, "page, MB")):
        print(markdown_row(name, *(f"{row[number]:.1f}" for row in rows.values())))


if __name__ == "__main__":
    main()
