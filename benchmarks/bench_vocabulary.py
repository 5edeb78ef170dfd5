"""Vocabularies edited: a live model of 50,257×768 and its AdamW; a folder of 152,000×4,096 beside copying it.

The folder's tokenizer is made up: byte pairs and triples. Copying is `shutil.copyfile` and fsync,
as an edit does both. Needs 3 GB of disk; the live part, run first, some 1.5 GB of memory.
"""

import json
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch

from timing import machine, markdown_row
from tokenspace import LanguageModel, Tokenizer, vocabulary
from tokenspace.tokenizer.token_bytes import byte_alphabet
from tokenspace.vocabulary.writing import Entry, write_tensors

ROWS, WIDTH, KEPT = 152_000, 4096, 32_000


def peak_mib():
    """The most memory this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def live():
    """Time and memory of live edits."""
    print("| live, 50,257×768 with AdamW's moments | s | MiB beyond the peak of all before |")
    print("| --- | --- | --- |")
    tokenizer = Tokenizer.gpt2()
    texts = [Path(os.__file__).read_text(encoding="utf-8")]
    edits = {
        "grow by 47 tokens to 50,304 rows": vocabulary.Add([f"<|{n}|>" for n in range(47)], special=True),
        "grow by 1,000 tokens, normal": vocabulary.Add([f"<|{n}|>" for n in range(1000)], init="normal"),
        "trim to the tokens of one source file": vocabulary.Trim(texts),
    }
    for name, change in edits.items():
        model = LanguageModel(vocab_size=50257, d_model=768, num_layers=1, num_heads=12, context_length=64)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        model(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        before, begin = peak_mib(), time.perf_counter()
        vocabulary.apply(change, model, tokenizer, carry=[optimizer])
        seconds = time.perf_counter() - begin
        print(markdown_row(name, f"{seconds:.2f}", f"{peak_mib() - before:,.0f}"), flush=True)


def made_up_tokenizer():
    """The text of a tokenizer.json of so many tokens."""
    letters = byte_alphabet()
    merges = [(a, b) for a in letters for b in letters]
    merges += [(a + b, c) for a in letters[:60] for b in letters[:60] for c in letters[:60]]
    merges = merges[: ROWS - 256]
    tokens = [*letters, *(a + b for a, b in merges)]
    model = {"type": "BPE", "vocab": {token: n for n, token in enumerate(tokens)}, "merges": [list(m) for m in merges]}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    settings = {"version": "1.0", "added_tokens": [], "model": model, "pre_tokenizer": byte_level}
    return json.dumps({**settings, "decoder": byte_level, "normalizer": None, "post_processor": None})


def on_disk(folder):
    """Time of a trim beside copying."""
    old = folder / "old"
    old.mkdir()
    table = torch.empty(ROWS, WIDTH, dtype=torch.bfloat16).normal_()
    norm = Entry.of(torch.ones(WIDTH, dtype=torch.bfloat16))
    entries = {"model.embed_tokens.weight": Entry.of(table), "model.norm.weight": norm}
    write_tensors(old / "model.safetensors", entries, {"format": "pt"})
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True}
    config |= {"vocab_size": ROWS, "hidden_size": WIDTH, "num_attention_heads": 32}
    (old / "config.json").write_text(json.dumps(config))
    (old / "tokenizer.json").write_text(made_up_tokenizer(), encoding="utf-8")
    del table, entries
    keep = random.Random(0).sample(range(256, 256 + 65_536), KEPT - 256)
    took = {"trim": [], "copy": []}
    for n in range(4):
        for name in sorted(took, reverse=bool(n % 2)):
            begin = time.perf_counter()
            if name == "trim":
                receipt = vocabulary.edit_model(old, folder / "new", vocabulary.Trim(keep=keep))
            else:
                (folder / "new").mkdir()
                shutil.copyfile(old / "model.safetensors", folder / "new" / "model.safetensors")
                with (folder / "new" / "model.safetensors").open("rb+") as file:
                    os.fsync(file.fileno())
            took[name].append(time.perf_counter() - begin)
            shutil.rmtree(folder / "new")
    trim, copy = (statistics.median(took[name][1:]) for name in ("trim", "copy"))
    print(f"\n| on disk, {ROWS:,}×{WIDTH:,} bfloat16 to {receipt.after.num_rows:,} rows | s |\n| --- | --- |")
    print(markdown_row("trim", f"{trim:.2f}"))
    print(markdown_row("copying the file", f"{copy:.2f}"))
    print(markdown_row("trim / copying", f"{trim / copy:.2f}"))


def main():
    """Print both."""
    torch.set_num_threads(1)
    print(machine() + "\n")
    live()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        on_disk(Path(folder))


if __name__ == "__main__":
    main()
