"""The token table of a sharded model: opened by `open_tables`, by safetensors' `safe_open`, by transformers.

    python benchmarks/bench_models.py [GIB]

A Llama of GIB gibibytes (default 4) in 8 shards is written to the temporary folder first. Each way is a process of its
own that imports its libraries, then opens the model and reads 100 rows; timed is what comes after the imports. Memory
is the largest of the process, imports included. The files lie in the cache of the system.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from timing import machine, markdown_row

VOCAB, WIDTH, SHARDS, ROUNDS = 128_256, 2048, 8, 5
MEASURE = """
import resource, sys, time
import torch
{imports}
ids = torch.arange(0, 100_000, 1_000)
begin = time.perf_counter()
{work}
assert rows.shape == (100, 2048) and rows[1].float().std() > 0
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
BETWEEN = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
WAYS = {
    "`open_tables`, 100 rows": (
        "from tokenspace import open_tables",
        "rows = open_tables(sys.argv[1]).token.rows(ids)",
    ),
    "`open_tables`, whole table copied": (
        "from tokenspace import open_tables",
        "rows = open_tables(sys.argv[1]).token.tensor().clone()[ids]",
    ),
    "`safe_open` of the right shard, whole table": (
        "import json\nfrom safetensors import safe_open",
        "index = json.load(open(sys.argv[1] + '/model.safetensors.index.json'))['weight_map']\n"
        "name = 'model.embed_tokens.weight'\n"
        "with safe_open(sys.argv[1] + '/' + index[name], 'pt') as file: rows = file.get_tensor(name)[ids]",
    ),
    "`safe_open` of every shard, whole table": (
        "import glob\nfrom safetensors import safe_open",
        "for path in glob.glob(sys.argv[1] + '/*.safetensors'):\n"
        "    with safe_open(path, 'pt') as file:\n"
        "        if 'model.embed_tokens.weight' in file.keys():\n"
        "            rows = file.get_tensor('model.embed_tokens.weight')[ids]",
    ),
    "`LlamaForCausalLM.from_pretrained`": (
        "from transformers import LlamaForCausalLM",
        "rows = LlamaForCausalLM.from_pretrained(sys.argv[1]).get_input_embeddings().weight[ids]",
    ),
}


def write_model(folder: Path, gib: float) -> None:
    """A Llama in bfloat16, every matrix random where it is read and zero elsewhere."""
    width, inner = WIDTH, 8192
    matrices = {"q_proj": (width, width), "k_proj": (512, width), "v_proj": (512, width), "o_proj": (width, width)}
    mlp = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    shapes = {f"self_attn.{n}.weight": s for n, s in matrices.items()} | {f"mlp.{n}.weight": s for n, s in mlp.items()}
    shapes |= {"input_layernorm.weight": (width,), "post_attention_layernorm.weight": (width,)}
    layer_bytes = 2 * sum(torch.Size(shape).numel() for shape in shapes.values())
    layers = max(SHARDS, int((gib * 2**30 - 4 * VOCAB * width) / layer_bytes))
    named = [(f"model.layers.{n}.{name}", shape) for n in range(layers) for name, shape in shapes.items()]
    named += [("model.norm.weight", (width,)), ("lm_head.weight", (VOCAB, width))]
    weight_map = {}
    for shard in range(SHARDS):
        tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in named[shard::SHARDS]}
        if shard == 3:
            tensors["model.embed_tokens.weight"] = torch.randn(VOCAB, width).bfloat16()
        file = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    sizes = {"hidden_size": width, "intermediate_size": inner, "vocab_size": VOCAB, "num_hidden_layers": layers}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192}
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps({**kind, **sizes, **heads, "dtype": "bfloat16"}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def measure(way: str, folder: Path) -> tuple[float, float]:
    """Seconds and mebibytes: the medians, of time and of memory."""
    imports, work = WAYS[way]
    command = [sys.executable, "-c", BETWEEN, sys.executable, "-c", MEASURE.format(imports=imports, work=work), folder]
    runs = []
    for _ in range(ROUNDS):
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
        runs.append(tuple(map(float, done.stdout.split()[-2:])))
    return tuple(sorted(values)[ROUNDS // 2] for values in zip(*runs, strict=True))


def main() -> None:
    """Print the table."""
    gib = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    print(machine())
    table = f"{VOCAB:,} × {WIDTH} rows of bfloat16"
    print(f"\nA Llama of {gib:g} GiB in {SHARDS} shards, {table}; median of {ROUNDS} processes.\n")
    print(markdown_row("way", "ms", "MiB at most"))
    print(markdown_row("---", "---", "---"))
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), gib)
        for way in WAYS:
            seconds, memory = measure(way, Path(folder))
            print(markdown_row(way, seconds * 1000, round(memory)))


if __name__ == "__main__":
    main()
