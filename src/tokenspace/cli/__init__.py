"""The command line: verbs, one file for each family of them.

The only room that prints. Data goes to stdout, progress and remarks to stderr. A mistake
of the user's is one line on stderr and exit status 2; anything else keeps its traceback.
"""

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from tokenspace import __version__
from tokenspace.cli import atlas, compare, corpus, inspect, model, train, vocab
from tokenspace.cli.flags import unrounded
from tokenspace.cli.show import in_first_process
from tokenspace.cli.verify import verify
from tokenspace.errors import ProcessError, TokenspaceError

app = App(
    name="tokenspace",
    help="Text in, trained token and position vectors out; everything between exact, fast and visible.",
    version=__version__,
    help_epilogue="Begin with: tokenspace demo",
    default_parameter=Parameter(converter=unrounded),
)
app.command(train.demo)
app.command(train.train)
app.command(compare.compare)
app.command(model.generate)
app.command(inspect.app)
app.command(atlas.atlas)
app.command(model.export)
app.command(verify)
app.command(vocab.app)
app.command(corpus.app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    # Large pages for torch's CPU memory (Linux): fresh logits every step otherwise cost more in page
    # faults than in arithmetic. With 50,257 tokens a training step takes 0.4 of the time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Windows gives a pipe a code page that lacks most scripts
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # half surrogates: names of files
    errors = Console(stderr=True)
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except TokenspaceError as error:
        if in_first_process() or isinstance(error, ProcessError):  # another kind is what all processes find
            errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except CycloptsError as error:
        if in_first_process():
            errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            errors.print("Add --help to see what the verb takes.", markup=False, highlight=False)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # `| head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        name, why = error.filename or "a file", error.strerror or str(error)
        line = TokenspaceError(str(name), "be open to what was asked", why, "Check the path and its rights")
        errors.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        if in_first_process():
            errors.print("stopped", markup=False, highlight=False)
        sys.exit(130)
