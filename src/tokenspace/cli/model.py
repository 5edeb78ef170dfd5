"""``tokenspace generate`` and ``tokenspace export``."""

import shlex
import sys
from pathlib import Path
from typing import Literal

from tokenspace.cli.flags import Json, Out
from tokenspace.cli.show import print_json, remarks


def generate(
    run: Path,
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
        The run folder.
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


def export(run: Path, /, *, out: Out, format: Literal["hf", "parquet"] = "hf") -> None:
    """Write a run in a form that other tools open.

    Parameters
    ----------
    run
        The run folder; for parquet also a folder of a GPT-2 that transformers saved.
    out
        The folder to make, or the file.
    format
        hf: a folder that transformers' GPT2LMHeadModel opens, for models with learned positions. parquet: a file
        with a row for each token (label, vector, projection, ledger) that embedding-atlas opens.
    """
    if format == "parquet":
        from tokenspace.atlas import export_parquet
        from tokenspace.cli.bars import Bars

        with Bars() as bars:
            export_parquet(run, out, progress=bars)
        command = f"embedding-atlas {shlex.quote(str(out))} --text token --x x --y y --neighbors neighbors"
        remarks().print(f"written to {out}; open it with `{command}`", soft_wrap=True)
        return
    from tokenspace import Run
    from tokenspace.model.gpt2 import save_gpt2

    opened = Run.open(run)
    save_gpt2(opened.model(), out, opened.tokenizer)
    remarks().print(f"written to {out}; open it with transformers.GPT2LMHeadModel.from_pretrained({str(out)!r})")
