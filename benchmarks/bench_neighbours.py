"""The ten nearest of a token by exact cosine, of one and of a thousand, beside gensim's `most_similar`.

    pip install gensim
    python benchmarks/bench_neighbours.py

The table is 262,144×1,024 in float32, drawn at random, as `KeyedVectors` and as a tensor; gensim has its norms already.
gensim takes a token a call, so that a thousand are as many calls; a tenth of them is timed. Both must find the same.
"""

import statistics
import time

import numpy as np
import torch
from gensim.models import KeyedVectors

from timing import machine, markdown_row
from tokenspace.inspection import nearest_rows, neighbours

ROWS, WIDTH, BATCH, CALLS, ROUNDS = 262_144, 1024, 1000, 100, 5


def main():
    """Print the table."""
    print(machine() + "\n")
    table = torch.from_numpy(np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32))
    vectors = KeyedVectors(WIDTH)
    vectors.add_vectors([str(row) for row in range(ROWS)], table.numpy())
    vectors.fill_norms()
    asked = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))[:BATCH]
    seconds = {"one": [], "batch": [], "gensim": []}
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        one = [neighbours(table, token_id, None) for token_id in asked[:10].tolist()]
        seconds["one"].append((time.perf_counter() - begin) / len(one))
        begin = time.perf_counter()
        found = nearest_rows(table, 10, asked)
        seconds["batch"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        theirs = [[int(key) for key, _ in vectors.most_similar(str(row))] for row in asked[:CALLS].tolist()]
        seconds["gensim"].append((time.perf_counter() - begin) / CALLS)
    place = {row: n for n, row in enumerate(found.rows.tolist())}
    assert [found.nearest[place[row]].tolist() for row in asked[:CALLS].tolist()] == theirs
    assert [[near.id for near in result.nearest] for result in one] == theirs[:10]
    one, batch, gensim = (statistics.median(seconds[name]) for name in ("one", "batch", "gensim"))
    print("| neighbours among 262,144×1,024 | tokenspace | gensim | gensim / tokenspace |\n| --- | --- | --- | --- |")
    print(markdown_row("one token, ms", f"{one * 1e3:.0f}", f"{gensim * 1e3:.0f}", f"{gensim / one:.1f}"))
    shown = f"{batch:.1f}", f"{gensim * BATCH:.0f}", f"{gensim * BATCH / batch:.1f}"
    print(markdown_row("a batch of 1,000, s", *shown))


if __name__ == "__main__":
    main()
