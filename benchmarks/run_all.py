"""Runs every benchmark of this folder and writes what they print to RESULTS.md.

    python benchmarks/run_all.py [FILE ...]

The files are further texts for the benchmarks that take texts. Each benchmark is a process of
its own; what one prints is a Markdown table, and its docstring says how it measures.
"""

import ast
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
TAKES_TEXTS = {"bench_encode.py", "bench_corpus.py"}


def main(texts: list[str]) -> None:
    """Run them all; the file is replaced at the end."""
    machine = f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    parts = [
        f"# Measured\n\n{datetime.date.today()}, {machine}.\n\nMade by `make bench`; ratios are medians over pairs."
    ]
    for script in sorted(FOLDER.glob("bench_*.py")):
        print(f"{script.name} …", file=sys.stderr, flush=True)
        command = [sys.executable, str(script), *(texts if script.name in TAKES_TEXTS else ())]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8").stdout
        print(printed, flush=True)
        title = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))).splitlines()[0]
        parts.append(f"## {script.name}\n\n{title}\n\n{printed.strip()}")
    (FOLDER / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
