"""``tokenspace train`` and ``tokenspace demo``."""

import shlex
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tokenspace.cli.atlas import write_atlas
from tokenspace.cli.flags import Config, Out, Sources, check_sources
from tokenspace.cli.show import in_first_process, output, print_rows, remarks
from tokenspace.errors import SettingError

if TYPE_CHECKING:
    from tokenspace.checkpoint import Run

_COMMON = 5  # times a token must occur to be shown as a neighbour: rarer ones have hardly moved


def train(
    *sources: Sources,
    out: Out | None = None,
    tokenizer: str | None = None,
    positions: str | None = None,
    optimizer: str | None = None,
    frames: int | None = None,
    config: Config = (),
    resume: Path | None = None,
    device: str = "auto",
    dtype: str | None = None,
    compile: Annotated[bool | None, Parameter(negative="")] = None,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> None:
    """Train token and position vectors on text.

    Sizes that are not given are chosen to suit the text, and said. On several GPUs or machines:
    torchrun --nproc-per-node N -m tokenspace train …

    Parameters
    ----------
    sources
        Files, folders, URLs, JSONL, Parquet, compressed or not; "-" for standard input; or one corpus folder.
    out
        The run folder to make. Default: the first free name under runs/.
    tokenizer
        gpt2 (the default), a tokenizer file, or train:8000 to learn a vocabulary of that size.
    positions
        How order enters the model: learned (the default), sinusoidal, rotary, alibi, t5, transformer_xl, none or
        another scheme of docs/positions; a name that is none lists them all.
    optimizer
        adamw, or rowwise for the same steps at the cost of the tokens seen. Default: rowwise where tie_head=false.
    frames
        How often on the way the tables are kept, for `tokenspace atlas` to play back. Default: 24.
    config
        A TOML file, or NAME=VALUE (steps=500, d_model=128, minutes=10); may be repeated, later ones win.
    resume
        A run folder to go on with, instead of sources.
    device
        auto, cpu, cuda or another of torch's devices.
    dtype
        float32 or bfloat16.
    compile
        Compile the model with torch.compile.
    encoding
        Of the text files.
    errors
        strict, or replace to go on after bytes that are no text in this encoding.
    """
    import tokenspace
    from tokenspace.cli.watch import TerminalWatcher

    check_sources(sources)
    if (resume is None) == (not sources):
        next_step = "Give a text file, or --resume RUN"
        raise SettingError("sources", "be given, or --resume", "both" if sources else "neither", next_step)
    if resume is not None:
        fixed = {"--out": out, "--positions": positions, "--optimizer": optimizer, "--config": config}
        fixed |= {"--frames": frames, "--dtype": dtype, "--compile": compile}
        given = [flag for flag, value in fixed.items() if value not in (None, ())]
        if given:
            next_step = "Leave it out; the run folder's config.toml holds the run's settings"
            raise SettingError(given[0], "not be given with --resume", "given", next_step)
        with TerminalWatcher() as watch:
            run = tokenspace.resume(resume, device=device, watch=watch)
    else:
        flags = {"positions": positions, "optimizer": optimizer, "frames": frames, "dtype": dtype, "compile": compile}
        settings = read_settings(config, **flags)
        with TerminalWatcher() as watch:
            run = tokenspace.train(
                sources,
                out=out,
                tokenizer=tokenizer,
                device=device,
                watch=watch,
                encoding=encoding,
                errors=errors,
                **settings,
            )
    print_end(run)


def demo(
    *,
    out: Out | None = None,
    tokenizer: str = "train:8000",
    positions: str | None = None,
    config: Config = (),
    device: str = "auto",
    dtype: str | None = None,
    compile: Annotated[bool | None, Parameter(negative="")] = None,
) -> None:
    """Train on prose that every Python carries, and make its atlas: some three minutes on two cores, no download.

    Parameters
    ----------
    out
        The run folder to make. Default: runs/demo, or the first free name after it.
    tokenizer
        train:8000, or gpt2 for the 50,257 tokens of GPT-2, of which this text uses some 15,000.
    positions
        How order enters the model: learned (the default), sinusoidal, rotary, alibi, t5, transformer_xl, none or
        another scheme of docs/positions; a name that is none lists them all.
    config
        A TOML file, or NAME=VALUE (steps=500, d_model=128, minutes=10); may be repeated.
    device
        auto, cpu, cuda or another of torch's devices.
    dtype
        float32 or bfloat16.
    compile
        Compile the model with torch.compile.
    """
    import tokenspace
    from tokenspace.cli.watch import TerminalWatcher
    from tokenspace.prose import documents

    settings = read_settings(config, positions=positions, dtype=dtype, compile=compile)
    remarks().print("reading the prose that comes with Python …")
    with TerminalWatcher() as watch:
        run = tokenspace.train(
            documents=list(documents()),
            out=out or tokenspace.training.free_path(Path("runs"), "demo"),
            tokenizer=tokenizer,
            device=device,
            watch=watch,
            **settings,
        )
    print_end(run)
    if run.step == run.config["training"]["steps"]:
        write_atlas(run, run.path / "atlas.html")
        output().print(f"\nSee the space: open {run.path / 'atlas.html'} in a browser.", soft_wrap=True)


def read_settings(config: tuple[str, ...], **flags: Any) -> dict[str, Any]:
    """Settings from TOML files and NAME=VALUE pairs, in order, then from the flags that were given.

    Raises:
        SettingError: a file cannot be read as TOML.
    """
    from tokenspace.training.config import OWNERS

    settings: dict[str, Any] = {}
    for item in config:
        try:
            found = _pair(item) if "=" in item else tomllib.loads(Path(item).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            next_step = f"Mend it, or give NAME=VALUE ({error})"
            raise SettingError("config", "be a TOML file that can be read", item, next_step) from error
        for table in OWNERS:  # flat, so that a later setting wins however it is written
            _add(settings, found.pop(table) if isinstance(found.get(table), dict) else {})
        _add(settings, found)
    return settings | {name: value for name, value in flags.items() if value is not None}


def _add(settings: dict[str, Any], found: dict[str, Any]) -> None:
    """Later settings win; tables, such as ``position_settings.theta=…``, are added to."""
    for name, value in found.items():
        known = settings.get(name)
        settings[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value


def _pair(item: str) -> dict[str, Any]:
    name, _, value = item.partition("=")
    try:
        return tomllib.loads(f"{name} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{name} = '{value}'")  # a bare word is text


def print_end(run: "Run") -> None:
    """What a training came to, and what to type next; of several processes one says it."""
    if not in_first_process():
        return
    console, path = output(), shlex.quote(str(run.path))
    steps = run.config["training"]["steps"]
    if run.step < steps:
        console.print(f"stopped at step {run.step} of {steps}; all of it is saved. Go on with:")
        console.print(f"  tokenspace train --resume {path}", soft_wrap=True)
        sys.exit(130)
    evaluations = [record for record in run.metrics if record["kind"] == "evaluation"]
    untrained, trained = evaluations[0], evaluations[-1]
    gain = trained["unigram_loss"] - trained["loss"]
    rows = [
        ["this model", f"{trained['loss']:.3f}"],
        ["smoothed unigram model of the training part", f"{trained['unigram_loss']:.3f}"],
        ["this model, untrained", f"{untrained['loss']:.3f}"],
    ]
    print_rows([f"on {trained['tokens']:,} validation tokens", "nats per token"], rows, "Loss")
    console.print(f"{abs(gain):.2f} nats {'better' if gain > 0 else 'worse'} than counting words.\n")
    _print_neighbours(run)
    console.print(f"The run is in {run.path}. What to type next:")
    for line in (
        f"tokenspace inspect {path}",
        f'tokenspace inspect tokens "the position of a token" {path}',
        f'tokenspace generate {path} --prompt "The "',
        f"tokenspace atlas {path}",
    ):
        console.print(f"  {line}", soft_wrap=True)


def _print_neighbours(run: "Run", number: int = 5, k: int = 5) -> None:
    """Nearest tokens of a few frequent words, before and after training."""
    import torch

    from tokenspace import inspection
    from tokenspace.training.parts import open_corpus

    corpus = open_corpus(run, "train")
    counts = corpus.counts()
    common = torch.from_numpy(counts >= _COMMON)
    tables = {"before": run.frame(0)["token.weight"], "after": run.embedding().token.weight}
    rows = []
    for token_id in inspection.frequent_words(counts, run.tokenizer, number):
        near = {
            when: inspection.neighbours(table.detach(), token_id, run.tokenizer, k, among=common).nearest
            for when, table in tables.items()
        }
        rows.append([run.tokenizer.label(token_id), *(" ".join(n.label for n in near[when]) for when in tables)])
    if rows:
        print_rows(["token", "nearest before training", "nearest after"], rows, "Neighbours by cosine")
