"""``tokenspace generate`` and ``tokenspace export``."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tokenspace.cli.flags import Json, Out
from tokenspace.cli.show import print_json, remarks


def generate(
    run: str,
    /,
    *,
    prompt: str = "",
    tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = 50,
    seed: int | None = None,
    json: Json = False,
) -> None:
    """Write on from a prompt with a trained model.

    Parameters
    ----------
    run
        A run; or the folder of a GPT-2, or its name in the local Hugging Face cache.
    prompt
        The text to begin with; without one, a new document begins.
    tokens
        How many to add at most.
    temperature
        0 takes the most probable token every time.
    top_k
        Choose among so many most probable tokens.
    seed
        The same seed gives the same text.
    json
        Print {"prompt", "text", "token_ids"} when done.
    """
    from tokenspace import Run

    opened = Run.open(run)
    tokenizer, model = opened.tokenizer, opened.model()
    prompt_ids = tokenizer.encode(prompt)
    if not prompt_ids and tokenizer.eot_id is not None:
        prompt_ids = [tokenizer.eot_id]
    new_ids: list[int] = []
    shown = prompt
    stream = model.generate(
        prompt_ids, tokens, temperature=temperature, top_k=top_k, seed=seed, stop_id=tokenizer.eot_id
    )
    if not json:
        sys.stdout.write(prompt)
    for token_id in stream:
        new_ids.append(token_id)
        if json:
            continue
        text = prompt + tokenizer.decode(new_ids)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character still lacks bytes
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
    text = tokenizer.decode(new_ids)
    if json:
        print_json({"prompt": prompt, "text": text, "token_ids": new_ids})
    else:
        sys.stdout.write((prompt + text)[len(shown) :] + "\n")  # with a character that never got its last bytes


def export(
    model: str,
    /,
    *,
    out: Out,
    format: Literal["hf", "safetensors", "word2vec", "npy", "parquet"] = "hf",
    lossy: Annotated[bool, Parameter(negative="")] = False,
    table: str | None = None,
) -> None:
    """Write a model in a form that other tools open; what the form cannot hold is refused by name.

    Parameters
    ----------
    model
        A run; for all forms but hf also a model folder, a file of vectors, or a name in the local Hugging Face cache.
    out
        The folder or file to make.
    format
        hf: a folder that transformers' GPT2LMHeadModel opens, for learned positions, else one of a layout of its own.
        safetensors: tables, positions, head and tokenizer in one file. word2vec: text, a line a token. npy: the token
        table. parquet: the same as safetensors, with a row for each token (label, vector, projection, ledger), which
        embedding-atlas opens.
    lossy
        Leave out what the form cannot hold.
    table
        Name of the token table's tensor, where it cannot be found by itself.
    """
    if format == "parquet":
        _export_parquet(model, out, lossy, table)
        return
    from tokenspace import export as write

    write(model, out, format=format, lossy=lossy, table=table)
    name = repr(str(out))
    opens = {
        "hf": f"transformers.GPT2LMHeadModel.from_pretrained({name})",
        "safetensors": f"tokenspace.InputEmbedding.from_pretrained({name})",
        "word2vec": f"gensim.models.KeyedVectors.load_word2vec_format({name})",
        "npy": f"numpy.load({name}, mmap_mode='r')",
    }
    own_layout = format == "hf" and '"tokenspace"' in (out / "config.json").read_text(encoding="utf-8")
    remarks().print(f"written to {out}; open it with {f'tokenspace.Run.open({name})' if own_layout else opens[format]}")


def _export_parquet(model: str, out: Path, lossy: bool, table: str | None) -> None:
    from tokenspace import Run
    from tokenspace.atlas import export_parquet
    from tokenspace.cli.bars import Bars

    with Bars() as bars:
        export_parquet(Run.open(model, table=table), out, lossy=lossy, progress=bars)
    command = f"embedding-atlas {shlex.quote(str(out))} --text token --x x --y y --neighbors neighbors"
    remarks().print(f"written to {out}; open it with `{command}`", soft_wrap=True)
